"""A batch whose gallery or options changed: faces are compared again, photos are scanned only where that is needed."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.counts import Counts
from facepipe.catalog.packing import pack, unpack
from facepipe.catalog.store import catalog_path
from facepipe.loading import load_describer
from facepipe.outputs import kinds, sync
from facepipe.types import Clip, Described, Detected, Embeddings, Face, Image, Policy, Quality, Recognized, Span
from tests.batch_fixtures import POLICY, SCAN, paint, paint_many, recognizer, run
from tests.fakes import COLOURS, FakeDetector

numbers = st.floats(-1e6, 1e6, width=32)
figures = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def described(draw: st.DrawFn) -> Described:
    count, dim = draw(st.integers(0, 4)), draw(st.integers(1, 9))
    damages = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    clip = draw(st.none() | st.builds(Clip, st.floats(0, 1e6), damages))
    faces = []
    for _ in range(count):
        x, y = draw(numbers), draw(numbers)
        box = np.array([x, y, x + abs(x) + 1, y + abs(y) + 1], np.float32)
        landmarks = np.array(draw(st.lists(numbers, min_size=10, max_size=10)), np.float32).reshape(5, 2)
        start, best, end = sorted(draw(st.lists(st.floats(0, 1e6), min_size=3, max_size=3)))
        span = None if clip is None else Span(start, end, best, draw(st.integers(1, 9999)))
        faces.append(
            Face(box, draw(st.floats(0, 1)), landmarks, Quality(*(draw(figures) for _ in range(6))), span=span)
        )
    vectors = np.random.default_rng(draw(st.integers(0, 9))).normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Described("a.jpg", (draw(st.integers(1, 2**31)), 7), tuple(faces), Embeddings(vectors, "model"), clip=clip)


def values(face: Face) -> tuple[object, ...]:
    # repr keeps every digit of a float, and NaN equal to itself.
    return face.box.tobytes(), face.landmarks.tobytes(), repr(face.score), repr(face.quality), face.span


@given(described())
def test_what_was_described_comes_back_to_the_last_bit(photo: Described) -> None:
    again = unpack(pack(photo), "b.jpg", "model")
    assert again is not None
    before, after = photo.embeddings, again.embeddings
    assert (again.path, again.size, after.vectors.shape) == ("b.jpg", photo.size, before.vectors.shape)
    assert after.fingerprint == "model" and after.vectors.tobytes() == before.vectors.tobytes()
    assert list(map(values, again.faces)) == list(map(values, photo.faces))
    assert again.clip == photo.clip


@given(described(), st.data())
def test_damage_to_what_was_described_is_noticed(photo: Described, data: st.DataObject) -> None:
    packed = bytearray(pack(photo))
    place = data.draw(st.integers(0, len(packed) - 1))
    assert unpack(bytes(packed[:place]), "", "") is None
    assert unpack(bytes(packed) + b"\0", "", "") is None
    packed[place] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(packed), "", "") is None


class CountingDetector(FakeDetector):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        self.seen += [Path(image.path).name for image in images]
        return super().detect(images)


class Folder:
    """A folder of photos with one output, batch after batch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.photos = root / "photos"
        self.out = root / "out.jsonl"
        self.counts = Counts()
        self.said: list[str] = []

    def again(self, key: str, people: Sequence[str] = ("red", "blue"), **options: Any) -> list[str]:
        """Run a batch as another run; keep its counts and records and return the names of the photos that were scanned."""
        detector = CountingDetector()
        scan = options.pop("scan", SCAN)
        who = recognizer(detector, people, options.pop("policy", POLICY), key=key, scan=scan)
        self.counts, self.records = run(self.out, self.photos, who=who, tell=self.said.append, **options)
        return sorted(detector.seen)

    def people(self) -> list[list[str | None]]:
        return [[face["person"] for face in record["faces"]] for record in self.records]

    def spoil(self, path: Path) -> None:
        """Put other bytes into a photo that has the same size and time: whoever opens it finds no picture."""
        info = path.stat()
        path.write_bytes(b"x" * info.st_size)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_another_gallery_is_compared_without_opening_a_photo(folder: Folder) -> None:
    paths = paint_many(folder.photos, 60, broken=(7,))
    assert len(folder.again("one")) == 59
    for path in paths:
        folder.spoil(path)
    assert folder.again("two", ("green", "blue")) == []
    assert (folder.counts.compared, folder.counts.fresh, folder.counts.failed) == (59, 1, 1)
    assert folder.people()[1] == ["green"] and folder.people()[6] == [None, "green"]
    again, records = folder.counts, folder.records
    assert folder.again("two", ("green", "blue")) == [] and folder.counts.resumed == again.found - 1
    assert folder.records == records


def test_other_options_of_the_scan_scan_again(folder: Folder) -> None:
    paint_many(folder.photos, 5)
    folder.again("one")
    assert len(folder.again("two", scan={"max_side": 900})) == 5
    assert folder.again("three", scan={"max_side": 900}) == []
    assert len(folder.again("four")) == 5, "faces of one kind of scan only are kept"


def test_new_touched_renamed_and_copied_photos(folder: Folder) -> None:
    paths = paint_many(folder.photos, 6)
    folder.again("one")
    paint(paths[1], "cyan")
    paths[2].rename(folder.photos / "moved.png")
    paint(folder.photos / "new.png", "yellow")
    (folder.photos / "twin.png").write_bytes(paths[3].read_bytes())
    assert folder.again("two", ("green",)) == ["0001.png", "new.png"]
    assert (folder.counts.compared, folder.counts.fresh, folder.counts.vanished) == (4, 4, 1)
    assert folder.counts.reused == 2, "the renamed one and the copy are known by their bytes"
    assert folder.again("three", ("red",)) == [], "what came under another name is known under it too"


def test_a_photo_that_comes_back_is_compared(folder: Folder) -> None:
    path, _ = paint(folder.photos / "a.png", "red"), paint(folder.photos / "b.png", "blue")
    folder.again("one")
    path.rename(folder.root / "aside.png")
    folder.again("one")
    (folder.root / "aside.png").rename(path)
    assert folder.again("one") == [] and folder.counts.resumed == 2
    assert folder.people() == [["red"], ["blue"]]


def test_members_of_archives_are_compared(folder: Folder) -> None:
    folder.photos = folder.root / "photos.zip"
    with zipfile.ZipFile(folder.photos, "w") as archive:
        for name, colour in (("a.png", "red"), ("b.png", "green")):
            archive.write(paint(folder.root / name, colour), name)
    sorted_into = folder.root / "sorted"
    assert folder.again("one", sort_into=sorted_into) == ["photos.zip!a.png", "photos.zip!b.png"]
    assert folder.again("two", ("green",), sort_into=sorted_into) == []
    assert folder.people() == [[None], ["green"]]
    (copy,) = (sorted_into / "people" / "green").iterdir()
    assert copy.read_bytes() == (folder.root / "b.png").read_bytes()


POLICIES = st.builds(
    Policy, st.floats(-0.5, 1.0), st.floats(0.0, 0.5), exclusive=st.booleans(), top_k=st.integers(1, 4)
)
PEOPLE = st.lists(st.sampled_from(sorted(COLOURS)), min_size=1, unique=True)
CHANGES = st.sampled_from(["touch", "delete", "rename", "add", "copy", "break", "nothing"])


@settings(max_examples=20)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 29), PEOPLE, POLICIES), min_size=1, max_size=4))
def test_the_results_are_those_of_a_batch_from_scratch(
    steps: list[tuple[str, int, list[str], Policy]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        paint_many(folder.photos, 30, broken=(4,))
        folder.again("first")
        for number, (change, place, people, policy) in enumerate(steps):
            alter(change, sorted(folder.photos.iterdir())[place % len(list(folder.photos.iterdir()))], number)
            folder.again(f"{number}", people, policy=policy)
            who = recognizer(None, people, policy)
            _, whole = run(folder.root / f"scratch{number}.jsonl", folder.photos, who=who)
            assert [record for record in folder.records if "vanished" not in (record["error"] or "")] == whole


def alter(change: str, path: Path, number: int) -> None:
    if change == "touch":
        paint(path, "cyan", "red")
    elif change == "delete":
        path.unlink()
    elif change == "rename":
        path.rename(path.with_name(f"moved{number}.png"))
    elif change == "add":
        paint(path.with_name(f"new{number}.png"), "magenta")
    elif change == "copy":
        path.with_name(f"twin{number}.png").write_bytes(path.read_bytes())
    elif change == "break":
        path.write_bytes(b"no picture any more %d" % number)


def note_paths(seen: list[list[str]], results: Sequence[Recognized]) -> None:
    seen.append([result.path for result in results])


def test_faces_are_compared_in_the_chunks_of_a_batch_from_scratch(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digits of a similarity may depend on what is searched with it."""
    monkeypatch.setattr("facepipe.catalog.catalog.DECIDED_AT_ONCE", 10)
    paint_many(folder.photos, 60, broken=(11,))
    chunks: dict[str, list[list[str]]] = {"one": [], "two": []}
    for key, seen in chunks.items():
        who = recognizer(key=key, witness=partial(note_paths, seen))
        counts, _ = run(folder.out, folder.photos, who=who)
    assert counts.compared == 59
    assert chunks["one"] == chunks["two"] and max(map(len, chunks["one"])) == 10


# ---- pictures ----


def files(folder: Path) -> list[str]:
    return sorted(path.name.split("-", 2)[2] for path in folder.glob("*.jpg"))


def test_only_photos_of_another_answer_are_opened_for_their_pictures(folder: Folder) -> None:
    red, green = paint(folder.photos / "red.png", "red"), paint(folder.photos / "green.png", "green")
    crops = folder.root / "crops"
    folder.again("one", ("red",), crops=crops)
    assert files(crops) == ["01-red.jpg", "01-unknown.jpg"]
    folder.spoil(red)
    assert folder.again("two", ("red", "green"), crops=crops) == []
    assert files(crops) == ["01-green.jpg", "01-red.jpg"] and folder.counts.failed == 0
    folder.spoil(green)
    folder.again("three", ("red",), crops=crops)
    assert folder.counts.failed == 1 and files(crops) == ["01-red.jpg"]


def test_pictures_that_were_not_asked_for_before_are_made(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red")
    paint(folder.photos / "empty.png")
    folder.again("one")
    folder.again("one", annotate=folder.root / "drawn", crops=folder.root / "crops")
    assert folder.counts.resumed == 2 and folder.said == []
    run(folder.root / "scratch.jsonl", folder.photos, annotate=folder.root / "drawn2", crops=folder.root / "crops2")
    for name in ("drawn", "crops"):
        made, expected = (sorted((folder.root / part).glob("*.jpg")) for part in (name, f"{name}2"))
        assert [(path.name, path.read_bytes()) for path in made] == [(p.name, p.read_bytes()) for p in expected] != []


def test_a_copy_that_shows_another_similarity_is_drawn_anew(folder: Folder) -> None:
    photo = paint(folder.photos / "a.png", "red")
    drawn = folder.root / "drawn"
    folder.again("one", ("red",), annotate=drawn)
    before = next(drawn.glob("*.jpg")).read_bytes()
    folder.again("two", ("blue",), annotate=drawn)
    assert next(drawn.glob("*.jpg")).read_bytes() != before
    folder.spoil(photo)
    folder.again("three", ("blue",), annotate=drawn)
    assert folder.counts.failed == 0


def test_pictures_that_were_taken_away_are_made_anew(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red", "green")
    sides = (folder.root / "drawn", folder.root / "crops")
    for key in ("one", "two", "two"):
        folder.again(key, annotate=sides[0], crops=sides[1])
        made = [path for side in sides for path in side.glob("*.jpg")]
        assert len(made) == 3, key
        for path in made[:2]:
            path.unlink()


def test_a_photo_that_is_not_what_the_catalog_says_is_scanned(folder: Folder) -> None:
    path = paint(folder.photos / "a.png", "red")
    path.write_bytes(path.read_bytes().ljust(1000, b"\0"))
    folder.again("one")
    info, other = path.stat(), paint(folder.root / "other.png", "blue").read_bytes()
    path.write_bytes(other.ljust(1000, b"\0"))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert folder.again("two", crops=folder.root / "crops") == ["a.png"]
    assert folder.people() == [["blue"]] and files(folder.root / "crops") == ["01-blue.jpg"]
    assert folder.counts.fresh == 1
    assert folder.again("three") == [] and folder.people() == [["blue"]]


def test_pictures_of_a_run_that_was_stopped_do_not_pass_for_those_of_the_run_before(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(folder.photos / "a.png", "red")
    crops, drawn = folder.root / "crops", folder.root / "drawn"
    folder.again("one", ("red",), crops=crops, annotate=drawn)
    shown = next(drawn.glob("*.jpg")).read_bytes()

    def stop(self: kinds.Crops, made: Sequence[object]) -> None:
        if made:
            raise KeyboardInterrupt
        noted(self, made)  # type: ignore[arg-type]

    noted = kinds.Crops.note
    for people in (("red",), ("red", "green")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(kinds.Crops, "note", stop)
            patched.setattr(kinds.Annotated, "note", stop)
            folder.again("two", ("blue",), crops=crops, annotate=drawn)
        assert files(crops) == ["01-unknown.jpg"] and next(drawn.glob("*.jpg")).read_bytes() != shown
        folder.again("one", people, crops=crops, annotate=drawn)
        assert files(crops) == ["01-red.jpg"] and next(drawn.glob("*.jpg")).read_bytes() == shown, people


def test_a_photo_that_changes_all_the_time_does_not_keep_a_batch_for_ever(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(folder.photos / "a.png", "red")
    paint(folder.photos / "b.png", "blue")
    monkeypatch.setattr(sync, "content_hash", lambda data: "another")
    folder.again("one", crops=folder.root / "crops")
    assert files(folder.root / "crops") == [] and folder.people() == [["red"], ["blue"]]
    monkeypatch.undo()
    folder.again("one", crops=folder.root / "crops")
    assert files(folder.root / "crops") == ["01-blue.jpg", "01-red.jpg"]


def test_thumbnails_are_made_once(folder: Folder) -> None:
    path = paint(folder.photos / "a.png", "red", "green")
    page = folder.root / "page.html"
    folder.again("one", report=page)
    before = thumbnails(folder.out)
    folder.spoil(path)
    folder.again("two", ("green",), report=page)
    assert folder.counts.failed == 0 and thumbnails(folder.out) == before and len(before) == 2
    folder.again("three", ("red",))
    assert thumbnails(folder.out) == before


def test_thumbnails_that_are_lacking_are_made(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red", "green")
    folder.again("one")
    page = folder.root / "page.html"
    assert folder.again("two", ("green",), report=page) == []
    late = [row[1:] for row in thumbnails(folder.out)]
    run(folder.root / "scratch.jsonl", folder.photos, report=page)
    assert late == [row[1:] for row in thumbnails(folder.root / "scratch.jsonl")] and len(late) == 2


def thumbnails(out: Path) -> list[tuple[object, ...]]:
    return rows(out, "SELECT content, number, jpeg FROM thumbnail ORDER BY content, number")


def rows(out: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(catalog_path(out))
    found = connection.execute(query).fetchall()
    connection.commit()
    connection.close()
    return found


# ---- the catalog ----


def test_what_is_damaged_is_scanned_again(folder: Folder) -> None:
    paint_many(folder.photos, 4)
    folder.again("one")
    which = "WHERE content = (SELECT content FROM photo WHERE CAST(name AS TEXT) LIKE '%{}.png')"
    rows(folder.out, f"UPDATE description SET data = substr(data, 1, length(data) - 1) {which.format('0002')}")
    rows(folder.out, f"UPDATE description SET data = 'text' {which.format('0003')}")
    assert folder.again("two", ("green",)) == ["0002.png", "0003.png"]
    assert (folder.counts.compared, folder.counts.fresh, folder.counts.resumed) == (2, 2, 0)
    assert "the faces of 2 photos are damaged in it; they are found again" in folder.said[-1]
    assert folder.again("three") == []


def test_embeddings_are_kept_only_where_they_may_be(folder: Folder) -> None:
    paint_many(folder.photos, 6)
    folder.again("one", keep=False)
    assert rows(folder.out, "SELECT * FROM description") == []
    assert folder.again("one", keep=False) == [] and folder.counts.resumed == 6
    assert len(folder.again("two", keep=False)) == 6
    assert len(folder.again("three")) == 6 and len(rows(folder.out, "SELECT * FROM description")) == 6
    assert len(folder.again("four", keep=False)) == 6 and rows(folder.out, "SELECT * FROM description") == []


def test_results_do_not_depend_on_whether_embeddings_are_kept(folder: Folder) -> None:
    paths = paint_many(folder.photos, 60, broken=(7,))
    (folder.photos / "twin.png").write_bytes(paths[1].read_bytes())
    folder.again("one")
    kept = folder.records
    folder.out = folder.root / "others.jsonl"
    folder.again("one", keep=False)
    assert folder.records == kept
    (folder.photos / "zwilling.png").write_bytes(paths[6].read_bytes())
    assert folder.again("one", keep=False) == [] and folder.counts.reused == 1
    assert folder.records[-1]["faces"] == kept[6]["faces"] and folder.records[-1]["path"].endswith("zwilling.png")


def holds(out: Path, value: bytes) -> bool:
    """Say whether the catalog or a file that SQLite keeps beside it has these bytes."""
    return any(value in path.read_bytes() for path in out.parent.glob(f"{catalog_path(out).name}*"))


@pytest.mark.parametrize("trouble", ["none", "killed before it was written anew"])
def test_forgotten_embeddings_leave_no_byte(folder: Folder, trouble: str) -> None:
    paint_many(folder.photos, 40)
    folder.again("one")
    vectors = [
        photo.embeddings.vectors[0].tobytes()
        for (data,) in rows(folder.out, "SELECT data FROM description")
        if (photo := unpack(data, "", "")) and photo.faces
    ]
    assert len(vectors) == 30 and all(holds(folder.out, vector) for vector in vectors)
    size = catalog_path(folder.out).stat().st_size
    with Catalog(catalog_path(folder.out), write=True) as catalog:
        catalog.begin({"key": "two"}, keep=False)
        if trouble != "none":
            # What a killed run leaves: the rows are gone, the note is there, the file was not written anew.
            with catalog._transaction() as db:
                db.execute("DELETE FROM description")
                db.execute("INSERT INTO state VALUES ('scrub', '')")
        assert catalog.forget_vectors() == (40 if trouble == "none" else 0)
        assert not any(holds(folder.out, vector) for vector in vectors), "while it is open"
        assert catalog.forget_vectors() == 0
    assert not any(holds(folder.out, vector) for vector in vectors)
    assert catalog_path(folder.out).stat().st_size < size
    assert rows(folder.out, "SELECT * FROM state WHERE name = 'scrub'") == []


def test_the_faces_of_a_photo_that_failed_or_changed_since_are_dropped(folder: Folder) -> None:
    path, other = paint(folder.photos / "a.png", "red"), paint(folder.photos / "b.png", "blue")
    folder.again("one", report=folder.root / "page.html")
    path.write_bytes(b"no picture")
    paint(other, "green", "red")
    folder.again("two", report=folder.root / "page.html")
    assert folder.counts.failed == 1
    assert len(rows(folder.out, "SELECT * FROM description")) == 1 and len(thumbnails(folder.out)) == 2


def test_how_many_photos_can_be_compared(folder: Folder) -> None:
    paths = paint_many(folder.photos, 4, broken=(0,))
    folder.again("one")
    facts = recognizer().describer.facts

    def known(*facts: Mapping[str, Any], keep: bool = True) -> tuple[int, int]:
        with Catalog(catalog_path(folder.out), write=True) as catalog:
            catalog.begin(*facts, keep=keep)
            return catalog.described()

    assert known(facts) == (3, 3)
    assert known({**facts, "max_side": 1}) == known(facts, keep=False) == (0, 3)
    rows(folder.out, "DELETE FROM description WHERE rowid = 1")
    assert known(facts) == (2, 3)
    paths[3].unlink()
    folder.again("one")
    assert known(facts) == (1, 2), "what is decided is not scanned for its embeddings alone"


def test_memory_stays_flat_while_comparing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more photos' faces are out of the catalog at a time than are decided together."""
    paint_many(folder.photos, 300)
    folder.again("one")
    monkeypatch.setattr("facepipe.catalog.catalog.DECIDED_AT_ONCE", 20)
    sizes: list[int] = []
    who = recognizer(key="two", witness=lambda results: sizes.append(len(results)))
    run(folder.out, folder.photos, who=who)
    assert sum(sizes) == 300 and max(sizes) == 20


def test_a_behaviour_number_means_another_scan_and_a_version_does_not(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_many(folder.photos, 3)
    folder.again("one", scan={"detect": 1})
    monkeypatch.setattr("facepipe.__version__", "99")
    assert folder.again("one", scan={"detect": 1}) == [] and folder.counts.resumed == 3 and folder.said == []
    assert len(folder.again("one", scan={"detect": 2})) == 3
    assert folder.said == ["facepipe finds faces differently since the earlier run: all photos are scanned again"]


def test_the_facts_of_a_scan_hold_the_behaviour_numbers() -> None:
    facts = load_describer("mini", "cpu", late=True).facts
    numbers = [import_module(f"facepipe.{step}").BEHAVIOUR for step in ("detect", "embed")]
    assert [facts["detect"], facts["embed"]] == numbers
    assert set(facts) == {"detect", "embed", "detector", "model", "min_face", "min_score", "max_side", "second_chance"}
