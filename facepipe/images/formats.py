"""Which formats are read, and what it takes to decode a picture: memory, and scans of a JPEG.

A format is read when photos come in it and its decoder neither starts a program (EPS, and IPTC, which can hold EPS), nor opens
other files (FPX, MIC), nor unpacks without a limit (FITS).
"""

from __future__ import annotations

import io
import os
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import PIL.Image

#: Pillow's names. MPO is opened as JPEG; HEIF is read by pillow-heif.
FORMATS = (
    *(
        "AVIF",
        "BMP",
        "CUR",
        "DCX",
        "DDS",
        "DIB",
        "GIF",
        "ICNS",
        "ICO",
        "JPEG",
        "JPEG2000",
        "MSP",
        "PCD",
        "PCX",
        "PNG",
        "PPM",
    ),
    *("PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)

#: What a folder is searched for. A file that is named itself is read whatever it is called.
IMAGE_SUFFIXES = frozenset(
    "." + suffix
    for line in (
        "apng avif avifs bmp bw cur dcx dds dib gif heic heics heif heifs hif icb icns ico j2c j2k jfif jp2 jpc jpe jpeg jpf",
        "jpg jpx mpo msp pbm pcd pcx pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp xbm xpm",
    )
    for suffix in line.split()
)

#: Videos that a folder is searched for. `.ts` is a video where it is named, and in folders far more often TypeScript.
VIDEO_SUFFIXES = frozenset(
    (
        *(
            ".3g2",
            ".3gp",
            ".asf",
            ".avi",
            ".flv",
            ".m2ts",
            ".m4v",
            ".mkv",
            ".mov",
            ".mp4",
            ".mpeg",
            ".mpg",
            ".mts",
            ".ogv",
        ),
        *(".vob", ".webm", ".wmv"),
    )
)


def is_video(name: str) -> bool:
    """Say whether a file has a video's name."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    return suffix in VIDEO_SUFFIXES or suffix == ".ts"


#: Raw photos of cameras, read where the extra `raw` is installed.
_RAW = "3fr ari arw cr2 cr3 crw dcr dng erf fff iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
RAW_SUFFIXES = frozenset("." + suffix for suffix in _RAW.split())


@cache
def is_installed(library: str) -> bool:
    """Say whether there is a library that an extra brings."""
    return find_spec(library) is not None


#: Bytes in memory for each pixel while a picture is decoded, as measured with pictures of 64 to 196 megapixels: the decoder's own
#: frames, Pillow's picture, and what lies between them.
_BYTES_PER_PIXEL = {"WEBP": 16, "JPEG2000": 16, "QOI": 13, "HEIF": 10, "AVIF": 10, "GIF": 5}
#: A progressive JPEG keeps the coefficients of all pixels, at its full size, until its last scan.
_COEFFICIENT = 2
#: Integers and floats are scaled beside their copy.
_WIDE_MODES = {"I": 16, "F": 16, "I;16": 8, "I;16B": 8, "I;16L": 8}


def bytes_to_decode(picture: PIL.Image.Image, full: tuple[int, int]) -> int:
    """Estimate the memory that it takes to decode a picture whose header was read. full: its size before a reduction."""
    each = max(
        _BYTES_PER_PIXEL.get(picture.format or "", 0),
        _WIDE_MODES.get(picture.mode, len(picture.getbands()) if len(picture.getbands()) != 3 else 4),
    )
    kept = 0.0
    if picture.info.get("progressive"):
        sampling = [layer[1] * layer[2] for layer in getattr(picture, "layer", ())] or [1]
        kept = full[0] * full[1] * _COEFFICIENT * sum(sampling) / max(sampling)
    return picture.width * picture.height * each + int(kept)


#: What `refused_format` calls a video, and sound.
VIDEO, SOUND = "of a video", "of sound"
#: How containers of videos begin -> ffmpeg's demuxer for it. None of these opens other files.
CONTAINERS = (
    (rb"....(ftyp|moov|mdat|wide|free|skip|pnot|styp)", "mov"),
    (rb"\x1a\x45\xdf\xa3", "matroska"),
    (rb"RIFF....AVI[ X\x19]", "avi"),
    (rb"(\x47.{187}){3}|(....\x47.{187}){3}", "mpegts"),
    (rb"\x00\x00\x01\xba", "mpeg"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (rb"FLV\x01", "flv"),
    (rb"OggS", "ogg"),
)
#: Pictures in the container of a MOV.
PICTURES = rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1|avi[fs]|crx )"
#: How files begin that lie among photos, are not read, and are not known to Pillow by their beginning.
_OTHERS = (
    (rb"\x1c[\x01-\x09\xf0]", "IPTC"),
    (rb"%PDF", "PDF"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "FPX or MIC"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (
        rb"....ftypM4[ABP] |ID3|\xff[\xe2-\xfd]|fLaC|RIFF....WAVE|FORM....AIF[CF]|#!AMR|OggS(?!.{,2000}\x80theora)",
        SOUND,
    ),
    (rb"\x00\x00\x01\xb3", VIDEO),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg", "SVG"),
    (rb"(?i)\s*<(!doctype )?html", "HTML (a web page)"),
    (rb"PK\x03\x04", "ZIP"),
)


def refused_format(data: bytes) -> str | None:
    """Return the name of a format that is not read when the bytes begin like one, else None."""
    for beginning, kind in _OTHERS:
        if re.match(beginning, data[:4096], re.DOTALL):
            return kind
    if not re.match(PICTURES, data, re.DOTALL) and any(re.match(form, data, re.DOTALL) for form, _ in CONTAINERS):
        return VIDEO
    PIL.Image.init()
    for name in PIL.Image.ID:
        accept = PIL.Image.OPEN[name][1]
        if name not in FORMATS and accept is not None:
            try:
                if accept(data[:16]) is True:
                    return name
            except (IndexError, ValueError):  # too short for it
                continue
    return None


#: Seconds of a processor for one picture.
MAX_SECONDS = 20.0
#: Pixels of a picture inside an icon's file; the largest icons have 1024 x 1024.
_MAX_ICON = 1 << 22


class TimedBytes(io.BytesIO):
    """Bytes that end with an error when their decoder takes too long: most ask for a piece at a time."""

    def __init__(self, data: bytes) -> None:
        """Begin to count."""
        super().__init__(data)
        self._end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes. Errors: TimeoutError."""
        if time.thread_time() > self._end:
            raise TimeoutError(f"decoding takes more than {MAX_SECONDS:.0f} s")
        return super().read(size)


def require_small_icons(data: bytes) -> None:
    """Raise ValueError for a large picture in an icon's file: PNG or JPEG 2000, whose size Pillow learns only while it decodes."""
    for inner in re.finditer(rb"\x89PNG\r\n\x1a\n....IHDR(.{8})|\xff\x4f\xff\x51....(.{8})", data, re.DOTALL):
        width, height = struct.unpack(">II", inner[1] or inner[2])
        if width * height > _MAX_ICON:
            raise ValueError(f"it holds an icon of {width}x{height} pixels")


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan of a JPEG: its components' ids, first and last coefficient, and the bit down to which they are told."""

    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int


_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def jpeg_scans(data: bytes) -> Iterator[Scan]:
    """Yield the scans of a JPEG's first picture, as far as its segments can be followed. Source: ITU-T T.81, annex B."""
    place = 2
    while found := _MARKER.search(data, place):
        place, marker = found.start(), data[found.start() + 1]
        if marker == 0xD9:
            return
        length = int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xDA and length >= 6:
            body = data[place + 4 : place + 2 + length]
            count = body[0] if body else 0
            if len(body) >= 4 + 2 * count:
                first, last, bits = body[1 + 2 * count : 4 + 2 * count]
                yield Scan(tuple(body[1 : 1 + 2 * count : 2]), first, last, bits & 15)
        place += 2 + max(length, 2) if marker not in {0x01, 0xD8} else 2
