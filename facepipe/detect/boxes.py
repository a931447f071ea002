"""Boxes as float32 (n, 4) arrays, x1 y1 x2 y2: overlap, non-maximum suppression, squaring, regression.

The arithmetic, its "+ 1" included, is that of MTCNN (Zhang et al., "Joint Face Detection and Alignment using Multi-task
Cascaded Convolutional Networks", 2016) as facenet-pytorch runs it, so that boxes agree to the pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

from facepipe.types import Float32, Int64


def iou(a: Float32, b: Float32) -> Float32:
    """Return the intersection over union of every box of a (n, 4) with every box of b (m, 4): float32 (n, m)."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(opposite - corner, 0), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0), np.float32)


def nms(boxes: Float32, scores: Float32, groups: Int64 | None, threshold: float) -> Int64:
    """Return the indices of the boxes that no better box of the same group overlaps by more than `threshold` IoU.

    Best score first. groups: int64 (n,), boxes of different groups never suppress each other; None: all are of one.
    """
    if len(boxes) == 0:
        return np.zeros(0, np.int64)
    rectangles = boxes.astype(np.float64)
    if groups is not None:  # they are moved apart, so that one pass handles all of them
        rectangles += (groups * (float(boxes.max()) - float(boxes.min()) + 1.0))[:, None]
    rectangles[:, 2:] -= rectangles[:, :2]
    # OpenCV drops scores at or below its own threshold, and ours are probabilities above 0.
    keep = cv2.dnn.NMSBoxes(rectangles, scores, 0.0, threshold)  # type: ignore[arg-type]
    return np.asarray(keep, np.int64).reshape(-1)


def nms_contained(boxes: Float32, scores: Float32, groups: Int64, threshold: float) -> Int64:
    """Like `nms`, with the overlap measured against the smaller box: a box inside a better one goes ("Min" in MTCNN)."""
    extent = boxes[:, 2:] - boxes[:, :2] + 1
    area = extent[:, 0] * extent[:, 1]
    order = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    # One turn for each face that stays; a turn drops every box that it covers.
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        opposite = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        inter = np.prod(np.maximum(opposite - corner + 1, 0), axis=1)
        covered = (inter > threshold * np.minimum(area[best], area[rest])) & (groups[rest] == groups[best])
        order = rest[~covered]
    return np.array(keep, np.int64)


def contenders(boxes: Float32, logits: Float32, groups: Int64, threshold: float, doubt: float) -> Int64:
    """Return the boxes that `nms_contained` may keep when scores and boxes are known roughly only.

    doubt: a box is out of the race when a better one, of a logit larger by more than this, clearly covers it.
    """
    extent = boxes[:, 2:] - boxes[:, :2] + 1
    area = extent[:, 0] * extent[:, 1]
    order = np.argsort(-logits, kind="stable")
    race: list[Int64] = []
    while order.size:
        best, rest = order[:1], order[1:]
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        opposite = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        inter = np.prod(np.maximum(opposite - corner + 1, 0), axis=1)
        share = inter / np.minimum(area[best], area[rest])
        covered = (share > threshold + 0.05) & (groups[rest] == groups[best])
        race += [best, rest[covered & (logits[rest] >= logits[best] - doubt)]]
        order = rest[~covered]
    return np.concatenate(race) if race else np.zeros(0, np.int64)


def square(boxes: Float32) -> Float32:
    """Return squares around the same centres, as long as the longer side."""
    extent = boxes[:, 2:] - boxes[:, :2]
    side = extent.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + extent * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


def regress(boxes: Float32, offsets: Float32, plus: float) -> Float32:
    """Move each edge by its offset times the box's extent; `plus` is 1 in MTCNN's second and third networks, else 0."""
    extent = boxes[:, 2:] - boxes[:, :2] + np.float32(plus)
    return np.asarray(boxes + offsets * np.concatenate([extent, extent], axis=1), np.float32)


def to_pixels(boxes: Float32) -> Int64:
    """Return whole-pixel crops, int64 (n, 4), last-plus-one, that may reach outside the picture.

    The subtraction turns MTCNN's pixel numbers, which begin at 1, into ours.
    """
    whole = np.trunc(boxes).astype(np.int64)
    whole[:, :2] -= 1
    return whole


def clip(pixels: Int64, width: Int64 | int, height: Int64 | int) -> Int64:
    """Return the part of each crop that lies in its picture; an empty one has x1 >= x2 or y1 >= y2."""
    x1, y1, x2, y2 = pixels.T
    return np.stack([np.maximum(x1, 0), np.maximum(y1, 0), np.minimum(x2, width), np.minimum(y2, height)], axis=1)
