"""The gallery's database on disk: tables, transactions, checksums, encryption, the writer's lock."""
