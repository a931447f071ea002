"""`facepipe gallery`: verbs, JSON, exit codes, and that the light verbs stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facepipe.cli import main
from facepipe.cli.gallery import VERBS
from facepipe.gallery.store import Gallery
from tests.test_gallery_store import DIM, new
from tests.test_walls import HEAVY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Gallery.create(tmp_path / "gallery", "model-1", DIM) as gallery:
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


def test_an_unknown_name_and_a_missing_gallery_have_their_exit_codes(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("gallery", "rename", "Nobody", "Somebody", "--gallery", folder) == 2
    assert "nobody named 'Nobody'" in capfd.readouterr().err
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
