"""What `facepipe batch` shows while it works, and says when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from facepipe.cli.common import err_console, note
from facepipe.outputs.table import of_them_maybe
from facepipe.text import duration, files, plural

if TYPE_CHECKING:
    from rich.console import Console

    from facepipe.catalog.counts import Counts

#: What is said of the passes after the first.
_STAGES = {"scan": "", "decide": "comparing: ", "outputs": "writing: "}

Show = Callable[["Counts"], None]


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Show]:
    """Show a bar on a terminal, a line every ten seconds elsewhere, nothing when quiet. total: photos as far as is known."""
    console = err_console()
    if quiet:
        yield lambda counts: None
    elif console.is_terminal:
        with _bar(total, console) as show:
            yield show
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int, console: Console) -> Iterator[Show]:
    """Two lines, so that both fit into 60 columns: how far, how fast and how long; and what was found."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    bar = Progress(*columns, console=console, expand=True)
    task = bar.add_task("photos", total=total, rate="")
    found = Text("starting", style="dim", no_wrap=True, overflow="ellipsis")
    with Live(Group(bar, found), console=console, transient=True, refresh_per_second=4):

        def show(counts: Counts) -> None:
            all_photos = max(total, counts.found)
            bar.update(task, total=all_photos, completed=counts.done, rate=f"{rate_of(counts):.1f}/s")
            failed = f"; {counts.failed} failed" if counts.failed else ""
            inside = f"{counts.inside}; " if counts.inside else ""
            found.plain = f"{_STAGES[counts.stage]}{inside}{faces_of(counts)}{failed}"

        yield show


def _lines(total: int, every: float = 10.0) -> Show:
    next_at = every

    def show(counts: Counts) -> None:
        nonlocal next_at
        if counts.seconds < next_at:
            return
        next_at = counts.seconds + every
        rate, rest = rate_of(counts), total - counts.found
        left = f", {duration(rest / rate)} left" if rate and rest > 0 else ""
        speed = f", {rate:.1f} a second{left}" if counts.stage == "scan" else ""
        photos = f"{counts.done:,} of {counts.files(max(total, counts.found))}{speed}"
        inside = f"; {counts.inside}" if counts.inside else ""
        note(f"{_STAGES[counts.stage]}{photos}{inside}; {faces_of(counts)}; {counts.failed} failed")

    return show


def faces_of(counts: Counts) -> str:
    """Say how many faces were found, and of whom."""
    faces = plural(counts.faces, "face")
    if counts.stage != "outputs":
        return faces
    statuses = f"{counts.known:,} known, {counts.ambiguous:,} ambiguous, {counts.unknown:,} unknown"
    return f"{faces}: {statuses}{of_them_maybe(counts.maybe)}"


def rate_of(counts: Counts) -> float:
    """Return how many photos a second this run did; what an earlier run had done does not count."""
    return (counts.fresh + counts.compared) / counts.seconds if counts.seconds else 0.0


def summary(counts: Counts, out: Path) -> str:
    """Say in a few lines what came out."""
    speed = f" in {duration(counts.seconds)} ({rate_of(counts):.1f} a second)"
    again = counts.resumed or counts.compared
    lines = [
        f"{files(counts.found, counts.videos)}{'' if again else speed}, {counts.failed:,} failed",
        faces_of(counts),
    ]
    if counts.resumed:
        scanned = f"{counts.fresh:,} scanned" * bool(counts.fresh)
        done = " and ".join(filter(None, (f"{counts.compared:,} compared again" * bool(counts.compared), scanned)))
        here = f", {done} now in {duration(counts.seconds)}" if done else "; nothing is new"
        lines.append(f"{counts.files(counts.resumed)} {_were(counts.resumed)} done by an earlier run{here}")
    elif counts.compared:
        besides = f", {counts.files(counts.fresh)} scanned" if counts.fresh else ""
        lines.append(f"the faces of {counts.files(counts.compared)} were compared again{besides}{speed}")
    if counts.reused:
        lines.append(
            f"{counts.files(counts.reused)} had the same bytes as another and {_were(counts.reused)} not scanned again"
        )
    if counts.vanished:
        lines.append(
            f"{counts.files(counts.vanished)} of an earlier run vanished and {_were(counts.vanished)} marked in the results"
        )
    if counts.sidecars:
        lines.append(f"{plural(counts.sidecars, 'sidecar')} {_were(counts.sidecars)} written, changed or removed")
    if counts.passed:
        lines.append(f"passed over: {counts.passed}")
    lines.append(f"results: {out}")
    return "\n".join(lines)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
