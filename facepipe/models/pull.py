"""Fetches recorded files into the model folder. Nothing here runs unasked.

A file is hashed before it gets its name: only the recorded one is kept. `pooch` is not used: it takes whatever a server sends,
however much that is, leaves the parts of killed processes behind, and does not know FACEPIPE_OFFLINE.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from facepipe.errors import ModelError, UsageError
from facepipe.models.folder import arriving, settle, where_from, write_json
from facepipe.models.registry import PINNED, ModelFile, ModelRecord, locate, pinned_sha256
from facepipe.text import printable

#: No file of weights that facepipe knows is larger; a server that sends more is cut off.
MAX_BYTES = 2_000_000_000
#: Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10.0, 60.0)
#: Seconds that a whole download may take: the largest recorded file at 50 kB/s. A server that trickles bytes is cut off.
TOTAL_TIMEOUT = 3600.0
_CHUNK = 1 << 16


#: Told how many more bytes have arrived, and of how many in all: 0 when the server does not say.
Progress = Callable[[int, int], object]


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
        digest, left = hashlib.sha256(), file.size or MAX_BYTES
        address, chunks = _open(record, file, source, progress)
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                raise ModelError(f"{address} sends more bytes than the recorded file has; nothing was kept")
            handle.write(chunk)
            digest.update(chunk)
        actual = digest.hexdigest()
        if expected is None:
            if not confirm(actual):
                raise ModelError(f"model {record.name!r}: its hash {actual} was not confirmed; nothing was kept")
        elif actual != expected:
            raise ModelError(
                f"model {record.name!r}: {address} is not the recorded file: "
                f"SHA-256 {actual}, expected {expected}; nothing was kept"
            )
        settle(handle, part, place)
    if expected is None:
        write_json(place.with_name(PINNED), {file.file: actual})
    return place


def _open(
    record: ModelRecord, file: ModelFile, source: str | None, progress: Progress | None
) -> tuple[str, Iterator[bytes]]:
    """Return where the file is to be had, as it may be shown, and its bytes piece by piece."""
    address = source or file.url
    if address is None:
        raise ModelError(f"model {record.name!r}: no address is recorded; give --from FILE or URL")
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UsageError(
            f"{without_secrets(address)}: cannot be read as an address ({error}); give a file, a folder or a URL"
        ) from error
    if parts.scheme.lower() in {"http", "https"}:
        url = address + file.file if address.endswith("/") else address
        return without_secrets(url), _download(url, progress)
    if "://" in address and parts.scheme.lower() != "file":
        raise UsageError(
            f"{without_secrets(address)}: only http, https and file addresses are read; download it, and give the file"
        )
    path = Path(unquote(parts.path)) if parts.scheme.lower() == "file" else Path(address)
    path = path / file.file if path.is_dir() else path
    return printable(path), _copy(path)


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown: without a user's name and password, and without the query, where tokens stand."""
    return printable(re.sub(r"//[^/]*@", "//", re.split("[?#]", url, maxsplit=1)[0]))


def _copy(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error


def _download(url: str, progress: Progress | None) -> Iterator[bytes]:
    """Download over HTTP(S); every failure becomes one line that says what to do."""
    shown = without_secrets(url)
    if os.environ.get("FACEPIPE_OFFLINE", "") not in {"", "0"}:
        raise ModelError(f"FACEPIPE_OFFLINE is set: {shown} is not opened; give --from FILE")
    import requests

    ends = time.monotonic() + TOTAL_TIMEOUT
    try:
        # As it is: a server that compresses on the way would make the bytes differ from Content-Length.
        with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0))
            for chunk in response.iter_content(_CHUNK):
                if time.monotonic() > ends:
                    raise requests.Timeout  # told like any other
                yield chunk
                if progress is not None:
                    progress(len(chunk), total)
    except (requests.RequestException, ValueError) as error:
        raise ModelError(
            f"{shown} cannot be downloaded ({_reason(error)}); nothing was kept; "
            "try again, or give --from FILE or the URL of a mirror"
        ) from error


def _reason(error: Exception) -> str:
    """Return why a download failed, in words; what the libraries below say is long, and repeats the URL with its password."""
    import requests

    response = getattr(error, "response", None)
    if response is not None and isinstance(error, requests.HTTPError):
        return f"the server answers {response.status_code} {printable(str(response.reason))[:60]}".rstrip()
    reasons: dict[type[Exception], str] = {
        requests.exceptions.SSLError: "its certificate is not trusted",
        requests.exceptions.ProxyError: "the proxy cannot be reached",
        requests.exceptions.Timeout: "the server takes too long",
        requests.exceptions.TooManyRedirects: "the server redirects in a circle",
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.exceptions.InvalidURL: "this is not an address",
        requests.exceptions.ConnectionError: "the server cannot be reached; is there a network?",
    }
    return next(
        (text for kind, text in reasons.items() if isinstance(error, kind)), "the server's answer cannot be understood"
    )


def _sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
