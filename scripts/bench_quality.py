"""What the quality of a face is worth: misses left when the worst faces are rejected, and false faces in pictures without people.

Error-versus-reject curves (Grother and Tabassi, "Performance of Biometric Quality Measures", 2007) over the photos of `people`, as
they are and made worse: a miss is a probe that is not nearest to its own person's template of three photos among all people, or is
below the model's threshold for pairs. The peers are the other figures that every face has. `--fit` fits the numbers `middle` and
`steep` of a model's record to the same probes. `--nothing` counts false faces, with what the detector alone says beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from facepipe.detect.selection import choose_faces
from facepipe.embed.describer import Describer
from facepipe.errors import InputError
from facepipe.images import find_images, read_image
from facepipe.types import Described, Face, Image, UInt8

_Change = Callable[[UInt8], UInt8]
#: Shares of the probes that are rejected.
_REJECTED = (0.05, 0.1, 0.2)


def _noisy(rgb: UInt8) -> UInt8:
    noise = np.random.default_rng(1).normal(0.0, 45.0, rgb.shape)
    return np.asarray(np.clip(rgb + noise, 0, 255), np.uint8)


def _small(rgb: UInt8) -> UInt8:
    share = max(0.12, 67.0 / min(rgb.shape[:2]))
    tiny = cv2.resize(rgb, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(tiny, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _coarse(rgb: UInt8) -> UInt8:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, 6])[1], 1), np.uint8)


KINDS: dict[str, _Change] = {
    "as they are": lambda rgb: rgb,
    "few pixels": _small,
    "blurred": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), max(rgb.shape) / 100), np.uint8),
    "noise": _noisy,
    "dark": lambda rgb: np.asarray(rgb * 0.12, np.uint8),
    "JPEG quality 6": _coarse,
}
FIGURES: dict[str, Callable[[Face], float]] = {
    "usable": lambda face: face.quality.usable or 0.0,
    "score": lambda face: face.score,
    "size": lambda face: face.quality.size,
    "sharpness": lambda face: face.quality.sharpness,
    "frontal": lambda face: -abs(face.quality.yaw),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, nargs="?", help="folder with people/")
    parser.add_argument("--fit", action="store_true", help="fit middle and steep of the model's record")
    parser.add_argument("--nothing", type=Path, nargs="*", default=[], help="folders with pictures without people")
    given = parser.parse_args()
    from facepipe.cli.process import settle
    from facepipe.loading import load_describer
    from scripts.benchlib import machine

    settle()
    print(machine())
    describer = load_describer("mini", "cpu")
    if given.faces:
        curves(describer, sorted((given.faces / "people").iterdir()), given.fit)
    for folder in given.nothing:
        false_faces(describer, folder)


def described(describer: Describer, paths: Sequence[Path], change: _Change) -> Iterator[Described]:
    """Yield the photos that were changed, described together."""
    for start in range(0, len(paths), describer.photos):
        images = [read_image(path, max_side=1280) for path in paths[start : start + describer.photos]]
        yield from describer.describe([Image(change(image.rgb), image.path) for image in images])


def main_face(photo: Described) -> int | None:
    """Return the place of the face that a photo of one person is of."""
    return next(iter(choose_faces(photo.faces, "largest")), None)


def curves(describer: Describer, people: Sequence[Path], fit: bool) -> None:
    """Print for each kind how many probes are misses, and the share of them that is gone with the worst probes."""
    from facepipe.models.registry import get_record

    templates = []
    for person in people:
        photos = described(describer, sorted(person.glob("enroll-*")), KINDS["as they are"])
        total = sum(photo.embeddings.vectors[place] for photo in photos if (place := main_face(photo)) is not None)
        templates.append(total / np.linalg.norm(total))
    threshold = get_record("mini").decision()[0]
    every: tuple[list[Face], list[bool]] = ([], [])
    for kind, change in KINDS.items():
        faces: list[Face] = []
        missed: list[bool] = []
        for number, person in enumerate(people):
            for photo in described(describer, sorted(person.glob("probe-*")), change):
                place = main_face(photo)
                if place is not None:
                    similar = np.array(templates) @ photo.embeddings.vectors[place]
                    faces.append(photo.faces[place])
                    missed.append(bool(similar.argmax() != number or similar[number] < threshold))
        every[0].extend(faces)
        every[1].extend(missed)
        _print(kind, faces, np.array(missed))
    _print("all of them", every[0], np.array(every[1]))
    if fit:
        _fit(every[0], np.array(every[1]))


def _print(kind: str, faces: Sequence[Face], missed: np.ndarray) -> None:
    rejected = ", ".join(f"{100 * share:.0f} %" for share in _REJECTED)
    print(f"{kind}: {len(faces)} probes, {missed.sum()} misses; gone of them with the worst {rejected}:")
    for name, figure in FIGURES.items():
        order = np.argsort([figure(face) for face in faces], kind="stable")
        gone = [missed[order[: round(share * len(order))]].sum() / max(1, missed.sum()) for share in _REJECTED]
        print(f"  {name:10}", "  ".join(f"{100 * share:3.0f} %" for share in gone))


def _fit(faces: Sequence[Face], missed: np.ndarray) -> None:
    """Print the logistic curve over the logarithm of the length, found again from `usable`, that fits the misses best."""
    from sklearn.linear_model import LogisticRegression

    from facepipe.models.registry import get_record

    lengths = get_record("mini").lengths
    assert lengths is not None, "give the record any lengths first"
    usable = np.clip([face.quality.usable or 0.5 for face in faces], 1e-6, 1 - 1e-6)
    logs = np.log(usable / (1 - usable)) / lengths.steep + np.log(lengths.middle)
    fitted = LogisticRegression(C=100).fit(logs[:, None], ~missed)
    steep = float(fitted.coef_[0, 0])
    print(f"fitted: steep {steep:.2f}, middle {np.exp(-float(fitted.intercept_[0]) / steep):.0f}")


def false_faces(describer: Describer, folder: Path) -> None:
    """Print how many of a folder's pictures have a sure face, and any, by the detector and after the embedder's judgement."""
    pictures = seen = sure = kept = shown = 0
    for found in find_images([folder]):
        try:
            image = read_image(found, max_side=1280)
        except InputError:
            continue
        before = next(iter(describer.detector.detect([image]))).faces
        after = describer.describe([image])[0].faces
        pictures += 1
        seen, sure = seen + bool(before), sure + any(not face.doubtful for face in before)
        shown, kept = shown + bool(after), kept + any(not face.doubtful for face in after)
    each = 100 / max(1, pictures)
    print(
        f"{folder.name}: {pictures} pictures, of 100 have a sure face {each * sure:.1f} by the detector, {each * kept:.1f} after the "
        f"judgement; any face {each * seen:.1f}, {each * shown:.1f}"
    )


if __name__ == "__main__":
    main()
