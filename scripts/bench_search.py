"""Exact search: facepipe's, through FAISS, beside NumPy's matrix product and FAISS's flat index, interleaved."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from facepipe.types import Float32
from scripts.benchlib import limit_threads, machine, spread

DIM = 256
K = 4
_BLOCK = 16_384
_AGAIN = [sys.executable, "-m", "scripts.bench_search", *sys.argv[1:]]


def units(count: int, seed: int) -> Float32:
    """Random unit vectors."""
    rows = np.random.default_rng(seed).standard_normal((count, DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def numpy_search(templates: Float32, probes: Float32) -> None:
    """A product and a partial sort for each block of people, as facepipe did before it searched through FAISS."""
    best = np.full((len(probes), K), -np.inf, np.float32)
    for start in range(0, len(templates), _BLOCK):
        products = probes @ templates[start : start + _BLOCK].T
        better = np.flatnonzero(products.max(axis=1) > best[:, -1])
        width = min(K, products.shape[1])
        top = -np.partition(-products[better], width - 1, axis=1)[:, :width]
        best[better] = -np.sort(-np.concatenate([best[better], top], axis=1), axis=1)[:, :K]


def measure(people: int, probes: int, repeats: int) -> None:
    """Print the times of each way for one size."""
    import faiss

    from facepipe.match.exact import ExactIndex

    templates, vectors = units(people, 0), units(probes, 1)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(templates)
    ways: dict[str, Callable[[], object]] = {
        "facepipe": lambda: ExactIndex(templates).search(vectors, K),
        "NumPy": lambda: numpy_search(templates, vectors),
        "IndexFlatIP": lambda: flat.search(vectors, K),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if number:  # the first warms up
                times[name].append(1000 * (time.perf_counter() - start))
    found = "; ".join(f"{name} {spread(values)} ms" for name, values in times.items())
    print(f"{people:,} people, {probes:,} probes: {found}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[10, 1000, 100_000, 1_000_000])
    parser.add_argument("--probes", type=int, nargs="+", default=[1, 20, 1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if len(options.threads) > 1:
        for count in options.threads:
            subprocess.run([*_AGAIN, "--threads", str(count)], check=True)
        return
    # The number is read when the libraries load, and NumPy is there already: a process of its own has it from the start.
    (count,) = options.threads
    if os.environ.get("OPENBLAS_NUM_THREADS") != str(count):
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count)))
        os.execv(sys.executable, _AGAIN)
    limit_threads(count)
    print(f"{machine()}; {count} threads, {DIM}-d, {K} people asked for, load {os.getloadavg()[0]:.1f}", flush=True)
    for people in options.people:
        for probes in options.probes:
            measure(people, probes, options.repeats)


if __name__ == "__main__":
    main()
