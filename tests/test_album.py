"""What a page shows of a pile besides its groups, and answers about people: each can be taken back, in the gallery too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.errors import UsageError
from facepipe.gallery import people as gallery_people
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore
from facepipe.groups.album import Album
from facepipe.groups.shown import CatalogPhoto, Known
from facepipe.groups.values import FaceKey
from tests.piles import content_of, fill, people, photo


def key(person: int, number: int) -> FaceKey:
    return FaceKey(content_of(f"{person}-{number}.jpg"), 0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return fill(tmp_path / "r.jsonl.catalog", people(4, 6))


@pytest.fixture
def album(place: Path, tmp_path: Path) -> Iterator[Album]:
    """Anna and Bob have names and four enrolled faces each; two other people have none."""
    with Album(place, tmp_path / "gallery") as opened:
        opened.refresh()
        for name, person in (("Anna", 1), ("Bob", 2)):
            opened.name(group_of(opened, person), name, most=4)
        yield opened


def photo_of(album: Album, content: str) -> CatalogPhoto:
    found = album.photo(content)
    assert found is not None
    return found


def group_of(album: Album, person: int) -> int:
    groups = album.table(state=None)
    return next(group.id for group in groups if photo_of(album, group.cover.content).path[0] == str(person))


def counts(album: Album) -> dict[str, tuple[int, int, int, int]]:
    return {p.name: (p.faces, p.enrolled, p.confirmed, p.recognised) for p in album.people()}


def in_gallery(album: Album) -> dict[str, int]:
    assert album._gallery is not None
    return {person.name: person.faces for person in gallery_people.people(album._gallery.database)}


def test_people_are_told_with_their_faces(album: Album, place: Path) -> None:
    assert counts(album) == {"Anna": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}
    fill(place, [*people(4, 6), photo("late.jpg", ("person 1", 40))])
    album.refresh()
    assert counts(album)["Anna"] == (7, 4, 2, 1)
    cover = album.people()[0].cover
    assert cover is not None and photo_of(album, cover.content).faces[0].person == "Anna"


def test_a_photo_is_told_with_all_its_faces(album: Album, place: Path) -> None:
    fill(place, [*people(4, 6), photo("two.jpg", ("person 1", 50), ("person 3", 51), taken="2020-01-02T03:04:05")])
    album.refresh()
    found = photo_of(album, content_of("two.jpg"))
    assert (found.path, found.width, found.height, found.taken) == ("two.jpg", 1000, 400, "2020-01-02T03:04:05")
    assert [(face.person, face.status) for face in found.faces] == [("Anna", "recognised"), (None, None)]
    assert found.faces[1].group == group_of(album, 3)
    assert album.photo("0" * 64) is None


def test_the_nearest_enrolled_faces_are_found(album: Album) -> None:
    found = album.nearest(key(1, 0), 3)
    assert [face.person for face in found] == ["Anna"] * 3
    assert found[0].similarity >= found[1].similarity > 0.4
    assert all(face.key is not None and face.key != key(1, 0) for face in found)
    assert [face.person for face in album.nearest(key(1, 0), 9, person="Bob")] == ["Bob"] * 4
    with pytest.raises(UsageError):
        album.nearest(FaceKey("0" * 64, 0))


def test_photos_are_found_as_their_paths_are(album: Album) -> None:
    asked: list[dict[str, Any]] = [{"with_": ["Anna"]}, {"without": ["Anna"], "since": "2013"}, {"unknown": True}]
    for wanted in asked:
        found = [photo.path for photo in album.find_photos(**wanted)]
        assert found == list(album.find(**wanted))
        assert found


def test_progress_says_whether_somebody_writes(album: Album, place: Path) -> None:
    progress = album.progress()
    assert (progress.running, progress.photos, progress.failed) == (False, 24, 0)
    with Catalog(place, write=True):
        assert album.progress().running
        assert album.progress().running
    assert not album.progress().running
    with Catalog(place, write=True):
        pass


def test_what_another_process_groups_is_seen(album: Album, place: Path, tmp_path: Path) -> None:
    fill(place, [*people(4, 6), *people(1, 3, first=9)])
    with Album(place, tmp_path / "gallery") as other:
        other.refresh()
    assert album.progress().photos == 27
    assert sorted(group.size for group in album.table()) == [3, 6, 6]
    assert len(album.faces(group_of(album, 9))) == 3


# ---- answers about people ----


def test_a_rename_is_the_gallerys_too_and_is_taken_back(album: Album) -> None:
    album.rename("Anna", "  Anne ")
    assert in_gallery(album) == {"Anne": 4, "Bob": 4}
    assert counts(album) == {"Anne": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}
    assert album.answers()[0].text == "Anna is now Anne"
    assert album.undo().startswith("Anna is now Anne")
    assert in_gallery(album) == {"Anna": 4, "Bob": 4}
    assert [(answer.text, answer.undone) for answer in album.answers()[1:2]] == [("Anna is now Anne", True)]
    album.undo(album.answers()[0].number)
    assert counts(album) == {"Anne": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}


def test_a_rename_to_somebody_is_refused_and_a_former_name_can_be_given_again(album: Album) -> None:
    for name in ("Bob", "Anna", "", "a\nb"):
        with pytest.raises(UsageError):
            album.rename("Anna", name)
    with pytest.raises(UsageError):
        album.rename("Nobody", "Carl")
    rename = album.rename("Anna", "Anne")
    album.name(group_of(album, 3), "Anna")
    assert sorted(in_gallery(album)) == ["Anna", "Anne", "Bob"]
    with pytest.raises(UsageError, match="somebody else by now"):
        album.undo(rename)
    album.undo()
    album.undo(rename)
    assert counts(album) == {"Anna": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}


def test_two_people_become_one_and_two_again(album: Album) -> None:
    before = album.table(state="named")
    album.merge(["Anna", "Bob"], "Bob")
    assert in_gallery(album) == {"Bob": 8}
    assert counts(album) == {"Bob": (12, 8, 4, 0)}
    assert {group.person for group in album.table(state="named")} == {"Bob"}
    assert album.undo().startswith("the same person: Anna, Bob")
    assert in_gallery(album) == {"Anna": 4, "Bob": 4}
    assert album.table(state="named") == before
    album.merge(["Anna", "Bob"], "Carl")
    assert counts(album) == {"Carl": (12, 8, 4, 0)}
    for names, into in ((["Carl"], "Carl"), (["Carl", "Nobody"], "Carl")):
        with pytest.raises(UsageError):
            album.merge(names, into)


def test_faces_become_somebody_else_and_come_back(album: Album) -> None:
    enrolled = [face.key for face in album.person("Anna") if face.status == "enrolled" and face.key]
    confirmed = [face.key for face in album.person("Anna") if face.status == "confirmed" and face.key]
    album.split("Anna", [enrolled[0], confirmed[0]], "Carl")
    assert in_gallery(album) == {"Anna": 3, "Bob": 4, "Carl": 1}
    assert counts(album)["Carl"][1:3] == (1, 1)
    assert {face.key for face in album.person("Anna")}.isdisjoint({enrolled[0], confirmed[0]})
    album.undo()
    assert in_gallery(album) == {"Anna": 4, "Bob": 4}
    assert counts(album) == {"Anna": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}


def test_somebody_new_whose_faces_were_not_enrolled_is_enrolled(album: Album) -> None:
    confirmed = [face.key for face in album.person("Anna") if face.status == "confirmed" and face.key]
    album.split("Anna", confirmed, "Dora")
    assert in_gallery(album) == {"Anna": 4, "Bob": 4, "Dora": 2}
    album.undo()
    assert in_gallery(album) == {"Anna": 4, "Bob": 4}


def test_a_cover_is_chosen(album: Album) -> None:
    first = {person.name: person.cover for person in album.people()}
    other = next(face.key for face in album.person("Anna") if face.key != first["Anna"] and face.key)
    album.cover("Anna", other)
    assert {person.name: person.cover for person in album.people()} == {**first, "Anna": other}
    album.undo()
    assert {person.name: person.cover for person in album.people()} == first


def test_a_former_name_goes_when_its_person_is_erased(album: Album, place: Path, tmp_path: Path) -> None:
    album.rename("Anna", "Somebody Erasable")
    album.rename("Somebody Erasable", "Anna")
    album.close()
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        erase(gallery.database, "Anna")
    with Album(place, tmp_path / "gallery") as again:
        assert list(counts(again)) == ["Bob"]
    for path in place.parent.glob("r.jsonl.groups*"):
        assert b"Erasable" not in path.read_bytes()


@pytest.mark.parametrize("what", ["rename", "merge", "split"])
def test_an_answer_whose_process_died_in_the_gallery_is_completed(
    album: Album, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The worst moment: the gallery has it already, the file of the groups has only the intention."""
    keys = [face.key for face in album.person("Anna") if face.key][:3]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("facepipe.groups.answers.derive", die)
        with pytest.raises(KeyboardInterrupt):
            {
                "rename": lambda: album.rename("Anna", "Anne"),
                "merge": lambda: album.merge(["Anna"], "Bob"),
                "split": lambda: album.split("Anna", keys, "Carl"),
            }[what]()
    album.close()
    with Album(place, tmp_path / "gallery") as again:
        wanted = {"rename": ["Anne", "Bob"], "merge": ["Bob"], "split": ["Anna", "Bob", "Carl"]}[what]
        assert sorted(in_gallery(again)) == wanted
        assert sorted(counts(again)) == wanted
        again.undo()
        assert in_gallery(again) == {"Anna": 4, "Bob": 4}
        assert counts(again) == {"Anna": (6, 4, 2, 0), "Bob": (6, 4, 2, 0)}


def test_it_is_empty_where_nobody_is_known(tmp_path: Path) -> None:
    place = fill(tmp_path / "r.jsonl.catalog", people(1, 2))
    with Album(place) as album:
        album.refresh()
        assert album.people() == [] and album.nearest(key(0, 0)) == []
        assert photo_of(album, content_of("0-0.jpg")).faces[0].person is None
        album.confirm([key(0, 0)], "Anna")
        assert album.people() == [Known("Anna", 1, 0, 1, 0, 0, key(0, 0))]
        album.rename("Anna", "Anne")
        assert [person.name for person in album.people()] == ["Anne"]
