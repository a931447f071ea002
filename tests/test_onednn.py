"""MTCNN's networks in oneDNN's layout against the same networks in torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facepipe.networks.mtcnn import TorchCascade, load_cascade
from facepipe.networks.onednn import OneDnnCascade, available
from facepipe.types import Float32, Image

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not available(), reason="this torch was built without oneDNN"),
]


@pytest.fixture(scope="module")
def plain() -> TorchCascade:
    return TorchCascade(torch.device("cpu"))


def crops(image: Image, size: int, count: int) -> Float32:
    """Cut squares of all sizes from a portrait: some hold the face, most do not."""
    from facepipe.detection.pyramid import crop_area, integral_image

    rng = np.random.default_rng(5)
    side = rng.integers(40, 300, count)
    corner = (rng.random((count, 2)) * (np.array([image.width, image.height]) - side[:, None])).astype(np.int64)
    boxes = np.concatenate([corner, corner + side[:, None]], axis=1)
    return (crop_area(integral_image(image.rgb), boxes, size) - 127.5) / 128


@pytest.mark.parametrize("count", [1, 7, 33, 100])
def test_in_float32_the_answers_are_those_of_torch(plain: TorchCascade, astronaut: Image, count: int) -> None:
    networks = OneDnnCascade(rough=False)
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, count)
        expected = getattr(plain, name)(pixels, 0.7)
        got = getattr(networks, name)(pixels, 0.7)
        for theirs, ours in zip(expected, got, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_in_bfloat16_the_decisions_are_the_same_and_the_boxes_near(plain: TorchCascade, astronaut: Image) -> None:
    networks = OneDnnCascade(rough=True)
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, 300)
        for least in (0.1, 0.5, 0.7, 0.9):
            expected = getattr(plain, name)(pixels, least)
            got = getattr(networks, name)(pixels, least)
            passed = expected[0] > least
            assert passed.any() and ((got[0] > least) == passed).all()
            for theirs, ours in zip(expected[1:], got[1:], strict=True):
                assert np.abs(ours[passed] - theirs[passed]).max() < 0.02


def test_the_cpu_gets_the_fast_form() -> None:
    assert isinstance(load_cascade(torch.device("cpu")), OneDnnCascade)
