"""Mutated pictures through `facepipe batch`: `scripts/mutants` runs thousands, the tests a few.

Seeds are one small portrait in every format that Pillow and pillow-heif write. A mutant is a seed with some of its bytes changed. A
batch over mutants must end with exit code 0 or 7, with a record for every file, in bounded memory and without a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif
import skimage.data

from facepipe.errors import FacepipeError
from facepipe.images.reading import read_image_bytes

_HOSTILE_NUMBERS = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1", b"\xff\xff")


def seeds() -> dict[str, bytes]:
    """Return a portrait of 160 pixels in every format that can be written, by suffix and variant."""
    portrait = PIL.Image.fromarray(skimage.data.astronaut()[20:260, 100:340]).resize((160, 160))  # type: ignore[no-untyped-call]
    turned = portrait.getexif()
    turned[0x0112] = 6
    ways: list[tuple[str, str, PIL.Image.Image, dict[str, object]]] = [
        ("jpg", "JPEG", portrait, {}),
        ("progressive.jpg", "JPEG", portrait, {"progressive": True}),
        ("exif.jpg", "JPEG", portrait, {"exif": turned}),
        ("cmyk.jpg", "JPEG", portrait.convert("CMYK"), {}),
        ("grey.jpg", "JPEG", portrait.convert("L"), {}),
        ("mpo", "MPO", portrait, {"save_all": True, "append_images": [portrait]}),
        ("png", "PNG", portrait, {}),
        ("palette.png", "PNG", portrait.convert("P"), {}),
        ("alpha.png", "PNG", portrait.convert("RGBA"), {}),
        ("animated.png", "PNG", portrait, {"save_all": True, "append_images": [portrait.rotate(90)]}),
        ("gif", "GIF", portrait, {}),
        ("animated.gif", "GIF", portrait, {"save_all": True, "append_images": [portrait.rotate(90)]}),
        ("webp", "WEBP", portrait, {}),
        ("lossless.webp", "WEBP", portrait, {"lossless": True}),
        ("avif", "AVIF", portrait, {}),
        ("tif", "TIFF", portrait, {}),
        ("lzw.tif", "TIFF", portrait, {"compression": "tiff_lzw"}),
        ("deflate.tif", "TIFF", portrait, {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", "TIFF", portrait, {"compression": "jpeg"}),
        ("pages.tif", "TIFF", portrait, {"save_all": True, "append_images": [portrait]}),
        ("fax.tif", "TIFF", portrait.convert("1"), {"compression": "group4"}),
        ("bmp", "BMP", portrait, {}),
        ("palette.bmp", "BMP", portrait.convert("P"), {}),
        ("dib", "DIB", portrait, {}),
        ("jp2", "JPEG2000", portrait, {}),
        ("ppm", "PPM", portrait, {}),
        ("tga", "TGA", portrait, {}),
        ("rle.tga", "TGA", portrait, {"compression": "tga_rle"}),
        ("sgi", "SGI", portrait, {}),
        ("pcx", "PCX", portrait, {}),
        ("qoi", "QOI", portrait, {}),
        ("ico", "ICO", portrait, {}),
        ("icns", "ICNS", portrait, {}),
        ("dds", "DDS", portrait, {}),
        ("msp", "MSP", portrait.convert("1"), {}),
        ("xbm", "XBM", portrait.convert("1"), {}),
    ]
    made = {}
    for name, kind, picture, options in ways:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        made[name] = stream.getvalue()
    stream = io.BytesIO()
    pillow_heif.from_pillow(portrait).save(stream)
    made["heic"] = stream.getvalue()
    rgb = np.asarray(portrait)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).tobytes()
    made["psd"] = b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\xa0" * 2 + b"\0\x08\0\3" + bytes(12) + b"\0\0" + planes
    return made


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _flip_header(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 2, 4))):
        data[draw.randrange(min(96, len(data)))] = draw.randrange(256)


def _number(data: bytearray, draw: random.Random) -> None:
    number = draw.choice(_HOSTILE_NUMBERS)
    place = draw.randrange(min(len(data), draw.choice((64, 512, len(data)))))
    data[place : place + len(number)] = number


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def _cut_closed(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]
    data += b"\xff\xd9"


def _blank(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice((4, 64, 1024, len(data))))
    data[start:end] = bytes([draw.choice((0, 0xFF))]) * (end - start)


def _drop(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.choice((1, 4, 64, 512))]


def _repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    piece = bytes(data[start : start + draw.choice((8, 64, 512, 4096))])
    data[start:start] = piece * draw.choice((1, 3, 50))


def _noise(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    piece = draw.randbytes(draw.choice((4, 64, 512)))
    data[start : start + len(piece)] = piece


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _flip,
    _flip_header,
    _flip_header,
    _number,
    _cut,
    _cut_closed,
    _blank,
    _drop,
    _repeat,
    _noise,
)


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield file names and bytes; the same for the same seed."""
    draw = random.Random(seed)
    pool = sorted(seeds().items())
    for number in range(count):
        name, whole = pool[number % len(pool)]
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            if data:
                draw.choice(_CHANGES)(data, draw)
        suffix = name.rsplit(".", 1)[-1] if draw.random() < 0.9 else draw.choice(pool)[0].rsplit(".", 1)[-1]
        yield f"{number:06d}-{name.replace('.', '-')}.{suffix}", bytes(data)


@dataclass
class Tally:
    """What batches over mutants came to."""

    photos: int = 0
    faces: int = 0
    failed: int = 0
    crashes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    peak_mib: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


def run_batch(folder: Path, files: dict[str, bytes], tally: Tally, *, gallery: Path, limit_s: float = 600) -> None:
    """Write the files, run one batch over them, and add what came of it to the tally."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for name, data in files.items():
        (photos / name).write_bytes(data)
    out = folder / "results.jsonl"
    command = [
        sys.executable,
        "-m",
        "facepipe",
        "batch",
        str(photos),
        "--out",
        str(out),
        "--gallery",
        str(gallery),
        "-q",
    ]
    before = _children_peak_kib()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            tally.crashes.append(f"{folder}: not done after {limit_s} s")
            return
    if process.returncode not in {0, 7} or "Traceback" in errors:
        tally.crashes.append(f"{folder}: exit code {process.returncode}: {errors[-2000:]}")
    tally.peak_mib = max(tally.peak_mib, before / 1024, _children_peak_kib() / 1024)
    records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    tally.photos += len(files)
    tally.faces += sum(len(record["faces"]) for record in records)
    tally.failed += sum(record["error"] is not None for record in records)
    tally.reasons.update(record["error"].split("(")[0].strip() for record in records if record["error"])
    seen = {Path(record["path"]).name for record in records}
    tally.missing += [str(photos / name) for name in sorted(files.keys() - seen)]


def _children_peak_kib() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def longest_decode(files: dict[str, bytes]) -> tuple[float, str]:
    """Decode each file as a batch does; return the longest time in seconds, and whose it was."""
    worst = (0.0, "")
    for name, data in files.items():
        start = time.perf_counter()
        with contextlib.suppress(FacepipeError):
            read_image_bytes(data, name, max_side=1280)
        worst = max(worst, (time.perf_counter() - start, name))
    return worst


def main() -> None:
    """Run `--count` mutants through batches of `--each`, and print what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=main.__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--each", type=int, default=1000, help="files a batch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally, longest = Tally(), (0.0, "")
    every = mutants(options.count, options.seed)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder)
        people = root / "people" / "Eileen Collins"
        people.mkdir(parents=True)
        PIL.Image.fromarray(skimage.data.astronaut()).save(people / "portrait.png")  # type: ignore[no-untyped-call]
        gallery = root / "gallery"
        enroll = [sys.executable, "-m", "facepipe", "enroll", str(people.parent), "--gallery", str(gallery), "-q"]
        subprocess.run(enroll, check=True, stdout=subprocess.DEVNULL)
        for start in range(0, options.count, options.each):
            files = dict(next(every) for _ in range(min(options.each, options.count - start)))
            run_batch(root / f"{start:06d}", files, tally, gallery=gallery)
            longest = max(longest, longest_decode(files))
            print(
                f"{tally.photos} mutants: {tally.failed} failed, {tally.faces} faces, {len(tally.crashes)} crashes, "
                f"{len(tally.missing)} without a record, peak {tally.peak_mib:.0f} MiB, longest decode {longest[0]:.2f} s "
                f"({longest[1]})",
                flush=True,
            )
    for crash in tally.crashes:
        print("crash:", crash)
    for path in tally.missing:
        print("no record:", path)
    for reason, count in tally.reasons.most_common(20):
        print(f"{count:6d} {reason[-100:]}")
    sys.exit(1 if tally.crashes or tally.missing else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
