"""A folder of painted photos, a recognizer of fakes, and one call that runs a batch over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from facepipe import batch
from facepipe.batch import BatchOptions, Outputs
from facepipe.catalog.catalog import Catalog
from facepipe.catalog.counts import Counts, Show
from facepipe.catalog.store import catalog_path
from facepipe.embed.describer import Describer
from facepipe.match.matcher import Matcher
from facepipe.pipeline import Recognizer
from facepipe.types import Detector, Policy, Recognized
from tests.fakes import COLOURS, FakeDetector, FakeEmbedder, picture

#: What the first two steps depend on, as a run says it unless a test says otherwise.
SCAN = {"max_side": 1280}
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
    detector: Detector | None = None,
    people: Sequence[str] = ("red", "blue"),
    policy: Policy = POLICY,
    *,
    scan: Mapping[str, Any] = SCAN,
    key: str = "",
    witness: Callable[[Sequence[Recognized]], None] | None = None,
) -> Recognizer:
    """Know the people who are painted in these colours. scan, key: facts of the describer, and of the decision."""
    embedder = FakeEmbedder()
    describer = Describer(FakeDetector(), embedder)
    vectors = np.concatenate([photo.embeddings.vectors for photo in describer.describe([picture(p) for p in people])])
    owners = np.arange(len(people))
    matcher = Matcher(embedder.fingerprint, people, vectors, vectors, owners, owners)
    describer = Describer(detector or FakeDetector(), embedder, facts={"model": embedder.fingerprint, **scan})
    facts = {"key": key, "people": list(people), "policy": asdict(policy)}
    return Recognizer.of(describer, matcher, policy, witness, facts)


def run(
    out: Path,
    *roots: Path | str,
    who: Recognizer | None = None,
    detector: Detector | None = None,
    key: str = "",
    workers: int = 2,
    keep: bool = True,
    show: Show = lambda counts: None,
    tell: Callable[[str], object] = lambda line: None,
    **outputs: Any,
) -> tuple[Counts, list[dict[str, Any]]]:
    """Run a batch as the command does; return its counts and records. outputs: see `facepipe.batch.Outputs`."""

    @contextmanager
    def progress(total: int) -> Iterator[Show]:
        yield show

    options = BatchOptions(workers, progress=progress, tell=tell)
    chosen = who or recognizer(detector, key=key)
    paths = [str(root) for root in roots]
    (counts,) = batch.run(paths, Outputs(out, **outputs), lambda before, late: (chosen, keep), options)
    with Catalog(catalog_path(out)) as catalog:
        return counts, list(catalog.records())
