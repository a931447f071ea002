"""MTCNN's networks by OpenCV's dnn: the same answers as torch's, without importing torch.

For a few photos; the dense forms in `facepipe.models.mtcnn` are faster over many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facepipe.models.cascade import CROP_LAYOUTS, CascadeNetworks, CropName, split_logits
from facepipe.models.engines import OpenCvEngine
from facepipe.models.graphs import crop_graph, pnet_graph
from facepipe.models.state_file import read_mtcnn
from facepipe.types import Float32

#: Crops in one pass: bounds the memory of crowded pictures.
_CROPS = 64


class OpenCvCascade(CascadeNetworks):
    """The networks by OpenCV."""

    mixes_sizes = False

    def __init__(self) -> None:
        """Read the weights; ModelError when they are missing or not the recorded ones."""
        weights = read_mtcnn()
        self._pnet = OpenCvEngine(pnet_graph(weights["pnet"]))
        self._crop = {name: OpenCvEngine(crop_graph(weights[name], layout)) for name, layout in CROP_LAYOUTS.items()}

    def propose(self, pictures: Float32, places: NDArray[np.int64] | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.propose`; places must be None, since this form does not mix sizes."""
        if places is not None:
            raise ValueError("places: expected None, this cascade does not mix levels of different sizes")
        out = self._pnet.run(pictures.transpose(0, 3, 1, 2))[0]
        return out[:, 1] - out[:, 0], out[:, 2:]

    def over_crops(self, name: CropName, crops: Float32, least: float | None) -> tuple[Float32, Float32]:
        """See `CascadeNetworks.over_crops`."""
        x = crops.transpose(0, 3, 1, 2)
        run = self._crop[name].run
        return split_logits(np.concatenate([run(x[i : i + _CROPS])[0] for i in range(0, len(x), _CROPS)]))
