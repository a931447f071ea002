"""Training: crops/s of crops, teach and distill, and what a step costs with each way of computing it, turn by turn."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from scripts.benchlib import machine, spread
from scripts.train.crops import CropsPlan, make_crops, photo_mapper
from scripts.train.data import Batch, batches
from scripts.train.distill import DistillPlan, Machine, Run
from scripts.train.teach import join, teach
from scripts.train.teachers import load_teacher

#: Name: changes of the plan, number format, layout, compiled. Each differs from the first in one thing.
VARIANTS: dict[str, tuple[dict[str, Any], str, str, bool]] = {
    "early/bn, bf16, channels-last, batch 128 (the default)": ({}, "bf16", "last", False),
    "torch.compile": ({}, "bf16", "last", True),
    "float32": ({}, "float32", "last", False),
    "channels first": ({}, "bf16", "first", False),
    "batch 64": ({"batch": 64}, "bf16", "last", False),
    "batch 256": ({"batch": 256}, "bf16", "last", False),
    "early/ws": ({"norm": "ws"}, "bf16", "last", False),
    "early/ws, torch.compile": ({"norm": "ws"}, "bf16", "last", True),
    "v0/bn": ({"architecture": "v0"}, "bf16", "last", False),
    "v0/ws": ({"architecture": "v0", "norm": "ws"}, "bf16", "last", False),
    "depthwise/bn": ({"architecture": "depthwise"}, "bf16", "last", False),
}
_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, help="folders of photos with at least 300 faces")
    parser.add_argument("--teacher", default="mini", help="NAME, or NAME=FILE.onnx")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=2, help="processes of `crops`")
    parser.add_argument("--only", nargs="+", default=[], help="variants whose names hold one of these texts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    print(f"device {options.device}, {options.threads} threads of torch")
    with TemporaryDirectory() as folder:
        crops, targets = Path(folder) / "crops", Path(folder) / "targets"
        plan = CropsPlan(tuple(options.photos))
        with photo_mapper(plan, options.workers, options.device) as mapper:
            summary = make_crops(plan, crops, mapper)
        print(
            f"crops: {summary['crops']} of {summary['photos']} photos, {summary['photos_per_second']:.1f} photos/s,",
            end=" ",
        )
        print(f"{summary['crops'] / summary['seconds']:.1f} crops/s, {options.workers} processes, loading included")
        teacher = load_teacher(options.teacher, options.device)
        taught = teach(crops, targets, teacher)
        join(crops, targets, [teacher.name])
        print(f"teach, {teacher.name}, both sides: {taught['crops_per_second']} crops/s, n = {taught['crops']}")
        train(crops, targets, Path(folder), options)


def train(crops: Path, targets: Path, folder: Path, options: argparse.Namespace) -> None:
    """Measure the making of batches, whole training, and a step alone in each variant, variants in turn."""
    place = Machine(options.device, 1, options.threads)
    run = Run(DistillPlan(), place, crops, targets, folder / "run")
    started = time.perf_counter()
    made = sum(len(batch.chips) for batch in batches(run.dataset, 0, 8, 0))
    print(f"distill, batches alone: {made / (time.perf_counter() - started):.0f} crops/s on one core, n = {made}")
    rates = [run.rate() for _ in range(options.turns)]
    print(f"distill, all of it, one process making batches: {spread(rates, 0)} crops/s")
    steps: dict[str, Callable[[], float]] = {}
    for name, (changes, number, layout, compiled) in VARIANTS.items():
        if options.only and not any(text in name for text in options.only):
            continue
        own = Run(DistillPlan(**changes), place, crops, targets, folder / "run")
        steps[name] = prepared(own, number, layout, compiled, name)
    figures: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.turns):
        for name, step in steps.items():
            figures[name].append(step())
    print(f"distill, a step alone ({_STEPS} a turn, no data, variants in turn), crops/s:")
    for name, values in figures.items():
        print(f"  {name}: {spread(values, 0)}")


def prepared(run: Run, number: str, layout: str, compiled: bool, name: str) -> Callable[[], float]:
    """Return what runs some steps and gives crops/s; the first steps, and compiling, are done here."""
    run.dtype = torch.bfloat16 if number == "bf16" else torch.float32
    batch: Batch = next(batches(run.dataset, 0, 1, 0))
    network: Any = run.student.network
    if layout == "first":
        network.to(memory_format=torch.contiguous_format)
    called = torch.compile(network) if compiled else network
    forward = (lambda x: called(x.contiguous())) if layout == "first" else called

    def steps() -> float:
        started = time.perf_counter()
        for _ in range(_STEPS):
            loss = run.update(forward, batch)["loss"]
        float(loss)  # waits for a GPU
        return _STEPS * len(batch.chips) / (time.perf_counter() - started)

    started = time.perf_counter()
    steps()
    if compiled:
        print(f"{name}: compiled in {time.perf_counter() - started:.0f} s")
    return steps


if __name__ == "__main__":
    main()
