"""Step 3 of the recipe: a run that was killed ends where one that was not ends, and the student learns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facepipe.errors import UsageError
from facepipe.evaluate.pairs import PairList
from facepipe.images import encode_image
from facepipe.models.mini import Architecture
from scripts.train import distill
from scripts.train.augment import EFFECTS, Strength, _mask, augment, middle
from scripts.train.data import TrainingSet, batches, held_out
from scripts.train.distill import DistillPlan, Machine, Run, Student, plan_for, turned_to
from scripts.train.evalsets import EvalSet, part, unseen_people
from scripts.train.faces import POINTS
from scripts.train.losses import MarginSoftmax, cosine_loss, relational_loss
from scripts.train.runlog import read_log
from scripts.train.shards import Crop, CropSet, read_json, write_array, write_json, write_shard
from scripts.train.students import ARCHITECTURES, load_start

TINY = Architecture(stem=8, stem_stride=4, groups=((1, 8), (1, 16)), neck=4, dim=8)
PLAN = DistillPlan("tiny", samples=160, batch=16, lr=0.01, hold_out=0.25, strength=Strength(turn=1.0))
HERE = Machine("cpu", workers=0, every=64, seconds=0.0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Eight people, six crops each, a person's colour being what the target says."""
    rng = np.random.default_rng(0)
    crops, targets = tmp_path / "crops", tmp_path / "targets"
    basis = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    stored, vectors = [], []
    for person in range(8):
        colour = [255 * (person >> bit & 1) for bit in range(3)]
        for photo in range(6):
            pixels = np.clip(np.asarray(colour) + rng.normal(0, 15, (128, 128, 3)), 0, 255).astype(np.uint8)
            meta = {"identity": f"p{person}", "sha256": f"{person}-{photo}", "landmarks": POINTS.tolist()}
            stored.append(Crop(f"{person}-{photo}", encode_image(pixels), meta))
            vectors.append(basis[person])
    for number, start in enumerate((0, 30)):
        write_shard(crops / f"shard-{number}.tar", stored[start : start + 30])
        write_json(crops / f"shard-{number}.json", {})
    write_array(targets / "target.npy", np.asarray(vectors, np.float16))
    return crops, targets


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {**run.student.network.state_dict(), **{f"a.{k}": v for k, v in run.student.average.state_dict().items()}}


@pytest.mark.parametrize(("norm", "identity"), [("ws", 0.0), ("bn", 0.1)])
def test_a_killed_run_ends_exactly_where_an_unbroken_one_ends(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str, identity: float
) -> None:
    plan = replace(PLAN, norm=norm, identity=identity)
    unbroken = Run(plan, HERE, *data, tmp_path / "a")
    unbroken.go()
    killed = Run(plan, HERE, *data, tmp_path / "b")
    update, count = killed.update, 0

    def dies(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 7:
            raise MemoryError("as a kill would")
        return update(*args)

    monkeypatch.setattr(killed, "update", dies)
    with pytest.raises(MemoryError):
        killed.go()
    resumed = Run(plan, HERE, *data, tmp_path / "b")
    resumed.go()
    assert resumed.student.step == plan.steps == 10
    for name, tensor in weights(unbroken).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    samples = [line["samples"] for line in read_log(tmp_path / "b" / "log.jsonl") if "cosine_unseen" in line]
    assert samples == sorted(samples) and samples[0] == 0


def test_asked_to_stop_it_saves_and_says_so(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    run = Run(PLAN, replace(HERE, seconds=1e9), *data, tmp_path / "a", say=said.append)
    update = run.update

    def interrupted(*args: Any) -> object:
        if run.student.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*args)

    monkeypatch.setattr(run, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.go()
    assert "goes on" in said[-1]
    again = Run(PLAN, HERE, *data, tmp_path / "a", say=said.append)
    again._resume()
    assert again.student.step == 4


def test_augmentation_is_weaker_while_the_rate_falls(data: tuple[Path, Path], tmp_path: Path) -> None:
    weaker = Strength().weaker()
    assert weaker.turn == pytest.approx(2.67, abs=0.01) and weaker.colour == pytest.approx(1 / 3)
    run = Run(PLAN, HERE, *data, tmp_path / "a")
    strengths = []
    original = run.dataset.weaker
    run.dataset.weaker = lambda: strengths.append(run.student.step) or original()  # type: ignore[method-assign, func-returns-value]
    run.go()
    assert strengths == [run.plan.falls_from] == [7]


@pytest.mark.parametrize("samples", [320, 96])
def test_a_run_can_be_made_longer_or_shorter_until_its_rate_falls(
    data: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    samples: int,
) -> None:
    def stopped_at(step: int, out: Path) -> None:
        run = Run(PLAN, HERE, *data, out)
        update = run.update

        def stops(*args: Any) -> object:
            if run.student.step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return update(*args)

        monkeypatch.setattr(run, "update", stops)
        with pytest.raises(KeyboardInterrupt):
            run.go()
        assert run.student.step == step

    stopped_at(3, tmp_path / "early")
    changed = replace(PLAN, samples=samples)
    assert Run(changed, HERE, *data, tmp_path / "early").go()["samples"] == samples
    stopped_at(8, tmp_path / "late")
    with pytest.raises(UsageError, match="the length can be changed only before"):
        Run(changed, HERE, *data, tmp_path / "late").go()
    assert Run(PLAN, HERE, *data, tmp_path / "late").go()["samples"] == PLAN.samples


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_with_a_worker_ends_by_itself_and_on_ctrl_c(
    data: tuple[Path, Path], tmp_path: Path, interrupted: bool
) -> None:
    crops, targets = data
    write_array(targets / "target.npy", np.repeat(np.eye(8, 256), 6, axis=0).astype(np.float16))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "scripts.train", "distill", "--crops", str(crops), "--targets", str(targets)]
    command += ["--out", str(out), "--batch", "8", "--workers", "1", "--device", "cpu", "--threads", "1"]
    command += ["--samples", "100000"] if interrupted else ["--minutes", "0.02"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            if interrupted:
                until = time.monotonic() + 60
                while not (out / "log.jsonl").exists() and time.monotonic() < until:
                    time.sleep(0.2)
                time.sleep(1)  # its worker is still being started
                os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of them
            _, errors = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (130 if interrupted else 0), errors
    assert (out / "checkpoint.pt").exists() and ("goes on" in errors) == interrupted


def test_the_student_learns_and_the_log_and_the_plot_show_it(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other photos of people whom it learns: eight colours do not show how a ninth looks.
    monkeypatch.setattr(distill, "held_out", lambda crops, share, seed: np.arange(len(crops)) % 4 == 0)
    plan = replace(PLAN, samples=16 * 60)
    figures = Run(plan, replace(HERE, seconds=1e9, every=320), *data, tmp_path / "a").go()
    lines = read_log(tmp_path / "a" / "log.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    start = lines[0]["cosine_unseen"]
    assert losses[-1] < 0.7 * losses[0]
    assert figures["cosine_unseen"] > start + 0.4
    assert (tmp_path / "a" / "plot.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "a" / "log.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step": 2, "los')
    assert read_log(tmp_path / "a" / "log.jsonl") == [{"step": 1}]


def test_another_plan_and_too_few_crops_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    Run(PLAN, HERE, *data, tmp_path / "a").go()
    with pytest.raises(UsageError, match="another plan"):
        Run(replace(PLAN, lr=0.5), HERE, *data, tmp_path / "a").go()
    with pytest.raises(UsageError, match="fewer than a batch"):
        Run(replace(PLAN, batch=64), HERE, *data, tmp_path / "b")
    with pytest.raises(UsageError, match="no student"):
        Run(replace(PLAN, architecture="huge"), HERE, *data, tmp_path / "b")
    with pytest.raises(UsageError, match="join with --dim"):
        Run(replace(PLAN, architecture="v0"), HERE, *data, tmp_path / "b")


def test_minutes_become_samples_once_and_the_trial_leaves_no_trace(data: tuple[Path, Path], tmp_path: Path) -> None:
    run = Run(PLAN, HERE, *data, tmp_path / "a")
    before = {k: v.clone() for k, v in weights(run).items()}
    plan = plan_for(0.01, run)
    assert plan.samples % plan.batch == 0
    assert all(torch.equal(v, before[k]) for k, v in weights(run).items()) and run.student.step == 0
    write_json(tmp_path / "a" / "plan.json", {"samples": 1234})
    assert plan_for(5.0, run).samples == 1234


def test_minutes_hold_on_a_machine_that_turns_out_slower(data: tuple[Path, Path], tmp_path: Path) -> None:
    endless = replace(PLAN, samples=16 * 10**6)
    run = Run(endless, replace(HERE, minutes=1.0 / 60), *data, tmp_path / "a")
    figures = run.go()
    assert 0.5 < figures["seconds"] < 10.0
    kept = read_json(tmp_path / "a" / "plan.json")["samples"]
    assert kept == figures["samples"] < 16 * 10**6
    # What was spent is remembered: the same command has nothing left to do.
    again = Run(plan_for(1.0 / 60, run), replace(HERE, minutes=1.0 / 60), *data, tmp_path / "a")
    assert again.go()["samples"] == kept


def test_batches_are_the_same_in_other_processes_and_every_crop_comes_once(data: tuple[Path, Path]) -> None:
    crops = CropSet(data[0])
    numbers = np.arange(48)
    identities = crops.identities()[0]
    dataset = TrainingSet(crops, numbers, np.zeros((48, 8), np.float32), identities, 16, Strength())
    assert sorted(np.concatenate([dataset.chosen(step) for step in range(3)]).tolist()) == numbers.tolist()
    assert not np.array_equal(dataset.chosen(0), dataset.chosen(3))
    here = list(batches(dataset, 1, 3, workers=0))
    there = list(batches(dataset, 1, 3, workers=1))
    assert all(torch.equal(a.chips, b.chips) for a, b in zip(here, there, strict=True))


def test_unseen_crops_are_of_unseen_people(data: tuple[Path, Path]) -> None:
    crops = CropSet(data[0])
    people = crops.identities()[0]
    by_people = held_out(crops, 0.25)
    assert by_people.sum() == 12 and not set(people[by_people]) & set(people[~by_people])
    assert not held_out(crops, 0.0).any()


def test_targets_are_turned_into_the_space_of_a_student_that_starts_trained() -> None:
    rng = np.random.default_rng(0)
    current = rng.normal(size=(50, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    assert np.abs(turned_to(current @ turn, current, np.arange(40)) - current).max() < 1e-4


def test_a_student_may_start_from_the_shipped_network(chips: np.ndarray) -> None:
    student = Student(DistillPlan(start="mini", norm="none"), 0, torch.device("cpu"))
    from facepipe.embed.embedder import load_embedder

    vectors = distill.embed_chips(student.network, chips, torch.device("cpu"), torch.float32)
    assert (vectors * load_embedder("mini", "cpu").embed(chips).vectors).sum(axis=1).min() > 0.999
    with pytest.raises(UsageError, match="starts from"):
        load_start("sface")


@pytest.fixture
def chips() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (2, 112, 112, 3), np.uint8)


# ---- losses, augmentation, evaluation sets ----


def test_losses_are_zero_for_a_perfect_student_and_positive_otherwise() -> None:
    a, b = (torch.nn.functional.normalize(torch.randn(6, 8)) for _ in range(2))
    assert float(cosine_loss(a, a)) == pytest.approx(0.0, abs=1e-6)
    assert float(relational_loss(a, a @ torch.linalg.qr(torch.randn(8, 8))[0])) == pytest.approx(0.0, abs=1e-6)
    assert float(relational_loss(a, b)) > 0.01


@pytest.mark.parametrize("kind", ["cosface", "arcface"])
def test_a_margin_makes_the_right_answer_harder(kind: str) -> None:
    head = MarginSoftmax(8, 3, kind, margin=0.4)
    easy = MarginSoftmax(8, 3, kind, margin=0.0)
    easy.load_state_dict(head.state_dict())
    x = torch.nn.functional.normalize(torch.randn(5, 8))
    who = torch.tensor([0, 1, 2, -1, 1])
    assert head(x, who).item() > easy(x, who).item()
    assert head(x, torch.full((5,), -1)).item() == 0.0
    with pytest.raises(ValueError, match="cosface or arcface"):
        MarginSoftmax(8, 3, "softface")


def test_augmentation_repeats_itself_and_every_effect_keeps_the_shape() -> None:
    rng = np.random.default_rng(0)
    crop = np.asarray(rng.integers(0, 256, (8, 8, 3)).repeat(16, 0).repeat(16, 1), np.uint8)
    sure = Strength(1.0, 1.0, 0.02, *[1.0] * 8)
    first = augment(crop, np.random.default_rng(5), sure)
    assert first.shape == (112, 112, 3) and first.dtype == np.uint8
    assert np.array_equal(first, augment(crop, np.random.default_rng(5), sure))
    assert not np.array_equal(first, augment(crop, np.random.default_rng(6), sure))
    for effect in EFFECTS:
        for seed in range(3):
            out = effect(middle(crop), np.random.default_rng(seed))
            assert out.shape == (112, 112, 3) and out.dtype == np.uint8
    still = Strength(0.0, 0.0, 0.0).only_placing()
    plain = [augment(crop, np.random.default_rng(s), still) for s in range(6)]
    own = middle(crop).astype(int)
    assert all(min(np.abs(p - own).max(), np.abs(p[:, ::-1] - own).max()) <= 1 for p in plain)


def test_a_mask_covers_mouth_and_nose_and_leaves_the_eyes() -> None:
    crop = np.full((128, 128, 3), 90, np.uint8)
    crop[::2] = 110
    for seed in range(5):
        changed = np.abs(_mask(crop, np.random.default_rng(seed)).astype(int) - crop).max(axis=2) > 5
        x, y = POINTS.round().astype(int).T
        assert changed[y[3:], x[3:]].all() and not changed[y[:2], x[:2]].any()


def test_people_who_are_told_apart_perfectly_have_no_errors_and_no_spread() -> None:
    centres = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0][:7].astype(np.float32)
    people = np.r_[np.repeat(np.arange(6), 3), -1]
    found = unseen_people(centres[people], people)  # the one without a name looks like nobody
    assert found["accuracy"] == found["auc"] == found["tar@0.01"] == 1.0
    assert (found["people"], found["genuine"], found["impostor"]) == (6, 18, 135) and "tar@0.001" not in found
    assert unseen_people(centres[[0, 1, 2]], np.array([0, 1, 2])) == {}
    assert unseen_people(centres[[0, 0]], np.array([0, 0])) == {}
    chance = np.random.default_rng(1).normal(size=(60, 64))
    chance /= np.linalg.norm(chance, axis=1, keepdims=True)
    found = unseen_people(chance.astype(np.float32), np.repeat(np.arange(12), 5))
    assert 0.4 < found["accuracy"] < 0.6


def test_the_share_held_out_is_kept_among_people_and_among_photos_of_nobody() -> None:
    class Crops:
        metas = tuple({"identity": f"p{i // 5}" if i < 50 else None, "sha256": str(i)} for i in range(250))

    crops: Any = Crops()
    unseen = held_out(crops, 0.2)
    assert unseen[:50].sum() == 10 and unseen[50:].sum() == 40


def test_an_evaluation_set_counts_photos_without_a_face_as_wrong() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(10), 2)
    same = [(2 * i, 2 * i + 1) for i in range(10)]
    other = [(2 * i, (2 * i + 2) % 20) for i in range(10)]
    a, b = (np.asarray(side) for side in zip(*same, *other, strict=True))
    truth = np.arange(20) < 10
    pairs = PairList(tuple(Path(str(i)) for i in range(20)), a, b, truth, people, np.tile(np.arange(2), 10))
    centres = np.linalg.qr(rng.normal(size=(16, 16)))[0][:10].astype(np.float32)
    vectors = centres[people]
    crops, points = np.zeros((20, 128, 128, 3), np.uint8), np.zeros((20, 5, 2), np.float32)
    whole = EvalSet("s", pairs, crops, points, np.arange(20))
    assert whole.verification(vectors)["accuracy"] == 1.0
    row = np.arange(20)
    row[0], row[1:] = -1, np.arange(19)
    lacking = EvalSet("s", pairs, crops[1:], points[1:], row)
    # One genuine and two impostor pairs show photo 0.
    assert lacking.verification(vectors[1:])["accuracy"] == pytest.approx(17 / 20)
    assert lacking.verification(vectors[1:])["no_face"] == 1
    half = part(lacking, 2)
    assert len(half.pairs) == 10 and len(half.crops) < 19
