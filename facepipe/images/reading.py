"""Reading pictures: paths, open files and bytes become `Image`.

Whatever Pillow can decode, HEIC, and raw photos (`raw`) become an `Image`: RGB, uint8, as displayed. The choices made on the way:

- The EXIF turn is applied, in every format that carries one; damaged EXIF counts as none, as in every viewer.
- Transparency is laid on white, the colour of the page that such pictures are made for.
- CMYK and LAB go through the embedded colour profile when there is one that can be used. RGB is taken as sRGB.
- More than 8 bits are scaled, never clipped: integers by the smallest of 8, 10, 12, 14, 16 bits that hold the
  brightest pixel (sensors of 12 bits are stored in 16), floats from 0..1 or 0..255, anything else from its own range.
- Of several frames or pages the first is read.
- A damaged picture is an error, not a picture that is half grey (`wholeness`). One whose pixels are whole is read.
- A header that promises more than FACEPIPE_MAX_PIXELS (default 200 million: the largest phone cameras) is refused
  before anything is decoded; so is one that takes too much memory or time. `formats` says which formats are read.

JPEGs are decoded by Pillow. OpenCV's decoder gives the same pixels (both are libjpeg-turbo) in the same time when the
picture is reduced while decoding, but hands out half a picture when the file is truncated.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL._imaging
import PIL.Image

from facepipe.borrowing import Borrowed
from facepipe.errors import ImageError, InputError, UsageError
from facepipe.images.colours import to_rgb, turned
from facepipe.images.formats import (
    FORMATS,
    SOUND,
    VIDEO,
    TimedBytes,
    bytes_to_decode,
    is_video,
    jpeg_scans,
    refused_format,
    require_small_icons,
)
from facepipe.images.raw import decode_raw, is_raw
from facepipe.images.wholeness import mended, require_whole
from facepipe.text import no_such, printable
from facepipe.types import Image, UInt8

DEFAULT_MAX_PIXELS = 200_000_000
#: A JPEG of 200 megapixels has about 100 MB, an uncompressed TIFF of 80 megapixels 240.
DEFAULT_MAX_BYTES = 256_000_000

#: Scans times pixels of a progressive JPEG: each scan goes over all pixels, and a decoder cannot be interrupted.
_MAX_SCANNED = 3_000_000_000
#: Bytes that decoding a picture may take for each pixel that it may have: 1 GB with the default limit.
_MEMORY_PER_PIXEL = 5
_LEAST_MEMORY = 256 << 20
#: Pictures that take more than this to decode are decoded one at a time.
_LARGE_BYTES = 100 << 20
_LARGE = threading.Lock()

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})

_EXIF_ORIENTATION = 0x0112
_TIFF_SOFTWARE = 0x0131

_PILLOW_MODULES = r"(PIL|pillow_heif)\b"
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


@runtime_checkable
class Readable(Protocol):
    """An open binary file, or whatever reads like one. Its `name`, when that is a text, is what the picture is called."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        ...


def max_pixels() -> int:
    """Return the largest number of pixels that a picture may have; UsageError when FACEPIPE_MAX_PIXELS is not a number."""
    return limit_of("FACEPIPE_MAX_PIXELS", DEFAULT_MAX_PIXELS, "pixels")


def limit_of(variable: str, usual: int, unit: str) -> int:
    """Return a limit that an environment variable may raise; UsageError when that is not a number."""
    text = os.environ.get(variable, "")
    if not text:
        return usual
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{variable}: expected a whole number of {unit} above 0, got {printable(text)}")
    return int(text)


def max_bytes() -> int:
    """Return the largest number of bytes of a picture's file; UsageError when FACEPIPE_MAX_BYTES is not a number."""
    return limit_of("FACEPIPE_MAX_BYTES", DEFAULT_MAX_BYTES, "bytes")


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return what `content_hash` does of a file's bytes, which are not all in memory at a time. Errors: InputError."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{printable(path)}: cannot be read ({reason}); check the path and its permissions") from error


def read_image(source: str | os.PathLike[str] | Readable, *, max_side: int | None = None) -> Image:
    """Read a picture from a path or from an open binary file (see `read_image_bytes`).

    Raises InputError when there is no such file or it may not be read, ImageError when it holds no usable picture.
    """
    name, data = read_bytes(source)
    return read_image_bytes(data, name, max_side=max_side)


def read_bytes(source: str | os.PathLike[str] | Readable) -> tuple[str, bytes]:
    """Return the name of a picture's file, as given, and its bytes.

    Never takes more memory than a picture within the pixel limit may need. Raises InputError when there is no such file,
    it is a pipe or a device (other than stdin), or may not be read, ImageError when it is empty or too large.
    """
    limit = max_bytes()
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else "<stream>"
        data = _read(source, limit)
    else:
        name = os.fspath(source)
        try:
            with open(name, "rb", opener=open_at_once) as file:
                info = os.fstat(file.fileno())
                if stat.S_ISREG(info.st_mode):
                    require_few_bytes(name, info.st_size, file.peek(_HEAD))
                elif not _is_descriptor(name):
                    raise InputError(
                        f"{printable(name)}: is a pipe or a device, not a file; pipe it into `-`, or save it first"
                    )
                data = _read(file, limit)
        except FileNotFoundError as error:
            raise InputError(no_such(name)) from error
        except IsADirectoryError as error:
            raise InputError(f"{printable(name)}: is a folder; name a picture in it or use `facepipe batch`") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{printable(name)}: cannot be read ({reason}); check its permissions") from error
    if not data:
        raise ImageError(f"{printable(name)}: is empty; copy the picture again")
    require_few_bytes(name, len(data), data[:_HEAD])
    return name, data


def _read(file: Readable, limit: int) -> bytes:
    """Return what there is, and a byte more than the limit when there is more; memory for what is there, not for the limit."""
    pieces = []
    left = limit + 1
    while left > 0 and (piece := file.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


#: Bytes that are read at a time, and those that tell what a file is.
_PIECE, _HEAD = 1 << 20, 4096


def _is_descriptor(name: str) -> bool:
    """Say whether a name stands for a file that is open already: stdin, or what a shell makes of `<(...)`."""
    return os.path.abspath(name).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/"))  # noqa: PTH100


def open_at_once(name: str, flags: int) -> int:
    """Open a file; a pipe without a writer is opened too, where a plain open would wait for one."""
    return os.open(name, flags if _is_descriptor(name) else flags | os.O_NONBLOCK)


def require_few_bytes(name: str, count: int, head: bytes = b"") -> None:
    """Raise ImageError for a file that has more bytes than `max_bytes`. head: its first ones."""
    if count > (limit := max_bytes()):
        if is_video(name) or refused_format(head) == VIDEO:
            raise _is_other(name, VIDEO)
        raise ImageError(
            f"{printable(name)}: has more than {limit:,} bytes; raise FACEPIPE_MAX_BYTES if it really is a picture"
        )


def _is_other(name: str, kind: str | None) -> ImageError:
    """Return the error of a file that is no photo. kind: see `refused_format`."""
    if kind == SOUND or name.lower().endswith((".mka", ".weba", ".wma")):
        what = "holds sound and no picture; leave it out"
    elif kind != VIDEO:
        is_what = "cannot be read as an image" if kind is None else f"is in the format {kind}, which is not read"
        what = f"{is_what}; convert it to JPEG or PNG"
    elif is_video(name):
        what = "is a video, and a photo is wanted here; facepipe identify and batch say who is seen in videos"
    elif name == "-" or name.startswith("<") or _is_descriptor(name):
        what = "is a video, and videos are read from files alone; save it as a file such as clip.mp4, and name that"
    else:
        what = "is a video, and is not called like one; give it a name such as clip.mp4"
    return ImageError(f"{printable(name)}: {what}")


def read_image_bytes(data: bytes, name: str, *, max_side: int | None = None) -> Image:
    """Decode a picture.

        name: what the picture is called in messages and in `Image.path`. max_side: when the longer displayed side has
        more pixels than this, the picture is reduced to exactly that many by averaging areas (JPEGs partly while
    decoding); `Image.size` keeps the displayed size, `Image.enlarge` the bytes. Raises ImageError when the bytes are
        not a picture, are damaged, or hold more than `max_pixels()` pixels.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: expected 1 or more, got {max_side}")
    if not data:
        raise ImageError(f"{printable(name)}: is empty; copy the picture again")
    try:
        with pillow_ready:
            size, turn, rgb = decoded(data, name, max_side)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(_too_large(name, "has more than", max_pixels())) from error
    except MemoryError as error:
        raise ImageError(f"{printable(name)}: needs more memory than is available; make the picture smaller") from error
    except PIL.UnidentifiedImageError as error:
        raise _is_other(name, refused_format(data)) from error
    except (ImageError, UsageError):
        raise
    except Exception as error:  # decoders do not wrap what their parsers run into, whatever that is
        raise ImageError(
            f"{printable(name)}: the picture is damaged ({_reason(error)}); copy or export it again"
        ) from error
    width, height = (size[1], size[0]) if turn >= 5 else size
    rgb = turned(_shrunk(rgb, max_side, max(size)), turn)
    enlarge = partial(_decode_larger, data, name) if max(rgb.shape) < max(size) else None
    return Image(rgb, path=name, size=(width, height), enlarge=enlarge)


def decoded(data: bytes, name: str, max_side: int | None) -> tuple[tuple[int, int], int, UInt8]:
    """Return a picture's stored width and height, its EXIF turn, and its pixels. Errors: whatever a decoder raises."""
    if is_raw(data, name):
        return decode_raw(data, name, max_side, max_pixels(), lambda jpeg, side: decoded(jpeg, name, side))
    try:
        size, turn, rgb = _decoded_once(mended(data), name, max_side)
    except (OSError, SyntaxError, ValueError):
        if not data.startswith(b"\x89PNG"):
            raise
        # Pillow reads more of a PNG than its pixels need.
        size, turn, rgb = _decoded_once(mended(data, plain=True), name, max_side)
    require_whole(data, rgb, lambda other: _decoded_once(other, name, max_side)[2])
    return size, turn, rgb


def _decoded_once(data: bytes, name: str, max_side: int | None) -> tuple[tuple[int, int], int, UInt8]:
    with _opened(data) as picture:
        width, height = picture.size
        if width * height > (limit := max_pixels()):
            raise ImageError(_too_large(name, f"{width}x{height} is larger than", limit))
        scans = sum(1 for _ in jpeg_scans(data)) if picture.info.get("progressive") else 1
        if scans * width * height > _MAX_SCANNED:
            raise ImageError(
                f"{printable(name)}: has {scans} scans, too many for its size; save it again as a plain JPEG"
            )
        reduced = _reduce_while_decoding(picture, max_side)
        needed = bytes_to_decode(picture, (width, height))
        if needed > (memory := max(_LEAST_MEMORY, limit * _MEMORY_PER_PIXEL)):
            raise ImageError(
                f"{printable(name)}: {width}x{height} takes {needed / 1e9:.1f} GB to decode as {picture.format}, the limit is "
                f"{memory / 1e9:.1f}; save it as JPEG, or raise FACEPIPE_MAX_PIXELS if you trust it"
            )
        # Large ones one at a time, however many threads there are.
        with _LARGE if needed > _LARGE_BYTES else contextlib.nullcontext():
            picture.load()
            if not reduced:  # icons say their size only when loaded
                width, height = picture.size
            turn = exif_turn(picture)
            rgb = to_rgb(picture, max_side)
    return (width, height), turn, rgb


def _reason(error: Exception) -> str:
    """Return what a decoder says, or words for it when it gives only a number."""
    reason = str(error).strip()
    return "its data cannot be decoded" if not reason or reason.startswith("decoder error") else printable(reason)


def from_pillow(picture: PIL.Image.Image) -> Image:
    """Return a PIL image of any mode as displayed; ImageError when its pixels cannot be decoded. The picture stays as it is."""
    name = str(getattr(picture, "filename", "") or "<PIL image>")
    try:
        with pillow_ready:
            picture.load()
        return Image(turned(to_rgb(picture, None), exif_turn(picture)), path=name)
    except Exception as error:
        raise ImageError(
            f"{printable(name)}: the picture is damaged ({printable(str(error))}); export it again"
        ) from error


def _decode_larger(data: bytes, name: str, max_side: int) -> Image:
    return read_image_bytes(data, name, max_side=max_side)


def _too_large(name: str, relation: str, limit: int) -> str:
    return f"{printable(name)}: {relation} {limit:,} pixels; raise FACEPIPE_MAX_PIXELS if you trust it"


def _opened(data: bytes) -> PIL.Image.Image:
    """Return the undecoded picture; Pillow's rarer plugins and the HEIC reader are loaded only for what needs them."""
    if data.startswith(b"\xff\xd8\xff"):
        formats: tuple[str, ...] = ("JPEG",)
    elif data.startswith(b"\x89PNG"):
        formats = ("PNG",)
    else:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
            import pillow_heif  # used without registering it with Pillow, which is the whole program's

            return pillow_heif.HeifImageFile(TimedBytes(data))  # type: ignore[no-untyped-call]
        PIL.Image.init()
        formats = FORMATS
    picture = PIL.Image.open(TimedBytes(data), formats=formats)
    if picture.format in {"ICO", "ICNS", "CUR"}:
        require_small_icons(data)
    return picture


@contextlib.contextmanager
def open_quietly(data: bytes) -> Iterator[PIL.Image.Image]:
    """Yield the undecoded picture, for what stands beside its pixels. Errors: whatever Pillow raises."""
    with pillow_ready, _opened(data) as picture:
        yield picture


def _set_pillow() -> Callable[[], None]:
    """Give Pillow our pixel limit and keep it silent: what it warns of, logs and prints comes as an error as well."""
    most, logger, handler = PIL.Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL"), logging.NullHandler()
    # Nested pictures (icons, frames of an animation) are opened by Pillow itself; it raises at twice this number.
    PIL.Image.MAX_IMAGE_PIXELS = max_pixels()
    # Not by `filterwarnings`, which lets every other warning of the program be shown a second time.
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    filters.insert(0, _PILLOW_WARNINGS)
    logger.addHandler(handler)
    # libtiff prints nothing; what printed before, and how to set it again.
    printers = [(set_printer, set_printer(None)) for set_printer in _libtiff_setters()]

    def put_back() -> None:
        PIL.Image.MAX_IMAGE_PIXELS = most
        if _PILLOW_WARNINGS in filters:
            filters.remove(_PILLOW_WARNINGS)
        logger.removeHandler(handler)
        for set_printer, printer in printers:
            set_printer(printer)

    return put_back


#: The context in which a picture is decoded.
pillow_ready = Borrowed(_set_pillow)


@cache
def _libtiff_setters() -> list[Callable[[int | None], int | None]]:
    library = ctypes.CDLL(PIL._imaging.__file__)
    setters = []
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):  # absent where Pillow was built without libtiff or with it inside
            function = getattr(library, name)
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_void_p
            setters.append(function)
    return setters


def _reduce_while_decoding(picture: PIL.Image.Image, max_side: int | None) -> bool:
    """Ask a JPEG decoder for 1/2, 1/4 or 1/8 of the size, never less than max_side; True when it will do so."""
    longer = max(picture.size)
    if max_side is None or longer < 2 * max_side:
        return False
    # Pillow takes the largest reduction at which both sides are at least what is asked for.
    factor = max(k for k in (1, 2, 4, 8) if longer >= k * max_side)
    return picture.draft(None, (max(1, picture.width // factor), max(1, picture.height // factor))) is not None


def exif_turn(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation 1..8; 1 when there is none or it cannot be understood."""
    try:
        turn = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - whatever damaged EXIF leads to, the picture is shown as it is stored
        return 1
    return turn if turn in range(1, 9) else 1


def _shrunk(rgb: UInt8, max_side: int | None, longer: int) -> UInt8:
    """Reduce uint8 (H, W, 3) to a longer side of max_side by averaging areas; unchanged when it is not longer."""
    if max_side is None or longer <= max_side or max(rgb.shape[:2]) <= max_side:
        return rgb
    import cv2

    height, width = rgb.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
