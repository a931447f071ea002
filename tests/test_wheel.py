"""The wheel, built and installed into an environment of its own: nothing comes from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

import facepipe
from facepipe.types import Image

ROOT = Path(__file__).parent.parent
SOURCES = ("facepipe", "pyproject.toml", "README.md", "LICENSE", "NOTICE")

pytestmark = pytest.mark.models


def call(*command: str | Path, folder: Path) -> str:
    """Run a command away from the checkout; return its stdout, or fail with what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FACEPIPE_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={source / 'dist'}"]
    call(sys.executable, "-m", "pip", "wheel", *options, source, folder=source)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment: the wheel in it, and what it requires from the environment of the tests."""
    home = tmp_path_factory.mktemp("home")
    call(sys.executable, "-m", "venv", "--without-pip", home, folder=home)
    python = home / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    call(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, folder=home)
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=home).strip())
    (own / "requirements.pth").write_text("\n".join(path for path in sys.path if Path(path).name == "site-packages"))
    return python.parent


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "facepipe").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in packed if ".dist-info/" not in name} == here
    assert {"facepipe/py.typed", "facepipe/outputs/page.html", "facepipe/models/records.json"} <= here
    assert any(name.endswith(".safetensors") for name in here)
    licenses = {name.rpartition("/")[2] for name in packed if "/licenses/" in name}
    assert licenses == {"LICENSE", "NOTICE"}


def test_the_demo_runs_from_the_wheel(binaries: Path, tmp_path: Path) -> None:
    where = "import facepipe, importlib.metadata as m; print(facepipe.__file__, m.version('facepipe'))"
    file, version = call(binaries / "python", "-c", where, folder=tmp_path).split()
    assert Path(file).is_relative_to(binaries.parent)
    assert version == facepipe.__version__
    assert call(binaries / "facepipe", "--version", folder=tmp_path).strip().endswith(version)
    said = call(binaries / "facepipe", "demo", folder=tmp_path)
    right, rows = re.findall(r"^(\d+) of (\d+) answers are right", said, re.MULTILINE)[0]
    assert right == rows
    assert (tmp_path / "facepipe-demo.png").stat().st_size > 10_000


def test_the_lines_of_python_in_the_readme_run_from_the_wheel(
    binaries: Path, tmp_path: Path, astronaut: Image, hopper: Image
) -> None:
    both = np.concatenate([hopper.rgb[:512], astronaut.rgb], axis=1)
    pictures = {"people/Ada/1.jpg": astronaut.rgb, "photo.jpg": astronaut.rgb[:, ::-1], "album/both.jpg": both,
                "a.jpg": astronaut.rgb, "b.jpg": hopper.rgb}  # fmt: skip
    for name, rgb in pictures.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(rgb).save(tmp_path / name, quality=95)
    (lines,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    said = call(binaries / "python", "-c", lines, folder=tmp_path).splitlines()
    assert [line.split()[:2] for line in said if line.startswith("photo.jpg")] == [["photo.jpg", "Ada"]]
    assert sorted(line.split()[1] for line in said if line.startswith("album/both.jpg")) == ["Ada", "None"]
