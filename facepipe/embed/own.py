"""Adds the user's own embedder: it is tried out, and known by its hash from then on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from facepipe.embed.alignment import get_template
from facepipe.embed.embedder import NetworkEmbedder
from facepipe.errors import InputError, ModelError, UsageError
from facepipe.models.folder import check_new_name, keep_model
from facepipe.models.networks import load_engine
from facepipe.models.onnx_engine import OnnxEngine
from facepipe.models.pull import MAX_BYTES
from facepipe.models.registry import Licence, ModelFile, ModelRecord


def own_record(
    file: Path,
    name: str,
    *,
    template: str | None = None,
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5),
    std: tuple[float, float, float] | None = None,
    bgr: bool = False,
    dim: int | None = None,
    threshold: float | None = None,
    margin: float = 0.03,
    licence: str = "not stated",
) -> ModelRecord:
    """Return the record of the user's embedder in `file`, as far as the user knows it; see `add_model`.

    template: needed for ONNX; weights of `mini`'s family (.safetensors) have arcface112. mean, std: of each channel, in the
    network's order (bgr); std None: 127.5, for `mini`'s family 128. Errors: UsageError.
    """
    trained_here = file.suffix == ".safetensors"
    template = template or ("arcface112" if trained_here else None)
    if template is None:
        raise UsageError(f"{file}: name its alignment with --template (arcface112, margin160)")
    divisor = std or ((128.0,) * 3 if trained_here else (127.5,) * 3)
    if 0.0 in divisor:
        raise UsageError(f"--std {','.join(f'{value:g}' for value in divisor)}: must not be zero")
    return ModelRecord(
        name=name,
        kind="embedder",
        network="onnx",
        note=f"Added by the user from {file.name}.",
        place="folder",
        files=(ModelFile(file.name, None, None),),
        licence=Licence(code="not stated", weights=licence, data="not stated", consent=False),
        hash_source="measured when it was added",
        input=get_template(template).size,
        template=template,
        mean=mean,
        std=divisor,
        colour="bgr" if bgr else "rgb",
        dim=dim,
        threshold=threshold,
        margin=margin if threshold is not None else None,
        user=True,
    )


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
