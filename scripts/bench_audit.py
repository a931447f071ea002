"""How many photos under a wrong name an audit puts on its first rows, on a folder of people, and what enrolment refuses."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.care.audit import audit
from facepipe.gallery.enrolment.enroller import Enroller, EnrollRules
from facepipe.gallery.enrolment.intake import EnrollStatus, collect_photos
from facepipe.gallery.store import GalleryStore
from facepipe.loading import load_describer
from facepipe.match.templates import unit_means
from facepipe.models.registry import get_record
from facepipe.predict.policy import policy_for
from facepipe.types import Int64
from scripts.benchlib import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("people", type=Path, help="a folder for each person")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--wrong", type=int, default=10, help="photos put under a wrong name")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--draws", type=int, default=20, help="repetitions with other photos")
    options = parser.parse_args()
    print(machine())
    photos, _ = collect_photos([options.people], None)
    describer = load_describer(options.model, "cpu")
    threshold = policy_for(get_record(options.model), 60).threshold
    with tempfile.TemporaryDirectory() as folder:
        clean = GalleryStore.create(Path(folder) / "clean", describer.embedder.fingerprint, describer.embedder.dim)
        start = time.perf_counter()
        rules = EnrollRules(lookalike=threshold, faces="largest")
        outcomes = list(Enroller(clean, describer, rules).run(photos))
        print(
            f"{len(photos)} photos of {len({p.person for p in photos})} people in {time.perf_counter() - start:.0f} s: "
            + ", ".join(f"{n} {status}" for status, n in Counter(o.status for o in outcomes).most_common())
        )
        for outcome in outcomes:
            if outcome.status in {EnrollStatus.POOR, EnrollStatus.LOOKALIKE, EnrollStatus.DUPLICATE}:
                print(
                    f"  {Path(outcome.path).parent.name}/{Path(outcome.path).name}: {outcome.status}: {outcome.reason}",
                    file=sys.stderr,
                )
        snapshot = clean.snapshot()
    found, placed = [], []
    for draw in range(options.draws):
        rng = np.random.default_rng(draw)
        owners = snapshot.owners.copy()
        chosen = rng.permutation(len(owners))[: options.wrong]
        for row in chosen:
            others = np.setdiff1d(np.arange(len(snapshot.persons)), [owners[row]])
            owners[row] = rng.choice(others)
        swapped = _with_owners(snapshot, owners)
        report = audit(swapped, threshold)
        wrong = set(snapshot.face_ids[chosen].tolist())
        rows = [doubt.face_id for doubt in report.doubts]
        found.append(sum(face in wrong for face in rows[: options.rows]))
        placed += [rows.index(face) + 1 if face in rows else len(rows) + 1 for face in wrong]
    print(
        f"threshold {threshold:.3f}; {len(snapshot.face_ids)} faces; {options.wrong} under a wrong name, {options.draws} draws: "
        f"on the first {options.rows} rows {np.mean(found):.2f} of {options.wrong} (least {min(found)}; draw 0: {found[0]}); "
        f"median row {np.median(placed):.0f}, last {max(placed)}"
    )
    clean_report = audit(snapshot, threshold)
    print(
        f"without any wrong name: {len(clean_report.doubts)} doubts, {sum(d.mislabelled for d in clean_report.doubts)} of them "
        f"'wrong person?'; leave one out: {clean_report.leave_one_out}; pairs that look alike: {len(clean_report.alike)}"
    )


def _with_owners(snapshot: GallerySnapshot, owners: Int64) -> GallerySnapshot:
    """Return the snapshot with faces under other names."""
    from dataclasses import replace

    order = np.argsort(owners, kind="stable")
    present, starts = np.unique(owners[order], return_index=True)
    means = unit_means(snapshot.vectors[order], starts.astype(np.int64))
    position = np.full(len(snapshot.persons), -1, np.int64)
    position[present] = np.arange(len(present))
    return replace(
        snapshot,
        persons=tuple(snapshot.persons[row] for row in present.tolist()),
        templates=means,
        owners=position[owners],
        person_ids=snapshot.person_ids[present],
    )


if __name__ == "__main__":
    main()
