"""The gallery: people and their faces on disk.

with GalleryStore("gallery") as gallery:
    gallery.add([NewFace("Ann", vector)])
    snapshot = gallery.snapshot()
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from facepipe.errors import GalleryAccessError, GalleryExistsError, GalleryMissingError, GalleryModelError
from facepipe.gallery import people
from facepipe.gallery.arrays.index_file import load_index
from facepipe.gallery.arrays.own_photos import load_own_trials
from facepipe.gallery.arrays.snapshot import GallerySnapshot, load_snapshot
from facepipe.gallery.chips import StoredChip
from facepipe.gallery.names import gallery_command
from facepipe.gallery.storage.checksums import vector_checksum
from facepipe.gallery.storage.codec import Secret
from facepipe.gallery.storage.database import Database
from facepipe.gallery.storage.disk import DATABASE_NAME
from facepipe.gallery.storage.soundness import is_sound_setting
from facepipe.models.registry import DEFAULT_EMBEDDER, get_record, records
from facepipe.predict.population import OwnTrials
from facepipe.types import UNIT_TOLERANCE, Embedder, Face, Float32, Index


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A face to be enrolled.

    person: name.
    vector: float32 (d,), unit.
    source: path of the photo.
    content: SHA-256 of the photo's bytes, hex; the same photo is enrolled once for a person.
    ordinal: which face of the photo.
    expires, enrolled: seconds since 1970; enrolled None is now.
    """

    person: str
    vector: Float32
    source: str | None = None
    content: str | None = None
    ordinal: int = 0
    face: Face | None = None
    chip: StoredChip | None = None
    expires: float | None = None
    enrolled: float | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or self.vector.dtype != np.float32:
            raise ValueError(f"NewFace.vector: expected float32 (d,), got {self.vector.dtype} {self.vector.shape}")
        length = float(np.linalg.norm(self.vector))
        if not abs(length - 1.0) <= UNIT_TOLERANCE:
            raise ValueError(f"NewFace.vector: expected unit length, got {length:.4f}")


class GalleryStore:
    """People and their faces in a folder. Several processes may have it open; each write is one transaction."""

    def __init__(
        self, folder: str | os.PathLike[str], *, model: str | Embedder | None = None, secret: Secret | None = None
    ) -> None:
        """Open the gallery in `folder`, or one that appears there with its first face.

        model: the embedder whose vectors a new gallery holds, by name or itself; None: mini. An existing gallery has its own.
        secret: opens a sealed gallery, or seals a new one; None: that of FACEPIPE_KEY_FILE or FACEPIPE_PASSPHRASE, if set.
        Errors: GalleryError, WrongKeyError; GalleryModelError when a gallery is there and was made with another model; ModelError.
        """
        chosen = get_record(model or DEFAULT_EMBEDDER) if model is None or isinstance(model, str) else model
        self._future: tuple[Path, Secret | None] | None = None  # where it will be, while an empty one stands for it
        try:
            self.database = Database.open(Path(folder), secret)
        except GalleryMissingError:
            scratch = tempfile.TemporaryDirectory(prefix="facepipe-")
            self.database = Database.create(Path(scratch.name), chosen.fingerprint, chosen.dim or 0)
            self.database.scratch = scratch
            self._future = Path(folder), secret or Secret.from_environment()
        else:
            if model is not None:
                self.require_model(chosen.fingerprint)

    @classmethod
    def _over(cls, database: Database) -> Self:
        made = cls.__new__(cls)
        made.database, made._future = database, None
        return made

    @classmethod
    def create(cls, folder: Path, fingerprint: str, dim: int, secret: Secret | None = None) -> Self:
        """Make an empty gallery in `folder`; see `Database.create`."""
        return cls._over(Database.create(Path(folder), fingerprint, dim, secret))

    @classmethod
    def create_or_open(cls, folder: Path, fingerprint: str, dim: int, secret: Secret | None = None) -> Self:
        """Make a gallery, or open the one that another process has just made there, perhaps for another embedder.

        InputError when it would be sealed with a short passphrase.
        """
        if secret is not None and not os.path.lexists(folder / DATABASE_NAME):
            secret.require_strong()
        try:
            return cls.create(folder, fingerprint, dim, secret)
        except GalleryExistsError:
            return cls.open(folder, secret)

    @classmethod
    def open(cls, folder: Path, secret: Secret | None = None) -> Self:
        """Open the gallery in `folder`; see `Database.open`. Errors: GalleryMissingError when there is none."""
        return cls._over(Database.open(Path(folder), secret))

    def _appear(self, folder: Path, secret: Secret | None) -> None:
        fingerprint = self.fingerprint
        made = GalleryStore.create_or_open(folder, fingerprint, self.dim, secret)
        self.database.close()
        self.database, self._future = made.database, None
        self.require_model(fingerprint)  # another process may have made it meanwhile

    def close(self) -> None:
        """Close it. What was added stays; a gallery to which nothing was added leaves nothing behind."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                with self.database.blamed():
                    raise error
        finally:
            self.close()

    @property
    def folder(self) -> Path:
        """Where it lies, or will."""
        return self.database.folder if self._future is None else self._future[0]

    @property
    def exists(self) -> bool:
        """Whether it is there; one to be made appears with its first faces."""
        return self._future is None

    @property
    def fingerprint(self) -> str:
        """Of the embedder whose vectors it holds."""
        return self.database.fingerprint

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.database.dim

    def generation(self) -> int:
        """Return the number of the last write; a snapshot of a lower one is out of date. Cheap."""
        return self.database.generation()

    def require_model(self, fingerprint: str) -> None:
        """GalleryModelError when the gallery holds vectors of another embedder."""
        if fingerprint == self.fingerprint:
            return
        self.require_present_model()
        raise GalleryModelError(
            f"{self.folder}: made by the embedder {self.fingerprint}, not {fingerprint}: choose the gallery's own "
            "with --model, or move it over with facepipe gallery reembed"
        )

    def require_present_model(self) -> None:
        """GalleryModelError when the gallery was made by earlier weights of a model that is known by the same name."""
        name = self.fingerprint.rpartition("-")[0]
        for record in records():
            if record.name == name and record.kind == "embedder" and record.fingerprint != self.fingerprint:
                raise GalleryModelError(
                    f"{self.folder}: made by an earlier {name} ({self.fingerprint}), whose vectors do not compare with those of the "
                    f"present one: {gallery_command(self.folder, 'reembed', '--model', name)} moves it"
                )

    def snapshot(self, *, cache: bool = True) -> GallerySnapshot:
        """Return the gallery as arrays, as of now; faces that have expired are not in it.

        cache: a large gallery's derived file of vectors is written again, when it is missing, damaged or far behind.
        """
        return load_snapshot(self.database, cache=cache)

    def index(self, snapshot: GallerySnapshot, tell: Callable[[str], object] | None = None) -> Index:
        """Return the index over a snapshot's templates that searches of this gallery use; see `index.load_index`."""
        return load_index(self.database, snapshot, tell)

    def own_trials(self, snapshot: GallerySnapshot) -> OwnTrials | None:
        """Return what searching the gallery with its own photos gives, None where they say nothing; see `predict.population`."""
        return load_own_trials(self.database, snapshot)

    def add(self, faces: Sequence[NewFace], action: str = "enroll") -> list[int | None]:
        """Enrol faces in one transaction, durable on return; return their ids, None for a photo enrolled before.

        A gallery that was not there appears. GalleryError (disk full, damaged), GalleryLockedError, ValueError for another dimension.
        """
        if not faces:
            return []
        if self._future is not None:
            self._appear(*self._future)
        dim = self.dim
        for face in faces:
            if face.vector.shape != (dim,):
                raise ValueError(f"NewFace.vector: expected ({dim},), got {face.vector.shape}")
        database = self.database
        with database.write(action) as generation:
            persons = {
                name: people.ensure_person(database, name, generation)
                for name in dict.fromkeys(f.person for f in faces)
            }
            ids = [self._insert(face, persons[face.person], generation) for face in faces]
            added = Counter(persons[f.person] for f, i in zip(faces, ids, strict=True) if i is not None)
            people.touch(database, list(added), generation)
            for person_id, count in added.items():
                database.log(action, person_id, faces=count)
        return ids

    def _insert(self, new: NewFace, person_id: int, generation: int) -> int | None:
        database, codec = self.database, self.database.codec
        face_id = database.insert(
            "face",
            person_id=person_id,
            content=None if new.content is None else codec.lookup_photo(new.content),
            ordinal=new.ordinal,
            enrolled=time.time() if new.enrolled is None else float(new.enrolled),
            expires=None if new.expires is None else float(new.expires),
            changed=generation,
            **({} if new.face is None else _columns(new.face)),
        )
        if face_id is None:
            return None
        people.set_source(database, new.source, face_id, person_id)
        database.put_vector(face_id, person_id, new.vector.tobytes())
        if new.chip is not None:
            chip = codec.seal(new.chip.data, "chip.data", face_id, person_id)
            place = {"x": new.chip.x, "y": new.chip.y, "scale": new.chip.scale}
            database.insert("chip", face_id=face_id, data=chip, crc=vector_checksum(face_id, chip), **place)
        return face_id

    def calibration(self) -> dict[str, Any] | None:
        """Return the calibration that was measured on this gallery, None when there is none."""
        text = self.database.get_meta("calibration")
        return None if text is None else dict(json.loads(text))

    def set_calibration(self, calibration: dict[str, Any] | None) -> None:
        """Store a calibration, as `Calibration.as_dict` gives it, or remove it with None. ValueError for anything else."""
        text = None if calibration is None else json.dumps(calibration, sort_keys=True)
        if text is not None and not is_sound_setting("calibration", text):
            raise ValueError("calibration: expected what facepipe.evaluate.calibration measures, as_dict()")
        with self.database.write("calibrate"):
            self.database.set_meta("calibration", text)
            self.database.log("calibrate")


def _columns(face: Face) -> dict[str, Any]:
    corners = zip(("x1", "y1", "x2", "y2"), face.box, strict=True)
    figures = asdict(face.quality)
    del figures["usable"]  # it is the network's, and another one may come
    numbers = {**dict(corners), "score": face.score, **figures}
    return {"landmarks": face.landmarks.tobytes(), **{name: float(number) for name, number in numbers.items()}}


def require_place(folder: Path) -> None:
    """GalleryAccessError when no gallery can be made in `folder`; asked before long work that ends with making it."""
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise GalleryAccessError(f"{folder}: a gallery cannot be made here: {place} is not a folder; give --gallery")
    if not os.access(place, os.W_OK | os.X_OK):
        raise GalleryAccessError(f"{folder}: a gallery cannot be made here: {place} is read-only; give --gallery")
