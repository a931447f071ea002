"""The walls of the house: who may import whom (see "How it works" in the README)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "facepipe"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "torchvision", "cv2", "faiss", "facenet_pytorch", "sklearn", "matplotlib", "pyarrow", "onnxruntime"}


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


def breaches(path: Path, forbidden: tuple[str, ...]) -> set[str]:
    return {name for name in imports_of(path) if any(name == f or name.startswith(f + ".") for f in forbidden)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_stages_know_neither_each_other_nor_disk_nor_click(path: Path) -> None:
    others = tuple(
        f"facepipe.stages.{p.stem}" for p in (PACKAGE / "stages").glob("*.py") if p.stem not in {path.stem, "__init__"}
    )
    assert not breaches(path, (*others, "facepipe.gallery", "facepipe.cli", "facepipe.pipeline", "click", "sqlite3"))


@pytest.mark.parametrize("path", sorted((PACKAGE / "gallery").glob("*.py")), ids=lambda p: p.stem)
def test_the_gallery_does_not_know_the_stages(path: Path) -> None:
    assert not breaches(path, ("facepipe.stages", "facepipe.pipeline", "facepipe.cli", "click"))


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
