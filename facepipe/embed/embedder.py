"""The embedder: a network of a record, with the right numbers in and unit vectors out."""

from __future__ import annotations

import numpy as np

from facepipe.errors import ModelError
from facepipe.models.engines import Engine
from facepipe.models.networks import load_engine
from facepipe.models.registry import ModelRecord, get_record, read_weights
from facepipe.types import Embeddings, Float32, UInt8


class NetworkEmbedder:
    """Serves the Embedder protocol with any engine: normalises pixels, runs batches, centres, scales to unit length."""

    def __init__(self, record: ModelRecord, engine: Engine) -> None:
        if record.template is None or record.dim is None or record.input is None:
            raise ModelError(f"model {record.name!r}: an embedder's record needs template, input and dim")
        self._engine = engine
        self._size = record.input
        self.name, self.template, self.dim = record.name, record.template, record.dim
        #: The same on every device, in every number format and by every engine.
        self.fingerprint = record.fingerprint
        # The network sees channels in its own order; mean and std are recorded in that order.
        self._channels = slice(None) if record.colour == "rgb" else slice(None, None, -1)
        self._mean = np.asarray(record.mean, np.float32)
        self._factor = np.float32(1) / np.asarray(record.std, np.float32)
        self._lengths = record.lengths
        self._centre = None if record.centre is None else np.asarray(record.centre, np.float32)

    def embed(self, chips: UInt8) -> Embeddings:
        """Embed chips, uint8 RGB (n, size, size, 3).

        Raises ValueError for another shape or dtype, ModelError when the network does not answer with `dim` finite
        numbers for each chip.
        """
        if chips.dtype != np.uint8 or chips.shape[1:] != (self._size, self._size, 3):
            raise ValueError(
                f"chips: expected uint8 (n, {self._size}, {self._size}, 3), got {chips.dtype} {chips.shape}"
            )
        vectors = np.empty((len(chips), self.dim), np.float32)
        lengths = np.empty(len(chips), np.float32)
        for start in range(0, len(chips), self._engine.batch):
            batch = chips[start : start + self._engine.batch, :, :, self._channels]
            x = (batch.astype(np.float32) - self._mean) * self._factor
            rows = slice(start, start + len(batch))
            vectors[rows], lengths[rows] = self._unit(self._engine.run(x.transpose(0, 3, 1, 2))[0], len(batch))
        if self._lengths is None:
            return Embeddings(vectors, self.fingerprint)
        return Embeddings(vectors, self.fingerprint, self._lengths.usable(lengths), self._lengths.evidence(lengths))

    def _unit(self, out: Float32, n: int) -> tuple[Float32, Float32]:
        """Check what the network gave, centre it, and scale it to unit length; return that and the lengths, float32 (n,)."""
        if out.shape != (n, self.dim):
            raise ModelError(f"model {self.name!r}: expected an output of shape {(n, self.dim)}, got {out.shape}")
        if self._centre is not None:
            out = out - self._centre
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not (norms > 0).all():
            raise ModelError(f"model {self.name!r}: the network gave a vector that is zero or not finite")
        return out / norms, norms[:, 0]


def load_embedder(name: str = "mini", device: str = "auto", *, quick: bool = False) -> NetworkEmbedder:
    """Load an embedder: find its record, check its files, build its network on the device.

    device: auto, cpu, cuda or cuda:N. quick: start without torch where that is possible (`mini` on the CPU), which pays for
    fewer than about a hundred faces; the vectors agree to rounding and the fingerprint is the same.
    Errors: ModelError for an unknown name, missing or changed files and a detector's name, DeviceError.
    """
    record = get_record(name)
    if record.kind != "embedder":
        raise ModelError(f"model {name!r} is a {record.kind}, not an embedder; see `facepipe models list`")
    return NetworkEmbedder(record, load_engine(record, read_weights(record)[0], device, quick=quick))
