"""The arithmetic of stage 1: resampling, suppression, edges, pose."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facepipe.detect.boxes import clip, contenders, iou, nms, nms_contained, square, to_pixels
from facepipe.detect.edges import edge_map, search_region
from facepipe.detect.pyramid import crop_area, integral_image, pyramid_scales, resize_area
from facepipe.detect.quality import head_pose, sharpness
from facepipe.types import Float32

PICTURES = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))


def torch_area(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    tensor = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(tensor, size=(height, width), mode="area")[0].permute(1, 2, 0).numpy()


@settings(max_examples=50, deadline=None)
@given(PICTURES, st.integers(1, 60), st.integers(1, 60))
def test_resize_is_adaptive_average_pooling(rgb: np.ndarray, height: int, width: int) -> None:
    np.testing.assert_allclose(
        resize_area(integral_image(rgb), height, width), torch_area(rgb, height, width), atol=1e-3
    )


@settings(max_examples=50, deadline=None)
@given(PICTURES, st.data())
def test_crops_are_what_cutting_and_pooling_gives(rgb: np.ndarray, data: st.DataObject) -> None:
    height, width = rgb.shape[:2]
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    crop = crop_area(integral_image(rgb), np.array([[x1, y1, x2, y2]]), 24)[0]
    np.testing.assert_allclose(crop, torch_area(rgb[y1:y2, x1:x2], 24, 24), atol=1e-3)


def test_a_crop_over_the_border_is_what_a_black_frame_gives() -> None:
    rgb = np.random.default_rng(2).integers(0, 256, (30, 40, 3), np.uint8)
    framed = np.zeros((70, 80, 3), np.uint8)
    framed[20:50, 20:60] = rgb
    boxes = np.array([[-15, -7, 20, 28], [25, 10, 58, 43]])
    np.testing.assert_allclose(
        crop_area(integral_image(rgb), boxes, 24), crop_area(integral_image(framed), boxes + 20, 24), atol=1e-3
    )


def test_a_region_of_a_level_is_the_cut_out_level() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    whole = resize_area(integral_image(rgb), 30, 40)
    np.testing.assert_array_equal(resize_area(integral_image(rgb), 30, 40, (4, 6, 20, 30)), whole[6:30, 4:20])


def test_a_picture_too_large_for_32_bits_sums_right() -> None:
    rgb = np.full((3600, 3600, 3), 255, np.uint8)
    rgb[1800:] = 200
    integral = integral_image(rgb)
    assert integral.min() < 0
    level = resize_area(integral, 4, 4)
    assert np.unique(level[:2]).tolist() == [255.0] and np.unique(level[2:]).tolist() == [200.0]
    crop = crop_area(integral, np.array([[120, 120, 3480, 3480]]), 24)[0]
    assert np.unique(crop[:12]).tolist() == [255.0] and np.unique(crop[12:]).tolist() == [200.0]


def test_scales_reach_from_the_smallest_face_to_the_whole_picture() -> None:
    scales = pyramid_scales(480, 640, 40, 0.709)
    assert scales[0] == pytest.approx(12 / 40, rel=0.01)
    usual = pyramid_scales(480, 640, 20, 0.709)
    assert usual[0] == 12 / 20 and scales == pytest.approx(usual[2:])
    assert pyramid_scales(480, 640, 45, 0.709)[0] == 12 / 45
    assert 480 * scales[-1] >= 12 > 480 * scales[-1] * 0.709
    assert pyramid_scales(30, 640, 40, 0.709) == []


def boxes_strategy(count: int) -> st.SearchStrategy[np.ndarray]:
    corner = arrays(np.float32, (count, 2), elements=st.floats(0, 100, width=32))
    extent = arrays(np.float32, (count, 2), elements=st.floats(1, 50, width=32))
    return st.tuples(corner, extent).map(lambda pair: np.concatenate([pair[0], pair[0] + pair[1]], axis=1))


@settings(max_examples=50, deadline=None)
@given(boxes_strategy(12), st.permutations(range(1, 13)), st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_suppression_keeps_the_best_and_nothing_that_overlaps_it(
    boxes: Float32, ranks: list[int], groups: list[int]
) -> None:
    scores = (np.array(ranks) / 13).astype(np.float32)
    group = np.array(groups, np.int64)
    keep = nms(boxes, scores, group, 0.5)
    assert list(scores[keep]) == sorted(scores[keep], reverse=True)
    overlap = iou(boxes, boxes)
    for i in range(12):
        better = [j for j in keep if scores[j] > scores[i] and group[j] == group[i]]
        if i in keep:
            assert all(overlap[i, j] <= 0.5 + 1e-4 for j in better)
        else:
            assert any(overlap[i, j] > 0.5 - 1e-4 for j in better)


def test_a_face_inside_a_better_face_is_dropped_but_not_in_another_picture() -> None:
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60], [40, 40, 60, 60]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms_contained(boxes, scores, np.array([0, 0, 1]), 0.7).tolist() == [0, 2]
    assert nms_contained(boxes[:0], scores[:0], np.zeros(0, np.int64), 0.7).tolist() == []


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_contenders_hold_all_that_the_exact_scores_keep(seed: int, count: int) -> None:
    """Clusters of boxes around a few places, as a detector gives them; rough scores and boxes are a little off."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 3, (count, 1)) * 300 + rng.normal(0, 4, (count, 2))
    boxes = np.concatenate([centre - 40, centre + 40 + rng.normal(0, 3, (count, 2))], axis=1).astype(np.float32)
    logits = rng.normal(2, 2, count).astype(np.float32)
    groups = rng.integers(0, 2, count)
    rough = (logits + rng.uniform(-0.3, 0.3, count)).astype(np.float32)
    race = contenders(boxes + rng.uniform(-0.3, 0.3, boxes.shape).astype(np.float32), rough, groups, 0.7, 0.6)
    assert len(set(race.tolist())) == len(race)
    best = nms_contained(boxes, logits, groups, 0.7)
    # The best of every place is in the race, and so is whatever else is kept because nobody covers it.
    uncovered = [i for i in best if not _is_covered(boxes, groups, i)]
    winners = [max((j for j in range(count) if _near(boxes, groups, i, j)), key=lambda j: logits[j]) for i in best]
    assert set(uncovered) | set(map(int, winners)) <= set(race.tolist())


def _near(boxes: Float32, groups: np.ndarray, i: int, j: int) -> bool:
    return bool(groups[i] == groups[j] and np.abs(boxes[i] - boxes[j]).max() < 100)


def _is_covered(boxes: Float32, groups: np.ndarray, i: int) -> bool:
    return any(i != j and _near(boxes, groups, i, j) for j in range(len(boxes)))


def test_squares_keep_their_centre() -> None:
    assert square(np.array([[10, 20, 30, 60]], np.float32)).tolist() == [[0.0, 20.0, 40.0, 60.0]]


def test_crops_never_leave_the_picture() -> None:
    boxes = np.array([[-20, -5, 400, 300], [500, 10, 600, 50]], np.float32)
    size = np.array([320, 320]), np.array([240, 240])
    pixels = clip(to_pixels(boxes), *size)
    assert pixels[0].tolist() == [0, 0, 320, 240]
    assert pixels[1, 0] >= pixels[1, 2]


def test_flat_pictures_have_no_window_worth_a_look_and_textured_parts_do() -> None:
    grey = np.full((100, 120), 90, np.float32)
    assert search_region(edge_map(grey, 1.0).windows(1.0, 45, 55)) is None
    grey[40:60, 70:90] = np.random.default_rng(0).uniform(0, 255, (20, 20))
    region = search_region(edge_map(grey, 1.0).windows(1.0, 45, 55))
    assert region is not None
    x1, y1, x2, y2 = region
    assert x1 <= 70 and y1 <= 40 and x2 >= 90 and y2 >= 60
    assert (x2 - x1) * (y2 - y1) < 100 * 120 / 4
    assert x1 % 2 == y1 % 2 == 0


def test_density_counts_edges_inside_the_box_only() -> None:
    grey = np.zeros((40, 80), np.float32)
    grey[:, 40:] = np.tile([0, 0, 255, 255], 10)
    edges = edge_map(grey, 0.5)
    inside, outside = edges.density(np.array([[100, 0, 160, 80], [0, 0, 60, 80]], np.float32))
    assert inside > 0.9
    assert outside == 0.0


def landmarks(yaw: float, pitch: float, roll: float) -> Float32:
    """Project a head that was turned by the given degrees (weak perspective)."""
    from facepipe.detect import quality

    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray((quality._HEAD @ (about_z @ about_x @ about_y).T)[:, :2] * 1.7 + 50, np.float32)


@pytest.mark.parametrize(
    "pose", [(0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 15), (0, 0, -40), (20, 0, 10)]
)
def test_the_pose_of_a_turned_head_is_found_again(pose: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(head_pose(landmarks(*pose)[None])[0], pose, atol=0.5)


def test_a_head_that_looks_to_the_right_shows_its_nose_on_the_right() -> None:
    turned = landmarks(30, 0, 0)
    assert turned[2, 0] > turned[[0, 1], 0].mean()


def test_blur_lowers_sharpness() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (1, 112, 112, 3)).astype(np.float32)
    moved = [np.roll(noise, shift, (1, 2)) for shift in ((0, 0), (1, 0), (0, 1), (1, 1))]
    blurred = np.asarray(np.mean(moved, axis=0), np.float32)
    assert sharpness(np.zeros_like(noise))[0] == 0.0
    assert sharpness(blurred)[0] < 0.3 * sharpness(noise)[0]
