"""A gallery whose templates lie in a vector database: answers equal exact search, whatever either side went through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from facepipe.cli import cli
from facepipe.errors import ExitCode, GalleryServerError, LibraryError, UsageError
from facepipe.gallery import people
from facepipe.gallery.arrays.derived import INDEX_NAME
from facepipe.gallery.arrays.index_file import build_index, load_index, show_index
from facepipe.gallery.arrays.milvus_index import MilvusIndex
from facepipe.gallery.care.check import check
from facepipe.gallery.care.reembed import move
from facepipe.gallery.privacy import erasing, sealing
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.follower import Follower
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.match import milvus
from facepipe.match.exact import ExactIndex
from facepipe.match.milvus import MilvusPeople
from facepipe.types import Float32
from tests.milvus_server import MilvusServer

DIM = 16
PEOPLE = 300


def units(count: int, seed: int, dim: int = DIM) -> Float32:
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GalleryStore]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM) as gallery:
        gallery.add([NewFace(f"P{i}", vector) for i, vector in enumerate(units(PEOPLE, 0))])
        yield gallery


@pytest.fixture
def gallery(plain: GalleryStore, server: MilvusServer) -> GalleryStore:
    build_index(plain.database, "milvus", uri=server.uri)
    return plain


def index_of(gallery: GalleryStore, told: list[str] | None = None) -> MilvusIndex:
    index = load_index(gallery.database, gallery.snapshot(), None if told is None else told.append)
    assert isinstance(index, MilvusIndex)
    return index


def assert_equals_exact(gallery: GalleryStore, index: MilvusIndex | None = None) -> None:
    snapshot = gallery.snapshot()
    probes = np.concatenate([units(5, 9, snapshot.dim), snapshot.templates[:: max(1, len(snapshot.templates) // 20)]])
    found = (index or index_of(gallery)).search(probes, 4)
    exact = ExactIndex(snapshot.templates).search(probes, 4)
    np.testing.assert_array_equal(found[1], exact[1])
    np.testing.assert_allclose(found[0], exact[0], atol=1e-6)


def rows_there(gallery: GalleryStore) -> dict[int, Float32]:
    """Return what the database holds, by id."""
    follower = gallery.database.follower()
    assert follower is not None
    client = follower.people._client
    found = client.query(follower.people._name, filter="id > 0", output_fields=["id", "vector"], limit=10_000)
    return {row["id"]: np.asarray(row["vector"], np.float32) for row in found}


def assert_same_on_both_sides(gallery: GalleryStore) -> None:
    snapshot = gallery.snapshot()
    there = rows_there(gallery)
    assert sorted(there) == snapshot.person_ids.tolist()
    np.testing.assert_allclose(np.stack([there[i] for i in sorted(there)]), snapshot.templates, atol=1e-6)
    assert check(gallery.database) == []


def test_every_kind_of_write_reaches_the_database_before_it_is_reported(gallery: GalleryStore) -> None:
    fresh = units(6, 1)
    steps: list[Any] = [
        lambda g: g.add([NewFace("New", fresh[0]), NewFace("P3", fresh[1]), NewFace("Old", fresh[2], expires=1.0)]),
        lambda g: people.rename(g.database, "P8", "Renamed"),
        lambda g: people.merge(g.database, ["P9", "P11"], "P10"),
        lambda g: people.split(g.database, "P10", [10], "Split"),
        lambda g: people.remove(g.database, "P7"),
        lambda g: people.remove(g.database, "P3", [4]),
        lambda g: erasing.erase(g.database, "P12"),
        lambda g: erasing.compact(g.database),
        lambda g: g.set_calibration(None),
    ]
    for step in steps:
        step(gallery)
        note = Follower.sound_note(gallery.database.follower())  # type: ignore[arg-type]
        assert note["generation"] == gallery.generation() and "towards" not in note
    assert_same_on_both_sides(gallery)
    assert_equals_exact(gallery)
    snapshot = gallery.snapshot()
    assert {"New", "Renamed", "Split"} <= set(snapshot.persons) and not {"P7", "P9", "P12"} & set(snapshot.persons)


def test_no_name_and_no_path_leaves_the_gallery(gallery: GalleryStore, server: MilvusServer) -> None:
    gallery.add([NewFace("Zacharias", units(1, 4)[0], source="/photos/zacharias.jpg")])
    follower = gallery.database.follower()
    assert follower is not None
    rows = follower.people._client.query(follower.people._name, filter="id >= 0", output_fields=["*"], limit=10_000)
    assert {key for row in rows for key in row} <= {"id", "vector", "note"}
    assert b"acharias" not in b"".join(p.read_bytes() for p in server._folder.rglob("*") if p.is_file())


def test_another_embedder_fills_the_database_anew(gallery: GalleryStore) -> None:
    move(gallery.database, "model-2", 8, lambda table, ids: list(units(len(ids), int(ids[0]), 8)))
    assert_same_on_both_sides(gallery)
    assert_equals_exact(gallery)


@pytest.mark.parametrize("instant", ["before the note", "on the way", "half the rows", "before the last note"])
def test_a_process_that_dies_between_the_two_writes_changes_no_answer(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch, instant: str
) -> None:
    calls = {"note": 0}
    put, write_note = MilvusPeople.put, MilvusPeople.write_note

    class Killed(BaseException):
        pass

    def dying_put(self: MilvusPeople, ids: Any, templates: Float32) -> None:
        if instant == "half the rows":
            put(self, ids[:1], templates[:1])
        if instant in {"on the way", "half the rows"}:
            raise Killed
        put(self, ids, templates)

    def dying_note(self: MilvusPeople, note: dict[str, Any], dim: int) -> None:
        calls["note"] += 1
        if (instant, calls["note"]) in {("before the note", 1), ("before the last note", 2)}:
            raise Killed
        write_note(self, note, dim)

    with monkeypatch.context() as patch:
        patch.setattr(MilvusPeople, "put", dying_put)
        patch.setattr(MilvusPeople, "write_note", dying_note)
        with pytest.raises(Killed):
            people.merge(gallery.database, ["P9", "P11"], "P10")
    # A process that may not write answers from the truth, and says so.
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(gallery.database, "writable", False)
        index = index_of(gallery, told)
        assert_equals_exact(gallery, index)
    assert len(told) == 1 and "people are compared exactly" in told[0]
    # The next search brings it up to date; so does the next write.
    told.clear()
    assert_equals_exact(gallery, index_of(gallery, told))
    assert told == []
    assert_same_on_both_sides(gallery)


def test_a_write_goes_on_where_another_died(gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MilvusPeople, "put", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        people.rename(gallery.database, "P1", "Other")
    gallery.add([NewFace("New", units(1, 3)[0])])
    assert_same_on_both_sides(gallery)


@pytest.mark.parametrize("change", ["enrol", "erase", "merge"])
def test_an_open_index_keeps_the_answers_of_its_snapshot(gallery: GalleryStore, change: str) -> None:
    snapshot = gallery.snapshot()
    index = index_of(gallery)
    with GalleryStore.open(gallery.folder) as other:  # as another process would
        if change == "enrol":
            other.add([NewFace("P20", units(1, 5)[0]), NewFace("New", units(1, 6)[0])])
        elif change == "erase":
            erasing.erase(other.database, "P20")
        else:
            people.merge(other.database, ["P20", "P21"], "P22")
    probes = snapshot.templates[[20, 21, 22, 30]]
    np.testing.assert_array_equal(index.search(probes, 4)[1], ExactIndex(snapshot.templates).search(probes, 4)[1])
    assert index.pending > 0
    assert_equals_exact(gallery)


def test_a_database_of_another_state_is_refused_and_made_again(gallery: GalleryStore, server: MilvusServer) -> None:
    follower = gallery.database.follower()
    assert follower is not None
    follower.people.write_note({**follower.state(), "token": 7}, DIM)
    for call in (lambda: gallery.add([NewFace("New", units(1, 3)[0])]), lambda: index_of(gallery)):
        with pytest.raises(GalleryServerError, match="gallery index --kind milvus --uri"):
            call()
    assert "New" not in gallery.snapshot().persons, "nothing is written when the database cannot take it along"
    assert [finding.kind for finding in check(gallery.database)] == ["server"]
    build_index(gallery.database, "milvus", uri=server.uri)
    assert_same_on_both_sides(gallery)
    follower.people.drop([5])
    assert ["holds 299 people of 300" in finding.text for finding in check(gallery.database)] == [True]
    follower.people.destroy()
    assert [finding.kind for finding in check(gallery.database)] == ["server"]
    build_index(gallery.database, "milvus", uri=server.uri)
    assert_same_on_both_sides(gallery)


def test_a_poor_database_is_refused_and_left_empty(
    plain: GalleryStore, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = MilvusPeople.propose
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="finds the right person of 300"):
        patch.setattr(MilvusPeople, "propose", lambda *a: np.where(propose(*a) % 2, -1, propose(*a)))
        build_index(plain.database, "milvus", uri=server.uri)
    assert plain.database.server() is None
    assert MilvusPeople(server.uri, f"facepipe_{plain.database.identity}").note() is None


def test_exact_takes_the_people_back(gallery: GalleryStore, server: MilvusServer) -> None:
    uri, identity = server.uri, gallery.database.identity
    assert show_index(gallery.database).kind == "milvus"
    build_index(gallery.database, "exact")
    assert MilvusPeople(uri, f"facepipe_{identity}").note() is None
    assert isinstance(load_index(gallery.database, gallery.snapshot()), ExactIndex)
    assert show_index(gallery.database).kind == "exact"
    assert not (gallery.folder / INDEX_NAME).exists()


def test_what_a_server_does_not_let_go_of_is_not_forgotten(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.DEADLINE_EXCEEDED

    follower = gallery.database.follower()
    assert follower is not None
    with monkeypatch.context() as patch:
        patch.setattr(type(follower.people._client), "drop_collection", Mock(side_effect=Late))
        with pytest.raises(GalleryServerError, match=r"does not answer \(StatusCode.DEADLINE_EXCEEDED\)"):
            build_index(gallery.database, "exact")
    assert gallery.database.server() is not None
    build_index(gallery.database, "exact")
    assert gallery.database.server() is None
    assert follower.people.note() is None


def test_a_server_that_is_away_is_one_line_and_nothing_is_written(
    tmp_path: Path, plain: GalleryStore, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    server = MilvusServer(tmp_path / "own")
    server.start()
    try:
        build_index(plain.database, "milvus", uri=server.uri)
        index = index_of(plain)
    finally:
        server.stop()
    arguments = ["gallery", "rename", "P1", "Other", "--gallery", str(plain.folder)]
    run = subprocess.run([sys.executable, "-m", "facepipe", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == ExitCode.GALLERY
    assert run.stdout == ""
    assert run.stderr.startswith(f"facepipe: {server.uri}: the vector database does not answer (")
    assert len(run.stderr.splitlines()) == 1
    assert "P1" in plain.snapshot().persons
    for call in (lambda: index.search(units(1, 2), 1), lambda: index_of(plain)):
        with pytest.raises(GalleryServerError, match="does not answer"):
            call()
    with pytest.raises(GalleryServerError):
        build_index(plain.database, "exact")
    build_index(plain.database, "exact", forget=True)
    people.rename(plain.database, "P1", "Other")
    assert capfd.readouterr() == ("", ""), "pymilvus and gRPC print nothing"


def test_faces_go_only_where_this_user_sends_them(
    gallery: GalleryStore, server: MilvusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "somebody else"))
    connected = Mock(side_effect=AssertionError)
    with monkeypatch.context() as patch:
        patch.setattr(MilvusPeople, "__init__", connected)
        for call in (lambda: index_of(gallery), lambda: people.rename(gallery.database, "P1", "Other")):
            with pytest.raises(GalleryServerError, match="another user or machine chose"):
                call()
    monkeypatch.setenv("FACEPIPE_MILVUS_URI", server.uri + "0")
    with pytest.raises(GalleryServerError):
        index_of(gallery)
    monkeypatch.setenv("FACEPIPE_MILVUS_URI", server.uri)
    assert_equals_exact(gallery)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://me:secret@host:19530", "FACEPIPE_MILVUS_TOKEN"),
        ("gallery.db", "not the address of a Milvus server"),
        ("file:///etc/passwd", "not the address of a Milvus server"),
        ("http://host:19530/?token=secret", "not the address of a Milvus server"),
        ("http://host:99999", "not the address of a Milvus server"),
        ("http://ho\u202est:19530", "not the address of a Milvus server"),
        ("http://", "not the address of a Milvus server"),
    ],
)
def test_an_address_is_a_server_without_secrets(plain: GalleryStore, uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build_index(plain.database, "milvus", uri=uri)
    assert "secret@" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
    assert plain.database.server() is None


def test_the_token_lies_in_no_file(plain: GalleryStore, server: MilvusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(milvus.TOKEN, "root:Geheimnis")
    build_index(plain.database, "milvus", uri=server.uri)
    assert b"Geheimnis" not in b"".join(path.read_bytes() for path in plain.folder.iterdir())


def test_a_seal_and_a_vector_database_exclude_each_other(
    gallery: GalleryStore, server: MilvusServer, tmp_path: Path
) -> None:
    key = Secret("key-file", b"k" * 32)
    with pytest.raises(UsageError, match="gallery index --kind exact"):
        sealing.seal(gallery.database, key)
    with GalleryStore.create(tmp_path / "sealed", "model-1", DIM, key) as sealed:
        sealed.add([NewFace("Ann", units(1, 0)[0])])
        with pytest.raises(UsageError, match="would leave the seal"):
            build_index(sealed.database, "milvus", uri=server.uri)


def test_offline_and_a_missing_library_are_one_line(
    plain: GalleryStore, server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(GalleryServerError, match="FACEPIPE_OFFLINE is set"):
        patch.setenv("FACEPIPE_OFFLINE", "1")
        build_index(plain.database, "milvus", uri=server.uri)
    with monkeypatch.context() as patch, pytest.raises(LibraryError, match=r"its extra \[milvus\]"):
        patch.setitem(sys.modules, "pymilvus", None)
        build_index(plain.database, "milvus", uri=server.uri)


def test_the_command_shows_and_changes(plain: GalleryStore, server: MilvusServer) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        ran = CliRunner().invoke(cli, ["gallery", "index", *arguments, "--gallery", str(plain.folder)])
        return int(getattr(ran.exception, "exit_code", ran.exit_code)), ran.output

    assert run() == (0, "search is exact over 300 people\n")
    code, text = run("--kind", "milvus", "--uri", server.uri)
    assert code == 0
    assert text.startswith("milvus: recall@1 against exact 1.0000 of 300 probes, 300 people") and server.uri in text
    assert run()[1] == text
    assert json.loads(run("--json")[1])["uri"] == server.uri
    assert run("--kind", "exact") == (0, "search is exact over 300 people\n")
    assert run("--kind", "milvus")[0] == run("--uri", server.uri)[0] == run("--forget")[0] == ExitCode.USAGE


def test_an_erase_is_finished_when_the_server_was_asked_to_let_go_of_the_bytes(
    gallery: GalleryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(GalleryServerError):
        patch.setattr(MilvusPeople, "compact", lambda _: (_ for _ in ()).throw(GalleryServerError("away")))
        erasing.erase(gallery.database, "P12")
    assert [finding.kind for finding in check(gallery.database)] == ["scrub"]
    assert erasing.finish_scrub(gallery.database)
    assert_same_on_both_sides(gallery)


_CHILD = """
import sys
from pathlib import Path
from facepipe.gallery import people
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore, NewFace
from tests.test_gallery_milvus import units
with GalleryStore.open(Path(sys.argv[1])) as gallery:
    print("begun", flush=True)
    for step in range(60):
        gallery.add([NewFace(f"N{step}", units(1, 1000 + step)[0])])
        people.rename(gallery.database, f"P{step}", f"Q{step}")
        people.merge(gallery.database, [f"P{100 + step}"], f"P{200 + step}")
        erase(gallery.database, f"Q{step}")
        print(step, flush=True)
"""


@pytest.mark.parametrize("delay", [0.05, 0.31, 0.77])
def test_killed_at_any_instant_it_is_consistent_after_reopening(gallery: GalleryStore, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(gallery.folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGKILL)
    reported = [int(line) for line in process.communicate()[0].split()]
    with GalleryStore.open(gallery.folder) as reopened:
        assert_equals_exact(reopened)
        erasing.finish_scrub(reopened.database)  # as the next enrolment does after a kill within an erase
        assert_same_on_both_sides(reopened)
        names = set(reopened.snapshot().persons)
        for step in reported:
            assert f"N{step}" in names and not {f"P{step}", f"Q{step}", f"P{100 + step}"} & names
