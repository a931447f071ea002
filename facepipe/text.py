"""Text as people read it: names and paths in one line that shows everything, counts and durations."""

from __future__ import annotations

import json
import os
import re
import unicodedata


def plural(count: int, word: str, words: str | None = None) -> str:
    """Return a count with its word: `1 photo`, `2,000 photos`; words: the plural where it is not the word with an s."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def files(count: int, videos: int | None = 0) -> str:
    """Return how many photos and videos there are: `2 photos, 1 video`. videos: so many of them; None: some, `3 files`."""
    if videos is None:
        return plural(count, "file")
    kinds = [plural(count - videos, "photo")] if count > videos or not count else []
    return ", ".join([*kinds, plural(videos, "video")] if videos else kinds)


def duration(seconds: float) -> str:
    """Return a time span in the two units that matter: `8.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """Return a place in a video as players show it: `0:07`, `12:05`, `1:02:03`; whole seconds that are over."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


#: Drawn as nothing, though Unicode calls them letters, marks or symbols: fillers, a joiner of graphemes, an empty Braille cell.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")


#: Scripts in whose words the zero-width joiner and non-joiner are spelling.
_JOINING = re.compile(
    "ARABIC|BENGALI|DEVANAGARI|GUJARATI|GURMUKHI|KANNADA|KHMER|MALAYALAM|MONGOLIAN|MYANMAR|NKO|ORIYA|SINHALA|SYRIAC|TAMIL"
    "|TELUGU|TIBETAN"
)


def printable(text: str | os.PathLike[str]) -> str:
    """Return a path or name as one line that shows everything that is in it.

    What a terminal acts on or cannot be seen (control characters, marks that turn the direction of text, zero-width
    characters, undecodable bytes) becomes the escape that JSON has for it, so that a line of JSON still means the same.
    Zero-width joiners stay where a script or an emoji needs them.
    """
    text = os.fspath(text)
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    before = ""  # the character before, where that is shown as it is
    for char, after in zip(text, [*text[1:], ""], strict=True):
        seen = _is_seen(before, char, after)
        shown.append(char if seen else json.dumps(char)[1:-1])
        before = char if seen else ""
    return "".join(shown)


def without_path(reason: str, path: str | os.PathLike[str]) -> str:
    """Return an error's message without the path that it begins with, for where that stands beside it."""
    return reason.removeprefix(f"{printable(path)}: ")


#: How URLs begin, chains of them too; a path that is made of one has one slash.
_URL = re.compile(r"([a-z][a-z0-9+.-]+::?)+/", re.IGNORECASE)


def is_url_like(name: str) -> bool:
    """Say whether a name begins as URLs do."""
    return _URL.match(name) is not None and "://" in name


def no_such(name: str | os.PathLike[str], what: str = "file") -> str:
    """Say in a line that there is no such file. Of a URL that may hold a password its beginning is shown alone."""
    name = os.fspath(name)
    if (url := _URL.match(name)) is None:
        return f"{printable(name)}: no such {what}; check the path"
    shown = f"{url[1]}//..." if "@" in name or "?" in name else printable(name)
    readers = "batch, scan, identify, detect, verify and explain"
    return f"{shown}: is a URL; only photos may be at URLs, of {readers}, and only at s3://, gs:// and az://"


def _is_seen(before: str, char: str, after: str) -> bool:
    if char in "\u200c\u200d":
        return _takes_joiner(before) and after != "\ufe0f" and _takes_joiner(after)
    if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":  # another shape of what stands before
        return before != "" and (unicodedata.category(before) == "So" or before >= "\u2e80")
    return char.isprintable() and char not in _BLANK


def _takes_joiner(char: str) -> bool:
    """Say whether a zero-width joiner beside this character changes what is seen."""
    if not char:
        return False
    return (
        char == "\ufe0f"
        or unicodedata.category(char) in {"So", "Sk"}
        or _JOINING.match(unicodedata.name(char, "")) is not None
    )
