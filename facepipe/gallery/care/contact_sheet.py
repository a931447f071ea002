"""Faces as pictures: chips from the gallery, or cut from the photos again; contact sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import PIL.Image

from facepipe.detect.quality import upright_turn
from facepipe.errors import InputError
from facepipe.gallery.chips import enrolled_photo, open_chip, read_chip
from facepipe.gallery.people import FaceRecord
from facepipe.gallery.storage.database import Database
from facepipe.images import read_image_bytes, write_image
from facepipe.types import UInt8

TILE = 160
_COLUMNS = 6
_GAP = 6
_MARGIN = 0.25


def face_picture(database: Database, face: FaceRecord) -> UInt8 | None:
    """Return the face as a square picture that stands, uint8 (TILE, TILE, 3); None without chip and photo."""
    if face.box is None:
        return None
    chip = read_chip(database, face.id)
    if chip is not None:
        rgb, left, top, scale = open_chip(chip).rgb, chip.x, chip.y, chip.scale
    elif face.source is not None:
        try:
            found = enrolled_photo(database, face.id)
            image = None if found is None else read_image_bytes(found[1], found[0], max_side=2048)
        except InputError:  # moved, deleted or damaged since
            return None
        if image is None:
            return None
        rgb, left, top, scale = image.rgb, 0.0, 0.0, image.scale
    else:
        return None
    x1, y1, x2, y2 = face.box
    half = max(x2 - x1, y2 - y1) * (0.5 + _MARGIN)
    middle = ((x1 + x2) / 2 - left, (y1 + y2) / 2 - top)
    corners = [round(v * scale) for v in (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)]
    square = PIL.Image.fromarray(np.ascontiguousarray(rgb)).crop((corners[0], corners[1], corners[2], corners[3]))
    tile = np.asarray(square.resize((TILE, TILE), PIL.Image.Resampling.LANCZOS))
    return np.ascontiguousarray(np.rot90(tile, -upright_turn(face.roll or 0.0) // 90))


def write_sheet(database: Database, faces: Sequence[FaceRecord], path: Path) -> int:
    """Write a picture with all faces side by side, in the given order; return how many had neither chip nor photo.

    Only its owner may read it, like the gallery.
    """
    tiles = [face_picture(database, face) for face in faces]
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = max(1, ceil(len(tiles) / columns))
    step = TILE + _GAP
    sheet = np.full((rows * step + _GAP, columns * step + _GAP, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = _GAP + number // columns * step, _GAP + number % columns * step
        sheet[y : y + TILE, x : x + TILE] = 224 if tile is None else tile
    write_image(path, sheet)
    return sum(tile is None for tile in tiles)
