"""What second chances find: photos of enrolled people and of strangers, turned, cut close and darkened, named with and without them.

Half of the people are enrolled with their photos `enroll-*`. Of each kind: photos with a sure face, names right and wrong among
enrolled people and strangers, and CPU time, all without and with second chances in the same run. Strips are searched in tiles
both times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from facepipe.pipeline import Recognizer
from facepipe.types import Face, Failed, Image, Recognized

#: Pictures in memory at a time.
_TOGETHER = 12
_NAMES = {False: "without", True: "with"}
_Change = Callable[[Image, Face], Image]


def turned(quarters: int) -> _Change:
    """Return what turns a picture counterclockwise."""
    return lambda image, _: Image(np.ascontiguousarray(np.rot90(image.rgb, quarters)), image.path)


def darker(share: float) -> _Change:
    """Return what leaves a share of a picture's brightness."""
    return lambda image, _: Image((image.rgb * share).astype(np.uint8), image.path)


def cut(room: float) -> _Change:
    """Return what cuts a picture to its face, with room as a share of the box."""

    def change(image: Image, face: Face) -> Image:
        x1, y1, x2, y2 = face.box * image.scale
        margin = max(x2 - x1, y2 - y1) * room
        top, left = max(0, int(y1 - margin)), max(0, int(x1 - margin))
        return Image(np.ascontiguousarray(image.rgb[top : int(y2 + margin), left : int(x2 + margin)]), image.path)

    return change


def on_a_strip(*, tall: bool) -> _Change:
    """Return what puts a picture in the middle of a grey one that is ten times as long."""

    def change(image: Image, _: Face) -> Image:
        height, width = image.rgb.shape[:2]
        strip = np.full((10 * height, width, 3) if tall else (height, 10 * width, 3), 128, np.uint8)
        y, x = (round(4.7 * height), 0) if tall else (0, round(4.7 * width))
        strip[y : y + height, x : x + width] = image.rgb
        return Image(strip, image.path)

    return change


def huge(side: int) -> _Change:
    """Return what cuts a picture to its face, with some room, and makes the face so many pixels large."""

    def change(image: Image, face: Face) -> Image:
        rgb = cut(0.15)(image, face).rgb
        ratio = side / face.quality.size / image.scale
        large = cv2.resize(rgb, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_CUBIC)
        return Image(np.asarray(large, np.uint8), image.path)

    return change


def at_the_border(image: Image, face: Face) -> Image:
    """Cut a picture so that the face fills its lower corner and a seventh of it is cut off, as in a selfie of several."""
    x1, y1, x2, y2 = face.box * image.scale
    side = max(x2 - x1, y2 - y1)
    top, left = max(0, int(y1 - 3 * side)), max(0, int(x1 - 4 * side))
    rgb = image.rgb[top : int(y2 - 0.05 * side), left : max(left + 1, int(x2 - side / 7))]
    return Image(np.ascontiguousarray(rgb), image.path)


def tilted(degrees: float) -> _Change:
    """Return what tilts a picture, its border drawn out."""

    def change(image: Image, _: Face) -> Image:
        height, width = image.rgb.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.7)
        turned = cv2.warpAffine(image.rgb, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return Image(np.asarray(turned, np.uint8), image.path)

    return change


def covered(part: str) -> _Change:
    """Return what covers eyes, mouth or one half of the face with one colour."""

    def change(image: Image, face: Face) -> Image:
        rgb, marks = image.rgb.copy(), face.landmarks * image.scale
        left, right, nose, mouth = marks[0], marks[1], marks[2], marks[3:].mean(axis=0)
        across, down = right - left, mouth - (left + right) / 2
        if part == "sunglasses":
            for eye in (left, right):
                axes = (int(0.38 * np.linalg.norm(across)), int(0.28 * np.linalg.norm(across)))
                cv2.ellipse(rgb, eye.astype(int).tolist(), axes, face.quality.roll, 0, 360, (15, 15, 20), -1)
            return Image(rgb, image.path)
        corners = {
            "mask": (
                nose - across - 0.1 * down,
                nose + across - 0.1 * down,
                mouth + 0.9 * across + down,
                mouth - 0.9 * across + down,
            ),
            "half": (nose - 2 * down, nose - 2 * down + 1.5 * across, nose + 2 * down + 1.5 * across, nose + 2 * down),
        }[part]
        colour = (150, 190, 205) if part == "mask" else (70, 60, 55)
        cv2.fillConvexPoly(rgb, np.array(corners).astype(np.int32), colour)
        return Image(rgb, image.path)

    return change


def brighter(image: Image, _: Face) -> Image:
    """Overexpose a picture by more than one stop."""
    return Image(np.clip(image.rgb * 2.2 + 40.0, 0, 255).astype(np.uint8), image.path)


def dark_and_noisy(image: Image, _: Face) -> Image:
    """Leave 12 % of a picture's light, and noise."""
    noise = np.random.default_rng(1).normal(0.0, 6.0, image.rgb.shape)
    return Image(np.clip(image.rgb * 0.12 + noise, 0, 255).astype(np.uint8), image.path)


KINDS: dict[str, _Change] = {
    "as it is": lambda image, _: image,
    "turned by 90": turned(1),
    "turned by 180": turned(2),
    "turned by 270": turned(3),
    "cut to the face, 8 % room": cut(0.08),
    "cut to the face, 15 % room": cut(0.15),
    "cut to the face, none": cut(0.0),
    "face of 4,000 pixels": huge(4000),
    "at the border": at_the_border,
    "tilted by 60 degrees": tilted(60.0),
    "sunglasses": covered("sunglasses"),
    "mask": covered("mask"),
    "half covered": covered("half"),
    "overexposed": brighter,
    "dark and noisy": dark_and_noisy,
    "brightness 15 %": darker(0.15),
    "brightness 6 %": darker(0.06),
    "on a strip ten times as wide": on_a_strip(tall=False),
    "on a strip ten times as high": on_a_strip(tall=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--faces", type=Path, default=Path("../shared/faces"), help="folder with people/ and no-usable-face/"
    )
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--probes", type=int, default=2, help="photos of each person")
    given = parser.parse_args()
    from facepipe.cli.process import settle

    settle()
    import tempfile

    import facepipe
    from facepipe.images import read_image
    from scripts.benchlib import machine

    print(machine())
    people = sorted((given.faces / "people").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        gallery = facepipe.Gallery(Path(folder) / "g")
        for person in people[::2]:
            list(gallery.enroll(sorted(person.glob("enroll-*")), name=person.name, device="cpu"))
        ways = {chance: facepipe.Recognizer(gallery, device="cpu", second_chance=chance) for chance in (False, True)}
        probes = [(person.name, path) for person in people for path in sorted(person.glob("probe-*"))[: given.probes]]
        images = []
        for name, path in probes:
            image = read_image(path, max_side=1280)
            faces = [face for face in facepipe.detect(image, device="cpu") if not face.doubtful]
            if len(faces) == 1 and faces[0].turn == 0:
                images.append((name, image, faces[0]))
        enrolled = set(gallery.snapshot().persons)
        known = sum(name in enrolled for name, *_ in images)
        print(f"{len(enrolled)} people enrolled, {len(images)} photos with one face, {known} of enrolled people")
        names = [name for name, *_ in images]
        empty = [read_image(path, max_side=1280) for path in sorted((given.faces / "no-usable-face").rglob("*.jpg"))]
        for recognizer in ways.values():
            list(recognizer([image for _, image, _ in images[:24]]))  # kernels are compiled at the first use
        for kind, change in KINDS.items():
            if kind not in given.kinds:
                continue
            for chance, recognizer in ways.items():
                changed = (change(image, face) for _, image, face in images)
                print(f"{kind:26} {_NAMES[chance]:8}", _judged(names, enrolled, changed, recognizer))
        for chance, recognizer in ways.items():
            print(f"{'no usable face':26} {_NAMES[chance]:8}", _judged([""] * len(empty), enrolled, empty, recognizer))
        gallery.close()


def _judged(names: list[str], enrolled: set[str], images: Iterable[Image], recognizer: Recognizer) -> str:
    results: list[Recognized | Failed] = []
    spent, waiting = 0.0, iter(images)
    while some := list(islice(waiting, _TOGETHER)):
        started = time.process_time()
        results += recognizer(some)
        spent += time.process_time() - started
    sure = right = wrong = strangers = 0
    for name, result in zip(names, results, strict=True):
        faces = [one for one in result.predictions if not one.face.doubtful]
        sure += bool(faces)
        given = {one.person for one in faces if one.person}
        right += name in given
        wrong += bool(given - {name}) and name in enrolled
        strangers += bool(given) and name not in enrolled
    return (
        f"sure faces in {sure} of {len(names)}, named right {right}, enrolled people named wrong {wrong}, "
        f"strangers named {strangers}, {1000 * spent / len(names):.0f} ms a photo"
    )


if __name__ == "__main__":
    main()
