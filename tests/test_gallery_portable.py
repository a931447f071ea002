"""Export and import, reembed, audit: galleries carried elsewhere, moved to another network, looked over."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facepipe.embed.describer import Describer
from facepipe.errors import GalleryError, GalleryModelError, InputError, UsageError
from facepipe.gallery import people
from facepipe.gallery.care.anchors import add_anchor
from facepipe.gallery.care.audit import audit, keep, without_kept
from facepipe.gallery.care.audit_page import write_page
from facepipe.gallery.care.check import check
from facepipe.gallery.care.contact_sheet import write_sheet
from facepipe.gallery.care.reembed import move, reembed
from facepipe.gallery.enrolment.enroller import Enroller, EnrollRules
from facepipe.gallery.enrolment.intake import EnrollStatus, Photo
from facepipe.gallery.journal import journal_entries, log_results
from facepipe.gallery.portable import export_gallery, import_gallery
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import read_image, write_image
from facepipe.types import Float32
from tests.fakes import FakeDetector, FakeEmbedder, face_at, picture
from tests.test_gallery_store import DIM, calibrated, new, unit


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryStore:
    """Two people by colour, enrolled from photos with chips."""
    gallery = GalleryStore.create(tmp_path / "gallery", "fake:1", 8)
    photos = []
    for name, colour in (("Ann", "red"), ("Bob", "blue")):
        path = tmp_path / "photos" / f"{name}.png"
        write_image(path, picture(colour).rgb)
        photos.append(Photo(path, name))
    rules = EnrollRules(lookalike=0.6, keep_chips=True)
    outcomes = list(Enroller(gallery, Describer(FakeDetector(), FakeEmbedder()), rules).run(photos))
    assert [outcome.status for outcome in outcomes] == [EnrollStatus.ENROLLED] * 2
    return gallery


def by_person(gallery: GalleryStore) -> dict[str, bytes]:
    snapshot = gallery.snapshot()
    return {snapshot.persons[o]: v.tobytes() for o, v in zip(snapshot.owners, snapshot.vectors, strict=True)}


def test_the_journal_names_who_was_removed_until_the_erase(gallery: GalleryStore) -> None:
    people.remove(gallery.database, "Ann")
    with gallery.database.write("remove"):
        gallery.database.log("remove", 1, faces=1, person=True)  # as entries were written before

    def removed() -> list[object]:
        entries = list(journal_entries(gallery.database))
        return [(entry["person"], entry.get("whole")) for entry in entries if entry["action"] == "remove"]

    assert removed() == [("Ann", True), ("Ann", None)]
    erase(gallery.database, "Ann")
    assert removed() == [(None, True), (None, None)]


@pytest.mark.parametrize("suffix", [".parquet", ".sqlite"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_gallery_comes_back_from_one_file(gallery: GalleryStore, tmp_path: Path, suffix: str, sealed: bool) -> None:
    path = tmp_path / f"out{suffix}"
    assert export_gallery(gallery.database, path, chips=True) == 2
    secret = Secret("key-file", b"k" * 32) if sealed else None
    assert import_gallery(tmp_path / "copy", path, secret) == (2, 0)
    assert import_gallery(tmp_path / "copy", path, secret) == (0, 2)
    with GalleryStore.open(tmp_path / "copy", secret) as copy:
        assert by_person(copy) == by_person(gallery)
        mine, theirs = (people.faces_of(g.database, "Ann")[0] for g in (gallery, copy))
        assert (mine.source, mine.box, mine.size, mine.enrolled, mine.chip) == (
            theirs.source,
            theirs.box,
            theirs.size,
            theirs.enrolled,
            theirs.chip,
        )


def test_parquet_is_readable_by_others(gallery: GalleryStore, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "out.parquet"
    export_gallery(gallery.database, path)
    table = pq.read_table(path)
    assert table.schema.metadata[b"facepipe_fingerprint"] == b"fake:1"
    assert {row["person"] for row in table.to_pylist()} == {"Ann", "Bob"}
    assert np.linalg.norm(table["vector"][0].as_py()) == pytest.approx(1.0)
    assert table["chip"].null_count == 2


def test_import_refuses_other_models_and_other_files(gallery: GalleryStore, tmp_path: Path) -> None:
    path = tmp_path / "out.sqlite"
    export_gallery(gallery.database, path)
    GalleryStore.create(tmp_path / "other", "model-2", 8).close()
    with pytest.raises(GalleryModelError, match="holds vectors of fake:1"):
        import_gallery(tmp_path / "other", path)
    for name in ("junk.sqlite", "junk.parquet"):
        (tmp_path / name).write_bytes(b"junk" * 100)
        with pytest.raises(InputError, match="cannot be read as an exported gallery"):
            import_gallery(tmp_path / "copy", tmp_path / name)
    with pytest.raises(UsageError, match="parquet or"):
        export_gallery(gallery.database, tmp_path / "out.pickle")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM meta WHERE key = 'dim'",
        "UPDATE meta SET value = 'many' WHERE key = 'dim'",
        "DELETE FROM meta WHERE key = 'fingerprint'",
        "UPDATE face SET vector = 1",
        "UPDATE face SET vector = x'00'",
        "UPDATE face SET landmarks = x'00'",
        "UPDATE face SET score = 'high'",
        "UPDATE face SET content = 5",
        "UPDATE face SET x1 = 'left'",
    ],
)
def test_a_damaged_export_is_refused_in_one_line(gallery: GalleryStore, tmp_path: Path, change: str) -> None:
    path = tmp_path / "out.sqlite"
    export_gallery(gallery.database, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    with pytest.raises(InputError, match=r"out\.sqlite: (not an exported gallery|row 1 is damaged)"):
        import_gallery(tmp_path / "copy", path)


@pytest.mark.parametrize("left", ["chips", "photos"])
def test_reembed_uses_chips_else_photos(gallery: GalleryStore, tmp_path: Path, left: str) -> None:
    if left == "chips":
        for path in (tmp_path / "photos").iterdir():
            path.unlink()
    else:
        gallery.database.connection.execute("DELETE FROM chip")
    gallery.set_calibration(calibrated(0.1))
    embedder = FakeEmbedder("fake:2", 16)
    report = reembed(gallery.database, embedder)
    assert (report.faces, report.dropped) == (2, ())
    assert (gallery.fingerprint, gallery.dim) == ("fake:2", 16)
    assert gallery.calibration() is None
    image = picture("red")
    probe = Describer(FakeDetector(), embedder).describe([image])[0].embeddings.vectors[0]
    snapshot = gallery.snapshot()
    assert snapshot.persons[int(np.argmax(snapshot.templates @ probe))] == "Ann"
    assert float((snapshot.templates @ probe).max()) > 0.99
    assert check(gallery.database) == []
    with pytest.raises(GalleryError, match="nothing to move"):
        reembed(gallery.database, embedder)


def test_reembed_leaves_all_as_it_was_when_a_picture_is_missing(gallery: GalleryStore, tmp_path: Path) -> None:
    gallery.database.connection.execute("DELETE FROM chip")
    (tmp_path / "photos" / "Ann.png").unlink()
    write_image(tmp_path / "photos" / "Ann.png", picture("green").rgb)  # another picture under the old name
    before = by_person(gallery)
    with pytest.raises(GalleryError, match="1 faces have lost both"):
        reembed(gallery.database, FakeEmbedder("fake:2", 16))
    assert by_person(gallery) == before
    assert gallery.fingerprint == "fake:1"
    report = reembed(gallery.database, FakeEmbedder("fake:2", 16), drop_missing=True)
    assert (report.faces, len(report.dropped)) == (1, 1)
    assert gallery.snapshot().persons == ("Bob",)


def test_reembed_goes_on_where_it_stopped_and_takes_newcomers(tmp_path: Path) -> None:
    gallery = GalleryStore.create(tmp_path / "gallery", "a", DIM)
    gallery.add([new(f"P{i}", i) for i in range(150)])
    calls: list[int] = []

    def make(table: str, ids: Sequence[int]) -> list[Float32 | None]:
        calls.append(len(ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        if len(calls) == 3:
            gallery.add([new("Late", 999)])
        return [unit(int(i), 4) for i in ids]

    with pytest.raises(KeyboardInterrupt):
        move(gallery.database, "b", 4, make)
    assert gallery.fingerprint == "a"
    report = move(gallery.database, "b", 4, make)
    assert (report.faces, report.resumed) == (151, 64)
    assert sum(calls) == 64 + 64 + 87
    assert "Late" in gallery.snapshot().persons


def test_a_negative_anchor_refutes(gallery: GalleryStore, tmp_path: Path) -> None:
    assert add_anchor(gallery, "Ann", unit(5), face_at(0, 0, 40), "a.jpg", "ab" * 32)
    assert not add_anchor(gallery, "Ann", unit(5), face_at(0, 0, 40), "b.jpg", "ab" * 32)
    snapshot = gallery.snapshot()
    assert snapshot.persons[int(snapshot.negative_owners[0])] == "Ann"
    np.testing.assert_array_equal(snapshot.negatives[0], unit(5))
    erase(gallery.database, "Ann")
    assert len(gallery.snapshot().negatives) == 0


def test_enrolment_refuses_a_refuted_face(gallery: GalleryStore, tmp_path: Path) -> None:
    describer = Describer(FakeDetector(), FakeEmbedder())
    path = tmp_path / "green.png"
    write_image(path, picture("green").rgb)
    vector = describer.describe([read_image(path)])[0].embeddings.vectors[0]
    add_anchor(gallery, "Ann", vector, face_at(0, 0, 40), "other.jpg", "ab" * 32)
    outcome = next(iter(Enroller(gallery, describer, EnrollRules(lookalike=0.6)).run([Photo(path, "Ann")])))
    assert outcome.status is EnrollStatus.REFUTED
    assert "is not Ann, 1.00" in outcome.reason


def crowd(tmp_path: Path, swaps: int) -> tuple[GalleryStore, set[int]]:
    """30 people with 4 faces each at cosine 0.6, some of them under a wrong name."""
    gallery = GalleryStore.create(tmp_path / "crowd", "model-1", 64)
    rng = np.random.default_rng(3)
    wrong: set[int] = set()
    for person in range(30):
        centre = unit(person, 64)
        for number in range(4):
            noise = unit(1000 + 10 * person + number, 64)
            vector = (centre + 0.7 * noise) / np.linalg.norm(centre + 0.7 * noise)
            swapped = number == 0 and person < swaps
            owner = (person + 1 + int(rng.integers(28))) % 30 if swapped else person
            ids = gallery.add([NewFace(f"Person {owner}", vector.astype(np.float32))])
            if swapped and ids[0] is not None:
                wrong.add(ids[0])
    return gallery, wrong


def test_an_audit_puts_wrong_labels_first(tmp_path: Path) -> None:
    gallery, wrong = crowd(tmp_path, 5)
    report = audit(gallery.snapshot(), 0.4)
    assert {doubt.face_id for doubt in report.doubts[:5]} == wrong
    assert all(doubt.mislabelled for doubt in report.doubts[:5])
    assert report.leave_one_out.faces == 120
    assert report.leave_one_out.wrong >= 5
    clean, _ = crowd(tmp_path / "clean", 0)
    assert not any(doubt.mislabelled for doubt in audit(clean.snapshot(), 0.4).doubts)


def test_a_face_that_is_right_is_doubted_no_more_until_it_is_somebody_elses(tmp_path: Path) -> None:
    gallery, _ = crowd(tmp_path, 5)

    def doubted() -> set[int]:
        snapshot = gallery.snapshot()
        return {d.face_id for d in without_kept(audit(snapshot, 0.4), gallery.database, snapshot).doubts}

    before = doubted()
    first, second = sorted(before)[:2]
    keep(gallery.database, [first])
    keep(gallery.database, [second])
    assert doubted() == before - {first, second}
    with pytest.raises(UsageError, match="no face 99999"):
        keep(gallery.database, [99999])
    doubts = audit(gallery.snapshot(), 0.4).doubts
    person, rival = next((d.person, d.other_person) for d in doubts if d.face_id == first)
    people.split(gallery.database, person, [first], rival)
    people.split(gallery.database, rival, [first], "Somebody new")
    keep(gallery.database, [second])
    people.split(gallery.database, "Somebody new", [first], person)
    assert first in doubted(), "the note ended when the face got another person"
    assert second not in doubted()
    assert check(gallery.database) == []


def test_an_audit_names_people_who_look_alike_or_have_few_photos(tmp_path: Path) -> None:
    gallery = GalleryStore.create(tmp_path / "g", "m", DIM)
    close = (unit(1) + 0.2 * unit(2)) / np.linalg.norm(unit(1) + 0.2 * unit(2))
    gallery.add([NewFace("Ann", unit(1)), NewFace("Anna", close.astype(np.float32)), NewFace("Bob", unit(3))])
    report = audit(gallery.snapshot(), 0.9)
    assert [(pair.first, pair.second) for pair in report.alike] == [("Ann", "Anna")]
    assert dict(report.few) == {"Ann": 1, "Anna": 1, "Bob": 1}
    empty = GalleryStore.create(tmp_path / "e", "m", DIM)
    assert audit(empty.snapshot(), 0.5).doubts == ()


def test_the_audit_page_shows_the_faces_and_escapes_names(gallery: GalleryStore, tmp_path: Path) -> None:
    describer = Describer(FakeDetector(), FakeEmbedder())
    path = tmp_path / "wrong.png"
    write_image(path, picture("blue", side=80).rgb)
    people.rename(gallery.database, "Bob", "<b>Bob</b>")
    rules = EnrollRules(lookalike=0.6, force=True, keep_chips=True)
    list(Enroller(gallery, describer, rules).run([Photo(path, "Ann")]))
    snapshot = gallery.snapshot()
    write_page(tmp_path / "audit.html", gallery.database, snapshot, audit(snapshot, 0.6))
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "<b>Bob</b>" not in page
    assert "facepipe gallery split" in page
    assert "facepipe gallery audit --keep" in page


def test_a_contact_sheet_shows_the_faces(gallery: GalleryStore, tmp_path: Path) -> None:
    faces = people.faces_of(gallery.database, "Ann")
    assert write_sheet(gallery.database, faces, tmp_path / "sheet.png") == 0
    sheet = read_image(tmp_path / "sheet.png").rgb
    middle = sheet[sheet.shape[0] // 2, sheet.shape[1] // 2].astype(int)
    assert middle[0] > 200
    assert middle[1] < 80


def test_the_journal_names_people_until_they_are_erased(gallery: GalleryStore) -> None:
    assert [entry["person"] for entry in journal_entries(gallery.database)] == ["Ann", "Bob"]
    erase(gallery.database, "Ann")
    entries = list(journal_entries(gallery.database))
    assert [(entry["action"], entry["person"]) for entry in entries] == [
        ("enroll", None),
        ("enroll", "Bob"),
        ("erase", None),
    ]


def test_identifications_are_logged_without_a_new_generation(gallery: GalleryStore) -> None:
    generation = gallery.generation()
    answers = [SimpleNamespace(person=person) for person in ("Ann", "Ann", "Nobody", None, None, None)]
    log_results(gallery.folder, [SimpleNamespace(predictions=answers)])  # type: ignore[list-item]
    entries = list(journal_entries(gallery.database))[2:]
    assert [(e["action"], e["person"], e.get("faces"), e.get("unknown")) for e in entries] == [
        ("identify", "Ann", 2, None),
        ("identify", None, None, 3),
    ]
    assert gallery.generation() == generation
    assert check(gallery.database) == []


def test_altered_chips_are_found(gallery: GalleryStore) -> None:
    gallery.database.connection.execute("UPDATE chip SET data = x'00' WHERE face_id = 1")
    assert {finding.kind for finding in check(gallery.database)} == {"chip"}
