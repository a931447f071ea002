"""Arrays in memory of their own."""

from __future__ import annotations

import numpy as np
import pytest

from facepipe.memory import apart


@pytest.mark.parametrize(
    "array", [np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::-1], np.ones((1, 1)), np.eye(3, dtype=np.float32)]
)
def test_a_copy_apart_is_equal_and_independent(array: np.ndarray) -> None:
    copy = apart(array)
    assert copy.dtype == array.dtype
    np.testing.assert_array_equal(copy, array)
    before = array.copy()
    copy[...] = 0
    np.testing.assert_array_equal(array, before)
