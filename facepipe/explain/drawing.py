"""The pictures of an explanation: heat over faces and photos, boxes that were kept, what a layer sees."""

from __future__ import annotations

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw

from facepipe.detect.trace import Trace
from facepipe.types import Face, Float32, Image, UInt8

#: Speaks for, and against: red and blue are told apart by colour-blind eyes too.
_FOR, _AGAINST = (230, 60, 20), (20, 90, 235)
#: Of the boxes after the first, second and third network.
STAGES = ((255, 190, 60), (90, 190, 255), (60, 230, 120))
_SIDE = 560
#: A box of the first network is drawn for so many windows at most.
_BOXES = 200


def heat(rgb: UInt8, found: Float32, full: float) -> UInt8:
    """Return a picture, made grey and lighter, under a map of its size: red where positive, blue where negative.

    full: value at which a colour covers most.
    """
    grey = 0.8 * (rgb @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] + 30.0
    share = np.clip(np.abs(found) / full, 0.0, 1.0)[..., None] * 0.75
    colour = np.where(found[..., None] > 0.0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    return np.rint(grey * (1.0 - share) + colour * share).astype(np.uint8)


def enlarged(rgb: UInt8, side: int, *, cells: bool = False) -> UInt8:
    """Return a picture with this many pixels on its longer side. cells: keep its pixels apart."""
    scale = side / max(rgb.shape[:2])
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    how = cv2.INTER_NEAREST if cells else cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)


def reduced(image: Image) -> Image:
    """Return the photo as it is shown, with `_SIDE` pixels on its longer side at most."""
    if max(image.rgb.shape[:2]) <= _SIDE:
        return image
    return Image(enlarged(image.rgb, _SIDE), image.path, (image.width, image.height))


def kept_boxes(image: Image, trace: Trace) -> UInt8:
    """Return the photo with the boxes that each network kept."""
    canvas = PIL.Image.fromarray((image.rgb * 0.55).astype(np.uint8))
    draw = PIL.ImageDraw.Draw(canvas)
    for number, (boxes, colour) in enumerate(zip(trace.passed, STAGES, strict=True), 1):
        for box in (boxes[:_BOXES] * image.scale).tolist():
            draw.rectangle(box, outline=colour, width=number)
    return np.asarray(canvas)


def framed(rgb: UInt8, face: Face, scale: float) -> UInt8:
    """Return a picture with a white frame around a face, outside of what is drawn at its box."""
    canvas = PIL.Image.fromarray(rgb)
    draw = PIL.ImageDraw.Draw(canvas)
    x1, y1, x2, y2 = (face.box * scale).tolist()
    for room, colour, width in ((11, (0, 0, 0), 7), (9, (255, 255, 255), 3)):
        draw.rectangle((x1 - room, y1 - room, x2 + room, y2 + room), outline=colour, width=width)
    return np.asarray(canvas)


def level_picture(trace: Trace) -> UInt8 | None:
    """Return the part of the pyramid level around the first network's window, its pixels as squares; None without one."""
    if trace.level is None or trace.window is None:
        return None
    x1, y1, x2, y2 = trace.window
    height, width = trace.level.shape[:2]
    left, top = max(0, x1 - 12), max(0, y1 - 12)
    part = trace.level[top : min(height, y2 + 12), left : min(width, x2 + 12)]
    if not part.size:
        return None
    zoom = max(1, 320 // max(part.shape[:2]))
    canvas = PIL.Image.fromarray(enlarged(part, zoom * max(part.shape[:2]), cells=True))
    corners = [(x1 - left) * zoom, (y1 - top) * zoom, (x2 - left) * zoom, (y2 - top) * zoom]
    PIL.ImageDraw.Draw(canvas).rectangle(corners, outline=STAGES[0], width=3)
    return np.asarray(canvas)


def around(rgb: UInt8, face: Face, scale: float) -> tuple[slice, slice]:
    """Return rows and columns of a picture that show a face with some room."""
    x1, y1, x2, y2 = (face.box * scale).tolist()
    room = 0.6 * max(x2 - x1, y2 - y1)
    top, left = max(0, int(y1 - room)), max(0, int(x1 - room))
    return slice(top, max(top + 1, int(y2 + room))), slice(left, max(left + 1, int(x2 + room)))


def channel_strip(chip: UInt8, activation: Float32, patches: list[UInt8], side: int = 96) -> UInt8:
    """Return a chip with a channel's map over it, and beside it the enrolled patches that excite the channel most."""
    peak = float(activation.max()) or 1.0
    found = cv2.resize(activation, chip.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    shown = [heat(chip, np.maximum(np.asarray(found, np.float32), 0.0), peak), *patches]
    gap = np.full((side, 4, 3), 128, np.uint8)
    tiles = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in shown]
    return np.hstack([part for tile in tiles for part in (np.asarray(tile, np.uint8), gap)][:-1])
