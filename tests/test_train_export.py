"""Steps 4 and 5 and the commands: what is exported is what was trained, facepipe runs it, and the price of adapting is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from facepipe.errors import FacepipeError, InputError, ModelError, UsageError
from facepipe.networks import mini
from facepipe.networks.registry import load_embedder
from facepipe.types import Image
from scripts.train import adapt, export
from scripts.train.cli import cli
from scripts.train.data import plain_chips
from scripts.train.distill import Machine, Run
from scripts.train.search import compare, table
from scripts.train.shards import CropSet, read_json
from scripts.train.students import ARCHITECTURES
from tests.test_train_distill import HERE, PLAN, TINY, data  # noqa: F401 - `data` is a fixture


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(export, "MEASURE_SECONDS", 0.02)


@pytest.mark.parametrize("norm", ["ws", "bn"])
def test_what_is_exported_is_what_was_trained(data: tuple[Path, Path], tmp_path: Path, norm: str) -> None:  # noqa: F811
    run = Run(replace(PLAN, norm=norm), HERE, *data, tmp_path / "run")
    run.go()
    chips = plain_chips(CropSet(data[0]), np.arange(20))
    few = export.export(tmp_path / "run", tmp_path / "few", "own", chips, people=list("abcdefghijklmnopqrst"))
    assert few["record"]["threshold"] is None and "too few" in few["record"]["accuracy"][0]
    facts = export.export(tmp_path / "run", tmp_path / "out", "own", chips, threshold=0.5)
    assert min(facts["agreement"].values()) >= 0.999 and len(facts["agreement"]) == 3
    x = (torch.from_numpy(chips).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.no_grad():
        trained = torch.nn.functional.normalize(run.student.average.eval()(x)).numpy()
    from facepipe.networks.registry import record_from_dict
    from facepipe.networks.store import add_model

    add_model(record_from_dict(facts["record"]), tmp_path / "out" / "own.safetensors")
    assert (load_embedder("own", "cpu").embed(chips).vectors * trained).sum(axis=1).min() > 0.999
    card = export.model_card(facts, [], {"crops": 48, "photos": 50, "dropped": {"no face": 2}})
    assert facts["record"]["files"][0]["sha256"] in card and "no face: 2" in card and "Limits" in card


def test_the_threshold_is_what_one_pair_of_different_people_in_a_thousand_reaches() -> None:
    torch.manual_seed(0)
    network = mini.Mini(TINY).eval()
    chips = np.random.default_rng(0).integers(0, 256, (60, 112, 112, 3), np.uint8)
    people = [str(i // 2) for i in range(60)]
    threshold, line = export.measured_threshold(network, chips, people)
    assert threshold is not None and "1,740 pairs" in line
    x = (torch.from_numpy(chips).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.no_grad():
        v = torch.nn.functional.normalize(network(x)).numpy()
    a, b = np.triu_indices(60, 1)
    other = a // 2 != b // 2
    assert 0 <= ((v @ v.T)[a, b][other] >= threshold - 0.0006).mean() <= 0.01


def test_formats_that_do_not_agree_are_not_exported() -> None:
    import safetensors.torch

    from facepipe.networks.graphs import mini_graph

    torch.manual_seed(0)
    network = mini.Mini(TINY).eval()
    state = {k: v.detach() for k, v in network.state_dict().items()}
    onnx = mini_graph({k: v.numpy() for k, v in state.items()})
    chips = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    assert min(export.agreement(network, safetensors.torch.save(state), onnx, chips).values()) > 0.999
    other = {k: v + 0.1 if k == "fc.bias" else v for k, v in state.items()}
    with pytest.raises(ModelError, match="agrees with the trained network only"):
        export.agreement(network, safetensors.torch.save(other), onnx, chips)


def test_the_model_card_has_the_figures_of_evaluate() -> None:
    report = {
        "schema_version": 1, "pairs": 6000, "accuracy": 0.972, "accuracy_sd": 0.006, "eer": 0.03, "failed_to_enrol": 2,
        "tar_at_far": {"0.001": 0.84}, "groups": [{"group": "men", "accuracy": 0.97, "pairs": 100}],
    }  # fmt: skip
    lines = " ".join(export._figures(report))
    assert "97.20 % +- 0.60" in lines and "84.0 % at FAR 0.001" in lines and "Group men" in lines
    assert "rank1: 0.99" in export._figures({"schema_version": 1, "rank1": 0.99})[0]
    with pytest.raises(InputError, match="evaluate"):
        export._figures({"x": 1})


def test_a_run_without_checkpoint_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the step before"):
        export.load_student(tmp_path)


def test_students_are_compared_on_equal_terms_and_the_comparison_resumes(
    data: tuple[Path, Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    plan = replace(PLAN, samples=32)
    rows = compare(["tiny", "tiny/bn"], plan, Machine("cpu", 0), *data, tmp_path / "s")
    assert [row["name"] for row in rows] == ["tiny/ws", "tiny/bn"] and all(row["samples"] == 32 for row in rows)
    assert rows[0]["bytes_float16"] == 2 * rows[0]["parameters"] and rows[0]["within_limits"]
    assert compare(["tiny", "tiny/bn"], plan, Machine("cpu", 0), *data, tmp_path / "s") == rows
    lines = table(rows).splitlines()
    assert len(lines) == 4 and "ms float32" in lines[0] and "| tiny/bn |" in lines[3]


def test_adapting_warns_when_strangers_pay_for_it() -> None:
    before = {"fpir_at_threshold": 0.01, "far_of_strangers_at_threshold": 0.001, "found_at_fpir_1%": 0.8}
    better = {**before, "found_at_fpir_1%": 0.9}
    assert adapt.warnings(before, better, 200) == []
    worse = {"fpir_at_threshold": 0.2, "far_of_strangers_at_threshold": 0.01, "found_at_fpir_1%": 0.9}
    lines = adapt.warnings(before, worse, 200)
    assert len(lines) == 2 and "chance does not explain it" in lines[0] and "more alike" in lines[1]
    assert "keep the old network" in adapt.warnings(before, before, 200)[0]
    tar = "tar_of_strangers_at_far_1e-3"
    assert "told apart worse" in adapt.warnings({**before, tar: 0.9}, {**better, tar: 0.8}, 200)[0]


def test_the_gain_is_measured_on_unseen_photos_of_known_people() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(16, 16)))[0].astype(np.float32)
    people = np.repeat(np.arange(4), 3)
    unseen = np.tile([False, False, True], 4)
    own = centres[people]
    others = centres[np.repeat(np.arange(4, 10), 2)]
    who = np.repeat(np.arange(6), 2)
    found = adapt.figures(own, people, unseen, others, who, 0.5)
    assert found["rank1"] == found["found_at_threshold"] == found["tar_of_strangers_at_far_1e-3"] == 1.0
    assert found["fpir_at_threshold"] == found["far_of_strangers_at_threshold"] == 0.0 and found["probes"] == 4
    with pytest.raises(UsageError, match="at least two photos"):
        adapt.figures(own, people, np.zeros(12, bool), others, who, 0.5)


# ---- the commands ----


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.models
def test_one_command_from_photos_to_a_registered_model(tmp_path: Path, astronaut: Image, hopper: Image) -> None:
    from facepipe.images import write_image

    photos = tmp_path / "photos"
    for name, image in (("ann", astronaut), ("grace", hopper)):
        for i in range(4):
            shifted = np.ascontiguousarray(np.roll(image.rgb, 40 * i, axis=1))
            turned = np.rot90(shifted, 2)[::-1] if i % 2 else shifted  # every other one mirrored: another picture
            write_image(photos / name / f"{i}.png", np.ascontiguousarray(turned))
    common = ["--crop-workers", "0", "--workers", "0", "--device", "cpu", "--batch", "2", "--threads", "1"]
    arguments = ["--out", str(tmp_path / "w"), "--name", "own", "--teacher", "mini", "--architecture", "tiny256"]
    ARCHITECTURES["tiny256"] = replace(TINY, dim=256)
    try:
        output = call("all", str(photos), *arguments, "--samples", "8", "--hold-out", "0", *common)
    finally:
        del ARCHITECTURES["tiny256"]
    assert output.strip().endswith("own.safetensors")
    assert load_embedder("own", "cpu").dim == 256
    assert "dropped" in read_json(tmp_path / "w" / "crops" / "summary.json")
    card = (tmp_path / "w" / "model" / "own.md").read_text()
    assert "Teacher `mini`" in card
    result = json.loads(
        call("adapt", str(photos), "--strangers", str(photos), "--out", str(tmp_path / "a"), "--name", "own2",
             "--samples", "4", "--lr", "1e-6", *common)
    )  # fmt: skip
    assert result["before"]["rank1"] == result["after"]["rank1"] == 1.0
    assert result["after"]["fpir_at_threshold"] > 0.5  # these strangers are the people themselves


def test_commands_refuse_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FacepipeError, match="no such file"):
        call("crops", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o"), "--crop-workers", "0")
    with pytest.raises(UsageError, match="belong together"):
        call("distill", "--crops", "x", "--targets", "x", "--out", str(tmp_path), "--eval-pairs", "p")
