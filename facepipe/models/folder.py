"""The model folder: how files get into it, the user's own networks, and removing.

A file arrives under a temporary name beside its place and is renamed when it is whole, so that an interruption at any moment leaves
the old state. One folder per model:

    <model folder>/NAME/FILE          the weights
    <model folder>/NAME/pinned.json   the hash that the user confirmed, for a model whose record has none
    <model folder>/NAME/record.json   the record of a model that the user added
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from facepipe.errors import ModelError, UsageError
from facepipe.models.registry import USER_RECORD, ModelRecord, get_record, locate, model_folder, records

_PART = ".part"


@contextmanager
def arriving(place: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a file beside `place` under a temporary name, open, and its path; what was not `settle`d at the end is deleted.

    Parts that a killed process left behind are deleted first: each fetch starts from nothing. A part whose lock is held
    belongs to a process that is still at work.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        for stale in place.parent.glob(f".{place.name}.*{_PART}"):
            with suppress(OSError), stale.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stale.unlink()
        descriptor, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=_PART, dir=place.parent)
    except OSError as error:
        raise ModelError(
            f"{place.parent}: cannot be written ({error.strerror}); choose another folder with FACEPIPE_MODELS"
        ) from error
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            yield writer, part
    except OSError as error:
        raise ModelError(f"{part.parent}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
        with suppress(OSError):  # only an empty folder goes
            place.parent.rmdir()


def settle(handle: BinaryIO, part: Path, place: Path) -> None:
    """Put an arriving file that is whole in its place."""
    handle.flush()
    os.fsync(handle.fileno())
    part.replace(place)


def write_file(place: Path, data: bytes) -> None:
    """Write a file of the model folder whole or not at all. Errors: ModelError."""
    with arriving(place) as (handle, part):
        handle.write(data)
        settle(handle, part, place)


def write_json(place: Path, values: object) -> None:
    """Write a JSON file of the model folder; see `write_file`."""
    write_file(place, json.dumps(values, indent=2).encode() + b"\n")


def check_new_name(name: str) -> None:
    """Raise UsageError unless a model may be added under this name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise UsageError(f"model name {name!r}: use up to 64 of a-z 0-9 . _ -, beginning with a letter or digit")
    if name in {known.name for known in records()}:
        raise UsageError(f"there is already a model {name!r}; choose another --name, or remove it first")


def keep_model(record: ModelRecord, data: bytes) -> None:
    """Register a model of the user's own. data: the content of its file. Errors: ModelError."""
    (place,) = locate(record)
    write_file(place, data)
    write_json(place.with_name(USER_RECORD), record.as_dict())  # last: with it the model exists


def remove_model(name: str) -> Path:
    """Remove a fetched or added model from the model folder and return the folder that is gone.

    Raises ModelError for an unknown name, UsageError for one that does not lie in the model folder.
    """
    record = get_record(name)
    folder = model_folder() / name
    if record.place != "folder":
        raise UsageError(f"model {name!r} cannot be removed: it is {where_from(record)}")
    if not folder.is_dir():
        raise UsageError(f"model {name!r} is not on this machine: there is nothing to remove")
    (folder / USER_RECORD).unlink(missing_ok=True)  # first: without it the model is gone
    shutil.rmtree(folder)
    return folder


def where_from(record: ModelRecord) -> str:
    """Say whose a model is that `pull` does not fetch."""
    if record.user:
        return "your own, added with `facepipe models add`"
    if record.place == "package":
        return f"part of the installed package {record.package}"
    return "shipped with facepipe"
