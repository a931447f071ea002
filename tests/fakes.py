"""Whole objects behind the protocols, for tests that are not about the networks.

FakeDetector finds solid squares in pure, saturated colours on a grey background; FakeEmbedder turns a colour into a vector. So a
test paints people as colours and knows who is who.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from facepipe.errors import ModelError
from facepipe.models.onnx_writer import OnnxWriter
from facepipe.types import Detected, Embeddings, Face, Image, Quality, UInt8

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
}


def picture(*colours: str, size: tuple[int, int] = (320, 240), side: int = 60) -> Image:
    """Paint a grey picture with one square "face" for each colour, from left to right."""
    rgb = np.full((size[1], size[0], 3), 128, np.uint8)
    for number, colour in enumerate(colours):
        x = 10 + number * (side + 20)
        rgb[40 : 40 + side, x : x + side] = COLOURS[colour]
    return Image(rgb, f"{'-'.join(colours) or 'empty'}.png")


def face_at(x: float, y: float, side: float, score: float = 0.99) -> Face:
    """Build a frontal, sharp face in a square box."""
    box = np.array([x, y, x + side, y + side], np.float32)
    unit = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]], np.float32)
    quality = Quality(size=float(side), sharpness=500.0, yaw=0.0, pitch=0.0, roll=0.0, edge_density=0.3)
    return Face(box, score, (unit * side + box[:2]).astype(np.float32), quality)


class FakeDetector:
    """Finds solid coloured squares."""

    name = "fake-detector"

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        return (Detected(image, self._squares(image)) for image in images)

    def _squares(self, image: Image) -> tuple[Face, ...]:
        saturated = (image.rgb.max(axis=2).astype(int) - image.rgb.min(axis=2)) > 150
        count, _, stats, _ = cv2.connectedComponentsWithStats(saturated.astype(np.uint8))
        found = [stats[i] for i in range(1, count) if stats[i][4] >= 100]
        found.sort(key=lambda s: (-int(s[4]), int(s[0])))
        scale = image.scale
        return tuple(face_at(s[0] / scale, s[1] / scale, min(s[2], s[3]) / scale, 0.99) for s in found)


class FakeEmbedder:
    """Turns the mean colour of a chip into a unit vector: equal colours, equal vectors; pure colours lie far apart."""

    name = "fake"
    template = "arcface112"

    def __init__(self, fingerprint: str = "fake:1", dim: int = 8) -> None:
        self.fingerprint = fingerprint
        self.dim = dim
        basis = np.linalg.qr(np.random.default_rng(7).normal(size=(dim, dim)))[0]
        self._basis = np.ascontiguousarray(basis.T, np.float32)

    def embed(self, chips: UInt8) -> Embeddings:
        middle = chips[:, 40:72, 40:72].reshape(len(chips), -1, 3).mean(axis=1) if len(chips) else np.zeros((0, 3))
        code = np.zeros((len(chips), self.dim), np.float32)
        code[:, :3] = middle / 127.5 - 1.0
        code[:, 3] = 0.2
        code /= np.maximum(np.linalg.norm(code, axis=1, keepdims=True), 1e-9)
        # No matrix product: a chip's vector is the same to the last digit, whatever it is embedded with.
        return Embeddings((code[:, None] * self._basis).sum(axis=-1), self.fingerprint)


def projection_onnx(dim: int = 32) -> bytes:
    """Another model: an ONNX network over chips of 112x112 that projects their 14x14 cells at random to `dim` numbers."""
    network = OnnxWriter(3, 112, 112)
    cells = network.flatten(network.node("AveragePool", "x", kernel_shape=(8, 8), strides=(8, 8)))
    weight = np.random.default_rng(3).normal(size=(dim, 3 * 14 * 14)).astype(np.float32)
    return network.finish([(network.linear(cells, weight, np.zeros(dim, np.float32)), ["n", dim])])


class CrashingDetector:
    """Fails as a detector whose model is broken does."""

    name = "crashing"

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        raise ModelError("crashing: its weights are damaged; pull them again")
