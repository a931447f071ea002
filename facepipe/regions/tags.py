"""Who is tagged in a photo: the regions in its file and in the sidecars beside it, as boxes in the displayed picture.

Regions refer to the stored picture. Some programs mean the displayed one, above all in sidecars, so where faces are known both
readings are compared with them, and what one program wrote into one file is read in the way that fits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from facepipe.errors import InputError
from facepipe.regions.embedded import frame_of, opened, packets
from facepipe.regions.geometry import Box, Frame, assigned, fit, iou, shown
from facepipe.regions.xmp import MAX_BYTES, Region, XmpError, read_packet
from facepipe.text import printable

#: A region of the same name in another form or file is the same one from this IoU on.
_SAME = 0.5
#: By so much IoU for each region the displayed picture must fit better: most programs mean the stored one.
_CLEARLY = 0.1


@dataclass(frozen=True, slots=True)
class Tag:
    """A face that a program marked in a photo.

    name: who it is, None when nobody is named. box: x1, y1, x2, y2 as fractions of the picture as displayed. region: as it stands in
    the file.
    """

    name: str | None
    box: Box
    region: Region


@dataclass(frozen=True, slots=True)
class Tags:
    """The regions of a photo. frame: its stored size and turn. problems: files that could not be read, and why."""

    path: str
    frame: Frame
    regions: tuple[Region, ...]
    problems: tuple[tuple[str, str], ...] = ()

    def shown(self, faces: Sequence[Box] = ()) -> list[Tag]:
        """Return the regions in the displayed picture, one for what several files say of the same face.

        faces: boxes of the faces that are there, as fractions of the displayed picture: they tell which reading is meant.
        """
        turns: dict[tuple[str, str], int] = {}
        found: list[Tag] = []
        for region in sorted(self.regions, key=lambda region: region.own):
            if (written := (region.file, region.kind)) not in turns:
                turns[written] = 1 if self._means_displayed(region, faces) else self.frame.turn
            tag = Tag(region.name, shown(region.box, turns[written]), region)
            if not any(tag.name == other.name and iou(tag.box, other.box) >= _SAME for other in found):
                found.append(tag)
        return found

    def matched(self, faces: Sequence[Box]) -> list[tuple[Tag, int | None]]:
        """Return the regions, each with the face that lies in it, None where there is none."""
        tags = self.shown(faces)
        return list(zip(tags, assigned([tag.box for tag in tags], faces), strict=True))

    def _means_displayed(self, region: Region, faces: Sequence[Box]) -> bool:
        """Say whether the program that wrote a region meant the displayed picture."""
        boxes = [other.box for other in self.regions if (other.file, other.kind) == (region.file, region.kind)]
        as_stored, as_displayed = (fit([shown(box, turn) for box in boxes], faces) for turn in (self.frame.turn, 1))
        if as_stored or as_displayed:
            return as_displayed > as_stored + _CLEARLY * len(boxes)
        # No face tells: the size that it refers to may.
        return region.size is not None and _lies(region.size) not in (0, _lies((self.frame.width, self.frame.height)))


def _lies(size: tuple[int, int]) -> int:
    """Return 1 for a landscape format, -1 for a portrait format, 0 for a square."""
    return (size[0] > size[1]) - (size[0] < size[1])


def sidecar_of(path: str | os.PathLike[str]) -> str:
    """Return the sidecar that facepipe writes for a photo."""
    return f"{os.fspath(path)}.xmp"


def sidecars_of(path: str | os.PathLike[str]) -> list[str]:
    """Return the sidecars that a photo has: photo.jpg.xmp and photo.xmp."""
    stem = os.path.splitext(os.fspath(path))[0]  # noqa: PTH122
    names = [f"{name}{suffix}" for name in dict.fromkeys((os.fspath(path), stem)) for suffix in (".xmp", ".XMP")]
    return [name for name in names if os.path.lexists(name)]


def read_sidecar(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a sidecar. Errors: InputError, also when it is larger than any."""
    with opened(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{printable(path)}: has more than {MAX_BYTES:,} bytes, which no sidecar has")
    return data


def read_tags(path: str | os.PathLike[str]) -> Tags:
    """Return who is tagged in a photo, in its file and beside it. Errors: InputError, when the photo cannot be read."""
    name = os.fspath(path)
    regions: list[Region] = []
    note: set[str] = set()
    problems: list[tuple[str, str]] = []
    for file in (name, *sidecars_of(name)):
        try:
            for packet in packets(name) if file == name else [read_sidecar(file)]:
                found, noted = read_packet(packet, file)
                regions += found
                note |= noted
        except XmpError as error:
            problems.append((file, f"{'its XMP ' if file == name else ''}{error}; it is passed over"))
        except InputError as error:
            if file == name:
                raise
            problems.append((file, f"{str(error).removeprefix(f'{printable(file)}: ')}; it is passed over"))
    # What was copied from facepipe's sidecar into the photo is still known by the note in the sidecar.
    known = tuple(
        replace(region, own=True) if region.file == name and region.digest in note else region for region in regions
    )
    return Tags(name, frame_of(name) if regions else Frame(1, 1), known, tuple(problems))


@dataclass(frozen=True, slots=True)
class TaggedFace:
    """A face that a program marked in a photo.

    name: who it is, None when nobody is named. box: x1, y1, x2, y2 in displayed pixels. form: `mwg-rs` or `mp`. file: which one says
    so, the photo or a sidecar. own: whether facepipe wrote it, and nobody changed it since.
    """

    name: str | None
    box: tuple[float, float, float, float]
    form: str
    file: str
    own: bool = False


def read_regions(path: str | os.PathLike[str]) -> list[TaggedFace]:
    """Return who was tagged in a photo by digiKam, Lightroom, Picasa, Windows or facepipe, in its file or a sidecar beside it.

    A sidecar that cannot be understood is passed over. Errors: InputError, ImageError, when the photo cannot be read.
    """
    return tagged_faces(read_tags(path))


def tagged_faces(tags: Tags) -> list[TaggedFace]:
    """Return the regions of a photo in its displayed pixels."""
    width, height = tags.frame.displayed
    forms = {"mwg": "mwg-rs", "mp": "mp"}
    return [
        TaggedFace(
            tag.name,
            (tag.box[0] * width, tag.box[1] * height, tag.box[2] * width, tag.box[3] * height),
            forms[tag.region.kind],
            tag.region.file,
            tag.region.own,
        )
        for tag in tags.shown()
    ]
