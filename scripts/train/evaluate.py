"""What was exported, measured the way its users meet it: by `facepipe evaluate`, on photos of people it was not trained on."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import FacepipeError
from facepipe.files.atomic import atomic_file
from scripts.train.shards import CropSet

#: Most pairs of one person, and pairs of different people for each of them.
_GENUINE, _IMPOSTORS = 3000, 3
#: Fewer people than this say nothing.
_PEOPLE = 2


def held_out_pairs(crops: CropSet, unseen: np.ndarray, path: Path, seed: int = 0) -> Path | None:
    """Write the pairs of photos of the people held out, CSV a,b,same; None when they are fewer than two or their photos are packed.

    unseen: bool (n,). Photos that were merged into an archive have no path that `facepipe evaluate` could open.
    """
    owners: dict[str, str] = {}
    for meta, held in zip(crops.metas, unseen, strict=True):
        if held and meta["identity"] is not None and Path(meta["source"]).is_file():
            owners[str(Path(meta["source"]).resolve())] = meta["identity"]
    photos = sorted(owners)
    who = np.array([owners[photo] for photo in photos])
    a, b = np.triu_indices(len(photos), 1)
    same = who[a] == who[b]
    if len(np.unique(who)) < _PEOPLE or not same.any():
        return None
    rng = np.random.default_rng(seed)
    genuine = rng.permutation(np.flatnonzero(same))[:_GENUINE]
    impostors = rng.permutation(np.flatnonzero(~same))[: _IMPOSTORS * len(genuine)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["a", "b", "same"])
    for pair in (*np.sort(genuine), *np.sort(impostors)):
        writer.writerow([photos[a[pair]], photos[b[pair]], int(same[pair])])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return path


def evaluate(pairs: Path, images: Path, model: str, device: str, out: Path) -> dict[str, Any]:
    """Run `facepipe evaluate verify --json` in a process of its own, as anybody would, keep and return its report.

    FacepipeError with its last line when it fails.
    """
    command = [sys.executable, "-m", "facepipe", "evaluate", "verify", "--pairs", str(pairs), "--images", str(images)]
    command += ["--model", model, "--device", device, "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FacepipeError(f"facepipe evaluate ended with exit code {done.returncode}: {last}")
    with atomic_file(out) as file:
        file.write(done.stdout.encode())
    report: dict[str, Any] = json.loads(done.stdout)
    return report
