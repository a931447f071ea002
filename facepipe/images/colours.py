"""Pixels of any kind made RGB, uint8, sRGB; the choices are listed in `reading`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from facepipe.types import UInt8


def to_rgb(picture: PIL.Image.Image, max_side: int | None) -> UInt8:
    """Return a loaded picture of any mode as uint8 (H, W, 3), sRGB; large ones reduced, never below max_side."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        return _scaled(np.asarray(picture))
    # Averaging whole blocks of pixels here, a band of rows at a time, spares the memory of a second copy of a very large picture.
    factor = max(picture.size) // max_side if max_side is not None else 1
    if factor <= 1:
        return np.asarray(_plain(picture))
    bands = range(0, picture.height, factor * _BAND)
    boxes = ((0, top, picture.width, min(top + factor * _BAND, picture.height)) for top in bands)
    return np.concatenate([np.asarray(_plain(picture.crop(box)).reduce(factor)) for box in boxes])


#: Rows of the reduced picture that are made at a time.
_BAND = 64


def turned(rgb: UInt8, turn: int) -> UInt8:
    """Apply an EXIF orientation to uint8 (H, W, 3); the result is contiguous."""
    if turn in {5, 6, 7, 8}:
        rgb = rgb.swapaxes(0, 1)
    if turn in {3, 4, 7, 8}:
        rgb = rgb[::-1]
    if turn in {2, 3, 6, 7}:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _plain(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return a picture of 8 bits as RGB, colours managed and without transparency."""
    if picture.mode in {"LAB", "CMYK"}:
        picture = managed(picture)
    if picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in picture.info:
        picture = _on_white(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Lay a picture with transparency on white."""
    if picture.mode == "La":
        picture = picture.convert("LA")
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema() == (255, 255):
        return picture
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, "white"), picture)


def managed(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Convert RGB, CMYK or LAB to sRGB by its colour profile; CMYK without a usable profile is returned for the plain formula."""
    from PIL import ImageCms

    embedded = picture.info.get("icc_profile")
    srgb = ImageCms.createProfile("sRGB")
    try:
        if embedded:
            source = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            converted = ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB")
            if converted is not None:
                return converted
    except (ImageCms.PyCMSError, OSError):  # a profile for other colours, or a damaged one, is ignored
        pass
    if picture.mode == "CMYK":
        return picture
    converted = ImageCms.profileToProfile(picture, ImageCms.createProfile("LAB"), srgb, outputMode="RGB")
    assert converted is not None
    return converted


def _scaled(values: NDArray[Any]) -> UInt8:
    """Scale one channel of integers or floats to uint8 grey (H, W, 3), a block of rows at a time."""
    finite = values if values.dtype.kind in "iu" else np.where(np.isfinite(values), values, np.float32(0))
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind in "iu":
        fitting = [float(2**bits - 1) for bits in (8, 10, 12, 14, 16) if high <= 2**bits - 1]
    else:
        fitting = [top for top in (1.0, 255.0) if high <= top]
    if low >= 0.0 and fitting:
        low, high = 0.0, fitting[0]
    factor = 255.0 / (high - low) if high > low else 0.0
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):
        block = (finite[top : top + 256].astype(np.float64) - low) * factor
        grey[top : top + 256] = np.clip(np.rint(block), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
