"""Augmentation: what photos do to faces, done to crops on purpose.

All works on uint8 RGB and takes its chances from the generator it is given, so a sample is the same whenever it is made again.
The crop's border is there for the similarity jitter: turned and moved, the chip stays filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import cv2
import numpy as np

from facepipe.types import UInt8
from scripts.train.faces import POINTS
from scripts.train.shards import MARGIN, SIDE

CHIP = SIDE - 2 * MARGIN
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class Strength:
    """How much, and how often.

    turn: degrees (standard deviation). shift: pixels. scale: share. The others are the chance of each effect, 0..1.
    """

    turn: float = 4.0
    shift: float = 1.5
    scale: float = 0.03
    low_resolution: float = 0.15
    blur: float = 0.1
    jpeg: float = 0.15
    colour: float = 0.5
    grey: float = 0.05
    noise: float = 0.1
    occlusion: float = 0.07
    mask: float = 0.05

    def weaker(self) -> Strength:
        """Return about two thirds of it, for the end of a run, when the network settles on what photos are like."""
        share = 2.0 / 3.0
        return Strength(*(share * value for value in astuple(self)))

    def only_placing(self) -> Strength:
        """Return the same jitter without any effect on the pixels."""
        return Strength(self.turn, self.shift, self.scale, *[0.0] * 8)


def middle(crop: UInt8) -> UInt8:
    """Return the chip in the middle of a crop, as the network sees it in use."""
    return crop[MARGIN:-MARGIN, MARGIN:-MARGIN]


def augment(crop: UInt8, rng: Generator, strength: Strength) -> UInt8:
    """Make one training chip, uint8 (112, 112, 3), of a crop (128, 128, 3)."""
    chip = _mask(crop, rng) if rng.random() < strength.mask else crop
    chip = _place(chip, rng, strength)
    if rng.random() < 0.5:
        chip = chip[:, ::-1]
    for chance, effect in (
        (strength.occlusion, _occlude),
        (strength.colour, _colour),
        (strength.grey, _grey),
        (strength.low_resolution, _low_resolution),
        (strength.blur, _blur),
        (strength.noise, _noise),
        (strength.jpeg, _jpeg),
    ):
        if rng.random() < chance:
            chip = effect(chip, rng)
    return np.ascontiguousarray(chip)


def _place(crop: UInt8, rng: Generator, strength: Strength) -> UInt8:
    """Turn, scale and shift about the middle, and cut the chip."""
    angle = np.deg2rad(rng.normal() * strength.turn)
    scale = np.exp(rng.normal() * strength.scale)
    centre = (SIDE - 1) / 2
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    shift = rng.normal(size=2) * strength.shift
    out = (CHIP - 1) / 2 + shift
    matrix = np.array(
        [
            [cos, -sin, out[0] - cos * centre + sin * centre],
            [sin, cos, out[1] - sin * centre - cos * centre],
        ]
    )
    return _as(cv2.warpAffine(crop, matrix, (CHIP, CHIP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _as(pixels: np.ndarray) -> UInt8:
    return np.asarray(pixels, np.uint8)


def _low_resolution(chip: UInt8, rng: Generator) -> UInt8:
    side = int(rng.integers(16, 80))
    small = cv2.resize(chip, (side, side), interpolation=cv2.INTER_AREA)
    return _as(cv2.resize(small, (CHIP, CHIP), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))))


def _blur(chip: UInt8, rng: Generator) -> UInt8:
    """Out of focus, or moved while the shutter was open."""
    if rng.random() < 0.5:
        return _as(cv2.GaussianBlur(chip, (0, 0), rng.uniform(0.5, 2.5)))
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    half = (length - 1) / 2
    dx, dy = half * np.cos(angle), half * np.sin(angle)
    ends = [(round(half - dx), round(half - dy)), (round(half + dx), round(half + dy))]
    cv2.line(kernel, ends[0], ends[1], (1.0,))
    return _as(cv2.filter2D(chip, -1, kernel / kernel.sum()))


def _jpeg(chip: UInt8, rng: Generator) -> UInt8:
    _, data = cv2.imencode(".jpg", chip, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))])
    return _as(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))  # channels go in and come out in the same order


def _colour(chip: UInt8, rng: Generator) -> UInt8:
    """Brightness, contrast, gamma and a cast of light; saturation."""
    x = np.arange(256) / 255.0
    gamma, contrast = np.exp(rng.normal() * 0.2), np.exp(rng.normal() * 0.15)
    tables = []
    for _ in range(3):
        cast = np.exp(rng.normal() * 0.05)
        tables.append(((x**gamma - 0.5) * contrast + 0.5 + rng.normal() * 0.02) * cast + 0.0)
    lut = np.clip(np.stack(tables, -1) * 255 + rng.normal() * 12, 0, 255).astype(np.uint8)[None]
    out = cv2.LUT(np.ascontiguousarray(chip), lut)
    grey = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    saturation = float(np.clip(1 + rng.normal() * 0.25, 0, 1.6))
    return _as(cv2.addWeighted(out, saturation, grey, 1 - saturation, 0))


def _grey(chip: UInt8, rng: Generator) -> UInt8:
    return _as(cv2.cvtColor(cv2.cvtColor(np.ascontiguousarray(chip), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def _noise(chip: UInt8, rng: Generator) -> UInt8:
    noise = rng.normal(size=chip.shape).astype(np.float32) * rng.uniform(3, 15)
    return np.clip(chip + noise, 0, 255).astype(np.uint8)


def _occlude(chip: UInt8, rng: Generator) -> UInt8:
    """Lay a grey, coloured or noisy rectangle over a part: a hand, a microphone, a hat's brim."""
    chip = chip.copy()
    h, w = (int(v) for v in rng.integers(15, 50, 2))
    y, x = int(rng.integers(0, CHIP - h)), int(rng.integers(0, CHIP - w))
    patch = rng.integers(0, 256, 3) if rng.random() < 0.7 else rng.integers(0, 256, (h, w, 3))
    chip[y : y + h, x : x + w] = patch
    return chip


def _mask(crop: UInt8, rng: Generator) -> UInt8:
    """Draw a face mask: from the nose's bridge over the cheeks to below the chin, in one colour with its shading.

    Drawn before the crop is placed, where the landmarks' places are the template's.
    """
    eyes, mouth = POINTS[:2].mean(axis=0), POINTS[3:].mean(axis=0)
    nose = POINTS[2]
    top = eyes + (nose - eyes) * rng.uniform(0.45, 0.85)
    half = (POINTS[1, 0] - POINTS[0, 0]) * rng.uniform(0.75, 0.95)
    chin = mouth[1] + (mouth[1] - nose[1]) * rng.uniform(1.0, 1.4)
    outline = np.array(
        [
            [top[0], top[1]],
            [top[0] + half, top[1] + rng.uniform(2, 8)],
            [top[0] + half * 0.9, mouth[1] + 6],
            [mouth[0] + half * 0.45, chin],
            [mouth[0] - half * 0.45, chin],
            [top[0] - half * 0.9, mouth[1] + 6],
            [top[0] - half, top[1] + rng.uniform(2, 8)],
        ]
    )
    covered = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(covered, [np.round(outline * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    shading = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (0, 0), 6).astype(np.float32)
    shading /= max(float(shading.mean()), 1.0)
    colour = np.asarray([rng.uniform(150, 250)] * 3 if rng.random() < 0.5 else rng.uniform(20, 240, 3))
    cloth = np.clip(colour * shading[..., None], 0, 255)
    alpha = (covered / 255.0)[..., None]
    return np.asarray(crop * (1 - alpha) + cloth * alpha, np.uint8)


EFFECTS: tuple[Callable[[UInt8, Generator], UInt8], ...] = (
    _low_resolution,
    _blur,
    _jpeg,
    _colour,
    _grey,
    _noise,
    _occlude,
)
