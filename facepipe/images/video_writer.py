"""Copies of videos that something was drawn into: all frames, upright, at their times, in H.264, with the sound as it is.

The time when it was filmed goes along. What else a video carries stays behind: where, with which device, its cover, its subtitles.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from facepipe.errors import LibraryError, OutputError
from facepipe.files.guard import MARK, own_path
from facepipe.images.video import Frame, open_video
from facepipe.images.video_file import VideoFile, open_container, reason_of
from facepipe.text import printable
from facepipe.types import Float32, UInt8

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

#: Suffix -> ffmpeg's name of the container, and which sound is copied into it.
_WRITTEN = {
    ".mp4": ("mp4", frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "mp3float", "opus"})),
    ".m4v": ("mp4", frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "mp3float", "opus"})),
    ".mov": ("mov", frozenset({"aac", "ac3", "alac", "mp3", "mp3float", "pcm_s16be", "pcm_s16le", "pcm_s24le"})),
    ".mkv": ("matroska", frozenset({"aac", "ac3", "eac3", "flac", "mp3", "mp3float", "opus", "pcm_s16le", "vorbis"})),
}
VIDEO_OUTPUTS = tuple(_WRITTEN)
#: Units of time in a second: what broadcasts count in; all usual rates have whole numbers of them.
_UNITS = 90_000
#: AVCOL_SPC_BT709 and its fellows, AVCOL_RANGE_MPEG.
_BT709, _LIMITED = 1, 1
#: Visually near the original, at a speed that suits a long video.
_QUALITY = {"preset": "veryfast", "crf": "20", "bf": "2"}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a copy. frames: how many. damage: as of `Video`. sound: whether it has the sound of the original."""

    frames: int
    damage: str | None
    sound: bool


def redraw_video(
    source: Path,
    target: Path,
    draw: Callable[[Frame], UInt8],
    *,
    sound: bool = True,
    remark: str = "",
    threads: int = 1,
    on_frame: Callable[[float, float | None], object] = lambda time, duration: None,
) -> Written:
    """Write a copy of a video with each frame as `draw` returns it, whole or not at all; the suffix names the container.

    draw: is given a frame, as displayed and at its full size, and returns uint8 of the same shape. sound: copy it, where the
    container takes it as it is. remark: follows the mark in the copy. on_frame: told the time of each frame, and the video's
    duration where it is known.
    Errors: those of `open_video`; UsageError when facepipe did not write what is there; OutputError for another suffix, or when
    the system refuses; LibraryError where PyAV has no encoder for H.264.
    """
    kind, copied = _WRITTEN.get(target.suffix.lower(), ("", frozenset()))
    if not kind:
        raise OutputError(f"{printable(target)}: unknown video suffix; use one of {', '.join(VIDEO_OUTPUTS)}")
    import av

    if "libx264" not in av.codecs_available:
        raise LibraryError(f"{printable(target)}: this PyAV cannot write H.264; pip install --force-reinstall av")
    with (
        open_video(source, str(source), every_seconds=0.0, threads=threads) as video,
        contextlib.closing(VideoFile(source, str(source))) as file,
        open_container(file, str(source)) as heard,
        own_path(target) as temporary,
    ):
        try:
            with av.open(str(temporary), "w", format=kind) as out:
                with contextlib.suppress(ValueError):
                    out.metadata["creation_time"] = datetime.fromisoformat(
                        heard.metadata.get("creation_time", "")
                    ).isoformat()
                out.metadata["comment"] = f"{MARK} {remark}".rstrip()
                stream = _stream(out, video.size, video.rate, threads)
                voice = heard.streams.best("audio") if sound else None
                has_sound = voice is not None and voice.codec_context is not None and voice.codec_context.name in copied
                packets = _sound(heard, file, out, cast("AudioStream", voice)) if has_sound else iter(())
                waiting, count = next(packets, None), 0
                for frame in chain(video.frames(), (None,)):
                    picture = None if frame is None else _encodable(draw(frame), frame.time, video.rate)
                    while waiting is not None and (
                        frame is None or (waiting.pts or 0) * waiting.time_base <= frame.time
                    ):
                        out.mux(waiting)
                        waiting = next(packets, None)
                    out.mux(stream.encode(picture))
                    if frame is not None:
                        count += 1
                        on_frame(frame.time, video.duration)
        except av.error.FFmpegError as error:
            raise OutputError(
                f"{printable(target)}: cannot be written ({reason_of(error)}); choose a place with free space and write permission"
            ) from error
    return Written(count, video.damage, has_sound)


def _stream(out: OutputContainer, size: tuple[int, int], rate: float, threads: int) -> VideoStream:
    stream = out.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.options = {**_QUALITY, "threads": str(threads)}
    stream.codec_context.time_base = Fraction(1, _UNITS)
    codec = stream.codec_context
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED
    return stream


def _encodable(rgb: UInt8, time: float, rate: float) -> VideoFrame:
    """Return a picture as the encoder takes it: of even sides, its last row or column twice where they are odd."""
    from av.video.frame import VideoFrame
    from av.video.reformatter import Colorspace

    height, width = rgb.shape[:2]
    if height % 2 or width % 2:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range="MPEG", threads=1)
    frame.time_base, frame.pts, frame.duration = Fraction(1, _UNITS), round(time * _UNITS), round(_UNITS / rate)
    return frame


def _sound(
    heard: InputContainer, file: VideoFile, out: OutputContainer, voice: AudioStream
) -> Iterator[Packet[AudioStream]]:
    """Yield the packets of the sound as they are, for a stream of the copy; where they are damaged they end."""
    import av

    stream = out.add_stream_from_template(voice)
    origin = round((heard.start_time or 0) / 1_000_000 / (voice.time_base or 1))
    last = -math.inf
    with contextlib.suppress(av.error.FFmpegError, OSError, ValueError, IndexError):
        for packet in heard.demux(voice):
            # What precedes the first frame would move all frames, since no time may be below zero.
            if packet.pts is not None and packet.dts is not None and packet.dts > last and packet.pts >= origin:
                last = packet.dts
                packet.pts, packet.dts = packet.pts - origin, packet.dts - origin
                packet.stream = stream
                file.clock.pause()
                yield packet
                file.clock.run()


def box_at(times: Sequence[float], boxes: Float32, time: float, room: float) -> Float32 | None:
    """Return where a face is between the sampled times at which its box is known, float32 (4,); None where it is not seen.

    times: of the boxes, ascending; boxes: float32 (n, 4). room: seconds for which the first and last hold outside.
    """
    if not times[0] - room <= time <= times[-1] + room:
        return None
    return np.array([np.interp(time, times, side) for side in boxes.T], np.float32)
