"""What a batch makes of photos besides its results: annotated copies, crops of faces, folders by person."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from pathlib import Path
from typing import Any

from facepipe.catalog.stream import Photo
from facepipe.files.atomic import remove_file
from facepipe.images import write_image
from facepipe.outputs.names import output_stem
from facepipe.outputs.sorting import How, Sorter
from facepipe.records import Record

#: What follows the photo's stem in the name of a crop: the face's number and the answer.
_CROP = re.compile(r"\d{2,}-.+\.jpg")


class Annotated:
    """Copies of the photos with frames and names; photos without a face are left out, and lose the copy of an earlier answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pictures = f"annotate {folder.resolve()}"

    def add(self, photo: Photo, record: Record) -> None:
        """Write the copy."""
        from facepipe.outputs.draw import draw_predictions

        path = self._copy_of(photo.source.name)
        if photo.image is not None and record["faces"]:
            write_image(path, draw_predictions(photo.image, record))
        else:
            remove_file(path)

    def _copy_of(self, path: str) -> Path:
        return self._folder / f"{output_stem(path)}.jpg"

    def stays(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        """Say whether the copy is there and shows the answer of now."""
        from facepipe.outputs.draw import drawing

        return drawing(before) == drawing(now) and (not now["faces"] or self._copy_of(now["path"]).is_file())

    def tidy(self) -> None:
        """Nothing is left to do."""


class Crops:
    """Each face as a picture. The name holds the answer: where that has changed, the picture of the earlier one goes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pictures = f"crops {folder.resolve()}"
        self._earlier = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - names, not paths
        self._names = frozenset(self._earlier)
        self._written: set[str] = set()

    def add(self, photo: Photo, record: Record) -> None:
        """Write the faces."""
        from facepipe.outputs.draw import save_crops

        if photo.image is not None:
            self._written.update(path.name for path in save_crops(self._folder, photo.image, record))
        # The names that begin with the photo's stem stand together.
        stem = f"{output_stem(photo.source.name)}-"
        for name in self._earlier[bisect_left(self._earlier, stem) :]:
            if not name.startswith(stem):
                break
            if name not in self._written and _CROP.fullmatch(name.removeprefix(stem)):
                remove_file(self._folder / name)

    def stays(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        """Say whether the pictures are there under the names of now, which is all of the answer that they have."""
        from facepipe.outputs.draw import crop_names

        names = crop_names(now["path"], now)
        return names == crop_names(now["path"], before) and self._names.issuperset(names)

    def tidy(self) -> None:
        """Nothing is left to do."""


class Sorted:
    """The photos in folders by who is in them; members of archives are copied, whatever `how` says."""

    pictures = ""

    def __init__(self, folder: Path, how: How = "link") -> None:
        self._sorter = Sorter(folder, how)

    def add(self, photo: Photo, record: Record) -> None:
        """Put the photo in its folders."""
        self._sorter.add(record, source=photo.source.path or photo.source.name, data=photo.data)

    def stays(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        """Say no: what was placed is compared with what should be, which costs little."""
        return False

    def tidy(self) -> None:
        """Take away links to photos that were deleted."""
        self._sorter.tidy()
