"""MTCNN's networks by OpenCV's dnn: the same answers as torch's, without importing torch.

For a few photos; the dense forms in `facepipe.models.mtcnn` are faster over many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facepipe.models.engines import OpenCvEngine
from facepipe.models.graphs import onet_graph, pnet_graph, rnet_graph
from facepipe.models.state_file import read_mtcnn
from facepipe.types import Float32

#: Crops in one pass: bounds the memory of crowded pictures.
_CROPS = 64


class OpenCvCascade:
    """`facepipe.models.mtcnn.CascadeNetworks` by OpenCV."""

    mixes_sizes = False
    #: Levels of equal size in one pass of PNet, in pixels.
    batch_pixels = 150_000

    def __init__(self) -> None:
        """Read the weights; ModelError when they are missing or not the recorded ones."""
        weights = read_mtcnn()
        self._pnet = OpenCvEngine(pnet_graph(weights["pnet"]))
        self._rnet = OpenCvEngine(rnet_graph(weights["rnet"]))
        self._onet = OpenCvEngine(onet_graph(weights["onet"]))

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`; places must be None, since this form does not mix sizes."""
        if places is not None:
            raise ValueError("places: expected None, this cascade does not mix levels of different sizes")
        out = self._pnet.run(pictures.transpose(0, 3, 1, 2))[0]
        return out[:, 1] - out[:, 0], out[:, 2:]

    def refine(self, crops: Float32, least: float) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.refine`."""
        out = _in_parts(self._rnet, crops)
        return _probability(out), out[:, 2:]

    def finish(self, crops: Float32, least: float) -> tuple[Float32, Float32, Float32]:
        """See `CascadeNetworks.finish`."""
        out = _in_parts(self._onet, crops)
        return _probability(out), out[:, 2:6], out[:, 6:].reshape(-1, 2, 5).transpose(0, 2, 1)

    def finish_roughly(self, crops: Float32) -> tuple[Float32, Float32] | None:
        """Return None: there is no quicker way."""
        return None


def _in_parts(engine: OpenCvEngine, crops: Float32) -> Float32:
    x = crops.transpose(0, 3, 1, 2)
    return np.concatenate([engine.run(x[i : i + _CROPS])[0] for i in range(0, len(x), _CROPS)])


def _probability(out: Float32) -> Float32:
    """Return the softmax of the second of the two logits."""
    face: Float32 = 1.0 / (1.0 + np.exp(np.minimum(out[:, 0] - out[:, 1], np.float32(80))))
    return face
