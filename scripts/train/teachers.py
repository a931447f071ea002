"""Teachers: embedders whose vectors the student learns; any ONNX file with a description, or any model of the package."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from facepipe.embed.alignment import TEMPLATES, Template, align
from facepipe.errors import InputError, ModelError, UsageError
from facepipe.types import Embedder, Face, Float32, Image, Quality, UInt8
from scripts.train.faces import CROP

DESCRIPTIONS = Path(__file__).with_name("teachers")
_BATCH = 8
_QUALITY = Quality(112.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class TeacherInput:
    """What an ONNX teacher wants to see, and how its vectors are joined with others.

    template: how its chips are cut. window: x1 y1 x2 y2 of the chip, None all of it. size: (width, height) that the window is
    resized to, None as it is. colour: rgb or bgr; mean, std: the input is (pixel - mean) / std. weight, centre: see `join`.
    """

    licence: str
    template: str = "arcface112"
    window: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    colour: str = "rgb"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    weight: float = 1.0
    centre: bool = True

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise UsageError(f"teacher: no template {self.template!r}; choose one of {', '.join(TEMPLATES)}")
        if self.colour not in {"rgb", "bgr"}:
            raise UsageError(f"teacher: colour is rgb or bgr, got {self.colour!r}")
        _check_weight("in its description", self.weight)


def _check_weight(which: str, weight: float) -> None:
    """Raise UsageError for a weight that is not above 0."""
    if not 0 < weight < math.inf:
        raise UsageError(f"teacher {which}: weight must be above 0, got {weight:g}")


def read_description(path: Path) -> TeacherInput:
    """Read a TOML description; UsageError when it holds something else."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return TeacherInput(**facts)
    except OSError as error:
        raise InputError(f"{path}: the teacher's description cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise UsageError(f"{path}: not a teacher's description ({error}); see {DESCRIPTIONS}") from error


class Teacher(Protocol):
    """Turns chips into unit vectors. template: how its chips are cut."""

    name: str
    template: str
    dim: int
    weight: float
    centre: bool
    licence: str
    fingerprint: str

    def embed(self, chips: UInt8) -> Float32:
        """uint8 RGB (n, H, W, 3) to float32 (n, dim), unit."""
        ...


class OnnxTeacher:
    """A teacher in an ONNX file, run by onnxruntime on the CPU or, where its build has it, on CUDA."""

    def __init__(self, name: str, path: Path, wants: TeacherInput, threads: int = 0) -> None:
        import hashlib

        import onnxruntime

        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: the teacher cannot be read ({error.strerror})") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        available = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=providers)
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf as error:
            raise ModelError(f"{path}: not an ONNX network ({error})") from error
        if len(self._session.get_inputs()) != 1:
            raise ModelError(f"{path}: expected an ONNX network with one input")
        self._input = self._session.get_inputs()[0]
        # A network that was exported for a batch of one runs one face at a time.
        self._at_once = self._input.shape[0] if isinstance(self._input.shape[0], int) else _BATCH
        self._wants = wants
        self.name, self.template, self.licence = name, wants.template, wants.licence
        self.weight, self.centre = wants.weight, wants.centre
        self.fingerprint = f"{name}-{hashlib.sha256(data + repr(wants).encode()).hexdigest()[:16]}"
        size = TEMPLATES[self.template].size
        self.dim = self.embed(np.zeros((1, size, size, 3), np.uint8), check=False).shape[1]

    def embed(self, chips: UInt8, check: bool = True) -> Float32:
        """See `Teacher.embed`; ModelError when the network gives a vector that is zero or not finite."""
        x = self._prepare(chips)
        parts = []
        for start in range(0, len(x), self._at_once):
            batch = x[start : start + self._at_once]
            short = self._at_once - len(batch) if self._at_once != _BATCH else 0
            if short:
                batch = np.concatenate([batch, np.repeat(batch[-1:], short, axis=0)])
            out = self._session.run(None, {self._input.name: batch})[0]
            parts.append(np.asarray(out, np.float32).reshape(len(batch), -1)[: len(batch) - short])
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if check and not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelError(f"teacher {self.name!r}: gave a vector that is zero or not finite; check its description")
        unit: Float32 = vectors / np.maximum(norms, 1e-12)
        return unit

    def _prepare(self, chips: UInt8) -> Float32:
        """Cut the window, resize, order the channels and scale: float32 (n, 3, h, w)."""
        wants = self._wants
        if wants.window is not None:
            x1, y1, x2, y2 = wants.window
            chips = chips[:, y1:y2, x1:x2]
        if wants.size is not None and chips.shape[2:0:-1] != wants.size:
            resized = [
                cv2.resize(chip, wants.size, interpolation=cv2.INTER_LINEAR) for chip in np.ascontiguousarray(chips)
            ]
            chips = np.stack(resized).astype(np.uint8) if resized else np.zeros((0, *wants.size[::-1], 3), np.uint8)
        if wants.colour == "bgr":
            chips = chips[..., ::-1]
        x = (chips.astype(np.float32) - np.asarray(wants.mean, np.float32)) / np.asarray(wants.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class PackageTeacher:
    """Any embedder of the package: `mini`, one that was pulled or added."""

    def __init__(self, embedder: Embedder, licence: str, weight: float = 0.5, centre: bool = True) -> None:
        self._embedder = embedder
        self.name, self.template, self.dim = embedder.name, embedder.template, embedder.dim
        self.fingerprint, self.licence = embedder.fingerprint, licence
        self.weight, self.centre = weight, centre

    def embed(self, chips: UInt8) -> Float32:
        """See `Teacher.embed`."""
        return self._embedder.embed(chips).vectors


def load_teacher(text: str, device: str = "auto") -> Teacher:
    """Load `NAME` (a model of the package), `NAME=FILE.onnx` (description by name, or beside the file as .toml).

    `:WEIGHT` may follow either. Raises UsageError, InputError, ModelError.
    """
    body, _, weight_text = text.rpartition(":")
    weight: float | None = None
    if body:
        try:
            weight = float(weight_text)
        except ValueError:
            body = text
        else:
            _check_weight(text, weight)
    else:
        body = text
    name, _, file = body.partition("=")
    teacher: OnnxTeacher | PackageTeacher
    if file:
        path = Path(file)
        if not path.is_file():
            raise InputError(f"{path}: no such file; give teacher {name!r} as {name}=FILE.onnx")
        beside = path.with_suffix(".toml")
        description = beside if beside.exists() else DESCRIPTIONS / f"{name}.toml"
        if not description.exists():
            raise UsageError(f"teacher {name!r}: no description; write {beside} like those in {DESCRIPTIONS}")
        teacher = OnnxTeacher(name, path, read_description(description))
    else:
        from facepipe.embed.embedder import load_embedder
        from facepipe.models.registry import get_record

        licence = get_record(name).licence
        teacher = PackageTeacher(load_embedder(name, device), f"weights {licence.weights}; data: {licence.data}")
    if weight is not None:
        teacher.weight = weight
    return teacher


def chips_for(template: str | Template, crops: UInt8, landmarks: Sequence[Any]) -> UInt8:
    """Cut a teacher's chips out of stored crops, uint8 (n, 128, 128, 3), whose landmarks are known, (n, 5, 2) crop pixels.

    A template larger than the crop's pixels is enlarged: what the photo had beyond them is lost.
    """
    chips = []
    for crop, points in zip(crops, landmarks, strict=True):
        pts = np.asarray(points, np.float32)
        side = np.float32(CROP.size)
        face = Face(np.array([0.125 * side, 0.03 * side, 0.875 * side, side], np.float32), 1.0, pts, _QUALITY)
        chips.append(align(Image(crop), [face], template)[0])
    size = (template if isinstance(template, Template) else TEMPLATES[template]).size
    return np.stack(chips) if chips else np.zeros((0, size, size, 3), np.uint8)


@dataclass(slots=True)
class TeacherFacts:
    """What a run must remember of a teacher: for the join and for the model card."""

    name: str
    fingerprint: str
    licence: str
    dim: int
    weight: float
    centre: bool
    extra: dict[str, Any] = field(default_factory=dict)
