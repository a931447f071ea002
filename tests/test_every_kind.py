"""A folder with files of every kind that lies among photos: each has a record, or is counted among what was passed over."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pillow_heif

from tests.batch_fixtures import run
from tests.fakes import picture
from tests.raws import dng

PASSED = {
    "photos.zip": b"PK\3\4",
    "a.xmp": b"<x/>",
    "a.dng": None,
    "notes.txt": b"notes",
    "Thumbs.db": b"\xd0\xcf",
    "vector.svg": b"<svg/>",
    "@eaDir/a.jpg": b"",
}
#: Files that have a record, and how many faces it has; None: it fails.
LOOKED_AT = {
    "a.jpg": 1,
    "b.heic": 1,
    "c.dng": 1,
    "animated.gif": 1,
    "animated.webp": 1,
    "pages.tif": 1,
    "deep/d.png": 1,
    "half.dng": None,
    "clip.mpeg": None,
    "empty.jpg": None,
    "page.webp": None,
}


def test_every_file_has_a_record_or_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    lay(folder)
    counts, records = run(tmp_path / "results.jsonl", folder)
    found = {str(Path(r["path"]).relative_to(folder)): None if r["error"] else len(r["faces"]) for r in records}
    assert found == LOOKED_AT
    assert sum(map(int, re.findall(r"\d+", counts.passed))) == len(PASSED)
    assert counts.passed.startswith("1 archive")


def lay(folder: Path) -> None:
    """Write the files; of several frames and pages only the first shows a person."""
    red, none = (PIL.Image.fromarray(np.asarray(picture(*people).rgb)) for people in (("red",), ()))
    raw = dng(np.ascontiguousarray(np.asarray(red)[: red.height // 2 * 2, : red.width // 2 * 2]), colours=True)
    more: dict[str, object] = {"save_all": True, "append_images": [none]}
    ways: dict[str, tuple[str, dict[str, object]]] = {
        "a.jpg": ("JPEG", {"quality": 100, "subsampling": 0}),
        "animated.gif": ("GIF", more),
        "animated.webp": ("WEBP", {"lossless": True, **more}),
        "pages.tif": ("TIFF", more),
        "deep/d.png": ("PNG", {}),
    }
    for name, data in {
        **PASSED,
        "c.dng": raw,
        "a.dng": raw,
        "half.dng": raw[: len(raw) // 2],
        "clip.mpeg": b"\0\0\1\xba",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data or b"")
    for name, (kind, options) in ways.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        red.save(folder / name, kind, **options)
    heic = io.BytesIO()
    pillow_heif.from_pillow(red).save(heic, quality=-1)
    (folder / "b.heic").write_bytes(heic.getvalue())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.webp").write_bytes(b"<!doctype html><html>")
