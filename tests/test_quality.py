"""The quality of a face says how likely its embedding is right, and what no embedder can read is hardly called a face."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import facepipe
from facepipe.catalog.packing import pack, unpack
from facepipe.detect.chances import Chance, _back
from facepipe.detect.quality import upright_turn
from facepipe.embed.alignment import align
from facepipe.embed.describer import Describer
from facepipe.embed.embedding import embed
from facepipe.embed.judging import judge
from facepipe.gallery.enrolment.enroller import faults
from facepipe.loading import detect_options, load_describer
from facepipe.models.registry import Lengths, get_record, record_from_dict
from facepipe.outputs.draw import crop_face
from facepipe.records import face_record, to_record
from facepipe.types import Described, Detected, Embeddings, Face, Image, Quality, UInt8, rotation_of
from tests.fakes import FakeDetector, FakeEmbedder, face_at, picture

LENGTHS = Lengths(middle=1400.0, steep=4.5, face=1500.0, weight=4.0)
lengths = st.floats(1.0, 1e5, width=32)


@given(st.lists(lengths, min_size=2, max_size=20))
def test_longer_is_more_usable_and_speaks_less_against_a_face(values: list[float]) -> None:
    rising = np.sort(np.array(values, np.float32))
    usable, evidence = LENGTHS.usable(rising), LENGTHS.evidence(rising)
    assert ((usable >= 0) & (usable <= 1)).all() and (evidence <= 0).all()
    assert (np.diff(usable) >= 0).all() and (np.diff(evidence) >= 0).all()
    assert LENGTHS.usable(np.array([1400.0], np.float32)) == pytest.approx(0.5)
    assert (evidence[rising >= 1500] == 0).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
def test_a_record_with_senseless_lengths_is_refused(bad: float) -> None:
    record = get_record("mini")
    assert record.lengths is not None
    values = {**record.as_dict(), "lengths": {"middle": bad, "steep": 4.5, "face": 1500, "weight": 4}}
    with pytest.raises(facepipe.ModelError, match="lengths"):
        record_from_dict(values)
    assert record_from_dict(record.as_dict()).lengths == record.lengths


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-20, 0, width=32)), max_size=12), st.integers(1, 5))
def test_an_embedding_never_raises_a_score(pairs: list[tuple[float, float]], size: int) -> None:
    faces = [face_at(0, 0, 10, score) for score, _ in pairs]
    evidence = np.array([e for _, e in pairs], np.float32)
    unit = np.eye(1, 4, dtype=np.float32).repeat(len(pairs), axis=0)
    parts = [
        Embeddings(unit[i : i + size], "m", np.exp(evidence[i : i + size]), evidence[i : i + size])
        for i in range(0, len(pairs), size)
    ]
    judged = judge(faces, parts)
    assert len(judged) == len(faces)
    for face, after, e in zip(faces, judged, evidence.tolist(), strict=True):
        assert 0 <= after.score <= face.score and (e < 0 or after.score == face.score)
        assert after.quality.usable == pytest.approx(np.exp(e), abs=1e-6)


class DoubtingEmbedder(FakeEmbedder):
    """Takes green for hardly a face and red for less than one."""

    def embed(self, chips: UInt8) -> Embeddings:
        plain = super().embed(chips)
        middle = chips[:, 56, 56].astype(int)
        evidence = np.where(middle[:, 0] > 200, -9.0, np.where(middle[:, 1] > 200, -5.0, 0.0)).astype(np.float32)
        return Embeddings(plain.vectors, plain.fingerprint, np.exp(evidence), evidence)


def test_faces_keep_their_vectors_when_the_embeddings_change_their_order() -> None:
    photos = [picture("red", "green", "blue"), picture(), picture("green")]
    plain = embed(FakeEmbedder(), FakeDetector().detect(photos))
    judged = embed(DoubtingEmbedder(), FakeDetector().detect(photos), 0.3)
    assert [len(photo.faces) for photo in judged] == [2, 0, 1]  # red is no face any more
    assert judged[0].faces[0].score == 0.99 and judged[0].faces[1].doubtful
    np.testing.assert_array_equal(judged[0].embeddings.vectors, plain[0].embeddings.vectors[[2, 1]])
    whole = Describer(FakeDetector(), DoubtingEmbedder(), min_score=0.7).describe(photos)
    assert [len(photo.faces) for photo in whole] == [1, 0, 0]


def test_quality_is_kept_in_the_catalog_and_shown_in_the_record() -> None:
    for usable in (None, 0.123456789):
        face = Face(face_at(0, 0, 10).box, 0.9, face_at(0, 0, 10).landmarks, Quality(1, 2, 3, 4, 5, 0.6, usable))
        photo = Described("a", (50, 60), (face,), Embeddings(np.eye(1, 4, dtype=np.float32), "m"))
        again = unpack(pack(photo), "a", "m")
        assert again is not None and again.faces[0].quality == face.quality
        assert face_record(face)["quality"]["usable"] == (usable and 0.12)


@pytest.mark.models
def test_worse_copies_of_a_portrait_are_less_usable(astronaut: Image, hopper: Image) -> None:
    describer = load_describer("mini", "cpu")

    def figures(image: Image) -> Quality:
        return describer.describe([image])[0].faces[0].quality

    for image in (astronaut, hopper):
        clear = figures(image)
        tiny = cv2.resize(image.rgb, None, fx=12 / clear.size, fy=12 / clear.size, interpolation=cv2.INTER_AREA)
        coarse = np.asarray(cv2.resize(tiny, (image.width, image.height), interpolation=cv2.INTER_LINEAR), np.uint8)
        blurred = np.asarray(cv2.GaussianBlur(image.rgb, (0, 0), clear.size / 12), np.uint8)
        for worse in (coarse, blurred):
            assert (figures(Image(worse)).usable or 1.0) < (clear.usable or 0.0) - 0.05
        assert (clear.usable or 0.0) > 0.95


@pytest.mark.models
def test_what_is_hardly_a_face_loses_its_score() -> None:
    import skimage.data

    motorcycle, _, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call]
    describer = load_describer("mini", "cpu", detect_options(min_face=20, min_score=0.0))
    image = Image(np.ascontiguousarray(motorcycle))
    seen = max(face.score for face in next(iter(describer.detector.detect([image]))).faces)
    assert seen > 0.5, "the detector takes a part of the motorcycle for a face"
    (photo,) = describer.describe([image])
    assert max(face.score for face in photo.faces) < 0.25
    assert faults(photo.faces[0])[-1].startswith("hardly recognisable")


# ---- photos that are turned ----


def test_a_face_that_leans_too_far_is_doubtful_in_the_picture_in_which_it_was_found() -> None:
    def leaning(roll: float, turn: int) -> Face:
        upright = face_at(0, 0, 10)
        return Face(upright.box, 0.99, upright.landmarks, Quality(10, 99, 0, 0, roll, 0.2), turn)

    assert leaning(70.0, 0).doubtful and leaning(-70.0, 0).doubtful and not leaning(50.0, 0).doubtful
    # On its head, found in the turned photo: there it stands.
    for roll, turn in ((180.0, 180), (-180.0, 180), (-90.0, 90), (90.0, 270), (-130.0, 90)):
        assert not leaning(roll, turn).doubtful, (roll, turn)
        assert upright_turn(roll) == turn
    assert leaning(0.0, 180).doubtful


def test_a_photo_lies_where_all_its_sure_faces_do() -> None:
    def found(turn: int, score: float = 0.99) -> Face:
        face = face_at(0, 0, 10, score)
        return Face(face.box, score, face.landmarks, Quality(10, 99, 0, 0, float(-turn), 0.2), turn)

    assert rotation_of([]) == rotation_of([found(0)]) == rotation_of([found(90), found(0)]) == 0
    assert rotation_of([found(90), found(90)]) == 90
    assert rotation_of([found(180), found(0, 0.5)]) == 180  # who knows whether that one is a face


@pytest.mark.models
def test_a_scan_on_its_head_says_so_wherever_it_is_named(tmp_path: Path, astronaut: Image, hopper: Image) -> None:
    lying = Image(np.ascontiguousarray(np.rot90(astronaut.rgb, 2)))
    with facepipe.Gallery(tmp_path / "g") as gallery:
        (outcome,) = gallery.enroll(lying, name="Eileen", device="cpu", keep_chips=True)
        assert (outcome.status, outcome.rotate) == ("enrolled", 180)
        (outcome,) = gallery.enroll(hopper, name="Grace", device="cpu")
        assert outcome.rotate == 0
        (outcome,) = gallery.enroll(lying, name="Grace", device="cpu")  # refused: somebody else's face
        assert (outcome.status, outcome.rotate) == ("lookalike", 180)
        upright, again = facepipe.Recognizer(gallery, device="cpu")([astronaut, lying])
        assert upright.predictions[0].person == again.predictions[0].person == "Eileen"
        assert (to_record(upright)["rotate"], to_record(again)["rotate"]) == (0, 180)


def test_a_box_is_cut_and_a_crop_shown_as_the_face_stands() -> None:
    y, x = np.mgrid[0:90, 0:120]
    image = Image(np.stack([2 * x, 2 * y, x + y], axis=2).astype(np.uint8))
    face = face_at(30, 20, 40)
    straight = align(image, [face], "margin160")[0]
    shown = crop_face(image, face_record(face))
    for turn in (90, 180, 270):
        lying = Image(np.ascontiguousarray(np.rot90(image.rgb, turn // 90)))
        there = _back(face, lying, image, Chance(turn=turn))
        np.testing.assert_array_equal(crop_face(lying, face_record(there)), shown)
        # The box's corners are rounded to pixels, which have another first corner there.
        np.testing.assert_allclose(align(lying, [there], "margin160")[0].astype(int), straight, atol=4)


def test_only_photos_with_faces_have_a_turn() -> None:
    empty = embed(FakeEmbedder(), [Detected(picture(), ())])[0]
    assert rotation_of(empty.faces) == 0
