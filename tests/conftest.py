"""What the tests share: where the real photos are, and the two public-domain portraits that dependencies ship."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from facepipe.types import Image

# A loaded machine is no failure: properties have no time limit.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

ROOT = Path(__file__).parent.parent


def _faces_folder() -> Path | None:
    named = os.environ.get("FACEPIPE_FACES")
    candidates = [Path(named)] if named else [parent / "shared" / "faces" for parent in ROOT.parents]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def faces_root() -> Path:
    """The folder of real photos; the test is skipped where there is none."""
    folder = _faces_folder()
    if folder is None:
        pytest.skip("no folder of real photos: set FACEPIPE_FACES to one with scenes/, people/, lfw/ and so on")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> Image:
    """Eileen Collins, NASA, public domain: 512x512, one frontal face."""
    import skimage.data

    return Image(np.ascontiguousarray(skimage.data.astronaut()), "astronaut.png")  # type: ignore[no-untyped-call]


@pytest.fixture(scope="session")
def hopper() -> Image:
    """Grace Hopper, US Navy, public domain: 512x600, one frontal face."""
    import matplotlib.cbook
    from PIL import Image as PillowImage

    path = str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    with PillowImage.open(path) as picture:
        return Image(np.asarray(picture.convert("RGB")), "hopper.jpg")
