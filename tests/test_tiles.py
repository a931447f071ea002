"""Long thin pictures are searched in tiles: each face once, in the picture's own pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.tiles import _each_once, _tiles, detect_in_tiles, is_long
from facepipe.embed.alignment import align
from facepipe.embed.embedder import load_embedder
from facepipe.images import read_image_bytes
from facepipe.models.networks import load_cascade
from facepipe.types import Face, Image
from tests.test_types import face


def on_a_strip(pictures: Sequence[Image], length: int, width: int, *, tall: bool) -> tuple[Image, list[np.ndarray]]:
    """Return a photo with the pictures spread along it, as it is read from a file, and where each was put."""
    canvas = np.full((length, width, 3) if tall else (width, length, 3), 128, np.uint8)
    corners = []
    for number, picture in enumerate(pictures):
        x, y = 20, int((number + 0.37) * length / len(pictures))
        x, y = (x, y) if tall else (y, x)
        canvas[y : y + picture.height, x : x + picture.width] = picture.rgb
        corners.append(np.array([x, y]))
    file = io.BytesIO()
    PIL.Image.fromarray(canvas).save(file, "JPEG", quality=95)
    return read_image_bytes(file.getvalue(), "strip.jpg", max_side=1280), corners


@pytest.mark.models
@pytest.mark.parametrize("tall", [False, True], ids=["panorama", "screenshot"])
def test_the_faces_of_a_long_picture_are_found_each_once(astronaut: Image, hopper: Image, *, tall: bool) -> None:
    detector = MtcnnDetector(load_cascade(torch.device("cpu")))
    embedder = load_embedder("mini", "cpu")
    pictures = []
    for image in (astronaut, hopper):
        side = 300 / max(image.width, image.height)
        small = cv2.resize(image.rgb, None, fx=side, fy=side, interpolation=cv2.INTER_AREA)
        pictures.append(Image(np.asarray(small, np.uint8)))
    strip, corners = on_a_strip([*pictures, *pictures], 12_000, 700, tall=tall)
    assert strip.scale < 0.3
    detected = next(detector.detect([strip]))
    assert len([one for one in detected.faces if not one.doubtful]) == 4
    for picture, corner in zip([*pictures, *pictures], corners, strict=True):
        alone = next(detector.detect([picture]))
        (expected,) = alone.faces
        where = expected.landmarks + corner
        found = min(detected.faces, key=lambda one: float(np.abs(one.landmarks - where).max()))
        assert np.abs(found.landmarks - where).max() < 0.08 * expected.quality.size
        first, second = (
            embedder.embed(align(one.larger or one.image, [chosen], embedder.template)).vectors[0]
            for one, chosen in ((detected, found), (alone, expected))
        )
        assert float(first @ second) > 0.9
    assert strip.enlarge is not None
    whole = strip.enlarge(12_000)
    lying = Image(np.ascontiguousarray(np.rot90(whole.rgb)), "lying", (strip.height, strip.width))
    turned = next(detector.detect([lying])).faces
    assert [one.turn for one in turned if not one.doubtful] == [90] * 4


@pytest.mark.models
@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (40_000, 30), (30, 3000)])
def test_a_line_of_pixels_has_no_faces(size: tuple[int, int]) -> None:
    width, height = size
    image = Image(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))
    assert is_long(image, 1280) and not is_long(image, None)
    detected = next(MtcnnDetector(load_cascade(torch.device("cpu"))).detect([image]))
    assert detected.faces == () and detected.larger is None


@given(
    shorter=st.integers(1, 400),
    times=st.floats(4.01, 200),
    tall=st.booleans(),
    max_side=st.integers(40, 1280),
)
def test_tiles_cover_a_picture_and_are_few(shorter: int, times: float, max_side: int, *, tall: bool) -> None:
    longer = max(round(shorter * times), 5)
    pixels = np.broadcast_to(np.zeros(3, np.uint8), (longer, shorter, 3) if tall else (shorter, longer, 3))
    image = Image(pixels)
    seen: list[Image] = []

    def find(tiles: Sequence[Image]) -> list[tuple[Face, ...]]:
        assert len(tiles) <= 8
        seen.extend(tiles)
        return [() for _ in tiles]

    assert detect_in_tiles(image, find, max_side).faces == ()
    assert 1 <= len(seen) <= 48
    assert all(min(tile.width, tile.height) <= shorter for tile in seen)
    assert sum(max(tile.width, tile.height) for tile in seen) >= longer


@given(longer=st.integers(2000, 50_000), scale=st.floats(0.02, 1.0), tall=st.booleans())
def test_neighbouring_tiles_overlap(longer: int, scale: float, *, tall: bool) -> None:
    size = (300, longer) if tall else (longer, 300)
    rgb = np.broadcast_to(np.zeros(3, np.uint8), (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)), 3))
    image = Image(rgb, size=size)
    tiles = _tiles(image, 600.0, 225.0)
    along = 1 if tall else 0
    begins = [float(offset[along]) for offset, _ in tiles]
    ends = [begin + (tile.height if tall else tile.width) for begin, (_, tile) in zip(begins, tiles, strict=True)]
    slack = 2 + 2 / image.scale
    assert begins[0] == 0 and abs(ends[-1] * image.scale - max(rgb.shape)) <= 2
    assert all(end - begin >= 225 - slack for begin, end in zip(begins[1:], ends, strict=False))


def test_of_two_tiles_the_one_that_has_the_whole_face_tells() -> None:
    cut = replace(face((0, 0, 40, 50)), score=0.99)
    whole = replace(face((0, 0, 50, 50)), score=0.9)
    other = replace(face((90, 0, 140, 50)), score=0.8)
    assert _each_once([cut, other, whole], [False, True, True]) == (whole, other)
    assert _each_once([cut], [False]) == (cut,)
