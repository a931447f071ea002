"""The groups of a pile: `facepipe.Groups`, from faces that nobody is named in to people with names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Self

from facepipe.gallery.store import GalleryStore
from facepipe.groups.values import Answer, FaceKey, Group, Grouped, GroupFace, PersonFace, Suggested


class Groups:
    """Groups of the faces of a catalog, and what the user said of them; in the file NAME.groups beside it.

    Every answer is on the disk when its call returns. Several processes may have it open; one object belongs to one thread.
    """

    def __init__(
        self,
        catalog: str | PathLike[str],
        gallery: str | PathLike[str] | GalleryStore | None = None,
        *,
        model: str | None = None,
    ) -> None:
        """Open the groups of a catalog, which may be being scanned. gallery: whose people are suggested, and where names go."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def version(self) -> int:
        """Grows with every answer and every refresh that changed something, by any process."""
        raise NotImplementedError

    def refresh(self, *, all: bool = False, threshold: float | None = None) -> Grouped:
        """Group what is new in the catalog; names and decisions stay. all: faces that are known already as well."""
        raise NotImplementedError

    def table(self, *, state: str | None = "open") -> list[Group]:
        """Return the groups, new ones first, then by size. state: `open`, `named`, `ignored`, `skipped`; None: all."""
        raise NotImplementedError

    def group(self, id: int) -> Group:
        """Return one group. Errors: UsageError when there is none of this number."""
        raise NotImplementedError

    def faces(self, id: int, start: int = 0, count: int | None = None) -> list[GroupFace]:
        """Return a group's faces, surest first, those that were put out of it last."""
        raise NotImplementedError

    def thumbnail(self, key: FaceKey) -> bytes | None:
        """Return a face as JPEG, None when its photo is gone and no thumbnail was kept."""
        raise NotImplementedError

    def name(self, id: int, person: str, *, most: int = 20) -> int:
        """Say who a group is; return the answer's number. most: so many of its best and most different faces are enrolled at most."""
        raise NotImplementedError

    def put_out(self, id: int, keys: Sequence[FaceKey]) -> int:
        """Say that faces do not belong to a group; they never come back to it."""
        raise NotImplementedError

    def join(self, ids: Sequence[int]) -> int:
        """Say that groups are one person; the first one's number stays."""
        raise NotImplementedError

    def apart(self, a: int, b: int) -> int:
        """Say that two groups are two people: they are never joined, nor offered as alike."""
        raise NotImplementedError

    def ignore(self, id: int) -> int:
        """Say that a group is nobody who is needed."""
        raise NotImplementedError

    def skip(self, id: int) -> int:
        """Put a group off until it grows."""
        raise NotImplementedError

    def confirm(self, keys: Sequence[FaceKey], person: str, *, enroll: bool = False) -> int:
        """Say that faces are this person. enroll: put them into the gallery as well."""
        raise NotImplementedError

    def deny(self, keys: Sequence[FaceKey], person: str) -> int:
        """Say that faces are not this person; the gallery heeds it as well."""
        raise NotImplementedError

    def suggestions(self, start: int = 0, count: int = 50) -> list[Suggested]:
        """Return faces that are probably a known person's, the surest first."""
        raise NotImplementedError

    def person(self, name: str) -> list[PersonFace]:
        """Return all faces that are this person's, enrolled, confirmed or recognised: doubtful ones first."""
        raise NotImplementedError

    def undo(self, answer: int | None = None) -> str:
        """Take back an answer, the last by default, in the gallery too; return what was taken back. An undo can be undone."""
        raise NotImplementedError

    def answers(self, count: int = 50) -> list[Answer]:
        """Return what was answered, newest first."""
        raise NotImplementedError

    def find(
        self,
        *,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        unknown: bool = False,
        group: int | None = None,
    ) -> Iterator[str]:
        """Yield the paths of photos with all of these people, and none of those; see `facepipe find`."""
        raise NotImplementedError
