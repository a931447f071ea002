"""Sorting photos into folders: every photo where it belongs, nobody's name an escape, a second run changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from facepipe.errors import InputError, OutputError
from facepipe.outputs.sorting import How, Sorter, folders_of
from facepipe.records import Record, to_record
from facepipe.types import Candidate, Failed, Prediction, Recognized, Status
from tests.fakes import face_at


def photo(path: Path | str, *answers: str, error: str | None = None) -> Record:
    """A photo with a face for each answer: a name, `?` for an unknown, `??` for an ambiguous face."""
    predictions = []
    for number, answer in enumerate(answers):
        status = {"?": Status.UNKNOWN, "??": Status.AMBIGUOUS}.get(answer, Status.KNOWN)
        person = answer if status is Status.KNOWN else None
        face = face_at(60 * number, 10, 50)
        predictions.append(Prediction(face, status, person, 0.5, None, 0.4, (Candidate("Ada", 0.5),)))
    return to_record(
        Recognized(str(path), 320, 240, tuple(predictions), "m") if error is None else Failed(str(path), error)
    )


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not (p.is_dir() or p.name[0] == "."))


def make(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_each_photo_is_where_it_belongs_and_a_second_run_changes_nothing(tmp_path: Path, how: How) -> None:
    group = make(tmp_path / "in/a/1.jpg", b"group")
    again = make(tmp_path / "in/b/1.jpg", b"other")
    wall = make(tmp_path / "in/wall.jpg", b"wall")
    for _ in range(2):
        sorter = Sorter(tmp_path / "out", how)
        sorter.add(photo(group, "Ada", "?", "Ada", "??"))
        sorter.add(photo(again, "Ada"))
        sorter.add(photo(wall))
        sorter.add(photo(tmp_path / "broken.jpg", error="broken"))
        assert tree(tmp_path / "out") == [
            *("ambiguous/1.jpg", "no-face/wall.jpg", "people/Ada/1-2.jpg", "people/Ada/1.jpg", "unknown/1.jpg"),
        ]
    assert (tmp_path / "out/people/Ada/1-2.jpg").read_bytes() == b"other"
    assert (tmp_path / "out/people/Ada/1.jpg").is_symlink() == (how == "link")


def test_people_who_are_called_like_a_folder_are_kept_apart() -> None:
    assert [str(f) for f in folders_of(photo("x", "unknown", "?", "no-face"))] == [
        *("people/unknown", "people/no-face", "unknown"),
    ]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".hidden", "", "con", "x" * 300])
def test_a_hostile_name_stays_in_the_folder(tmp_path: Path, name: str) -> None:
    source = make(tmp_path / "1.jpg", b"x")
    (place,) = Sorter(tmp_path / "out").add(photo(source, name))
    assert place.parent.parent == tmp_path / "out" / "people"
    assert place.read_bytes() == b"x"


def test_a_photo_in_an_archive_is_written_as_a_copy(tmp_path: Path) -> None:
    member = photo("album.zip!/day/1.jpg", "Ada")
    for _ in range(2):
        (place,) = Sorter(tmp_path / "out").add(member, data=b"bytes")
    assert tree(tmp_path / "out") == ["people/Ada/1.jpg"]
    assert place.read_bytes() == b"bytes" and not place.is_symlink()


def test_a_photo_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file to sort"):
        Sorter(tmp_path / "out").add(photo(tmp_path / "gone.jpg", "Ada"))


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_a_renamed_person_leaves_nothing_behind_but_what_others_put_there(tmp_path: Path, how: How) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    two = make(tmp_path / "in/2.jpg", b"two")
    Sorter(tmp_path / "out", how).add(photo(one, "Ada"))
    Sorter(tmp_path / "out", how).add(photo(two, "Bob"))
    make(tmp_path / "out/people/Bob/mine.jpg", b"mine")
    Sorter(tmp_path / "out", how).add(photo(one, "Eve"))
    Sorter(tmp_path / "out", how).add(photo(two, "Eve"))
    assert tree(tmp_path / "out") == ["people/Bob/mine.jpg", "people/Eve/1.jpg", "people/Eve/2.jpg"]
    assert not (tmp_path / "out/people/Ada").exists() and one.read_bytes() == b"one"


def test_only_links_to_deleted_photos_are_taken_away(tmp_path: Path) -> None:
    for how in ("link", "copy"):
        one = make(tmp_path / how / "1.jpg", b"one")
        unplugged = make(tmp_path / how / "disk" / "2.jpg", b"two")
        sorter = Sorter(tmp_path / f"{how}-out", how)
        sorter.add(photo(one, "Ada"))
        sorter.add(photo(unplugged, "Ada"))
        one.unlink()
        unplugged.parent.rename(tmp_path / how / "aside")
        Sorter(tmp_path / f"{how}-out", how).tidy()
    assert tree(tmp_path / "link-out") == ["people/Ada/2.jpg"]  # its whole folder is away: perhaps a disk
    assert tree(tmp_path / "copy-out") == ["people/Ada/1.jpg", "people/Ada/2.jpg"]


def test_a_list_that_is_damaged_or_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    make(tmp_path / "out" / ".facepipe-sorted", b'\xff\xfe\n[1]\n{"photo": 1}\n')
    (place,) = Sorter(tmp_path / "out").add(photo(one, "Ada"))
    assert place.exists()
    (tmp_path / "bad" / ".facepipe-sorted").mkdir(parents=True)
    with pytest.raises(OutputError, match="facepipe-sorted: cannot be sorted"):
        Sorter(tmp_path / "bad")


def test_a_place_that_cannot_be_changed_is_a_planned_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    Sorter(tmp_path / "out").add(photo(one, "Ada"))

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match=r"1\.jpg: cannot be sorted"):
        Sorter(tmp_path / "out").add(photo(one, "Eve"))


def test_copies_take_the_place_of_links(tmp_path: Path) -> None:
    one = make(tmp_path / "in/1.jpg", b"one")
    for how in ("link", "copy", "hardlink", "link", "copy"):
        (place,) = Sorter(tmp_path / "out", how).add(photo(one, "Ada"))
        assert tree(tmp_path / "out") == ["people/Ada/1.jpg"] and place.is_symlink() == (how == "link")
        assert how == "link" or place.samefile(one) == (how == "hardlink")


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_what_a_killed_run_placed_is_known_as_its_own(
    tmp_path: Path, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make(tmp_path / "in/group.jpg", b"group")

    class KilledError(Exception):
        pass

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        sorter = Sorter(tmp_path / "out", how)
        written = sorter._list

        def killed(entry: dict[str, object]) -> None:
            if "places" in entry:
                with (tmp_path / "out/.facepipe-sorted").open("a") as file:
                    file.write('{"photo": "half a li')
                raise KilledError
            written(entry)

        patched.setattr(sorter, "_list", killed)
        sorter.add(photo(group, "Ada", "?"))
    assert tree(tmp_path / "out") == ["people/Ada/group.jpg", "unknown/group.jpg"]
    Sorter(tmp_path / "out", how).add(photo(group, "Ada"))
    assert tree(tmp_path / "out") == ["people/Ada/group.jpg"]
    Sorter(tmp_path / "out", how).add(photo(group, "?"))
    assert tree(tmp_path / "out") == ["unknown/group.jpg"]


def test_a_file_of_somebody_else_where_a_killed_run_had_begun_is_left_alone(tmp_path: Path) -> None:
    mine = make(tmp_path / "in/mine.jpg", b"mine")
    make(tmp_path / "out/unknown/mine.jpg", b"theirs")
    line = f'{{"photo": "{mine}", "begun": ["unknown/mine.jpg", "copy"]}}\n'
    make(tmp_path / "out/.facepipe-sorted", line.encode())
    Sorter(tmp_path / "out", "copy").add(photo(mine, "?"))
    Sorter(tmp_path / "out", "copy").add(photo(mine))
    assert tree(tmp_path / "out") == ["no-face/mine.jpg", "unknown/mine.jpg"]
