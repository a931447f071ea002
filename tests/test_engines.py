"""Every engine gives torch's float32 answers to rounding, and the quick ones never import torch."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from facepipe.embed.describer import Describer
from facepipe.embed.embedder import load_embedder
from facepipe.errors import DeviceError, ModelError
from facepipe.loading import load_describer
from facepipe.models import graphs, mini, mtcnn
from facepipe.models.engines import OpenCvEngine, TorchEngine, starts_without_torch
from facepipe.models.opencv_cascade import OpenCvCascade
from facepipe.models.registry import get_record, locate, read_weights
from facepipe.models.state_file import read_state_file
from facepipe.types import Detector, Embedder, Float32, Image
from tests.fakes import FakeDetector, FakeEmbedder, picture

CPU = torch.device("cpu")


def noise(*shape: int) -> Float32:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_opencv_and_torch_agree() -> None:
    chips = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), np.uint8)
    by_opencv, by_torch = load_embedder("mini", "cpu", quick=True), load_embedder("mini", "cpu")
    assert by_opencv.fingerprint == by_torch.fingerprint
    cosines = (by_opencv.embed(chips).vectors * by_torch.embed(chips).vectors).sum(axis=1)
    assert cosines.min() > 0.999  # torch may compute in bfloat16 here
    alone = by_opencv.embed(chips[4:]).vectors
    assert np.abs(alone - by_opencv.embed(chips).vectors[4:]).max() < 1e-4


@pytest.mark.parametrize(
    "architecture",
    [
        mini.Architecture(),
        mini.Architecture(stem=8, stem_stride=4, groups=((1, 16), (2, 24)), neck=8, dim=12),
        mini.Architecture(stem=8, groups=((2, 16), (1, 24)), expand=2, neck=8, dim=12),
    ],
    ids=["shipped", "stem of 7x7", "depthwise"],
)
def test_the_graph_is_the_network_for_the_whole_family(architecture: mini.Architecture) -> None:
    torch.manual_seed(0)
    network = mini.Mini(architecture).eval()
    graph = graphs.mini_graph({name: tensor.numpy() for name, tensor in network.state_dict().items()})
    onnx.checker.check_model(graph, full_check=True)
    x = noise(3, 3, 112, 112)
    expected = unit(TorchEngine(network, CPU, torch.float32).run(x)[0])
    assert (unit(OpenCvEngine(graph).run(x)[0]) * expected).sum(axis=1).min() > 0.9999


def test_other_weights_are_refused() -> None:
    with pytest.raises((KeyError, ValueError)):
        graphs.mini_graph({"stem.weight": noise(4, 3, 3, 3)})


@pytest.mark.parametrize("shape", [(1, 12, 12), (2, 13, 14), (1, 33, 27), (3, 61, 80)])
def test_pnet_by_opencv(shape: tuple[int, int, int]) -> None:
    levels = noise(*shape, 3)
    for ours, expected in zip(
        OpenCvCascade().propose(levels, None), mtcnn.TorchCascade(CPU).propose(levels, None), strict=True
    ):
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() < 1e-4


@pytest.mark.parametrize("count", [1, 7, 130])
def test_rnet_and_onet_by_opencv(count: int) -> None:
    by_opencv, by_torch = OpenCvCascade(), mtcnn.TorchCascade(CPU)
    pairs = [
        *zip(
            by_opencv.refine(noise(count, 24, 24, 3), 0.7), by_torch.refine(noise(count, 24, 24, 3), 0.7), strict=True
        ),
        *zip(
            by_opencv.finish(noise(count, 48, 48, 3), 0.7), by_torch.finish(noise(count, 48, 48, 3), 0.7), strict=True
        ),
    ]
    for ours, expected in pairs:
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() < 1e-4


def test_opencv_answers_several_threads_as_one() -> None:
    cascade = OpenCvCascade()
    parts = [noise(count, 48, 48, 3) for count in (7, 64, 3, 20) * 8]
    alone = [cascade.over_crops("onet", crops, None)[0] for crops in parts]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(
            alone, pool.map(lambda crops: cascade.over_crops("onet", crops, None)[0], parts), strict=True
        ):
            assert one.tobytes() == other.tobytes()


def test_a_cascade_that_does_not_mix_sizes_says_so() -> None:
    with pytest.raises(ValueError, match="does not mix"):
        OpenCvCascade().propose(noise(1, 12, 12, 3), np.array([[0, 0, 0, 12, 12]]))


def test_state_files_read_as_torch_reads_them() -> None:
    record = get_record("mtcnn")
    for data, path in zip(read_weights(record), locate(record), strict=True):
        ours, theirs = read_state_file(data, path.name), torch.load(path, weights_only=True)
        assert list(ours) == list(theirs)
        assert all(np.array_equal(ours[name], theirs[name].numpy()) for name in ours)


def pnet_bytes() -> bytes:
    return read_weights(get_record("mtcnn"))[0]


@pytest.mark.parametrize("keep", [0, 1, 20, 200, 1500, 1942, 28_569])
def test_a_truncated_state_file_is_refused(keep: int) -> None:
    with pytest.raises(ModelError, match=r"p\.pt"):
        read_state_file(pnet_bytes()[:keep], "p.pt")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ctorch._utils\n_rebuild_tensor_v2", b"cos\nsystem"),
        (b"FloatStorage", b"ByteStorage\n"),
        (b"ccollections\nOrderedDict", b"cbuiltins\nexec"),
        (b"M\xe9\x03.", b"M\xe8\x03."),  # the protocol's version
        (b"K\x03K\x03K\x03", b"K\xffK\xffK\xff"),  # the shape of the first tensor
    ],
)
def test_a_state_file_that_wants_more_than_tensors_is_refused(old: bytes, new: bytes) -> None:
    data = pnet_bytes()
    assert old in data
    with pytest.raises(ModelError, match="not a file of weights"):
        read_state_file(data.replace(old, new, 1), "p.pt")


def test_quick_falls_back_to_torch_where_opencv_cannot() -> None:
    assert starts_without_torch("cpu")
    assert not starts_without_torch("cuda:0")
    with pytest.raises(DeviceError):
        starts_without_torch("tpu")
    with pytest.raises(DeviceError, match="cuda:99"):
        load_embedder("mini", "cuda:99", quick=True)


def test_a_graph_that_opencv_cannot_read_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="OpenCV"):
        OpenCvEngine(b"no graph at all")


def test_the_quick_way_from_a_picture_to_a_vector_never_imports_torch() -> None:
    code = (
        "import sys; import numpy as np;"
        "from facepipe.embed.embedder import load_embedder; from facepipe.models.opencv_cascade import OpenCvCascade;"
        "OpenCvCascade().propose(np.zeros((1, 40, 40, 3), np.float32), None);"
        "load_embedder('mini', 'cpu', quick=True).embed(np.zeros((1, 112, 112, 3), np.uint8));"
        "print('torch' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "False"


@pytest.mark.models
def test_a_quick_extractor_finds_the_same_faces_and_vectors(astronaut: Image, hopper: Image) -> None:
    images = [astronaut, hopper]
    quick, usual = load_describer("mini", "cpu", quick=True), load_describer("mini", "cpu")
    for ours, expected in zip(quick.describe(images), usual.describe(images), strict=True):
        assert len(ours.faces) == len(expected.faces) > 0
        for face, same in zip(ours.faces, expected.faces, strict=True):
            assert np.abs(face.box - same.box).max() < 1.0
            assert np.abs(face.landmarks - same.landmarks).max() < 1.0
        assert (ours.embeddings.vectors * expected.embeddings.vectors).sum(axis=1).min() > 0.999


def test_a_quick_extractor_loads_no_torch() -> None:
    code = (
        "import sys; import numpy as np; from facepipe.loading import load_describer; from facepipe.types import Image;"
        "found = load_describer('mini', 'cpu', quick=True).describe([Image(np.zeros((200, 200, 3), np.uint8))]);"
        "print(len(found), 'torch' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "1 False"


def test_the_detectors_weights_are_checked_against_their_record(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from facepipe.models import state_file

    record = get_record("mtcnn")
    changed = replace(record, files=(*record.files[:2], replace(record.files[2], sha256="0" * 64)))
    monkeypatch.setattr(state_file, "get_record", lambda name: changed)
    with pytest.raises(ModelError, match=r"onet\.pt.*expected 0000"):
        mtcnn.TorchCascade(CPU)
    with pytest.raises(ModelError, match="install"):
        OpenCvCascade()


def test_networks_that_may_not_be_needed_are_loaded_once_and_late() -> None:
    loaded: list[int] = []

    def load() -> tuple[Detector, Embedder]:
        loaded.append(1)
        return FakeDetector(), FakeEmbedder()

    late = Describer.late(load, 24)
    assert late.photos == 24 and loaded == []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda colour: late.describe([picture(colour)]), ["red", "blue"] * 4))
    assert loaded == [1] and [len(photos[0].faces) for photos in found] == [1] * 8
