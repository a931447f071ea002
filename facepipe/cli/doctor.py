"""`facepipe doctor`: what is installed here, and does it work?"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facepipe import __version__
from facepipe.cli.common import cell, echo, gallery_option, json_option, out_console

if TYPE_CHECKING:
    from rich.table import Table

PACKAGES = (
    "torch",
    "torchvision",
    "facenet-pytorch",
    "opencv-python",
    "faiss-cpu",
    "numpy",
    "pillow",
    "pillow-heif",
    "scikit-learn",
    "pyarrow",
    "onnxruntime",
    "rawpy",
)


@click.command()
@gallery_option
@json_option
def doctor(gallery: Path, as_json: bool) -> int:
    """Show versions, devices, threads, instruction sets, model files, and the gallery's health."""
    from facepipe.cli.libraries import unusable
    from facepipe.errors import ExitCode

    broken = unusable()
    models = _models()
    home = _gallery(gallery)
    facts: dict[str, Any] = {
        "schema_version": 1,
        "facepipe": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "unusable": broken,
        "hardware": None if broken else _hardware(),
        "models": models,
        "gallery": home,
    }
    if as_json:
        echo(json.dumps(facts, indent=2))
    else:
        _print(facts)
    if broken or any(model["state"] == "damaged" for model in models):
        return ExitCode.MODEL
    return ExitCode.GALLERY if home["state"] in {"damaged", "closed"} else ExitCode.OK


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    import os

    import cv2
    import faiss
    import torch

    from facepipe.models.devices import network_dtype

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {
            "torch": torch.get_num_threads(),
            "opencv": cv2.getNumThreads(),
            "faiss": faiss.omp_get_max_threads(),
        },
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "faiss": faiss.get_compile_options().strip(),
        "network_dtype": str(network_dtype(torch.device("cpu"))).removeprefix("torch."),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "auto": _auto(),
    }


def _auto() -> dict[str, str]:
    """Say what `--device auto` would use for each step."""
    from facepipe.match.cuda import CUDA_PEOPLE
    from facepipe.models.devices import network_dtype, resolve_device
    from facepipe.models.mtcnn import TorchCascade
    from facepipe.models.networks import load_cascade

    device = resolve_device("auto")
    cascade = load_cascade(device)
    dtype = str(network_dtype(device)).removeprefix("torch.")
    if isinstance(cascade, TorchCascade) and device.type == "cuda":
        detect = f"float32 and float16, float32 decides; {cascade.batch_pixels:,} pixels or {cascade.crop_batch:,} crops a pass"
        match = f"exact, on the graphics processor from {CUDA_PEOPLE:,} people on"
    else:
        detect = "float32 by oneDNN" if not isinstance(cascade, TorchCascade) else "float32 by torch"
        match = "exact, on the CPU"
    return {"device": str(device), "detect": detect, "embed": dtype, "match": match}


def _models() -> list[dict[str, str]]:
    """Check each model that is on this machine against its recorded hash."""
    from facepipe.errors import ModelError
    from facepipe.models.registry import is_here, read_weights, records

    states = []
    for record in records():
        if not is_here(record):
            states.append({"name": record.name, "state": "not pulled", "detail": ""})
            continue
        try:
            read_weights(record)
            states.append({"name": record.name, "state": "ok", "detail": ""})
        except ModelError as error:
            states.append({"name": record.name, "state": "damaged", "detail": str(error)})
    return states


def _gallery(folder: Path) -> dict[str, Any]:
    from facepipe.errors import GalleryAccessError, GalleryError, GalleryMissingError, GalleryModelError, InputError
    from facepipe.gallery.needs import needs_of
    from facepipe.gallery.storage.codec import WrongKeyError
    from facepipe.gallery.store import GalleryStore

    facts: dict[str, Any] = {"folder": str(folder)}
    try:
        with GalleryStore.open(folder) as gallery:  # the key, if it needs one, comes from the environment
            gallery.require_present_model()
            snapshot = gallery.snapshot()
            return {
                **facts,
                "state": "ok",
                "model": gallery.fingerprint,
                "people": len(snapshot.persons),
                "faces": len(snapshot.vectors),
                "calibrated": gallery.calibration() is not None,
                "needs": None if (needs := needs_of(gallery)) is None else needs.told(),
            }
    except GalleryMissingError:
        return {**facts, "state": "none", "detail": "nobody is enrolled yet: run facepipe enroll"}
    except (WrongKeyError, InputError) as error:  # InputError: the key file cannot be read
        return {**facts, "state": "sealed", "detail": str(error)}
    except GalleryModelError as error:
        return {**facts, "state": "old", "detail": str(error)}
    except GalleryAccessError as error:
        return {**facts, "state": "closed", "detail": str(error)}
    except GalleryError as error:
        return {**facts, "state": "damaged", "detail": str(error)}


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("facepipe", f"{facts['facepipe']} on Python {facts['python']}, {facts['system']}")
    table.add_row(
        "packages", ", ".join(f"{name} {found or '(not installed)'}" for name, found in facts["packages"].items())
    )
    for line in facts["unusable"]:
        table.add_row("unusable", cell(line))
    if facts["hardware"]:
        _print_hardware(table, facts["hardware"])
    for model in facts["models"]:
        table.add_row(cell(f"model {model['name']}"), cell(" ".join(filter(None, (model["state"], model["detail"])))))
    gallery = facts["gallery"]
    detail = (
        gallery.get("detail") or f"{gallery['people']} people, {gallery['faces']} faces, made by {gallery['model']}"
    )
    table.add_row(cell(f"gallery {gallery['folder']}"), cell(f"{gallery['state']}: {detail}"))
    if gallery.get("needs"):
        table.add_row("", cell(gallery["needs"]))
    out_console().print(table)


def _print_hardware(table: Table, hardware: dict[str, Any]) -> None:
    threads = ", ".join(f"{name} {count}" for name, count in hardware["threads"].items())
    table.add_row(
        "processor", f"{hardware['cores']} cores; {hardware['cpu_capability']}; networks in {hardware['network_dtype']}"
    )
    table.add_row("threads", threads)
    table.add_row("faiss", hardware["faiss"])
    table.add_row("CUDA", ", ".join(hardware["cuda"]) or "no device")
    auto = hardware["auto"]
    table.add_row(
        "device auto", f"{auto['device']}; detect: {auto['detect']}; embed: {auto['embed']}; match: {auto['match']}"
    )
