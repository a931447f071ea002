"""What each answer of the user changes: in the file of the groups, and in the gallery.

An answer that concerns the gallery is noted as intended first, then carried out there, then here; `complete` can be called again
after its process was killed anywhere in between, and does not do anything twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from facepipe.gallery.people import find_person
from facepipe.gallery.store import GalleryStore
from facepipe.groups import moving
from facepipe.groups.naming import enrol, refute, unrefute, withdraw
from facepipe.groups.pile import Pile
from facepipe.groups.regroup import write_derived
from facepipe.groups.store import GroupsFile
from facepipe.groups.values import FaceKey

Keys = Sequence[Sequence[Any]]


def person_id(file: GroupsFile, name: str) -> int:
    """Return the number of a person in the file, who is added when new; within `write`."""
    found = file.value("SELECT id FROM person WHERE name = ?", name)
    free = "UPDATE person SET gallery = NULL, gallery_person = NULL WHERE id = ? AND gallery = ?"
    file.connection.execute(free, (found, moving.FORMER))
    if found is None:
        with_id = file.rows("INSERT INTO person (name) VALUES (?) RETURNING id", name)
        found = with_id[0][0]
    return int(found)


def complete(file: GroupsFile, pile: Pile, gallery: GalleryStore | None, answer: int) -> None:
    """Carry out an answer that was noted as intended, in the gallery and then in the file."""
    what, details, intended = file.rows("SELECT what, details, gallery FROM answer WHERE number = ?", answer)[0]
    facts, wanted = json.loads(details), json.loads(intended)
    name = file.value("SELECT name FROM person WHERE id = ?", wanted["person"])
    did: dict[str, Any] = {"person": wanted["person"]}
    if gallery is not None and name is not None:
        did |= _in_gallery(gallery, pile, name, wanted) | moving.in_gallery(file, gallery, wanted)
    with file.write() as db:
        if "enrolled" in did and "enrolled" in facts:
            facts["enrolled"] = len(did["enrolled"])
            db.execute("UPDATE answer SET details = ? WHERE number = ?", (json.dumps(facts), answer))
        if what == "undo":
            touched = _revert(file, answer, facts["answer"])
        else:
            touched = _CHANGES[what](file, pile, answer, {**facts, **wanted})
        derive(file, pile, touched)
        if gallery is not None and name is not None:
            moving.link(file, gallery, wanted)
        file.finish(answer, did)


def _in_gallery(gallery: GalleryStore, pile: Pile, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Do in the gallery what is wanted; return what was done, for whoever takes it back."""
    did: dict[str, Any] = {}
    if wanted.get("withdraw"):
        withdraw(gallery, wanted["withdraw"], name)
        did["withdrawn"] = wanted["withdraw"]
    if wanted.get("enrol"):
        did["enrolled"] = enrol(gallery, pile, _keys(wanted["enrol"]), name, wanted.get("before", []))
    if wanted.get("unrefute"):
        unrefute(gallery, _keys(wanted["unrefute"]), name)
        did["unrefuted"] = wanted["unrefute"]
    if wanted.get("refute") and find_person(gallery.database, name) is not None:
        refute(gallery, pile, _keys(wanted["refute"]), name)
        did["refuted"] = wanted["refute"]
    return did


def opposite(did: dict[str, Any]) -> dict[str, Any]:
    """Return what is wanted of the gallery to take back what an answer did there."""
    return {
        "person": did.get("person"),
        "withdraw": did.get("enrolled", []),
        "enrol": [face[:2] for face in did.get("withdrawn", [])],
        "unrefute": did.get("refuted", []),
        "refute": did.get("unrefuted", []),
        "moves": [[face_id, target, source] for face_id, source, target in did.get("moved", [])],
        "rename": did.get("renamed", []),
    }


def simply(file: GroupsFile, pile: Pile, what: str, details: dict[str, Any]) -> int:
    """Note and carry out an answer that does not concern the gallery, in one transaction; return its number."""
    with file.write():
        answer = file.intend(what, details, {})
        touched = (
            _revert(file, answer, details["answer"]) if what == "undo" else _CHANGES[what](file, pile, answer, details)
        )
        derive(file, pile, touched)
        file.finish(answer)
    return answer


def plain(keys: Sequence[FaceKey]) -> list[list[Any]]:
    """Return faces as JSON has them."""
    return [[key.content, key.number] for key in keys]


def _keys(some: Keys) -> list[FaceKey]:
    return [FaceKey(content, number) for content, number, *_ in some]


def derive(file: GroupsFile, pile: Pile, touched: set[int]) -> None:
    """Bring up to date how alike the faces of some groups are; within `write`."""
    groups = np.full(len(pile), -1, np.int64)
    for number in touched:
        for content, place in file.rows("SELECT content, number FROM face WHERE grp = ?", number):
            if (row := pile.row(FaceKey(content, place))) is not None:
                groups[row] = number
    with_faces = np.unique(groups[groups != -1])
    if len(with_faces):
        write_derived(file.connection, pile, groups, with_faces)


def _revert(file: GroupsFile, by: int, answer: int) -> set[int]:
    touched = {
        int(json.loads(row)["grp"])
        for table, *rows in file.rows("SELECT tbl, before, after FROM change WHERE answer = ?", answer)
        for row in rows
        if table == "face" and row is not None and json.loads(row)["grp"] is not None
    }
    file.revert(answer, by)
    if pair := moving.renamed_by(file, answer):
        moving.swap_names(file, pair)
    what, details = file.rows("SELECT what, details FROM answer WHERE number = ?", answer)[0]
    if what == "undo":  # what that had taken back holds again
        file.connection.execute("UPDATE answer SET undone = NULL WHERE number = ?", (json.loads(details)["answer"],))
    return touched


def _members(file: GroupsFile, group: int) -> list[dict[str, Any]]:
    names = ("content", "number", "status", "person")
    rows = file.rows(f"SELECT {', '.join(names)} FROM face WHERE grp = ?", group)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _name(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    group, person = facts["group"], facts["person"]
    file.put(answer, "grp", {"id": group, "state": "named", "person": person, "fixed": 1})
    for face in _members(file, group):
        file.put(answer, "face", {**face, "status": "confirmed", "person": person})
    return {group}


def _put_out(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    group, person = facts["group"], facts.get("person")
    file.put(answer, "grp", {"id": group, "fixed": 1})
    for key in _keys(facts["keys"]):
        face = {"content": key.content, "number": key.number}
        if file.get("face", **face) is not None:
            file.put(answer, "face", {**face, "grp": None, "status": "in", "person": None})
        file.put(answer, "put_out", {**face, "grp": group})
        if person is not None:
            file.put(answer, "denied", {**face, "person": person})
    return {group}


def _join(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    target, *others = facts["groups"]
    rows = [file.get("grp", id=number) or {} for number in facts["groups"]]
    person = next((row["person"] for row in rows if row.get("person") is not None), None)
    state = "open" if person is None else "named"
    file.put(answer, "grp", {"id": target, "state": state, "person": person, "fixed": 1})
    said = {} if person is None else {"status": "confirmed", "person": person}
    for face in _members(file, target) if said else []:
        file.put(answer, "face", {**face, **said})
    for other in others:
        for face in _members(file, other):
            file.put(answer, "face", {**face, **said, "grp": target})
        file.put(answer, "grp", {"id": other, "state": "gone"})
        for content, number in file.rows("SELECT content, number FROM put_out WHERE grp = ?", other):
            file.put(answer, "put_out", {"content": content, "number": number, "grp": target})
        for a, b in file.rows("SELECT a, b FROM apart WHERE a = ? OR b = ?", other, other):
            third = b if a == other else a
            if third == target:
                file.drop(answer, "apart", a=a, b=b)
            else:
                file.put(answer, "apart", {"a": min(target, third), "b": max(target, third)})
        file.connection.execute(
            "INSERT OR IGNORE INTO alike SELECT min(?1, x), max(?1, x), cosine FROM"
            " (SELECT iif(a = ?2, b, a) AS x, cosine FROM alike WHERE a = ?2 OR b = ?2) WHERE x != ?1",
            (target, other),
        )
    return {target}


def _apart(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    a, b = sorted(facts["groups"])
    file.put(answer, "apart", {"a": a, "b": b})
    for number in (a, b):
        file.put(answer, "grp", {"id": number, "fixed": 1})
    return set()


def _ignore(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    file.put(answer, "grp", {"id": facts["group"], "state": "ignored", "person": None, "fixed": 1})
    return set()


def _skip(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    file.put(answer, "grp", {"id": facts["group"], "state": "skipped"})
    return set()


def _confirm(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    person = facts["person"]
    home = file.value("SELECT id FROM grp WHERE person = ? AND state = 'named' ORDER BY id LIMIT 1", person)
    touched = set() if home is None else {int(home)}
    for key in _keys(facts["keys"]):
        face = {"content": key.content, "number": key.number}
        before = file.get("face", **face)
        touched |= {before["grp"]} if before is not None and before["grp"] is not None else set()
        file.put(answer, "face", {**_new_face(pile, key), **face, "grp": home, "status": "confirmed", "person": person})
        file.drop(answer, "denied", **face, person=person)
        if home is not None:
            file.drop(answer, "put_out", **face, grp=home)
    return touched


def _deny(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    person, touched = facts["person"], set()
    for key in _keys(facts["keys"]):
        face = {"content": key.content, "number": key.number}
        file.put(answer, "denied", {**face, "person": person})
        before = file.get("face", **face)
        if before is None:
            continue
        group = before["grp"]
        if group is not None and (file.get("grp", id=group) or {}).get("person") == person:
            file.put(answer, "put_out", {**face, "grp": group})
            file.put(answer, "face", {**face, "grp": None, "status": "in", "person": None})
            touched.add(int(group))
        elif before["person"] == person:
            file.put(answer, "face", {**face, "status": "in", "person": None})
    return touched


def _new_face(pile: Pile, key: FaceKey) -> dict[str, Any]:
    """Return the columns that say where a face lies. Errors: UsageError when the catalog has no such face."""
    return {**dict(zip(("x1", "y1", "x2", "y2"), pile.box(pile.require(key)), strict=True)), "likeness": 0.0}


def _rename(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    moving.swap_names(file, (facts["person"], facts["other"]))
    return set()


def _merge(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    moving.merge(file, answer, facts["person"], facts["others"])
    return set()


def _split(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    return _deny(file, pile, answer, {**facts, "person": facts["was"]}) | _confirm(file, pile, answer, facts)


def _cover(file: GroupsFile, pile: Pile, answer: int, facts: dict[str, Any]) -> set[int]:
    content, number = facts["key"]
    file.put(answer, "cover", {"person": facts["person"], "content": content, "number": number})
    return set()


_CHANGES = {
    "name": _name,
    "put-out": _put_out,
    "join": _join,
    "apart": _apart,
    "ignore": _ignore,
    "skip": _skip,
    "confirm": _confirm,
    "deny": _deny,
    "rename": _rename,
    "merge": _merge,
    "split": _split,
    "cover": _cover,
}
