"""Photos in object stores, through fsspec: listed folder by folder, in the order of local folders, and read by whoever scans them.

A photo is named by its URL, `s3://bucket/key`, with the key as it is. Of a URL nothing is taken but protocol, bucket and key: no
password, no query, no chain of protocols. Nothing is asked for but what the user names and what lies below that: a catalog, which may
come from somebody else, opens nothing.
"""

from __future__ import annotations

import io
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from facepipe.errors import FacepipeError, InputError, LibraryError, StoreError, UsageError
from facepipe.images import OUTPUT_MARK, Passing, is_left_out, is_video, natural_key
from facepipe.images.finding import is_archive
from facepipe.images.passing import SYSTEM, Rules
from facepipe.images.reading import require_few_bytes
from facepipe.text import printable

#: Protocols, and the library that fsspec needs for each.
STORES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_INSTALL = "pip install 'facepipe[remote]'"
#: Seconds for a photo, and bytes for which it gets a second more. Within that the libraries try again, with pauses.
_SECONDS, _SLOWEST = 60.0, 250_000
#: What stores say of an object that changes with its content.
_CHANGES = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")

#: A photo: its URL, what changes with its content, and what loads its bytes; or why it cannot be read.
Found = tuple[str, str, Callable[[], bytes] | str]
#: What the user named in this process, each with a slash at its end.
_named: set[str] = set()
#: So many photos in a row that could not be read are a reason to ask whether the store still answers; and how many there were.
_IN_A_ROW = 20
_failed: Counter[str] = Counter()


def is_url(name: str) -> bool:
    """Say whether a name stands for something in an object store."""
    protocol, mark, _ = name.partition("://")
    return mark != "" and protocol in STORES


def exists(url: str) -> bool:
    """Say whether something is there. Errors: as `find`."""
    return _info(named_by_user(url), folder=url.endswith("/")) is not None


def find(url: str, passing: Passing) -> Iterator[Found]:
    """Yield the photos below a URL, as `find_images` does for a folder, but no videos; one object whatever it is called.

    Errors: UsageError for a URL that holds more than bucket and key; LibraryError; InputError when the store cannot be listed, which
    is about all of its photos.
    """
    name = named_by_user(url)
    info = _info(name, folder=url.endswith("/"))
    if info is None:
        yield name, "", absent(name)
    elif info["type"] != "directory":
        yield _found(name, *_facts(info))
    else:
        open_folders = [_listed(name, passing.rules(name), root=True)]
        while open_folders:
            for found, below in open_folders[-1]:
                if below is not None:
                    open_folders.append(_listed(found[0], below))
                    break
                yield found
            else:
                open_folders.pop()


def is_gone(name: str) -> bool:
    """Say whether an object that was found below what the user named is not there any more, for certain."""
    if not any(f"{name}/".startswith(place) for place in _named):
        return False
    try:
        info = _info(name)
    except FacepipeError:
        return False
    return info is None or info["type"] == "directory"


def absent(url: str) -> str:
    """Say in a line that there is nothing at a URL."""
    return f"{printable(url)}: no such bucket or object, and none below it; check bucket and key (patterns are not for URLs)"


class Photo:
    """One object as an open file, which is read as other files are."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._file: io.BytesIO | None = None

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes. Errors: as `find`; InputError for what is not one object, or cannot be read."""
        if self._file is None:
            name = named_by_user(self.name)
            info = _info(name)
            if info is None:
                raise InputError(absent(name))
            if info["type"] == "directory":
                raise InputError(f"{printable(name)}: is not one object; use facepipe batch")
            _, _, load = _found(name, *_facts(info))
            if isinstance(load, str):
                raise InputError(load)
            self._file = io.BytesIO(load())
        return self._file.read(size)


def named_by_user(url: str) -> str:
    """Return a URL without slashes at its end, from now on one that may be asked for. Errors: UsageError."""
    protocol, _, path = url.partition("://")
    bucket = path.partition("/")[0]
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise UsageError(f"{protocol}://...: holds a password; give it where {STORES[protocol]} looks for it")
    if "?" in path:
        raise UsageError(f"{printable(url.partition('?')[0])}?...: has a query; name bucket and key alone")
    if not bucket or "//" in path.rstrip("/"):
        raise UsageError(f"{printable(url)}: has an empty name in it; write {protocol}://bucket/folder")
    _named.add(f"{protocol}://{path.rstrip('/')}/")
    return f"{protocol}://{path.rstrip('/')}"


@cache
def _store(protocol: str) -> Any:
    """Return fsspec's client of a store. Errors: InputError where connections are forbidden; LibraryError."""
    if os.environ.get("FACEPIPE_OFFLINE", "") not in {"", "0"}:
        raise InputError(f"FACEPIPE_OFFLINE is set: {protocol}:// is not opened")
    for library in ("fsspec", *STORES.values()):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # they print what they also raise
    try:
        import fsspec

        # A client of its own; its cache of listings would hold whatever was listed.
        store = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        needed = STORES[protocol]
        install = f"{_INSTALL}{' adlfs' if needed == 'adlfs' else ''}"
        raise LibraryError(f"{protocol}:// needs {needed}, which cannot be loaded ({error}): {install}") from error
    if hasattr(store, "retries"):
        store.retries = 2  # botocore tries each of them five times
    return store


def _ask(name: str, method: str, seconds: float | None = _SECONDS, **arguments: Any) -> Any:
    """Return what a store's method says of an object, in time where the store has an event loop.

    Errors: InputError for what stores report, each in its own way; FileNotFoundError.
    """
    protocol, _, path = name.partition("://")
    try:
        store = _store(protocol)
        if not store.async_impl:
            return getattr(store, method)(path, **arguments)
        from fsspec.asyn import sync

        return sync(store.loop, getattr(store, f"_{method}"), path, timeout=seconds, **arguments)
    except (FacepipeError, FileNotFoundError):
        raise
    except TimeoutError as error:
        raise InputError(f"{printable(name)}: no answer within {seconds:.0f} s; run the same command again") from error
    except Exception as error:  # each store's library has errors of its own, and passes on those of what it is built on
        text = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0] or type(error).__name__
        reason = printable(re.sub(r"(?<=//)[^/\s]*@|\?\S*", "...", text))[:300]
        raise InputError(f"{printable(name)}: cannot be read ({reason}); check credentials and endpoint") from error


def _info(name: str, *, folder: bool = False) -> dict[str, Any] | None:
    """Return what the store says of an object, or that it is a folder; None when nothing is there. folder: it can only be one."""
    try:
        if folder:
            return {"type": "directory"} if _ask(name, "ls", None, detail=True) else None
        info: dict[str, Any] = _ask(name, "info")
    except FileNotFoundError:
        return None
    return info


def _facts(info: dict[str, Any]) -> tuple[int, str]:
    """Return an object's size, and what changes with its content."""
    return int(info["size"] or 0), next((str(info[fact]) for fact in _CHANGES if info.get(fact)), "")


def _found(name: str, size: int, changed: str) -> Found:
    protocol, _, path = name.partition("://")
    problem = None
    if is_video(name) or is_archive(name):
        problem = "videos and archives in a store are not read; copy it to a disk"
    # The library may take a part of the name for the version of another object.
    if hasattr(store := _store(protocol), "split_path"):
        bucket, key, version = store.split_path(path)
        if version or f"{bucket}/{key}" != path:
            problem = f"{STORES[protocol]} cannot read an object of this name; rename it"
    if problem is not None:
        return name, "", f"{printable(name)}: {problem}"
    return name, f"{size}:{changed}" if changed else "", partial(_load, name, size)


def _listed(name: str, rules: Rules, *, root: bool = False) -> Iterator[tuple[Found, Rules | None]]:
    """Yield the photos in a folder, and the folders in it with their rules, in natural order."""
    path, entries = name.partition("://")[2], []
    try:
        for info in _ask(name, "ls", None, detail=True):
            folder, _, base = info["name"].removeprefix("/").rpartition("/")
            is_folder = info["type"] == "directory"
            if base and folder == path:
                entries.append((base, is_folder, *_facts(info)))
            elif is_folder:
                yield (
                    (
                        f"{name}//",
                        "",
                        f"{printable(name)}//: keys with an empty name in them are not read; rename them",
                    ),
                    None,
                )
    except FileNotFoundError:  # emptied meanwhile
        return
    entries.sort(key=lambda entry: natural_key(entry[0]))
    sizes = {base: size for base, is_folder, size, _ in entries if not is_folder}
    if OUTPUT_MARK in sizes and not root:
        return
    rules = rules.within(name, sizes, lambda file: _load(file, sizes[file.rpartition("/")[2]]))
    beside = rules.beside(name, sizes)
    for base, is_folder, size, changed in entries:
        url = f"{name}/{base}"
        if is_left_out(base):
            rules.passing.passed[SYSTEM] += is_folder and not base.startswith(".")
        elif rules.excludes(url, folder=is_folder):
            continue
        elif is_folder:
            yield (url, "", ""), rules
        elif rules.passing.take(base, beside):
            yield _found(url, size, changed), None


def _load(name: str, size: int) -> bytes:
    """Return an object's bytes, where it has as many as when it was listed.

    Errors: InputError, ImageError; StoreError when it is no matter of this object; as `_store`.
    """
    protocol = name.partition("://")[0]
    require_few_bytes(name, size)
    try:
        # A byte more, to see whether it grew: never more than was promised.
        data: bytes = _ask(name, "cat_file", _SECONDS + size / _SLOWEST, start=0, end=size + 1) if size else b""
    except FileNotFoundError as error:
        raise InputError(f"{printable(name)}: was deleted meanwhile") from error
    except InputError as error:
        _failed[protocol] += 1
        if _failed[protocol] >= _IN_A_ROW:
            _require_answer(name, error)
        raise
    _failed[protocol] = 0
    if len(data) != size:
        raise InputError(f"{printable(name)}: changed or was cut off while it was read; run the same command again")
    return data


def _require_answer(name: str, failure: InputError) -> None:
    """Raise StoreError when not even an object's size is told, as it is of archived ones: its store is down, or credentials ended."""
    try:
        _info(name)
    except InputError:
        raise StoreError(
            f"{failure}; {_IN_A_ROW} photos in a row: later, the same command goes on from here"
        ) from failure
    _failed.clear()
