"""Run by test_batch_kill.py as a process of its own, to be killed: a batch of fakes with all outputs, that takes its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from facepipe.outputs import kinds
from facepipe.outputs.sync import Decided, Pixels
from facepipe.types import Detected, Image
from tests.batch_fixtures import recognizer, run
from tests.fakes import FakeDetector


class LeisurelyDetector(FakeDetector):
    """Takes a hundredth of a second for each photo, so that there is something to kill."""

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        time.sleep(0.01 * len(images))
        return super().detect(images)


def main(photos: str, out: Path, people: Sequence[str]) -> None:
    who = recognizer(LeisurelyDetector(), people)
    drawn = kinds.Annotated.make

    def leisurely(output: kinds.Annotated, photo: Decided, names: Sequence[str], pixels: Pixels) -> None:
        time.sleep(0.002)
        drawn(output, photo, names, pixels)

    kinds.Annotated.make = leisurely  # type: ignore[assignment, method-assign]
    print("begun", flush=True)
    # A pause for each chunk: deciding alone would be over before it can be killed.
    folders: dict[str, Any] = {name: out.with_suffix(f".{name}") for name in ("annotate", "crops", "sort_into")}
    run(out, photos, who=who, show=lambda counts: time.sleep(0.04), report=out.with_suffix(".html"), **folders)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
