"""Reading and writing pictures: what is on the screen is what comes out, and everything else is one clear error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facepipe import images
from facepipe.errors import ImageError, InputError, OutputError, UsageError
from facepipe.images import content_hash, find_images, read_bytes, read_image, read_image_bytes, write_image
from facepipe.images.formats import FORMATS
from facepipe.types import Image, UInt8


def gradient(width: int = 40, height: int = 24) -> UInt8:
    """A smooth picture in which no two corners are alike."""
    x = np.linspace(20, 230, width)[None, :]
    y = np.linspace(20, 230, height)[:, None]
    red, green = np.broadcast_to(x, (height, width)), np.broadcast_to(y, (height, width))
    return np.stack([red, green, 250 - (red + green) / 2], axis=2).astype(np.uint8)


def encoded(picture: PIL.Image.Image | UInt8, kind: str, **options: object) -> bytes:
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def close(a: UInt8, b: UInt8, tolerance: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).mean()) <= tolerance


# ---- the turn ----

#: EXIF orientation -> how a viewer's picture is stored in the file (the inverse of what the reader does).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_turn_is_applied(kind: str, turn: int) -> None:
    shown = gradient()
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    data = encoded(np.ascontiguousarray(STORED[turn](shown)), kind, exif=exif)
    image = read_image_bytes(data, "turned")
    assert image.size == (40, 24)
    assert image.rgb.flags.c_contiguous
    assert close(image.rgb, shown, 3)


@pytest.mark.parametrize("turn", [0, 9, 77])
def test_an_impossible_turn_is_none(turn: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    assert read_image_bytes(encoded(gradient(), "PNG", exif=exif), "odd").size == (40, 24)


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_turn_and_the_reduction_go_together(kind: str, turn: int) -> None:
    shown = gradient(1600, 1000)
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    data = encoded(np.ascontiguousarray(STORED[turn](shown)), kind, exif=exif, quality=95)
    image = read_image_bytes(data, "large", max_side=320)
    assert image.size == (1600, 1000)
    assert image.rgb.shape == (200, 320, 3)
    assert image.scale == pytest.approx(0.2)
    expected = shown.reshape(200, 5, 320, 5, 3).mean(axis=(1, 3)).astype(np.uint8)
    assert close(image.rgb, expected, 1.5)


# ---- size ----


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("longer", [99, 100, 101, 199, 200, 201, 399, 401, 803])
def test_the_longer_side_is_exactly_the_limit(kind: str, longer: int) -> None:
    image = read_image_bytes(encoded(gradient(longer, 37), kind), "any", max_side=100)
    assert max(image.rgb.shape[:2]) == min(longer, 100)
    assert image.size == (longer, 37)
    assert 0 < image.scale <= 1


def test_a_sliver_keeps_at_least_one_pixel() -> None:
    image = read_image_bytes(encoded(gradient(900, 1), "JPEG"), "sliver", max_side=50)
    assert image.rgb.shape == (1, 50, 3)


def refuse_to_decode(picture: PIL.Image.Image) -> None:
    raise OSError("decoding begins")


def test_the_pixel_limit_counts_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(gradient(), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse_to_decode)
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", "959")
    with pytest.raises(ImageError, match=r"^big\.bmp: 40x24 is larger than 959 pixels; raise FACEPIPE_MAX_PIXELS"):
        read_image_bytes(data, "big.bmp")
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", "960")
    with pytest.raises(ImageError, match="decoding begins"):
        read_image_bytes(data, "big.bmp")


def test_the_pixel_limit_may_be_raised_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(PIL.Image.new("1", (20_000, 12_000)), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse_to_decode)
    with pytest.raises(ImageError, match="20000x12000 is larger than 200,000,000 pixels"):
        read_image_bytes(data, "240 megapixels")
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", str(10**9))
    with pytest.raises(ImageError, match="decoding begins"):
        read_image_bytes(data, "240 megapixels")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9"])
def test_a_wrong_pixel_limit_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", text)
    with pytest.raises(UsageError, match="FACEPIPE_MAX_PIXELS"):
        read_image_bytes(encoded(gradient(), "PNG"), "any")


def test_a_wrong_max_side_is_refused() -> None:
    with pytest.raises(ValueError, match="max_side"):
        read_image_bytes(encoded(gradient(), "PNG"), "any", max_side=0)


# ---- colours ----


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(4, axis=0)
    for kind in ("PNG", "TIFF"):
        rgb = read_image_bytes(encoded(PIL.Image.fromarray(ramp), kind), "ramp").rgb
        np.testing.assert_allclose(rgb[0, :, 0], np.arange(256), atol=1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_sixteen_use_the_whole_range(bits: int) -> None:
    ramp = np.linspace(0, 2**bits - 1, 256).astype(np.uint16)[None, :]
    rgb = read_image_bytes(encoded(PIL.Image.fromarray(ramp), "TIFF"), "ramp").rgb
    np.testing.assert_allclose(rgb[0, :, 0], np.arange(256), atol=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-2.0, 0.0, 2.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
        ([300.0, 300.0, 300.0], [0, 0, 0]),
    ],
)
def test_floats_are_scaled(values: list[float], expected: list[int]) -> None:
    data = encoded(PIL.Image.fromarray(np.array([values], np.float32)), "TIFF")
    rgb = read_image_bytes(data, "float").rgb
    np.testing.assert_allclose(rgb[0, :, 1], expected, atol=1)


def test_one_bit_is_black_and_white() -> None:
    data = encoded(PIL.Image.fromarray(np.array([[True, False]])), "PNG")
    assert read_image_bytes(data, "bit").rgb.tolist() == [[[255] * 3, [0] * 3]]


def test_a_palette_keeps_its_colours() -> None:
    picture = PIL.Image.fromarray(np.array([[[200, 10, 30], [0, 90, 220]]], np.uint8)).quantize(2)
    rgb = read_image_bytes(encoded(picture, "PNG"), "palette").rgb
    assert close(rgb, np.array([[[200, 10, 30], [0, 90, 220]]], np.uint8), 1)


@pytest.mark.parametrize(("mode", "pixel"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))])
def test_what_is_transparent_is_white(mode: str, pixel: tuple[int, ...]) -> None:
    rgb = read_image_bytes(encoded(PIL.Image.new(mode, (3, 2), pixel), "PNG"), "glass").rgb
    assert (rgb == 255).all()


def test_half_transparent_red_is_pink() -> None:
    rgb = read_image_bytes(encoded(PIL.Image.new("RGBA", (1, 1), (255, 0, 0, 128)), "PNG"), "pink").rgb
    np.testing.assert_allclose(rgb[0, 0], [255, 127, 127], atol=1)


def test_a_transparent_palette_entry_is_white() -> None:
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    rgb = read_image_bytes(encoded(picture, "PNG", transparency=0), "palette").rgb
    assert rgb.tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_cmyk_is_not_inverted() -> None:
    cyan = PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        red, green, blue = read_image_bytes(encoded(cyan, kind), "cyan").rgb[8, 8]
        assert red < 60 and green > 140 and blue > 180


def test_lab_is_converted() -> None:
    from PIL import ImageCms

    red = PIL.Image.new("RGB", (4, 4), (200, 40, 30))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    rgb = read_image_bytes(encoded(lab, "TIFF"), "lab").rgb
    np.testing.assert_allclose(rgb[2, 2], [200, 40, 30], atol=4)


def test_of_several_frames_the_first_is_read() -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = read_image_bytes(data, "frames").rgb[4, 4].tolist()
        assert red > 240 and green < 15 and blue < 15, kind


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", ".heic"), ("AVIF", ".avif")])
def test_what_phones_write_is_read(tmp_path: Path, kind: str, suffix: str) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / f"phone{suffix}"
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path.write_bytes(encoded(np.ascontiguousarray(STORED[6](gradient(128, 64))), kind, quality=95, exif=exif.tobytes()))
    image = read_image(path)
    assert image.size == (128, 64)
    assert close(image.rgb, gradient(128, 64), 4)


# ---- refusals ----


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_half_a_file_is_an_error(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    with pytest.raises(ImageError, match=r"^half\.pic: .+; .+"):
        read_image_bytes(data[: int(len(data) * share)], "half.pic")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, I am a letter", "as an image"),
        (b"\xff\xd8\xff", "as an image"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "is in the format EPS, which is not read",
        ),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        read_image_bytes(data, "odd\nname\x1b[31m\udcff.jpg")
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(r"odd\nname\u001b[31m\udcff.jpg: ")


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file; "):
        read_image(tmp_path / "nobody.jpg")
    with pytest.raises(InputError, match=r"is a folder; "):
        read_image(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read"):
        read_image("nul\0byte.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"is empty; "):
        read_image(tmp_path / "empty.jpg")


def test_a_file_too_large_for_any_allowed_picture_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_BYTES", "1000")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(ImageError, match="bytes; raise FACEPIPE_MAX_BYTES"):
        read_image(tmp_path / "sparse.jpg")


def test_a_stream_and_a_path_give_the_same(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", gradient())
    with (tmp_path / "a.png").open("rb") as file:
        streamed = read_image(file)
    assert streamed.path == str(tmp_path / "a.png")
    assert (streamed.rgb == gradient()).all()
    assert read_image(io.BytesIO(encoded(gradient(), "PNG"))).path == "<stream>"


# ---- traps ----


def test_every_trap_ends_in_an_image_or_one_error(faces_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import time

    traps = sorted((faces_root / "traps").iterdir())
    assert len(traps) > 100
    read = 0
    for trap in traps:
        begin = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                image = read_image(trap, max_side=1280)
            except ImageError as error:
                assert str(error).startswith(f"{trap}: ") and str(error).isprintable() and "; " in str(error)
            else:
                assert isinstance(image, Image)
                read += 1
        assert not caught, (trap, [str(w.message) for w in caught])
        assert time.process_time() - begin < 2, trap
    assert read > 100
    assert capfd.readouterr() == ("", "")  # no library prints about what the error says


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_the_traps_take_little_memory(faces_root: Path) -> None:
    code = (
        "import sys\n"
        "from facepipe.errors import ImageError\n"
        "from facepipe.images import find_images, read_image\n"
        "for path in find_images([sys.argv[1]]):\n"
        "    try: read_image(path)\n"
        "    except ImageError: pass\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    arguments = [sys.executable, "-c", code, str(faces_root / "traps")]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert int(run.stdout) < 200_000  # KiB, the interpreter and its libraries among them


def test_the_traps_that_are_the_same_portrait_look_the_same(faces_root: Path) -> None:
    reference = read_image(faces_root / "traps" / "hopper.png").rgb
    shown = [f"hopper_orientation_{turn}.{suffix}" for turn in range(2, 9) for suffix in ("jpg", "webp")]
    for name in ("hopper.bmp", "hopper.tif", "hopper_lzma.tif", "hopper.Lab.tif", "hopper.gif", "hopper.webp", *shown):
        assert close(read_image(faces_root / "traps" / name).rgb, reference, 12), name


#: Small pictures of many kinds, to be damaged.
SEEDS = {
    "JPEG": encoded(gradient(), "JPEG"),
    "progressive": encoded(gradient(), "JPEG", progressive=True),
    "CMYK": encoded(PIL.Image.fromarray(gradient()).convert("CMYK"), "JPEG"),
    "PNG": encoded(gradient(), "PNG"),
    "PNG 16": encoded(PIL.Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257), "PNG"),
    "palette": encoded(PIL.Image.fromarray(gradient()).quantize(16), "PNG"),
    "GIF": encoded(gradient(), "GIF", save_all=True, append_images=[PIL.Image.fromarray(gradient())]),
    "WEBP": encoded(gradient(), "WEBP"),
    "BMP": encoded(gradient(), "BMP"),
    "TIFF": encoded(gradient(), "TIFF", compression="tiff_lzw"),
    "TIFF G4": encoded(PIL.Image.fromarray(gradient()).convert("1"), "TIFF", compression="group4"),
    "PPM": encoded(gradient(), "PPM"),
    "ICO": encoded(gradient(), "ICO"),
    "TGA": encoded(gradient(), "TGA", compression="tga_rle"),
    "JPEG2000": encoded(gradient(), "JPEG2000"),
    "AVIF": encoded(gradient(), "AVIF"),
    "ICNS": encoded(PIL.Image.fromarray(gradient()).resize((32, 32)), "ICNS"),
    "PCX": encoded(gradient(), "PCX"),
    "SGI": encoded(gradient(), "SGI"),
    "DDS": encoded(gradient(), "DDS"),
    "QOI": encoded(gradient(), "QOI"),
}


@given(
    kind=st.sampled_from(sorted(SEEDS)),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    max_side=st.sampled_from([None, 7]),
)
@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_never_surprise(
    kind: str, edits: list[tuple[float, int]], cut: float, max_side: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", "2000000")
    data = bytearray(SEEDS[kind])
    for place, value in edits:
        # Half of the edits go to the header, where sizes and offsets are.
        data[int(place * 2 * min(len(data), 64)) if place < 0.5 else int(place * len(data))] = value
    try:
        image = read_image_bytes(bytes(data[: int(len(data) * cut)]), "fuzz", max_side=max_side)
    except ImageError as error:
        assert str(error).startswith("fuzz: ") and str(error).isprintable()
    else:
        assert image.rgb.dtype == np.uint8


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_noise_is_an_image_or_one_error(data: bytes) -> None:
    try:
        read_image_bytes(data, "noise")
    except ImageError as error:
        assert str(error).startswith("noise: ")


# ---- finding ----


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, *roots: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(roots or [folder])]


def test_a_folder_is_searched_in_natural_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "p10.jpg", "p2.JPG", "P1.png", "b/9.webp", "b/10.webp", "a.txt", ".hidden.jpg", ".git/x.jpg", "b.heic"
    )
    assert found(tmp_path) == ["b/9.webp", "b/10.webp", "b.heic", "P1.png", "p2.JPG", "p10.jpg"]


def test_a_named_file_is_always_yielded_and_nothing_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.hidden", "a/scan")
    roots = [
        tmp_path / "a/.hidden",
        tmp_path / "a",
        tmp_path / "a/1.jpg",
        tmp_path / "a/scan",
        tmp_path / "a/../a/scan",
    ]
    assert found(tmp_path, *roots) == ["a/.hidden", "a/1.jpg", "a/scan"]


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "a/nowhere.jpg").symlink_to("gone.jpg")
    assert found(tmp_path) == ["a/1.jpg", "a/b/2.jpg", "a/nowhere.jpg"]


def test_a_missing_root_is_raised_or_reported(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(InputError, match="no such file or folder; "):
        list(find_images([tmp_path / "gone"]))
    problems: list[InputError] = []
    paths = list(find_images([tmp_path / "gone", tmp_path], on_error=problems.append))
    assert [path.name for path in paths] == ["1.jpg"]
    assert len(problems) == 1


def test_a_pipe_that_is_named_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in (tmp_path / "pipe.jpg", "/dev/zero"):
        with pytest.raises(InputError, match="is a pipe or a device"):
            read_bytes(name)


def test_a_pipe_that_is_open_already_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"bytes")
    os.close(writer)
    assert read_bytes(f"/dev/fd/{reader}")[1] == b"bytes"
    os.close(reader)


def test_pipes_in_a_folder_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found(tmp_path) == []


def test_the_suffixes_are_those_that_can_be_read() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    PIL.Image.init()
    readable = {
        suffix for suffix, kind in PIL.Image.registered_extensions().items() if kind in {*FORMATS, "HEIF", "MPO"}
    }
    assert readable == images.IMAGE_SUFFIXES


@given(st.lists(st.text(alphabet="aB01²9.", max_size=6), max_size=8))
def test_natural_order_is_an_order(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(backwards, key=images.natural_key) == sorted(names, key=images.natural_key)


# ---- writing ----


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tiff", 0), (".jpg", 3), (".webp", 4)])
def test_what_is_written_is_read(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path = tmp_path / "new" / f"a{suffix}"
    write_image(path, gradient())
    assert close(read_image(path).rgb, gradient(), tolerance)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_image(path, gradient())
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"a\.png: cannot be written \(No space left on device\); "):
        write_image(path, gradient()[::-1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"unknown picture suffix; use one of \.jpg"):
        write_image(tmp_path / "a.xyz", gradient())


def test_the_hash_is_that_of_the_bytes() -> None:
    assert content_hash(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
