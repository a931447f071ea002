"""Scans by workers elsewhere: they come to what one process comes to, whoever of them dies, and on Ray as well."""

from __future__ import annotations

import pickle
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from facepipe.catalog.catalog import Catalog
from facepipe.catalog.ray_scan import RayScan
from facepipe.catalog.scan import ScanOptions
from facepipe.catalog.workers import LostError, Pool, Worker
from facepipe.embed.describer import Describer
from facepipe.errors import DeviceError, FacepipeError, LibraryError, ModelError
from facepipe.images import write_image
from facepipe.images.samples import portraits
from tests.batch_fixtures import paint_many, recognizer

Fault = Callable[[str, tuple[Any, ...]], bool]
Content = list[tuple[Any, ...]]


class FakeRemote:
    """A worker in this process. What goes to it and comes back is pickled, as Ray does; `fault` says at which call it dies."""

    def __init__(self, fault: Fault) -> None:
        self.worker = Worker(lambda: recognizer().describer, ".", ScanOptions(give_back=int))
        self.fault, self.dead = fault, False

    def call(self, method: str, *arguments: Any) -> Any:
        self.dead = self.dead or self.fault(method, arguments)
        if self.dead:
            raise LostError("killed")
        result = getattr(self.worker, method)(*pickle.loads(pickle.dumps(arguments)))
        if self.dead:
            raise LostError("killed meanwhile")
        return pickle.loads(pickle.dumps(result))

    def stop(self) -> None:
        self.dead = True


def pool(fault: Fault = lambda method, arguments: False, workers: int = 3) -> Pool:
    return Pool(lambda ended: FakeRemote(fault), workers, dict(recognizer().describer.facts))


def scan(path: Path, *roots: Path, by: Pool | None = None) -> Content:
    """Scan, and return everything that a catalog has of its photos."""
    stream = None if by is None else lambda describer, sources, recall, options: by.scan(sources, recall)
    try:
        with Catalog(path, write=True) as catalog:
            catalog.scan(roots, recognizer().describer, ScanOptions(stream=stream))
    finally:
        if by is not None:
            by.close()
    return contents(path)


def contents(path: Path) -> Content:
    with Catalog(path) as catalog:
        columns = "position, name, stamp, photo.content, scanned, reason, taken, data"
        return list(
            catalog._rows(f"SELECT {columns} FROM photo LEFT JOIN description USING (content) ORDER BY position")
        )


@pytest.fixture
def pile(tmp_path: Path) -> list[Path]:
    """Photos, two of them broken, two copies, and an archive of some."""
    paths = paint_many(tmp_path / "photos", 130, broken=(7, 60))
    shutil.copyfile(paths[3], paths[110])
    shutil.copyfile(paths[50], paths[51])
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for photo in paths[20:60]:
            archive.write(photo, photo.name)
        archive.writestr("own.jpg", b"not an image")
    return [tmp_path / "photos", tmp_path / "z.zip"]


def test_workers_come_to_what_one_process_comes_to(pile: list[Path], tmp_path: Path) -> None:
    here = scan(tmp_path / "one.catalog", *pile)
    assert len(here) == 171
    assert scan(tmp_path / "three.catalog", *pile, by=pool()) == here


def dies_at(calls: Sequence[int]) -> Fault:
    """Die at the n-th call of all workers together."""
    lock, count = Lock(), [0]

    def fault(method: str, arguments: tuple[Any, ...]) -> bool:
        with lock:
            count[0] += method in ("read", "describe")
            return method in ("read", "describe") and count[0] in calls

    return fault


@pytest.mark.parametrize("calls", [(1,), (2, 3), (4, 9, 10), tuple(range(1, 40, 5))], ids=str)
def test_workers_that_die_lose_nothing(pile: list[Path], tmp_path: Path, calls: Sequence[int]) -> None:
    here = scan(tmp_path / "one.catalog", *pile)
    assert scan(tmp_path / "three.catalog", *pile, by=pool(dies_at(calls))) == here


@pytest.mark.parametrize("step", ["read", "describe"])
def test_the_photo_that_kills_workers_is_found_and_fails_alone(pile: list[Path], tmp_path: Path, step: str) -> None:
    deadly, died = 77, []

    def fault(method: str, arguments: tuple[Any, ...]) -> bool:
        if method in ("hello", "alive"):
            return False
        if method == "read":
            inside = any(photo.position == deadly for photo in arguments[0])
        else:
            first, known = arguments
            inside = first <= deadly < first + len(known)
        if inside and method == step:
            died.append(method)
        return inside and method == step

    here = scan(tmp_path / "one.catalog", *pile)
    there = scan(tmp_path / "three.catalog", *pile, by=pool(fault))
    assert there[deadly][5].endswith("0077.png: made a worker die twice; scan it without --ray, or repair it")
    assert [row for row in there if row[0] != deadly] == [row for row in here if row[0] != deadly]
    assert 4 <= len(died) <= 10


def test_a_machine_that_takes_all_its_workers_makes_no_photo_fail(pile: list[Path], tmp_path: Path) -> None:
    made: list[FakeRemote] = []
    calls = [0]

    def fault(method: str, arguments: tuple[Any, ...]) -> bool:
        calls[0] += method == "read"
        if calls[0] == 14 and method == "read":
            for remote in made:
                remote.dead = True
        return False

    def start(ended: Callable[[], bool]) -> FakeRemote:
        made.append(FakeRemote(fault))
        return made[-1]

    here = scan(tmp_path / "one.catalog", *pile[:1])
    many = Pool(start, 12, dict(recognizer().describer.facts))
    with many._changed:
        many._changed.wait_for(lambda: len(many._seats) == 12)
    calls[0] = 13  # the first block finds all twelve dead
    assert scan(tmp_path / "many.catalog", *pile[:1], by=many) == here


def test_workers_of_another_facepipe_are_refused(pile: list[Path], tmp_path: Path) -> None:
    other = Pool(lambda ended: FakeRemote(lambda method, arguments: False), 1, {"model": "another"})
    with pytest.raises(ModelError, match="differs in max_side, model; install the same"):
        scan(tmp_path / "x.catalog", *pile, by=other)


def test_workers_that_never_start_end_the_scan(pile: list[Path], tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="workers die while they start"):
        scan(tmp_path / "x.catalog", *pile, by=pool(lambda method, arguments: True))


def test_a_model_error_of_a_worker_ends_the_scan(pile: list[Path], tmp_path: Path) -> None:
    def fault(method: str, arguments: tuple[Any, ...]) -> bool:
        if method == "describe":
            raise ModelError("the weights are damaged")
        return False

    with pytest.raises(FacepipeError, match="the weights are damaged"):
        scan(tmp_path / "x.catalog", *pile, by=pool(fault))


def test_an_address_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:9: does not answer"), RayScan("127.0.0.1:9", no_describer):
        pass


def test_offline_asks_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPIPE_OFFLINE", "1")
    with pytest.raises(DeviceError, match="FACEPIPE_OFFLINE is set"), RayScan("auto", no_describer):
        pass


def no_describer(facts: Any, device: str) -> Describer:
    raise AssertionError


def test_ray_local_is_stopped_and_equals_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    for number in range(3):
        for name, image in portraits().items():
            (tmp_path / "photos").mkdir(exist_ok=True)
            write_image(
                tmp_path / "photos" / f"{name} {number}.png", np.roll(image.rgb, number, axis=0)
            )  # no two alike
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"not an image")
    options = ["photos", "--device", "cpu", "--workers", "1"]
    for name, more in (("one.catalog", []), ("ray.catalog", ["--ray", "local"])):
        command = [sys.executable, "-m", "facepipe", "scan", *options, "--catalog", name, *more]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 7, run.stderr
    said = re.search(r"ports on 127\.0\.0\.1, with a token: ([0-9, ]+)\n", run.stderr)
    assert said is not None, run.stderr
    for port in map(int, said[1].split(", ")):
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            pass
    assert contents(tmp_path / "ray.catalog") == contents(tmp_path / "one.catalog")
