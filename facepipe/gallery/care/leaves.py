"""Rows of a damaged database, read from its pages one by one, whatever became of the tree above them.

Follows SQLite's published file format: a leaf of a table (type 13) holds cells of payload size, row id and record. A page
that is not a leaf, or a cell that ends outside its page, is passed over. Checksums of the rows decide what is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LEAF = 13
#: Serial type -> bytes of an integer.
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def leaf_rows(path: Path) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield row id and values of every row of every table that can be read; the first page's are left out.

    A column that is the row id is None; a REAL that is a whole number may come as an int.
    """
    with path.open("rb") as file:
        head = file.read(24)
        size = int.from_bytes(head[16:18], "big")
        size = 65536 if size == 1 else size
        if size < 512:
            return
        pages = path.stat().st_size // size
        usable = size - head[20]

        def page(number: int) -> bytes:
            file.seek((number - 1) * size)
            return file.read(size)

        def rest(number: int, wanted: int) -> bytes:
            found = b""
            while len(found) < wanted:
                if not 1 < number <= pages:
                    raise ValueError("an overflow page outside the file")
                data = page(number)
                found += data[4:usable]
                number = int.from_bytes(data[:4], "big")
            return found[:wanted]

        for number in range(2, pages + 1):
            data = page(number)
            if data[0] != _LEAF:
                continue
            for cell in range(min(int.from_bytes(data[3:5], "big"), (usable - 8) // 2)):
                try:
                    start = int.from_bytes(data[8 + 2 * cell : 10 + 2 * cell], "big")
                    length, start = _varint(data, start)
                    row_id, start = _varint(data, start)
                    if length > pages * size:
                        continue
                    local = _local(length, usable)
                    record = data[start : start + local]
                    if local < length:
                        tail = int.from_bytes(data[start + local : start + local + 4], "big")
                        record += rest(tail, length - local)
                    yield row_id, _values(record)
                except (IndexError, ValueError, struct.error):
                    continue


def _local(length: int, usable: int) -> int:
    """Return how much of a payload lies in the leaf itself; the rest is on overflow pages."""
    if length <= usable - 35:
        return length
    least = (usable - 12) * 32 // 255 - 23
    wanted = least + (length - least) % (usable - 4)
    return wanted if wanted <= usable - 35 else least


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = data[place + count]
        if count == 8:
            return (value << 8) | byte, place + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, place + count + 1
    raise AssertionError("nine bytes at most")


def _values(record: bytes) -> tuple[Any, ...]:
    """Return a record's values. ValueError or IndexError when it is not a record."""
    end, place = _varint(record, 0)
    kinds = []
    while place < end:
        kind, place = _varint(record, place)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        width = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        piece = record[place : place + width]
        if len(piece) < width or kind in {10, 11}:
            raise ValueError("no record")
        place += width
        if kind in _INTEGERS:
            values.append(int.from_bytes(piece, "big", signed=True))
        elif kind == 7:
            values.append(struct.unpack(">d", piece)[0])
        elif kind in {8, 9}:
            values.append(kind - 8)
        elif kind == 0:
            values.append(None)
        else:
            values.append(piece.decode() if kind % 2 else piece)
    return tuple(values)
