"""Small files that ask for much: memory, time, other files. `scripts/bombs` runs each through a batch and prints what it took.

The goal is less than 1.5 GB resident whatever lies in the folder, and less than 20 s for a photo.
"""

from __future__ import annotations

import argparse
import io
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pillow_heif
import skimage.data

_SIDE = 14_000  # 196 megapixels: within the limit of 200


def _portrait(side: int = 400) -> PIL.Image.Image:
    return PIL.Image.fromarray(skimage.data.astronaut()).resize((side, side))  # type: ignore[no-untyped-call]


def _jpeg(picture: PIL.Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", **options)
    return stream.getvalue()


def _save(name: str, kind: str, mode: str = "RGB", side: int = _SIDE, **options: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        picture = PIL.Image.new(mode, (side, side))
        if kind == "HEIF":
            pillow_heif.from_pillow(picture).save(folder / name, **options)
        else:
            picture.save(folder / name, kind, **options)

    return make


def sparse_tar(folder: Path, members: int = 1, size: int = 3 << 30) -> None:
    """A GNU sparse member: a few bytes of map stand for gigabytes of zeros."""
    blocks = []
    for number in range(members):
        info = tarfile.TarInfo(f"photo{number}.jpg")
        info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[156:157] = tarfile.GNUTYPE_SPARSE
        header[386:398] = b"%011o\0" % (size - 512)
        header[398:410] = b"%011o\0" % 512
        header[483:495] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        blocks.append(bytes(header) + b"\xff\xd8\xff" + bytes(509))
    (folder / "sparse.tar").write_bytes(b"".join(blocks) + bytes(1024))


def big_zip(folder: Path, members: int = 1, size: int = 3 << 30) -> None:
    """Members that deflate to a thousandth."""
    with zipfile.ZipFile(folder / "big.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        zeros = bytes(1 << 24)
        for number in range(members):
            with archive.open(f"photo{number}.jpg", "w", force_zip64=True) as member:
                member.write(b"\xff\xd8\xff")
                for _ in range(size >> 24):
                    member.write(zeros)


def pax_header(folder: Path, size: int = 2 << 30) -> None:
    """A pax header of two gigabytes before a small photo."""
    with (folder / "pax.tar").open("wb") as file:
        info = tarfile.TarInfo("PaxHeaders/photo.jpg")
        info.type, info.size = tarfile.XHDTYPE, size
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.seek(size, os.SEEK_CUR)
        file.write(bytes(1024))


def qoi(folder: Path) -> None:
    """Three megabytes of "the same pixel 62 times more"."""
    runs = -(-_SIDE * _SIDE // 62)
    head = b"qoif" + struct.pack(">IIBB", _SIDE, _SIDE, 3, 0)
    (folder / "runs.qoi").write_bytes(head + b"\xfd" * runs + b"\0" * 7 + b"\1")


def scans(folder: Path, count: int = 300) -> None:
    """A progressive JPEG whose last scan is there hundreds of times."""
    data = _jpeg(_portrait(3000), progressive=True, quality=30)
    last = data.rindex(b"\xff\xda")
    (folder / "scans.jpg").write_bytes(data[:last] + data[last:-2] * count + b"\xff\xd9")


def png_text(folder: Path) -> None:
    """A PNG with a compressed text of two gigabytes."""
    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(bytes(1 << 24)) for _ in range(128)) + squeeze.flush()
    stream = io.BytesIO()
    _portrait().save(stream, "PNG")
    data = stream.getvalue()
    chunk = b"zTXt" + b"Comment\0\0" + packed
    (folder / "text.png").write_bytes(
        data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    )


def big_tiff_strip(folder: Path) -> None:
    """A deflated TIFF within the pixel limit."""
    PIL.Image.new("RGB", (_SIDE, _SIDE)).save(folder / "flat.tif", compression="tiff_adobe_deflate")


def iptc_postscript(folder: Path) -> None:
    """An IPTC record, called .jpg, with PostScript inside."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"

    def field(number: int, value: bytes) -> bytes:
        return bytes((0x1C, *divmod(number, 256))) + struct.pack(">H", len(value)) + value

    fields = [
        field(3 * 256 + 60, b"\x01\x00"),
        field(3 * 256 + 65, b"\x01"),
        field(3 * 256 + 20, struct.pack(">H", 100)),
        field(3 * 256 + 30, struct.pack(">H", 100)),
        field(3 * 256 + 120, b"\x05"),
        field(8 * 256 + 10, script),
    ]
    (folder / "iptc.jpg").write_bytes(b"".join(fields) + bytes(5))


def many_photos(folder: Path) -> None:
    """Photos of 12,000 x 12,000 in formats that cannot be reduced while they are decoded: what lies in memory at once."""
    stream = io.BytesIO()
    PIL.Image.new("RGB", (12_000, 12_000), (90, 90, 90)).save(stream, "PNG")
    for number in range(8):
        (folder / f"large{number}.png").write_bytes(stream.getvalue())


BOMBS: dict[str, Callable[[Path], None]] = {
    "sparse tar, 3 GiB member": sparse_tar,
    "sparse tar, 16 members": lambda folder: sparse_tar(folder, 16),
    "zip, 3 GiB member": big_zip,
    "zip, 16 members of 1 GiB": lambda folder: big_zip(folder, 16, 1 << 30),
    "tar, pax header of 2 GiB": pax_header,
    "jp2 of 196 megapixels": _save("flat.jp2", "JPEG2000", tile_size=(1024, 1024)),
    "QOI of 196 megapixels": qoi,
    "progressive JPEG, 300 scans": scans,
    "PNG, text of 2 GiB": png_text,
    "PNG of 196 megapixels": _save("flat.png", "PNG"),
    "PNG RGBA of 196 megapixels": _save("alpha.png", "PNG", "RGBA"),
    "GIF of 196 megapixels": _save("flat.gif", "GIF", "P"),
    "WebP of 196 megapixels": _save("flat.webp", "WEBP"),
    "WebP lossless": _save("lossless.webp", "WEBP", lossless=True),
    "AVIF of 64 megapixels": _save("flat.avif", "AVIF", side=8000, speed=10),
    "HEIC of 64 megapixels": _save("flat.heic", "HEIF", side=8000),
    "TIFF of 196 megapixels": big_tiff_strip,
    "JPEG CMYK of 64 megapixels": _save("cmyk.jpg", "JPEG", "CMYK", side=8000),
    "8 PNGs of 144 megapixels": many_photos,
    "IPTC with PostScript": iptc_postscript,
}


def try_bomb(name: str, *, limit_s: float = 120) -> tuple[float, float, int, str]:
    """Run one batch over a bomb; return seconds, peak MiB, exit code and the last line that it says."""
    with tempfile.TemporaryDirectory(prefix="bomb-") as place:
        folder = Path(place)
        (folder / "people" / "Eileen Collins").mkdir(parents=True)
        _portrait().save(folder / "people" / "Eileen Collins" / "portrait.png")
        bombs = folder / "bombs"
        bombs.mkdir()
        BOMBS[name](bombs)
        facepipe = [sys.executable, "-m", "facepipe"]
        subprocess.run([*facepipe, "enroll", "people", "-q"], cwd=folder, check=True, capture_output=True)
        roots = [str(path) for path in bombs.iterdir() if path.suffix in {".tar", ".zip"}] or [str(bombs)]
        _portrait().save(bombs / "fine.png")
        start = time.monotonic()
        errors = folder / "errors"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [*facepipe, "batch", *roots, "--out", "out/results.jsonl", "-q"],
                cwd=folder,
                stderr=stream,
                stdout=stream,
            )
            peak = 0.0
            while process.poll() is None and time.monotonic() - start < limit_s:
                peak = max(peak, _peak_mib(process.pid))
                time.sleep(0.02)
            process.kill()
            process.wait()
            seconds = time.monotonic() - start
        lines = errors.read_text(errors="replace").strip().splitlines()
        failures = folder / "out" / "results.failures.csv"
        said = failures.read_text().splitlines()[1] if failures.exists() else (lines[-1] if lines else "")
        if any("Traceback" in line for line in lines):
            said = f"TRACEBACK {lines[-1]}"
        return seconds, peak, process.returncode, said[-110:]


def _peak_mib(pid: int) -> float:
    """Return the peak of a process's resident memory; what getrusage gives begins with its parent's."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), default=0.0)


def main() -> None:
    """Run a batch over each small file that asks for much; print seconds, peak resident memory, exit code, and what it said."""
    parser = argparse.ArgumentParser(prog="scripts/bombs", description=main.__doc__)
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--skip", default="-", help="part of a name that is left out")
    options = parser.parse_args()
    bad = 0
    for name in BOMBS:
        if options.only in name and options.skip not in name:
            seconds, peak, code, said = try_bomb(name)
            wrong = peak > 1500 or seconds > (25 if "8 PNG" not in name else 100) or code not in {0, 3, 7}
            bad += wrong
            print(
                f"{'BAD' if wrong else 'ok ':3} {name:30} {seconds:6.1f} s {peak:7.0f} MiB  exit {code}  {said}",
                flush=True,
            )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
