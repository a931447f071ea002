"""Photos for the page: read by their content, decoded as hostile input, and written anew; no byte of a file is passed on."""

from __future__ import annotations

from collections.abc import Sequence

from facepipe.catalog.sources import file_of, find_sources
from facepipe.embed.clips import frame_of
from facepipe.errors import InputError
from facepipe.groups.shown import CatalogPhoto
from facepipe.images import content_hash, encode_image, is_video, read_bytes, read_image_bytes
from facepipe.outputs.draw import crop_face
from facepipe.outputs.html import THUMBNAIL_SIDE, thumbnail
from facepipe.text import printable

#: A face is shown with so much on each side of its box, as a share of the box's longer side.
_AROUND = 0.45
#: Small pictures are cut out of a photo of this size, in which most faces were found.
_SEARCHED = 1280
#: The longest side that is made.
_LARGEST = 2400


def picture(photo: CatalogPhoto, side: int, number: int | None = None, *, whole: bool = False) -> bytes:
    """Return a photo of the catalog as a JPEG of at most `side` pixels, or the part around one of its faces.

    Of a video it is the best frame of a face, `whole` or the part around it; without a face, that of the first one.
    Errors: InputError when its file is gone, cannot be read any more, or is another photo than the one that was scanned.
    """
    side = max(1, min(side, _LARGEST))
    if is_video(photo.path):
        return _frame(photo, side, number or 0, whole=whole or number is None)
    data = _bytes_of(photo.path)
    if content_hash(data) != photo.content:
        raise InputError(f"{printable(photo.path)}: is another photo now than the one that was scanned; scan it again")
    if number is None or whole:
        return encode_image(read_image_bytes(data, photo.path, max_side=side).rgb, "JPEG", 85)
    if number >= len(photo.faces):
        raise InputError(f"{printable(photo.path)}: has {len(photo.faces)} faces")
    box = photo.faces[number].box
    shown = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * _AROUND)
    # No more is decoded than the face needs: its part of the photo has `side` pixels then.
    longest = int(max(photo.width, photo.height) * min(1.0, side / max(shown, 1.0)))
    image = read_image_bytes(data, photo.path, max_side=max(side, longest))
    return encode_image(crop_face(image, {"box": box}, margin=_AROUND, max_side=side), "JPEG", 85)


def _frame(photo: CatalogPhoto, side: int, number: int, *, whole: bool) -> bytes:
    face = photo.faces[number] if number < len(photo.faces) else None
    if face is None or face.span is None:
        raise InputError(f"{printable(photo.path)}: no such face is seen in it")
    if whole:
        return encode_image(frame_of(photo.path, photo.content, face.span.best, max_side=side).rgb, "JPEG", 85)
    image = frame_of(photo.path, photo.content, face.span.best)
    return encode_image(crop_face(image, {"box": face.box}, margin=_AROUND, max_side=side), "JPEG", 85)


def thumbnails(photo: CatalogPhoto, numbers: Sequence[int]) -> list[bytes]:
    """Return small pictures of some faces of a photo, as a scan keeps them; empty ones where they cannot be made."""
    try:
        if is_video(photo.path):
            return [_frame(photo, THUMBNAIL_SIDE, number, whole=False) for number in numbers]
        data = _bytes_of(photo.path)
        if content_hash(data) != photo.content:
            return [b""] * len(numbers)
        image = read_image_bytes(data, photo.path, max_side=_SEARCHED)
        boxes = [photo.faces[number].box for number in numbers]
    except (InputError, IndexError):
        return [b""] * len(numbers)
    return [thumbnail(image, {"box": box}) for box in boxes]


def _bytes_of(name: str) -> bytes:
    """Return the bytes of a photo, in an archive too."""
    if (archive := file_of(name)) == name:
        return read_bytes(name)[1]
    for source in find_sources([archive]):
        if source.name == name:
            return source.load()
    raise InputError(f"{printable(name)}: is not in its archive any more; scan it again")
