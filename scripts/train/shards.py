"""Shards: plain tar files of crops, `KEY.jpg` and `KEY.json` for each, as WebDataset and others read them too.

Beside `shard-000000.tar` lies `shard-000000.json`, its receipt: which photos went in, what was dropped and why. The receipt is
written last, so a shard without one does not count. Arrays that belong to a shard (teacher vectors) are `.npy` files of its name.
"""

from __future__ import annotations

import io
import json
import mmap
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from facepipe.errors import InputError
from facepipe.files.atomic import atomic_file
from facepipe.types import Int64, UInt8

#: Side of a crop, and of the border around the 112x112 chip in its middle.
SIDE, MARGIN = 128, 8


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop as it is stored: JPEG bytes, and what is known about it (JSON values)."""

    key: str
    jpeg: bytes
    meta: dict[str, Any]


def write_json(path: Path, values: Any) -> None:
    """Write JSON whole or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(values, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; InputError when it is not there or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the step before again") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file whole or not at all."""
    with atomic_file(path) as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read a `.npy` file without pickle; InputError when it is not there or damaged."""
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run the step before again") from error


def write_shard(path: Path, crops: Sequence[Crop]) -> None:
    """Write a tar file whole or not at all; the same crops give the same bytes."""
    with atomic_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for crop in crops:
            for suffix, data in ((".jpg", crop.jpeg), (".json", json.dumps(crop.meta).encode())):
                info = tarfile.TarInfo(crop.key + suffix)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def read_shard(path: Path) -> Iterator[Crop]:
    """Stream the crops of one tar file; InputError when it is damaged."""
    try:
        with tarfile.open(path, "r:") as archive:
            jpeg, key = b"", ""
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                if member.name.endswith(".jpg"):
                    jpeg, key = file.read(), member.name[:-4]
                elif member.name == key + ".json":
                    yield Crop(key, jpeg, json.loads(file.read()))
    except (tarfile.TarError, OSError, ValueError, AssertionError) as error:
        raise InputError(f"{path}: the shard cannot be read ({error}); remove it and run `crops` again") from error


def shard_paths(folder: Path) -> list[Path]:
    """Return the finished shards of a folder in order; InputError when there is none."""
    found = [path.with_suffix(".tar") for path in sorted(folder.glob("shard-*.json"))]
    if not found:
        raise InputError(f"{folder}: holds no finished shard; run `crops` first")
    return found


def decode(jpeg: bytes) -> UInt8:
    """Return a stored crop as uint8 RGB (128, 128, 3). Decoded by OpenCV, which lets other threads run."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None or bgr.shape != (SIDE, SIDE, 3):
        raise InputError(f"a crop in the shards is damaged; expected a JPEG of {SIDE}x{SIDE} pixels")
    return np.ascontiguousarray(bgr[:, :, ::-1]).astype(np.uint8, copy=False)


class CropSet:
    """All crops of a folder of shards by number, through memory maps: any order is cheap, and processes share the pages."""

    def __init__(self, folder: Path) -> None:
        self.paths = shard_paths(folder)
        self.metas: list[dict[str, Any]] = []
        #: Crops in each shard.
        self.counts: list[int] = []
        shard, start, size = [], [], []
        for number, path in enumerate(self.paths):
            before = len(self.metas)
            for offset, length, meta in _contents(path):
                shard.append(number)
                start.append(offset)
                size.append(length)
                self.metas.append(meta)
            self.counts.append(len(self.metas) - before)
        self._shard, self._start, self._size = (np.asarray(v, np.int64) for v in (shard, start, size))
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self.metas)

    def __getstate__(self) -> dict[str, Any]:
        # A loader's process opens its own maps, and needs no descriptions.
        return {**self.__dict__, "_maps": {}, "metas": []}

    def read(self, number: int) -> UInt8:
        """Return crop `number`, uint8 RGB (128, 128, 3)."""
        shard = int(self._shard[number])
        if shard not in self._maps:
            with self.paths[shard].open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = int(self._start[number])
        return decode(self._maps[shard][start : start + int(self._size[number])])

    def identities(self) -> tuple[Int64, tuple[str, ...]]:
        """Return the identity of each crop as int64 (n,), -1 where it is not known, and the identities' names."""
        names = sorted({meta["identity"] for meta in self.metas if meta["identity"] is not None})
        number = {name: i for i, name in enumerate(names)}
        found = [number.get(meta["identity"], -1) if meta["identity"] is not None else -1 for meta in self.metas]
        return np.asarray(found, np.int64), tuple(names)


def _contents(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield where each JPEG of a shard lies, its length, and its description."""
    try:
        with tarfile.open(path, "r:") as archive:
            place = (0, 0)
            for member in archive:
                if member.name.endswith(".jpg"):
                    place = (member.offset_data, member.size)
                else:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield (*place, json.loads(file.read()))
    except (tarfile.TarError, OSError, ValueError, AssertionError) as error:
        raise InputError(f"{path}: the shard cannot be read ({error}); remove it and run `crops` again") from error
