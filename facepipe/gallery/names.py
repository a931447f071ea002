"""People's names in one form."""

from __future__ import annotations

import difflib
import os
import shlex
import unicodedata
from collections.abc import Iterable

from facepipe.errors import UsageError
from facepipe.text import printable

#: Names that a misspelt one is compared with at most.
_COMPARED = 10_000


def gallery_command(folder: str | os.PathLike[str], *words: object) -> str:
    """Return a `facepipe gallery` command that can be copied into a shell, whatever folder that is in."""
    return shlex.join(["facepipe", "gallery", *map(str, words), "--gallery", os.fspath(folder)])


def look_alike(name: str) -> str:
    """Return what is equal for names that a reader may take for one: they differ in case, in blanks, or as \u00df and ss do."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def meant(name: str, names: Iterable[str]) -> str:
    """Return which of these names is meant: the same, else the only one that differs in case or blanks alone; else itself."""
    wanted, same = look_alike(name), set(names)
    alike = [other for other in same if look_alike(other) == wanted]
    return name if name in same or len(alike) != 1 else alike[0]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question for the end of a message that nobody has a name, empty when no name is like it."""
    by_look: dict[str, list[str]] = {}
    for other in names:
        by_look.setdefault(look_alike(other), []).append(other)
    close = difflib.get_close_matches(look_alike(name), list(by_look)[:_COMPARED], n=2, cutoff=0.8)
    found = [other for look in close for other in sorted(by_look[look])][:3]
    return f"; did you mean {' or '.join(repr(printable(other)) for other in found)}?" if found else ""


def normal_name(name: str) -> str:
    """Return a person's name in the form in which names are compared: NFC without outer blanks.

    UsageError when it cannot be a name: a line break at its end is a mistake, not a blank.
    """
    cleaned = unicodedata.normalize("NFC", name).strip()
    if not cleaned or len(cleaned) > 200 or any(unicodedata.category(c) in {"Cc", "Cs"} for c in name):
        raise UsageError(f"'{printable(name[:200])}' is not a name: give 1 to 200 printable characters")
    return cleaned


def new_name(name: str) -> str:
    """Return a name that is to be given to somebody, in its normal form; other blanks become plain ones.

    UsageError when it cannot be a name, or holds what nobody can see: two people would look the same in every list.
    """
    cleaned = normal_name("".join(" " if unicodedata.category(char) == "Zs" else char for char in name))
    shown = printable(cleaned)
    if shown != cleaned:
        raise UsageError(f"'{shown}' is not a name: it holds invisible characters (the escapes): give it without them")
    return cleaned
