"""Groups what is new in a pile, and leaves alone what the user said.

    what the file says ──▶ clusters to begin with, and what may not be joined ──▶ average linkage ──▶ numbers of groups ──▶ the file

Two faces of one photo are never joined, nor two groups that the user said something of, nor a face with a group that it was put out
of. A face that the detector is not sure of waits, and joins the group that it is most like in the end, if it is like one.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facepipe.groups.attach import attach, means_of, stay
from facepipe.groups.linkage import link, link_down, mean_cosine
from facepipe.groups.pile import SAME_BOX, Pile, overlap
from facepipe.groups.store import GroupsFile
from facepipe.groups.values import FaceKey, Grouped
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32, Int64

Bools = NDArray[np.bool_]
#: A refresh that adds faces so many seconds after the one before begins a new round: what comes is new since last time.
_ROUND = 1800.0
#: Groups whose mean cosine is no more than this below the threshold are offered as alike (a third of them are one person), so many
#: for each; nor if it is below the threshold for so few people.
_ALIKE, _ALIKE_MOST, _ALIKE_PEOPLE = 0.1, 3, 10
#: After so many plans that an answer overtook, answers wait for the next one. So many seconds a half done answer is waited for.
_TRIES, _PATIENCE = 2, 10.0


@dataclass(slots=True)
class _Said:
    """What the file says of the faces of a pile, row by row.

    group: int64 (n,), -1: none. confirmed: by the user. whose: int64 (n,), the person, -1: nobody. listed: the face has a row.
    """

    group: Int64
    confirmed: Bools
    whose: Int64
    listed: Bools
    moved: list[tuple[FaceKey, FaceKey]]
    lost: list[FaceKey]
    absent: list[FaceKey]
    fixed: set[int]
    states: dict[int, str]
    persons: dict[int, int | None]
    answers_lost: int = 0


def regroup(
    file: GroupsFile,
    pile: Pile,
    known: Callable[[], Float32],
    limit: Callable[[int], float] | float,
    *,
    anew: bool = False,
) -> Grouped:
    """Group the faces of a pile.

    known: says which faces are left out as somebody known, float32 (n,): the cosine with that person, above any where it is certain,
    -inf where it is nobody; asked again when an answer has come meanwhile, since that may change it.
    limit: the threshold, or what it is for so many groups. anew: what nobody said anything of is grouped from scratch.
    """
    tries = 0
    while True:
        before = _settled(file)
        if tries == _TRIES:  # answers kept coming meanwhile: they wait
            with file.write() as db:
                if file.version == before:
                    return _apply(db, file, pile, *_plan(file, pile, known(), limit, anew))
            continue
        plan = _plan(file, pile, known(), limit, anew)
        if not _changes(file, pile, *plan):
            return _counted(pile, *plan)
        with file.write() as db:
            if file.version == before:
                return _apply(db, file, pile, *plan)
        tries += 1


def _settled(file: GroupsFile) -> int:
    """Return the version of the file when no answer is half done: in the gallery, and not yet in the file.

    One whose process was killed is completed by whoever may; it is not waited for long.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with file.read():
            version, half = file.version, file.value("SELECT 1 FROM answer WHERE NOT done LIMIT 1") is not None
        if not half or time.monotonic() > until:
            return version
        time.sleep(0.02)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """groups: int64 (n,), the group of each face from now on; -1: none; below -1: a new one. threshold: that held. left: left out.

    alike: mean cosine from which on groups are offered as alike.
    """

    groups: Int64
    threshold: float
    left: Bools
    alike: float


def _plan(
    file: GroupsFile, pile: Pile, known: Float32, limit: Callable[[int], float] | float, anew: bool
) -> tuple[_Said, _Plan]:
    with file.read():
        said = _read(file, pile)
        barred = _tokens(file, pile, said)
    kept = said.confirmed | np.isin(said.group, list(said.fixed))
    left = (known > -np.inf) & ~kept
    part = np.flatnonzero(((pile.sure & ~left) | said.confirmed) & ((said.whose < 0) | (said.group >= 0)))
    group = said.group.copy()
    group[left] = -1
    if anew:
        group[~kept] = -1
    start = np.where(group[part] >= 0, group[part], -2 - part)
    tokens = [barred.get(row) for row in part.tolist()]
    if callable(limit):
        labels, threshold = link_down(pile.vectors[part], limit, tokens, start)
    else:
        labels, threshold = link(pile.vectors[part], limit, tokens, start), limit
    groups = np.full(len(pile), -1, np.int64)
    groups[part] = _numbers(labels, said.group[part], said.fixed)
    stay(pile, groups, np.flatnonzero(left), known, barred, threshold)
    left &= groups == -1
    waiting = ~pile.sure & ~left & ~said.confirmed & (said.whose < 0) & (groups == -1)
    attach(pile, groups, np.flatnonzero(waiting), barred, threshold)
    alike = max(threshold - _ALIKE, limit(_ALIKE_PEOPLE)) if callable(limit) else threshold - _ALIKE
    return said, _Plan(groups, threshold, left, alike)


def _read(file: GroupsFile, pile: Pile) -> _Said:
    count = len(pile)
    states = {
        number: (state, person, fixed)
        for number, state, person, fixed in file.rows("SELECT id, state, person, fixed FROM grp")
    }
    said = _Said(
        np.full(count, -1, np.int64),
        np.zeros(count, bool),
        np.full(count, -1, np.int64),
        np.zeros(count, bool),
        [],
        [],
        [],
        {number for number, (state, _, fixed) in states.items() if fixed and state != "gone"},
        {number: state for number, (state, _, _) in states.items()},
        {number: person for number, (_, person, _) in states.items()},
    )
    present = set(pile.contents)
    query = "SELECT content, number, x1, y1, x2, y2, grp, status, person FROM face"
    for content, number, x1, y1, x2, y2, group, status, person in file.rows(query):
        key = FaceKey(content, number)
        if content not in present:
            said.absent.append(key)
            continue
        row = _same_face(pile, key, np.array((x1, y1, x2, y2), np.float32))
        if row is None or said.listed[row]:
            said.lost.append(key)
            said.answers_lost += status == "confirmed"
            continue
        if pile.numbers[row] != number:
            said.moved.append((key, pile.key(row)))
        if group is not None and said.states.get(group, "gone") == "gone":
            group = None
        said.group[row] = -1 if group is None else group
        said.confirmed[row] = status == "confirmed"
        said.whose[row] = -1 if person is None else person
        said.listed[row] = True
    homes = {
        person: number
        for number, person in said.persons.items()
        if person is not None and said.states[number] == "named"
    }
    for row in np.flatnonzero((said.whose >= 0) & (said.group < 0)).tolist():
        said.group[row] = homes.get(int(said.whose[row]), -1)
    return said


def _same_face(pile: Pile, key: FaceKey, box: Float32) -> int | None:
    """Return the row of the face of a photo that lies where an answer's face lay, None when there is none."""
    row = pile.row(key)
    if row is not None and np.abs(pile.boxes[row] - box).max() < 0.5:
        return row
    rows = pile.rows_of(key.content)
    if not rows:
        return None
    overlaps = [overlap(pile.boxes[other], box) for other in rows]
    best = int(np.argmax(overlaps))
    return rows[best] if overlaps[best] >= SAME_BOX else None


def _tokens(file: GroupsFile, pile: Pile, said: _Said) -> dict[int, set[Hashable]]:
    """Return what each face carries; see `linkage.link`."""
    found: dict[int, set[Hashable]] = {}

    def give(rows: Iterable[int], token: Hashable) -> None:
        for row in rows:
            found.setdefault(row, set()).add(token)

    several = (
        np.bincount(pile.photos, minlength=len(pile.contents))[pile.photos] > 1 if len(pile) else np.zeros(0, bool)
    )
    for row in np.flatnonzero(several).tolist():
        found[row] = set(pile.at_once(row))
    members: dict[int, int] = {}  # one face of each group carries what the group does: clusters begin with whole groups
    for row in np.flatnonzero(said.group >= 0).tolist():
        if said.confirmed[row] or pile.sure[row]:
            members.setdefault(int(said.group[row]), row)
    give((members[group] for group in said.fixed & members.keys()), "fixed")
    for a, b in file.rows("SELECT a, b FROM apart"):
        give((members[group] for group in (a, b) if group in members), ("apart", a, b))
    for content, number, group in file.rows("SELECT content, number, grp FROM put_out"):
        out = pile.row(FaceKey(content, number))
        if out is not None and group in members:
            give((out, members[group]), ("out", out, group))
    for content, number, person in file.rows("SELECT content, number, person FROM denied"):
        denied = pile.row(FaceKey(content, number))
        homes = [members[group] for group, whose in said.persons.items() if whose == person and group in members]
        if denied is not None:
            give((denied, *homes), ("denied", denied, person))
    return found


def _numbers(labels: Int64, before: Int64, fixed: set[int]) -> Int64:
    """Return the number of the group of each face: that which most of its faces had, below -1 where it is new."""
    overlaps = Counter(
        (int(label), int(group)) for label, group in zip(labels.tolist(), before.tolist(), strict=True) if group >= 0
    )
    number: dict[int, int] = {}
    taken: set[int] = set()
    order = sorted(overlaps.items(), key=lambda item: (item[0][1] not in fixed, -item[1], item[0]))
    for (label, group), _ in order:
        if label not in number and group not in taken:
            number[label] = group
            taken.add(group)
    return np.array([number.get(label, -2 - label) for label in labels.tolist()], np.int64)


def _changes(file: GroupsFile, pile: Pile, said: _Said, plan: _Plan) -> bool:
    """Say whether there is anything to write."""
    return bool(
        said.moved
        or said.lost
        or said.absent
        or (plan.groups != said.group).any()
        or ((plan.groups != -1) & ~said.listed).any()
        or file.state("threshold") != repr(plan.threshold)
    )


def _counted(pile: Pile, said: _Said, plan: _Plan) -> Grouped:
    _, _, sizes = means_of(pile, plan.groups)
    return Grouped(
        faces=int(sizes.sum()),
        groups=int((sizes > 1).sum()),
        alone=int((sizes == 1).sum()),
        added=int(((plan.groups != -1) & ~said.listed).sum()),
        waiting=int((~pile.sure & (plan.groups == -1) & ~plan.left & (said.whose < 0)).sum()),
        known=int(plan.left.sum()),
        moved=len(said.moved),
        lost=said.answers_lost,
    )


def _apply(db: sqlite3.Connection, file: GroupsFile, pile: Pile, said: _Said, plan: _Plan) -> Grouped:
    """Write who is in which group, and what is derived of that; within `write`."""
    counts = _counted(pile, said, plan)
    groups = plan.groups.copy()
    this_round = _round(db, file, counts.added)
    unnumbered = groups < -1
    fresh, place, sizes = np.unique(groups[unnumbered], return_inverse=True, return_counts=True)
    made = np.zeros(len(fresh), np.int64)
    for label in np.lexsort((-fresh, -sizes)).tolist():  # the largest has the lowest number
        query = "INSERT INTO grp (state, round, cohesion, fixed) VALUES ('open', ?, 1, 0)"
        made[label] = db.execute(query, (this_round,)).lastrowid or 0
    groups[unnumbered] = made[place.reshape(-1)]
    grown = np.unique(groups[(groups != -1) & ~said.listed]).tolist()
    db.executemany("UPDATE grp SET round = ? WHERE id = ?", ((this_round, number) for number in grown))
    db.executemany("UPDATE grp SET state = 'open' WHERE id = ? AND state = 'skipped'", ((number,) for number in grown))
    for old, new in said.moved:
        for table in ("put_out", "denied"):
            db.execute(
                f"UPDATE OR REPLACE {table} SET number = ? WHERE content = ? AND number = ?",
                (new.number, old.content, old.number),
            )
    absent = [(key.content, key.number) for key in said.absent]
    db.executemany("UPDATE face SET grp = NULL WHERE content = ? AND number = ? AND person IS NOT NULL", absent)
    db.executemany("DELETE FROM face WHERE content = ? AND number = ? AND person IS NULL", absent)
    gone = [*((key.content, key.number) for key in said.lost), *((old.content, old.number) for old, _ in said.moved)]
    unlisted = np.flatnonzero(said.listed & (groups == -1) & (said.whose < 0))
    gone += [(pile.contents[pile.photos[row]], int(pile.numbers[row])) for row in unlisted.tolist()]
    db.executemany("DELETE FROM face WHERE content = ? AND number = ?", gone)
    _write_faces(db, pile, said, groups)
    write_derived(db, pile, groups, np.unique(groups[groups != -1]))
    used = set(groups.tolist())
    empty = [(number,) for number, state in said.states.items() if number not in used and state in {"open", "skipped"}]
    db.executemany("UPDATE grp SET state = 'gone' WHERE id = ?", empty)
    _write_alike(db, pile, groups, plan.alike)
    db.execute("INSERT OR REPLACE INTO state VALUES ('threshold', ?)", (repr(plan.threshold),))
    db.execute("INSERT OR REPLACE INTO state VALUES ('model', ?)", (pile.model,))
    return counts


def _round(db: sqlite3.Connection, file: GroupsFile, added: int) -> int:
    number, last = int(file.state("round") or 0), float(file.state("round_at") or 0)
    if added:
        number += time.time() - last > _ROUND
        db.execute("INSERT OR REPLACE INTO state VALUES ('round', ?)", (str(number),))
        db.execute("INSERT OR REPLACE INTO state VALUES ('round_at', ?)", (str(time.time()),))
    return number


def _write_faces(db: sqlite3.Connection, pile: Pile, said: _Said, groups: Int64) -> None:
    rows = np.flatnonzero((groups != -1) | said.confirmed | (said.whose >= 0))
    db.executemany(
        "INSERT OR REPLACE INTO face VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            (
                pile.contents[pile.photos[row]],
                int(pile.numbers[row]),
                *pile.box(row),
                None if groups[row] == -1 else int(groups[row]),
                "confirmed" if said.confirmed[row] else "in",
                None if said.whose[row] < 0 else int(said.whose[row]),
            )
            for row in rows.tolist()
        ),
    )


def write_derived(db: sqlite3.Connection, pile: Pile, groups: Int64, some: Int64) -> None:
    """Write how alike the faces of some groups are. groups: int64 (n,), the group of each face, -1: none."""
    within = np.where(np.isin(groups, some), groups, -1)
    ids, means, sizes = means_of(pile, within)
    db.executemany(
        "UPDATE grp SET cohesion = ? WHERE id = ?",
        ((mean_cosine(mean, int(size)), int(group)) for group, mean, size in zip(ids, means, sizes, strict=True)),
    )
    rows = np.flatnonzero(within != -1)
    places = np.searchsorted(ids, within[rows])
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    likeness = (pile.vectors[rows] * unit[places]).sum(axis=1) if len(rows) else np.zeros(0, np.float32)
    db.executemany(
        "UPDATE face SET likeness = ? WHERE content = ? AND number = ?",
        (
            (float(value), pile.contents[pile.photos[row]], int(pile.numbers[row]))
            for row, value in zip(rows.tolist(), likeness.tolist(), strict=True)
        ),
    )


def _write_alike(db: sqlite3.Connection, pile: Pile, groups: Int64, least: float) -> None:
    """Write which groups may be the same person: those that are nearly similar enough, and in no photo together."""
    ids, means, sizes = means_of(pile, groups)
    ids, means = ids[sizes > 1], np.ascontiguousarray(means[sizes > 1])
    db.execute("DELETE FROM alike")
    if len(ids) < 2:
        return
    photos: dict[int, set[int]] = {int(group): set() for group in ids}
    for row in np.flatnonzero(np.isin(groups, ids)).tolist():
        photos[int(groups[row])].add(int(pile.photos[row]))
    cosines, near = ExactIndex(means).search(means, min(_ALIKE_MOST + 1, len(ids)))
    pairs = {}
    for a, values, others in zip(ids.tolist(), cosines.tolist(), ids[near].tolist(), strict=True):
        for b, value in zip(others, values, strict=True):
            if a != b and value >= least and photos[a].isdisjoint(photos[b]):
                pairs[min(a, b), max(a, b)] = value
    db.executemany("INSERT INTO alike VALUES (?, ?, ?)", ((a, b, value) for (a, b), value in pairs.items()))
