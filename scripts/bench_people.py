"""Open-set identification with the default detection, the usual script's exact one, and by `face_recognition`.

Everybody's photos, the same draws of who is enrolled, the same rules: what the speed of the defaults costs in people found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facepipe.detect.options import DetectOptions
from facepipe.evaluate.measure import LabelledFolders, measure_people
from facepipe.evaluate.photo_set import QUALITY, PhotoSet, embed_photos
from facepipe.evaluate.splits import SplitRule
from facepipe.loading import load_describer
from scripts.bench_batch import import_face_recognition
from scripts.benchlib import limit_threads, machine

Embed = Callable[[Sequence[Path]], PhotoSet]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/ and strangers/")
    parser.add_argument("--repeats", type=int, default=20, help="draws of the half of the people who are enrolled")
    options = parser.parse_args()
    limit_threads()
    print(machine())
    folders = LabelledFolders(options.faces / "people", (options.faces / "strangers",))
    rule = SplitRule("enroll-*", "probe-*", known=0.5, repeats=options.repeats)
    ways: dict[str, Embed] = {
        "facepipe, its defaults": facepipe(DetectOptions()),
        "facepipe with the script's detection (from 20 px, whole size, facenet-pytorch's arithmetic)": facepipe(
            DetectOptions.reference()
        ),
        "face_recognition, its defaults": face_recognition,
    }
    for way, embed in ways.items():
        started = time.process_time()
        found = measure_people(folders, rule, embed, 0.01, 200).figures
        seconds = time.process_time() - started
        rates = found.fnir_at_fpir
        spans = {rate: [100 * end for end in found.intervals_95[f"fnir_at_fpir_{rate}"]] for rate in rates}
        errors = ", ".join(
            f"FNIR {100 * rates[rate]:.2f} % ({low:.1f} to {high:.1f}) at FPIR {rate}"
            for rate, (low, high) in spans.items()
        )
        failed = f"no face in {found.failed_to_enrol} probes; {seconds:.0f} CPU s"
        print(f"{way}: rank-1 {100 * found.rank1:.2f} %, {errors}; {failed}")
    searches = f"{found.mated_searches} mated and {found.non_mated_searches} non-mated searches"
    print(f"{searches} in {found.repeats} draws, {found.strangers} strangers")


def facepipe(options: DetectOptions) -> Embed:
    """Return the shipped network with this detection."""
    describer = load_describer("mini", "cpu", options)
    return lambda paths: embed_photos(paths, describer, max_side=options.max_side)


def face_recognition(paths: Sequence[Path]) -> PhotoSet:
    """Encode the largest face of each photo; the encodings are scaled to unit length, since all are compared by cosine."""
    package = import_face_recognition()
    vectors, boxes = np.zeros((len(paths), 128), np.float32), np.zeros((len(paths), 4), np.float32)
    found = np.zeros(len(paths), np.bool_)
    for row, path in enumerate(paths):
        picture = package.load_image_file(path)
        places = package.face_locations(picture)
        if not places:
            continue
        top, right, bottom, left = max(places, key=lambda place: (place[2] - place[0]) * (place[1] - place[3]))
        vector = package.face_encodings(picture, [(top, right, bottom, left)])[0]
        vectors[row], boxes[row], found[row] = vector / np.linalg.norm(vector), (left, top, right, bottom), True
    quality = np.zeros((len(paths), len(QUALITY)), np.float32)
    failures = {path: "no face found" for path, ok in zip(paths, found, strict=True) if not ok}
    return PhotoSet(tuple(paths), vectors, found, boxes, quality, failures, "face_recognition")


if __name__ == "__main__":
    main()
