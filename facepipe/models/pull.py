"""Fetches recorded files into the model folder. Nothing here runs unasked.

A file is hashed before it gets its name: only the recorded one is kept. `pooch` is not used: it takes whatever a server sends,
however much that is, leaves the parts of killed processes behind, and does not know FACEPIPE_OFFLINE.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from facepipe.errors import ModelError, UsageError
from facepipe.models.folder import arriving, settle, where_from, write_json
from facepipe.models.registry import PINNED, ModelFile, ModelRecord, locate, pinned_sha256

#: No file of weights that facepipe knows is larger; a server that sends more is cut off.
MAX_BYTES = 2_000_000_000
#: Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10.0, 60.0)
_CHUNK = 1 << 16


class Progress(Protocol):
    """Told how far a download is."""

    def advance(self, count: int, total: int) -> None:
        """`count` more bytes of `total` have arrived; total is 0 when the server does not say."""
        ...


def pull(
    record: ModelRecord,
    source: str | None = None,
    *,
    confirm: Callable[[str], bool] = lambda sha256: False,
    progress: Progress | None = None,
) -> Path:
    """Fetch a record's file from its address, or from `source` (a file, a folder, or a URL), and return its place.

    A file that is already there and right is kept, and no connection is made. `confirm` is asked with the SHA-256 of a file
    for which no hash is recorded; when it agrees, the hash is pinned.
    Raises UsageError for a record that is not fetched, ModelError when the file cannot be had, is not the recorded one,
    was not confirmed, or when FACEPIPE_OFFLINE forbids the connection.
    """
    if record.place != "folder" or record.user:
        raise UsageError(f"model {record.name!r} is not fetched: it is {where_from(record)}")
    file = record.files[0]
    (place,) = locate(record)
    expected = file.sha256 or pinned_sha256(record, file)
    if place.is_file() and expected is not None and _sha256_of(place) == expected:
        return place
    with arriving(place) as (handle, part):
        _fetch(record, file, source, handle, progress)
        handle.flush()
        actual = _sha256_of(part)
        if expected is None:
            if not confirm(actual):
                raise ModelError(f"model {record.name!r}: its hash {actual} was not confirmed; nothing was kept")
        elif actual != expected:
            raise ModelError(
                f"model {record.name!r}: {source or file.url} is not the recorded file: "
                f"SHA-256 {actual}, expected {expected}; nothing was kept"
            )
        settle(handle, part, place)
    if expected is None:
        write_json(place.with_name(PINNED), {file.file: actual})
    return place


class _Limited:
    """A file that takes at most `limit` bytes."""

    def __init__(self, handle: BinaryIO, limit: int, name: str) -> None:
        self._handle = handle
        self._left = limit
        self._name = name

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise ModelError(f"{self._name} sends more bytes than the recorded file has; nothing was kept")
        return self._handle.write(data)


def _fetch(
    record: ModelRecord, file: ModelFile, source: str | None, handle: BinaryIO, progress: Progress | None
) -> None:
    """Write the file's bytes to `handle` from where they are to be had."""
    address = source or file.url
    if address is None:
        raise ModelError(f"model {record.name!r}: no address is recorded; give --from FILE or URL")
    scheme = urlsplit(address).scheme.lower()
    limit = file.size or MAX_BYTES
    if scheme in {"http", "https"}:
        url = address + file.file if address.endswith("/") else address
        _download(url, _Limited(handle, limit, url), progress)
        return
    path = Path(unquote(urlsplit(address).path)) if scheme == "file" else Path(address)
    if path.is_dir():
        path = path / file.file
    limited = _Limited(handle, limit, str(path))
    try:
        with path.open("rb") as reader:
            while chunk := reader.read(_CHUNK):
                limited.write(chunk)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _download(url: str, sink: _Limited, progress: Progress | None) -> None:
    """Download over HTTP(S); every failure becomes one line that says what to do."""
    if os.environ.get("FACEPIPE_OFFLINE", "") not in {"", "0"}:
        raise ModelError(f"FACEPIPE_OFFLINE is set: {url} is not opened; give --from FILE")
    import requests

    try:
        # As it is: a server that compresses on the way would make the bytes differ from Content-Length.
        with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0))
            for chunk in response.iter_content(_CHUNK):
                sink.write(chunk)
                if progress is not None:
                    progress.advance(len(chunk), total)
    except (requests.RequestException, ValueError) as error:
        raise ModelError(
            f"{url} cannot be downloaded ({' '.join(str(error).split())[:200]}); nothing was kept; "
            "try again, or give --from FILE or the URL of a mirror"
        ) from error


def _sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
