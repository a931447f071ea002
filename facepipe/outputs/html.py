"""A batch as one HTML page that opens from disk, needs no network, and can be given to somebody.

Photos are added as they are done. Memory stays bounded: each person and each list keeps only its most doubtful faces, with
their thumbnails, and everything that is left out is still counted. The page is data and a script:
what comes from names and file names is put into it as text, and its content security policy allows the page's own script
and nothing else.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import heapq
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import BinaryIO
from urllib.parse import quote

from facepipe.detect.chances import brightened
from facepipe.files.atomic import is_file
from facepipe.files.guard import MARK, own_file
from facepipe.images import encode_image, is_video
from facepipe.outputs.draw import crop_face
from facepipe.outputs.table import maybe, of_them_maybe, seen
from facepipe.records import Record, dumps, track_of
from facepipe.text import duration, files, plural, printable, without_path
from facepipe.types import Image

#: Longer side of a thumbnail in pixels; on the page it has about 100, more only on dense screens.
THUMBNAIL_SIDE = 112

#: A known face is doubtful below this probability, or, uncalibrated, this close above the threshold.
_SURE = 0.9
_CLOSE = 0.05

_CHUNK = 200


def thumbnail(image: Image, face: Record) -> bytes:
    """Return the small picture of a face that the page shows: at most THUMBNAIL_SIDE pixels, JPEG, as bright as it was found."""
    crop = crop_face(image, face, max_side=THUMBNAIL_SIDE)
    bright = brightened(crop) if face.get("enhanced") else None
    return encode_image(crop if bright is None else bright, "JPEG", quality=80)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the page shows; all is counted. person_faces: of one person. rows: of failures and of empty photos."""

    people: int = 5000
    person_faces: int = 60
    all_people_faces: int = 4000
    doubtful: int = 800
    unknown: int = 1500
    rows: int = 5000


@dataclass(slots=True, eq=False)
class _Shown:
    """A face that the page may show. entry: what the script is told. thumb: a JPEG. at: where in a video it is seen best."""

    entry: Record
    path: str
    doubt: float
    thumb: bytes | None
    at: float | None = None


def _entry(face: Record, record: Record, number: int) -> Record:
    """Return what the script is told of a face, but for its thumbnail's number and its photo's link.

    number: of the face in its photo, from 1. place: left, top, width and height as shares of the photo, and its aspect. seen: when it
    is seen in a video.
    """
    x1, y1, x2, y2 = face["box"]
    track = track_of(record, number - 1)
    width, height = record["width"], record["height"]
    shares = (
        [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height, width / height] if width and height else None
    )
    return {
        "path": printable(record["path"]),
        "number": number,
        "faces": len(record["faces"]),
        "place": None if shares is None else [round(share, 3) for share in shares],
        "doubtful": _is_doubtful(face),
        "seen": None if track is None else seen(track),
        "size": min(x2 - x1, y2 - y1),
        "person": None if face["person"] is None else printable(face["person"]),
        "maybe": None if (person := maybe(face)) is None else printable(person),
        "candidates": [[printable(candidate["person"]), candidate["similarity"]] for candidate in face["candidates"]],
        **{name: face[name] for name in ("status", "probability", "similarity", "threshold")},
    }


@dataclass(slots=True)
class _Kept:
    """The most doubtful faces of a list: a heap with the least doubtful on top."""

    limit: int
    total: int = 0
    heap: list[tuple[float, int, _Shown]] = field(default_factory=list)

    def wants(self, doubt: float) -> bool:
        return len(self.heap) < self.limit or doubt > self.heap[0][0]

    def put(self, shown: _Shown) -> None:
        # The count makes the order of equal doubts that of arrival, earlier first.
        item = (shown.doubt, -self.total, shown)
        if len(self.heap) < self.limit:
            heapq.heappush(self.heap, item)
        else:
            heapq.heappushpop(self.heap, item)

    def trim(self, limit: int) -> None:
        self.limit = limit
        if len(self.heap) > limit:
            self.heap = heapq.nlargest(limit, self.heap)
            heapq.heapify(self.heap)

    def ranked(self) -> list[_Shown]:
        return [shown for _, _, shown in sorted(self.heap, key=lambda item: (-item[0], -item[1]))]


@dataclass(slots=True)
class _Person:
    faces: _Kept
    photos: int = 0
    cover: _Shown | None = None


def _doubt(face: Record) -> float:
    """Return how much a face wants to be looked at; the larger, the more. Only the order counts, within one list."""
    if maybe(face) is not None:  # the most likely first
        return float(face["probability"] or 0.0)
    if face["status"] == "unknown":  # nearest to a name first
        return -2.0 if face["similarity"] is None else float(face["similarity"])
    usable = face["quality"].get("usable")
    unlike = 1.0 - float(face["similarity"] or 0.0) + (0.0 if usable is None else 1.0 - float(usable))
    # Many faces are as sure as the calibration allows: of these the least similar and least usable come first.
    return unlike if face["probability"] is None else 1.0 - float(face["probability"]) + 1e-4 * unlike


def _is_doubtful(face: Record) -> bool:
    if face["status"] == "known":
        if face["probability"] is not None:
            return bool(face["probability"] < _SURE)
        return face["similarity"] is not None and bool(face["similarity"] < face["threshold"] + _CLOSE)
    return bool(face["status"] == "ambiguous")


class HtmlReport:
    """Collects a batch and writes its page.

    report = HtmlReport("report.html")
    for image, record in …:
        report.add(record, [thumbnail(image, face) for face in record["faces"]])
    report.finish(seconds=12.5)
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None) -> None:
        self._path = Path(path)
        self._limits = limits or Limits()
        self._person_limit = self._limits.person_faces
        self._of_people = 0
        self._people: dict[str, _Person] = {}
        self._maybe: dict[str, _Person] = {}
        self._doubtful = _Kept(self._limits.doubtful)
        self._unknown = _Kept(self._limits.unknown)
        self._failures: list[tuple[str, str]] = []
        self._no_face: list[str] = []
        self._models: set[str] = set()
        self._videos = 0
        self._counts = dict.fromkeys(
            ("photos", "faces", "known", "ambiguous", "unknown", "maybe", "no_face", "failed"), 0
        )

    def add(self, record: Record, thumbnails: Sequence[bytes] = ()) -> None:
        """Add one photo. thumbnails: of each face in order (see `thumbnail`), or none at all."""
        faces = record["faces"]
        if thumbnails and len(thumbnails) != len(faces):
            raise ValueError(f"thumbnails: expected {len(faces)}, one for each face, got {len(thumbnails)}")
        self._counts["photos"] += 1
        self._models.add(str(record["model"]))
        path = str(record["path"])
        self._videos += is_video(path)
        if record["error"] is not None:
            self._counts["failed"] += 1
            if len(self._failures) < self._limits.rows:
                reason = without_path(printable(record["error"]), path)
                self._failures.append((path, reason))
        elif not faces:
            self._counts["no_face"] += 1
            if len(self._no_face) < self._limits.rows:
                self._no_face.append(path)
        for people, names in (
            (self._people, [face["person"] for face in faces]),
            (self._maybe, list(map(maybe, faces))),
        ):
            for name in dict.fromkeys(filter(None, names)):
                people.setdefault(name, _Person(_Kept(self._person_limit))).photos += 1
        for place, face in enumerate(faces):
            self._counts["faces"] += 1
            self._counts[face["status"]] += 1
            self._add_face(record, place, face, thumbnails[place] if thumbnails else None)

    def _add_face(self, record: Record, place: int, face: Record, thumb: bytes | None) -> None:
        doubt, likely = _doubt(face), maybe(face)
        person = self._people.get(face["person"]) if likely is None else self._maybe[likely]
        lists = [] if person is None else [person.faces]
        lists += [self._unknown] if face["status"] == "unknown" and likely is None else []
        self._counts["maybe"] += likely is not None
        lists += [self._doubtful] if _is_doubtful(face) else []
        for kept in lists:
            kept.total += 1
        wanting = [kept for kept in lists if kept.wants(doubt)]
        covers = person is not None and likely is None and (person.cover is None or doubt < person.cover.doubt)
        if not wanting and not covers:
            return
        track = track_of(record, place)
        at = None if track is None else track["best_frame"]
        shown = _Shown(_entry(face, record, place + 1), str(record["path"]), doubt, thumb, at)
        for kept in wanting:
            kept.put(shown)
        if covers and person is not None:
            person.cover = shown
        if person is not None and person.faces in wanting:
            self._of_people += 1
            self._make_room()

    def _make_room(self) -> None:
        """Halve what is kept of each person while all together would take more memory than the page has room for."""
        if self._of_people <= 2 * self._limits.all_people_faces:
            return
        if self._person_limit > 1:
            self._person_limit = max(1, self._person_limit // 2)
            for person in (*self._people.values(), *self._maybe.values()):
                person.faces.trim(self._person_limit)
        self._of_people = sum(len(person.faces.heap) for person in (*self._people.values(), *self._maybe.values()))

    def finish(self, *, seconds: float | None = None, fresh: int | None = None) -> None:
        """Write the page, whole or not at all. Raises OutputError when refused.

        seconds: how long the batch took. fresh: how many photos it scanned, where an earlier run had done the others.
        """
        thumbs: dict[int, bytes] = {}
        data = self._data(thumbs, self._meta(seconds, fresh))
        page = {name: resources.files("facepipe.outputs").joinpath(name).read_text("utf-8") for name in _PARTS}
        before, after = page["page.html"].split("$thumbnails")
        values = {
            "mark": MARK,
            "summary": html.escape(self._summary()),
            "style": page["page.css"],
            "script": page["page.js"],
            "style_hash": style_hash(page["page.css"]),
            "script_hash": style_hash(page["page.js"]),
            "data": _in_script(dumps(data)),
        }
        with own_file(self._path) as file:
            file.write(Template(before).substitute(values).encode())
            _write_thumbnails(file, list(thumbs.values()))
            file.write(Template(after).substitute(values).encode())

    def _data(self, thumbs: dict[int, bytes], meta: list[str]) -> Record:
        """Return all that the script is told, and collect the thumbnails, once each, in the order in which the page shows them."""
        hrefs: dict[str, str | None] = {}
        numbers: dict[int, int] = {}

        def entry(shown: _Shown) -> Record:
            """Return a face with its thumbnail's number and its photo's link, both of which faces share."""
            if shown.path not in hrefs:
                hrefs[shown.path] = self._href(shown.path)
            number = None
            if shown.thumb is not None:
                number = numbers.setdefault(id(shown), len(numbers))
                thumbs[number] = shown.thumb
            href = hrefs[shown.path]
            # Browsers begin to play there (W3C, "Media Fragments URI").
            href = href if href is None or shown.at is None else f"{href}#t={shown.at:.2f}"
            return {**shown.entry, "thumb": number, "href": href}

        def listed(kept: _Kept) -> Record:
            """Return a list of faces."""
            return {"total": kept.total, "faces": [entry(shown) for shown in kept.ranked()]}

        doubtful = listed(self._doubtful)
        people, likely = (
            sorted(found.items(), key=lambda item: (-item[1].faces.total, item[0].casefold(), item[0]))[
                : self._limits.people
            ]
            for found in (self._people, self._maybe)
        )
        share = _share([len(person.faces.heap) for _, person in (*people, *likely)], self._limits.all_people_faces)

        def listed_people(found: Sequence[tuple[str, _Person]]) -> list[Record]:
            """Return people, each with a cover and a share of the faces."""
            return [
                {
                    "name": printable(name),
                    "total": person.faces.total,
                    "photos": person.photos,
                    "cover": None if person.cover is None else entry(person.cover),
                    "faces": [entry(shown) for shown in person.faces.ranked()[:share]],
                }
                for name, person in found
            ]

        failures = [[printable(path), reason, self._href(path)] for path, reason in self._failures]
        no_face = [[printable(path), self._href(path)] for path in self._no_face]
        return {
            "chunk": _CHUNK,
            "meta": meta,
            "file": "file" if self._videos else "photo",
            "counts": self._counts,
            "doubtful": doubtful,
            "people_total": len(self._people),
            "people": listed_people(people),
            "maybe_total": len(self._maybe),
            "maybe": listed_people(likely),
            "unknown": listed(self._unknown),
            "failures": {"total": self._counts["failed"], "rows": failures},
            "no_face": {"total": self._counts["no_face"], "rows": no_face},
        }

    def _href(self, path: str) -> str | None:
        """Return a link from the page to a photo, relative so that both may be moved together; None for no file."""
        if not is_file(path):
            return None
        return quote(Path(os.path.relpath(path, self._path.resolve().parent)).as_posix())

    def _meta(self, seconds: float | None, fresh: int | None) -> list[str]:
        now = datetime.datetime.now().astimezone()
        meta = [f"{now:%d %B %Y, %H:%M}".lstrip("0")]
        scanned = self._counts["photos"] if fresh is None else min(fresh, self._counts["photos"])
        if scanned < self._counts["photos"]:
            meta.append(f"{files(self._counts['photos'] - scanned, None if self._videos else 0)} from earlier runs")
            if seconds is not None and scanned:
                meta.append(f"{scanned:,} scanned in {duration(seconds)}")
        elif seconds is not None and scanned:
            speed = scanned / max(seconds, 1e-3)
            meta += [
                f"took {duration(seconds)}",
                f"{speed:.1f} a second" if speed < 10 else f"{speed:.0f} a second",
            ]
        return [*meta, *(f"model {printable(model)}" for model in sorted(self._models))]

    def _summary(self) -> str:
        counts = self._counts
        return (
            f"{files(counts['photos'], self._videos)}, {plural(counts['faces'], 'face')}: "
            f"{counts['known']} known, {counts['ambiguous']} ambiguous, "
            f"{counts['unknown']} unknown{of_them_maybe(counts['maybe'])}; "
            f"{files(counts['no_face'], None if self._videos else 0)} without a face, {counts['failed']} failed"
        )


_PARTS = ("page.html", "page.css", "page.js")


def _write_thumbnails(file: BinaryIO, thumbs: Sequence[bytes]) -> None:
    """Write the thumbnails in the order of their numbers, as JSON lists that the script parses one at a time."""
    for start in range(0, len(thumbs), _CHUNK):
        chunk = dumps([base64.b64encode(thumb).decode() for thumb in thumbs[start : start + _CHUNK]])
        file.write(f'<script type="application/json" id="t{start // _CHUNK}">{chunk}</script>\n'.encode())


def _share(sizes: Sequence[int], total: int) -> int:
    """Return how many faces each person may show so that all together are at most `total`; at least one."""
    share = max(sizes, default=1)
    while share > 1 and sum(min(size, share) for size in sizes) > total:
        share -= 1
    return share


def _in_script(text: str) -> str:
    """Escape JSON for a script element: no `</script>`, `<!--` or entity can begin in it."""
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def style_hash(text: str) -> str:
    """Return what a content security policy calls a style or a script that it allows: its SHA-256 in base64."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
