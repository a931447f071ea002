"""Every command, fed with odd strings, files and streams, ends with a documented exit code and one line, never with a traceback."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from facepipe.cli import cli, main
from facepipe.errors import ExitCode
from facepipe.gallery.store import GalleryStore
from facepipe.images.finding import find_images
from facepipe.outputs.names import safe_name
from tests.test_cli_batch import fake_recognizer
from tests.test_gallery_store import DIM, new

#: What a program may expect; 1 means "different people" and is `verify`'s alone.
CODES = {int(code) for code in ExitCode}
#: Files that lie in the folder in which a command runs.
FILES = (
    "folder",
    "empty",
    "binary",
    "text",
    "link",
    "loop",
    "closed",
    "/dev/null",
    "gallery",
    "missing",
    "a/b",
    ".",
    "..",
    "/",
)
odd_text = st.text(st.characters(exclude_characters="\0"), max_size=30)
words = st.one_of(
    st.sampled_from(FILES),
    odd_text,
    st.sampled_from(
        [
            "",
            " ",
            "-",
            "--",
            "-x",
            "\n",
            "\r",
            "a\tb",
            "\x1b[31m",
            "\udcff",
            "a" * 300,
            "b/" * 3000,
            "=1+1",
            "0",
            "-1",
            "nan",
            "1e999",
        ]
    ),
)
#: Never ends, or takes long and has no odd input.
LEFT_OUT = {"--watch", "--help", "--version", "--every", "--workers", "--device", "--no-lock"}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that name it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))
    else:
        yield path, command


COMMANDS = dict(leaves(cli))


@st.composite
def arguments(draw: st.DrawFn, command: click.Command) -> list[str]:
    """Draw options and arguments that the command has, with odd values."""
    line: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = max(parameter.opts, key=len)
            if name in LEFT_OUT or not draw(st.booleans()):
                continue
            line.append(name)
            if not parameter.is_flag:
                line.append(draw(words))
        else:
            count = draw(st.integers(0, 2)) if parameter.nargs != 1 else 1
            line += [draw(words) for _ in range(count)]
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "folder").mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "binary").write_bytes(bytes(range(256)) * 8)
    (folder / "text").write_text("path,name\nmissing.jpg,Ann\n")
    (folder / "link").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "closed").mkdir(mode=0)
    fill(folder)
    return folder


def fill(folder: Path) -> None:
    with GalleryStore.create(folder / "gallery", "fake:1", DIM) as gallery:
        gallery.add([new("Ann", 0), new("Ann", 1), new("Bea", 2)])


@pytest.mark.parametrize("command", [path for path in COMMANDS if path not in {("demo",), ("doctor",)}], ids=" ".join)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # click leaves a list open after a usage error
@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_odd_words_end_in_a_code_and_a_line(
    command: tuple[str, ...],
    data: st.DataObject,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("FACEPIPE_OFFLINE", "1")
    monkeypatch.setattr("facepipe.cli.options.load_recognizer", fake_recognizer)
    line = [*command, *data.draw(arguments(COMMANDS[command]))]
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(line)
    told = capfd.readouterr().err
    code = ended.value.code
    assert code in CODES and (code != 1 or command == ("verify",)), line
    assert "Traceback" not in told and "Warning" not in told, line
    if code != 0 and not told.startswith(("Usage:", "Error:")):
        assert sum(one.startswith("facepipe: ") for one in told.splitlines()) >= 1 or code == ExitCode.PARTIAL, (
            line,
            told,
        )


def test_no_command_takes_empty_text_for_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `facepipe enroll "$PHOTOS"` has it where the variable is not set."""
    for _, command in leaves(cli):
        assert all(type(parameter.type) is not click.Path for parameter in command.params), command.name
    monkeypatch.chdir(tmp_path)
    for words in (("enroll", ""), ("identify", "a.jpg", "--annotate", ""), ("batch", "a.jpg", "--out", "")):
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        assert stop.value.code == 2 and "is empty; name a file or folder" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def run(shell: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Run a line of shell in which $F is facepipe; return its exit code and what it said on both streams."""
    full = {
        **os.environ,
        "F": f"{sys.executable} -m facepipe",
        "PYTHONPATH": str(Path(__file__).parent.parent),
        **environment,
    }
    done = subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=full, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        ("$F gallery seal <&-", 2, "no terminal to ask for a passphrase: set FACEPIPE_NEW_PASSPHRASE"),
        ("$F gallery seal </dev/null", 2, "no terminal to ask for a passphrase: set FACEPIPE_NEW_PASSPHRASE"),
        ("$F gallery erase Ann <&-", 2, "no terminal to ask on; use --yes"),
        ("$F gallery erase Ann </dev/null", 2, "no terminal to ask on; use --yes"),
        ("$F batch --files-from - --out r.jsonl <&-", 3, "standard input is closed"),
        ("$F identify --files-from - <&-", 3, "standard input is closed"),
        ("$F models pull vggface2 <&-", 2, "accept them with --accept-licence"),
        ("$F gallery list >&-", 0, ""),
        ("$F gallery list >/dev/full", 3, "the answer cannot be written"),
        ("$F gallery list --gallery nowhere 2>&-", 5, ""),
        ("$F gallery list --gallery nowhere 2>/dev/full", 5, ""),
        ("$F gallery list <&- >&- 2>&-", 0, ""),
        ("mkdir here && cd here && rmdir ../here && $F gallery list", 3, "the current folder is not there any more"),
        ("mkdir here && cd here && rmdir ../here && $F doctor", 3, "the current folder is not there any more"),
        ('FACEPIPE_GALLERY="$(printf "%0300d" 1)" $F gallery list', 5, "File name too long"),
        ('$F gallery export "$(printf "%05000d" 1).parquet"', 3, "File name too long"),
        ('$F gallery list --gallery "$(printf "\\377")"', 5, "no gallery here"),
    ],
)  # fmt: skip
def test_streams_and_places_that_are_not_there(tmp_path: Path, shell: str, code: int, says: str) -> None:
    fill(tmp_path)
    got, told = run(shell, tmp_path)
    assert got == code and says in told, told
    assert "Traceback" not in told and "Warning" not in told
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        assert gallery.snapshot().persons == ("Ann", "Bea"), "nothing happened to the gallery"


def test_a_locale_without_utf8_prints_and_files_every_name(tmp_path: Path) -> None:
    with GalleryStore.create(tmp_path / "gallery", "fake:1", DIM) as gallery:
        gallery.add([new("Zoë 漢", 0)])
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, told = run("$F gallery list; $F gallery export Zoë.sqlite", tmp_path, **ascii_only)
    assert code == 0 and "Zoë 漢" in told
    shown = "print(n('Zo\\xeb'), n('Ann'), n('Zo\\xeb') == n('Zo\\xea'))"
    script = f"from facepipe.outputs.names import safe_name as n; {shown}"
    made = run(f'{sys.executable} -c "{script}"', tmp_path, **ascii_only)[1].split()
    assert made[0].isascii() and made[0].startswith("Zo_-") and made[1:] == ["Ann", "False"]
    assert safe_name("Zoë") == "Zoë", "where the locale has it, it stays"


def test_a_thousand_nested_folders_are_searched(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("n", dir_fd=here)
        below = os.open("n", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    (tmp_path / "top.jpg").write_bytes(b"")
    assert [path.name for path in find_images([tmp_path])] == ["deep.jpg", "top.jpg"]
    subprocess.run(["rm", "-rf", str(tmp_path / "n")], check=True)


@pytest.mark.parametrize("reason", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_place_without_locks_is_said_and_can_be_read(
    tmp_path: Path, reason: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    fill(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEPIPE_NO_LOCK", "")
    for line in (["gallery", "rename", "Ann", "Cleo"], ["gallery", "compact"]):
        with pytest.raises(SystemExit) as ended:
            main(line)
        told = capfd.readouterr().err
        assert ended.value.code == 5 and told.count("\n") == 1 and "no locks" in told and "--no-lock" in told
    for line in (
        ["gallery", "list"],
        ["gallery", "show", "Ann"],
        ["gallery", "stats"],
        ["gallery", "export", "x.sqlite"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*line, "--no-lock"])
        assert ended.value.code == 0, capfd.readouterr().err


@example("a" * 300)
@example("b/" * 3000)
@given(odd_text)
@settings(max_examples=30, derandomize=True)
def test_no_name_of_a_photo_ends_a_search(name: str) -> None:
    assert (
        list(find_images([name], on_error=lambda problem: None)) == [Path(name)] * os.path.lexists(name)
        or Path(name).is_dir()
    )
