"""The closer look at small faces and crowds, on a made-up group photo of one portrait."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from facepipe.detect.closer import CROWD
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.embed.describer import Describer
from facepipe.embed.embedder import load_embedder
from facepipe.embed.embedding import embed
from facepipe.images import encode_image, read_image_bytes
from facepipe.models.mtcnn import TorchCascade
from facepipe.types import Detected, Image
from tests.fakes import FakeEmbedder

pytestmark = pytest.mark.models

#: Sides of the pasted pictures, whose faces are a bit less than half as large.
_FRONT, _BACK = 320, 72


@pytest.fixture(scope="module")
def networks() -> TorchCascade:
    return TorchCascade(torch.device("cpu"))


@pytest.fixture(scope="module")
def detector(networks: TorchCascade) -> MtcnnDetector:
    return MtcnnDetector(networks)


def group_photo(portrait: Image, front: int, back: int, size: int = _FRONT) -> Image:
    """Return a photo 3200 wide, decoded to 1280: people in a front row of this size, and smaller ones in a row behind it."""
    head = portrait.rgb[30:254, 110:334]
    whole = np.full((1000, 3200, 3), 128, np.uint8)
    for row, side, count in ((1000 - max(size, 400), size, front), (100, _BACK, back)):
        for place in range(count):
            left = 40 + place * max(size, 380)
            whole[row : row + side, left : left + side] = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
    return read_image_bytes(encode_image(whole), "group.jpg", max_side=1280)


def test_the_back_row_of_a_crowd_is_found(detector: MtcnnDetector, astronaut: Image) -> None:
    group = group_photo(astronaut, CROWD, 8)
    reduced = detector.find([group])[0]
    assert len(reduced) == CROWD
    (found,) = Describer(detector, FakeEmbedder()).describe([group])
    assert len(found.faces) == len(found.embeddings) == CROWD + 8
    back = [face for face in found.faces if face.box[3] < 300]
    assert len(back) == 8
    assert all(face.quality.size > 24 for face in back)
    assert found.size == (3200, 1000)


def test_a_few_small_faces_are_shown_in_all_their_pixels(detector: MtcnnDetector, astronaut: Image) -> None:
    few = group_photo(astronaut, CROWD - 1, 0)
    faces = detector.find([few])[0]
    (seen,) = detector.detect([few])
    larger = seen.larger
    assert larger is not None
    assert (larger.rgb.shape, larger.scale, few.scale) == ((1000, 3200, 3), 1.0, 0.4)
    assert [face.box.tolist() for face in seen.faces] == [face.box.tolist() for face in faces]
    assert all(
        after.quality.sharpness > 2 * face.quality.sharpness for after, face in zip(seen.faces, faces, strict=True)
    )


def test_small_faces_are_embedded_from_all_their_pixels(detector: MtcnnDetector, astronaut: Image) -> None:
    embedder = load_embedder("mini", "cpu")
    own = Describer(detector, embedder).describe([astronaut])[0].embeddings.vectors[0]
    group = group_photo(astronaut, 1, 0, 200)
    (reduced,) = embed(embedder, [Detected(group, detector.find([group])[0])])
    (closer,) = Describer(detector, embedder).describe([group])
    assert closer.embeddings.vectors[0] @ own > reduced.embeddings.vectors[0] @ own + 0.02
    assert closer.image is group


def test_large_faces_and_whole_pictures_are_looked_at_once(
    networks: TorchCascade, detector: MtcnnDetector, astronaut: Image
) -> None:
    def once(detector: MtcnnDetector, photo: Image) -> bool:
        (seen,) = detector.detect([photo])
        return seen.larger is None and len(seen.faces) == len(detector.find([photo])[0])

    crowd = group_photo(astronaut, CROWD, 0)
    assert not once(detector, crowd)
    assert once(MtcnnDetector(networks, DetectOptions(max_side=None)), crowd)
    large = group_photo(astronaut, 2, 0, 700)
    assert len(detector.find([large])[0]) == 2 and once(detector, large)
    empty = group_photo(astronaut, 0, 0)
    assert detector.find([empty]) == [()] and once(detector, empty)
