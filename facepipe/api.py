"""The gallery that a Python user sees: it enrols photos, calibrates, and notes who somebody is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from facepipe.detect.selection import FaceChoice, require_faces
from facepipe.errors import UsageError
from facepipe.gallery import store
from facepipe.gallery.care.anchors import add_anchor
from facepipe.gallery.enrolment.enroller import Enroller, EnrollRules, enrolled_faces
from facepipe.gallery.enrolment.intake import EnrollOutcome, Photo, collect_photos
from facepipe.gallery.enrolment.tagged import tagged_photos
from facepipe.gallery.people import require_person
from facepipe.images import content_hash, read_bytes, read_image_bytes
from facepipe.images.inputs import Source, is_one
from facepipe.loading import detect_options, enroll_limits, find_record, load_describer, record_of
from facepipe.predict.policy import limits_for, policy_for
from facepipe.single import describer_for, embed_photos
from facepipe.types import Detector, Embedder, Sampling

if TYPE_CHECKING:
    from facepipe.evaluate.calibration import Calibration
    from facepipe.evaluate.measure import Embed
    from facepipe.gallery.care.audit import AuditReport
    from facepipe.gallery.care.reembed import ReembedReport


@dataclass(frozen=True, slots=True)
class Refuted:
    """A photo whose face is not somebody. fresh: not noted before. enrolled: ids of that person's faces that come from this photo."""

    path: str
    fresh: bool
    enrolled: tuple[int, ...]


class Gallery(store.GalleryStore):
    """People and their faces in a folder, opened, or made with the first face that is enrolled.

    `Gallery(folder, *, model=None, secret=None)`: see `facepipe.gallery.store.GalleryStore`.
    """

    def enroll(
        self,
        photos: Source | Iterable[Source | Photo],
        *,
        name: str | None = None,
        faces: FaceChoice = "clear",
        accept_poor: bool = False,
        force: bool = False,
        keep_chips: bool = False,
        retain: float | None = None,
        device: str = "auto",
        min_face: float = 40,
        min_score: float = 0.4,
        max_side: int | None = 1280,
        second_chance: bool = True,
        every_seconds: float = 1.0,
        keyframes: bool = False,
        quick: bool = False,
        detector: Detector | None = None,
        embedder: Embedder | None = None,
        threshold: float | None = None,
        from_regions: bool = False,
        progress: Callable[[int], object] = lambda count: None,
    ) -> Iterator[EnrollOutcome]:
        """Put people into the gallery; yield what became of each photo once that is on the disk. Draw all to enrol all.

        The photos are judged together, so nothing is written before the last was looked at (of 20,000, in a larger enrolment).

        photos: without `name` a folder of folders named like people, a folder of one person's photos, a CSV file of path,name,
        or several of these; with `name` that person's photos and videos, as files, folders, bytes, PIL images or NumPy arrays.
        faces: which face of a photo with several; clear: one must be far larger than the others; largest, only, all, its number.
        accept_poor: enrol faces that are small, blurred or turned away, too.
        force: enrol a face even if it looks like somebody else, or unlike its person's others.
        keep_chips: store a small picture of each face: needed by `reembed` and audit pages.
        retain: seconds until the faces expire; None: never.
        device, min_face, min_score, max_side, second_chance, every_seconds, keyframes, quick, detector, embedder: see
        `facepipe.Recognizer`. Of a video up to five frames of the one person in it are enrolled, the best and most different ones.
        threshold: cosine, -1..1, from which on two people are confused; None: that of the model's record.
        from_regions: `photos` are photos, and folders of them, in which another program tagged people: each tagged face is enrolled
        under the name that it has there.
        progress: told how many more photos were looked at.
        Errors: at the call for what cannot be enrolled at all (UsageError, InputError, GalleryError, ModelError); a single photo
        that cannot be used is an outcome whose status and reason say so.
        """
        collected, astray = _photos_of(photos, name, from_regions)
        if self.exists:
            self.database.require_writable()
        else:
            store.require_place(self.folder)
        lookalike, same = enroll_limits(self, embedder, threshold, (photo.person for photo in collected))
        rules = EnrollRules(
            lookalike,
            same,
            faces=faces,
            accept_poor=accept_poor,
            force=force,
            keep_chips=keep_chips,
            retain=retain,
            max_side=max_side or None,
        )
        options = detect_options(min_face, min_score, max_side, second_chance)
        model = "" if embedder is not None else record_of(self).name
        describer = load_describer(model, device, options, quick=quick, detector=detector, embedder=embedder)
        describer.sampling = Sampling(every_seconds, keyframes)
        return chain(astray, Enroller(self, describer, rules).run(collected, progress))

    def calibrate(
        self,
        strangers: Iterable[str | PathLike[str]] = (),
        *,
        fpir: float = 0.01,
        confidence: float = 0.95,
        strict: bool = False,
        enrolled: bool = True,
        known_share: float = 0.5,
        margin: float | None = None,
        keep: bool = True,
        embed: Embed | None = None,
    ) -> Calibration:
        """Choose the threshold for a wanted false positive rate at this gallery's size; it holds from then on.

        strangers: folders with photos of people who are not in the gallery, a folder or a photo each.
        fpir: wanted share of strangers' faces that get a name, between 0 and 1.
        confidence: of the upper bound that is stated, 0.5 to below 1. strict: let the bound stay within `fpir`, not only the
        expected rate.
        enrolled: let enrolled people count as each other's impostors.
        known_share: share of faces to come that are of enrolled people, above 0 and at most 1, for probabilities.
        margin: cosine, 0..2, by which the best person must lead; None: that of the model's record.
        keep: store it in the gallery. embed: embeds the strangers' photos; None: `embed_photos`.
        Errors: UsageError when so few people cannot support the rate, with the number needed; InputError, GalleryError.
        """
        from facepipe.evaluate.calibration import calibrate_gallery
        from facepipe.evaluate.labelled import faces_of
        from facepipe.evaluate.splits import read_strangers

        snapshot = self.snapshot()
        record = find_record(self)
        parts = []
        for folder in strangers:
            people = read_strangers(Path(folder))
            paths = people.all_photos
            photos = embed(paths) if embed else embed_photos(paths, model=record_of(self).name)
            parts.append((str(folder), photos.vectors[photos.found], faces_of(people, photos).owner[photos.found]))
        usual, threshold = (0.0, None) if record is None else limits_for(record, len(snapshot.persons), fpir)
        found = calibrate_gallery(
            snapshot.fingerprint,
            snapshot.persons,
            snapshot.vectors,
            snapshot.owners,
            parts,
            usual if margin is None else margin,
            fpir,
            confidence,
            strict,
            enrolled,
            known_share,
            threshold,
        )
        if keep:
            self.set_calibration(found.as_dict())
        return found

    def audit(
        self,
        *,
        threshold: float | None = None,
        correct: Sequence[int] = (),
        page: str | PathLike[str] | None = None,
        tell: Callable[[str], object] = lambda line: None,
    ) -> AuditReport:
        """Look for doubtful faces, mixed-up labels, people who look alike, and people with too few photos.

        threshold: cosine, -1..1, from which on two faces are taken for one person; None: that of the model's record.
        correct: ids of faces that are their person's, now and in later audits.
        page: HTML file to write, with the faces: for its owner alone.
        tell: is given what there is to say about the index.
        Errors: UsageError when no threshold is known or there is no such face, GalleryError, OutputError.
        """
        from facepipe.gallery.care import audit

        if correct:
            audit.keep(self.database, correct)
        if threshold is None:
            record = find_record(self)
            if record is None:
                raise UsageError(f"no threshold is known for the model {self.fingerprint}: give --threshold")
            threshold = policy_for(record, 1).threshold
        snapshot = self.snapshot()
        report = audit.audit(snapshot, threshold, self.index(snapshot, tell))
        report = audit.without_kept(report, self.database, snapshot)
        if page is not None:
            from facepipe.gallery.care.audit_page import write_page

            write_page(Path(page), self.database, snapshot, report)
        return report

    def reembed(
        self,
        model: str,
        *,
        device: str = "auto",
        drop_missing: bool = False,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> ReembedReport | None:
        """Move the gallery to another embedder: every face is embedded again, from its chip or its photo.

        Return None when it is that embedder's already. It may be interrupted and called again. progress: told how many of how many
        faces are done. drop_missing: drop faces whose chip and photo are both lost. Errors: GalleryError, ModelError, DeviceError.
        """
        from facepipe.embed.embedder import load_embedder
        from facepipe.gallery.care.reembed import reembed

        embedder = load_embedder(model, device)
        if embedder.fingerprint == self.fingerprint:
            return None
        return reembed(self.database, embedder, drop_missing=drop_missing, progress=progress)

    def refute(
        self,
        person: str,
        photo: str | PathLike[str],
        *,
        faces: FaceChoice = "clear",
        device: str = "auto",
        min_face: float = 40,
        min_score: float = 0.4,
        max_side: int | None = 1280,
        second_chance: bool = True,
        quick: bool = False,
    ) -> Refuted:
        """Note that the face in a photo is not this person: a face more like it than like the person does not get the name.

        faces: which face of a photo with several: clear, largest, only, or its number. Everything else: see `facepipe.Recognizer`.
        Errors: UsageError when nobody of this name is enrolled, InputError, NoFaceError, AmbiguousFaceError, GalleryError.
        """
        require_person(self.database, person)
        self.database.require_writable()
        name, data = read_bytes(photo)
        describer = describer_for(record_of(self).name, device, min_face, min_score, max_side, second_chance, quick)
        found = describer.describe([read_image_bytes(data, name, max_side=max_side or None)])[0]
        (place,) = require_faces(found.faces, faces, name)
        content = content_hash(data)
        fresh = add_anchor(
            self,
            person,
            found.embeddings.vectors[place],
            found.faces[place],
            str(Path(name).absolute()),
            content,
        )
        return Refuted(name, fresh, tuple(enrolled_faces(self, person, content)))


def _photos_of(
    photos: Source | Iterable[Source | Photo], name: str | None, from_regions: bool
) -> tuple[Sequence[Photo], list[EnrollOutcome]]:
    """Return what is to be enrolled, and what cannot be."""
    many = [photos] if is_one(photos) else list(photos)  # type: ignore[arg-type]
    if from_regions:
        if name is not None or not all(isinstance(photo, (str, PathLike)) for photo in many):
            raise UsageError("enroll: from_regions takes photos and folders, whose tags have the names; leave name out")
        return tagged_photos([Path(photo) for photo in many])  # type: ignore[arg-type]
    if all(isinstance(photo, Photo) for photo in many):
        return many, []  # type: ignore[return-value]
    if all(isinstance(photo, (str, PathLike)) for photo in many):
        return collect_photos([Path(photo) for photo in many], name)  # type: ignore[arg-type]
    if name is None:
        raise UsageError("enroll: whose faces are these? Pictures in memory have no folder's name; give name=")
    return [Photo(Path(f"<{name} {number}>"), name, photo) for number, photo in enumerate(many, 1)], []  # type: ignore[arg-type]
