"""A catalog is read while a scan writes it, knows when photos were taken, and is brought up to date when it is an older one."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

import PIL.Image
import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.lock import CatalogLock
from facepipe.embed.describer import Describer
from facepipe.errors import InputError
from facepipe.images.taken import taken_of
from tests.fakes import FakeDetector, FakeEmbedder, picture


def describer() -> Describer:
    return Describer(FakeDetector(), FakeEmbedder())


def jpeg(date: str | None, zone: str | None = None) -> bytes:
    exif = PIL.Image.Exif()
    if date is not None:
        exif.get_ifd(0x8769)[0x9003] = date
    if zone is not None:
        exif.get_ifd(0x8769)[0x9011] = zone
    file = io.BytesIO()
    PIL.Image.fromarray(picture("red").rgb).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("date", "zone", "expected"),
    [
        ("2019:07:04 12:30:05", None, "2019-07-04T12:30:05"),
        ("2019:07:04 12:30:05", "+02:00", "2019-07-04T12:30:05+02:00"),
        ("2019:07:04 12:30:05", "nonsense", "2019-07-04T12:30:05"),
        ("0000:00:00 00:00:00", None, None),
        ("2019:02:30 12:30:05", None, None),
        ("    ", None, None),
        (None, None, None),
    ],
)
def test_when_a_photo_was_taken(date: str | None, zone: str | None, expected: str | None) -> None:
    assert taken_of(jpeg(date, zone)) == expected


def test_damaged_exif_has_no_date() -> None:
    data = jpeg("2019:07:04 12:30:05")
    for cut in range(20, len(data), 41):
        taken_of(data[:cut])
        taken_of(data[:cut] + b"\xff" * 30 + data[cut + 30 :])
    assert taken_of(b"no picture") is None


def test_the_scan_notes_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("2019:07:04 12:30:05"))
    (tmp_path / "b.jpg").write_bytes(jpeg(None))
    with Catalog(tmp_path / "c.catalog", write=True) as catalog:
        catalog.scan([tmp_path], describer())
        assert [row[0] for row in catalog._rows("SELECT taken FROM photo ORDER BY position")] == [
            "2019-07-04T12:30:05",
            None,
        ]


def test_a_catalog_of_the_first_version_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "c.catalog"
    (tmp_path / "a.jpg").write_bytes(jpeg("2019:07:04 12:30:05"))
    with Catalog(path, write=True) as catalog:
        catalog.scan([tmp_path], describer())
    connection = sqlite3.connect(path)
    connection.executescript(
        "ALTER TABLE photo DROP COLUMN taken; DROP TABLE video; UPDATE about SET schema_version = 1;"
    )
    connection.close()
    with Catalog(path) as catalog:
        assert len(list(catalog.photos())) == 1
        assert catalog.schema == 1
    with Catalog(path, write=True) as catalog:
        assert catalog.scan([tmp_path], describer()).fresh == 0
        assert catalog.schema == 3
        assert len(list(catalog.photos())) == 1


def _write_slowly(folder: Path, begun: Connection) -> None:
    with Catalog(folder / "c.catalog", write=True) as catalog:
        catalog.scan([folder / "first.jpg"], describer())
        begun.send("first")
        catalog.begin(describer().facts)
        begun.recv()
        catalog.scan([folder / "first.jpg", folder / "second.jpg"], describer())
        begun.send("second")
        time.sleep(60)


def test_others_read_while_one_writes_and_a_killed_writer_locks_nobody_out(tmp_path: Path) -> None:
    for name in ("first.jpg", "second.jpg"):
        (tmp_path / name).write_bytes(jpeg(f"2019:07:04 12:30:0{len(name) % 10}"))
    path = tmp_path / "c.catalog"
    here, there = multiprocessing.Pipe()
    writer = multiprocessing.get_context("spawn").Process(target=_write_slowly, args=(tmp_path, there))
    writer.start()
    try:
        assert here.recv() == "first"
        with Catalog(path) as catalog:
            assert len(list(catalog.photos())) == 1
            with pytest.raises(InputError, match="another process is writing"):
                Catalog(path, write=True)
            here.send("go on")
            assert here.recv() == "second"
            assert len(list(catalog._rows("SELECT 1 FROM photo"))) == 2
    finally:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    with Catalog(path, write=True) as catalog:
        assert len(catalog) == 2


def test_without_locks_of_the_file_system_sqlite_keeps_the_second_writer_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Catalog(tmp_path / "c.catalog", write=True), pytest.raises(InputError, match="another process is writing"):
        Catalog(tmp_path / "c.catalog", write=True)


def test_a_lock_whose_file_was_removed_keeps_nobody_out(tmp_path: Path) -> None:
    first = CatalogLock(tmp_path / "c.catalog")
    (tmp_path / "c.catalog-lock").unlink()
    second = CatalogLock(tmp_path / "c.catalog")
    first.close()
    assert (tmp_path / "c.catalog-lock").exists()
    second.close()
    assert not list(tmp_path.iterdir())


def test_a_catalog_on_a_read_only_disk_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(None))
    folder = tmp_path / "disk"
    folder.mkdir()
    with Catalog(folder / "c.catalog", write=True) as catalog:
        catalog.scan([tmp_path / "a.jpg"], describer())
    folder.chmod(0o500)
    try:
        with Catalog(folder / "c.catalog") as catalog:
            assert len(list(catalog.photos())) == 1
    finally:
        folder.chmod(0o700)
