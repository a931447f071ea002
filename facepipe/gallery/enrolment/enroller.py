"""The rules of enrolment: which face of a photo, whether it is good enough, and whether it can be this person.

    photos ──▶ read ──▶ faces and vectors ──▶ which face? good enough? new? this person? ──▶ gallery, one transaction

What was refused is reported with the figure and the limit, and stops nothing else. An outcome is yielded only when
what it says is on the disk.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from facepipe.detect.selection import FaceRule, choose_faces
from facepipe.embed.describer import Describer
from facepipe.errors import InputError
from facepipe.gallery.chips import cut_chip
from facepipe.gallery.enrolment.intake import GOOD, EnrollOutcome, EnrollStatus, Photo
from facepipe.gallery.enrolment.likeness import Known, Likeness
from facepipe.gallery.people import find_person
from facepipe.gallery.privacy.erasing import finish_scrub, forget_expired
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import content_hash, read_bytes, read_image_bytes
from facepipe.images.inputs import as_image
from facepipe.text import printable
from facepipe.types import SURE_SCORE, Described, Face, Image

#: Photos that are read, embedded and committed together.
BATCH = 32
#: What a face must have to be enrolled: pixels of the shorter side, sharpness (see `Quality`), degrees away from frontal.
#: Roll does no harm: alignment takes it out.
_SIZE, _SHARPNESS, _YAW, _PITCH = 40, 20, 60, 45


@dataclass(frozen=True, slots=True)
class EnrollRules:
    """How to enrol.

    lookalike: cosine from which on two people are confused: the model's threshold.
    unlike: cosine below which a face is enrolled as doubtful when none of its person's others is nearer; None: never.
    force: enrol what looks like somebody else or was refuted, and call nothing doubtful.
    accept_poor: enrol what has `faults`.
    retain: seconds until a face expires.
    keep_chips: store the piece of photo around the face.
    max_side: a larger photo is read reduced.
    """

    lookalike: float
    unlike: float | None = None
    faces: FaceRule = "clear"
    accept_poor: bool = False
    force: bool = False
    keep_chips: bool = False
    retain: float | None = None
    max_side: int | None = None

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


#: A face that will be enrolled, and its cosine with the nearest of its person's other faces, -1 without any.
_Accepted = tuple[NewFace, float]


class Enroller:
    """Enrols photos into a gallery, batch by batch."""

    def __init__(self, gallery: GalleryStore, describer: Describer, rules: EnrollRules) -> None:
        self._gallery = gallery
        self._describer = describer
        self._rules = rules

    def run(self, photos: Iterable[Photo]) -> Iterator[EnrollOutcome]:
        """Yield an outcome for each photo, in order, once it is durable. GalleryError when the gallery cannot take it."""
        finish_scrub(self._gallery.database)
        forget_expired(self._gallery.database)
        source = iter(photos)
        while batch := list(islice(source, BATCH)):
            yield from self._batch(batch)

    def _batch(self, photos: Sequence[Photo]) -> list[EnrollOutcome]:
        outcomes: dict[int, EnrollOutcome] = {}
        pending: dict[int, _Pending] = {}
        twins: dict[int, int] = {}
        seen: dict[tuple[str, str], int] = {}
        for number, photo in enumerate(photos):
            read = self._read(photo)
            if isinstance(read, EnrollOutcome):
                outcomes[number] = read
            elif (first := seen.setdefault((read.content, photo.person), number)) != number:
                twins[number] = first
            else:
                pending[number] = read
        described = self._describer.describe([item.image for item in pending.values()]) if pending else []
        known = Known(self._gallery.snapshot())
        accepted: list[tuple[int, _Accepted]] = []
        for (number, item), result in zip(pending.items(), described, strict=True):
            self._gallery.require_model(result.embeddings.fingerprint)
            verdict = self._judge(item, result, known)
            if isinstance(verdict, EnrollOutcome):
                outcomes[number] = verdict
            else:
                accepted += [(number, face) for face in verdict]
        ids = self._gallery.add([face for _, (face, _) in accepted])
        for number in dict.fromkeys(number for number, _ in accepted):
            mine = {
                face_id: nearest
                for (n, (_, nearest)), face_id in zip(accepted, ids, strict=True)
                if n == number and face_id is not None
            }
            outcomes[number] = self._enrolled(photos[number], mine)
        for number, first in twins.items():
            outcomes[number] = _as_twin(photos[number], outcomes[first])
        return [outcomes[number] for number in range(len(photos))]

    def _enrolled(self, photo: Photo, faces: dict[int, float]) -> EnrollOutcome:
        """Return the outcome of a photo whose faces are in the gallery; none are when another process was first.

        faces: id -> cosine with the nearest of its person's other faces, -1 without any.
        """
        status = EnrollStatus.ENROLLED if faces else EnrollStatus.ALREADY
        reason = ""
        limit = None if self._rules.force else self._rules.unlike
        for face_id, nearest in faces.items():
            if limit is not None and -1 < nearest < limit:
                status = EnrollStatus.DOUBTFUL
                reason = (
                    f"enrolled, but looks like none of {photo.person}'s other faces, {nearest:.2f}, at least {limit:.2f} "
                    f"expected: facepipe gallery audit compares them, facepipe gallery remove {shlex.quote(photo.person)} "
                    f"--face {face_id} takes it out"
                )
        return photo.outcome(status, reason, tuple(faces))

    def _read(self, photo: Photo) -> EnrollOutcome | _Pending:
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
                image = read_image_bytes(data, str(photo.path), max_side=self._rules.max_side)
        except InputError as error:
            # The path stands beside the reason anyway.
            return photo.outcome(EnrollStatus.UNREADABLE, str(error).removeprefix(f"{printable(photo.path)}: "))
        return _Pending(photo, content, image)

    def _judge(self, item: _Pending, result: Described, known: Known) -> EnrollOutcome | list[_Accepted]:
        """Return the faces to be enrolled, or why there are none."""
        rules, photo = self._rules, item.photo
        if not result.faces:
            return photo.outcome(EnrollStatus.NO_FACE, "no face found")
        chosen = choose_faces(result.faces, rules.faces)
        if not chosen:
            reason = f"{len(result.faces)} faces, and none is clearly the person's: choose with --faces largest or all"
            return photo.outcome(EnrollStatus.AMBIGUOUS, reason)
        found: list[_Accepted] = []
        refusals: list[EnrollOutcome] = []
        for row in chosen:
            face, vector = result.faces[row], result.embeddings.vectors[row]
            if not rules.accept_poor and (wrong := faults(face)):
                refusals.append(photo.outcome(EnrollStatus.POOR, f"{'; '.join(wrong)}: --accept-poor enrols it"))
                continue
            likeness = known.likeness(photo.person, vector)
            refusal = self._compare(photo, likeness)
            if refusal is not None:
                refusals.append(refusal)
                continue
            known.accept(photo.person, vector)
            new = NewFace(
                photo.person,
                vector,
                source=str(photo.path.absolute()) if photo.picture is None else None,
                content=item.content,
                ordinal=len(found),
                face=face,
                chip=cut_chip(item.image, face) if rules.keep_chips else None,
                expires=None if rules.retain is None else time.time() + rules.retain,
            )
            found.append((new, likeness.nearest_own))
        return found or refusals[0]

    def _compare(self, photo: Photo, likeness: Likeness) -> EnrollOutcome | None:
        """Return why a face should not be enrolled for this person: it is there already, or it is somebody else's."""
        same, limit = self._rules.duplicate_limit, self._rules.lookalike
        if likeness.nearest_own >= same:
            reason = f"nearly the same face is enrolled, {likeness.nearest_own:.2f}, the limit is {same:.2f}"
            return photo.outcome(EnrollStatus.DUPLICATE, reason)
        if self._rules.force:
            return None
        advice = f"the limit is {limit:.2f}: enrol anyway with --force"
        if likeness.refuted >= limit and likeness.refuted > likeness.own:
            reason = f"looks like a face that is not {photo.person}, {likeness.refuted:.2f}, {advice}"
            return photo.outcome(EnrollStatus.REFUTED, reason)
        if likeness.other >= limit and likeness.other > likeness.own:
            return photo.outcome(EnrollStatus.LOOKALIKE, f"looks like {likeness.name}, {likeness.other:.2f}, {advice}")
        return None


def faults(face: Face) -> list[str]:
    """Return what is wrong with a face, each with its figure and the limit."""
    quality = face.quality
    limits = [
        (face.score < SURE_SCORE, f"doubtful: score {face.score:.2f}, at least {SURE_SCORE:.2f} wanted"),
        (quality.size < _SIZE, f"small: {quality.size:.0f} pixels, at least {_SIZE} wanted"),
        (quality.sharpness < _SHARPNESS, f"blurred: sharpness {quality.sharpness:.0f}, at least {_SHARPNESS} wanted"),
        (abs(quality.yaw) > _YAW, f"turned: yaw {quality.yaw:.0f} degrees, at most {_YAW} wanted"),
        (abs(quality.pitch) > _PITCH, f"tilted: pitch {quality.pitch:.0f} degrees, at most {_PITCH} wanted"),
    ]
    return [text for failed, text in limits if failed]


def enrolled_faces(gallery: GalleryStore, person: str, content: str) -> list[int]:
    """Return the ids of this person's faces that come from this very file. content: SHA-256 of its bytes, hex."""
    database = gallery.database
    with database.read() as connection:
        person_id = find_person(database, person)
        if person_id is None:
            return []
        key = database.codec.lookup(bytes.fromhex(content)[:16])
        rows = connection.execute("SELECT id FROM face WHERE content = ? AND person_id = ?", (key, person_id))
        return [row[0] for row in rows]


def _as_twin(photo: Photo, first: EnrollOutcome) -> EnrollOutcome:
    """Return what became of a photo that has the same bytes as an earlier one of the batch."""
    if first.status in GOOD:
        return photo.outcome(EnrollStatus.ALREADY)
    return photo.outcome(first.status, first.reason)
