"""Catalogs of faces that nobody photographed: people are directions, their faces lie around them as mini's do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.counts import Counts
from facepipe.catalog.scan import Scanned
from facepipe.catalog.sources import Source
from facepipe.models.registry import get_record
from facepipe.types import Described, Embeddings, Face, Float32, Quality

FINGERPRINT = get_record("mini").fingerprint
DIM = 256
#: Mean cosine of two faces of a person.
GENUINE = 0.63


def vector(person: str, number: int) -> Float32:
    """Return the vector of a person's face; each number is another photo."""
    base = _direction(person)
    noise = _direction(f"{person} {number}")
    found = np.sqrt(GENUINE) * base + np.sqrt(1 - GENUINE) * noise
    return np.asarray(found / np.linalg.norm(found), np.float32)


def _direction(name: str) -> Float32:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    found = np.random.default_rng(seed).normal(size=DIM)
    return np.asarray(found / np.linalg.norm(found), np.float32)


def face(place: int, score: float = 0.99, yaw: float = 0.0) -> Face:
    """Return the face at a place of a photo."""
    x = 10.0 + 150 * place
    box = np.array([x, 40, x + 120, 180], np.float32)
    marks = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    landmarks = np.asarray(box[:2] + marks * np.array([120, 140], np.float32), np.float32)
    return Face(box, score, landmarks, Quality(120.0, 400.0, yaw, 0.0, 0.0, 0.3))


#: A photo: its name, who is in it (person, number of the face, score), and when it was taken.
Photo = tuple[str, Sequence[tuple[str, int, float]], str | None]


def content_of(name: str) -> str:
    """Return the SHA-256 that a photo of this name has."""
    return hashlib.sha256(name.encode()).hexdigest()


def photo(name: str, *people: tuple[str, int] | tuple[str, int, float], taken: str | None = None) -> Photo:
    """Return a photo."""
    return name, [(*person, 0.99)[:3] for person in people], taken


def fill(path: Path, photos: Sequence[Photo]) -> Path:
    """Add photos to a catalog, which is made when it is not there; those that it has already come first again. Return its path."""
    with Catalog(path, write=True) as catalog:
        catalog.begin({"model": FINGERPRINT})
        scanned = []
        for position, (name, people, taken) in enumerate(photos):
            vectors = np.array([vector(person, number) for person, number, _ in people], np.float32).reshape(-1, DIM)
            faces = tuple(face(place, score) for place, (_, _, score) in enumerate(people))
            found = Described(name, (1000, 400), faces, Embeddings(vectors, FINGERPRINT))
            source = Source(name, "1", None, bytes)
            scanned.append(Scanned(source, position, content_of(name), found, (), taken))
        catalog._record(scanned, {})
        catalog._finish(Counts())
    return path


def people(count: int, each: int, first: int = 0) -> list[Photo]:
    """Return photos of one face each: so many people, so many photos of each."""
    return [
        photo(f"{person}-{number}.jpg", (f"person {person}", number), taken=f"20{10 + number:02}-05-01T12:00:00")
        for person in range(first, first + count)
        for number in range(each)
    ]
