"""Run by test_batch_kill.py as a process of its own, to be killed: a batch of fakes, with crops, that takes its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from facepipe.catalog.job import run_batch
from facepipe.catalog.ledger import Ledger, ledger_path
from facepipe.catalog.sources import find_sources
from facepipe.catalog.stream import StreamOptions
from facepipe.outputs.results import write_output
from facepipe.outputs.sides import Crops
from facepipe.types import Detected, Image
from tests.batch_fixtures import LOOKING, recognizer
from tests.fakes import FakeDetector


class LeisurelyDetector(FakeDetector):
    """Takes a hundredth of a second for each photo, so that there is something to kill."""

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        time.sleep(0.01 * len(images))
        return super().detect(images)


def main(photos: str, out: Path, people: Sequence[str]) -> None:
    sides = [Crops(out.with_suffix(".crops"))]
    with Ledger(ledger_path(out)) as ledger:
        ledger.begin_pass({"people": people}, LOOKING)
        print("begun", flush=True)
        who = recognizer(LeisurelyDetector(), people)
        # A pause for each chunk: comparing alone would be over before it can be killed.
        run_batch(who, find_sources([photos]), ledger, StreamOptions(2), sides, lambda counts: time.sleep(0.04))
        write_output(out, ledger.records())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
