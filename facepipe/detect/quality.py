"""How usable a face is: sharpness, pose, size, edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facepipe.types import Float32, Quality

#: A face in millimetres, nose tip at the origin, x to the picture's right, y down, z away from the camera: eye centres,
#: nose tip, mouth corners. Rounded adult anthropometric means (Farkas, "Anthropometry of the Head and Face", 1994).
_HEAD = np.array([[-32, -35, 28], [32, -35, 28], [0, 0, 0], [-25, 32, 24], [25, 32, 24]], np.float64)
_HEAD -= _HEAD.mean(axis=0)
_HEAD_INVERSE = np.linalg.pinv(_HEAD)


#: Side of the crops that sharpness is measured on.
CROP_SIDE = 112


def head_pose(landmarks: Float32) -> NDArray[np.float64]:
    """Return yaw, pitch, roll in degrees, float64 (n, 3), of landmarks (n, 5, 2).

    Weak perspective: the affine camera that maps the mean head onto the landmarks, made a rotation (DeMenthon and Davis,
    "Model-based object pose in 25 lines of code", 1995). Yaw is positive when the face looks to the picture's right, pitch
    when it looks up, roll when it is turned clockwise.
    """
    points = np.asarray(landmarks, np.float64)
    camera = (_HEAD_INVERSE @ (points - points.mean(axis=1, keepdims=True))).transpose(0, 2, 1)  # (n, 2, 3)
    left, _, right = np.linalg.svd(camera, full_matrices=False)
    rows = left @ right
    x, y = rows[:, 0], rows[:, 1]
    z = np.cross(x, y)
    # The rotation is roll after pitch after yaw.
    yaw = np.degrees(np.arctan2(z[:, 0], z[:, 2]))
    pitch = np.degrees(np.arcsin(np.clip(-z[:, 1], -1.0, 1.0)))
    roll = np.degrees(np.arctan2(-x[:, 1], y[:, 1]))
    return np.stack([yaw, pitch, roll], axis=1)


def upright_turn(roll: float) -> int:
    """Return by how many degrees clockwise, 0, 90, 180 or 270, a face of this roll must be turned to stand."""
    return -90 * round(roll / 90.0) % 360


def sharpness(crops: Float32) -> NDArray[np.float64]:
    """Return the variance of the Laplacian of each grey crop (n, 112, 112, 3): 0 for a flat picture, hundreds when sharp."""
    grey = crops @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = (
        grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * grey[:, 1:-1, 1:-1]
    )
    return np.asarray(laplacian.reshape(len(crops), -1).var(axis=1), np.float64)


def assess(boxes: Float32, landmarks: Float32, crops: Float32, edge_density: Float32) -> list[Quality]:
    """Return the figures of each face: boxes (n, 4) in displayed pixels, landmarks (n, 5, 2), crops (n, 112, 112, 3)."""
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    poses = head_pose(landmarks)
    return [
        Quality(float(side), float(sharp), float(yaw), float(pitch), float(roll), float(edges))
        for side, sharp, (yaw, pitch, roll), edges in zip(sides, sharpness(crops), poses, edge_density, strict=True)
    ]
