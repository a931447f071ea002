"""Raw photos: previews and developed pixels stand upright once, the size is that of the full picture, damage is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facepipe.catalog.sources import find_sources
from facepipe.errors import ImageError, InputError
from facepipe.images import Passing, find_images, passing, raw, read_image_bytes
from facepipe.images.containers import tiff_numbers
from facepipe.images.passing import beside
from facepipe.images.taken import taken_of
from facepipe.single import detect
from facepipe.types import Image, UInt8
from tests.raws import dng, jpeg_preview


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> UInt8:
    return np.ascontiguousarray(astronaut.rgb[:, 100:420])


def shows(image: Image, rgb: UInt8) -> bool:
    """Say whether a picture looks like another: brightness aside, which developing chooses."""
    size = (40, 64)
    small, wanted = (cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).ravel() for pixels in (image.rgb, rgb))
    return bool(np.corrcoef(small, wanted)[0, 1] > 0.97)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("exif", [None, "own"])
def test_a_preview_is_turned_once_and_boxes_are_those_of_the_full_picture(
    portrait: UInt8, orientation: int, exif: str | None
) -> None:
    preview = jpeg_preview(portrait[::2, ::2], orientation=orientation, exif=None if exif is None else orientation)
    image = read_image_bytes(dng(portrait, orientation=orientation, preview=preview), "a.dng", max_side=200)
    assert (image.size, image.rgb.shape) == ((320, 512), (200, 125, 3))
    assert shows(image, portrait)


@pytest.mark.parametrize("orientation", [6, 8])
def test_a_preview_that_stands_already_is_left(portrait: UInt8, orientation: int) -> None:
    image = read_image_bytes(dng(portrait, orientation=orientation, preview=jpeg_preview(portrait)), "a.dng")
    assert image.size == (320, 512)
    assert shows(image, portrait)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("preview", ["none", "small", "of a part", "damaged"])
def test_without_a_usable_preview_the_photo_is_developed(portrait: UInt8, orientation: int, preview: str) -> None:
    part = {"none": None, "small": portrait[::8, ::8], "of a part": portrait[100:], "damaged": portrait}[preview]
    data = None if part is None else jpeg_preview(part, orientation=orientation)
    if preview == "damaged" and data is not None:
        data = data[: len(data) // 2]
        image = developed_in_place_of(portrait, orientation, data)
    else:
        image = read_image_bytes(dng(portrait, orientation=orientation, preview=data), "a.dng")
    assert (image.size, image.rgb.shape) == ((320, 512), (256, 160, 3))
    assert shows(image, portrait)


def developed_in_place_of(portrait: UInt8, orientation: int, half: bytes) -> Image:
    whole = jpeg_preview(portrait, orientation=orientation)
    data = dng(portrait, orientation=orientation, preview=whole)
    return read_image_bytes(data.replace(whole, half + bytes(len(whole) - len(half))), "a.dng")


def test_pixels_of_three_colours_are_developed_whole(portrait: UInt8) -> None:
    image = read_image_bytes(dng(portrait, colours=True), "a.dng")
    assert (image.size, image.rgb.shape) == ((320, 512), (512, 320, 3))
    assert shows(image, portrait)


def test_a_face_is_found_where_it_is(portrait: UInt8) -> None:
    expected = detect(Image(portrait))[0].box
    for preview in (None, jpeg_preview(portrait, orientation=6)):
        (face,) = detect(dng(portrait, orientation=6, preview=preview))
        assert np.abs(face.box - expected).max() < 12


def test_a_raw_photo_is_known_by_its_content_or_its_name(portrait: UInt8) -> None:
    data = dng(portrait)
    assert raw.is_raw(data, "<bytes>") and raw.is_raw(b"II*\0\0\0\0\0CR\2\0", "a") and raw.is_raw(b"anything", "a.NEF")
    assert raw.is_raw(b"\0\0\0\x18ftypcrx \0\0\0\1", "a") and raw.is_raw(b"FUJIFILMCCD-RAW 0201", "a")
    assert not raw.is_raw(data.replace(b"\x12\xc6", b"\x13\xc6").replace(b"\x23\x80", b"\2\0"), "scan.tif")
    assert not raw.is_raw(jpeg_preview(portrait), "a.nef")  # saved under the wrong name


def test_the_date_is_that_of_the_shot(portrait: UInt8) -> None:
    data = dng(portrait)
    assert taken_of(data) == "2021-07-15T10:20:30+02:00"
    assert taken_of(b"IIRO" + data[4:], "a.orf") == "2021-07-15T10:20:30+02:00"
    assert taken_of(data[:500], "a.dng") is None
    exif = data[8:]
    assert taken_of(b"\0\0\0\x18ftypcrx " + exif, "a.cr3") is None


def test_what_cannot_be_read_is_one_line(portrait: UInt8, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dng(portrait)
    for bad in (data[:200], data[:8], b"FUJIFILMCCD-RAW" + bytes(500), b"\0\0\0\x18ftypcrx " + bytes(500)):
        with pytest.raises(
            ImageError, match=r"^a\.dng: the raw photo cannot be read \([^\n]+\); copy it again"
        ) as told:
            read_image_bytes(bad, "a.dng")
        assert "\n" not in str(told.value)
    monkeypatch.setenv("FACEPIPE_MAX_PIXELS", "1000")
    with pytest.raises(ImageError, match="320x512 is larger than 1,000 pixels"):
        read_image_bytes(data, "a.dng")
    monkeypatch.delenv("FACEPIPE_MAX_PIXELS")
    monkeypatch.setattr(raw, "is_installed", lambda library: False)
    with pytest.raises(ImageError, match=r"a\.dng: is a raw photo, which rawpy reads; pip install 'facepipe\[raw\]'"):
        read_image_bytes(data, "a.dng")


def test_data_that_end_early_are_no_picture(portrait: UInt8) -> None:
    data = dng(portrait)
    ((_, start),) = tiff_numbers(data, frozenset({273}))
    cells = data[start : start + 320 * 512 * 2]
    place = data.index(b"\x11\x01\4\0\1\0\0\0" + start.to_bytes(4, "little")) + 8
    moved = data[:place] + len(data).to_bytes(4, "little") + data[place + 4 :]
    assert read_image_bytes(moved + cells, "a.dng").size == (320, 512)
    with pytest.raises(ImageError, match=r"the raw photo cannot be read \(Input/output error\)"):
        read_image_bytes(moved + cells[:-1000], "a.dng")


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 799), st.integers(0, 255)), min_size=1, max_size=20))
def test_a_changed_header_ends_in_a_picture_or_one_line(portrait: UInt8, changes: list[tuple[int, int]]) -> None:
    data = bytearray(dng(np.ascontiguousarray(portrait[:96, :64])))
    for place, value in changes:
        data[-1 - place] = value
    try:
        read_image_bytes(bytes(data), "a.dng")
    except ImageError as error:
        assert str(error).startswith("a.dng: ")


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 4)])
def test_a_sensor_without_colours_gives_grey(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"size": (12, 16), "whole": False, "turn": 1, "shape": shape}
    pixels = np.full(shape, 77, np.uint8).tobytes()
    monkeypatch.setattr(raw, "_ask", lambda what, *_: (facts, b"" if what == "preview" else pixels))
    size, _, rgb = raw.decode_raw(b"", "a.dng", None, 1000, lambda data, side: pytest.fail("there is no preview"))
    assert (size, rgb.shape, rgb.min(), rgb.max()) == ((12, 16), (8, 6, 3), 77, 77)


@given(st.binary(max_size=300))
def test_directories_of_any_bytes_end(data: bytes) -> None:
    list(tiff_numbers(b"II*\0\x08\0\0\0" + data, frozenset({262})))
    raw.is_raw(b"MM\0*\0\0\0\x08" + data, "a")


def test_rawpy_is_imported_for_raw_photos_alone(tmp_path: Path, portrait: UInt8) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_preview(portrait))
    code = (
        f"import sys, facepipe; facepipe.detect({str(tmp_path / 'a.jpg')!r}); assert 'rawpy' not in sys.modules; "
        "from facepipe.images import find_images; list(find_images(['.'])); assert 'rawpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@given(
    st.lists(
        st.sampled_from(["a.CR2", "a.jpg", "A.HEIC", "b.nef", "b.png", "c/a.dng", "c/a.jpeg", "a.dng"]), unique=True
    )
)
def test_a_raw_photo_beside_its_jpeg_is_one_photo(names: list[str]) -> None:
    twice = beside(names)
    assert all(name.endswith((".CR2", ".dng", ".nef")) for name in twice)
    assert ("a.CR2" in twice) == ("a.CR2" in names and bool({"a.jpg", "A.HEIC"} & set(names)))
    assert "b.nef" not in twice  # a PNG may be a picture made of it


def test_beside_its_jpeg_it_is_counted_unless_that_is_excluded(tmp_path: Path) -> None:
    for name in ("1.CR2", "1.JPG", "2.NEF", "3.dng", "3.heic"):
        (tmp_path / name).write_bytes(b"")
    met = Passing()
    found = [source.name for source in find_sources([str(tmp_path)], passing=met)]
    assert [Path(name).name for name in found] == ["1.JPG", "2.NEF", "3.heic"]
    assert met.told() == "2 raw photos beside their JPEGs"
    met = Passing()
    assert sorted(source.name for source in find_sources([f"{tmp_path}/*.*"], passing=met)) == sorted(found)
    assert met.told() == "2 raw photos beside their JPEGs"
    met = Passing()
    named = [str(path) for path in tmp_path.iterdir()]
    assert sorted(source.name for source in find_sources(named, passing=met)) == sorted(found)
    assert met.told() == "2 raw photos beside their JPEGs"
    met = Passing(["*.JPG"])
    assert [path.name for path in find_images([tmp_path], rules=met.rules(str(tmp_path)))] == [
        "1.CR2",
        "2.NEF",
        "3.heic",
    ]
    assert met.told() == "1 raw photo beside its JPEG, 1 excluded"


def test_without_the_extra_it_is_counted_with_what_would_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.CR2", "2.NEF", "2.jpg"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(passing, "is_installed", lambda library: False)
    met = Passing()
    assert [Path(source.name).name for source in find_sources([str(tmp_path)], passing=met)] == ["2.jpg"]
    assert met.told() == "1 raw photo (pip install 'facepipe[raw]' reads them), 1 raw photo beside its JPEG"


def test_a_raw_photo_that_is_named_is_read_or_fails(tmp_path: Path, portrait: UInt8) -> None:
    (tmp_path / "1.dng").write_bytes(dng(portrait))
    (source,) = find_sources([str(tmp_path / "1.dng")])
    assert read_image_bytes(source.load(), source.name).size == (320, 512)
    (tmp_path / "2.dng").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"2\.dng: the raw photo cannot be read"):
        detect(tmp_path / "2.dng")
