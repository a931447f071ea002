"""MTCNN's three networks as functions of arrays, whatever runs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Float32

#: Pixels of pyramid in one pass of PNet on a CPU: the activations stay in the cache of a core.
CPU_PIXELS = 150_000
CropName = Literal["rnet", "onet"]


class CropLayout(NamedTuple):
    """What RNet and ONet are built of, over square crops of `side` pixels.

    convolutions: channels, kernel, and side of the pooling at stride 2 behind it, 0 for none. dense: width of the dense layer.
    outputs: of each layer over that: two logits (no face, face), four box offsets, ONet: x of five landmarks, y of five.
    """

    side: int
    convolutions: tuple[tuple[int, int, int], ...]
    dense: int
    outputs: tuple[int, ...]


CROP_LAYOUTS: dict[CropName, CropLayout] = {
    "rnet": CropLayout(24, ((28, 3, 3), (48, 3, 3), (64, 2, 0)), 128, (2, 4)),
    "onet": CropLayout(48, ((32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)), 256, (2, 4, 10)),
}


class CascadeNetworks(ABC):
    """The three networks as functions of arrays. Pictures are float32, (x - 127.5) / 128, channels last.

    mixes_sizes: whether `propose` takes several levels, of any sizes, in one picture.
    batch_pixels: pixels of pyramid that one call of `propose` should get.
    has_rough: whether there is a number format in which answers are quicker, and rough.
    """

    mixes_sizes: bool = True
    batch_pixels: int = CPU_PIXELS
    has_rough: bool = False

    @abstractmethod
    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """PNet over pyramid levels in pictures (n, h, w, 3): face logits (n, h', w') and box offsets (n, 4, h', w').

        places: (levels, 5) where each level lies: its picture, y1, x1, y2, x2, the first corner even; None when each fills its
        picture.
        """

    @abstractmethod
    def over_crops(self, name: CropName, crops: Float32, least: float | None) -> tuple[Float32, Float32]:
        """RNet or ONet over crops (n, side, side, 3): face probabilities (n,), the other outputs side by side (n, 4 or 14).

        least: answers that reach this probability are exact, the others may be rough; None: all may be.
        """

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """RNet over crops (n, 24, 24, 3): face probabilities (n,), box offsets (n, 4). least: see `over_crops`."""
        return self.over_crops("rnet", crops, least)

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """ONet over crops (n, 48, 48, 3): face probabilities (n,), box offsets (n, 4), landmarks (n, 5, 2) in box units.

        least: see `over_crops`.
        """
        scores, out = self.over_crops("onet", crops, least)
        return scores, out[:, :4], out[:, 4:].reshape(-1, 2, 5).transpose(0, 2, 1)

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Probabilities and box offsets as in `finish`, rough and quick; None when there is no quicker way.

        The logit of the probability is within 0.3 of the exact one.
        """
        if not self.has_rough:
            return None
        scores, out = self.over_crops("onet", crops, None)
        return scores, out[:, :4]


def split_logits(out: Float32) -> tuple[Float32, Float32]:
    """Turn the two logits in front of a crop network's outputs (n, 2 + k) into a probability (n,): the softmax of the second."""
    against = np.minimum(out[:, 0] - out[:, 1], np.float32(80))  # beyond that, exp overflows
    return (1.0 / (1.0 + np.exp(against))).astype(np.float32), out[:, 2:]
