"""What a batch writes is not an input of a batch: its folders are marked, its files are never replaced by mistake."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from facepipe.errors import OutputError, UsageError
from facepipe.files.atomic import atomic_file, is_temporary, remove_file, remove_strays
from facepipe.files.guard import check_outputs
from facepipe.images import OUTPUT_MARK, find_images, is_output
from facepipe.outputs.results import failures_path
from facepipe.text import printable


def check_files(out: Path, catalog: Path, report: Path | None, roots: Sequence[str], *, ours: bool) -> None:
    """Raise UsageError when an output is one of the inputs, or `out` is a file that no batch wrote.

    catalog: the catalog of this output. ours: a catalog says that a batch wrote it.
    """
    if report is not None and os.path.realpath(report) in map(os.path.realpath, (out, catalog)):
        raise UsageError(f"{printable(report)}: is given for two outputs; choose another name for one of them")
    check_outputs((failures_path(out), report), roots)
    if report is not None:
        _check_writable(report)
    for root in roots:
        for path in (out, catalog):
            if os.path.exists(path) and os.path.exists(root) and os.path.samefile(path, root):  # noqa: PTH110, PTH121
                raise UsageError(f"{printable(path)}: is one of the inputs; choose another name for what is written")
    if out.is_file() and out.stat().st_size and not (ours or out.with_name(f"{out.name}.ledger").exists()):
        raise UsageError(
            f"--out {printable(out)}: exists and was not written by a batch (no {out.name}.catalog beside it); "
            "choose another name, or delete it"
        )


def _check_writable(path: Path) -> None:
    """Raise OutputError when a file cannot be made: better before the first photo than after the last."""
    folder = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{printable(path)}: cannot be written; check the permissions of {printable(folder)}")


def check_folders(folders: Collection[Path], roots: Iterable[str]) -> None:
    """Raise UsageError when a folder is given twice, is searched for photos as well, or holds photos of somebody else."""
    real: dict[str, Path] = {}
    for folder in folders:
        if (name := os.path.realpath(folder)) in real:
            raise UsageError(f"{printable(folder)}: is given for two outputs; choose another folder for one of them")
        real[name] = folder
    for root in roots if real else ():
        if os.path.isdir(root):  # noqa: PTH112
            here = Path(os.path.realpath(root))
            for place in (here, *here.parents):
                if (searched := real.get(str(place))) is not None:
                    raise UsageError(
                        f"{printable(searched)}: is itself searched for photos; choose another folder to write"
                    )
    for folder in folders:
        if is_output(os.fspath(folder)):
            continue
        if folder.is_dir() and next(find_images([folder], skip=is_output, videos=True), None) is not None:
            raise UsageError(f"{printable(folder)}: holds photos that no batch wrote; choose a new or empty folder")


def mark_folders(folders: Iterable[Path]) -> None:
    """Mark the folders that a batch writes."""
    for folder in folders:
        if not is_output(os.fspath(folder)):
            with atomic_file(folder / OUTPUT_MARK) as file:
                file.write(b"Written by facepipe, which does not search this folder for photos.\n")


def claim_folder(folder: Path) -> None:
    """Mark a folder that pictures are to be written into, when it is new or empty: another may hold somebody's photos."""
    if not (folder.is_dir() and any(folder.iterdir())):
        mark_folders([folder])


def sweep(out: Path, report: Path | None, folders: Collection[Path], started: float) -> None:
    """Remove the unfinished files that a killed run left; for the holder of the catalog.

    started: when this run began, seconds as in `time.time`; in the batch's folders only what is older goes.
    """
    for path in (out, failures_path(out), report):
        if path is not None:
            remove_strays(path)
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in filter(is_temporary, names):
                path = Path(place, name)
                if path.lstat().st_mtime < started:
                    remove_file(path)
