"""Where photos come from: folders, patterns, archives; what is broken is a source with a problem, in its place."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from facepipe.catalog.scan import _kept
from facepipe.catalog.sources import Source, count_sources, find_sources
from facepipe.errors import ImageError, InputError
from facepipe.gallery.enrolment.intake import collect_photos
from tests import hostile_bombs
from tests.batch_fixtures import paint, run


def names(*roots: Path | str) -> list[str]:
    return [source.name for source in find_sources([str(root) for root in roots])]


def test_folders_patterns_and_files_each_once(tmp_path: Path) -> None:
    a, b = paint(tmp_path / "a" / "1.png"), paint(tmp_path / "a" / "deep" / "2.png")
    c = paint(tmp_path / "c.png")
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    assert names(tmp_path / "a", c, a) == [str(a), str(b), str(c)]
    assert names(tmp_path / "*.png") == [str(c)]
    assert count_sources([str(tmp_path / "a"), str(c)]) == 3
    assert names(tmp_path / "**" / "*.png") == sorted(map(str, (a, b, c)))


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    odd = paint(tmp_path / "a[1].png")
    paint(tmp_path / "a1.png")
    assert names(odd) == [str(odd)]


def test_what_a_batch_wrote_is_no_photo_unless_it_is_named(tmp_path: Path) -> None:
    photo, drawn = paint(tmp_path / "in/a.png"), paint(tmp_path / "in/drawn/deep/a.png")
    (tmp_path / "in/drawn/.facepipe-output").touch()
    (tmp_path / "in/linked").symlink_to(tmp_path)
    for root in ("in", "in/*", "in/**/*.png"):
        assert str(drawn) not in names(tmp_path / root) and str(photo) in names(tmp_path / root)
    for root in ("in/drawn", "in/drawn/*", "in/drawn/deep/a.png"):
        assert names(tmp_path / root) == [str(drawn)]
    assert not list(find_sources([str(drawn)], [tmp_path / "in/drawn"]))


@pytest.mark.parametrize("missing", ["nowhere", "nothing-*.jpg", "nothing.zip"])
def test_what_is_not_there_is_a_problem_in_its_place(tmp_path: Path, missing: str) -> None:
    photo = paint(tmp_path / "a.png")
    sources = list(find_sources([str(tmp_path / missing), str(photo)]))
    assert [source.name for source in sources] == [str(tmp_path / missing), str(photo)]
    assert sources[0].problem is not None and "no such file" in sources[0].problem
    with pytest.raises(InputError):
        sources[0].load()


def pack(path: Path, members: dict[str, bytes], mode: str = "") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("suffix", "mode"), [(".zip", ""), (".tar", ""), (".tar.gz", "gz"), (".tar.xz", "xz")])
def test_archives_are_read_without_unpacking(tmp_path: Path, suffix: str, mode: str) -> None:
    red = paint(tmp_path / "red.png", "red").read_bytes()
    blue = paint(tmp_path / "blue.png", "blue", "green").read_bytes()
    members = {
        "2019/a.png": red,
        "readme.txt": b"no picture",
        "b.png": blue,
        "__MACOSX/._b.png": b"x",
        "c.jpg": b"damaged",
    }
    archive = pack(tmp_path / f"photos{suffix}", members, mode)
    before = sorted(tmp_path.iterdir())
    out = tmp_path / "results" / "out.jsonl"
    counts, records = run(out, archive)
    assert [record["path"] for record in records] == [f"{archive}!{name}" for name in ("2019/a.png", "b.png", "c.jpg")]
    assert [[face["person"] for face in record["faces"]] for record in records] == [["red"], ["blue", None], []]
    assert counts.failed == 1 and "c.jpg" in records[2]["error"]
    assert [path for path in sorted(tmp_path.iterdir()) if path != out.parent] == before
    again, same = run(out, archive)
    assert again.resumed == 2 and same == records


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_a_problem_and_no_crash(tmp_path: Path, name: str) -> None:
    whole = pack(
        tmp_path / name, {f"{i}.png": bytes(range(256)) * 20 for i in range(20)}, "gz" if name.endswith("gz") else ""
    )
    data = whole.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 3):
        whole.write_bytes(data[:cut])
        counts, records = run(tmp_path / f"out-{cut}.jsonl", whole)
        # A tar that ends early, at a place where the next member's header would be, looks whole.
        assert counts.failed == len(records) >= (0 if name == "a.tar" else 1)


def test_a_member_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "bomb.zip", {"bomb.png": bytes(70 << 20)})
    monkeypatch.setenv("FACEPIPE_MAX_BYTES", "1000")
    sources = find_sources([str(archive)])
    source = next(sources)
    with pytest.raises(ImageError, match="more than"):
        source.load()


def test_the_stamp_tells_a_change(tmp_path: Path) -> None:
    def stamp() -> str:
        (source,) = find_sources([str(tmp_path / "a.png")])
        assert isinstance(source, Source)
        return source.stamp

    path = paint(tmp_path / "a.png", "red")
    first = stamp()
    assert stamp() == first
    path.write_bytes(path.read_bytes() + b"more")
    assert stamp() != first


# ---- what is passed over, and what archives hold ----


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        ".stversions",
        "lost+found",
        ".thumbnails",
        "__MACOSX",
        "System Volume Information",
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_folders_of_systems_are_no_photos_in_any_source(tmp_path: Path, folder: str, kind: str) -> None:
    photo = paint(tmp_path / "in" / "Ann" / "a.png")
    for place in (tmp_path / "in" / folder, tmp_path / "in" / "Ann" / folder.upper() / "deep"):
        paint(place / "b.png")
    if kind == "folder":
        assert names(tmp_path / "in") == [str(photo)]
        people, astray = collect_photos([tmp_path / "in"], None)
        assert [(person.person, person.path) for person in people] == [("Ann", photo)] and not astray
        return
    packed = tmp_path / f"in.{kind}"
    members = {str(path.relative_to(tmp_path / "in")): path.read_bytes() for path in (tmp_path / "in").rglob("*.png")}
    pack(packed, members)
    assert names(packed) == [f"{packed}!Ann/a.png"]


def test_members_of_one_name_and_links_are_photos_of_their_own(tmp_path: Path) -> None:
    first, second = paint(tmp_path / "1.png", "red").read_bytes(), paint(tmp_path / "2.png", "blue").read_bytes()
    zipped, tarred = tmp_path / "a.zip", tmp_path / "a.tar.gz"
    with zipfile.ZipFile(zipped, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.png", first)
        archive.writestr("a.png", second)
    with tarfile.open(tarred, "w:gz") as archive:
        for data in (first, second):
            info = tarfile.TarInfo("d/a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind, target in (
            ("hard.png", tarfile.LNKTYPE, "d/a.png"),
            ("d/soft.png", tarfile.SYMTYPE, "a.png"),
            ("lost.png", tarfile.SYMTYPE, "../../etc/passwd"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    for path, folder in ((zipped, ""), (tarred, "d/")):
        loaded = {source.name.partition("!")[2]: source.load for source in find_sources([str(path)])}
        found = {}
        for source in find_sources([str(path)]):
            try:
                found[source.name.partition("!")[2]] = source.load()
            except InputError as error:
                found[source.name.partition("!")[2]] = str(error).encode()
        assert found[f"{folder}a.png"] == first and found[f"{folder}a.png (2)"] == second
        assert loaded.keys() == found.keys()
    assert found["hard.png"] == first and found["d/soft.png"] == first
    assert b"is not in the archive" in found["lost.png"]


def test_a_small_archive_that_unpacks_to_much_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPIPE_MAX_BYTES", "1000000")
    hostile_bombs.sparse_tar(tmp_path, 2, 5 << 20)
    hostile_bombs.big_zip(tmp_path, 2, 1 << 24)
    for packed in (tmp_path / "sparse.tar", tmp_path / "big.zip"):
        for source in find_sources([str(packed)]):
            with pytest.raises(ImageError, match="has more than 1,000,000 bytes; raise FACEPIPE_MAX_BYTES"):
                source.load()
    hostile_bombs.pax_header(tmp_path, 50 << 20)
    (source,) = find_sources([str(tmp_path / "pax.tar")])
    assert source.problem is not None and "a header of 52,428,800 bytes" in source.problem


def test_a_large_member_waits_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facepipe.catalog.scan._IN_MEMORY", 10)
    data = bytes(range(100))
    load = _kept(data)
    assert load() == data == load()
    assert _kept(data[:5])() == data[:5]
