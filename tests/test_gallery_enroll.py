"""What enrolment accepts and refuses, and that refusals say why."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

import facepipe
from facepipe.cli.enroll import _counted, _exit_code, _seconds
from facepipe.detect.selection import FaceRule, choose_faces
from facepipe.embed.describer import Describer
from facepipe.errors import GalleryAccessError, InputError, UsageError
from facepipe.gallery import people
from facepipe.gallery.care.audit import audit
from facepipe.gallery.chips import cut_chip, face_in_chip, open_chip
from facepipe.gallery.enrolment.enroller import Enroller, EnrollRules, faults
from facepipe.gallery.enrolment.intake import EnrollOutcome, EnrollStatus, Photo, collect_photos
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import write_image
from facepipe.images.samples import portraits
from facepipe.types import Quality
from tests.fakes import FakeDetector, FakeEmbedder, face_at, picture
from tests.test_gallery_store import unit

RULES = EnrollRules(lookalike=0.6)


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryStore:
    return GalleryStore.create(tmp_path / "gallery", "fake:1", 8)


def paint(path: Path, *colours: str, side: int = 60) -> Path:
    write_image(path, picture(*colours, side=side).rgb)
    return path


def enrol(gallery: GalleryStore, photos: Sequence[Photo], rules: EnrollRules = RULES) -> list[EnrollStatus]:
    describer = Describer(FakeDetector(), FakeEmbedder())
    return [outcome.status for outcome in Enroller(gallery, describer, rules).run(photos)]


def names(gallery: GalleryStore) -> dict[str, int]:
    return {person.name: person.faces for person in people.people(gallery.database)}


def test_a_time_of_nothing_is_no_time_to_retain() -> None:
    assert _seconds("2w") == 14 * 86400.0
    for text in ("0d", "00h", "soon"):
        with pytest.raises(click.UsageError, match=text):
            _seconds(text)


def test_an_enrolment_of_nobody_makes_no_gallery(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    home = tmp_path / "new"
    with GalleryStore(home, model=FakeEmbedder()) as gallery:
        assert enrol(gallery, [Photo(tmp_path / "bad.jpg", "Ann")]) == [EnrollStatus.UNREADABLE]
        assert not gallery.exists and gallery.folder == home
    assert not home.exists()
    with GalleryStore(home, model=FakeEmbedder()) as gallery:
        photos = [Photo(tmp_path / "bad.jpg", "Ann"), Photo(paint(tmp_path / "a.png", "red"), "Ann")]
        assert enrol(gallery, photos) == [EnrollStatus.UNREADABLE, EnrollStatus.ENROLLED]
        assert enrol(gallery, photos[1:]) == [EnrollStatus.ALREADY]
        assert gallery.exists
    with GalleryStore.open(home) as again:
        assert names(again) == {"Ann": 1}


def test_a_read_only_gallery_is_refused_before_any_network_loads(
    gallery: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facepipe.api.load_describer", lambda *_, **__: pytest.fail("too early"))
    photo = paint(tmp_path / "a.png", "red")

    def refused(folder: Path, message: str) -> None:
        with facepipe.Gallery(folder) as home, pytest.raises(GalleryAccessError, match=message):
            home.enroll(photo, name="Ann", embedder=FakeEmbedder(), threshold=0.6)

    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda _, mode: not mode & os.W_OK)  # root may write anywhere
        refused(gallery.folder, "the gallery is read-only")
        refused(tmp_path / "new", "cannot be made here")
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "new", "is not a folder")


def test_two_first_enrolments_at_once_share_the_new_gallery(tmp_path: Path) -> None:
    home, barrier, answers = tmp_path / "new", threading.Barrier(4), []

    def first(number: int) -> None:
        with GalleryStore(home, model=FakeEmbedder()) as gallery:
            barrier.wait()  # nobody sees the others' gallery yet: the moment that the race is about
            assert not gallery.exists
            answers.append(gallery.add([NewFace(f"P{number}", unit(number))]))

    threads = [threading.Thread(target=first, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    with GalleryStore.open(home) as gallery:
        assert names(gallery) == {f"P{number}": 1 for number in range(4)}


def test_folders_name_people_at_any_depth(tmp_path: Path) -> None:
    paint(tmp_path / "Ann" / "1.png", "red")
    paint(tmp_path / "Ann" / "2019" / "summer" / "2.png", "red")
    paint(tmp_path / "Bob" / "1.png", "blue")
    paint(tmp_path / "loose.png", "green")
    photos, astray = collect_photos([tmp_path], None)
    assert sorted((photo.person, photo.path.name) for photo in photos) == [
        ("Ann", "1.png"),
        ("Ann", "2.png"),
        ("Bob", "1.png"),
    ]
    assert [(Path(o.path).name, o.status) for o in astray] == [("loose.png", EnrollStatus.NO_NAME)]
    photos, _ = collect_photos([tmp_path / "Bob"], None)
    assert [photo.person for photo in photos] == ["Bob"]


def test_a_csv_names_photos_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text('path,name\nphotos/1.png,"Ann, the elder"\n')
    photos, _ = collect_photos([path], None)
    assert photos == [Photo(tmp_path / "photos" / "1.png", "Ann, the elder")]
    path.write_text("1.png\n")
    with pytest.raises(InputError, match="line 1: expected path,name"):
        collect_photos([path], None)


def test_one_bad_folder_or_name_stops_no_enrolment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for person in ("Ann", "Bob", "Cy\u202e", "Di"):
        paint(tmp_path / person / "deep" / "1.png", "red")
    search = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("Bob/deep"):  # root may read everything
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return search(path)

    monkeypatch.setattr(os, "scandir", denied)
    photos, astray = collect_photos([tmp_path, tmp_path / "nowhere"], None)
    assert [photo.person for photo in photos] == ["Ann", "Di"]
    assert [(outcome.status, Path(outcome.path).name) for outcome in astray] == [
        (EnrollStatus.UNREADABLE, "deep"),
        (EnrollStatus.NO_NAME, "Cy\u202e"),
        (EnrollStatus.UNREADABLE, "nowhere"),
    ]
    assert "Permission denied" in astray[0].reason and astray[0].person == "Bob"
    assert "rename the folder" in astray[1].reason
    assert _exit_code([*astray, EnrollOutcome("", "Ann", EnrollStatus.ENROLLED)]) == 7
    assert _exit_code(astray) == 3
    table = tmp_path / "people.csv"
    table.write_text("1.png,Ann\n2.png,Cy\u202e\n")
    photos, astray = collect_photos([table], None)
    assert [photo.person for photo in photos] == ["Ann"]
    assert astray[0].status is EnrollStatus.NO_NAME and "line 2" in astray[0].reason


def test_a_photo_without_a_name_is_a_usage_error(tmp_path: Path) -> None:
    photo = paint(tmp_path / "1.png", "red")
    with pytest.raises(UsageError, match="--name"):
        collect_photos([photo], None)
    assert collect_photos([photo], "Ann")[0] == [Photo(photo, "Ann")]
    with pytest.raises(InputError, match="no such file"):
        collect_photos([tmp_path / "nowhere"], None)


def test_one_bad_photo_stops_nothing(gallery: GalleryStore, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    photos = [
        Photo(paint(tmp_path / "1.png", "red"), "Ann"),
        Photo(tmp_path / "broken.png", "Ann"),
        Photo(tmp_path / "missing.png", "Ann"),
        Photo(paint(tmp_path / "empty.png"), "Ann"),
        Photo(paint(tmp_path / "two.png", "red", "blue"), "Ann"),
        Photo(paint(tmp_path / "small.png", "green", side=30), "Cy"),
        Photo(paint(tmp_path / "2.png", "blue"), "Bob"),
    ]
    assert enrol(gallery, photos) == [
        EnrollStatus.ENROLLED,
        EnrollStatus.UNREADABLE,
        EnrollStatus.UNREADABLE,
        EnrollStatus.NO_FACE,
        EnrollStatus.AMBIGUOUS,
        EnrollStatus.POOR,
        EnrollStatus.ENROLLED,
    ]
    assert names(gallery) == {"Ann": 1, "Bob": 1}


def test_the_same_file_and_nearly_the_same_face_are_not_piled_up(gallery: GalleryStore, tmp_path: Path) -> None:
    first = paint(tmp_path / "1.png", "red")
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    moved = paint(tmp_path / "moved.png", "red", side=64)
    photos = [Photo(first, "Ann"), Photo(copy, "Ann"), Photo(moved, "Ann")]
    expected = [EnrollStatus.ENROLLED, EnrollStatus.ALREADY, EnrollStatus.DUPLICATE]
    assert enrol(gallery, photos) == expected
    assert enrol(gallery, photos) == [EnrollStatus.ALREADY, EnrollStatus.ALREADY, EnrollStatus.DUPLICATE]
    assert names(gallery) == {"Ann": 1}


def test_what_is_there_already_is_no_failure_and_what_was_left_out_is() -> None:
    def code(*statuses: EnrollStatus) -> int:
        return _exit_code([EnrollOutcome("", "Ann", status) for status in statuses])

    there = (EnrollStatus.ALREADY, EnrollStatus.DUPLICATE)
    assert code(*there) == 0, "a run that is repeated every night"
    for left_out in (EnrollStatus.AMBIGUOUS, EnrollStatus.LOOKALIKE, EnrollStatus.UNREADABLE, EnrollStatus.NO_FACE):
        assert code(*there, left_out) == 7
    assert code(EnrollStatus.UNREADABLE) == 3
    assert code(EnrollStatus.POOR) == 4


def test_a_face_of_somebody_else_is_refused_by_name_and_figure(gallery: GalleryStore, tmp_path: Path) -> None:
    bob = Photo(paint(tmp_path / "bob.png", "blue"), "Bob")
    ann = Photo(paint(tmp_path / "ann.png", "blue", side=64), "Ann")
    describer = Describer(FakeDetector(), FakeEmbedder())
    outcomes = list(Enroller(gallery, describer, RULES).run([bob, ann]))
    assert outcomes[1].status is EnrollStatus.LOOKALIKE
    assert outcomes[1].reason.startswith("looks like Bob, 1.00")
    assert "--force" in outcomes[1].reason
    assert enrol(gallery, [ann]) == [EnrollStatus.LOOKALIKE], "also against what is on the disk"
    assert enrol(gallery, [ann], EnrollRules(lookalike=0.6, force=True)) == [EnrollStatus.ENROLLED]


def test_a_pile_of_several_people_is_not_made_one_person(gallery: GalleryStore, tmp_path: Path) -> None:
    rules = EnrollRules(lookalike=0.6, one_person=0.6)
    pile = [Photo(paint(tmp_path / f"{colour}.png", colour), "pile") for colour in ("red", "blue", "green", "cyan")]
    ann = Photo(paint(tmp_path / "ann.png", "magenta"), "Ann")
    outcomes = list(Enroller(gallery, Describer(FakeDetector(), FakeEmbedder()), rules).run([*pile, ann]))
    assert [outcome.status for outcome in outcomes] == [EnrollStatus.MIXED] * 4 + [EnrollStatus.ENROLLED]
    assert "people" in outcomes[0].reason and "--force" in outcomes[0].reason
    assert names(gallery) == {"Ann": 1} and _exit_code(outcomes) == 7
    for way in (replace(rules, force=True), replace(rules, faces="all", lookalike=1.0)):
        assert set(enrol(gallery, pile, way)) <= {EnrollStatus.ENROLLED, EnrollStatus.DOUBTFUL}
        people.remove(gallery.database, "pile")


def test_nothing_is_enrolled_before_all_photos_were_looked_at(gallery: GalleryStore, tmp_path: Path) -> None:
    looked: list[int] = []
    photos = [Photo(paint(tmp_path / f"{n}.png", "red", side=60 + n), f"P{n}") for n in range(3)]
    outcomes = Enroller(gallery, Describer(FakeDetector(), FakeEmbedder()), RULES).run(photos, looked.append)
    next(outcomes)
    assert looked == [3]


def test_an_interrupted_enrolment_says_how_many_are_in(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [
        EnrollOutcome("a", "Ann", EnrollStatus.ENROLLED, "", (1,)),
        EnrollOutcome("b", "Ann", EnrollStatus.POOR),
    ]
    with pytest.raises(KeyboardInterrupt), _counted(outcomes):
        raise KeyboardInterrupt
    assert "1 face enrolled so far; run the same command again" in capsys.readouterr().err


def test_a_face_unlike_its_person_is_enrolled_as_doubtful(gallery: GalleryStore, tmp_path: Path) -> None:
    photos = [Photo(paint(tmp_path / f"{colour}.png", colour), "Ann") for colour in ("red", "blue")]
    describer = Describer(FakeDetector(), FakeEmbedder())
    first, second = Enroller(gallery, describer, EnrollRules(lookalike=0.6, one_person=0.36)).run(photos)
    assert first.status is second.status is EnrollStatus.DOUBTFUL, "whichever came first"
    assert len(second.face_ids) == 1
    assert "none of Ann's other faces, -0.32, at least 0.24 expected" in second.reason
    assert f"gallery remove Ann --face {second.face_ids[0]}" in second.reason
    assert _exit_code([first, second]) == 0, "children grow up: doubt is no refusal"
    found = audit(gallery.snapshot(), 0.36).doubts
    assert [d.verdict(0.36) for d in found] == ["unlike the others", "unlike the others"]
    people.remove(gallery.database, "Ann", [second.face_ids[0]])
    for rules in (EnrollRules(lookalike=0.6, one_person=0.36, force=True), EnrollRules(lookalike=0.6)):
        assert enrol(gallery, photos[1:], rules) == [EnrollStatus.ENROLLED]
        people.remove(gallery.database, "Ann", [int(gallery.snapshot().face_ids.max())])


def test_a_copy_of_a_refused_photo_is_refused_as_well(gallery: GalleryStore, tmp_path: Path) -> None:
    small = paint(tmp_path / "1.png", "red", side=30)
    copy = tmp_path / "2.png"
    copy.write_bytes(small.read_bytes())
    assert enrol(gallery, [Photo(small, "Ann"), Photo(copy, "Ann")]) == [EnrollStatus.POOR] * 2
    assert names(gallery) == {}


def test_all_faces_of_a_photo_can_be_enrolled(gallery: GalleryStore, tmp_path: Path) -> None:
    photo = Photo(paint(tmp_path / "1.png", "red", "blue"), "Twins")
    assert enrol(gallery, [photo], EnrollRules(lookalike=0.6, faces="all")) == [EnrollStatus.ENROLLED]
    assert names(gallery) == {"Twins": 2}


@pytest.mark.parametrize(
    ("sides", "choice", "expected"),
    [
        ([60], "only", [0]),
        ([60, 20], "only", []),
        ([20, 60], "clear", [1]),
        ([40, 60], "clear", []),
        ([40, 60], "largest", [1]),
        ([40, 60], "all", [0, 1]),
    ],
)
def test_which_face(sides: list[int], choice: FaceRule, expected: list[int]) -> None:
    assert choose_faces([face_at(0, 0, side) for side in sides], choice) == expected


@pytest.mark.parametrize("choice", ["clear", "largest", "only"])
def test_a_doubtful_face_is_meant_only_where_no_other_is_there(choice: FaceRule) -> None:
    sure, doubtful = face_at(0, 0, 40), replace(face_at(50, 0, 80), score=0.5)
    assert choose_faces([sure, doubtful], choice) == [0]
    assert choose_faces([doubtful], choice) == [0]
    assert choose_faces([sure, doubtful], "all") == [0, 1]


def test_each_fault_names_its_figure_and_its_limit() -> None:
    found = faults(replace(face_at(0, 0, 31), score=0.5, quality=Quality(31, 5, -80, 50, 170, 0.1)))
    assert len(found) == 6
    assert found[5] == "not upright: roll 170 degrees, at most 60 wanted, turn the photo"
    assert found[1] == "small: 31 pixels, at least 40 wanted"
    assert found[3] == "turned: yaw -80 degrees, at most 60 wanted"
    assert found[0] == "doubtful: score 0.50, at least 0.70 wanted"
    assert faults(replace(face_at(0, 0, 100), quality=Quality(100, 500, 0, 0, 50, 0.1))) == []


@pytest.mark.models
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_photo_on_its_head_or_side_is_enrolled_as_if_it_stood(tmp_path: Path, turns: int) -> None:
    upright = [picture.rgb for picture in portraits().values()]
    turned = [np.ascontiguousarray(np.rot90(rgb, turns)) for rgb in upright]
    with facepipe.Gallery(tmp_path / "g") as gallery:
        outcomes = [next(iter(gallery.enroll(rgb, name=f"P{n}", device="cpu"))) for n, rgb in enumerate(turned)]
        assert {outcome.status for outcome in outcomes} == {EnrollStatus.ENROLLED}
        vectors = gallery.snapshot().vectors
    for vector, rgb in zip(vectors, upright, strict=True):
        assert vector @ facepipe.embed(rgb, device="cpu").embeddings.vectors[0] > 0.8


@pytest.mark.models
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_without_second_chances_a_photo_on_its_head_or_side_is_not_enrolled(tmp_path: Path, turns: int) -> None:
    upright = [picture.rgb for picture in portraits().values()]
    with facepipe.Gallery(tmp_path / "g") as gallery:
        for number, rgb in enumerate(upright):
            turned = np.ascontiguousarray(np.rot90(rgb, turns))
            (outcome,) = gallery.enroll(turned, name=f"P{number}", device="cpu", second_chance=False)
            assert outcome.status in (EnrollStatus.POOR, EnrollStatus.NO_FACE)


def test_faces_expire(gallery: GalleryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Photo(paint(tmp_path / "1.png", "red"), "Ann")
    enrol(gallery, [photo], EnrollRules(lookalike=0.6, retain=3600.0))
    assert gallery.snapshot().persons == ("Ann",)
    import time

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert gallery.snapshot().persons == ()


def test_a_chip_shows_the_face_where_it_says() -> None:
    image = picture("red", size=(900, 700), side=400)
    face = next(FakeDetector().detect([image])).faces[0]
    chip = cut_chip(image, face)
    small = open_chip(chip)
    inside = face_in_chip(face, chip)
    assert max(inside.box[2] - inside.box[0], inside.box[3] - inside.box[1]) <= 225
    x, y = inside.box.reshape(2, 2).mean(axis=0)
    assert np.allclose(small.rgb[int(y), int(x)], (255, 0, 0), atol=6)
    found = next(FakeDetector().detect([small])).faces[0]
    np.testing.assert_allclose(found.box, inside.box, atol=3)


def test_chips_are_stored_only_on_request(gallery: GalleryStore, tmp_path: Path) -> None:
    enrol(gallery, [Photo(paint(tmp_path / "1.png", "red"), "Ann")])
    assert people.stats(gallery.database)["chips"] == 0
    enrol(gallery, [Photo(paint(tmp_path / "2.png", "blue"), "Bob")], EnrollRules(lookalike=0.6, keep_chips=True))
    assert people.stats(gallery.database)["chips"] == 1
