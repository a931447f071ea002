"""Chips show the face where the template wants it, turned upright, and without false patterns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.embed.alignment import TEMPLATES, align, similarity_transforms
from facepipe.errors import NoFaceError, UsageError
from facepipe.types import Face, Image, Quality, UInt8

QUALITY = Quality(80.0, 500.0, 0.0, 0.0, 0.0, 0.2)
ARCFACE = np.asarray(TEMPLATES["arcface112"].points)
POINTED = [name for name, template in TEMPLATES.items() if template.points is not None]


def face(landmarks: np.ndarray, box: tuple[float, float, float, float] = (0, 0, 10, 10)) -> Face:
    return Face(np.array(box, np.float32), 0.9, landmarks.astype(np.float32), QUALITY)


def turned(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(scale * points @ rotation.T + shift)


def dots(side: int, points: np.ndarray, radius: float) -> UInt8:
    """Draw a bright soft dot at each point of a dark picture."""
    y, x = np.mgrid[0:side, 0:side]
    grey = np.zeros((side, side))
    for px, py in points:
        grey = np.maximum(grey, 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)))
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def centre_of(chip: UInt8, point: np.ndarray) -> np.ndarray:
    """Return the brightness centre of the dot near a point."""
    x, y = np.round(point).astype(int)
    window = chip[y - 5 : y + 6, x - 5 : x + 6, 0].astype(float)
    rows, columns = np.mgrid[-5:6, -5:6]
    return np.asarray(np.array([(window * columns).sum(), (window * rows).sum()]) / window.sum() + (x, y))


@given(st.floats(-180, 180), st.floats(0.05, 50), st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)))
def test_a_turned_scaled_shifted_template_is_brought_back_exactly(
    degrees: float, scale: float, shift: tuple[float, float]
) -> None:
    landmarks = turned(ARCFACE, degrees, scale, shift)
    matrix = similarity_transforms(landmarks[None], ARCFACE)[0]
    back = landmarks @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(back - ARCFACE).max() < 1e-6


@given(st.lists(st.floats(-100, 100), min_size=10, max_size=10), st.floats(-0.2, 0.2), st.floats(-3, 3))
def test_no_other_similarity_comes_nearer(values: list[float], turn: float, shift: float) -> None:
    landmarks = ARCFACE + np.array(values).reshape(5, 2)
    matrix = similarity_transforms(landmarks[None], ARCFACE)[0]

    def error(m: np.ndarray) -> float:
        return float(((landmarks @ m[:, :2].T + m[:, 2] - ARCFACE) ** 2).sum())

    other = matrix.copy()
    other[:, :2] = matrix[:, :2] @ np.array([[1, -turn], [turn, 1]])
    other[:, 2] += shift
    assert error(matrix) <= error(other) + 1e-6


def test_it_is_umeyamas_solution() -> None:
    from skimage.transform import SimilarityTransform

    rng = np.random.default_rng(3)
    landmarks = ARCFACE * 3 + rng.normal(0, 20, (6, 5, 2))
    for ours, points in zip(similarity_transforms(landmarks, ARCFACE), landmarks, strict=True):
        theirs = SimilarityTransform.from_estimate(points, ARCFACE)
        assert np.abs(ours - theirs.params[:2]).max() < 1e-6


@pytest.mark.parametrize("name", POINTED)
@pytest.mark.parametrize(("degrees", "scale"), [(0, 1.0), (30, 1.5), (-50, 2.6), (180, 5.0), (90, 0.7)])
def test_each_landmark_lands_on_its_point(name: str, degrees: float, scale: float) -> None:
    points = np.asarray(TEMPLATES[name].points)
    side = 800
    middle = turned(points.mean(axis=0)[None], degrees, scale, (0, 0))[0]
    landmarks = turned(points, degrees, scale, tuple(side / 2 - middle))
    chip = align(Image(dots(side, landmarks, 1.5 * scale)), [face(landmarks)], name)[0]
    for point in points:
        assert np.abs(centre_of(chip, point) - point).max() < 0.35


def test_landmarks_are_in_displayed_pixels_also_when_the_picture_was_read_reduced() -> None:
    points = ARCFACE * 2 + 40
    chip = align(Image(dots(320, points, 3.0), size=(640, 640)), [face(points * 2)], "arcface112")[0]
    for point in ARCFACE:
        assert np.abs(centre_of(chip, point) - point).max() < 0.35


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_fine_pattern_on_a_large_face_becomes_grey_not_a_false_pattern(name: str) -> None:
    side = 1200
    stripes = np.where(np.arange(side) % 2, 255, 0).astype(np.uint8)
    rgb = np.broadcast_to(stripes[None, :, None], (side, side, 3))
    landmarks = (ARCFACE - ARCFACE.mean(axis=0)) * 6.3 + side / 2
    chip = align(Image(np.ascontiguousarray(rgb)), [face(landmarks, (200, 200, 1000, 1000))], name)[0]
    inner = chip[40:-40, 40:-40].astype(float)
    assert abs(inner.mean() - 127.5) < 4
    assert inner.std() < 30


def test_outside_the_picture_is_black() -> None:
    chip = align(Image(np.full((60, 60, 3), 200, np.uint8)), [face(ARCFACE - 60)], "arcface112")[0]
    assert chip[0, 0].tolist() == [0, 0, 0]
    assert chip[-1, -1].tolist() == [200, 200, 200]
    far = align(Image(np.full((60, 60, 3), 200, np.uint8)), [face(ARCFACE + 1e6, (1e6, 1e6, 2e6, 2e6))], "margin160")
    assert not far.any()


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_landmarks_that_give_no_direction_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(NoFaceError, match=r"p\.jpg"):
        align(Image(np.zeros((9, 9, 3), np.uint8), "p.jpg"), [face(landmarks)], "arcface112")


@given(st.lists(st.floats(-1e7, 1e7, width=32), min_size=10, max_size=10))
def test_any_finite_landmarks_give_a_chip_or_a_planned_error(values: list[float]) -> None:
    image = Image(np.full((40, 50, 3), 9, np.uint8))
    try:
        chips = align(image, [face(np.array(values).reshape(5, 2))], "arcface112")
    except NoFaceError:
        return
    assert chips.shape == (1, 112, 112, 3)


def test_the_box_template_takes_the_box_and_its_margin() -> None:
    rgb = np.zeros((400, 400, 3), np.uint8)
    rgb[100:300, 100:300] = 255
    chip = align(Image(rgb), [face(ARCFACE, (100, 100, 300, 300))], "margin160")[0]
    # 14 of 160 chip pixels lie outside the box, 7 on each side.
    assert chip[80, :6].max() == 0
    assert chip[80, 9:-9].min() == 255
    assert chip[:6].max() == 0


def test_an_unknown_template_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="arcface112, margin160"):
        align(Image(np.zeros((9, 9, 3), np.uint8)), [], "arcface")


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_faces_give_no_chips(name: str) -> None:
    size = TEMPLATES[name].size
    assert align(Image(np.zeros((9, 9, 3), np.uint8)), [], name).shape == (0, size, size, 3)
