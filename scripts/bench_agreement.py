"""Box-for-box agreement of our cascade with facenet-pytorch's MTCNN, and the CPU time of both, on folders of photos."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from facepipe.detect.boxes import iou
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.errors import ImageError
from facepipe.images import find_images, read_image
from facepipe.models.mtcnn import TorchCascade
from facepipe.types import Image
from scripts.benchlib import import_facenet_pytorch, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=300, help="photos of each folder, evenly spaced")
    parser.add_argument("--min-face", type=int, default=20)
    parser.add_argument("--edge-gate", action="store_true", help="let the edge map rule out regions")
    parser.add_argument("--batch", type=int, default=8, help="photos, of any sizes, in one call of ours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    package, how = import_facenet_pytorch()
    theirs = package.MTCNN(keep_all=True, min_face_size=options.min_face, device="cpu", select_largest=False)
    ours = MtcnnDetector(
        TorchCascade(torch.device("cpu")),
        DetectOptions.reference(options.min_face)
        if not options.edge_gate
        else dataclasses.replace(DetectOptions.reference(options.min_face), edge_gate=True),
    )
    images = [image for folder in options.folders for image in photos(folder, options.limit)]
    reference, reference_cpu = [], 0.0
    for image in images:
        started = time.process_time()
        boxes, _ = theirs.detect(image.rgb)
        reference_cpu += time.process_time() - started
        reference.append(np.zeros((0, 4), np.float32) if boxes is None else boxes.astype(np.float32))
    found: list[np.ndarray] = []
    started = time.process_time()
    for start in range(0, len(images), options.batch):
        for faces in ours.find(images[start : start + options.batch]):
            found.append(np.array([face.box for face in faces], np.float32).reshape(-1, 4))
    our_cpu = time.process_time() - started
    overlaps, missed, extra = compare(reference, found)
    total = sum(map(len, reference))
    print(machine())
    print(f"peer: facenet_pytorch.MTCNN(keep_all=True), {how}; one thread; faces from {options.min_face} px")
    print(f"photos {len(images)}; faces: theirs {total}, ours {sum(map(len, found))}")
    print(f"only theirs {missed}, only ours {extra}: {100 * (missed + extra) / max(total, 1):.2f} % of faces differ")
    print(f"IoU of the others: mean {np.mean(overlaps):.5f}, least {np.min(overlaps):.4f}")
    print(f"CPU seconds: theirs {reference_cpu:.1f}, ours {our_cpu:.1f}: {reference_cpu / our_cpu:.2f} times as fast")


def photos(folder: Path, limit: int) -> list[Image]:
    paths = list(find_images([folder]))
    paths = paths[:: max(1, len(paths) // limit)][:limit]
    images = []
    for path in paths:
        try:
            images.append(read_image(path))
        except ImageError as error:
            print(error, file=sys.stderr)
    return images


def compare(reference: list[np.ndarray], found: list[np.ndarray]) -> tuple[list[float], int, int]:
    """Pair the boxes of each photo; return the overlaps of pairs, and how many are only theirs and only ours."""
    overlaps: list[float] = []
    missed = extra = 0
    for theirs, ours in zip(reference, found, strict=True):
        table = iou(theirs, ours)
        paired: set[int] = set()
        for row in table:
            if row.size and row.max() >= 0.5:
                overlaps.append(float(row.max()))
                paired.add(int(row.argmax()))
            else:
                missed += 1
        extra += len(ours) - len(paired)
    return overlaps, missed, extra


if __name__ == "__main__":
    main()
