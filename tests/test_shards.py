"""Shards: parts of a scan, made side by side, come together as one run would have made it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.merge import merge_catalogs
from facepipe.catalog.scan import ScanOptions
from facepipe.catalog.shards import BLOCK, WHOLE, Shard
from facepipe.catalog.store import catalog_path
from facepipe.cli import main
from facepipe.errors import InputError, UsageError
from facepipe.images import write_image
from facepipe.images.samples import PEOPLE, portraits, probes
from facepipe.types import Described, Sampling
from tests.batch_fixtures import paint, paint_many, recognizer, run
from tests.test_batch import CountingDetector


@given(st.integers(1, 9), st.integers(0, 2000))
def test_the_parts_are_the_whole_and_share_nothing(of: int, photos: int) -> None:
    parts = [Shard(number, of) for number in range(1, of + 1)]
    shared = [list(part.share(range(photos))) for part in parts]
    assert sorted(pair for share in shared for pair in share) == [(n, n) for n in range(photos)]
    assert [part.count(photos) for part in parts] == list(map(len, shared))
    assert max(map(len, shared)) - min(map(len, shared)) <= BLOCK


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "a/b", "1/0", "1/2/3", "1.0/2", "\x1b[2J/3"])
def test_what_is_no_shard_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="expected K/N") as error:
        Shard.parse(text)
    assert "\x1b" not in str(error.value)


def scan_part(path: Path, folder: Path, number: int, of: int) -> None:
    with Catalog(path, write=True) as catalog:
        catalog.scan([folder], recognizer().describer, ScanOptions(workers=2, shard=Shard(number, of)))


def files(folder: Path) -> set[str]:
    """What lies in a folder, but for what SQLite keeps beside a catalog that was read."""
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if not (name.endswith(("-wal", "-shm")) and name[:-4] in names)}


def lines(path: Path) -> list[str]:
    with Catalog(path) as catalog:
        return list(catalog.lines())


def test_a_batch_goes_on_from_shards_with_the_same_bytes(tmp_path: Path) -> None:
    paths = paint_many(tmp_path / "photos", 4 * BLOCK + 11, broken=(7, 2 * BLOCK))
    for first, again in ((3, 100), (150, 60)):  # equal photos in different parts
        shutil.copyfile(paths[first], paths[again])
    run(tmp_path / "one.jsonl", tmp_path / "photos")
    for number in (1, 2, 3):
        scan_part(tmp_path / f"{number}.catalog", tmp_path / "photos", number, 3)
    out = tmp_path / "all.jsonl"
    made = merge_catalogs([tmp_path / f"{number}.catalog" for number in (2, 3, 1)], catalog_path(out))
    assert (made.photos, made.failed, made.missing, made.stopped) == (len(paths), 2, (), ())
    with Catalog(catalog_path(out)) as catalog, Catalog(catalog_path(tmp_path / "one.jsonl")) as one:
        assert [photo.path for photo in catalog.photos()] == list(map(str, paths))
        assert catalog.model == one.model and catalog.shard == WHOLE
        for mine, theirs in zip(catalog.photos(), one.photos(), strict=True):
            if isinstance(mine, Described):
                assert isinstance(theirs, Described)
                assert mine.embeddings.vectors.tobytes() == theirs.embeddings.vectors.tobytes()
        assert catalog.count_faces() == one.count_faces()
    detector = CountingDetector()
    counts, _ = run(out, tmp_path / "photos", detector=detector)
    # What failed is tried again, as in any run.
    assert (detector.seen, counts.failed) == ([], 2)
    assert out.read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert (tmp_path / "all.failures.csv").read_bytes() == (tmp_path / "one.failures.csv").read_bytes()


def test_what_shards_decided_stays(tmp_path: Path) -> None:
    from facepipe import batch

    paint_many(tmp_path / "photos", 3 * BLOCK)
    run(tmp_path / "one.jsonl", tmp_path / "photos", keep=False)
    for number in (1, 2):
        options = batch.BatchOptions(shard=Shard(number, 2))
        outputs = batch.Outputs(tmp_path / f"{number}.jsonl")
        list(batch.run([str(tmp_path / "photos")], outputs, lambda before, late: (recognizer(), False), options))
    parts = [catalog_path(tmp_path / f"{number}.jsonl") for number in (1, 2)]
    assert all(0 < len(lines(part)) < 3 * BLOCK for part in parts)
    merge_catalogs(parts, tmp_path / "all.jsonl.catalog")
    assert lines(tmp_path / "all.jsonl.catalog") == lines(catalog_path(tmp_path / "one.jsonl"))
    detector = CountingDetector()
    run(tmp_path / "all.jsonl", tmp_path / "photos", detector=detector, keep=False)
    assert detector.seen == []
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_a_missing_and_a_stopped_part_are_told_and_scanned_later(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 3 * BLOCK)
    run(tmp_path / "one.jsonl", tmp_path / "photos")
    for number in (1, 3):
        scan_part(tmp_path / f"{number}.catalog", tmp_path / "photos", number, 3)
    with Catalog(tmp_path / "3.catalog", write=True) as catalog:
        catalog.begin(recognizer().describer.facts)  # and its process was killed
    made = merge_catalogs([tmp_path / "1.catalog", tmp_path / "3.catalog"], tmp_path / "all.jsonl.catalog")
    assert (made.photos, made.missing, made.stopped) == (2 * BLOCK, (2,), (tmp_path / "3.catalog",))
    detector = CountingDetector()
    run(tmp_path / "all.jsonl", tmp_path / "photos", detector=detector)
    assert len(detector.seen) == BLOCK
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("sampling", "option"), [(Sampling(every_seconds=2.0), "every-seconds"), (Sampling(keyframes=True), "keyframes")]
)
def test_parts_that_looked_at_other_frames_of_videos_are_refused(
    tmp_path: Path, sampling: Sampling, option: str
) -> None:
    photo = paint(tmp_path / "a.png", "red")
    for name, asked in (("1", Sampling()), ("2", sampling), ("3", Sampling())):
        describer = recognizer().describer
        describer.sampling = asked
        with Catalog(tmp_path / f"{name}.catalog", write=True) as catalog:
            catalog.scan([photo], describer)
    with pytest.raises(InputError, match=f"2.catalog: was scanned with another {option} than .*; scan both alike"):
        merge_catalogs([tmp_path / "1.catalog", tmp_path / "2.catalog"], tmp_path / "all.catalog")
    with Catalog(tmp_path / "3.catalog", write=True) as catalog:  # one of before videos were looked at
        (facts,) = catalog._first("SELECT value FROM state WHERE name = 'facts'") or ("",)
        older = {name: value for name, value in json.loads(facts).items() if name != "videos"}
        with catalog._transaction() as db:
            db.execute("UPDATE state SET value = ? WHERE name = 'facts'", (json.dumps(older),))
    assert merge_catalogs([tmp_path / "3.catalog", tmp_path / "2.catalog"], tmp_path / "all.catalog").photos == 1


def test_piles_that_were_scanned_apart_follow_each_other(tmp_path: Path) -> None:
    for name, count in (("b", 5), ("a", 60)):
        paint_many(tmp_path / name, count)
        scan_part(tmp_path / f"{name}.catalog", tmp_path / name, 1, 1)
    shared = paint(tmp_path / "shared" / "x.png", "red")
    for name in ("b", "a"):
        with Catalog(tmp_path / f"{name}.catalog", write=True) as catalog:
            catalog.scan([tmp_path / name, shared], recognizer().describer)
            if name == "b":
                shared.write_bytes(b"not a picture")  # and what could not be read is what the other could read
        paint(shared, "red")
    merge_catalogs([tmp_path / "b.catalog", tmp_path / "a.catalog"], tmp_path / "all.catalog")
    with Catalog(tmp_path / "all.catalog") as catalog:
        paths = [Path(photo.path) for photo in catalog.photos()]
    assert [path.parent.name for path in paths if path != shared] == ["b"] * 5 + ["a"] * 60
    assert paths.count(shared) == 1


def test_one_that_can_be_used_counts_and_not_one_that_failed(tmp_path: Path) -> None:
    photo = paint(tmp_path / "photos" / "x.png", "red")
    scan_part(tmp_path / "good.catalog", photo, 1, 1)
    photo.write_bytes(b"not a picture")
    scan_part(tmp_path / "bad.catalog", photo, 1, 1)
    for number, order in enumerate((("good", "bad"), ("bad", "good"))):
        made = merge_catalogs([tmp_path / f"{name}.catalog" for name in order], tmp_path / f"{number}.catalog")
        assert (made.photos, made.failed) == (1, 0)


def test_what_cannot_be_merged_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 3)
    scan_part(tmp_path / "a.catalog", tmp_path / "photos", 1, 2)
    with Catalog(tmp_path / "small.catalog", write=True) as catalog:
        catalog.scan([tmp_path / "photos"], recognizer(scan={"max_side": 640}).describer)
    (tmp_path / "text.catalog").write_text("not a catalog\n" * 100)
    here = files(tmp_path)
    a, out = tmp_path / "a.catalog", tmp_path / "all.catalog"
    for parts, where, wanted in (
        ([a, a], out, (UsageError, "named twice")),
        ([a, tmp_path / "none.catalog"], out, (InputError, "no such catalog")),
        ([a, tmp_path / "small.catalog"], out, (InputError, "another max-side")),
        ([a, tmp_path / "text.catalog"], out, (InputError, "is not a catalog")),
        ([a], a, (UsageError, "is there already")),
        ([a], tmp_path / "all.jsonl", (UsageError, "NAME.catalog")),
    ):
        with pytest.raises(wanted[0], match=wanted[1]):
            merge_catalogs(parts, where)
        assert files(tmp_path) == here


def test_a_damaged_part_leaves_nothing(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 2 * BLOCK)
    for number in (1, 2):
        scan_part(tmp_path / f"{number}.catalog", tmp_path / "photos", number, 2)
    damaged = tmp_path / "2.catalog"
    data = bytearray(damaged.read_bytes())
    for place in range(8192, len(data), 512):
        data[place : place + 64] = b"\xff" * 64
    damaged.write_bytes(data)
    here = files(tmp_path)
    with pytest.raises(InputError, match="damaged"):
        merge_catalogs([tmp_path / "1.catalog", damaged], tmp_path / "all.catalog")
    assert files(tmp_path) == here


def test_a_catalog_of_before_there_were_dates_is_a_part(tmp_path: Path) -> None:
    paint_many(tmp_path / "photos", 2)
    scan_part(tmp_path / "old.catalog", tmp_path / "photos", 1, 1)
    with sqlite3.connect(tmp_path / "old.catalog") as db:
        db.execute("ALTER TABLE photo DROP COLUMN taken")
        db.execute("UPDATE about SET schema_version = 1")
    db.close()
    assert merge_catalogs([tmp_path / "old.catalog"], tmp_path / "all.catalog").photos == 2


@pytest.mark.models
def test_the_command_gives_the_bytes_of_one_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    for number, probe in enumerate(probes()):
        for copy in range(5):
            rgb = probe.image.rgb.copy()
            rgb[0, 0] = copy  # no two of the same bytes
            write_image(photos / f"{copy}-{number:03}.png", rgb)
    for name, portrait in portraits().items():
        write_image(tmp_path / "people" / name / "1.jpg", portrait.rgb)

    def facepipe(*arguments: object, code: int = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = "".join(capfd.readouterr())
        assert stop.value.code == code, said
        return said

    home = ("--gallery", tmp_path / "gallery")
    facepipe("enroll", tmp_path / "people", *home)
    facepipe("batch", photos, "--out", tmp_path / "one.jsonl", *home)
    facepipe("scan", photos, "--catalog", tmp_path / "1.catalog", "--shard", "1/2")
    facepipe("batch", photos, "--out", tmp_path / "2.jsonl", "--shard", "2/2", *home)
    parts = (tmp_path / "1.catalog", tmp_path / "2.jsonl")
    said = facepipe("catalog", "merge", *parts, "--out", tmp_path / "all.jsonl.catalog")
    assert "60 photos of 2 catalogs, 0 failed" in said and "--out" in said
    said = facepipe("batch", photos, "--out", tmp_path / "all.jsonl", *home)
    assert " scanned now" not in said and "again" not in said  # nothing was decided before
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert any(person in (tmp_path / "all.jsonl").read_text() for person in PEOPLE)
    assert "expected K/N" in facepipe("scan", photos, "--catalog", tmp_path / "x.catalog", "--shard", "3/2", code=2)
