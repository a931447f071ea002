"""Adapting only the last layer, solved in closed form: with a few hundred crops, training the whole network overfits.

Photos that were trained on move to where they are wanted and others do not, so after training a network on ten photos of a person,
an eleventh looks less like them than before. One linear layer, held back by ridge regression, moves both alike. What it is asked for:
each crop's target (the network's own vector or a teacher's), drawn towards the mean of its person. How much and how firmly it is held
back is chosen by cross-validation, in which a part of the people are strangers and a part of the others' photos are searches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facepipe.evaluate import metrics
from facepipe.models.mini import Mini
from facepipe.types import Float32, Int64, UInt8
from scripts.train.data import normalised

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Shares by which a target is drawn to its person's mean, and ridges (in units of a crop's mean squared feature length). A ridge
#: below 10 fits the people it sees better and tells others apart worse.
PULLS = (0.0, 0.5, 1.0)
RIDGES = (10.0, 30.0, 100.0)
#: False positive rates that the choice is made by: their mean is steadier than one of them.
_FPIRS = (0.02, 0.05, 0.1)
_FOLDS, _DRAWINGS = 3, 3


@dataclass(frozen=True, slots=True)
class Setting:
    """target: whose vectors are asked for (`itself` or `teacher`). pull: towards the person's mean, 0..1. ridge: how firmly held."""

    target: str
    pull: float
    ridge: float


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What the last layer of a network gets and gives. inputs: float32 (n, inputs + 1), the last column 1.

    outputs: float64 (n, d), of any length. scale: what the inputs were divided by.
    """

    inputs: Float32
    outputs: Float64
    scale: float

    def moved(self, change: Float64 | None) -> Float64:
        """Return unit vectors, (n, d), after a change of the layer, None: before."""
        return unit(self.outputs + (0.0 if change is None else self.inputs @ change.astype(np.float32)))


def layer_of(network: Mini, chips: UInt8, device: torch.device, scale: float | None = None) -> Layer:
    """Run chips, uint8 (n, 112, 112, 3), up to the last layer, in float32. scale: that of another layer's inputs, to match it."""
    caught: list[Tensor] = []
    network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    hook = network.fc.register_forward_pre_hook(lambda _module, args: caught.append(args[0].float().cpu()))
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(chips), 64):
            outputs.append(
                network(normalised(torch.from_numpy(chips[start : start + 64]), device)).float().cpu().numpy()
            )
    hook.remove()
    inputs = torch.cat(caught).numpy()
    if scale is None:
        scale = float(np.sqrt(np.square(inputs).sum(axis=1).mean()))
    ones = np.ones((len(inputs), 1), np.float32)
    return Layer(
        np.concatenate([inputs / np.float32(scale), ones], axis=1), np.concatenate(outputs).astype(np.float64), scale
    )


def pulled(target: Float64, people: Int64, share: float) -> Float64:
    """Draw each target towards the mean of its person's, (n, d) unit; crops of nobody in particular (-1) stay."""
    moved = target.copy()
    for person in np.unique(people[people >= 0]):
        rows = people == person
        moved[rows] = (1 - share) * target[rows] + share * unit(target[rows].mean(axis=0, keepdims=True))
    return unit(moved)


class Ridge:
    """Ridge regression from some inputs, (n, inputs + 1), taken apart once so that each strength costs little."""

    def __init__(self, inputs: Float32) -> None:
        self._inputs = inputs
        self._dual = len(inputs) <= inputs.shape[1]
        square = inputs @ inputs.T if self._dual else inputs.T @ inputs
        self._values, self._axes = np.linalg.eigh(square.astype(np.float64))

    def change(self, wanted: Float64, ridge: float) -> Float64:
        """Return the change of the layer, (inputs + 1, d), that brings the outputs nearest to what is wanted of them.

        wanted: (n, d), the change of the outputs. Minimises the squared error plus ridge times the squared change.
        """
        right = wanted if self._dual else self._inputs.T @ wanted
        solution = self._axes @ ((self._axes.T @ right) / (np.maximum(self._values, 0.0) + ridge)[:, None])
        return np.asarray(self._inputs.T @ solution.astype(np.float32) if self._dual else solution, np.float64)


def unit(rows: Float64) -> Float64:
    """Scale rows to length 1."""
    scaled: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What there is to learn from: crops and their mirror images have the same targets.

    plain, mirrored: of the same crops. targets: by name, unit (n, d). people: int64 (n,), -1 nobody in particular.
    """

    plain: Layer
    mirrored: Layer
    targets: Mapping[str, Float64]
    people: Int64

    def ridge(self, rows: Int64) -> Ridge:
        """Return the regression from some crops and their mirror images."""
        return Ridge(np.concatenate([self.plain.inputs[rows], self.mirrored.inputs[rows]]))

    def change(self, rows: Int64, setting: Setting, ridge: Ridge) -> Float64:
        """Return the change of the layer learnt from some crops."""
        outputs = np.concatenate([self.plain.outputs[rows], self.mirrored.outputs[rows]])
        target = pulled(self.targets[setting.target][rows], self.people[rows], setting.pull)
        length = np.linalg.norm(outputs, axis=1).mean()
        return ridge.change(np.concatenate([target, target]) * length - outputs, setting.ridge)

    def vectors(self, change: Float64 | None) -> Float64:
        """Return the unit vectors of all crops after a change, None: before."""
        return self.plain.moved(change)


def settings(targets: Sequence[str]) -> list[Setting]:
    """Return what is tried; to ask a network for its own vectors, undrawn, would change nothing."""
    return [Setting(t, p, r) for t in targets for p in PULLS for r in RIDGES if t != "itself" or p]


def choose(lesson: Lesson, rows: Int64, seed: int = 0) -> tuple[Setting | None, dict[str, float]]:
    """Choose the setting by which people are found best among strangers, None when leaving the layer alone is as good.

    rows: the crops that may be learnt from. In each fold a third of the people are taken out altogether and search as strangers, and
    a third of the photos of each of the others search for them. Returns also the score of each setting: the mean share that is found
    at false positive rates of 2, 5 and 10 %.
    """
    tried: list[Setting | None] = [None, *settings(tuple(lesson.targets))]
    scores: dict[Setting | None, list[tuple[Float64, Float64]]] = {setting: [] for setting in tried}
    for stranger, probe in _folds(lesson.people[rows], np.random.default_rng(seed)):
        seen = ~stranger & ~probe
        people = lesson.people[rows]
        ridge = lesson.ridge(rows[seen])
        for setting in tried:
            vectors = lesson.vectors(lesson.change(rows[seen], setting, ridge) if setting else None)[rows]
            templates, owners = templates_of(vectors[seen], people[seen])
            scores[setting].append(
                (mated(vectors[probe], people[probe], templates, owners), (vectors[stranger] @ templates.T).max(axis=1))
            )
    found = {setting: _found(parts) for setting, parts in scores.items()}
    best = max(found, key=lambda setting: found[setting])
    return best, {described(setting): score for setting, score in found.items()}


def described(setting: Setting | None) -> str:
    """Return a setting in words."""
    return "as it is" if setting is None else f"{setting.target}, pull {setting.pull:g}, ridge {setting.ridge:g}"


def _folds(people: Int64, rng: np.random.Generator) -> Iterator[tuple[Bools, Bools]]:
    """Yield who searches as a stranger and which photos search for their own person, bool (n,) each, in several drawings."""
    names = np.unique(people[people >= 0])
    folds = min(_FOLDS, len(names))
    for _ in range(_DRAWINGS):
        group = dict(zip(rng.permutation(names).tolist(), (np.arange(len(names)) % folds).tolist(), strict=True))
        turn = np.zeros(len(people), np.int64)
        for name in names:
            own = rng.permutation(np.flatnonzero(people == name))
            # An only photo is enrolled in every fold and never searches.
            turn[own] = np.arange(len(own)) % folds if len(own) > 1 else -1
        for fold in range(folds):
            stranger = np.array([name >= 0 and group[int(name)] == fold for name in people], np.bool_)
            yield stranger, (people >= 0) & ~stranger & (turn == fold)


def templates_of(vectors: Float64, people: Int64) -> tuple[Float64, Int64]:
    """Return the unit mean vector of each person and who it is; crops of nobody in particular are left out."""
    names = np.unique(people[people >= 0])
    return unit(np.stack([vectors[people == name].mean(axis=0) for name in names])), names


def mated(probes: Float64, people: Int64, templates: Float64, owners: Int64) -> Float64:
    """Return the score of each search by its own person, -inf where another one comes first."""
    scores = probes @ templates.T
    best: Float64 = scores.max(axis=1)
    return np.where(owners[scores.argmax(axis=1)] == people, best, -np.inf)


def _found(parts: Sequence[tuple[Float64, Float64]]) -> float:
    genuine = np.concatenate([own for own, _ in parts])
    strangers = np.concatenate([other for _, other in parts])
    if not len(genuine) or not len(strangers):
        return 0.0
    return float(np.mean([(genuine >= metrics.threshold_at(strangers, rate)).mean() for rate in _FPIRS]))


def with_change(network: Mini, change: Float64, scale: float) -> Mini:
    """Return a copy of the network whose last layer is changed. change: see `solved`; scale: what its inputs were divided by."""
    adapted = deepcopy(network).cpu()
    weight, bias = adapted.fc.weight.detach().double(), adapted.fc.bias.detach().double()
    moved = torch.from_numpy(np.ascontiguousarray(change.T))
    adapted.fc.weight = nn.Parameter((weight + moved[:, :-1] / scale).float(), requires_grad=False)
    adapted.fc.bias = nn.Parameter((bias + moved[:, -1]).float(), requires_grad=False)
    return adapted
