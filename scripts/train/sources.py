"""Photos from folders and archives, one after the other, each with the identity that its folder names."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from facepipe.errors import InputError
from facepipe.images import IMAGE_SUFFIXES, find_images, read_bytes

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
#: A packed member may not unfold to more than this; no photo has so many bytes.
_MAX_MEMBER = 512 << 20


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo's file. name: where it came from. identity: the folder below the root that holds it, None at the root itself."""

    name: str
    identity: str | None
    data: bytes


def read_photos(roots: Sequence[Path], skip: int = 0) -> Iterator[Photo | InputError]:
    """Yield the photos of folders, archives (zip, tar) and single files, always in the same order; the first `skip` are not read.

    A file that cannot be read is yielded as the error that says so. Raises InputError for a root that does not exist or an
    archive that is damaged.
    """
    number = 0
    for root in roots:
        if not root.exists():
            raise InputError(f"{root}: no such file or folder; give folders, zip or tar archives of photos")
        for photo in _read_root(root, skip - number):
            number += 1
            if photo is not None:
                yield photo


def _read_root(root: Path, skip: int) -> Iterator[Photo | InputError | None]:
    """Yield None for each photo that is skipped."""
    name = root.name.lower()
    if root.is_dir():
        yield from _read_folder(root, skip)
    elif name.endswith(_TAR):
        yield from _read_tar(root, skip)
    elif name.endswith(".zip"):
        yield from _read_zip(root, skip)
    else:
        yield _read_file(root, None) if skip <= 0 else None


def _read_file(path: Path, identity: str | None) -> Photo | InputError:
    try:
        return Photo(str(path), identity, read_bytes(path)[1])
    except InputError as error:
        return error


def _read_folder(root: Path, skip: int) -> Iterator[Photo | InputError | None]:
    for i, path in enumerate(find_images([root])):
        yield None if i < skip else _read_file(path, _identity(path.relative_to(root).parent.as_posix()))


def _read_tar(root: Path, skip: int) -> Iterator[Photo | InputError | None]:
    try:
        with tarfile.open(root, "r:*") as archive:
            i = -1
            for member in archive:
                if not member.isfile() or not _is_photo(member.name):
                    continue
                i += 1
                if i < skip:
                    yield None
                    continue
                file = archive.extractfile(member)
                assert file is not None
                yield _member(root, member.name, member.size, file.read(min(member.size, _MAX_MEMBER + 1)))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{root}: the archive cannot be read ({error}); make it again") from error


def _read_zip(root: Path, skip: int) -> Iterator[Photo | InputError | None]:
    try:
        with zipfile.ZipFile(root) as archive:
            members = sorted((m for m in archive.infolist() if _is_photo(m.filename)), key=lambda m: m.filename)
            for i, member in enumerate(members):
                if i < skip:
                    yield None
                    continue
                with archive.open(member) as file:
                    data = file.read(_MAX_MEMBER + 1)
                yield _member(root, member.filename, len(data), data)
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{root}: the archive cannot be read ({error}); make it again") from error


def _member(root: Path, name: str, size: int, data: bytes) -> Photo | InputError:
    if size > _MAX_MEMBER:
        return InputError(f"{root}:{name}: larger than {_MAX_MEMBER >> 20} MiB; no photo is")
    return Photo(f"{root}:{name}", _identity(PurePosixPath(name).parent.as_posix()), data)


def _identity(folder: str) -> str | None:
    return None if folder in {".", "", "/"} else folder


def _is_photo(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
