"""Steps 1 and 2 of a video: frames in chunks, and their faces in tracks. Memory grows with the tracks, and not with the frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from facepipe.embed.describer import CHUNK_PIXELS, Describer, ordered_map
from facepipe.embed.tracks import Tracker, look_of
from facepipe.errors import ImageError, InputError
from facepipe.images import file_hash
from facepipe.images.video import Frame, Video, open_video
from facepipe.text import printable
from facepipe.types import Clip, Described, Face, Failed, Float32, Image

#: Times are rounded to hundredths of a second in records; a frame of 100 a second or fewer is found again.
_ROUNDED = 0.006
#: Yields function(item) in the order of the items, perhaps computed on several threads.
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a chunk of frames brought.

    time: of its last frame. share: of the video that is over, 0..1; None where its duration is not known. frames: time of each, its
    faces, and the track of each face. best: tracks whose best frame is among them: their number, and pixels and face. spoiled: why
    frames until now could not be looked at; None: all could be.
    """

    time: float
    share: float | None = None
    frames: list[tuple[float, Described, list[int]]] = field(default_factory=list)
    best: dict[int, tuple[Image, Face]] = field(default_factory=dict)
    spoiled: str | None = None


def describe_frames(describer: Describer, video: Video, tracker: Tracker, run: Run = map) -> Iterator[Seen]:
    """Look at a video's frames and link their faces; yield after each chunk. A frame that cannot be looked at is passed over.

    run: how chunks are described. Errors: ModelError; ImageError when not one frame can be looked at.
    """

    def described(chunk: list[Frame]) -> list[tuple[Frame, Described | Failed, Float32]]:
        found = describer.describe_each([frame.image for frame in chunk])
        return [(frame, photo, look_of(frame.image)) for frame, photo in zip(chunk, found, strict=True)]

    spoiled, reason = None, ""
    for chunk in run(described, _chunks(video.frames(), describer.photos * CHUNK_PIXELS)):
        last = chunk[-1][0].time
        seen = Seen(last, min(1.0, last / video.duration) if video.duration else None)
        for frame, photo, look in chunk:
            if isinstance(photo, Failed):
                reason = photo.reason
                spoiled = spoiled or f"frames from {frame.time:.1f} s on could not be processed"
                continue
            numbers = tracker.add(photo, frame.time, look)
            seen.frames.append((frame.time, replace(photo, image=None), numbers))
            for number, face in zip(numbers, photo.faces, strict=True):
                if tracker.best_at(number) == frame.time:
                    seen.best[number] = (frame.image, face)
        yield replace(seen, spoiled=spoiled)
    if spoiled and not tracker.fingerprint:
        raise ImageError(reason)


def describe_video(
    describer: Describer,
    path: Path,
    name: str,
    *,
    max_side: int | None = None,
    workers: int = 1,
    seen: Callable[[Seen], object] = lambda seen: None,
) -> Described:
    """Return the tracks of a video as the faces of one photo.

    workers: threads that look at frames. seen: is given each chunk. Errors: InputError, ImageError, LibraryError, ModelError.
    """
    sampling, tracker, last = describer.sampling, Tracker(name), Seen(0.0)
    with open_video(path, name, max_side=max_side, **asdict(sampling)) as video:
        for chunk in describe_frames(describer, video, tracker, partial(ordered_map, workers=workers, ahead=1)):
            seen(chunk)
            last = chunk
        return described_clip(tracker, video, last)


def described_clip(tracker: Tracker, video: Video, last: Seen) -> Described:
    """Return what was found in a video once its frames have ended. last: its last chunk."""
    duration = last.time if video.duration is None else video.duration
    clip = Clip(duration, both(video.damage, last.spoiled))
    return replace(tracker.described(), size=video.size, clip=clip)


def both(one: str | None, other: str | None) -> str | None:
    """Return two things that were wrong, or the one that was."""
    return "; ".join(dict.fromkeys(filter(None, (one, other)))) or None


def frame_at(path: Path, name: str, at: float, *, max_side: int | None = None) -> Image:
    """Return the frame of a video at a time, as a record has it. Errors: InputError when there is none, LibraryError."""
    with open_video(path, name, max_side=max_side, every_seconds=0.0, start=max(0.0, at - _ROUNDED)) as video:
        for frame in video.frames():
            return frame.image
    raise InputError(f"{printable(name)}: has no frame at {at:.2f} s any more; scan it again")


def frame_of(path: str, content: str, at: float, *, max_side: int | None = None) -> Image:
    """Return the frame of a video as `frame_at`. content: SHA-256 of the file's bytes. Errors: InputError also for another video."""
    info = os.stat(path) if os.path.isfile(path) else None  # noqa: PTH113, PTH116
    if info is None or _hash_of(path, info.st_size, info.st_mtime_ns) != content:
        raise InputError(f"{printable(path)}: is another video now than the one that was scanned; scan it again")
    return frame_at(Path(path), path, at, max_side=max_side)


@lru_cache(256)
def _hash_of(path: str, size: int, changed: int) -> str:
    """Return the hash of a file, made anew when its size or time are others."""
    return file_hash(path)


def _chunks(frames: Iterable[Frame], most: int) -> Iterator[list[Frame]]:
    """Yield frames of so many pixels together, at least one."""
    chunk: list[Frame] = []
    pixels = 0
    for frame in frames:
        chunk.append(frame)
        pixels += frame.image.rgb.size // 3
        if pixels >= most:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk
