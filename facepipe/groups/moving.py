"""Answers about people rather than groups: another name, two who are one, faces that are somebody else's, the cover.

In the gallery faces move from person to person by their ids, so that taking it back moves just those. Names stand in the table
`person` alone: a rename exchanges the names of two of its rows, one of which is nobody's, and so does taking it back.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from facepipe.gallery import people
from facepipe.gallery.store import GalleryStore
from facepipe.groups.store import GroupsFile

#: Stands for the gallery of a row that keeps a former name of somebody, whose number stands for the id there.
FORMER = "former"


def in_gallery(file: GroupsFile, gallery: GalleryStore, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Move faces and rename in the gallery; return what was done. May be done again after it was killed."""
    did: dict[str, Any] = {}
    database = gallery.database
    if moves := wanted.get("moves"):
        names = dict(file.rows("SELECT id, name FROM person"))
        ids: dict[tuple[int, int], list[int]] = defaultdict(list)
        for face_id, source, target in moves:
            ids[source, target].append(face_id)
        for (source, target), faces in ids.items():
            person = people.find_person(database, names[source])
            there = set() if person is None else set(people.face_ids_of(database, person))
            if left := [face_id for face_id in faces if face_id in there]:
                people.split(database, names[source], left, names[target])
        did["moved"] = moves
    if pair := wanted.get("rename"):
        old, new = (file.value("SELECT name FROM person WHERE id = ?", number) for number in pair)
        if people.find_person(database, old) is not None and people.find_person(database, new) is None:
            people.rename(database, old, new)
        did["renamed"] = pair
    return did


def link(file: GroupsFile, gallery: GalleryStore, wanted: Mapping[str, Any]) -> None:
    """Note who people of an answer are in the gallery now; within `write`."""
    numbers = {wanted["person"], *(number for move in wanted.get("moves", ()) for number in move[1:])}
    for number in numbers:
        name = file.value("SELECT name FROM person WHERE id = ?", number)
        if name is not None:
            found = people.find_person(gallery.database, name)
            query = "UPDATE person SET gallery = ?, gallery_person = ? WHERE id = ?"
            identity = None if found is None and number != wanted["person"] else gallery.database.identity
            file.connection.execute(query, (identity, found, number))


def swap_names(file: GroupsFile, pair: Sequence[int]) -> None:
    """Exchange the names of two people, of whom the second is nobody: it keeps the name for an undo; within `write`."""
    a, b = (file.value("SELECT name FROM person WHERE id = ?", number) for number in pair)
    rename = "UPDATE person SET name = ? WHERE id = ?"
    for name, number in (("\0", pair[0]), (a, pair[1]), (b, pair[0])):
        file.connection.execute(rename, (name, number))
    query = "UPDATE person SET gallery = ?, gallery_person = ? WHERE id = ?"
    file.connection.execute(query, (FORMER, pair[0], pair[1]))


def renamed_by(file: GroupsFile, answer: int) -> Sequence[int] | None:
    """Return the two people whose names an answer exchanged, None when it was another one."""
    what, details = file.rows("SELECT what, details FROM answer WHERE number = ?", answer)[0]
    facts = json.loads(details)
    if what == "undo":
        return renamed_by(file, facts["answer"])
    return (facts["person"], facts["other"]) if what == "rename" else None


def merge(file: GroupsFile, answer: int, person: int, others: Sequence[int]) -> None:
    """Give all that people have to another; within `write`."""
    for other in others:
        for content, number in file.rows("SELECT content, number FROM face WHERE person = ?", other):
            file.put(answer, "face", {"content": content, "number": number, "person": person})
        for (group,) in file.rows("SELECT id FROM grp WHERE person = ?", other):
            file.put(answer, "grp", {"id": group, "person": person})
        for content, number in file.rows("SELECT content, number FROM denied WHERE person = ?", other):
            face = {"content": content, "number": number}
            file.drop(answer, "denied", **face, person=other)
            if (file.get("face", **face) or {}).get("person") != person:
                file.put(answer, "denied", {**face, "person": person})
        file.drop(answer, "cover", person=other)
