"""Who is in photos by the results and by what the user said: named or confirmed, renamed since, or denied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.sources import file_of
from facepipe.gallery.store import GalleryStore
from facepipe.groups import persons
from facepipe.groups.pile import SAME_BOX, Pile, overlap
from facepipe.groups.store import GroupsFile, groups_path
from facepipe.records import Record, rounded
from facepipe.types import Status


@dataclass(slots=True)
class _Answered:
    """A face that the user said something of. number: its place when that was said. box: None where it was not noted."""

    number: int
    box: list[float] | None
    person: str | None
    denied: set[str] = field(default_factory=set)


class Said:
    """What the user said of the faces of a catalog, read once; nothing where there are no groups."""

    def __init__(self, catalog: Path) -> None:
        """Read NAME.groups beside the catalog. Errors: InputError when it is something else."""
        self._photos: dict[str, list[_Answered]] = defaultdict(list)
        denied: dict[tuple[str, int], set[str]] = defaultdict(set)
        with closing(GroupsFile(groups_path(catalog))) as file, file.read():
            names = dict(file.rows("SELECT id, name FROM person"))
            for content, number, person in file.rows("SELECT content, number, person FROM denied"):
                denied[content, number].add(names.get(person, ""))
            query = """
                SELECT content, number, x1, y1, x2, y2, person FROM face
                WHERE person IS NOT NULL OR (content, number) IN (SELECT content, number FROM denied)"""
            for content, number, *box, person in file.rows(query):
                found = _Answered(number, box, names.get(person), denied.pop((content, number), set()))
                self._photos[content].append(found)
            for (content, number), people in denied.items():
                self._photos[content].append(_Answered(number, None, None, people))

    def told(self, content: str, record: Record) -> Record:
        """Return a photo's record with the people whom the user named, and without those whom they denied. content: its SHA-256.

        A face that a later scan found in another place of the list is found by its box.
        """
        answers = self._photos.get(content)
        if not answers or record["error"] is not None:
            return record
        faces: list[dict[str, Any]] = [dict(face) for face in record["faces"]]
        for answer in answers:
            place = _place(answer, [face["box"] for face in faces])
            if place is None:
                continue
            if answer.person is not None:
                faces[place].update(status=str(Status.KNOWN), person=answer.person)
            elif faces[place]["person"] in answer.denied:
                faces[place].update(status=str(Status.UNKNOWN), person=None)
        return {**record, "faces": faces}


def _place(answer: _Answered, boxes: Sequence[Sequence[float]]) -> int | None:
    """Return which of the faces of a photo an answer is about, None when it is not found any more."""
    if answer.box is None:
        return answer.number if answer.number < len(boxes) else None
    shared = [overlap(np.array(answer.box, np.float32), np.array(box, np.float32)) for box in boxes]
    best = max(range(len(boxes)), key=lambda place: (shared[place], place == answer.number), default=None)
    return best if best is not None and shared[best] >= SAME_BOX else None


def call_people_as(catalog: Path, gallery: GalleryStore) -> None:
    """Call the people in NAME.groups what the gallery calls them now, and forget whom it erased."""
    place = groups_path(catalog)
    if place.exists() and gallery.database.writable:
        with closing(GroupsFile(place)) as file:
            persons.sync(file, gallery)


def photos_with_names(
    catalog: Catalog, pile: Pile, names: Sequence[str | None], said: Said
) -> Iterator[tuple[str, Record]]:
    """Yield the path and record of each photo of a catalog, with whom the gallery knows and the user named; none of archives.

    names: of each face of the pile, who it is known to be. A record has `path`, `width`, `height`, `error`, and of each face `box`,
    `status` and `person`.
    """
    for content in pile.contents:
        width, height = catalog.size_of(content) or (0, 0)
        faces = [
            {
                "box": [rounded(value, 2) for value in pile.box(row)],
                "status": str(Status.UNKNOWN if names[row] is None else Status.KNOWN),
                "person": names[row],
            }
            for row in pile.rows_of(content)
        ]
        for path in catalog.paths_of(content):
            if file_of(path) == path:
                record = {"path": path, "width": width, "height": height, "error": None, "faces": faces}
                yield path, said.told(content, record)
