"""What a batch makes of photos besides its results: annotated copies, crops of faces, folders by person."""

from __future__ import annotations

from pathlib import Path

from facepipe.batch.stream import Photo
from facepipe.images import write_image
from facepipe.report.names import output_stem
from facepipe.report.sorting import How, Sorter
from facepipe.types import PhotoResult


class Annotated:
    """Copies of the photos with frames and names; photos without a face are left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, photo: Photo, result: PhotoResult) -> None:
        """Write the copy."""
        from facepipe.report.draw import draw_predictions

        if photo.image is not None and result.predictions:
            path = self._folder / f"{output_stem(result.path)}.jpg"
            write_image(path, draw_predictions(photo.image, result.predictions))


class Crops:
    """Each face as a picture."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, photo: Photo, result: PhotoResult) -> None:
        """Write the faces."""
        from facepipe.report.draw import save_crops

        if photo.image is not None:
            save_crops(self._folder, photo.image, result)


class Sorted:
    """The photos in folders by who is in them; members of archives are copied, whatever `how` says."""

    def __init__(self, folder: Path, how: How = "link") -> None:
        self._sorter = Sorter(folder, how)

    def add(self, photo: Photo, result: PhotoResult) -> None:
        """Put the photo in its folders."""
        self._sorter.add(result, source=photo.source.path or photo.source.name, data=photo.data)
