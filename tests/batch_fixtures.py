"""A folder of painted photos, a recognizer of fakes, and one call that runs a batch over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from facepipe.catalog.job import Counts, run_batch
from facepipe.catalog.ledger import Ledger, ledger_path
from facepipe.catalog.pictures import SideOutput
from facepipe.catalog.sources import find_sources
from facepipe.catalog.stream import StreamOptions
from facepipe.embed.describer import Describer
from facepipe.match.matcher import Matcher
from facepipe.pipeline import Recognizer
from facepipe.types import Detector, Policy
from tests.fakes import COLOURS, FakeDetector, FakeEmbedder, picture

#: What the first two steps depend on, as a run says it unless a test says otherwise.
LOOKING = {"max_side": 1280}
POLICY = Policy(0.5, 0.05)


def paint(path: Path, *colours: str) -> Path:
    """Write a painted picture that keeps its colours exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(np.asarray(picture(*colours).rgb)).save(path)
    return path


def paint_many(folder: Path, count: int, broken: Sequence[int] = ()) -> list[Path]:
    """Write `count` pictures with up to three people each, no two alike; those numbered in `broken` are no pictures."""
    names = list(COLOURS)
    paths = []
    for number in range(count):
        path = folder / f"{number:04d}.png"
        if number in broken:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"this is no picture %d" % number)
        else:
            paint(path, *[names[(number + i) % len(names)] for i in range(number % 4)])
            # A pixel of its own: equal bytes are looked at once, and most tests are not about that.
            with PillowImage.open(path) as opened:
                pixels = np.array(opened)
            pixels[0, 0], pixels[0, 1] = number % 200, number // 200
            PillowImage.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def recognizer(
    detector: Detector | None = None, people: Sequence[str] = ("red", "blue"), policy: Policy = POLICY
) -> Recognizer:
    """Know the people who are painted in these colours."""
    embedder = FakeEmbedder()
    describer = Describer(FakeDetector(), embedder)
    vectors = np.concatenate([photo.embeddings.vectors for photo in describer.describe([picture(p) for p in people])])
    owners = np.arange(len(people))
    matcher = Matcher(embedder.fingerprint, people, vectors, vectors, owners, owners)
    return Recognizer.of(Describer(detector or FakeDetector(), embedder), matcher, policy)


def run(
    out: Path,
    *roots: Path,
    detector: Detector | None = None,
    key: str = "run",
    workers: int = 2,
    side_outputs: Sequence[SideOutput] = (),
    progress: Callable[[Counts], None] = lambda counts: None,
    looking: Mapping[str, Any] | None = LOOKING,
    who: Recognizer | None = None,
    thumbnails: bool = False,
) -> tuple[Counts, list[dict[str, Any]]]:
    """Run a batch as the command does; return its counts and records."""
    with Ledger(ledger_path(out)) as ledger:
        ledger.begin_pass({"key": key}, looking)
        counts = run_batch(
            who or recognizer(detector),
            find_sources([str(root) for root in roots]),
            ledger,
            StreamOptions(workers),
            side_outputs,
            progress,
            thumbnails=thumbnails,
        )
        return counts, [json.loads(record) for record in ledger.records()]
