"""`facepipe gallery`: verbs, JSON, exit codes, and that the light verbs stay light."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepipe.cli import doctor, main
from facepipe.cli.gallery import VERBS
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import write_image
from facepipe.types import Image
from tests.fakes import projection_onnx
from tests.test_gallery_store import DIM, new
from tests.test_walls import HEAVY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM) as gallery:
        gallery.add([new("Ann", 1), new("Ann", 2), new("Bob [x]", 3), new("Ann", 4, source="Ann/4.jpg")])
        return gallery.folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    code = caught.value.code
    assert isinstance(code, int)
    return code


def answer(capfd: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    assert run(*arguments, "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert document.pop("schema_version") == 1
    return dict(document)


def people(capfd: pytest.CaptureFixture[str], folder: Path) -> dict[str, int]:
    listed = answer(capfd, "gallery", "list", "--gallery", folder)["people"]
    assert isinstance(listed, list)
    return {person["name"]: person["faces"] for person in listed}


def test_list_shows_names_as_they_are(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert people(capfd, folder) == {"Ann": 3, "Bob [x]": 1}
    assert run("gallery", "list", "--gallery", folder) == 0
    assert "Bob [x]" in capfd.readouterr().out


def test_a_pipe_gets_whole_lines(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    long = "Ann " * 40 + "Lee"
    assert run("gallery", "rename", "Ann", long, "--gallery", folder) == 0
    assert run("gallery", "list", "--gallery", folder) == 0
    assert long in capfd.readouterr().out


def test_show_rename_split_merge_remove(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    faces = answer(capfd, "gallery", "show", "Ann", "--gallery", folder)["faces"]
    assert isinstance(faces, list)
    assert faces[-1]["source"] == "Ann/4.jpg"
    assert run("gallery", "split", "Ann", faces[0]["id"], "--into", "Zoe", "--gallery", folder) == 0
    assert run("gallery", "rename", "Zoe", "Zoë", "--gallery", folder) == 0
    assert people(capfd, folder) == {"Ann": 2, "Bob [x]": 1, "Zoë": 1}
    assert answer(capfd, "gallery", "merge", "Zoë", "Bob [x]", "--into", "Ann", "--gallery", folder)["moved"] == 2
    assert answer(capfd, "gallery", "remove", "Ann", "--face", faces[1]["id"], "--gallery", folder)["faces"] == 1
    assert people(capfd, folder) == {"Ann": 3}
    stats = answer(capfd, "gallery", "stats", "--gallery", folder)
    assert (stats["people"], stats["faces"], stats["model"], stats["sealed"]) == (1, 3, "model-1", False)


def test_a_split_leaves_no_empty_person(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("gallery", "split", "Ann", 1, "--into", "Ann", "--gallery", folder) == 2
    assert "cannot be split into the same person" in capfd.readouterr().err
    assert run("gallery", "split", "Bob [x]", 3, "--into", "Cy", "--gallery", folder) == 0
    assert people(capfd, folder) == {"Ann": 3, "Cy": 1}
    assert answer(capfd, "gallery", "erase", "Cy", "--yes", "--gallery", folder) == {"faces": 1}
    assert all(b"Bob [x]" not in path.read_bytes() for path in folder.iterdir())


def test_one_is_said_as_one(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, text in (
        (("split", "Ann", 1, "--into", "Zoe"), "1 face moved from Ann to Zoe"),
        (("merge", "Zoe", "Ann", "--into", "Ann"), "1 face moved to Ann"),
        (("remove", "Ann", "--face", 1), "Ann: 1 face removed"),
        (("remove", "Ann"), "Ann: 2 faces removed"),
        (("erase", "Bob [x]", "--yes"), "erased: 1 face; no byte"),
    ):
        assert run("gallery", *arguments, "--gallery", folder) == 0
        captured = capfd.readouterr()
        assert text in captured.out + captured.err


def test_nobody_is_merged_with_themself(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for names in (("Ann",), ("Ann", "Ann")):
        assert run("gallery", "merge", *names, "--into", "Ann", "--gallery", folder) == 2
        assert "same person" in capfd.readouterr().err
    assert people(capfd, folder) == {"Ann": 3, "Bob [x]": 1}


def test_an_erase_that_is_declined_changes_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reply, code in (("n\n", 0), ("\n", 0), ("", 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO(reply))
        assert run("gallery", "erase", "Ann", "--gallery", folder) == code
        message = capfd.readouterr().err
        assert "not erased" in message
        assert "interrupted" not in message
    assert run("gallery", "erase", "Nobody", "--gallery", folder) == 2
    message = capfd.readouterr().err
    assert "no person named 'Nobody'" in message
    assert "cannot be undone" not in message
    assert people(capfd, folder) == {"Ann": 3, "Bob [x]": 1}
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("gallery", "erase", "Ann", "--gallery", folder) == 0
    capfd.readouterr()
    assert people(capfd, folder) == {"Bob [x]": 1}


def test_an_unknown_name_and_a_missing_gallery_have_their_exit_codes(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("gallery", "rename", "Nobody", "Somebody", "--gallery", folder) == 2
    assert "no person named 'Nobody'" in capfd.readouterr().err
    assert run("gallery", "list", "--gallery", tmp_path / "nowhere") == 5
    assert "facepipe enroll" in capfd.readouterr().err


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_of_every_verb_loads_nothing_heavy(verb: str) -> None:
    code = (
        "import sys, facepipe.cli\n"
        f"try: facepipe.cli.main(['gallery', {verb!r}, '--help'])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        f"print(sorted({HEAVY | {'numpy'}!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_answers_programs_too(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("gallery", verb, "--help") == 0
    assert "--json" in capfd.readouterr().out


def test_list_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys, facepipe.cli\n"
        f"try: facepipe.cli.main(['gallery', 'list', '--gallery', {str(folder)!r}])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        f"print(sorted({HEAVY | {'numpy'}!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().splitlines()[-1] == "[]"
    assert "Ann" in ran.stdout


def test_export_import_check_compact_index_log(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert answer(capfd, "gallery", "export", tmp_path / "g.parquet", "--gallery", folder)["faces"] == 4
    assert answer(capfd, "gallery", "import", tmp_path / "g.parquet", "--gallery", tmp_path / "b") == {
        "added": 4,
        "already": 0,
    }
    assert answer(capfd, "gallery", "check", "--gallery", tmp_path / "b") == {
        "findings": [],
        "repaired": [],
        "lost": [],
    }
    assert answer(capfd, "gallery", "compact", "--gallery", folder)["after"]
    assert run("gallery", "index", "--kind", "pq", "--gallery", folder) == 2
    assert "too few" in capfd.readouterr().err
    assert answer(capfd, "gallery", "index", "--kind", "exact", "--gallery", folder)["recall"] == 1.0
    entries = answer(capfd, "gallery", "log", "--gallery", folder)["entries"]
    assert isinstance(entries, list)
    assert [entry["action"] for entry in entries] == ["enroll", "enroll", "index"]
    assert answer(capfd, "gallery", "salvage", tmp_path / "c", "--gallery", folder)["faces"] == 4


def test_the_log_is_a_table_with_times_and_names_of_today(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("gallery", "rename", "Ann", "Anne", "--gallery", folder) == 0
    assert run("gallery", "split", "Anne", 1, "--into", "Zoe", "--gallery", folder) == 0
    assert run("gallery", "erase", "Bob [x]", "--yes", "--gallery", folder) == 0
    capfd.readouterr()
    assert run("gallery", "log", "--gallery", folder) == 0
    heading, *lines = capfd.readouterr().out.splitlines()
    assert heading.split() == ["when", "who", "what", "person", "details"]
    for line in lines:
        datetime.fromisoformat(line[:25])
    assert "enroll" in lines[0] and "Anne" in lines[0] and lines[0].rstrip().endswith("3 faces")
    assert "person 2 (erased)" in lines[1]
    assert any("split" in line and "into Zoe, 1 face" in line for line in lines)


def test_check_has_exit_code_5_and_repairs(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "vectors.f32.77-aabbccdd.tmp").write_bytes(b"half")
    assert run("gallery", "check", "--gallery", folder) == 5
    assert "leftover" in capfd.readouterr().out
    assert run("gallery", "check", "--repair", "--gallery", folder) == 0
    assert "all well" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["gallery", "export", "{home}/faces.sqlite"],
        ["gallery", "export", "{link}/faces.sqlite"],
        ["gallery", "audit", "--threshold", "0.5", "--page", "{home}/faces.sqlite"],
        ["gallery", "show", "Ann", "--sheet", "{home}/deep/sheet.png"],
        ["gallery", "salvage", "{home}"],
        ["calibrate", "--strangers", "{home}", "--cache", "{home}/faces.sqlite"],
        ["identify", "a.jpg", "--crops", "{home}"],
        ["batch", "a.jpg", "--out", "{home}/faces.jsonl"],
        ["batch", "a.jpg", "--out", "a.jsonl", "--report", "{home}/faces.sqlite"],
    ],
)
def test_no_output_goes_into_the_gallerys_own_folder(
    folder: Path, tmp_path: Path, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    filled = [text.format(home=folder, link=tmp_path / "link") for text in arguments]
    assert run(*filled, "--gallery", folder) == 2
    assert "the gallery's own folder" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "{}/x.sqlite"],
        ["export", "{}/x.parquet"],
        ["audit", "--threshold", "0.5", "--page", "{}/x.html"],
        ["show", "Ann", "--sheet", "{}/x.png"],
    ],
)
def test_what_a_gallery_writes_elsewhere_is_as_private_as_the_gallery(
    folder: Path, tmp_path: Path, arguments: list[str]
) -> None:
    out = tmp_path / "out"
    before = os.umask(0)
    try:
        assert run("gallery", *(text.format(out) for text in arguments), "--gallery", folder) == 0
    finally:
        os.umask(before)
    (written,) = out.iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = folder / "faces.sqlite"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != denied)  # root may read everything
    assert run("gallery", "list", "--gallery", folder) == 5
    message = capfd.readouterr().err
    assert "faces.sqlite: permission denied" in message
    assert "damaged" not in message
    assert doctor._gallery(folder)["state"] == "closed"


def test_an_export_that_cannot_be_written_names_its_own_file(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if str(path).startswith(str(tmp_path / "ro")) and flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert run("gallery", "export", tmp_path / "ro" / "x.sqlite", "--gallery", folder) == 3
    message = capfd.readouterr().err
    assert "x.sqlite: cannot be written (Permission denied)" in message
    assert "damaged" not in message


def test_a_gallery_of_earlier_weights_says_in_a_line_what_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "old gallery"
    GalleryStore.create(folder, "mini-0123456789abcdef", 256).close()
    moves = f"facepipe gallery reembed --model mini --gallery '{folder}' moves it"
    with GalleryStore.open(folder) as gallery:
        gallery.add([NewFace("Ann", np.eye(1, 256, dtype=np.float32)[0])])
    (tmp_path / "x.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for command in (
        ("identify", "x.jpg"),
        ("enroll", "x.jpg", "--name", "Ann"),
        ("identify", "x.jpg", "--model", "mini"),
    ):
        capfd.readouterr()
        assert run(*command, "--gallery", folder) == 5
        told = capfd.readouterr().err
        assert told.count("\n") == 1 and "made by an earlier mini (mini-0123456789abcdef)" in told and moves in told
    assert run("doctor", "--json", "--gallery", folder) in (0, 1, 5)
    assert json.loads(capfd.readouterr().out)["gallery"]["state"] == "old"


def test_doctor_calls_a_sealed_gallery_sealed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    assert answer(capfd, "gallery", "seal", "--key-file", key, "--gallery", folder)["sealed"] is True
    capfd.readouterr()
    assert run("doctor", "--json", "--gallery", folder) == 0
    home = json.loads(capfd.readouterr().out)["gallery"]
    assert home["state"] == "sealed"
    assert "FACEPIPE_KEY_FILE" in home["detail"]
    monkeypatch.setenv("FACEPIPE_KEY_FILE", str(tmp_path / "nowhere"))
    assert doctor._gallery(folder)["state"] == "sealed"
    monkeypatch.setenv("FACEPIPE_KEY_FILE", str(key))
    assert doctor._gallery(folder)["state"] == "ok"


def test_a_repair_with_a_loss_says_whose_and_has_exit_code_5(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with GalleryStore.open(folder) as gallery:
        gallery.database.connection.execute("UPDATE vector SET data = zeroblob(32) WHERE face_id = 4")
    assert run("gallery", "check", "--gallery", folder) == 5
    assert "Ann, photo Ann/4.jpg" in capfd.readouterr().out
    assert run("gallery", "check", "--repair", "--gallery", folder) == 5
    shown = capfd.readouterr()
    assert "lost: face 4 (Ann, photo Ann/4.jpg)" in shown.err
    assert run("gallery", "check", "--repair", "--gallery", folder) == 0


def test_audit_needs_a_threshold_for_an_unknown_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("gallery", "audit", "--gallery", folder) == 2
    assert "--threshold" in capfd.readouterr().err
    report = answer(capfd, "gallery", "audit", "--threshold", "0.5", "--gallery", folder)
    assert (report["people"], report["faces"]) == (2, 4)
    assert run("gallery", "audit", "--threshold", "0.5", "--page", folder.parent / "a.html", "--gallery", folder) == 0
    assert (folder.parent / "a.html").read_text().startswith("<!doctype html>")


def test_seal_erase_unseal(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    assert run("gallery", "seal", "--key-file", key, "--gallery", folder) == 0
    assert run("gallery", "list", "--gallery", folder) == 5
    assert "FACEPIPE_KEY_FILE" in capfd.readouterr().err
    monkeypatch.setenv("FACEPIPE_KEY_FILE", str(key))
    assert people(capfd, folder) == {"Ann": 3, "Bob [x]": 1}
    assert answer(capfd, "gallery", "erase", "Ann", "--yes", "--gallery", folder) == {"faces": 3}
    assert answer(capfd, "gallery", "unseal", "--gallery", folder) == {"sealed": False}
    monkeypatch.delenv("FACEPIPE_KEY_FILE")
    assert people(capfd, folder) == {"Bob [x]": 1}
    assert all(b"Ann" not in path.read_bytes() for path in folder.iterdir())


@pytest.mark.models
def test_a_real_gallery_is_logged_refuted_shown_and_moved(
    tmp_path: Path,
    astronaut: Image,
    hopper: Image,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, image in (("Eileen", astronaut), ("Grace", hopper)):
        write_image(tmp_path / "people" / name / "1.jpg", image.rgb)
    home = tmp_path / "gallery"
    assert run("enroll", tmp_path / "people", "--keep-chips", "--gallery", home) == 0
    assert run("gallery", "log", "--identify", "on", "--gallery", home) == 0
    photo = tmp_path / "people" / "Eileen" / "1.jpg"
    capfd.readouterr()
    assert run("identify", photo, "--jsonl", "--gallery", home) == 0
    assert json.loads(capfd.readouterr().out)["faces"][0]["person"] == "Eileen"
    entries = answer(capfd, "gallery", "log", "--gallery", home)["entries"]
    assert isinstance(entries, list)
    assert (entries[-1]["action"], entries[-1]["person"]) == ("identify", "Eileen")
    assert run("gallery", "show", "Grace", "--sheet", tmp_path / "sheet.png", "--gallery", home) == 0
    assert (tmp_path / "sheet.png").exists()
    for path in (tmp_path / "people").rglob("*.jpg"):
        path.rename(tmp_path / f"{path.parent.name}.jpg")
    photo = tmp_path / "Eileen.jpg"
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    (tmp_path / "other.onnx").write_bytes(projection_onnx())
    added = ("--name", "other", "--template", "arcface112", "--threshold", "0.9")
    assert run("models", "add", tmp_path / "other.onnx", *added) == 0
    assert run("gallery", "reembed", "--model", "other", "--gallery", home) == 0
    assert "2 faces moved to other" in capfd.readouterr().out
    assert run("gallery", "reembed", "--model", "other", "--gallery", home) == 0
    assert "already: nothing to move" in capfd.readouterr().out
    assert run("identify", photo, "--jsonl", "--gallery", home) == 0
    assert json.loads(capfd.readouterr().out)["faces"][0]["person"] == "Eileen"
    assert run("gallery", "not", "Eileen", photo, "--gallery", home) == 0
    assert "is enrolled as Eileen: facepipe gallery remove Eileen --face" in capfd.readouterr().err
    assert run("identify", photo, "--jsonl", "--gallery", home) == 0
    assert json.loads(capfd.readouterr().out)["faces"][0]["person"] is None
    assert run("gallery", "check", "--sources", "--gallery", home) == 5
    assert capfd.readouterr().out.count("no such file") == 2
