"""An explanation as a file: JSON, a picture, or a page."""

from __future__ import annotations

import os
from pathlib import Path

from facepipe.errors import UsageError
from facepipe.explain.page import page
from facepipe.explain.sheet import sheet
from facepipe.explain.values import Explanation
from facepipe.files.guard import MARK, own_path
from facepipe.images import write_image
from facepipe.records import dumps
from facepipe.text import printable

SUFFIXES = (".html", ".png", ".json")


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a file to be written; UsageError for one that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{printable(path)}: an explanation is written as {', '.join(SUFFIXES)}; choose one of these suffixes"
        )
    return suffix


def write(path: str | os.PathLike[str], explanation: Explanation) -> None:
    """Write an explanation, whole or not at all; its owner alone may read it. Errors: UsageError, OutputError."""
    suffix = check_suffix(path)
    if suffix == ".png":
        write_image(path, sheet(explanation))
        return
    if suffix == ".html":
        text = page(explanation)
    else:
        text = dumps({"generator": MARK, **explanation.facts}, indent=2) + "\n"
    with own_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
