"""What the page asks of the groups, one method each: from the values of a request to what JSON tells. All in one thread."""

from __future__ import annotations

import itertools
import shlex
import time
import zlib
from collections.abc import Callable, Iterable, Sequence

from facepipe.errors import InputError, UsageError
from facepipe.groups.album import Album
from facepipe.groups.shown import CatalogPhoto
from facepipe.groups.values import FaceKey, Group, GroupFace
from facepipe.review import answers
from facepipe.review.asked import Asked
from facepipe.review.shown import Json, faces_json, group_json, known_json, nearest_json, pairs_of, photo_json
from facepipe.text import printable

#: More photos than anybody scrolls through, more suggestions than anybody answers in a row.
_MOST = 20_000
_STALE = 1.5
#: Counts are made anew when nothing was answered for so many times as long as that takes.
_PATIENCE = 4.0
#: So many pictures of enrolled faces are kept.
_REMEMBERED = 5000
#: What the page asks for: open groups of several faces, of one, and those that were answered.
_STATES = ("open", "single", "named", "ignored", "skipped")


class Calls:
    """The groups of a catalog, as the page asks for them.

    catalog: its path, for the commands that the page shows. grouping: says whether new faces are being grouped just now.
    """

    def __init__(self, groups: Album, catalog: str, grouping: Callable[[], bool] = lambda: False) -> None:
        self._groups, self._catalog, self._grouping = groups, catalog, grouping
        self._tables: dict[str, tuple[int, list[Group]]] = {}
        self._counts: Json = {"version": -1}
        self._enrolled: dict[int, bytes] = {}
        self._cost = self._quiet_from = 0.0
        self._scan: tuple[float, Json] = (-_STALE, {})

    def close(self) -> None:
        """Close the groups."""
        self._groups.close()

    def _table(self, state: str = "open") -> list[Group]:
        version, table = self._tables.get(state, (-1, []))
        if version != (now := self._groups.version):
            table = self._groups.table(state=state)
            self._tables[state] = now, table
        return table

    def state(self, asked: Asked) -> Json:
        """Return what every view shows, asked for each second: how much there is to do, and how far a scan is."""
        version = self._groups.version
        if self._counts["version"] != version and time.monotonic() >= self._quiet_from:
            begun = time.monotonic()
            table, names = self._table(), self._names()
            self._counts = {
                "version": version,
                "open": sum(group.size > 1 for group in table),
                "single": sum(group.size == 1 for group in table),
                "pairs": len(pairs_of(table)),
                "suggestions": len(self._groups.suggestions(0, _MOST)),
                "people": len(names),
                "names": zlib.crc32("\n".join(names).encode("utf-8", "surrogatepass")),
            }
            self._cost = time.monotonic() - begun
        told = {"catalog": printable(self._catalog.rpartition("/")[2]), "grouping": self._grouping()}
        return {**self._counts, **told, "version": version, "scan": self._progress()}

    def _progress(self) -> Json:
        """Return how far a scan is, counted every other second at most, however many windows ask."""
        if time.monotonic() - self._scan[0] > _STALE:
            progress = self._groups.progress()
            scan = {name: getattr(progress, name) for name in ("running", "photos", "faces", "failed")}
            self._scan = time.monotonic(), scan
        return self._scan[1]

    def _names(self) -> list[str]:
        return [person.name for person in self._groups.people()]

    def names(self, asked: Asked) -> Json:
        """Return everybody's name."""
        return {"names": self._names()}

    def groups(self, asked: Asked) -> Json:
        """Return the numbers of all groups of a state, in order; `rows` tells more of those that are seen."""
        state = asked.text("state", "open")
        if state not in _STATES:
            raise UsageError(f"state: expected one of {', '.join(_STATES)}")
        table = self._table("open" if state == "single" else state)
        if state in {"open", "single"}:
            table = [group for group in table if (group.size == 1) == (state == "single")]
        return {"ids": [group.id for group in table]}

    def rows(self, asked: Asked) -> Json:
        """Return groups with their first faces; one that another window has joined to another is left out."""
        rows, count = [], asked.number("faces", 24)
        for id in asked.numbers("groups"):
            try:
                group = self._groups.group(id)
            except UsageError:
                continue
            rows.append({**group_json(group), "faces": faces_json(_within(self._groups.faces(id, 0, count)))})
        return {"rows": rows}

    def group(self, asked: Asked) -> Json:
        """Return a group with all its faces, and the groups that may be the same person."""
        group = self._groups.group(asked.number("id"))
        alike = [{**group_json(self._groups.group(id)), "likeness": likeness} for id, likeness in group.alike]
        return {
            "group": group_json(group),
            "faces": faces_json(_within(self._groups.faces(group.id))),
            "alike": [other for other in alike if other["state"] in {"open", "skipped"}],
        }

    def pairs(self, asked: Asked) -> Json:
        """Return groups that may be the same person, in pairs."""
        return {"pairs": pairs_of(self._table())}

    def suggestions(self, asked: Asked) -> Json:
        """Return faces that are probably somebody who is known."""
        found = self._groups.suggestions(asked.number("start", 0), asked.number("count", 60))
        return {"suggestions": faces_json(found)}

    def people(self, asked: Asked) -> Json:
        """Return everybody in the gallery."""
        return {"people": [known_json(person) for person in self._groups.people()]}

    def person(self, asked: Asked) -> Json:
        """Return somebody with all their faces, doubtful ones first."""
        name = asked.text("name")
        person = next((person for person in self._groups.people() if person.name == name), None)
        if person is None:
            raise InputError("nobody of this name is in the gallery")
        return {"person": known_json(person), "faces": faces_json(self._groups.person(name))}

    def photo(self, asked: Asked) -> Json:
        """Return a photo with all its faces."""
        return photo_json(self.photo_of(asked))

    def photo_of(self, asked: Asked) -> CatalogPhoto:
        """Return the photo of these bytes in the catalog. InputError: there is none."""
        photo = self._groups.photo(asked.content("content"))
        if photo is None:
            raise InputError("the catalog has no such photo")
        return photo

    def nearest(self, asked: Asked) -> Json:
        """Return the enrolled faces that are most like a face."""
        person = asked.text("person") if asked.has("person") else None
        return {
            "nearest": nearest_json(self._groups.nearest(asked.face("face"), asked.number("count", 6), person=person))
        }

    def find(self, asked: Asked) -> Json:
        """Search the photos; return them with the command that finds the same."""
        with_, without = asked.texts("with"), asked.texts("without")
        since, until = asked.text("since", "") or None, asked.text("until", "") or None
        unknown = asked.flag("unknown")
        found = self._groups.find_photos(with_=with_, without=without, since=since, until=until, unknown=unknown)
        photos = [
            {"content": photo.content, "path": printable(photo.path), "taken": photo.taken}
            for photo in itertools.islice(found, _MOST)
        ]
        words = [f"--{option}={name}" for option, names in (("with", with_), ("without", without)) for name in names]
        words += [f"--{option}={day}" for option, day in (("since", since), ("until", until)) if day is not None]
        words += ["--unknown"] if unknown else []
        return {"photos": photos, "command": printable(shlex.join(["facepipe", "find", self._catalog, *words]))}

    def history(self, asked: Asked) -> Json:
        """Return what was answered, newest first."""
        rows = self._groups.answers(asked.number("count", 200))
        names = ("number", "at", "text", "undone")
        return {"answers": [{name: getattr(row, name) for name in names} for row in rows]}

    def answer(self, asked: Asked) -> Json:
        """Give an answer; it is on the disk. alone: nothing else changed since the version that the page knew.

        What the answer changes in the lists is told by `state`: of a hundred thousand faces that takes a moment.
        """
        alone = asked.number("since", 0) == self._groups.version
        number, what = answers.give(self._groups, asked)
        # Whoever answers one group after the other is not kept waiting for lists and counts of a hundred thousand faces.
        self._quiet_from = time.monotonic() + _PATIENCE * self._cost
        return {"number": number, "what": what, "alone": alone, "version": self._groups.version}

    def thumbnails(self, asked: Asked) -> list[bytes | FaceKey]:
        """Return small pictures of faces, empty where there is none; the face where it is to be cut out of its photo."""
        return [self._thumbnail(face) for face in asked.pictures("faces")]

    def _thumbnail(self, face: FaceKey | int) -> bytes | FaceKey:
        if isinstance(face, FaceKey):
            return self._groups.kept_thumbnail(face) or face
        if face not in self._enrolled:
            if len(self._enrolled) >= _REMEMBERED:
                self._enrolled.clear()
            self._enrolled[face] = self._groups.enrolled_picture(face) or b""
        return self._enrolled[face]

    def photos_of(self, contents: Iterable[str]) -> dict[str, CatalogPhoto]:
        """Return photos by the SHA-256 of their bytes, those that are in the catalog."""
        found = {content: self._groups.photo(content) for content in contents}
        return {content: photo for content, photo in found.items() if photo is not None}


def _within(faces: Sequence[GroupFace]) -> list[GroupFace]:
    return [face for face in faces if face.status != "out"]


#: What is asked for with GET, and with POST: the part of the address after /api/ -> the method. Answers change something.
READS: tuple[str, ...] = (
    "state",
    "names",
    "groups",
    "group",
    "pairs",
    "suggestions",
    "people",
    "person",
    "photo",
    "nearest",
    "history",
)
POSTS: tuple[str, ...] = ("rows", "find", "answer")
