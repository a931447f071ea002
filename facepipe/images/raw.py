"""Raw photos of cameras, through rawpy (the extra `raw`).

Cameras embed a JPEG, the preview. It is taken when it shows the whole picture and is large enough, else the raw data are developed
at half size: four cells of a sensor make a pixel, so little is lost. Boxes are in pixels of the full picture either way.

Developed pictures are upright. A preview is turned by what its own EXIF says, where its sides then fit those of the picture; LibRaw
gives one without EXIF the turn of the raw data. One that stands already is left.

LibRaw works in a process of its own (`raw_worker`): it cannot be interrupted, prints to stderr, says of damaged data nothing but
that, and a file that crashes it ends no batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from facepipe.errors import ImageError
from facepipe.images.colours import turned
from facepipe.images.containers import tiff_numbers
from facepipe.images.formats import MAX_SECONDS, RAW_SUFFIXES, is_installed
from facepipe.text import printable
from facepipe.types import UInt8

#: Stored size, EXIF turn, and pixels.
Decoded = tuple[tuple[int, int], int, UInt8]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: How raw photos begin that are no TIFFs to Pillow: ORF, RW2, RAF, CRW, MRW, X3F.
_BEGINNINGS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAPCCDR", b"\0MRM", b"FOVb")
_PHOTOMETRIC, _DNG_VERSION = 262, 50706
_CELLS, _LINEAR = 32803, 34892
_EXIF = 0x8769
#: A preview shows the whole picture when its sides differ from its by no more than this share.
_SAME = 0.02
#: Bytes that developing takes for each cell, as measured, and those of the process.
_BYTES_PER_CELL, _BYTES_OF_WORKER = 12, 1 << 30
#: What LibRaw prints of damage; it develops what there is all the same.
_DAMAGE = re.compile(rb"[Uu]nexpected end of file|data corrupted at -?\d+|Premature end of JPEG")
_ONE_AT_A_TIME = threading.Lock()


def is_raw(data: bytes, name: str) -> bool:
    """Say whether a file is a raw photo, by its content; where that says nothing, by its name."""
    if data.startswith(_BEGINNINGS) or data[4:12] == b"ftypcrx ":
        return True
    if not data.startswith(_TIFF):
        return os.path.splitext(name)[1].lower() in RAW_SUFFIXES and data[:2] not in {b"\xff\xd8", b"\x89P"}  # noqa: PTH122
    if data[8:10] == b"CR" or os.path.splitext(name)[1].lower() in RAW_SUFFIXES:  # noqa: PTH122
        return True
    found = tiff_numbers(data, frozenset({_PHOTOMETRIC, _DNG_VERSION}))
    return any(tag == _DNG_VERSION or number in (_CELLS, _LINEAR) for tag, number in found)


def decode_raw(
    data: bytes, name: str, max_side: int | None, max_pixels: int, decode: Callable[[bytes, int | None], Decoded]
) -> Decoded:
    """Return the size of a raw photo as displayed, the turn 1, and its pixels, at least max_side of them or all that there are.

    decode: decodes a JPEG. Errors: ImageError; whatever `decode` raises is the preview's, and then the raw data are developed.
    """
    if not is_installed("rawpy"):
        raise ImageError(f"{printable(name)}: is a raw photo, which rawpy reads; pip install 'facepipe[raw]'")
    facts, preview = _ask("preview", data, name, max_pixels)
    width, height = facts["size"]
    if not 0 < width * height <= max_pixels:
        raise ImageError(
            f"{printable(name)}: {width}x{height} is larger than {max_pixels:,} pixels; raise FACEPIPE_MAX_PIXELS if you trust it"
        )
    wanted = max(width, height) // 2 if max_side is None else min(max_side, max(width, height) // 2)
    if preview and facts["whole"]:
        with contextlib.suppress(
            OSError, SyntaxError, ValueError, ImageError
        ):  # a damaged one: the raw data may be sound
            stored, turn, rgb = decode(preview, max_side)
            fitting = _turn_of(stored, (turn, facts["turn"], 1), (width, height))
            if fitting is not None and max(stored) >= wanted:
                return (width, height), 1, turned(rgb, fitting)
    with _ONE_AT_A_TIME:
        facts, pixels = _ask("develop", data, name, max_pixels)
    rgb = np.frombuffer(pixels, np.uint8).reshape((*facts["shape"], 1)[:3])
    if rgb.shape[2] != 3:  # sensors without colours
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    if not _alike(rgb.shape[1::-1], (width, height)):  # sensors whose rows lie across are turned when developed
        width, height = rgb.shape[1] * 2, rgb.shape[0] * 2
    return (max(width, rgb.shape[1]), max(height, rgb.shape[0])), 1, rgb


def _turn_of(stored: tuple[int, int], turns: tuple[int, ...], displayed: tuple[int, int]) -> int | None:
    """Return the first turn with which a stored picture has the sides of the displayed one."""
    return next((turn for turn in turns if _alike(stored[::-1] if turn >= 5 else stored, displayed)), None)


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Say whether two pictures have the same ratio of sides."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= _SAME


def _ask(what: str, data: bytes, name: str, max_pixels: int) -> tuple[dict[str, Any], bytes]:
    """Return what the worker says of a raw photo, and bytes of it. Errors: ImageError."""
    memory = _BYTES_OF_WORKER + max_pixels * _BYTES_PER_CELL + 4 * len(data)
    command = [sys.executable, "-P", str(Path(__file__).with_name("raw_worker.py"))]
    command += [what, str(int(MAX_SECONDS)), str(memory)]
    # One thread: photos are scanned in parallel already.
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, env=alone, timeout=10 * MAX_SECONDS, check=False
        )
        head, _, body = done.stdout.partition(b"\n")
        facts = json.loads(head) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ImageError(f"{printable(name)}: the raw photo cannot be read ({printable(str(error))})") from error
    if "error" in facts or not facts:
        reason = facts.get("error") or ("takes too long" if done.returncode == -24 else "its data cannot be decoded")
        raise ImageError(
            f"{printable(name)}: the raw photo cannot be read ({printable(reason)}); copy it again, or convert it to JPEG"
        )
    if what == "develop" and (damage := _DAMAGE.search(done.stderr)):
        raise ImageError(f"{printable(name)}: the raw photo is damaged ({damage[0].decode()}); copy it again")
    return facts, body


def exif_of_raw(data: bytes) -> Mapping[int, Any]:
    """Return the EXIF tags about the shot, where the file has them as a TIFF or a JPEG has. Errors: whatever Pillow raises."""
    exif = PIL.Image.Exif()
    if data[4:12] == b"ftypcrx ":  # CR3: a box has them as a TIFF of their own
        place = data.find(b"CMT2", 0, 1 << 20) + 4
        exif.load(data[place : place + (1 << 16)])
        return dict(exif)
    if data.startswith(b"FUJIFILMCCD-RAW"):
        start = int.from_bytes(data[84:88])
        exif.load(data[start + 6 : start + (1 << 16)])
    else:  # ORF and RW2 begin with other words
        exif.load((b"MM\0*" if data.startswith(b"MM") else b"II*\0") + data[4:])
    return exif.get_ifd(_EXIF)
