"""Libraries that do not load: which one it is, and what to install."""

from __future__ import annotations

import traceback
from importlib import import_module
from importlib.util import find_spec

from facepipe.errors import LibraryError

#: What facepipe imports when a command needs it -> its name for pip.
LIBRARIES = {
    "PIL": "pillow",
    "cryptography": "cryptography",
    "cv2": "opencv-python",
    "faiss": "faiss-cpu",
    "fontTools": "fonttools",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pillow_heif": "pillow-heif",
    "pathspec": "pathspec",
    "platformdirs": "platformdirs",
    "pyarrow": "pyarrow",
    "requests": "requests",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "torch": "torch",
}

_LOADED = frozenset({"PIL", "cv2", "faiss", "numpy", "torch"})


def library_error(error: Exception) -> LibraryError | None:
    """Return one line about an ImportError or OSError that left the import of a library; None when it came from elsewhere."""
    name = _library_of(error)
    if name is None:
        return None
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return LibraryError(f"{LIBRARIES[name]} cannot be loaded ({reason}): {_remedy(name, error, reason)}")


def unusable() -> list[str]:
    """Return one line for each library that is missing, or is one of those that most commands need and does not load."""
    lines = []
    for name in LIBRARIES:
        try:
            if name in _LOADED:
                import_module(name)
            elif find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        except (ImportError, OSError) as error:
            lines.append(str(library_error(error)))
    return lines


def _library_of(error: Exception) -> str | None:
    """Return the library whose own code was being loaded, or that was not found."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and name in LIBRARIES:
            return name
    name = str(getattr(error, "name", None)).partition(".")[0]
    return name if name in LIBRARIES else None


def _remedy(name: str, error: Exception, reason: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return f"pip install {LIBRARIES[name]}"
    if name == "cv2" and "shared object" in reason:  # a machine without a desktop, or a small container
        return "pip install opencv-python-headless, the same without windows, or apt-get install libgl1 libglib2.0-0"
    return f"pip install --force-reinstall {LIBRARIES[name]}"
