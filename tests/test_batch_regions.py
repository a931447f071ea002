"""Sidecars as an output of a batch: what should be there, nothing twice, and nothing of what others wrote is lost."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import facepipe
from facepipe.cli import main
from facepipe.images import write_image
from facepipe.regions.geometry import iou
from facepipe.regions.tags import sidecar_of
from facepipe.types import Image
from tests.batch_fixtures import paint, paint_many, recognizer, run
from tests.test_regions_files import OPPOSITE, save
from tests.xmp_samples import digikam, lightroom

ROOT = Path(__file__).parent.parent


def names(photo: Path) -> list[str | None]:
    return [face.name for face in facepipe.read_regions(photo)]


def sidecars(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.glob("*.xmp"))}


def test_only_people_who_are_known_are_written_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    both = paint(photos / "both.png", "red", "green", "blue")
    paint(photos / "stranger.png", "green")
    paint(photos / "empty.png")
    (photos / "broken.png").write_bytes(b"no picture")
    counts, records = run(tmp_path / "out.jsonl", photos, sidecars=True)
    assert counts.sidecars == 1 and not counts.unwritten
    first = sidecars(photos)
    assert list(first) == ["both.png.xmp"]
    assert sorted(names(both), key=str) == ["blue", "red"]
    boxes = {face["person"]: face["box"] for record in records for face in record["faces"]}
    assert all(iou(face.box, tuple(boxes[face.name])) >= 0.99 for face in facepipe.read_regions(both))
    counts, _ = run(tmp_path / "out.jsonl", photos, sidecars=True)
    assert counts.sidecars == 0 and counts.passed == "1 sidecar"
    assert sidecars(photos) == first
    # What is written is the same from a batch from scratch: nothing hangs on what an earlier one knew.
    counts, _ = run(tmp_path / "other.jsonl", photos, sidecars=True)
    assert counts.sidecars == 0 and sidecars(photos) == first


def test_who_is_no_longer_named_loses_the_region_and_nobody_else_does(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    alone = paint(photos / "alone.png", "red")
    tagged = paint(photos / "tagged.png", "red", "blue")
    Path(sidecar_of(tagged)).write_bytes(lightroom("Mother", x=0.5, y=0.8))
    run(tmp_path / "out.jsonl", photos, sidecars=True)
    assert names(alone) == ["red"]
    assert sorted(names(tagged), key=str) == ["Mother", None, "blue", "red"]
    counts, _ = run(tmp_path / "out.jsonl", photos, who=recognizer(people=("blue",)), sidecars=True)
    assert counts.sidecars == 2
    assert not Path(sidecar_of(alone)).exists()
    assert sorted(names(tagged), key=str) == ["Mother", None, "blue"]
    run(tmp_path / "out.jsonl", photos, who=recognizer(people=("green",)), sidecars=True)
    assert Path(sidecar_of(tagged)).read_bytes() == lightroom("Mother", x=0.5, y=0.8)


def test_a_photo_that_is_gone_takes_its_regions_along(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / "stays.png", "blue")
    gone, tagged = paint(photos / "gone.png", "red"), paint(photos / "tagged.png", "red")
    Path(sidecar_of(tagged)).write_bytes(digikam("Mother", x=0.5, y=0.8))
    run(tmp_path / "out.jsonl", photos, sidecars=True)
    gone.unlink()
    tagged.unlink()
    run(tmp_path / "out.jsonl", photos, sidecars=True)
    assert list(sidecars(photos)) == ["stays.png.xmp", "tagged.png.xmp"]
    assert Path(sidecar_of(tagged)).read_bytes() == digikam("Mother", x=0.5, y=0.8)


def test_a_photo_that_cannot_be_read_any_more_keeps_its_regions(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "a.png", "red")
    run(tmp_path / "out.jsonl", photo.parent, sidecars=True)
    before = sidecars(photo.parent)
    photo.write_bytes(b"damaged")
    counts, _ = run(tmp_path / "out.jsonl", photo.parent, sidecars=True)
    assert counts.failed == 1 and sidecars(photo.parent) == before


def test_a_deleted_sidecar_is_made_again_and_members_of_archives_have_none(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "a.png", "red")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photo, "b.png")
    roots = (tmp_path / "photos", tmp_path / "photos.zip")
    run(tmp_path / "out.jsonl", *roots, sidecars=True)
    Path(sidecar_of(photo)).unlink()
    run(tmp_path / "out.jsonl", *roots, sidecars=True)
    assert [path.name for path in tmp_path.rglob("*.xmp")] == ["a.png.xmp"]


def test_a_sidecar_that_cannot_be_written_stops_nothing_else_and_is_told(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    broken, whole = paint(photos / "a.png", "red"), paint(photos / "b.png", "red")
    Path(sidecar_of(broken)).write_text("no XMP")
    told: list[str] = []
    counts, records = run(tmp_path / "out.jsonl", photos, tell=told.append, sidecars=True)
    assert counts.unwritten == 1 and len(records) == 2
    assert told == [f"{sidecar_of(broken)}: is not XML (syntax error, line 1); it is left as it is"]
    assert names(whole) == ["red"]
    assert Path(sidecar_of(broken)).read_text() == "no XMP"


def test_a_photo_whose_sidecar_would_have_too_long_a_name_stops_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / f"{'x' * 251}.png", "red")
    other = paint(photos / "other\n%d.png", "red")
    told: list[str] = []
    counts, _ = run(tmp_path / "out.jsonl", photos, tell=told.append, sidecars=True)
    assert counts.unwritten == 1 and "File name too long" in told[0] and names(other) == ["red"]


def test_what_a_killed_run_left_unfinished_is_taken_away(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "a.png", "red")
    stray, fresh = photo.with_name(".0123456789abcdef.tmp"), photo.with_name(".fedcba9876543210.tmp")
    for path in (stray, fresh):
        path.write_bytes(b"half a side")
    os.utime(stray, (time.time() - 3600,) * 2)
    run(tmp_path / "out.jsonl", photo.parent, sidecars=True)
    assert not stray.exists() and fresh.exists()


def test_a_killed_batch_ends_as_if_nobody_had_killed_it(tmp_path: Path) -> None:
    photos = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in photos.values():
        paint_many(folder, 60)
        Path(sidecar_of(folder / "0003.png")).write_bytes(lightroom("Mother", x=0.9, y=0.9))
    code = (
        "import sys; from pathlib import Path; from tests.batch_fixtures import run\n"
        "print('begun', flush=True); run(Path(sys.argv[1]), Path(sys.argv[2]), sidecars=True)\n"
    )

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, str(tmp_path / f"{name}.jsonl"), str(photos[name])]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    started = time.monotonic()
    with start("whole") as process:
        assert process.wait() == 0
    takes = time.monotonic() - started
    whole = {name: data for name, (data, _) in sidecars(photos["whole"]).items()}
    assert len(whole) > 20
    for share in (0.5, 0.7, 0.8, 0.9):
        with start("killed") as process:
            time.sleep(share * takes)
            process.kill()
        for name, (data, _) in sidecars(photos["killed"]).items():
            assert data in (whole[name], lightroom("Mother", x=0.9, y=0.9))
    with start("killed") as process:
        assert process.wait() == 0
    assert {name: data for name, (data, _) in sidecars(photos["killed"]).items()} == whole


# With the real networks, as a user does it

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


@pytest.fixture(scope="module")
def group(astronaut: Image, hopper: Image) -> Image:
    """Both portraits beside each other."""
    both = np.zeros((600, 1024, 3), np.uint8)
    both[:512, :512], both[:, 512:] = astronaut.rgb, hopper.rgb
    return Image(both)


@pytest.fixture
def people(tmp_path: Path, astronaut: Image, hopper: Image) -> Path:
    folder = tmp_path / "people"
    write_image(folder / "Eileen Collins" / "portrait.jpg", astronaut.rgb)
    write_image(folder / "Grace Hopper" / "portrait.jpg", hopper.rgb)
    return folder


@pytest.mark.models
def test_every_orientation_through_a_batch_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Run, group: Image, people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for turn in OPPOSITE:
        (tmp_path / "photos").mkdir(exist_ok=True)
        save(tmp_path / "photos" / f"{turn}.jpg", turn, rgb=group.rgb)
    assert command("enroll", people)[0] == 0
    code, out, _ = command("batch", "photos", "--out", "r.jsonl", "--regions", "sidecar")
    assert code == 0 and "8 sidecars were written, changed or removed" in out
    for line in Path("r.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        tagged = {face.name: face for face in facepipe.read_regions(record["path"])}
        assert set(tagged) == {"Eileen Collins", "Grace Hopper"}
        for face in record["faces"]:
            assert iou(tagged[face["person"]].box, tuple(face["box"])) >= 0.99
    assert "written, changed" not in command("batch", "photos", "--out", "r.jsonl", "--regions", "sidecar")[1]
    # The same from the results, and looked up again.
    before = sidecars(tmp_path / "photos")
    assert command("regions", "write", "r.jsonl")[1] == "sidecars: 8 as they were\n"
    assert command("regions", "write", "photos/6.jpg")[1] == "sidecars: 1 as they were\n"
    assert sidecars(tmp_path / "photos") == before
    # facepipe's own guesses are no proof of who somebody is.
    code, _, err = command("enroll", "--from-regions", "photos", "--gallery", "other")
    assert code == 3 and "nobody is tagged in 8 photos" in err
    code, out, _ = command("gallery", "remove", "Grace Hopper")
    code, out, _ = command("batch", "photos", "--out", "r.jsonl", "--regions", "sidecar")
    assert names(Path("photos/5.jpg")) == ["Eileen Collins"]
    assert command("regions", "remove", "photos")[1] == "sidecars: 8 removed\n"
    assert not sidecars(tmp_path / "photos")


@pytest.mark.models
@pytest.mark.parametrize("turn", [1, 6])
def test_everybody_who_was_tagged_elsewhere_is_enrolled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Run, group: Image, turn: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tagged").mkdir()
    # A program that takes in hair and chin, and means the displayed picture whatever the orientation says.
    photo = save(tmp_path / "tagged" / "group.jpg", turn, rgb=group.rgb)
    astronaut = digikam("Eileen Collins", x=223 / 1024, y=110 / 600, width=150 / 1024, height=160 / 600)
    Path(sidecar_of(photo)).write_bytes(astronaut)
    (tmp_path / "tagged" / "group.xmp").write_bytes(
        digikam("Grace Hopper", x=785 / 1024, y=225 / 600, width=220 / 1024, height=260 / 600)
    )
    alone = save(tmp_path / "tagged" / "odd.jpg", rgb=group.rgb[:, ::-1])
    Path(sidecar_of(alone)).write_bytes(digikam("Nobody\u202e", x=0.9, y=0.9, width=0.05, height=0.05))
    Path("tagged/odd.xmp").write_bytes(digikam("Lamp", x=0.9, y=0.9, width=0.05, height=0.05))
    save(tmp_path / "tagged" / "untagged.jpg", rgb=group.rgb)
    code, out, err = command("enroll", "--from-regions", "tagged")
    assert code == 7 and "5 tagged faces" not in out
    assert "4 tagged faces: 2 enrolled, 1 no-name, 1 no-face" in out, out
    assert "tagged/odd.jpg: no-name:" in err and "\\u202e" in err
    assert "tagged/odd.jpg: no-face: no face found where Lamp is tagged" in err
    code, out, _ = command("identify", photo, "--json")
    faces = json.loads(out)["images"][0]["faces"] if isinstance(json.loads(out), dict) else json.loads(out)[0]["faces"]
    left, right = sorted(faces, key=lambda face: face["box"][0])
    assert (left["person"], right["person"]) == ("Eileen Collins", "Grace Hopper")
    code, out, _ = command("enroll", "--from-regions", "tagged")
    assert "2 already" in out
    with facepipe.Gallery("library") as gallery:
        outcomes = list(gallery.enroll("tagged", from_regions=True))
    assert sorted(outcome.person for outcome in outcomes if outcome.face_ids) == ["Eileen Collins", "Grace Hopper"]
    assert command("enroll", "--from-regions", "tagged", "--name", "X")[0] == 2


@pytest.mark.models
def test_from_python(tmp_path: Path, group: Image, people: Path) -> None:
    photo = save(tmp_path / "photo.jpg", 3, rgb=group.rgb)
    with facepipe.Gallery(tmp_path / "gallery") as gallery:
        assert len(list(gallery.enroll(people))) == 2
        (result,) = facepipe.Recognizer(gallery, quick=True)(photo)
    assert isinstance(result, facepipe.Recognized)
    assert facepipe.write_regions(result)
    assert not facepipe.write_regions(result)
    assert sorted(names(photo), key=str) == ["Eileen Collins", "Grace Hopper"]


def test_what_the_commands_refuse_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Run) -> None:
    monkeypatch.chdir(tmp_path)
    photo = save(tmp_path / "photo.jpg", xmp=digikam("Zoë \x85"))
    Path("bad.jsonl").write_text('{"path": "photo.jpg"}\n[]\n')
    for arguments, code, why in (
        (("write", tmp_path), 2, "a folder; use facepipe batch with --regions sidecar"),
        (("write", "r.csv"), 2, "regions are written from a batch's .catalog or .jsonl"),
        (("write", "none.jsonl"), 3, "none.jsonl: no such file"),
        (("write", "bad.jsonl"), 3, "bad.jsonl, line 2: not a record of facepipe's"),
        (("read", "none.jpg"), 3, "none.jpg: no such file"),
        (("read", "photo.jpg.xmp"), 3, "is a sidecar; name the photo"),
        (("read", "photo.jpg", "none.jpg"), 7, "none.jpg: no such file"),
    ):
        found, _, err = command("regions", *arguments)
        assert found == code, arguments
        assert why in err and "Traceback" not in err, err
    Path("photo.xmp").write_bytes(b"broken")
    code, out, err = command("regions", "read", ".")
    assert code == 0 and "1 photo, 1 tagged face, 1 person" in out
    assert "photo.xmp: is not XML" in err
    code, out, _ = command("regions", "read", photo, "--json")
    assert json.loads(out)["images"][0]["regions"] == [
        {"name": "Zoë", "box": [80.0, 90.0, 160.0, 150.0], "form": "mp", "file": str(photo), "own": False}
    ]
    assert command("regions", "remove", ".")[1] == "sidecars: none; 1 photo without one\n"


def test_permissions_of_what_is_written(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    new, there = paint(photos / "new.png", "red"), paint(photos / "there.png", "red")
    Path(sidecar_of(there)).write_bytes(digikam("Mother", x=0.5, y=0.8))
    Path(sidecar_of(there)).chmod(0o664)
    run(tmp_path / "out.jsonl", photos, sidecars=True)
    modes = [stat.S_IMODE(Path(sidecar_of(path)).stat().st_mode) for path in (new, there)]
    assert modes == [0o600, 0o664]
