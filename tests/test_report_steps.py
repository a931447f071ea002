"""The picture of the four steps."""

from __future__ import annotations

import numpy as np
import pytest

from facepipe.report.steps import StepRow, draw_steps
from facepipe.types import Candidate, Status
from tests.fakes import FakeDetector, picture


def test_a_row_for_each_photo_with_or_without_a_face() -> None:
    image = picture("red")
    edges = np.random.default_rng(0).uniform(0, 50, (60, 80)).astype(np.float32)
    (face,) = FakeDetector().detect([image])[0]
    chip = np.full((112, 112, 3), 200, np.uint8)
    vector = np.full(256, 1 / 16, np.float32)
    known = StepRow("a", image, edges, face, chip, vector, (Candidate("Ann", 0.8),), 0.4, Status.KNOWN, "Ann")
    one = draw_steps([known])
    two = draw_steps([known, StepRow("b", image, edges)])
    assert one.dtype == np.uint8
    assert two.shape[0] > one.shape[0] and two.shape[1] == one.shape[1]
    assert not np.array_equal(draw_steps([StepRow("b", image, edges)]), one)
    with pytest.raises(ValueError, match="at least one"):
        draw_steps([])
