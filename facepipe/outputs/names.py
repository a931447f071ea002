"""Names of files and folders that are made from names of people and photos: safe, short, and never the same for two."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

#: What no file system that people use allows in a name, control characters, and what hides or leaves a folder.
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

_MAX_BYTES = 100


def safe_name(name: str) -> str:
    """Return a file name for any text: the text itself when it is harmless, else a cleaned one with a hash of the text.

    The hash keeps two names apart that become equal when they are cleaned. At most 100 bytes of UTF-8.
    """
    text = unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode("utf-8"))
    clean = _UNSAFE.sub("_", "".join(char if char.isprintable() and _fits(char) else "_" for char in text)).strip(" .")
    clean = clean.encode()[:_MAX_BYTES].decode("utf-8", "ignore").strip(" .")
    if clean and clean == name and not _RESERVED.fullmatch(clean):
        return clean
    kept = clean.encode()[: _MAX_BYTES - 9].decode("utf-8", "ignore").strip(" .") or "_"
    return f"{kept}-{short_hash(name)}"


def _fits(char: str) -> bool:
    """Say whether a character may stand in the name of a file here: in a locale without UTF-8 many may not."""
    try:
        os.fsencode(char)
    except UnicodeEncodeError:
        return False
    return True


def output_stem(path: str | os.PathLike[str]) -> str:
    """Return the stem for files made from a photo: its own stem and a hash of its path.

    The same photo has the same stem in every run, and `a/1.jpg` another than `b/1.jpg`.
    """
    text = os.fspath(path)
    name = "stdin" if text == "-" else os.path.basename(text)  # noqa: PTH119 - archive members are not paths
    stem = os.path.splitext(name)[0].lstrip("-")  # noqa: PTH122 - a command would take the file for an option
    return f"{safe_name(stem or '_')}-{short_hash(text)}"


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that name a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
