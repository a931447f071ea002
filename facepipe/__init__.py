"""Face recognition in four steps: detect, embed, match, predict.

    with facepipe.Gallery("gallery") as gallery:
        for outcome in gallery.enroll("people/"):
            print(outcome.path, outcome.status)
        recognizer = facepipe.Recognizer(gallery)
        for photo in recognizer(["photo.jpg", "album/"]):
            for face in photo.predictions:
                print(photo.path, face.person, face.probability)

The public names load when they are first used: `import facepipe` loads neither torch nor OpenCV nor FAISS nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from facepipe.anonymise import Blurred, blur
    from facepipe.api import Gallery
    from facepipe.catalog.catalog import Catalog
    from facepipe.catalog.merge import merge_catalogs
    from facepipe.errors import (
        AmbiguousFaceError,
        DeviceError,
        FacepipeError,
        GalleryError,
        GalleryMissingError,
        GalleryModelError,
        ImageError,
        InputError,
        ModelError,
        NoFaceError,
        UsageError,
    )
    from facepipe.explain.story import explain
    from facepipe.explain.values import Explanation
    from facepipe.gallery.enrolment.intake import EnrollOutcome, EnrollStatus
    from facepipe.groups.groups import Groups
    from facepipe.groups.values import Answer, FaceKey, Group, Grouped, GroupFace, PersonFace, Suggested
    from facepipe.outputs.sidecars import write_regions
    from facepipe.pipeline import Recognizer
    from facepipe.regions.tags import TaggedFace, read_regions
    from facepipe.single import Verification, detect, edges, embed, verify
    from facepipe.types import (
        Candidate,
        Clip,
        Described,
        Detected,
        Detector,
        Embedder,
        Embeddings,
        Face,
        Failed,
        Image,
        Policy,
        Prediction,
        Quality,
        Recognized,
        Span,
        Status,
    )

__all__ = [
    "AmbiguousFaceError",
    "Answer",
    "Blurred",
    "Candidate",
    "Catalog",
    "Clip",
    "Described",
    "Detected",
    "Detector",
    "DeviceError",
    "Embedder",
    "Embeddings",
    "EnrollOutcome",
    "EnrollStatus",
    "Explanation",
    "Face",
    "FaceKey",
    "FacepipeError",
    "Failed",
    "Gallery",
    "GalleryError",
    "GalleryMissingError",
    "GalleryModelError",
    "Group",
    "GroupFace",
    "Grouped",
    "Groups",
    "Image",
    "ImageError",
    "InputError",
    "ModelError",
    "NoFaceError",
    "PersonFace",
    "Policy",
    "Prediction",
    "Quality",
    "Recognized",
    "Recognizer",
    "Span",
    "Status",
    "Suggested",
    "TaggedFace",
    "UsageError",
    "Verification",
    "__version__",
    "blur",
    "detect",
    "edges",
    "embed",
    "explain",
    "merge_catalogs",
    "read_regions",
    "verify",
    "write_regions",
]

#: Where each public name lives.
_HOMES = {
    "facepipe.anonymise": ("Blurred", "blur"),
    "facepipe.api": ("Gallery",),
    "facepipe.catalog.catalog": ("Catalog",),
    "facepipe.catalog.merge": ("merge_catalogs",),
    "facepipe.errors": tuple(name for name in __all__ if name.endswith("Error")),
    "facepipe.explain.story": ("explain",),
    "facepipe.explain.values": ("Explanation",),
    "facepipe.gallery.enrolment.intake": ("EnrollOutcome", "EnrollStatus"),
    "facepipe.groups.groups": ("Groups",),
    "facepipe.groups.values": ("Answer", "FaceKey", "Group", "GroupFace", "Grouped", "PersonFace", "Suggested"),
    "facepipe.outputs.sidecars": ("write_regions",),
    "facepipe.pipeline": ("Recognizer",),
    "facepipe.regions.tags": ("TaggedFace", "read_regions"),
    "facepipe.single": ("Verification", "edges", "verify"),
    "facepipe.types": (
        *(
            "Candidate",
            "Clip",
            "Described",
            "Detected",
            "Detector",
            "Embedder",
            "Embeddings",
            "Face",
            "Failed",
            "Image",
        ),
        *("Policy", "Prediction", "Quality", "Recognized", "Span", "Status"),
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


class _Step(ModuleType):
    """The package of a step, which can be called: `facepipe.detect("a.jpg")` is `facepipe.single.detect("a.jpg")`."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        function = getattr(import_module(_HOME_OF.get(name, "facepipe.single")), name)
        return function(*arguments, **keywords)


# Made here, before anything can import them: whatever is imported first, `facepipe.detect` is both. They hold nothing heavy.
for _name in ("facepipe.detect", "facepipe.embed", "facepipe.explain"):
    import_module(_name).__class__ = _Step


if not TYPE_CHECKING:  # a type checker takes the names from above, and would believe any other one

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first used (PEP 562)."""
        if name not in _HOME_OF:
            raise AttributeError(f"module 'facepipe' has no attribute {name!r}")
        return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
