"""What second chances find: photos of enrolled people and of strangers, turned, cut close and darkened, named with and without them.

Half of the people are enrolled with their photos `enroll-*`. Of each kind: photos with a sure face, names right and wrong among
enrolled people and strangers, and CPU time, all without and with second chances in the same run. Strips are searched in tiles
both times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facepipe.types import Image

_NAMES = {False: "without", True: "with"}
_Change = Callable[[Image, np.ndarray], Image]


def turned(quarters: int) -> _Change:
    """Return what turns a picture counterclockwise."""
    return lambda image, _: Image(np.ascontiguousarray(np.rot90(image.rgb, quarters)), image.path)


def darker(share: float) -> _Change:
    """Return what leaves a share of a picture's brightness."""
    return lambda image, _: Image((image.rgb * share).astype(np.uint8), image.path)


def cut(room: float) -> _Change:
    """Return what cuts a picture to its face, with room as a share of the box."""

    def change(image: Image, box: np.ndarray) -> Image:
        x1, y1, x2, y2 = box * image.scale
        margin = max(x2 - x1, y2 - y1) * room
        top, left = max(0, int(y1 - margin)), max(0, int(x1 - margin))
        return Image(np.ascontiguousarray(image.rgb[top : int(y2 + margin), left : int(x2 + margin)]), image.path)

    return change


def on_a_strip(*, tall: bool) -> _Change:
    """Return what puts a picture in the middle of a grey one that is ten times as long."""

    def change(image: Image, _: np.ndarray) -> Image:
        height, width = image.rgb.shape[:2]
        strip = np.full((10 * height, width, 3) if tall else (height, 10 * width, 3), 128, np.uint8)
        y, x = (round(4.7 * height), 0) if tall else (0, round(4.7 * width))
        strip[y : y + height, x : x + width] = image.rgb
        return Image(strip, image.path)

    return change


KINDS: dict[str, _Change] = {
    "as it is": lambda image, _: image,
    "turned by 90": turned(1),
    "turned by 180": turned(2),
    "turned by 270": turned(3),
    "cut to the face, 8 % room": cut(0.08),
    "cut to the face, none": cut(0.0),
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
                images.append((name, image, faces[0].box))
        enrolled = set(gallery.snapshot().persons)
        known = sum(name in enrolled for name, *_ in images)
        print(f"{len(enrolled)} people enrolled, {len(images)} photos with one face, {known} of enrolled people")
        names = [name for name, *_ in images]
        empty = [read_image(path, max_side=1280) for path in sorted((given.faces / "no-usable-face").rglob("*.jpg"))]
        for recognizer in ways.values():
            list(recognizer([image for _, image, _ in images[:24]]))  # kernels are compiled at the first use
        for kind, change in KINDS.items():
            changed = [change(image, box) for _, image, box in images]
            for chance, recognizer in ways.items():
                print(f"{kind:26} {_NAMES[chance]:8}", _judged(names, enrolled, changed, recognizer))
        for chance, recognizer in ways.items():
            print(f"{'no usable face':26} {_NAMES[chance]:8}", _judged([""] * len(empty), enrolled, empty, recognizer))
        gallery.close()


def _judged(names: list[str], enrolled: set[str], images: list[Image], recognizer: object) -> str:
    started = time.process_time()
    results = list(recognizer(images))  # type: ignore[operator]
    spent = (time.process_time() - started) / len(images)
    sure = right = wrong = strangers = 0
    for name, result in zip(names, results, strict=True):
        faces = [one for one in result.predictions if not one.face.doubtful]
        sure += bool(faces)
        given = {one.person for one in faces if one.person}
        right += name in given
        wrong += bool(given - {name}) and name in enrolled
        strangers += bool(given) and name not in enrolled
    return (
        f"sure faces in {sure} of {len(images)}, named right {right}, enrolled people named wrong {wrong}, "
        f"strangers named {strangers}, {1000 * spent:.0f} ms a photo"
    )


if __name__ == "__main__":
    main()
