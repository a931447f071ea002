"""What the page asks for, read from JSON and query strings: of the right type and size, or refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from facepipe.errors import UsageError
from facepipe.groups.values import FaceKey

#: More of anything in one request is a mistake.
_MOST = 10_000
_LARGEST_NUMBER = 2**62
_FACE = re.compile(r"([0-9a-f]{64}):(\d{1,5})", re.ASCII)
_ENROLLED = re.compile(r"gallery:([1-9]\d{0,17})", re.ASCII)
_CONTENT = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Asked:
    """The values of a request, by name. Each method raises UsageError when there is none, or another one than it should be."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    async def of(cls, request: Request) -> Asked:
        """Return the values of a request: of its body, a JSON object, where it has one, else of its address."""
        if request.method == "GET":
            return cls({name: request.query_params[name] for name in request.query_params})
        try:
            values = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise UsageError("the request is not JSON") from error
        if not isinstance(values, dict):
            raise UsageError("the request is not a JSON object")
        return cls(values)

    def has(self, name: str) -> bool:
        """Say whether there is such a value."""
        return self._values.get(name) is not None

    def text(self, name: str, usual: str | None = None) -> str:
        """Return a text of at most 500 characters."""
        value = self._values.get(name, usual)
        if not isinstance(value, str) or len(value) > 500:
            raise UsageError(f"{name}: expected a text")
        return value

    def number(self, name: str, usual: int | None = None) -> int:
        """Return a whole number of 0 or more."""
        value = self._values.get(name, usual)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_NUMBER:
            raise UsageError(f"{name}: expected a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Return yes or no."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"{name}: expected true or false")
        return value

    def face(self, name: str) -> FaceKey:
        """Return a face, as `key_text` names it."""
        return _face(self._values.get(name), name)

    def content(self, name: str) -> str:
        """Return the SHA-256 of a photo's bytes."""
        value = self._values.get(name)
        if not isinstance(value, str) or not _CONTENT.fullmatch(value):
            raise UsageError(f"{name}: expected the SHA-256 of a photo")
        return value

    def pictures(self, name: str) -> list[FaceKey | int]:
        """Return a list of faces of the catalog, and of ids of faces of the gallery, at least one."""
        return [_enrolled(value) or _face(value, name) for value in self._list(name)]

    def faces(self, name: str) -> list[FaceKey]:
        """Return a list of faces, at least one."""
        return [_face(value, name) for value in self._list(name)]

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        return [Asked({name: value}).text(name) for value in self._list(name, least=0)]

    def numbers(self, name: str) -> list[int]:
        """Return a list of whole numbers, at least one."""
        return [Asked({name: value}).number(name) for value in self._list(name)]

    def _list(self, name: str, least: int = 1) -> list[Any]:
        value = self._values.get(name, [])
        if not isinstance(value, list) or not least <= len(value) <= _MOST:
            raise UsageError(f"{name}: expected a list")
        return value


def key_text(key: FaceKey) -> str:
    """Return a face's name on the page: the SHA-256 of its photo, a colon, its place in the photo from 0."""
    return f"{key.content}:{key.number}"


def enrolled_text(face_id: int) -> str:
    """Return the name on the page of an enrolled face whose photo is not in the catalog."""
    return f"gallery:{face_id}"


def _enrolled(value: object) -> int | None:
    match = _ENROLLED.fullmatch(value) if isinstance(value, str) else None
    return None if match is None else int(match[1])


def _face(value: object, name: str) -> FaceKey:
    match = _FACE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise UsageError(f"{name}: expected a face")
    return FaceKey(match[1], int(match[2]))
