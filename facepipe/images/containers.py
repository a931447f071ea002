"""How pictures' files are divided: segments of a JPEG, chunks of PNG and WebP, boxes and items of HEIC and AVIF, tags of a TIFF.

Nothing here decodes pixels, and nothing reads more of a file than its headers: what is walked is bytes, or a `FileWindow`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, overload

#: Bytes of a file that are read at a time.
_BLOCK = 1 << 16
#: So many segments, boxes, items or tags are looked at; files of cameras have some hundreds.
_MOST = 1 << 16
#: Bytes of a box with lists.
_LONGEST = 1 << 22


class Window(Protocol):
    """What can be walked: bytes, or what is indexed like them."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> bytes: ...


class FileWindow:
    """An open file that is indexed like bytes, and read where it is looked at. Errors: OSError."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file.fileno()
        self._length = os.fstat(self._file).st_size
        self._start, self._block = 0, b""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> bytes: ...
    def __getitem__(self, index: int | slice, /) -> int | bytes:
        if isinstance(index, slice):
            start, stop, _ = index.indices(self._length)
            return self._read(start, max(0, stop - start))
        return self._read(index, 1)[0]

    def _read(self, start: int, count: int) -> bytes:
        if count > _BLOCK:
            return os.pread(self._file, count, start)
        if not self._start <= start <= start + count <= self._start + len(self._block):
            self._start, self._block = start, os.pread(self._file, _BLOCK, start)
        return self._block[start - self._start : start - self._start + count]


def jpeg_segments(data: Window) -> Iterator[tuple[int, int]]:
    """Yield marker and place of the segments before a JPEG's first scan, and of its header."""
    place = 2
    for _ in range(_MOST):
        if place + 4 > len(data) or data[place] != 0xFF:
            return
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        yield marker, place
        if marker == 0xDA:
            return
        place += 2 + int.from_bytes(data[place + 2 : place + 4])


def png_chunks(data: Window) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk of a PNG, with its length and checksum, as far as there are whole ones."""
    place = 8
    while place + 12 <= len(data):
        kind, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4])
        if not kind.isalpha() or end > len(data):
            return
        yield kind, place, end
        if kind == b"IEND":
            return
        place = end


def riff_chunks(data: Window) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind of each chunk of a WebP, and where its content starts and ends."""
    place = 12
    for _ in range(_MOST):
        if place + 8 > len(data):
            return
        start = place + 8
        end = start + int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 4], start, min(end, len(data))
        place = end + end % 2


def boxes(data: Window, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind of each box of an ISO file (HEIC, AVIF, JPEG 2000), and where its content starts and ends."""
    end = min(end, len(data))
    for _ in range(_MOST):
        if start + 8 > end:
            return
        length, kind, header = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], 8
        if length == 1:
            length, header = int.from_bytes(data[start + 8 : start + 16]), 16
        elif length == 0:
            length = end - start
        if length < header:
            return
        yield kind, start + header, min(start + length, end)
        start += length


@dataclass(slots=True)
class HeifItems:
    """What a HEIC or AVIF file says of its items. Source: ISO/IEC 14496-12, 8.11, and 23008-12.

    primary: the picture's item. kinds: type of each item, for `mime` that of its content. places: where the content of each lies,
    as pieces (start, length). properties: those of the primary item, kind and content, in order.
    """

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)


def heif_items(data: Window) -> HeifItems:
    """Return the items of a HEIC or AVIF file, as far as they can be followed."""
    items = HeifItems()
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            inside = {name: (first, last) for name, first, last in boxes(data, start + 4, end)}
            if b"pitm" in inside:
                pitm = _Fields(data, *inside[b"pitm"])
                items.primary = pitm.number(2 if pitm.version == 0 else 4)
            if b"iinf" in inside:
                items.kinds = _kinds(data, *inside[b"iinf"])
            if b"iloc" in inside:
                items.places = _places(_Fields(data, *inside[b"iloc"]), inside.get(b"idat", (0, 0))[0])
            if b"iprp" in inside:
                items.properties = _properties(data, *inside[b"iprp"], items.primary)
            break
    return items


class _Fields:
    """Numbers one after the other, those of a box with version and flags; zeros where the box is too short."""

    def __init__(self, data: Window, start: int, end: int) -> None:
        self._content = data[start : min(end, start + _LONGEST)]
        self.version = self._content[0] if self._content else 0
        self.flags = int.from_bytes(self._content[1:4])
        self.place = 4

    def number(self, count: int) -> int:
        """Return the next number, of `count` bytes."""
        self.place += count
        return int.from_bytes(self._content[self.place - count : self.place])

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self.place >= len(self._content)


def _kinds(data: Window, start: int, end: int) -> dict[int, bytes]:
    wide = data[start : start + 1] != b"\0"
    kinds: dict[int, bytes] = {}
    for kind, first, last in boxes(data, start + (8 if wide else 6), end):
        if kind == b"infe" and len(kinds) < _MOST:
            content = data[first : min(last, first + 512)]
            entry = _Fields(content, 0, len(content))
            number = entry.number(2 if entry.version < 3 else 4)
            place = entry.place + 2
            kinds[number] = content[place : place + 4]
            if kinds[number] == b"mime":  # a name and the type of the content follow, each with a zero at its end
                kinds[number] = content[place + 4 :].split(b"\0", 2)[1:2][0] if b"\0" in content[place + 4 :] else b""
    return kinds


def _places(iloc: _Fields, idat: int) -> dict[int, list[tuple[int, int]]]:
    """idat: where the content of the box `idat` starts, in which items may lie."""
    sizes = iloc.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide, places, left = iloc.version == 2, {}, _MOST
    for _ in range(min(iloc.number(4 if wide else 2), _MOST)):
        if iloc.ended:
            break
        number = iloc.number(4 if wide else 2)
        method = iloc.number(2) & 15 if iloc.version in (1, 2) else 0
        iloc.number(2)  # which file: this one
        base = iloc.number(base_size) + (idat if method == 1 else 0)
        pieces = []
        for _ in range(iloc.number(2)):
            if iloc.ended or not left:
                break
            left -= 1
            iloc.number(index_size if iloc.version in (1, 2) else 0)
            pieces.append((base + iloc.number(offset_size), iloc.number(length_size)))
        if method in (0, 1):
            places[number] = pieces
    return places


def _properties(data: Window, start: int, end: int, item: int) -> list[tuple[bytes, bytes]]:
    inside = {kind: (first, last) for kind, first, last in boxes(data, start, end)}
    if b"ipco" not in inside or b"ipma" not in inside:
        return []
    known = [(kind, data[first : min(last, first + 64)]) for kind, first, last in boxes(data, *inside[b"ipco"])]
    ipma = _Fields(data, *inside[b"ipma"])
    for _ in range(min(ipma.number(4), _MOST)):
        if ipma.ended:
            break
        number = ipma.number(2 if ipma.version == 0 else 4)
        wide = ipma.flags & 1
        indices = [ipma.number(2) & 0x7FFF if wide else ipma.number(1) & 0x7F for _ in range(ipma.number(1))]
        if number == item:
            return [known[index - 1] for index in indices if 0 < index <= len(known)]
    return []


def tiff_tag(data: Window, tag: int) -> tuple[int, int] | None:
    """Return where the bytes of a tag lie in a TIFF's first page, as start and length; None when it has none."""
    order = "little" if data[:2] == b"II" else "big"

    def number(place: int, count: int) -> int:
        return int.from_bytes(data[place : place + count], order)  # type: ignore[arg-type]

    big = number(2, 2) == 43
    count_size, entry_size, value_size = (8, 20, 8) if big else (2, 12, 4)
    first = number(8, 8) if big else number(4, 4)
    for place in range(
        first + count_size, first + count_size + min(number(first, count_size), _MOST) * entry_size, entry_size
    ):
        if place + entry_size > len(data):
            return None
        if number(place, 2) == tag and number(place + 2, 2) in (1, 2, 7):  # bytes, text, anything
            length, value = number(place + 4, value_size), place + 4 + value_size
            return (value if length <= value_size else number(value, value_size)), length
    return None
