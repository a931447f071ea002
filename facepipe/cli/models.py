"""`facepipe models`: what networks there are, whose licence they carry, where they lie, and how to get more."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facepipe.cli.common import (
    FiniteRange,
    PlacePath,
    cell,
    echo,
    err_console,
    json_option,
    note,
    out_console,
    quiet_option,
)
from facepipe.errors import ModelError, UsageError

if TYPE_CHECKING:
    from facepipe.models.registry import ModelRecord

SCHEMA_VERSION = 1


@click.group()
def models() -> None:
    """Show the networks, fetch more of them, and register your own."""


def _lfw(record: ModelRecord) -> str:
    """Return the accuracy on LFW for the table: as measured here, else as claimed, with a star."""
    from facepipe.models.card import statistics_of

    statistics = statistics_of(record)
    if statistics and "lfw" in statistics.card:
        return f"{100 * statistics.card['lfw']['accuracy']:.2f} %"
    claimed = record.accuracy[0].partition(",")[0].removeprefix("LFW ") if record.accuracy else ""
    return f"{claimed} *" if claimed else ""


@models.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List all known networks: which are on this machine, their licences and accuracy."""
    from facepipe.models.card import model_facts
    from facepipe.models.registry import is_here, records

    known = records()
    if as_json:
        echo(
            json.dumps(
                {"schema_version": SCHEMA_VERSION, "models": [model_facts(record) for record in known]}, indent=2
            )
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in ("name", "kind", "here", "dim", "LFW", "code"):
        table.add_column(heading, no_wrap=True)
    for heading in ("weights", "training data"):
        table.add_column(heading, overflow="fold")
    for record in known:
        licence = record.licence
        table.add_row(
            *map(
                cell,
                (
                    record.name,
                    record.kind,
                    "yes" if is_here(record) else "no",
                    record.dim or "",
                    _lfw(record),
                    licence.code,
                    licence.weights,
                    licence.data,
                ),
            )
        )
    out_console().print(table)
    echo("LFW: accuracy in its 6,000 pairs, measured by facepipe; * as its publisher says")


@models.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show everything that is recorded about one network."""
    from facepipe.models.card import card_lines, model_facts, statistics_of
    from facepipe.models.registry import get_record

    record = get_record(name)
    facts = model_facts(record)
    if as_json:
        echo(json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2))
        return
    rows: list[tuple[str, object]] = [
        ("name", record.name),
        ("kind", record.kind),
        ("network", record.network),
        ("note", record.note),
        ("on this machine", "yes" if facts["here"] else "no"),
        *(("path", path) for path in facts["paths"]),
        *((f"file {file.file}", _file_line(file.size, file.sha256)) for file in record.files),
        *(("address", file.url) for file in record.files if file.url),
        ("hash recorded by", record.hash_source),
        ("licence of the code", record.licence.code),
        ("licence of the weights", record.licence.weights),
        ("training data", record.licence.data),
        ("input", f"{record.input}x{record.input} {record.colour}" if record.input else f"any size, {record.colour}"),
        ("normalisation", f"(pixel - {_numbers(record.mean)}) / {_numbers(record.std)}"),
        ("alignment", record.template),
        ("vector", f"{record.dim} numbers" if record.dim else None),
        *(("accuracy", line) for line in record.accuracy),
        ("fingerprint", facts["fingerprint"]),
    ]
    if (statistics := statistics_of(record)) is not None:
        first, *others = card_lines(statistics)
        rows += [("model card", first), *(("", line) for line in others)]
    else:
        rows += [("threshold", record.threshold), ("margin", record.margin)]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        if value is not None:
            echo(f"{label:<{width}}  {value}")


def _file_line(size: int | None, sha256: str | None) -> str:
    parts = [f"{size:,} bytes" if size else "size unknown", f"SHA-256 {sha256}" if sha256 else "no hash recorded"]
    return ", ".join(parts)


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{v:g}" for v in values) + ")"


@models.command()
@click.argument("name")
@click.option(
    "--from",
    "source",
    metavar="FILE|URL",
    help="A local file, a folder, or a mirror's URL, instead of the recorded address.",
)
@click.option("--accept-licence", is_flag=True, help="Accept a licence that restricts use, without being asked.")
@click.option("--accept-sha256", metavar="HEX", help="The hash to accept when none is recorded, without being asked.")
@quiet_option
def pull(name: str, source: str | None, accept_licence: bool, accept_sha256: str | None, quiet: bool) -> None:
    """Fetch a network's file, check its SHA-256, and keep it.

    Weights whose licence restricts use are fetched only when you accept it. FACEPIPE_OFFLINE=1 forbids any connection.
    """
    from facepipe.models.pull import pull as fetch
    from facepipe.models.registry import get_record

    record = get_record(name)
    if record.licence.consent and not accept_licence:
        _ask_for_consent(record)
    bar = _Bar(name) if sys.stderr.isatty() and not quiet else None
    try:
        place = fetch(
            record, source, confirm=_confirmation(record, accept_sha256), progress=bar.advance if bar else None
        )
    finally:
        if bar is not None:
            bar.close()
    echo(str(place))


def _ask_for_consent(record: ModelRecord) -> None:
    licence = record.licence
    note(f"{record.name}: weights: {licence.weights}; training data: {licence.data}")
    if not sys.stdin.isatty():
        raise UsageError(
            f"model {record.name!r} may be used only under restrictions; accept them with --accept-licence"
        )
    if not click.confirm("Do you accept this?", err=True):
        raise UsageError(f"model {record.name!r}: its licence was not accepted; nothing was fetched")


def _confirmation(record: ModelRecord, accepted: str | None) -> Callable[[str], bool]:
    """Return what decides about a hash that nobody has recorded: the option, else the user."""

    def decide(sha256: str) -> bool:
        if accepted is not None:
            return sha256 == accepted.strip().lower()
        note(f"{record.name}: no hash is recorded for this file. The received file has SHA-256 {sha256}")
        if not sys.stdin.isatty():
            raise ModelError(
                f"model {record.name!r}: confirm its hash: compare it with a source you trust, then "
                f"pull again with --accept-sha256 {sha256}"
            )
        return click.confirm(
            "Does a source you trust give the same hash? Keep the file and require this hash from now on?", err=True
        )

    return decide


class _Bar:
    """A progress bar on stderr for a download."""

    def __init__(self, name: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        self._bar = Progress(
            "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err_console()
        )
        self._task = self._bar.add_task(name, total=None)
        self._started = False

    def advance(self, count: int, total: int) -> None:
        """`count` more bytes of `total`."""
        if not self._started:
            self._bar.start()
            self._started = True
        self._bar.update(self._task, advance=count, total=total or None)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._started:
            self._bar.stop()
            self._started = False


@models.command()
@click.argument("names", nargs=-1)
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check the files of the networks on this machine against their recorded hashes; all of them, or those named."""
    from facepipe.models.registry import get_record, records, verify_model

    chosen = [get_record(name) for name in names] if names else records()
    results = [(record.name, *verify_model(record)) for record in chosen]
    if as_json:
        rows = [{"name": name, "state": state, "reason": reason} for name, state, reason in results]
        echo(json.dumps({"schema_version": SCHEMA_VERSION, "models": rows}, indent=2))
    else:
        width = max(len(name) for name, _, _ in results)
        for name, state, reason in results:
            echo(f"{name:<{width}}  {state}" + (f"  {reason}" if reason else ""))
    bad = [name for name, state, _ in results if state == "bad"]
    missing = [name for name, state, _ in results if state == "absent" and names]
    if bad:
        raise ModelError(f"not the recorded files: {', '.join(bad)}; pull or install them again")
    if missing:
        raise ModelError(f"not on this machine: {', '.join(missing)}; see `facepipe models show NAME`")


def _three(text: str, option: str) -> tuple[float, float, float]:
    """Read one number for all channels, or three with commas."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: give one number, or three with commas") from error
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or not all(abs(v) < 1e9 for v in values):
        raise UsageError(f"{option} {text!r}: give one number, or three with commas")
    return values[0], values[1], values[2]


@models.command()
@click.argument("file", type=PlacePath(dir_okay=False))
@click.option("--name", required=True, help="What to call it.")
@click.option(
    "--template",
    metavar="TEMPLATE",
    help="How faces are aligned: arcface112, margin160. Needed for ONNX; a .safetensors file has arcface112.",
)
@click.option("--mean", default="127.5", show_default=True, help="Subtracted from each pixel; one number or R,G,B.")
@click.option("--std", help="What the result is divided by; one number or R,G,B. [default: 127.5; .safetensors: 128]")
@click.option("--dim", type=click.IntRange(1, 65536), help="Length of its vectors; default: taken from the network.")
@click.option("--bgr", is_flag=True, help="The network expects BGR; --mean and --std are then in that order too.")
@click.option("--threshold", type=FiniteRange(-1, 1), help="Cosine at which two faces are the same person.")
@click.option(
    "--margin",
    type=FiniteRange(0, 2),
    default=0.03,
    show_default=True,
    help="Lead that the best person must have over the second.",
)
@click.option("--licence", default="not stated", help="Licence of its weights, for `models list`.")
def add(
    file: Path,
    name: str,
    template: str | None,
    mean: str,
    std: str | None,
    dim: int | None,
    bgr: bool,
    threshold: float | None,
    margin: float,
    licence: str,
) -> None:
    """Register your own embedder: FILE is copied, tried on two chips, and known by its hash from then on.

    FILE is an ONNX network, or the .safetensors file of a network that was trained with this project's recipe.
    """
    from facepipe.embed.own import add_model, own_record

    divisor = None if std is None else _three(std, "--std")
    record = own_record(
        file,
        name,
        template=template,
        mean=_three(mean, "--mean"),
        std=divisor,
        bgr=bgr,
        dim=dim,
        threshold=threshold,
        margin=margin,
        licence=licence,
    )
    added = add_model(record, file)
    echo(f"{added.name}: {added.dim} numbers, fingerprint {added.fingerprint}")


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a network that was fetched or added."""
    from facepipe.models.folder import remove_model

    echo(f"removed {remove_model(name)}")
