"""Regions in files: found in every container, for every orientation, written beside photos and read back by others."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import facepipe
from facepipe.errors import FacepipeError, InputError, OutputError
from facepipe.images import read_image
from facepipe.images.colours import turned
from facepipe.outputs.sidecars import change_for
from facepipe.records import Record
from facepipe.regions.embedded import frame_of, packets
from facepipe.regions.geometry import Frame, iou, shown
from facepipe.regions.tags import read_tags, sidecar_of
from facepipe.regions.xmp import XmpError, read_packet
from facepipe.types import UInt8
from tests.xmp_samples import PROGRAMS, digikam, lightroom, packet, windows

ROOT = Path(__file__).parent.parent
#: What stores a picture so that an EXIF orientation displays it.
OPPOSITE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
TURNS = range(1, 9)
ANNA, BOB = (40, 60, 100, 140), (220, 90, 300, 190)


def exiftool(*arguments: object) -> bytes:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    done = subprocess.run(["exiftool", *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def scene() -> UInt8:
    """400 x 300, with a different colour at each corner, so that every turn differs."""
    rgb = np.full((300, 400, 3), 90, np.uint8)
    rgb[:150, :200], rgb[150:, 200:], rgb[150:, :100] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    return rgb


def save(path: Path, turn: int = 1, xmp: bytes = b"", rgb: UInt8 | None = None) -> Path:
    """Save a picture that is displayed alike with every EXIF orientation."""
    displayed = scene() if rgb is None else rgb
    picture = PIL.Image.fromarray(turned(displayed, OPPOSITE[turn]))
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    suffix = path.suffix
    if suffix == ".heic":
        import pillow_heif

        heif = pillow_heif.from_pillow(picture)
        heif.info.update(exif=exif.tobytes(), xmp=xmp or None)
        heif.save(path)
    elif suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=turn % 2 == 0)
        picture.save(path, pnginfo=info, exif=exif)
    elif suffix == ".tif":
        picture.save(path, tiffinfo={0x0112: turn, **({700: xmp} if xmp else {})})
    else:
        picture.save(path, exif=exif, xmp=xmp)
    return path


def record(
    photo: Path, *people: tuple[str, tuple[float, float, float, float]], size: tuple[int, int] = (400, 300)
) -> Record:
    faces = [{"box": list(box), "person": name, "status": "known"} for name, box in people]
    return {"path": str(photo), "width": size[0], "height": size[1], "error": None, "faces": faces}


def write(photo: Path, *people: tuple[str, tuple[float, float, float, float]]) -> bytes | None:
    change = change_for(photo, record(photo, *people))
    if change is not None:
        change.make()
    sidecar = Path(sidecar_of(photo))
    return sidecar.read_bytes() if sidecar.exists() else None


# Reading


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
def test_packet_and_frame_of_every_format_and_orientation(tmp_path: Path, suffix: str, turn: int) -> None:
    photo = save(tmp_path / f"photo{suffix}", turn, windows("Zoë"))
    assert packets(photo) == [windows("Zoë")]
    frame, image = frame_of(photo), read_image(photo)
    assert frame == Frame(*((300, 400) if turn >= 5 else (400, 300)), turn)
    assert frame.displayed == (image.width, image.height)
    (tagged,) = facepipe.read_regions(photo)
    x1, y1, x2, y2 = shown((0.2, 0.3, 0.4, 0.5), turn)
    assert tagged.box == pytest.approx((x1 * 400, y1 * 300, x2 * 400, y2 * 300))
    assert (tagged.name, tagged.form, tagged.file, tagged.own) == ("Zoë", "mp", str(photo), False)


def test_extended_xmp_of_a_jpeg(tmp_path: Path) -> None:
    guid, rest = b"0123456789ABCDEF0123456789ABCDEF", digikam() + b" " * 100_000
    note = packet(
        f'<xmpNote:HasExtendedXMP xmlns:xmpNote="http://ns.adobe.com/xmp/note/">{guid.decode()}</xmpNote:HasExtendedXMP>'
    )
    segments = [b"http://ns.adobe.com/xap/1.0/\0" + note]
    for start in range(0, len(rest), 60_000):
        head = b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(rest), start)
        segments.append(head + rest[start : start + 60_000])
    segments.append(b"http://ns.adobe.com/xmp/extension/\0" + b"F" * 32 + struct.pack(">II", 3, 0) + b"old")
    data = save(tmp_path / "plain.jpg").read_bytes()
    parts = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in reversed(segments))
    (tmp_path / "photo.jpg").write_bytes(data[:2] + parts + data[2:])
    assert packets(tmp_path / "photo.jpg") == [note, rest]
    assert [face.name for face in facepipe.read_regions(tmp_path / "photo.jpg")] == ["Anna"]


def test_a_big_tiff_in_the_other_byte_order() -> None:
    from facepipe.regions.embedded import packets_in

    xmp = windows()
    small = b"MM\0*" + struct.pack(">IHHHIII", 8, 1, 700, 1, len(xmp), 26, 0) + xmp
    big = b"MM\0+" + struct.pack(">HHQQHHQQQ", 8, 0, 16, 1, 700, 7, len(xmp), 52, 0) + xmp
    assert packets_in(small) == packets_in(big) == [xmp]
    for data in (small, big):
        for cut in range(0, len(data) - len(xmp), 3):
            packets_in(data[:cut])  # no exception


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["photo.jpg.xmp", "photo.xmp", "photo.XMP"])
def test_sidecars_of_each_program(tmp_path: Path, program: str, name: str) -> None:
    photo = save(tmp_path / "photo.jpg", 8)
    (tmp_path / name).write_bytes(PROGRAMS[program]("Anna"))
    tagged = [face for face in facepipe.read_regions(photo) if face.name]
    assert [(face.name, Path(face.file).name) for face in tagged] == [("Anna", name)]


def test_what_several_files_say_of_a_face_is_one_region(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg", 1, lightroom())
    Path(sidecar_of(photo)).write_bytes(digikam())
    assert [face.name for face in facepipe.read_regions(photo)] == ["Anna", None]


def test_a_guess_of_facepipes_does_not_hide_what_somebody_said(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    write(photo, ("Anna", (80, 90, 160, 150)))
    (tmp_path / "photo.xmp").write_bytes(digikam())
    assert [(face.name, face.own) for face in facepipe.read_regions(photo)] == [("Anna", False)]


@pytest.mark.parametrize("turn", TURNS)
def test_the_reading_that_fits_the_faces_is_taken(tmp_path: Path, turn: int) -> None:
    # A program that ignores the orientation marks what it displays, one that does not marks the stored picture.
    faces = [(0.2, 0.3, 0.4, 0.5), (0.7, 0.1, 0.8, 0.3)]
    for means_displayed in (True, False):
        photo = save(tmp_path / "photo.jpg", turn)
        box = (0.3, 0.4, 0.2, 0.2)
        if not means_displayed:
            x1, y1, x2, y2 = shown((0.2, 0.3, 0.4, 0.5), OPPOSITE[turn])
            box = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        Path(sidecar_of(photo)).write_bytes(digikam("Anna", *(round(value, 6) for value in box)))
        ((tag, face),) = read_tags(photo).matched(faces)
        assert (tag.name, face) == ("Anna", 0)
        assert iou(tag.box, faces[0]) > 0.99


def test_the_size_tells_where_no_face_does(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg", 6)  # stored 300 x 400; Lightroom's sample applies to 400 x 300
    Path(sidecar_of(photo)).write_bytes(lightroom())
    assert facepipe.read_regions(photo)[0].box == pytest.approx((80, 90, 160, 150))


# Writing


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_come_back_in_every_orientation(tmp_path: Path, turn: int) -> None:
    photo = save(tmp_path / "photo.jpg", turn)
    before = photo.read_bytes()
    write(photo, ("Anna", ANNA), ("Bob", BOB))
    assert photo.read_bytes() == before
    regions = {face.name: face for face in facepipe.read_regions(photo)}
    assert iou(regions["Anna"].box, ANNA) >= 0.999 and iou(regions["Bob"].box, BOB) >= 0.999
    assert {face.own for face in regions.values()} == {True}


@pytest.mark.parametrize("turn", TURNS)
def test_exiftool_reads_what_was_written(tmp_path: Path, turn: int) -> None:
    photo = save(tmp_path / "photo.jpg", turn)
    write(photo, ('Zoë <&> "O\'Neil"', ANNA), ("Bob", BOB))
    (found,) = json.loads(exiftool("-json", "-struct", "-n", sidecar_of(photo)))
    width, height = (300, 400) if turn >= 5 else (400, 300)
    assert found["RegionInfo"]["AppliedToDimensions"] == {"W": width, "H": height, "Unit": "pixel"}
    for region, name, box in zip(
        found["RegionInfo"]["RegionList"], ('Zoë <&> "O\'Neil"', "Bob"), (ANNA, BOB), strict=True
    ):
        assert (region["Name"], region["Type"]) == (name, "Face")
        area = {key: value for key, value in region["Area"].items() if key != "Unit"}
        x, y, w, h = (area[key] for key in "XYWH")
        ours = (box[0] / 400, box[1] / 300, box[2] / 400, box[3] / 300)
        assert iou(shown((x - w / 2, y - h / 2, x + w / 2, y + h / 2), turn), ours) >= 0.99
    assert b"OK" in exiftool("-validate", sidecar_of(photo))
    for region, name in zip(found["RegionInfoMP"]["Regions"], ('Zoë <&> "O\'Neil"', "Bob"), strict=True):
        assert region["PersonDisplayName"] == name
    # The line in docs/regions.md that copies them into the photo.
    exiftool("-tagsfromfile", "%d%f.%e.xmp", "-XMP-mwg-rs:all", "-XMP-MP:all", "-overwrite_original", photo)
    assert {(face.file, face.own) for face in facepipe.read_regions(photo)} == {(str(photo), True)}
    Path(sidecar_of(photo)).unlink()
    assert [(face.name, face.file) for face in facepipe.read_regions(photo)] == [
        (n, str(photo)) for n in ('Zoë <&> "O\'Neil"', "Bob")
    ]
    assert iou(facepipe.read_regions(photo)[0].box, ANNA) >= 0.99


def test_what_was_copied_into_the_photo_is_still_facepipes(tmp_path: Path) -> None:
    """As exiftool copies it: the same numbers, without the note."""
    photo = save(tmp_path / "photo.jpg", 6)
    sidecar = write(photo, ("Anna", ANNA), ("Bob", BOB))
    assert sidecar is not None
    save(photo, 6, re.sub(rb' facepipe:Regions="[^"]*"', b"", sidecar))
    assert [(face.name, face.own) for face in facepipe.read_regions(photo)] == [("Anna", True), ("Bob", True)]
    assert change_for(photo, record(photo, ("Anna", ANNA), ("Bob", BOB))) is None
    # An answer that changed is written, and stays written, though the photo still has the old one.
    for people in ([("Carl", ANNA)], [], [("Anna", ANNA)]):
        write(photo, *people)
        assert change_for(photo, record(photo, *people)) is None
        assert [face.name for face in facepipe.read_regions(photo) if face.file != str(photo)] == [
            name for name, _ in people if name != "Anna"
        ]
        assert all(face.own for face in facepipe.read_regions(photo))
    # Without the sidecar nobody knows any more whose they are.
    Path(sidecar_of(photo)).unlink()
    assert not any(face.own for face in facepipe.read_regions(photo))
    change = change_for(photo, record(photo, ("Anna", ANNA)))
    assert change is None


def test_what_exiftool_rewrote_is_still_known(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg", 6)
    write(photo, ("Anna", ANNA), ("Bob", BOB))
    exiftool("-XMP-dc:Title=Lake", "-overwrite_original", sidecar_of(photo))
    assert [(face.name, face.own) for face in facepipe.read_regions(photo)] == [("Anna", True), ("Bob", True)]
    assert change_for(photo, record(photo, ("Anna", ANNA), ("Bob", BOB))) is None
    left = write(photo)
    assert left is not None and b"Lake" in left and not read_packet(left)[0]


def test_a_second_run_writes_nothing_and_nobody_named_leaves_no_file(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    write(photo, ("Anna", ANNA))
    sidecar = Path(sidecar_of(photo))
    assert change_for(photo, record(photo, ("Anna", ANNA))) is None
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o600
    assert write(photo) is None
    unknown = record(photo, ("Anna", ANNA))
    unknown["faces"][0].update(status="unknown", person=None)
    assert change_for(photo, unknown) is None


def test_a_sidecar_keeps_its_content_and_its_mode(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    sidecar = Path(sidecar_of(photo))
    sidecar.write_bytes(lightroom())
    sidecar.chmod(0o644)
    write(photo, ("Bob", BOB))
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o644
    assert {face.name for face in facepipe.read_regions(photo)} == {"Anna", "Bob", None}
    assert write(photo) == lightroom()


def test_a_face_at_the_border_is_cut(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    write(photo, ("Anna", (-20, -10, 50, 80)), ("Nobody", (-20, 10, 0, 80)))
    (face,) = facepipe.read_regions(photo)
    assert face.box == pytest.approx((0, 0, 50, 80), abs=0.01)


def test_a_photo_that_is_another_one_now_gets_no_regions(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match=r"has 400x300 pixels, in the results 800x600; run the batch again"):
        change_for(photo, record(photo, ("Anna", ANNA), size=(800, 600)))


def test_from_python(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    assert facepipe.write_regions(facepipe.Failed(str(photo), "broken")) is False
    assert facepipe.read_regions(photo) == []


# Hostile


def _link(path: Path) -> None:
    (path.parent / "elsewhere").write_bytes(digikam())
    path.symlink_to("elsewhere")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "is a folder"),
    "a pipe": (os.mkfifo, "is a pipe"),
    "a link": (_link, "is a link"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "a gigabyte": (_large, "has more than 16,000,000 bytes"),
    "no XML": (lambda path: path.write_bytes(b"hello"), "is not XML"),
}


def _as_it_was(path: Path) -> tuple[int, ...]:
    info = path.lstat()
    return info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns


@pytest.mark.parametrize("case", HOSTILE)
def test_a_sidecar_that_cannot_be_written_is_one_line_and_stays(tmp_path: Path, case: str) -> None:
    make, why = HOSTILE[case]
    photo = save(tmp_path / "photo.jpg")
    sidecar = Path(sidecar_of(photo))
    make(sidecar)
    before = _as_it_was(sidecar)
    with pytest.raises((InputError, OutputError), match=why) as caught:
        write(photo, ("Bob", BOB))
    assert str(sidecar) in str(caught.value) and "\n" not in str(caught.value)
    assert _as_it_was(sidecar) == before
    assert change_for(photo, record(photo)) is None  # nothing is to be said: no word about it
    assert all("\n" not in reason for _, reason in read_tags(photo).problems)


def test_a_write_protected_sidecar_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save(tmp_path / "photo.jpg")
    Path(sidecar_of(photo)).write_bytes(digikam())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # the superuser may write everything
    with pytest.raises(OutputError, match="is write-protected"):
        write(photo, ("Bob", BOB))
    assert Path(sidecar_of(photo)).read_bytes() == digikam()


def test_a_sidecar_that_changed_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    change = change_for(photo, record(photo, ("Bob", BOB)))
    assert change is not None
    Path(sidecar_of(photo)).write_bytes(digikam())
    with pytest.raises(OutputError, match="was changed by another program meanwhile"):
        change.make()
    assert Path(sidecar_of(photo)).read_bytes() == digikam()


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": None},
        {"faces": None},
        {"faces": [{}]},
        {"faces": [{"box": [1], "person": "A", "status": "known"}]},
        {"faces": [{"box": ["a"] * 4, "person": "A", "status": "known"}]},
    ],
)
def test_what_is_no_record_is_one_line(tmp_path: Path, change: Record) -> None:
    photo = save(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match="not a record"):
        change_for(photo, record(photo, ("Anna", ANNA)) | change)


def test_numbers_of_a_record_that_mean_nothing_write_nothing_odd(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    odd = [(float("nan"),) * 4, (float("inf"),) * 4, (1e308, 0, 1e309, 9), (5, 5, 5, 5), (50, 50, 10, 10)]
    write(photo, *[(f"P{number}", box) for number, box in enumerate(odd)])
    for face in facepipe.read_regions(photo):
        assert np.isfinite(face.box).all()


def _bombs() -> dict[str, bytes]:
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 40_000_000)
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    buffer = io.BytesIO()
    PIL.Image.fromarray(scene()).save(buffer, "PNG")
    png = buffer.getvalue()
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", 0xFFFFFFFF, 0) + b"rest"
    many = b"".join(
        b"\xff\xe1"
        + struct.pack(">H", 81)
        + extension[:35]
        + b"%032d" % number
        + struct.pack(">II", 15_000_000, 0)
        + b"rest"
        for number in range(1000)
    )
    return {
        "a thousand extended XMPs": b"\xff\xd8" + many,
        "a text that unpacks to much": png[:33] + chunk + png[33:],
        "extended XMP of 4 GB": b"\xff\xd8\xff\xe1" + struct.pack(">H", len(extension) + 2) + extension,
        "a TIFF tag of 4 GB": b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 700, 1, 0xFFFFFFFF, 8),
    }


@pytest.mark.parametrize("case", sorted(_bombs()))
def test_a_bomb_in_a_photo_is_passed_over_with_a_line(tmp_path: Path, case: str) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(_bombs()[case])
    with pytest.raises(XmpError, match="has more than"):
        packets(photo)
    ((file, reason),) = read_tags(photo).problems
    assert file == str(photo) and "its XMP has more than 16,000,000 bytes" in reason


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_lists_of_items_without_end_take_no_time() -> None:
    from facepipe.images.containers import heif_items

    empty_pieces = struct.pack(">IHH", 0, 0, 65535) + struct.pack(">HHH", 1, 0, 65535) * 65535
    content = _box(b"iloc", empty_pieces) + _box(b"iinf", b"\0" * 6 + _box(b"infe", b"") * 100_000)
    started = time.monotonic()
    heif_items(_box(b"ftyp", b"heic") + _box(b"meta", b"\0" * 4 + content))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
def test_a_photo_with_changed_or_missing_bytes_is_an_answer_or_a_line(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"photo{suffix}", 6, digikam()).read_bytes()
    rng = np.random.default_rng(5)
    photo = tmp_path / f"damaged{suffix}"
    started = time.monotonic()
    for number in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        for place in rng.integers(0, min(len(data), 1500), 6):
            data[place] = rng.integers(0, 256)
        photo.write_bytes(data)
        for call in (read_tags, frame_of):
            try:
                call(photo)
            except FacepipeError as error:
                assert "\n" not in str(error)
    assert time.monotonic() - started < 60


def test_a_writer_that_is_killed_leaves_the_old_sidecar_or_the_new_one(tmp_path: Path) -> None:
    photo = save(tmp_path / "photo.jpg")
    sidecar = Path(sidecar_of(photo))
    sidecar.write_bytes(digikam())
    code = (
        "import sys; from pathlib import Path; from tests.test_regions_files import ANNA, BOB, write\n"
        f"photo = Path({str(photo)!r}); print('begun', flush=True)\n"
        "while True:\n    write(photo, ('Bob', BOB)); write(photo)\n"
    )
    both = {digikam()}
    write(photo, ("Bob", BOB))
    both.add(sidecar.read_bytes())
    for pause in (0.02, 0.05, 0.08, 0.11):
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause)
            process.kill()
        assert sidecar.read_bytes() in both
