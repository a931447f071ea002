"""Pictures in every form in which a program may have them: paths, folders, bytes, open files, PIL images, NumPy arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from facepipe.errors import InputError
from facepipe.images.finding import find_images, is_output
from facepipe.images.formats import is_video
from facepipe.images.reading import Readable, from_pillow, read_image, read_image_bytes
from facepipe.types import Failed, Image

#: One picture. A text is a path. Arrays are RGB or grey, uint8; see `as_image`.
Source: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | PIL.Image.Image | NDArray[np.uint8] | Image"
)


def as_image(source: Source, *, max_side: int | None = None) -> Image:
    """Return a picture as displayed, whatever form it has.

    source: a path; the bytes of a picture's file; an open binary file; a PIL image; a NumPy array, uint8, RGB (H, W, 3) or
    grey (H, W); an `Image`, returned as it is. max_side: see `read_image_bytes`; for files and bytes only.
    Errors: InputError when a file cannot be read, ImageError when it cannot be read as an image; ValueError for an array of
    another type or shape, TypeError for anything else: that is the caller's mistake and not the photo's.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, np.ndarray):
        return from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_image_bytes(bytes(source), "<bytes>", max_side=max_side)
    if isinstance(source, PIL.Image.Image):
        return from_pillow(source)
    if isinstance(source, io.TextIOBase):
        raise TypeError(f"{_name_of(source)}: is open as text; open it in binary mode: open(path, 'rb')")
    if isinstance(source, (str, os.PathLike, Readable)):
        return read_image(source, max_side=max_side)
    raise TypeError(
        f"{type(source).__name__}: expected a path, bytes, an open binary file, a PIL image or a NumPy array of uint8"
    )


def from_array(array: NDArray[Any]) -> Image:
    """Return an array, uint8, RGB (H, W, 3) or grey (H, W), as an image; ValueError, with what to do, for any other."""
    if array.dtype != np.uint8:
        how = (
            "multiply by 255 if it holds 0..1, then .round().astype('uint8')"
            if array.dtype.kind == "f"
            else ".astype('uint8') once its values are 0..255"
        )
        raise ValueError(f"array: expected uint8, got {array.dtype}; {how}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim == 3 and array.shape[2] == 4:
        raise ValueError(f"array: expected RGB (H, W, 3), got {array.shape}; drop the alpha channel: array[..., :3]")
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        raise ValueError(
            f"array: expected (H, W, 3), got {array.shape}; move the channels last: array.transpose(1, 2, 0)"
        )
    if array.ndim != 3 or array.shape[2] != 3:
        more = "; give its pictures one by one: list(array)" if array.ndim == 4 else ""
        raise ValueError(f"array: expected RGB (H, W, 3) or grey (H, W), got shape {array.shape}{more}")
    return Image(np.array(array, order="C"))  # a copy: a camera loop writes the next frame into the same array


def sources_of(inputs: Source | Iterable[Source]) -> Iterator[Source | Failed]:
    """Yield the pictures that `inputs` names, one at a time: a folder is searched when it is its turn.

    Folders are searched recursively, in natural order, for files with a picture's or video's suffix; what `facepipe batch` wrote
    is left out. A folder that cannot be searched is a Failed in its place.
    """
    many: Iterable[Source] = (inputs,) if is_one(inputs) else inputs  # type: ignore[assignment]
    for source in many:
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):  # noqa: PTH112
            yield from _search(os.fspath(source))
        else:
            yield source


def is_one(inputs: Source | Iterable[Source]) -> bool:
    """Say whether this is one picture (or folder) and not several."""
    return isinstance(
        inputs, (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, PIL.Image.Image, Image, Readable)
    )


def read_inputs(inputs: Source | Iterable[Source], *, max_side: int | None = None) -> Iterator[Image | Failed | Path]:
    """Read the pictures that `inputs` names, one at a time; one that cannot be read is a Failed. See `sources_of`, `as_image`.

    A video is its path.
    """
    for source in sources_of(inputs):
        if isinstance(source, Failed):
            yield source
            continue
        if isinstance(source, (str, os.PathLike)) and is_video(os.fspath(source)):
            yield Path(source)
            continue
        try:
            yield as_image(source, max_side=max_side)
        except InputError as error:
            yield Failed(_name_of(source), str(error))


def _name_of(source: Source) -> str:
    """Return what a picture that could not be read is called in results."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "name", getattr(source, "filename", None))
    kind = "<bytes>" if isinstance(source, (bytes, bytearray, memoryview)) else f"<{type(source).__name__}>"
    return name if isinstance(name, str) else kind


def _search(path: str) -> Iterator[str | Failed]:
    problems: list[Failed] = []

    def fail(error: InputError) -> None:
        problems.append(Failed(path, str(error)))

    for found in find_images([path], on_error=fail, skip=is_output, videos=True):
        yield os.fspath(found)
        yield from problems
        problems.clear()
    yield from problems
