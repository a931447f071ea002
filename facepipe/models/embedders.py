"""An embedder from a record and its files: the right definition, the right numbers in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from facepipe.errors import ModelError, UsageError
from facepipe.models.devices import resolve_device
from facepipe.models.engines import Engine, OpenCvEngine, TorchEngine, starts_without_torch
from facepipe.models.registry import ModelRecord
from facepipe.types import Embeddings, Float32, UInt8

if TYPE_CHECKING:
    import torch

#: Chips per pass through the network: on one core with AMX `mini` takes 4.3 ms a face alone, 1.2 ms among 64; with AVX-512's
#: bfloat16 7.5 and 4.7 ms.
BATCH = 64
#: On CUDA; `TorchEngine` makes less of it where the memory is short.
CUDA_BATCH = 256

ENGINES = ("auto", "quick", "torch", "opencv")


class NetworkEmbedder:
    """Serves the Embedder protocol with any engine: normalises pixels, runs batches, centres, scales to unit length."""

    def __init__(self, record: ModelRecord, engine: Engine, batch: int = BATCH) -> None:
        """batch: chips in one call of the engine."""
        if record.template is None or record.dim is None or record.input is None:
            raise ModelError(f"model {record.name!r}: an embedder's record needs template, input and dim")
        self._record = record
        self._engine = engine
        self._batch = batch
        self._template = record.template
        self._dim = record.dim
        self._size = record.input
        self._fingerprint = record.fingerprint
        # The network sees channels in its own order; mean and std are recorded in that order.
        self._channels = slice(None) if record.colour == "rgb" else slice(None, None, -1)
        self._mean = np.asarray(record.mean, np.float32)
        self._factor = np.float32(1) / np.asarray(record.std, np.float32)
        self._centre = None if record.centre is None else np.asarray(record.centre, np.float32)

    @property
    def name(self) -> str:
        """Name of the record."""
        return self._record.name

    @property
    def fingerprint(self) -> str:
        """The record's fingerprint; the same on every device, in every number format and by every engine."""
        return self._fingerprint

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def template(self) -> str:
        """Template of the chips."""
        return self._template

    def embed(self, chips: UInt8) -> Embeddings:
        """Embed chips, uint8 RGB (n, size, size, 3).

        Raises ValueError for another shape or dtype, ModelError when the network does not answer with `dim` finite
        numbers for each chip.
        """
        if chips.dtype != np.uint8 or chips.shape[1:] != (self._size, self._size, 3):
            raise ValueError(
                f"chips: expected uint8 (n, {self._size}, {self._size}, 3), got {chips.dtype} {chips.shape}"
            )
        vectors = np.empty((len(chips), self._dim), np.float32)
        for start in range(0, len(chips), self._batch):
            batch = chips[start : start + self._batch, :, :, self._channels]
            x = (batch.astype(np.float32) - self._mean) * self._factor
            vectors[start : start + self._batch] = self._unit(self._engine.run(x.transpose(0, 3, 1, 2))[0], len(batch))
        return Embeddings(vectors, self._fingerprint)

    def _unit(self, out: Float32, n: int) -> Float32:
        """Check what the network gave, centre it, and scale it to unit length."""
        if out.shape != (n, self._dim):
            raise ModelError(f"model {self.name!r}: expected an output of shape {(n, self._dim)}, got {out.shape}")
        if self._centre is not None:
            out = out - self._centre
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not (norms > 0).all():
            raise ModelError(f"model {self.name!r}: the network gave a vector that is zero or not finite")
        unit: Float32 = out / norms
        return unit


def build_embedder(
    record: ModelRecord, contents: Sequence[bytes], device: str, engine: str = "auto"
) -> NetworkEmbedder:
    """Build the embedder of a record from the checked contents of its files.

    engine: see `registry.load_embedder`. Raises ModelError when the files do not fit the definition, DeviceError when
    the device is not there, UsageError for an engine that does not exist or cannot run this network there.
    """
    if engine not in ENGINES:
        raise UsageError(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if record.network == "onnx":
        from facepipe.models.onnx_engine import OnnxEngine

        return NetworkEmbedder(record, OnnxEngine(contents[0], record.name, device))
    possible = record.network == "mini" and starts_without_torch(device)
    if engine == "opencv" and not possible:
        raise UsageError(f"model {record.name!r} cannot run on {device!r} by OpenCV; choose engine torch")
    if possible and engine in {"quick", "opencv"}:
        return NetworkEmbedder(record, OpenCvEngine(_graph(record, contents[0])))
    where = resolve_device(device)
    batch = CUDA_BATCH if where.type == "cuda" else BATCH
    return NetworkEmbedder(record, TorchEngine(_network(record, contents[0]), where), batch)


def _graph(record: ModelRecord, data: bytes) -> bytes:
    """Return the network as ONNX."""
    import safetensors.numpy
    from safetensors import SafetensorError

    from facepipe.models import graphs

    try:
        return graphs.mini_graph(safetensors.numpy.load(data))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"model {record.name!r}: its weights do not fit the network: {error}") from error


def _network(record: ModelRecord, data: bytes) -> torch.nn.Module:
    """Return the network as a torch module."""
    if record.network == "mini":
        import safetensors.torch
        from safetensors import SafetensorError

        from facepipe.models import mini

        try:
            return mini.build(safetensors.torch.load(data))
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise ModelError(f"model {record.name!r}: its weights do not fit the network: {error}") from error
    if record.network == "inception-resnet-v1":
        from facepipe.models import inception

        return inception.build(data)
    raise ModelError(f"model {record.name!r}: facepipe has no network {record.network!r}")
