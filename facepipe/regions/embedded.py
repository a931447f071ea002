"""What a photo's file says besides its pixels: its XMP packets, its stored size and its turn. Only its headers are read.

JPEG (with extended XMP), PNG, WebP, TIFF, HEIC and AVIF can hold XMP; that of other formats is not looked for.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import PIL.Image

from facepipe.errors import FacepipeError, ImageError, InputError
from facepipe.images.containers import FileWindow, Window, heif_items, jpeg_segments, png_chunks, riff_chunks, tiff_tag
from facepipe.images.formats import FORMATS
from facepipe.images.reading import decoded, exif_turn, open_at_once, pillow_ready, read_bytes
from facepipe.regions.geometry import Frame, shown
from facepipe.regions.xmp import MAX_BYTES, XmpError
from facepipe.text import no_such, printable

_PACKET = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_TEXT = b"XML:com.adobe.xmp\0"
_TIFF_XMP = 700
_MAX_CHUNKS = 1 << 16
#: Chunks of a PNG that may hold EXIF.
_PNG_NOTES = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
#: How files begin.
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read it. Errors: InputError when it is no regular file, or the system refuses."""
    name = printable(path)
    try:
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{name}: is a pipe or a device, not a file")
            yield file
    except FileNotFoundError as error:
        raise InputError(no_such(path)) from error
    except IsADirectoryError as error:
        raise InputError(f"{name}: is a folder, not a file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{name}: cannot be read ({printable(reason)})") from error


def packets(path: str | os.PathLike[str]) -> list[bytes]:
    """Return the XMP packets in a photo's file, extended XMP as one more. Errors: InputError, XmpError."""
    with opened(path) as file:
        return packets_in(FileWindow(file))


def packets_in(data: Window) -> list[bytes]:
    """Return the XMP packets in the bytes of a photo. Errors: XmpError."""
    head = data[0:12]
    if head.startswith(_JPEG):
        return _of_jpeg(data)
    if head.startswith(_PNG):
        return list(islice(_of_png(data), 1))
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return [_piece(data, start, end - start) for kind, start, end in riff_chunks(data) if kind == b"XMP "][:1]
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        place = tiff_tag(data, _TIFF_XMP)
        return [] if place is None else [_piece(data, *place)]
    return _of_heif(data) if head[4:8] == b"ftyp" else []


def _piece(data: Window, start: int, count: int) -> bytes:
    if count > MAX_BYTES:
        raise XmpError(f"has more than {MAX_BYTES:,} bytes")
    return data[start : start + count]


def _of_jpeg(data: Window) -> list[bytes]:
    found: list[bytes] = []
    extended: dict[bytes, bytearray] = {}
    for marker, place in jpeg_segments(data):
        if marker != 0xE1:
            continue
        content = data[place + 4 : place + 2 + int.from_bytes(data[place + 2 : place + 4])]
        if content.startswith(_PACKET) and not found:
            found.append(content.removeprefix(_PACKET))
        elif content.startswith(_EXTENSION) and len(content) > len(_EXTENSION) + 40:
            rest = content.removeprefix(_EXTENSION)
            name, total, offset = rest[:32], int.from_bytes(rest[32:36]), int.from_bytes(rest[36:40])
            if name not in extended:
                if total + sum(map(len, extended.values())) > MAX_BYTES:
                    raise XmpError(f"has more than {MAX_BYTES:,} bytes")
                extended[name] = bytearray(total)
            whole = extended[name]
            if offset + len(rest) - 40 <= len(whole):
                whole[offset : offset + len(rest) - 40] = rest[40:]
    # Only the part that the packet itself names belongs to it; others are left over from an edited file.
    return [*found, *(bytes(whole) for name, whole in extended.items() if found and name in found[0])]


def _of_png(data: Window) -> Iterator[bytes]:
    for kind, start, end in islice(png_chunks(data), _MAX_CHUNKS):
        if kind != b"iTXt" or data[start + 8 : start + 8 + len(_PNG_TEXT)] != _PNG_TEXT:
            continue
        content = _piece(data, start + 8 + len(_PNG_TEXT), end - 4 - start - 8 - len(_PNG_TEXT))
        packed, text = content[:1] == b"\1", content[2:].split(b"\0", 2)[-1]
        if packed:
            unpacker = zlib.decompressobj()
            try:
                text = unpacker.decompress(text, MAX_BYTES)
            except zlib.error as error:
                raise XmpError("is damaged") from error
            if unpacker.unconsumed_tail:
                raise XmpError(f"has more than {MAX_BYTES:,} bytes")
        yield text


def _of_heif(data: Window) -> list[bytes]:
    found = heif_items(data)
    for number, kind in found.kinds.items():
        if kind == b"application/rdf+xml":
            # A length of 0 means: to the end of the file.
            pieces = [(start, count or max(0, len(data) - start)) for start, count in found.places.get(number, [])]
            if sum(count for _, count in pieces) > MAX_BYTES:
                raise XmpError(f"has more than {MAX_BYTES:,} bytes")
            return [b"".join(data[start : start + count] for start, count in pieces)]
    return []


def frame_of(path: str | os.PathLike[str]) -> Frame:
    """Return a photo's stored size and its turn. Errors: InputError, ImageError."""
    with opened(path) as file:
        head = file.read(12)
        if head[4:8] == b"ftyp" and (frame := _heif_frame(FileWindow(file))) is not None:
            return frame
        plain = not head.startswith(_PNG) or not any(
            kind in _PNG_NOTES for kind, _, _ in islice(png_chunks(FileWindow(file)), _MAX_CHUNKS)
        )
        file.seek(0)
        try:
            with pillow_ready:
                if not plain:  # Pillow finds EXIF behind the pixels only when it decodes them
                    name, data = read_bytes(path)
                    size, turn, _ = decoded(data, name, None)
                    return Frame(*size, turn)
                formats = ("JPEG",) if head.startswith(_JPEG) else ("PNG",) if head.startswith(_PNG) else FORMATS
                if len(formats) > 1:
                    PIL.Image.init()
                with PIL.Image.open(file, formats=formats) as picture:
                    turn = 1 if formats == ("PNG",) else exif_turn(picture)
                    frame = Frame(*picture.size, turn)
                    # Of a TIFF that lies on its side Pillow gives the displayed size.
                    return Frame(*frame.displayed, turn) if picture.format == "TIFF" else frame
        except FacepipeError:
            raise
        except Exception as error:  # decoders do not wrap what their parsers run into, whatever that is
            raise ImageError(f"{printable(path)}: cannot be read as an image; copy or export it again") from error


def _heif_frame(data: Window) -> Frame | None:
    """Return the frame of a HEIC or AVIF file: its coded size, and what its properties do to that. Source: ISO/IEC 23008-12, 6.5."""
    size, turn = None, 1
    for kind, content in heif_items(data).properties:
        if kind == b"ispe" and len(content) >= 12:
            size = int.from_bytes(content[4:8]), int.from_bytes(content[8:12])
        elif kind == b"irot" and content:
            turn = _then(turn, (1, 8, 3, 6)[content[0] & 3])
        elif kind == b"imir" and content:
            turn = _then(turn, (4, 2)[content[0] & 1])
        elif kind == b"clap":  # cuts a piece out: what its decoder shows is not what is stored
            return None
    return None if size is None or min(size) < 1 else Frame(*size, turn)


def _then(first: int, second: int) -> int:
    """Return the turn that does what two turns do one after the other."""
    probe = (0.125, 0.25, 0.5, 0.875)
    both = shown(shown(probe, first), second)
    return next(turn for turn in range(1, 9) if shown(probe, turn) == both)
