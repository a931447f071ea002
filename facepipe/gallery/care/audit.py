"""Is everybody who they are said to be? Doubtful faces, people who look alike, people with too few photos.

Leave one out: each face is compared with the mean of its person's *other* faces and with everybody else. A face that is
nearer to somebody else, or far from its own, is in doubt; the larger the gap, the larger the doubt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facepipe.errors import UsageError
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.enrolment.judging import unlike_limit
from facepipe.gallery.storage.database import Database
from facepipe.match.exact import ExactIndex
from facepipe.types import Float32, Index, Int64

#: Fewer photos than this are too few: a mean of two is pulled away by one bad photo.
FEW = 3
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Doubt:
    """A doubtful face.
    own: cosine with the mean of its person's other faces, None when it is the only one.
    other: with the most similar other person.
    doubt: how much nearer it is to another person, or to nobody, than to its own; above 0 it would not be recognised.
    mislabelled: another person is above the threshold and nearer than its own.
    """

    face_id: int
    person: str
    own: float | None
    other_person: str
    other: float
    doubt: float
    mislabelled: bool

    def verdict(self, threshold: float) -> str:
        """Say in two words what is wrong."""
        if self.mislabelled:
            return "wrong person?"
        if self.own is not None and self.own < unlike_limit(threshold):
            return "unlike the others"
        return "like nobody" if self.other < threshold else "close"


@dataclass(frozen=True, slots=True)
class Alike:
    """Two people who look like each other: cosine of their templates."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """What would happen if each face came as a probe. faces: those whose person has others. right: best person is the
    own one, above the threshold. wrong: best person is another, above the threshold. unknown: the rest."""

    faces: int
    right: int
    wrong: int
    unknown: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found. doubts: of all faces with doubt above 0, largest first. few: people with fewer than FEW faces."""

    people: int
    faces: int
    threshold: float
    doubts: tuple[Doubt, ...]
    alike: tuple[Alike, ...]
    few: tuple[tuple[str, int], ...]
    leave_one_out: LeaveOneOut


def audit(snapshot: GallerySnapshot, threshold: float, index: Index | None = None) -> AuditReport:
    """Look for doubts. threshold: cosine from which on two are taken for one. index: over the templates, None: exact."""
    search = index or ExactIndex(snapshot.templates)
    people, faces = len(snapshot.persons), len(snapshot.vectors)
    counts = np.bincount(snapshot.owners, minlength=people)
    own, other, rival = _compare(snapshot, search, counts)
    alone = counts[snapshot.owners] == 1
    # Somebody with one photo can only be in doubt because of somebody else.
    doubt = np.where(alone, other - threshold, np.maximum(other, threshold) - own)
    mislabelled = (other >= threshold) & (alone | (other > own))
    rows = np.flatnonzero(doubt > 0)
    rows = rows[np.argsort(-doubt[rows], kind="stable")]
    doubts = tuple(
        Doubt(
            int(snapshot.face_ids[row]),
            snapshot.persons[snapshot.owners[row]],
            None if alone[row] else float(own[row]),
            snapshot.persons[rival[row]] if rival[row] >= 0 else "",
            float(other[row]),
            float(doubt[row]),
            bool(mislabelled[row]),
        )
        for row in rows.tolist()
    )
    tested = ~alone
    right = int((tested & (own >= threshold) & (own >= other)).sum())
    wrong = int((tested & (other >= threshold) & (other > own)).sum())
    total = int(tested.sum())
    few = [(snapshot.persons[row], int(counts[row])) for row in np.flatnonzero(counts < FEW).tolist()]
    return AuditReport(
        people,
        faces,
        threshold,
        doubts,
        _alike(snapshot, search, threshold),
        tuple(sorted(few, key=lambda pair: (pair[1], pair[0]))),
        LeaveOneOut(total, right, wrong, total - right - wrong),
    )


def _compare(snapshot: GallerySnapshot, search: Index, counts: Int64) -> tuple[Float32, Float32, Int64]:
    """Return each face's cosine with the mean of its person's other faces and with the most similar other person, and
    that person's row; cosines are -1, the row is -1, where there is nobody."""
    own, other = (np.full(len(snapshot.vectors), -1.0, np.float32) for _ in range(2))
    rival = np.full(len(snapshot.vectors), -1, np.int64)
    sums = np.zeros(snapshot.templates.shape, np.float32)
    np.add.at(sums, snapshot.owners, snapshot.vectors)
    for start in range(0, len(own), _BLOCK):
        rows = slice(start, start + _BLOCK)
        vectors, owners = snapshot.vectors[rows], snapshot.owners[rows]
        others = sums[owners] - vectors
        norms = np.linalg.norm(others, axis=1)
        usable = (counts[owners] > 1) & (norms > 1e-6)
        cosines = (others * vectors).sum(axis=1) / np.where(usable, norms, 1.0)
        own[rows] = np.where(usable, cosines, -1.0)
        scores, found = search.search(vectors, 2)
        # Of the best two people one may be the own one.
        pick = (found[:, 0] == owners).astype(np.int64)[:, None]
        other[rows] = np.take_along_axis(scores, pick, axis=1)[:, 0]
        rival[rows] = np.take_along_axis(found, pick, axis=1)[:, 0]
    return own, other, rival


def _alike(snapshot: GallerySnapshot, search: Index, threshold: float, neighbours: int = 6) -> tuple[Alike, ...]:
    """Return pairs of people whose templates reach the threshold, most similar first."""
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(snapshot.templates), _BLOCK):
        scores, found = search.search(snapshot.templates[start : start + _BLOCK], neighbours)
        for line, place in zip(*np.nonzero((scores >= threshold) & (found >= 0)), strict=True):
            a, b = start + int(line), int(found[line, place])
            if a != b:
                pairs[min(a, b), max(a, b)] = float(scores[line, place])
    ranked = sorted(pairs.items(), key=lambda item: -item[1])
    return tuple(Alike(snapshot.persons[a], snapshot.persons[b], value) for (a, b), value in ranked)


_KEPT = "audit_kept"


def keep(database: Database, face_ids: Sequence[int]) -> None:
    """Note that faces are their person's, whatever they look like: `without_kept` leaves them out.

    UsageError when there is no such face. The note ends when the face goes or gets another person.
    """
    with database.write("audit"):
        owners = dict(database.connection.execute("SELECT id, person_id FROM face").fetchall())
        for face_id in face_ids:
            if face_id not in owners:
                raise UsageError(f"there is no face {face_id} in {database.folder}: facepipe gallery audit lists ids")
        kept = _kept(database) | {(face_id, owners[face_id]) for face_id in face_ids}
        still = sorted(pair for pair in kept if owners.get(pair[0]) == pair[1])
        database.set_meta(_KEPT, json.dumps(still))


def without_kept(report: AuditReport, database: Database, snapshot: GallerySnapshot) -> AuditReport:
    """Return the report without doubts about faces that were said to be right."""
    kept = _kept(database)
    if not kept:
        return report
    owners = dict(zip(snapshot.face_ids.tolist(), snapshot.person_ids[snapshot.owners].tolist(), strict=True))
    doubts = tuple(doubt for doubt in report.doubts if (doubt.face_id, owners[doubt.face_id]) not in kept)
    return replace(report, doubts=doubts)


def _kept(database: Database) -> set[tuple[int, int]]:
    """Return pairs of face and person that were said to be right."""
    return {(face, person) for face, person in json.loads(database.get_meta(_KEPT) or "[]")}
