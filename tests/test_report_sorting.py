"""Sorting photos into folders: every photo where it belongs, nobody's name an escape, a second run changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from facepipe.errors import OutputError
from facepipe.outputs.kinds import How, Sorted, folders_of
from facepipe.outputs.sync import Decided, Fate, synchronise
from facepipe.records import Record, to_record
from facepipe.types import Candidate, Failed, Prediction, Recognized, Status
from tests.batch_fixtures import paint, recognizer, run
from tests.fakes import face_at


def photo(path: Path | str, *answers: str, error: str | None = None) -> Record:
    """A photo with a face for each answer: a name, `?` an unknown one, `?Bob` one who is probably Bob, `??` an ambiguous one."""
    predictions = []
    for number, answer in enumerate(answers):
        status = Status.AMBIGUOUS if answer == "??" else Status.UNKNOWN if answer[:1] == "?" else Status.KNOWN
        likely = answer[1:] or None if status is Status.UNKNOWN else None
        person = answer if status is Status.KNOWN else None
        face = face_at(60 * number, 10, 50)
        predictions.append(Prediction(face, status, person, 0.5, None, 0.4, (Candidate("Ada", 0.5),), likely))
    return to_record(
        Recognized(str(path), 320, 240, tuple(predictions), "m") if error is None else Failed(str(path), error)
    )


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not (p.is_dir() or p.name[0] == "."))


def make(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fate(name: str) -> Fate:
    """What became of a photo that is not sorted now."""
    if Path(name).exists():
        return "listed"
    return "gone" if Path(name).parent.is_dir() else "away"


def sort(folder: Path, records: Sequence[Record], how: How = "link", data: bytes | None = None) -> list[str]:
    """Sort photos as a batch does; return the names of those that are not what the results say. data: of a member of an archive."""
    photos = []
    for record in records:
        path = Path(record["path"])
        content = data if data is not None else path.read_bytes() if path.exists() else b""
        digest = hashlib.sha256(content).hexdigest()
        photos.append(
            Decided(str(path), digest, record, path if data is None else None, lambda content=content: content)  # type: ignore[misc]
        )
    output = Sorted(folder, folder.parent / "r.jsonl", how)
    with contextlib.closing(output):
        return synchronise(photos, [output], fate)


HOWS: list[How] = ["link", "hardlink", "copy"]


@pytest.mark.parametrize("how", HOWS)
def test_each_photo_is_where_it_belongs_and_a_second_run_changes_nothing(tmp_path: Path, how: How) -> None:
    group = make(tmp_path / "in/a/1.jpg", b"group")
    again = make(tmp_path / "in/b/1.jpg", b"other")
    wall = make(tmp_path / "in/wall.jpg", b"wall")
    records = [
        photo(group, "Ada", "?", "Ada", "??"),
        photo(again, "Ada"),
        photo(wall),
        photo(tmp_path / "broken.jpg", error="broken"),
    ]
    times = []
    for _ in range(2):
        sort(tmp_path / "out", records, how)
        assert tree(tmp_path / "out") == [
            *("ambiguous/1.jpg", "no-face/wall.jpg", "people/Ada/1-2.jpg", "people/Ada/1.jpg", "unknown/1.jpg"),
        ]
        times.append([(tmp_path / "out" / name).lstat().st_mtime_ns for name in tree(tmp_path / "out")])
    assert times[0] == times[1]
    assert (tmp_path / "out/people/Ada/1-2.jpg").read_bytes() == b"other"
    assert (tmp_path / "out/people/Ada/1.jpg").is_symlink() == (how == "link")


def test_people_who_are_called_like_a_folder_are_kept_apart() -> None:
    assert [str(f) for f in folders_of(photo("x", "Ada", "?Bob", "?Bob", "?"))] == [
        "people/Ada",
        "maybe/Bob",
        "unknown",
    ]
    assert [str(f) for f in folders_of(photo("x", "unknown", "?", "no-face"))] == [
        *("people/unknown", "people/no-face", "unknown"),
    ]


@pytest.mark.parametrize("how", HOWS)
def test_a_photo_whose_name_is_no_utf8_is_sorted_as_any_other(tmp_path: Path, how: How) -> None:
    """The list of what was written holds names, of links and batches too, as text."""
    bad = paint(tmp_path / os.fsdecode(b"in\xfe/bad\xff.png"), "red")
    folder, out = tmp_path / os.fsdecode(b"out\xfd"), tmp_path / os.fsdecode(b"r\xfc.jsonl")
    before = 0
    for _ in range(2):
        run(out, bad.parent, sort_into=folder, sort_how=how)
        (name,) = tree(folder)
        assert name.startswith("people/red/bad_udcff-") and name.endswith(".png")
        assert (folder / name).read_bytes() == bad.read_bytes()
        assert before in (0, before := (folder / name).lstat().st_mtime_ns)
    run(out, bad.parent, who=recognizer(people=("green",)), sort_into=folder, sort_how=how)
    assert [str(Path(name).parent) for name in tree(folder)] == ["unknown"]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".hidden", "", "con", "x" * 300])
def test_a_hostile_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "1.jpg", b"x")
    sort(tmp_path / "out", [photo(source, name)])
    (place,) = (tmp_path / "out" / "people").rglob("1.jpg")
    assert place.parent.parent == tmp_path / "out" / "people" and place.read_bytes() == b"x"


def test_a_photo_in_an_archive_is_written_as_a_copy(tmp_path: Path) -> None:
    for _ in range(2):
        sort(tmp_path / "out", [photo("album.zip!/day/1.jpg", "Ada")], data=b"bytes")
        assert tree(tmp_path / "out") == ["people/Ada/1.jpg"]
    place = tmp_path / "out" / "people/Ada/1.jpg"
    assert place.read_bytes() == b"bytes" and not place.is_symlink()


def test_a_photo_that_is_gone_is_told_of(tmp_path: Path) -> None:
    record = photo(tmp_path / "gone.jpg", "Ada")
    assert sort(tmp_path / "out", [record]) == [record["path"]] and tree(tmp_path / "out") == []


@pytest.mark.parametrize("how", HOWS)
def test_a_renamed_person_leaves_nothing_behind_but_what_others_put_there(tmp_path: Path, how: How) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    two = make(tmp_path / "in/2.jpg", b"two")
    sort(tmp_path / "out", [photo(one, "Ada"), photo(two, "Bob")], how)
    make(tmp_path / "out/people/Bob/mine.jpg", b"mine")
    sort(tmp_path / "out", [photo(one, "Eve"), photo(two, "Eve")], how)
    assert tree(tmp_path / "out") == ["people/Bob/mine.jpg", "people/Eve/1.jpg", "people/Eve/2.jpg"]
    assert not (tmp_path / "out/people/Ada").exists() and one.read_bytes() == b"one"


def test_only_links_to_deleted_photos_are_taken_away(tmp_path: Path) -> None:
    for how in HOWS:
        one = make(tmp_path / how / "1.jpg", b"one")
        unplugged = make(tmp_path / how / "disk" / "2.jpg", b"two")
        sort(tmp_path / f"{how}-out", [photo(one, "Ada"), photo(unplugged, "Ada")], how)
        one.unlink()
        unplugged.parent.rename(tmp_path / how / "aside")
        sort(tmp_path / f"{how}-out", [], how)
    assert tree(tmp_path / "link-out") == ["people/Ada/2.jpg"]  # its whole folder is away: perhaps a disk
    for how in HOWS[1:]:
        assert tree(tmp_path / f"{how}-out") == ["people/Ada/1.jpg", "people/Ada/2.jpg"]


def test_a_list_that_is_damaged_or_cannot_be_used_is_no_traceback(tmp_path: Path) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    make(tmp_path / "out" / ".facepipe-files", b"not a database, and long enough to be seen as none" * 100)
    with pytest.raises(OutputError, match="facepipe-files: cannot be used"):
        sort(tmp_path / "out", [photo(one, "Ada")])
    (tmp_path / "bad" / ".facepipe-files").mkdir(parents=True)
    with pytest.raises(OutputError, match="facepipe-files: cannot be written"):
        sort(tmp_path / "bad", [photo(one, "Ada")])
    make(tmp_path / "file", b"")
    with pytest.raises(OutputError, match=r"file/\.facepipe-files: cannot be written"):
        sort(tmp_path / "file", [photo(one, "Ada")])


def test_a_list_of_somebody_else_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    link = tmp_path / "mine.jpg"
    link.symlink_to(one)
    sort(tmp_path / "out", [photo(one, "Ada")])
    with sqlite3.connect(tmp_path / "out/.facepipe-files") as connection:
        for name in ("../mine.jpg", str(link)):
            values = (os.fsencode(one), name, f"link:{one}", f"link:{one}")
            connection.execute("INSERT INTO file VALUES ('../r.jsonl', ?, ?, ?, ?)", values)
    connection.close()
    sort(tmp_path / "out", [photo(one, "Eve")])
    assert tree(tmp_path / "out") == ["people/Eve/1.jpg"] and link.is_symlink()


def test_a_place_that_cannot_be_changed_is_a_planned_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    sort(tmp_path / "out", [photo(one, "Ada")])

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"1\.jpg: cannot be written"):
        sort(tmp_path / "out", [photo(one, "Eve")])


def test_copies_take_the_place_of_links(tmp_path: Path) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    hows: list[How] = ["link", "copy", "hardlink", "link", "copy"]
    for how in hows:
        sort(tmp_path / "out", [photo(one, "Ada")], how)
        assert tree(tmp_path / "out") == ["people/Ada/1.jpg"]
        place = tmp_path / "out/people/Ada/1.jpg"
        assert place.is_symlink() == (how == "link")
        assert how == "link" or place.samefile(one) == (how == "hardlink")


@pytest.mark.parametrize("how", HOWS)
def test_a_photo_with_other_bytes_is_placed_anew(tmp_path: Path, how: How) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    sort(tmp_path / "out", [photo(one, "Ada")], how)
    one.unlink()
    make(one, b"other")
    sort(tmp_path / "out", [photo(one, "Ada")], how)
    assert tree(tmp_path / "out") == ["people/Ada/1.jpg"]
    assert (tmp_path / "out/people/Ada/1.jpg").read_bytes() == b"other"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("moment", ["before it made them", "after it made them"])
def test_what_a_killed_run_placed_is_known_as_its_own(
    tmp_path: Path, how: How, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make(tmp_path / "in/group.jpg", b"group")

    class KilledError(Exception):
        pass

    def kill(*_: object) -> None:
        raise KilledError

    def killed_when_noted(output: Sorted, made: Sequence[object]) -> None:
        noted(output, [])
        if made:
            raise KilledError

    noted = Sorted.note
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        if moment == "before it made them":
            patched.setattr(Sorted, "make", kill)
        else:
            patched.setattr(Sorted, "note", killed_when_noted)
        sort(tmp_path / "out", [photo(group, "Ada", "?")], how)
    placed = tree(tmp_path / "out")
    assert placed == ([] if "before" in moment else ["people/Ada/group.jpg", "unknown/group.jpg"])
    sort(tmp_path / "out", [photo(group, "Ada")], how)
    assert tree(tmp_path / "out") == ["people/Ada/group.jpg"]
    sort(tmp_path / "out", [photo(group, "?")], how)
    assert tree(tmp_path / "out") == ["unknown/group.jpg"]


def test_a_file_of_somebody_else_where_a_killed_run_had_begun_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = make(tmp_path / "in/mine.jpg", b"mine")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Sorted, "make", kill)
        sort(tmp_path / "out", [photo(mine, "?")], "copy")
    make(tmp_path / "out/unknown/mine.jpg", b"theirs")
    sort(tmp_path / "out", [photo(mine, "?")], "copy")
    assert tree(tmp_path / "out") == ["unknown/mine-2.jpg", "unknown/mine.jpg"]
    sort(tmp_path / "out", [photo(mine)], "copy")
    assert tree(tmp_path / "out") == ["no-face/mine.jpg", "unknown/mine.jpg"]
    assert (tmp_path / "out/unknown/mine.jpg").read_bytes() == b"theirs"
