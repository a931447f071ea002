"""Measures a model and writes its record's figures: facepipe/models/calibration/NAME.json.

The folder of photos holds people/ (PERSON/enroll-*, probe-*), strangers/, portraits-cc0/, relatives/ (FAMILY/MEMBER) and
lfw/ with pairs.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from facepipe import __version__
from facepipe.evaluate.identify import evaluate_people
from facepipe.evaluate.labelled import PeopleFaces, faces_of
from facepipe.evaluate.pairs import read_pairs
from facepipe.evaluate.splits import PeopleSet, SplitRule, read_families, read_people, read_strangers, splits
from facepipe.evaluate.trials import run_trials
from facepipe.evaluate.verify import evaluate_pairs
from facepipe.models.registry import get_record
from facepipe.models.statistics import STATISTICS, load_statistics
from facepipe.single import embed_photos
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

    def faces(people: PeopleSet, name: str, rule: str = "largest") -> PeopleFaces:
        cache = given.cache / f"{given.model}-{name}.npz" if given.cache else None
        return faces_of(
            people, embed_photos(people.all_photos, model=given.model, face=rule, device=given.device, cache=cache)
        )

    people = faces(read_people(given.faces / "people"), "people")
    official = faces(read_strangers(given.faces / "strangers"), "strangers")
    synthetic = faces(read_strangers(given.faces / "portraits-cc0"), "portraits-cc0")
    families = [faces(family, "relatives") for family in read_families(given.faces / "relatives")]
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
        everyone = faces(read_people(root), "lfw", "centre")
        place = {path: row for row, path in enumerate(everyone.photos.paths)}
        card["lfw"] = verification_figures(
            evaluate_pairs(pairs, everyone.photos.take([place[path] for path in pairs.photos]))
        )
        card["lfw_open_set"] = open_set_check(everyone, rows)
    tail = impostors.tail
    document = {
        "schema_version": 1,
        "model": given.model,
        "fingerprint": people.photos.fingerprint,
        "margin": given.margin,
        "fusion": "mean",
        "populations": [{"name": p.name, "people": p.people, "searches": len(p.scores)} for p in impostors.populations],
        "tail": {"start": tail.start, "share": tail.share, "shape": tail.shape, "scale": tail.scale},
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
