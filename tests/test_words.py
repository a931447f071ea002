"""What people read: tables on narrow terminals, thresholds, commands to copy, names that look alike, answers that are close."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import facepipe
from facepipe.cli import cli
from facepipe.gallery.names import gallery_command, look_alike
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.outputs.table import against, print_photos

from .test_gallery_store import unit


def record(path: str, *faces: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    return {"path": path, "error": error, "faces": list(faces)}


def face(status: str, *candidates: tuple[str, float], threshold: float = 0.48) -> dict[str, Any]:
    return {
        "status": status,
        "person": candidates[0][0] if status == "known" else None,
        "similarity": candidates[0][1],
        "threshold": threshold,
        "probability": 0.97,
        "candidates": [{"person": name, "similarity": similarity} for name, similarity in candidates],
    }


_LONG = "Wolfeschlegelsteinhausenbergerdorff Senior"
_RECORDS = [
    record(
        "albums/summer at the sea/2019/a photo with a long name.jpg",
        face("known", ("Eileen Collins", 0.71), ("Grace Hopper", 0.12), ("Ada Lovelace", 0.1)),
        face("unknown", ("山田太郎", 0.31), ("B", 0.1)),
    ),
    record("b.jpg", error="b.jpg: no such file; check the path, which may be somewhere else altogether"),
]


def printed(records: list[dict[str, Any]], width: int) -> list[str]:
    stream = io.StringIO()
    print_photos(Console(file=stream, width=width, force_terminal=False), records)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 90, 100, 120, 200])
def test_a_name_is_not_cut_from_its_figure(width: int) -> None:
    lines = printed(_RECORDS, width)
    assert all(cell_len(line.rstrip()) <= width for line in lines)
    assert any("Eileen Collins" in line and "0.71 / 0.48" in line for line in lines)
    assert any("山田太郎" in line and "0.31 / 0.48" in line for line in lines)
    assert not any(line.strip().startswith(("0.", "Collins", "Hopper")) for line in lines)
    assert any("photo with a long name.jpg" in line or "…" in line for line in lines)


def test_the_narrower_the_fewer_candidates_and_a_very_long_name_folds_by_itself() -> None:
    shown = {width: sum("Hopper 0.12" in line for line in printed(_RECORDS, width)) for width in (80, 300)}
    assert shown == {80: 0, 300: 1}
    lines = printed([record("a.jpg", face("unknown", (_LONG, 0.3)))], 80)
    assert any("0.30 / 0.48" in line for line in lines) and not any(
        "0.30" in line and "/" not in line for line in lines
    )


def test_a_similarity_and_its_threshold_have_the_digits_that_tell_them_apart() -> None:
    assert against(0.4812, 0.5) == "0.48 / 0.50"
    assert against(0.4812, 0.4791) == "0.481 / 0.479"
    assert against(0.47912, 0.4793) == "0.4791 / 0.4793"
    assert against(0.5, 0.5) == "0.50 / 0.50"


def test_a_command_to_copy_names_its_gallery() -> None:
    command = gallery_command(Path("my gallery"), "remove", "Ann O'Hara", "--face", 3)
    assert shlex.split(command) == [
        "facepipe",
        "gallery",
        "remove",
        "Ann O'Hara",
        "--face",
        "3",
        "--gallery",
        "my gallery",
    ]


@pytest.mark.parametrize(("a", "b"), [("Anna Lee", "anna  lee"), ("Strauß", "STRAUSS"), ("Ｊim", "jim")])
def test_names_that_a_reader_takes_for_one_are_told_of(a: str, b: str, tmp_path: Path) -> None:
    assert look_alike(a) == look_alike(b)
    from facepipe.cli.enroll import _tell_look_alikes

    with facepipe.Gallery(tmp_path / "g", model="mini") as gallery:
        dim = gallery.dim
        gallery.add([NewFace(a, unit(1, dim)), NewFace(b, unit(2, dim)), NewFace("Cyd", unit(3, dim))])
        runner = click.testing.CliRunner()
        with runner.isolation() as streams:
            _tell_look_alikes(gallery, {"Cyd"})
            assert streams[1].getvalue() == b""
            _tell_look_alikes(gallery, {b})
            told = streams[1].getvalue().decode()
    assert "are 2 people; if they are one: facepipe gallery merge" in told


def test_a_sheet_of_nobody_asks_whose(tmp_path: Path) -> None:
    with GalleryStore.create(tmp_path / "g", "fake:1", 8) as gallery:
        gallery.add([NewFace("Ann", unit(1))])
    arguments = ["gallery", "show", "--sheet", str(tmp_path / "s.png"), "--gallery", str(tmp_path / "g")]
    result = click.testing.CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and "whose?" in result.output


@pytest.mark.models
def test_a_comparison_near_the_threshold_says_so(
    portrait_pair: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    same = facepipe.verify(*portrait_pair, device="cpu")
    assert same.same and not same.close and same.probability is not None and same.probability > 0.9
    near = facepipe.verify(*portrait_pair, device="cpu", threshold=same.similarity + 0.001)
    assert not near.same and near.close


@pytest.fixture
def portrait_pair() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    from facepipe.images.samples import portraits

    rgb = portraits()["Eileen Collins"].rgb
    return rgb, np.ascontiguousarray(rgb[:, ::-1])
