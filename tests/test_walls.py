"""The walls of the house: who may import whom (see "How it works" in the README)."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "facepipe"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "torchvision",
    "cv2",
    "faiss",
    "facenet_pytorch",
    "sklearn",
    "matplotlib",
    "pyarrow",
    "onnxruntime",
    "av",
}

#: The floors of the house, from the ground up. A room imports what lies below it and what is in it, nothing beside or above it.
FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"errors", "certainty"},
            {"text", "types", "borrowing"},
            {"files", "records"},
            {"images", "models"},
            {"detect", "embed", "match", "predict", "regions"},
            {"gallery", "catalog", "outputs", "evaluate"},
            {"groups"},
            {"loading"},
            {"pipeline", "single"},
            {"anonymise", "api", "batch", "explain", "review"},
            {"cli", "__init__"},
            {"__main__"},
        ),
    )
)


def room_of(name: str) -> str:
    """Return the room, a package or a module at the top, of a full module name."""
    return [*name.split("."), "__init__"][1]


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_of(path) for path in MODULES}


def imports_of(path: Path) -> set[str]:
    """Return the full names that a module imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_imported_by(path: Path) -> set[str]:
    """Return the modules of facepipe that a module imports, packages that only hold them aside."""
    found = {name for name in imports_of(path) if name in NAMES}
    return {name for name in found if not any(other.startswith(name + ".") for other in found)} - {module_of(path)}


def breaches(path: Path, forbidden: tuple[str, ...]) -> set[str]:
    return {name for name in imports_of(path) if any(name == f or name.startswith(f + ".") for f in forbidden)}


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(name) for name in NAMES}
    floors = [room for floor in FLOORS for room in floor]
    assert sorted(floors) == sorted(rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_go_down(path: Path) -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    here = room_of(module_of(path))
    wrong = [
        name
        for name in modules_imported_by(path)
        if name != "facepipe" and room_of(name) != here and floor_of[room_of(name)] >= floor_of[here]
    ]
    assert not wrong


def test_there_are_no_circles() -> None:
    arrows = {module_of(path): modules_imported_by(path) - {"facepipe"} for path in MODULES}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@pytest.mark.parametrize(
    "path", [p for p in MODULES if "cli" not in p.parts], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_only_the_command_line_knows_click(path: Path) -> None:
    if path.name == "__main__.py":
        return
    assert not breaches(path, ("click", "facepipe.cli"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nobody_imports_torchvision_or_the_facenet_package(path: Path) -> None:
    assert not breaches(path, ("torchvision", "facenet_pytorch"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_is_longer_than_the_house_allows(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 800


def commands() -> list[str]:
    from facepipe.cli import COMMANDS

    return list(COMMANDS)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in commands())], ids=" ".join
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, facepipe.cli\n"
        f"try: facepipe.cli.main({arguments!r})\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.strip().splitlines()[-1] == "[]"
    assert run.stdout
