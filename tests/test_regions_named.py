"""Sidecars hold everybody who is named in a photo: by the gallery or by the user in a catalog's groups, and nobody who was denied."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

import facepipe
from facepipe.catalog.store import catalog_path
from facepipe.cli import main
from facepipe.gallery import people as gallery_people
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore
from facepipe.groups.groups import Groups
from facepipe.groups.said import Said, _Answered
from facepipe.groups.store import groups_path
from facepipe.groups.values import FaceKey
from facepipe.images import write_image
from facepipe.records import Record
from facepipe.types import Image
from tests.batch_fixtures import paint, recognizer, run
from tests.piles import Photo, content_of, face, fill, people, photo
from tests.xmp_samples import digikam

Run = Callable[..., tuple[int, str, str]]
CATALOG = Path("pile.catalog")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `facepipe ARGUMENTS` in an empty folder; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert isinstance(stop.value.code, int)
        return (stop.value.code, *capfd.readouterr())

    return call


def pile(*more: Photo) -> None:
    """Make a catalog of two people, and the photos that it is of."""
    photos = [
        *people(2, 4),
        photo("both.jpg", ("person 0", 30), ("person 1", 30)),
        photo("alone.jpg", ("nobody", 1)),
        *more,
    ]
    for name, _, _ in photos:
        if "!" not in name:
            write_image(Path(name), np.full((400, 1000, 3), 90, np.uint8))
    fill(CATALOG, photos)


def named() -> dict[str, list[str]]:
    """Return who is named in the sidecars that are there."""
    found = {}
    for place in sorted(Path().glob("*.xmp")):
        found[place.stem] = sorted(str(face.name) for face in facepipe.read_regions(place.with_suffix("")))
    return found


def names_in(place: str) -> list[str | None]:
    return [face.name for face in facepipe.read_regions(place)]


def group_of(name: str) -> str:
    with Groups(CATALOG, "gallery") as groups:
        return str(
            next(group.id for group in groups.table(state=None) for face in groups.faces(group.id) if face.path == name)
        )


def test_everybody_who_is_named_is_written_and_nobody_who_was_denied(command: Run) -> None:
    with zipfile.ZipFile("archive.zip", "w") as archive:
        archive.writestr("x", "")
    pile(photo("archive.zip!a.jpg", ("person 0", 50)))
    command("cluster", CATALOG)
    assert command("regions", "write", CATALOG)[0] == 0 and not named()  # nobody has a name yet
    assert command("name", group_of("0-0.jpg"), "Anna", "--most", "2", "--catalog", CATALOG)[0] == 0
    anna = {f"0-{number}.jpg": ["Anna"] for number in range(4)}
    assert command("regions", "write", "--catalog", CATALOG)[0] == 0
    assert named() == {**anna, "both.jpg": ["Anna"]}
    before = {place: place.read_bytes() for place in Path().glob("*.xmp")}
    assert command("regions", "write", CATALOG)[0] == 0
    assert {place: place.read_bytes() for place in Path().glob("*.xmp")} == before
    with Groups(CATALOG, "gallery") as groups:
        groups.confirm([FaceKey(content_of("alone.jpg"), 0)], 'Zoë <&> "O\'Neil"')
        groups.deny([FaceKey(content_of("0-3.jpg"), 0)], "Anna")
    command("regions", "write", CATALOG)
    del anna["0-3.jpg"]
    assert named() == {**anna, "both.jpg": ["Anna"], "alone.jpg": ['Zoë <&> "O\'Neil"']}
    assert facepipe.read_regions("alone.jpg")[0].box == pytest.approx(face(0).box.tolist(), abs=0.1)
    if shutil.which("exiftool") is not None:
        read = subprocess.run(["exiftool", "-json", "-struct", "alone.jpg.xmp"], capture_output=True, check=True).stdout
        assert [region["Name"] for region in json.loads(read)[0]["RegionInfo"]["RegionList"]] == ['Zoë <&> "O\'Neil"']
    command("name", "--undo", "--catalog", CATALOG)
    command("regions", "write", CATALOG)
    assert "0-3.jpg" in named()
    with GalleryStore.open(Path("gallery")) as gallery:
        gallery_people.rename(gallery.database, "Anna", "Anna Berg")
    command("regions", "write", CATALOG)
    assert {name for names in named().values() for name in names} == {"Anna Berg", 'Zoë <&> "O\'Neil"'}
    with GalleryStore.open(Path("gallery")) as gallery:
        erase(gallery.database, "Anna Berg")
    command("regions", "write", CATALOG)
    assert list(named()) == ["alone.jpg"]


def test_what_a_catalog_cannot_be_asked_for(command: Run) -> None:
    pile()
    for arguments, code, why in (
        ((CATALOG, "--threshold", "0.9"), 2, "--threshold, --margin and --repeat are for photos"),
        (("none.catalog",), 3, "none.catalog: no such catalog"),
        ((), 2, "of what? Name a CATALOG"),
    ):
        found, _, err = command("regions", "write", *arguments)
        assert found == code and why in err and "Traceback" not in err
    Path("0-0.jpg").unlink()
    command("cluster", CATALOG)
    command("name", group_of("0-0.jpg"), "Anna", "--catalog", CATALOG)
    code, _, err = command("regions", "write", CATALOG)
    assert code == 7 and "0-0.jpg: no such file" in err and "0-1.jpg" in named()


def test_a_batch_and_its_results_write_what_the_user_said(tmp_path: Path, command: Run) -> None:
    out = tmp_path / "r.jsonl"
    photos = [paint(tmp_path / f"{name}.png", *name.split("-")) for name in ("red-green", "red", "blue")]
    run(out, *photos, sidecars=True)
    assert named() == {"blue.png": ["blue"], "red-green.png": ["red"], "red.png": ["red"]}
    with Groups(catalog_path(out), tmp_path / "gallery") as groups:
        found = groups.pile
        key_of = {(Path(found.path(row)).stem, int(found.numbers[row])): found.key(row) for row in range(len(found))}
        groups.confirm([key_of["red-green", 1]], "Zoë")
        groups.confirm([key_of["blue", 0]], "red")  # both are known to be somebody, and the user knows better
        groups.deny([key_of["red", 0]], "red")
    said = {"blue.png": ["red"], "red-green.png": ["Zoë", "red"]}
    counts, records = run(out, *photos, sidecars=True)
    assert counts.sidecars == 3 and named() == said
    assert [face["status"] for face in records[0]["faces"]] == ["known", "unknown"]  # results say what the gallery says
    assert run(out, *photos, sidecars=True)[0].sidecars == 0
    assert command("regions", "write", out)[0] == 0 and named() == said
    groups_path(catalog_path(out)).write_bytes(b"no groups" * 100)
    code, _, err = command("regions", "write", out)
    assert code == 3 and err.count("\n") == 1


def test_the_counts_say_what_became_of_each_sidecar(command: Run, tmp_path: Path) -> None:
    """Of each photo: nobody named, named, named where another program wrote, a sidecar of others alone, one that is broken."""
    out = tmp_path / "r.jsonl"
    photos = [
        paint(tmp_path / f"{name}.png", colour) for name, colour in zip("abcde", ("green", *["red"] * 4), strict=True)
    ]
    for number, path in enumerate(photos):  # no two are equal
        with PIL.Image.open(path) as opened:
            pixels = np.array(opened)
        pixels[0, 0] = number
        PIL.Image.fromarray(pixels).save(path)
    Path("c.png.xmp").write_bytes(digikam("Mother", x=0.5, y=0.8))
    Path("a.png.xmp").write_bytes(digikam("Father", x=0.5, y=0.8))
    run(out, *photos)
    Path("e.png.xmp").write_bytes(b"broken")
    assert command("regions", "write", out)[1] == "sidecars: 2 written, 1 changed, 1 as they were, 1 failed\n"
    assert command("regions", "write", out)[1] == "sidecars: 4 as they were, 1 failed\n"
    run(out, *photos, who=recognizer(people=("green",)))
    Path("e.png.xmp").unlink()
    code, text, _ = command("regions", "write", out)
    assert code == 0 and text == "sidecars: 2 changed, 2 removed; 1 photo without one\n"
    paint(tmp_path / "f.png", "green")
    command("regions", "write", out)
    text = command("regions", "remove", ".")[1]
    assert text == "sidecars: 1 kept with what others wrote, 1 as they were; 4 photos without one\n"
    assert names_in("a.png") == ["Father"] and names_in("c.png") == ["Mother"]
    assert command("regions", "remove", ".")[1] == "sidecars: 2 as they were; 4 photos without one\n"
    code, text, _ = command("regions", "read", "a.png", "b.png", "none.png")
    assert code == 7 and text.splitlines()[-1] == "3 photos, 1 tagged face, 1 person; 1 failed"


@given(st.permutations(range(4)), st.integers(0, 2**32))
def test_what_was_said_follows_a_face_to_another_place(order: list[int], seed: int) -> None:
    chance = random.Random(seed)
    boxes = [face(place).box.tolist() for place in range(4)]
    said = Said(Path("nowhere.catalog"))
    said._photos["c"] = [_Answered(0, boxes[0], "Anna", set()), _Answered(1, boxes[1], None, {"Bob"})]
    record: Record = {
        "error": None,
        "faces": [
            {"box": [value + chance.uniform(-5, 5) for value in boxes[place]], "status": "known", "person": "Bob"}
            for place in order
        ],
    }
    told = said.told("c", record)
    assert {order[place]: face["person"] for place, face in enumerate(told["faces"])} == {
        0: "Anna",
        1: None,
        2: "Bob",
        3: "Bob",
    }
    assert all(face["person"] == "Bob" for face in record["faces"])  # what was given stays as it is
    assert said.told("other", record) is record


@pytest.mark.models
def test_sidecars_among_photos_that_a_shell_lists_are_passed_over(command: Run, astronaut: Image) -> None:
    """As `photos/*` names them once regions were written; alone they are refused."""
    write_image(Path("photo.jpg"), astronaut.rgb)
    assert command("enroll", "photo.jpg", "--name", "Ann")[0] == 0
    assert command("regions", "write", "photo.jpg")[1] == "sidecars: 1 written\n"
    both = ("photo.jpg", "photo.jpg.xmp")
    for arguments in (
        ("identify", *both),
        ("detect", *both),
        ("enroll", *both, "--name", "Ann"),
        ("batch", *both, "--out", "r.jsonl"),
        ("scan", *both, "--catalog", "s.catalog"),
        ("regions", "read", *both),
        ("regions", "write", *both),
        ("regions", "remove", *both),
    ):
        code, out, err = command(*arguments)
        assert code == 0 and "failed" not in out.replace("0 failed", "") and "xmp" not in err, arguments
    assert command("regions", "read", "photo.jpg.xmp")[0] == 3
    assert command("identify", "photo.jpg.xmp")[0] == 3


def test_the_table_shows_the_end_of_long_paths(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 80 columns photos are told from each other, and each has a line."""
    from rich.console import Console

    from facepipe.cli import regions
    from facepipe.regions.tags import TaggedFace

    monkeypatch.setattr(regions, "out_console", lambda: Console(width=80))
    paths = [f"a/long/way/to/holiday-2019/evening/photo-{number:04}.jpg" for number in range(9)]
    regions._print_table(
        [(path, TaggedFace("Ann Berg", (1, 2, 3, 4), "mwg-rs", f"{path}.xmp", True)) for path in paths]
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("…") and f"photo-{n:04}.jpg" in line for n, line in enumerate(lines[1:]))
    assert all("its sidecar, by facepipe" in line for line in lines[1:])
