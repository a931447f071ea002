"""What a run leaves on the disk, with real photos: for its owner alone, and after an erasure and another run without the name."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from facepipe.cli import main
from facepipe.types import Image

NAME = "Zuleika Ångström"


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: Image, hopper: Image) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for person, image in ((NAME, astronaut), ("Grace Hopper", hopper)):
        for folder in (f"people/{person}", "photos"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shift = len(folder)  # another picture than the enrolled one
            picture = PillowImage.fromarray(np.asarray(image.rgb)).crop((shift, shift, image.width, image.height))
            picture.save(f"{folder}/{len(person)}.png")
    before = os.umask(0)
    try:
        yield tmp_path
    finally:
        os.umask(before)


def facepipe(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    assert ended.value.code == 0, arguments


def run_batch() -> None:
    outputs = [
        "--report",
        "out/page.html",
        "--sort-into",
        "out/sorted",
        "--annotate",
        "out/drawn",
        "--crops",
        "out/crops",
    ]
    for kind in ("jsonl", "csv", "parquet"):
        facepipe("batch", "photos", "--out", f"out/r.{kind}", "-q", *(outputs if kind == "jsonl" else ()))


def run_everything() -> None:
    facepipe("enroll", "people", "--keep-chips", "-q")
    run_batch()
    facepipe("identify", "photos/12.png", "--annotate", "one/drawn", "--crops", "one/crops", "-q")
    facepipe("detect", "photos/12.png", "--annotate", "one/detected.jpg")
    facepipe("gallery", "export", "one/gallery.parquet", "--chips")
    facepipe("gallery", "export", "one/gallery.sqlite")
    facepipe("gallery", "audit", "--page", "one/audit.html")
    facepipe("gallery", "show", NAME, "--sheet", "one/sheet.jpg")


def test_nobody_else_may_read_what_is_written(at: Path) -> None:
    inputs = {at / "people", at / "photos"}
    run_everything()
    written = [path for path in at.rglob("*") if not inputs & {path, *path.parents} and not path.is_symlink()]
    loose = [
        f"{path.relative_to(at)} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in written
        if path.stat().st_mode & 0o077
    ]
    assert loose == []
    assert len(written) > 25, "the test must see what is written"


def traces(folder: Path) -> set[str]:
    """Return what holds the erased name, as a file's name, a link's target or bytes, in any of the forms that it is written in."""
    forms = {form for kind in ("NFC", "NFD") for form in [unicodedata.normalize(kind, NAME)]}
    needles = [form.encode() for form in forms]
    needles += [NAME.encode("unicode_escape"), NAME.encode("ascii", "xmlcharrefreplace"), b"zuleika", b"Zuleika"]
    found = set()
    for path in folder.rglob("*"):
        data = os.fsencode(path.name)
        data += os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        if any(needle in data for needle in needles):
            found.add(str(path.relative_to(folder)))
    return found


def test_after_an_erasure_the_next_run_leaves_no_name(at: Path) -> None:
    facepipe("enroll", "people", "--keep-chips", "-q")
    run_batch()
    before = traces(at / "out")
    assert {"r.jsonl", "r.csv", "r.parquet", "page.html", "r.jsonl.catalog"} <= before
    assert any(name.startswith("sorted/") for name in before), before
    facepipe("gallery", "erase", NAME, "--yes")
    run_batch()
    assert traces(at / "out") == set()
    assert traces(at / "gallery") == set()
