"""The photos in zip and tar archives, read without unpacking: each member once, hidden ones left out, sizes bounded."""

from __future__ import annotations

import io
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from facepipe.errors import ImageError, InputError
from facepipe.images import Passing, is_left_out, max_bytes
from facepipe.images.formats import RAW_SUFFIXES
from facepipe.images.passing import Rules
from facepipe.text import printable

ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)
#: A header of a member that is larger holds no name that could be a photo's.
_MOST_HEADER = 1 << 20
_LONG_HEADERS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)

#: A member: its name in the archive, what changes with its content, and what opens it.
Member = tuple[str, str, Callable[[], IO[bytes] | None]]


class _Header(tarfile.TarInfo):
    """A tar header; one that says that its names take megabytes is refused before they are read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header of a block."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _LONG_HEADERS and header.size > _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def members(path: str, passing: Passing | None = None) -> Iterator[Member]:
    """Yield the pictures in an archive, in the order in which they are stored; what opens one works until the next is drawn.

    Of several members of one name the second is called `NAME (2)`. Links to other members are pictures of their own; they and
    raw photos are read last.
    passing: what is passed over, as in a folder. Raises one of `ERRORS` when the archive is damaged.
    """
    counts: dict[str, int] = {}
    rules = (passing or Passing()).rules(path)
    found = _zip_members(path, rules) if path.lower().endswith(".zip") else _tar_members(path, rules)
    for name, stamp, open_member in found:
        counts[name] = counts.get(name, 0) + 1
        yield (name if counts[name] == 1 else f"{name} ({counts[name]})"), stamp, open_member


def _is_picture(path: str, name: str, rules: Rules, beside: frozenset[str] = frozenset()) -> bool:
    """Say whether a member that is no folder is a picture; one that is passed over is counted."""
    parts = [part for part in name.split("/") if part != "."]  # as of `tar -cf photos.tar .`
    if any(map(is_left_out, parts)) or rules.excludes(posixpath.join(path, name)):
        return False
    return rules.passing.take(name, beside)


def _zip_members(path: str, rules: Rules) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        beside = rules.beside(path, archive.namelist())
        for info in archive.infolist():
            if not info.is_dir() and _is_picture(path, info.filename, rules, beside):
                yield info.filename, f"{info.file_size}:{info.CRC:08x}", lambda info=info: archive.open(info)  # type: ignore[misc]


def _tar_members(path: str, rules: Rules) -> Iterator[Member]:
    changed = Path(path).stat().st_mtime_ns
    links: dict[str, list[str]] = {}
    names: list[str] = []
    with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
        for member in archive:
            if not (member.isfile() or member.islnk() or member.issym()) or not _is_picture(path, member.name, rules):
                continue
            names.append(member.name)
            if member.islnk() or member.issym():
                folder = posixpath.dirname(member.name) if member.issym() else ""
                links.setdefault(posixpath.normpath(posixpath.join(folder, member.linkname)), []).append(member.name)
            elif Path(member.name).suffix.lower() in RAW_SUFFIXES:  # waits until it is known what lies beside it
                links.setdefault(posixpath.normpath(member.name), []).append(member.name)
            else:
                stamp = f"{member.size}:{member.mtime}:{changed}"
                yield member.name, stamp, lambda member=member: archive.extractfile(member)  # type: ignore[misc]
    twice = rules.beside(path, names)
    links = {
        at: kept for at, all_ in links.items() if (kept := [name for name in all_ if rules.passing.take(name, twice)])
    }
    if not links:
        return
    with tarfile.open(path, "r|*", tarinfo=_Header) as archive:
        for member in archive:
            names = links.pop(posixpath.normpath(member.name), []) if member.isfile() else []
            if names:
                data = read_member(names[0], lambda member=member: archive.extractfile(member))  # type: ignore[misc]
            for name in names:
                yield name, f"{member.size}:{member.mtime}:{changed}", lambda data=data: io.BytesIO(data)  # type: ignore[misc]
    for target, names in links.items():
        for name in names:
            yield name, "", _missing(name, target)


def _missing(name: str, target: str) -> Callable[[], IO[bytes] | None]:
    def fail() -> IO[bytes]:
        raise InputError(f"{printable(name)}: is a link to {printable(target)}, which is not in the archive")

    return fail


def read_member(name: str, open_member: Callable[[], IO[bytes] | None]) -> bytes:
    """Unpack a member, never more bytes than `max_bytes`; InputError when it cannot be, ImageError when it has more.

    name: what the photo is called in messages.
    """
    limit = max_bytes()
    pieces, count = [], 0
    try:
        file = open_member()
        assert file is not None  # only folders have none
        with file:
            while count <= limit and (piece := file.read(1 << 20)):
                pieces.append(piece)
                count += len(piece)
    except ERRORS as error:
        raise InputError(
            f"{printable(name)}: cannot be unpacked ({printable(str(error))}); test the archive"
        ) from error
    if count > limit:
        raise ImageError(f"{printable(name)}: has more than {limit:,} bytes; raise FACEPIPE_MAX_BYTES if you trust it")
    return b"".join(pieces)
