"""evaluate and calibrate on the command line, with painted people; the stored calibration is what identify uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from facepipe.cli import calibrate as calibrate_module
from facepipe.cli import cli, evaluate
from facepipe.embed.describer import Describer
from facepipe.errors import FacepipeError, UsageError
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import write_image
from facepipe.models.registry import get_record
from facepipe.predict.policy import policy_for
from tests.evaluation_data import paint_people, vectors_of
from tests.fakes import FakeDetector, FakeEmbedder, picture


@pytest.fixture(autouse=True)
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facepipe.single.describer_for", lambda *_: Describer(FakeDetector(), FakeEmbedder()))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=True)


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    paint_people(tmp_path / "people")
    for number, colours in enumerate(("red", "green", "blue")):
        path = tmp_path / "strangers" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, (picture(colours).rgb * 0.75).astype(np.uint8))  # darker people: others
    write_image(tmp_path / "people" / "red" / "probe-9.png", picture().rgb)
    return tmp_path


def test_pairs_give_a_table_json_and_a_sheet(painted: Path) -> None:
    people = sorted(p.name for p in (painted / "people").iterdir())
    rows = ["a,b,same,group"]
    for number, name in enumerate(people):
        rows += [f"{name}/enroll-0.png,{name}/probe-{i}.png,1,g{number % 2}" for i in (2, 3)]
        rows += [f"{name}/enroll-0.png,{other}/probe-2.png,0,g{number % 2}" for other in people if other != name]
    (painted / "pairs.csv").write_text("\n".join(rows))
    sheet = painted / "sheet.svg"
    arguments = ("evaluate", "verify", "--pairs", str(painted / "pairs.csv"), "--images", str(painted / "people"))
    result = run(*arguments, "--json", "--sheet", str(sheet), "--replicates", "100", "--quiet")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["pairs"] == len(rows) - 1
    assert values["accuracy"] == 1.0
    assert values["tar_at_far"]["0.1"] == 1.0
    assert values["failed_to_enrol"] == 0
    assert {group["group"] for group in values["groups"]} == {"g0", "g1"}
    assert sheet.read_text().startswith("<?xml")
    assert list(painted.glob(".sheet*")) == []
    table = run(*arguments, "--replicates", "100", "--cache", str(painted / "cache.npz"))
    assert "TAR at FAR 0.1" in table.stdout
    assert "impostor" in table.stdout
    assert (painted / "cache.npz").is_file()


def test_an_open_set_run_says_who_is_missed_and_who_gets_a_name(painted: Path) -> None:
    (painted / "groups.csv").write_text("person,group\nred,warm\nyellow,warm\nblue,cold\n")
    sheet = painted / "sheet.png"
    arguments = (
        "evaluate", "identify", "--people", str(painted / "people"), "--enroll", "enroll-*", "--probe", "probe-*",
        "--strangers", str(painted / "strangers"), "--known", "0.5", "--fpir", "0.1", "--replicates", "100",
        "--groups", str(painted / "groups.csv"),
    )  # fmt: skip
    result = run(*arguments, "--json", "--sheet", str(sheet))
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["people"] == 6
    assert values["enrolled"] == 3
    assert values["repeats"] == 10
    assert values["failed_to_enrol"] == 1
    assert values["strangers"] == 9
    assert values["fnir_at_fpir"] == {}  # nine strangers cannot show one in ten
    assert values["more_strangers_needed"]["0.1"] == 1
    assert not any(values[table] for table in ("by_source", "fusions", "gallery_sizes", "groups"))
    assert sheet.read_bytes()[:4] == b"\x89PNG"
    assert "failed to enrol" in result.stderr
    table = run(*arguments)
    assert "needs 1 stranger more" in table.stdout
    assert "Fusion" not in table.stdout
    write_image(painted / "strangers" / "one-more.png", (picture("yellow").rgb * 0.75).astype(np.uint8))
    values = json.loads(run(*arguments, "--json", "--sheet", str(sheet)).stdout)
    assert set(values["fnir_at_fpir"]) == {"0.1"}
    assert {g["group"] for g in values["groups"]} == {"warm", "cold", "(none)"}
    assert "Fusion" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "--pairs", "none.txt", "--images", "."), "none.txt: cannot be read"),
        (("identify", "--people", "none"), "no such folder"),
        (("identify", "--people", "PEOPLE", "--enroll", "x*"), "matches no photo"),
        (("identify", "--people", "PEOPLE", "--enroll", "enroll-*"), "give --strangers"),
        (("identify", "--people", "PEOPLE", "--known", "0.5", "--sheet", "sheet.bmp"), ".png, .svg or .pdf"),
    ],
)
def test_a_wrong_request_is_one_planned_error(painted: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("evaluate", *(str(painted / "people") if a == "PEOPLE" else a for a in arguments))
    assert isinstance(result.exception, FacepipeError), result.output
    assert message in str(result.exception)


def new_face(person: str, vector: np.ndarray[Any, np.dtype[np.float32]]) -> NewFace:
    return NewFace(person=person, vector=vector)


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """120 people with three faces each, of the model mini."""
    vectors = vectors_of(120, 3, 0.8, dim=256)
    folder = tmp_path / "gallery"
    with GalleryStore.create(folder, get_record("mini").fingerprint, 256) as store:
        store.add([new_face(f"P{i // 3:03d}", vector) for i, vector in enumerate(vectors)])
    return folder


def test_a_calibration_is_stored_shown_used_and_removed(gallery: Path) -> None:
    result = run("calibrate", "--gallery", str(gallery), "--json")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert values["impostor_people"] == 120
    assert values["target_fpir"] == 0.01
    assert values["expected_fpir"] <= 0.01 < values["fpir_bound"]
    with GalleryStore.open(gallery) as store:
        stored = store.calibration()
    assert stored == values
    assert policy_for(get_record("mini"), 120, stored).threshold == values["threshold"]
    shown = run("gallery", "show", "--gallery", str(gallery))
    assert f"threshold {values['threshold']:.4f}" in shown.stdout
    assert "of 100 strangers" in shown.stdout
    assert run("calibrate", "--gallery", str(gallery), "--clear").exit_code == 0
    assert "not calibrated" in run("gallery", "show", "--gallery", str(gallery)).stdout
    dry = run("calibrate", "--gallery", str(gallery), "--dry-run", "--margin", "0.1")
    assert "margin 0.10" in dry.stdout
    with GalleryStore.open(gallery) as store:
        assert store.calibration() is None


def test_too_few_strangers_are_refused_with_the_number_needed(gallery: Path) -> None:
    result = run("calibrate", "--gallery", str(gallery), "--fpir", "0.001")
    assert isinstance(result.exception, UsageError)
    assert "needs 999 strangers, these are 120: add 879 more" in str(result.exception)
    strict = run("calibrate", "--gallery", str(gallery), "--strict")
    assert "needs 299 strangers, these are 120: add 179 more" in str(strict.exception)
    alone = run("calibrate", "--gallery", str(gallery), "--no-enrolled")
    assert "give --strangers" in str(alone.exception)


def test_the_commands_are_thin() -> None:
    for module in (evaluate, calibrate_module):
        assert module.__file__ is not None
        assert "numpy" not in Path(module.__file__).read_text()
