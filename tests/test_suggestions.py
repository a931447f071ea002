"""A face that is not known but probably somebody: the answer stays, and says who it may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from facepipe.certainty import ProbabilityCurve
from facepipe.cli.batch_progress import faces_of
from facepipe.outputs.table import summary, who
from facepipe.predict.decision import decide
from facepipe.records import to_record
from facepipe.types import Candidate, Policy, Recognized, Status
from tests.batch_fixtures import paint, recognizer, run
from tests.fakes import COLOURS, face_at

POLICY = Policy(0.6, 0.05, curve=ProbabilityCurve((0.0, 1.0), (0.0, 1.0)))


def suggested(*candidates: tuple[str, float]) -> tuple[Status, str | None, str | None]:
    found = decide([face_at(0, 0, 60)], [tuple(Candidate(*candidate) for candidate in candidates)], POLICY)[0]
    return found.status, found.person, found.suggestion


def test_only_who_is_more_likely_than_not_is_suggested() -> None:
    assert suggested(("Ann", 0.9)) == (Status.KNOWN, "Ann", None)
    assert suggested(("Ann", 0.55), ("Bob", 0.2)) == (Status.UNKNOWN, None, "Ann")
    assert suggested(("Ann", 0.5)) == (Status.UNKNOWN, None, None)
    assert suggested(("Ann", 0.7), ("Bob", 0.68)) == (Status.AMBIGUOUS, None, "Ann")
    assert suggested() == (Status.UNKNOWN, None, None)


def test_nothing_is_suggested_where_nothing_was_measured() -> None:
    found = decide([face_at(0, 0, 60)], [(Candidate("Ann", 0.55),)], Policy(0.6, 0.05))[0]
    assert found.suggestion is None


def test_a_person_whom_another_face_of_the_photo_has_is_not_suggested() -> None:
    faces = [face_at(0, 0, 60), face_at(100, 0, 60)]
    found = decide(faces, [(Candidate("Ann", 0.9),), (Candidate("Ann", 0.55),)], POLICY)
    assert [(face.person, face.suggestion) for face in found] == [("Ann", None), (None, None)]


def test_record_and_table_say_it() -> None:
    found = decide([face_at(0, 0, 60)], [(Candidate("Ann", 0.55),)], POLICY)
    record = to_record(Recognized("a.jpg", 100, 100, found, "m:1"))
    assert summary([record]) == "1 photo, 1 face: 1 unknown, 1 of them maybe somebody known"
    (face,) = record["faces"]
    assert (face["status"], face["person"], face["suggestion"], face["probability"]) == ("unknown", None, "Ann", 0.55)
    assert who(face) == "maybe Ann, 55 %"
    del face["suggestion"]  # a record of before
    assert who(face) == "unknown"


def test_every_output_of_a_batch_says_it_and_stops_saying_it(tmp_path: Path) -> None:
    """The same people, first with a threshold that the face does not reach: the answer is unknown, and who it may be is shown."""
    photo = paint(tmp_path / "photos" / "a.png", "red", "green")
    with PIL.Image.open(photo) as opened:
        pixels = np.array(opened)
    pixels[(pixels == COLOURS["red"]).all(axis=2)] = (255, 60, 0)  # red, but not quite
    PIL.Image.fromarray(pixels).save(photo)
    page, crops, folder = tmp_path / "page.html", tmp_path / "crops", tmp_path / "sorted"
    curve = ProbabilityCurve((0.0, 0.8, 1.0), (0.0, 0.3, 0.9))
    for threshold, names, folders, maybe in (
        (0.99, ["01-maybe red.jpg", "02-unknown.jpg"], ["maybe/red", "unknown"], 1),
        (0.5, ["01-red.jpg", "02-unknown.jpg"], ["people/red", "unknown"], 0),
    ):
        who = recognizer(people=("red", "blue"), policy=Policy(threshold, 0.05, curve=curve))
        counts, _ = run(
            tmp_path / "out.jsonl", tmp_path / "photos", who=who, report=page, crops=crops, sort_into=folder
        )
        assert (counts.unknown, counts.maybe) == (1 + maybe, maybe)
        assert ("1 of them maybe somebody known" in faces_of(counts)) == bool(maybe)
        assert sorted(path.name.split("-", 2)[2] for path in crops.glob("*.jpg")) == names
        found = sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("a.png"))
        assert found == folders
        assert ('"maybe":1' in page.read_text()) == bool(maybe)
