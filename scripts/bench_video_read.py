"""Reading videos: CPU seconds for a minute of each codec at one frame a second, against decoding all of it; memory of two hours.

--damage: in how many damaged copies of short videos the damage is noticed, instead.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np

from facepipe.images import read_image
from facepipe.images.samples import portraits
from facepipe.images.video import open_video
from facepipe.types import UInt8
from scripts.bench_memory import resident
from scripts.benchlib import machine
from tests.videos import crossing, faces, pan, resized, write_video, zoom

#: What the files are like: name, codec, suffix, the encoder's options.
KINDS = (
    ("h264, B-frames, a keyframe every 8 s", "libx264", "mp4", {"preset": "veryfast", "crf": "23"}),
    (
        "h264, as phones film, a keyframe every s",
        "libx264",
        "mp4",
        {"preset": "ultrafast", "b:v": "17M", "bf": "0", "g": "30"},
    ),
    ("hevc, as phones film, a keyframe every s", "libx265", "mov", {"preset": "ultrafast", "b:v": "8M", "g": "30"}),
    ("av1, a keyframe every 5 s", "libsvtav1", "mp4", {"preset": "12", "crf": "38", "g": "150"}),
)
#: Those that are damaged: name, codec, suffix. Of each a keyframe comes every two seconds.
DAMAGED = (
    ("H.264", "libx264", "mp4"),
    ("HEVC", "libx265", "mp4"),
    ("AV1", "libsvtav1", "mp4"),
    ("VP9", "libvpx-vp9", "webm"),
    ("VP8", "libvpx", "webm"),
    ("MPEG-4", "mpeg4", "avi"),
)
RATE = 30


def scene(photo: Path | None, size: tuple[int, int], count: int) -> Iterator[UInt8]:
    """Move a window over a photo, there and back, with the grain of a sensor."""
    rgb = next(iter(portraits().values())).rgb if photo is None else read_image(photo).rgb
    width, height = size
    wide = resized(rgb, width * 5 // 4, width * 5 // 4 * rgb.shape[0] // rgb.shape[1])
    wide = np.tile(wide, (1 + height // wide.shape[0], 1, 1))
    grain = np.random.default_rng(0).normal(0, 4, (height, width + 64, 1))
    room = wide.shape[1] - width
    for number in range(count):
        left = abs((number * 4 + room) % (2 * room) - room)
        shift = number * 7 % 64
        yield np.clip(wide[:height, left : left + width] + grain[:, shift : shift + width], 0, 255).astype(np.uint8)


def cpu_of_reading(path: Path, **options: float) -> tuple[float, int]:
    begun = time.process_time()
    with open_video(path, path.name, max_side=1280, **options) as video:  # type: ignore[arg-type]
        count = sum(1 for _ in video.frames())
    return time.process_time() - begun, count


def cpu_of_decoding(path: Path) -> tuple[float, int]:
    """Return what decoding every frame on one thread takes, with nothing done to them."""
    begun = time.process_time()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        count = sum(1 for _ in container.decode(video=0))
    return time.process_time() - begun, count


def damaged(path: Path, seed: int) -> Path:
    """Write a copy in which some bytes of one frame are others."""
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        frames = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size > 60]
    begin, size = chance.choice(frames[10:])
    first = begin + chance.randrange(8, size - 1)
    for place in range(first, min(begin + size, first + chance.choice((1, 8, 40, 200)))):
        data[place] ^= chance.randrange(1, 256)
    copy = path.with_stem("damaged")
    copy.write_bytes(data)
    return copy


def seen_in(path: Path) -> tuple[dict[float, UInt8], bool]:
    """Return the frames, two a second, and whether damage was noticed."""
    with open_video(path, path.name, every_seconds=0.5) as video:
        return {round(frame.time, 2): frame.image.rgb for frame in video.frames()}, video.damage is not None


def measure_damage(folder: Path, copies: int) -> None:
    """Print how often damage was noticed, and how often a frame is visibly another one and nothing was said."""
    for name, codec, suffix in DAMAGED:
        shown = chain(zoom(faces()[0], 4), pan(faces()[1], 4), crossing(4, (320, 240)))
        whole = write_video(folder / f"whole.{suffix}", shown, codec=codec, options={"g": "20"})
        first, alarm = seen_in(whole)
        noticed, silent = 0, 0
        for seed in range(copies):
            frames, told = seen_in(damaged(whole, seed))
            off = [np.abs(rgb.astype(int) - first[time]) for time, rgb in frames.items() if time in first]
            noticed += told
            silent += not told and any(one.max() > 60 and one.mean() > 1 for one in off)
        print(
            f"{name}: noticed in {noticed} of {copies}, a wrong frame and nothing said in {silent}; intact: {alarm}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="what is filmed; default: a bundled portrait, enlarged")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--damage", type=int, metavar="COPIES", help="damage so many copies of each, and measure that")
    options = parser.parse_args()
    print(f"{machine()}, PyAV {av.__version__}")
    if options.damage:
        with tempfile.TemporaryDirectory() as place:
            measure_damage(Path(place), options.damage)
        return
    print(
        f"1920x1080, {RATE} frames a second, {options.seconds} s; read at one frame a second, 1280 pixels; CPU seconds"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, suffix, how in KINDS:
            path = Path(folder, f"video.{suffix}")
            write_video(
                path, scene(options.photo, (1920, 1080), options.seconds * RATE), codec=codec, rate=RATE, options=how
            )
            whole, frames = cpu_of_decoding(path)
            sampled, seen = cpu_of_reading(path)
            alone, keys = cpu_of_reading(path, keyframes=True)
            rate = f"{path.stat().st_size * 8 / options.seconds / 1e6:.0f} Mbit/s"
            print(
                f"{name} ({rate}): {sampled:.2f} s for {seen} frames, {alone:.2f} s for {keys} keyframes; decoding all {frames} "
                f"{whole:.2f} s, {frames / whole:.0f} a second",
                flush=True,
            )
        path = Path(folder, "long.mp4")
        count = round(options.hours * 3600 * 10)
        write_video(
            path, scene(options.photo, (320, 240), count), rate=10, options={"preset": "ultrafast", "crf": "35"}
        )
        held: list[float] = []
        before, begun = resident(), time.process_time()
        with open_video(path, path.name) as video:
            for frame in video.frames():
                if frame.time >= len(held) * options.hours * 360:
                    held.append(resident())
        spent = time.process_time() - begun
        later, _ = cpu_of_reading(path, start=options.hours * 3600 * 0.99)
        size = f"{options.hours:g} hours, {path.stat().st_size / 1e6:.0f} MB, 320x240: {spent:.1f} s"
        memory = f"memory grew by {held[1] - before:.0f} MiB until a tenth, {max(held) - before:.0f} at most"
        print(f"{size}; {memory}; the last hundredth, found by seeking, {later:.2f} s")


if __name__ == "__main__":
    main()
