"""The README is true: its commands run, in order, and every command and exit code appears in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from facepipe.cli import COMMANDS, main
from facepipe.errors import ExitCode
from facepipe.images import write_image
from facepipe.types import Image

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = [
    line.removeprefix("$ ")
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ facepipe")
]


@pytest.mark.models
def test_the_examples_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], astronaut: Image, hopper: Image
) -> None:
    monkeypatch.chdir(tmp_path)
    for person, portrait in (("Eileen Collins", astronaut), ("Grace Hopper", hopper)):
        (Path("people") / person).mkdir(parents=True)
        write_image(Path("people") / person / "portrait.jpg", portrait.rgb)
    Path("photos").mkdir()
    write_image("photo.jpg", np.ascontiguousarray(hopper.rgb[:, ::-1]))
    write_image("photos/one.jpg", np.ascontiguousarray(astronaut.rgb[:, ::-1]))
    write_image("photos/two.jpg", np.full((200, 300, 3), 90, np.uint8))
    assert len(EXAMPLES) > 10
    for example in EXAMPLES:
        with pytest.raises(SystemExit) as stop:
            main(shlex.split(example)[1:])
        assert stop.value.code == ExitCode.OK, f"{example}: {capfd.readouterr().err}"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_in_the_table_and_in_an_example_or_section(command: str) -> None:
    assert f"| `{command}` |" in README


def test_every_exit_code_is_published() -> None:
    for code in ExitCode:
        assert f"| {int(code)} |" in README


def test_public_names_are_what_is_exposed() -> None:
    import facepipe

    for name in facepipe.__all__:
        assert getattr(facepipe, name) is not None
    with pytest.raises(AttributeError):
        facepipe.no_such_name  # noqa: B018
