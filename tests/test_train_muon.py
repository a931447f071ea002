"""The optimizer of the recipe and the shape of its learning rate."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from facepipe.errors import UsageError
from facepipe.models.mini import Architecture
from scripts.train.distill import DistillPlan, Student
from scripts.train.muon import Muon, orthogonal
from scripts.train.students import ARCHITECTURES


@pytest.mark.parametrize("shape", [(64, 27), (16, 144), (32, 32), (1, 9)])
def test_an_update_has_the_gradients_singular_vectors_and_values_of_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    made = orthogonal(matrix).float()
    values = torch.linalg.svdvals(made)
    assert made.shape == shape and values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert (made * (u @ v)).sum() / min(shape) > 0.6, "the turn that is nearest to it"
    assert torch.isfinite(orthogonal(torch.zeros(shape))).all(), "a gradient of nothing moves nothing"


def test_a_convolutions_filters_are_one_matrix_and_the_update_has_a_known_size() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, 3, bias=False)
    before = conv.weight.detach().clone()
    optimizer = Muon(conv.parameters(), lr=0.01, weight_decay=0.0)
    conv.weight.grad = torch.randn_like(conv.weight)
    optimizer.step()
    moved = (conv.weight.detach() - before).reshape(32, 144)
    expected = 0.01 * 0.2 * 144**0.5
    assert torch.linalg.svdvals(moved).mean() == pytest.approx(expected, rel=0.3)
    assert (moved * conv.weight.grad.reshape(32, 144)).sum() < 0, "it goes against the gradient"
    conv.weight.grad = torch.zeros_like(conv.weight)
    decaying = Muon(conv.parameters(), lr=0.5, weight_decay=0.1)
    norm = float(conv.weight.detach().norm())
    decaying.step()
    assert float(conv.weight.detach().norm()) == pytest.approx(0.95 * norm, rel=1e-3)


def test_it_solves_what_can_be_solved() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 12, bias=False), torch.randn(256, 12)
    target = x @ torch.linalg.qr(torch.randn(12, 12))[0]
    optimizer = Muon(layer.parameters(), lr=0.05, weight_decay=0.0)
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 150)
        optimizer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.01


def test_who_has_which_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Architecture(stem=8, stem_stride=4, groups=((1, 8), (1, 16)), neck=4, dim=8)
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny)
    student = Student(DistillPlan("tiny"), 0, torch.device("cpu"))
    adam, muon = student.optimizers
    names = {id(parameter): name for name, parameter in student.network.named_parameters()}
    turned = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    others = {names[id(p)] for group in adam.param_groups for p in group["params"]}
    assert turned | others == set(names.values()) and not turned & others
    assert "fc.weight" in turned and any("blocks" in name for name in turned)
    assert all(name.startswith("stem.") or student.network.get_parameter(name).ndim < 2 for name in others)
    assert len(Student(DistillPlan("tiny", optimizer="adamw"), 0, torch.device("cpu")).optimizers) == 1
    with pytest.raises(UsageError, match="choose muon or adamw"):
        Student(DistillPlan("tiny", optimizer="sgd"), 0, torch.device("cpu"))


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    plan = DistillPlan(samples=128_000, batch=128, warmup=1280)
    paces = [plan.pace(step) for step in range(plan.steps + 1)]
    assert paces[0] == pytest.approx(0.1) and paces[9] == 1.0
    assert set(paces[9 : plan.falls_from + 1]) == {1.0} and plan.falls_from == 700
    assert all(a > b for a, b in pairwise(paces[700:])) and paces[-1] == 0.0
    longer = replace(plan, samples=256_000)
    assert paces[:700] == [longer.pace(step) for step in range(700)], "until it falls, the length does not matter"
