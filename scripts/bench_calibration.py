"""Does the promise of `facepipe calibrate` hold on strangers and people never used? 100 random splits of real photos.

In each split half of the people are enrolled and half of the strangers (one photo each) calibrate; the other strangers and
the people who are not enrolled are then searched for, and probabilities are checked on a gallery of the other people.
"""

from __future__ import annotations

import argparse
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from scipy.stats import betabinom

from facepipe.evaluate.calibration import calibrate_gallery
from facepipe.evaluate.labelled import PeopleFaces, faces_of
from facepipe.evaluate.metrics import calibration_error
from facepipe.evaluate.probability import NamedSearches
from facepipe.evaluate.searching import fuse
from facepipe.evaluate.splits import PeopleSet, read_people, read_strangers
from facepipe.single import embed_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/, strangers/ and portraits-cc0/")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--fpir", type=float, default=0.01)
    parser.add_argument("--cache", type=Path, help="folder of embedding caches")
    parser.add_argument("--plot", type=Path, help="write a reliability plot (.png)")
    given = parser.parse_args()

    def faces(people: PeopleSet, name: str) -> PeopleFaces:
        cache = given.cache / f"{given.model}-{name}.npz" if given.cache else None
        return faces_of(people, embed_photos(people.all_photos, model=given.model, cache=cache))

    people = faces(read_people(given.faces / "people"), "people")
    outside = [faces(read_strangers(given.faces / name), name) for name in ("strangers", "portraits-cc0")]
    strangers = np.concatenate([one.photos.vectors[one.photos.found] for one in outside])
    enrol = np.asarray([fnmatch(path.name, "enroll-*") for path in people.photos.paths])
    half, count = len(strangers) // 2, len(people.people) // 2

    def rows(chosen: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = np.isin(people.owner, chosen) & which & people.photos.found
        return people.photos.vectors[kept], np.searchsorted(chosen, people.owner[kept])

    generator = np.random.default_rng(0)
    started = time.monotonic()
    table, eces = [], []
    predicted, right, weights = [], [], []
    for _ in range(given.splits):
        order = generator.permutation(len(people.people))
        known, never = np.sort(order[:count]), np.sort(order[count:])
        draw = generator.permutation(len(strangers))
        vectors, owners = rows(known, enrol)
        used, fresh = strangers[draw[:half]], strangers[draw[half:]]
        found = calibrate_gallery(
            "model", [str(i) for i in known], vectors, owners, [("strangers", used, np.arange(half))], 0.0, given.fpir
        )
        choice = found.choice
        templates = fuse(vectors, owners, count).astype(np.float32)
        other = float(np.mean((fresh @ templates.T).max(axis=1) >= choice.threshold))
        probes, who = rows(never, ~enrol)
        passed = (probes @ templates.T).max(axis=1) >= choice.threshold
        unseen = float(np.mean(np.bincount(who, weights=passed) / np.bincount(who)))
        allowed = choice.impostors_allowed
        after = [
            betabinom.ppf(choice.confidence, people, allowed + 1, choice.impostor_people - allowed) / people
            for people in (len(fresh), len(never))
        ]
        table.append((choice.threshold, other, unseen, *after, choice.fpir_bound))

        # Probabilities: a gallery of the people who were never used, and the strangers who were not.
        own, own_who = rows(never, enrol)
        scores = probes @ fuse(own, own_who, len(never)).T
        top = np.concatenate([scores.max(axis=1), (fresh @ fuse(own, own_who, len(never)).T).max(axis=1)])
        outcome = np.concatenate([scores.argmax(axis=1) == who, np.zeros(len(fresh), np.bool_)])
        units = np.concatenate([who, count + np.arange(len(fresh))])
        mated = np.concatenate([np.ones(len(who), np.bool_), np.zeros(len(fresh), np.bool_)])
        assert found.curve is not None
        chance = np.asarray([found.curve(value) for value in top])
        weight = NamedSearches(top, outcome, units, mated).weights(0.5)
        eces.append(calibration_error(chance, outcome, weight))
        predicted.append(chance)
        right.append(outcome)
        weights.append(weight)

    values = np.asarray(table)
    inside = [values[:, 1] <= values[:, 3] + 1e-9, values[:, 2] <= values[:, 4] + 1e-9]
    chance, outcome, weight = np.concatenate(predicted), np.concatenate(right), np.concatenate(weights)
    print(f"{given.splits} splits: {count} people enrolled, {half} strangers calibrate for FPIR {given.fpir:g}")
    print(f"threshold {values[:, 0].mean():.3f} +- {values[:, 0].std():.3f}")
    print(f"true FPIR at most {values[0, 5]:.4f} (95 %); in {half} strangers at most {values[0, 3]:.4f}, "
          f"in {len(people.people) - count} people at most {values[0, 4]:.4f}")  # fmt: skip
    print(f"other strangers: FPIR {values[:, 1].mean():.4f}, inside the bound in {inside[0].sum()} splits")
    print(f"people never used: FPIR {values[:, 2].mean():.4f}, inside the bound in {inside[1].sum()} splits")
    print(f"both inside in {(inside[0] & inside[1]).sum()} splits")
    floor = np.mean(
        [calibration_error(p, generator.random(len(p)) < p, w) for p, w in zip(predicted, weights, strict=True)]
    )
    print(f"calibration error (ECE) of probabilities on people never used: {calibration_error(chance, outcome, weight):.4f} over "
          f"all splits; {np.mean(eces):.4f} in one split, where perfect probabilities would have {floor:.4f}")  # fmt: skip
    print("predicted -> observed (searches)")
    bins = np.minimum((chance * 10).astype(int), 9)
    points = []
    for number in range(10):
        inside_bin = bins == number
        if inside_bin.any():
            mean = float(np.average(chance[inside_bin], weights=weight[inside_bin]))
            share = float(np.average(outcome[inside_bin], weights=weight[inside_bin]))
            points.append((mean, share, int(inside_bin.sum())))
            print(f"  {mean:.3f} -> {share:.3f} ({points[-1][2]})")
    print(f"{time.monotonic() - started:.1f} s")
    if given.plot:
        _plot(points, given.plot)


def _plot(points: list[tuple[float, float, int]], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#8a8f98", linewidth=1, linestyle=(0, (4, 3)))
    axes.plot([p for p, _, _ in points], [o for _, o, _ in points], color="#1f6f9f", linewidth=2, marker="o")
    for mean, share, number in points:
        axes.annotate(f"{number}", (mean, share), (6, -11), textcoords="offset points", fontsize=8, color="#555b63")
    axes.set(xlabel="predicted probability", ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability on people never used (figures: searches)", loc="left", fontweight="bold", fontsize=10)
    figure.savefig(out)


if __name__ == "__main__":
    main()
