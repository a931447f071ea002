"""Which formats are read, and what it takes to decode a picture: memory, and scans of a JPEG.

A format is read when photos come in it and its decoder neither starts a program (EPS, and IPTC, which can hold EPS), nor opens
other files (FPX, MIC), nor unpacks without a limit (FITS).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

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

#: Bytes in memory for each pixel while a picture is decoded, as measured with pictures of 64 to 196 megapixels: the decoder's own
#: frames, Pillow's picture, and what lies between them.
_BYTES_PER_PIXEL = {"WEBP": 16, "JPEG2000": 16, "QOI": 13, "HEIF": 10, "AVIF": 10, "GIF": 5}
#: A progressive JPEG keeps the coefficients of all pixels until its last scan.
_PROGRESSIVE = 9
#: Integers and floats are scaled beside their copy.
_WIDE_MODES = {"I": 16, "F": 16, "I;16": 8, "I;16B": 8, "I;16L": 8}


def bytes_to_decode(picture: PIL.Image.Image) -> int:
    """Estimate the memory that it takes to decode a picture whose header was read."""
    each = max(
        _BYTES_PER_PIXEL.get(picture.format or "", 0),
        _PROGRESSIVE if picture.info.get("progressive") else 0,
        _WIDE_MODES.get(picture.mode, len(picture.getbands()) if len(picture.getbands()) != 3 else 4),
    )
    return picture.width * picture.height * each


def refused_format(data: bytes) -> str | None:
    """Return Pillow's name of a format that is not read when the bytes begin like one, else None."""
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
