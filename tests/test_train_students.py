"""Trainable students fold into plain networks that compute the same, and a file of weights says what network it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from facepipe.errors import ModelError, UsageError
from facepipe.models.mini import Architecture, Mini, architecture_of, build
from scripts.train.students import ARCHITECTURES, folded, trainable

TINY = Architecture(stem=8, groups=((1, 8), (2, 16), (1, 16)), neck=4, dim=8)
TINY_DEPTHWISE = Architecture(stem=8, stem_stride=4, groups=((1, 8), (2, 12)), expand=2, neck=4, dim=8)


@pytest.mark.parametrize("architecture", [TINY, TINY_DEPTHWISE], ids=["basic", "depthwise"])
@pytest.mark.parametrize("norm", ["bn", "ws", "none"])
def test_folding_changes_nothing_but_rounding(architecture: Architecture, norm: str) -> None:
    torch.manual_seed(0)
    network = trainable(Mini(architecture), norm)
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    x = torch.randn(6, 3, 112, 112)
    for _ in range(3):  # away from the start, where the last convolutions are zero
        optimizer.zero_grad()
        network.train()(x).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        expected, plain = network.eval()(x), folded(network)(x)
    assert torch.allclose(expected, plain, atol=1e-4)
    assert all(isinstance(m, torch.nn.Conv2d) or "onv" not in type(m).__name__ for m in folded(network).modules())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES.values(), TINY, TINY_DEPTHWISE])
def test_the_architecture_stands_in_the_shapes(architecture: Architecture) -> None:
    with torch.device("meta"):
        weights = Mini(architecture).state_dict()
    assert architecture_of(weights) == architecture


def test_every_student_maps_chips_to_vectors_within_the_limit_on_size() -> None:
    for architecture in ARCHITECTURES.values():
        network = Mini(architecture)
        assert network(torch.zeros(1, 3, 112, 112)).shape == (1, 256)
        assert sum(p.numel() for p in network.parameters()) * 2 <= 12e6


def test_strange_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="mini's family"):
        build({"stem.weight": torch.zeros(4, 3, 5, 5)})
    with pytest.raises(ValueError, match="mini's family"):
        build({})


def test_a_standardised_network_starts_with_unit_variance_signals() -> None:
    torch.manual_seed(0)
    network = trainable(Mini(ARCHITECTURES["v0"]), "ws")
    with torch.no_grad():
        assert 0.3 < float(network(torch.randn(4, 3, 112, 112)).std()) < 3.0


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="bn, ws, none"):
        trainable(Mini(TINY), "layer")


def test_a_trained_network_is_added_as_it_is_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from facepipe.cli.models import models
    from facepipe.embed.embedder import load_embedder
    from facepipe.models.registry import get_record

    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    torch.manual_seed(0)
    network = Mini(TINY).eval()
    save_file({k: v.half() for k, v in network.state_dict().items()}, tmp_path / "own.safetensors")
    models.main(["add", str(tmp_path / "own.safetensors"), "--name", "own"], standalone_mode=False)
    record = get_record("own")
    assert (record.network, record.dim, record.std, record.template) == ("mini", 8, (128.0,) * 3, "arcface112")
    chips = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    x = torch.from_numpy((chips.astype(np.float32) - 127.5) / 128).permute(0, 3, 1, 2)
    expected = torch.nn.functional.normalize(network(x)).detach().numpy()
    assert (load_embedder("own", "cpu").embed(chips).vectors * expected).sum(axis=1).min() > 0.999
    assert record.fingerprint in capsys.readouterr().out
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="do not fit the network"):
        models.main(["add", str(tmp_path / "bad.safetensors"), "--name", "bad"], standalone_mode=False)
    (tmp_path / "n.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match="--template"):
        models.main(["add", str(tmp_path / "n.onnx"), "--name", "n"], standalone_mode=False)
