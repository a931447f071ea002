"""Writing pictures, whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from facepipe.errors import OutputError
from facepipe.files.guard import MARK, own_path
from facepipe.images.taken import EXIF, tags_of
from facepipe.text import printable
from facepipe.types import UInt8

_TIFF_SOFTWARE = 0x0131
_WRITTEN = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}


def write_image(path: str | os.PathLike[str], rgb: UInt8) -> None:
    """Write uint8 RGB (H, W, 3) whole or not at all; the suffix names the format (JPEG, PNG, WebP, BMP, TIFF).

    Only its owner may read it; missing parent folders are made. Raises OutputError when the suffix is another
    one or the system refuses, UsageError when facepipe did not write what is there.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < 1:
        raise ValueError(f"rgb: expected uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    kind = _WRITTEN.get(Path(path).suffix.lower())
    if kind is None:
        raise OutputError(f"{printable(path)}: unknown picture suffix; use one of {', '.join(_WRITTEN)}")
    data = encode_image(rgb, kind, mark=True)
    with own_path(path) as temporary:
        temporary.write_bytes(data)


def encode_image(
    rgb: UInt8,
    kind: str = "JPEG",
    quality: int = 92,
    *,
    mark: bool = False,
    remark: str = "",
    taken: str | None = None,
    **options: Any,
) -> bytes:
    """Return uint8 RGB (H, W, 3) as a file's bytes; quality 1..100 counts for JPEG and WebP.

    mark: a remark in it says that facepipe wrote it, so that it may be written again (`files.is_ours`). remark: plain text that
    follows the mark. taken: when it was taken (see `images.taken`), for JPEG, PNG and WebP. options: Pillow's for the format.
    """
    buffer = io.BytesIO()
    if kind in {"JPEG", "WEBP"} and "qtables" not in options:
        options["quality"] = quality
    text = f"{MARK} {remark}".rstrip()
    exif = PIL.Image.Exif()
    if taken is not None:
        exif.get_ifd(EXIF).update(tags_of(taken))
    if mark:
        options |= _remark(kind, text, exif)
    if kind in {"JPEG", "PNG", "WEBP"} and (len(exif) or taken is not None):
        options["exif"] = exif.tobytes()
    PIL.Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, kind, **options)
    if mark and kind == "BMP":  # has no place for a remark, but readers stop at the size that its header says
        buffer.write(text.encode())
    return buffer.getvalue()


def _remark(kind: str, text: str, exif: PIL.Image.Exif) -> dict[str, object]:
    """Return Pillow's options that put the mark into a picture, or put it into its EXIF data."""
    if kind == "JPEG":
        return {"comment": text}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Software", text)
        return {"pnginfo": info}
    if kind == "TIFF":
        return {"tiffinfo": {_TIFF_SOFTWARE: text}}
    if kind == "WEBP":
        exif[_TIFF_SOFTWARE] = text
    return {}
