"""The networks once more, as ONNX graphs made from their weights alone: for engines that start without torch.

Each function takes the weights by the names of the torch definition and returns the bytes of an ONNX file. The tests
hold both definitions to the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facepipe.models.cascade import CropLayout
from facepipe.models.onnx_writer import OnnxWriter
from facepipe.types import Float32

Weights = Mapping[str, NDArray[Any]]


def mini_graph(weights: Weights) -> bytes:
    """A network of `mini`'s family (see `facepipe.models.mini`): chips (n, 3, 112, 112) to vectors (n, dim).

    What it is built of stands in the shapes. KeyError or ValueError when they are not those of this family.
    """
    graph = OnnxWriter(3, 112, 112)

    def conv(x: str, name: str, stride: int = 1) -> str:
        weight, bias = _pair(weights, name)
        group = len(weight) if weight.shape[1] == 1 else 1
        return graph.conv(x, weight, bias, stride, weight.shape[2] // 2, group)

    x = graph.relu(conv("x", "stem", {3: 2, 7: 4}[np.asarray(weights["stem.weight"]).shape[2]]))
    for i in range(len({name.split(".")[1] for name in weights if name.startswith("blocks.")})):
        name = f"blocks.{i}"
        stride = 2 if f"{name}.shortcut.weight" in weights else 1
        direct = conv(x, f"{name}.shortcut", 2) if stride == 2 else x
        if f"{name}.conv3.weight" in weights:  # a depthwise block: no activation at its end
            inner = graph.relu(conv(graph.relu(conv(x, f"{name}.conv1")), f"{name}.conv2", stride))
            x = graph.add(conv(inner, f"{name}.conv3"), direct)
        else:
            inner = graph.relu(conv(x, f"{name}.conv1", stride))
            x = graph.relu(graph.add(conv(inner, f"{name}.conv2"), direct))
    weight, bias = _pair(weights, "fc")
    return graph.finish([(graph.linear(graph.flatten(conv(x, "neck")), weight, bias), ["n", len(weight)])])


def pnet_graph(weights: Weights) -> bytes:
    """MTCNN's PNet: levels (n, 3, h, w) to (n, 6, h', w'): two logits (no face, face), four box offsets."""
    graph = OnnxWriter(3, "h", "w")
    x = _conv_prelu(graph, weights, "x", 1)
    x = graph.max_pool(x, 2, 2)
    x = _conv_prelu(graph, weights, x, 2)
    x = _conv_prelu(graph, weights, x, 3)
    out = graph.conv(x, *_joined(weights, "conv4_1", "conv4_2"))
    return graph.finish([(out, ["n", 6, "h2", "w2"])])


def crop_graph(weights: Weights, layout: CropLayout) -> bytes:
    """MTCNN's RNet or ONet: crops (n, 3, side, side) to all its outputs side by side, the logits first (see `CropLayout`)."""
    graph = OnnxWriter(3, layout.side, layout.side)
    x = "x"
    for number, (_, _, pool) in enumerate(layout.convolutions, 1):
        x = _conv_prelu(graph, weights, x, number)
        x = graph.max_pool(x, pool, 2) if pool else x
    number = len(layout.convolutions) + 1
    x = _linear_prelu(graph, weights, x, number)  # from (n, c, 3, 3)
    outputs = [f"dense{number + 1}_{place}" for place in range(1, len(layout.outputs) + 1)]
    return graph.finish([(graph.linear(x, *_joined(weights, *outputs)), ["n", sum(layout.outputs)])])


def _pair(weights: Weights, name: str) -> tuple[Float32, Float32]:
    return np.asarray(weights[f"{name}.weight"], np.float32), np.asarray(weights[f"{name}.bias"], np.float32)


def _joined(weights: Weights, *names: str) -> tuple[Float32, Float32]:
    """Return several heads over the same input as one layer."""
    pairs = [_pair(weights, name) for name in names]
    return np.concatenate([w for w, _ in pairs]), np.concatenate([b for _, b in pairs])


def _conv_prelu(graph: OnnxWriter, weights: Weights, x: str, number: int) -> str:
    x = graph.conv(x, *_pair(weights, f"conv{number}"))
    return graph.prelu(x, np.asarray(weights[f"prelu{number}.weight"], np.float32))


def _linear_prelu(graph: OnnxWriter, weights: Weights, x: str, number: int) -> str:
    """Add the layer over (n, c, 3, 3), as a 3x3 convolution to (n, out, 1, 1), its PReLU, and make that (n, out).

    Its weights count width before height before channels, as the Caffe original did with its pictures turned.
    """
    weight, bias = _pair(weights, f"dense{number}")
    channels = weight.shape[1] // 9
    turned = weight.reshape(len(weight), 3, 3, channels).transpose(0, 3, 2, 1)  # out, width, height, channels
    x = graph.conv(x, turned, bias)
    return graph.flatten(graph.prelu(x, np.asarray(weights[f"prelu{number}.weight"], np.float32)))
