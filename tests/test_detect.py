"""Stage 1 on real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facepipe.detect.boxes import iou
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.images import read_image
from facepipe.models.cascade import CascadeNetworks, CropName
from facepipe.models.mtcnn import TorchCascade
from facepipe.types import Float32, Image, Int64

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def networks() -> TorchCascade:
    return TorchCascade(torch.device("cpu"))


@pytest.fixture(scope="module")
def detector(networks: TorchCascade) -> MtcnnDetector:
    return MtcnnDetector(networks)


def test_the_portraits_hold_one_face_each_where_it_is(detector: MtcnnDetector, astronaut: Image, hopper: Image) -> None:
    for image, expected in ((astronaut, [177, 69, 270, 191]), (hopper, [178, 73, 354, 297])):
        faces = detector.find([image])[0]
        assert faces[0].score > 0.99
        assert iou(faces[0].box[None], np.array([expected], np.float32))[0, 0] > 0.6
        assert len([face for face in faces if face.score > 0.9]) == 1


def test_landmarks_lie_where_a_face_has_them(detector: MtcnnDetector, astronaut: Image) -> None:
    left_eye, right_eye, nose, left_mouth, right_mouth = detector.find([astronaut])[0][0].landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_a_mirrored_face_looks_the_other_way(detector: MtcnnDetector, astronaut: Image) -> None:
    pose = detector.find([astronaut])[0][0].quality
    mirrored = detector.find([Image(np.ascontiguousarray(astronaut.rgb[:, ::-1]))])[0][0].quality
    assert mirrored.yaw == pytest.approx(-pose.yaw, abs=6)
    assert mirrored.roll == pytest.approx(-pose.roll, abs=4)


def test_a_blurred_face_is_less_sharp(detector: MtcnnDetector, hopper: Image) -> None:
    import cv2

    sharp = detector.find([hopper])[0][0].quality.sharpness
    blurred = detector.find([Image(np.asarray(cv2.GaussianBlur(hopper.rgb, (0, 0), 6), np.uint8))])[0][
        0
    ].quality.sharpness
    assert blurred < 0.2 * sharp


@pytest.mark.parametrize("shape", [(1, 1), (11, 300), (12, 12), (40, 40), (480, 640)])
def test_pictures_without_a_face_are_empty_results(detector: MtcnnDetector, shape: tuple[int, int]) -> None:
    assert detector.find([Image(np.full((*shape, 3), 70, np.uint8))]) == [()]
    assert detector.find([]) == []


def test_a_batch_of_mixed_sizes_gives_what_each_picture_gives_alone(
    detector: MtcnnDetector, astronaut: Image, hopper: Image
) -> None:
    flat = Image(np.full((90, 700, 3), 120, np.uint8))
    small = Image(np.ascontiguousarray(hopper.rgb[40:333, 120:421]))
    images = [flat, astronaut, hopper, small, flat]
    together = detector.find(images)
    alone = [detector.find([image])[0] for image in images]
    assert [len(faces) for faces in together] == [len(faces) for faces in alone]
    assert not together[0] and not together[4]
    for a, b in zip(together, alone, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x.box, y.box, atol=0.05)
            np.testing.assert_allclose(x.landmarks, y.landmarks, atol=0.05)


def test_boxes_of_a_picture_decoded_smaller_refer_to_the_picture_as_displayed(
    detector: MtcnnDetector, astronaut: Image
) -> None:
    half = Image(np.ascontiguousarray(astronaut.rgb[::2, ::2]), size=(512, 512))
    whole, reduced = detector.find([astronaut, half])
    assert iou(whole[0].box[None], reduced[0].box[None])[0, 0] > 0.7
    assert reduced[0].quality.size == pytest.approx(whole[0].quality.size, rel=0.25)


def test_edges_rule_out_regions_without_losing_a_face(networks: TorchCascade, astronaut: Image, hopper: Image) -> None:
    gated = MtcnnDetector(networks, DetectOptions(edge_gate=True)).find([astronaut, hopper])
    ungated = MtcnnDetector(networks, DetectOptions(edge_gate=False)).find([astronaut, hopper])
    for a, b in zip(gated, ungated, strict=True):
        np.testing.assert_allclose(a[0].box, b[0].box, atol=0.05)


def test_options_refuse_what_makes_no_sense() -> None:
    for wrong in ({"min_face": 5}, {"factor": 1.0}, {"thresholds": (0.0, 0.7, 0.7)}):
        with pytest.raises(ValueError, match="expected"):
            DetectOptions(**wrong)


@pytest.mark.parametrize("cut", ["left", "right", "top", "bottom"])
def test_a_face_cut_by_the_border_has_its_landmarks_where_the_whole_face_has_them(
    detector: MtcnnDetector, hopper: Image, cut: str
) -> None:
    whole = detector.find([hopper])[0][0]
    x1, y1, x2, y2 = whole.box.round().astype(int)
    left, top = (x1 + 20 if cut == "left" else 0), (y1 + 40 if cut == "top" else 0)
    right, bottom = (x2 - 20 if cut == "right" else 512), (y2 - 15 if cut == "bottom" else 600)
    tight = Image(np.ascontiguousarray(hopper.rgb[top:bottom, left:right]))
    (face, *_) = detector.find([tight])[0]
    apart = np.linalg.norm(face.landmarks + np.array([left, top]) - whole.landmarks, axis=1).mean()
    assert apart < 0.06 * whole.quality.size


def test_what_looks_like_a_face_only_once_is_dropped(networks: TorchCascade, astronaut: Image) -> None:
    class Moody(CascadeNetworks):
        """Networks of which the third is convinced by a crop once, and never again."""

        def __init__(self) -> None:
            self.looks = 0

        def propose(self, pictures: Float32, places: Int64 | None) -> tuple[Float32, Float32]:
            return networks.propose(pictures, places)

        def over_crops(self, name: CropName, crops: Float32, least: float | None) -> tuple[Float32, Float32]:
            self.looks += name == "onet"
            scores, out = networks.over_crops(name, crops, least)
            return (scores if self.looks < 2 else scores * 0), out

    assert MtcnnDetector(networks, DetectOptions(second_look=False)).find([astronaut])[0]
    assert MtcnnDetector(Moody()).find([astronaut]) == [()]


def test_a_masked_face_that_wavers_is_kept_with_a_low_score(networks: TorchCascade, faces_root: Path) -> None:
    crowd = read_image(faces_root / "scenes" / "crowd-00000282.jpg", max_side=1280)
    kept = MtcnnDetector(networks).find([crowd])[0]
    sure = MtcnnDetector(networks, DetectOptions(min_score=0.7)).find([crowd])[0]
    doubtful = kept[len(sure) :]
    assert [face.score for face in kept[: len(sure)]] == [face.score for face in sure]
    assert doubtful
    assert all(0.4 <= face.score < 0.7 for face in doubtful)
