"""A second chance finds faces in photos that are turned, dark or cut close, says how, and gives them in the photo's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from facepipe.catalog.packing import pack, unpack
from facepipe.detect.chances import CHANCES, Chance, _back, _changed, another_chance
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.looks import turned_looks
from facepipe.detect.options import DetectOptions
from facepipe.detect.work import Candidates, prepare
from facepipe.embed.alignment import align
from facepipe.embed.embedder import load_embedder
from facepipe.gallery.enrolment.enroller import faults
from facepipe.models.networks import load_cascade
from facepipe.records import face_record
from facepipe.types import Described, Embeddings, Face, Image, Quality
from tests.test_types import face

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector(load_cascade(torch.device("cpu")))


def turned(image: Image, degrees: int) -> Image:
    """Return the picture as a scan that lies on its side: it must be turned so many degrees clockwise to stand."""
    return Image(np.ascontiguousarray(np.rot90(image.rgb, degrees // 90)), image.path)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_on_its_side_or_head_has_the_same_face(
    detector: MtcnnDetector, astronaut: Image, hopper: Image, degrees: int
) -> None:
    embedder = load_embedder("mini", "cpu")
    for image in (astronaut, hopper):
        (upright,) = next(detector.detect([image])).faces
        lying = turned(image, degrees)
        found = next(detector.detect([lying])).faces[0]
        assert (found.turn, found.enhanced, found.doubtful) == (degrees, False, False)
        assert face_record(found)["turn"] == degrees
        # In the pixels of the photo as it lies: turned back, it is where it was.
        back = turned(lying, 360 - degrees)
        assert (back.width, back.height) == (image.width, image.height)
        x, y = upright.landmarks.T
        where = {
            90: np.stack([y, image.width - x], axis=1),
            180: np.stack([image.width - x, image.height - y], axis=1),
            270: np.stack([image.height - y, x], axis=1),
        }[degrees]
        side = upright.quality.size
        assert np.abs(found.landmarks - where).max() < 0.12 * side
        inside = (found.landmarks >= found.box[:2]) & (found.landmarks <= found.box[2:])
        assert inside.all()
        one, other = (
            embedder.embed(align(picture, [one], embedder.template)).vectors[0]
            for picture, one in ((image, upright), (lying, found))
        )
        assert one @ other > 0.8, "aligned from the photo as it is"
        assert not [text for text in faults(found) if "upright" in text], "it can be enrolled"


def test_a_dark_photo_is_brightened_to_find_the_face_and_says_so(detector: MtcnnDetector, astronaut: Image) -> None:
    (upright,) = next(detector.detect([astronaut])).faces
    dark = Image((astronaut.rgb * 0.08).astype(np.uint8), "dark.png")
    assert not MtcnnDetector(detector.networks, DetectOptions(second_chance=False)).find([dark])[0]
    (found,) = next(detector.detect([dark])).faces
    assert found.enhanced and found.turn == 0
    assert np.abs(found.box - upright.box).max() < 0.25 * upright.quality.size


def test_without_second_chances_there_are_none(detector: MtcnnDetector, hopper: Image) -> None:
    plain = MtcnnDetector(detector.networks, DetectOptions(second_chance=False))
    faces = next(plain.detect([turned(hopper, 180)])).faces
    assert all(found.turn == 0 for found in faces)


def test_nothing_is_searched_again_where_a_face_is_certain_and_the_others_share_batches() -> None:
    images = [Image(np.full((60, 80, 3), value, np.uint8), str(value)) for value in (10, 20, 30)]
    asked: list[list[str]] = []

    def find(changed: Sequence[Image]) -> list[tuple[Face, ...]]:
        asked.append([image.path for image in changed])
        return [(scored(0.97),) if image.path == "20" and len(asked) == 2 else () for image in changed]

    certain, doubtful = (scored(0.99),), (scored(0.5),)
    found = another_chance(images, [certain, (), doubtful], find, 100)
    assert asked[0] == ["20", "30"] and asked[1] == ["20", "30"] and all(paths == ["30"] for paths in asked[2:])
    assert found[0] is certain and found[2] is doubtful, "what was found stays where no chance is better"
    assert found[1][0].turn == CHANCES[1].turn == 90
    assert another_chance(images, [certain] * 3, lambda _: pytest.fail("searched again"), 100) == [certain] * 3


def scored(score: float, roll: float = 0.0) -> Face:
    return Face(
        np.array([10, 10, 40, 50], np.float32),
        score,
        face().landmarks * 0.3 + 5,
        Quality(30.0, 99.0, 0.0, 0.0, roll, 0.2),
    )


def test_a_leaning_face_is_looked_for_in_the_turned_photo_and_the_best_chance_counts() -> None:
    image = Image(np.full((60, 80, 3), 9, np.uint8), "a")
    scores = iter([0.75, 0.9, 0.8, 0.72, 0.7])
    found = another_chance([image], [(scored(0.98, roll=70.0),)], lambda _: [(scored(next(scores)),)], 100)
    assert found[0][0].turn == 90 and found[0][0].score == 0.9


def test_a_group_that_lies_on_its_side_is_searched_as_one_that_stands(
    detector: MtcnnDetector, astronaut: Image, hopper: Image
) -> None:
    group = np.full((600, 1700, 3), 128, np.uint8)
    for place, image in enumerate(
        (astronaut, hopper, astronaut)
    ):  # the smaller faces are too small for another chance alone
        group[40:552, 20 + 560 * place : 532 + 560 * place] = image.rgb[:512, :512]
    for degrees in (0, 90, 180):
        faces = next(detector.detect([turned(Image(group), degrees)])).faces
        assert [found.turn for found in faces if not found.doubtful] == [degrees] * 3


class HeadsUp:
    """Networks to which a crop is a face as far as its upper half is brighter than its lower one."""

    def finish(self, crops: NDArray[np.float32], _: float) -> tuple[NDArray[np.float32], None, None]:
        return 0.5 + (crops[:, :24].mean(axis=(1, 2, 3)) - crops[:, 24:].mean(axis=(1, 2, 3))) / 4, None, None


def test_a_face_that_looks_better_on_its_head_is_less_sure(detector: MtcnnDetector) -> None:
    rgb = np.zeros((100, 200, 3), np.uint8)
    rgb[:50, :100], rgb[50:, 100:] = 255, 255  # on the left one that stands, on the right one on its head
    looking: Any = HeadsUp()
    work = prepare(Image(rgb), detector.options)
    boxes = np.array([[25, 25, 75, 75], [125, 25, 175, 75]] * 2, np.float32)
    score = np.array([0.9, 0.9, 0.995, 0.995], np.float32)
    found = Candidates(boxes, score, np.array([0, 0, 1, 1]))
    after = turned_looks(looking, [work, work], found).tolist()
    assert after[0] == pytest.approx(0.9) and after[1] <= 0.8001
    assert after[2:] == pytest.approx([0.995, 0.995])  # nobody asks
    together = Candidates(boxes, score, np.zeros(4, np.int64))
    # The picture has a certain face.
    assert turned_looks(looking, [work], together).tolist() == pytest.approx(score)


sides = st.integers(30, 200)


@given(sides, sides, st.sampled_from([chance for chance in CHANCES if not chance.brighter]), st.integers(0, 9))
def test_a_face_comes_back_to_where_it_is(width: int, height: int, chance: Chance, seed: int) -> None:
    rng = np.random.default_rng(seed)
    marks = np.stack([rng.uniform(5, width - 5, 5), rng.uniform(5, height - 5, 5)], axis=1)
    rgb = np.zeros((height, width, 3), np.uint8)
    for number, (x, y) in enumerate(marks.astype(int), 1):
        rgb[y, x] = (number * 40, 0, 0)
    image = Image(rgb, "a")
    changed = _changed(image, chance)
    assert changed is not None
    seen, places = [], []
    for number, (x, y) in enumerate(marks.astype(int), 1):
        if (rgb[y, x] == (number * 40, 0, 0)).all():
            rows, columns = np.nonzero(changed.rgb[:, :, 0] == number * 40)
            seen.append((columns.mean() + 0.5, rows.mean() + 0.5))
            places.append((x + 0.5, y + 0.5))
    if chance.border or len(seen) < 5:  # a mark at the border is drawn out into it
        return
    moved = _back(
        Face(np.array([1, 1, 9, 9], np.float32), 0.9, np.array(seen, np.float32), Quality(8, 1, 0, 0, 0, 0)),
        image,
        changed,
        chance,
    )
    np.testing.assert_allclose(moved.landmarks, places, atol=1e-3)
    assert moved.box[0] < moved.box[2] and moved.box[1] < moved.box[3]
    assert moved.turn == chance.turn


def test_how_a_face_was_found_is_kept_in_the_catalog() -> None:
    found = Face(np.array([1, 2, 30, 40], np.float32), 0.9, face().landmarks, face().quality, 270, True)
    vectors = Embeddings(np.eye(1, 8, dtype=np.float32), "m")
    again = unpack(pack(Described("a", (50, 60), (found,), vectors)), "a", "m")
    assert again is not None and (again.faces[0].turn, again.faces[0].enhanced) == (270, True)
