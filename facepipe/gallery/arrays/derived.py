"""Files of arrays that are derived from the database: written whole or not at all, checked when they are read.

    arrays, each from a multiple of 4096 bytes on │ JSON │ where the JSON is, its CRC-32, a mark

The JSON holds facts (which gallery, which generation) and for each array its type, shape and where its pieces of 4 MiB lie,
with their CRC-32. A plain file is memory-mapped; in a sealed gallery the pieces are ciphertext and are opened into memory.
Nothing here is the truth: a file that is missing, of another state, or damaged is made again from the database.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import GalleryDamagedError, GalleryError
from facepipe.gallery.arrays.room import LARGE
from facepipe.gallery.storage.codec import Codec
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.disk import disk_error, open_own_file, whole_file

VECTORS_NAME = "vectors.f32"
INDEX_NAME = "templates.faiss"
TRIALS_NAME = "own-photos.f32"
_FORMATS = {VECTORS_NAME: "facepipe vectors 4", INDEX_NAME: "facepipe index 3", TRIALS_NAME: "facepipe trials 1"}
_PIECE = 4 << 20
_ALIGN = 4096
_MARK = b"facepipe-derived"
_TAIL = struct.Struct("<QII16s")


class UnusableError(GalleryError):
    """A derived file is missing, damaged, or of a state that this gallery cannot go on from."""


class DamagedError(UnusableError):
    """A derived file is truncated, altered, or no such file."""


def write_derived(
    database: Database, name: str, generation: int, arrays: Mapping[str, NDArray[Any]], **facts: Any
) -> None:
    """Write arrays that come from the database at `generation`. The writer's lock is held.

    facts: JSON values that `read_derived` returns. GalleryError when somebody was erased since, GalleryFullError,
    GalleryAccessError.
    """
    path, codec = database.folder / name, database.codec
    with database.read():
        facts |= _lineage(database, name, generation)
        if not _belongs(database, name, facts):
            raise UnusableError(f"{database.folder}: people were erased meanwhile: run facepipe gallery index again")
    contents: dict[str, Any] = {"facts": facts, "sealed": codec.sealed, "arrays": {}}
    try:
        with whole_file(path) as draft, draft.open("wb") as file:
            for key, array in arrays.items():
                file.seek(-(-file.tell() // _ALIGN) * _ALIGN)
                pieces: list[tuple[int, int, int]] = []
                flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                for start in range(0, len(flat), _PIECE):
                    piece = flat[start : start + _PIECE].tobytes()
                    stored = codec.seal(piece, *_place(facts, key, len(pieces), array.dtype.str, array.shape))
                    pieces.append((file.tell(), len(stored), zlib.crc32(stored)))
                    file.write(stored)
                contents["arrays"][key] = {"dtype": array.dtype.str, "shape": array.shape, "pieces": pieces}
            text = json.dumps(contents).encode()
            file.write(text + _TAIL.pack(file.tell(), len(text), zlib.crc32(text), _MARK))
    except OSError as error:
        raise disk_error(error, path) from error


def read_derived(
    database: Database, name: str, *, whole: bool = False
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a file's facts (`generation` is among them) and its read-only arrays; within `read`. UnusableError.

    whole: verify every byte; otherwise samples of arrays that are `LARGE`, which take longer to read than to search.
    """
    try:
        with open_own_file(database.folder / name) as file:
            stored = np.asarray(np.memmap(file, np.uint8, "r"))
        place, length, crc, mark = _TAIL.unpack(stored[-_TAIL.size :].tobytes())
        text = stored[place : place + length].tobytes()
        if mark != _MARK or place + length + _TAIL.size != len(stored) or zlib.crc32(text) != crc:
            raise DamagedError("is damaged")
        contents = json.loads(text)
        if not _belongs(database, name, contents["facts"]) or contents["sealed"] != database.codec.sealed:
            raise UnusableError("belongs to a different state of the gallery")
        _verify(
            stored,
            [
                piece
                for entry in contents["arrays"].values()
                for piece in entry["pieces"][:: 1 if whole else max(1, len(entry["pieces"]) * _PIECE // LARGE)]
            ],
        )
        arrays = {
            key: _array(stored, contents["facts"], key, entry, database.codec)
            for key, entry in contents["arrays"].items()
        }
    except FileNotFoundError:
        raise UnusableError("is missing") from None
    except (
        GalleryDamagedError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:  # forged, or cut short
        raise DamagedError("is damaged") from error
    return contents["facts"], arrays


def _verify(stored: NDArray[np.uint8], pieces: list[tuple[int, int, int]]) -> None:
    def is_intact(piece: tuple[int, int, int]) -> bool:
        place, length, crc = piece
        return zlib.crc32(stored[place : place + length].data) == crc

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # reading and CRC-32 leave the interpreter's lock
        if not all(pool.map(is_intact, pieces)):
            raise DamagedError("is damaged")


def _place(facts: Mapping[str, Any], key: str, number: int, *form: Any) -> tuple[str, int]:
    """Return the place that a piece of a sealed file opens at: this file, this array, this type and shape, this number."""
    return json.dumps([facts, key, form], sort_keys=True), number


def _array(
    stored: NDArray[np.uint8], facts: Mapping[str, Any], key: str, entry: dict[str, Any], codec: Codec
) -> NDArray[Any]:
    pieces = entry["pieces"]
    if codec.sealed:
        opened = [
            codec.open(
                stored[start : start + length].tobytes(), *_place(facts, key, number, entry["dtype"], entry["shape"])
            )
            for number, (start, length, _) in enumerate(pieces)
        ]
        flat = np.frombuffer(b"".join(opened), np.uint8)
    else:
        flat = stored[pieces[0][0] : pieces[-1][0] + pieces[-1][1]] if pieces else stored[:0]
    array: NDArray[Any] = flat.view(entry["dtype"]).reshape(entry["shape"])
    return array


def drop_derived(database: Database, *names: str) -> None:
    """Delete derived files, all when none is named; they come back when they are needed."""
    for name in names or _FORMATS:
        (database.folder / name).unlink(missing_ok=True)


def _lineage(database: Database, name: str, generation: int) -> dict[str, Any]:
    """Return the facts by which a derived file is recognised again."""
    return {
        "format": _FORMATS[name],
        "identity": database.identity,
        "fingerprint": database.fingerprint,
        "generation": generation,
        "token": database.token(generation),
    }


def _belongs(database: Database, name: str, facts: dict[str, Any]) -> bool:
    """Whether a file was derived from a state that this database went through and can tell the changes since."""
    return (
        facts["token"] is not None
        and facts.items() >= _lineage(database, name, facts["generation"]).items()
        and facts["generation"] >= int(database.get_meta("gone_since") or 0)
    )
