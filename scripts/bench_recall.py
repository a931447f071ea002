"""Which of the usual script's faces of 40 pixels and more `facepipe` finds, with its defaults and with parts of them off.

The script's boxes are not truth: `--sheet` shows every one that the defaults miss, numbered, so that somebody can look, and
`--no-face` takes the numbers of those that are no human face: what is found of the others is told as well.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from facepipe.detect.boxes import iou
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.images import read_image, write_image
from facepipe.models.networks import load_cascade
from facepipe.types import Float32, Image, UInt8
from scripts.bench_batch import photos
from scripts.benchlib import import_facenet_pytorch, limit_threads, machine

#: What is compared: the defaults, and the defaults with one part off.
WAYS = {
    "defaults": DetectOptions(),
    "no edge gate": DetectOptions(edge_gate=False),
    "min_score 0.7": DetectOptions(min_score=0.7),
    "no second look": DetectOptions(second_look=False),
    "no closer look": DetectOptions(),
    "no reduction": DetectOptions(max_side=None),
}
_SURE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with scenes/ and lfw/")
    parser.add_argument("--lfw", type=int, default=1000, help="LFW photos")
    parser.add_argument("--large", type=int, default=20, help="scenes scaled to 12 megapixels; they count as 200")
    parser.add_argument("--size", type=float, default=40.0, help="shorter side of the faces that count, in pixels")
    parser.add_argument("--sheet", type=Path, help="write a picture of the script's faces that the defaults miss")
    parser.add_argument(
        "--no-face", nargs="*", type=int, default=[], help="numbers on the sheet that are no human face"
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS)[:5])
    options = parser.parse_args()
    limit_threads()
    warnings.simplefilter("ignore")
    package, how = import_facenet_pytorch()
    theirs = package.MTCNN(keep_all=True, device="cpu")
    networks = load_cascade(torch.device("cpu"))
    ours = {way: MtcnnDetector(networks, WAYS[way]) for way in options.ways}
    print(machine())
    print(f"peer: facenet-pytorch's MTCNN, defaults (from 20 px), {how}; its faces of {options.size:.0f} px and more")
    weighed = dict.fromkeys(ours, 0.0)
    faces_weighed = 0.0
    missed_faces: list[UInt8] = []
    missed_weights: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, paths in _chosen(options, Path(folder)).items():
            weight = 200 / len(paths) if kind == "large" and paths else 1.0
            faces = sure = small = 0
            missed, missed_sure, missed_small, found = (dict.fromkeys(ours, 0) for _ in range(4))
            cpu = dict.fromkeys(ours, 0.0)
            for path in paths:
                whole = read_image(path)
                boxes, scores = _theirs(theirs, whole, options.size)
                ratio = min(1.0, 1280 / max(whole.width, whole.height))
                tiny = (
                    (boxes[:, 2:] - boxes[:, :2]).min(axis=1) * ratio < options.size - 0.5 if len(boxes) else scores > 2
                )
                faces, sure, small = faces + len(boxes), sure + int((scores >= _SURE).sum()), small + int(tiny.sum())
                for way, detector in ours.items():
                    picture = whole if WAYS[way].max_side is None else read_image(path, max_side=1280)
                    started = time.process_time()
                    once = way == "no closer look"
                    faces_seen = detector.find([picture])[0] if once else next(detector.detect([picture])).faces
                    mine = _boxes([face.box for face in faces_seen])
                    cpu[way] += time.process_time() - started
                    lost = _lost(boxes, mine, whole)
                    found[way] += len(mine)
                    missed[way] += int(lost.sum())
                    missed_sure[way] += int((lost & (scores >= _SURE)).sum())
                    missed_small[way] += int((lost & tiny).sum())
                    if way == "defaults":
                        for box, score in zip(boxes[lost], scores[lost], strict=True):
                            missed_faces.append(_chip(whole, box, score, len(missed_faces)))
                            missed_weights.append(weight)
            faces_weighed += faces * weight
            print(
                f"{kind}: {len(paths)} photos, {faces} faces, {sure} of them sure ({_SURE}), {small} below the size at 1280 px"
            )
            for way in ours:
                weighed[way] += missed[way] * weight
                print(
                    f"  {way:15s} {found[way]:5d} faces, misses {missed[way]:3d} of the peer's "
                    f"({_percent(missed[way], faces)} found; {missed_sure[way]} sure ones, {missed_small[way]} of the small "
                    f"missed), {cpu[way]:.1f} CPU s"
                )
    print(f"the mix, {faces_weighed:.0f} faces of the peer:")
    for way in ours:
        print(f"  {way:15s} {_percent(weighed[way], faces_weighed)} found")
    if options.no_face:
        none = sum(missed_weights[number] for number in options.no_face)
        print(
            f"of the {len(missed_faces)} that the defaults miss {len(options.no_face)} are no human face; of the others "
            f"{_percent(weighed['defaults'] - none, faces_weighed - none)} found"
        )
    if options.sheet and missed_faces:
        write_image(options.sheet, _sheet(missed_faces))


def _chosen(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    pools = photos(options.faces, folder, options.large)
    return {
        "scenes": pools["scenes"],
        "lfw": random.Random(0).sample(pools["lfw"], min(options.lfw, len(pools["lfw"]))),
        "large": pools["large"][: options.large],
    }


def _theirs(detector: object, image: Image, size: float) -> tuple[Float32, Float32]:
    boxes, scores = detector.detect(image.rgb)  # type: ignore[attr-defined]
    if boxes is None:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    boxes = boxes.astype(np.float32)
    large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= size
    return boxes[large], np.asarray(scores, np.float32)[large]


def _lost(reference: Float32, mine: Float32, image: Image) -> np.ndarray:
    """Return which boxes of the reference no box of ours overlaps by half, as far as they lie in the picture."""
    if not len(mine):
        return np.ones(len(reference), bool)
    limit = np.array([image.width, image.height] * 2, np.float32)
    lost: np.ndarray = iou(np.clip(reference, 0, limit), np.clip(mine, 0, limit)).max(axis=1) < 0.5
    return lost


def _boxes(boxes: Sequence[Float32]) -> Float32:
    return np.array(boxes, np.float32).reshape(-1, 4)


def _percent(missed: float, of: float) -> str:
    return f"{100 * (1 - missed / max(of, 1)):.2f} %"


def _chip(image: Image, box: Float32, score: float, number: int) -> UInt8:
    side = float((box[2:] - box[:2]).max()) * 1.8
    chip = cv2.getRectSubPix(image.rgb, (round(side), round(side)), tuple(((box[:2] + box[2:]) / 2).tolist()))
    chip = cv2.resize(chip, (160, 160), interpolation=cv2.INTER_AREA)
    label = f"{number}: {score:.2f} {float((box[2:] - box[:2]).min()):.0f} px"
    return np.asarray(
        cv2.putText(chip, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 0), 1, cv2.LINE_AA), np.uint8
    )


def _sheet(chips: list[UInt8]) -> UInt8:
    rows = -(-len(chips) // 10)
    sheet = np.zeros((rows * 160, 1600, 3), np.uint8)
    for number, chip in enumerate(chips):
        y, x = divmod(number, 10)
        sheet[y * 160 : y * 160 + 160, x * 160 : x * 160 + 160] = chip
    return sheet


if __name__ == "__main__":
    main()
