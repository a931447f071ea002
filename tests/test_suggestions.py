"""A face that is not known but probably somebody: the answer stays, and says who it may be."""

from __future__ import annotations

from facepipe.certainty import ProbabilityCurve
from facepipe.outputs.table import who
from facepipe.predict.decision import decide
from facepipe.records import to_record
from facepipe.types import Candidate, Policy, Recognized, Status
from tests.fakes import face_at

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
    (face,) = to_record(Recognized("a.jpg", 100, 100, found, "m:1"))["faces"]
    assert (face["status"], face["person"], face["suggestion"], face["probability"]) == ("unknown", None, "Ann", 0.55)
    assert who(face) == "maybe Ann, 55 %"
    del face["suggestion"]  # a record of before
    assert who(face) == "unknown"
