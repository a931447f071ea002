"""The piece of a photo around a face, stored on request: what another network is fed with, what audit pages show.

A chip is a plain cut, not aligned: any network's template can be cut from it, by landmarks or by box.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image

from facepipe.errors import GalleryDamagedError, ImageError
from facepipe.gallery.people import open_source
from facepipe.gallery.storage.database import Database
from facepipe.images import content_hash, read_bytes, read_image_bytes
from facepipe.types import Face, Image, UInt8

#: Room on each side of the box, as a share of its longer side: what the widest alignment template sees of a turned face.
MARGIN = 0.6
#: Longer side of the face's box in a chip, in pixels at most: what the largest network's input can use.
FACE_SIDE = 224
_QUALITY = 95


@dataclass(frozen=True, slots=True, eq=False)
class StoredChip:
    """A piece of the photo around a face, as an encoded picture, for reembed and audit pages.

    x, y: displayed pixel of the photo at the chip's upper left corner. scale: chip pixels per displayed pixel.
    """

    data: bytes
    x: float
    y: float
    scale: float


def cut_out(image: Image, face: Face) -> tuple[UInt8, int, int]:
    """Cut a face with room around it, uint8 (h, w, 3), and return the left and top pixel of `image.rgb` where it begins."""
    x1, y1, x2, y2 = (float(v) * image.scale for v in face.box)
    room = max(x2 - x1, y2 - y1) * MARGIN
    height, width = image.rgb.shape[:2]
    left, top = max(0, int(x1 - room)), max(0, int(y1 - room))
    right, bottom = min(width, int(np.ceil(x2 + room))), min(height, int(np.ceil(y2 + room)))
    return np.ascontiguousarray(image.rgb[top:bottom, left:right]), left, top


def cut_chip(image: Image, face: Face) -> StoredChip:
    """Cut a face with room around it, reduced when it is large; JPEG with full colour."""
    pixels, left, top = cut_out(image, face)
    picture = PIL.Image.fromarray(pixels)
    side = float(max(face.box[2] - face.box[0], face.box[3] - face.box[1])) * image.scale
    reduction = min(1.0, FACE_SIDE / side)
    if reduction < 1.0:
        size = (max(1, round(picture.width * reduction)), max(1, round(picture.height * reduction)))
        reduction = size[0] / picture.width
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return StoredChip(buffer.getvalue(), left / image.scale, top / image.scale, reduction * image.scale)


def open_chip(chip: StoredChip) -> Image:
    """Return the chip's picture. GalleryDamagedError when it cannot be read."""
    try:
        return read_image_bytes(chip.data, "<chip>")
    except ImageError as error:
        raise GalleryDamagedError(f"a stored chip is no picture that can be read ({error})") from error


def face_in_chip(face: Face, chip: StoredChip) -> Face:
    """Return the face as it lies in its chip."""
    origin = np.array([chip.x, chip.y], np.float32)
    box = ((face.box.reshape(2, 2) - origin) * np.float32(chip.scale)).reshape(4).astype(np.float32)
    return replace(face, box=box, landmarks=((face.landmarks - origin) * np.float32(chip.scale)).astype(np.float32))


def read_chip(database: Database, face_id: int) -> StoredChip | None:
    """Return a face's stored chip, None when it has none."""
    row = database.connection.execute(
        "SELECT c.data, f.person_id, c.x, c.y, c.scale FROM chip c JOIN face f ON f.id = c.face_id WHERE f.id = ?",
        (face_id,),
    ).fetchone()
    return None if row is None else StoredChip(database.codec.open(row[0], "chip.data", face_id, row[1]), *row[2:])


def enrolled_photo(database: Database, row_id: int, table: str = "face") -> tuple[str, bytes] | None:
    """Return path and bytes of the photo that a row of `face` or `anchor` came from; None when it is not there, or another one is.

    Errors: InputError when the photo cannot be read.
    """
    query = f"SELECT person_id, source, content FROM {table} WHERE id = ?"
    row = database.connection.execute(query, (row_id,)).fetchone()
    path = None if row is None else open_source(database, row[1], row_id, row[0], table)
    if path is None:
        return None
    _, data = read_bytes(path)
    known = None if row[2] is None else database.codec.unlookup(row[2], "content")
    return None if known is not None and bytes.fromhex(content_hash(data))[:16] != known else (path, data)
