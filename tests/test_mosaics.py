"""Pyramid levels on mosaics: the layout, and what the first network says about levels that lie side by side."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.levels import SIDE, lay_out, tiles
from facepipe.detect.options import DetectOptions
from facepipe.models.cascade import CascadeNetworks
from facepipe.models.mtcnn import TorchCascade
from facepipe.models.networks import load_cascade
from facepipe.types import Image

CPU = torch.device("cpu")
SIZES = st.lists(st.tuples(st.integers(11, SIDE), st.integers(11, SIDE)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(SIZES)
def test_every_rectangle_lies_on_one_sheet_and_over_no_other(sizes: list[tuple[int, int]]) -> None:
    mosaics = lay_out(sizes)
    assert sorted(place.number for mosaic in mosaics for place in mosaic.places) == list(range(len(sizes)))
    for mosaic in mosaics:
        assert max(mosaic.height, mosaic.width) <= SIDE
        taken = np.zeros((mosaic.height, mosaic.width), np.int64)
        for place in mosaic.places:
            assert place.y % 2 == place.x % 2 == 0
            height, width = sizes[place.number]
            part = taken[place.y : place.y + height, place.x : place.x + width]
            assert part.shape == (height, width)
            part += 1
        assert taken.max() == 1


def test_mosaics_have_few_sizes_and_little_on_them_is_empty() -> None:
    rng = np.random.default_rng(3)
    shapes, used, whole = set(), 0, 0
    for _ in range(200):
        # The levels of 24 photos of any proportions.
        photos = rng.integers(60, 120, (24, 2))
        sizes = [(int(h), int(w)) for k in range(6) for h, w in photos * 0.709**k if min(h, w) >= 12]
        mosaics = lay_out(sizes)
        shapes |= {(mosaic.height, mosaic.width) for mosaic in mosaics}
        used += sum(height * width for height, width in sizes)
        whole += sum(mosaic.height * mosaic.width for mosaic in mosaics)
    assert len(shapes) < 20
    assert used > 0.75 * whole


@settings(max_examples=100, deadline=None)
@given(st.integers(11, 1300), st.integers(11, 1300))
def test_every_window_lies_in_one_tile(height: int, width: int) -> None:
    # How many windows of 12 pixels at stride 2 there are, the last of which the border may cut by one.
    windows = np.zeros((-(-(height - 2) // 2) - 4, -(-(width - 2) // 2) - 4), np.int64)
    for x1, y1, x2, y2 in tiles(height, width, 10):
        assert x1 % 2 == y1 % 2 == 0 and x2 - x1 <= SIDE and y2 - y1 <= SIDE
        windows[y1 // 2 : -(-(y2 - 2) // 2) - 4, x1 // 2 : -(-(x2 - 2) // 2) - 4] += 1
    assert (windows == 1).all()


@pytest.mark.models
@pytest.mark.parametrize("kind", [lambda: TorchCascade(CPU), lambda: load_cascade(CPU)], ids=["torch", "fastest"])
def test_a_level_among_others_gives_what_it_gives_alone(kind: type[CascadeNetworks]) -> None:
    networks = kind()
    rng = np.random.default_rng(4)
    sizes = [(40, 61), (61, 40), (33, 33), (12, 12), (11, 90), (27, 14), (96, 96)]
    places, count = [], 0
    for mosaic in lay_out(sizes):
        places += [
            (count, place.y, place.x, *np.add(sizes[place.number], (place.y, place.x))) for place in mosaic.places
        ]
        count += 1
    pictures = rng.uniform(-1, 1, (count + 1, SIDE, SIDE, 3)).astype(np.float32)
    logits, offsets = networks.propose(pictures, np.array(places))
    for picture, y1, x1, y2, x2 in places:
        alone = networks.propose(np.ascontiguousarray(pictures[picture : picture + 1, y1:y2, x1:x2]), None)
        height, width = alone[0].shape[1:]
        there = slice(y1 // 2, y1 // 2 + height), slice(x1 // 2, x1 // 2 + width)
        np.testing.assert_allclose(logits[picture, *there], alone[0][0], atol=1e-4)
        np.testing.assert_allclose(offsets[picture, :, *there], alone[1][0], atol=1e-4)


@pytest.mark.models
def test_large_levels_in_pieces_give_the_faces_of_whole_ones(hopper: Image) -> None:
    class Whole(TorchCascade):
        """Levels as they are, those of one size together."""

        mixes_sizes = False

    # The face lies where a piece of the finest level ends.
    large = np.asarray(cv2.resize(hopper.rgb, None, fx=2.5, fy=2.5), np.uint8)
    small = np.asarray(cv2.resize(hopper.rgb, None, fx=0.2, fy=0.2))
    height, width = small.shape[:2]
    for y, x in ((1240, 60), (700, 1180), (1245, 1190)):
        large[y : y + height, x : x + width] = small[: large.shape[0] - y, : large.shape[1] - x]
    options = DetectOptions(max_side=None, edge_gate=False)
    assert max(large.shape[:2]) * 12 / options.min_face > SIDE + 40
    pieces = MtcnnDetector(TorchCascade(CPU), options).find([Image(large)])[0]
    whole = MtcnnDetector(Whole(CPU), options).find([Image(large)])[0]
    assert len(pieces) == len(whole) >= 3
    for ours, theirs in zip(pieces, whole, strict=True):
        np.testing.assert_allclose(ours.box, theirs.box, atol=0.05)
        np.testing.assert_allclose(ours.landmarks, theirs.landmarks, atol=0.05)
