"""Reading videos: a file becomes a stream of pictures, `Frame`, as displayed, with their times.

PyAV (the extra `video`) is imported when a video is opened. The choices made on the way:

- Frames are sampled by time: for each multiple of `every_seconds` the one that is shown then, or a keyframe that is near. Timestamps
  count, so rates may vary. What nobody wants is not decoded where a keyframe follows before the next wanted frame.
- Only wanted frames become RGB, at the wanted size. They are turned by the display matrix (phones film lying and say how to turn),
  mirrored where it says so, and widened by the shape of their pixels. Interlaced frames are seen with one of their two fields.
- Errors are not concealed: reading goes on at the next keyframe, and `Video.damage` says what was left out.
- A file ends after an hour of a processor's time (FACEPIPE_MAX_VIDEO_SECONDS), and frames larger than 8K are refused.

`video_file` says which files are read.
"""

from __future__ import annotations

import contextlib
import math
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from facepipe.images.video_file import VideoFile, damaged, most_pixels, open_container, reason_of, video_stream
from facepipe.text import plural
from facepipe.types import Image, UInt8

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Bytes of packets that wait until it is known whether anybody wants their frames.
_MOST_HELD = 64 << 20
#: Times that go so many seconds forward are a new clock, as are keyframes that go back, and not a gap.
_FORWARD = 86400.0
#: Seconds that are less than the time between two frames.
_SHORT = 1e-3
#: A file whose times end so much earlier than its header says was cut off.
_MISSING = 1.0


@dataclass(slots=True)
class _Break:
    """What was not read. start, end: seconds; end None: to the end."""

    what: str
    start: float
    end: float | None = None

    def told(self) -> str:
        """Return it in words."""
        return f"{self.what} from {self.start:.1f} " + ("s on" if self.end is None else f"to {self.end:.1f} s")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture of a video. time: seconds from the video's start.

    Where the picture is reduced, `image.enlarge` holds the decoded frame: keep few of them.
    """

    time: float
    image: Image


def open_video(
    file: Path | BinaryIO,
    name: str,
    *,
    max_side: int | None = None,
    every_seconds: float = 1.0,
    keyframes: bool = False,
    start: float = 0.0,
    threads: int = 1,
) -> Video:
    """Open a video; use the result in a `with` statement.

    name: what it is called in messages and in `Image.path`. max_side: as of `read_image`. every_seconds: 0 takes every frame.
    keyframes: only frames that stand alone in the file, which are decoded far faster; of those too one for `every_seconds`.
    start: the time of a frame of an earlier reading: what followed it there follows here; 0: all. threads: of the decoder.
    Errors: InputError when it cannot be opened, ImageError when it is no video that is read or nothing in it can be decoded,
    LibraryError without PyAV.
    """
    if not 0.0 <= every_seconds < math.inf or not 0.0 <= start < math.inf:
        raise ValueError(f"every_seconds, start: expected finite seconds, 0 or more, got {every_seconds}, {start}")
    return Video(file, name, max_side, every_seconds, keyframes, start, threads)


class Video:
    """An open video. size: displayed width and height. rate: frames a second, on average. duration: seconds, None where unknown."""

    size: tuple[int, int]
    rate: float
    duration: float | None

    def __init__(
        self,
        file: Path | BinaryIO,
        name: str,
        max_side: int | None,
        every: float,
        keyframes: bool,
        start: float,
        threads: int,
    ) -> None:
        """Open it and decode its first frame; see `open_video`."""
        self._name, self._max_side, self._every, self._keyframes = name, max_side, every, keyframes
        self._breaks: list[_Break] = []
        self._threads = threads
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(contextlib.closing(VideoFile(file, name)))
            self._containers = stack.enter_context(contextlib.ExitStack())
            self._frames = self._from_the_start()
            found = next(self._frames, None)
            if found is None:
                raise damaged(name, self.damage or "it has no frame that can be decoded")
            self.size = _displayed(found[1], float(self._stream.sample_aspect_ratio or 1))
            self._frames = self._from(start) if start else chain((found,), self._frames)
            self._stack = stack.pop_all()

    def _from_the_start(self) -> Iterator[tuple[float, VideoFrame]]:
        """Open the file, perhaps once more, and return its sampled frames."""
        self._containers.close()
        self._container = self._containers.enter_context(open_container(self._file, self._name))
        self._stream = video_stream(self._container, self._name)
        self._codec = self._stream.codec_context
        self._codec.thread_count = self._threads
        self._codec.options = {"err_detect": "explode", "max_pixels": str(most_pixels())}
        self._unit = float(self._stream.time_base or 0)
        self.rate = min(max(float(self._stream.average_rate or 25), 0.1), 1000.0)
        self._shift = -(self._container.start_time or 0) / 1e6
        length = (self._container.duration or 0) / 1e6
        self.duration = length if 0 < length < 1e7 else None
        return self._sampled(-math.inf)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def damage(self) -> str | None:
        """What was wrong, and from where to where; None while all is well."""
        if not self._breaks:
            return None
        more = f", and in {plural(len(self._breaks) - 1, 'more place')}" if len(self._breaks) > 1 else ""
        return self._breaks[0].told() + more

    def frames(self) -> Iterator[Frame]:
        """Yield the sampled frames, once, in order. What cannot be read is left out, and told by `damage`."""
        for at, frame in self._frames:
            yield Frame(at, _image(frame, self._name, self.size, self._max_side))

    # ---- which frames ----

    def _sampled(self, after: float) -> Iterator[tuple[float, VideoFrame]]:
        """Yield time and frame of what is sampled later than `after`, the time of a sampled frame."""
        clock, self._wanted = self._file.clock, following(after, self._every)
        clock.run()
        last: tuple[float, VideoFrame] | None = None
        for at, frame in chain(self._decoded(), ((self.duration or 0.0, None),)):
            chosen = []
            if last is not None and self._was_shown_until(last[0], at):
                chosen.append(last)
            last = None if frame is None or at <= after else (at, frame)
            if last is not None and self._is_due(at, last[1].key_frame):
                chosen.append(last)
                last = None
            for one in chosen:
                after, self._wanted = one[0], following(one[0], self._every)
                del self._times[: bisect_left(self._times, after)]
                clock.pause()
                yield one
                clock.run()

    def _is_due(self, at: float, key: bool) -> bool:
        """Say whether a frame stands for the wanted time: it is shown then or later, or is a keyframe that is near."""
        return at > self._wanted - (self._every / 2 if key else _SHORT)

    def _was_shown_until(self, last: float, at: float) -> bool:
        """Say whether a frame that was not due was the one that is shown at the wanted time, and long."""
        long = at - last >= max(self._every / 2, _SHORT) and at > self._wanted + _SHORT and not self._keyframes
        return long and self._times[bisect_left(self._times, at - _SHORT) - 1] - last < _SHORT

    def _from(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Return the frames after a sampled one, from a keyframe before it on where the file can be searched for one."""
        import av

        self._file.clock.run()
        frames: Iterator[tuple[float, VideoFrame]] | None = None
        for back in (
            1.0,
            10.0,
            100.0,
        ):  # without an index, what is found is not the keyframe before a place but the one after it
            place = int((start - max(back, self._every) - self._shift) * 1e6)
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                self._container.seek(place)
                keys = (self._time(packet) for packet in self._packets() if packet.is_keyframe)
                if next(keys, math.inf) <= start:
                    self._container.seek(place)
                    frames = self._sampled(start)
                    break
        if frames is None:
            frames = (one for one in self._from_the_start() if one[0] > start)
        self._breaks.clear()
        self._file.clock.pause()
        return frames

    # ---- decoding ----

    def _decoded(self) -> Iterator[tuple[float, VideoFrame]]:
        """Yield time and frame of what is decoded. Packets that are not due wait, and are dropped where a keyframe follows."""
        held: list[Packet[VideoStream]] = []
        first = -math.inf
        self._now, self._begun, self._lost = 0.0, False, False
        self._times: list[float] = []
        for packet in self._packets():
            key = packet.is_keyframe
            if not key and (self._keyframes or self._lost):
                continue
            at = self._time(packet)
            if held and not self._keyframes and at - self._now >= self._every / 2:  # the last of them is shown long
                yield from self._decode_all(held)
            jump = self._begun and ((key and at < self._now - _SHORT) or at > self._now + _FORWARD)
            if jump or (key and (held or self._lost or not self._begun)):
                yield from self._decode(None)
                self._codec.flush_buffers()
                held.clear()
                if jump:
                    self._shift += self._now - at
                    at = self._now
                # Frames that are stored after this keyframe and shown before it need what was dropped.
                first, self._begun, self._lost = (at if key else -math.inf), True, not key
            if packet.is_corrupt:
                self._lose(at)
            if at < first or self._lost:
                continue
            self._now = max(self._now, at)
            insort(self._times, at)
            held.append(packet)
            # A frame that is shown before one that was stored before it may be the one that is shown at the wanted time.
            if self._is_due(self._now, key) or (len(held) % 64 == 0 and sum(one.size for one in held) > _MOST_HELD):
                yield from self._decode_all(held)
        yield from self._decode_all(held)
        yield from self._decode(None)

    def _decode_all(self, held: list[Packet[VideoStream]]) -> Iterator[tuple[float, VideoFrame]]:
        """Decode what waited for its last packet; of the others only that which other frames are made from."""
        for packet in held:
            wanted = packet is held[-1] or self._time(packet) >= self._now
            self._codec.skip_frame = "DEFAULT" if wanted else "NONREF"
            yield from self._decode(packet)
        held.clear()

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[tuple[float, VideoFrame]]:
        """Yield time and frame of what a packet brings; None: what the decoder has left."""
        import av

        if self._lost and packet is not None:
            return
        try:
            frames = self._codec.decode(packet)
        except EOFError:
            return
        except (av.error.FFmpegError, ValueError, MemoryError):
            self._lose(self._now if packet is None else self._time(packet))
            return
        for frame in frames:
            at = self._time(frame)
            if frame.is_corrupt:
                self._lose(at)
                return
            if not self._lost and self._is_broken() and at > self._breaks[-1].start:
                self._breaks[-1].end = at
            yield at, frame

    def _lose(self, at: float) -> None:
        """Note damage that lasts until the next keyframe. What precedes the first one cannot be decoded, and is no damage."""
        self._lost = True
        if self._begun and not self._is_broken():
            self._breaks.append(_Break("damaged", max(0.0, at)))

    def _is_broken(self) -> bool:
        return bool(self._breaks) and self._breaks[-1].end is None

    def _time(self, one: Packet[VideoStream] | VideoFrame) -> float:
        stamp = one.pts if one.pts is not None else one.dts
        return self._now if stamp is None else stamp * self._unit + self._shift

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the packets of the video as far as the file can be read."""
        import av

        clock, end, what = self._file.clock, 0.0, ""
        try:
            for packet in self._container.demux():
                if clock.is_over():
                    raise TimeoutError
                if (stamp := packet.pts if packet.pts is not None else packet.dts) is not None:
                    end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base) + self._shift)
                if packet.size and packet.stream_index == self._stream.index:
                    yield cast("Packet[VideoStream]", packet)
        except TimeoutError:
            what = f"takes more than {clock.limit:,} s of a processor; not read"
        except IndexError:  # PyAV, at the end, of streams that began on the way
            pass
        except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
            what = f"damaged ({reason_of(error)})"
        if not what and self.duration is not None and end < self.duration - _MISSING:
            what = "cut off"
        if what and self._is_broken():
            self._breaks[-1].what = what
        elif what:
            self._breaks.append(_Break(what, max(0.0, self._now)))


def following(at: float, every: float) -> float:
    """Return the time for which the frame after the one sampled at `at` stands: a multiple of `every`, or any where that is 0."""
    if not every or math.isinf(at):
        return at
    return (math.floor(at / every + 0.5) + 1) * every


# ---- pictures ----


def _image(frame: VideoFrame, name: str, size: tuple[int, int], max_side: int | None) -> Image:
    """Return a frame as displayed. size: what all frames of the video have; one of another size is shown in it, as players do."""
    scale = 1.0 if max_side is None else min(1.0, max_side / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    swapped, mirrored, upside_down = _turn(frame)
    rgb = _rgb(frame, height, width).swapaxes(0, 1) if swapped else _rgb(frame, width, height)
    rgb = rgb[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    enlarge = partial(_image, frame, name, size) if scale < 1.0 else None
    return Image(np.ascontiguousarray(rgb), path=name, size=size, enlarge=enlarge)


def _displayed(frame: VideoFrame, pixel_shape: float) -> tuple[int, int]:
    """Return a frame's displayed width and height. pixel_shape: width of a stored pixel by its height."""
    if not 0.25 <= pixel_shape <= 4.0:
        pixel_shape = 1.0
    size = max(1, round(frame.width * pixel_shape)), frame.height
    return size[::-1] if _turn(frame)[0] else size


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return how the display matrix turns a frame: rows become columns, then mirrored, then upside down."""
    from av.sidedata.sidedata import SideDataContainer

    # Not `frame.side_data`: that one and the frame hold each other, and a long video's frames wait for the collector.
    sides: Any = cast("Any", SideDataContainer)(frame)
    try:
        matrix = np.frombuffer(sides["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return False, False, False
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _rgb(frame: VideoFrame, width: int, height: int) -> UInt8:
    """Return a frame's pixels as stored, uint8 (height, width, 3)."""
    from av.video.reformatter import Colorspace, Interpolation

    # Files that do not say how colours are meant follow their size, as players take it.
    unknown = frame.colorspace == _UNSPECIFIED and frame.height > 576
    rgb = frame.reformat(
        width,
        frame.height if frame.interlaced_frame else height,
        "rgb24",
        src_colorspace=Colorspace.ITU709 if unknown else None,
        interpolation=Interpolation.AREA,
        threads=1,
    ).to_ndarray()
    if not frame.interlaced_frame:
        return np.asarray(rgb, np.uint8)
    import cv2

    return np.asarray(cv2.resize(rgb[::2], (width, height), interpolation=cv2.INTER_AREA), np.uint8)


#: AVCOL_SPC_UNSPECIFIED.
_UNSPECIFIED = 2
