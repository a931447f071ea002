"""Pictures that are half there, that lack only an end, that ask for too much, or that would start a program."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif
import pytest
import skimage.data

from facepipe.errors import FacepipeError, ImageError
from facepipe.images import read_image, read_image_bytes
from facepipe.images.formats import FORMATS, bytes_to_decode, jpeg_scans
from tests import hostile_bombs, hostile_pictures


@pytest.fixture(scope="module")
def portrait() -> PIL.Image.Image:
    picture = PIL.Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    return picture.crop((60, 0, 420, 360))


def saved(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(picture).save(stream, **options)
    else:
        picture.save(stream, kind, **options)
    return stream.getvalue()


# ---- half a picture ----

_JPEGS: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("RGB", {}),
    "full colour": ("RGB", {"subsampling": 0, "quality": 95}),
    "optimised": ("RGB", {"optimize": True}),
    "grey": ("L", {}),
    "CMYK": ("CMYK", {}),
    "restarts": ("RGB", {"restart_marker_rows": 2}),
    "progressive": ("RGB", {"progressive": True}),
    "progressive grey": ("L", {"progressive": True}),
}


@pytest.mark.parametrize("way", _JPEGS)
@pytest.mark.parametrize("max_side", [None, 100])
def test_a_jpeg_that_was_cut_and_closed_is_an_error_and_a_whole_one_is_read(
    portrait: PIL.Image.Image, way: str, max_side: int | None
) -> None:
    mode, options = _JPEGS[way]
    data = saved(portrait.convert(mode), "JPEG", **options)
    begins = data.index(b"\xff\xda")
    assert read_image_bytes(data, "whole", max_side=max_side).size == (360, 360)
    for share in (0.05, 0.4, 0.7, 0.9):
        cut = data[: begins + int((len(data) - begins) * share)] + b"\xff\xd9"
        if "progressive" in way and share > 0.5:
            continue  # every scan shows the whole picture, and the last one has begun
        with pytest.raises(ImageError, match="is damaged"):
            read_image_bytes(cut, "cut", max_side=max_side)


@pytest.mark.parametrize("kind", ["HEIF", "WEBP", "AVIF", "PNG", "JPEG2000", "QOI", "GIF"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_a_file_whose_end_is_zeros_is_an_error(portrait: PIL.Image.Image, kind: str, share: float) -> None:
    data = saved(portrait, kind)
    whole = int(len(data) * share)
    with pytest.raises(ImageError):
        read_image_bytes(data[:whole] + bytes(len(data) - whole), "half")


@pytest.mark.parametrize("way", _JPEGS)
@pytest.mark.parametrize("colour", ["white", "black", "red", "grey"])
def test_a_flat_lower_part_is_no_damage(portrait: PIL.Image.Image, way: str, colour: str) -> None:
    mode, options = _JPEGS[way]
    for picture in (PIL.Image.new("RGB", (300, 300), colour), PIL.Image.new("RGB", (360, 700), colour)):
        picture.paste(portrait.crop((0, 0, 300, 200)), (0, 0))
        assert read_image_bytes(saved(picture.convert(mode), "JPEG", **options), "flat").size == picture.size
    for kind in ("PNG", "WEBP", "HEIF", "AVIF", "QOI", "GIF"):
        assert read_image_bytes(saved(PIL.Image.new("RGB", (300, 300), colour), kind), "flat").size == (300, 300)


@pytest.mark.parametrize("way", _JPEGS)
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(portrait: PIL.Image.Image, way: str) -> None:
    mode, options = _JPEGS[way]
    data = saved(portrait.convert(mode), "JPEG", **options)
    for short in (data[:-2], data[:-1]):
        assert np.array_equal(read_image_bytes(short, "short").rgb, read_image_bytes(data, "whole").rgb)
    # Each scan of a progressive one shows the whole picture: what is missing of the last rows' last bits is not seen.
    for more in (len(data) // 3,) if "progressive" in way else (100, len(data) // 3):
        with pytest.raises(ImageError, match="is damaged"):
            read_image_bytes(data[:-more], "shorter")


@pytest.mark.parametrize("way", _JPEGS)
@pytest.mark.parametrize("colour", ["black", "grey", "white"])
def test_a_flat_lower_part_without_an_end_marker_is_whole_and_one_of_zeros_is_not(
    portrait: PIL.Image.Image, way: str, colour: str
) -> None:
    mode, options = _JPEGS[way]
    flat = portrait.copy()
    flat.paste(colour, (0, 180, 360, 360))
    data = saved(flat.convert(mode), "JPEG", **options)
    assert np.array_equal(read_image_bytes(data[:-2], "short").rgb, read_image_bytes(data, "whole").rgb)
    data = saved(portrait.convert(mode), "JPEG", **options)
    for share in (0.5, 0.7):
        kept = int(len(data) * share)
        with pytest.raises(ImageError, match="is damaged"):
            read_image_bytes(data[:kept] + bytes(len(data) - kept), "zeros")


def test_a_flat_webp_may_end_in_zeros() -> None:
    data = saved(PIL.Image.new("RGB", (3000, 2000), "white"), "WEBP")
    assert data.endswith(bytes(256))
    assert read_image_bytes(data, "flat", max_side=100).size == (3000, 2000)


def _chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)
    )


def test_a_png_with_a_bad_or_large_comment_is_read_and_one_with_bad_pixels_is_not(portrait: PIL.Image.Image) -> None:
    data = saved(portrait, "PNG")
    whole = read_image_bytes(data, "whole").rgb
    large = zlib.compress(bytes(5 << 20))
    for extra in (
        _chunk(b"tEXt", b"a\0b", 5),
        _chunk(b"gAMA", b"\0\0\xb1\x8f", 5),
        _chunk(b"pHYs", b"\0"),
        _chunk(b"zTXt", b"c\0\0" + large),
        _chunk(b"iTXt", b"c\0\1\0\0\0" + large) * 20,
        _chunk(b"iCCP", b"x\0\0garbage"),
        _chunk(b"eXIf", b"garbage", 7),
        _chunk(b"rAnd", bytes(3 << 20), 9),
    ):
        assert np.array_equal(read_image_bytes(data[:33] + extra + data[33:], "comment").rgb, whole), extra[:20]
    assert np.array_equal(read_image_bytes(data[:-12], "no end").rgb, whole)
    place = data.index(b"IDAT") + 4 + 3000
    with pytest.raises(ImageError, match="is damaged"):
        read_image_bytes(data[:place] + bytes(9000) + data[place + 9000 :], "hole")


# ---- programs and other formats ----


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostScript interpreter that leaves a mark is on the path; no file may reach it, whatever it is called."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    hostile_bombs.iptc_postscript(tmp_path)
    with PIL.Image.open(tmp_path / "iptc.jpg", formats=("IPTC",)) as picture, pytest.raises(Exception):  # noqa: B017
        picture.load()
    assert (tmp_path / "started").exists(), "the file does what it is meant to do"
    (tmp_path / "started").unlink()
    for name in ("iptc.jpg", "iptc.tif", "iptc.ico", "iptc.psd", "iptc"):
        (tmp_path / name).write_bytes((tmp_path / "iptc.jpg").read_bytes())
        with pytest.raises(ImageError, match=r"as an image|not read"):
            read_image(tmp_path / name)
    assert not (tmp_path / "started").exists()


def test_only_listed_formats_are_read_and_others_are_named(portrait: PIL.Image.Image) -> None:
    assert not {"IPTC", "EPS", "WMF", "FITS", "FPX", "MIC", "GBR", "HDF5", "SPIDER"} & set(FORMATS)
    for kind in ("BLP", "EPS"):
        with pytest.raises(ImageError, match=f"is in the format {kind}, which is not read; convert it"):
            read_image_bytes(saved(portrait.convert("P" if kind == "BLP" else "RGB"), kind), "x.jpg")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n", "in the format PDF"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "in the format SVG"),
        (b"<!DOCTYPE html><html></html>", "in the format HTML"),
        (b"\0\0\0\x18ftypqt  " + bytes(20), "a video, and is not called like one; give it a name such as clip.mp4"),
        (b"\xff\x0a" + bytes(20), "in the format JPEG XL"),
        (b"PK\x03\x04" + bytes(20), "in the format ZIP"),
    ],
)
def test_what_lies_among_photos_and_is_none_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"is {kind}"):
        read_image_bytes(data, "x.jpg")


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x18ftyp" + brand for brand in (b"isom", b"iso5", b"avc1", b"3gp4")] + [b"FLV\x01", b"\0\0\1\xba"]
)
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("-", "save it as a file"),
        ("<bytes>", "save it as a file"),
        ("a.mov", "identify and batch say"),
        ("a", "give it a name"),
    ],
)
def test_a_video_is_told_what_to_do_next(data: bytes, name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_BYTES", "1000")
    for size in (40, 2000):
        file = io.BytesIO(data + bytes(size))
        file.name = name
        with pytest.raises(ImageError, match=f"^{name}: is a video.*{advice}"):
            read_image(file)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x18ftypM4A ",
        b"ID3\x04",
        b"\xff\xfb\x90\x44",
        b"\xff\xf1\x50\x80",
        b"fLaC",
        b"RIFF....WAVEfmt ",
        b"OggS" + bytes(24) + b"\x01vorbis",
    ],
)
def test_sound_is_called_sound(data: bytes) -> None:
    with pytest.raises(ImageError, match="holds sound and no picture; leave it out"):
        read_image_bytes(data + bytes(40), "x")


@pytest.mark.parametrize(
    "error", [subprocess.CalledProcessError(1, "gs"), StopIteration(), KeyError("x"), Exception("odd")]
)
def test_whatever_a_decoder_raises_is_the_photos_error(
    portrait: PIL.Image.Image, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(picture: PIL.Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ImageError, match=r"^x\.jpg: the picture is damaged \("):
        read_image_bytes(saved(portrait, "BMP"), "x.jpg")


# ---- memory and time ----


def test_a_large_picture_inside_an_icon_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = saved(PIL.Image.new("RGBA", (3000, 3000)), "PNG")
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner
    wide = saved(PIL.Image.new("RGBA", (3000, 3000)), "JPEG2000")
    apple = b"icns" + struct.pack(">I4sI", 16 + len(wide), b"ic10", 8 + len(wide)) + wide
    for data in (icon, apple):
        with pytest.raises(ImageError, match="holds an icon of 3000x3000 pixels"):
            read_image_bytes(data, "x.ico")
    assert read_image_bytes(saved(PIL.Image.new("RGBA", (256, 256)), "ICO"), "fine.ico").size == (256, 256)


def test_a_progressive_jpeg_takes_memory_at_its_full_size(portrait: PIL.Image.Image) -> None:
    for subsampling, kept in ((0, 6), (2, 3)):
        data = saved(portrait.resize((800, 800)), "JPEG", progressive=True, subsampling=subsampling)
        with PIL.Image.open(io.BytesIO(data)) as picture:
            picture.draft(None, (100, 100))
            assert bytes_to_decode(picture, (800, 800)) == 100 * 100 * 4 + 800 * 800 * kept


def test_decoding_has_a_limit_of_time(portrait: PIL.Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(portrait, "QOI")
    assert read_image_bytes(data, "fine").size == (360, 360)
    monkeypatch.setattr("facepipe.images.formats.MAX_SECONDS", 0.02)
    with pytest.raises(ImageError, match="takes more than"):
        read_image_bytes(data, "slow")


def test_a_small_photo_is_read_where_memory_is_scarce(tmp_path: Path, portrait: PIL.Image.Image) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(portrait, "JPEG"))
    code = (
        "import resource, sys; from facepipe.images import read_image; import numpy, cv2\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)\n"
        "print(read_image(sys.argv[1]).size, read_image(open(sys.argv[1], 'rb')).size)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(360, 360) (360, 360)", done.stderr


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1"])
def test_a_large_picture_is_reduced_in_bands_as_it_would_be_as_a_whole(
    portrait: PIL.Image.Image, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(portrait.resize((1300, 1100)).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    monkeypatch.setattr("facepipe.images.colours._BAND", 7)
    banded = read_image_bytes(data, "large", max_side=150)
    monkeypatch.setattr("facepipe.images.colours._BAND", 10_000)
    assert banded.size == (1300, 1100) and max(banded.rgb.shape) == 150
    assert np.array_equal(banded.rgb, read_image_bytes(data, "large", max_side=150).rgb)


def test_what_would_take_too_much_memory_or_time_is_refused_before_it_is_decoded(
    portrait: PIL.Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(PIL.Image.new("RGB", (9000, 9000)), "WEBP")
    with pytest.raises(
        ImageError, match=r"9000x9000 takes 1.3 GB to decode as WEBP, the limit is 1.0; save it as JPEG"
    ):
        read_image_bytes(data, "x", max_side=100)
    scans = saved(portrait.resize((2000, 2000)), "JPEG", progressive=True, quality=20)
    last = scans.rindex(b"\xff\xda")
    repeated = scans[:last] + scans[last:-2] * 800 + scans[-2:]
    assert len(list(jpeg_scans(repeated))) > 800
    with pytest.raises(ImageError, match="scans, too many for its size"):
        read_image_bytes(repeated, "x")


def test_mutants_end_in_a_picture_or_one_line() -> None:
    """A few hundred of the thousands that `scripts/mutants` tries."""
    for name, data in hostile_pictures.mutants(500, seed=11):
        try:
            image = read_image_bytes(data, name, max_side=100)
        except FacepipeError as error:
            assert "\n" not in str(error) and str(error).startswith(f"{name}: ")
        else:
            assert image.rgb.ndim == 3
