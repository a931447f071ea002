"""MTCNN's three networks as functions of arrays, whatever runs them, and which form is the fastest on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Float32

if TYPE_CHECKING:
    import torch


class CascadeNetworks(Protocol):
    """The three networks as functions of arrays. Pictures are float32, (x - 127.5) / 128, channels last."""

    @property
    def mixes_sizes(self) -> bool:
        """Whether `propose` takes several levels, of any sizes, in one picture."""
        ...

    @property
    def batch_pixels(self) -> int:
        """Pixels of pyramid that one call of `propose` should get."""
        ...

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """PNet over pyramid levels in pictures (n, h, w, 3): face logits (n, h', w') and box offsets (n, 4, h', w').

        places: (levels, 5) where each level lies: its picture, y1, x1, y2, x2, the first corner even; None when each fills its
        picture.
        """
        ...

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """RNet over crops (n, 24, 24, 3): face probabilities (n,), box offsets (n, 4).

        least: answers that reach this probability are exact, the others may be rough.
        """
        ...

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """ONet over crops (n, 48, 48, 3): face probabilities (n,), box offsets (n, 4), landmarks (n, 5, 2) in box units.

        least: as in `refine`.
        """
        ...

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Probabilities and box offsets as in `finish`, rough and quick; None when there is no quicker way.

        The logit of the probability is within 0.3 of the exact one.
        """
        ...


def load_cascade(device: torch.device) -> CascadeNetworks:
    """Return the networks in the form that is fastest on a device; all forms give the same answers.

    Errors: ModelError when the weights are missing or not the recorded ones.
    """
    from facepipe.models.mtcnn import TorchCascade
    from facepipe.models.onednn import OneDnnCascade, available

    return OneDnnCascade() if device.type == "cpu" and available() else TorchCascade(device)
