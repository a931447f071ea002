"""People's names in one form."""

from __future__ import annotations

import os
import shlex
import unicodedata

from facepipe.errors import UsageError
from facepipe.text import printable


def gallery_command(folder: str | os.PathLike[str], *words: object) -> str:
    """Return a `facepipe gallery` command that can be copied into a shell, whatever folder that is in."""
    return shlex.join(["facepipe", "gallery", *map(str, words), "--gallery", os.fspath(folder)])


def look_alike(name: str) -> str:
    """Return what is equal for names that a reader may take for one: they differ in case, in blanks, or as \u00df and ss do."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


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
