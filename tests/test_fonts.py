"""A name is drawn with a font that has its characters; where none has, that is said, once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from facepipe.cli.common import exit_code_of
from facepipe.evaluate.sheet import canvas
from facepipe.images import fonts
from facepipe.outputs.draw import draw_predictions
from facepipe.records import to_record
from facepipe.types import Image, Recognized
from tests.test_report_records import known


def make_font(path: Path, characters: str) -> Path:
    """Make a font whose characters are all a filled square."""
    names = [".notdef", *(f"u{ord(char):05x}" for char in characters)]
    pen = TTGlyphPen(None)
    for move, point in (
        (pen.moveTo, (100, 0)),
        (pen.lineTo, (900, 0)),
        (pen.lineTo, (900, 800)),
        (pen.lineTo, (100, 800)),
    ):
        move(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(char): f"u{ord(char):05x}" for char in characters})
    builder.setupGlyf({name: square if name != ".notdef" else TTGlyphPen(None).glyph() for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system without fontconfig whose only fonts are those that a test puts into the folder."""
    monkeypatch.delenv("FACEPIPE_FONT", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path),))
    fonts._find.cache_clear()
    fonts.lacking()
    yield tmp_path
    fonts._find.cache_clear()
    fonts.lacking()


def test_latin_and_what_dejavu_has_needs_no_search(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_candidates", lambda wanted: pytest.fail("searched"))
    for name in ("Ada", "Zoë", "Ελένη", "Зоя", "محمد", "דוד"):
        assert fonts.font_file(name) == fonts.dejavu()
        assert fonts.font_file(name, bold=True) == fonts.dejavu(bold=True)
    assert fonts.lacking() is None


def test_a_font_of_the_system_that_has_all_characters_is_taken(system: Path) -> None:
    make_font(system / "Half Sans.ttf", "漢")
    make_font(system / "Whole Mono.ttf", "漢字 Ana")
    both = make_font(system / "Whole Sans.ttf", "漢字 Ana")
    (system / "broken.ttf").write_bytes(b"no font")
    assert fonts.font_file("漢字") == both
    assert fonts.font_file("漢字 Ana") == both
    assert fonts.font_file("漢字 Zoe") == both, "what is foreign comes first; the rest has a font of its own at worst"
    assert fonts.lacking() is None


def test_what_no_font_has_is_said_once(system: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = Image(np.full((200, 200, 3), 90, np.uint8), "a.jpg")
    record = to_record(Recognized("a.jpg", 200, 200, (known("漢字"), known("漢字"), known("प्रिया")), "m"))

    def work() -> None:
        draw_predictions(photo, record)

    assert exit_code_of(work) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "no font here has all the characters of" in told and "and 1 more" in told and "fonts-noto-cjk" in told
    assert exit_code_of(lambda: None) == 0 and capsys.readouterr().err == ""


def test_a_name_is_drawn_and_not_a_box_for_it(system: Path) -> None:
    make_font(system / "Sans.ttf", "漢字")
    photo = Image(np.full((400, 400, 3), 90, np.uint8), "a.jpg")
    record = to_record(Recognized("a.jpg", 400, 400, (known("漢字"),), "m"))
    drawn = draw_predictions(photo, record)
    fonts._find.cache_clear()
    (system / "Sans.ttf").unlink()
    assert (draw_predictions(photo, record) != drawn).any(), "the font that was there made a difference"


def test_a_sheet_takes_fonts_and_warns_of_nothing(system: Path, tmp_path: Path) -> None:
    make_font(system / "Sheet Sans.ttf", "漢字")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for title in ("漢字", "प्रिया"):
            with canvas.sheet_figure(tmp_path / "sheet.png", title, "प्रिया", 2):
                pass
    assert "no font here" in (fonts.lacking() or "")
