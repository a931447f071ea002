"""Annotated pictures: boxes, names and landmarks drawn into the photo, crops of the faces, and the edge map to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from facepipe.images import write_image
from facepipe.outputs.names import output_stem, safe_name
from facepipe.outputs.paint import (
    MAYBE,
    NEUTRAL,
    STATUS_COLOURS,
    WHITE,
    Colour,
    Rectangle,
    draw_box,
    draw_label,
    fitted,
    font,
    measured,
    place_label,
)
from facepipe.outputs.table import either, maybe, percent
from facepipe.records import Record
from facepipe.text import printable
from facepipe.types import Image, UInt8

#: A crop shows this much around the box, as a share of its longer side: hair and chin belong to a face.
CROP_MARGIN = 0.25

_SMALLEST_FONT = 9


@dataclass(frozen=True, slots=True)
class Mark:
    """What is drawn of one face. box, landmarks: displayed pixels. label: pieces of text from left to right. dashed: the frame."""

    box: list[float]
    landmarks: list[list[float]]
    label: list[str]
    colour: Colour
    dashed: bool = False


def drawing(record: Record) -> list[Mark]:
    """Return what `draw_predictions` draws of a record, in that order; records that have this alike are drawn alike."""
    faces = sorted(
        record["faces"],
        key=lambda f: (f["status"] != "known", f["status"] == "unknown", maybe(f) is None, -(f["similarity"] or -1.0)),
    )
    return [
        Mark(face["box"], face["landmarks"], _answer(face), STATUS_COLOURS[face["status"]])
        if maybe(face) is None
        else Mark(face["box"], face["landmarks"], _answer(face), MAYBE, dashed=True)
        for face in faces
    ]


def draw_predictions(image: Image, record: Record) -> UInt8:
    """Return the photo with each face framed in the colour of its answer and labelled with name and probability.

    The frame of an unknown face that is probably somebody is dashed, and its label "maybe NAME, 71 %".
    uint8 (H, W, 3), the size of `image.rgb`, which is not changed. Nothing is drawn outside; where labels would cover each
    other, the less sure one moves, and "unknown" is left out: the frame's colour says it.
    """
    return _drawn(image, drawing(record))


def draw_faces(image: Image, faces: Sequence[Record]) -> UInt8:
    """Return the photo with each face framed and labelled with its score; uint8 (H, W, 3), the size of `image.rgb`.

    faces: as `records.face_record` returns them. Where there are several, each has its number before the score.
    """
    numbers = [f"{number}: " if len(faces) > 1 else "" for number in range(1, len(faces) + 1)]
    labels = [f"{number}{face['score']:.2f}" for number, face in zip(numbers, faces, strict=True)]
    return _drawn(
        image,
        [Mark(face["box"], face["landmarks"], [label], NEUTRAL) for face, label in zip(faces, labels, strict=True)],
    )


def _answer(face: Record) -> list[str]:
    """Return a label in pieces that are drawn from left to right, so that an Arabic name does not reorder a number."""
    if (person := maybe(face)) is not None:
        return ["maybe ", person, f", {percent(face['probability'])}"]
    if face["status"] == "unknown":
        return ["unknown"]
    sure = [] if face["probability"] is None else [f"  {percent(face['probability'])}"]
    if face["status"] == "known":
        return [face["person"], *sure]
    return [*" \0or\0 ".join(either(face)).split("\0"), "?", *sure]


def _drawn(image: Image, marks: Sequence[Mark]) -> UInt8:
    canvas = PIL.Image.fromarray(image.rgb)
    draw = PIL.ImageDraw.Draw(canvas)
    unit = (canvas.width * canvas.height) ** 0.5
    line = max(1, round(unit / 350))
    boxes = [_pixels(mark.box, image) for mark in marks]
    for mark, box in zip(marks, boxes, strict=True):
        draw_box(draw, box, mark.colour, line, dashed=mark.dashed)
        _draw_landmarks(draw, np.array(mark.landmarks) * image.scale, box, mark.colour)
    labels: list[Rectangle] = []
    for number, (mark, box) in enumerate(zip(marks, boxes, strict=True)):
        # As large as suits the photo, but not out of proportion to a small face in it.
        size = round(min(max(unit / 45, _SMALLEST_FONT + 2), max((box.right - box.left) / 4, unit / 75)))
        size = max(_SMALLEST_FONT, size)
        padding = max(2, size // 3)
        pieces = [(text, font(text, size, bold=True)) for text in map(printable, mark.label)]
        if measured(pieces) > canvas.width - 2 * padding:
            whole = "".join(text for text, _ in pieces)
            letters = font(whole, size, bold=True)
            pieces = [(fitted(whole, letters, canvas.width - 2 * padding), letters)]
        ascent, descent = map(max, zip(*(letters.getmetrics() for _, letters in pieces), strict=True))
        label = (round(measured(pieces)) + 2 * padding, ascent + descent + padding // 2)
        others = [other for place, other in enumerate(boxes) if place != number]
        place = place_label(canvas.size, box, label, labels + others)
        if place is None or (mark.label == ["unknown"] and any(place.overlaps(other) for other in labels + others)):
            continue
        draw_label(draw, place, pieces, mark.colour)
        labels.append(place)
    return np.asarray(canvas)


def _pixels(box: Sequence[float], image: Image) -> Rectangle:
    """Return a box in pixels of `image.rgb`, cut to the picture, at least one pixel large."""
    height, width = image.rgb.shape[:2]
    x1, y1, x2, y2 = (round(value * image.scale) for value in box)
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return Rectangle(left, top, max(left + 1, min(x2, width)), max(top + 1, min(y2, height)))


def _draw_landmarks(
    draw: PIL.ImageDraw.ImageDraw, points: NDArray[np.floating], box: Rectangle, colour: Colour
) -> None:
    radius = (box.right - box.left) / 45
    if radius < 0.6:  # five dots on a face of some 25 pixels would cover it
        return
    for x, y in points.tolist():
        draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=colour)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=WHITE)


# ---- crops ----


def crop_face(image: Image, face: Record, *, margin: float = CROP_MARGIN, max_side: int | None = None) -> UInt8:
    """Cut a face out of its photo, square where the photo allows, and turn it as it was found, uint8 (h, w, 3).

    margin: added on each side, as a share of the box's longer side. max_side: the crop is reduced to this many pixels at
    most, never enlarged.
    """
    height, width = image.rgb.shape[:2]
    x1, y1, x2, y2 = (value * image.scale for value in face["box"])
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    left, top = min(max(round(x - half), 0), width - 1), min(max(round(y - half), 0), height - 1)
    right, bottom = max(left + 1, min(round(x + half), width)), max(top + 1, min(round(y + half), height))
    crop = np.rot90(image.rgb[top:bottom, left:right], -face.get("turn", 0) // 90)
    if max_side is None or max(crop.shape[:2]) <= max_side:
        return crop.copy()
    picture = PIL.Image.fromarray(np.ascontiguousarray(crop))
    picture.thumbnail((max_side, max_side), PIL.Image.Resampling.BOX)
    return np.asarray(picture)


def save_crops(folder: str | os.PathLike[str], image: Image, record: Record) -> list[Path]:
    """Write each face of a photo as a JPEG into a folder and return the files, in the order of the faces.

    They are called `PHOTO-HASH-NUMBER-ANSWER.jpg`, the same in every run and never the same for two photos. Raises
    OutputError when the system refuses.
    """
    files = [Path(folder) / name for name in crop_names(image.path, record)]
    for path, face in zip(files, record["faces"], strict=True):
        write_image(path, crop_face(image, face))
    return files


def crop_names(path: str, record: Record) -> list[str]:
    """Return what the faces of a photo are called as files. path: what the photo is called, as its bytes may have it."""
    stem = output_stem(path)
    return [f"{stem}-{number:02d}-{_answer_as_name(face)}.jpg" for number, face in enumerate(record["faces"], 1)]


def _answer_as_name(face: Record) -> str:
    if face["person"] is not None:
        return safe_name(face["person"])
    person = maybe(face)
    return str(face["status"]) if person is None else safe_name(f"maybe {person}")


# ---- edges ----


def draw_edges(magnitude: NDArray[np.floating]) -> UInt8:
    """Return an edge map as a picture, uint8 (H, W, 3): edges light on dark, as strong as their gradient.

    magnitude: gradient (H, W), 0 or more.
    """
    if magnitude.ndim != 2:
        raise ValueError(f"edges: expected (H, W), got {magnitude.shape}")
    finite = np.nan_to_num(np.asarray(magnitude, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    strong = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    # A power below 1 shows weak contours beside strong ones, as an eye sees them.
    light = np.clip(finite / strong, 0.0, 1.0) ** 0.7 if strong > 0.0 else np.zeros_like(finite)
    dark, bright = (np.array(colour, np.float32) for colour in ((13, 17, 28), (255, 236, 200)))
    picture = dark + light[..., None] * (bright - dark)
    return np.rint(picture).astype(np.uint8)
