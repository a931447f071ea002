"""Evaluation sets for use during training: found, aligned and stored once, so that a check costs only the network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facepipe.embed.alignment import align, similarity_transforms
from facepipe.errors import ImageError
from facepipe.evaluate import metrics
from facepipe.evaluate.pairs import PairList, read_pairs
from facepipe.evaluate.photo_set import choose_face
from facepipe.files.atomic import atomic_file
from facepipe.images import read_image
from facepipe.types import Detector, Float32, Int64, UInt8
from scripts.train.faces import CROP
from scripts.train.shards import SIDE

Embed = Callable[[UInt8, Sequence[np.ndarray]], Float32]
Say = Callable[[str], None]
_BATCH = 16
_PART = 512


@dataclass(frozen=True, slots=True, eq=False)
class EvalSet:
    """Pairs of photos, and the crop of each photo in which a face was found.

    crops: uint8 (m, 128, 128, 3). landmarks: float32 (m, 5, 2), crop pixels. row: int64 (photos,), which crop a photo has, -1 none.
    """

    name: str
    pairs: PairList
    crops: UInt8
    landmarks: Float32
    row: Int64

    def verification(self, vectors: Float32) -> dict[str, float]:
        """Return accuracy (threshold of each fold from the others), AUC and TAR at FAR, for unit vectors of the crops.

        A pair with a photo without a face has no score: a miss when genuine, a wrong decision in the accuracy.
        """
        pairs = self.pairs
        a, b = self.row[pairs.a], self.row[pairs.b]
        there = (a >= 0) & (b >= 0)
        scores = np.full(len(pairs), -np.inf)
        scores[there] = np.einsum("nd,nd->n", vectors[a[there]].astype(np.float64), vectors[b[there]])
        correct = []
        for fold in np.unique(pairs.fold):
            test = pairs.fold == fold
            train = ~test if (~test).any() else test
            threshold = metrics.best_threshold(scores[train & pairs.same], scores[train & ~pairs.same])
            correct.append(metrics.accuracy(scores[test & pairs.same], scores[test & ~pairs.same], threshold))
        genuine, impostor = scores[pairs.same], scores[~pairs.same & there]
        result = {"accuracy": float(np.mean(correct)), "auc": metrics.auc(genuine, impostor)}
        for far in (1e-2, 1e-3):
            if metrics.supported(far, len(impostor)):
                result[f"tar@{far:g}"] = metrics.tar_at_far(genuine, impostor, far)
        result["no_face"] = float((self.row[np.unique([pairs.a, pairs.b])] < 0).sum())
        return result


def unseen_people(vectors: Float32, people: Int64) -> dict[str, float]:
    """Return verification figures over all pairs of crops whose person is known; empty without pairs of both kinds.

    vectors: float32 (n, d), unit. people: int64 (n,), -1 unknown. accuracy: 1 - EER.
    """
    known = np.flatnonzero(people >= 0)
    owners = people[known]
    scores = vectors[known].astype(np.float64) @ vectors[known].T
    a, b = np.triu_indices(len(known), 1)
    same, cosines = owners[a] == owners[b], scores[a, b]
    if not same.any() or same.all():
        return {}
    genuine, impostor = cosines[same], cosines[~same]
    found = {"accuracy": 1.0 - metrics.eer(genuine, impostor)[0], "auc": metrics.auc(genuine, impostor)}
    for far in (1e-2, 1e-3):
        if metrics.supported(far, len(impostor)):
            found[f"tar@{far:g}"] = metrics.tar_at_far(genuine, impostor, far)
    found |= {"people": float(len(np.unique(owners))), "genuine": float(len(genuine)), "impostor": float(len(impostor))}
    return found


def part(evalset: EvalSet, every: int) -> EvalSet:
    """Return the set with one pair in `every`, evenly from all folds, and only the crops that these need."""
    keep = np.arange(0, len(evalset.pairs), every)
    pairs = evalset.pairs
    photos = np.unique(np.concatenate([pairs.a[keep], pairs.b[keep]]))
    rows = evalset.row[photos]
    used = rows[rows >= 0]
    row = np.full(len(pairs.photos), -1, np.int64)
    row[photos[rows >= 0]] = np.arange(len(used))
    fewer = PairList(pairs.photos, pairs.a[keep], pairs.b[keep], pairs.same[keep], pairs.people, pairs.fold[keep])
    return EvalSet(evalset.name, fewer, evalset.crops[used], evalset.landmarks[used], row)


def load_evalset(
    pairs_file: Path, images: Path, cache: Path, detector: Callable[[], Detector], say: Say = lambda _: None
) -> EvalSet:
    """Return the set of a pair list (LFW's pairs.txt or CSV); its crops are kept in the folder `cache`.

    The face that counts is the one nearest to the photo's middle. Raises InputError as `read_pairs` does.
    """
    pairs = read_pairs(pairs_file, images)
    key = hashlib.sha256("\n".join(map(str, pairs.photos)).encode()).hexdigest()[:16]
    path = cache / f"{images.name}-{key}.npz"
    if not path.exists():
        say(f"{images.name}: {len(pairs.photos)} photos are prepared once")
        _prepare_parts(pairs.photos, path, detector(), say)
    with np.load(path, allow_pickle=False) as stored:
        return EvalSet(images.name, pairs, stored["crops"], stored["landmarks"], stored["row"])


def _prepare_parts(photos: Sequence[Path], path: Path, detector: Detector, say: Say) -> None:
    """Prepare in parts that are kept, so that a run that is stopped goes on; then join them."""
    parts = []
    for start in range(0, len(photos), _PART):
        kept = path.with_name(f"{path.stem}-{start}.npz")
        if not kept.exists():
            crops, landmarks, row = _prepare(photos[start : start + _PART], detector)
            with atomic_file(kept) as file:
                np.savez(file, crops=crops, landmarks=landmarks, row=row)
            say(f"  {min(start + _PART, len(photos))} of {len(photos)}")
        parts.append(kept)
    loaded = [np.load(kept, allow_pickle=False) for kept in parts]
    before = np.cumsum([0, *(len(part["crops"]) for part in loaded)])
    rows = [np.where(part["row"] >= 0, part["row"] + n, -1) for part, n in zip(loaded, before, strict=False)]
    with atomic_file(path) as file:
        np.savez(
            file,
            crops=np.concatenate([part["crops"] for part in loaded]),
            landmarks=np.concatenate([part["landmarks"] for part in loaded]),
            row=np.concatenate(rows),
        )
    for part, kept in zip(loaded, parts, strict=True):
        part.close()
        kept.unlink()


def _prepare(photos: Sequence[Path], detector: Detector) -> tuple[UInt8, Float32, Int64]:
    crops: list[UInt8] = []
    landmarks: list[Float32] = []
    row = np.full(len(photos), -1, np.int64)
    points = np.asarray(CROP.points)
    for start in range(0, len(photos), _BATCH):
        images, numbers = [], []
        for number, photo in enumerate(photos[start : start + _BATCH], start):
            try:
                images.append(read_image(photo, max_side=1280))
                numbers.append(number)
            except ImageError:
                continue  # counts as a photo without a face
        for number, found in zip(numbers, detector.detect(images), strict=True):
            image, faces = found.image, found.faces
            at = choose_face(image, faces, "centre")
            if at is None:
                continue
            matrix = similarity_transforms(faces[at].landmarks[None], points)[0]
            row[number] = len(crops)
            crops.append(align(image, [faces[at]], CROP)[0])
            landmarks.append(faces[at].landmarks @ matrix[:, :2].T + matrix[:, 2])
    if not crops:
        return np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros((0, 5, 2), np.float32), row
    return np.stack(crops), np.stack(landmarks).astype(np.float32), row
