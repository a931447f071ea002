"""Records are whole, files are checked before they are understood, and every network of a record computes."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from facepipe.embed.alignment import TEMPLATES
from facepipe.embed.embedder import NetworkEmbedder, load_embedder
from facepipe.errors import DeviceError, ModelError
from facepipe.models import inception
from facepipe.models.networks import load_engine
from facepipe.models.onnx_engine import OnnxEngine
from facepipe.models.registry import (
    PINNED,
    ModelFile,
    builtin_records,
    check_bytes,
    get_record,
    is_here,
    locate,
    model_folder,
    package_folder,
    read_weights,
    record_from_dict,
    records,
)
from facepipe.models.statistics import load_statistics


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def tiny_onnx(dim: int = 4, size: int = 112, batch: int | str = "n", bad: bool = False) -> bytes:
    """A network that gives the mean of each channel and their sum, `dim` numbers in all."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.zeros((3, dim), np.float32)
    weights[0, 0] = weights[1, 1] = weights[2, 2] = 1.0
    weights[:, 3:] = np.nan if bad else 0.5
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, dim])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_every_record_is_whole() -> None:
    names = [record.name for record in builtin_records()]
    assert len(set(names)) == len(names)
    assert names[0] == "mini"
    for record in builtin_records():
        assert record.licence.code and record.licence.weights and record.licence.data and record.hash_source
        assert record.kind in {"detector", "embedder"}
        assert record.place in {"shipped", "package", "folder"}
        for file in record.files:
            assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
            assert (file.url is None) == (record.place != "folder")
        if record.kind == "embedder":
            assert record.template is not None and record.dim is not None
            assert TEMPLATES[record.template].size == record.input
            assert min(record.std) > 0
    without_hash = [r.name for r in builtin_records() if any(f.sha256 is None for f in r.files)]
    assert without_hash == ["casia-webface"]


def test_the_models_with_restrictions_ask_for_consent() -> None:
    asked = {record.name for record in builtin_records() if record.licence.consent}
    assert asked == {"vggface2", "casia-webface", "w600k-mbf", "w600k-r50"}


@pytest.mark.parametrize("name", ["mini", "mtcnn"])
def test_what_is_on_this_machine_is_what_was_recorded(name: str) -> None:
    record = get_record(name)
    if not is_here(record):
        pytest.skip(f"{name} is not installed")
    for file, data in zip(record.files, read_weights(record), strict=True):
        assert len(data) == file.size


def test_a_record_survives_json() -> None:
    for record in builtin_records():
        assert record_from_dict(json.loads(json.dumps(record.as_dict()))) == record


@pytest.mark.parametrize(
    "damage",
    [
        {"files": None},
        {"licence": {}},
        {"mean": [1, 2]},
        {"std": "abc"},
        {"std": [1, 0, 1]},
        {"surprise": 1},
        {"centre": ["x"]},
        {"input": "112"},
        {"threshold": "0.4"},
        {"name": 7},
        {"place": "folder", "files": [{"file": "../../x", "sha256": None, "size": None}]},
    ],
)
def test_a_damaged_record_is_a_model_error(damage: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="damaged"):
        record_from_dict({**get_record("mini").as_dict(), **damage})


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="mini, mtcnn, yunet"):
        get_record("arcface")


def test_a_detector_is_no_embedder() -> None:
    with pytest.raises(ModelError, match="detector"):
        load_embedder("mtcnn")


def test_a_model_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match="facepipe models pull sface"):
        load_embedder("sface", "cpu")


def test_a_package_that_is_not_installed_says_what_to_do() -> None:
    record = replace(get_record("mtcnn"), package="a_package_that_is_not_here")
    assert not is_here(record)
    with pytest.raises(ModelError, match=r"install facepipe again"):
        locate(record)


def test_a_changed_file_is_refused_and_both_hashes_are_named() -> None:
    record = get_record("mini")
    data = read_weights(record)[0]
    changed = bytes([data[0] ^ 1]) + data[1:]
    with pytest.raises(ModelError) as caught:
        check_bytes(record, record.files[0], changed, Path("w.safetensors"))
    assert hashlib.sha256(changed).hexdigest() in str(caught.value)
    assert str(record.files[0].sha256) in str(caught.value)


def test_fingerprints_tell_networks_and_preprocessing_apart() -> None:
    mini = get_record("mini")
    variants = [
        mini,
        replace(mini, name="other"),
        replace(mini, template="margin160"),
        replace(mini, std=(127.5, 127.5, 127.5)),
        replace(mini, colour="bgr"),
        replace(mini, files=(replace(mini.files[0], sha256="0" * 64),)),
        get_record("sface"),
    ]
    assert len({record.fingerprint for record in variants}) == len(variants)
    assert replace(mini, note="another", threshold=0.1).fingerprint == mini.fingerprint


def test_a_threshold_that_nobody_measured_is_asked_for() -> None:
    assert get_record("mini").decision() == (0.43, 0.03)
    with pytest.raises(ModelError, match="--threshold"):
        get_record("sface").decision()


def test_the_figures_of_a_record_are_those_of_its_statistics() -> None:
    for record in builtin_records():
        statistics = load_statistics(record) if record.kind == "embedder" else None
        if statistics is not None:
            lfw, detector = statistics.card["lfw"], statistics.card["detector"]
            figures = f"LFW {100 * lfw['accuracy']:.2f} %, TAR {100 * lfw['tar_at_far']['0.001']:.2f} % at FAR 1e-3"
            assert record.accuracy == (f"{figures}, by scripts/model_card (detector {detector})",)
            assert record.margin == statistics.margin
    assert load_statistics(get_record("mini")) is not None


def test_a_pinned_hash_stands_in_for_a_recorded_one(folder: Path) -> None:
    record = get_record("casia-webface")
    file = record.files[0]
    place = locate(record)[0]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    with pytest.raises(ModelError, match="no hash is recorded"):
        read_weights(record)
    before = record.fingerprint
    place.with_name(PINNED).write_text(json.dumps({file.file: hashlib.sha256(b"weights").hexdigest()}))
    assert read_weights(record) == [b"weights"]
    assert record.fingerprint != before
    place.with_name(PINNED).write_text("{")
    with pytest.raises(ModelError, match="pull the model"):
        read_weights(record)


def test_a_damaged_user_record_is_named(folder: Path) -> None:
    (folder / "x").mkdir(parents=True)
    for text in ("{", "[]", "{}"):
        (folder / "x" / "record.json").write_text(text)
        with pytest.raises(ModelError, match=r"damaged|no JSON object|cannot be read"):
            records()


def test_the_model_folder_can_be_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_folder() == folder
    monkeypatch.delenv("FACEPIPE_MODELS")
    assert model_folder().name == "models"


def facenet_state() -> tuple[torch.nn.Module, bytes]:
    """facenet-pytorch's own network with random weights, loaded without its package's __init__."""
    root = package_folder("facenet_pytorch")
    assert root is not None
    parent = types.ModuleType("facenet_models_for_test")
    parent.__path__ = [str(root / "models")]
    sys.modules[parent.__name__] = parent
    name = f"{parent.__name__}.inception_resnet_v1"
    spec = importlib.util.spec_from_file_location(name, root / "models" / "inception_resnet_v1.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    network = module.InceptionResnetV1(classify=False, num_classes=None).eval()
    network.logits = torch.nn.Linear(512, 7)  # the published files hold their classifier as well
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return network, buffer.getvalue()


def test_facenet_weights_compute_what_facenet_computes() -> None:
    theirs, data = facenet_state()
    ours = inception.build(data)
    x = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        assert (torch.nn.functional.normalize(ours(x)) - theirs(x)).abs().max() < 1e-6
    embedder = NetworkEmbedder(get_record("vggface2"), load_engine(get_record("vggface2"), data, "cpu"))
    assert embedder.embed(np.zeros((1, 160, 160, 3), np.uint8)).vectors.shape == (1, 512)


class Malicious:
    """A pickle that would call a function."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    "content", [b"", b"no zip", Malicious(), [1, 2], {"conv2d_1a.conv.weight": torch.zeros(1)}, {"a": 1}]
)
def test_other_files_than_weights_are_refused_and_no_code_runs(
    content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    if not isinstance(content, bytes):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        content = buffer.getvalue()
    with pytest.raises(ModelError, match=r"not a|not weights"):
        inception.build(content)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("batch", ["n", 1])
def test_an_onnx_network_embeds_in_both_colour_orders(batch: int | str) -> None:
    data = tiny_onnx(batch=batch)
    base = replace(
        get_record("sface"),
        name="tiny",
        dim=4,
        files=(ModelFile("t.onnx", hashlib.sha256(data).hexdigest(), len(data)),),
    )
    chips = np.zeros((3, 112, 112, 3), np.uint8)
    chips[..., 0] = 200  # red
    rgb = NetworkEmbedder(base, load_engine(base, data, "cpu")).embed(chips).vectors
    bgr = (
        NetworkEmbedder(replace(base, colour="bgr"), load_engine(replace(base, colour="bgr"), data, "cpu"))
        .embed(chips)
        .vectors
    )
    assert rgb[0, :3] == pytest.approx([200 / np.hypot(200, 100), 0, 0], abs=1e-6)
    assert bgr[0, :3] == pytest.approx([0, 0, 200 / np.hypot(200, 100)], abs=1e-6)
    assert len(rgb) == 3


def test_files_that_onnxruntime_cannot_run_are_model_errors() -> None:
    with pytest.raises(ModelError, match="cannot load"):
        OnnxEngine(b"no protobuf", "x", "cpu")
    with pytest.raises(ModelError, match="fixed at 7"):
        OnnxEngine(tiny_onnx(batch=7), "x", "cpu")
    with pytest.raises(ModelError, match="onnxruntime failed"):
        OnnxEngine(tiny_onnx(), "x", "cpu").run(np.zeros((1, 3, 50, 50), np.float32))


def test_an_onnx_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match="CPU only"):
        OnnxEngine(tiny_onnx(), "x", "cuda:0")
    with pytest.raises(DeviceError, match="no device"):
        OnnxEngine(tiny_onnx(), "x", "tpu")


def test_without_onnxruntime_the_hint_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install onnxruntime, or facepipe with its extra \[onnx\]"):
        OnnxEngine(tiny_onnx(), "x", "cpu")


def test_the_registry_loads_nothing_heavy() -> None:
    code = (
        "import sys; from facepipe.models.registry import records, is_here; [is_here(r) for r in records()];"
        "print(sorted({'torch', 'cv2', 'onnxruntime', 'requests', 'facenet_pytorch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
