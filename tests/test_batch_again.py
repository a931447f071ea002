"""A batch whose gallery or options changed: faces are compared again, photos are looked at only where that is needed."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.catalog.job import Counts
from facepipe.catalog.ledger import Entry, Ledger, ledger_path
from facepipe.catalog.looks import Look, pack, unpack
from facepipe.catalog.schema import MIGRATIONS
from facepipe.catalog.stream import Photo
from facepipe.outputs.sides import Annotated, Crops, Sorted
from facepipe.pipeline import Recognizer
from facepipe.types import Detected, Face, Image, Policy, Quality
from tests.batch_fixtures import POLICY, paint, paint_many, recognizer, run
from tests.fakes import COLOURS, FakeDetector

numbers = st.floats(-1e6, 1e6, width=32)
figures = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def looks(draw: st.DrawFn) -> Look:
    count, dim = draw(st.integers(0, 4)), draw(st.integers(1, 9))
    faces = []
    for _ in range(count):
        x, y = draw(numbers), draw(numbers)
        box = np.array([x, y, x + abs(x) + 1, y + abs(y) + 1], np.float32)
        landmarks = np.array(draw(st.lists(numbers, min_size=10, max_size=10)), np.float32).reshape(5, 2)
        faces.append(Face(box, draw(st.floats(0, 1)), landmarks, Quality(*(draw(figures) for _ in range(6)))))
    vectors = np.random.default_rng(draw(st.integers(0, 9))).normal(size=(count, dim)).astype(np.float32)
    return Look((draw(st.integers(1, 2**31)), 7), draw(st.integers(1, 2**31)), tuple(faces), vectors)


def values(face: Face) -> tuple[object, ...]:
    # repr keeps every digit of a float, and NaN equal to itself.
    return face.box.tobytes(), face.landmarks.tobytes(), repr(face.score), repr(face.quality)


@given(looks())
def test_a_look_comes_back_to_the_last_bit(look: Look) -> None:
    again = unpack(pack(look))
    assert again is not None
    assert (again.size, again.pixels, again.vectors.shape) == (look.size, look.pixels, look.vectors.shape)
    assert again.vectors.dtype == np.float32 and again.vectors.tobytes() == look.vectors.tobytes()
    assert list(map(values, again.faces)) == list(map(values, look.faces))


@given(looks(), st.data())
def test_damage_to_a_look_is_noticed(look: Look, data: st.DataObject) -> None:
    packed = bytearray(pack(look))
    place = data.draw(st.integers(0, len(packed) - 1))
    assert unpack(bytes(packed[:place])) is None
    assert unpack(bytes(packed) + b"\0") is None
    packed[place] ^= data.draw(st.integers(1, 255))
    assert unpack(bytes(packed)) is None


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

    def again(self, key: str, people: Sequence[str] = ("red", "blue"), **options: Any) -> list[str]:
        """Run a batch as another run; keep its counts and records and return the names of the photos that were looked at."""
        detector = CountingDetector()
        who = recognizer(detector, people, options.pop("policy", POLICY))
        self.counts, self.records = run(self.out, self.photos, key=key, who=who, **options)
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


def test_other_options_of_looking_look_again(folder: Folder) -> None:
    paint_many(folder.photos, 5)
    folder.again("one")
    assert len(folder.again("two", looking={"max_side": 900})) == 5
    assert folder.again("three", looking={"max_side": 900}) == []
    assert len(folder.again("four")) == 5, "faces of one kind of look only are kept"


def test_new_touched_renamed_and_copied_photos(folder: Folder) -> None:
    paths = paint_many(folder.photos, 6)
    folder.again("one")
    paint(paths[1], "cyan")
    paths[2].rename(folder.photos / "moved.png")
    paint(folder.photos / "new.png", "yellow")
    (folder.photos / "twin.png").write_bytes(paths[3].read_bytes())
    assert folder.again("two", ("green",)) == ["0001.png", "new.png"]
    assert (folder.counts.compared, folder.counts.fresh, folder.counts.vanished) == (6, 2, 1)
    assert folder.counts.reused == 0
    assert folder.again("three", ("red",)) == [], "what came under another name is known under it too"


def test_a_photo_that_comes_back_is_compared(folder: Folder) -> None:
    path, _ = paint(folder.photos / "a.png", "red"), paint(folder.photos / "b.png", "blue")
    folder.again("one")
    path.rename(folder.root / "aside.png")
    folder.again("one")
    (folder.root / "aside.png").rename(path)
    assert folder.again("one") == [] and folder.counts.compared == 1
    assert folder.people() == [["red"], ["blue"]]


def test_members_of_archives_are_compared(folder: Folder) -> None:
    folder.photos = folder.root / "photos.zip"
    with zipfile.ZipFile(folder.photos, "w") as archive:
        for name, colour in (("a.png", "red"), ("b.png", "green")):
            archive.write(paint(folder.root / name, colour), name)
    sorted_into = folder.root / "sorted"
    assert folder.again("one", side_outputs=[Sorted(sorted_into)]) == ["photos.zip!a.png", "photos.zip!b.png"]
    assert folder.again("two", ("green",), side_outputs=[Sorted(sorted_into)]) == []
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


def test_faces_are_compared_in_the_chunks_of_a_batch_from_scratch(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last digits of a similarity may depend on what is searched with it."""
    monkeypatch.setattr("facepipe.catalog.stream.CHUNK_PIXELS", 20_000)
    paint_many(folder.photos, 60, broken=(11,))
    chunks: dict[str, list[list[str]]] = {"one": [], "two": []}
    for key, seen in chunks.items():
        who = recognizer()
        who = Recognizer.of(
            who.describer, who.matcher, POLICY, lambda results, seen=seen: seen.append([r.path for r in results])
        )
        counts, _ = run(folder.out, folder.photos, key=key, who=who)
    assert counts.compared == 59
    assert chunks["one"] == chunks["two"] and max(map(len, chunks["one"])) < 10


# ---- pictures ----


def files(folder: Path) -> list[str]:
    return sorted(path.name.split("-", 2)[2] for path in folder.iterdir())


def test_only_photos_of_another_answer_are_opened_for_their_pictures(folder: Folder) -> None:
    red, green = paint(folder.photos / "red.png", "red"), paint(folder.photos / "green.png", "green")
    crops = folder.root / "crops"
    folder.again("one", ("red",), side_outputs=[Crops(crops)])
    assert files(crops) == ["01-red.jpg", "01-unknown.jpg"]
    folder.spoil(red)
    assert folder.again("two", ("red", "green"), side_outputs=[Crops(crops)]) == []
    assert files(crops) == ["01-green.jpg", "01-red.jpg"] and folder.counts.failed == 0
    folder.spoil(green)
    folder.again("three", ("red",), side_outputs=[Crops(crops)])
    assert folder.counts.failed == 1 and files(crops) == ["01-red.jpg"]


def test_pictures_that_were_not_asked_for_before_are_made(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red")
    paint(folder.photos / "empty.png")
    folder.again("one")
    sides = [Annotated(folder.root / "drawn"), Crops(folder.root / "crops")]
    assert folder.again("two", side_outputs=sides) == [] and folder.counts.compared == 2
    scratch = [Annotated(folder.root / "drawn2"), Crops(folder.root / "crops2")]
    run(folder.root / "scratch.jsonl", folder.photos, side_outputs=scratch)
    for name in ("drawn", "crops"):
        made, expected = (sorted((folder.root / part).iterdir()) for part in (name, f"{name}2"))
        assert [(path.name, path.read_bytes()) for path in made] == [(p.name, p.read_bytes()) for p in expected] != []


def test_a_copy_that_shows_another_similarity_is_drawn_anew(folder: Folder) -> None:
    photo = paint(folder.photos / "a.png", "red")
    drawn = folder.root / "drawn"
    folder.again("one", ("red",), side_outputs=[Annotated(drawn)])
    before = next(drawn.iterdir()).read_bytes()
    folder.again("two", ("blue",), side_outputs=[Annotated(drawn)])
    assert next(drawn.iterdir()).read_bytes() != before
    folder.spoil(photo)
    folder.again("three", ("blue",), side_outputs=[Annotated(drawn)])
    assert folder.counts.failed == 0


def test_pictures_that_were_taken_away_are_made_anew(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red", "green")
    sides = (folder.root / "drawn", folder.root / "crops")
    for key in ("one", "two"):
        folder.again(key, side_outputs=[Annotated(sides[0]), Crops(sides[1])])
        made = [path for side in sides for path in side.iterdir()]
        assert len(made) == 3, key
        for path in made[:2]:
            path.unlink()


def test_a_photo_that_is_not_what_the_ledger_knows_is_looked_at(folder: Folder) -> None:
    path = paint(folder.photos / "a.png", "red")
    path.write_bytes(path.read_bytes().ljust(1000, b"\0"))
    folder.again("one")
    info, other = path.stat(), paint(folder.root / "other.png", "blue").read_bytes()
    path.write_bytes(other.ljust(1000, b"\0"))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert folder.again("two", side_outputs=[Crops(folder.root / "crops")]) == ["a.png"]
    assert folder.people() == [["blue"]] and files(folder.root / "crops") == ["01-blue.jpg"]
    assert (folder.counts.compared, folder.counts.fresh) == (0, 1)
    assert folder.again("three") == [] and folder.people() == [["blue"]]


class StoppingOutput:
    """Stops the batch after another output took a photo, as a kill may."""

    pictures = ""

    def __init__(self, inner: Crops) -> None:
        self.inner = inner

    def add(self, photo: Photo, record: dict[str, Any]) -> None:
        self.inner.add(photo, record)
        raise KeyboardInterrupt

    def stays(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
        return False

    def tidy(self) -> None:
        raise AssertionError("the batch was to be stopped")


def test_pictures_of_a_run_that_was_stopped_do_not_pass_for_those_of_the_run_before(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red")
    crops = folder.root / "crops"
    folder.again("one", ("red",), side_outputs=[Crops(crops)])
    for key in ("one", "three"):
        output = StoppingOutput(Crops(crops))
        output.pictures = output.inner.pictures
        with pytest.raises(KeyboardInterrupt):
            folder.again("two", ("blue",), side_outputs=[output])
        assert files(crops) == ["01-unknown.jpg"]
        folder.again(key, ("red",), side_outputs=[Crops(crops)])
        assert files(crops) == ["01-red.jpg"], key


def test_thumbnails_are_made_once(folder: Folder) -> None:
    path = paint(folder.photos / "a.png", "red", "green")
    folder.again("one", thumbnails=True)
    before = thumbnails(folder.out)
    folder.spoil(path)
    folder.again("two", ("green",), thumbnails=True)
    assert folder.counts.failed == 0 and thumbnails(folder.out) == before and len(before) == 2
    folder.again("three", ("red",))
    assert thumbnails(folder.out) == before


def test_thumbnails_that_are_lacking_are_made(folder: Folder) -> None:
    paint(folder.photos / "a.png", "red", "green")
    folder.again("one")
    assert folder.again("two", ("green",), thumbnails=True) == [] and len(thumbnails(folder.out)) == 2


def thumbnails(out: Path) -> list[tuple[object, ...]]:
    return rows(out, "SELECT name, number, jpeg FROM thumbnail ORDER BY name, number")


def rows(out: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(ledger_path(out))
    found = connection.execute(query).fetchall()
    connection.commit()
    connection.close()
    return found


# ---- the ledger ----


def test_a_damaged_look_is_looked_at_again(folder: Folder) -> None:
    paint_many(folder.photos, 4)
    folder.again("one")
    rows(
        folder.out, "UPDATE look SET data = substr(data, 1, length(data) - 1) WHERE CAST(name AS TEXT) LIKE '%0002.png'"
    )
    rows(folder.out, "UPDATE look SET data = 'text' WHERE CAST(name AS TEXT) LIKE '%0003.png'")
    assert folder.again("two", ("green",)) == ["0002.png", "0003.png"]
    assert folder.again("three") == []


def test_a_ledger_of_the_first_version_keeps_its_results(folder: Folder) -> None:
    paint_many(folder.photos, 4, broken=(1,))
    folder.again("one", looking=None)
    records = folder.records
    path = ledger_path(folder.out)
    old = rows(folder.out, "SELECT name, stamp, content, run, pass, position, failed, vanished, record FROM photo")
    path.unlink()
    connection = sqlite3.connect(path)
    for statement in MIGRATIONS[0].split(";\n"):
        connection.execute(statement)
    connection.executemany("INSERT INTO photo VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", old)
    connection.execute("UPDATE about SET schema_version = 1, pass = 1")
    connection.commit()
    connection.close()
    assert folder.again("one") == [] and folder.counts.resumed == 3 and folder.records == records
    assert folder.again("two") == ["0000.png", "0002.png", "0003.png"]
    assert folder.again("three") == []


def test_embeddings_are_kept_only_where_they_may_be(folder: Folder) -> None:
    paint_many(folder.photos, 6)
    folder.again("one", looking=None)
    assert rows(folder.out, "SELECT * FROM look") == []
    assert len(folder.again("two", looking=None)) == 6
    assert len(folder.again("three")) == 6 and len(rows(folder.out, "SELECT * FROM look")) == 6
    assert len(folder.again("four", looking=None)) == 6 and rows(folder.out, "SELECT * FROM look") == []


def holds(out: Path, value: bytes) -> bool:
    """Say whether the ledger or a file that SQLite keeps beside it has these bytes."""
    return any(value in path.read_bytes() for path in out.parent.glob(f"{ledger_path(out).name}*"))


@pytest.mark.parametrize("trouble", ["none", "killed before it was written anew"])
def test_forgotten_embeddings_leave_no_byte(folder: Folder, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paint_many(folder.photos, 40)
    folder.again("one")
    vectors = [
        look.vectors[0].tobytes()
        for (data,) in rows(folder.out, "SELECT data FROM look")
        if (look := unpack(data)) and look.faces
    ]
    assert len(vectors) == 30 and all(holds(folder.out, vector) for vector in vectors)
    size = ledger_path(folder.out).stat().st_size
    with Ledger(ledger_path(folder.out)) as ledger:
        ledger.begin_pass({"key": "two"})
        if trouble != "none":
            # What a killed run leaves: the rows are gone, the note is there, the file was not written anew.
            with ledger._transaction() as db:
                db.execute("DELETE FROM look")
                db.execute("INSERT INTO state VALUES ('scrub', '')")
        assert ledger.forget_looks() == (40 if trouble == "none" else 0)
        assert not any(holds(folder.out, vector) for vector in vectors), "while it is open"
        assert ledger.forget_looks() == 0
    assert not any(holds(folder.out, vector) for vector in vectors)
    assert ledger_path(folder.out).stat().st_size < size
    assert rows(folder.out, "SELECT * FROM state WHERE name = 'scrub'") == []


def test_the_faces_of_a_photo_that_failed_since_are_dropped(folder: Folder) -> None:
    path = paint(folder.photos / "a.png", "red")
    folder.again("one")
    path.write_bytes(b"no picture")
    folder.again("two")
    assert folder.counts.failed == 1 and rows(folder.out, "SELECT * FROM look") == []


def test_how_many_photos_can_be_compared(folder: Folder) -> None:
    paint_many(folder.photos, 4, broken=(0,))
    folder.again("one")

    def known(looking: Mapping[str, Any] | None) -> tuple[int, int]:
        with Ledger(ledger_path(folder.out)) as ledger:
            ledger.begin_pass({"key": "two"}, looking)
            return ledger.known_looks()

    assert known({"max_side": 1280}) == (3, 3)
    assert known({"max_side": 1}) == known(None) == (0, 3)
    with Ledger(ledger_path(folder.out)) as ledger:
        ledger.begin_pass({"key": "two"})
        ledger.record([Entry("b.png", "1:1", "", 9, "{}", False)])
    assert known({"max_side": 1280}) == (3, 4)


def test_memory_stays_flat_while_comparing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more photos' faces are out of the ledger at a time than the stream may hold."""
    paint_many(folder.photos, 300)
    folder.again("one")
    ahead: list[int] = []
    given = 0
    earlier_of: Callable[..., Any] = Ledger.earlier_of

    def counted(self: Ledger, name: str, stamp: str) -> object:
        nonlocal given
        given += 1
        return earlier_of(self, name, stamp)

    monkeypatch.setattr(Ledger, "earlier_of", counted)
    folder.again("two", progress=lambda counts: ahead.append(given - counts.found))
    assert given == 300 and max(ahead) <= 5 * 24 and len(ahead) > 10
