"""Files on disk: written whole or not at all, never written over what is not ours, and lists that people make."""
