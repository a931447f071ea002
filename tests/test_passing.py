"""What is passed over is the same in folders and archives, for enrolment, batches and evaluations, and it is counted by kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.catalog.sources import find_sources
from facepipe.cli import main
from facepipe.errors import InputError, UsageError
from facepipe.evaluate.splits import read_people
from facepipe.gallery.enrolment.intake import collect_photos
from facepipe.images import Passing, is_video
from facepipe.images.passing import IGNORE_NAME

TREE = (
    "Ann/1.jpg",
    "Ann/2.jpg",
    "Ann/2.xmp",
    "Ann/notes.txt",
    "Ann/clip.MOV",
    "Ann/raw/1.CR2",
    "Ann/raw/1.jpg",
    "Bea/1.jpg",
    "Bea/@eaDir/1.jpg",
    "Bea/.thumbnails/1.jpg",
    "Bea/old.zip",
    "Bea/screenshots/1.png",
    "Bea/screenshots/keep.png",
    "#recycle/Ann/1.jpg",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def found(root: Path, passing: Passing | None = None) -> list[str]:
    return sorted(
        source.name.removeprefix(str(root)).lstrip("/!") for source in find_sources([str(root)], passing=passing)
    )


EVERYTHING = [
    "Ann/1.jpg",
    "Ann/2.jpg",
    "Ann/raw/1.jpg",
    "Bea/1.jpg",
    "Bea/screenshots/1.png",
    "Bea/screenshots/keep.png",
]


def test_what_is_passed_over_is_counted_by_kind(tree: Path) -> None:
    (tree / "linked").symlink_to(tree / "Ann")
    passing = Passing()
    assert found(tree, passing) == sorted([*EVERYTHING, "Ann/clip.MOV"])
    expected = "1 archive, 1 sidecar, 1 raw photo beside its JPEG, 1 other file, 1 linked folder, 2 system folders"
    assert passing.told() == expected
    enrolling = Passing()
    people, astray = collect_photos([tree], None, enrolling)
    assert sorted(str(photo.path.relative_to(tree)) for photo in people) == sorted([*EVERYTHING, "Ann/clip.MOV"])
    assert (enrolling.told(), astray) == (expected, [])
    assert sorted(str(path.relative_to(tree)) for path in read_people(tree).all_photos) == EVERYTHING


CASES = {
    ("screenshots/",): ["Ann/1.jpg", "Ann/2.jpg", "Ann/raw/1.jpg", "Bea/1.jpg"],
    ("/Ann",): ["Bea/1.jpg", "Bea/screenshots/1.png", "Bea/screenshots/keep.png"],
    ("*.png", "!keep.png"): ["Ann/1.jpg", "Ann/2.jpg", "Ann/raw/1.jpg", "Bea/1.jpg", "Bea/screenshots/keep.png"],
    ("**/raw/*", "2.*"): ["Ann/1.jpg", "Bea/1.jpg", "Bea/screenshots/1.png", "Bea/screenshots/keep.png"],
    ("1.jpg",): ["Ann/2.jpg", "Ann/raw/1.CR2", "Bea/screenshots/1.png", "Bea/screenshots/keep.png"],
}


@pytest.mark.parametrize("patterns", CASES)
def test_excluded_is_the_same_in_every_source(tree: Path, tmp_path: Path, patterns: tuple[str, ...]) -> None:
    assert [name for name in found(tree, Passing(patterns)) if not is_video(name)] == CASES[patterns]
    people, _ = collect_photos([tree], None, Passing(patterns))
    named = sorted(str(photo.path.relative_to(tree)) for photo in people)
    assert [name for name in named if not is_video(name)] == CASES[patterns]
    for kind in ("zip", "tar"):
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tree))
        assert [name.removeprefix("./") for name in found(archive, Passing(patterns))] == CASES[patterns]
    names = find_sources([f"{tree}/**/*.*"], passing=Passing(patterns))
    inside = sorted(str(Path(source.name).relative_to(tree)) for source in names)
    assert [name for name in inside if name in {*EVERYTHING, *CASES[patterns]}] == CASES[patterns]


def test_a_folders_own_file_adds_patterns_and_the_deepest_decides(tree: Path) -> None:
    (tree / IGNORE_NAME).write_text("# not these\n**/screenshots/*\n/Bea/1.jpg\n")
    (tree / "Bea" / "screenshots" / IGNORE_NAME).write_text("!keep.png\n")
    passing = Passing(["2.jpg"])
    assert found(tree, passing) == ["Ann/1.jpg", "Ann/clip.MOV", "Ann/raw/1.jpg", "Bea/screenshots/keep.png"]
    assert "3 excluded" in passing.told()
    people, _ = collect_photos([tree], None)
    assert [photo.path.name for photo in people if photo.person == "Bea"] == ["keep.png"]


def test_a_photo_that_is_named_itself_is_looked_at(tree: Path) -> None:
    (tree / "Ann" / IGNORE_NAME).write_text("*\n")
    assert found(tree / "Ann") == []
    photo = str(tree / "Ann/1.jpg")
    assert [source.name for source in find_sources([photo], passing=Passing(["*.jpg"]))] == [photo]


def test_a_folder_beside_photos_that_is_excluded_makes_no_person(tree: Path) -> None:
    people, astray = collect_photos([tree / "Ann"], None, Passing(["raw"]))
    assert {photo.person for photo in people} == {"Ann"}
    assert astray == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\n***/[\n!", b"[z-a]\n", b"IMG_[9-1]*\n"])
def test_a_file_of_patterns_that_is_none_is_one_line(tree: Path, content: bytes) -> None:
    (tree / IGNORE_NAME).write_bytes(content)
    with pytest.raises(UsageError, match=IGNORE_NAME):
        found(tree)


def test_nothing_found_says_what_was_there(tree: Path) -> None:
    with pytest.raises(InputError, match=r"no photos found \(passed over: 1 sidecar"):
        collect_photos([tree / "Ann"], "Ann", Passing(["*.jpg", "*.CR2", "*.MOV"]))


@given(st.lists(st.text(max_size=12), max_size=3))
def test_any_text_is_a_pattern_or_one_line(patterns: list[str]) -> None:
    try:
        Passing(patterns).rules("a").excludes("a/b/c.jpg")
    except UsageError as error:
        assert str(error).startswith("--exclude: not a pattern")


def test_batch_and_enroll_say_what_they_passed_over(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = str(tmp_path / "gallery")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "enroll",
                str(tree),
                "--gallery",
                gallery,
                "--exclude",
                "*.jpg",
                "--exclude",
                "*.png",
                "--exclude",
                "*.CR2",
                "--exclude",
                "*.MOV",
                "-q",
            ]
        )
    assert ended.value.code == 3
    assert "no photos found (passed over: 1 archive, 1 sidecar, 1 other file, " in capsys.readouterr().err
