"""Measures a model and writes its record's figures: facepipe/models/calibration/NAME.json.

The folder of photos holds people/ (PERSON/enroll-*, probe-*), strangers/, portraits-cc0/, relatives/ (FAMILY/MEMBER) and
lfw/ with pairs.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from facepipe import __version__
from facepipe.evaluate.identify import evaluate_people
from facepipe.evaluate.labelled import PeopleFaces, faces_of
from facepipe.evaluate.metrics import Float64
from facepipe.evaluate.pairs import read_pairs
from facepipe.evaluate.searching import unit
from facepipe.evaluate.splits import PeopleSet, SplitRule, read_families, read_people, read_strangers, splits
from facepipe.evaluate.trials import run_trials
from facepipe.evaluate.verify import evaluate_pairs
from facepipe.models.registry import get_record
from facepipe.models.statistics import STATISTICS, load_statistics
from facepipe.single import embed_photos
from scripts.certainty import People, certainty_figures
from scripts.thresholds import (
    at_threshold,
    identification_figures,
    open_set_check,
    people_population,
    single_population,
    size_statistics,
    verification_figures,
)

LIMITS = [
    "thresholds: from people in the wild and official portraits, each within itself; your people may differ: "
    "`facepipe calibrate`",
    "extrapolated figures rest on a fitted tail (generalised Pareto) and on independent comparisons",
    "groups: the photos carry no age, sex or skin tone, save the sex of the synthetic portraits; measure your own: --groups",
]


def embedded(people: PeopleSet, name: str, given: argparse.Namespace, rule: str = "largest") -> PeopleFaces:
    """Return the people's photos with their vectors, from the cache that `given` names where they are in it."""
    model, device = getattr(given, "model", "mini"), getattr(given, "device", "auto")
    cache = given.cache / f"{model}-{name}.npz" if given.cache else None
    return faces_of(people, embed_photos(people.all_photos, model=model, face=rule, device=device, cache=cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder of photos")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--cache", type=Path, help="folder of embedding caches, for the next run")
    parser.add_argument("--no-lfw", action="store_true", help="leave LFW out (7,701 photos)")
    given = parser.parse_args()
    started = time.monotonic()

    people = embedded(read_people(given.faces / "people"), "people", given)
    official = embedded(read_strangers(given.faces / "strangers"), "strangers", given)
    synthetic = embedded(read_strangers(given.faces / "portraits-cc0"), "portraits-cc0", given)
    families = [embedded(family, "relatives", given) for family in read_families(given.faces / "relatives")]
    enrol = np.asarray([fnmatch(path.name, "enroll-*") for path in people.photos.paths])
    wild, mated = people_population("people in the wild", people, np.flatnonzero(enrol), np.flatnonzero(~enrol))
    rows, impostors = size_statistics([wild, single_population("official portraits", official)], mated)

    trials = list(splits(people.people, SplitRule("enroll-*", "probe-*", known=0.5, repeats=20)))
    found = run_trials(people, trials, [("strangers", official), ("portraits-cc0", synthetic)], families)
    groups = {
        **dict.fromkeys(people.people.people, "people in the wild"),
        **dict.fromkeys(official.people.people, "official portraits"),
        **{name: f"synthetic portraits, {name.split('-')[0]}" for name in synthetic.people.people},
    }
    report = evaluate_people(found, found.group_names(groups))
    card: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "facepipe": __version__,
        "detector": "mtcnn",
        "identification": {
            **identification_figures(report),
            "as_shipped": at_threshold(
                report,
                next(row["thresholds"]["0.01"] for row in rows if row["gallery_size"] == found.enrolled),
                given.margin,
            ),
        },
        "limits": LIMITS,
    }
    if not given.no_lfw:
        root = given.faces / "lfw"
        pairs = read_pairs(root / "pairs.txt", root)
        everyone = embedded(read_people(root), "lfw", given, "centre")
        place = {path: row for row, path in enumerate(everyone.photos.paths)}
        card["lfw"] = verification_figures(
            evaluate_pairs(pairs, everyone.photos.take([place[path] for path in pairs.photos]))
        )
        card["lfw_open_set"] = open_set_check(everyone, rows)
    certainty, card["certainty"] = certainty_figures(
        [
            (people_of("people in the wild", [people]), rows_of(official)),
            (people_of("relatives", families), rows_of(official)),
        ]
    )
    tail = impostors.tail
    document = {
        "schema_version": 1,
        "model": given.model,
        "fingerprint": people.photos.fingerprint,
        "margin": given.margin,
        "fusion": "mean",
        "populations": [{"name": p.name, "people": p.people, "searches": len(p.scores)} for p in impostors.populations],
        "tail": {"start": tail.start, "share": tail.share, "shape": tail.shape, "scale": tail.scale},
        "certainty": asdict(certainty),
        "sizes": rows,
        "card": card,
    }
    STATISTICS.mkdir(exist_ok=True)
    out = STATISTICS / f"{given.model}.json"
    part = out.with_suffix(".part")
    part.write_text(json.dumps(_rounded(document), indent=1) + "\n", encoding="utf-8")
    part.replace(out)
    if load_statistics(get_record(given.model)) is None:
        raise SystemExit(f"{out}: the record of {given.model} has another fingerprint")
    print(f"{out}: written in {time.monotonic() - started:.0f} s", file=sys.stderr)


def people_of(name: str, sets: Sequence[PeopleFaces]) -> People:
    """Return the usable photos of one set of people, or of one set for each family, for drawing galleries."""
    vectors, owners, families = [], [], []
    for number, faces in enumerate(sets):
        found = faces.photos.found
        start = sum(len(one.people) for one in sets[:number])
        vectors.append(unit(faces.photos.vectors[found].astype(np.float64)))
        owners.append(start + faces.owner[found])
        families.append(np.full(int(found.sum()), number) if len(sets) > 1 else faces.owner[found])
    return People(name, np.concatenate(vectors), np.concatenate(owners), np.concatenate(families))


def rows_of(faces: PeopleFaces) -> Float64:
    """Return the usable vectors."""
    return unit(faces.photos.vectors[faces.photos.found].astype(np.float64))


def _rounded(value: object) -> object:
    """Keep six significant digits: more are noise, and differ between machines."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


if __name__ == "__main__":
    main()
