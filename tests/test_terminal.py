"""Nothing that a terminal acts on, or that nobody can see, reaches it from a name or a path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facepipe.cli import main
from facepipe.errors import UsageError
from facepipe.gallery import people
from facepipe.gallery.care.salvage import salvage
from facepipe.gallery.names import new_name, normal_name
from facepipe.gallery.portable import export_gallery, import_gallery
from facepipe.gallery.privacy.erasing import erase
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.text import printable
from tests.test_gallery_store import DIM, new

OLD = "Ann\u202e\u200b"
EVIL = "Ann\x1b]0;owned\x07\u202e\u200b\x9b31m"


@pytest.mark.parametrize(
    "name",
    [
        "Ann\u202eeoZ",  # turns the direction of what follows
        "Ann\u2066\u2069",
        "An\u200bn",
        "Ann\u200d",  # a joiner that joins nothing
        "\ufeffAnn",
        "Ann\u3164",  # a filler, a letter to Unicode
        "Ann\u034f",
        "Ann\ufe0f",
        "Ann\U000e0041",
        "Ann\x1b[31m",
        "Ann\x9b31m",
        "A\nnn",
        "Ann\n",
        "\udcff",
        " ",
        "x" * 201,
    ],
)
def test_a_name_that_cannot_be_seen_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="is not a name") as caught:
        new_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    ["Zoë", "علی‌رضا", "क्‍ष", "葛\U000e0100城", "👩‍🚀", "❤️‍🔥", "O’Neil-Smith, Jr. (née \\u)", "[red]x[/]", "בִּנְיָמִין"],
)
def test_names_of_all_the_world_are_names(name: str) -> None:
    assert new_name(name) == normal_name(name)
    assert printable(new_name(name)) == new_name(name)


def test_every_kind_of_blank_is_one_blank() -> None:
    assert new_name("\u00a0Ann\u00a0Lee\u2003") == "Ann Lee"


@given(st.text() | st.text("a字\u2603\ufe0f\u200d\u200b\u0915\U000115de\U000e0100"))
@example("\U000115de\U000e0100")  # a letter that this Python does not know, and another shape of it
@example("\u2603\u200d\ufe0f")
@example("\ufe00\ufe00")
def test_what_is_printable_is_one_line_and_json_reads_it_back(text: str) -> None:
    shown = printable(text)
    assert not set(shown) & {chr(n) for n in (*range(32), *range(127, 160))}
    assert printable(shown) == shown
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery from before such names were refused."""
    with GalleryStore.create(tmp_path / "gallery", "model-1", DIM) as gallery, monkeypatch.context() as patch:
        patch.setattr(people, "new_name", normal_name)
        gallery.add([new(OLD, 1, source=f"{EVIL}/1.jpg"), new("Bob", 2)])
        return gallery.folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def clean(capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    out, err = capfd.readouterr()
    for line in (out + err).split("\n"):
        assert printable(line) == line
    return out, err


def test_no_verb_lets_a_name_write_to_the_terminal(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = printable(OLD)
    for arguments in (
        ["list"],
        ["list", "--json"],
        ["show", shown],
        ["show", shown, "--json"],
        ["stats"],
        ["log"],
        ["log", "--json"],
        ["audit", "--threshold", "-1"],
        ["audit", "--threshold", "-1", "--json"],
        ["check"],
    ):
        assert run("gallery", *arguments, "--gallery", folder) == 0, arguments
        out, _ = clean(capfd)
        assert ("list" not in arguments and "show" not in arguments) or "\\u202e" in out
    assert run("gallery", "list", "--json", "--gallery", folder) == 0
    assert json.loads(clean(capfd)[0])["people"][0]["name"] == OLD, "programs get the very name"
    for arguments in (["show", EVIL + "x"], ["rename", "Bob", EVIL], ["show", "a", EVIL], ["list", f"--{EVIL}"]):
        assert run("gallery", *arguments, "--gallery", folder) == 2, arguments
        clean(capfd)
    assert run("gallery", "audit", "--threshold", "-1", "--page", tmp_path / "a.html", "--gallery", folder) == 0
    page = (tmp_path / "a.html").read_text()
    assert "\x1b" not in page and "\u202e" not in page
    assert run("gallery", "rename", shown, "Ann", "--gallery", folder) == 0
    clean(capfd)


def test_an_old_name_can_be_renamed_erased_and_salvaged_but_not_imported(folder: Path, tmp_path: Path) -> None:
    with GalleryStore.open(folder) as gallery:
        export_gallery(gallery.database, tmp_path / "x.sqlite")
        with pytest.raises(UsageError, match="is not a name"):
            people.merge(gallery.database, ["Bob"], EVIL + "2")
        with pytest.raises(UsageError, match="is not a name"):
            gallery.add([NewFace("Bob\u202e", new("Bob", 5).vector)])
    with pytest.raises(UsageError, match="is not a name"):
        import_gallery(tmp_path / "other", tmp_path / "x.sqlite")
    assert salvage(folder, tmp_path / "salvaged").faces == 2
    with GalleryStore.open(tmp_path / "salvaged") as gallery:
        assert [person.name for person in people.people(gallery.database)] == [printable(OLD), "Bob"]
    with GalleryStore.open(folder) as gallery:
        assert erase(gallery.database, printable(OLD)) == 1
        assert [person.name for person in people.people(gallery.database)] == ["Bob"]


@pytest.mark.models
def test_no_command_lets_a_file_name_write_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = Path(f"{EVIL}\n{os.fsdecode(bytes([255]))}.jpg")
    bad.write_bytes(b"no picture")
    Path("Ann").mkdir()
    (Path("Ann") / bad).write_bytes(b"no picture")
    Path(f"in {EVIL}").mkdir()
    (Path(f"in {EVIL}") / bad).write_bytes(b"no picture")
    for arguments, code in (
        (["enroll", "."], 3),
        (["enroll", ".", "--jsonl"], 3),
        (["enroll", bad], 2),
        (["detect", bad], 3),
        (["detect", bad, bad, "--json"], 3),
        (["verify", bad, bad], 3),
        (["evaluate", "verify", "--pairs", bad, "--images", "."], 3),
        (["identify", bad, "--gallery", f"in {EVIL}"], 5),
        (["doctor", "--gallery", f"in {EVIL}"], 0),
    ):
        assert run(*arguments) == code, arguments
        clean(capfd)
    with GalleryStore.create(Path("gallery"), "model-1", DIM):
        pass
    assert run("batch", bad, "--out", "r.jsonl") in (5, 6)
    clean(capfd)
