"""Photos in object stores: found, scanned and told as those in folders are, and nothing opened but what the user named."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facepipe.catalog import remote
from facepipe.catalog.catalog import Catalog
from facepipe.catalog.merge import merge_catalogs
from facepipe.catalog.scan import ScanOptions
from facepipe.catalog.shards import BLOCK, Shard
from facepipe.catalog.sources import Source, find_sources, none_exists
from facepipe.catalog.store import catalog_path
from facepipe.cli import main
from facepipe.errors import ImageError, InputError, LibraryError, StoreError, UsageError
from facepipe.groups.shown import CatalogPhoto
from facepipe.images import Passing, is_left_out, read_bytes
from facepipe.review.pictures import picture as shown
from facepipe.types import Failed
from tests.batch_fixtures import paint, paint_many, recognizer, run
from tests.stores import forget, http_server, is_below, memory_store, s3_server, upload, use
from tests.test_batch import CountingDetector

ROOT = Path(__file__).parent.parent


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with memory_store(monkeypatch) as store:
        yield store


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Let s3:// be the server; give its client."""
    use(monkeypatch, server)
    yield remote._store("s3")
    forget()


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    """Write photos in folders, two broken, and what lies among photos."""
    folder = tmp_path / "pile"
    paint_many(folder, 12, broken=(3,))
    paint_many(folder / "2019" / "may", 7, broken=(2,))
    shutil.copyfile(folder / "0002.png", folder / "2019" / "photo10.png")
    shutil.copyfile(folder / "0005.png", folder / "2019" / "photo2.png")
    for name in (
        "a.txt",
        "b.zip",
        "c.xmp",
        ".hidden/x.png",
        "@eaDir/x.png",
        "raws/0001.dng",
        "raws/0001.JPG",
        "out/.facepipe-output",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"something")
    paint(folder / "out" / "x.png", "red")
    paint(folder / "never" / "x.png", "red")
    (folder / ".facepipeignore").write_text("never/\n")
    return folder


def told(record: dict[str, Any], place: str) -> dict[str, Any]:
    """Return a record with its path below a place."""
    return json.loads(json.dumps(record).replace(place, "PILE"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("protocol", ["memory", "s3"])
def test_a_store_gives_what_a_folder_gives(
    protocol: str, pile: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue({"memory": "store", "s3": "s3"}[protocol])
    url = f"{protocol}://photos-{protocol}/pile"
    upload(pile, url)
    here, local = run(tmp_path / "local.jsonl", pile)
    detector = CountingDetector()
    there, records = run(tmp_path / "remote.jsonl", url, detector=detector)
    assert [told(record, url) for record in records] == [told(record, str(pile)) for record in local]
    assert (there.found, there.failed, there.passed) == (here.found, here.failed, here.passed) and there.found == 22
    assert (
        there.passed == "1 archive, 1 sidecar, 1 raw photo beside its JPEG, 1 other file, 1 system folder, 1 excluded"
    )
    faces = (tmp_path / "local.failures.csv").read_text().replace(str(pile), url)
    assert (tmp_path / "remote.failures.csv").read_text() == faces
    again = CountingDetector()
    counts, records = run(tmp_path / "remote.jsonl", url, detector=again)
    assert (detector.seen != [], again.seen, counts.fresh) == (True, [], 3)  # what failed is tried again


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which objects are read."""
    seen: list[str] = []
    ask = remote._ask

    def noted(name: str, method: str, *arguments: Any, **more: Any) -> Any:
        seen.extend([name] if method == "cat_file" else [])
        return ask(name, method, *arguments, **more)

    monkeypatch.setattr(remote, "_ask", noted)
    return seen


def test_what_changed_is_read_again_and_what_is_gone_is_told(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url, out = tmp_path / "pile", "memory://bucket/pile", tmp_path / "out.jsonl"
    paths = paint_many(folder, 6)
    upload(folder, url)
    crops: dict[str, Any] = {"crops": tmp_path / "crops", "sort_into": tmp_path / "sorted"}
    run(out, url, **crops)
    made = {path.name for path in (tmp_path / "crops").iterdir()}
    seen = reads(monkeypatch)
    assert run(out, url, **crops)[0].fresh == 0 and seen == []
    store.pipe_file("bucket/pile/0001.png", paint(tmp_path / "new.png", "green", "red").read_bytes())
    store.rm("bucket/pile/0002.png")
    counts, records = run(out, url, **crops)
    assert (counts.fresh, counts.gone, counts.left, counts.found) == (1, 1, 0, 5)
    assert set(seen) == {f"{url}/0001.png"}
    assert [record["path"] for record in records if "vanished" in (record["error"] or "")] == [f"{url}/0002.png"]
    assert any(name.startswith("0002") for name in made)
    assert not any(path.name.startswith("0002") for path in (tmp_path / "crops").iterdir())
    copies = [path for path in (tmp_path / "sorted").rglob("*.png") if path.name.startswith("0002")]
    assert copies and all(path.read_bytes() == paths[2].read_bytes() for path in copies)  # a copy may be the last
    # What is there and not in the input is left, and not gone.
    assert run(out, f"{url}/0003.png")[0].left == 4


PARTS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=0, max_size=12)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(PARTS, max_size=3), PARTS), max_size=6))
def test_whatever_a_key_is_its_own_bytes_are_read(store: Any, keys: list[tuple[list[str], str]]) -> None:
    store.store.clear()
    for folders, name in keys:
        key = "bucket/" + "/".join([*folders, f"{name}.jpg"])
        store.store.pop(f"/{key}", None)
        store.pipe_file(key, key.encode())
    found = list(find_sources(["memory://bucket"])) if keys else []
    assert len({source.name for source in found}) == len(found)
    for source in found:
        if source.problem is None:
            assert source.load() == source.name.removeprefix("memory://").encode()
        else:
            assert source.problem.isprintable() and "empty name" in source.problem
    read = {source.name for source in found if source.problem is None}
    for key in (path[1:].removeprefix("bucket/") for path in store.store):
        shown = not any(part == "" or is_left_out(part) for part in key.split("/"))
        assert (f"memory://bucket/{key}" in read) == shown


HOSTILE = [
    *[
        "../../up.jpg",
        "a/../../b.jpg",
        "..jpg/x.jpg",
        "./x.jpg",
        "per%2e%2e%2fcent.jpg",
        "what?.jpg",
        "v?versionId=1.jpg",
        "ha#1.jpg",
        "zip!x.jpg",
    ],
    *(
        "nul\0.jpg",
        "new\nline.jpg",
        "\x1b[2J.jpg",
        "\u202egpj.jpg",
        "-rf .jpg",
        "<script>.jpg",
        "=1+1.jpg",
        "c:\\x.jpg",
        "con.jpg",
    ),
    *("k" * 1000 + ".jpg", "s" * 400 + "." + "x" * 300 + ".jpg"),
]


def test_outputs_stay_in_their_folders_whatever_keys_are(store: Any, tmp_path: Path) -> None:
    photo = paint(tmp_path / "photo.png", "red", "green")
    for key in HOSTILE:
        store.pipe_file(f"bucket/{key}", photo.read_bytes())
    place = tmp_path / "here"
    place.mkdir()
    folders: dict[str, Any] = {name: place / name for name in ("annotate", "crops", "sort_into")}
    out, report = place / "out.jsonl", place / "page.html"
    counts, _ = run(out, "memory://bucket", report=report, **folders)
    hidden = sum(any(part.startswith(".") for part in key.split("/")) for key in HOSTILE)
    assert (counts.found, counts.failed, hidden) == (len(HOSTILE) - hidden, 0, 4)
    for folder in folders.values():
        assert all(is_below(path, folder) for path in folder.rglob("*"))
        assert len(list(folder.rglob("*.jpg"))) >= (1 if folder.name == "sort_into" else counts.found)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "here"}
    assert "<script>." not in report.read_text()
    # Named itself, whatever it is called.
    store.pipe_file("bucket/.. /x." + "y" * 500, photo.read_bytes())
    run(place / "one.jsonl", "memory://bucket/.. /x." + "y" * 500, **folders)


def test_keys_in_s3_are_read_as_they_are_or_said(s3: Any) -> None:
    s3.mkdir("hostile")
    keys = [
        "a::b.jpg",
        "zip::s3:.jpg",
        "per%2e%2fcent.jpg",
        "what?.jpg",
        "ha#1.jpg",
        "+and&amp.jpg",
        "k" * 1000 + ".jpg",
    ]
    for key in keys:
        s3.pipe_file(f"hostile/{key}", key.encode())
    for key in ("f/", "v.jpg?versionId=abc.jpg", "/lead.jpg", "q//x.jpg", "../up.jpg"):
        s3.call_s3("put_object", Bucket="hostile", Key=key, Body=b"another")
    found = list(find_sources(["s3://hostile"]))
    assert {s.name: s.load() for s in found if s.problem is None} == {
        f"s3://hostile/{key}": key.encode() for key in keys
    }
    assert sorted(source.name for source in found if source.problem) == [
        *("s3://hostile//", "s3://hostile/q//", "s3://hostile/v.jpg?versionId=abc.jpg"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        *("s3://AKIA:hush@bucket/x.jpg", "s3://AKIA:hu/sh@bucket/x.jpg", "s3://hush@bucket/x"),
        *("s3://bucket/x.jpg?X-Amz-Signature=hush", "s3://bucket//x", "s3:///x", "s3://"),
        *("simplecache::s3://k:hush@b/x.jpg", "zip://x.jpg::s3://k:hush@b/x.zip", "github://k:hush@b/x.jpg"),
        *("memory://hush/x.jpg", "file:///etc/hush", "local://hush", "reference://hush", "https://k:hush@b/x.jpg"),
    ],
)
def test_urls_that_hold_more_or_are_others_are_refused_in_a_line(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fsspec, "filesystem", lambda *given, **more: pytest.fail("opened"))
    out = str(tmp_path / "out.jsonl")
    for command in (
        *(["batch", url, "--out", out], ["scan", url, "--catalog", "a.catalog"], ["enroll", url], ["detect", url]),
        *(
            ["identify", url],
            ["verify", url, url],
            ["explain", url],
            ["blur", url, "--out", "blurred"],
            ["regions", "read", url],
        ),
        *(["batch", "--out", url, "x.jpg"], ["scan", "x.jpg", "--catalog", url]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(command)
        said = "".join(capfd.readouterr())
        # 5: without a gallery it does not come to the URL.
        assert stop.value.code in (2, 3, 5) and said.count("\n") == 1, said
        assert "hush" not in said or not {"@", "?"} & set(url), said
        assert list(tmp_path.iterdir()) == []


def test_a_catalog_from_somebody_else_opens_nothing(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = paint(tmp_path / "pile" / "x.png", "red")
    store.pipe_file("bucket/x.png", photo.read_bytes())
    store.pipe_file("bucket/y.png", paint(tmp_path / "y.png", "blue").read_bytes())
    out = tmp_path / "out.jsonl"
    run(out, "memory://bucket")
    forget()
    store.rm("bucket/y.png")
    monkeypatch.setattr(remote, "_ask", lambda *given, **more: pytest.fail(f"asked for {given}"))
    with pytest.raises(UsageError, match="not one photo of the earlier run"):
        run(out, photo.parent)
    with Catalog(catalog_path(out), write=True) as catalog:
        counts = catalog.scan([photo], recognizer().describer)
        assert (counts.gone, counts.left) == (0, 2)
    with pytest.raises(InputError, match=r"memory://bucket/x.png: is a URL"):
        read_bytes("memory://bucket/x.png")
    with pytest.raises(InputError, match=r"memory://bucket/x.png: is a URL"):
        shown(CatalogPhoto("", "memory://bucket/x.png", 10, 10, None), 100)


def test_sizes_are_kept_to(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pipe_file("bucket/a.jpg", b"x" * 1000)
    store.pipe_file("bucket/empty.jpg", b"")
    monkeypatch.setenv("FACEPIPE_MAX_BYTES", "900")
    large, empty = find_sources(["memory://bucket"])
    seen = reads(monkeypatch)
    with pytest.raises(ImageError, match="more than 900 bytes"):
        large.load()
    assert empty.load() == b"" and seen == []
    monkeypatch.delenv("FACEPIPE_MAX_BYTES")
    for data in (b"x" * 999, b"x" * 1001):
        store.pipe_file("bucket/a.jpg", data)
        with pytest.raises(InputError, match="changed or was cut off") as error:
            large.load()
        assert not isinstance(error.value, ImageError)
    store.rm("bucket/a.jpg")
    with pytest.raises(InputError, match="deleted meanwhile"):
        large.load()


def test_offline_and_without_the_extra_it_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def none(*given: object, **more: object) -> None:
        raise ImportError("Install s3fs to access S3")

    forget()
    monkeypatch.setattr(fsspec, "filesystem", none)
    with pytest.raises(LibraryError, match=r"needs s3fs.*pip install 'facepipe\[remote\]'"):
        none_exists(["s3://bucket"])
    monkeypatch.setenv("FACEPIPE_OFFLINE", "1")
    with pytest.raises(InputError, match="FACEPIPE_OFFLINE is set: s3:// is not opened"):
        none_exists(["s3://bucket"])


def test_what_is_not_there_and_what_is_not_read_is_said(store: Any, tmp_path: Path) -> None:
    store.pipe_file("bucket/a.png", paint(tmp_path / "a.png", "red").read_bytes())
    store.pipe_file("bucket/clip.mp4", b"video")
    with pytest.raises(InputError, match="no such bucket or object"):
        run(tmp_path / "out.jsonl", "memory://bucket/none")
    assert not catalog_path(tmp_path / "out.jsonl").exists()
    roots = ["memory://bucket/none", "memory://bucket/a.png", "memory://bucket/clip.mp4", "memory://bucket/a.png"]
    found = list(find_sources(roots))
    assert [source.problem is None for source in found] == [False, True, False]
    passing = Passing()
    assert (
        len(list(find_sources(["memory://bucket"], (), passing))) == 1
        and passing.told() == "1 video (not looked at here)"
    )


def answering(code: int, error: str) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{error}</Code><Message>no: {error}</Message></Error>".encode()
        request.send_response(code)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (500, "InternalError"),
        (503, "SlowDown"),
        (404, "NoSuchBucket"),
    ],
)
def test_a_server_that_refuses_is_one_line(
    code: int, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with http_server(answering(code, error)) as endpoint:
        use(monkeypatch, endpoint.replace("//", "//user:hush@"))
        for url in ("s3://bucket/folder/", "s3://bucket"):
            with pytest.raises(SystemExit) as stop:
                main(["batch", url, "--out", "out.jsonl"])
            said = "".join(capfd.readouterr())
            assert (stop.value.code, said.count("\n")) == (3, 1) and "hush" not in said, said
            assert list(tmp_path.iterdir()) == []
        with pytest.raises(InputError) as failed:
            remote._load("s3://bucket/x.jpg", 10)
        assert "hush" not in str(failed.value)
    forget()


def test_a_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_SECONDS", 1.0)
    with http_server(lambda request: time.sleep(20)) as endpoint:
        use(monkeypatch, endpoint)
        started = time.monotonic()
        with pytest.raises(InputError, match="no answer within 1 s"):
            remote._load("s3://bucket/x.jpg", 10)
        assert time.monotonic() - started < 10
    forget()


def test_a_photo_that_is_cut_off_fails_and_the_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(206)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 500)
        request.close_connection = True

    with http_server(cut) as endpoint:
        use(monkeypatch, endpoint)
        with pytest.raises(InputError, match="cannot be read"):
            remote._load("s3://bucket/x.jpg", 1000)
    forget()


def test_shards_of_a_bucket_come_together(s3: Any, tmp_path: Path) -> None:
    paint_many(tmp_path / "pile", 2 * BLOCK + 5, broken=(7,))
    upload(tmp_path / "pile", "s3://sharded")
    run(tmp_path / "one.jsonl", "s3://sharded")
    for number in (1, 2):
        with Catalog(tmp_path / f"{number}.catalog", write=True) as catalog:
            catalog.scan(["s3://sharded"], recognizer().describer, ScanOptions(shard=Shard(number, 2)))
    merge_catalogs([tmp_path / "1.catalog", tmp_path / "2.catalog"], tmp_path / "all.jsonl.catalog")
    seen = CountingDetector()
    run(tmp_path / "all.jsonl", "s3://sharded", detector=seen)
    assert seen.seen == [] and (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_a_source_can_be_sent(store: Any) -> None:
    store.pipe_file("bucket/a.jpg", b"bytes")
    (source,) = find_sources(["memory://bucket"])
    sent: Source = pickle.loads(pickle.dumps(source))
    assert (
        (sent.name, sent.stamp) == (source.name, source.stamp)
        and sent.load() == b"bytes"
        and len(pickle.dumps(source)) < 500
    )


def test_a_killed_batch_of_a_bucket_ends_as_if_nobody_had_killed_it(s3: Any, tmp_path: Path) -> None:
    paint_many(tmp_path / "pile", 80, broken=(11,))
    upload(tmp_path / "pile", "s3://killed")
    out = tmp_path / "out.jsonl"

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.kill_target", "s3://killed", str(out), "red", "blue"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    for share in (0.3, 0.6):
        with start() as process:
            assert process.stdout is not None
            process.stdout.readline()
            wait = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < wait and scanned(out) < share * 80:
                time.sleep(0.02)
            process.kill()
        assert 0 < scanned(out) < 80
    with start() as process:
        assert process.wait() == 0
    run(tmp_path / "whole.jsonl", "s3://killed")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def scanned(out: Path) -> int:
    try:
        with Catalog(catalog_path(out)) as catalog:
            return len(catalog)
    except InputError:
        return 0


@pytest.mark.models
def test_ray_workers_read_a_bucket_themselves(s3: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from facepipe.images import write_image
    from facepipe.images.samples import portraits
    from tests.test_ray import contents

    for number in range(2):
        for name, image in portraits().items():
            rgb = image.rgb.copy()
            rgb[0, 0] = number
            write_image(tmp_path / "pile" / f"{name} {number}.png", rgb)
    (tmp_path / "pile" / "bad.jpg").write_bytes(b"not an image")
    upload(tmp_path / "pile", "s3://raybucket")
    for name, more in (("one.catalog", []), ("ray.catalog", ["--ray", "local", "--workers", "2"])):
        command = [
            sys.executable,
            "-m",
            "facepipe",
            "scan",
            "s3://raybucket",
            "--device",
            "cpu",
            "--catalog",
            name,
            *more,
        ]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 7, ended.stderr
    assert contents(tmp_path / "ray.catalog") == contents(tmp_path / "one.catalog")
    assert re.search(r"\b5 photos\b", ended.stdout)


@pytest.mark.models
def test_identify_reads_one_object(s3: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from facepipe.images import write_image
    from facepipe.images.samples import portraits

    for name, portrait in portraits().items():
        write_image(tmp_path / "people" / name / "1.png", portrait.rgb)
    upload(tmp_path / "people", "s3://people")
    home = ["--gallery", str(tmp_path / "gallery")]

    def facepipe(*arguments: str, code: int = 0) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*arguments, *home])
        out, said = capfd.readouterr()
        assert stop.value.code == code, said
        return out if code == 0 else said

    facepipe("enroll", str(tmp_path / "people"))
    name = next(iter(portraits()))
    url = f"s3://people/{name}/1.png"
    crops = tmp_path / "crops"
    there = facepipe("identify", url, "--json", "--crops", str(crops))
    here = facepipe("identify", str(tmp_path / "people" / name / "1.png"), "--json")
    assert json.loads(there.replace(url, "X")) == json.loads(
        here.replace(str(tmp_path / "people" / name / "1.png"), "X")
    )
    assert len([path for path in crops.iterdir() if path.suffix == ".jpg"]) == 1
    assert "use facepipe batch" in facepipe("identify", "s3://people", code=3)
    assert "use facepipe batch" not in facepipe("identify", "s3://people/none.zip", code=3)
    assert "no such bucket or object" in facepipe("identify", "s3://people/none.jpg", code=3)


def test_failures_of_a_store_are_records_and_tried_again(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint_many(tmp_path / "pile", 5)
    upload(tmp_path / "pile", "memory://bucket")
    ask = remote._ask

    def failing(name: str, method: str, *arguments: Any, **more: Any) -> Any:
        if method == "cat_file" and name.endswith("3.png"):
            raise InputError(f"{name}: no answer within 60 s")
        return ask(name, method, *arguments, **more)

    monkeypatch.setattr(remote, "_ask", failing)
    counts, records = run(tmp_path / "out.jsonl", "memory://bucket")
    assert counts.failed == 1 and "no answer" in (records[3]["error"] or "")
    with Catalog(catalog_path(tmp_path / "out.jsonl")) as catalog:
        assert [isinstance(photo, Failed) for photo in catalog.photos()] == [False, False, False, True, False]
    monkeypatch.setattr(remote, "_ask", ask)
    counts, _ = run(tmp_path / "out.jsonl", "memory://bucket")
    assert (counts.failed, counts.fresh) == (0, 1)


@pytest.mark.parametrize("down", [True, False])
def test_a_store_that_is_down_ends_the_run_and_archived_photos_do_not(
    down: bool, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = remote._IN_A_ROW + 20
    paint_many(tmp_path / "pile", count)
    upload(tmp_path / "pile", "memory://bucket")
    ask = remote._ask

    def failing(name: str, method: str, *arguments: Any, **more: Any) -> Any:
        if name > "memory://bucket/0003.png" and (method == "cat_file" or (down and method == "info")):
            raise InputError(f"{name}: cannot be read (InvalidObjectState)")
        return ask(name, method, *arguments, **more)

    monkeypatch.setattr(remote, "_ask", failing)
    out = tmp_path / "out.jsonl"
    if not down:
        assert run(out, "memory://bucket")[0].failed == count - 4
        return
    with pytest.raises(StoreError, match="in a row: later, the same command goes on"):
        run(out, "memory://bucket")
    monkeypatch.setattr(remote, "_ask", ask)
    remote._failed.clear()
    assert run(out, "memory://bucket")[0].failed == 0
