"""What is installed: versions, requirements, and the wheel in an environment of its own."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import facepipe

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LISTS: dict[str, list[str]] = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
DIRECT = {Requirement(line).name: Requirement(line) for lines in LISTS.values() for line in lines}


def versions_tested() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", facepipe.__version__)
    assert PROJECT["dynamic"] == ["version"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "facepipe.__version__"}
    assert facepipe.__version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", sorted(set(DIRECT) - {"facepipe"}))
def test_the_tested_version_is_in_the_range(name: str) -> None:
    assert DIRECT[name].specifier.contains(versions_tested()[canonicalize_name(name)])


def test_the_ranges_leave_room() -> None:
    pinned = [name for name, requirement in DIRECT.items() if any(s.operator == "==" for s in requirement.specifier)]
    assert pinned == []
    assert "torchvision" not in DIRECT


def test_whatever_is_installed_with_facepipe_has_a_tested_version() -> None:
    known = versions_tested()
    waiting = [Requirement(line) for lines in LISTS.values() for line in lines]
    seen = {
        "facepipe",
        "setuptools",
    }  # setuptools comes with Python's venv or as torch wants it, and facepipe does not use it
    missing = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        # What torch requires of CUDA is fixed by torch itself, to one version.
        if name not in known and not any(s.operator == "==" for s in requirement.specifier):
            missing.add(name)
            continue
        if name in known:
            waiting += map(Requirement, requires(name) or [])
    assert missing == set()
    assert len(seen) > 40


@pytest.mark.parametrize("text", ["CONTRIBUTING.md", "SECURITY.md", "NOTICE"])
def test_the_files_that_are_named_exist(text: str) -> None:
    named = re.findall(r"[`(]([\w./]+(?:\.\w+|/))[`)]", (ROOT / text).read_text())
    named += re.findall(r"\bdocs/\w+\.\w+", (ROOT / text).read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "facepipe" / name).exists()] == []


def test_each_requirement_says_what_it_is_for() -> None:
    """In a comment on the line above it."""
    lines = [line.strip() for line in (ROOT / "pyproject.toml").read_text().splitlines()]
    names = "|".join(map(re.escape, DIRECT))
    found = [
        number for number, line in enumerate(lines) if re.match(rf'((?!requires)\w+ = \[)?"({names})[\[<>=]', line)
    ]
    assert len(found) >= len(DIRECT) - len(PROJECT["optional-dependencies"])
    assert [lines[number] for number in found if not lines[number - 1].startswith("#")] == []
