"""`facepipe models`: a pull keeps the right file or nothing at all, asks where it must, and never connects unasked."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click.testing
import hypothesis
import pytest
from hypothesis import strategies as st

from facepipe.cli.models import _Bar, models
from facepipe.embed.embedder import load_embedder
from facepipe.errors import FacepipeError, InputError, ModelError, UsageError
from facepipe.models import registry
from facepipe.models.folder import arriving
from facepipe.models.onnx_engine import OnnxEngine, names_other_files
from facepipe.models.registry import ModelFile, ModelRecord, get_record, locate

from .test_registry import tiny_onnx

GOOD = bytes(range(256)) * 4096  # one MiB
SHA256 = hashlib.sha256(GOOD).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the same bytes in several good and bad ways."""

    def do_GET(self) -> None:
        paths = self.server.paths  # type: ignore[attr-defined]
        paths.append(self.path)
        kind = self.path.rsplit("/", 1)[-1]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        body = {"wrong": GOOD[:-1] + b"x", "long": GOOD * 3}.get(kind, GOOD)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "truncated":
            self.wfile.write(body[: len(body) // 2])
            return
        if kind == "trickle":
            while not self.server.stop.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
        if kind == "slow":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.stop.wait(20)  # type: ignore[attr-defined]
            return
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.stop = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away early is what some tests are about."""

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{kind}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.stop.set()
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("FACEPIPE_OFFLINE", raising=False)
    return tmp_path / "models"


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> ModelRecord:
    """`sface`, `w600k-mbf` and `casia-webface` as recorded, but with our server's file."""

    def ours(known: ModelRecord) -> dict[str, object]:
        file = known.files[0]
        mine = replace(file, sha256=SHA256 if file.sha256 else None, size=len(GOOD) if file.size else None)
        return replace(known, files=(replace(mine, url=server.url("good")),)).as_dict()

    records = [
        ours(r) if r.name in {"sface", "w600k-mbf", "casia-webface"} else r.as_dict()
        for r in registry.builtin_records()
    ]
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records))
    monkeypatch.setattr(registry, "RECORDS", path)
    return get_record("sface")


def run(*arguments: str, answer: str | None = None) -> tuple[str, FacepipeError | None]:
    result = click.testing.CliRunner().invoke(models, list(arguments), input=answer)
    if result.exception is not None and not isinstance(result.exception, FacepipeError):
        assert isinstance(result.exception, SystemExit), result.exception
    return result.output, result.exception if isinstance(result.exception, FacepipeError) else None


def left_over(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.exists() else []


def test_a_pull_keeps_the_recorded_file_and_a_second_one_does_not_connect(
    record: ModelRecord, server: Server, folder: Path
) -> None:
    output, error = run("pull", "sface")
    assert error is None
    place = locate(record)[0]
    assert output.strip() == str(place)
    assert place.read_bytes() == GOOD
    assert left_over(folder) == [f"sface/{record.files[0].file}"]
    run("pull", "sface")
    assert server.paths == ["/good"]
    assert run("verify", "sface")[0].split() == ["sface", "ok"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("wrong", "is not the recorded file: SHA-256"),
        ("truncated", "cannot be downloaded"),
        ("missing", "404"),
        ("long", "more bytes than the recorded file"),
    ],
)
def test_a_bad_answer_leaves_nothing_behind(
    record: ModelRecord, server: Server, folder: Path, kind: str, message: str
) -> None:
    _, error = run("pull", "sface", "--from", server.url(kind))
    assert isinstance(error, ModelError)
    assert message in str(error)
    assert "\n" not in str(error)
    assert left_over(folder) == []
    assert run("pull", "sface")[1] is None  # and the next attempt is whole


def test_a_wrong_file_names_both_hashes(record: ModelRecord, server: Server) -> None:
    _, error = run("pull", "sface", "--from", server.url("wrong"))
    assert hashlib.sha256(GOOD[:-1] + b"x").hexdigest() in str(error)
    assert SHA256 in str(error)


def test_a_wrong_file_does_not_replace_a_right_one(record: ModelRecord, server: Server) -> None:
    run("pull", "sface")
    place = locate(record)[0]
    place.write_bytes(b"damaged later")
    assert run("verify", "sface")[0].split()[:2] == ["sface", "bad"]
    assert isinstance(run("verify")[1], ModelError)
    assert isinstance(run("pull", "sface", "--from", server.url("wrong"))[1], ModelError)
    assert place.read_bytes() == b"damaged later"
    assert run("pull", "sface")[1] is None
    assert place.read_bytes() == GOOD


def test_a_server_that_is_not_there_is_one_line(record: ModelRecord, folder: Path) -> None:
    _, error = run("pull", "sface", "--from", "http://127.0.0.1:9/file")
    assert isinstance(error, ModelError)
    assert "--from FILE" in str(error)
    assert left_over(folder) == []


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        (
            "http://anna:secret@127.0.0.1:9/file?token=secret",
            ModelError,
            "http://127.0.0.1:9/file cannot be downloaded",
        ),
        ("http://anna:secret@nosuch.invalid/file", ModelError, "is there a network"),
        ("http://anna:secret@[bad/file", UsageError, "cannot be read as an address"),
        ("http://anna:secret@127.0.0.1:99999/file", ModelError, "cannot be downloaded"),
        ("http://anna:secret@/file", ModelError, "this is not an address"),
        ("ftp://anna:secret@example.org/file", UsageError, "only http, https and file"),
    ],
)
def test_an_address_that_does_not_answer_is_told_in_words_and_without_its_password(
    record: ModelRecord, folder: Path, address: str, kind: type[FacepipeError], message: str
) -> None:
    _, error = run("pull", "sface", "--from", address)
    assert isinstance(error, kind) and message in str(error)
    assert not any(word in str(error) for word in ("secret", "anna", "urllib3", "HTTPConnection", "Errno"))
    assert left_over(folder) == []


def test_a_wrong_file_does_not_tell_the_password(record: ModelRecord, server: Server) -> None:
    _, error = run("pull", "sface", "--from", server.url("wrong").replace("//", "//anna:secret@"))
    assert "is not the recorded file" in str(error) and "secret" not in str(error)


def test_a_server_that_trickles_bytes_is_cut_off(
    record: ModelRecord, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facepipe.models.pull.TOTAL_TIMEOUT", 0.3)
    monkeypatch.setattr("facepipe.models.pull._CHUNK", 4)
    _, error = run("pull", "sface", "--from", server.url("trickle"))
    assert isinstance(error, ModelError) and "takes too long" in str(error)
    assert left_over(folder) == []


def test_a_redirect_is_followed(record: ModelRecord, server: Server) -> None:
    assert run("pull", "sface", "--from", server.url("moved"))[1] is None
    assert server.paths == ["/moved", "/good"]


def test_a_mirror_is_a_url_that_ends_with_a_slash(record: ModelRecord, server: Server) -> None:
    assert run("pull", "sface", "--from", server.url("mirror/"))[1] is None
    assert server.paths == [f"/mirror/{record.files[0].file}"]


def test_offline_no_connection_is_made_but_a_file_serves(
    record: ModelRecord, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEPIPE_OFFLINE", "1")
    for arguments in (["pull", "sface"], ["pull", "sface", "--from", server.url("good")]):
        _, error = run(*arguments)
        assert isinstance(error, ModelError)
        assert "FACEPIPE_OFFLINE" in str(error)
    assert server.paths == []
    path = tmp_path / "with a space.onnx"
    path.write_bytes(GOOD)
    assert run("pull", "sface", "--from", path.as_uri())[1] is None
    assert locate(record)[0].read_bytes() == GOOD


def test_a_folder_serves_by_the_files_name(record: ModelRecord, tmp_path: Path) -> None:
    (tmp_path / record.files[0].file).write_bytes(GOOD)
    assert run("pull", "sface", "--from", str(tmp_path))[1] is None
    _, error = run("pull", "w600k-mbf", "--accept-licence", "--from", str(tmp_path / "absent"))
    assert isinstance(error, ModelError)
    assert "cannot be read" in str(error)


def test_a_restricted_licence_needs_consent_before_anything_is_opened(
    record: ModelRecord, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, error = run("pull", "w600k-mbf")
    assert isinstance(error, UsageError)
    assert "--accept-licence" in str(error)
    assert "non-commercial" in output
    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: self.name == "<stdin>", raising=False)
    assert isinstance(run("pull", "w600k-mbf", answer="n\n")[1], UsageError)
    assert server.paths == []
    assert run("pull", "w600k-mbf", answer="y\n")[1] is None
    assert run("pull", "w600k-mbf", "--accept-licence")[1] is None
    assert server.paths == ["/good"]


def test_a_file_without_a_recorded_hash_is_confirmed_once_and_pinned(
    record: ModelRecord, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = ("pull", "casia-webface", "--accept-licence")
    output, error = run(*pull)
    assert isinstance(error, ModelError)
    assert SHA256 in output and f"--accept-sha256 {SHA256}" in str(error)
    assert isinstance(run(*pull, "--accept-sha256", "0" * 64)[1], ModelError)
    assert left_over(folder) == []
    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: self.name == "<stdin>", raising=False)
    assert isinstance(run(*pull, answer="n\n")[1], ModelError)
    assert left_over(folder) == []
    assert run(*pull, answer="y\n")[1] is None
    place = locate(get_record("casia-webface"))[0]
    assert left_over(folder) == sorted(f"casia-webface/{name}" for name in (place.name, "pinned.json"))
    place.unlink()
    assert "is not the recorded file" in str(run(*pull, "--from", server.url("wrong"))[1])
    assert run(*pull)[1] is None


def test_shipped_and_packaged_models_are_not_fetched(record: ModelRecord) -> None:
    assert "shipped with facepipe" in str(run("pull", "mini")[1])
    assert "installed package" in str(run("pull", "mtcnn")[1])
    assert "cannot be removed" in str(run("remove", "mini")[1])


def test_an_interrupted_pull_leaves_no_half_file_and_the_next_one_is_whole(
    record: ModelRecord, server: Server, folder: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    code = (
        # A test run in the background inherits an ignored SIGINT, and so would the child.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from pathlib import Path; from facepipe.models import registry;"
        f"registry.RECORDS = Path({str(registry.RECORDS)!r}); from facepipe.cli import main;"
        f"main(['models', 'pull', 'sface', '--from', {server.url('slow')!r}])"
    )
    for kind in (signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + 20
            while child.poll() is None and not any(part.stat().st_size for part in folder.glob("sface/.*.part")):
                if time.monotonic() > deadline:
                    child.kill()
                time.sleep(0.02)
            child.send_signal(kind)
        assert child.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
        whole = [name for name in left_over(folder) if not name.endswith(".part")]
        assert whole == []
        if kind == signal.SIGINT:
            assert left_over(folder) == []
    assert run("pull", "sface")[1] is None
    assert left_over(folder) == [f"sface/{record.files[0].file}"]


def test_a_folder_that_cannot_be_written_is_named(
    record: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "file"))
    _, error = run("pull", "sface")
    assert isinstance(error, ModelError)
    assert "FACEPIPE_MODELS" in str(error)


def test_an_own_network_is_added_used_shown_and_removed(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(tiny_onnx(dim=6))
    output, error = run("add", str(path), "--name", "mine", "--template", "arcface112", "--threshold", "0.5", "--bgr")
    assert error is None, error
    embedder = load_embedder("mine", "cpu")
    assert (embedder.name, embedder.dim, embedder.template) == ("mine", 6, "arcface112")
    assert embedder.fingerprint in output
    record = get_record("mine")
    assert record.user and record.colour == "bgr" and record.decision() == (0.5, 0.03)
    assert record.files[0] == ModelFile("mine.onnx", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    assert "mine" in [m["name"] for m in json.loads(run("list", "--json")[0])["models"]]
    assert "already" in str(run("add", str(path), "--name", "mine", "--template", "arcface112")[1])
    assert "your own" in str(run("pull", "mine")[1])
    assert run("remove", "mine")[1] is None
    assert left_over(folder) == []
    assert isinstance(run("show", "mine")[1], ModelError)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (tiny_onnx(), ["--dim", "7"], "expected an output of shape"),
        (tiny_onnx(size=64), [], "choose another --template"),
        (tiny_onnx(bad=True), [], "not finite"),
        (b"no network", [], "cannot load"),
        (tiny_onnx(), ["--mean", "1,2"], "one number, or three"),
        (tiny_onnx(), ["--std", "0"], "must not be zero"),
        (tiny_onnx(), ["--template", "square"], "no alignment template"),
        (tiny_onnx(), ["--name", "../up"], "model name"),
        (tiny_onnx(), ["--name", "mini"], "already"),
    ],
)
def test_a_network_that_does_not_work_is_not_added(
    tmp_path: Path, folder: Path, content: bytes, options: list[str], message: str
) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    _, error = run("add", str(path), "--name", "x", "--template", "arcface112", *options)
    assert message in str(error)
    assert left_over(folder) == []


def _external(place: str) -> bytes:
    """A network one of whose tensors is said to lie in `weights.bin`: a weight, or a constant inside a branch of an `If`."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(tiny_onnx())
    tensor = model.graph.initializer[0]
    if place != "weight":
        inner = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
        branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=inner)], "branch", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))
        tensor = model.graph.node[-1].attribute[0].g.node[0].attribute[0].t
    size = len(tensor.raw_data) or 4
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    if place != "branch without location":
        tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": str(size)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["weight", "branch", "branch without location"])
def test_a_network_whose_weights_lie_in_another_file_is_not_run(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(_external(place))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    _, error = run("add", str(path), "--name", "x", "--template", "arcface112")
    assert "external data" in str(error) and isinstance(error, ModelError)
    assert left_over(folder) == []
    with pytest.raises(ModelError, match="external data"):
        OnnxEngine(path.read_bytes(), "x", "cpu")


@hypothesis.given(st.binary(max_size=200))
def test_bytes_that_are_no_network_name_no_other_files_and_do_no_harm(data: bytes) -> None:
    names_other_files(data)
    assert not names_other_files(tiny_onnx())


def test_a_network_is_read_from_a_file_alone(tmp_path: Path, folder: Path) -> None:
    pipe, large = tmp_path / "pipe.onnx", tmp_path / "large.onnx"
    os.mkfifo(pipe)
    large.touch()
    os.truncate(large, 3 << 30)
    for path, message in ((pipe, "a pipe"), (large, "bytes")):
        _, error = run("add", str(path), "--name", "x", "--template", "arcface112")
        assert isinstance(error, InputError) and message in str(error)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    _, error = run("add", str(tmp_path / "absent.onnx"), "--name", "x", "--template", "arcface112")
    assert isinstance(error, InputError)


def test_list_and_show_say_licences_and_places() -> None:
    listed = json.loads(run("list", "--json")[0])
    assert listed["schema_version"] == 1
    mini = next(m for m in listed["models"] if m["name"] == "mini")
    assert mini["here"] and Path(mini["paths"][0]).is_file() and mini["fingerprint"].startswith("mini-")
    assert set(mini["licence"]) == {"code", "weights", "data", "consent"}
    shown = json.loads(run("show", "mini", "--json")[0])
    assert {key: shown[key] for key in mini} == mini
    text = run("show", "vggface2")[0]
    for part in ("licence of the code", "licence of the weights", "training data", "research only", "margin160"):
        assert part in text
    assert "model card" in run("show", "mini")[0] and "threshold" in run("show", "vggface2", "--json")[0]
    table = run("list")[0]
    assert "* as its publisher says" in table
    for record in registry.builtin_records():
        assert record.name in table


def test_verify_tells_absent_from_ok() -> None:
    output, error = run("verify")
    assert error is None
    states = dict(line.split()[:2] for line in output.splitlines())
    assert states["mini"] == "ok" and states["sface"] == "absent"
    assert isinstance(run("verify", "sface")[1], ModelError)
    assert json.loads(run("verify", "mini", "--json")[0])["models"] == [{"name": "mini", "state": "ok", "reason": None}]


def test_two_pulls_at_once_do_not_disturb_each_other(record: ModelRecord, tmp_path: Path) -> None:
    place = locate(record)[0]
    with arriving(place) as (first, part):
        first.write(b"half")
        first.flush()
        assert run("pull", "sface")[1] is None
        assert part.exists()
    assert place.read_bytes() == GOOD


def test_the_progress_bar_shows_and_goes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = _Bar("sface")
    bar.advance(512, 1024)
    bar.advance(512, 1024)
    bar.close()
    bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sface" in captured.err
