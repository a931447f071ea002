"""The steps as the commands run them: each takes the commands' options, goes on where it was, and says what it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facepipe.errors import UsageError
from facepipe.files.atomic import atomic_file
from scripts.train.lock import owned
from scripts.train.shards import CropSet, read_json, write_json

if TYPE_CHECKING:
    from scripts.train.crops import CropsPlan
    from scripts.train.distill import DistillPlan, Machine
    from scripts.train.evalsets import EvalSet
    from scripts.train.export import Decision

Say = Callable[[str], None]
Options = Mapping[str, Any]

_OF_PLAN = (
    *("architecture", "norm", "start", "samples", "batch", "optimizer", "lr", "decay"),
    *("relational", "identity", "margin", "hold_out", "seed"),
)  # fmt: skip


def plan_of(options: Options) -> tuple[DistillPlan, Machine]:
    """Return what is learnt and where it runs. Without --workers one process makes batches, on a GPU all cores but one."""
    import os

    from facepipe.models.devices import resolve_device
    from scripts.train.distill import DistillPlan, Machine

    plan = {name: options[name] for name in _OF_PLAN}
    if plan["start"]:
        plan["norm"] = "none"
    workers = options["workers"]
    if workers is None:
        workers = max(1, (os.cpu_count() or 2) - 1) if resolve_device(options["device"]).type == "cuda" else 1
    machine = Machine(
        options["device"],
        workers,
        options["threads"],
        options["compiled"],
        options["every"],
        minutes=options["minutes"],
    )
    return DistillPlan(**plan), machine


def evalsets_of(options: Options, cache: Path, say: Say) -> list[EvalSet]:
    """Return the sets that are looked at during a run."""
    if (options["eval_pairs"] is None) != (options["eval_images"] is None):
        raise UsageError("--eval-pairs and --eval-images belong together")
    if options["eval_pairs"] is None:
        return []
    from facepipe.loading import load_describer
    from scripts.train.evalsets import load_evalset, part

    device = options["device"]
    whole = load_evalset(
        options["eval_pairs"], options["eval_images"], cache, lambda: load_describer("mini", device).detector, say
    )
    return [part(whole, options["eval_every_pair"])]


def _crops_plan(inputs: tuple[Path, ...], options: Options) -> CropsPlan:
    from scripts.train.crops import SIMILARITY, CropsPlan, read_patterns
    from scripts.train.faces import CropOptions

    model, similarity = options["forbidden_model"], options["forbidden_similarity"]
    if similarity is None and options["forbidden"] and model not in SIMILARITY:
        raise UsageError(f"--forbidden-model {model}: no similarity is known for it; give --forbidden-similarity")
    return CropsPlan(
        inputs,
        options["forbidden"],
        read_patterns(options["exclude"]) if options["exclude"] else (),
        SIMILARITY.get(model, 0.0) if similarity is None else similarity,
        model,
        options=CropOptions(options["faces"], options["min_score"], float(options["min_face"])),
    )


def run_crops(inputs: tuple[Path, ...], out: Path, options: Options, say: Say) -> dict[str, Any]:
    """Step 1."""
    from scripts.train.crops import make_crops, photo_mapper

    plan = _crops_plan(inputs, options)
    with owned(out), photo_mapper(plan, options["crop_workers"], options["device"]) as mapper:
        summary = make_crops(plan, out, mapper, say)
        write_json(out / "summary.json", summary)
    say(f"crops: {json.dumps(summary)}")
    return summary


def known_crops(inputs: tuple[Path, ...], out: Path, options: Options, say: Say) -> None:
    """Step 1, unless it is done; UsageError when the folder holds the crops of other photos or options."""
    from scripts.train.crops import check_plan

    check_plan(_crops_plan(inputs, options), out)
    if not (out / "summary.json").exists():
        run_crops(inputs, out, options, say)


def check_teachers(teachers: tuple[str, ...], targets: Path, device: str) -> None:
    """Load the teachers that are still to teach: what is wrong with them is told before hours of other work."""
    from scripts.train.teachers import load_teacher

    if not (targets / "target.json").exists():
        for text in teachers:
            load_teacher(text, device)


def run_teach(crops: Path, out: Path, teachers: tuple[str, ...], dim: int, device: str, say: Say) -> dict[str, Any]:
    """Step 2."""
    from scripts.train.teach import join, teach
    from scripts.train.teachers import load_teacher

    loaded = [load_teacher(text, device) for text in teachers]
    with owned(out):
        rates = [teach(crops, out, teacher, say) for teacher in loaded]
        summary = join(crops, out, [t.name for t in loaded], dim, [t.weight for t in loaded])
    result = {"crops": summary["crops"], "kept": summary["kept"], "teachers": rates}
    say(f"teach: {json.dumps(result)}")
    return result


def run_distill(crops: Path, targets: Path, out: Path, options: Options, say: Say) -> dict[str, Any]:
    """Step 3."""
    from scripts.train.distill import Run, plan_for

    plan, machine = plan_of(options)
    sets = evalsets_of(options, out.parent / "evalsets", say)
    with owned(out):
        run = Run(plan, machine, crops, targets, out, sets, say)
        if options["minutes"] is not None:
            run = Run(plan_for(options["minutes"], run), machine, crops, targets, out, sets, say)
        figures = run.go()
    say(f"distill: {json.dumps(figures)}")
    return figures


def run_export(
    run: Path,
    crops: Path,
    targets: Path | None,
    out: Path,
    name: str,
    reports: Sequence[Path],
    register: bool,
    say: Say,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """Step 4; the card is written with the reports that there are."""
    from facepipe.embed.own import add_model
    from facepipe.models.registry import record_from_dict
    from scripts.train.data import plain_chips
    from scripts.train.export import export

    stored = CropSet(crops)
    chosen, people, which = judging_crops(stored, unseen_of(run, stored))
    facts = export(run, out, name, plain_chips(stored, chosen), targets, people, decision, which)
    write_card(out, name, crops, reports)
    if register:
        added = add_model(record_from_dict(facts["record"]), out / f"{name}.safetensors")
        say(f"registered {added.name}: facepipe ... --model {added.name}")
    say(f"export: {json.dumps({k: facts[k] for k in ('parameters', 'agreement', 'ms_per_face')})}")
    return facts


def judging_crops(stored: CropSet, unseen: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    """Return the crops that a threshold is measured on, who they show, and what they are called.

    Those that were not trained on where they make enough pairs of different people, else the first of all.
    """
    from scripts.train.export import ENOUGH_PAIRS, different_pairs

    def shown(numbers: np.ndarray) -> list[str]:
        return [str(stored.metas[i]["identity"] or stored.metas[i]["sha256"]) for i in numbers]

    held_out = np.flatnonzero(unseen)[:1000]
    if different_pairs(shown(held_out)) >= ENOUGH_PAIRS:
        return held_out, shown(held_out), "of crops that were not trained on"
    some = np.arange(min(500, len(stored)))
    return some, shown(some), f"of crops that were trained on too: the {len(held_out)} held out make too few pairs"


def unseen_of(run: Path, stored: CropSet) -> np.ndarray:
    """Return bool (n,): the crops that a run was never trained on."""
    from scripts.train.data import held_out

    plan = read_json(run / "plan.json")
    return held_out(stored, plan["hold_out"], plan["seed"])


def write_card(out: Path, name: str, crops: Path, reports: Sequence[Path]) -> None:
    """Write `NAME.md` from what export wrote and the reports of `facepipe evaluate`."""
    from scripts.train.export import model_card

    summary = crops / "summary.json"
    card = model_card(
        read_json(out / f"{name}.json"),
        [read_json(path) for path in reports],
        read_json(summary) if summary.exists() else None,
    )
    with atomic_file(out / f"{name}.md") as file:
        file.write(card.encode())


def run_evaluate(run: Path, crops: Path, out: Path, name: str, options: Options, say: Say) -> list[Path]:
    """Run `facepipe evaluate verify` with the registered model; return its reports.

    On pairs of the people who were held out from training, and on --eval-pairs where they are given.
    """
    from scripts.train.evaluate import evaluate, held_out_pairs

    pairs = held_out_pairs(CropSet(crops), unseen_of(run, CropSet(crops)), out / "held-out-pairs.csv")
    asked = [(pairs, Path("/"), "held-out")] if pairs else []
    if not pairs:
        say("evaluate: too few people were held out from training to measure on them; see --hold-out")
    if options["eval_pairs"] is not None:
        asked.append((options["eval_pairs"], options["eval_images"], "eval-pairs"))
    reports = []
    for file, images, label in asked:
        path = out / f"evaluate-{label}.json"
        report = evaluate(file, images, name, options["device"], path)
        tar = ", ".join(f"TAR {100 * v:.1f} % at FAR {k}" for k, v in report["tar_at_far"].items())
        say(f"evaluate, {label}: {report['pairs']:,} pairs, accuracy {100 * report['accuracy']:.2f} %, {tar}")
        reports.append(path)
    return reports


def dim_of(options: Options) -> int:
    """Return how long the student's vectors are."""
    from scripts.train.students import ARCHITECTURES, load_start

    if options["start"]:
        return load_start(options["start"]).architecture.dim
    if options["architecture"] not in ARCHITECTURES:
        raise UsageError(f"no student {options['architecture']!r}; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[options["architecture"]].dim
