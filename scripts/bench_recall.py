"""Which of the usual script's faces of 40 pixels and more `facepipe` finds with its defaults, and with the edge gate off."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from bench_agreement import compare

from benchlib import import_facenet_pytorch, machine
from facepipe import threads
from facepipe.errors import ImageError
from facepipe.images import find_images, read_image
from facepipe.networks.mtcnn import load_cascade
from facepipe.stages.detect import DetectOptions, MtcnnDetector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=100, help="photos of each folder, evenly spaced")
    parser.add_argument("--size", type=float, default=40.0, help="shorter side of the faces that count")
    options = parser.parse_args()
    threads.limit()
    warnings.simplefilter("ignore")
    package, how = import_facenet_pytorch()
    theirs = package.MTCNN(keep_all=True, device="cpu")
    networks = load_cascade(torch.device("cpu"))
    ours = {gate: MtcnnDetector(networks, DetectOptions(edge_gate=gate)) for gate in (True, False)}
    faces = 0
    found = dict.fromkeys(ours, 0)
    missed = dict.fromkeys(ours, 0)
    cpu = dict.fromkeys(ours, 0.0)
    sure = dict.fromkeys(ours, 0)
    count = certain = 0
    for folder in options.folders:
        paths = list(find_images([folder]))
        for path in paths[:: max(1, len(paths) // options.limit)][: options.limit]:
            try:
                whole, reduced = read_image(path), read_image(path, max_side=1280)
            except ImageError:
                continue
            boxes, scores = theirs.detect(whole.rgb)
            boxes = np.zeros((0, 4), np.float32) if boxes is None else boxes.astype(np.float32)
            large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= options.size if len(boxes) else np.zeros(0, bool)
            boxes, scores = boxes[large], np.asarray(scores)[large] if len(boxes) else np.zeros(0)
            faces, count, certain = faces + len(boxes), count + 1, certain + int((scores >= 0.95).sum())
            for gate, detector in ours.items():
                started = time.process_time()
                mine = np.array([face.box for face in detector.detect([reduced])[0]], np.float32).reshape(-1, 4)
                cpu[gate] += time.process_time() - started
                found[gate] += len(mine)
                missed[gate] += compare([boxes], [mine])[1]
                sure[gate] += compare([boxes[scores >= 0.95]], [mine])[1]
    print(machine())
    print(f"peer: facenet-pytorch's MTCNN, defaults (from 20 px), {how}")
    print(
        f"{count} photos; the peer's faces of {options.size:.0f} px and more: {faces}, {certain} of them sure (0.95 and more)"
    )
    for gate in ours:
        print(
            f"facepipe, edge gate {'on' if gate else 'off'}: {found[gate]} faces, misses {missed[gate]} of the peer's "
            f"({100 * (1 - missed[gate] / max(faces, 1)):.2f} % found), {sure[gate]} of its sure ones; {cpu[gate]:.2f} CPU s"
        )


if __name__ == "__main__":
    main()
