"""The model folder: fetching recorded files into it, adding the user's own networks, and removing both.

Nothing here runs unasked. A file arrives under a temporary name beside its place, is hashed, and is renamed only when
it is the recorded one, so that an interruption at any moment leaves the old state. One folder per model:

    <model folder>/NAME/FILE          the weights
    <model folder>/NAME/pinned.json   the hash that the user confirmed, for a model whose record has none
    <model folder>/NAME/record.json   the record of a model that the user added
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from facepipe.errors import InputError, ModelError, UsageError
from facepipe.models.registry import (
    PINNED,
    USER_RECORD,
    ModelFile,
    ModelRecord,
    builtin_records,
    check_bytes,
    get_record,
    is_here,
    locate,
    model_folder,
    pinned_sha256,
    user_records,
)

#: No file of weights that facepipe knows is larger; a server that sends more is cut off.
MAX_BYTES = 2_000_000_000
#: Seconds to connect, and to wait for the next bytes.
TIMEOUT = (10.0, 60.0)
_CHUNK = 1 << 16
_PART = ".part"


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
        raise UsageError(f"model {record.name!r} is not fetched: it is {_where_from(record)}")
    file = record.files[0]
    (place,) = locate(record)
    expected = file.sha256 or pinned_sha256(record, file)
    if place.is_file() and expected is not None and _sha256_of(place) == expected:
        return place
    with _temporary(place) as (handle, part):
        _fetch(record, file, source, handle, progress)
        handle.flush()
        os.fsync(handle.fileno())
        actual = _sha256_of(part)
        if expected is None:
            if not confirm(actual):
                raise ModelError(f"model {record.name!r}: its hash {actual} was not confirmed; nothing was kept")
        elif actual != expected:
            raise ModelError(
                f"model {record.name!r}: {source or file.url} is not the recorded file: "
                f"SHA-256 {actual}, expected {expected}; nothing was kept"
            )
        part.replace(place)
    if expected is None:
        _write_json(place.with_name(PINNED), {file.file: actual})
    return place


def add_model(record: ModelRecord, source: Path) -> ModelRecord:
    """Copy an embedder into the model folder, try it on one batch, and register it.

    source: an ONNX network, or weights of `mini`'s family when the suffix is .safetensors (as the training recipe
    exports them). record: what the user says about it; its file's hash and size, its network, and `dim` when it is None,
    are filled in here. Raises UsageError for a bad or taken name, InputError when the file cannot be read, ModelError
    when it cannot be run on chips of its template or its output is no vector of `dim` finite numbers.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", record.name):
        raise UsageError(f"model name {record.name!r}: use up to 64 of a-z 0-9 . _ -, beginning with a letter or digit")
    if record.name in {known.name for known in builtin_records() + user_records()}:
        raise UsageError(f"there is already a model {record.name!r}; choose another --name, or remove it first")
    try:
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    network = "mini" if source.suffix == ".safetensors" else "onnx"
    name = record.name + (".safetensors" if network == "mini" else ".onnx")
    file = ModelFile(name, hashlib.sha256(data).hexdigest(), len(data))
    complete = _tried(replace(record, files=(file,), place="folder", network=network, user=True), data)
    (place,) = locate(complete)
    with _temporary(place) as (handle, part):
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
        part.replace(place)
    _write_json(place.with_name(USER_RECORD), complete.as_dict())  # last: with it the model exists
    return complete


def _tried(record: ModelRecord, data: bytes) -> ModelRecord:
    """Run one batch of two chips through the network and return the record with its dimension."""
    import numpy as np

    from facepipe.models.embedders import NetworkEmbedder
    from facepipe.models.onnx_engine import OnnxEngine

    if record.network == "mini":
        return _tried_mini(record, data)
    engine = OnnxEngine(data, record.name, "cpu")
    size = record.input
    assert size is not None
    wanted = (3, size, size)
    if any(isinstance(got, int) and got != want for got, want in zip(engine.input_shape[1:], wanted, strict=True)):
        raise ModelError(
            f"model {record.name!r}: its input is {list(engine.input_shape)}, but template {record.template!r} "
            f"gives chips of {size}x{size}; choose another --template"
        )
    chips = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    if record.dim is None:
        out = engine.run(np.zeros((1, *wanted), np.float32))[0]
        if out.ndim != 2:
            raise ModelError(f"model {record.name!r}: expected an output of shape (n, dim), got {out.shape}")
        record = replace(record, dim=int(out.shape[1]))
    NetworkEmbedder(record, engine).embed(chips)
    return record


def _tried_mini(record: ModelRecord, data: bytes) -> ModelRecord:
    """Run one batch through a network of `mini`'s family and return the record with its dimension."""
    import numpy as np
    import safetensors.numpy
    from safetensors import SafetensorError

    from facepipe.models.embedders import build_embedder
    from facepipe.models.mini import SIZE

    if record.input != SIZE:
        raise ModelError(
            f"model {record.name!r}: this network takes chips of {SIZE}x{SIZE}; choose template arcface112"
        )
    try:
        dim = len(safetensors.numpy.load(data)["fc.weight"])
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"model {record.name!r}: not weights of mini's family ({error})") from error
    if record.dim not in (None, dim):
        raise ModelError(f"model {record.name!r}: its vectors have {dim} numbers, not {record.dim}")
    record = replace(record, dim=dim)
    chips = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    build_embedder(record, [data], "cpu").embed(chips)
    return record


def remove_model(name: str) -> Path:
    """Remove a fetched or added model from the model folder and return the folder that is gone.

    Raises ModelError for an unknown name, UsageError for one that does not lie in the model folder.
    """
    record = get_record(name)
    folder = model_folder() / name
    if record.place != "folder":
        raise UsageError(f"model {name!r} cannot be removed: it is {_where_from(record)}")
    if not folder.is_dir():
        raise UsageError(f"model {name!r} is not on this machine: there is nothing to remove")
    (folder / USER_RECORD).unlink(missing_ok=True)  # first: without it the model is gone
    shutil.rmtree(folder)
    return folder


def verify_model(record: ModelRecord) -> tuple[str, str | None]:
    """Return the state of a model on this machine, and for a bad one the reason.

    The state is `ok` (every file has its recorded hash), `absent`, or `bad`.
    """
    if not is_here(record):
        return "absent", None
    try:
        for file, path in zip(record.files, locate(record), strict=True):
            check_bytes(record, file, path.read_bytes(), path)
    except OSError as error:
        return "bad", f"{path}: cannot be read ({error.strerror})"
    except ModelError as error:
        return "bad", str(error)
    return "ok", None


def _where_from(record: ModelRecord) -> str:
    if record.user:
        return "your own, added with `facepipe models add`"
    if record.place == "package":
        return f"part of the installed package {record.package}"
    return "shipped with facepipe"


@contextmanager
def _temporary(place: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield an open file beside `place`, under a temporary name; whatever is still there at the end is deleted.

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


def _write_json(path: Path, values: object) -> None:
    with _temporary(path) as (handle, part):
        handle.write(json.dumps(values, indent=2).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
        part.replace(path)
