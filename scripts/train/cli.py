"""The commands of the recipe. Each is thin: the work is in the modules beside this one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from facepipe.cli.common import echo, note
from scripts.train.lock import owned

_F = TypeVar("_F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
_OUT = click.option("--out", type=_PATH, required=True, help="Folder of what this step writes.")
_CROPS = click.option("--crops", type=_PATH, required=True, help="Folder that `crops` wrote.")
_TARGETS = click.option("--targets", type=_PATH, required=True, help="Folder that `teach` wrote.")
_NAME = click.option("--name", required=True, help="What the network is called.")
_TEACHERS = click.option(
    "--teacher", "teachers", multiple=True, required=True, metavar="NAME[=FILE.onnx][:WEIGHT]",
    help="A model of facepipe, or an ONNX file with a description of its input; repeatable.",
)  # fmt: skip
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train the embedder: photos, crops, teachers, distillation, a model that facepipe runs.

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
    click.option("--forbidden-model", default="mini", show_default=True, help="Model that compares with them."),
    click.option("--forbidden-similarity", type=click.FloatRange(-1, 1),
                 help="Cosine at which a face counts as one of theirs.  [default: 0.51 for mini]"),
    click.option("--exclude", type=_PATH, help="List of identities to keep out, one on a line, * and ? allowed."),
    click.option("--faces", type=click.Choice(["auto", "all", "largest"]), default="auto", show_default=True,
                 help="Of each photo; auto: the largest where the folder names one person, else all."),
    click.option("--min-score", type=click.FloatRange(0, 1), default=0.95, show_default=True),
    click.option("--min-face", type=click.IntRange(min=12), default=40, show_default=True, help="Pixels."),
    click.option("--crop-workers", type=click.IntRange(min=0), default=2, show_default=True, help="Processes."),
)  # fmt: skip

distill_options = _together(
    click.option("--architecture", default="early", show_default=True, help="A student of scripts/train/students.py."),
    click.option("--norm", type=click.Choice(["ws", "bn"]), default="bn", show_default=True),
    click.option("--from", "start", default="", metavar="MODEL", help="Start from mini, or a .safetensors file."),
    click.option("--samples", type=click.IntRange(min=1), default=500_000, show_default=True, help="Crops seen in all."),
    click.option("--minutes", type=click.FloatRange(min=0.01), help="As many samples as fit, counted anew every minute."),
    click.option("--batch", type=click.IntRange(min=2), default=128, show_default=True),
    click.option("--optimizer", type=click.Choice(["muon", "adamw"]), default="muon", show_default=True),
    click.option("--lr", type=float, default=0.0, help="Learning rate at its highest.  [default: 0.012; for adamw 0.002]"),
    click.option("--decay", type=click.FloatRange(0, 1), default=0.3, show_default=True,
                 help="Share of the run, at its end, in which the rate falls; before, --samples may be changed."),
    click.option("--relational", type=float, default=4.0, show_default=True, help="Weight of the relational loss."),
    click.option("--identity", type=float, default=0.0, show_default=True, help="Weight of the margin softmax."),
    click.option("--margin", type=click.Choice(["cosface", "arcface"]), default="cosface", show_default=True),
    click.option("--hold-out", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share never trained on."),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--workers", type=click.IntRange(min=0), help="Processes that make batches.  [default: 1; on a GPU cores - 1]"),
    click.option("--threads", type=click.IntRange(min=0), default=0, show_default=True, help="Of torch; 0: its choice."),
    click.option("--compile", "compiled", is_flag=True, help="Through torch.compile (needs a C++ compiler)."),
    click.option("--every", type=click.IntRange(min=1), default=50_000, show_default=True, help="Samples between checks."),
    click.option("--eval-pairs", type=_PATH, help="LFW's pairs.txt or a CSV a,b,same: checked during the run."),
    click.option("--eval-images", type=_PATH, help="Folder that the names in the pairs are relative to."),
    click.option("--eval-every-pair", type=click.IntRange(min=1), default=1, show_default=True, help="Use one pair in N."),
    _DEVICE,
)  # fmt: skip


@cli.command()
@click.argument("photos", type=_PATH, nargs=-1, required=True)
@_OUT
@crop_options
@_DEVICE
def crops(photos: tuple[Path, ...], out: Path, **options: Any) -> None:
    """Step 1: folders or archives (zip, tar) of photos become shards of aligned crops."""
    from scripts.train.steps import run_crops

    echo(json.dumps(run_crops(photos, out, options, note), indent=1))


@cli.command()
@_CROPS
@_OUT
@_TEACHERS
@click.option("--dim", type=click.IntRange(min=2), default=256, show_default=True, help="Of the joined target.")
@_DEVICE
def teach(crops: Path, out: Path, teachers: tuple[str, ...], dim: int, device: str) -> None:
    """Step 2: the teachers' vectors of each crop and its mirror image, joined into the target."""
    from scripts.train.steps import run_teach

    echo(json.dumps(run_teach(crops, out, teachers, dim, device, note), indent=1))


@cli.command()
@_CROPS
@_TARGETS
@_OUT
@distill_options
def distill(crops: Path, targets: Path, out: Path, **options: Any) -> None:
    """Step 3: train a student; the same command goes on after a kill."""
    from scripts.train.steps import run_distill

    echo(json.dumps(run_distill(crops, targets, out, options, note), indent=1))


@cli.command()
@click.option("--run", type=_PATH, required=True, help="Folder that `distill` wrote.")
@_CROPS
@click.option("--targets", type=_PATH, help="Folder that `teach` wrote: the teachers' licences for the model card.")
@_OUT
@_NAME
@click.option("--report", "reports", type=_PATH, multiple=True, help="JSON of `facepipe evaluate`, for the model card.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    help="Default: measured, on crops held out if they are enough.",
)
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
    from scripts.train.export import MARGIN, Decision
    from scripts.train.steps import run_export

    decision = None if threshold is None else Decision(threshold, MARGIN, "threshold: as given")
    echo(json.dumps(run_export(run, crops, targets, out, name, reports, register, note, decision), indent=1))


@cli.command()
@click.option("--pairs", type=_PATH, required=True, help="LFW's pairs.txt, or a CSV a,b,same.")
@click.option("--images", type=_PATH, required=True, help="Folder that the names in the pairs are relative to.")
@_OUT
@_TEACHERS
@click.option("--centre-on", type=_PATH, help="Folder of `teach` whose crops give the means; default: the set's own.")
@_DEVICE
def judge(pairs: Path, images: Path, out: Path, teachers: tuple[str, ...], centre_on: Path | None, device: str) -> None:
    """Measure teachers, and all of them joined, on a pair list, through facepipe's detection and alignment."""
    from facepipe.loading import load_describer
    from scripts.train.evalsets import load_evalset
    from scripts.train.teach import judge as judge_teachers
    from scripts.train.teachers import load_teacher

    evalset = load_evalset(pairs, images, out, lambda: load_describer("mini", device).detector, note)
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
    """All steps: from photos to a registered model, measured. Killed at any moment, the same command goes on."""
    from scripts.train.steps import (
        check_teachers,
        dim_of,
        known_crops,
        run_distill,
        run_evaluate,
        run_export,
        run_teach,
        write_card,
    )

    crops, targets, run, model = (out / folder for folder in ("crops", "targets", "run", "model"))
    with owned(out):
        dim = dim_of(options)
        check_teachers(teachers, targets, options["device"])
        known_crops(photos, crops, options, note)
        if not (targets / "target.json").exists():
            run_teach(crops, targets, teachers, dim, options["device"], note)
        run_distill(crops, targets, run, options, note)
        run_export(run, crops, targets, model, name, (), True, note)
        write_card(model, name, crops, run_evaluate(run, crops, model, name, options, note))
    echo(str(model / f"{name}.safetensors"))
