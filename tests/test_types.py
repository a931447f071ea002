"""Values check themselves when they are built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from facepipe.certainty import ProbabilityCurve
from facepipe.types import Embeddings, Face, Image, Policy, Prediction, Quality, Status

QUALITY = Quality(size=80.0, sharpness=500.0, yaw=0.0, pitch=0.0, roll=0.0, edge_density=0.2)


def face(box: tuple[float, float, float, float] = (10, 20, 90, 120)) -> Face:
    return Face(np.array(box, np.float32), 0.99, np.zeros((5, 2), np.float32), QUALITY)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Image(np.zeros((4, 4), np.uint8)), "expected shape"),
        (lambda: Image(np.zeros((4, 4, 3), np.float32)), "expected dtype uint8"),
        (lambda: Image(np.zeros((0, 4, 3), np.uint8)), "at least one pixel"),
        (lambda: face((10, 20, 10, 120)), "x1 < x2"),
        (lambda: Face(np.array([0, 0, 1, 1], np.float32), 1.5, np.zeros((5, 2), np.float32), QUALITY), r"0\.\.1"),
        (lambda: Embeddings(np.ones((2, 4), np.float32), "m"), "unit length"),
        (lambda: Prediction(face(), Status.KNOWN, None, 0.5, None, 0.4), "named exactly"),
        (lambda: Prediction(face(), Status.UNKNOWN, "Ann", 0.1, None, 0.4), "named exactly"),
        (lambda: Policy(threshold=2.0, margin=0.0), "threshold"),
        (lambda: ProbabilityCurve((0.1, 0.2), (0.9, 0.1)), "do not fall"),
        (lambda: ProbabilityCurve((), ()), "at least one"),
    ],
)
def test_a_wrong_value_is_refused_with_expected_and_actual(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_arrays_inside_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        face().box[0] = 0.0


def test_no_vectors_are_valid_embeddings() -> None:
    assert len(Embeddings(np.zeros((0, 256), np.float32), "m")) == 0


def test_scale_says_how_much_smaller_the_pixels_are_than_the_picture() -> None:
    image = Image(np.zeros((50, 100, 3), np.uint8), size=(200, 100))
    assert (image.width, image.height, image.scale) == (200, 100, 0.5)


def test_a_curve_interpolates_and_holds_its_ends() -> None:
    curve = ProbabilityCurve((0.2, 0.6), (0.0, 1.0))
    assert [curve(-1.0), curve(0.4), curve(1.0)] == [0.0, pytest.approx(0.5), 1.0]
