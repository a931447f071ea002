"""Regions into a sidecar: what other programs wrote stays where it is, byte for byte; facepipe takes away and adds its own alone.

A sidecar is changed by cutting: first everything that facepipe wrote is cut out, then what it has to say now is put in. What it wrote
is known by a note in the sidecar, the property `facepipe:Regions`: a digest of each region that it wrote. A region that somebody
changed since has another digest and is theirs. One that is in the note and no longer in the sidecar was deleted by somebody, and is
not written again as long as facepipe would say the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from facepipe.regions import xmp
from facepipe.regions.geometry import Box, Frame, clipped, iou, stored
from facepipe.regions.xmp import (
    MP,
    MWG,
    OWN,
    Node,
    Region,
    XmpError,
    digest,
    items,
    note_of,
    number_text,
    parse,
    regions_in,
)

#: A sidecar that says nothing. One that becomes this by cutting held nothing but facepipe's regions.
EMPTY = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="facepipe">\n'
    b' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n </rdf:RDF>\n'
    b"</x:xmpmeta>\n"
)
#: Where another program named a face with a region of this IoU, nothing is written of it.
_TAKEN = 0.5
#: Boxes that are smaller than this are no faces.
_LEAST = 1e-5
#: Of the elements that are written; each has them, so that it means the same wherever it is put.
_SPACES = {
    "rdf": xmp.RDF_SPACE,
    "mwg-rs": xmp.MWG_SPACE,
    "stDim": xmp.DIM_SPACE,
    "stArea": xmp.AREA_SPACE,
    "MP": xmp.MP_SPACE,
    "MPRI": xmp.MPRI_SPACE,
    "MPReg": xmp.MPREG_SPACE,
    "facepipe": xmp.OWN_SPACE,
}
_ABOUT = f"{xmp.RDF_SPACE} about"
#: What no XML can hold.
_NO_XML = re.compile("[^\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Named:
    """A face to be written: who it is, and its box in the picture as displayed."""

    person: str
    box: Box


def merged(data: bytes, faces: Sequence[Named], frame: Frame | None, elsewhere: Sequence[Region] = ()) -> bytes:
    """Return a sidecar with the regions of these faces, and none that facepipe wrote before; the same bytes where nothing changes.

    data: the sidecar; `EMPTY` where there is none. frame: of the photo; None only without faces. elsewhere: the regions in the
    photo's own file; where facepipe's were copied into it, the note keeps them. Errors: XmpError.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        raise XmpError("is not in UTF-8; save it as UTF-8")
    rdf = parse(data)
    note = note_of(rdf)
    present = [region for _, region in regions_in(rdf.children, note)]
    own = {region.digest for region in present if region.own}
    others = [region for region in present if not region.own]
    copied = {region.digest for region in elsewhere if region.own}
    wanted = [] if frame is None else _wanted(faces, frame, others, [region for region in elsewhere if not region.own])
    forms = _forms(rdf, note)
    new_note = {name for texts in wanted for name in texts.digests(forms)} | copied
    # Of a region that was deleted in one form the other one goes as well.
    kept = [texts for texts in wanted if all(name in own | copied or name not in note for name in texts.digests(forms))]
    if frame is not None and kept:
        new_note.add(_size_digest(frame.width, frame.height, "frame"))  # a photo that was made smaller is another one
        if _lacks_size(rdf, note):
            new_note.add(_size_digest(frame.width, frame.height))
    if note == new_note and own == {name for texts in kept for name in texts.digests(forms)}:
        return data
    data = _without(data, rdf, note) if note else data
    return _with(data, kept, forms, sorted(new_note), frame) if new_note else data


def is_written(data: bytes) -> bool:
    """Say whether facepipe wrote into a sidecar. Errors: XmpError."""
    return xmp.OWN_SPACE.encode() in data and bool(note_of(parse(data)))


@dataclass(frozen=True, slots=True)
class _Texts:
    """A region as it is written: name, centre and size, left, top and size; digests: of its two forms."""

    person: str
    area: tuple[str, str, str, str]
    rectangle: tuple[str, str, str, str]

    def digests(self, forms: Sequence[str]) -> list[str]:
        """Return what the note calls it. forms: in which it is written."""
        numbers = {MWG: ("mwg", self.area), MP: ("mp", self.rectangle)}
        return [digest(numbers[form][0], self.person, numbers[form][1]) for form in forms]


def _wanted(
    faces: Sequence[Named], frame: Frame, others: Sequence[Region], elsewhere: Sequence[Region]
) -> list[_Texts]:
    """Return the faces that are to be written: those that no other program named.

    Programs that read a sidecar do not look for regions in the photo any more, so who is named there alike is named here once more,
    unless nobody else is to be written.
    """
    found, told = [], True
    for face in faces:
        box = clipped(stored(face.box, frame.turn))
        if box is None or min(box[2] - box[0], box[3] - box[1]) < _LEAST:
            continue
        person = face.person.strip()
        if not person or _NO_XML.search(person):
            raise XmpError("cannot hold a name with control characters")
        there = _names_at(box, elsewhere, frame)
        if _names_at(box, others, frame) or there - {person}:
            continue
        told = told and bool(there)
        x1, y1, x2, y2 = box
        width, height = number_text(x2 - x1), number_text(y2 - y1)
        area = (number_text((x1 + x2) / 2), number_text((y1 + y2) / 2), width, height)
        found.append(_Texts(person, area, (number_text(x1), number_text(y1), width, height)))
    return [] if told else found


def _names_at(box: Box, regions: Sequence[Region], frame: Frame) -> set[str]:
    """Return who is named in a place of the stored picture, by programs that mean that or, by mistake, the displayed one."""
    return {
        region.name
        for region in regions
        if region.name and max(iou(box, region.box), iou(box, stored(region.box, frame.turn))) >= _TAKEN
    }


def _forms(rdf: Node, note: set[str]) -> list[str]:
    """Return the forms to write: those in which another program has a list, else both.

    Readers look at one form alone, so a new list of the other form would hide the people whom that program named.
    """

    def is_anothers(description: Node, form: str) -> bool:
        lists = [child for child in description.children if child.name == form]
        alone = Node(description.name, {}, 0, 0, 0, lists)
        return sum(region.own for _, region in regions_in([alone], note)) < _count(alone)

    both = [MWG, MP]
    return [form for form in both if any(is_anothers(description, form) for description in rdf.children)] or both


def _lacks_size(rdf: Node, note: set[str]) -> bool:
    """Say whether the list of another program does not say to which size it applies, or facepipe wrote that."""
    holder = _holder(rdf, MWG)
    return holder is not None and (holder.value("AppliedToDimensions") is None or _own_size(holder, note) is not None)


def _own_size(holder: Node, note: set[str]) -> Node | None:
    """Return the size in a list of another program that facepipe put there."""
    dimensions = holder.structure("AppliedToDimensions")
    size = xmp.size_in(dimensions)
    return dimensions if size is not None and _size_digest(*size) in note else None


def _size_digest(width: int, height: int, kind: str = "size") -> str:
    return digest(kind, "", map(number_text, (width, height)))


def _holder(rdf: Node, name: str) -> Node | None:
    """Return the property of this name."""
    return next((child for description in rdf.children for child in description.children if child.name == name), None)


# ---- what facepipe wrote before ----


def _without(data: bytes, rdf: Node, note: set[str]) -> bytes:
    """Return a sidecar without what facepipe wrote."""
    cuts: list[tuple[int, int]] = []
    for description in rdf.children:
        found = [(item, region.own) for item, region in regions_in([description], note)]
        if _is_own(description) and len(found) == _count(description) and all(own for _, own in found):
            cuts.append(_with_blanks(data, description.start, description.end))
            continue
        cuts += [_with_blanks(data, item.start, item.end) for item, own in found if own]
        sizes = [_own_size(child, note) for child in description.children if child.name == MWG]
        notes = [child for child in description.children if child.name == OWN]
        cuts += [_with_blanks(data, node.start, node.end) for node in (*notes, *sizes) if node is not None]
        if OWN in description.attributes:
            cuts.append(_attribute(data, description))
    for start, end in sorted(cuts, reverse=True):
        data = data[:start] + data[end:]
    return data


def _count(description: Node) -> int:
    """Return how many entries the lists of regions have, of whatever kind."""
    lists = [child.structure("RegionList" if child.name == MWG else "Regions") for child in description.children]
    return sum(len(items(entries)) for entries in lists if entries is not None)


def _is_own(description: Node) -> bool:
    """Say whether a description has facepipe's note and nothing but regions."""
    others = [name for name in description.attributes if name not in (OWN, _ABOUT)]
    return (
        OWN in description.attributes and not others and all(child.name in (MWG, MP) for child in description.children)
    )


def _attribute(data: bytes, description: Node) -> tuple[int, int]:
    """Return where the note stands in a description's tag."""
    tag = data[description.start : description.tag_end]
    for found in re.finditer(rb"""(?<!\s)\s++[^\s=<>"']++\s*+=\s*+("[^"]*"|'[^']*')""", tag):
        if (
            found[0].split(b"=", 1)[0].rstrip().endswith(b":Regions")
            and description.attributes[OWN].encode() == found[1][1:-1]
        ):
            return description.start + found.start(), description.start + found.end()
    raise XmpError("has a note of facepipe's that cannot be found again")


def _with_blanks(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the place of an element with the blanks before it."""
    while data[start - 1 : start].isspace():
        start -= 1
    return start, end


# ---- what it writes now ----


def _with(
    data: bytes, regions: Sequence[_Texts], forms: Sequence[str], note: Sequence[str], frame: Frame | None
) -> bytes:
    """Return a sidecar with regions, in the lists that are there, else in a description of facepipe's own, which has the note.

    frame: None only without regions.
    """
    rdf = parse(data)
    width, height = (0, 0) if frame is None else (frame.width, frame.height)
    size = f'<mwg-rs:AppliedToDimensions stDim:w="{width}" stDim:h="{height}" stDim:unit="pixel"/>'
    edits: list[tuple[int, int, str]] = []
    own = ""
    for name, field, text_of in ((MWG, "RegionList", _mwg), (MP, "Regions", _mp)):
        entries = [text_of(region) for region in regions if name in forms]
        if not entries:
            continue
        holder = _holder(rdf, name)
        if holder is None:
            own += _HOLDERS[name].format(size=size, entries="".join(f"\n      {entry}" for entry in entries))
            continue
        there = holder.structure(field)
        if there is None or there.array is None:
            raise XmpError("has regions in a form that nothing can be added to")
        edits.append(_appended(data, there.array, [_alone(entry) for entry in entries], "\n"))
        if name == MWG and holder.value("AppliedToDimensions") is None:
            start, _ = _with_blanks(data, there.start, there.end)
            edits.append((start, start, data[start : there.start].decode() + _alone(size)))
    about = next((child.attributes.get(_ABOUT, "") for child in rdf.children), "")
    attributes = f"rdf:about={quoteattr(about)} facepipe:Regions={quoteattr(' '.join(note))}"
    description = (
        f"<rdf:Description {attributes}>{own}</rdf:Description>" if own else f"<rdf:Description {attributes}/>"
    )
    edits.append(_appended(data, rdf, [_alone(description)], "\n  "))
    for start, end, text in sorted(edits, reverse=True):
        data = data[:start] + text.encode() + data[end:]
    return data


def _mwg(region: _Texts) -> str:
    x, y, width, height = region.area
    area = (
        f'<mwg-rs:Area stArea:x="{x}" stArea:y="{y}" stArea:w="{width}" stArea:h="{height}" stArea:unit="normalized"/>'
    )
    name = f"<mwg-rs:Name>{escape(region.person)}</mwg-rs:Name>"
    return f'<rdf:li rdf:parseType="Resource">{area}<mwg-rs:Type>Face</mwg-rs:Type>{name}</rdf:li>'


def _mp(region: _Texts) -> str:
    return (
        f'<rdf:li MPReg:Rectangle="{", ".join(region.rectangle)}" MPReg:PersonDisplayName={quoteattr(region.person)}/>'
    )


_HOLDERS = {
    MWG: """
   <mwg-rs:Regions rdf:parseType="Resource">
    {size}
    <mwg-rs:RegionList>
     <rdf:Bag>{entries}
     </rdf:Bag>
    </mwg-rs:RegionList>
   </mwg-rs:Regions>""",
    MP: """
   <MP:RegionInfo rdf:parseType="Resource">
    <MPRI:Regions>
     <rdf:Bag>{entries}
     </rdf:Bag>
    </MPRI:Regions>
   </MP:RegionInfo>
  """,
}


def _alone(element: str) -> str:
    """Return an element that declares the namespaces in it, so that it means the same wherever it is put."""
    spaces = "".join(f' xmlns:{prefix}="{space}"' for prefix, space in _SPACES.items() if f"{prefix}:" in element)
    name, blank, rest = element.partition(" ")
    return f"{name}{spaces}{blank}{rest}"


def _appended(data: bytes, node: Node, elements: Sequence[str], blanks: str) -> tuple[int, int, str]:
    """Return the edit that puts elements behind the last one in `node`. blanks: before each, where there is none to learn from."""
    if node.children:
        start, end = _with_blanks(data, node.children[-1].start, node.children[-1].end)
        blanks = data[start : node.children[-1].start].decode()
        return end, end, "".join(blanks + element for element in elements)
    body = "".join(blanks + element for element in elements)
    if not node.closed:
        return node.tag_end, node.tag_end, body
    name = data[node.start + 1 : node.tag_end - 2].split(maxsplit=1)[0].decode()
    return node.tag_end - 2, node.tag_end, f">{body}</{name}>"
