"""Adapting the network to one's own people: what was gained on their other photos, what strangers pay, and whether it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facepipe.errors import ModelError, UsageError
from facepipe.evaluate import metrics
from facepipe.evaluate.bounds import clopper_pearson
from facepipe.files.atomic import atomic_file
from facepipe.models.devices import resolve_device
from facepipe.models.mini import Mini
from facepipe.types import Int64, UInt8
from scripts.train.data import held_out_photos, plain_chips
from scripts.train.distill import embed_chips, load_start, turned_to
from scripts.train.export import Decision, load_student
from scripts.train.lastlayer import (
    Float64,
    Lesson,
    Setting,
    choose,
    described,
    layer_of,
    mated,
    templates_of,
    unit,
    with_change,
)
from scripts.train.shards import CropSet, write_json
from scripts.train.steps import Options, check_teachers, dim_of, known_crops, run_distill, run_export, run_teach
from scripts.train.teach import read_target

Say = Callable[[str], None]
Pair = tuple[Float64, Float64]

#: False positive rates at which it is counted how many are found; `found` is the mean, which is steadier than one of them.
_FPIRS = (0.01, 0.03, 0.1)
#: What is put up with: TAR of strangers, and how many times as many of their pairs may pass.
_LOST, _MORE_PAIRS = 0.01, 1.5


def run_adapt(
    people: tuple[Path, ...], strangers: tuple[Path, ...], out: Path, name: str, options: Options, say: Say
) -> dict[str, Any]:
    """Adapt, measure, and register what is better than before; ModelError when nothing is, unless forced."""
    keep: tuple[Path, ...] = options["keep"]
    open_to_all = {**options, "forbidden": (), "exclude": None}
    taught = options["teachers"] or ((options["start"],) if options["method"] == "network" else ())
    check_teachers(taught, out / "targets", options["device"])
    for roots, folder, chosen in (((*people, *keep), "crops", options), (strangers, "strangers", open_to_all)):
        known_crops(roots, out / folder, chosen, say)
    if taught and not (out / "targets" / "target.json").exists():
        run_teach(out / "crops", out / "targets", taught, dim_of(options), options["device"], say)
    stored, others = CropSet(out / "crops"), CropSet(out / "strangers")
    material = Material(stored, others, named_people(stored, keep), others.identities()[0])
    threshold, margin = decision_of(options["start"])
    if options["method"] == "network":
        run_distill(out / "crops", out / "targets", out / "run", options, say, by="photos", balanced=0.5)
        result = measured(material, load_student(out / "run"), threshold, options)
    else:
        targets = out / "targets" if taught else None
        result = solved_splits(material, targets, out / "run", threshold, options, say)
    write_json(out / "gain.json", result)
    for line in result["warnings"]:
        say(f"warning: {line}")
    if result["refused"] and not (options["force"] and (out / "run" / "checkpoint.pt").exists()):
        why = "; ".join(result["refused"])
        raise ModelError(f"{name}: not exported, {options['start']} is better ({why}); figures in {out / 'gain.json'}")
    line = f"threshold: that of {options['start']}, moved with the scores of strangers"
    threshold = result.get("kept", result)["after"]["threshold"]
    decision = Decision(round(threshold, 3), margin, line)
    where = out / "targets" if taught else None
    run_export(out / "run", out / "crops", where, out / "model", name, (), True, say, decision)
    return result


def decision_of(start: str) -> tuple[float, float]:
    """Return threshold and margin of the network that is adapted; those of mini for a file of weights."""
    from facepipe.models.registry import get_record

    return get_record("mini" if start.endswith(".safetensors") else start).decision()


def named_people(crops: CropSet, keep: Sequence[Path]) -> Int64:
    """Return who each crop shows, int64 (n,): -1 without a name, and for photos that only keep others in their place."""
    people = crops.identities()[0]
    roots = tuple(str(root) for root in keep)
    kept = np.array([meta["source"].startswith(roots) for meta in crops.metas], np.bool_) if roots else False
    return np.where(kept, -1, people)


class Material:
    """The crops of the people (and of those that are kept in their place), and of the strangers."""

    def __init__(self, crops: CropSet, others: CropSet, people: Int64, other_people: Int64) -> None:
        photos = np.unique(people[people >= 0], return_counts=True)[1]
        if (photos >= 2).sum() < 2:
            raise UsageError("adapt: expected folders of at least two people with two usable photos each")
        self.crops, self.people, self.other_people = crops, people, other_people
        self.own: UInt8 = plain_chips(crops, np.arange(len(crops)))
        self.others: UInt8 = plain_chips(others, np.arange(len(others)))

    def unseen(self, share: float, seed: int) -> np.ndarray:
        """Return bool (n,): photos of the people that are not learnt from."""
        return held_out_photos(self.crops, share, seed) & (self.people >= 0)


def solved_splits(
    material: Material, targets: Path | None, out: Path, threshold: float, options: Options, say: Say
) -> dict[str, Any]:
    """Measure the way over several splits, then solve the last layer for all photos and keep it as a run's checkpoint in `out`."""
    device = resolve_device(options["device"])
    network = load_start(options["start"])
    plain = layer_of(network, material.own, device)
    mirrored = layer_of(network, np.ascontiguousarray(material.own[:, :, ::-1]), device, plain.scale)
    strangers = layer_of(network, material.others, device, plain.scale)
    itself = unit(unit(plain.outputs) + unit(mirrored.outputs))
    taught = read_target(material.crops, targets) if targets else None

    def lesson_of(rows: Int64) -> Lesson:
        wanted = {"itself": itself}
        if taught is not None:
            wanted["teacher"] = turned_to(taught, itself.astype(np.float32), rows).astype(np.float64)
        return Lesson(plain, mirrored, wanted, material.people)

    splits = []
    for number in range(options["splits"]):
        seed = options["seed"] + number
        unseen = material.unseen(options["hold_out"], seed)
        rows = np.flatnonzero(~unseen)
        lesson = lesson_of(rows)
        setting, _ = choose(lesson, rows, seed)
        change = None if setting is None else lesson.change(rows, setting, lesson.ridge(rows))
        own = (lesson.vectors(None), lesson.vectors(change))
        before, after = both_figures(own, (strangers.moved(None), strangers.moved(change)), material, unseen, threshold)
        splits.append({"seed": seed, "setting": described(setting), "before": before, "after": after})
        was, now = (f"{100 * side['found']:.1f} %" for side in (before, after))
        say(f"split {number + 1}: {described(setting)}; found among strangers: {was} before, {now} after")
    # What is kept learns from all photos. The splits have measured the way; strangers, of whom nothing is learnt, measure it itself.
    everything = np.arange(len(material.crops))
    lesson = lesson_of(everything)
    final, _ = choose(lesson, everything, options["seed"])
    result = {**summed(splits, len(material.others)), "setting": described(final)}
    if final is None:
        result["refused"].append("in cross-validation over all photos, the network did best as it is")
        return result
    change = lesson.change(everything, final, lesson.ridge(everything))
    keep_network(out, with_change(network, change, plain.scale), final, options)
    own = (lesson.vectors(None), lesson.vectors(change))
    nobody = np.zeros(len(everything), np.bool_)
    before, after = both_figures(own, (strangers.moved(None), strangers.moved(change)), material, nobody, threshold)
    soft, hard = strangers_judged(before, after, len(material.others))
    result["warnings"] += [line for line in soft if line not in result["warnings"]]
    result["refused"] += [line for line in hard if line not in result["refused"]]
    return {**result, "kept": {"before": before, "after": after}}


def both_figures(
    own: Pair, others: Pair, material: Material, unseen: np.ndarray, threshold: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure one split before and after. own, others: unit vectors before and after, of the people's crops and of strangers.

    Afterwards the threshold is the one that lies as many spreads above the mean of strangers' scores as the old one did: another
    network gives other cosines, and two moments of thousands of scores are steadier than the few that pass.
    """
    scores = []
    for mine, theirs in zip(own, others, strict=True):
        scores.append(theirs @ templates_of(mine[~unseen], material.people[~unseen])[0].T)
    moved = float(scores[1].mean() + (threshold - scores[0].mean()) / scores[0].std() * scores[1].std())
    before, after = (
        figures(mine, material.people, unseen, theirs, material.other_people, at)
        for mine, theirs, at in zip(own, others, (threshold, moved), strict=True)
    )
    return before, after


def measured(material: Material, student: Mini, threshold: float, options: Options) -> dict[str, Any]:
    """Measure a network that was trained whole, on the photos that it was not trained on."""
    device = resolve_device(options["device"])
    vectors = [
        tuple(
            embed_chips(n, chips, device, torch.float32).astype(np.float64)
            for n in (load_start(options["start"]), student)
        )
        for chips in (material.own, material.others)
    ]
    unseen = material.unseen(options["hold_out"], options["seed"])
    before, after = both_figures(
        (vectors[0][0], vectors[0][1]), (vectors[1][0], vectors[1][1]), material, unseen, threshold
    )
    return summed([{"seed": options["seed"], "before": before, "after": after}], len(material.others))


def keep_network(out: Path, network: Mini, setting: Setting, options: Options) -> None:
    """Keep a network as a run that `export` takes."""
    plan = {"start": options["start"], "by": "photos", "hold_out": 0.0, "seed": options["seed"]}
    write_json(out / "plan.json", {**plan, "setting": described(setting)})
    with atomic_file(out / "checkpoint.pt") as file:
        torch.save({"average": network.state_dict()}, file)


def figures(
    own: Float64, people: Int64, unseen: np.ndarray, others: Float64, other_people: Int64, threshold: float
) -> dict[str, float]:
    """Measure one network. Vectors are unit, (n, d); people: int64 (n,), -1 for crops without a name.

    own: the people adapted to; each is enrolled with the mean of their seen crops and searched for with the unseen ones. others:
    strangers, who search as well (`fpir`, at the threshold and where it is 1, 3 and 10 %) and are compared with one another (`far`).
    """
    templates, names = templates_of(own[~unseen], people[~unseen])
    probes = unseen & np.isin(people, names)
    genuine = mated(own[probes], people[probes], templates, names)
    searches = (others @ templates.T).max(axis=1)
    a, b = np.triu_indices(len(others), 1)
    same = (other_people[a] == other_people[b]) & (other_people[a] >= 0)
    cosines = np.einsum("nd,nd->n", others[a], others[b])
    found = {
        "threshold": threshold,
        "fpir_at_threshold": float((searches >= threshold).mean()),
        "far_of_strangers_at_threshold": float((cosines[~same] >= threshold).mean()),
    }
    if probes.any():
        rates = {rate: float((genuine >= metrics.threshold_at(searches, rate)).mean()) for rate in _FPIRS}
        found |= {f"found_at_fpir_{100 * rate:g}%": share for rate, share in rates.items()}
        found |= {
            "found": float(np.mean(list(rates.values()))),
            "found_at_threshold": float((genuine >= threshold).mean()),
            "rank1": float(np.isfinite(genuine).mean()),
            "probes": float(probes.sum()),
        }
    if same.any():
        far = max(1e-3, 1.0 / int((~same).sum()))
        found["tar_of_strangers_at_far_1e-3"] = metrics.tar_at_far(cosines[same], cosines[~same], far)
    return found


def summed(splits: Sequence[Mapping[str, Any]], strangers: int) -> dict[str, Any]:
    """Return the means over the splits, the gain with its spread, what became worse, and why it is refused, if it is."""
    before, after = (
        {key: float(np.mean([split[side][key] for split in splits])) for key in splits[0][side]}
        for side in ("before", "after")
    )
    keys = ["found", *(f"found_at_fpir_{100 * r:g}%" for r in _FPIRS), "rank1"]
    gains = {key: [split["after"][key] - split["before"][key] for split in splits] for key in keys}
    warned, refused = judged(before, after, strangers)
    return {
        "strangers": strangers,
        "before": before,
        "after": after,
        "gain": {key: {"mean": float(np.mean(v)), "sd": float(np.std(v)), "n": len(v)} for key, v in gains.items()},
        "warnings": warned,
        "refused": refused,
        "splits": list(splits),
    }


def judged(before: Mapping[str, float], after: Mapping[str, float], strangers: int) -> tuple[list[str], list[str]]:
    """Return a line for each way in which it became worse, and those lines that are reason enough to keep the old network."""
    lines, hard = strangers_judged(before, after, strangers)
    if after["found"] <= before["found"]:
        line = "the people themselves are found no better than before"
        lines, hard = [*lines, line], [*hard, line]
    return lines, hard


def strangers_judged(
    before: Mapping[str, float], after: Mapping[str, float], strangers: int
) -> tuple[list[str], list[str]]:
    """Return the same for what strangers pay."""
    soft: list[str] = []
    hard: list[str] = []
    old, new = before["fpir_at_threshold"], after["fpir_at_threshold"]
    if new > old:
        sure = clopper_pearson(round(new * strangers), strangers)[0] > old
        why = "chance does not explain it" if sure else "few strangers: chance could explain it"
        line = f"strangers are named more often: {100 * new:.1f} % instead of {100 * old:.1f} % at the threshold; {why}"
        (hard if sure else soft).append(line)
    old, new = before["far_of_strangers_at_threshold"], after["far_of_strangers_at_threshold"]
    if new > 1.2 * old and new > 0:
        line = f"strangers look more alike: {100 * new:.2f} % of their pairs pass instead of {100 * old:.2f} %"
        (hard if new > _MORE_PAIRS * old else soft).append(line)
    key = "tar_of_strangers_at_far_1e-3"
    if key in before and after[key] < before[key]:
        line = f"other people are told apart worse: TAR at FAR 1e-3 {100 * after[key]:.1f} % instead of {100 * before[key]:.1f} %"
        (hard if after[key] < before[key] - _LOST else soft).append(line)
    return soft + hard, hard
