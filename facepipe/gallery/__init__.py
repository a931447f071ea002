"""The repository of enrolled faces on disk: SQLite as the truth, everything else derived from it."""
