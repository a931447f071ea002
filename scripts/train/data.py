"""Batches for training: every sample follows from the seed and its number, so a run that was killed goes on with the same ones."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facepipe.types import Float32, Int64, UInt8
from scripts.train.augment import CHIP, Strength, augment, middle
from scripts.train.shards import CropSet


def held_out(crops: CropSet, share: float, seed: int = 0) -> np.ndarray:
    """Return bool (n,): crops that are never trained on.

    Drawn by person where the identity is known, else by photo: a crop is as unseen as all others of its person or photo. The
    share is kept among the people and among the photos of nobody in particular.
    """
    keys = [str(meta["identity"] or meta["sha256"]) for meta in crops.metas]
    people = {key for key, meta in zip(keys, crops.metas, strict=True) if meta["identity"]}
    rng = np.random.default_rng(seed)
    chosen = set[str]()
    for names in (sorted(people), sorted(set(keys) - people)):
        wanted = min(round(share * len(names)), max(0, len(names) - 1))
        chosen |= {names[int(i)] for i in rng.permutation(len(names))[:wanted]}
    return np.asarray([key in chosen for key in keys], np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """chips: uint8 (n, 112, 112, 3). target: float32 (n, d). identity: int64 (n,), -1 unknown."""

    chips: Tensor
    target: Tensor
    identity: Tensor


class TrainingSet(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Item k is the whole batch of step k."""

    def __init__(
        self,
        crops: CropSet,
        numbers: Int64,
        targets: Float32,
        identities: Int64,
        batch: int,
        strength: Strength,
        seed: int = 0,
    ) -> None:
        """numbers: the crops that are trained on. targets, identities: of all crops."""
        self._crops, self._numbers = crops, numbers
        self._targets, self._identities = targets, identities
        self._batch, self._strength, self._seed = batch, strength, seed
        self._order: tuple[int, Int64] = (-1, numbers)

    def weaker(self) -> TrainingSet:
        """Return the same steps with weaker augmentation."""
        return TrainingSet(
            self._crops,
            self._numbers,
            self._targets,
            self._identities,
            self._batch,
            self._strength.weaker(),
            self._seed,
        )

    def __len__(self) -> int:
        # As many as anybody asks for: the sampler ends the run.
        return 1 << 40

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return chips, targets and identities of a step."""
        chosen = self.chosen(step)
        chips: UInt8 = np.empty((len(chosen), CHIP, CHIP, 3), np.uint8)
        for place, number in enumerate(chosen):
            rng = np.random.default_rng((self._seed, step, place))
            chips[place] = augment(self._crops.read(int(number)), rng, self._strength)
        target = self._targets[chosen].astype(np.float32)
        return torch.from_numpy(chips), torch.from_numpy(target), torch.from_numpy(self._identities[chosen])

    def chosen(self, step: int) -> Int64:
        """Return which crops a step trains on: each once before any comes again, in a new order each time."""
        places = step * self._batch + np.arange(self._batch)
        chosen = np.empty(self._batch, np.int64)
        for i, place in enumerate(places):
            epoch, at = divmod(int(place), len(self._numbers))
            if self._order[0] != epoch:
                rng = np.random.default_rng((self._seed, 1, epoch))
                self._order = (epoch, rng.permutation(self._numbers))
            chosen[i] = self._order[1][at]
        return chosen


def batches(
    dataset: TrainingSet, first: int, last: int, workers: int, pin: bool = False
) -> Generator[Batch, None, None]:
    """Yield the batches of steps first to last - 1, made ahead of time by `workers` processes (0: in this one).

    Close it (`contextlib.closing`) when it is left early: its workers end with it, and a process whose workers live never exits.
    """
    spawn = multiprocessing.get_context("spawn")
    closing = spawn.RawValue(ctypes.c_bool, False)
    loader: DataLoader[tuple[Tensor, Tensor, Tensor]] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=partial(_start, closing),
        pin_memory=pin,
        multiprocessing_context=spawn if workers else None,
    )
    with _without_interrupts():
        stream = iter(loader)
    try:
        for chips, target, identity in stream:
            yield Batch(chips, target, identity)
    finally:
        closing.value = True
        # The last reference: the iterator tells its workers to end and waits for them.
        del stream


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let the processes that start in the block ignore Ctrl-C from their first moment: `_start` runs seconds later in them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(closing: ctypes.c_bool, _worker: int) -> None:
    # Ctrl-C and `timeout` reach the whole group, and the main process ends in order: before that a worker must not go. What
    # multiprocessing sends to a worker that is left over is SIGTERM too; it counts once the main process has closed the stream.
    def end(*_: object) -> None:
        if closing.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def plain_chips(crops: CropSet, numbers: Int64) -> UInt8:
    """Return the chips of some crops as the network sees them in use, uint8 (n, 112, 112, 3)."""
    return (
        np.stack([middle(crops.read(int(n))) for n in numbers])
        if len(numbers)
        else np.zeros((0, CHIP, CHIP, 3), np.uint8)
    )


def normalised(chips: Tensor, device: torch.device) -> Tensor:
    """uint8 (n, 112, 112, 3) to float32 (n, 3, 112, 112), (x - 127.5) / 128, which stays NHWC in memory."""
    x = chips.to(device, non_blocking=True).permute(0, 3, 1, 2)
    return (x.float() - 127.5) / 128.0
