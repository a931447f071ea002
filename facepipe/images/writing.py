"""Writing pictures, whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image

from facepipe.errors import OutputError
from facepipe.files import atomic_path, printable
from facepipe.types import UInt8

_WRITTEN = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


def write_image(path: str | os.PathLike[str], rgb: UInt8, *, private: bool = False) -> None:
    """Write uint8 RGB (H, W, 3) whole or not at all; the suffix names the format (JPEG, PNG, WebP, BMP, TIFF).

    Missing parent folders are made. private: only its owner may read it.
    Raises OutputError when the suffix is another one or the system refuses.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < 1:
        raise ValueError(f"rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    kind = _WRITTEN.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"{printable(path)}: unknown picture suffix; use one of {', '.join(_WRITTEN)}")
    data = encode_image(rgb, kind)
    with atomic_path(path, private=private) as temporary:
        temporary.write_bytes(data)


def encode_image(rgb: UInt8, kind: str = "JPEG", quality: int = 92) -> bytes:
    """Return uint8 RGB (H, W, 3) as a file's bytes; quality 1..100 counts for JPEG and WebP."""
    buffer = io.BytesIO()
    options: dict[str, object] = {"quality": quality} if kind in {"JPEG", "WEBP"} else {}
    PIL.Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, kind, **options)
    return buffer.getvalue()
