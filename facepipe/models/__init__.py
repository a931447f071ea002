"""Network definitions and the registry of their weights."""
