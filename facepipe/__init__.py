"""Face recognition in four steps: detect, embed, match, predict.

The public names load lazily: `import facepipe` loads neither torch nor OpenCV nor FAISS.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Candidate": "facepipe.types",
    "Embeddings": "facepipe.types",
    "Face": "facepipe.types",
    "FacepipeError": "facepipe.errors",
    "Image": "facepipe.types",
    "Recognized": "facepipe.types",
    "Policy": "facepipe.types",
    "Prediction": "facepipe.types",
    "Quality": "facepipe.types",
    "Status": "facepipe.types",
}

__all__ = sorted([*_PUBLIC, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'facepipe' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
