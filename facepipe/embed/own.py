"""Adds the user's own embedder: it is tried out, and known by its hash from then on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from facepipe.embed.embedder import NetworkEmbedder
from facepipe.errors import InputError, ModelError
from facepipe.models.folder import check_new_name, keep_model
from facepipe.models.networks import load_engine
from facepipe.models.onnx_engine import OnnxEngine
from facepipe.models.pull import MAX_BYTES
from facepipe.models.registry import ModelFile, ModelRecord


def add_model(record: ModelRecord, source: Path) -> ModelRecord:
    """Copy an embedder into the model folder, try it on two chips, register it, and return its record.

    source: an ONNX network, or weights of `mini`'s family when the suffix is .safetensors (as the training recipe exports them).
    record: what the user says about it; its file's hash and size, its network, and `dim` when it is None, are filled in here.
    Errors: UsageError for a bad or taken name, InputError when the file cannot be read, ModelError when it cannot be run on chips
    of its template or does not answer with `dim` finite numbers for each.
    """
    check_new_name(record.name)
    try:
        if source.exists() and not source.is_file():
            raise InputError(f"{source}: is a folder, a pipe or a device; name the network's file")
        if source.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{source}: has more than {MAX_BYTES:,} bytes; no network that can be used here is as large"
            )
        data = source.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    suffix, network = (".safetensors", "mini") if source.suffix == ".safetensors" else (".onnx", "onnx")
    file = ModelFile(record.name + suffix, hashlib.sha256(data).hexdigest(), len(data))
    complete = _tried(replace(record, files=(file,), place="folder", network=network, user=True), data)
    keep_model(complete, data)
    return complete


def _tried(record: ModelRecord, data: bytes) -> ModelRecord:
    """Run two chips through the network and return the record with its dimension. Errors: ModelError as `add_model`."""
    engine = load_engine(record, data, "cpu")
    size = record.input
    assert size is not None
    takes = engine.input_shape if isinstance(engine, OnnxEngine) else ("n", 3, 112, 112)
    if any(isinstance(got, int) and got != want for got, want in zip(takes[1:], (3, size, size), strict=True)):
        raise ModelError(
            f"model {record.name!r}: its input is {list(takes)}, but template {record.template!r} "
            f"gives chips of {size}x{size}; choose another --template"
        )
    if record.dim is None:
        out = engine.run(np.zeros((1, 3, size, size), np.float32))[0]
        if out.ndim != 2:
            raise ModelError(f"model {record.name!r}: expected an output of shape (n, dim), got {out.shape}")
        record = replace(record, dim=int(out.shape[1]))
    NetworkEmbedder(record, engine).embed(np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8))
    return record
