"""The rules of enrolment: which face of a photo, whether it is good enough, and whether it can be this person.

    photos ──▶ read ──▶ faces and vectors ──▶ which face? good enough? ──▶ all together: new? this person? ──▶ gallery

Nothing is written before all photos of a run were looked at, so that what becomes of one does not depend on which came first.
What was refused is reported with the figure and the limit, and stops nothing else. An outcome is yielded only when
what it says is on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import floor

import numpy as np

from facepipe.detect.selection import FaceChoice, choose_faces, no_such_face
from facepipe.embed.describer import Describer
from facepipe.errors import InputError
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.chips import cut_chip, cut_out
from facepipe.gallery.enrolment.filmed import filmed
from facepipe.gallery.enrolment.intake import EnrollOutcome, EnrollStatus, Photo
from facepipe.gallery.enrolment.judging import Judge, Verdict, are_several, groups_of, unlike_limit
from facepipe.gallery.names import gallery_command
from facepipe.gallery.people import find_person
from facepipe.gallery.privacy.erasing import finish_scrub, forget_expired
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import content_hash, is_video, read_bytes, read_image_bytes
from facepipe.images.inputs import as_image
from facepipe.text import without_path
from facepipe.types import MOST_LEAN, SURE_SCORE, Described, Face, Float32, Image, rotation_of

#: Photos that are read and embedded together.
BATCH = 32
#: Photos from which on a run is judged and written before the next people's photos are looked at: about ten minutes of work.
RUN = 20_000
#: What a face must have to be enrolled: pixels of the shorter side, sharpness (see `Quality`), degrees away from frontal, and how
#: likely its embedding is right. Roll: see `MOST_LEAN`.
_SIZE, _SHARPNESS, _YAW, _PITCH, _USABLE = 40, 20, 60, 45, 0.6
#: By so much more score a face is known to be turned the wrong way.
_SURER = 0.02


@dataclass(frozen=True, slots=True)
class EnrollRules:
    """How to enrol.

    lookalike: cosine from which on two people are confused: the model's threshold.
    one_person: cosine that two faces of one person should reach. A face is doubtful when all its person's others are far below,
    and photos are several people's when they fall into groups that are; None: nothing is.
    force: enrol what looks like somebody else, was refuted, or is of several people, and call nothing doubtful.
    accept_poor: enrol what has `faults`.
    retain: seconds until a face expires.
    keep_chips: store the piece of photo around the face.
    max_side: a larger photo is read reduced.
    """

    lookalike: float
    one_person: float | None = None
    faces: FaceChoice = "clear"
    accept_poor: bool = False
    force: bool = False
    keep_chips: bool = False
    retain: float | None = None
    max_side: int | None = None

    @property
    def unlike(self) -> float | None:
        """Cosine below which a face is enrolled as doubtful when none of its person's others is nearer."""
        return None if self.one_person is None else unlike_limit(self.one_person)

    @property
    def duplicate_limit(self) -> float:
        """Cosine from which on two faces of a person are one picture: nine tenths of the way from `lookalike` to 1.

        Measured with mini: copies of a photo (smaller, cropped, JPEG quality 60) have 0.99 (median), 0.96 (tenth
        percentile); other photos of the person 0.63 +- 0.06. Networks with other spreads have other thresholds.
        """
        return self.lookalike + 0.9 * (1.0 - self.lookalike)


@dataclass(slots=True)
class _Pending:
    """A photo on its way through a batch."""

    photo: Photo
    content: str
    image: Image


@dataclass(frozen=True, slots=True)
class _Looked:
    """A photo that was looked at: its faces that are good enough, not yet compared with anybody's."""

    photo: Photo
    faces: list[NewFace]
    rotate: int = 0


class Enroller:
    """Enrols photos into a gallery."""

    def __init__(self, gallery: GalleryStore, describer: Describer, rules: EnrollRules) -> None:
        self._gallery = gallery
        self._describer = describer
        self._rules = rules

    def run(
        self, photos: Iterable[Photo], progress: Callable[[int], object] = lambda count: None
    ) -> Iterator[EnrollOutcome]:
        """Yield an outcome for each photo, in order, once it is durable. GalleryError when the gallery cannot take it.

        progress: told how many more photos were looked at.
        """
        finish_scrub(self._gallery.database)
        forget_expired(self._gallery.database)
        for run in _runs(photos):
            looked: list[_Looked | EnrollOutcome] = []
            for start in range(0, len(run), BATCH):
                some = run[start : start + BATCH]
                looked += self._look(some)
                progress(len(some))
            yield from self._settle(looked)

    def _look(self, photos: Sequence[Photo]) -> list[_Looked | EnrollOutcome]:
        """Read photos and find their faces."""
        images: dict[str, Image] = {}  # a photo of several people is read and described once
        frames = [one for photo in photos for one in self._frames(photo)]
        read = [self._read(one, images) if isinstance(one, Photo) else one for one in frames]
        contents = list(dict.fromkeys(item.content for item in read if isinstance(item, _Pending)))
        found = self._describer.describe([images[content] for content in contents]) if contents else []
        described = dict(zip(contents, found, strict=True))
        looked: list[_Looked | EnrollOutcome] = []
        for item in read:
            if isinstance(item, _Pending):
                faces = described[item.content]
                looked.append(replace(self._choose(item, faces), rotate=rotation_of(faces.faces)))
            else:
                looked.append(item)
        return looked

    def _frames(self, photo: Photo) -> Sequence[Photo | EnrollOutcome]:
        """Return a photo, or what is to be enrolled of a video."""
        if photo.picture is not None or not is_video(str(photo.path)):
            return [photo]
        rules = self._rules
        found = filmed(
            self._describer,
            photo,
            choice=rules.faces,
            same=rules.lookalike if rules.one_person is None else rules.one_person,
            alike=rules.duplicate_limit,
            max_side=rules.max_side,
            fits=lambda face: rules.accept_poor or not faults(face),
        )
        return [found] if isinstance(found, EnrollOutcome) else found

    def _read(self, photo: Photo, images: dict[str, Image]) -> EnrollOutcome | _Pending:
        """Read a photo, unless it is in `images`, by the SHA-256 of its bytes, already."""
        try:
            if photo.picture is not None:
                image = as_image(photo.picture, max_side=self._rules.max_side)
                content = content_hash(image.rgb.tobytes())
            else:
                _, data = read_bytes(photo.path)
                content = content_hash(data)
            if enrolled_faces(self._gallery, photo.person, content):
                return photo.outcome(EnrollStatus.ALREADY)
            if photo.picture is None:
                image = images.get(content) or read_image_bytes(data, str(photo.path), max_side=self._rules.max_side)
        except InputError as error:
            # The path stands beside the reason anyway.
            return photo.outcome(EnrollStatus.UNREADABLE, without_path(str(error), photo.path))
        images[content] = image
        return _Pending(photo, content, image)

    def _choose(self, item: _Pending, result: Described) -> EnrollOutcome | _Looked:
        """Return the photo's faces that may be enrolled, or why there are none."""
        self._gallery.require_model(result.embeddings.fingerprint)
        rules, photo = self._rules, item.photo
        if not result.faces:
            return photo.outcome(EnrollStatus.NO_FACE, "no face found")
        chosen = choose_faces(result.faces, rules.faces) if photo.pick is None else photo.pick(result)
        if not chosen and photo.pick is not None:
            return photo.outcome(EnrollStatus.NO_FACE, f"no face found where {photo.person} is tagged")
        if not chosen and isinstance(rules.faces, int):
            return photo.outcome(EnrollStatus.NO_FACE, no_such_face(len(result.faces), rules.faces))
        if not chosen:
            reason = f"{len(result.faces)} faces, and none is clearly the person's: choose with --face NUMBER, --faces largest or all"
            return photo.outcome(EnrollStatus.AMBIGUOUS, reason)
        wrong = {
            row: found
            for row in chosen
            if not rules.accept_poor and (found := self._faults(item.image, result.faces[row]))
        }
        good = [row for row in chosen if row not in wrong]
        if not good:
            return photo.outcome(EnrollStatus.POOR, f"{'; '.join(wrong[chosen[0]])}: --accept-poor enrols it")
        faces = [
            NewFace(
                photo.person,
                result.embeddings.vectors[row],
                source=str(photo.path.absolute()) if photo.picture is None else None,
                content=item.content,
                ordinal=ordinal,
                face=result.faces[row],
                chip=cut_chip(item.image, result.faces[row]) if rules.keep_chips else None,
                expires=None if rules.retain is None else time.time() + rules.retain,
            )
            for ordinal, row in enumerate(good)
        ]
        return _Looked(photo, faces)

    def _faults(self, image: Image, face: Face) -> list[str]:
        """Return what is wrong with a face, by its figures and by looks at it turned by 90, 180 and 270 degrees.

        The detector takes a face on its side or head for an upright one, with landmarks in the wrong places, so its roll does not
        tell. Turned the right way it is surer of it: so 97 % of 202 such faces in the wild are found, and 1 of 237 upright ones.
        """
        found = faults(face)
        if not found:
            pixels = np.rot90(cut_out(image, face)[0], -face.turn // 90)
            turned = [Image(np.ascontiguousarray(np.rot90(pixels, turns))) for turns in (1, 2, 3)]
            others = (other for detected in self._describer.detector.detect(turned) for other in detected.faces)
            if any(other.score > face.score + _SURER for other in others if not other.turn):
                found = ["on its side or upside down: turn the photo"]
        return found

    def _settle(self, looked: Sequence[_Looked | EnrollOutcome]) -> Iterator[EnrollOutcome]:
        """Judge all faces of a run, enrol those that pass, and yield what became of each photo."""
        photos = [item for item in looked if isinstance(item, _Looked)]
        faces = [face for item in photos for face in item.faces]
        if not faces:
            yield from (item for item in looked if isinstance(item, EnrollOutcome))
            return
        snapshot = self._gallery.snapshot()
        mixed = self._several(snapshot, faces)
        judged = [face for face in faces if face.person not in mixed]
        vectors = np.array([face.vector for face in judged], np.float32).reshape(-1, snapshot.dim)
        limit, same = self._rules.lookalike, self._rules.duplicate_limit
        judge = Judge(snapshot, [face.person for face in judged], vectors, limit=limit, same=same)
        verdicts = judge.verdicts(force=self._rules.force)
        accepted = [face for face, verdict in zip(judged, verdicts, strict=True) if verdict.accepted]
        ids = dict(zip(map(id, accepted), self._gallery.add(accepted), strict=True))
        place = {id(face): number for number, face in enumerate(judged)}
        for item in looked:
            if isinstance(item, EnrollOutcome):
                yield item
            elif item.photo.person in mixed:
                yield replace(item.photo.outcome(EnrollStatus.MIXED, mixed[item.photo.person]), rotate=item.rotate)
            else:
                outcome = self._outcome(item, judged, verdicts, [place[id(face)] for face in item.faces], ids)
                yield replace(outcome, rotate=item.rotate)

    def _several(self, snapshot: GallerySnapshot, faces: Sequence[NewFace]) -> dict[str, str]:
        """Return the people whose photos are of several people, and what is said of each of these photos."""
        if self._rules.one_person is None or self._rules.force or self._rules.faces == "all":
            return {}
        vectors: dict[str, list[Float32]] = {}
        for face in faces:
            vectors.setdefault(face.person, []).append(face.vector)
        rows = {name: row for row, name in enumerate(snapshot.persons)}
        found = {}
        for person, mine in vectors.items():
            enrolled = snapshot.vectors[snapshot.faces_of(rows[person])] if person in rows else snapshot.vectors[:0]
            sizes = groups_of(np.concatenate([np.array(mine, np.float32), enrolled]), self._rules.one_person)
            if are_several(sizes):
                found[person] = (
                    f"the faces under {person} are of about {len(sizes)} people, the most frequent has {sizes[0]} of {sum(sizes)}: "
                    "put each person's photos into a folder of their own, or enrol them as one person with --force"
                )
        return found

    def _outcome(
        self,
        item: _Looked,
        faces: Sequence[NewFace],
        verdicts: Sequence[Verdict],
        mine: Sequence[int],
        ids: dict[int, int | None],
    ) -> EnrollOutcome:
        """Return what became of a photo. mine: the places of its faces. ids: of those that were enrolled, by identity."""
        photo, rules = item.photo, self._rules
        accepted = [number for number in mine if verdicts[number].accepted]
        stored = {number: face_id for number in accepted if (face_id := ids[id(faces[number])]) is not None}
        if not accepted:
            return self._refusal(photo, verdicts, mine[0], faces)
        status, reason = (EnrollStatus.ENROLLED if stored else EnrollStatus.ALREADY), ""
        for number, face_id in stored.items():
            nearest = verdicts[number].nearest
            if rules.unlike is not None and not rules.force and -1 < nearest < rules.unlike:
                status = EnrollStatus.DOUBTFUL
                reason = (
                    f"enrolled, but looks like none of {photo.person}'s other faces, {nearest:.2f}, at least {rules.unlike:.2f} "
                    f"expected: {gallery_command(self._gallery.folder, 'remove', photo.person, '--face', face_id)} takes it out"
                )
        return photo.outcome(status, reason, tuple(stored.values()))

    def _refusal(
        self, photo: Photo, verdicts: Sequence[Verdict], number: int, faces: Sequence[NewFace]
    ) -> EnrollOutcome:
        """Return why a face was not enrolled for this person: it is there already, or it is somebody else's."""
        verdict, limit = verdicts[number], self._rules.lookalike
        if verdict.copy_of is not None:
            if verdict.copy_of >= 0 and not verdicts[verdict.copy_of].accepted:
                return self._refusal(photo, verdicts, verdict.copy_of, faces)
            if verdict.copy_of >= 0 and faces[verdict.copy_of].content == faces[number].content:
                return photo.outcome(EnrollStatus.ALREADY)
            same = self._rules.duplicate_limit
            reason = f"nearly the same face is enrolled, {verdict.nearest:.2f}, the limit is {same:.2f}"
            return photo.outcome(EnrollStatus.DUPLICATE, reason)
        advice = f"the limit is {limit:.2f}: enrol anyway with --force"
        if verdict.refuted >= limit and verdict.refuted > max(verdict.own, verdict.other):
            reason = f"looks like a face that is not {photo.person}, {verdict.refuted:.2f}, {advice}"
            return photo.outcome(EnrollStatus.REFUTED, reason)
        return photo.outcome(EnrollStatus.LOOKALIKE, f"looks like {verdict.name}, {verdict.other:.2f}, {advice}")


def _runs(photos: Iterable[Photo]) -> Iterator[list[Photo]]:
    """Yield whole people's photos, as many together as are judged together."""
    run: list[Photo] = []
    for photo in photos:
        if len(run) >= RUN and photo.person != run[-1].person:
            yield run
            run = []
        run.append(photo)
    if run:
        yield run


def faults(face: Face) -> list[str]:
    """Return what is wrong with a face, each with its figure and the limit."""
    quality = face.quality
    limits = [
        (face.score < SURE_SCORE, f"doubtful: score {face.score:.2f}, at least {SURE_SCORE:.2f} wanted"),
        (quality.size < _SIZE, f"small: {floor(quality.size)} pixels, at least {_SIZE} wanted"),
        (
            quality.sharpness < _SHARPNESS,
            f"blurred: sharpness {floor(quality.sharpness)}, at least {_SHARPNESS} wanted",
        ),
        (abs(quality.yaw) > _YAW, f"turned: yaw {quality.yaw:.0f} degrees, at most {_YAW} wanted"),
        (abs(quality.pitch) > _PITCH, f"tilted: pitch {quality.pitch:.0f} degrees, at most {_PITCH} wanted"),
        (
            abs(face.lean) > MOST_LEAN,
            f"not upright: roll {quality.roll:.0f} degrees, at most {MOST_LEAN:.0f} wanted, turn the photo",
        ),
        (
            quality.usable is not None and quality.usable < _USABLE,
            f"hardly recognisable: quality {quality.usable or 0:.2f}, at least {_USABLE:.2f} wanted",
        ),
    ]
    return [text for failed, text in limits if failed]


def headroom(face: Face) -> dict[str, float]:
    """Return how far each figure of a face is from the limit of `faults`: 0 at it and beyond, 1 where more would hardly help."""
    quality = face.quality
    figures = {
        "score": (face.score - SURE_SCORE) / (1.0 - SURE_SCORE),
        "size": (quality.size - _SIZE) / (2.0 * _SIZE),
        "sharpness": (quality.sharpness - _SHARPNESS) / (5.0 * _SHARPNESS),
        "yaw": 1.0 - abs(quality.yaw) / _YAW,
        "pitch": 1.0 - abs(quality.pitch) / _PITCH,
        "roll": 1.0 - abs(face.lean) / MOST_LEAN,
    }
    if quality.usable is not None:
        figures["usable"] = (quality.usable - _USABLE) / (1.0 - _USABLE)
    return {name: float(min(1.0, max(0.0, value))) for name, value in figures.items()}


def enrolled_faces(gallery: GalleryStore, person: str, content: str) -> list[int]:
    """Return the ids of this person's faces that come from this very file. content: SHA-256 of its bytes, hex."""
    database = gallery.database
    with database.read() as connection:
        person_id = find_person(database, person)
        if person_id is None:
            return []
        key = database.codec.lookup_photo(content)
        rows = connection.execute("SELECT id FROM face WHERE content = ? AND person_id = ?", (key, person_id))
        return [row[0] for row in rows]
