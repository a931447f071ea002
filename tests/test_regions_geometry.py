"""Boxes: turned as pictures are, and matched with faces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.images.colours import turned
from facepipe.regions.geometry import SAME_FACE, Box, Frame, assigned, clipped, fit, iou, shown, stored

side = st.floats(0.0, 1.0, allow_nan=False, width=32)
turns = st.integers(1, 8)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted(draw(st.tuples(side, side).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3)))
    y1, y2 = sorted(draw(st.tuples(side, side).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3)))
    return x1, y1, x2, y2


@given(boxes(), turns)
def test_what_was_turned_is_turned_back(box: Box, turn: int) -> None:
    for there_and_back in (stored(shown(box, turn), turn), shown(stored(box, turn), turn)):
        assert there_and_back == pytest.approx(box, abs=1e-12)


@given(boxes(), turns)
def test_a_turned_box_is_still_one_of_the_same_area(box: Box, turn: int) -> None:
    x1, y1, x2, y2 = shown(box, turn)
    assert x1 < x2 and y1 < y2
    assert (x2 - x1) * (y2 - y1) == pytest.approx((box[2] - box[0]) * (box[3] - box[1]))


@given(st.integers(0, 11), st.integers(0, 7), turns)
def test_a_box_turns_as_the_pixels_do(column: int, row: int, turn: int) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[row, column] = 255
    pixels = turned(pixels, turn)
    ((y, x),) = np.argwhere(pixels[..., 0])
    frame = Frame(12, 8, turn)
    width, height = frame.displayed
    assert pixels.shape[:2] == (height, width)
    box = shown((column / 12, row / 8, (column + 1) / 12, (row + 1) / 8), turn)
    assert box == pytest.approx((x / width, y / height, (x + 1) / width, (y + 1) / height))


@given(boxes(), boxes(), turns)
def test_iou(a: Box, b: Box, turn: int) -> None:
    assert iou(a, a) == pytest.approx(1.0)
    assert 0.0 <= iou(a, b) <= 1.0 + 1e-9
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert iou(shown(a, turn), shown(b, turn)) == pytest.approx(iou(a, b), abs=1e-9)


@given(st.tuples(*[st.floats(-1e9, 1e9)] * 4))
def test_what_is_clipped_lies_in_the_picture(box: Box) -> None:
    inside = clipped(box)
    assert inside is None or (0 <= inside[0] < inside[2] <= 1 and 0 <= inside[1] < inside[3] <= 1)


@given(st.lists(boxes(), max_size=6), st.lists(boxes(), max_size=6))
def test_each_face_belongs_to_one_region(regions: list[Box], faces: list[Box]) -> None:
    found = assigned(regions, faces)
    assert len(found) == len(regions)
    taken = [face for face in found if face is not None]
    assert len(taken) == len(set(taken))
    assert all(iou(regions[row], faces[face]) >= SAME_FACE for row, face in enumerate(found) if face is not None)
    assert 0 <= fit(regions, faces) <= len(regions) + 1e-9


def test_the_best_pair_comes_first() -> None:
    left, right = (0.1, 0.1, 0.3, 0.3), (0.25, 0.1, 0.45, 0.3)
    assert assigned([right, left], [left, right]) == [1, 0]
    # A region of a program that takes in hair and chin; a neighbour's face is not in it.
    assert assigned([(0.0, 0.0, 0.4, 0.4)], [(0.1, 0.1, 0.3, 0.3)]) == [0]
    assert assigned([(0.0, 0.0, 0.2, 0.2)], [(0.15, 0.0, 0.35, 0.2)]) == [None]
    assert assigned([], [left]) == []
    assert assigned([left], []) == [None]
