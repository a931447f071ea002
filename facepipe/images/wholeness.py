"""Is a picture all there? Half-copied files are told from whole ones, which some decoders do not do.

libjpeg fills what a JPEG lacks with grey when the file has an end marker; WebP, HEIC, AVIF and QOI decode zeros to something. And
some decoders refuse a picture whose pixels are whole: a JPEG that lacks only its end marker, a PNG with a damaged or large comment.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
import PIL.Image

from facepipe.images.formats import jpeg_scans
from facepipe.types import UInt8

#: Compressed formats whose file does not end in zeros when it is whole. JPEG and PNG may: what follows their end is not read.
_NO_ZEROS = frozenset({"WEBP", "HEIF", "AVIF", "QOI", "JPEG2000"})
#: So many zeros at a file's end were never written, when they are this share of it: metadata may be padded.
_ZEROS, _SHARE = 1024, 0.02

_END = b"\xff\xd9"
#: Bytes of a progressive JPEG that are left out to see which rows they are of.
_LAST_BYTES = 64
#: Read as ones: a decoder that is given these instead of the end marker finishes the last block, and has nothing to go on with.
_PADDING = b"\xff\x00" * 16


def what_is_missing(data: bytes, kind: str, rgb: UInt8) -> str | None:
    """Return what a decoded picture lacks, None when it is whole. kind: Pillow's name of its format. rgb: its pixels, as stored."""
    if kind in _NO_ZEROS:
        zeros = len(data) - len(data.rstrip(b"\0"))
        return "the end of its file is empty" if zeros >= max(_ZEROS, _SHARE * len(data)) else None
    if kind == "PNG":
        return _missing_of_png(data)
    if kind not in {"JPEG", "MPO"}:
        return None
    scans = list(jpeg_scans(data))
    if b"\xff\xc2" in data[: data.find(b"\xff\xda")]:
        told = [scan.low_bit for scan in scans if scan.first == 0]
        finest: dict[int, int] = {}
        for scan in scans:
            for coefficient in (
                range(max(1, scan.first), scan.last + 1) if scan.components == scans[0].components[:1] else ()
            ):
                finest[coefficient] = min(finest.get(coefficient, 99), scan.low_bit)
        whole = told and min(told) == 0 and len(finest) == 63 and not any(finest.values())
        return None if whole else "its last scans are missing"
    corner = rgb[-1, 3 * rgb.shape[1] // 4 :]
    if len(scans) == 1 and (corner == corner[0]).all():  # what is not there is flat
        rows, height = _rows_of(data)
        if rows < height:
            return f"only the upper {100 * rows // height} % of it is there"
    return None


def _rows_of(data: bytes) -> tuple[int, int]:
    """Decode a baseline JPEG at an eighth of its size; return how many rows its data is enough for, and how many there are."""
    end = data.find(_END, data.rfind(b"\xff\xda"))
    body = (data if end < 0 else data[:end]) + _PADDING
    picture = PIL.Image.open(io.BytesIO(body), formats=("JPEG",))
    picture.draft(picture.mode, (max(1, picture.width // 8), max(1, picture.height // 8)))
    unlikely = tuple((1, 254, 3, 252)[: len(picture.getbands())])
    canvas = PIL.Image.new(picture.mode, picture.size, unlikely if len(unlikely) > 1 else unlikely[0])
    arguments = picture.tile[0].args
    decoder = PIL.Image._getdecoder(
        picture.mode,
        "jpeg",
        arguments if isinstance(arguments, tuple) else (arguments,),
        picture.decoderconfig,
    )
    decoder.setimage(canvas.im, (0, 0, *picture.size))
    decoder.decode(body)
    pixels = np.asarray(canvas).reshape(canvas.height, canvas.width, -1)
    return int((pixels != np.array(unlikely, np.uint8)).any(axis=(1, 2)).sum()), canvas.height


def with_end(data: bytes) -> bytes | None:
    """Return a JPEG that lacks only its end marker with one; None when more is missing, or nothing."""
    data = data.rstrip(b"\xff")
    last = data.rfind(b"\xff\xda")
    if last < 0 or _END in data[last:]:
        return None
    if b"\xff\xc2" in data[: data.find(b"\xff\xda")]:
        # Every scan of a progressive JPEG shows the whole picture. The last bytes of one that is all there change the last rows.
        whole, less = (_pixels(data[:place] + _END) for place in (len(data), max(last + 16, len(data) - _LAST_BYTES)))
        changed = np.flatnonzero((whole != less).any(axis=(1, 2)))
        if not len(changed) or changed[-1] < len(whole) - 16:
            return None
    elif (rows := _rows_of(data))[0] < rows[1]:
        return None
    return data + _END


def _pixels(data: bytes) -> UInt8:
    with PIL.Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind of each chunk of a PNG, and the chunk with its length and checksum, as far as there are whole ones."""
    place, view = 8, memoryview(data)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        yield data[place + 4 : place + 8], view[place : place + 12 + length]
        place += 12 + length


def _missing_of_png(data: bytes) -> str | None:
    """Return what a PNG lacks. Where a checksum or the end is wrong, its pixels are unpacked to see whether all are there."""
    chunks = list(_chunks(data))
    pixels = [chunk for kind, chunk in chunks if kind == b"IDAT"]
    if chunks[-1][0] == b"IEND" and all(zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:]) for chunk in pixels):
        return None
    unpack = zlib.decompressobj()
    try:
        for chunk in pixels:
            packed = bytes(chunk[8:-4])
            while packed and not unpack.eof:
                unpack.decompress(packed, 1 << 20)
                packed = unpack.unconsumed_tail
    except zlib.error:
        return "its pixels cannot be unpacked to the end"
    return None if unpack.eof else "its pixels end too early"


def png_without_extras(data: bytes) -> bytes:
    """Return a PNG without its comments, profiles and times: with the chunks that its pixels need."""
    needed = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
    return data[:8] + b"".join(chunk for kind, chunk in _chunks(data) if kind in needed)
