"""Groups of faces: how much of each group is one person and how much of each person is one group, and what 100,000 faces take.

Vectors of labelled photos (people/, strangers/, optionally lfw/) are grouped as `facepipe cluster` groups them, at thresholds around
the one that `models/records.json` has (`grouping`), with BCubed precision, recall and F (Bagga and Baldwin 1998). Larger piles are
synthetic, from the spread that the real ones show.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facepipe.groups.linkage import link_down
from facepipe.groups.threshold import limit_for
from facepipe.models.registry import get_record
from facepipe.types import Float32, Int64
from scripts.benchlib import machine

_SIZES = (1_000, 10_000, 100_000)
#: Faces for each person of a synthetic pile, on the average; people have as many as Zipf's law says (exponent 0.8).
_EACH = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/ and strangers/, and lfw/ for --lfw")
    parser.add_argument("--lfw", type=int, default=0, help="photos of LFW that are added, drawn at random")
    parser.add_argument("--cache", type=Path, help="folder for vectors, so that another run need not embed again")
    parser.add_argument("--sizes", type=int, nargs="*", default=_SIZES, help="faces in the synthetic piles")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _time_one(options.one, *json.loads(sys.stdin.read()))
        return
    print(machine())
    vectors, labels = _labelled(options.faces, "people", options.cache)
    genuine, impostor = _spreads(vectors, labels)
    print(
        f"people: {len(labels)} faces of {len(set(labels))} people, cosine of one person {genuine[0]:.2f} +- {genuine[1]:.2f}, ",
        end="",
    )
    print(f"of two {impostor[0]:.2f} +- {impostor[1]:.2f}")
    _table("people", vectors, labels)
    strangers, names = _labelled(options.faces, "strangers", options.cache)
    vectors, labels = np.concatenate([vectors, strangers]), [*labels, *names]
    _table("people and strangers", vectors, labels)
    if options.lfw:
        lfw, names = _labelled(options.faces, "lfw", options.cache)
        some = np.random.default_rng(16).permutation(len(lfw))[: options.lfw]
        _table(
            f"the same and {options.lfw} of LFW",
            np.concatenate([vectors, lfw[some]]),
            [*labels, *[names[row] for row in some]],
        )
    for size in options.sizes:
        command = [sys.executable, "-m", "scripts.bench_clusters", str(options.faces), "--one", str(size)]
        subprocess.run(command, input=json.dumps([genuine, impostor]), text=True, check=True)


def _labelled(faces: Path, name: str, cache: Path | None) -> tuple[Float32, list[str]]:
    """Return the vectors of the faces in a set, and whose they are."""
    from facepipe.single import embed_photos

    paths = sorted(path for path in (faces / name).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    file = None if cache is None else cache / f"clusters-{name}.npz"
    found = embed_photos(paths, face="centre" if name == "lfw" else "largest", cache=file)
    owners = [path.stem if path.parent.name == name else path.parent.name for path in paths]
    return found.vectors[found.found], [
        f"{name}/{owner}" for owner, kept in zip(owners, found.found, strict=True) if kept
    ]


def _spreads(vectors: Float32, labels: Sequence[str]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return mean and spread of the cosines of one person's faces, and of two people's."""
    cosines = vectors @ vectors.T
    same = np.array(labels)[:, None] == np.array(labels)[None]
    own, other = cosines[same & ~np.eye(len(labels), dtype=bool)], cosines[~same]
    return (float(own.mean()), float(own.std())), (float(other.mean()), float(other.std()))


def _table(name: str, vectors: Float32, labels: Sequence[str]) -> None:
    """Print the figures at the record's figure and around it."""
    limit, shipped = limit_for(get_record("mini").fingerprint), get_record("mini").grouping or 0.0
    print(f"{name}: {len(labels)} faces of {len(set(labels))} people")
    for grouping in sorted({0.0, 0.02, 0.04, shipped, 0.06, 0.08, 0.10}):
        found, threshold = link_down(vectors, lambda count, by=grouping: limit(count) + shipped - by)  # type: ignore[misc]
        precision, recall, score = bcubed(found, labels)
        figures = f"precision {precision:.3f}, recall {recall:.3f}, F {score:.3f}, {len(np.unique(found))} groups"
        print(f"  grouping {grouping:.2f}{' *' if grouping == shipped else '  '} threshold {threshold:.3f}: {figures}")


def bcubed(found: Int64, labels: Sequence[str]) -> tuple[float, float, float]:
    """Return BCubed precision, recall and F: the share of a face's group that is its person, the share of its person in its group."""
    true = np.unique(labels, return_inverse=True)[1].reshape(-1)
    groups = np.unique(found, return_inverse=True)[1].reshape(-1)
    pairs = np.stack([groups, true])
    _, which, both = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    shared = both[which.reshape(-1)]
    precision = float((shared / np.bincount(groups)[groups]).mean())
    recall = float((shared / np.bincount(true)[true]).mean())
    return precision, recall, 2 * precision * recall / (precision + recall)


def _time_one(size: int, genuine: tuple[float, float], impostor: tuple[float, float]) -> None:
    """Group a synthetic pile and print what it took; a process of its own, so that the memory is its own."""
    vectors, owners = synthetic(size, size // _EACH, genuine, impostor)
    limit = limit_for(get_record("mini").fingerprint)
    tokens = [(row // 2,) for row in range(size)]  # two faces in each photo
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found, threshold = link_down(vectors, limit, tokens)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = "precision {:.3f}, recall {:.3f}, F {:.3f}".format(*bcubed(found, [str(owner) for owner in owners]))
    took = f"{wall:.1f} s, {cpu:.1f} CPU s, {(after - before) / 1024:.0f} MB beside {vectors.nbytes / 1e6:.0f} MB of vectors"
    print(
        f"synthetic, {size:,} faces of {size // _EACH:,} people: {took}; threshold {threshold:.3f}, {figures}",
        flush=True,
    )


def synthetic(
    size: int, people: int, genuine: tuple[float, float], impostor: tuple[float, float], seed: int = 0
) -> tuple[Float32, Int64]:
    """Return unit vectors whose cosines spread as those of real faces, float32 (n, 256), and whose they are.

    Cosines of random directions spread as the root of their dimensions says, so these lie in as many as the real ones seem to.
    """
    rng = np.random.default_rng(seed)
    share = np.arange(1, people + 1) ** -0.8
    owners = rng.choice(people, size, p=share / share.sum())
    dims = int(np.clip(impostor[1] ** -2, 32, 256))
    centres, noise = (rng.normal(size=(count, dims)).astype(np.float32) for count in (people, size))
    for directions in (centres, noise):
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    typical = np.clip(rng.normal(*genuine, (size, 1)), 0.2, 0.95).astype(np.float32)
    vectors = np.zeros((size, 256), np.float32)
    vectors[:, :dims] = np.sqrt(typical) * centres[owners] + np.sqrt(1 - typical) * noise
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32), owners.astype(np.int64)


if __name__ == "__main__":
    main()
