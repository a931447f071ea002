"""The photos that were scanned: where they come from, the stream through steps 1 and 2, and what was found in each (SQLite)."""
