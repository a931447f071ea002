"""When a photo was taken, as its EXIF data says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from facepipe.images.raw import exif_of_raw, is_raw
from facepipe.images.reading import open_quietly

EXIF, _TAKEN, _OFFSET = 0x8769, 0x9003, 0x9011
_DATE = re.compile(r"(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ZONE = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d", re.ASCII)


def taken_of(data: bytes, name: str = "") -> str | None:
    """Return when a picture was taken in ISO 8601, with the time zone where it is known; None when it does not say, or nonsense.

    data: its file. name: says what it is where its content does not. DateTimeOriginal is read, and OffsetTimeOriginal.
    """
    try:
        exif = _exif_of(data, name)
        date = _DATE.match(str(exif.get(_TAKEN, "")))
        if date is None:
            return None
        taken = datetime(*map(int, date.groups())).isoformat()  # type: ignore[arg-type]
        zone = str(exif.get(_OFFSET, "")).strip("\0 ")
    except Exception:  # noqa: BLE001 - whatever damaged EXIF leads to, the photo has no date
        return None
    return taken + (zone if _ZONE.fullmatch(zone) else "")


def tags_of(taken: str | None) -> dict[int, str]:
    """Return the tags of an EXIF directory that say this of a picture. taken: see `taken_of`."""
    if taken is None:
        return {}
    tags = {_TAKEN: taken[:19].replace("-", ":").replace("T", " ")}
    return tags | {_OFFSET: taken[19:]} if taken[19:] else tags


def _exif_of(data: bytes, name: str) -> Mapping[int, object]:
    if is_raw(data, name):
        return exif_of_raw(data)
    with open_quietly(data) as picture:
        return picture.getexif().get_ifd(EXIF)
