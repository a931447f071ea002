"""Results as a table for people, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facepipe.records import Record
from facepipe.text import plural, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: The terminal's colour of each answer; the word stands beside it, colour is never the only sign.
STATUS_STYLES = {
    "known": "bold green",
    "ambiguous": "bold yellow",
    "unknown": "cyan",
    "no face": "dim",
    "failed": "red",
}


def percent(probability: float | None) -> str:
    """Return a probability as whole percent; never 0 % or 100 %, which nobody can promise; a dash for None."""
    if probability is None:
        return "–"
    if probability < 0.01:
        return "<1 %"
    if probability > 0.99:
        return ">99 %"
    return f"{100 * probability:.0f} %"


def who(face: Mapping[str, Any]) -> str:
    """Return the answer about one face in a few words: a name, `A or B?`, or `unknown`."""
    if face["status"] == "known":
        return str(face["person"])
    if face["status"] == "ambiguous":
        return " or ".join(candidate["person"] for candidate in face["candidates"][:2]) + "?"
    return "unknown"


def photo_table(records: Iterable[Record]) -> Table:
    """Return a rich table with a row for each face, and one for each photo that has none or failed."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("photo", overflow="fold")
    table.add_column("face", justify="right")
    table.add_column("answer")
    table.add_column("who", overflow="fold")
    table.add_column("sure", justify="right", no_wrap=True)
    table.add_column("similarity", justify="right", no_wrap=True)
    table.add_column("nearest people", overflow="fold", style="dim")
    for record in records:
        for row in _rows(record):
            table.add_row(*row)
    return table


def _rows(record: Record) -> Iterable[Sequence[Text | str]]:
    from rich.text import Text

    path = Text(printable(record["path"]))
    if record["error"] is not None:
        reason = printable(record["error"]).removeprefix(f"{path}: ")
        yield path, "", Text("failed", STATUS_STYLES["failed"]), Text(reason), "", "", ""
        return
    if not record["faces"]:
        yield path, "", Text("no face", STATUS_STYLES["no face"]), "", "", "", ""
    for number, face in enumerate(record["faces"], 1):
        nearest = ", ".join(f"{printable(c['person'])} {c['similarity']:.2f}" for c in face["candidates"])
        similarity = "–" if face["similarity"] is None else f"{face['similarity']:.2f} / {face['threshold']:.2f}"
        yield (
            path if number == 1 else "",
            str(number),
            Text(face["status"], STATUS_STYLES[face["status"]]),
            Text(printable(who(face)) if face["status"] != "unknown" else "–"),
            percent(face["probability"]) if face["status"] != "unknown" else "–",
            similarity,
            Text(nearest),
        )


def print_photos(console: Console, records: Sequence[Record]) -> None:
    """Print the table and one line that sums it up."""
    console.print(photo_table(records))
    console.print(summary(records), style="dim", highlight=False, markup=False)


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the counts of some photos in one line."""
    statuses = [face["status"] for record in records for face in record["faces"]]
    failed = sum(record["error"] is not None for record in records)
    parts = [f"{statuses.count(status)} {status}" for status in ("known", "ambiguous", "unknown") if status in statuses]
    line = f"{plural(len(records), 'photo')}, {plural(len(statuses), 'face')}"
    line += f": {', '.join(parts)}" if parts else ""
    return line + (f"; {failed} failed" if failed else "")
