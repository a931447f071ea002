"""Keeps a gallery right: audit of its labels, check and repair of its files, salvage of what is intact."""
