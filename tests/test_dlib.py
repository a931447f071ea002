"""Our reading of dlib's network computes dlib's descriptors; a file that is no such network is refused, not trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facepipe.errors import ModelError
from facepipe.models.dlib_reader import DlibNetwork, Layer, read_network
from facepipe.models.dlib_resnet import build
from facepipe.models.embedders import NetworkEmbedder
from facepipe.models.engines import TorchEngine
from facepipe.models.registry import get_record, locate, package_folder, read_weights
from facepipe.types import Float32, Image, UInt8

pytestmark = pytest.mark.skipif(
    package_folder("face_recognition_models") is None, reason="face_recognition_models is not installed"
)


@pytest.fixture(scope="module")
def file() -> bytes:
    return read_weights(get_record("dlib"))[0]


@pytest.fixture(scope="module")
def network(file: bytes) -> DlibNetwork:
    return read_network(file)


@pytest.fixture(scope="module")
def engine(network: DlibNetwork) -> TorchEngine:
    return TorchEngine(build(network), torch.device("cpu"), torch.float32)


def resized(rgb: UInt8) -> UInt8:
    import cv2

    return cv2.resize(rgb, (150, 150), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def chips(astronaut: Image, hopper: Image) -> UInt8:
    """Noise, a smooth pattern, black, and the two public-domain portraits, one of them mirrored as well."""
    y, x = np.mgrid[0:150, 0:150]
    pattern = np.stack([x * 255 // 149, y * 255 // 149, (x + y) % 256], -1).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    portraits = [resized(astronaut.rgb[0:210, 120:330]), resized(hopper.rgb[50:300, 130:380])]
    return np.ascontiguousarray(np.stack([pattern, *noise, *portraits, portraits[0][:, ::-1], np.zeros_like(pattern)]))


def ours(engine: TorchEngine, chips: UInt8) -> Float32:
    record = get_record("dlib")
    x = (chips.astype(np.float32) - np.float32(record.mean)) / np.float32(record.std)
    return engine.run(x.transpose(0, 3, 1, 2))[0]


def theirs(chips: UInt8) -> NDArray[np.float64]:
    dlib = pytest.importorskip("dlib")
    network = dlib.face_recognition_model_v1(str(locate(get_record("dlib"))[0]))
    return np.array([network.compute_face_descriptor(chip) for chip in chips])


def test_descriptors_equal_dlibs(engine: TorchEngine, chips: UInt8) -> None:
    assert np.abs(ours(engine, chips) - theirs(chips)).max() < 1e-4


def test_descriptors_equal_dlibs_on_real_faces(engine: TorchEngine, faces_root: Path) -> None:
    import cv2

    paths = sorted((faces_root / "strangers").iterdir())[:8]
    real = np.stack([resized(cv2.imread(str(path))[:, :, ::-1]) for path in paths])
    assert np.abs(ours(engine, real) - theirs(real)).max() < 1e-4


def test_the_record_says_what_the_file_says(network: DlibNetwork) -> None:
    record = get_record("dlib")
    assert network.mean == pytest.approx(record.mean, abs=1e-4)
    assert network.size == (record.input, record.input)


def test_vectors_are_descriptors_of_unit_length(engine: TorchEngine, chips: UInt8) -> None:
    descriptors = ours(engine, chips)
    vectors = NetworkEmbedder(get_record("dlib"), engine).embed(chips).vectors
    assert np.abs(vectors - descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)).max() < 1e-6


def test_bfloat16_says_nearly_the_same(network: DlibNetwork, chips: UInt8) -> None:
    fast = NetworkEmbedder(get_record("dlib"), TorchEngine(build(network), torch.device("cpu"), torch.bfloat16))
    exact = NetworkEmbedder(get_record("dlib"), TorchEngine(build(network), torch.device("cpu"), torch.float32))
    assert (fast.embed(chips).vectors * exact.embed(chips).vectors).sum(axis=1).min() > 0.9995


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 20, 300, 330, 345, 20_000, 22_466_065])
def test_a_truncated_file_is_refused(file: bytes, keep: int) -> None:
    with pytest.raises(ModelError, match="not a dlib network"):
        read_network(file[:keep])


def test_trailing_bytes_are_refused(file: bytes) -> None:
    with pytest.raises(ModelError, match="not a dlib network"):
        read_network(file + b"\x01")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_quickly(data: bytes) -> None:
    with pytest.raises(ModelError):
        read_network(data)


@settings(max_examples=150)
@given(st.integers(0, 360), st.integers(0, 255))
def test_a_changed_byte_in_the_head_never_escapes_as_another_error(file: bytes, at: int, value: int) -> None:
    head = bytearray(file[:20_000])
    head[at] = value
    with pytest.raises(ModelError):
        read_network(bytes(head))


def test_a_tensor_that_claims_more_than_the_file_holds_allocates_nothing(file: bytes) -> None:
    at = file.index(b"con_4") + len(b"con_4") + 2
    claim = b"\x08" + b"\xff" * 7 + b"\x7f"  # the largest 64-bit size, four times
    with pytest.raises(ModelError, match="left"):
        read_network(file[:at] + claim * 4 + file[at + 9 :])


def test_parameters_that_are_not_finite_are_refused(file: bytes) -> None:
    at = file.index(b"con_4") + len(b"con_4") + 2 + 9
    with pytest.raises(ModelError, match="not finite"):
        read_network(file[:at] + b"\x00\x00\xc0\x7f" + file[at + 4 :])


def without(network: DlibNetwork, index: int) -> DlibNetwork:
    layers = network.layers[:index] + network.layers[index + 1 :]
    return DlibNetwork(network.mean, network.size, layers)


@pytest.mark.parametrize("index", [0, 1, 3, 50, 107])
def test_another_architecture_is_refused(network: DlibNetwork, index: int) -> None:
    with pytest.raises(ModelError, match="not dlib's face network"):
        build(without(network, index))


def test_more_layers_and_other_sizes_are_refused(network: DlibNetwork) -> None:
    extra = (*network.layers, Layer("relu_", (), np.zeros(0, np.float32)))
    with pytest.raises(ModelError, match="1 layers too many"):
        build(DlibNetwork(network.mean, network.size, extra))
    with pytest.raises(ModelError, match="input"):
        build(DlibNetwork(network.mean, (112, 112), network.layers))
    first = Layer("con_4", network.layers[0].numbers, network.layers[0].parameters[:-1])
    with pytest.raises(ModelError, match="parameters"):
        build(DlibNetwork(network.mean, network.size, (first, *network.layers[1:])))
