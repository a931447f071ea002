"""The front door: what a Python user sees, with people painted as colours and with the real networks."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

import facepipe
from facepipe.cli import main
from facepipe.errors import GalleryMissingError, GalleryModelError, UsageError
from facepipe.images import encode_image, write_image
from facepipe.images.inputs import as_image, read_inputs
from facepipe.records import dumps, to_record
from facepipe.types import Failed, Image, Recognized, Status
from tests.fakes import COLOURS, CrashingDetector, FakeDetector, FakeEmbedder, picture


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder of people, each a colour."""
    for colour in ("red", "blue"):
        (tmp_path / "people" / colour).mkdir(parents=True)
        write_image(tmp_path / "people" / colour / "1.png", picture(colour).rgb)
    return tmp_path / "people"


@pytest.fixture
def gallery(tmp_path: Path, people: Path) -> Iterator[facepipe.Gallery]:
    with facepipe.Gallery(tmp_path / "gallery", model=FakeEmbedder()) as made:
        outcomes = list(
            made.enroll(people, detector=FakeDetector(), embedder=FakeEmbedder(), threshold=0.6, accept_poor=True)
        )
        assert [(outcome.person, outcome.status) for outcome in outcomes] == [("blue", "enrolled"), ("red", "enrolled")]
        yield made


@pytest.fixture
def recognizer(gallery: facepipe.Gallery) -> facepipe.Recognizer:
    return facepipe.Recognizer(gallery, detector=FakeDetector(), embedder=FakeEmbedder(), threshold=0.6)


def names(photo: Recognized | Failed) -> list[str | None]:
    return [face.person for face in photo.predictions]


# What is public


def test_the_public_names() -> None:
    # A name that goes breaks somebody's program; one that comes is a promise. Both are decided here.
    assert facepipe.__all__ == [
        *(
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
        ),
        *(
            "EnrollOutcome",
            "EnrollStatus",
            "Explanation",
            "Face",
            "FaceKey",
            "FacepipeError",
            "Failed",
            "Gallery",
            "GalleryError",
        ),
        *("GalleryMissingError", "GalleryModelError", "Group", "GroupFace", "Grouped", "Groups"),
        *("Image", "ImageError", "InputError", "ModelError", "NoFaceError", "PersonFace"),
        *("Policy", "Prediction", "Quality", "Recognized", "Recognizer", "Span", "Status", "Suggested"),
        *("TaggedFace", "UsageError", "Verification"),
        *(
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
        ),
    ]
    assert dir(facepipe) == facepipe.__all__
    for name in facepipe.__all__:
        assert getattr(facepipe, name).__doc__


def test_a_type_checker_finds_every_public_name_where_it_is_loaded_from() -> None:
    tree = ast.parse(Path(facepipe.__file__).read_text())
    checked = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = {a.name: n.module for n in checked.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert sorted(imports) == sorted(set(facepipe.__all__) - {"__version__"})
    for name, module in imports.items():
        found = getattr(facepipe, name)
        assert isinstance(found, ModuleType) or found is getattr(import_module(str(module)), name)


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_that"):
        getattr(facepipe, "nothing_like_that")  # noqa: B009


@pytest.mark.parametrize(
    "imports",
    [
        "import facepipe",
        "import facepipe.detect.detector, facepipe.embed.alignment",
        "from facepipe.detect import selection; import facepipe",
        "from facepipe import detect, embed; import facepipe",
        "import facepipe; facepipe.Recognizer; facepipe.Gallery",
    ],
)
def test_a_step_is_a_package_and_can_be_called_whatever_was_imported_before(imports: str) -> None:
    code = (
        f"{imports}\n"
        "import facepipe.detect.selection\n"
        "assert facepipe.detect.selection.choose_faces([], 'clear') == []\n"
        "import unittest.mock as m\n"
        "for name in ('detect', 'embed'):\n"
        "    with m.patch(f'facepipe.single.{name}', side_effect=lambda *a, **k: (name, a, k)):\n"
        "        assert getattr(facepipe, name)('a.jpg', quick=True) == (name, ('a.jpg',), {'quick': True})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys, facepipe; assert not {'torch', 'cv2', 'faiss', 'numpy', 'PIL', 'click'} & {*sys.modules}\n"
        "facepipe.Face, facepipe.FacepipeError; assert not {'torch', 'cv2', 'faiss'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What goes in


def forms(tmp_path: Path) -> dict[str, object]:
    """One picture in every form in which a program may have it."""
    rgb = picture("red").rgb
    write_image(tmp_path / "red.png", rgb)
    data = encode_image(rgb, "PNG")
    return {
        "text": str(tmp_path / "red.png"),
        "path": tmp_path / "red.png",
        "bytes": data,
        "bytearray": bytearray(data),
        "file": io.BytesIO(data),
        "pillow": PIL.Image.fromarray(rgb),
        "pillow from a file": PIL.Image.open(tmp_path / "red.png"),
        "array": rgb,
        "array upside down in memory": np.ascontiguousarray(rgb[::-1])[::-1],
        "image": Image(rgb, "mine"),
        "bgr": Image.from_bgr(rgb[..., ::-1]),
    }


def test_one_picture_in_every_form_gives_one_answer(tmp_path: Path, recognizer: facepipe.Recognizer) -> None:
    for form, source in forms(tmp_path).items():
        (photo,) = recognizer(source)  # type: ignore[arg-type]
        assert names(photo) == ["red"], form
        assert isinstance(photo, Recognized) and (photo.width, photo.height) == (320, 240)
    assert [names(photo) for photo in recognizer(list(forms(tmp_path).values()))] == [["red"]] * 11  # type: ignore[arg-type]


def test_what_a_picture_is_called() -> None:
    assert as_image(picture("red").rgb).path == "<array>"
    assert as_image(encode_image(picture("red").rgb, "PNG")).path == "<bytes>"
    assert as_image(PIL.Image.new("L", (4, 4))).path == "<PIL image>"


def test_grey_arrays_are_pictures() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (grey, grey[..., None]):
        assert np.array_equal(as_image(array).rgb, np.repeat(grey[..., None], 3, axis=2))


def test_an_array_is_copied_since_a_camera_writes_the_next_frame_into_it() -> None:
    frame = picture("red").rgb.copy()
    image = as_image(frame)
    frame[:] = 0
    assert image.rgb.any()


def test_a_pillow_image_is_turned_as_its_exif_says() -> None:
    turned = PIL.Image.new("RGB", (40, 20))
    turned.getexif()[0x0112] = 6
    assert (as_image(turned).width, as_image(turned).height) == (20, 40)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"expected uint8, got float32; multiply by 255"),
        (np.zeros((4, 4, 3), np.int64), r"expected uint8, got int64; .astype\('uint8'\)"),
        (np.zeros((4, 4, 4), np.uint8), r"drop the alpha channel"),
        (np.zeros((3, 4, 5), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"one by one: list\(array\)"),
        (np.zeros(4, np.uint8), r"got shape \(4,\)"),
    ],
)
def test_an_array_that_is_no_picture_is_the_callers_mistake(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_image(array)
    with pytest.raises(ValueError, match=message):
        list(read_inputs([array]))


def test_what_is_no_picture_at_all_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="dict: expected a path, bytes"):
        as_image({})  # type: ignore[arg-type]


def test_folders_are_searched_and_bad_photos_stop_nothing(tmp_path: Path, recognizer: facepipe.Recognizer) -> None:
    album = tmp_path / "album"
    (album / "deep").mkdir(parents=True)
    write_image(album / "2.png", picture("red").rgb)
    write_image(album / "10.png", picture("green").rgb)
    write_image(album / "deep" / "1.png", picture("blue").rgb)
    (album / "3.png").write_text("this is no picture")
    photos = list(recognizer([album, tmp_path / "gone.png", b"nothing", str(album / "2.png")]))
    assert [(Path(photo.path).name, names(photo)) for photo in photos] == [
        ("2.png", ["red"]),
        ("3.png", []),
        ("10.png", [None]),
        ("1.png", ["blue"]),
        ("gone.png", []),
        ("<bytes>", []),
        ("2.png", ["red"]),
    ]
    assert [isinstance(photo, Failed) for photo in photos] == [False, True, False, False, True, True, False]
    assert "no such file" in photos[4].reason  # type: ignore[union-attr]


class Counting(FakeDetector):
    """Counts the pictures of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def detect(self, images):  # type: ignore[no-untyped-def]
        self.calls.append(len(images))
        return super().detect(images)


def test_photos_share_batches_and_a_stream_is_answered_at_once(gallery: facepipe.Gallery) -> None:
    detector = Counting()
    recognizer = facepipe.Recognizer(gallery, detector=detector, embedder=FakeEmbedder(), threshold=0.6)
    assert len(list(recognizer([picture("red")] * 30))) == 30
    assert detector.calls == [24, 6]
    detector.calls.clear()
    taken = []

    def camera() -> Iterator[Image]:
        while True:
            taken.append(1)
            yield picture("blue")

    frames = recognizer(camera())
    assert names(next(frames)) == ["blue"] and len(taken) == 1
    assert names(next(frames)) == ["blue"] and len(taken) == 2
    assert detector.calls == [1, 1]
    frames = recognizer(camera(), pool=5)
    next(frames)
    assert detector.calls[2:] == [5]


class Choking(FakeDetector):
    """Runs out of memory on yellow, as a network does on one huge picture."""

    def detect(self, images):  # type: ignore[no-untyped-def]
        for found in super().detect(images):
            if (found.image.rgb == COLOURS["yellow"]).all(axis=2).any():
                raise MemoryError("no room")
            yield found


def test_a_photo_that_no_step_can_take_spoils_only_itself(gallery: facepipe.Gallery) -> None:
    recognizer = facepipe.Recognizer(gallery, detector=Choking(), embedder=FakeEmbedder(), threshold=0.6)
    photos = list(recognizer([picture("red"), picture("yellow"), picture("blue")]))
    assert [names(photo) for photo in photos] == [["red"], [], ["blue"]]
    assert isinstance(photos[1], Failed) and "no room" in photos[1].reason


def test_a_broken_model_is_an_error_and_no_failed_photo(gallery: facepipe.Gallery) -> None:
    recognizer = facepipe.Recognizer(gallery, detector=CrashingDetector(), embedder=FakeEmbedder(), threshold=0.6)
    with pytest.raises(facepipe.ModelError, match="crashing"):
        list(recognizer([picture("red")]))


# Galleries


def test_pictures_in_memory_are_enrolled_once(gallery: facepipe.Gallery) -> None:
    def enroll(name: str | None = "green") -> list[str]:
        found = gallery.enroll(
            picture("green").rgb, name=name, detector=FakeDetector(), embedder=FakeEmbedder(), threshold=0.6
        )
        return [outcome.status for outcome in found]

    assert enroll() == ["enrolled"]
    assert enroll() == ["already"]
    with pytest.raises(UsageError, match="name="):
        enroll(None)


def test_an_enrolled_person_is_known_to_the_next_recognizer(gallery: facepipe.Gallery) -> None:
    engines = {"detector": FakeDetector(), "embedder": FakeEmbedder(), "threshold": 0.6}
    before = facepipe.Recognizer(gallery, **engines)  # type: ignore[arg-type]
    list(gallery.enroll(picture("green").rgb, name="green", **engines))  # type: ignore[arg-type]
    after = facepipe.Recognizer(gallery, **engines)  # type: ignore[arg-type]
    green = picture("green")
    assert [next(iter(who(green))).predictions[0].status for who in (before, after)] == [Status.UNKNOWN, Status.KNOWN]


def test_a_gallery_that_is_not_there_knows_nobody_and_says_so(tmp_path: Path) -> None:
    with (
        facepipe.Gallery(tmp_path / "none") as gallery,
        pytest.raises(GalleryMissingError, match="nobody is enrolled here yet"),
    ):
        facepipe.Recognizer(gallery)
    assert not (tmp_path / "none").exists()


def test_a_gallery_of_another_model_is_refused(gallery: facepipe.Gallery) -> None:
    with pytest.raises(GalleryModelError):
        facepipe.Recognizer(gallery, model="mini")
    with pytest.raises(GalleryModelError):
        facepipe.Gallery(gallery.folder, model="mini")
    with pytest.raises(GalleryModelError):
        facepipe.Recognizer(gallery, embedder=FakeEmbedder("other:1"), detector=FakeDetector(), threshold=0.6)


def test_an_embedder_of_ones_own_needs_a_threshold(gallery: facepipe.Gallery) -> None:
    with pytest.raises(UsageError, match="give a threshold"):
        facepipe.Recognizer(gallery, detector=FakeDetector(), embedder=FakeEmbedder())


# With the real networks


@pytest.mark.models
def test_the_ten_lines_of_the_readme(
    tmp_path: Path, astronaut: Image, hopper: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for person, portrait in (("Collins", astronaut), ("Hopper", hopper)):
        os.makedirs(f"people/{person}")  # noqa: PTH103
        write_image(tmp_path / "people" / person / "1.jpg", portrait.rgb)
    (tmp_path / "album").mkdir()
    write_image(tmp_path / "album" / "both.jpg", np.concatenate([hopper.rgb[:512], astronaut.rgb], axis=1))
    write_image(tmp_path / "photo.jpg", astronaut.rgb[:, ::-1])
    with facepipe.Gallery("gallery") as gallery:
        for outcome in gallery.enroll("people/"):
            print(outcome.path, outcome.status)
        recognizer = facepipe.Recognizer(gallery, device="auto")
        for photo in recognizer(["photo.jpg", "album/"]):
            for face in photo.predictions:
                print(photo.path, face.person, face.probability)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["people/Collins/1.jpg enrolled", "people/Hopper/1.jpg enrolled"]
    assert lines[2].startswith("photo.jpg Collins 0.9")
    assert {line.rpartition(" ")[0] for line in lines[3:]} == {"album/both.jpg Collins", "album/both.jpg Hopper"}
    assert facepipe.verify("photo.jpg", "people/Collins/1.jpg").same
    assert not facepipe.verify("photo.jpg", "people/Hopper/1.jpg").same
    assert len(facepipe.detect("album/both.jpg")) == 2
    assert facepipe.embed("photo.jpg").embeddings.vectors.shape == (1, 256)


@pytest.mark.models
def test_the_library_and_the_command_line_give_one_answer(
    tmp_path: Path, astronaut: Image, hopper: Image, capfd: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "Collins.jpg", astronaut.rgb)
    write_image(tmp_path / "both.jpg", np.concatenate([hopper.rgb[:512], astronaut.rgb], axis=1))
    with facepipe.Gallery(tmp_path / "gallery") as gallery:
        list(gallery.enroll(tmp_path / "Collins.jpg", name="Collins"))
        recognizer = facepipe.Recognizer(gallery, quick=True)
    paths = [str(tmp_path / name) for name in ("both.jpg", "Collins.jpg", "missing.jpg")]
    with pytest.raises(SystemExit):
        main(["identify", *paths, "--gallery", str(tmp_path / "gallery"), "--jsonl"])
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == [
        json.loads(dumps(to_record(photo, recognizer.matcher.fingerprint))) for photo in recognizer(paths)
    ]


def test_what_is_closed_or_out_of_range_is_said_in_one_line(tmp_path: Path, gallery: facepipe.Gallery) -> None:
    engines: dict[str, Any] = {"detector": FakeDetector(), "embedder": FakeEmbedder()}
    for threshold in (3.0, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            facepipe.Recognizer(gallery, threshold=threshold, **engines)
    recognizer = facepipe.Recognizer(gallery, threshold=0.6, **engines)
    with pytest.raises(ValueError, match="pool"):
        next(recognizer([picture("red")], pool=0))
    with (tmp_path / "notes.txt").open("w") as text, pytest.raises(TypeError, match="binary mode"):
        next(recognizer(text))
    gallery.close()
    with pytest.raises(facepipe.GalleryError, match="is closed: open it again"):
        facepipe.Recognizer(gallery, threshold=0.6, **engines)
    catalog = facepipe.Catalog(tmp_path / "a.catalog", write=True)
    catalog.close()
    with pytest.raises(UsageError, match="is closed"):
        list(catalog.photos())
    (tmp_path / "photo.jpg").write_bytes(b"a photo of mine" * 100)
    with pytest.raises(facepipe.InputError, match="lies beside the results") as caught:
        facepipe.Catalog(tmp_path / "photo.jpg", write=True)
    assert "remove" not in str(caught.value)
