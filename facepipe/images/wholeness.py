"""Whether a picture's data are all there. Decoders fill what is missing with grey, or with what zeros happen to mean.

Nothing is judged by its look alone: a studio's backdrop and a black border are as flat as missing data.

- JPEG: its end is taken away, other bytes are put there, and it is decoded again. A picture that was complete stays as it
  is; where data were missing, the decoder takes these bytes for them, and the picture changes. That is done where the lower
  right corner has the grey of missing data, and where the end marker is missing.
- A progressive JPEG says in its scans' headers which bits they hold; the last bits of every coefficient must be there.
- PNG: checksums. HEIC, AVIF, JPEG 2000: compressed data do not end in hundreds of zeros; half-copied files do. WebP: those of
  flat pictures do, so the last ones are exchanged for other bytes: where all are needed the picture changes.

What cannot be told: uncompressed formats, and the last refinement of a progressive JPEG, cut and closed.

What does not concern the pixels is mended: a JPEG's missing end marker, texts and other side data of a PNG that are damaged
or unpack to too much.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np

from facepipe.images.containers import boxes, jpeg_segments, png_chunks
from facepipe.images.formats import jpeg_scans
from facepipe.types import UInt8

_END = b"\xff\xd9"
_PROGRESSIVE = 0xC2
_QOI_END = bytes(7) + b"\1"
#: Bytes that cannot be a marker, for a decoder that has run out of data.
_OTHER_BYTES = bytes(random.Random(1).choices(range(1, 250), k=4096))
#: So many zeros at the end are no compressed data.
_ZEROS = 256
_MAX_TEXT = 1 << 20
#: What a PNG's pixels are made of, or how they are shown.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
#: Texts that may hold EXIF.
_EXIF_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


class IncompleteError(ValueError):
    """Data of the picture are missing. The text says what."""


def mended(data: bytes, *, plain: bool = False) -> bytes:
    """Return a picture's bytes as a decoder can read them. plain: of a PNG only what its pixels need. Errors: IncompleteError."""
    if data.startswith(b"\xff\xd8\xff"):
        return data if _has_end(data) else data.rstrip(b"\xff") + _END
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _mended_png(data, plain)
    if data.startswith(b"qoif") and not data.rstrip(b"\0").endswith(_QOI_END):
        raise IncompleteError("its end is missing")
    if _ends_in_zeros(data):
        raise IncompleteError("its data end in zeros")
    return data


def require_whole(data: bytes, rgb: UInt8, decode: Callable[[bytes], UInt8]) -> None:
    """Raise IncompleteError when the data of a JPEG's or WebP's pixels are not all there.

    data: as they came, before `mended`. rgb: the picture, uint8 (H, W, 3). decode: decodes other bytes in the same way.
    """

    def same(other: bytes) -> bool:
        try:
            return np.array_equal(decode(other), rgb)
        except (OSError, ValueError):
            return False

    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        end = 8 + int.from_bytes(data[4:8], "little")
        if data[:end].endswith(bytes(_ZEROS)) and same(data[: end - 64] + _OTHER_BYTES[:64] + data[end:]):
            raise IncompleteError("its data end in zeros")
    elif data.startswith(b"\xff\xd8\xff"):
        _require_whole_jpeg(data, rgb, same)


def _require_whole_jpeg(data: bytes, rgb: UInt8, same: Callable[[bytes], bool]) -> None:
    kind, components = _frame(data)
    if kind == _PROGRESSIVE and not _has_all_bits(data):
        raise IncompleteError("scans are missing")
    marked = _has_end(data)
    data = data if marked else data.rstrip(b"\xff")
    if marked and components < 4 and not (rgb[-1, -1] == 128).all():
        return
    end = (_end_of(data) or len(data)) if marked else len(data)
    if not marked and data.endswith(bytes(64)):
        if same(data.rstrip(b"\0") + _OTHER_BYTES + _END):  # the picture ends before the zeros
            return
        # Zeros can be what a flat picture is made of; then all of them are needed.
        if same(data[:-64] + _OTHER_BYTES + _END):
            raise IncompleteError("its data end in zeros")
    if not same(data[:end] + _OTHER_BYTES + _END):
        raise IncompleteError("the end of its data is missing")


def _has_end(data: bytes) -> bool:
    return data.endswith(_END) or _end_of(data) is not None


def _end_of(data: bytes) -> int | None:
    """Return where the end marker lies that follows the picture's first scan; within a scan there can be none."""
    first = _first_scan(data)
    end = data.find(_END, first) if first is not None else -1
    return end if end >= 0 else None


def _first_scan(data: bytes) -> int | None:
    return next((place for marker, place in jpeg_segments(data) if marker == 0xDA), None)


def _frame(data: bytes) -> tuple[int, int]:
    """Return the marker of a JPEG's frame and its number of components; zeros when there is none before the first scan."""
    for marker, place in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and place + 9 < len(data):
            return marker, data[place + 9]
    return 0, 0


def _has_all_bits(data: bytes) -> bool:
    """Say whether a progressive JPEG's scans bring the lowest bit of every coefficient of every component."""
    lowest: dict[int, dict[int, int]] = {}
    for scan in jpeg_scans(data):
        for component in scan.components:
            lowest.setdefault(component, {}).update(dict.fromkeys(range(scan.first, scan.last + 1), scan.low_bit))
    return len(lowest) == _frame(data)[1] and all(len(low) == 64 and not any(low.values()) for low in lowest.values())


def _mended_png(data: bytes, plain: bool) -> bytes:
    """Return a PNG without what does not concern its pixels and is damaged. Errors: IncompleteError."""
    kept: list[bytes] = []
    packed: list[memoryview] = []
    changed, wrong, kind, view = plain, False, b"", memoryview(data)
    for kind, start, end in png_chunks(data):
        chunk = view[start:end]
        right = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind == b"IDAT":
            packed.append(chunk[8:-4])
            wrong |= not right
        elif kind not in _NEEDED and _is_in_the_way(kind, chunk, right, plain):
            changed = True
            continue
        elif not right and kind != b"IEND":
            raise IncompleteError(f"wrong checksum of {kind.decode()}")
        kept.append(bytes(chunk) if right else bytes(chunk[:-4]) + struct.pack(">I", zlib.crc32(chunk[4:-4])))
        changed |= not right
    if (wrong or kind != b"IEND") and not _unpacks(packed):
        raise IncompleteError("data of its pixels are missing or changed")
    if kind != b"IEND":
        kept.append(b"\0\0\0\0IEND\xaeB`\x82")
        changed = True
    return data[:8] + b"".join(kept) if changed else data


def _is_in_the_way(kind: bytes, chunk: memoryview, right: bool, plain: bool) -> bool:
    """Say whether a chunk that the pixels do not need is left out. right: its checksum is."""
    if not right or (kind in _TEXTS and not _is_small(kind, bytes(chunk[8:-4]))):
        return True
    return plain and kind != b"tRNS"


def _unpacks(parts: list[memoryview]) -> bool:
    """Say whether a PNG's pixels unpack to their end, where their own checksum is."""
    pixels = zlib.decompressobj()
    try:
        for part in parts:
            rest = bytes(part)
            while rest and not pixels.eof:
                pixels.decompress(rest, _MAX_TEXT)
                rest = pixels.unconsumed_tail
    except zlib.error:
        return False
    return bool(pixels.eof)


def _is_small(kind: bytes, body: bytes) -> bool:
    """Say whether a text is one that may hold EXIF and unpacks to little."""
    if not body.startswith(_EXIF_TEXTS):
        return len(body) <= 4096 and kind == b"tEXt"
    packed = body.split(b"\0", 1)[1]
    packed = (
        packed[1:]
        if kind == b"zTXt"
        else packed.split(b"\0", 3)[-1]
        if kind == b"iTXt" and packed[:1] == b"\1"
        else b""
    )
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(packed, _MAX_TEXT)
    except zlib.error:
        return False
    return len(body) <= _MAX_TEXT and not unpacker.unconsumed_tail


def _ends_in_zeros(data: bytes) -> bool:
    """Say whether the compressed data of a HEIC, AVIF or JPEG 2000 file end in zeros."""
    zeros = bytes(_ZEROS)
    if data.startswith(b"\xff\x4f\xff\x51"):
        return data.endswith(zeros)
    if data[4:8] not in {b"ftyp", b"jP  "}:
        return False
    for kind, start, end in boxes(data, 0, len(data)):
        if kind in {b"mdat", b"jp2c"} and data[max(start, end - _ZEROS) : end] == zeros:
            return True
    return False
