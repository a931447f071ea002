"""What the maps of `facepipe explain` are worth: deletion and insertion curves, and the half-face game.

Deletion and insertion (Petsiuk, Das and Saenko, "RISE", 2018): the pixels that a map names first are made grey, or put into a blurred
face, and the similarity to the person's template is followed; the area below the curve is low for deletion and high for insertion
where the map is right. Peers: a map of smooth noise, and one that knows only where the middle of a face is.
The half-face game is the inpainting game (Williford, May and Byrne, "Explainable Face Recognition", 2020) in small: half of the face
of A is replaced by B's, and the map for "B rather than A" must be greater there. Intervals: 95 %, 2,000 bootstrap samples of people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from facepipe.types import Float32, UInt8

_STEPS = 10
_HALVES = ("left", "right", "upper", "lower")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--each", type=int, default=2, help="probes of each person")
    parser.add_argument("--people", type=int, default=60)
    given = parser.parse_args()
    from facepipe.cli.process import settle

    settle()
    from facepipe.explain.maps import layers_of, maps_of
    from facepipe.loading import load_describer
    from facepipe.models.registry import get_record
    from scripts.benchlib import machine

    print(machine())
    describer = load_describer(given.model, "cpu")
    embedder, layers = describer.embedder, layers_of(get_record(given.model))
    templates, chips, owners = read(given.faces / "people", given.people, given.each, describer)

    def maps(chip: UInt8, direction: Float32) -> dict[str, Float32]:
        found = maps_of(embedder, layers, chip, {"occlusion": direction})
        return {name.replace("gradient", "gradients"): one for name, one in found.items()}

    rng = np.random.default_rng(0)
    areas: dict[str, list[tuple[float, float]]] = {}
    for chip, owner in zip(chips, owners, strict=True):
        tried = {**maps(chip, templates[owner]), "centre": centre(len(chip)), "random": noise(len(chip), rng)}
        for name, found in tried.items():
            areas.setdefault(name, []).append(
                curves(chip, found, templates[owner], lambda some: embedder.embed(some).vectors)
            )
    print(
        f"{len(chips)} faces of {len(set(owners.tolist()))} people, model {given.model}; areas below the curves of similarity"
    )
    print("map          deletion (low)             insertion (high)           insertion less deletion")
    for name, pairs in areas.items():
        deleted, inserted = np.array(pairs).T
        columns = [interval(values, owners) for values in (deleted, inserted, inserted - deleted)]
        print(f"{name:12s} {'   '.join(columns)}")
    for name in [name for name in areas if name not in ("centre", "random")]:
        for peer in ("centre", "random"):
            ours, theirs = np.array(areas[name]), np.array(areas[peer])
            better = (ours[:, 1] - ours[:, 0]) - (theirs[:, 1] - theirs[:, 0])
            print(f"{name} over {peer}: {interval(better, owners)}")
    games(chips, owners, templates, maps)


def read(folder: Path, people: int, each: int, describer: object) -> tuple[Float32, UInt8, np.ndarray]:
    """Return templates of three photos a person, and aligned chips of probes with the person of each."""
    from facepipe.detect.selection import choose_faces
    from facepipe.embed.alignment import align
    from facepipe.embed.describer import Describer
    from facepipe.images import read_image

    assert isinstance(describer, Describer)
    templates: list[Float32] = []
    chips: list[UInt8] = []
    owners: list[int] = []
    for home in sorted(folder.iterdir())[:people]:
        vectors, probes = [], []
        paths = [*sorted(home.glob("enroll-*")), *sorted(home.glob("probe-*"))[:each]]
        images = [read_image(str(path), max_side=800) for path in paths]
        for path, image, found in zip(paths, images, describer.describe(images), strict=True):
            if chosen := choose_faces(found.faces, "largest"):
                face = found.faces[chosen[0]]
                if path.name.startswith("enroll"):
                    vectors.append(found.embeddings.vectors[chosen[0]])
                else:
                    probes.append(align(image, [face], describer.embedder.template)[0])
        if vectors and probes:
            mean = np.mean(vectors, axis=0)
            owners += [len(templates)] * len(probes)
            templates.append(mean / np.linalg.norm(mean))
            chips += probes
    return np.array(templates, np.float32), np.stack(chips), np.array(owners)


def centre(size: int) -> Float32:
    """Return a map that falls with the distance from the middle of an aligned face."""
    y, x = np.mgrid[:size, :size] / size
    return np.asarray(-np.hypot(y - 0.6, x - 0.5), np.float32)


def noise(size: int, rng: np.random.Generator) -> Float32:
    """Return a map of smooth noise."""
    return np.asarray(cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), size / 18), np.float32)


def curves(chip: UInt8, found: Float32, template: Float32, embed: Callable[[UInt8], Float32]) -> tuple[float, float]:
    """Return the areas below the deletion and the insertion curve of a map."""
    rank = np.empty(found.size, np.int64)
    rank[np.argsort(-found.ravel(), kind="stable")] = np.arange(found.size)
    named = [(rank < found.size * step / _STEPS).reshape(*found.shape, 1) for step in range(_STEPS + 1)]
    blurred = cv2.GaussianBlur(chip, (0, 0), 0.09 * len(chip))
    copies = [np.where(mask, np.uint8(128), chip) for mask in named] + [np.where(mask, chip, blurred) for mask in named]
    scores = (embed(np.stack(copies).astype(np.uint8)) @ template).reshape(2, -1)
    deleted, inserted = ((scores[:, 1:] + scores[:, :-1]) / 2).mean(axis=1).tolist()
    return deleted, inserted


def interval(values: np.ndarray, owners: np.ndarray) -> str:
    """Return the mean with its interval: people are drawn, not faces."""
    people = np.unique(owners)
    sums = np.array([values[owners == person].sum() for person in people])
    counts = np.array([(owners == person).sum() for person in people])
    drawn = np.random.default_rng(0).integers(0, len(people), (2000, len(people)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def games(
    chips: UInt8, owners: np.ndarray, templates: Float32, maps: Callable[[UInt8, Float32], dict[str, Float32]]
) -> None:
    """Play the half-face game once for each face."""
    rng = np.random.default_rng(1)
    hits: dict[str, list[float]] = {}
    top: dict[str, list[float]] = {}
    for number, (chip, owner) in enumerate(zip(chips, owners, strict=True)):
        other = int(rng.choice(np.flatnonzero(owners != owner)))
        inside = half(len(chip), _HALVES[number % len(_HALVES)])
        mixed = np.where(inside[..., None], chips[other], chip).astype(np.uint8)
        direction = templates[owners[other]] - templates[owner]
        for name, found in {**maps(mixed, direction), "random": noise(len(chip), rng)}.items():
            hits.setdefault(name, []).append(float(found[inside].mean() > found[~inside].mean()))
            best = found >= np.quantile(found, 0.9)
            top.setdefault(name, []).append(float(inside[best].mean()))
    print(
        f"half-face game, {len(chips)} games: where B is the map is greater (hits); share of its greatest tenth that lies there"
    )
    for name, won in hits.items():
        print(f"{name:12s} {interval(np.array(won), owners)}   {interval(np.array(top[name]), owners)}")


def half(size: int, which: str) -> np.ndarray:
    """Return where B's half of a face is, bool (size, size); upper and lower meet below the eyes."""
    y, x = np.mgrid[:size, :size] / size
    return np.asarray({"left": x < 0.5, "right": x >= 0.5, "upper": y < 0.6, "lower": y >= 0.6}[which])


if __name__ == "__main__":
    main()
