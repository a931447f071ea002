"""The README and docs/ are true: their examples run and print what stands there, and every command appears in one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from facepipe.cli import COMMANDS, cli, main
from facepipe.errors import ExitCode
from facepipe.images import write_image
from facepipe.images.samples import portraits, probes
from tests.videos import crossing, write_video

ROOT = Path(__file__).parent.parent
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
}
README = TEXTS["README.md"]
#: By how much a decimal that a command prints may differ from the documentation's: processors round differently.
TOLERANCE = 0.02

PAIRS = """a,b,same
Eileen Collins/dark.jpg,Eileen Collins/turned.jpg,1
Grace Hopper/dark.jpg,Grace Hopper/small.jpg,1
Grace Hopper/dark.jpg,Eileen Collins/dark.jpg,0
"""


def _examples(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of the console blocks, and each Python block as a command, with the output that stands below it."""
    blocks = r"^```(console|python)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?"
    for language, block, printed in re.findall(blocks, text, re.DOTALL | re.MULTILINE):
        if language == "python":
            yield _PYTHON + block, printed or "...\n"
            continue
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            yield command, output


#: Begins each example in Python.
_PYTHON = "# Python\n"
EXAMPLES = {name: list(_examples(text)) for name, text in TEXTS.items()}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the examples of a page run: two public-domain portraits, and altered copies of them."""
    monkeypatch.chdir(tmp_path)
    pictures = {f"people/{person}/portrait.jpg": image.rgb for person, image in portraits().items()}
    for probe in probes():
        if probe.person:
            pictures[f"album/{probe.person}/{probe.image.path.split()[-1]}.jpg"] = probe.image.rgb
    hopper, collins = (pictures[f"album/{person}/mirrored.jpg"] for person in ("Grace Hopper", "Eileen Collins"))
    above = hopper.shape[0] - collins.shape[0]
    pictures["photo.jpg"] = np.hstack([hopper, np.pad(collins, ((above, 0), (0, 0), (0, 0)), "edge")])
    pictures["photos/one.jpg"] = collins
    pictures["a.jpg"], pictures["b.jpg"] = hopper, pictures["people/Grace Hopper/portrait.jpg"]
    pictures["photos/two.jpg"] = np.full((200, 300, 3), 90, np.uint8)
    for path, rgb in pictures.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.ascontiguousarray(rgb))
    Path("pairs.csv").write_text(PAIRS, encoding="utf-8")


@pytest.mark.models
@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("page", [name for name, examples in EXAMPLES.items() if examples])
def test_the_examples_print_what_stands_there(
    page: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stdout)  # in one stream, as on a terminal
    if "clip.mp4" in TEXTS[page]:
        write_video(Path("clip.mp4"), crossing(6, (960, 480)))
    names: dict[str, object] = {}
    wrong = []
    for command, expected in EXAMPLES[page]:
        if command.startswith(_PYTHON):
            capfd.readouterr()
            exec(compile(command, page, "exec"), names)
            if not _as_documented(expected, printed := capfd.readouterr().out):
                wrong.append(printed)
        elif command.startswith("export "):
            monkeypatch.setenv(*shlex.split(command)[1].split("=", 1))
        elif not _as_documented(expected, printed := _run(command, capfd)):
            wrong.append(f"$ {command}\n{printed}")
    assert not wrong, f"{page} says something else than:\n" + "".join(wrong)


def _run(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints, then its exit code where it failed or the example asks with `; echo $?`."""
    words, _, wants_code = command.partition("; echo")
    capfd.readouterr()
    if words.startswith("facepipe "):
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(words)[1:])
        code, printed = stop.value.code, capfd.readouterr().out
    else:
        done = subprocess.run(
            words, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        code, printed = done.returncode, done.stdout
    return f"{printed}{code}\n" if wants_code or code != ExitCode.OK else printed


def _as_documented(expected: str, printed: str) -> bool:
    """Compare output: `...` is anything in a line, as a line of its own any lines; decimals may differ by TOLERANCE."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else rf"{re.escape(line.rstrip())} *\n" for line in expected.splitlines()
    )
    decimals = r"\d+\.\d+"
    pattern = re.sub(r"\d+\\\.\d+", lambda _: f"({decimals})", pattern.replace(r"\.\.\.", ".*?"))
    match = re.fullmatch(pattern, printed)
    wanted = re.findall(decimals, expected)
    return match is not None and all(
        abs(float(a) - float(b)) <= TOLERANCE for a, b in zip(match.groups(), wanted, strict=True)
    )


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("", "", True),
        ("", "a line\n", False),
        ("0.95 / 0.39\n", "0.96 / 0.38\n", True),
        ("0.95\n", "0.91\n", False),
        ("3 photos in ... s\n", "3 photos in 2.1 s\n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nb\nc\n", False),
        ("name\n", "name     \n", True),
        ("a.b\n", "a-b\n", False),
    ],
)
def test_the_comparison_is_strict_where_nothing_is_left_open(expected: str, printed: str, same: bool) -> None:
    assert _as_documented(expected, printed) is same


def _commands_of_groups() -> Iterator[str]:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {verb}" for verb in command.list_commands(context))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_in_the_table_of_the_readme_and_in_an_example_that_runs(command: str) -> None:
    assert any(f"`{command}`" in row.split("|")[1] for row in README.splitlines() if row.startswith("| `"))
    run = [words for examples in EXAMPLES.values() for words, _ in examples]
    assert any(re.match(rf"facepipe {command}\b(?!.*--help)", words) for words in run)


@pytest.mark.parametrize("command", list(_commands_of_groups()))
def test_every_command_of_a_group_is_documented(command: str) -> None:
    assert any(f"facepipe {command}" in text for text in TEXTS.values())


def test_the_house_has_the_rooms_that_the_readme_shows() -> None:
    shown = re.search(r"^```text\nfacepipe/\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert shown is not None
    names = {line.split()[0] for line in shown.group(1).splitlines()}
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "facepipe").glob("[!_.]*")}
    assert names == there - {"py.typed"}


def test_links_between_pages_lead_somewhere() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 200


def test_every_exit_code_is_published() -> None:
    for code in ExitCode:
        assert f"| {int(code)} |" in TEXTS["docs/formats.md"]


def test_public_names_are_what_is_exposed() -> None:
    import facepipe

    for name in facepipe.__all__:
        assert getattr(facepipe, name) is not None
    with pytest.raises(AttributeError):
        getattr(facepipe, "no_such_name")  # noqa: B009
