"""What a run tells about itself: sums between its lines, a JSONL log, a plot; and how it is stopped in order."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from facepipe.files.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Sums:
    """Means of the parts of the loss since the last line."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Add one step; nothing is fetched from the device yet."""
        for name, value in parts.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def means(self) -> dict[str, float]:
        """Return the means."""
        return {name: round(float(value) / self._count, 5) for name, value in self._sums.items()}


class Log:
    """A JSONL file. Lines after the step that a run goes on from are dropped: these steps are made again."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept = [line for line in read_log(path) if line["step"] <= step and step > 0] if path.exists() else []
        with atomic_file(path) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, **values: Any) -> None:
        """Append a line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a log; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


class Stop:
    """While it is entered, SIGTERM and SIGINT ask for an orderly end instead of ending the process."""

    def __init__(self) -> None:
        self.asked = False
        self._before: list[tuple[signal.Signals, Any]] = []

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: then nobody can send us one here
                self._before.append((number, signal.signal(number, self._ask)))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self.asked = True


def short(figures: Mapping[str, Any]) -> str:
    parts = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            parts.append(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in value.items()))
        else:
            parts.append(f"{name} {value:.4f}")
    return "; ".join(parts)


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> Iterator[tuple[int, float]]:
    for line in lines:
        if key in line:
            yield line["samples"], line[key]


def _legend(axes: Axes) -> None:
    """Above the axes, where no curve runs."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small")


def plot(log: Path, path: Path) -> None:
    """Draw loss and cosine over samples, and the accuracy of each evaluation set."""
    from matplotlib.figure import Figure

    lines = read_log(log)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key in ("loss", "cosine", "relational", "identity"):
        points = list(_series(lines, key))
        if points:
            left.plot(*zip(*points, strict=True), marker=".", label=key)
    left.set(xlabel="samples", ylabel="training loss", yscale="log")
    if left.lines:
        _legend(left)
    points = list(_series(lines, "cosine_unseen"))
    if points:
        right.plot(*zip(*points, strict=True), marker=".", label="cosine to the target, unseen crops")
    for name in sorted({k for line in lines for k, v in line.items() if isinstance(v, dict)}):
        accuracy = [(line["samples"], line[name]["accuracy"]) for line in lines if name in line]
        right.plot(*zip(*accuracy, strict=True), marker=".", label=f"{name}: accuracy")
    right.set(xlabel="samples", ylim=(0, 1))
    if right.lines:
        _legend(right)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
