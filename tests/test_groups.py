"""Groups of a pile: what belongs together is together, answers stay, and each can be taken back."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import facepipe
from facepipe.catalog.catalog import Catalog
from facepipe.errors import GalleryMissingError, GalleryModelError, InputError, UsageError
from facepipe.gallery import people as gallery_people
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.groups import answers, find, regroup
from facepipe.groups.groups import Groups
from facepipe.groups.pile import Pile, read_pile
from facepipe.groups.store import groups_path
from facepipe.groups.suggest import Likely, People
from facepipe.groups.values import FaceKey
from facepipe.types import DecideOptions
from tests.piles import DIM, FINGERPRINT, content_of, fill, people, photo, vector


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl.catalog"


@pytest.fixture
def groups(place: Path, tmp_path: Path) -> Iterator[Groups]:
    fill(place, people(5, 6))
    with Groups(place, tmp_path / "gallery") as opened:
        opened.refresh()
        yield opened


def together(groups: Groups, state: str | None = "open") -> list[list[str]]:
    """Return the photos of each group, sorted."""
    found = [
        [face.path for face in groups.faces(group.id) if face.status != "out"] for group in groups.table(state=state)
    ]
    return sorted(sorted(paths) for paths in found)


def group_of(groups: Groups, path: str) -> int:
    return next(
        group.id
        for group in groups.table(state=None)
        if path in [face.path for face in groups.faces(group.id) if face.status != "out"]
    )


def in_gallery(groups: Groups) -> dict[str, int]:
    gallery = groups._gallery
    return {} if gallery is None else {person.name: person.faces for person in gallery_people.people(gallery.database)}


# Grouping


def test_each_person_is_a_group(groups: Groups) -> None:
    assert together(groups) == [[f"{person}-{number}.jpg" for number in range(6)] for person in range(5)]
    first = groups.table()[0]
    assert (first.size, first.photos, first.first, first.last) == (6, 6, "2010-05-01T12:00:00", "2015-05-01T12:00:00")
    assert 0.5 < first.cohesion < 0.75
    assert first.state == "open" and first.person is None and not first.new
    assert groups.group(first.id) == first
    assert [face.key for face in groups.faces(first.id, 2, 3)] == [face.key for face in groups.faces(first.id)][2:5]


def test_faces_of_one_photo_are_never_one_group(place: Path) -> None:
    """A mirror, a collage: the same person twice in one photo."""
    fill(place, [photo(f"{number}.jpg", ("Ann", number), ("Ann", 100 + number)) for number in range(6)])
    with Groups(place) as groups:
        groups.refresh()
        for group in groups.table():
            assert group.size == group.photos


def test_doubtful_faces_wait_and_join_whom_they_are_like(place: Path) -> None:
    fill(place, [*people(2, 5), photo("blurred.jpg", ("person 1", 50, 0.5)), photo("sign.jpg", ("nobody", 1, 0.5))])
    with Groups(place) as groups:
        counts = groups.refresh()
        assert (counts.groups, counts.alone, counts.waiting) == (2, 0, 1)
        assert "blurred.jpg" in [face.path for face in groups.faces(group_of(groups, "1-0.jpg"))]
        assert all("sign.jpg" not in paths for paths in together(groups))


def test_a_refresh_of_nothing_new_changes_nothing(groups: Groups) -> None:
    before = groups.version, groups.table()
    counts = groups.refresh()
    assert (counts.added, counts.groups) == (0, 5)
    assert (groups.version, groups.table()) == before


def test_new_photos_join_the_groups_that_are_there(groups: Groups, place: Path) -> None:
    numbers = {group_of(groups, f"{person}-0.jpg") for person in range(5)}
    fill(place, [*people(5, 6), *[photo(f"late-{number}.jpg", ("person 2", 40 + number)) for number in range(4)]])
    counts = groups.refresh()
    assert (counts.added, counts.groups) == (4, 5)
    assert {group.id for group in groups.table()} == numbers
    assert groups.group(group_of(groups, "2-0.jpg")).size == 10


def test_groups_that_grew_since_last_time_are_new(groups: Groups, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facepipe.groups.regroup._ROUND", 0.0)
    fill(place, [*people(5, 6), photo("late.jpg", ("person 2", 40)), *people(1, 2, first=9)])
    groups.refresh()
    assert [group.new for group in groups.table()] == [True, True, False, False, False, False]
    assert [group.size for group in groups.table()] == [7, 2, 6, 6, 6, 6]


def test_what_arrives_in_parts_is_grouped_as_at_once(place: Path, tmp_path: Path) -> None:
    everything = people(8, 6)
    random.Random(5).shuffle(everything)
    other = fill(tmp_path / "all.catalog", everything)
    with Groups(other) as groups:
        groups.refresh()
        wanted = together(groups)
    for end in (10, 17, 30, 48):
        fill(place, everything[:end])
        with Groups(place) as groups:
            groups.refresh()
    with Groups(place) as groups:
        assert together(groups) == wanted


def test_another_threshold_groups_anew_what_nobody_said_anything_of(groups: Groups) -> None:
    named = group_of(groups, "1-0.jpg")
    groups.name(named, "Anna")
    assert groups.refresh(threshold=0.99).groups == 1
    assert groups.group(named).size == 6
    assert groups.refresh().groups == 5
    assert groups.group(named).person == "Anna"


def test_what_was_asked_for_last_can_be_kept(groups: Groups, place: Path) -> None:
    """As the review page's refresh does, while photos arrive."""
    groups.refresh(threshold=0.99)
    assert groups.asked == 0.99
    before = groups.table(), groups.version
    groups.refresh(keep=True)
    assert (groups.table(), groups.version) == before
    groups.refresh()
    assert groups.asked is None and groups.refresh(keep=True).groups == 5
    groups.name(group_of(groups, "1-0.jpg"), "Anna", most=2)
    fill(place, [*people(5, 6), photo("late.jpg", ("person 1", 40))])
    assert groups.refresh().known == 1
    assert groups.refresh(all=True).known == groups.refresh(keep=True).known == 0


def test_a_pile_of_many_people_has_a_higher_threshold(place: Path, tmp_path: Path) -> None:
    few, many = fill(place, people(3, 3)), fill(tmp_path / "many.catalog", people(200, 3))
    found = []
    for path in (few, many):
        with Groups(path) as groups:
            groups.refresh()
            assert groups.threshold is not None
            found.append(groups.threshold)
    assert found[1] > found[0] + 0.1


def test_an_empty_pile_and_one_without_embeddings(place: Path, tmp_path: Path) -> None:
    fill(place, [photo("empty.jpg")])
    with Groups(place) as groups:
        assert groups.refresh().faces == 0
        assert groups.table() == []
    fill(place, people(1, 2))
    with Catalog(place, write=True) as catalog:
        catalog.forget_vectors()
    with Groups(place) as groups, pytest.raises(InputError, match="holds no embeddings"):
        groups.refresh()


def test_a_gallery_of_another_network_is_refused(place: Path, tmp_path: Path) -> None:
    fill(place, people(1, 2))
    GalleryStore.create(tmp_path / "gallery", "other:1", 8).close()
    with pytest.raises(GalleryModelError):
        Groups(place, tmp_path / "gallery")


def test_something_else_in_the_files_place_is_refused(place: Path) -> None:
    fill(place, people(1, 2))
    connection = sqlite3.connect(groups_path(place))
    connection.execute("CREATE TABLE about (schema_version)")
    connection.close()
    with pytest.raises(InputError, match="is not a file of groups"):
        Groups(place)
    groups_path(place).write_bytes(b"nonsense" * 1000)
    with pytest.raises(InputError, match="is not a file of groups"):
        Groups(place)


def decide(place: Path, gallery: Path, **options: Any) -> list[str | None]:
    """Decide as a batch with these options; return who the records say the faces are."""
    with GalleryStore.open(gallery) as opened, Catalog(place, write=True) as catalog:
        catalog.decide(facepipe.Recognizer(opened, late=True, **options))
        return find.names_of_records(catalog, read_pile(catalog))[0]


@pytest.mark.parametrize(
    "options",
    [{"threshold": 0.8}, {"margin": 0.9}, {"repeat": True}, {"threshold": -0.5, "margin": 0.0}, {"threshold": 0.7}],
)
def test_groups_decide_as_the_last_batch_was_asked_to(
    groups: Groups, place: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    for person in range(3):
        groups.name(group_of(groups, f"{person}-0.jpg"), f"Person {person}", most=2)
    twice = photo("mirror.jpg", ("person 1", 70), ("person 1", 71))
    fill(place, [*people(5, 6), *people(5, 12), twice])
    usual = decide(place, tmp_path / "gallery")
    groups.refresh()
    assert groups._names()[0] == usual
    asked = decide(place, tmp_path / "gallery", **options)
    assert asked != usual
    assert groups._names()[0] == asked
    decide(place, tmp_path / "gallery")
    assert groups._names()[0] == usual


def test_options_in_a_catalog_from_somebody_else_are_heeded_where_they_are_ones(place: Path) -> None:
    fill(place, people(1, 1))
    for odd in ({"threshold": "0.5", "margin": 7, "repeat": "yes"}, [1], {"threshold": float("nan"), "margin": -1.0}):
        with Catalog(place, write=True) as catalog:
            catalog._note_facts({"options": odd})
            assert catalog.options == DecideOptions()


# Answers


def test_a_name_enrols_and_confirms_and_stays(groups: Groups, place: Path) -> None:
    number = group_of(groups, "1-0.jpg")
    groups.name(number, "  Anna ", most=4)
    assert in_gallery(groups) == {"Anna": 4}
    assert {face.status for face in groups.faces(number)} == {"confirmed"}
    assert groups.group(number).state == "named"
    assert len(groups.table()) == 4
    fill(place, [*people(5, 6), photo("late.jpg", ("person 1", 40))])
    groups.refresh()
    late = [face for face in groups.faces(number) if face.path == "late.jpg"]
    found = [face.path for face in groups.person("Anna")]
    assert "late.jpg" in found and found[0] == "late.jpg"
    assert not late or late[0].status == "in"
    assert [face.status for face in groups.person("Anna")].count("enrolled") == 4


def test_the_best_and_most_different_faces_are_enrolled(place: Path, tmp_path: Path) -> None:
    same = photo("again.jpg", ("Ann", 0))
    poor = photo("poor.jpg", ("Ann", 30, 0.5))
    fill(place, [*[photo(f"{number}.jpg", ("Ann", number)) for number in range(4)], same, poor])
    with Groups(place, tmp_path / "gallery") as groups:
        groups.refresh()
        groups.name(groups.table()[0].id, "Ann")
        enrolled = {face.path for face in groups.person("Ann") if face.status == "enrolled"}
        assert "poor.jpg" not in enrolled
        assert len(enrolled & {"0.jpg", "again.jpg"}) == 1
        assert len(enrolled) == 4


def test_a_face_stays_with_its_group_though_the_first_name_claims_it(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one person has a name, everybody else's face can only be hers or nobody's."""
    first, other = group_of(groups, "1-0.jpg"), group_of(groups, "2-0.jpg")
    groups.name(first, "Anna")
    before, row = together(groups), groups.pile.row(FaceKey(content_of("2-3.jpg"), 0))
    likely = People.likely

    def claimed(self: People, pile: Pile) -> Likely:
        found = likely(self, pile)
        found.person[row], found.known[row], found.cosines[row, 0] = 0, True, 0.4
        return found

    monkeypatch.setattr(People, "likely", claimed)
    groups._found = None
    assert groups.refresh().known == 0
    assert together(groups) == before
    version = groups.version
    groups.refresh()
    assert groups.version == version
    groups.name(other, "Bob")
    assert "2-3.jpg" in [face.path for face in groups.person("Bob")]
    assert "2-3.jpg" not in [face.path for face in groups.person("Anna")]


def test_a_name_in_other_letters_is_that_of_who_is_there(groups: Groups) -> None:
    first, second = group_of(groups, "1-0.jpg"), group_of(groups, "2-0.jpg")
    groups.name(first, "hal")
    groups.undo()
    groups.name(first, "Hal")
    groups.name(second, "hal")
    assert groups.group(second).person == "Hal" and list(in_gallery(groups)) == ["Hal"]
    assert len(list(groups.find(with_=["HAL"]))) == 12
    assert not list(groups.find(with_=["Hal"], without=["hAl"]))
    with pytest.raises(UsageError, match="did you mean 'Hal'"):
        list(groups.find(with_=["Haal"]))
    assert groups._gallery is not None
    groups._gallery.add([NewFace("HAL", vector("person 4", 1)), NewFace("HAL", vector("person 4", 2))])
    assert len(list(groups.find(with_=["Hal"]))) == 12
    with pytest.raises(UsageError, match="did you mean 'HAL' or 'Hal'"):
        list(groups.find(with_=["hal"]))


def test_undo_takes_exactly_what_an_answer_did(groups: Groups) -> None:
    first, second = group_of(groups, "1-0.jpg"), group_of(groups, "2-0.jpg")
    before = groups.table()
    groups.name(first, "Anna", most=3)
    groups.name(second, "Anna", most=2)
    assert in_gallery(groups) == {"Anna": 5}
    assert groups.undo().startswith(f"group {second} is Anna")
    assert in_gallery(groups) == {"Anna": 3}
    assert groups.undo().startswith(f"group {first} is Anna")
    assert in_gallery(groups) == {}
    assert [group.id for group in groups.table()] == [group.id for group in before]
    with pytest.raises(UsageError, match="nothing to take back"):
        groups.undo()
    answer = groups.answers()[0]
    assert answer.what == "undo"
    groups.undo(answer.number)
    assert in_gallery(groups) == {"Anna": 3}
    assert groups.group(first).person == "Anna"


def test_a_name_that_a_group_has_already_is_no_new_answer(groups: Groups, place: Path) -> None:
    number = group_of(groups, "1-0.jpg")
    first = groups.name(number, "Anna")
    assert groups.name(number, "anna ") == first
    assert len(groups.answers()) == 1
    groups.undo()
    assert in_gallery(groups) == {} and groups.group(number).person is None
    assert groups.name(number, "Anna") > first


def test_a_face_that_was_enrolled_before_stays_when_the_name_is_taken_back(groups: Groups) -> None:
    number = group_of(groups, "1-0.jpg")
    groups.confirm([FaceKey(content_of("1-3.jpg"), 0)], "Anna", enroll=True)
    groups.name(number, "Anna")
    assert in_gallery(groups) == {"Anna": 6}
    groups.undo()
    assert in_gallery(groups) == {"Anna": 1}
    assert [face.path for face in groups.person("Anna") if face.status == "enrolled"] == ["1-3.jpg"]


def test_a_face_put_out_never_comes_back(groups: Groups) -> None:
    number = group_of(groups, "1-0.jpg")
    key = FaceKey(content_of("1-2.jpg"), 0)
    groups.put_out(number, [key])
    assert groups.group(number).size == 5
    assert groups.faces(number)[-1].status == "out"
    groups.refresh()
    groups.refresh(threshold=0.1)
    assert group_of(groups, "1-2.jpg") != number
    groups.undo()
    groups.refresh()
    assert groups.group(number).size == 6


def test_a_face_put_out_of_a_person_leaves_the_gallery(groups: Groups) -> None:
    number = group_of(groups, "1-0.jpg")
    groups.name(number, "Anna")
    groups.put_out(number, [FaceKey(content_of("1-2.jpg"), 0)])
    assert in_gallery(groups) == {"Anna": 5}
    assert "1-2.jpg" not in [face.path for face in groups.person("Anna")]
    groups.undo()
    assert in_gallery(groups) == {"Anna": 6}
    assert "1-2.jpg" in [face.path for face in groups.person("Anna")]


def test_a_face_that_was_put_out_and_came_back_goes_with_its_name(groups: Groups) -> None:
    number = group_of(groups, "1-0.jpg")
    groups.name(number, "Anna")
    groups.put_out(number, [FaceKey(content_of("1-2.jpg"), 0)])
    groups.undo()
    groups.undo()
    assert in_gallery(groups) == {} and groups.group(number).person is None


def test_joined_groups_are_one_and_come_apart_again(groups: Groups) -> None:
    first, second = group_of(groups, "1-0.jpg"), group_of(groups, "2-0.jpg")
    groups.join([first, second])
    assert groups.group(first).size == 12
    with pytest.raises(UsageError, match="no group"):
        groups.group(second)
    groups.refresh()
    assert groups.group(first).size == 12
    groups.undo()
    assert groups.group(first).size == groups.group(second).size == 6


def test_joining_a_named_group_names_the_other(groups: Groups) -> None:
    first, second, third = (group_of(groups, f"{person}-0.jpg") for person in range(3))
    groups.name(first, "Anna")
    groups.join([second, first])
    assert groups.group(second).person == "Anna"
    groups.name(third, "Bob")
    with pytest.raises(UsageError, match="Anna and Bob"):
        groups.join([second, third])


def test_groups_that_are_two_people_stay_apart(place: Path) -> None:
    fill(place, people(2, 4))
    with Groups(place) as groups:
        groups.refresh()
        a, b = (group.id for group in groups.table())
        groups.apart(a, b)
        groups.refresh(threshold=-1.0)
        assert {group.id for group in groups.table()} == {a, b}
        groups.undo()
        groups.join([a, b])
        assert [group.size for group in groups.table()] == [8]


def test_likely_the_same_is_offered_until_it_is_answered(place: Path) -> None:
    fill(place, people(2, 4))
    means = [np.mean([vector(f"person {person}", number) for number in range(4)], axis=0) for person in range(2)]
    with Groups(place) as groups:
        groups.refresh(threshold=float(means[0] @ means[1]) + 0.05)
        a, b = (group.id for group in groups.table())
        assert [number for number, _ in groups.group(a).alike] == [b]
        groups.apart(a, b)
        assert groups.group(a).alike == ()


def test_ignored_and_skipped_groups_leave_the_table(groups: Groups, place: Path) -> None:
    first, second = group_of(groups, "1-0.jpg"), group_of(groups, "2-0.jpg")
    groups.ignore(first)
    groups.skip(second)
    assert len(groups.table()) == 3
    assert [group.id for group in groups.table(state="ignored")] == [first]
    late = [photo(f"late-{person}.jpg", (f"person {person}", 40)) for person in (1, 2)]
    fill(place, [*people(5, 6), *late])
    groups.refresh()
    assert groups.group(first).size == 7
    assert [group.id for group in groups.table(state="skipped")] == []
    assert second in [group.id for group in groups.table()]


def test_denied_faces_are_heeded_by_the_gallery_too(groups: Groups) -> None:
    groups.name(group_of(groups, "1-0.jpg"), "Anna")
    key = FaceKey(content_of("1-1.jpg"), 0)
    groups.deny([key], "Anna")
    assert in_gallery(groups) == {"Anna": 5}
    assert groups._gallery is not None
    assert len(groups._gallery.snapshot().negatives) == 1
    assert "1-1.jpg" not in [face.path for face in groups.person("Anna")]
    groups.undo()
    assert len(groups._gallery.snapshot().negatives) == 0
    assert in_gallery(groups) == {"Anna": 6}


def test_known_people_are_suggested_and_the_answers_kept(place: Path, tmp_path: Path) -> None:
    """Two groups of one person, as a year of other photos makes them: the second is suggested once the first has a name."""
    fill(place, people(3, 8))
    with Groups(place, tmp_path / "gallery") as groups:
        groups.refresh()
        number = group_of(groups, "1-0.jpg")
        groups.put_out(number, [FaceKey(content_of(f"1-{photo}.jpg"), 0) for photo in range(4, 8)])
        groups.name(number, "Anna")
        others = group_of_or_none(groups, "1-4.jpg")
        assert others is None
        groups.refresh(all=True)
        split = group_of(groups, "1-4.jpg")
        suggestion = groups.group(split).suggestion
        assert suggestion is not None and suggestion[0] == "Anna" and suggestion[1] > 0.5


def group_of_or_none(groups: Groups, path: str) -> int | None:
    try:
        return group_of(groups, path)
    except StopIteration:
        return None


def test_what_is_not_there_is_said(groups: Groups, place: Path) -> None:
    for call in (
        lambda: groups.group(99),
        lambda: groups.faces(99),
        lambda: groups.name(99, "Anna"),
        lambda: groups.join([1]),
        lambda: groups.apart(1, 1),
        lambda: groups.undo(99),
        lambda: groups.person("Nobody"),
        lambda: list(groups.find(with_=["Nobody"])),
        lambda: list(groups.find(since="yesterday")),
        lambda: groups.confirm([FaceKey("0" * 64, 0)], "Anna"),
        lambda: groups.name(1, "\n"),
    ):
        with pytest.raises(UsageError):
            call()
    with Groups(place) as without, pytest.raises(GalleryMissingError):
        without.name(without.table()[0].id, "Anna")


def test_names_follow_the_gallery_and_an_erased_one_leaves_nothing(groups: Groups, place: Path, tmp_path: Path) -> None:
    number = group_of(groups, "1-0.jpg")
    groups.name(number, "Anna-Sophie Erasable")
    groups.close()
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        gallery_people.rename(gallery.database, "Anna-Sophie Erasable", "Sophie Erasable")
    with Groups(place, tmp_path / "gallery") as again:
        assert again.group(number).person == "Sophie Erasable"
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        erase(gallery.database, "Sophie Erasable")
    with Groups(place, tmp_path / "gallery") as again:
        assert again.group(number).state == "open"
        assert "erased" in again.answers()[0].text
    for path in place.parent.glob("r.jsonl.groups*"):
        assert b"Erasable" not in path.read_bytes()


def test_answers_move_with_their_face_when_a_photo_is_scanned_again(place: Path, tmp_path: Path) -> None:
    fill(place, [*people(2, 4), photo("two.jpg", ("stranger", 1), ("person 1", 30))])
    with Groups(place, tmp_path / "gallery") as groups:
        groups.refresh()
        groups.name(group_of(groups, "1-0.jpg"), "Anna")
        fill_moved(place)
        counts = groups.refresh()
        assert (counts.moved, counts.lost) == (1, 0)
        assert FaceKey(content_of("two.jpg"), 0) in [face.key for face in groups.person("Anna")]


def fill_moved(place: Path) -> None:
    """Scan again: the second face of a photo is its first now, and the other is not found any more."""
    from facepipe.catalog.packing import pack
    from facepipe.types import Described, Embeddings
    from tests.piles import face

    found = Described("two.jpg", (1000, 400), (face(1),), Embeddings(vector("person 1", 30)[None], FINGERPRINT))
    connection = sqlite3.connect(place)
    with connection:
        connection.execute("UPDATE description SET data = ? WHERE content = ?", (pack(found), content_of("two.jpg")))
    connection.close()


def test_two_windows_agree(place: Path, tmp_path: Path) -> None:
    fill(place, people(3, 4))
    with Groups(place, tmp_path / "gallery") as one, Groups(place, tmp_path / "gallery") as other:
        one.refresh()
        version = other.version
        number = other.table()[0].id
        one.name(number, "Anna")
        assert other.version > version
        assert other.group(number).person == "Anna"
        other.undo()
        assert one.group(number).person is None
        assert in_gallery(one) == {}


def test_a_refresh_gets_through_while_answers_keep_coming(
    groups: Groups, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, [*people(5, 6), photo("late.jpg", ("person 2", 40))])
    number = group_of(groups, "1-0.jpg")
    plan = regroup._plan

    def answered(*arguments: Any) -> Any:
        found = plan(*arguments)
        if not groups._file.connection.in_transaction:
            with Groups(place) as other:
                other.skip(number)
                other.undo()
        return found

    monkeypatch.setattr(regroup, "_plan", answered)
    assert groups.refresh().added == 1
    assert groups.group(group_of(groups, "2-0.jpg")).size == 7


@pytest.mark.parametrize("answers", [1, 5], ids=["one answer", "answers that keep coming"])
def test_a_name_that_is_taken_back_meanwhile_has_its_group_again(
    groups: Groups, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    for number, path in enumerate(["1-0.jpg", "2-0.jpg", "3-0.jpg", "4-0.jpg", "0-0.jpg"][:answers]):
        groups.name(group_of(groups, path), f"Person {number}")
    wanted = together(groups, None)
    fill(place, [*people(5, 6), photo("late.jpg", ("somebody else", 1))])
    plan, left = regroup._plan, [answers]

    def taken_back(*arguments: Any) -> Any:  # by another process, after this one has asked who is known
        if left[0] and not groups._file.connection.in_transaction:
            left[0] -= 1
            with Groups(place, tmp_path / "gallery") as other:
                other.undo()
        return plan(*arguments)

    monkeypatch.setattr(regroup, "_plan", taken_back)
    groups.refresh()
    assert together(groups, None) == sorted([*wanted, ["late.jpg"]])


def test_an_answer_that_is_half_done_is_waited_for(
    groups: Groups, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, [*people(5, 6), photo("late.jpg", ("somebody else", 1))])
    groups.name(group_of(groups, "4-0.jpg"), "Bob")  # the gallery is there
    number = group_of(groups, "1-0.jpg")
    opened, half, refreshed = threading.Event(), threading.Event(), threading.Event()

    def refresh() -> None:
        with Groups(place, tmp_path / "gallery") as other:
            opened.set()
            half.wait()
            other.refresh()
        refreshed.set()

    thread = threading.Thread(target=refresh)
    thread.start()
    opened.wait()
    complete = answers._in_gallery

    def slowly(*arguments: Any) -> Any:  # the gallery knows the person, the groups do not yet
        done = complete(*arguments)
        half.set()
        assert not refreshed.wait(0.5)
        return done

    monkeypatch.setattr(answers, "_in_gallery", slowly)
    groups.name(number, "Anna")
    thread.join()
    assert groups.group(number).person == "Anna"
    assert groups.group(number).size == 6


# Searches


def test_photos_are_found_by_who_is_in_them(place: Path, tmp_path: Path) -> None:
    photos = [
        *[photo(f"a{number}.jpg", ("Ann", number), taken="2018-01-01T00:00:00") for number in range(4)],
        *[photo(f"b{number}.jpg", ("Bob", number)) for number in range(4)],
        photo("both.jpg", ("Ann", 20), ("Bob", 20), taken="2020-05-06T00:00:00"),
        photo("three.jpg", ("Ann", 21), ("Bob", 21), ("stranger", 1), taken="2021-05-06T00:00:00+02:00"),
    ]
    fill(place, photos)
    with Groups(place, tmp_path / "gallery") as groups:
        groups.refresh()
        bob = group_of(groups, "b0.jpg")
        groups.name(group_of(groups, "a0.jpg"), "Ann")
        groups.name(bob, "Bob")
        groups.refresh()
        assert list(groups.find(with_=["Ann", "Bob"])) == ["both.jpg", "three.jpg"]
        assert list(groups.find(with_=["Ann"], without=["Bob"])) == [f"a{number}.jpg" for number in range(4)]
        assert list(groups.find(with_=["Ann"], since="2020")) == ["both.jpg", "three.jpg"]
        assert list(groups.find(with_=["Ann"], since="2020", until="2020-05-06")) == ["both.jpg"]
        assert list(groups.find(unknown=True)) == ["three.jpg"]
        assert list(groups.find(group=bob)) == [*[f"b{number}.jpg" for number in range(4)], "both.jpg", "three.jpg"]


def test_a_search_writes_nothing(place: Path) -> None:
    fill(place, people(1, 2))
    before = {path.name for path in place.parent.iterdir()}
    with Groups(place) as groups, Groups(place) as other:
        assert list(groups.find(unknown=True)) == ["0-0.jpg", "0-1.jpg"]
        assert groups.table() == [] and groups.answers() == []
        assert not groups_path(place).exists()
        other.refresh()
        assert len(groups.table()) == 1  # which is there now
    assert groups_path(place).exists() and groups_path(place).stat().st_mode & 0o077 == 0
    assert {path.name.split("-")[0] for path in place.parent.iterdir()} == before | {groups_path(place).name}


# Nothing is lost


def _answer_without_end(catalog: Path, gallery: Path, reports: Connection) -> None:
    with Groups(catalog, gallery) as groups:
        while True:
            for group in groups.table():
                number = groups.name(group.id, f"Person {group.id}", most=3)
                reports.send(("name", group.id, number))
            for _ in range(3):
                text = groups.undo()
                reports.send(("undo", text, None))


def test_answers_survive_kill_9(tmp_path: Path) -> None:
    """What was reported is there; an answer that was under way is there whole, in the groups and in the gallery, or not at all."""
    place, home = fill(tmp_path / "r.catalog", people(4, 5)), tmp_path / "gallery"
    with Groups(place, home) as groups:
        groups.refresh()
    rng = random.Random(1)
    context = multiprocessing.get_context("spawn")  # FAISS threads do not outlive a fork
    for _ in range(12):
        here, there = context.Pipe()
        child = context.Process(target=_answer_without_end, args=(place, home, there))
        child.start()
        there.close()
        assert here.poll(30)
        time.sleep(rng.uniform(0.0, 0.15))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        reported = []
        while here.poll():
            try:
                reported.append(here.recv())
            except (EOFError, OSError):
                break
        with Groups(place, home) as groups:
            named = {group.person for group in groups.table(state="named")}
            assert set(in_gallery(groups)) == named
            assert all(count == 3 for count in in_gallery(groups).values())
            done = {answer.number for answer in groups.answers(1000)}
            assert {number for what, _, number in reported if what == "name"} <= done
            assert groups._file.value("SELECT count(*) FROM answer WHERE NOT done") == 0


def test_the_public_front_door(place: Path) -> None:
    fill(place, people(1, 3))
    with facepipe.Groups(place) as groups:
        groups.refresh()
        assert isinstance(groups.table()[0], facepipe.Group)
        assert np.isclose(float(np.linalg.norm(vector("a", 1))), 1.0) and len(vector("a", 1)) == DIM
