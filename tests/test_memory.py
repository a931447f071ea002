"""Arrays in memory of their own."""

from __future__ import annotations

import numpy as np
import pytest

from facepipe.images.memory import apart, room


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


@pytest.mark.parametrize("shape", [(1,), (3, 5), (1100, 1000, 4)])
def test_room_is_zero_and_can_be_written(shape: tuple[int, ...]) -> None:
    array = room(shape, np.int32)
    assert array.shape == shape and array.dtype == np.int32 and not array.any()
    array[...] = 7
    assert (array == 7).all() and not room(shape, np.int32).any()
