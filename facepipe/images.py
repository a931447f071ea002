"""The only reader and writer of pictures.

Whatever Pillow can decode, and HEIC, becomes an `Image`: RGB, uint8, as displayed. The choices made on the way:

- The EXIF turn is applied, in every format that carries one; damaged EXIF counts as none, as in every viewer.
- Transparency is laid on white, the colour of the page that such pictures are made for.
- CMYK and LAB go through the embedded colour profile when there is one that can be used. RGB is taken as sRGB.
- More than 8 bits are scaled, never clipped: integers by the smallest of 8, 10, 12, 14, 16 bits that hold the
  brightest pixel (sensors of 12 bits are stored in 16), floats from 0..1 or 0..255, anything else from its own range.
- Of several frames or pages the first is read.
- A damaged picture is an error, not a picture that is half grey.
- A header that promises more than FACEPIPE_MAX_PIXELS (default 200 million: the largest phone cameras) is refused
  before anything is decoded. Encapsulated PostScript is refused: reading it means running a program.

JPEGs are decoded by Pillow. OpenCV's decoder gives the same pixels (both are libjpeg-turbo) in the same time when the
picture is reduced while decoding, but hands out half a picture when the file is truncated.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import logging
import os
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL._imaging
import PIL.Image
from numpy.typing import NDArray

from facepipe.errors import ImageError, InputError, OutputError, UsageError
from facepipe.files import atomic_path, printable
from facepipe.types import Image, UInt8

DEFAULT_MAX_PIXELS = 200_000_000

#: A file of more bytes for each allowed pixel than this holds no picture within the limit (RGBA of 16 bits has 8).
_MAX_BYTES_PER_PIXEL = 8

#: Pillow's formats that are not read: EPS runs Ghostscript, WMF needs Windows, the others have no decoder.
_REFUSED_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})

#: What a folder is searched for. A file that is named itself is read whatever it is called.
IMAGE_SUFFIXES = frozenset(
    "." + suffix
    for line in (
        "apng avif avifs blp bmp bw cur dcx dds dib fit fits flc fli ftc ftu gbr gif heic heics heif heifs hif icb",
        "icns ico iim im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo msp pbm pcd pcx pfm pgm png pnm ppm psd pxr qoi",
        "ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm",
    )
    for suffix in line.split()
)

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})

_EXIF_ORIENTATION = 0x0112

_PILLOW_MODULES = r"(PIL|pillow_heif)\b"
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(_PILLOW_MODULES), 0)


def max_pixels() -> int:
    """Return the largest number of pixels that a picture may have; UsageError when FACEPIPE_MAX_PIXELS is no number."""
    text = os.environ.get("FACEPIPE_MAX_PIXELS", "")
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"FACEPIPE_MAX_PIXELS: expected a whole number of pixels above 0, got {printable(text)}")
    return int(text)


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# ---- reading ----


def read_image(source: str | os.PathLike[str] | BinaryIO, *, max_side: int | None = None) -> Image:
    """Read a picture from a path or from an open binary file (see `read_image_bytes`).

    Raises InputError when there is no such file or it may not be read, ImageError when it holds no usable picture.
    """
    name, data = read_bytes(source)
    return read_image_bytes(data, name, max_side=max_side)


def read_bytes(source: str | os.PathLike[str] | BinaryIO) -> tuple[str, bytes]:
    """Return the name of a picture's file, as given, and its bytes.

    Never takes more memory than a picture within the pixel limit may need. Raises InputError when there is no such file,
    it is a pipe or a device (other than stdin), or it may not be read, ImageError when it is empty or too large.
    """
    limit = max(64 << 20, max_pixels() * _MAX_BYTES_PER_PIXEL)
    if not isinstance(source, (str, os.PathLike)):
        name = getattr(source, "name", None)
        name = name if isinstance(name, str) else "<stream>"
        data = source.read(limit + 1)
    else:
        name = os.fspath(source)
        try:
            with open(name, "rb", opener=_open_at_once) as file:
                info = os.fstat(file.fileno())
                regular = stat.S_ISREG(info.st_mode)
                if not regular and not _is_descriptor(name):
                    raise InputError(
                        f"{printable(name)}: is a pipe or a device, no file; pipe into `-`, or save it first"
                    )
                data = file.read(limit + 1) if not regular or info.st_size <= limit else b""
                too_large = regular and info.st_size > limit
        except FileNotFoundError as error:
            raise InputError(f"{printable(name)}: no such file; check the path") from error
        except IsADirectoryError as error:
            raise InputError(f"{printable(name)}: is a folder; name a picture in it or use `facepipe batch`") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{printable(name)}: cannot be read ({reason}); check its permissions") from error
        if too_large:
            raise ImageError(_too_many_bytes(name, limit))
    if not data:
        raise ImageError(f"{printable(name)}: is empty; copy the picture again")
    if len(data) > limit:
        raise ImageError(_too_many_bytes(name, limit))
    return name, data


def _is_descriptor(name: str) -> bool:
    """Say whether a name stands for a file that is open already: stdin, or what a shell makes of `<(...)`."""
    return os.path.abspath(name).startswith(("/dev/stdin", "/dev/fd/", "/proc/self/fd/"))  # noqa: PTH100


def _open_at_once(name: str, flags: int) -> int:
    """Open a file; a pipe to which nobody writes is opened too, where a plain open would wait for a writer."""
    return os.open(name, flags if _is_descriptor(name) else flags | os.O_NONBLOCK)


def _too_many_bytes(name: str, limit: int) -> str:
    return f"{printable(name)}: has more than {limit:,} bytes; raise FACEPIPE_MAX_PIXELS if it really is a picture"


def read_image_bytes(data: bytes, name: str, *, max_side: int | None = None) -> Image:
    """Decode a picture.

    name: what the picture is called in messages and in `Image.path`. max_side: when the longer displayed side has more
    pixels than this, the picture is reduced to exactly that many by averaging areas (JPEGs partly while decoding), and
    `Image.size` keeps the displayed size. Raises ImageError when the bytes are no picture, a damaged one, or one of
    more than `max_pixels()` pixels.
    """
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: expected 1 or more, got {max_side}")
    if not data:
        raise ImageError(f"{printable(name)}: is empty; copy the picture again")
    limit = max_pixels()
    _prepare_pillow(limit)
    try:
        with _opened(data) as picture:
            width, height = picture.size
            if width * height > limit:
                raise ImageError(_too_large(name, f"{width}x{height} is larger than", limit))
            reduced = _reduce_while_decoding(picture, max_side)
            picture.load()
            if not reduced:  # icons say their size only when loaded
                width, height = picture.size
            turn = _exif_turn(picture)
            rgb = _to_rgb(picture, max_side)
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(_too_large(name, "has more than", limit)) from error
    except MemoryError as error:
        raise ImageError(f"{printable(name)}: needs more memory than there is; make the picture smaller") from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(f"{printable(name)}: is no picture that can be read; convert it to JPEG or PNG") from error
    except _DECODER_ERRORS as error:
        reason = str(error).strip()
        if not reason or reason.startswith("decoder error"):  # Pillow's words when a library gives only a number
            reason = "its data cannot be decoded"
        raise ImageError(
            f"{printable(name)}: the picture is damaged ({printable(reason)}); copy or export it again"
        ) from error
    size = (height, width) if turn >= 5 else (width, height)
    rgb = _turned(_shrunk(rgb, max_side, max(size)), turn)
    return Image(rgb, path=name, size=size)


def _too_large(name: str, relation: str, limit: int) -> str:
    return f"{printable(name)}: {relation} {limit:,} pixels; raise FACEPIPE_MAX_PIXELS if you trust it"


#: Everything that Pillow's decoders were seen to raise on damaged files; they do not wrap what their parsers run into.
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def _prepare_pillow(limit: int) -> None:
    """Give Pillow our pixel limit and keep it silent."""
    # Nested pictures (icons, frames of an animation) are opened by Pillow itself; it raises at twice this number.
    PIL.Image.MAX_IMAGE_PIXELS = limit
    # The filter is looked up at every call: `warnings.catch_warnings` in the caller's code may have taken it away.
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES)
    _silence_logs()


def _opened(data: bytes) -> PIL.Image.Image:
    """Return the undecoded picture; Pillow's rarer plugins and the HEIC reader are loaded only for what needs them."""
    if data.startswith(b"\xff\xd8\xff"):
        formats: tuple[str, ...] = ("JPEG",)
    elif data.startswith(b"\x89PNG"):
        formats = ("PNG",)
    else:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
            _register_heif()
        PIL.Image.init()
        formats = tuple(name for name in PIL.Image.ID if name not in _REFUSED_FORMATS)
    return PIL.Image.open(io.BytesIO(data), formats=formats)


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


@cache
def _silence_logs() -> None:
    """Turn off what Pillow logs and libtiff prints about damaged files; it comes as an error as well."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(PIL._imaging.__file__)
    for setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, setter):  # absent where Pillow was built without libtiff or with it inside
            function = getattr(library, setter)
            function.argtypes = [ctypes.c_void_p]
            function.restype = ctypes.c_void_p
            function(None)


def _reduce_while_decoding(picture: PIL.Image.Image, max_side: int | None) -> bool:
    """Ask a JPEG decoder for 1/2, 1/4 or 1/8 of the size, never less than max_side; True when it will do so."""
    longer = max(picture.size)
    if max_side is None or longer < 2 * max_side:
        return False
    # Pillow takes the largest reduction at which both sides are at least what is asked for.
    factor = max(k for k in (1, 2, 4, 8) if longer >= k * max_side)
    return picture.draft(None, (max(1, picture.width // factor), max(1, picture.height // factor))) is not None


def _exif_turn(picture: PIL.Image.Image) -> int:
    """Return the EXIF orientation 1..8; 1 when there is none or it cannot be understood."""
    try:
        turn = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:  # damaged EXIF: the picture is shown as it is stored
        return 1
    return turn if turn in range(1, 9) else 1


def _turned(rgb: UInt8, turn: int) -> UInt8:
    """Apply an EXIF orientation to uint8 (H, W, 3); the result is contiguous."""
    if turn in {5, 6, 7, 8}:
        rgb = rgb.swapaxes(0, 1)
    if turn in {3, 4, 7, 8}:
        rgb = rgb[::-1]
    if turn in {2, 3, 6, 7}:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _shrunk(rgb: UInt8, max_side: int | None, longer: int) -> UInt8:
    """Reduce uint8 (H, W, 3) to a longer side of max_side by averaging areas; unchanged when it is not longer."""
    if max_side is None or longer <= max_side or max(rgb.shape[:2]) <= max_side:
        return rgb
    import cv2

    height, width = rgb.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


# ---- colours ----


def _to_rgb(picture: PIL.Image.Image, max_side: int | None) -> UInt8:
    """Return a loaded picture of any mode as uint8 (H, W, 3), sRGB; large ones reduced, never below max_side."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(np.asarray(picture))
    if mode in {"LAB", "CMYK"}:
        picture = _managed(picture)
    if mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info:
        picture = _on_white(picture)
    # Averaging whole blocks of pixels here spares the memory of a second copy of a very large picture.
    factor = max(picture.size) // max_side if max_side is not None else 1
    if factor > 1 and picture.mode in {"L", "RGB"}:
        picture = picture.reduce(factor)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Lay a picture with transparency on white."""
    if picture.mode == "La":
        picture = picture.convert("LA")
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)


def _managed(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert CMYK or LAB by its colour profile; CMYK without a usable profile is returned for the plain formula."""
    from PIL import ImageCms

    embedded = picture.info.get("icc_profile")
    srgb = ImageCms.createProfile("sRGB")
    try:
        if embedded:
            source = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            converted = ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    except (ImageCms.PyCMSError, OSError):  # a profile for other colours, or a damaged one: as if there were none
        pass
    if picture.mode == "CMYK":
        return picture
    converted = ImageCms.profileToProfile(picture, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _scaled(values: NDArray[Any]) -> UInt8:
    """Scale one channel of integers or floats to uint8 grey (H, W, 3), a block of rows at a time."""
    finite = values if values.dtype.kind in "iu" else np.where(np.isfinite(values), values, np.float32(0))
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind in "iu":
        fitting = [float(2**bits - 1) for bits in (8, 10, 12, 14, 16) if high <= 2**bits - 1]
    else:
        fitting = [top for top in (1.0, 255.0) if high <= top]
    if low >= 0.0 and fitting:
        low, high = 0.0, fitting[0]
    factor = 255.0 / (high - low) if high > low else 0.0
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):
        block = (finite[top : top + 256].astype(np.float64) - low) * factor
        grey[top : top + 256] = np.clip(np.rint(block), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


# ---- finding ----

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[object, ...], str]:
    """Return a sorting key in which `photo2` comes before `photo10`, whatever the case; equal only for equal names."""
    parts = _DIGITS.split(name.casefold())
    # Even places are text, odd places are digits: two keys compare text with text and number with number.
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


#: Lies in every folder that a batch writes.
OUTPUT_MARK = ".facepipe-output"


def is_output(folder: str) -> bool:
    """Say whether a folder was written by a batch."""
    return os.path.lexists(os.path.join(folder, OUTPUT_MARK))  # noqa: PTH118


def find_images(
    roots: Iterable[str | os.PathLike[str]],
    *,
    on_error: Callable[[InputError], None] | None = None,
    skip: Callable[[str], bool] = lambda folder: False,
) -> Iterator[Path]:
    """Yield the pictures in files and folders, each path once, folders recursively and in natural order.

    In a folder, hidden entries and files without a picture's suffix are left out. Symbolic links to folders are not
    followed, nor folders searched for which `skip` is true, unless they are roots. A link to a file is a picture; one to
    nowhere is yielded, so that it can be reported. A file that is named itself is yielded whatever it is called. A root
    that does not exist, or a folder that may not be listed, is an InputError: given to `on_error`, or raised where that
    is None.
    """
    yielded: set[str] = set()
    searched: set[tuple[int, int]] = set()

    def report(path: str, reason: str, error: OSError | None = None) -> None:
        problem = InputError(f"{printable(path)}: {reason}")
        problem.__cause__ = error
        if on_error is None:
            raise problem
        on_error(problem)

    def search(folder: str) -> Iterator[str]:
        try:
            info = os.stat(folder)  # noqa: PTH116 - strings are several times faster than Path here
            if (info.st_dev, info.st_ino) in searched:
                return
            searched.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda e: natural_key(e.name))
        except OSError as error:
            report(folder, f"the folder cannot be searched ({error.strerror}); check its permissions", error)
            return
        for entry in entries:
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112
                if not entry.is_symlink() and not skip(entry.path):
                    yield from search(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and (  # noqa: PTH122
                entry.is_symlink() or entry.is_file()
            ):
                yield entry.path

    for root in (os.fspath(root) for root in roots):
        if os.path.isdir(root):  # noqa: PTH112
            found = search(root)
        elif os.path.lexists(root):
            found = iter((root,))
        else:
            report(root, "no such file or folder; check the path")
            continue
        for path in found:
            absolute = os.path.abspath(path)  # noqa: PTH100
            if absolute not in yielded:
                yielded.add(absolute)
                yield Path(path)


# ---- writing ----

_WRITTEN = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


def write_image(path: str | os.PathLike[str], rgb: UInt8, *, private: bool = False) -> None:
    """Write uint8 RGB (H, W, 3) whole or not at all; the suffix names the format (JPEG, PNG, WebP, BMP, TIFF).

    Missing parent folders are made. private: only its owner may read it.
    Raises OutputError when the suffix is another one or the system refuses.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < 1:
        raise ValueError(f"rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    kind = _WRITTEN.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"{printable(path)}: unknown picture suffix; use one of {', '.join(_WRITTEN)}")
    data = encode_image(rgb, kind)
    with atomic_path(path, private=private) as temporary:
        temporary.write_bytes(data)


def encode_image(rgb: UInt8, kind: str = "JPEG", quality: int = 92) -> bytes:
    """Return uint8 RGB (H, W, 3) as a file's bytes; quality 1..100 counts for JPEG and WebP."""
    buffer = io.BytesIO()
    options: dict[str, object] = {"quality": quality} if kind in {"JPEG", "WEBP"} else {}
    PIL.Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, kind, **options)
    return buffer.getvalue()
