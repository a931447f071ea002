"""The batch with fakes: order, bounds, failures, resuming, changes."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.counts import Counts
from facepipe.catalog.scan import Scanned
from facepipe.catalog.sources import Source
from facepipe.catalog.store import catalog_path
from facepipe.embed.describer import ordered_map
from facepipe.errors import InputError, ModelError, OutputError
from facepipe.images import read_image
from facepipe.types import Described, Detected, Failed, Image
from tests.batch_fixtures import paint, paint_many, recognizer, run
from tests.fakes import CrashingDetector, FakeDetector


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(0, 3))
def test_a_parallel_map_keeps_the_order(items: list[int], workers: int, ahead: int) -> None:
    assert list(ordered_map(lambda item: item * 2, items, workers, ahead)) == [item * 2 for item in items]


def test_a_parallel_map_draws_no_more_than_it_may_hold() -> None:
    drawn = itertools.count()
    results = ordered_map(lambda item: item, drawn, workers=2, ahead=3)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert next(drawn) <= 10 + 2 + 3
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 10


def test_a_parallel_map_raises_in_place() -> None:
    results = ordered_map(lambda item: 1 / item, [1, 2, 0, 4], workers=2, ahead=1)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_every_photo_has_a_record_in_the_order_of_the_input(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 60, broken=(7, 30))
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos")
    assert [record["path"] for record in records] == [str(path) for path in paths]
    assert [index for index, record in enumerate(records) if record["error"]] == [7, 30]
    assert (counts.found, counts.failed) == (60, 2)
    people = [[face["person"] for face in record["faces"]] for record in records]
    assert people[1] == [None] and people[6] == ["red", None]  # green; red, green
    assert counts.faces == counts.known + counts.unknown == sum(map(len, people))


def test_nothing_is_a_batch_too(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog", write=True) as catalog:
        counts = catalog.scan([], recognizer().describer)
        catalog.decide(recognizer())
        assert (counts.found, len(catalog), list(catalog.records())) == (0, 0, [])


class CountingDetector(FakeDetector):
    """Counts what it was shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        self.seen += [Path(image.path).name for image in images]
        return super().detect(images)


class StoppedError(Exception):
    """Stands for Ctrl-C."""


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 100, broken=(3,))
    _, whole = run(tmp_path / "whole.jsonl", tmp_path / "photos")

    def stop(counts: Counts) -> None:
        if counts.found >= 48:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(tmp_path / "out.jsonl", tmp_path / "photos", show=stop)
    detector = CountingDetector()
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos", detector=detector)
    assert records == whole
    assert len(detector.seen) == 52
    assert (counts.resumed, counts.found, counts.failed) == (47, 100, 1)


def test_a_run_that_was_stopped_while_it_decided_scans_nothing_again(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 500, broken=(3,))
    _, whole = run(tmp_path / "whole.jsonl", tmp_path / "photos")

    def stop(counts: Counts) -> None:
        if counts.stage == "decide":
            raise StoppedError

    with pytest.raises(StoppedError):
        run(tmp_path / "out.jsonl", tmp_path / "photos", show=stop)
    with Catalog(catalog_path(tmp_path / "out.jsonl")) as catalog:
        assert 0 < len(list(catalog.records())) < 500
    detector = CountingDetector()
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos", detector=detector)
    assert records == whole and detector.seen == []
    assert (counts.resumed, counts.compared, counts.fresh) == (499, 0, 1)


def test_changed_photos_are_done_again_and_vanished_ones_are_marked(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 10)
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "photos")
    paint(paths[4], "magenta", "red")
    paths[7].unlink()
    paint(tmp_path / "photos" / "0009a.png", "blue")
    detector = CountingDetector()
    counts, records = run(out, tmp_path / "photos", detector=detector)
    assert sorted(detector.seen) == ["0004.png", "0009a.png"]
    assert [Path(record["path"]).name for record in records][-3:] == ["0009.png", "0009a.png", "0007.png"]
    assert "vanished" in records[-1]["error"]
    assert (counts.vanished, counts.failed, counts.found) == (1, 0, 10)
    again, same = run(out, tmp_path / "photos")
    assert same == records and again.vanished == 1


def test_a_photo_that_comes_back_is_no_longer_marked(tmp_path: Path) -> None:
    _, second = paint_many(tmp_path / "photos", 2)
    out = tmp_path / "out.jsonl"
    _, before = run(out, tmp_path / "photos")
    second.rename(tmp_path / "aside.png")
    run(out, tmp_path / "photos")
    (tmp_path / "aside.png").rename(second)
    counts, records = run(out, tmp_path / "photos")
    assert records == before and counts.vanished == 0


def test_another_input_with_the_same_output_marks_nothing(tmp_path: Path) -> None:
    paint_many(tmp_path / "a", 2)
    paint_many(tmp_path / "b", 3)
    run(tmp_path / "out.jsonl", tmp_path / "a")
    (tmp_path / "b" / "0000.png").unlink()
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "a" / "0000.png", tmp_path / "b")
    assert (counts.vanished, counts.left) == (0, 1) and len(records) == 3


def test_other_options_or_another_gallery_do_everything_again(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 5)
    run(tmp_path / "out.jsonl", tmp_path / "photos", key="one")
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos", key="two")
    assert (counts.resumed, counts.compared) == (0, 5) and len(records) == 5


def test_copies_are_looked_at_once(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    run(tmp_path / "out.jsonl", tmp_path / "photos")
    paint(tmp_path / "photos" / "b.png", "red")
    detector = CountingDetector()
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos", detector=detector)
    assert detector.seen == [] and counts.reused == 1
    assert [Path(record["path"]).name for record in records] == ["a.png", "b.png"]
    assert records[0]["faces"] == records[1]["faces"]


def test_failures_are_tried_again(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 3, broken=(1,))
    stamp = paths[1].stat()
    run(tmp_path / "out.jsonl", tmp_path / "photos")
    content = paint(tmp_path / "good.png", "red").read_bytes()
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    counts, _ = run(tmp_path / "out.jsonl", tmp_path / "photos")
    assert counts.failed == 0


class PickyDetector(FakeDetector):
    """Cannot do one photo, and runs out of memory on more than three."""

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        if len(images) > 3:
            raise MemoryError
        if any(image.path.endswith("0005.png") for image in images):
            raise RuntimeError("the tensor is too odd\nat line 7")
        return super().detect(images)


def test_a_photo_that_cannot_be_processed_spoils_only_itself(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 20)
    _, plain = run(tmp_path / "plain.jsonl", tmp_path / "photos")
    counts, records = run(tmp_path / "out.jsonl", tmp_path / "photos", detector=PickyDetector())
    assert counts.failed == 1
    assert "0005.png: cannot be processed (the tensor is too odd)" in records[5]["error"]
    assert records[:5] + records[6:] == plain[:5] + plain[6:]


def test_what_concerns_all_photos_stops_the_batch(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 3)
    with pytest.raises(ModelError):
        run(tmp_path / "out.jsonl", tmp_path / "photos", detector=CrashingDetector())


def test_two_batches_do_not_write_to_one_output(tmp_path: Path) -> None:
    path = catalog_path(tmp_path / "out.jsonl")
    with Catalog(path, write=True) as catalog:
        catalog.begin({})
        with pytest.raises(InputError, match="another process is writing"):
            Catalog(path, write=True)
        with Catalog(path) as reader:
            assert len(reader) == 0
    Catalog(path, write=True).close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_something_else_in_the_catalogs_place_is_refused(tmp_path: Path) -> None:
    path = catalog_path(tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="no such catalog"):
        Catalog(path)
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    for write in (False, True):
        with pytest.raises(InputError, match="is not a catalog"):
            Catalog(path, write=write)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE about (schema_version INTEGER, pass INTEGER)")
    connection.execute("INSERT INTO about VALUES (99, 0)")
    connection.commit()
    connection.close()
    for write in (False, True):
        with pytest.raises(InputError, match="schema 99"):
            Catalog(path, write=write)


def limit_pages(catalog: Catalog) -> None:
    """Let the catalog's file grow no more, as on a full disk: it keeps the pages that it has."""
    catalog._db.execute("PRAGMA max_page_count = 1")


def failed(name: str, position: int = 0, reason: str = "is empty") -> Scanned:
    """A photo that cannot be used, as a scan yields it."""
    return Scanned(Source(name, "1:1", None, bytes), position, "", Failed(name, reason))


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (limit_pages, "full.*run the same command again"),
        (lambda catalog: catalog._db.execute("PRAGMA query_only = 1"), "readonly.*check the permissions"),
    ],
)
def test_a_disk_that_takes_no_more_is_said_and_the_batch_goes_on_later(
    tmp_path: Path, trouble: Callable[[Catalog], object], says: str
) -> None:
    paint_many(tmp_path / "photos", 40)
    _, whole = run(tmp_path / "whole.jsonl", tmp_path / "photos")
    out = tmp_path / "out.jsonl"
    with Catalog(catalog_path(out), write=True) as catalog:
        catalog.begin({"key": "run"})
        catalog._record([failed("gone.png")], {})
        trouble(catalog)
        with pytest.raises(OutputError, match=says):
            for number in range(100):
                catalog._record([failed(f"{number}.png", number, "{}" * 1000)], {})
        if "readonly" in says:
            for refused in (
                lambda: catalog._meet([(1, 0, b"gone.png")]),
                lambda: catalog._finish(Counts()),
                lambda: catalog.scan_again(["gone.png"]),
                lambda: catalog.decide(recognizer()),
                lambda: catalog.put_thumbnails({}),
                lambda: catalog.begin({"key": "run"}),
            ):
                with pytest.raises(OutputError, match=says):
                    refused()
    with sqlite3.connect(catalog_path(out)) as connection:
        connection.execute("DELETE FROM photo")
    connection.close()
    assert run(out, tmp_path / "photos")[1] == whole


def test_a_catalog_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 60)
    out = tmp_path / "out.jsonl"
    run(out, tmp_path / "photos")
    with catalog_path(out).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(InputError, match=r"damaged \(.*remove it and out.jsonl to begin again"):
        run(out, tmp_path / "photos")


class SlowDetector(FakeDetector):
    """Remembers how many calls ran at the same time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.lock = threading.Lock()

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        until = time.monotonic() + 5.0
        while self.most < 3 and time.monotonic() < until:
            time.sleep(0.01)
        with self.lock:
            self.running -= 1
        return super().detect(images)


def test_as_many_workers_as_asked_for(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 100)
    detector = SlowDetector()
    run(tmp_path / "out.jsonl", tmp_path / "photos", detector=detector, workers=3)
    assert detector.most == 3


def test_freed_memory_goes_back_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from facepipe.cli import allocator

    if sys.platform == "linux":
        before = _resident()
        # Small pieces, every second one kept: the library would keep the holes between them.
        pieces = [bytearray(50_000) for _ in range(2000)]
        kept = pieces[::2]
        del pieces
        allocator.share_arenas()
        allocator.give_back()
        assert _resident() - before < 75 and len(kept) == 1000
    monkeypatch.setattr(allocator, "_function", lambda name: None)
    allocator.share_arenas()
    allocator.give_back()


def _resident() -> float:
    """Return this process's resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_reader_that_gave_up_can_be_closed_after_the_catalog(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 3)
    run(tmp_path / "out.jsonl", tmp_path / "photos")
    with Catalog(catalog_path(tmp_path / "out.jsonl")) as catalog:
        lines, photos = catalog.lines(), catalog.photos()
        assert next(lines).startswith("{") and next(photos).path.endswith("0000.png")
    lines.close()  # type: ignore[attr-defined]
    photos.close()  # type: ignore[attr-defined]


def test_a_catalog_is_read_without_changing_it(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 4, broken=(1,))
    who = recognizer()
    run(tmp_path / "out.jsonl", tmp_path / "photos", who=who)
    path = catalog_path(tmp_path / "out.jsonl")
    before = path.read_bytes()
    with Catalog(path) as catalog, Catalog(path) as other:
        assert len(catalog) == 4 and catalog.model == "fake:1"
        photos = list(catalog.photos())
        assert [photo.path for photo in other.photos()] == list(map(str, paths))
        with pytest.raises(OutputError, match="readonly"):
            catalog.begin({})
    assert isinstance(photos[1], Failed) and "0001.png" in photos[1].reason
    expected = who.describer.describe([read_image(path) for path in paths if path != paths[1]])
    for photo, one in zip((photos[0], *photos[2:]), expected, strict=True):
        assert isinstance(photo, Described) and photo.image is None and photo.size == one.size
        assert (photo.embeddings.vectors == one.embeddings.vectors).all()
    run(tmp_path / "out.jsonl", tmp_path / "photos", who=who, keep=False)
    with Catalog(path) as catalog, pytest.raises(InputError, match=r"0000.png was scanned with --no-keep-embeddings"):
        list(catalog.photos())
    assert path.read_bytes() != before


def test_photos_can_be_scanned_and_decided_without_a_batch(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 3)
    with Catalog(tmp_path / "album.catalog", write=True) as catalog:
        for number in range(2):
            counts = catalog.scan([tmp_path / "photos", paths[0]], recognizer().describer)
            assert (counts.found, counts.fresh, len(catalog)) == (3, 0 if number else 3, 3)
            catalog.decide(recognizer(people=["green"]))
            assert [face["person"] for record in catalog.records() for face in record["faces"]] == ["green", None, None]
        catalog.scan([str(paths[1])], recognizer().describer)
        assert [record["path"] for record in catalog.records()] == [str(paths[1])]
