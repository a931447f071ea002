"""Step 4 and the commands: what is exported is what was trained, and facepipe runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from facepipe.embed.embedder import load_embedder
from facepipe.errors import FacepipeError, InputError, ModelError, UsageError
from facepipe.models import mini
from facepipe.types import Image
from scripts.train import export
from scripts.train.cli import cli
from scripts.train.data import plain_chips
from scripts.train.distill import Run
from scripts.train.evaluate import held_out_pairs
from scripts.train.lock import owned
from scripts.train.shards import CropSet, read_json, write_json
from scripts.train.steps import judging_crops
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
    facts = export.export(
        tmp_path / "run", tmp_path / "out", "own", chips, decision=export.Decision(0.5, 0.03, "given")
    )
    assert min(facts["agreement"].values()) >= 0.999 and len(facts["agreement"]) == 3
    x = (torch.from_numpy(chips).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.no_grad():
        trained = torch.nn.functional.normalize(run.student.average.eval()(x)).numpy()
    from facepipe.embed.own import add_model
    from facepipe.models.registry import record_from_dict

    add_model(record_from_dict(facts["record"]), tmp_path / "out" / "own.safetensors")
    assert (load_embedder("own", "cpu").embed(chips).vectors * trained).sum(axis=1).min() > 0.999
    card = export.model_card(facts, [], {"crops": 48, "photos": 50, "dropped": {"no face": 2}})
    assert facts["record"]["files"][0]["sha256"] in card and "no face: 2" in card and "Limits" in card


def test_the_threshold_is_what_one_pair_of_different_people_in_a_thousand_reaches() -> None:
    torch.manual_seed(0)
    network = mini.Mini(TINY).eval()
    chips = np.random.default_rng(0).integers(0, 256, (60, 112, 112, 3), np.uint8)
    people = [str(i // 2) for i in range(60)]
    decision = export.measured_decision(network, chips, people)
    threshold = decision.threshold
    assert threshold is not None and decision.margin == export.MARGIN and "1,740 pairs" in decision.line
    x = (torch.from_numpy(chips).permute(0, 3, 1, 2).float() - 127.5) / 128
    with torch.no_grad():
        v = torch.nn.functional.normalize(network(x)).numpy()
    a, b = np.triu_indices(60, 1)
    other = a // 2 != b // 2
    assert 0 <= ((v @ v.T)[a, b][other] >= threshold - 0.0006).mean() <= 0.01


def test_the_threshold_comes_from_crops_not_trained_on_where_there_are_enough() -> None:
    class Crops:
        metas = tuple({"identity": f"p{i // 2}", "sha256": str(i)} for i in range(100))

        def __len__(self) -> int:
            return 100

    crops: Any = Crops()
    numbers, people, which = judging_crops(crops, np.arange(100) >= 52)
    assert numbers.min() == 52 and len(people) == 48 and which == "of crops that were not trained on"
    assert export.different_pairs(people) == 48 * 47 // 2 - 24
    numbers, _, which = judging_crops(crops, np.arange(100) >= 80)
    assert len(numbers) == 100 and "trained on too: the 20 held out" in which
    numbers, _, which = judging_crops(crops, np.zeros(100, bool))
    assert len(numbers) == 100 and "trained on too" in which


def test_formats_that_do_not_agree_are_not_exported() -> None:
    import safetensors.torch

    from facepipe.models.graphs import mini_graph

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


# ---- the commands ----


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.models
def test_one_command_from_photos_to_a_registered_model(tmp_path: Path, astronaut: Image, hopper: Image) -> None:
    photos = _photos(tmp_path, astronaut, hopper)
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
    assert "Verification" not in card  # nobody was held out


def _photos(folder: Path, astronaut: Image, hopper: Image) -> Path:
    """Two people, four photos each, every other one mirrored: another picture."""
    from facepipe.images import write_image

    photos = folder / "photos"
    for name, image in (("ann", astronaut), ("grace", hopper)):
        for i in range(4):
            shifted = np.ascontiguousarray(np.roll(image.rgb, 40 * i, axis=1))
            turned = np.rot90(shifted, 2)[::-1] if i % 2 else shifted
            write_image(photos / name / f"{i}.png", np.ascontiguousarray(turned))
    return photos


def test_the_pairs_of_held_out_people_are_what_evaluate_reads(tmp_path: Path) -> None:
    from facepipe.evaluate.pairs import read_pairs

    class Crops:
        metas: list[dict[str, Any]] = []  # noqa: RUF012 - filled below, once

    for person in "abc":
        for photo in range(4):
            path = tmp_path / person / f"{photo}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
            Crops.metas.append({"identity": person, "source": str(path)})
    crops: Any = Crops
    unseen = np.arange(12) >= 4
    made = held_out_pairs(crops, unseen, tmp_path / "pairs.csv")
    assert made is not None
    pairs = read_pairs(made, Path("/"))
    assert pairs.same.sum() == 2 * 6 and (~pairs.same).sum() == 4 * 4
    assert not any("/a/" in str(photo) for photo in pairs.photos)
    assert held_out_pairs(crops, np.arange(12) >= 8, tmp_path / "one.csv") is None


def test_commands_refuse_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FacepipeError, match="no such file"):
        call("crops", str(tmp_path / "nowhere"), "--out", str(tmp_path / "o"), "--crop-workers", "0")
    done = tmp_path / "w" / "crops"
    write_json(done / "plan.json", {"inputs": ["other"]})
    write_json(done / "summary.json", {})
    known = ["--out", str(tmp_path / "w"), "--name", "own", "--device", "cpu"]
    with pytest.raises(UsageError, match="other photos or options"):
        call("all", str(tmp_path), "--teacher", "mini", *known)
    with pytest.raises(FacepipeError, match=r"away\.onnx: no such file"):
        call("all", str(tmp_path), "--teacher", f"x={tmp_path / 'away.onnx'}", *known)
    with pytest.raises(UsageError, match="belong together"):
        call("distill", "--crops", "x", "--targets", "x", "--out", str(tmp_path), "--eval-pairs", "p")


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "w"
    arguments = ["--crops", "x", "--targets", "x", "--out", str(out), "--device", "cpu"]
    with owned(out):
        with pytest.raises(UsageError, match=f"in use by pid {os.getpid()}"):
            call("distill", *arguments)
        with pytest.raises(UsageError, match="in use by pid"):
            call("all", str(tmp_path), "--out", str(out), "--name", "own", "--teacher", "mini")
        (out / "kept").touch()
    with pytest.raises(InputError, match="no finished shard"):
        call("distill", *arguments)
    assert [path.name for path in out.iterdir()] == ["kept"]
    with owned(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()  # nothing was written


def test_the_recipe_runs_from_any_folder_without_an_active_environment(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "a repository", tmp_path / "elsewhere"
    scripts = Path(__file__).parents[1] / "scripts"
    for name in ("venv", "train/run"):
        place = root / "scripts" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scripts / name, place)
    (root / "pyproject.toml").write_text("")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$(pwd) $*"\n')
    python.chmod(0o755)
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    done = subprocess.run(
        [root / "scripts" / "train" / "run", "crops", "--help"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{elsewhere} -m scripts.train crops --help\n"
