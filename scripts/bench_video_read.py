"""Reading videos: CPU seconds for a minute of each codec at one frame a second, against decoding all of it; memory of two hours."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from facepipe.images import read_image
from facepipe.images.samples import portraits
from facepipe.images.video import open_video
from facepipe.types import UInt8
from scripts.bench_memory import resident
from scripts.benchlib import machine
from tests.videos import resized, write_video

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="what is filmed; default: a bundled portrait, enlarged")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--hours", type=float, default=2.0)
    options = parser.parse_args()
    print(f"{machine()}, PyAV {av.__version__}")
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
