"""Everything that facepipe raises on purpose, and the exit code that each leaves behind.

    FacepipeError                 1  unplanned, and the base of all others
    ├── UsageError                2  the request itself is wrong (click uses 2 as well)
    ├── InputError                3  a file or folder cannot be read
    │   └── ImageError            3  ... because it is not a picture, is damaged, or is too large
    ├── StoreError                3  an object store does not answer any more, whichever photo it is asked for
    ├── OutputError               3  a file cannot be written
    ├── NoFaceError               4  no face where one was needed
    │   └── AmbiguousFaceError    4  several faces where exactly one was needed
    ├── GalleryError              5  the gallery is missing or damaged
    │   ├── GalleryMissingError   5
    │   ├── GalleryExistsError    5  there is one where one should be made
    │   ├── GalleryAccessError    5  its files may not be read or written
    │   ├── GalleryLockedError    5  another process holds the gallery
    │   ├── GalleryServerError    5  the vector database that holds its templates
    │   ├── GalleryModelError     5  the gallery was made by another embedder
    │   ├── GalleryDamagedError   5  what it holds is not what was written
    │   └── GalleryFullError      3  the disk takes no more of it: an output that cannot be written
    └── ModelError                6  a model is missing or its hash is wrong
        ├── DeviceError           6  the device that was asked for is not there
        └── LibraryError          6  a library that the networks or the command need cannot be loaded

A message is one line: which input, what is wrong, what to do next. `facepipe.cli` is the only place that turns an
error into an exit code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command, as published in docs/formats.md."""

    OK = 0
    UNPLANNED = 1
    USAGE = 2
    INPUT = 3
    NO_FACE = 4
    GALLERY = 5
    MODEL = 6
    PARTIAL = 7
    INTERRUPTED = 130
    READER_GONE = 141


class FacepipeError(Exception):
    """Base of all planned errors."""

    exit_code: ExitCode = ExitCode.UNPLANNED


class UsageError(FacepipeError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = ExitCode.USAGE


class InputError(FacepipeError):
    """A file or folder is missing or cannot be read."""

    exit_code = ExitCode.INPUT


class ImageError(InputError):
    """A file is not a picture, is damaged, or is larger than the limit."""


class StoreError(FacepipeError):
    """An object store does not answer any more, whichever photo it is asked for."""

    exit_code = ExitCode.INPUT


class OutputError(FacepipeError):
    """A file or folder cannot be written."""

    exit_code = ExitCode.INPUT


class NoFaceError(FacepipeError):
    """No usable face where one was needed."""

    exit_code = ExitCode.NO_FACE


class AmbiguousFaceError(NoFaceError):
    """Several faces where exactly one was needed."""


class GalleryError(FacepipeError):
    """The gallery is damaged or cannot be used."""

    exit_code = ExitCode.GALLERY


class GalleryMissingError(GalleryError):
    """There is no gallery in this folder."""


class GalleryExistsError(GalleryError):
    """There is a gallery already where one should be made."""


class GalleryAccessError(GalleryError):
    """The system does not let this user read or write the gallery's files."""


class GalleryLockedError(GalleryError):
    """Another process holds the gallery for longer than the time-out."""


class GalleryServerError(GalleryError):
    """The vector database that holds the gallery's templates does not answer, or holds another state of them."""


class GalleryModelError(GalleryError):
    """The gallery holds embeddings of another network."""


class GalleryDamagedError(GalleryError):
    """The gallery's database is damaged. what: where and what, the message without the next step."""

    NEXT = "facepipe gallery salvage carries every intact face into a new gallery, or restore a copy"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {self.NEXT}")
        self.what = what


class GalleryFullError(GalleryError):
    """The disk has no room for what should be stored; what the gallery holds is sound."""

    exit_code = ExitCode.INPUT


class ModelError(FacepipeError):
    """A model is unknown, is not on this machine, or its file is not the recorded one."""

    exit_code = ExitCode.MODEL


class DeviceError(ModelError):
    """The device that was asked for is not there."""


class LibraryError(ModelError):
    """A library is missing or does not load. The message names the package to install."""
