"""An explanation as one picture: the sentence, then what each step saw."""

from __future__ import annotations

import PIL.Image

from facepipe.explain.values import Explanation
from facepipe.outputs.paint import Colour
from facepipe.outputs.steps import Board, wrapped
from facepipe.text import printable
from facepipe.types import UInt8

_SOFT: Colour = (104, 109, 121)
_MARGIN, _CELL, _GAP, _COLUMNS = 32, 220, 18, 5
_ROW = _CELL + 56


def sheet(made: Explanation) -> UInt8:
    """Return the picture, uint8 RGB (H, W, 3)."""
    columns = 4 if "pair" in made.facts else _COLUMNS
    width = 2 * _MARGIN + columns * _CELL + (columns - 1) * _GAP
    lines = wrapped(printable(made.sentence), 0.9 * (width - 2 * _MARGIN), 20)
    panels = _panels(made)
    head = _MARGIN + 28 * len(lines) + 24
    board = Board(width, head + _ROW * -(-len(panels) // columns) + _MARGIN // 2)
    for number, line in enumerate(lines):
        board.text((_MARGIN, _MARGIN + 20 + 28 * number), line, 20, bold=True)
    for number, (name, words) in enumerate(panels):
        left = _MARGIN + number % columns * (_CELL + _GAP)
        top = head + number // columns * _ROW
        picture = made.pictures[name]
        if name.startswith("layer-"):  # the map alone, without the patches beside it
            picture = picture[:, : picture.shape[0]]
        board.picture(PIL.Image.fromarray(picture), left, top, _CELL)
        for place, line in enumerate(wrapped(printable(words), _CELL, 14)[:2]):
            board.text((left, top + _CELL + 18 + 18 * place), line, 14, _SOFT, width=_CELL)
    return board.finished()


def _panels(made: Explanation) -> list[tuple[str, str]]:
    """Return the names of the pictures that are shown, and what stands below each."""
    facts, pictures = made.facts, made.pictures
    if "pair" in facts:
        panels = []
        for side, other in (("a", "second"), ("b", "first")):
            words = {
                "photo": "photo",
                "chip": "aligned face",
                "map-person": f"for (red) and against (blue) the {other}",
                "photo-person": "the same in the photo",
            }
            panels += [(f"{side}-{name}", text) for name, text in words.items()]
        return [one for one in panels if one[0] in pictures]
    saliency = facts["saliency"]
    panels = [
        ("photo", "1 the photo"),
        ("edges", "1 its edges"),
        ("boxes", "1 windows that three networks kept"),
        ("level", "1 what the first network saw"),
        ("chip", "2 the aligned face"),
    ]
    for depth, layer in enumerate(facts["embed"]["layers"] or ()):
        channel = layer["channels"][0]["channel"]
        panels.append((f"layer-{depth}-{channel}", f"2 {layer['name']}, channel {channel}"))
    panels += [
        ("map-person", f"for {saliency['for']}"),
        ("map-rather", f"{saliency['for']} rather than {saliency['rather_than']}"),
    ]
    if facts["embed"]["layers"] is None:  # there is room
        panels.append(("photo-person", f"for {saliency['for']}, in the photo"))
    return [one for one in panels if one[0] in pictures]
