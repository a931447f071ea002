"""A library that is missing or broken ends in one line that says what to install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image as PillowImage

from facepipe.cli.common import exit_code_of
from facepipe.cli.libraries import LIBRARIES
from facepipe.errors import ExitCode
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.types import Image

from .test_registry import tiny_onnx

ROOT = Path(__file__).parent.parent
BROKEN = "libGL.so.1: cannot open shared object file: No such file or directory"


def run_with(fake: dict[str, str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run facepipe where modules of these names fail to load, in `folder`."""
    fakes = folder / "fakes"
    fakes.mkdir(exist_ok=True)
    for name, code in fake.items():
        (fakes / f"{name}.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{fakes}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "facepipe", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    ["enroll people", "identify a.jpg", "batch people --out r.jsonl --gallery other", "verify a.jpg a.jpg", "detect a.jpg", "demo",
     "evaluate verify --pairs pairs.csv --images .", "evaluate identify --people people"],
)  # fmt: skip
def test_opencv_that_does_not_load_is_one_line(arguments: str, tmp_path: Path, astronaut: Image) -> None:
    for path in ("a.jpg", "people/Ada/a.jpg", "people/Ada/b.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(astronaut.rgb).save(tmp_path / path)
    with GalleryStore.create(tmp_path / "other", "any network", 4) as gallery:
        gallery.add([NewFace("Ada", np.eye(4, dtype=np.float32)[0], "a.jpg")])
    (tmp_path / "pairs.csv").write_text("a,b,same\na.jpg,a.jpg,1\n")
    done = run_with({"cv2": f"raise ImportError({BROKEN!r})"}, tmp_path, *arguments.split())
    assert done.returncode == ExitCode.MODEL
    assert done.stdout == ""
    assert done.stderr.startswith(
        f"facepipe: opencv-python cannot be loaded ({BROKEN}): pip install opencv-python-headless"
    )
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise OSError('libtorch_cpu.so: cannot open shared object file')", "libtorch_cpu.so: cannot open shared object file"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("raise ImportError('\\n\\nPLEASE READ THIS\\nand this')", "PLEASE READ THIS"),
    ],
)  # fmt: skip
def test_any_library_that_does_not_load_is_named(code: str, reason: str, tmp_path: Path, astronaut: Image) -> None:
    PillowImage.fromarray(astronaut.rgb).save(tmp_path / "a.jpg")
    done = run_with({"torch": code}, tmp_path, "detect", "a.jpg", "--device", "cuda")
    assert done.stderr == f"facepipe: torch cannot be loaded ({reason}): pip install --force-reinstall torch\n"
    assert done.returncode == ExitCode.MODEL


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_a_library_that_is_missing_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert exit_code_of(lambda: import_module(name)) == ExitCode.MODEL
    assert capsys.readouterr().err.endswith(f": pip install {LIBRARIES[name]}\n")


def test_an_import_error_of_facepipe_itself_is_not_explained_away(tmp_path: Path) -> None:
    fault = ImportError("cannot import name 'gone' from 'facepipe.types'", name="facepipe.types")
    with pytest.raises(ImportError, match="gone"):
        exit_code_of(lambda: raise_(fault))
    with pytest.raises(OSError, match="no such disk"):
        exit_code_of(lambda: raise_(OSError("no such disk")))


def raise_(error: Exception) -> None:
    raise error


def test_doctor_shows_what_does_not_load_and_goes_on(tmp_path: Path) -> None:
    fake = {"cv2": f"raise ImportError({BROKEN!r})"}
    table = run_with(fake, tmp_path, "doctor")
    assert (table.returncode, table.stderr) == (ExitCode.MODEL, "")
    (line,) = [line for line in table.stdout.splitlines() if line.startswith("unusable")]
    assert f"opencv-python cannot be loaded ({BROKEN}): pip install" in line
    for model in ("mini", "mtcnn"):
        assert re.search(rf"^model {model} +ok", table.stdout, re.MULTILINE)
    assert "nobody is enrolled yet" in table.stdout


def test_every_library_that_facepipe_imports_has_its_name_for_pip() -> None:
    """Of the requirements: click is needed to say anything at all, and of facenet-pytorch only a file is read."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {Requirement(line).name for line in project["dependencies"]}
    assert set(LIBRARIES.values()) == required - {"click", "facenet-pytorch"}


def test_a_missing_extra_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(tiny_onnx())
    missing = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    done = run_with(
        {"onnxruntime": missing}, tmp_path, "models", "add", "mine.onnx", "--name=x", "--template=arcface112"
    )
    assert (done.returncode, done.stderr.count("\n")) == (ExitCode.MODEL, 1), done.stderr
    assert "pip install onnxruntime, or facepipe with its extra [onnx]" in done.stderr
    missing = "raise ModuleNotFoundError(\"No module named 'uvicorn'\", name='uvicorn')"
    done = run_with({"uvicorn": missing}, tmp_path, "review", "pile.catalog")
    assert (done.returncode, done.stderr.count("\n")) == (ExitCode.MODEL, 1), done.stderr
    assert "pip install starlette uvicorn, or facepipe with its extra [web]" in done.stderr
