"""XMP packets: their face regions, in the two forms in which programs write them.

- MWG-RS (digiKam, Lightroom, Picasa): centre and size as fractions of the stored picture, whose size it names.
- Microsoft Photo (Windows, digiKam): left, top, width and height as fractions of the stored picture.

A packet may come from anybody. expat reads it, which opens nothing; a document type, where entities are declared, is refused, and so
is what is very large, deep or long. It comes with Python and tells where in the bytes an element stands, which lxml does not: a
packet is changed by cutting, not by writing it anew.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from xml.parsers import expat

from facepipe.regions.geometry import Box, clipped

RDF_SPACE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
MWG_SPACE = "http://www.metadataworkinggroup.com/schemas/regions/"
DIM_SPACE = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
AREA_SPACE = "http://ns.adobe.com/xmp/sType/Area#"
MP_SPACE = "http://ns.microsoft.com/photo/1.2/"
MPRI_SPACE = "http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
MPREG_SPACE = "http://ns.microsoft.com/photo/1.2/t/Region#"
#: Of facepipe's own note in a sidecar: which regions it wrote.
OWN_SPACE = "urn:facepipe:regions#"

_RDF = f"{RDF_SPACE} RDF"
_DESCRIPTION = f"{RDF_SPACE} Description"
#: The properties that are looked into; of others only the place is kept.
MWG, MP, OWN = f"{MWG_SPACE} Regions", f"{MP_SPACE} RegionInfo", f"{OWN_SPACE} Regions"

#: The largest packet; Lightroom's with thousands of brush strokes have some megabytes.
MAX_BYTES = 16_000_000
_MAX_DEPTH = 100
_MAX_ELEMENTS = 1_000_000
_MAX_KEPT = 100_000
_MAX_SIDE = 10_000_000
_MAX_REGIONS = 1000
#: Characters of a number, and of a name.
_LONGEST, _LONGEST_NAME = 40, 1000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TAG = re.compile(rb"""<[^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*>""")


class XmpError(Exception):
    """A packet cannot be read or changed. The text says why, without its name."""


@dataclass(slots=True)
class Node:
    """An element. name, attributes: namespace, blank, local name. start, end: its place in the bytes; tag_end: of its first tag."""

    name: str
    attributes: dict[str, str]
    start: int
    tag_end: int
    end: int = 0
    children: list[Node] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether it is one tag that holds nothing: <a/>."""
        return self.tag_end == self.end

    def values(self) -> Iterator[tuple[str, str | Node]]:
        """Yield the fields of a structure by their local names, in each of the forms that RDF has for one."""
        holder = next((child for child in self.children if child.name == _DESCRIPTION), self)
        for name, value in holder.attributes.items():
            yield _local(name), value
        for child in holder.children:
            yield _local(child.name), child

    def value(self, name: str) -> str | Node | None:
        """Return the field of a structure that has this local name."""
        return next((value for key, value in self.values() if key == name), None)

    def structure(self, name: str) -> Node | None:
        """Return a field that is a structure or a list."""
        value = self.value(name)
        return value if isinstance(value, Node) else None

    def text(self, name: str) -> str:
        """Return a field that is a text; empty when there is none."""
        value = self.value(name)
        return "".join(value.texts).strip() if isinstance(value, Node) else (value or "").strip()

    @property
    def array(self) -> Node | None:
        """The Bag, Seq or Alt in a list."""
        kinds = {f"{RDF_SPACE} {kind}" for kind in ("Bag", "Seq", "Alt")}
        return next((child for child in self.children if child.name in kinds), None)


@dataclass(frozen=True, slots=True)
class Region:
    """A face that a program marked in a photo.

    name: who it is, None when nobody is named. box: as fractions of the picture. kind: `mwg` or `mp`, its form.
    size: width and height of the picture that it was marked in, where that is said. numbers: what stands in the file.
    file: which one. own: whether facepipe wrote it and nobody changed it since.
    """

    name: str | None
    box: Box
    kind: str
    size: tuple[int, int] | None
    numbers: tuple[float, float, float, float]
    file: str = ""
    own: bool = False

    @property
    def digest(self) -> str:
        """What facepipe's note in a sidecar calls it."""
        return digest(self.kind, self.name or "", map(number_text, self.numbers))


def digest(kind: str, name: str, numbers: Iterable[str]) -> str:
    """Return what a region is called in facepipe's note. numbers: as `number_text`."""
    return hashlib.sha256("|".join([kind, *numbers, name]).encode()).hexdigest()[:16]


def number_text(value: float) -> str:
    """Return a number as it is written: a thousandth of a pixel and less."""
    return f"{value:.6f}"


def parse(data: bytes) -> Node:
    """Return the element rdf:RDF of a packet. Errors: XmpError."""
    if len(data) > MAX_BYTES:
        raise XmpError(f"has more than {MAX_BYTES:,} bytes")
    reader = _Reader(data)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        # What follows the last tag of a packet inside a photo is padding, sometimes zeros.
        if not reader.whole:
            raise XmpError(f"is not XML ({expat.ErrorString(error.code)}, line {error.lineno})") from error
    if reader.rdf is None:
        raise XmpError("is not XMP (no rdf:RDF in it)")
    return reader.rdf


class _Reader:
    """Makes nodes of what expat finds."""

    def __init__(self, data: bytes) -> None:
        self.rdf: Node | None = None
        self.whole = False
        self._data, self._open, self._depth, self._count, self._kept = data, [], 0, 0, 0  # type: ignore[var-annotated]
        self._skipped = 0
        # As UTF-8 whatever it says of itself: that is what XMP is.
        self.parser = expat.ParserCreate("UTF-8", " ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _doctype(self, *_: object) -> None:
        raise XmpError("has a document type, which XMP has not")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > _MAX_DEPTH or self._count > _MAX_ELEMENTS:
            raise XmpError("is nested too deeply" if self._depth > _MAX_DEPTH else "has too many elements")
        if self._skipped or not (self._open or (name == _RDF and self.rdf is None)):
            self._skipped += bool(self._open)
            return
        self._kept += 1
        if self._kept > _MAX_KEPT:
            raise XmpError("has too many elements")
        start = self.parser.CurrentByteIndex
        tag = _TAG.match(self._data, start)
        if tag is None:
            raise XmpError("is not XML (a tag cannot be read)")
        node = Node(name, attributes, start, tag.end())
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.rdf = node
        self._open.append(node)
        # rdf:RDF, rdf:Description, property: of a property that is none of ours the inside does not matter.
        if len(self._open) == 3 and name not in (MWG, MP, OWN):
            self._skipped = 1

    def _end(self, _: str) -> None:
        self._depth -= 1
        self.whole = self._depth == 0
        if self._skipped > 1:
            self._skipped -= 1
        elif self._open:
            self._skipped = 0
            node = self._open.pop()
            closed = self._data[node.tag_end - 2 : node.tag_end] == b"/>"
            node.end = node.tag_end if closed else self._data.index(b">", self.parser.CurrentByteIndex) + 1

    def _text(self, text: str) -> None:
        if self._open and not self._skipped:
            self._open[-1].texts.append(text)


def read_packet(data: bytes, file: str = "") -> tuple[list[Region], set[str]]:
    """Return the face regions in a packet, also one in UTF-16 or UTF-32, and facepipe's note in it. Errors: XmpError."""
    rdf = parse(_as_utf8(data))
    note = note_of(rdf)
    return [region for _, region in regions_in(rdf.children, note, file)], note


def note_of(rdf: Node) -> set[str]:
    """Return the digests of the regions that facepipe wrote, as it noted them."""
    texts = [description.attributes.get(OWN, "") for description in rdf.children]
    texts += [
        "".join(child.texts) for description in rdf.children for child in description.children if child.name == OWN
    ]
    return set(" ".join(texts).split())


def _as_utf8(data: bytes) -> bytes:
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if data.startswith(mark):
            try:
                return data[:MAX_BYTES].decode(encoding).encode()
            except UnicodeError as error:
                raise XmpError(f"is not {encoding.upper()}") from error
    return data


def regions_in(descriptions: Iterable[Node], note: set[str], file: str = "") -> Iterator[tuple[Node, Region]]:
    """Yield the face regions in descriptions with their elements, those that lie in the picture. note: see `note_of`.

    Errors: XmpError.
    """
    count = 0
    for description in descriptions:
        for holder in description.children:
            if holder.name == MWG and (regions := holder.structure("RegionList")) is not None:
                size = size_in(holder.structure("AppliedToDimensions"))
                found = ((item, _mwg(item, size, file)) for item in items(regions))
            elif holder.name == MP and (regions := holder.structure("Regions")) is not None:
                found = ((item, _mp(item, file)) for item in items(regions))
            else:
                continue
            for item, region in found:
                if region is not None:
                    count += 1
                    if count > _MAX_REGIONS:
                        raise XmpError(f"has more than {_MAX_REGIONS:,} regions")
                    yield item, replace(region, own=region.digest in note)


def items(regions: Node) -> list[Node]:
    """Return the entries of a list."""
    return (
        [] if regions.array is None else [child for child in regions.array.children if child.name == f"{RDF_SPACE} li"]
    )


def _mwg(item: Node, size: tuple[int, int] | None, file: str) -> Region | None:
    area, kind = item.structure("Area"), item.text("Type").casefold()
    name = _name(item.text("Name"))
    if area is None or not (kind == "face" or (not kind and name)):
        return None
    numbers = _numbers([area.text(axis) for axis in "xywh"])
    if numbers is None:
        return None
    x, y, width, height = numbers
    if area.text("unit") == "pixel" and size is not None:
        x, y, width, height = x / size[0], y / size[1], width / size[0], height / size[1]
    box = clipped((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return None if box is None else Region(name, box, "mwg", size, numbers, file)


def _mp(item: Node, file: str) -> Region | None:
    numbers = _numbers(re.split(r"[,\s]+", item.text("Rectangle")))
    if numbers is None:
        return None
    x, y, width, height = numbers
    box = clipped((x, y, x + width, y + height))
    return None if box is None else Region(_name(item.text("PersonDisplayName")), box, "mp", None, numbers, file)


def _name(text: str) -> str | None:
    return text if 0 < len(text) <= _LONGEST_NAME else None


def size_in(dimensions: Node | None) -> tuple[int, int] | None:
    """Return width and height in a structure of dimensions."""
    sides = _numbers([dimensions.text(side) for side in "wh"] + ["1", "1"]) if dimensions is not None else None
    return None if sides is None or not 1 <= min(sides) <= max(sides) <= _MAX_SIDE else (int(sides[0]), int(sides[1]))


def _numbers(texts: list[str]) -> tuple[float, float, float, float] | None:
    """Return four numbers, the last two above 0; None when they are not."""
    if len(texts) != 4 or not all(len(text) <= _LONGEST and _NUMBER.fullmatch(text) for text in texts):
        return None
    x, y, width, height = map(float, texts)
    return (x, y, width, height) if all(map(math.isfinite, (x, y, width, height))) and min(width, height) > 0 else None


def _local(name: str) -> str:
    return name.rpartition(" ")[2]
