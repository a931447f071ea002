"""Synthetic people for tests of error rates: unit vectors with a known spread, and folders of painted pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from facepipe.evaluate.labelled import PeopleFaces, faces_of
from facepipe.evaluate.photo_set import QUALITY, PhotoSet
from facepipe.evaluate.splits import PeopleSet
from facepipe.images import write_image
from facepipe.types import Float32
from tests.fakes import COLOURS, picture


def vectors_of(people: int, each: int, spread: float, seed: int = 0, dim: int = 64) -> Float32:
    """Return unit vectors (people * each, dim): a direction for each person and noise of this size around it."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(people, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = np.repeat(centres, each, axis=0) + spread * generator.normal(size=(people * each, dim)) / np.sqrt(dim)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def people_of(
    people: int, each: int, spread: float = 0.8, seed: int = 0, missing: tuple[int, ...] = (), name: str = "set"
) -> PeopleFaces:
    """Return a set of people; missing: rows without a face."""
    rows = people * each
    found = np.ones(rows, np.bool_)
    found[list(missing)] = False
    vectors = np.where(found[:, None], vectors_of(people, each, spread, seed), 0).astype(np.float32)
    paths = tuple(
        tuple(Path(f"/{name}/{p:03d}/{'enroll' if i < each / 2 else 'probe'}-{i}.jpg") for i in range(each))
        for p in range(people)
    )
    flat = tuple(path for own in paths for path in own)
    photos = PhotoSet(
        flat,
        vectors,
        found,
        np.tile(np.asarray([0, 0, 10, 10], np.float32), (rows, 1)),
        np.ones((rows, len(QUALITY)), np.float32),
        {flat[row]: "no face found" for row in missing},
        "fake:1",
    )
    return faces_of(PeopleSet(tuple(f"{p:03d}" for p in range(people)), paths), photos)


def paint_people(root: Path, each: int = 4, colours: tuple[str, ...] = tuple(COLOURS)) -> None:
    """Write a folder for each colour with pictures whose face is at another place in each."""
    for colour in colours:
        for number in range(each):
            kind = "enroll" if number < each / 2 else "probe"
            path = root / colour / f"{kind}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, picture(colour, side=60 + 2 * number).rgb)
