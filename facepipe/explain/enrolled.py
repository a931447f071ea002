"""The enrolled side of an answer: which photos are near and far, how similar people here are, and the gallery without a photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.care.contact_sheet import face_picture
from facepipe.gallery.care.reembed import aligned_chip
from facepipe.gallery.people import FaceRecord, faces_of
from facepipe.gallery.store import GalleryStore
from facepipe.match.templates import unit_means
from facepipe.models.registry import ModelRecord
from facepipe.models.statistics import load_statistics
from facepipe.records import readable, rounded
from facepipe.types import Float32, UInt8

#: Enrolled faces whose pixels are read: chips are quick, photos are not.
_MOST_CHIPS, _MOST_PHOTOS = 16, 8
#: Bars of the distributions, cosines.
EDGES = np.linspace(-0.4, 1.0, 57)


def near_and_far(snapshot: GallerySnapshot, vector: Float32, person: str) -> list[dict[str, Any]]:
    """Return a person's enrolled faces as `face` (id) and `similarity`, most similar first."""
    rows = snapshot.faces_of(snapshot.persons.index(person))
    found = snapshot.vectors[rows] @ vector
    order = np.argsort(-found, kind="stable")
    return [{"face": int(snapshot.face_ids[rows[i]]), "similarity": rounded(found[i], 4)} for i in order]


def records_of(gallery: GalleryStore, person: str) -> dict[int, FaceRecord]:
    """Return what the gallery knows of a person's faces, by id."""
    return {face.id: face for face in faces_of(gallery.database, person)}


def label(face: FaceRecord | None, number: int) -> str:
    """Return what an enrolled photo is called: its file's name, or its number where none is stored."""
    return f"face {number}" if face is None or face.source is None else readable(Path(face.source).name)


def picture_of(gallery: GalleryStore, face: FaceRecord | None) -> UInt8 | None:
    """Return an enrolled face as a square picture; None without chip and photo."""
    return None if face is None else face_picture(gallery.database, face)


def chips_of(gallery: GalleryStore, snapshot: GallerySnapshot, first: str | None, template: str) -> UInt8:
    """Return aligned chips of some enrolled faces, uint8 (n, size, size, 3): of `first`, then of people all over the gallery."""
    database = gallery.database
    spread = np.random.default_rng(0).permutation(len(snapshot.face_ids))[: 4 * _MOST_CHIPS]
    mine = snapshot.faces_of(snapshot.persons.index(first))[:4] if first in snapshot.persons else spread[:0]
    ids = list(dict.fromkeys(snapshot.face_ids[np.concatenate([mine, spread])].tolist()))
    stored = {row[0] for row in database.connection.execute("SELECT face_id FROM chip")}
    chosen = [i for i in ids if i in stored][:_MOST_CHIPS]
    chosen += [i for i in ids if i not in stored][: max(0, min(_MOST_PHOTOS, _MOST_CHIPS - len(chosen)))]
    cut = [chip for i in chosen if (chip := aligned_chip(database, template, "face", i)) is not None]
    return np.concatenate(cut) if cut else np.zeros((0, 1, 1, 3), np.uint8)


def distributions(snapshot: GallerySnapshot, record: ModelRecord | None, person: str) -> dict[str, Any]:
    """Return what similarities to a person are usual.

    own: of each of the person's enrolled photos to the mean of the others; None with a single photo. others: of everybody else's
    enrolled photos to the person, as counts between `edges`. strangers: which similarity the nearest of so many people reaches for
    10 %, 1 % and 0.1 % of people who are not enrolled, as the model was measured; None where it was not.
    """
    number = snapshot.persons.index(person)
    mine = snapshot.owners == number
    vectors = snapshot.vectors[mine]
    own = None
    if len(vectors) > 1:
        others = vectors.sum(axis=0) - vectors
        own = ((others * vectors).sum(axis=1) / np.maximum(np.linalg.norm(others, axis=1), 1e-6)).tolist()
    rest = snapshot.vectors[~mine] @ snapshot.templates[number]
    statistics = None if record is None else load_statistics(record)
    return {
        "own": None if own is None else sorted(rounded(value, 4) or 0.0 for value in own),
        "edges": [rounded(edge, 3) for edge in EDGES],
        "others": np.histogram(np.clip(rest, EDGES[0], EDGES[-1]), EDGES)[0].tolist(),
        "strangers": None
        if statistics is None
        else {
            f"{rate:g}": rounded(statistics.threshold(len(snapshot.persons), rate), 4) for rate in (0.1, 0.01, 0.001)
        },
    }


def without(snapshot: GallerySnapshot, face: int) -> GallerySnapshot:
    """Return the gallery as it would be without one enrolled face, given by its id; a person without any other goes with it."""
    keep = snapshot.face_ids != face
    (person,) = snapshot.owners[~keep].tolist()
    vectors, owners = snapshot.vectors[keep], snapshot.owners[keep]
    fields: dict[str, Any] = {"vectors": vectors, "face_ids": snapshot.face_ids[keep]}
    if (owners == person).any():
        templates = snapshot.templates.copy()
        templates[person] = unit_means(vectors[owners == person], np.zeros(1, np.int64))[0]
        return replace(snapshot, **fields, owners=owners, templates=templates)
    stay = np.arange(len(snapshot.persons)) != person
    kept = snapshot.negative_owners != person
    negative_owners = snapshot.negative_owners[kept]
    return replace(
        snapshot,
        **fields,
        owners=owners - (owners > person),
        persons=tuple(name for name, stays in zip(snapshot.persons, stay, strict=True) if stays),
        person_ids=snapshot.person_ids[stay],
        templates=snapshot.templates[stay],
        negatives=snapshot.negatives[kept],
        negative_owners=negative_owners - (negative_owners > person),
    )
