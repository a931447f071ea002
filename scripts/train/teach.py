"""Step 2, teach: each teacher's vectors for all crops, and the joined target that the student learns.

A teacher's vector of a crop is the mean of its vectors of the crop and of the mirror image: the mean is steadier than either,
and a student that is as good on both needs no second look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import UsageError
from facepipe.types import Float32, UInt8
from scripts.train.evalsets import EvalSet
from scripts.train.shards import (
    CropSet,
    decode,
    read_array,
    read_json,
    read_shard,
    shard_paths,
    write_array,
    write_json,
)
from scripts.train.teachers import Teacher, TeacherFacts, chips_for

Say = Callable[[str], None]
_POOL = 256
_PART = 1024


def mirrored_mean(teacher: Teacher, crops: UInt8, landmarks: Sequence[Any]) -> Float32:
    """Return the teacher's unit vector of each crop, averaged with that of its mirror image, float32 (n, dim)."""
    return _mean(*both_sides(teacher, crops, landmarks))


def both_sides(teacher: Teacher, crops: UInt8, landmarks: Sequence[Any]) -> tuple[Float32, Float32]:
    """Return the teacher's unit vectors of the crops and of their mirror images, float32 (n, dim) each."""
    chips = chips_for(teacher.template, crops, landmarks)
    return teacher.embed(chips), teacher.embed(np.ascontiguousarray(chips[:, :, ::-1]))


def _mean(once: Float32, mirrored: Float32) -> Float32:
    both = once + mirrored
    unit: Float32 = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    return unit


def teach(crops: Path, out: Path, teacher: Teacher, say: Say = lambda _: None) -> dict[str, Any]:
    """Write `out/NAME/shard-*.npy`, float16 (n, dim), for the shards that have none yet.

    Raises UsageError when vectors of another network lie there under this name.
    """
    folder = out / teacher.name
    facts = TeacherFacts(
        teacher.name, teacher.fingerprint, teacher.licence, teacher.dim, teacher.weight, teacher.centre
    )
    known = folder / "teacher.json"
    if known.exists() and read_json(known)["fingerprint"] != teacher.fingerprint:
        raise UsageError(f"{folder}: holds vectors of another network of this name; remove the folder")
    write_json(known, asdict(facts))
    done, started = 0, time.perf_counter()
    for path in shard_paths(crops):
        target = folder / f"{path.stem}.npy"
        if target.exists():
            continue
        stored = list(read_shard(path))
        parts = [np.zeros((0, teacher.dim), np.float32)]
        for start in range(0, len(stored), _POOL):
            pool = stored[start : start + _POOL]
            pixels = np.stack([decode(crop.jpeg) for crop in pool])
            parts.append(mirrored_mean(teacher, pixels, [crop.meta["landmarks"] for crop in pool]))
        write_array(target, np.concatenate(parts).astype(np.float16))
        done += len(stored)
        say(f"{teacher.name}: {path.stem}, {done / (time.perf_counter() - started):.1f} crops/s")
    seconds = time.perf_counter() - started
    return {
        "teacher": teacher.name,
        "crops": done,
        "seconds": round(seconds, 1),
        "crops_per_second": round(done / seconds, 1),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """How vectors are joined. means: of each teacher, None where it is not centred. projection: (sum of dims, dim). kept: share."""

    means: tuple[Float32 | None, ...]
    projection: Float32
    kept: float


def fitted(vectors: Sequence[Float32], facts: Sequence[TeacherFacts], dim: int) -> Joint:
    """Learn from the teachers' vectors, (n, d) each, how to join them.

    Each teacher's vectors are centred where it says so (a teacher whose vectors share a direction gives all pairs a high cosine,
    which would swamp the others), brought to unit length and multiplied by the root of its weight, so that cosines of the whole are
    the weighted means of the teachers' own. The concatenation is projected on its `dim` strongest directions (principal axes about
    the origin, by which inner products are kept best); fewer dimensions than `dim` are turned into the larger space, so that no
    output of the student is always zero.
    """
    means = tuple(
        rows.astype(np.float64).mean(axis=0).astype(np.float32) if fact.centre else None
        for rows, fact in zip(vectors, facts, strict=True)
    )
    whole = _whole(vectors, facts, means)
    if len(facts) == 1 and whole.shape[1] == dim and not facts[0].centre:
        # Nothing to join or to project: the student may share the teacher's very space.
        return Joint(means, np.eye(dim, dtype=np.float32), 1.0)
    values, axes = np.linalg.eigh(whole.T @ whole)  # rising
    kept = axes[:, ::-1][:, :dim]
    share = float(values[::-1][:dim].sum() / values.sum())
    if kept.shape[1] < dim:
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0]
        kept = kept @ turn[: kept.shape[1]]
    return Joint(means, kept.astype(np.float32), share)


def _whole(
    vectors: Sequence[Float32], facts: Sequence[TeacherFacts], means: Sequence[Float32 | None]
) -> NDArray[np.float64]:
    """Return the weighted vectors side by side."""
    parts = []
    for rows, fact, mean in zip(vectors, facts, means, strict=True):
        part = rows.astype(np.float64) - (0.0 if mean is None else mean)
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        parts.append(part * np.sqrt(fact.weight))
    return np.concatenate(parts, axis=1)


def joined(vectors: Sequence[Float32], facts: Sequence[TeacherFacts], joint: Joint) -> Float32:
    """Join the teachers' vectors, (n, d) each, into unit vectors, float32 (n, dim)."""
    target = _whole(vectors, facts, joint.means) @ joint.projection
    target /= np.maximum(np.linalg.norm(target, axis=1, keepdims=True), 1e-12)
    return target.astype(np.float32)


def join(
    crops: Path, out: Path, names: Sequence[str], dim: int = 256, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Write `out/target.npy`, float16 (n, dim), `projection.npy` and `target.json` from the vectors of the named teachers."""
    paths = shard_paths(crops)
    facts = [TeacherFacts(**read_json(out / name / "teacher.json")) for name in names]
    if weights is not None:
        for fact, weight in zip(facts, weights, strict=True):
            fact.weight = weight
    rows = [np.concatenate([read_array(out / name / f"{p.stem}.npy") for p in paths]) for name in names]
    joint = fitted(rows, facts, dim)
    target = joined(rows, facts, joint)
    for fact, mean in zip(facts, joint.means, strict=True):
        fact.extra["mean"] = None if mean is None else mean.tolist()
    write_array(out / "projection.npy", joint.projection)
    write_array(out / "target.npy", target.astype(np.float16))
    summary = {
        "crops": len(target),
        "dim": dim,
        "kept": round(joint.kept, 4),
        "teachers": [asdict(fact) for fact in facts],
    }
    write_json(out / "target.json", summary)
    return summary


def read_target(crops: CropSet, folder: Path) -> Float32:
    """Return the targets, float32 (n, dim), unit; UsageError when they are not of these crops."""
    target = read_array(folder / "target.npy").astype(np.float32)
    if len(target) != len(crops):
        raise UsageError(f"{folder}: {len(target)} targets for {len(crops)} crops; run `teach` again")
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    return target


def judge(
    evalset: EvalSet, teachers: Sequence[Teacher], cache: Path, centre_on: Path | None, say: Say
) -> dict[str, Any]:
    """Return the verification figures of each teacher, alone and with the mirror image, and of all joined.

    centre_on: a folder of `teach`: means and projection come from its crops, so that the set is not used to prepare for itself.
    """
    figures: dict[str, Any] = {}
    rows, facts = [], []
    for teacher in teachers:
        once, mirrored = _sides(evalset, teacher, cache, say)
        figures[teacher.name] = evalset.verification(once)
        figures[f"{teacher.name}, with mirror image"] = evalset.verification(_mean(once, mirrored))
        rows.append(_mean(once, mirrored))
        facts.append(
            TeacherFacts(
                teacher.name, teacher.fingerprint, teacher.licence, teacher.dim, teacher.weight, teacher.centre
            )
        )
    if len(teachers) > 1:
        base = rows
        if centre_on is not None:
            names = sorted(p.name for p in (centre_on / facts[0].name).glob("shard-*.npy"))
            base = [
                np.concatenate([read_array(centre_on / f.name / n) for n in names]).astype(np.float32) for f in facts
            ]
        target = joined(rows, facts, fitted(base, facts, 256))
        figures["joined"] = evalset.verification(target)
    return figures


def _sides(evalset: EvalSet, teacher: Teacher, cache: Path, say: Say) -> tuple[Float32, Float32]:
    """Return a teacher's vectors of a set and of its mirror images; each part is kept, so that a run that is stopped goes on."""
    parts = []
    for start in range(0, len(evalset.crops), _PART):
        path = cache / f"{teacher.fingerprint}-{evalset.name}-{len(evalset.crops)}-{start}.npy"
        if not path.exists():
            started = time.perf_counter()
            part = slice(start, start + _PART)
            sides = both_sides(teacher, evalset.crops[part], list(evalset.landmarks[part]))
            write_array(path, np.stack(sides))
            say(
                f"{teacher.name}: {start + len(sides[0])} crops, {len(sides[0]) / (time.perf_counter() - started):.1f} crops/s"
            )
        parts.append(read_array(path))
    once, mirrored = np.concatenate(parts, axis=1)
    return once, mirrored
