"""The answers that the page can give, by name: each is one call of `facepipe.Groups`, and on the disk when it returns."""

from __future__ import annotations

from collections.abc import Callable

from facepipe.errors import UsageError
from facepipe.groups.album import Album
from facepipe.review.asked import Asked

#: Name -> the call; it returns the answer's number.
_ANSWERS: dict[str, Callable[[Album, Asked], int]] = {
    "name": lambda groups, asked: groups.name(asked.number("group"), asked.text("person")),
    "put_out": lambda groups, asked: groups.put_out(asked.number("group"), asked.faces("faces")),
    "join": lambda groups, asked: groups.join(asked.numbers("groups")),
    "apart": lambda groups, asked: groups.apart(*_two(asked.numbers("groups"))),
    "ignore": lambda groups, asked: groups.ignore(asked.number("group")),
    "skip": lambda groups, asked: groups.skip(asked.number("group")),
    "confirm": lambda groups, asked: groups.confirm(
        asked.faces("faces"), asked.text("person"), enroll=asked.flag("enroll")
    ),
    "deny": lambda groups, asked: groups.deny(asked.faces("faces"), asked.text("person")),
    "rename": lambda groups, asked: groups.rename(asked.text("person"), asked.text("to")),
    "merge": lambda groups, asked: groups.merge(asked.texts("people"), asked.text("into")),
    "split": lambda groups, asked: groups.split(asked.text("person"), asked.faces("faces"), asked.text("into")),
    "cover": lambda groups, asked: groups.cover(asked.text("person"), asked.face("face")),
}


def give(groups: Album, asked: Asked) -> tuple[int, str]:
    """Give an answer, or take one back; return its number and what it was, in a line.

    Errors: UsageError for what cannot be answered so; GalleryError and OutputError when it cannot be kept.
    """
    verb = asked.text("do")
    if verb == "undo":
        text = groups.undo(asked.number("answer") if asked.has("answer") else None)
        return groups.answers(1)[0].number, f"taken back: {text}"
    if verb not in _ANSWERS:
        raise UsageError(f"{verb!r} is no answer")
    number = _ANSWERS[verb](groups, asked)
    text = next((answer.text for answer in groups.answers(20) if answer.number == number), verb)
    return number, text


def _two(numbers: list[int]) -> list[int]:
    if len(numbers) != 2:
        raise UsageError("groups: expected two")
    return numbers
