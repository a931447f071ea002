"""`facepipe scan`, `cluster`, `name` and `find` as a user runs them; a batch before anybody is enrolled."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.cli import main
from facepipe.gallery import people as gallery_people
from facepipe.gallery.store import GalleryStore
from facepipe.groups.album import Album
from facepipe.images import write_image
from facepipe.images.samples import portraits
from facepipe.review import running
from tests.piles import fill, people, photo

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def facepipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `facepipe ARGUMENTS` in an empty folder; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as raised:
            main([*map(str, arguments)])
        code = raised.value.code
        assert isinstance(code, int)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    photos = [
        *people(3, 5),
        photo("both.jpg", ("person 0", 30), ("person 1", 30), taken="2022-02-03T00:00:00"),
        photo("alone.jpg", ("nobody", 1)),
    ]
    return fill(tmp_path / "pile.catalog", photos)


def enrolled() -> dict[str, int]:
    with GalleryStore.open(Path("gallery")) as gallery:
        return {person.name: person.faces for person in gallery_people.people(gallery.database)}


@pytest.mark.usefixtures("pile")
def test_from_a_pile_to_people_with_names(facepipe: Run) -> None:
    code, out, err = facepipe("cluster")
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:2] == ["group", "faces"]
    assert [line.split()[1] for line in lines[1:4]] == ["6", "6", "5"]
    assert "18 faces: 17 in 3 groups, 1 alone; threshold 0." in lines[4]
    assert 'facepipe name 1 "NAME" --catalog pile.catalog' in err
    code, out, _ = facepipe("name", "1", "Anna", "--most", "4")
    assert code == 0 and out == "group 1 is Anna: 4 of 6 faces enrolled; facepipe name --undo takes it back\n"
    assert enrolled() == {"Anna": 4}
    assert facepipe("name", "1", "anna", "--most", "4") == (0, "group 1 is Anna already\n", "")
    code, out, _ = facepipe("enroll", "--group", "2", "--name", "Bob", "--catalog", "pile.catalog")
    assert code == 0 and out.startswith("group 2 is Bob: 6 of 6 faces enrolled")
    assert facepipe("find", "--with", "Anna", "--with", "Bob")[1] == "both.jpg\n"
    assert len(facepipe("find", "pile.catalog", "--with", "Anna", "--without", "Bob", "-0")[1].split("\0")) == 6
    assert facepipe("find", "--with", "Anna", "--since", "2023") == (0, "", "")
    code, out, _ = facepipe("name", "--undo")
    assert code == 0 and re.fullmatch(
        r"taken back: group 2 is Bob: 6 of 6 faces enrolled \(said on \d{4}-\d\d-\d\d at \d\d:\d\d\)\n", out
    )
    assert enrolled() == {"Anna": 4}


@pytest.mark.usefixtures("pile")
def test_groups_as_json(facepipe: Run) -> None:
    code, out, err = facepipe("cluster", "--json", "--min-size", "1")
    found = json.loads(out)
    assert code == 0 and err == ""
    assert {name: found[name] for name in ("schema_version", "faces", "alone", "added")} == {
        **{"schema_version": 1, "faces": 18, "alone": 1, "added": 18}
    }
    assert [group["size"] for group in found["groups"]] == [6, 6, 5, 1]
    first = found["groups"][0]
    assert {face["path"] for face in first["faces"]} >= {"both.jpg"}
    assert first["faces"][0]["status"] == "in" and first["last"] == "2022-02-03T00:00:00"


def test_the_numbers_below_the_table_add_up(facepipe: Run, pile: Path) -> None:
    def told(*arguments: str) -> dict[str, int]:
        found = json.loads(facepipe("cluster", "--json", *arguments)[1])
        parts = {name: found[name] for name in ("grouped", "alone", "waiting", "known", "aside")}
        line = facepipe("cluster", *arguments)[1].splitlines()[-1]
        total, *numbers = [
            int(number) for number in re.findall(r"\d+(?= )", line.partition("; threshold")[0].replace("faces:", " "))
        ]
        groups = int(re.findall(r"in (\d+) group", line)[0]) if parts["grouped"] else 0
        assert total == found["faces"] == sum(parts.values())
        assert sorted(numbers) == sorted([*filter(None, parts.values()), *([groups] if groups else [])])
        return parts

    assert told() == {"grouped": 17, "alone": 1, "waiting": 0, "known": 0, "aside": 0}
    fill(pile, [*people(5, 5), photo("alone.jpg", ("nobody", 1)), photo("sign.jpg", ("thing", 1, 0.5))])
    assert told() == {"grouped": 25, "alone": 1, "waiting": 1, "known": 0, "aside": 0}
    with Album("pile.catalog", "gallery") as groups:
        first, second, third, *_ = groups.table()
        groups.name(first.id, "Anna", most=2)
        groups.ignore(second.id)
        groups.skip(third.id)
        groups.confirm([groups.faces(groups.table()[-1].id)[0].key], "Bob")
    assert told() == {"grouped": 10, "alone": 0, "waiting": 1, "known": 6, "aside": 10}
    assert told("--min-size", "1", "--top", "1") == told("--min-size", "9")


def test_groups_as_a_page_and_as_pictures(facepipe: Run, pile: Path, tmp_path: Path) -> None:
    hostile = [photo("<img src=x onerror=alert(1)>.jpg", ("person 2", 40)), photo("\x1b[31m.jpg", ("person 2", 41))]
    fill(
        pile,
        [
            *people(3, 5),
            photo("both.jpg", ("person 0", 30), ("person 1", 30)),
            photo("alone.jpg", ("nobody", 1)),
            *hostile,
        ],
    )
    with sqlite3.connect(pile) as connection:
        connection.execute("INSERT INTO thumbnail SELECT content, 0, x'ffd8ff' FROM photo")
    connection.close()
    code, _, err = facepipe("cluster", "--page", "page.html", "--crops", "crops")
    assert code == 0 and "written: page.html" in err
    page = (tmp_path / "page.html").read_text()
    assert "<img src=x" not in page and "\x1b" not in page and "data:image/jpeg;base64" in page
    assert "default-src 'none'" in page and "<script" not in page
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0
    assert len(list(tmp_path.glob("crops/group-0001/*.jpg"))) >= 5
    assert facepipe("cluster", "--page", "page.html", "--crops", "crops", "--min-size", "7")[0] == 0
    assert len(list(tmp_path.glob("crops/group-*"))) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    assert facepipe("cluster", "--crops", "mine")[0] == 2
    assert facepipe("cluster", "--page", "mine/photo.jpg")[0] == 2
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"mine"


def test_what_cannot_be_done_is_one_line(facepipe: Run, tmp_path: Path) -> None:
    code, _, err = facepipe("cluster")
    assert code == 3 and "there is no catalog in this folder" in err
    fill(tmp_path / "one.catalog", people(1, 2))
    code, _, err = facepipe("name", "1", "Anna")
    assert code == 3 and "facepipe cluster one.catalog" in err
    assert facepipe("cluster", "one.catalog")[0] == 0
    code, _, err = facepipe("name", "9", "Anna")
    assert code == 2 and "there is no group 9" in err
    assert facepipe("name", "1")[0] == facepipe("name")[0] == facepipe("find")[0] == 2
    code, _, err = facepipe("find", "--with", "Nobody")
    assert code == 2 and "nobody named 'Nobody'" in err
    assert facepipe("find", "--since", "last week")[0] == 2
    assert facepipe("enroll", "--group", "1")[0] == facepipe("enroll")[0] == 2
    fill(tmp_path / "two.catalog", people(1, 2))
    code, _, err = facepipe("cluster")
    assert code == 2 and "which catalog? Name one of one.catalog, two.catalog" in err


def test_results_stand_for_the_catalog_beside_them(facepipe: Run, tmp_path: Path) -> None:
    fill(tmp_path / "r.jsonl.catalog", people(1, 3))
    (tmp_path / "r.jsonl").touch()
    assert "3 faces: 3 in 1 group;" in facepipe("cluster", "r.jsonl")[1]
    assert (tmp_path / "r.jsonl.groups").exists()


def test_every_command_takes_the_catalog_as_an_option(
    facepipe: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facepipe.review.running.run", lambda *_, **__: None)
    for name in ("one", "two"):
        fill(tmp_path / f"{name}.catalog", people(2, 3))
    assert facepipe("cluster", "--catalog", "one.catalog")[0] == 0
    assert facepipe("name", "1", "Anna", "--catalog", "one.catalog")[0] == 0
    found = facepipe("find", "--catalog", "one.catalog", "--with", "Anna")
    assert found == facepipe("find", "one.catalog", "--with", "Anna") and found[0] == 0 and found[1]
    assert facepipe("review", "--catalog", "one.catalog")[0] == 0
    code, _, err = facepipe("find", "two.catalog", "--catalog", "one.catalog", "--with", "Anna")
    assert code == 2 and "give the catalog once" in err
    monkeypatch.setenv("FACEPIPE_CATALOG", "one.catalog")
    assert facepipe("find", "--with", "Anna") == found
    assert facepipe("find", "--group", "1")[0] == 0
    assert facepipe("find", "two.catalog", "--group", "1")[0] == 2  # the one that is named, which is not grouped yet


@pytest.mark.usefixtures("pile")
@pytest.mark.parametrize("command", [("cluster",), ("find", "--unknown"), ("review",)])
def test_a_wrong_catalog_is_answered_with_the_right_one(facepipe: Run, command: Sequence[str]) -> None:
    code, _, err = facepipe(*command, "pil.catalog")
    assert code == 3 and err == "facepipe: pil.catalog: no such catalog; here is pile.catalog\n"
    assert "here is pile.catalog" in facepipe("name", "1", "Anna", "--catalog", "pil.catalog")[2]


# With the networks


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, image in enumerate(portraits().values()):
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_image(tmp_path / "photos" / f"{number}.jpg", image.rgb)
    return tmp_path / "photos"


@pytest.mark.models
def test_a_scan_alone(facepipe: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    code, out, err = facepipe("scan", "photos", "--catalog", "pile.catalog")
    assert code == 7 and "broken.jpg: cannot be read as an image" in err
    assert "3 photos, 3 photos scanned in" in out and "2 faces" in out
    assert "facepipe cluster pile.catalog groups the faces" in out
    (photos / "broken.jpg").unlink()
    code, out, _ = facepipe("scan", "photos", "--catalog", "pile.catalog")
    assert code == 0 and "2 photos, 0 photos scanned in" in out
    with Catalog(tmp_path / "pile.catalog") as catalog:
        for content, *_ in catalog.contents():
            assert (catalog.thumbnail(content, 0) or b"").startswith(b"\xff\xd8")
    assert facepipe("scan", "nowhere", "--catalog", "pile.catalog")[0] == 3
    assert facepipe("scan", "--catalog", "pile.catalog")[0] == 2


@pytest.mark.models
@pytest.mark.usefixtures("photos")
def test_a_batch_goes_on_from_the_catalog_of_a_scan(facepipe: Run, tmp_path: Path) -> None:
    assert facepipe("scan", "photos", "--catalog", "pile.catalog")[0] == 0
    assert facepipe("cluster", "--min-size", "1")[0] == facepipe("name", "1", "Anna")[0] == 0
    code, out, err = facepipe("batch", "photos", "--out", "r.jsonl", "--catalog", "pile.catalog")
    assert code == 0 and "2 faces: 1 known" in out and "has these photos already" not in err
    assert not (tmp_path / "r.jsonl.catalog").exists()
    with Catalog("pile.catalog") as catalog:
        assert "".join(f"{line}\n" for line in catalog.lines()) == (tmp_path / "r.jsonl").read_text()
    assert facepipe("batch", "photos", "--out", "r.jsonl", "--catalog", "pile.catalog")[0] == 0
    (tmp_path / "mine.csv").write_text("mine")
    code, _, err = facepipe("batch", "photos", "--out", "mine.csv", "--catalog", "pile.catalog")
    assert code == 2 and "was not written by a batch" in err and (tmp_path / "mine.csv").read_text() == "mine"
    err = facepipe("batch", "photos", "--out", "other.jsonl")[2]
    assert "pile.catalog has these photos already: --catalog pile.catalog goes on from it" in err
    assert "has these photos" not in facepipe("batch", "photos", "--out", "other.jsonl")[2]


@pytest.mark.models
@pytest.mark.usefixtures("photos")
def test_a_batch_before_anybody_is_enrolled(facepipe: Run, tmp_path: Path) -> None:
    code, out, err = facepipe("batch", "photos", "--out", "r.jsonl")
    assert code == 0 and "2 faces: 0 known, 0 ambiguous, 2 unknown" in out
    assert "nobody is enrolled yet" in err and "facepipe cluster r.jsonl.catalog" in err
    records = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [face["status"] for record in records for face in record["faces"]] == ["unknown", "unknown"]
    assert facepipe("cluster", "--min-size", "1")[0] == 0
    assert facepipe("name", "1", "Grace Hopper")[0] == facepipe("name", "2", "Eileen Collins")[0] == 0
    code, out, err = facepipe("batch", "photos", "--out", "r.jsonl")
    assert code == 0 and "2 faces: 2 known" in out and "0 scanned" not in out and "compared again" in err
    shutil.rmtree(tmp_path / "gallery")
    code, _, err = facepipe(
        "batch", "photos", "--out", "r.jsonl"
    )  # it is missed: results with names are not thrown away
    assert code == 5 and "no gallery here" in err
    code, _, err = facepipe("batch", "photos", "--out", "other.jsonl", "--gallery", "elsewhere")
    assert code == 5 and "no gallery here" in err


@pytest.mark.models
def test_a_face_by_its_number(facepipe: Run, tmp_path: Path) -> None:
    import numpy as np

    first, second = (image.rgb for image in portraits().values())
    height = min(first.shape[0], second.shape[0])
    write_image(tmp_path / "two.jpg", np.ascontiguousarray(np.hstack([first[:height], second[:height]])))
    write_image(tmp_path / "one.jpg", first)
    answers = [facepipe("verify", "one.jpg", "two.jpg", "--face", str(number))[0] for number in (1, 2)]
    assert sorted(answers) == [0, 1]
    right = 1 + answers.index(0)
    assert facepipe("verify", "two.jpg", "two.jpg", "--face", "1", "--face", "2")[0] == 1
    code, _, err = facepipe("verify", "one.jpg", "two.jpg", "--face", "3")
    assert code == 4 and "has no face 3, but 2 faces" in err
    assert facepipe("enroll", "two.jpg", "--name", "Ann", "--face", str(right))[0] == 0
    assert facepipe("enroll", "two.jpg", "--name", "Bob", "--face", "7")[0] == 4
    assert "Ann" in facepipe("identify", "one.jpg")[1]
    assert facepipe("gallery", "not", "Ann", "two.jpg", "--face", str(3 - right))[0] == 0


@pytest.mark.usefixtures("pile")
def test_review_says_before_there_is_a_page_what_it_cannot_do(facepipe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facepipe.review.running.run", lambda *_, **__: pytest.fail("it serves a page"))
    with sqlite3.connect("pile.catalog") as db:  # as --no-keep-embeddings leaves it
        db.execute("DELETE FROM description")
    code, _, err = facepipe("review", "pile.catalog")
    assert code == 3 and len(err.splitlines()) == 1 and "--keep-embeddings" in err


@pytest.mark.usefixtures("pile")
def test_review_keeps_the_threshold_that_cluster_was_asked_for(facepipe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(open: Callable[[], Album], *_: object, **__: object) -> None:
        with open() as groups:
            before = groups.table()
        running._refresh(open)
        with open() as groups:
            assert groups.table() == before

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert facepipe("cluster", "--threshold", "0.9")[0] == 0
    code, _, err = facepipe("review")
    assert code == 0 and "joined down to 0.9" in err
    assert facepipe("cluster")[0] == 0
    assert "joined down" not in facepipe("review")[2]


@pytest.mark.usefixtures("pile")
def test_review_where_no_answer_can_be_kept_is_refused(facepipe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facepipe.review.running.run", lambda *_, **__: pytest.fail("it serves a page"))
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK and access(path, mode))
    code, _, err = facepipe("review", "pile.catalog")
    assert code == 3 and "pile.catalog: its folder cannot be written" in err


@pytest.mark.models
def test_a_scan_of_another_folder_says_what_it_leaves_out(facepipe: Run, tmp_path: Path) -> None:
    for folder, image in zip(("one", "two"), portraits().values(), strict=True):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.jpg", image.rgb)
    assert facepipe("scan", "one", "--catalog", "c.catalog")[2] == ""
    code, _, err = facepipe("scan", "two", "--catalog", "c.catalog")
    assert code == 0 and "1 photo of an earlier scan is not among these any more" in err
    assert facepipe("scan", "one", "two", "--catalog", "c.catalog")[2] == ""
