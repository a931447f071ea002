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


@pytest.mark.parametrize("rough", [False, True])
@pytest.mark.parametrize("count", [1, 7, 33, 100])
def test_the_answers_that_count_are_those_of_torch(
    plain: TorchCascade, astronaut: Image, rough: bool, count: int
) -> None:
    networks = OneDnnCascade(rough)
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, count)
        expected = getattr(plain, name)(pixels, 0.7)
        got = getattr(networks, name)(pixels, 0.7)
        passed = expected[0] > 0.7
        assert ((got[0] > 0.7) == passed).all()
        for theirs, ours in zip(expected, got, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == np.float32
            np.testing.assert_allclose(ours[passed], theirs[passed], atol=1e-5)


def test_the_rough_pass_is_near_enough_to_throw_out_safely(plain: TorchCascade, astronaut: Image) -> None:
    networks = OneDnnCascade(rough=True)
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, 300)
        expected = getattr(plain, name)(pixels, 0.5)[0]
        # Nothing reaches this threshold, so every answer is the rough one.
        rough = getattr(networks, name)(pixels, 1 - 1e-9)[0]
        logits = [np.log(p / (1 - p)) for p in (expected.clip(1e-6, 1 - 1e-6), rough.clip(1e-6, 1 - 1e-6))]
        assert np.abs(logits[0] - logits[1]).max() < 0.5


def test_the_cpu_gets_the_fast_form() -> None:
    assert isinstance(load_cascade(torch.device("cpu")), OneDnnCascade)
