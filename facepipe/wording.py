"""Counts in sentences."""


def plural(count: int, word: str, words: str | None = None) -> str:
    """Return a count with its word: `1 photo`, `2,000 photos`; words: the plural where it is not the word with an s."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter: `8.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
