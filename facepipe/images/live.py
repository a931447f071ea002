"""Live photos: a still and a movie of the same name, of a second before and after it. The still is the photo."""

from __future__ import annotations

import mmap
import re

from facepipe.images.containers import FileWindow, boxes
from facepipe.images.reading import open_at_once

MOVIES = frozenset({".mov", ".mp4"})
#: Seconds of a live photo's movie, and a little more.
_LONGEST = 5.0
#: Bytes of a movie's index that are looked at; those of a few seconds have some ten thousand.
_MOST = 4 << 20
#: Apple writes the same number into both: in the movie under a key, in the still among the maker's notes.
_KEY = b"com.apple.quicktime.content.identifier"
_NOTES = re.compile(rb"Apple iOS\0.{0,65536}", re.DOTALL)
_NUMBER = re.compile(rb"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}")


def is_live_movie(movie: str, still: str) -> bool:
    """Say whether a movie belongs to the still of the same name: both have the same number, or one has none and it is short."""
    try:
        with open(movie, "rb", opener=open_at_once) as file:
            window = FileWindow(file)
            found = (
                window[start : min(end, start + _MOST)]
                for kind, start, end in boxes(window, 0, len(window))
                if kind == b"moov"
            )
            index = next(found, b"")
        seconds = _seconds(index)
        numbers = set(_NUMBER.findall(index)) if _KEY in index else set()
        if numbers:
            with (
                open(still, "rb", opener=open_at_once) as file,
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data,
            ):
                notes = _NOTES.search(data)
                others = set(_NUMBER.findall(notes[0])) if notes else set()
            if others:
                return bool(numbers & others)
    except (OSError, ValueError):
        return False
    return 0.0 < seconds <= _LONGEST


def _seconds(index: bytes) -> float:
    """Return how long a movie is, as its header says; 0 where there is none."""
    for kind, start, _ in boxes(index, 0, len(index)):
        if kind == b"mvhd":
            size = 8 if index[start : start + 1] == b"\1" else 4
            place = start + 4 + 2 * size  # after version, flags and two dates
            unit = int.from_bytes(index[place : place + 4])
            return int.from_bytes(index[place + 4 : place + 4 + size]) / unit if unit else 0.0
    return 0.0
