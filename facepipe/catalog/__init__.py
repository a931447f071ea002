"""Many photos: where they come from, the stream through the four steps, the ledger that remembers, and the job as a whole."""
