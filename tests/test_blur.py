"""Covered faces: nobody is found or named in a copy, nothing of the original's metadata goes along, and no input is touched."""

from __future__ import annotations

import io
import json
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageCms
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st

import facepipe
from facepipe import anonymise
from facepipe.anonymise import blur
from facepipe.cli import main
from facepipe.errors import UsageError
from facepipe.files.guard import MARK
from facepipe.images import find_images, read_image
from facepipe.images.recoding import form_of
from facepipe.images.taken import tags_of, taken_of
from facepipe.images.video import open_video
from facepipe.outputs.covers import STYLES, Style, covered, region
from facepipe.types import Image, UInt8
from tests.raws import dng
from tests.videos import cut_off, pan, write_video

ANNA = b"Anna Secret"


@pytest.fixture(scope="module")
def portrait(astronaut: Image) -> UInt8:
    return np.ascontiguousarray(astronaut.rgb[:, 60:460])


@pytest.fixture(scope="module")
def pair(astronaut: Image, hopper: Image) -> UInt8:
    """Return Eileen Collins on the left and Grace Hopper on the right."""
    return np.concatenate([astronaut.rgb, hopper.rgb[:512]], axis=1)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, astronaut: Image) -> facepipe.Gallery:
    made = facepipe.Gallery(tmp_path_factory.mktemp("gallery") / "gallery")
    list(made.enroll([astronaut], name="Anna"))
    return made


# ---- pixels ----

boxes = st.tuples(st.integers(-30, 90), st.integers(-30, 90), st.integers(1, 60), st.integers(1, 60)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@given(st.lists(boxes, max_size=3), st.sampled_from(STYLES))
def test_nothing_but_the_boxes_and_their_margin_changes(found: list[tuple[int, int, int, int]], style: Style) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    before = rgb.copy()
    out = covered(rgb, found, style)
    assert np.array_equal(rgb, before) and out.shape == rgb.shape
    outside = np.ones(rgb.shape[:2], bool)
    for box in found:
        x1, y1, x2, y2 = region(box, 80, 70)
        outside[y1:y2, x1:x2] = False
        assert x1 <= max(0, min(80, box[0])) and x2 >= min(80, max(0, box[2]))
    assert np.array_equal(out[outside], rgb[outside])
    if style == "solid" and not outside.all():
        assert len(np.unique(out[~outside])) == 1


def test_a_mosaic_keeps_a_few_averages_and_a_blur_no_more(portrait: UInt8) -> None:
    x1, y1, x2, y2 = region((100, 100, 200, 220), portrait.shape[1], portrait.shape[0])
    mosaic = covered(portrait, [(100, 100, 200, 220)], "mosaic")[y1:y2, x1:x2]
    assert len(np.unique(mosaic.reshape(-1, 3), axis=0)) <= 7 * 7
    smooth = covered(portrait, [(100, 100, 200, 220)], "blur")[y1:y2, x1:x2].astype(int)
    assert np.abs(np.diff(smooth, axis=0)).max() < np.abs(np.diff(mosaic.astype(int), axis=0)).max()


# ---- files ----


def with_everything(rgb: UInt8, path: Path) -> None:
    """Write a JPEG that lies on its side, with a face in its thumbnail and secrets wherever a JPEG has room for them."""
    picture = PIL.Image.fromarray(np.ascontiguousarray(np.rot90(rgb)))
    small = io.BytesIO()
    PIL.Image.fromarray(rgb).resize((120, 160)).save(small, "JPEG")
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x927C] = 6, ANNA.decode(), ANNA
    exif.get_ifd(0x8825)[1] = ANNA.decode()
    exif.get_ifd(0x8769)[0x927C] = small.getvalue()
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + ANNA + b"</x:xmpmeta>"
    picture.save(path, quality=83, subsampling=2, exif=exif, icc_profile=profile, comment=ANNA, xmp=xmp)
    with path.open("ab") as file:  # the video of a motion photo, and a picture behind the picture
        file.write(b"\0\0\0\x18ftypmp42" + ANNA + small.getvalue())


def test_a_copy_stands_upright_without_faces_and_metadata(tmp_path: Path, portrait: UInt8) -> None:
    (tmp_path / "in").mkdir()
    with_everything(portrait, tmp_path / "in" / "a.jpg")
    assert len(facepipe.detect(tmp_path / "in" / "a.jpg")) == 1
    (one,) = blur(tmp_path / "in", tmp_path / "out")
    assert (one.covered, one.kept, one.error, one.out) == (1, 0, None, tmp_path / "out" / "a.jpg")
    data = (tmp_path / "out" / "a.jpg").read_bytes()
    assert ANNA not in data and data.count(b"\xff\xd8\xff") == 1 and data.endswith(b"\xff\xd9") and b"Exif" not in data
    assert facepipe.detect(data) == ()
    with PIL.Image.open(io.BytesIO(data)) as copy, PIL.Image.open(tmp_path / "in" / "a.jpg") as original:
        assert copy.size == (portrait.shape[1], portrait.shape[0])
        assert copy.info["icc_profile"] == original.info["icc_profile"]
        assert copy.quantization == original.quantization  # type: ignore[attr-defined]
        assert set(copy.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "icc_profile", "comment", "dpi"}
        assert copy.info["comment"].startswith(MARK.encode())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".heic"])
def test_of_the_exif_data_the_date_alone_goes_along(tmp_path: Path, portrait: UInt8, suffix: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0110], exif[0x0132] = ANNA.decode(), "2001:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8769).update({0x9003: "2019:05:04 10:11:12", 0x9011: "+02:00", 0x927C: ANNA, 0x9286: ANNA})
    path, picture = tmp_path / f"a{suffix}", PIL.Image.fromarray(portrait)
    (pillow_heif.from_pillow(picture) if suffix == ".heic" else picture).save(path, exif=exif.tobytes())
    os.utime(path, (0, 1_000_000_000))
    for unchanged in (False, True):
        (one,) = blur(path, tmp_path / "out")
        assert one.out is not None and one.unchanged == unchanged and one.out.stat().st_mtime == 1_000_000_000
        data = one.out.read_bytes()
    assert ANNA not in data and b"2001" not in data and taken_of(data) == "2019-05-04T10:11:12+02:00"
    with PIL.Image.open(io.BytesIO(data)) as copy:
        written = copy.getexif()
        dates = written.get_ifd(0x8769)
        assert dates == {0x9003: "2019:05:04 10:11:12", 0x9011: "+02:00"}
        assert not written.get_ifd(0x8825) and 0x0110 not in written and 0x927C not in dates


@given(st.text(max_size=30), st.text(max_size=10))
def test_a_date_is_a_date_and_nothing_else_in_a_copy(date: str, zone: str) -> None:
    exif = PIL.Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: date, 0x9011: zone})
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    form = form_of(file.getvalue(), "a.jpg")
    assert all(re.fullmatch(r"[\d: +-]+", text) for text in tags_of(form.taken).values())
    assert taken_of(form.encode(np.zeros((8, 8, 3), np.uint8), "")) == form.taken


Save = Callable[[PIL.Image.Image, Path], object]
FORMS: dict[str, tuple[Save, str]] = {
    "a.png": (lambda picture, path: picture.save(path), "a.png"),
    "a.bmp": (lambda picture, path: picture.save(path), "a.bmp"),
    "a.tif": (lambda picture, path: picture.save(path), "a.tif"),
    "a.webp": (lambda picture, path: picture.save(path, lossless=True), "a.webp"),
    "a.jpeg": (lambda picture, path: picture.save(path), "a.jpeg"),
    "grey.jpg": (lambda picture, path: picture.convert("L").save(path), "grey.jpg"),
    "cmyk.jpg": (lambda picture, path: picture.convert("CMYK").save(path), "cmyk.jpg"),
    "alpha.png": (lambda picture, path: picture.convert("RGBA").save(path), "alpha.png"),
    "wrong.png": (lambda picture, path: picture.save(path, "JPEG"), "wrong.png.jpg"),
    "a.tga": (lambda picture, path: picture.save(path), "a.tga.png"),
    "a.avif": (lambda picture, path: picture.save(path), "a.avif.jpg"),
    "a.heic": (lambda picture, path: pillow_heif.from_pillow(picture).save(path), "a.heic.jpg"),
    "raw.dng": (lambda picture, path: path.write_bytes(dng(np.asarray(picture))), "raw.dng.jpg"),
    "a.gif": (lambda picture, path: picture.save(path, save_all=True, append_images=[picture.rotate(9)]), "a.gif.png"),
    "b.webp": (lambda picture, path: picture.save(path, save_all=True, append_images=[picture.rotate(9)]), "b.webp"),
    "b.tif": (lambda picture, path: picture.save(path, save_all=True, append_images=[picture.rotate(9)]), "b.tif"),
    "b.png": (lambda picture, path: picture.save(path, save_all=True, append_images=[picture.rotate(9)]), "b.png"),
}


def test_every_format_is_covered_and_only_the_first_frame_goes_along(tmp_path: Path, portrait: UInt8) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (save, _) in FORMS.items():
        save(PIL.Image.fromarray(portrait), folder / name)
    done = {Path(one.path).name: one for one in blur(folder, tmp_path / "out")}
    assert {name: one.out and one.out.name for name, one in done.items()} == {
        name: copy for name, (_, copy) in FORMS.items()
    }
    for name, one in done.items():
        assert one.out is not None and one.covered >= 1, name
        assert one.frames == (2 if name in {"a.gif", "b.webp", "b.tif", "b.png"} else 1)
        with PIL.Image.open(one.out) as copy:
            assert getattr(copy, "n_frames", 1) == 1
        shown = read_image(one.out)
        assert not [face for face in facepipe.detect(shown, second_chance=False) if not face.doubtful], name
    x1, y1, x2, y2 = region(facepipe.detect(portrait)[0].box, portrait.shape[1], portrait.shape[0])
    pixels = read_image(tmp_path / "out" / "a.png").rgb
    assert np.array_equal(pixels[y2 + 9 :], portrait[y2 + 9 :])  # nothing is lost beside the cover
    assert len(np.unique(pixels[y1 + 9 : y2 - 9, x1 + 9 : x2 - 9])) == 1


def test_what_damages_everything_but_the_pixels_stops_nothing(tmp_path: Path) -> None:
    grey = io.BytesIO()
    PIL.Image.new("RGB", (60, 60), "grey").save(grey, "PNG")
    head, rest = grey.getvalue()[:33], grey.getvalue()[33:]
    text = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(200_000_000))
    bomb = (len(text) - 4).to_bytes(4) + text + zlib.crc32(text).to_bytes(4)
    (tmp_path / "a.png").write_bytes(head + bomb + rest)
    (one,) = blur(tmp_path / "a.png", tmp_path / "out")
    assert (one.out, one.error) == (tmp_path / "out" / "a.png", None)


def test_what_cannot_be_read_is_not_copied_and_leaves_no_older_copy(tmp_path: Path, portrait: UInt8) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PIL.Image.fromarray(portrait).save(folder / "a.jpg")
    PIL.Image.fromarray(portrait).save(folder / "b.gif")
    list(blur(folder, tmp_path / "out"))
    for name in ("a.jpg", "b.gif"):
        (folder / name).write_bytes((folder / name).read_bytes()[:900])
    (folder / "notes.txt").write_text("no picture")
    done = list(blur(folder, tmp_path / "out"))
    assert [(one.out, one.error is None) for one in done] == [(None, False)] * 2
    assert list(find_images([tmp_path / "out"])) == []


def test_a_second_run_writes_what_changed(tmp_path: Path, portrait: UInt8) -> None:
    folder, out = tmp_path / "in", tmp_path / "in" / "covered"  # the copies may lie below the photos
    folder.mkdir()
    PIL.Image.fromarray(portrait).save(folder / "a.jpg")
    PIL.Image.fromarray(portrait[:, ::-1]).save(folder / "b.png")

    def run(style: Style = "solid") -> list[tuple[str, bool]]:
        return [(Path(one.path).name, one.unchanged) for one in blur(folder, out, style=style) if one.covered]

    assert run() == [("a.jpg", False), ("b.png", False)]
    written = (out / "a.jpg").stat().st_mtime_ns
    assert run() == [("a.jpg", True), ("b.png", True)]
    PIL.Image.fromarray(portrait).save(folder / "b.png")
    assert run() == [("a.jpg", True), ("b.png", False)]
    assert (out / "a.jpg").stat().st_mtime_ns == written
    assert run("mosaic") == [("a.jpg", False), ("b.png", False)]


def test_copies_keep_their_folders_and_never_meet(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(np.full((60, 60, 3), 90, np.uint8))
    for name in ("one/a.png", "one/deep/a.png", "two/a.png", "two/A.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        grey.save(tmp_path / name)
    outs = [one.out for one in blur([tmp_path / "one", tmp_path / "two"], tmp_path / "out")]
    assert len({str(out).casefold() for out in outs}) == 4
    assert {tmp_path / "out" / "a.png", tmp_path / "out" / "deep" / "a.png"} <= set(outs)


def test_no_input_and_nobody_elses_file_is_written_over(tmp_path: Path, portrait: UInt8) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PIL.Image.fromarray(portrait).save(folder / "a.jpg")
    before = (folder / "a.jpg").read_bytes()
    for out in (folder, tmp_path):
        with pytest.raises(UsageError, match="choose another folder"):
            blur(folder, out)
    with pytest.raises(UsageError, match="holds photos that no batch wrote"):
        blur(folder / "a.jpg", folder)
    list(blur(folder, tmp_path / "out"))
    (tmp_path / "out" / "a.jpg").unlink()
    (tmp_path / "out" / "a.jpg").symlink_to(folder / "a.jpg")
    (one,) = blur(folder, tmp_path / "out")
    assert one.error is not None and "facepipe did not write it" in one.error
    assert (folder / "a.jpg").read_bytes() == before


# ---- who stays ----


def test_only_who_is_named_and_certain_stays(
    tmp_path: Path, pair: UInt8, gallery: facepipe.Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pair.png"
    PIL.Image.fromarray(pair).save(path)

    def faces(**who: object) -> list[str]:
        (one,) = blur(path, tmp_path / "out", gallery=gallery, **who)  # type: ignore[arg-type]
        assert one.out is not None
        found = facepipe.Recognizer(gallery)([str(one.out)])
        return [face.person or "unknown" for photo in found for face in photo.predictions]

    assert faces(keep=["Anna"]) == ["Anna"]
    assert faces(only_unknown=True) == ["Anna"]
    monkeypatch.setattr(anonymise, "SURE", 1.1)
    assert faces(keep=["Anna"]) == []
    monkeypatch.undo()
    assert faces() == []
    with pytest.raises(UsageError, match=r"no person named 'Ana'.*Anna"):
        blur(path, tmp_path / "out", keep=["Ana"], gallery=gallery)
    with pytest.raises(UsageError, match="need the gallery"):
        blur(path, tmp_path / "out", keep=["Anna"])


# ---- videos ----


def test_every_frame_of_a_video_is_covered(tmp_path: Path, astronaut: Image, gallery: facepipe.Gallery) -> None:
    (tmp_path / "clips").mkdir()
    clip = write_video(tmp_path / "clips" / "clip.avi", pan(astronaut.rgb, 1.0, (320, 240)), codec="mpeg4")
    (one,) = blur(tmp_path / "clips", tmp_path / "out")
    assert (one.out, one.covered >= 1, one.error) == (tmp_path / "out" / "clip.avi.mp4", True, None)
    assert one.out is not None
    with open_video(one.out, "copy", every_seconds=0.0) as video, open_video(clip, "clip", every_seconds=0.0) as first:
        frames = list(video.frames())
        assert len(frames) == len(list(first.frames())) == 10
        assert not [
            face for frame in frames for face in facepipe.detect(frame.image, second_chance=False) if not face.doubtful
        ]
    assert one.frames == 10
    (again,) = blur(clip, tmp_path / "out")
    assert again.unchanged and again.frames == 10


def test_of_two_people_in_a_video_one_can_stay(tmp_path: Path, pair: UInt8, gallery: facepipe.Gallery) -> None:
    clip = write_video(tmp_path / "clip.mp4", (pair for _ in range(10)))

    def seen(**who: object) -> set[tuple[str, ...]]:
        (one,) = blur(clip, tmp_path / "out", gallery=gallery, **who)  # type: ignore[arg-type]
        assert one.out is not None and one.error is None and one.kept == (1 if who else 0)
        with open_video(one.out, "copy", every_seconds=0.0) as video:
            photos = list(facepipe.Recognizer(gallery)([frame.image for frame in video.frames()]))
        assert len(photos) == 10
        return {tuple(face.person or "unknown" for face in photo.predictions) for photo in photos}

    assert seen(keep=["Anna"]) == {("Anna",)}
    assert seen(only_unknown=True) == {("Anna",)}
    assert seen() == {()}


def test_a_damaged_video_is_said_each_time(
    tmp_path: Path, pair: UInt8, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = cut_off(write_video(tmp_path / "whole.mkv", pan(pair, 4.0)), 0.9)
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["blur", str(clip), "--out", "out"])
        said = capfd.readouterr().err
        assert ended.value.code == 7 and "cut off" in said
        assert (tmp_path / "out" / clip.name).is_file()


# ---- the command ----


def test_the_command_says_what_to_look_at(
    tmp_path: Path, portrait: UInt8, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    PIL.Image.fromarray(portrait).save("in/a.jpg")
    PIL.Image.fromarray(np.full((90, 90, 3), 90, np.uint8)).save("in/grey.png")
    Path("in/bad.jpg").write_bytes(b"\xff\xd8\xff")
    Path("in/notes.txt").write_text("notes")

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["blur", *arguments])
        return ended.value.code, *capfd.readouterr()

    code, out, err = run("in", "--out", "out")
    assert (code, err.count("bad.jpg")) == (7, 1)
    assert out.splitlines() == [
        "3 photos: 1 face covered, 1 failed and not copied",
        "no face was found in 1 photo; look at out/grey.png",
        "passed over: 1 other file",
        "copies: out",
    ]
    code, out, _ = run("in", "--out", "out", "--jsonl", "--exclude", "bad.jpg")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [(record["out"], record["unchanged"]) for record in records] == [
        ("out/a.jpg", True),
        ("out/grey.png", True),
    ]
    assert run("in/notes.txt", "--out", "out2")[0] == 3
    assert run("in", "--out", "in")[0] == 2
    assert run("--out", "out")[0] == 2
    assert run("in", "--out", "out", "--keep", "Anna")[0] == 5
