"""Step 5, search: students side by side after equal training: how accurate, how fast, how large."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scripts.train.distill import UNSEEN, DistillPlan, Machine, Run
from scripts.train.evalsets import EvalSet
from scripts.train.export import MAX_BYTES, MAX_MS, milliseconds
from scripts.train.shards import read_json, write_json
from scripts.train.students import folded

Say = Callable[[str], None]

#: Samples of people behind the spread of the accuracy.
_DRAWS = 200


def compare(
    names: Sequence[str],
    plan: DistillPlan,
    machine: Machine,
    crops: Path,
    targets: Path,
    out: Path,
    evalsets: Sequence[EvalSet] = (),
    say: Say = lambda _: None,
) -> list[dict[str, Any]]:
    """Train each student on the same samples, measure it, and write `out/comparison.json`; what is there already is kept.

    A name may be followed by `/bn` or `/ws`: the same student with another normalisation. All are measured on the same people,
    whom none of them was trained on.
    """
    rows = []
    for name in names:
        architecture, _, norm = name.partition("/")
        done = out / name.replace("/", "-") / "row.json"
        if not done.exists():
            own = replace(plan, architecture=architecture, norm=norm or plan.norm)
            say(f"{name}: {plan.samples:,} samples")
            run = Run(own, machine, crops, targets, done.parent, evalsets, say)
            figures = run.go()
            figures |= run.evaluate(_DRAWS)
            write_json(done, {"name": f"{architecture}/{own.norm}", **measured(run), **figures})
        rows.append(read_json(done))
    write_json(out / "comparison.json", rows)
    return rows


def measured(run: Run) -> dict[str, Any]:
    """Return size and speed of a run's student, and the speed of its training."""
    network = folded(run.student.average.cpu())
    count = sum(p.numel() for p in network.parameters())
    facts: dict[str, Any] = {
        "parameters": count,
        "bytes_float16": 2 * count,
        "training_crops_per_second": run.best_rate,
    }
    for label, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        for threads in (1, 2):
            facts[f"ms_{label}_{threads}"] = round(milliseconds(network, dtype, threads), 3)
    facts["within_limits"] = 2 * count <= MAX_BYTES and facts["ms_float32_1"] <= MAX_MS
    return facts


def chosen(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the student within the limits that is nearest to its teacher on unseen crops, None when none is within.

    The cosine chooses rather than the accuracy: it is measured on every crop, and its order hardly depends on who was held out.
    """
    fit = [row for row in rows if row["within_limits"] and "cosine_unseen" in row]
    return max(fit, key=lambda row: float(row["cosine_unseen"]), default=None)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the comparison as a Markdown table."""
    sets = sorted({k for row in rows for k, v in row.items() if isinstance(v, dict)} - {UNSEEN})
    head = ["student", "samples", "cosine, unseen crops", "1 - EER, unseen people", "TAR at FAR 1e-2"]
    head += [f"{s}: accuracy" for s in sets]
    head += ["parameters", "MB float16", "ms float32, 1 / 2 cores", "ms bfloat16, 1 / 2 cores"]
    head += ["training crops/s", "within limits"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        people = row.get(UNSEEN, {})
        cells = [row["name"], f"{row['samples']:,}", f"{row.get('cosine_unseen', float('nan')):.3f}"]
        cells += [
            f"{100 * people['accuracy']:.1f} +- {100 * people.get('accuracy_sd', float('nan')):.1f} %"
            if people
            else "-"
        ]
        cells += [f"{100 * people['tar@0.01']:.1f} %" if "tar@0.01" in people else "-"]
        cells += [f"{100 * row[s]['accuracy']:.1f} %" for s in sets]
        cells += [f"{row['parameters'] / 1e6:.2f} M", f"{row['bytes_float16'] / 1e6:.1f}"]
        cells += [f"{row[f'ms_{t}_1']:.2f} / {row[f'ms_{t}_2']:.2f}" for t in ("float32", "bfloat16")]
        cells += [f"{row['training_crops_per_second']:.0f}", "yes" if row["within_limits"] else "no"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)
