"""How often sure answers are wrong: the similarity alone, with the lead, and in a gallery that has looked at its own people.

Galleries of people in the wild, of relatives (half of each family enrolled), of the people of LFW and of the wild who are most alike
to the network, and of a hundred of them at random. The lead's weights are fitted on one half of people and families and tried on
the other, both ways; nothing is fitted on LFW. The curve of the record was fitted on all people in the wild, in its favour.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facepipe.certainty import LeadCertainty
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.searching import unit
from facepipe.models.registry import get_record
from facepipe.predict.policy import policy_for
from facepipe.predict.population import adapt, own_trials
from facepipe.types import Float32, Int64, Policy

_EDGES = (0.0, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)


@dataclass(slots=True)
class Count:
    """What became of the searches of one kind of gallery under one way of deciding."""

    mated: int = 0
    others: int = 0
    right: int = 0
    wrong: int = 0  # an enrolled person got another's name
    strangers: int = 0  # somebody who is not enrolled got a name

    def line(self) -> str:
        """Return it as text."""
        return (
            f"right {100 * self.right / max(1, self.mated):5.1f} % of {self.mated:,}, "
            f"wrong names {100 * self.wrong / max(1, self.mated):5.2f} %, "
            f"strangers named {100 * self.strangers / max(1, self.others):5.2f} % of {self.others:,}"
        )


@dataclass(frozen=True, slots=True)
class Gallery:
    """Who is enrolled with which vectors, and who searches: float32 (n, d), int64 (n,), rows rising; float32 (m, d), int64 (m,)."""

    vectors: Float32
    owners: Int64
    probes: Float32
    who: Int64


def enrol(vectors: Float64, owner: Int64, enrolled: Sequence[int], photos: int, rng: np.random.Generator) -> Gallery:
    """Enrol people with up to so many photos; everybody's other photos search."""
    rows, owners, used = [], [], np.zeros(len(owner), np.bool_)
    for number, person in enumerate(enrolled):
        own = rng.permutation(np.flatnonzero(owner == person))
        own = own[: max(1, min(photos, len(own) - 1))]
        rows += own.tolist()
        owners += [number] * len(own)
        used[own] = True
    place = {person: number for number, person in enumerate(enrolled)}
    who = np.asarray([place.get(int(person), -1) for person in owner[~used]])
    return Gallery(vectors[rows].astype(np.float32), np.asarray(owners), vectors[~used].astype(np.float32), who)


def ways(gallery: Gallery, templates: Float32, certainty: LeadCertainty) -> Iterator[tuple[str, Policy]]:
    """Yield the ways of deciding that are compared."""
    plain = replace(policy_for(get_record("mini"), len(templates)), certainty=None)
    led = replace(plain, certainty=certainty)
    trials = own_trials(gallery.vectors, gallery.owners, templates)
    yield "similarity alone", plain
    yield "with the lead", led
    yield "and its own people", led if trials is None else adapt(led, trials)


def judge(
    gallery: Gallery, certainty: LeadCertainty, counts: dict[str, Count], said: dict[str, list[tuple[float, bool]]]
) -> dict[str, Policy]:
    """Search the gallery in each way; add to the counts and to what was said."""
    people = int(gallery.owners.max()) + 1
    templates = unit(np.stack([gallery.vectors[gallery.owners == n].mean(axis=0) for n in range(people)])).astype(
        np.float32
    )
    scores = gallery.probes @ templates.T
    best = scores.argmax(axis=1)
    top = np.sort(np.concatenate([scores, np.zeros((len(scores), 1), np.float32)], axis=1), axis=1)[:, -2:]
    mated, right = gallery.who >= 0, best == gallery.who
    used = {}
    for name, policy in ways(gallery, templates, certainty):
        used[name] = policy
        named = (top[:, 1] >= policy.threshold) & (top[:, 1] - top[:, 0] >= policy.margin)
        count = counts.setdefault(name, Count())
        count.mated += int(mated.sum())
        count.others += int((~mated).sum())
        count.right += int((named & right).sum())
        count.wrong += int((named & mated & ~right).sum())
        count.strangers += int((named & ~mated).sum())
        for row in np.flatnonzero(named):
            probability = policy.probability(float(top[row, 1]), float(top[row, 1] - top[row, 0]))
            said.setdefault(name, []).append((probability or 0.0, bool(right[row])))
    return used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"))
    parser.add_argument("--cache", type=Path, help="folder of embedding caches, as scripts/model_card keeps them")
    parser.add_argument("--photos", type=int, nargs="*", default=[2, 3, 5], help="photos of each enrolled person")
    parser.add_argument("--galleries", type=int, default=20)
    given = parser.parse_args()
    from facepipe.evaluate.splits import read_families, read_people, read_strangers
    from scripts.benchlib import machine
    from scripts.certainty import fit, search
    from scripts.model_card import embedded, people_of, rows_of

    print(machine())
    root = given.faces
    wild = people_of("people in the wild", [embedded(read_people(root / "people"), "people", given)])
    families = people_of("relatives", [embedded(one, "relatives", given) for one in read_families(root / "relatives")])
    strangers = rows_of(embedded(read_strangers(root / "strangers"), "strangers", given))
    lfw = people_of("LFW", [embedded(read_people(root / "lfw"), "lfw", given, "centre")])
    many = np.flatnonzero(np.bincount(lfw.owner) >= 5)
    kept = np.isin(lfw.owner, many)
    for photos in given.photos:
        rng = np.random.default_rng(0)
        counts: dict[str, dict[str, Count]] = {}
        said: dict[str, dict[str, list[tuple[float, bool]]]] = {}
        policies: dict[str, list[Policy]] = {}
        for first in (True, False):
            certainty = fit([search(one.half(first), strangers[::2], 1) for one in (wild, families)])
            certainty = replace(certainty, most=0.9975)
            own, kin = wild.half(not first), families.half(not first)
            both = np.concatenate([own.vectors, lfw.vectors[kept]])
            owner = np.concatenate([own.owner, lfw.owner[kept] + 10_000])
            everybody = np.unique(owner)
            means = unit(np.stack([both[owner == n].mean(axis=0) for n in everybody]))
            alike = means @ means.T
            np.fill_diagonal(alike, -1.0)
            groups = [np.append(np.argsort(-row)[:11], n) for n, row in enumerate(alike)]
            twelve = everybody[max(groups, key=lambda g: float(alike[np.ix_(g, g)].sum()))]
            near = everybody[np.argsort(-alike[np.isin(everybody, twelve)].max(axis=0))[:72]]
            close = np.isin(owner, near)
            for _ in range(given.galleries):
                kinds = {
                    "20 people in the wild": (
                        own.vectors,
                        own.owner,
                        rng.choice(np.unique(own.owner), 20, replace=False),
                    ),
                    "relatives, half of each family": (kin.vectors, kin.owner, _halves(kin.owner, kin.family, rng)),
                    "the 12 most alike": (both[close], owner[close], twelve),
                    "100 at random": (both, owner, rng.choice(everybody, 100, replace=False)),
                }
                for kind, (vectors, whose, enrolled) in kinds.items():
                    gallery = enrol(vectors, whose, [int(n) for n in enrolled], photos, rng)
                    used = judge(gallery, certainty, counts.setdefault(kind, {}), said.setdefault(kind, {}))
                    policies.setdefault(kind, []).append(used["and its own people"])
        for kind, ways_ in counts.items():
            last = policies[kind]
            print(
                f"\n{kind}, {photos} photos each: threshold {np.mean([p.threshold for p in last]):.3f}, "
                f"margin {np.mean([p.margin for p in last]):.3f}"
            )
            for way, count in ways_.items():
                print(f"  {way:19} {count.line()}")
                print(f"  {'':19} {_reliability(said[kind][way])}")


def _halves(owner: Int64, family: Int64, rng: np.random.Generator) -> Int64:
    chosen: list[int] = []
    for one in np.unique(family):
        members = rng.permutation(np.unique(owner[family == one]))
        chosen += members[: max(1, len(members) // 2)].tolist()
    return np.asarray(chosen)


def _reliability(said: Sequence[tuple[float, bool]]) -> str:
    values, right = (np.asarray(column) for column in zip(*said, strict=True))
    parts = []
    for low, high in itertools.pairwise(_EDGES):
        inside = (values > low) & (values <= high)
        if inside.any():
            parts.append(f">{100 * low:.0f} %: {100 * right[inside].mean():.1f} % of {inside.sum():,}")
    return "names said " + ", ".join(parts)


if __name__ == "__main__":
    main()
