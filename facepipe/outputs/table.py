"""Results as a table for people, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facepipe.images import is_video
from facepipe.records import Record, track_of
from facepipe.text import clock, files, plural, printable, without_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

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


def against(similarity: float, threshold: float) -> str:
    """Return a similarity and the threshold beside it, with as many digits as show which is greater."""
    digits = next((n for n in (2, 3, 4) if f"{similarity:.{n}f}" != f"{threshold:.{n}f}"), 2)
    return f"{similarity:.{digits}f} / {threshold:.{digits}f}"


def maybe(face: Mapping[str, Any]) -> str | None:
    """Return who an unknown face probably is: pictures and pages show it as an answer of its own; None when nobody is likely."""
    return face.get("suggestion") if face["status"] == "unknown" else None


def either(face: Mapping[str, Any]) -> list[str]:
    """Return the two people of an ambiguous face; whoever is more similar has another face of the photo."""
    return [one["person"] for one in face["candidates"] if one["similarity"] <= face["similarity"]][:2]


def who(face: Mapping[str, Any]) -> str:
    """Return the answer about one face in a few words: a name, `A or B?`, `maybe A, 71 %`, or `unknown`."""
    if face["status"] == "known":
        return str(face["person"])
    if face["status"] == "ambiguous":
        return " or ".join(either(face)) + "?"
    if (person := maybe(face)) is not None:
        return f"maybe {person}, {percent(face['probability'])}"
    return "unknown"


def seen(track: Mapping[str, Any]) -> str:
    """Return from when to when a face is seen in a video, in whole seconds."""
    first, last = clock(track["from"]), clock(track["to"])
    return first if first == last else f"{first}–{last}"


#: A path is not shortened to less than this.
_LEAST_PATH = 16


def photo_table(records: Iterable[Record], width: int) -> Table:
    """Return a rich table with a row for each face, and one for each photo that has none or failed; of videos it says when.

    width: columns of the terminal. Where it is narrow there are fewer candidates, then shorter paths, and then none but the nearest,
    beside its similarity: a name is not cut from its figure.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for record in records for row in _rows(record)]
    when = [row.pop() for row in rows]
    times = max(map(len, when), default=0)
    faces = [row for row in rows if row[1]]  # a failed photo's reason may fold
    widest = [max((cell_len(str(row[place])) for row in faces), default=0) for place in range(1, 6)]
    taken = (
        2 * 6
        + (max(times, 4) + 2 if times else 0)
        + sum(max(own, len(title)) for own, title in zip(widest, _TITLES[1:6], strict=True))
    )
    first = max((cell_len(row[6][0]) for row in rows if row[6]), default=0)
    longest = max((cell_len(str(row[0])) for row in rows), default=0)
    path = max(min(longest, _LEAST_PATH), min(longest, width - taken - max(first, len(_TITLES[6]))))
    room = width - taken - max(path, len(_TITLES[0]))
    titles = _TITLES if room >= first else _TITLES[:6]
    for row in rows:
        row[0] = Text(shortened(str(row[0]), path))
        if titles is _TITLES:
            row[6] = Text(_fitting(row[6], room))
        elif row[6] and str(row[3]) == "–":
            row[3] = Text(f"(like {row[6][0].rpartition(' ')[0]})")
    # A long reason folds within its own column, and takes no room from others.
    nearest = max((cell_len(str(row[6])) for row in faces), default=0) if titles is _TITLES else 0
    who = max(
        widest[2], len("who"), room + max(widest[2], len("who")) - max(nearest, len(_TITLES[6]) if nearest else 0)
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        folds = title in {"photo", "who", "nearest people"}
        table.add_column(
            title,
            justify="right" if title in {"face", "sure", "similarity"} else "left",
            no_wrap=not folds,
            overflow="fold",
            max_width=who if title == "who" else None,
            style="dim" if title == "nearest people" else "",
        )
        if title == "face" and times:
            table.add_column("seen", no_wrap=True)
    for row, seen_when in zip(rows, when, strict=True):
        table.add_row(*row[:2], *([seen_when] if times else []), *row[2 : len(titles)])
    return table


_TITLES = ("photo", "face", "answer", "who", "sure", "similarity", "nearest people")


def shortened(path: str, width: int) -> str:
    """Return a path in so many columns: its end, which tells it from others."""
    from rich.cells import cell_len

    if cell_len(path) <= width:
        return path
    while cell_len(path) > width - 1:
        path = path[1:]
    return f"…{path}"


def _fitting(candidates: Sequence[str], room: int) -> str:
    """Return as many candidates as fit into one line, the first in any case."""
    from rich.cells import cell_len

    shown = ", ".join(candidates[:1])
    for candidate in candidates[1:]:
        if cell_len(f"{shown}, {candidate}") > room:
            break
        shown = f"{shown}, {candidate}"
    return shown


def _rows(record: Record) -> Iterable[Sequence[Any]]:
    """Yield the cells of each row; the last but one is a list of candidates, the last when the face is seen in a video."""
    from rich.text import Text

    path = Text(printable(record["path"]))
    if record["error"] is not None:
        reason = without_path(printable(record["error"]), record["path"])
        yield path, "", Text("failed", STATUS_STYLES["failed"]), Text(reason), "", "", [], ""
        return
    if not record["faces"]:
        yield path, "", Text("no face", STATUS_STYLES["no face"]), "", "", "", [], ""
    for number, face in enumerate(record["faces"], 1):
        nearest = [f"{printable(c['person'])} {c['similarity']:.2f}" for c in face["candidates"]]
        similarity = "–" if face["similarity"] is None else against(face["similarity"], face["threshold"])
        yield (
            path if number == 1 else "",
            str(number),
            Text(face["status"], STATUS_STYLES[face["status"]]),
            Text("–" if (answer := who(face)) == "unknown" else printable(answer)),
            percent(face["probability"]) if face["status"] != "unknown" else "–",
            similarity,
            nearest,
            "" if (track := track_of(record, number - 1)) is None else seen(track),
        )


def of_them_maybe(count: int) -> str:
    """Return what is said behind a number of unknown faces: how many of them are probably somebody."""
    return f", {count:,} of them maybe somebody known" if count else ""


def print_photos(console: Console, records: Sequence[Record]) -> None:
    """Print the table and one line that sums it up."""
    console.print(photo_table(records, console.width))
    console.print(summary(records), style="dim", highlight=False, markup=False)


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the counts of some photos in one line."""
    faces = [face for record in records for face in record["faces"]]
    statuses = [face["status"] for face in faces]
    failed = sum(record["error"] is not None for record in records)
    parts = [f"{statuses.count(status)} {status}" for status in ("known", "ambiguous", "unknown") if status in statuses]
    videos = sum(is_video(record["path"]) for record in records)
    line = f"{files(len(records), videos)}, {plural(len(statuses), 'face')}"
    line += f": {', '.join(parts)}" if parts else ""
    line += of_them_maybe(sum(maybe(face) is not None for face in faces))
    return line + (f"; {failed} failed" if failed else "")
