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


class _Tiff:
    """The directories of a TIFF: how its numbers are written, and its entries."""

    def __init__(self, data: Window) -> None:
        self._data = data
        self._order = "little" if data[:2] == b"II" else "big"
        big = self.number(2, 2) == 43
        self._count_size, self._entry_size, self.value_size = (8, 20, 8) if big else (2, 12, 4)
        self.first = self.number(8, 8) if big else self.number(4, 4)

    def number(self, place: int, count: int) -> int:
        """Return a number of `count` bytes."""
        return int.from_bytes(self._data[place : place + count], self._order)  # type: ignore[arg-type]

    def entries(self, directory: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield tag, kind, count of values and place of the value of each entry of a directory."""
        start = directory + self._count_size
        count = min(self.number(directory, self._count_size), _MOST)
        for place in range(start, start + count * self._entry_size, self._entry_size):
            if place + self._entry_size > len(self._data):
                return
            value = place + 4 + self.value_size
            yield self.number(place, 2), self.number(place + 2, 2), self.number(place + 4, self.value_size), value

    def next(self, directory: int) -> int:
        """Return where the directory of the next page lies; 0 when there is none."""
        end = directory + self._count_size + self.number(directory, self._count_size) * self._entry_size
        return self.number(end, self.value_size)


def tiff_tag(data: Window, tag: int) -> tuple[int, int] | None:
    """Return where the bytes of a tag lie in a TIFF's first page, as start and length; None when it has none."""
    tiff = _Tiff(data)
    for found, kind, length, value in tiff.entries(tiff.first):
        if found == tag and kind in (1, 2, 7):  # bytes, text, anything
            return (value if length <= tiff.value_size else tiff.number(value, tiff.value_size)), length
    return None


_BELOW = 330
_NUMBERS = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
#: Directories of a TIFF that are looked at; raw photos have up to ten.
_MOST_DIRECTORIES = 64


def tiff_numbers(data: Window, tags: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Yield tag and first number of these tags, in all directories of a TIFF: its pages, and those that lie below them."""
    tiff = _Tiff(data)
    places, seen = [tiff.first], set[int]()
    while places and len(seen) < _MOST_DIRECTORIES:
        directory = places.pop()
        if not 0 < directory < len(data) or directory in seen:
            continue
        seen.add(directory)
        for tag, kind, count, value in tiff.entries(directory):
            size = _NUMBERS.get(kind, 0)
            if size and (tag == _BELOW or tag in tags):
                start = value if size * count <= tiff.value_size else tiff.number(value, tiff.value_size)
                if tag == _BELOW:
                    places += [tiff.number(start + size * k, size) for k in range(min(count, _MOST_DIRECTORIES))]
                else:
                    yield tag, tiff.number(start, size)
        places.append(tiff.next(directory))
