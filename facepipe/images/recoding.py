"""A changed picture written as its original was: the same format and strength, its colour profile, its date, and nothing else.

What is left behind is everything else that is not pixels as displayed: EXIF with thumbnail, place and maker's notes, XMP, comments,
further frames and pages, previews, the video of a motion photo, and what lies behind a picture's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import PIL.Image
import PIL.JpegImagePlugin

from facepipe.images.colours import managed
from facepipe.images.raw import is_raw
from facepipe.images.reading import open_quietly
from facepipe.images.taken import taken_of
from facepipe.images.wholeness import mended
from facepipe.images.writing import encode_image
from facepipe.types import UInt8

#: Formats that are kept, by Pillow's name, and the suffixes that say so. Of what people share the others become JPEG, the rest PNG.
_KEPT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
}
_AS_JPEG = frozenset({"MPO", "HEIF", "AVIF", "JPEG2000"})
#: A larger colour profile is applied and not kept.
_MOST_PROFILE = 1 << 15
_ANIMATED = frozenset({"GIF", "PNG", "WEBP", "TIFF", "AVIF"})


@dataclass(frozen=True, slots=True)
class Form:
    """How a picture is to be written.

    kind: Pillow's name. frames: how many it had, of which the first is written. taken: see `taken_of`.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    profile: bytes = b""
    frames: int = 1
    taken: str | None = None

    def name(self, name: str) -> str:
        """Return a file's name with a suffix that fits: a.heic becomes a.heic.jpg."""
        return name if PurePath(name).suffix.lower() in _KEPT[self.kind] else name + _KEPT[self.kind][0]

    def encode(self, rgb: UInt8, remark: str) -> bytes:
        """Return uint8 RGB (H, W, 3) as a file's bytes. remark: follows the mark in it."""
        options = self.options
        if self.profile and len(self.profile) <= _MOST_PROFILE:
            options = options | {"icc_profile": self.profile}
        elif self.profile:
            picture = PIL.Image.fromarray(rgb)
            picture.info["icc_profile"] = self.profile
            rgb = np.asarray(managed(picture))
        try:
            return encode_image(rgb, self.kind, mark=True, remark=remark, taken=self.taken, **options)
        except (OSError, ValueError):  # tables that Pillow does not write
            return encode_image(rgb, self.kind, mark=True, remark=remark, taken=self.taken)


def form_of(data: bytes, name: str) -> Form:
    """Return how a picture that can be read is written. data: its file."""
    form = Form("JPEG") if is_raw(data, name) else _form(data)
    return replace(form, taken=taken_of(data, name))


def _form(data: bytes) -> Form:
    try:
        return _pillows_form(mended(data))
    except Exception:  # noqa: BLE001 - Pillow reads more of a file than its pixels need, and raises whatever damage there leads to
        return Form("JPEG" if data.startswith(b"\xff\xd8\xff") else "PNG")


def _pillows_form(data: bytes) -> Form:
    with open_quietly(data) as picture:
        kind, mode = picture.format or "", picture.mode
        embedded = picture.info.get("icc_profile") or b""
        profile = embedded if embedded[16:20] == b"RGB " and mode in {"RGB", "RGBA", "RGBX", "P", "PA"} else b""
        frames = int(getattr(picture, "n_frames", 1)) if kind in _ANIMATED else 1
        if kind in {"JPEG", "MPO"}:
            return Form("JPEG", _strength(picture), profile)
    if kind in _AS_JPEG:
        return Form("JPEG", {}, profile, frames)
    options: dict[str, Any] = {}
    if kind == "TIFF":
        options = {"compression": "tiff_lzw"}
    elif kind == "WEBP":
        options = {"lossless": b"VP8L" in data[:64]}
    return Form(kind if kind in _KEPT else "PNG", options, profile, frames)


def _strength(picture: PIL.Image.Image) -> dict[str, Any]:
    """Return what compresses a JPEG of three colours as strongly as this one."""
    tables = getattr(picture, "quantization", {})
    sampling = PIL.JpegImagePlugin.get_sampling(picture)
    coarse = any(max(table) > 255 for table in tables.values())  # of which libjpeg warns
    if picture.mode != "RGB" or not 1 <= len(tables) <= 3 or sampling < 0 or coarse:
        return {}
    return {"qtables": [list(table) for table in tables.values()], "subsampling": sampling}
