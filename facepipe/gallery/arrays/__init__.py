"""The gallery as arrays that are searched, and the files derived from the database that make opening fast."""
