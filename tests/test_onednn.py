"""MTCNN's networks in oneDNN's layout against the same networks in torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facepipe.models.mtcnn import TorchCascade, pooled
from facepipe.models.networks import load_cascade
from facepipe.models.onednn import ROUGHNESS, OneDnnCascade, available
from facepipe.types import Float32, Image

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(not available(), reason="this torch was built without oneDNN"),
]

#: torch refuses bfloat16 in oneDNN on processors without AVX-512; there facepipe never asks for it.
bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 for oneDNN"
)


@pytest.fixture(scope="module")
def plain() -> TorchCascade:
    return TorchCascade(torch.device("cpu"))


def crops(image: Image, size: int, count: int) -> Float32:
    """Cut squares of all sizes from a portrait: some hold the face, most do not."""
    from facepipe.detect.pyramid import crop_area, integral_image

    rng = np.random.default_rng(5)
    side = rng.integers(40, 300, count)
    corner = (rng.random((count, 2)) * (np.array([image.width, image.height]) - side[:, None])).astype(np.int64)
    boxes = np.concatenate([corner, corner + side[:, None]], axis=1)
    return ((crop_area(integral_image(image.rgb), boxes, size) - 127.5) / 128).astype(np.float32)


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


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 8), (8, 9), (7, 11), (1, 1), (2, 1)])
def test_pooling_is_that_of_torch_also_at_odd_borders(height: int, width: int) -> None:
    values = torch.randn(2, 10, height, width).contiguous(memory_format=torch.channels_last)
    assert torch.equal(pooled(values), torch.nn.functional.max_pool2d(values, 2, 2, ceil_mode=True))


@bfloat16
def test_with_a_rough_first_look_the_answers_that_count_are_those_of_torch(
    plain: TorchCascade, astronaut: Image
) -> None:
    networks = OneDnnCascade(rough=True)
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, 300)
        for least in (0.1, 0.5, 0.7, 0.9):
            expected = getattr(plain, name)(pixels, least)
            got = getattr(networks, name)(pixels, least)
            passed = expected[0] > least
            assert passed.any() and ((got[0] > least) == passed).all()
            for theirs, ours in zip(expected, got, strict=True):
                np.testing.assert_allclose(ours[passed], theirs[passed], atol=1e-5)


@bfloat16
def test_a_rough_look_is_as_near_as_it_promises(plain: TorchCascade, astronaut: Image) -> None:
    pixels = crops(astronaut, 48, 300)
    expected, offsets, _ = plain.finish(pixels, 0.0)
    rough = OneDnnCascade(rough=True).finish_roughly(pixels)
    assert rough is not None
    between = (expected > 1e-5) & (expected < 1 - 1e-5)
    logits = [np.log(p[between] / (1 - p[between])) for p in (expected, rough[0])]
    assert np.abs(logits[0] - logits[1]).max() < ROUGHNESS
    assert np.abs(rough[1] - offsets)[expected > 0.5].max() < 0.02
    assert OneDnnCascade(rough=False).finish_roughly(pixels) is None
    assert plain.finish_roughly(pixels) is None


def test_the_cpu_gets_the_fast_form() -> None:
    assert isinstance(load_cascade(torch.device("cpu")), OneDnnCascade)
