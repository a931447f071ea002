"""What the edge map could save: pixels that PNet looks at, candidates of the later networks, and how near it comes to real faces."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from facepipe.detect import edges, levels
from facepipe.detect.confirm import refine
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.detect.proposals import propose
from facepipe.detect.work import prepare
from facepipe.errors import ImageError
from facepipe.images import find_images, read_image
from facepipe.models.networks import load_cascade
from scripts.benchlib import limit_threads, machine

DENSITIES = (0.04, 0.1, 0.15, 0.2, 0.25)
TILES = (32, 64, 128)
#: Level pixels that a region needs beyond its windows' corners, and windows a cut must save, as a share, to be made.
BORDER, WORTH = 10, 0.08


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=40, help="photos of each folder, evenly spaced")
    options = parser.parse_args()
    limit_threads()
    detector = MtcnnDetector(load_cascade(torch.device("cpu")), DetectOptions(edge_gate=False))
    print(machine())
    for folder in options.folders:
        paths = list(find_images([folder]))
        whole, cells, photos = 0, 0, 0
        kept: Counter[tuple[str, float]] = Counter()
        proposed, refined, faces = [], [], []
        for path in paths[:: max(1, len(paths) // options.limit)][: options.limit]:
            try:
                image = read_image(path, max_side=1280)
            except ImageError:
                continue
            photos += 1
            work = prepare(image, detector.options)
            candidates = propose(detector.networks, [work], detector.options)
            proposed.append(work.edges.density(candidates.boxes))
            kept_boxes = refine(detector.networks, [work], candidates, detector.options).boxes
            refined.append(work.edges.density(kept_boxes))
            faces += [f.quality.edge_density for f in detector.find([image])[0] if f.quality.size >= 40]
            for scale in work.scales:
                height, width = int(work.height * scale + 1), int(work.width * scale + 1)
                rows, columns = int(levels.cells(height)), int(levels.cells(width))
                whole, cells = whole + height * width, cells + rows * columns
                for density in DENSITIES:
                    edges.MIN_DENSITY = density
                    windows = work.edges.windows(scale, rows, columns)
                    kept["windows", density] += int(windows.sum())
                    kept["box", density] += bounding(windows)
                    kept["split", density] += split(windows)
                    for side in TILES:
                        kept[f"tiles {side}", density] += tiled(windows, side // 2)
        edges.MIN_DENSITY = DENSITIES[0]
        print(
            f"\n{folder.name}: {photos} photos; edge density of {len(faces)} faces of 40 px and more: least and lowest 5 %"
        )
        print(f"  {min(faces):.3f}, {np.quantile(faces, 0.05):.3f}")
        print("share that is left, by the least density of a window:", "".join(f"{d:>8}" for d in DENSITIES))
        for what, name in (
            ("windows", "windows with enough edges, of all"),
            ("box", "PNet's pixels: one region a level (in use)"),
            ("split", "PNet's pixels: cut in regions where it saves"),
            *((f"tiles {side}", f"PNet's pixels: tiles of {side} px") for side in TILES),
        ):
            of = cells if what == "windows" else whole
            print(f"  {name:52}" + "".join(f"{kept[what, d] / of:8.1%}" for d in DENSITIES))
        for name, found in (("RNet's candidates", proposed), ("ONet's candidates", refined)):
            values = np.concatenate(found)
            print(f"  {name:52}" + "".join(f"{(values >= d).mean():8.1%}" for d in DENSITIES))


def area(rows: int, columns: int) -> int:
    """Return the level pixels of a region of so many windows."""
    return (2 * rows + BORDER) * (2 * columns + BORDER)


def trimmed(windows: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(windows.any(axis=1)), np.flatnonzero(windows.any(axis=0))
    return windows[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else windows[:0, :0]


def bounding(windows: np.ndarray) -> int:
    inner = trimmed(windows)
    return area(*inner.shape) if inner.size else 0


def split(windows: np.ndarray) -> int:
    """Return the pixels when a level is cut in two, and the halves again, wherever that saves enough of them."""
    windows = trimmed(windows)
    if not windows.size:
        return 0
    least, best = area(*windows.shape) * (1 - WORTH), None
    for axis in (0, 1):
        for cut in range(4, windows.shape[axis] - 4, 4):
            halves = np.split(windows, [cut], axis=axis)
            if (pixels := sum(map(bounding, halves))) < least:
                least, best = pixels, halves
    return area(*windows.shape) if best is None else sum(map(split, best))


def tiled(windows: np.ndarray, side: int) -> int:
    """Return the pixels of the tiles of `side` windows that hold one with enough edges."""
    rows, columns = windows.shape
    return sum(
        area(min(side, rows - y), min(side, columns - x))
        for y in range(0, rows, side)
        for x in range(0, columns, side)
        if windows[y : y + side, x : x + side].any()
    )


if __name__ == "__main__":
    main()
