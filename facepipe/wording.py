"""Counts in sentences."""


def plural(count: int, word: str, words: str | None = None) -> str:
    """Return a count with its word: `1 photo`, `2,000 photos`; words: the plural where it is not the word with an s."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"
