"""Photos that another program tagged: who is in them, and which of the faces that are found is whose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from facepipe.errors import InputError, UsageError
from facepipe.gallery.enrolment.intake import EnrollOutcome, EnrollStatus, Photo
from facepipe.gallery.names import new_name
from facepipe.images import Passing, find_images, is_output
from facepipe.regions.tags import Tags, read_tags
from facepipe.text import plural, printable, without_path
from facepipe.types import Described


def tagged_photos(
    roots: Sequence[Path], passing: Passing | None = None, progress: Callable[[int], object] = lambda count: None
) -> tuple[list[Photo], list[EnrollOutcome]]:
    """Return a photo for each person whom another program tagged in one, and what could not be read or is no name.

    roots: photos, and folders, searched recursively; regions stand in the photos or in sidecars beside them. passing: what is passed
    over; it counts it. progress: told how many more photos were looked at. What facepipe wrote itself is no proof of who somebody is.
    InputError when nobody is tagged anywhere.
    """
    passing = passing or Passing()
    photos: list[Photo] = []
    astray: list[EnrollOutcome] = []
    looked = 0

    def fail(path: str, reason: str, status: EnrollStatus = EnrollStatus.UNREADABLE) -> None:
        astray.append(EnrollOutcome(path, "", status, without_path(reason, path)))

    for root in roots:
        failed: list[InputError] = []
        for path in find_images([root], on_error=failed.append, skip=is_output, rules=passing.rules(str(root))):
            looked += 1
            progress(1)
            try:
                tags = read_tags(path)
            except InputError as error:
                fail(str(path), str(error))
                continue
            for file, reason in tags.problems:
                fail(file, reason)
            for name in dict.fromkeys(region.name for region in tags.regions if region.name and not region.own):
                try:
                    photos.append(Photo(path, new_name(name), pick=partial(_faces_of, tags, name)))
                except UsageError as error:
                    fail(str(path), f"{error}: rename the person where the photo was tagged", EnrollStatus.NO_NAME)
        for problem in failed:
            where, _, reason = str(problem).partition(": ")
            fail(where, reason)
    if not photos and len(astray) == 1:
        raise InputError(f"{printable(astray[0].path)}: {astray[0].reason}")
    if not photos and not astray:
        raise InputError(
            f"{', '.join(printable(root) for root in roots)}: nobody is tagged in {plural(looked, 'photo')}; let the other program "
            "write face regions into the photos, or into .xmp files beside them"
        )
    return photos, astray


def _faces_of(tags: Tags, name: str, photo: Described) -> list[int]:
    """Return which faces of a photo lie where this name is tagged."""
    width, height = photo.size
    boxes = [tuple(face.box / (width, height, width, height)) for face in photo.faces]
    return [face for tag, face in tags.matched(boxes) if tag.name == name and not tag.region.own and face is not None]
