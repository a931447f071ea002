"""Reads a raw photo from stdin, in a process that `raw` starts: a line of JSON on stdout, then bytes. Imports rawpy alone."""

from __future__ import annotations

import io
import json
import resource
import sys
from typing import Any

#: LibRaw's numbers for turned pictures as EXIF's.
_TURNS = {0: 1, 3: 3, 5: 8, 6: 6}
_SAME = 0.02


def main(what: str, seconds: int, memory: int) -> tuple[dict[str, Any], bytes]:
    """Return facts of the raw photo, and its preview's JPEG or its pixels, uint8 (H, W, 3), at half size."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    import rawpy

    with rawpy.RawPy() as raw:
        try:
            raw.open_buffer(io.BytesIO(sys.stdin.buffer.read()))
            if what == "develop":
                rgb = raw.postprocess(half_size=True, use_camera_wb=True)
                return {"shape": rgb.shape}, rgb.tobytes()
            return _facts(raw.sizes), _preview(rawpy, raw)
        except rawpy.LibRawError as error:
            reason = error.args[0].decode("utf-8", "replace") if error.args else type(error).__name__
            return {"error": reason}, b""
        except MemoryError:
            return {"error": "it takes too much memory"}, b""


def _facts(sizes: Any) -> dict[str, Any]:
    """Return the size as displayed, the turn to it, and whether the camera shows all of it and not a part."""
    width, height, stretch = sizes.width, sizes.height, sizes.pixel_aspect or 1.0
    cropped = any(
        0 < part < whole * (1 - _SAME) for part, whole in ((sizes.crop_width, width), (sizes.crop_height, height))
    )
    width, height = (round(width * stretch), height) if stretch > 1 else (width, round(height / stretch))
    size = (height, width) if sizes.flip & 4 else (width, height)
    return {"size": size, "turn": _TURNS.get(sizes.flip, 1), "whole": not cropped}


def _preview(rawpy: Any, raw: Any) -> bytes:
    """Return the largest embedded JPEG; nothing where there is none. Bitmaps are too small to be of use."""
    try:
        preview = raw.extract_thumb()
    except rawpy.LibRawError:  # none, one of an unknown kind, or a damaged one
        return b""
    return bytes(preview.data) if preview.format == rawpy.ThumbFormat.JPEG else b""


if __name__ == "__main__":
    said, content = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + content)
