"""Importing and using the library changes nothing that belongs to the whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facepipe.images import write_image
from facepipe.types import Image

#: Everything of the process that facepipe, or a library that it uses, may be tempted to change.
_STATE = """
import ctypes, logging, os, signal, sys, warnings
import PIL._imaging, PIL.Image, PIL.ImageFile, cv2, faiss, numpy as np, torch

def printers():
    library = ctypes.CDLL(PIL._imaging.__file__)
    found = []
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            before = function(None)
            function(before)
            found.append(before)
    return found

def state():
    return {
        "environment": dict(os.environ),
        "file mode": os.umask(os.umask(0o22)) and None,
        "signals": [signal.getsignal(one) for one in signal.valid_signals()],
        "warnings": list(warnings.filters),
        "log handlers": [list(logging.getLogger(name).handlers) for name in ("", "PIL", "torch", "facepipe")],
        "log levels": [logging.getLogger(name).level for name in ("", "PIL", "torch", "facepipe")],
        "logs disabled": logging.root.manager.disable,
        "exception hook": sys.excepthook,
        "pixels of Pillow": PIL.Image.MAX_IMAGE_PIXELS,
        "truncated files": PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        "HEIC in Pillow": "HEIF" in PIL.Image.OPEN,
        "libtiff": printers(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads(), faiss.omp_get_max_threads()),
        "tf32": (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "random": (torch.initial_seed(), tuple(np.random.get_state()[1])),
        "float errors": np.geterr(),
        "optimized OpenCV": (cv2.useOptimized(), cv2.ocl.useOpenCL()),
    }

torch.set_num_threads(2); cv2.setNumThreads(2)
"""


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", _STATE + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_importing_changes_nothing() -> None:
    run(
        "before = state()\n"
        "import facepipe, pkgutil, importlib\n"
        "for module in pkgutil.walk_packages(facepipe.__path__, 'facepipe.'):\n"
        "    if '__main__' not in module.name: importlib.import_module(module.name)\n"
        "after = state()\n"
        "assert after == before, [name for name in before if before[name] != after[name]]\n"
    )


@pytest.mark.models
def test_using_it_changes_nothing(tmp_path: Path, astronaut: Image, hopper: Image) -> None:
    for person, photo in (("Collins", astronaut), ("Hopper", hopper)):
        (tmp_path / "people" / person).mkdir(parents=True)
        write_image(tmp_path / "people" / person / "1.jpg", photo.rgb)
    album = tmp_path / "album"
    album.mkdir()
    write_image(album / "good.tif", astronaut.rgb)
    data = (album / "good.tif").read_bytes()
    (album / "damaged.tif").write_bytes(data[: len(data) // 3])
    write_image(album / "damaged.jpg", hopper.rgb)
    (album / "damaged.jpg").write_bytes((album / "damaged.jpg").read_bytes()[:4000])
    (album / "empty.png").touch()
    write_image(album / "wide.png", np.zeros((20, 9000, 3), np.uint8))
    (album / "bad.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 200)
    run(
        f"before = state(); folder = {str(tmp_path)!r}\n"
        "import facepipe\n"
        "with facepipe.Gallery(folder + '/gallery') as gallery:\n"
        "    assert [o.status for o in gallery.enroll(folder + '/people')] == ['enrolled'] * 2\n"
        "    photos = list(facepipe.Recognizer(gallery)(folder + '/album'))\n"
        "    quick = list(facepipe.Recognizer(gallery, quick=True)(folder + '/album'))\n"
        "assert [type(p).__name__ for p in photos].count('Failed') == 4, photos\n"
        "assert [[f.person for f in p.predictions] for p in photos] == [[f.person for f in p.predictions] for p in quick]\n"
        "assert facepipe.detect(folder + '/album/good.tif')\n"
        "assert not facepipe.verify(folder + '/people/Collins/1.jpg', folder + '/people/Hopper/1.jpg').same\n"
        "after = state()\n"
        "assert after == before, [name for name in before if before[name] != after[name]]\n"
    )
