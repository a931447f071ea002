"""`facepipe doctor`: what is installed here, and does it work."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version

import click

from facepipe import __version__
from facepipe.cli.common import echo, json_option, out_console

PACKAGES = ("torch", "facenet-pytorch", "opencv-python", "faiss-cpu", "numpy", "pillow", "pillow-heif", "onnxruntime")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, devices, threads, instruction sets, model files, and the gallery's health."""
    facts = {
        "facepipe": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _installed(name) for name in PACKAGES},
    }
    if as_json:
        echo(json.dumps(facts, indent=2))
        return
    console = out_console()
    console.print(f"facepipe {__version__} on Python {facts['python']}, {facts['system']}")
    for name in PACKAGES:
        console.print(f"  {name} {_installed(name) or 'not installed'}")
