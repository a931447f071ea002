"""The commands of the recipe. Each is thin: the work is in the modules beside this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facepipe.cli.common import echo, note

if TYPE_CHECKING:
    from scripts.train.crops import CropsPlan
    from scripts.train.distill import DistillPlan, Machine
    from scripts.train.evalsets import EvalSet

_F = TypeVar("_F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
_OUT = click.option("--out", type=_PATH, required=True, help="Folder of what this step writes.")
_CROPS = click.option("--crops", type=_PATH, required=True, help="Folder that `crops` wrote.")
_TARGETS = click.option("--targets", type=_PATH, required=True, help="Folder that `teach` wrote.")
_NAME = click.option("--name", required=True, help="What the network is called.")
_TEACHERS = click.option(
    "--teacher", "teachers", multiple=True, default=("dlib",), show_default=True, metavar="NAME[=FILE.onnx][:WEIGHT]",
    help="A model of facepipe, or an ONNX file with a description of its input; repeatable.",
)  # fmt: skip
_COMPARED = (
    "v0/ws",
    "v0/bn",
    "early/ws",
    "early/bn",
    "early-deep/ws",
    "wide-shallow/ws",
    "depthwise/ws",
    "depthwise/bn",
)
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train the embedder, or adapt it: photos, crops, teachers, distillation, a model that facepipe runs.

    \b
    scripts/train/run all photos/ --out work --name mine --minutes 60
    """


def _together(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


crop_options = _together(
    click.option("--forbidden", type=_PATH, multiple=True, help="Photos of people to keep out (an evaluation set)."),
    click.option("--forbidden-similarity", type=click.FloatRange(-1, 1), default=0.6, show_default=True,
                 help="Cosine at which a face counts as one of theirs."),
    click.option("--forbidden-model", default="mini", show_default=True, help="Model that compares with them."),
    click.option("--exclude", type=_PATH, help="List of identities to keep out, one on a line, * and ? allowed."),
    click.option("--faces", type=click.Choice(["auto", "all", "largest"]), default="auto", show_default=True,
                 help="Of each photo; auto: the largest where the folder names one person, else all."),
    click.option("--min-score", type=click.FloatRange(0, 1), default=0.95, show_default=True),
    click.option("--min-face", type=click.IntRange(min=12), default=40, show_default=True, help="Pixels."),
    click.option("--crop-workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes."),
)  # fmt: skip

distill_options = _together(
    click.option("--architecture", default="early", show_default=True, help="A student of scripts/train/students.py."),
    click.option("--norm", type=click.Choice(["ws", "bn"]), default="ws", show_default=True),
    click.option("--from", "start", default="", metavar="MODEL", help="Start from mini, or a .safetensors file."),
    click.option("--samples", type=click.IntRange(min=1), default=500_000, show_default=True, help="Crops seen in all."),
    click.option("--minutes", type=click.FloatRange(min=0.01), help="As many samples as fit, instead of --samples."),
    click.option("--batch", type=click.IntRange(min=2), default=128, show_default=True),
    click.option("--lr", type=float, default=2e-3, show_default=True, help="Learning rate at its highest."),
    click.option("--relational", type=float, default=4.0, show_default=True, help="Weight of the relational loss."),
    click.option("--identity", type=float, default=0.0, show_default=True, help="Weight of the margin softmax."),
    click.option("--margin", type=click.Choice(["cosface", "arcface"]), default="cosface", show_default=True),
    click.option("--hold-out", type=click.FloatRange(0, 0.9), default=0.05, show_default=True, help="Share never trained on."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--workers", type=click.IntRange(min=0), default=1, show_default=True, help="Processes that make batches."),
    click.option("--threads", type=click.IntRange(min=0), default=0, show_default=True, help="Of torch; 0: its choice."),
    click.option("--compile", "compiled", is_flag=True, help="Through torch.compile (needs a C++ compiler)."),
    click.option("--every", type=click.IntRange(min=1), default=50_000, show_default=True, help="Samples between checks."),
    click.option("--eval-pairs", type=_PATH, help="LFW's pairs.txt or a CSV a,b,same: checked during the run."),
    click.option("--eval-images", type=_PATH, help="Folder that the names in the pairs are relative to."),
    click.option("--eval-every-pair", type=click.IntRange(min=1), default=1, show_default=True, help="Use one pair in N."),
    _DEVICE,
)  # fmt: skip


def _plan(options: dict[str, Any]) -> tuple[DistillPlan, Machine]:
    from scripts.train.distill import DistillPlan, Machine

    names = (
        "architecture",
        "norm",
        "start",
        "samples",
        "batch",
        "lr",
        "relational",
        "identity",
        "margin",
        "hold_out",
        "seed",
    )
    plan = {name: options[name] for name in names}
    if plan["start"]:
        plan["norm"] = "none"
    machine = Machine(options["device"], options["workers"], options["threads"], options["compiled"], options["every"])
    return DistillPlan(**plan), machine


def _evalsets(options: dict[str, Any], cache: Path) -> list[EvalSet]:
    from facepipe.errors import UsageError

    if (options["eval_pairs"] is None) != (options["eval_images"] is None):
        raise UsageError("--eval-pairs and --eval-images belong together")
    if options["eval_pairs"] is None:
        return []
    from facepipe.pipeline import load_extractor
    from scripts.train.evalsets import load_evalset, part

    device = options["device"]
    whole = load_evalset(
        options["eval_pairs"], options["eval_images"], cache, lambda: load_extractor("mini", device).detector, note
    )
    return [part(whole, options["eval_every_pair"])]


def _crops_plan(inputs: tuple[Path, ...], options: dict[str, Any]) -> CropsPlan:
    from scripts.train.crops import CropsPlan, read_patterns
    from scripts.train.faces import CropOptions

    return CropsPlan(
        inputs,
        options["forbidden"],
        read_patterns(options["exclude"]) if options["exclude"] else (),
        options["forbidden_similarity"],
        options["forbidden_model"],
        options=CropOptions(options["faces"], options["min_score"], float(options["min_face"])),
    )


def _crop(inputs: tuple[Path, ...], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    from scripts.train.crops import make_crops, photo_mapper
    from scripts.train.shards import write_json

    plan = _crops_plan(inputs, options)
    with photo_mapper(plan, options["crop_workers"], options["device"]) as mapper:
        summary = make_crops(plan, out, mapper, note)
    write_json(out / "summary.json", summary)
    note(f"crops: {json.dumps(summary)}")
    return summary


def _teach(crops: Path, out: Path, teachers: tuple[str, ...], dim: int, device: str) -> dict[str, Any]:
    from scripts.train.teach import join, teach
    from scripts.train.teachers import load_teacher

    loaded = [load_teacher(text, device) for text in teachers]
    rates = [teach(crops, out, teacher, note) for teacher in loaded]
    summary = join(crops, out, [t.name for t in loaded], dim, [t.weight for t in loaded])
    result = {"crops": summary["crops"], "kept": summary["kept"], "teachers": rates}
    note(f"teach: {json.dumps(result)}")
    return result


def _distill(crops: Path, targets: Path, out: Path, options: dict[str, Any], **changes: Any) -> dict[str, Any]:
    from dataclasses import replace

    from scripts.train.distill import Run, plan_for

    plan, machine = _plan(options)
    plan = replace(plan, **changes)
    sets = _evalsets(options, out.parent / "evalsets")
    run = Run(plan, machine, crops, targets, out, sets, note)
    if options["minutes"] is not None:
        run = Run(plan_for(options["minutes"], run), machine, crops, targets, out, sets, note)
    figures = run.go()
    note(f"distill: {json.dumps(figures)}")
    return figures


def _export(
    run: Path,
    crops: Path,
    targets: Path | None,
    out: Path,
    name: str,
    reports: tuple[Path, ...],
    register: bool,
    threshold: float | None = None,
) -> dict[str, Any]:
    import numpy as np

    from facepipe.files import atomic_file
    from facepipe.networks.registry import record_from_dict
    from facepipe.networks.store import add_model
    from scripts.train.data import held_out, held_out_photos, plain_chips
    from scripts.train.export import export, model_card
    from scripts.train.shards import CropSet, read_json

    stored = CropSet(crops)
    # Crops that were not trained on, if there are enough of them: the threshold is measured on these.
    values = read_json(run / "plan.json")
    split = held_out if values["by"] == "people" else held_out_photos
    unseen = np.flatnonzero(split(stored, values["hold_out"], values["seed"]))[:1000]
    chosen = unseen if len(unseen) >= 60 else np.arange(min(500, len(stored)))
    people = [str(stored.metas[i]["identity"] or stored.metas[i]["sha256"]) for i in chosen]
    facts = export(run, out, name, plain_chips(stored, chosen), targets, people, threshold)
    summary = crops / "summary.json"
    data = read_json(summary) if summary.exists() else None
    with atomic_file(out / f"{name}.md") as file:
        file.write(model_card(facts, [read_json(path) for path in reports], data).encode())
    if register:
        added = add_model(record_from_dict(facts["record"]), out / f"{name}.safetensors")
        note(f"registered {added.name}: facepipe ... --model {added.name}")
    note(f"export: {json.dumps({k: facts[k] for k in ('parameters', 'agreement', 'ms_per_face')})}")
    return facts


@cli.command()
@click.argument("photos", type=_PATH, nargs=-1, required=True)
@_OUT
@crop_options
@_DEVICE
def crops(photos: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Step 1: folders or archives (zip, tar) of photos become shards of aligned crops."""
    echo(json.dumps(_crop(photos, out, options), indent=1))


@cli.command()
@_CROPS
@_OUT
@_TEACHERS
@click.option("--dim", type=click.IntRange(min=2), default=256, show_default=True, help="Of the joined target.")
@_DEVICE
def teach(crops: Path, out: Path, teachers: tuple[str, ...], dim: int, device: str) -> None:
    """Step 2: the teachers' vectors of each crop and its mirror image, joined into the target."""
    echo(json.dumps(_teach(crops, out, teachers, dim, device), indent=1))


@cli.command()
@_CROPS
@_TARGETS
@_OUT
@distill_options
def distill(crops: Path, targets: Path, out: Path, **options: Any) -> None:
    """Step 3: train a student; the same command goes on after a kill."""
    echo(json.dumps(_distill(crops, targets, out, options), indent=1))


@cli.command()
@click.option("--run", type=_PATH, required=True, help="Folder that `distill` wrote.")
@_CROPS
@click.option("--targets", type=_PATH, help="Folder that `teach` wrote: the teachers' licences for the model card.")
@_OUT
@_NAME
@click.option("--report", "reports", type=_PATH, multiple=True, help="JSON of `facepipe evaluate`, for the model card.")
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Default: measured on crops that were not trained on.")
@click.option("--register", is_flag=True, help="Make it known to facepipe under its name.")
def export(
    run: Path,
    crops: Path,
    targets: Path | None,
    out: Path,
    name: str,
    reports: tuple[Path, ...],
    threshold: float | None,
    register: bool,
) -> None:
    """Step 4: safetensors, ONNX, record and model card; the formats are checked against each other on real faces."""
    echo(json.dumps(_export(run, crops, targets, out, name, reports, register, threshold), indent=1))


@cli.command(context_settings={"default_map": {"hold_out": 0.3, "samples": 20_480}})
@_CROPS
@_TARGETS
@_OUT
@click.option("--student", "students", multiple=True, metavar="NAME[/ws|/bn]", default=_COMPARED, show_default=True)
@distill_options
def search(crops: Path, targets: Path, out: Path, students: tuple[str, ...], **options: Any) -> None:
    """Step 5: compare students after equal training: accuracy on people held out (--hold-out), ms per face, size.

    The student is chosen on these people. --eval-pairs adds a column and changes no choice: a set that is reported on must not
    choose.
    """
    from facepipe.errors import UsageError
    from scripts.train.search import chosen, compare, table

    if options["minutes"] is not None:
        raise UsageError("search: students are compared after equally many crops; use --samples instead of --minutes")
    plan, machine = _plan(options)
    rows = compare(students, plan, machine, crops, targets, out, _evalsets(options, out.parent / "evalsets"), note)
    echo(table(rows))
    best = chosen(rows)
    note(f"nearest to the teacher within the limits: {best['name']}" if best else "no student is within the limits")


@cli.command()
@click.option("--pairs", type=_PATH, required=True, help="LFW's pairs.txt, or a CSV a,b,same.")
@click.option("--images", type=_PATH, required=True, help="Folder that the names in the pairs are relative to.")
@_OUT
@_TEACHERS
@click.option("--centre-on", type=_PATH, help="Folder of `teach` whose crops give the means; default: the set's own.")
@_DEVICE
def judge(pairs: Path, images: Path, out: Path, teachers: tuple[str, ...], centre_on: Path | None, device: str) -> None:
    """Measure teachers, and all of them joined, on a pair list, through facepipe's detection and alignment."""
    from facepipe.pipeline import load_extractor
    from scripts.train.evalsets import load_evalset
    from scripts.train.teach import judge as judge_teachers
    from scripts.train.teachers import load_teacher

    evalset = load_evalset(pairs, images, out, lambda: load_extractor("mini", device).detector, note)
    echo(
        json.dumps(judge_teachers(evalset, [load_teacher(t, device) for t in teachers], out, centre_on, note), indent=1)
    )


@cli.command("all")
@click.argument("photos", type=_PATH, nargs=-1, required=True)
@_OUT
@_NAME
@_TEACHERS
@crop_options
@distill_options
def everything(photos: tuple[Path, ...], out: Path, name: str, teachers: tuple[str, ...], **options: Any) -> None:
    """All steps: from photos to a registered model. Killed at any moment, the same command goes on."""
    if not (out / "crops" / "summary.json").exists():
        _crop(photos, out / "crops", options)
    dim = _dim(options)
    if not (out / "targets" / "target.json").exists():
        _teach(out / "crops", out / "targets", teachers, dim, options["device"])
    _distill(out / "crops", out / "targets", out / "run", options)
    _export(out / "run", out / "crops", out / "targets", out / "model", name, (), register=True)
    echo(str(out / "model" / f"{name}.safetensors"))


def _dim(options: dict[str, Any]) -> int:
    from facepipe.errors import UsageError
    from scripts.train.distill import load_start
    from scripts.train.students import ARCHITECTURES

    if options["start"]:
        return load_start(options["start"]).architecture.dim
    if options["architecture"] not in ARCHITECTURES:
        raise UsageError(f"no student {options['architecture']!r}; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[options["architecture"]].dim


#: A network that is trained already wants smaller steps and fewer of them.
_ADAPTING = {"start": "mini", "identity": 0.01, "hold_out": 0.3, "lr": 3e-5, "samples": 5_000, "batch": 64}


@cli.command(context_settings={"default_map": _ADAPTING})
@click.argument("people", type=_PATH, nargs=-1, required=True)
@click.option(
    "--strangers", type=_PATH, multiple=True, required=True, help="Photos of others: measured, never trained on."
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME[=FILE.onnx][:WEIGHT]",
    help="Who teaches meanwhile; default: the network itself.",
)
@click.option(
    "--keep", type=_PATH, multiple=True, help="Photos of anybody: trained on to stay as good with others as before."
)
@_OUT
@_NAME
@crop_options
@distill_options
def adapt(
    people: tuple[Path, ...],
    strangers: tuple[Path, ...],
    teachers: tuple[str, ...],
    keep: tuple[Path, ...],
    out: Path,
    name: str,
    **options: Any,
) -> None:
    """Adapt a network (--from) to people: folders named like them, a few photos each.

    Part of their photos (--hold-out) is kept aside; on these the gain is measured, and on strangers the price.
    """
    from facepipe.networks.registry import get_record, load_embedder
    from scripts.train.adapt import gain
    from scripts.train.data import held_out_photos
    from scripts.train.shards import CropSet, write_json

    hold_out = options["hold_out"]
    others = {**options, "forbidden": (), "exclude": None}
    for roots, folder, chosen in (((*people, *keep), "crops", options), (strangers, "strangers", others)):
        if not (out / folder / "summary.json").exists():
            _crop(roots, out / folder, chosen)
    if not (out / "targets" / "target.json").exists():
        _teach(out / "crops", out / "targets", teachers or (options["start"],), _dim(options), options["device"])
    _distill(out / "crops", out / "targets", out / "run", options, by="photos", balanced=0.5)
    # The threshold stays that of the network it comes from: what strangers pay is measured there.
    known = not options["start"].endswith(".safetensors")
    threshold = get_record(options["start"] if known else "mini").decision()[0]
    facts = _export(out / "run", out / "crops", out / "targets", out / "model", name, (), True, threshold)
    stored = CropSet(out / "crops")
    result = gain(
        load_embedder(options["start"], options["device"]),
        load_embedder(name, options["device"]),
        threshold,
        stored,
        held_out_photos(stored, hold_out, options["seed"]),
        CropSet(out / "strangers"),
    )
    write_json(out / "gain.json", {**result, "parameters": facts["parameters"]})
    echo(json.dumps(result, indent=1))
    for line in result["warnings"]:
        note(f"warning: {line}")
