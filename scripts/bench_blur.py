"""What covered faces still tell: an attacker searches for them, with photos as they are and with photos covered alike.

The attacker knows where each face lies and how it is turned, better than he could from the cover alone: boxes and landmarks of the
uncovered photo. He has three photos of each of the people, the gallery, and asks who is in a covered one, the probe. Rank-1 is the
share of probes whose person comes first; chance is one in the number of people. 95 % intervals: 2,000 bootstrap samples of people.

alike: the gallery is covered as the probes are. smoothed: and both are smoothed by half a cell, which makes more of a mosaic.
uncovered: the gallery is not covered. wide: as alike, with chips that show twice as much: hair, clothes, background.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from facepipe.types import Face, Float32, Image, UInt8

Cover = Callable[[UInt8, Float32], UInt8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--cells", type=int, nargs="*", default=[8, 12], help="averages along a face, tried besides")
    parser.add_argument(
        "--margins", type=float, nargs="*", default=[0.2, 0.5], help="margins of solid covers, tried besides"
    )
    given = parser.parse_args()
    from facepipe.cli.process import settle

    settle()
    from facepipe.loading import load_describer
    from facepipe.outputs.covers import CELLS, MARGIN, covered
    from scripts.benchlib import machine

    print(machine())
    describer = load_describer(given.model, "cpu")
    photos, owners, enrolled = read(given.faces / "people", describer)
    people = len(set(owners.tolist()))
    counts = f"{people} people, {enrolled.sum()} photos in the gallery, {(~enrolled).sum()} probes"
    print(f"{counts}, model {given.model}; chance {1 / people:.1%}")
    print(f"facepipe blur: margin {MARGIN}, {CELLS} cells")
    print(f"{'cover':26s}   {'   '.join(f'{name:24s}' for name in ('alike', 'smoothed', 'uncovered', 'wide'))}")

    def vectors(cover: Cover, wide: bool = False) -> Float32:
        from facepipe.embed.alignment import align

        chips = []
        for image, face in photos:
            shown = Image(cover(image.rgb, face.box * image.scale), size=image.size)
            chips.append(align(shown, [widened(face) if wide else face], describer.embedder.template))
        return describer.embedder.embed(np.concatenate(chips)).vectors

    plain = vectors(lambda rgb, box: rgb)

    def row(name: str, cover: Cover, cells: int = 24) -> None:
        close = vectors(cover)
        smooth = vectors(lambda rgb, box: gaussian(cover(rgb, box), box, 0.5 / cells))
        wide = vectors(cover, wide=True)
        pairs = ((close, close), (smooth, smooth), (plain, close), (wide, wide))
        print(f"{name:26s}   {'   '.join(rank_one(*pair, owners, enrolled) for pair in pairs)}", flush=True)

    row("none", lambda rgb, box: rgb)
    row("Gaussian, 4 % of the face", lambda rgb, box: gaussian(rgb, box, 0.04))
    for cells in sorted({24, CELLS, *given.cells}, reverse=True):
        for style in ("mosaic", "blur"):
            row(f"{style}, {cells} cells", lambda rgb, box: covered(rgb, [box], style, cells=cells), cells)  # noqa: B023
    for margin in sorted({0.0, MARGIN, *given.margins}):
        row(f"solid, margin {margin}", lambda rgb, box: covered(rgb, [box], margin=margin))  # noqa: B023


def read(folder: Path, describer: object) -> tuple[list[tuple[Image, Face]], np.ndarray, np.ndarray]:
    """Return pictures with the largest face of each, the person of each, and whether it is in the gallery."""
    from facepipe.detect.selection import choose_faces
    from facepipe.embed.describer import Describer
    from facepipe.images import read_image

    assert isinstance(describer, Describer)
    photos, owners, enrolled = [], [], []
    for number, person in enumerate(sorted(folder.iterdir())):
        for path in sorted(person.iterdir()):
            image = read_image(path, max_side=1280)
            found = describer.describe([image])[0]
            if found.faces:
                (place,) = choose_faces(found.faces, "largest")
                photos.append((image, found.faces[place]))
                owners.append(number)
                enrolled.append(path.name.startswith("enroll"))
    return photos, np.array(owners), np.array(enrolled)


def widened(face: Face) -> Face:
    """Return a face whose chip shows twice as much."""
    middle = face.landmarks.mean(axis=0)
    return replace(face, landmarks=(middle + (face.landmarks - middle) * 2).astype(np.float32))


def gaussian(rgb: UInt8, box: Float32, share: float) -> UInt8:
    """Blur a picture with a Gaussian whose deviation is a share of the face's width."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), share * float(box[2] - box[0])), np.uint8)


def rank_one(gallery: Float32, probes: Float32, owners: np.ndarray, enrolled: np.ndarray) -> str:
    """Return the share of probes whose person's template is the most similar, with its interval over people."""
    everybody = np.unique(owners)
    templates = np.stack([gallery[enrolled & (owners == person)].mean(axis=0) for person in everybody])
    templates /= np.linalg.norm(templates, axis=1, keepdims=True) + 1e-9
    similarity = probes[~enrolled] @ templates.T
    # Where all are alike, nobody comes first: a tie counts as its share.
    top = similarity >= similarity.max(axis=1, keepdims=True) - 1e-5
    right = top[np.arange(len(top)), np.searchsorted(everybody, owners[~enrolled])] / top.sum(axis=1)
    rng = np.random.default_rng(0)
    each = [right[owners[~enrolled] == person] for person in everybody]
    sums, counts = np.array([values.sum() for values in each]), np.array([len(values) for values in each])
    drawn = rng.integers(0, len(each), (2000, len(each)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return f"{right.mean():6.1%} ({low:.1%} to {high:.1%})".ljust(25)


if __name__ == "__main__":
    main()
