"""Where the time goes, stage by stage, as one change after the other is switched on: from the reference's arithmetic to the defaults.

The first row computes what facenet-pytorch's MTCNN computes (the same boxes) from 20 px in the whole picture, one photo at a time,
in torch and float32. Times are CPU milliseconds a photo, medians over interleaved turns; recall is the share of the first row's faces
of 40 px and more that a row finds.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

STAGES = (
    *("decode", "pyramid", "PNet", "crops", "RNet", "ONet", "second look", "boxes", "align", "embed", "match", "write"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: what is switched on, and the faces' smallest size, largest side, networks and so on with it."""

    name: str
    min_face: float = 20.0
    max_side: int | None = None
    reduced: bool = False
    cascade: str = "torch"
    gate: bool = False
    border: bool = False
    second: bool = False
    embedder: str = "float32"
    together: int = 1
    threads: int = 1


def rows(cores: int) -> list[Row]:
    """Return the rows; each adds one change to the one before it."""
    table = [Row("reference")]

    def add(name: str, **change: Any) -> None:
        table.append(dataclasses.replace(table[-1], name=name, **change))

    add("from 40 px", min_face=40.0)
    add("up to 1280 px", max_side=1280)
    add("reduced decode", reduced=True)
    add("oneDNN", cascade="onednn")
    add("bfloat16 first look", cascade="onednn-rough")
    add("embedder bfloat16", embedder="bfloat16")
    add("photos share batches", together=24)
    add("edge gate", gate=True)
    add("true border", border=True)
    add("second look: defaults", second=True)
    add(f"{cores} threads an operation", threads=cores)
    return table


class Clock:
    """CPU time of this process by stage; what runs inside the second look belongs to it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = time.process_time()

    def _charge(self) -> None:
        now = time.process_time()
        if self._stack:
            self.spent["second look" if "second look" in self._stack else self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()


def timed_networks(networks: Any, clock: Clock) -> Any:
    """Return the networks with their calls on the clock."""

    class Timed:
        mixes_sizes, batch_pixels = networks.mixes_sizes, networks.batch_pixels

    def on_the_clock(method: str, stage: str) -> Any:
        def call(self: Any, *arguments: Any) -> Any:
            with clock(stage):
                return getattr(networks, method)(*arguments)

        return call

    for method, stage in (("propose", "PNet"), ("refine", "RNet"), ("finish", "ONet"), ("finish_roughly", "ONet")):
        setattr(Timed, method, on_the_clock(method, stage))
    return Timed()


@contextmanager
def detection(clock: Clock) -> Iterator[None]:
    """Put the parts of step 1 on the clock."""
    from facepipe.detect import confirm, detector, looks, proposals

    def timed(module: Any, name: str, stage: str) -> Any:
        part = getattr(module, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with clock(stage):
                made = part(*arguments, **named)
                return list(made) if isinstance(made, Iterator) else made

        return patch.object(module, name, call)

    with (
        timed(detector, "prepare", "pyramid"),
        timed(proposals, "levels_of", "pyramid"),
        timed(confirm, "cut", "crops"),
        timed(detector, "look_again", "second look"),
        timed(looks, "cut", "second look"),
        clock("boxes"),
    ):
        yield


class Bench:
    """The networks, loaded once, and photos through them as a row says."""

    def __init__(self, people: int = 1000) -> None:
        import numpy as np
        import torch

        from facepipe.embed.embedder import NetworkEmbedder
        from facepipe.match.matcher import Matcher
        from facepipe.models.engines import TorchEngine
        from facepipe.models.mtcnn import TorchCascade
        from facepipe.models.networks import torch_network
        from facepipe.models.onednn import OneDnnCascade
        from facepipe.models.registry import get_record, read_weights

        cpu = torch.device("cpu")
        self.cascades = {
            "torch": TorchCascade(cpu),
            "onednn": OneDnnCascade(rough=False),
            "onednn-rough": OneDnnCascade(),
        }
        record = get_record("mini")
        weights = read_weights(record)[0]
        self.embedders = {
            name: NetworkEmbedder(record, TorchEngine(torch_network(record, weights), cpu, getattr(torch, name)))
            for name in ("float32", "bfloat16")
        }
        assert record.dim is not None
        vectors = np.random.default_rng(0).normal(size=(people, record.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        numbers = np.arange(people)
        names = [f"person {i}" for i in numbers]
        self.matcher = Matcher(record.fingerprint, names, vectors, vectors, numbers, numbers)

    def run(self, row: Row, paths: Sequence[str], out: Path) -> tuple[dict[str, float], float, list[Any]]:
        """Return CPU seconds by stage, wall seconds, and the faces of each photo."""
        from facepipe.catalog.catalog import Catalog
        from facepipe.catalog.scan import Scanned
        from facepipe.catalog.sources import file_source
        from facepipe.detect.detector import MtcnnDetector
        from facepipe.detect.options import DetectOptions
        from facepipe.embed.describer import Describer
        from facepipe.embed.embedding import embed
        from facepipe.images import content_hash, read_image_bytes
        from facepipe.pipeline import Recognizer
        from facepipe.records import to_record
        from facepipe.types import Detected, Policy
        from scripts.benchlib import limit_threads

        limit_threads(row.threads)
        clock = Clock()
        options = DetectOptions(
            row.min_face, row.max_side, edge_gate=row.gate, second_look=row.second, true_border=row.border
        )
        detector = MtcnnDetector(timed_networks(self.cascades[row.cascade], clock), options)
        embedder = self.embedders[row.embedder]
        recognizer = Recognizer.of(Describer(detector, embedder), self.matcher, Policy(0.3, 0.02))
        timed = TimedEmbedder(embedder, clock)
        found: list[Any] = []
        started = time.perf_counter()
        with Catalog(out, write=True) as catalog:
            catalog.begin({"row": row.name})
            for start in range(0, len(paths), row.together):
                names = paths[start : start + row.together]
                with clock("decode"):
                    data = [Path(name).read_bytes() for name in names]
                    contents = [content_hash(each) for each in data]
                    images = [
                        read_image_bytes(each, name, max_side=row.max_side if row.reduced else None)
                        for each, name in zip(data, names, strict=True)
                    ]
                with detection(clock):
                    faces = detector.find(images)
                with clock("align"):
                    photos = embed(timed, map(Detected, images, faces))
                with clock("match"):
                    results = recognizer.decide(photos)
                with clock("write"):
                    scanned = [
                        Scanned(file_source(Path(name)), start + i, content, dataclasses.replace(photo, image=None))
                        for i, (name, content, photo) in enumerate(zip(names, contents, photos, strict=True))
                    ]
                    catalog._record(scanned, {start + i: to_record(result) for i, result in enumerate(results)})
                found += faces
        limit_threads()
        return clock.spent, time.perf_counter() - started, found


class TimedEmbedder:
    """An embedder whose work is on the clock."""

    def __init__(self, embedder: Any, clock: Clock) -> None:
        self._embedder, self._clock = embedder, clock
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self.template, self.dim = embedder.template, embedder.dim

    def embed(self, chips: Any) -> Any:
        with self._clock("embed"):
            return self._embedder.embed(chips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"), help="folder with scenes/ and lfw/")
    parser.add_argument("--scenes", type=int, default=8, help="photos in each turn")
    parser.add_argument("--lfw", type=int, default=24)
    parser.add_argument("--large", type=int, default=2, help="scenes scaled to 12 megapixels")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    from facepipe.cli import process

    process.settle()
    from scripts.bench_batch import photos
    from scripts.benchlib import machine

    print(machine())
    bench = Bench()
    table = rows(process.cores())
    cpu: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    wall: dict[tuple[str, str], list[float]] = defaultdict(list)
    met: dict[str, list[int]] = {row.name: [0, 0, 0] for row in table}
    with tempfile.TemporaryDirectory() as folder:
        pools = photos(options.faces, Path(folder), options.large)
        for row in table:  # kernels are compiled at the first use
            bench.run(row, [*pools["lfw"][:2], *pools["scenes"][:1]], Path(folder, f"warm-{row.name}"))
        for turn in range(options.turns):
            rng = random.Random(turn)
            chosen = {kind: rng.sample(pool, min(getattr(options, kind), len(pool))) for kind, pool in pools.items()}
            found: dict[tuple[str, str], list[Any]] = {}
            for row in rng.sample(table, len(table)):
                for kind, paths in chosen.items():
                    if paths:
                        ledger = Path(folder, f"{turn}-{time.monotonic_ns()}")
                        spent, seconds, found[row.name, kind] = bench.run(row, paths, ledger)
                        cpu[row.name, kind].append({k: 1000 * v / len(paths) for k, v in spent.items()})
                        wall[row.name, kind].append(1000 * seconds / len(paths))
            for row in table:
                for kind, paths in chosen.items():
                    if paths:
                        count(met[row.name], found[table[0].name, kind], found[row.name, kind])
            print(f"turn {turn + 1} of {options.turns} done", flush=True)
    for kind, paths in chosen.items():
        if paths:
            print(f"\n{kind}: {len(paths)} photos a turn, CPU ms a photo (median of {options.turns} turns)")
            show(table, kind, cpu, wall)
    print("\nfaces of 40 px and more, all kinds and turns together")
    for row in table:
        reference, hit, own = met[row.name]
        print(
            f"{row.name:26} finds {hit} of the reference's {reference}: {100 * hit / max(1, reference):6.2f} %; {own} of its own"
        )


def count(met: list[int], reference: Sequence[Any], found: Sequence[Any]) -> None:
    """Add the reference's faces of 40 px and more, those of them that were found, and all that were found."""
    import numpy as np

    from facepipe.detect.boxes import iou

    for theirs, ours in zip(reference, found, strict=True):
        wanted = np.array([f.box for f in theirs if f.quality.size >= 40], np.float32).reshape(-1, 4)
        got = np.array([f.box for f in ours], np.float32).reshape(-1, 4)
        met[0] += len(wanted)
        met[1] += int((iou(wanted, got) >= 0.5).any(axis=1).sum()) if len(wanted) and len(got) else 0
        met[2] += sum(face.quality.size >= 40 for face in ours)


def show(
    table: Sequence[Row],
    kind: str,
    cpu: dict[tuple[str, str], list[dict[str, float]]],
    wall: dict[tuple[str, str], list[float]],
) -> None:
    short = [stage.replace("second look", "2nd") for stage in STAGES]
    print(f"{'':26}" + "".join(f"{name:>8}" for name in short) + f"{'all':>9} {'least to most':>17}{'wall':>9}")
    for row in table:
        turns = cpu[row.name, kind]
        totals = [sum(turn.values()) for turn in turns]
        cells = "".join(f"{statistics.median(turn.get(stage, 0.0) for turn in turns):8.1f}" for stage in STAGES)
        range_ = f"{min(totals):.1f} to {max(totals):.1f}"
        print(
            f"{row.name:26}{cells}{statistics.median(totals):9.1f} {range_:>17}{statistics.median(wall[row.name, kind]):9.1f}"
        )


if __name__ == "__main__":
    main()
