"""The shipped embedder computes what its weights' description promises, in every number format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from facepipe.embed.embedder import NetworkEmbedder, load_embedder
from facepipe.embed.embedding import embed
from facepipe.errors import DeviceError, ModelError
from facepipe.models.devices import resolve_device
from facepipe.models.engines import TorchEngine
from facepipe.models.mini import build
from facepipe.models.networks import load_engine
from facepipe.models.registry import get_record, read_weights
from facepipe.types import Detected, Embedder, Embeddings, Face, Image, Quality, UInt8

#: From the description of the weights: the pattern below gives a unit embedding that begins with these numbers.
CHECK = [-0.00248, -0.13712, -0.23883, 0.03059, -0.05690, 0.10648, 0.06676, -0.04105]


def pattern() -> UInt8:
    y, x = np.mgrid[0:112, 0:112]
    return np.stack([2 * x % 256, 2 * y % 256, (x + y) % 256], -1).astype(np.uint8)[None]


def embedder_in(dtype: torch.dtype) -> NetworkEmbedder:
    from safetensors.torch import load

    record = get_record("mini")
    return NetworkEmbedder(record, TorchEngine(build(load(read_weights(record)[0])), torch.device("cpu"), dtype))


@pytest.fixture(scope="module")
def mini() -> Embedder:
    return load_embedder("mini", "cpu")


@pytest.fixture(scope="module")
def noise() -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (70, 112, 112, 3), np.uint8)


def test_the_check_value_in_float32() -> None:
    vector = embedder_in(torch.float32).embed(pattern()).vectors[0]
    assert vector[:8] == pytest.approx(CHECK, abs=1e-5)


def test_bfloat16_says_nearly_the_same_under_the_same_fingerprint(noise: UInt8) -> None:
    exact, fast = embedder_in(torch.float32), embedder_in(torch.bfloat16)
    chips = np.concatenate([pattern(), noise[:4]])
    cosines = (exact.embed(chips).vectors * fast.embed(chips).vectors).sum(axis=1)
    assert cosines.min() > 0.999
    assert exact.fingerprint == fast.fingerprint


def test_vectors_do_not_depend_on_who_shares_the_batch(mini: Embedder, noise: UInt8) -> None:
    alone = np.concatenate([mini.embed(noise[i : i + 1]).vectors for i in (0, 40, 69)])
    together = mini.embed(noise).vectors[[0, 40, 69]]
    assert np.abs(alone - together).max() < 0.02


def test_no_chips_give_no_vectors(mini: Embedder) -> None:
    assert mini.embed(np.zeros((0, 112, 112, 3), np.uint8)).vectors.shape == (0, 256)


@pytest.mark.parametrize("chips", [np.zeros((1, 150, 150, 3), np.uint8), np.zeros((1, 112, 112, 3), np.float32)])
def test_wrong_chips_are_refused(mini: Embedder, chips: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(n, 112, 112, 3\)"):
        mini.embed(chips)


def test_weights_that_do_not_fit_are_refused() -> None:
    from safetensors.torch import save

    with pytest.raises(ModelError, match="do not fit"):
        NetworkEmbedder(
            get_record("mini"), load_engine(get_record("mini"), save({"stem.weight": torch.zeros(1)}), "cpu")
        )
    with pytest.raises(ModelError, match="do not fit"):
        NetworkEmbedder(get_record("mini"), load_engine(get_record("mini"), b"no safetensors", "cpu"))


class Constant:
    """An engine whose answer is fixed."""

    batch = 64

    def __init__(self, value: float, dim: int = 256) -> None:
        self.value, self.dim = value, dim

    def run(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.full((len(x), self.dim), self.value, np.float32),)


@pytest.mark.parametrize(
    ("engine", "message"),
    [(Constant(np.nan), "not finite"), (Constant(0.0), "zero"), (Constant(1.0, 12), r"\(2, 256\), got \(2, 12\)")],
)
def test_a_bad_answer_is_an_error_not_a_vector(engine: Constant, message: str, noise: UInt8) -> None:
    with pytest.raises(ModelError, match=message):
        NetworkEmbedder(get_record("mini"), engine).embed(noise[:2])


def test_the_centre_is_subtracted_before_scaling(noise: UInt8) -> None:
    centre = (0.5, *[1.0] * 255)
    record = replace(get_record("mini"), centre=centre)
    vectors = NetworkEmbedder(record, Constant(1.0)).embed(noise[:1]).vectors
    assert vectors[0].tolist() == [1.0, *[0.0] * 255]
    assert record.fingerprint != get_record("mini").fingerprint


def test_faces_of_many_pictures_share_batches_and_come_back_in_order(mini: Embedder, noise: UInt8) -> None:
    quality = Quality(80.0, 500.0, 0.0, 0.0, 0.0, 0.2)
    rng = np.random.default_rng(1)

    def face() -> Face:
        points = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]]) + rng.normal(0, 2, (5, 2))
        return Face(np.array([20, 20, 80, 90], np.float32), 0.9, points.astype(np.float32), quality)

    images = [Image(chip) for chip in noise[:4]]
    faces = [(face(), face()), (), (face(),), (face(), face(), face())]
    calls = []

    class Counting:
        name, fingerprint, dim, template = mini.name, mini.fingerprint, mini.dim, mini.template

        def embed(self, chips: UInt8) -> Embeddings:
            calls.append(len(chips))
            return mini.embed(chips)

    together = embed(Counting(), map(Detected, images, faces))
    assert calls == [6]
    assert [len(photo.embeddings) for photo in together] == [2, 0, 1, 3]
    for image, own, result in zip(images, faces, together, strict=True):
        alone = embed(mini, [Detected(image, own)])[0]
        assert np.abs(alone.embeddings.vectors - result.embeddings.vectors).max(initial=0.0) < 0.02


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:99", "mps", ""])
def test_a_device_that_is_not_there_is_an_error(text: str) -> None:
    with pytest.raises(DeviceError):
        resolve_device(text)


def test_auto_is_always_a_device() -> None:
    assert resolve_device("auto").type in {"cpu", "cuda"}
