"""What the commands that name people in photos share: lists of photos, and pictures of what was found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)


def list_options(command: _F) -> _F:
    """`--files-from` and `-0`: a list of photos; read it with `listed`."""
    command = click.option(
        "-0", "--null", "separated_by_null", is_flag=True, help="Names in --files-from end with NUL (find -print0)."
    )(command)
    return click.option(
        "--files-from", type=click.File("rb"), help="Read the names of photos from a file, one per line; - is stdin."
    )(command)


def listed(file: IO[bytes] | None, separated_by_null: bool) -> list[str]:
    """Return the names in a list; bytes that are no text stay what they are, as in every file name."""
    if file is None:
        return []
    names = file.read().split(b"\0" if separated_by_null else b"\n")
    return [os.fsdecode(name if separated_by_null else name.rstrip(b"\r")) for name in names if name.strip()]


def picture_options(command: _F) -> _F:
    """`--annotate` and `--crops`: pictures of what was found."""
    command = click.option("--crops", type=FOLDER, help="Write each face as a picture into this folder.")(command)
    return click.option("--annotate", type=FOLDER, help="Write copies with frames and names into this folder.")(command)
