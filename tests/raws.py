"""Raw photos for tests: small DNGs, written as the DNG specification 1.4 says, from RGB pixels."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facepipe.images import encode_image
from facepipe.types import UInt8

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_PACKED = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "II", _SRATIONAL: "ii"}
_XYZ_TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)

Tag = tuple[int, int, Sequence[int]]
#: EXIF orientation -> numbers of quarter turns to the left that a displayed picture was stored with.
STORED_TURNS = {1: 0, 3: 2, 6: 1, 8: 3}


def mosaic_of(rgb: UInt8) -> NDArray[np.uint16]:
    """Return what a sensor with the pattern RGGB records of sRGB pixels: uint16 (H, W) of 12 bits, linear light."""
    light = np.where(rgb <= 10, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    values = np.rint(light * 4095).astype(np.uint16)
    cells: NDArray[np.uint16] = values[..., 1].copy()
    cells[::2, ::2] = values[::2, ::2, 0]
    cells[1::2, 1::2] = values[1::2, 1::2, 2]
    return cells


def dng(
    rgb: UInt8,
    *,
    orientation: int = 1,
    preview: bytes | None = None,
    taken: str = "2021:07:15 10:20:30",
    zone: str = "+02:00",
    colours: bool = False,
    camera: str = "Testcam",
) -> bytes:
    """Return a DNG of a picture as displayed, uint8 (H, W, 3), even sides; stored turned as `orientation` says.

    preview: the embedded JPEG. colours: three values for each pixel, as ProRAW has, in place of a mosaic.
    """
    stored = np.ascontiguousarray(np.rot90(rgb, STORED_TURNS[orientation]))
    height, width = stored.shape[:2]
    cells = (stored.astype(np.uint16) * 16 if colours else mosaic_of(stored)).tobytes()
    exif: list[Tag] = [(0x9003, _ASCII, taken.encode() + b"\0"), (0x9011, _ASCII, zone.encode() + b"\0")]
    raw: list[Tag] = [
        (254, _LONG, [0]),
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16] * (3 if colours else 1)),
        (259, _SHORT, [1]),
        (262, _SHORT, [34892 if colours else 32803]),
        (271, _ASCII, camera.encode() + b"\0"),
        (272, _ASCII, camera.encode() + b"\0"),
        (274, _SHORT, [orientation]),
        (277, _SHORT, [3 if colours else 1]),
        (278, _LONG, [height]),
        (33421, _SHORT, [2, 2]),
        (33422, _BYTE, [0, 1, 1, 2]),
        (50706, _BYTE, [1, 4, 0, 0]),
        (50708, _ASCII, camera.encode() + b"\0"),
        (50714, _SHORT, [0] * (3 if colours else 1)),
        (50717, _LONG, [4095] * (3 if colours else 1)),
        (50721, _SRATIONAL, [part for value in _XYZ_TO_SRGB for part in (round(value * 10000), 10000)]),
        (50728, _RATIONAL, [1, 1] * 3),
    ]
    small: list[Tag] = [(254, _LONG, [1]), (256, _LONG, [1]), (257, _LONG, [1]), (258, _SHORT, [8, 8, 8])]
    small += [(259, _SHORT, [7]), (262, _SHORT, [6]), (277, _SHORT, [3]), (278, _LONG, [1])]
    data = bytearray(b"II*\0\0\0\0\0")
    if preview is not None:
        import io

        import PIL.Image

        with PIL.Image.open(io.BytesIO(preview)) as picture:
            small[1:3] = [(256, _LONG, [picture.width]), (257, _LONG, [picture.height])]
        raw.append((330, _LONG, [_directory(data, small, preview)]))
    raw.append((34665, _LONG, [_directory(data, exif)]))
    data[4:8] = struct.pack("<I", _directory(data, raw, cells))
    return bytes(data)


def _directory(data: bytearray, tags: list[Tag], strip: bytes | None = None) -> int:
    """Append a strip, values, and a TIFF directory to a file; return where the directory lies."""
    if strip is not None:
        tags = [*tags, (273, _LONG, [len(data)]), (279, _LONG, [len(strip)])]
        data += strip
    entries = b""
    for tag, kind, values in sorted(tags, key=lambda entry: entry[0]):
        letters = _PACKED[kind]
        packed = struct.pack("<" + letters * (len(values) // len(letters)), *values)
        if len(packed) > 4:
            data += bytes(len(data) % 2)
            place = len(data)
            data += packed
            packed = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, kind, len(values) // len(letters)) + packed.ljust(4, b"\0")
    data += bytes(len(data) % 2)
    place = len(data)
    data += struct.pack("<H", len(tags)) + entries + bytes(4)
    return place


def jpeg_preview(rgb: UInt8, *, orientation: int = 1, exif: int | None = None) -> bytes:
    """Return a JPEG of a picture as displayed, stored turned as `orientation` says. exif: the orientation that its EXIF says."""
    stored = np.ascontiguousarray(np.rot90(rgb, STORED_TURNS[orientation]))
    if exif is None:
        return encode_image(stored)
    import io

    import PIL.Image

    said = PIL.Image.Exif()
    said[0x0112] = exif
    buffer = io.BytesIO()
    PIL.Image.fromarray(stored).save(buffer, "JPEG", quality=92, exif=said)
    return buffer.getvalue()
