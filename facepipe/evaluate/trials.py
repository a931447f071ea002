"""Open-set identification as searches: in each repetition some people are enrolled, and everybody searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facepipe.evaluate.labelled import PeopleFaces
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.searching import FUSIONS, Searches, join, person_scores, rank_searches
from facepipe.evaluate.splits import Split
from facepipe.types import Float32, Int64

#: No family has as many members: numbers the relatives apart.
_FAMILY = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """The searches of all repetitions, for each fusion, and what the gallery-size curve needs.

    searches: by fusion.
    relatives: the searches of relatives of enrolled people, None where there are none.
    galleries: for each repetition the scores of the default fusion, (probes, enrolled), each probe's column, and whether it has a
    face.
    model: fingerprint of the embedder.
    people, enrolled: how many there are, and how many of them a repetition enrols.
    probes: photos of them that search in a repetition.
    not_enrollable: people without a usable photo to enrol. failed_probes: photos without a face.
    probe_photos, rivals: for each search of the default fusion the probe's photo and person, and an enrolled photo of the person
    who came first.
    boxes: for each photo that of its face.
    """

    searches: dict[str, Searches]
    relatives: Searches | None
    galleries: list[tuple[Float64, Int64, NDArray[np.bool_]]]
    model: str
    people: int
    enrolled: int
    probes: int
    not_enrollable: int
    failed_probes: int
    probe_photos: list[tuple[Path, str]]
    rivals: list[Path]
    boxes: dict[Path, Float32]

    def group_names(self, groups: Mapping[str, str]) -> list[str]:
        """Return the group of each search: looked up by the photo's path, its last two parts, its name, then the person."""
        keys = ((str(path), f"{person}/{path.name}", path.name, person) for path, person in self.probe_photos)
        return [next((groups[key] for key in own if key in groups), "(none)") for own in keys]


def run_trials(
    known: PeopleFaces,
    splits: Sequence[Split],
    strangers: Sequence[tuple[str, PeopleFaces]],
    families: Sequence[PeopleFaces] = (),
    seed: int = 0,
) -> Trials:
    """Search every probe of every split; families: sets of relatives; one of each is enrolled and the others search.

    A family is tried on its own: its enrolled member joins the gallery of the split, so the gallery grows by one.
    """
    sources = ("enrolled", "not enrolled", *(name for name, _ in strangers))
    vectors, found, quality = known.photos.vectors, known.photos.found, known.photos.quality
    parts: dict[str, list[Searches]] = {fusion: [] for fusion in FUSIONS}
    relatives: list[Searches] = []
    galleries = []
    photos: list[tuple[Path, str]] = []
    rivals: list[Path] = []
    outside = [photo for _, s in strangers for photo in s.named_photos(range(len(s.photos)))]
    generator = np.random.default_rng(seed)
    failed_people: set[int] = set()
    for trial, split in enumerate(splits):
        column = np.full(len(known.people), -1, np.int64)
        column[list(split.enrolled)] = np.arange(len(split.enrolled))
        gallery = known.rows(split.gallery)
        gallery = gallery[found[gallery]]
        probes = known.rows(split.probes)
        failed_people |= set(split.enrolled) - set(known.owner[gallery].tolist())
        own = column[known.owner[probes]]
        tried, there, mates, units, source = _probes(known, probes, own, [s for _, s in strangers])
        owners = column[known.owner[gallery]]
        photos += [*known.named_photos(probes), *outside]
        for fusion in FUSIONS:
            stored = vectors[gallery], owners, len(split.enrolled), fusion, quality[gallery]
            scores = person_scores(tried, *stored)
            parts[fusion].append(rank_searches(scores, there, mates, units, source, sources, trial))
            if fusion == FUSIONS[0]:
                face = dict(zip(owners[::-1].tolist(), (known.photos.paths[row] for row in gallery[::-1]), strict=True))
                rivals += [face.get(best, Path()) for best in parts[fusion][-1].best.tolist()]
                galleries.append((np.where(there[:, None], scores, -np.inf), mates, there))
        for number, family in enumerate(families):
            one = _search_relatives(family, number, vectors[gallery], owners, len(split.enrolled), generator, trial)
            if one is not None:
                relatives.append(one)
    sets = [one.photos for one in (known, *(s for _, s in strangers))]
    return Trials(
        {fusion: join(list_) for fusion, list_ in parts.items()},
        join(relatives) if relatives else None,
        galleries,
        known.photos.fingerprint,
        len(known.people),
        len(splits[0].enrolled),
        sum(map(len, splits[0].probes)),
        len(failed_people),
        sum(int((~one.found).sum()) for one in sets),
        photos,
        rivals,
        {path: box for one in sets for path, box in zip(one.paths, one.boxes, strict=True)},
    )


def _probes(
    known: PeopleFaces, rows: Int64, mates: Int64, strangers: Sequence[PeopleFaces]
) -> tuple[Float32, NDArray[np.bool_], Int64, Int64, Int64]:
    """Put the probes of known people (rows of `known`, each with its person's column or -1) before all photos of strangers.

    Returns vectors (n, d), and found, mates, units and source as `rank_searches` takes them.
    """
    starts = np.cumsum([len(known.people), *(len(s.people) for s in strangers)])
    return (
        np.concatenate([known.photos.vectors[rows], *(s.photos.vectors for s in strangers)]),
        np.concatenate([known.photos.found[rows], *(s.photos.found for s in strangers)]),
        np.concatenate([mates, *(np.full(len(s.photos), -1) for s in strangers)]),
        np.concatenate([known.owner[rows], *(s.owner + start for start, s in zip(starts, strangers, strict=False))]),
        np.concatenate([np.where(mates >= 0, 0, 1), *(np.full(len(s.photos), 2 + i) for i, s in enumerate(strangers))]),
    )


def _search_relatives(
    family: PeopleFaces,
    number: int,
    gallery: Float32,
    owners: Int64,
    people: int,
    generator: np.random.Generator,
    trial: int,
) -> Searches | None:
    """Enrol one member of a family (up to three photos) and search with the photos of all others."""
    member = int(generator.integers(len(family.people)))
    own = np.flatnonzero((family.owner == member) & family.photos.found)[:3]
    others = np.flatnonzero((family.owner != member) & family.photos.found)
    if not len(own) or not len(others):
        return None
    scores = person_scores(
        family.photos.vectors[others],
        np.concatenate([gallery, family.photos.vectors[own]]),
        np.concatenate([owners, np.full(len(own), people, np.int64)]),
        people + 1,
        FUSIONS[0],
    )
    stranger = np.full(len(others), -1, np.int64)
    there = np.ones(len(others), np.bool_)
    units = family.owner[others] + number * _FAMILY
    return rank_searches(scores, there, stranger, units, np.zeros(len(others), np.int64), ("relatives",), trial)
