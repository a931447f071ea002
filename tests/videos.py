"""Videos for tests, made from the two bundled portraits: pictures in motion, written with PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from facepipe.images.samples import portraits
from facepipe.types import UInt8

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder prints whom it thanks

#: Frames a second, where nothing else is said.
RATE = 10


def faces() -> tuple[UInt8, UInt8]:
    """Return the portraits of Eileen Collins and Grace Hopper."""
    collins, hopper = (portrait.rgb for portrait in portraits().values())
    return collins, hopper


def resized(rgb: UInt8, width: int, height: int) -> UInt8:
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def pan(rgb: UInt8, seconds: float, size: tuple[int, int] = (320, 240), rate: int = RATE) -> Iterator[UInt8]:
    """Move a window over a picture, from its left side to its right one, and the face with it."""
    width, height = size
    picture = resized(rgb, round(width * 1.2), round(width * 1.2 * rgb.shape[0] / rgb.shape[1]))
    count = round(seconds * rate)
    for number in range(count):
        left = round(number * (picture.shape[1] - width) / max(1, count - 1))
        yield np.ascontiguousarray(picture[:height, left : left + width])


def zoom(rgb: UInt8, seconds: float, size: tuple[int, int] = (320, 240), rate: int = RATE) -> Iterator[UInt8]:
    """Come nearer to the middle of a picture, to 1.5 times its size."""
    width, height = size
    count = round(seconds * rate)
    for number in range(count):
        part = 1.0 / (1.0 + 0.5 * number / max(1, count - 1))
        wide = round(min(rgb.shape[1], rgb.shape[0] * width / height) * part)
        tall = round(wide * height / width)
        left = (rgb.shape[1] - wide) // 2
        yield resized(rgb[:tall, left : left + wide], width, height)


def crossing(seconds: float, size: tuple[int, int] = (480, 240), rate: int = RATE) -> Iterator[UInt8]:
    """Move the two people past each other, Eileen Collins from left to right and in front."""
    width, height = size
    collins, hopper = (resized(rgb[:512], height * 3 // 4, height * 3 // 4) for rgb in faces())
    side, count = collins.shape[0], round(seconds * rate)
    for number in range(count):
        picture = np.full((height, width, 3), 90, np.uint8)
        way = round(number * (width - side) / max(1, count - 1))
        picture[height - side :, width - side - way : width - way] = hopper
        picture[:side, way : way + side] = collins
        yield picture


def still(rgb: UInt8, seconds: float, size: tuple[int, int] = (320, 240), rate: int = RATE) -> Iterator[UInt8]:
    """Show the upper part of a picture, unmoved."""
    picture = next(iter(pan(rgb, 1 / rate, size, rate)))
    for _ in range(round(seconds * rate)):
        yield picture


def write_video(
    path: Path,
    frames: Iterable[UInt8],
    *,
    codec: str = "libx264",
    rate: int = RATE,
    times: Iterable[float] | None = None,
    turn: float | None = None,
    mirror: bool = False,
    pixel_shape: Fraction | None = None,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    sound: bool = False,
    sound_codec: str = "aac",
    sound_seconds: float | None = None,
    format: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write frames as a video; the suffix says which container.

    times: of the frames, in seconds, instead of a steady rate. turn: degrees counterclockwise by which players are told to turn it;
    mirror: and to mirror it then. pixel_shape: width of a pixel by its height. sound: with a tone.
    """
    quiet = {"libx265": {"x265-params": "log-level=none:keyint=20"}, "libsvtav1": {"preset": "12"}}.get(codec, {})
    stamps = None if times is None else iter(times)
    with av.open(path, "w", format=format, container_options=container or {}) as out:
        out.metadata.update(metadata or {})
        stream: Any = None
        audio: Any = None
        number = 0
        for number, rgb in enumerate(frames):
            if stream is None:
                stream = out.add_stream(codec, rate=rate, options={"threads": "1", **quiet, **(options or {})})
                stream.width, stream.height, stream.pix_fmt = rgb.shape[1], rgb.shape[0], pixels
                stream.codec_context.time_base = Fraction(1, 1000) if stamps else Fraction(1, rate)
                if pixel_shape is not None:
                    stream.codec_context.sample_aspect_ratio = pixel_shape
                if sound:
                    audio = out.add_stream(sound_codec, rate=16000, layout="mono")
                if turn is not None:
                    stream.set_display_rotation(turn, hflip=mirror)
            frame = av.VideoFrame.from_ndarray(rgb)
            frame.time_base = stream.codec_context.time_base
            frame.pts = number if stamps is None else round(next(stamps) * 1000)
            out.mux(stream.encode(frame))
        if audio is not None:
            length = round(16000 * ((number + 1) / rate if sound_seconds is None else sound_seconds))
            tone = np.sin(np.arange(length) / 8).astype(np.float32)[None]
            voice = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            voice.sample_rate = 16000
            voice.pts = 0
            for resampled in av.AudioResampler(audio.codec_context.format, "mono", 16000).resample(voice):
                out.mux(audio.encode(resampled))
            out.mux(audio.encode())
        out.mux(stream.encode())
    return path


def cut_off(path: Path, share: float) -> Path:
    """Return a copy of a file's first part."""
    data = path.read_bytes()
    copy = path.with_stem(f"{path.stem}-cut")
    copy.write_bytes(data[: round(len(data) * share)])
    return copy


def corrupted(path: Path, share: float, count: int = 200) -> Path:
    """Return a copy of a file with bytes exchanged from a place on."""
    data = bytearray(path.read_bytes())
    begin = round(len(data) * share)
    data[begin : begin + count] = bytes((value ^ 0x55) for value in data[begin : begin + count])
    copy = path.with_stem(f"{path.stem}-corrupted")
    copy.write_bytes(data)
    return copy
