"""Room for many gigabytes of vectors: a mapped file without a name, which is gone when nobody has it open any more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from facepipe.gallery.storage.disk import disk_error
from facepipe.types import Float32

#: Beyond so many bytes vectors do not belong in memory, and are not read as a whole each time that a gallery is opened.
LARGE = 1 << 30


def stacked(folder: Path | None, rows: int, dim: int, parts: Iterable[Float32]) -> Float32:
    """Return parts, float32 (any, dim), one below the other, `rows` in all: in memory, or read-only in a file when they are large.

    folder: where the file may lie; None: nowhere, for vectors that must not lie on a disk. GalleryFullError, GalleryAccessError.
    """
    if folder is None or 4 * rows * dim <= LARGE:
        array, at = np.empty((rows, dim), np.float32), 0
        for part in parts:
            array[at : at + len(part)] = part
            at += len(part)
        return array
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, np.float32).data)
            file.flush()
            return np.asarray(np.memmap(file, np.float32, "r", shape=(rows, dim)))
    except OSError as error:
        raise disk_error(error, folder) from error
