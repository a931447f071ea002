"""Drawn pictures: what is drawn can be seen and read, and nothing is drawn outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from facepipe.errors import UsageError
from facepipe.images import read_image
from facepipe.outputs import paint
from facepipe.outputs.draw import crop_face, draw_edges, draw_faces, draw_predictions, drawing, save_crops
from facepipe.outputs.paint import MAYBE, STATUS_COLOURS, Rectangle, fitted, font, place_label
from facepipe.outputs.table import who
from facepipe.records import Record, face_record, to_record
from facepipe.types import Candidate, Face, Image, Prediction, Recognized, Status, UInt8
from tests.fakes import face_at

NAMES = ["Ada", "Łukasz Żółć", "محمد علي", "Ада Лавлейс", "Ελένη", "x" * 300, "two\nlines"]


def grey(width: int, height: int) -> Image:
    return Image(np.full((height, width, 3), 128, np.uint8), "grey.png")


def prediction(face: Face, status: Status, name: str = "Ada") -> Prediction:
    candidates = (Candidate(name, 0.6), Candidate("Grace", 0.59))
    return Prediction(face, status, name if status is Status.KNOWN else None, 0.6, 0.9, 0.43, candidates)


def record_of(*predictions: Prediction, path: str = "a.png") -> Record:
    return to_record(Recognized(path, 240, 200, predictions, "fake"))


def has_colour(rgb: UInt8, colour: tuple[int, int, int]) -> bool:
    return bool((rgb == np.array(colour, np.uint8)).all(axis=2).any())


@pytest.mark.parametrize("status", Status)
def test_each_answer_has_its_colour(status: Status) -> None:
    rgb = draw_predictions(grey(400, 300), record_of(prediction(face_at(150, 100, 80), status)))
    for other, colour in STATUS_COLOURS.items():
        assert has_colour(rgb, colour) == (other == status)


def test_who_is_probably_somebody_has_a_look_of_its_own() -> None:
    face = face_at(150, 100, 80)
    likely = Prediction(face, Status.UNKNOWN, None, 0.4, 0.714, 0.43, (Candidate("Ada", 0.4),), "Ada")
    (mark,) = drawing(record_of(likely))
    assert "".join(mark.label) == who(record_of(likely)["faces"][0]) == "maybe Ada, 71 %"
    rgb = draw_predictions(grey(400, 300), record_of(likely))
    assert has_colour(rgb, MAYBE) and not any(has_colour(rgb, colour) for colour in STATUS_COLOURS.values())
    # Not by colour alone: along the frame colour and white take turns, where other answers have none but their colour.
    whole = draw_predictions(grey(400, 300), record_of(prediction(face, Status.UNKNOWN)))
    for pixels, colours in ((rgb, 2), (whole, 1)):
        assert len(np.unique(pixels[110:170, 150], axis=0)) == colours


@given(size=st.integers(1, 120), line=st.integers(1, 12))
def test_a_dashed_frame_lies_on_the_whole_one(size: int, line: int) -> None:
    drawn = []
    for dashed in (False, True):
        canvas = PIL.Image.new("RGB", (200, 200))
        box = Rectangle(40, 40, 40 + size, 40 + size)
        paint.draw_box(PIL.ImageDraw.Draw(canvas), box, MAYBE, line, dashed=dashed)
        drawn.append(np.asarray(canvas).any(axis=2))
    assert (drawn[1] <= drawn[0]).all()


ANSWERS = st.tuples(
    st.sampled_from(Status),
    st.sampled_from(["Ada", "Grace"]),
    st.sampled_from([0.5, 0.50001, 0.50002, 0.7]),
    st.sampled_from([None, 0.9, 0.901, 0.99]),
)


@given(st.lists(st.tuples(ANSWERS, ANSWERS), max_size=3), st.booleans())
@settings(max_examples=200)
def test_what_is_said_to_be_drawn_alike_is(pairs: list[tuple[tuple[Any, ...], tuple[Any, ...]]], same: bool) -> None:
    """The faces overlap, so that labels give way to each other."""

    def record(answers: list[tuple[Any, ...]]) -> Record:
        made = [
            Prediction(
                *(face_at(60 + 9 * n, 60, 60), status, name if status is Status.KNOWN else None, value, sure, 0.43),
                (Candidate(name, value), Candidate("Eve", 0.4)),
            )
            for n, (status, name, value, sure) in enumerate(answers)
        ]
        return record_of(*made)

    one = record([first for first, _ in pairs])
    other = record([first[:2] + second[2:] if same else second for first, second in pairs])
    alike = drawing(one) == drawing(other)
    if alike:
        image = grey(240, 200)
        assert (draw_predictions(image, one) == draw_predictions(image, other)).all()
    event(f"alike: {alike}")


def test_what_is_drawn_otherwise_is_not_said_to_be_alike() -> None:
    face = face_at(150, 100, 80)
    known, unknown = (drawing(record_of(prediction(face, status))) for status in (Status.KNOWN, Status.UNKNOWN))
    grace = drawing(record_of(prediction(face, Status.KNOWN, "Grace")))
    moved = drawing(record_of(prediction(face_at(151, 100, 80), Status.KNOWN)))
    assert known not in (unknown, grace, moved)


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [*STATUS_COLOURS.values(), paint.MAYBE, paint.NEUTRAL])
def test_white_text_has_the_contrast_that_wcag_asks_for(colour: tuple[int, int, int]) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    faces=st.lists(
        st.tuples(st.floats(-80, 380), st.floats(-80, 380), st.floats(0.5, 400), st.sampled_from(Status)), max_size=5
    ),
    name=st.sampled_from(NAMES),
)
@settings(max_examples=60)
def test_any_faces_can_be_drawn_into_any_picture(
    width: int, height: int, faces: list[tuple[float, float, float, Status]], name: str
) -> None:
    image = grey(width, height)
    predictions = [prediction(face_at(x, y, side), status, name) for x, y, side, status in faces]
    record = record_of(*predictions)
    rgb = draw_predictions(image, record)
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    assert (image.rgb == 128).all()
    for face in record["faces"]:
        crop = crop_face(image, face, max_side=32)
        assert min(crop.shape[:2]) >= 1 and max(crop.shape[:2]) <= 32


@given(
    size=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    box=st.tuples(st.integers(0, 150), st.integers(0, 150), st.integers(1, 90), st.integers(1, 90)),
    label=st.tuples(st.integers(1, 60), st.integers(1, 30)),
)
def test_a_label_lies_inside_the_picture(
    size: tuple[int, int], box: tuple[int, int, int, int], label: tuple[int, int]
) -> None:
    place = place_label(size, Rectangle(box[0], box[1], box[0] + box[2], box[1] + box[3]), label, [])
    if label[0] > size[0] or label[1] > size[1]:
        assert place is None
        return
    assert place is not None
    assert (place.right - place.left, place.bottom - place.top) == label
    assert place.left >= 0 and place.top >= 0 and place.right <= size[0] and place.bottom <= size[1]


def test_a_label_goes_where_there_is_room() -> None:
    box, label = Rectangle(40, 40, 60, 60), (30, 10)
    above = place_label((100, 100), box, label, [])
    assert above == (40, 30, 70, 40)
    below = place_label((100, 100), box, label, [Rectangle(0, 0, 100, 40)])
    assert below == (40, 60, 70, 70)
    at_the_top = place_label((100, 100), Rectangle(40, 0, 60, 20), label, [])
    assert at_the_top == (40, 20, 70, 30)


@pytest.mark.parametrize("name", NAMES[:5])
def test_letters_of_many_scripts_are_in_the_font(name: str) -> None:
    missing = font("Ada", 40).getmask("\U0010fffd").getbbox(), bytes(font("Ada", 40).getmask("\U0010fffd"))
    for letter in name.replace(" ", ""):
        mask = font("Ada", 40).getmask(letter)
        assert (mask.getbbox(), bytes(mask)) != missing, letter


def test_a_number_stays_behind_an_arabic_name() -> None:
    ends = []
    for texts in (("محمد علي", "  87 %"), ("Ada", "  87 %")):
        pieces = [(text, font(text, 30)) for text in texts]
        canvas = PIL.Image.new("RGB", (round(paint.measured(pieces)) + 40, 50))
        paint.draw_label(PIL.ImageDraw.Draw(canvas), Rectangle(0, 0, *canvas.size), pieces, (0, 0, 0))
        columns = np.asarray(canvas).any(axis=(0, 2))
        last = int(np.flatnonzero(columns)[-1])
        ends.append(np.asarray(canvas)[:, last - 60 : last].astype(int))
    assert np.abs(ends[0] - ends[1]).mean() < 12


def test_text_is_shortened_to_fit() -> None:
    assert fitted("Ada", font("Ada", 20), 500) == "Ada"
    short = fitted("Ada Lovelace", font("Ada", 20), 60)
    assert short.endswith("…") and short.startswith("A") and font("Ada", 20).getlength(short) <= 60
    assert fitted("Ada", font("Ada", 20), 1) == ""


def test_a_font_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACEPIPE_FONT", str(tmp_path / "none.ttf"))
    with pytest.raises(UsageError, match="FACEPIPE_FONT"):
        font("Ada", 11)


def test_a_reduced_photo_is_drawn_in_its_own_pixels() -> None:
    small = Image(np.full((150, 200, 3), 128, np.uint8), "x", size=(800, 600))
    rgb = draw_faces(small, [face_record(face_at(400, 200, 200))])
    changed = (rgb != 128).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert columns[0] >= 95 and columns[-1] <= 155 and rows[-1] <= 105


def test_crops_hold_the_face_and_a_margin() -> None:
    image = Image(np.full((200, 300, 3), 128, np.uint8), "x")
    rgb = image.rgb.copy()
    rgb[60:100, 100:140] = (255, 0, 0)
    crop = crop_face(Image(rgb, "x"), face_record(face_at(100, 60, 40)))
    assert crop.shape == (60, 60, 3)
    assert (crop[10:50, 10:50] == (255, 0, 0)).all() and (crop[:10] == 128).all()


def test_crops_are_written_once_for_each_face(tmp_path: Path) -> None:
    image = Image(grey(300, 200).rgb, "album/day 1.jpg")
    hostile = "../../etc/passwd"
    predictions = (
        prediction(face_at(20, 20, 50), Status.KNOWN, "Ada Lovelace"),
        prediction(face_at(120, 20, 50), Status.KNOWN, hostile),
        prediction(face_at(200, 20, 50), Status.UNKNOWN),
        Prediction(face_at(200, 20, 50), Status.UNKNOWN, None, 0.4, 0.7, 0.43, (Candidate(hostile, 0.4),), hostile),
    )
    for _ in range(2):
        files = save_crops(tmp_path / "crops", image, record_of(*predictions, path=image.path))
    assert sorted(files) == sorted((tmp_path / "crops").iterdir())
    assert [file.name.split("-", 2)[2] for file in (files[0], files[2])] == ["01-Ada Lovelace.jpg", "03-unknown.jpg"]
    assert "04-maybe .._.._etc_passwd-" in files[3].name
    assert read_image(files[0]).size == (74, 74)


def test_edges_are_light_on_dark() -> None:
    magnitude = np.zeros((20, 30), np.float32)
    magnitude[10, 5:25] = 40.0
    rgb = draw_edges(magnitude)
    assert rgb.shape == (20, 30, 3)
    assert rgb[10, 10].sum() > 600 and rgb[5, 5].sum() < 80


@pytest.mark.parametrize("value", [0.0, float("nan"), 1e30])
def test_any_edge_map_can_be_drawn(value: float) -> None:
    assert draw_edges(np.full((3, 4), value, np.float32)).shape == (3, 4, 3)


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W\)"):
        draw_edges(np.zeros((3, 4, 3), np.float32))
