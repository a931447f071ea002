"""The picture of the four steps: it can be drawn for every outcome, and each outcome has its colour."""

from __future__ import annotations

import numpy as np
import pytest

from facepipe.outputs.paint import STATUS_COLOURS
from facepipe.outputs.steps import StepRow, draw_steps
from facepipe.types import Candidate, Image, Status, UInt8
from tests.fakes import face_at


def row(status: Status | None, *names: str, size: tuple[int, int] = (300, 200), dim: int = 256) -> StepRow:
    image = Image(np.full((size[1], size[0], 3), 90, np.uint8), "photo.png")
    edges = np.zeros((size[1] // 2 + 1, size[0] // 2 + 1), np.float32)
    if status is None:
        return StepRow("nobody", image, edges)
    vector = np.random.default_rng(0).normal(size=dim).astype(np.float32)
    candidates = tuple(Candidate(name, 0.9 - 0.5 * place) for place, name in enumerate(names))
    person = names[0] if status is Status.KNOWN else None
    chip = np.full((112, 112, 3), 120, np.uint8)
    return StepRow("photo", image, edges, face_at(50, 40, 60), chip, vector, candidates, 0.43, status, person, 0.97)


def says(rgb: UInt8, colour: tuple[int, int, int]) -> bool:
    """Say whether the last column, below the heading, has a plate of this colour."""
    return bool((rgb[130:, -260:] == np.array(colour, np.uint8)).all(axis=2).sum() > 1000)


def test_each_row_adds_to_the_height_and_nothing_to_the_width() -> None:
    one = draw_steps([row(Status.KNOWN, "Ada")])
    two = draw_steps([row(Status.KNOWN, "Ada"), row(None)])
    assert one.shape[1] == two.shape[1] and two.shape[0] > one.shape[0] and one.dtype == np.uint8


@pytest.mark.parametrize("status", Status)
def test_each_verdict_has_its_colour(status: Status) -> None:
    rgb = draw_steps([row(status, "Ada", "Grace")])
    for other, colour in STATUS_COLOURS.items():
        assert says(rgb, colour) == (other == status)


@pytest.mark.parametrize("size", [(1, 1), (2000, 30), (20, 900)])
@pytest.mark.parametrize("names", [("Ada",), ("x" * 300, "y" * 300), ("محمد علي", "two\nlines", "c", "d")])
def test_odd_pictures_and_names_can_be_drawn(size: tuple[int, int], names: tuple[str, ...]) -> None:
    for status in (Status.KNOWN, None):
        assert draw_steps([row(status, *names, size=size, dim=7)]).shape[2] == 3


def test_a_stranger_to_an_empty_gallery_can_be_drawn() -> None:
    assert draw_steps([row(Status.UNKNOWN)]).size


def test_a_row_is_whole_or_has_no_face() -> None:
    whole = row(Status.KNOWN, "Ada")
    with pytest.raises(ValueError, match="exactly when there is a face"):
        StepRow("x", whole.image, whole.edges, whole.face)
    with pytest.raises(ValueError, match="at least one row"):
        draw_steps([])
