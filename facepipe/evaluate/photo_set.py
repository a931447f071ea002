"""Each photo of an evaluation is read, detected and embedded once; a cache file carries the result to the next run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facepipe.errors import ImageError, InputError
from facepipe.files.guard import own_file, require_free
from facepipe.images import read_image
from facepipe.types import Face, Float32, Image

if TYPE_CHECKING:
    from facepipe.embed.describer import Describer

Progress = Callable[[int], None]

#: Columns of `PhotoSet.quality`.
QUALITY = ("score", "size", "sharpness", "yaw", "pitch", "roll", "edge_density", "usable")
_BATCH = 16
_LAYOUT = 3


@dataclass(frozen=True, slots=True, eq=False)
class PhotoSet:
    """One face of each photo.

    vectors: float32 (n, d), unit; zeros where `found` is false.
    found: bool (n,).
    boxes: float32 (n, 4), displayed pixels.
    quality: float32 (n, 8), columns QUALITY.
    failures: for each photo without a vector the reason.
    """

    paths: tuple[Path, ...]
    vectors: Float32
    found: NDArray[np.bool_]
    boxes: Float32
    quality: Float32
    failures: dict[Path, str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> PhotoSet:
        """Return some of the photos, in this order."""
        paths = tuple(self.paths[row] for row in rows)
        chosen = np.asarray(rows, np.int64)
        columns: dict[str, Any] = {
            name: getattr(self, name)[chosen] for name in ("vectors", "found", "boxes", "quality")
        }
        failures = {path: self.failures[path] for path in paths if path in self.failures}
        return replace(self, paths=paths, failures=failures, **columns)


def choose_face(image: Image, faces: Sequence[Face], rule: str) -> int | None:
    """Return the position of the face that the photo is about, None without a face.

    rule "largest": the greatest box area. "centre": the box whose middle is nearest to the picture's middle (LFW, whose
    pictures are centred on the person). A doubtful face counts only where no other is there.
    """
    if not faces:
        return None
    places = [place for place, face in enumerate(faces) if not face.doubtful] or list(range(len(faces)))
    boxes = np.stack([faces[place].box for place in places])
    if rule == "centre":
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2.0
        return places[int(np.argmin(np.linalg.norm(middles - np.array([image.width, image.height]) / 2.0, axis=1)))]
    if rule == "largest":
        return places[int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))]
    raise ValueError(f"choose_face: expected largest or centre, got {rule}")


#: Of one photo: vector (d,), box (4,), quality (8,), and why it has none of them.
_Row = tuple[Float32, Float32, Float32, str]


def embed_photos(
    paths: Sequence[Path],
    describer: Describer,
    rule: str = "largest",
    cache: Path | None = None,
    progress: Progress | None = None,
    options: object = "",
    max_side: int | None = 1280,
) -> PhotoSet:
    """Embed the chosen face of each photo.

    rule: see `choose_face`.
    cache: an .npz file that is read when it exists and written when something was added; a row counts while the photo's size
        and time of change, the embedder, the detector and `options` are the same.
    progress: called with the number of photos just done.
    options: the detector's.
    max_side: larger photos may be reduced while they are decoded.

    A photo that is damaged or has no face is a failure to enrol and is listed in `failures`.
    Errors: InputError when a photo is missing or may not be read; UsageError when `cache` is a file that facepipe did not write.
    """
    if cache:
        require_free(cache)
    embedder = describer.embedder
    key = f"{_LAYOUT}|{embedder.fingerprint}|{describer.detector.name}|{options}|{rule}"
    known = _load(cache, key) if cache else {}
    names = [_identity(path) for path in paths]
    waiting = {name: path for name, path in zip(names, paths, strict=True) if name not in known}
    if progress and (done := len(set(names) - set(waiting))):
        progress(done)
    for start in range(0, len(waiting), _BATCH):
        part = list(waiting.items())[start : start + _BATCH]
        known.update(_embed(part, describer, rule, max_side))
        if progress:
            progress(len(part))
    if cache and waiting:
        with own_file(cache) as file:
            columns = _columns(list(known.values()), embedder.dim)
            arrays: dict[str, Any] = dict(zip(("key", "names", *_COLUMNS), (key, list(known), *columns), strict=True))
            np.savez(file, **arrays)
    vectors, boxes, quality, reasons = _columns([known[name] for name in names], embedder.dim)
    failures = {path: str(reason) for path, reason in zip(paths, reasons, strict=True) if reason}
    return PhotoSet(tuple(paths), vectors, reasons == "", boxes, quality, failures, embedder.fingerprint)


def _identity(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def _embed(part: Sequence[tuple[str, Path]], describer: Describer, rule: str, max_side: int | None) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    images: list[tuple[str, Image]] = []
    for name, path in part:
        try:
            images.append((name, read_image(path, max_side=max_side)))
        except ImageError as error:
            rows[name] = _failed(describer.embedder.dim, f"unreadable: {error}")
    for (name, image), photo in zip(images, describer.describe([image for _, image in images]), strict=True):
        at = choose_face(image, photo.faces, rule)
        if at is None:
            rows[name] = _failed(describer.embedder.dim, "no face found")
            continue
        face = photo.faces[at]
        # A quality that is not known is NaN.
        measured = np.asarray([face.score, *astuple(face.quality)], np.float32)
        rows[name] = (photo.embeddings.vectors[at], face.box, measured, "")
    return rows


def _failed(dim: int, reason: str) -> _Row:
    return np.zeros(dim, np.float32), np.zeros(4, np.float32), np.zeros(len(QUALITY), np.float32), reason


_COLUMNS = ("vectors", "boxes", "quality", "reasons")


def _columns(rows: Sequence[_Row], dim: int) -> tuple[Float32, Float32, Float32, NDArray[np.str_]]:
    """Return rows as arrays: vectors (n, d), boxes (n, 4), quality (n, 8), reasons (n,)."""
    vectors, boxes, quality, reasons = zip(*rows, strict=True) if rows else ((),) * 4
    return (
        np.reshape(np.asarray(vectors, np.float32), (-1, dim)),
        np.reshape(np.asarray(boxes, np.float32), (-1, 4)),
        np.reshape(np.asarray(quality, np.float32), (-1, len(QUALITY))),
        np.asarray(reasons, np.str_),
    )


def _load(cache: Path, key: str) -> dict[str, _Row]:
    """Return the rows of a cache file; none when it is missing, damaged or made by another model: it is only a cache."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                return {}
            names, vectors, boxes, quality, reasons = (stored[name] for name in ("names", *_COLUMNS))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    rows = zip(vectors, boxes, quality, map(str, reasons), strict=True)
    return dict(zip(map(str, names), rows, strict=True))
