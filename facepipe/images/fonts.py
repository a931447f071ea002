"""Which font has the characters of a text: the one that is always here, else one of the system's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from facepipe.errors import UsageError
from facepipe.text import printable

#: Below, DejaVu Sans has everything that is printed.
_LATIN = 0x250
#: Where systems and users keep fonts; read where fontconfig does not answer.
_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
_SUFFIXES = {".ttf", ".otf", ".ttc", ".otc"}
#: So many files are opened in the search.
_MOST = 500
#: Texts that no font here has; see `lacking`.
_lacking: set[str] = set()


def dejavu(*, bold: bool = False) -> Path:
    """Return the file of DejaVu Sans, which matplotlib ships: Latin, Greek, Cyrillic, Arabic and Hebrew letters and more."""
    # Only its place is looked up: importing matplotlib takes a second.
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name


def font_file(text: str, *, bold: bool = False) -> Path:
    """Return a font file that has the characters of a text.

    FACEPIPE_FONT names it for every text. Else DejaVu Sans, or one of the system's that has them all; where none has, DejaVu Sans,
    and `lacking` says so. Errors: UsageError when FACEPIPE_FONT is not there.
    """
    named = os.environ.get("FACEPIPE_FONT")
    if named:
        if not os.path.isfile(named):  # noqa: PTH113
            raise UsageError(f"FACEPIPE_FONT: {printable(named)} is not a font file; name a .ttf, .otf or .ttc")
        return Path(named)
    seen = frozenset(char for char in text if not char.isspace() and unicodedata.category(char) not in ("Cf", "Cc"))
    foreign = frozenset(char for char in seen if ord(char) >= _LATIN and not "\ufe00" <= char <= "\ufe0f")
    found = (_find(seen) or _find(foreign)) if foreign else None
    if found is None and foreign:
        _lacking.add(text)
    return dejavu(bold=bold) if found is None or found == dejavu() else found


def lacking() -> str | None:
    """Return a line about texts that were drawn without some of their characters, once; None when there were none."""
    if not _lacking:
        return None
    first, more = min(_lacking), len(_lacking) - 1
    _lacking.clear()
    others = f" and {more:,} more" if more else ""
    return (
        f"no font here has all the characters of {printable(first)}{others}: install fonts-noto-core and fonts-noto-cjk, or name a "
        "font in FACEPIPE_FONT"
    )


@cache
def _find(wanted: frozenset[str]) -> Path | None:
    if wanted <= _characters(dejavu()):
        return dejavu()
    return next((path for path in _candidates(wanted)[:_MOST] if wanted <= _characters(path)), None)


def _candidates(wanted: frozenset[str]) -> list[Path]:
    """Return font files that may have the characters, plain ones first."""
    try:
        charset = " ".join(f"{ord(char):x}" for char in sorted(wanted))
        command = ["fc-list", f":charset={charset}", "file"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        found = {Path(line.rstrip(": ")) for line in told.splitlines()}
    except (OSError, subprocess.SubprocessError):  # fontconfig is not here
        found = set(_files())
    return sorted((path for path in found if path.suffix.lower() in _SUFFIXES), key=_rank)


def _files() -> Iterator[Path]:
    for folder in _FOLDERS:
        yield from Path(folder).expanduser().rglob("*")


def _rank(path: Path) -> tuple[bool, bool, bool, str]:
    name = path.name.lower()
    unusual = any(
        word in name for word in ("italic", "oblique", "mono", "condensed", "light", "thin", "black", "emoji")
    )
    return unusual, "sans" not in name, "regular" not in name, str(path)


@cache
def _characters(path: Path) -> frozenset[str]:
    """Return the characters that a font file has; none of one that cannot be read."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with path.open("rb") as file, TTFont(file, fontNumber=0, lazy=True) as font:
            return frozenset(map(chr, font.getBestCmap() or ()))
    except (OSError, TTLibError, AssertionError, LookupError, ValueError):
        return frozenset()
