"""The four steps on pictures that dependencies ship: two public-domain portraits, altered copies of them, two without a face.

Portraits: Eileen Collins (NASA, in scikit-image) and Grace Hopper (US Navy, in matplotlib). Without a face: scikit-learn's
sample pictures of a temple and a flower.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from facepipe.types import Image, UInt8

#: Who is in the portraits.
PEOPLE = ("Eileen Collins", "Grace Hopper")


@dataclass(frozen=True, slots=True, eq=False)
class DemoPicture:
    """A picture and who is in it; person None: it shows no person."""

    image: Image
    person: str | None


def portraits() -> dict[str, Image]:
    """Return the two portraits, by name."""
    import matplotlib.cbook
    import skimage.data

    from facepipe.images import read_image

    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return {
        PEOPLE[0]: Image(np.ascontiguousarray(skimage.data.astronaut()), "Collins"),  # type: ignore[no-untyped-call]
        PEOPLE[1]: Image(read_image(str(hopper)).rgb, "Hopper"),
    }


def probes() -> Iterator[DemoPicture]:
    """Yield altered copies of the portraits, and two pictures without a face."""
    from sklearn.datasets import load_sample_image

    for person, portrait in portraits().items():
        for alteration, change in _ALTERATIONS.items():
            rgb = np.ascontiguousarray(change(portrait.rgb))
            yield DemoPicture(Image(rgb, f"{portrait.path} {alteration}"), person)
    for name in ("china.jpg", "flower.jpg"):
        yield DemoPicture(Image(np.ascontiguousarray(load_sample_image(name)), name.removesuffix(".jpg")), None)


def _turned(rgb: UInt8) -> UInt8:
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 15, 1.0)
    return np.asarray(cv2.warpAffine(rgb, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _small(rgb: UInt8) -> UInt8:
    return np.asarray(cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def _blurred(rgb: UInt8) -> UInt8:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), 2.5), np.uint8)


def _dark(rgb: UInt8) -> UInt8:
    return (rgb * 0.25).astype(np.uint8)


_ALTERATIONS = {
    "mirrored": lambda rgb: rgb[:, ::-1],
    "turned": _turned,
    "small": _small,
    "blurred": _blurred,
    "dark": _dark,
}
