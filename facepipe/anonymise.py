"""Copies of photos in which faces are covered, for people who are not to be recognised. `facepipe blur` prints what it does.

Every photo is searched twice: as it is searched everywhere, and for smaller and doubtful faces; what either finds is covered. A copy
holds the pixels as displayed, the colour profile, its date, and nothing else of its original (`images.recoding`). What cannot be
read is not copied, and of an earlier copy of it nothing stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from facepipe.detect import BEHAVIOUR as DETECT_BEHAVIOUR
from facepipe.embed.describer import PHOTO_ERRORS, spoiled
from facepipe.embed.tracks import Tracker, look_of, overlap_of
from facepipe.errors import InputError, UsageError
from facepipe.files.atomic import is_folder, remove_file
from facepipe.files.guard import MARK, check_outputs, own_file
from facepipe.gallery.people import require_person
from facepipe.gallery.store import GalleryStore
from facepipe.images import (
    Passing,
    content_hash,
    file_hash,
    find_images,
    is_output,
    is_video,
    read_bytes,
    read_image_bytes,
)
from facepipe.images.recoding import form_of
from facepipe.images.video import Frame, Video, open_video
from facepipe.images.video_writer import VIDEO_OUTPUTS, redraw_video
from facepipe.loading import detect_options, load_detector
from facepipe.outputs.covers import CELLS, MARGIN, STYLES, Style, covered
from facepipe.outputs.names import short_hash
from facepipe.outputs.owned import check_folders, mark_folders
from facepipe.pipeline import Recognizer
from facepipe.text import printable
from facepipe.types import Face, Float32, Image, Prediction, Status, UInt8

#: Smallest face, least score and longer side of the second search.
SEARCH = (20.0, 0.2, 1920)
#: In a video faces are looked for at times so many seconds apart, and covered for so many seconds before and after.
EVERY_SECONDS, AROUND = 0.1, 0.5
#: From so likely on somebody who may stay uncovered is taken for who it seems to be.
SURE = 0.95
#: Two searches have found the same face where its boxes share so much of both.
_SAME = 0.4
_EDGE = 1 << 16


@dataclass(frozen=True, slots=True)
class Blurred:
    """What became of a photo.

    path: its own. out: the copy, None where there is none. covered: faces that are covered, in a video the most at once. kept: those
    of people who are not, in a video these people. unchanged: the copy was there already. frames: of an animation, or pages, of which
    the copy has the first; in a video those that were searched.
    error: why there is no copy, or which part of a video could not be read.
    """

    path: str
    out: Path | None
    covered: int = 0
    kept: int = 0
    unchanged: bool = False
    frames: int = 1
    error: str | None = None


def blur(
    photos: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    style: Style = "solid",
    keep: Sequence[str] = (),
    only_unknown: bool = False,
    gallery: GalleryStore | None = None,
    device: str = "auto",
    passing: Passing | None = None,
) -> Iterator[Blurred]:
    """Write copies of photos with faces covered into a folder; yield what became of each, when its copy is written.

    photos: files and folders, searched as everywhere; the copies of a folder's lie in `out` as the photos do in the folder.
    out: a new or empty folder, or one that this function wrote; copies that are there and would be the same are left.
    style: solid, mosaic or blur; see docs/blur.md for what the last two give away.
    keep: people of the gallery who stay uncovered where they are certain. only_unknown: all people of the gallery do.
    gallery: needed for these two. device: see `facepipe.Recognizer`. passing: counts what is passed over in folders.
    Errors: at the call for what cannot be done at all (UsageError, GalleryError, ModelError); a photo that cannot be used is an
    outcome whose `error` says why.
    """
    roots = [os.fspath(path) for path in ([photos] if isinstance(photos, (str, os.PathLike)) else photos)]
    folder = Path(out)
    if style not in STYLES:
        raise UsageError(f"--style {style}: expected one of {', '.join(STYLES)}")
    check_folders([folder], roots)
    check_outputs([folder], roots, None if gallery is None else gallery.folder)
    cover = _Cover(style, frozenset(keep), only_unknown, gallery, device)
    mark_folders([folder])
    return _copies(roots, folder, cover, passing or Passing())


def _copies(roots: Sequence[str], folder: Path, cover: _Cover, passing: Passing) -> Iterator[Blurred]:
    taken: set[str] = set()
    for root in roots:
        problems: list[InputError] = []
        for path in find_images(
            [root], on_error=problems.append, skip=is_output, rules=passing.rules(root), videos=True
        ):
            below = path.relative_to(root) if is_folder(root) else Path(path.name)
            yield _copy(path, folder / below, cover, taken)
        yield from (Blurred(root, None, error=str(problem)) for problem in problems)


def _copy(path: Path, target: Path, cover: _Cover, taken: set[str]) -> Blurred:
    """Write one copy. target: where it goes, before it is known in which format. taken: names of copies, and each new one."""
    try:
        return (_copy_video if is_video(path.name) else _copy_photo)(path, target, cover, taken)
    except (InputError, UsageError) as error:
        problem = str(error)
    except PHOTO_ERRORS as error:
        problem = spoiled(str(path), error).reason
    for stale in (target, *(target.with_name(target.name + suffix) for suffix in (".jpg", ".png", ".mp4"))):
        if _written(stale) is not None and str(stale).casefold() not in taken:
            remove_file(stale)
    return Blurred(str(path), None, error=problem)


def _copy_photo(path: Path, target: Path, cover: _Cover, taken: set[str]) -> Blurred:
    name, data = read_bytes(path)
    image = read_image_bytes(data, name, max_side=SEARCH[2])
    form = form_of(data, name)
    place = _free(target.with_name(form.name(target.name)), name, taken)
    key = cover.key(content_hash(data))
    if (before := _written(place)) is not None and before[0] == key:
        return Blurred(name, place, *before[1:3], unchanged=True, frames=before[3])
    boxes, kept = cover.boxes(image)
    whole = image if image.enlarge is None else image.enlarge(max(image.width, image.height))
    pixels = covered(whole.rgb, [box * whole.scale for box in boxes], cover.style)
    with own_file(place) as file:
        file.write(form.encode(pixels, f"blur {key} {len(boxes)} {kept} {form.frames}"))
    _date(place, path)
    return Blurred(name, place, len(boxes), kept, frames=form.frames)


def _copy_video(path: Path, target: Path, cover: _Cover, taken: set[str]) -> Blurred:
    """Cover in each frame what was found in the frames around it: where a face is lost for a moment, or moves, it stays covered."""
    place = target if target.suffix.lower() in VIDEO_OUTPUTS else target.with_name(f"{target.name}.mp4")
    place = _free(place, str(path), taken)
    key = cover.key(file_hash(path))
    if (before := _written(place)) is not None and before[0] == key:
        return Blurred(str(path), place, *before[1:3], unchanged=True, frames=before[3])
    with open_video(path, str(path), max_side=SEARCH[2], every_seconds=EVERY_SECONDS) as video:
        times, boxes, kept = cover.boxes_of_frames(video)
        if video.damage is not None:
            key = "0" * 32  # the next run says it again, and tries again

    def draw(frame: Frame) -> UInt8:
        near = slice(bisect_left(times, frame.time - AROUND), bisect_right(times, frame.time + AROUND))
        return covered(frame.image.rgb, chain.from_iterable(boxes[near]), cover.style)

    most = max(map(len, boxes), default=0)
    written = redraw_video(path, place, draw, remark=f"blur {key} {most} {kept} {len(times)}")
    _date(place, path)
    damage = None if written.damage is None else f"{printable(path)}: {written.damage}; the rest of it is covered"
    return Blurred(str(path), place, most, kept, frames=len(times), error=damage)


def _free(place: Path, name: str, taken: set[str]) -> Path:
    """Return where a copy goes that no other copy of this run has, in a file system that knows no capitals either."""
    if str(place).casefold() in taken:
        place = place.with_name(f"{place.stem}-{short_hash(name)}{place.suffix}")
    taken.add(str(place).casefold())
    return place


def _date(copy: Path, path: Path) -> None:
    """Let a copy be as old as its original."""
    with suppress(OSError):
        os.utime(copy, ns=(copy.stat().st_atime_ns, path.stat().st_mtime_ns))


def _written(path: Path) -> tuple[str, int, int, int] | None:
    """Return key, covered and kept faces, and frames of a copy that is there; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(_EDGE)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _EDGE))
        found = _REMARK.search(head) or _REMARK.search(file.read())
    return None if found is None else (found[1].decode(), int(found[2]), int(found[3]), int(found[4]))


_REMARK = re.compile(re.escape(MARK.encode()) + rb" blur ([0-9a-f]{32}) (\d+) (\d+) (\d+)")


class _Cover:
    """Which faces of a photo are to be covered, and how."""

    def __init__(
        self, style: Style, keep: frozenset[str], only_unknown: bool, gallery: GalleryStore | None, device: str
    ) -> None:
        self.style, self._keep, self._only_unknown = style, keep, only_unknown
        self._recognizer: Recognizer | None = None
        facts: dict[str, object] = {}
        if keep or only_unknown:
            if gallery is None:
                raise UsageError("blur: --keep and --only-unknown need the gallery of who is known")
            for person in keep:
                require_person(gallery.database, person)
            self._recognizer = Recognizer(gallery, device=device)
            facts = {**self._recognizer.facts, **self._recognizer.describer.facts}
        else:
            self._detector = load_detector(device)
        self._second = load_detector(device, detect_options(*SEARCH))
        facts |= {
            "style": style,
            "keep": sorted(keep),
            "unknown": only_unknown,
            "cells": CELLS,
            "margin": MARGIN,
            "dated": True,
        }
        self._facts = facts | {"search": SEARCH, "sure": SURE, "detect": DETECT_BEHAVIOUR}

    def key(self, content: str) -> str:
        """Return what a copy of a photo depends on, as 32 hexadecimal digits."""
        text = json.dumps([content, self._facts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def boxes(self, image: Image) -> tuple[list[Float32], int]:
        """Return the boxes that are covered, in displayed pixels, and how many faces are not."""
        kept: list[Float32] = []
        found: list[Face] = []
        if self._recognizer is None:
            found += next(iter(self._detector.detect([image]))).faces
        else:
            for prediction in self._recognizer.recognize([image])[0].predictions:
                if self._stays(prediction):
                    kept.append(prediction.face.box)
                else:
                    found.append(prediction.face)
        boxes = [face.box for face in found]
        return boxes + self._more(image, [*boxes, *kept]), len(kept)

    def _stays(self, prediction: Prediction) -> bool:
        sure = (prediction.probability or 0) >= SURE and not prediction.face.doubtful
        spared = self._only_unknown or prediction.person in self._keep
        return prediction.status is Status.KNOWN and sure and spared

    def _more(self, image: Image, boxes: Sequence[Float32]) -> list[Float32]:
        """Return what the second search finds besides these boxes."""
        found = next(iter(self._second.detect([image]))).faces
        return [face.box for face in found if not any(overlap_of(face.box, box) > _SAME for box in boxes)]

    def boxes_of_frames(self, video: Video) -> tuple[list[float], list[list[Float32]], int]:
        """Return times of frames, the boxes that are covered in each, and how many people are not.

        Who stays is decided for the tracks; a face of such a track stays only in frames in which it is nearest to that person.
        """
        recognizer, times, boxes = self._recognizer, [], []
        tracker, seen = Tracker(), []
        for frame in video.frames():
            times.append(frame.time)
            if recognizer is None:
                boxes.append(self.boxes(frame.image)[0])
                continue
            (photo,) = recognizer.describer.describe([frame.image])
            nearest = [found[0].person if found else None for found in recognizer.matcher.search(photo.embeddings, 1)]
            numbers = tracker.add(photo, frame.time, look_of(frame.image))
            found = [
                (face.box, number, person) for face, number, person in zip(photo.faces, numbers, nearest, strict=True)
            ]
            seen.append(found)
            boxes.append(self._more(frame.image, [box for box, _, _ in found]))
        tracks = tracker.described()
        if recognizer is None or not tracks.faces:
            return times, boxes, 0
        answers = recognizer.decide([tracks])[0].predictions
        stay = {number: one.person for number, one in enumerate(answers) if self._stays(one)}
        for covers, found in zip(boxes, seen, strict=True):
            covers += [box for box, number, person in found if person is None or stay.get(number) != person]
        return times, boxes, len(set(stay.values()))
