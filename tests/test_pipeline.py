"""Steps 3 and 4, and the recipe as a whole, with people painted as colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facepipe.embed.describer import Describer
from facepipe.errors import GalleryModelError, ModelError
from facepipe.match.matcher import Matcher
from facepipe.pipeline import Recognizer
from facepipe.predict import decision
from facepipe.types import Candidate, Embeddings, Policy, Span, Status
from tests.fakes import CrashingDetector, FakeDetector, FakeEmbedder, face_at, picture

POLICY = Policy(threshold=0.5, margin=0.05)


def gallery_of(embedder: FakeEmbedder, *colours: str, fingerprint: str | None = None) -> Matcher:
    described = Describer(FakeDetector(), embedder).describe([picture(colour) for colour in colours])
    vectors = np.concatenate([photo.embeddings.vectors for photo in described])
    owners = np.arange(len(colours))
    return Matcher(fingerprint or embedder.fingerprint, colours, vectors, vectors, owners, owners + 100)


def test_people_are_named_and_strangers_are_not() -> None:
    embedder = FakeEmbedder()
    recognizer = Recognizer.of(Describer(FakeDetector(), embedder), gallery_of(embedder, "red", "blue"), POLICY)
    result, empty = recognizer.recognize([picture("blue", "green", "red"), picture()])
    assert [(p.status, p.person) for p in result.predictions] == [
        (Status.KNOWN, "blue"),
        (Status.UNKNOWN, None),
        (Status.KNOWN, "red"),
    ]
    assert result.predictions[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert result.predictions[0].candidates[0] == Candidate("blue", pytest.approx(1.0, abs=1e-5), 101)  # type: ignore[arg-type]
    assert (result.width, result.height) == (320, 240)
    assert empty.predictions == ()


def test_an_empty_gallery_knows_nobody() -> None:
    embedder = FakeEmbedder()
    nothing = np.zeros((0, 8), np.float32)
    matcher = Matcher(embedder.fingerprint, (), nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.int64))
    (result,) = Recognizer.of(Describer(FakeDetector(), embedder), matcher, POLICY).recognize([picture("red")])
    assert result.predictions[0].status is Status.UNKNOWN
    assert result.predictions[0].similarity is None


def test_a_gallery_of_another_network_is_refused() -> None:
    embedder = FakeEmbedder()
    matcher = gallery_of(embedder, "red", fingerprint="other:9")
    with pytest.raises(GalleryModelError, match=r"other:9.*fake:1.*reembed"):
        Recognizer.of(Describer(FakeDetector(), embedder), matcher, POLICY).recognize([picture("red")])


def test_a_broken_detector_is_an_error_and_not_a_picture_without_faces() -> None:
    with pytest.raises(ModelError):
        Describer(CrashingDetector(), FakeEmbedder()).describe([picture("red")])


def test_the_nearest_enrolled_face_is_the_persons_own() -> None:
    vectors = np.eye(4, dtype=np.float32)
    templates = np.stack([vectors[0], (vectors[1] + vectors[2]) / np.sqrt(2)]).astype(np.float32)
    matcher = Matcher("m", ["a", "b"], templates, vectors[[2, 0, 1]], np.array([1, 0, 1]), np.array([12, 10, 11]))
    probe = np.array([[0.1, 0.3, 0.9, 0.0]], np.float32)
    (found,) = matcher.search(Embeddings(probe / np.linalg.norm(probe), "m"), 2)
    assert [(c.person, c.face_id) for c in found] == [("b", 12), ("a", 10)]


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Matcher(
            "m", ["a"], np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), np.array([0, 1]), np.array([0, 1])
        )


def test_a_face_said_not_to_be_somebody_is_not_offered_as_that_person() -> None:
    vectors = np.eye(3, dtype=np.float32)
    owners = np.arange(2)
    probe = np.array([[0.9, 0.3, 0.3]], np.float32)
    probe /= np.linalg.norm(probe)
    shared = ("m", ["a", "b"], vectors[:2], vectors[:2], owners, owners)
    assert [c.person for c in Matcher(*shared).search(Embeddings(probe, "m"), 1)[0]] == ["a"]
    refuting = Matcher(*shared, negatives=probe, negative_owners=np.array([0]))
    assert [c.person for c in refuting.search(Embeddings(probe, "m"), 1)[0]] == ["b"]
    assert [c.person for c in refuting.search(Embeddings(vectors[:1], "m"), 1)[0]] == ["a"]


def decided(*offers: list[tuple[str, float]], policy: Policy = POLICY) -> list[tuple[str, str | None]]:
    faces = [face_at(20 * i, 0, 15) for i in range(len(offers))]
    candidates = [tuple(Candidate(*offer) for offer in offered) for offered in offers]
    return [(str(p.status), p.person) for p in decision.decide(faces, candidates, policy)]


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ([], ("unknown", None)),
        ([("Ann", 0.49)], ("unknown", None)),
        ([("Ann", 0.5)], ("known", "Ann")),
        ([("Ann", 0.9), ("Bob", 0.8)], ("known", "Ann")),
        ([("Ann", 0.9), ("Bob", 0.87)], ("ambiguous", None)),
        ([("Ann", 0.52), ("Bob", 0.49)], ("ambiguous", None)),
    ],
)
def test_one_face(offered: list[tuple[str, float]], expected: tuple[str, str | None]) -> None:
    assert decided(offered) == [expected]


def test_a_person_is_in_a_photo_once_and_the_more_similar_face_is_it() -> None:
    two = ([("Ann", 0.7), ("Bob", 0.2)], [("Ann", 0.9), ("Bob", 0.1)])
    assert decided(*two) == [("unknown", None), ("known", "Ann")]
    assert decided(*two, policy=Policy(0.5, 0.05, exclusive=False)) == [("known", "Ann"), ("known", "Ann")]


def test_in_a_video_a_person_is_seen_once_at_a_time() -> None:
    offered = [(Candidate("Ann", value),) for value in (0.7, 0.9, 0.6)]
    spans = [Span(0.0, 4.0, 1.0, 5), Span(4.0, 6.0, 5.0, 3), Span(7.0, 7.0, 7.0, 1)]
    faces = [replace(face_at(0, 0, 15), span=span) for span in spans]
    assert [p.person for p in decision.decide(faces, offered, POLICY)] == [None, "Ann", "Ann"]


def test_the_face_that_lost_its_name_may_be_somebody_else() -> None:
    assert decided([("Ann", 0.7), ("Bob", 0.6)], [("Ann", 0.9), ("Bob", 0.1)]) == [("known", "Bob"), ("known", "Ann")]
