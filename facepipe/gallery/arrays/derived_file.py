"""Files of arrays that are derived from the database: written whole or not at all, checked when they are read.

    arrays, each from a multiple of 4096 bytes on, with room to grow │ JSON │ where the JSON is, its CRC-32, a mark

The JSON holds facts (which gallery, which generation) and for each array its place, type, shape and the CRC-32 of every
4 MiB. A plain file is memory-mapped; in a sealed gallery the pieces are ciphertext and are opened into memory. Nothing
here is the truth: a file that is missing, of another generation, or damaged is made again from the database.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import GalleryError
from facepipe.gallery.storage.codec import Codec
from facepipe.gallery.storage.disk import disk_error, sync_folder

PIECE = 4 << 20
_ALIGN = 4096
_MARK = b"facepipe-derived"
_TAIL = struct.Struct("<QII16s")
TEMPORARY = ".tmp"


class DamagedError(GalleryError):
    """A derived file is truncated, altered, or no such file."""


class Writer:
    """Writes one file; it appears under its name when `commit` has run.

    GalleryError when the disk is full or cannot be written; the temporary file is removed then.
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        self._path = path
        self._codec = codec
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
        self._arrays: dict[str, dict[str, Any]] = {}
        self._buffer = bytearray()
        self._current: dict[str, Any] | None = None
        try:
            self._file: BinaryIO = self._temporary.open("xb")
            os.fchmod(self._file.fileno(), 0o600)
        except OSError as error:
            raise disk_error(error, path) from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # what could not be flushed on a full disk is not wanted any more
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise disk_error(error, self._path) from error

    def begin(self, name: str, dtype: type[np.generic], shape: tuple[int, ...], capacity: int = 0) -> None:
        """Start an array; its bytes follow by `write`. capacity: rows to leave room for in a plain file."""
        self._finish()
        offset = -(-self._file.tell() // _ALIGN) * _ALIGN
        self._file.seek(offset)
        self._current = {
            "dtype": np.dtype(dtype).str,
            "shape": list(shape),
            "capacity": max(capacity, shape[0]),
            "offset": offset,
            "pieces": [],
        }
        self._arrays[name] = self._current

    def write(self, array: NDArray[Any] | bytes) -> None:
        """Append to the array that was begun."""
        self._buffer += array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
        while len(self._buffer) >= PIECE:
            self._piece(bytes(self._buffer[:PIECE]))
            del self._buffer[:PIECE]

    def add(self, name: str, array: NDArray[Any], capacity: int = 0) -> None:
        """Write a whole array."""
        self.begin(name, array.dtype.type, array.shape, capacity)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, len(flat), PIECE):
            self.write(flat[start : start + PIECE])

    def same(self, name: str, other: str) -> None:
        """Let `name` be the same bytes as `other`."""
        self._finish()
        self._arrays[name] = self._arrays[other]

    def _piece(self, data: bytes) -> None:
        assert self._current is not None
        stored = self._codec.seal(data)
        self._file.write(stored)
        self._current["pieces"].append([len(stored), zlib.crc32(stored)])

    def _finish(self) -> None:
        if self._current is None:
            return
        if self._buffer:
            self._piece(bytes(self._buffer))
            self._buffer.clear()
        if not self._codec.sealed:
            row = int(np.prod(self._current["shape"][1:])) * np.dtype(self._current["dtype"]).itemsize
            self._file.seek(self._current["offset"] + self._current["capacity"] * row)
        self._current = None

    def commit(self, facts: dict[str, Any]) -> None:
        """Write the facts, sync, and give the file its name."""
        self._finish()
        text = json.dumps({"facts": facts, "sealed": self._codec.sealed, "arrays": self._arrays}).encode()
        offset = self._file.tell()
        self._file.write(text)
        self._file.write(_TAIL.pack(offset, len(text), zlib.crc32(text), _MARK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.rename(self._path)
        sync_folder(self._path.parent)


class Reader:
    """One derived file, open for reading."""

    def __init__(self, path: Path, codec: Codec) -> None:
        """Read the facts. DamagedError; FileNotFoundError when there is none."""
        self._path = path
        self._codec = codec
        self._file = path.open("rb")
        try:
            self._read_facts()
        except BaseException:
            self._file.close()
            raise

    def _read_facts(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size < _TAIL.size:
            raise DamagedError(f"{self._path}: too short")
        descriptor = self._file.fileno()
        offset, length, crc, mark = _TAIL.unpack(os.pread(descriptor, _TAIL.size, size - _TAIL.size))
        if mark != _MARK or offset + length + _TAIL.size != size:
            raise DamagedError(f"{self._path}: its end is damaged")
        text = os.pread(descriptor, length, offset)
        if zlib.crc32(text) != crc:
            raise DamagedError(f"{self._path}: its table of contents is damaged")
        contents = json.loads(text)
        self.facts: dict[str, Any] = contents["facts"]
        self._arrays: dict[str, dict[str, Any]] = contents["arrays"]
        if contents["sealed"] != self._codec.sealed:
            raise DamagedError(f"{self._path}: sealed differently from the gallery")

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def verify(self) -> None:
        """Compare every piece with its CRC-32, through a small buffer; DamagedError when one differs."""
        places = list(
            {(offset, length, crc) for array in self._arrays.values() for offset, length, crc in _places(array)}
        )
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # reading and CRC-32 leave the interpreter's lock
            for intact in pool.map(self._intact, sorted(places)):
                if not intact:
                    raise DamagedError(f"{self._path}: its bytes are damaged")

    def _intact(self, place: tuple[int, int, int]) -> bool:
        offset, length, crc = place
        data = os.pread(self._file.fileno(), length, offset)
        return len(data) == length and zlib.crc32(data) == crc

    def array(self, name: str) -> tuple[NDArray[Any], int]:
        """Return an array with its spare rows, and how many rows are filled.

        Changes to it are private: a plain file is mapped copy-on-write, so its pages are shared until they are written.
        """
        entry = self._arrays[name]
        dtype = np.dtype(entry["dtype"])
        rows = int(entry["shape"][0])
        shape = (int(entry["capacity"]), *map(int, entry["shape"][1:]))
        if not np.prod(shape):
            return np.zeros(shape, dtype), rows
        if not self._codec.sealed:
            return np.asarray(np.memmap(self._path_of_file(), dtype, "c", entry["offset"], shape)), rows
        array = np.zeros(shape, dtype)
        flat = array.reshape(-1).view(np.uint8)
        start = 0
        for offset, length, _ in _places(entry):
            data = self._codec.open(os.pread(self._file.fileno(), length, offset))
            flat[start : start + len(data)] = np.frombuffer(data, np.uint8)
            start += len(data)
        return array, rows

    def _path_of_file(self) -> Path:
        """Return a path of the very file that is open, whatever has been renamed over its name since."""
        return Path(f"/proc/self/fd/{self._file.fileno()}") if Path("/proc/self/fd").exists() else self._path


def _places(entry: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
    offset = int(entry["offset"])
    for length, crc in entry["pieces"]:
        yield offset, int(length), int(crc)
        offset += int(length)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete temporary files that a killed process left behind; the caller holds the writer's lock."""
    found = [path for path in folder.iterdir() if path.name.endswith(TEMPORARY)]
    for path in found:
        path.unlink(missing_ok=True)
    return found
