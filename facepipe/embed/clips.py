"""Steps 1 and 2 of a video: frames in chunks, and their faces in tracks. Memory grows with the tracks, and not with the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from facepipe.embed.describer import CHUNK_PIXELS, Describer
from facepipe.embed.tracks import Tracker, look_of
from facepipe.images.video import Frame, Video
from facepipe.types import Clip, Described, Face, Float32, Image

#: Yields function(item) in the order of the items, perhaps computed on several threads.
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a chunk of frames brought.

    time: of its last frame. frames: time of each, its faces, and the track of each face. best: tracks whose best frame is among
    them: their number, and pixels and face.
    """

    time: float
    frames: list[tuple[float, Described, list[int]]] = field(default_factory=list)
    best: dict[int, tuple[Image, Face]] = field(default_factory=dict)


def describe_frames(describer: Describer, video: Video, tracker: Tracker, run: Run = map) -> Iterator[Seen]:
    """Look at a video's frames and link their faces; yield after each chunk. A frame that cannot be looked at is passed over.

    run: how chunks are described. Errors: ModelError.
    """

    def described(chunk: list[Frame]) -> list[tuple[Frame, Described | None, Float32]]:
        found = describer.describe_each([frame.image for frame in chunk])
        return [
            (frame, photo if isinstance(photo, Described) else None, look_of(frame.image))
            for frame, photo in zip(chunk, found, strict=True)
        ]

    for chunk in run(described, _chunks(video.frames(), describer.photos * CHUNK_PIXELS)):
        seen = Seen(chunk[-1][0].time)
        for frame, photo, look in chunk:
            if photo is None:
                continue
            numbers = tracker.add(photo, frame.time, look)
            seen.frames.append((frame.time, replace(photo, image=None), numbers))
            for number, face in zip(numbers, photo.faces, strict=True):
                if tracker.best_at(number) == frame.time:
                    seen.best[number] = (frame.image, face)
        yield seen


def described_clip(tracker: Tracker, video: Video, last: float) -> Described:
    """Return what was found in a video once its frames have ended. last: time of the last one that was looked at."""
    found = tracker.described()
    duration = last if video.duration is None else video.duration
    return replace(found, size=video.size, clip=Clip(duration, video.damage))


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
