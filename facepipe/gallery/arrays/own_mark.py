"""This user's mark on a stored index: whose bytes FAISS reads.

FAISS believes the bytes that it reads: forged ones read and write outside its arrays. A gallery may come from somebody else, and
a checksum that lies beside the bytes proves nothing. So the bytes carry a keyed hash (BLAKE2b, RFC 7693), whose key lies in
the user's own data folder. An index that has no mark of this user is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import GalleryAccessError, OutputError
from facepipe.files.atomic import atomic_file

_KEY_BYTES = 32


def key_path() -> Path:
    """Return where the key lies."""
    from platformdirs import user_data_path

    return user_data_path("facepipe", appauthor=False) / "index.key"


def own_mark(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the mark of a file with these facts and arrays, hex; None when the user has no key."""
    key = _read_key()
    if key is None:
        return None
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), key=key)
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def require_key() -> None:
    """Make the key when there is none. GalleryAccessError when none can be made: nothing that is stored could be trusted later."""
    if _read_key() is not None:
        return
    try:
        with atomic_file(key_path()) as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    except OutputError as error:
        raise GalleryAccessError(f"{error}; an index needs a key of yours there") from error


def _read_key() -> bytes | None:
    """Return the key, None when there is none."""
    with contextlib.suppress(OSError):
        descriptor = os.open(key_path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            key = file.read(_KEY_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        return key if len(key) == _KEY_BYTES else None
    return None
