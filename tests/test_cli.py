"""The commands as a user runs them, with the real networks on the two public-domain portraits."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facepipe.cli import main
from facepipe.images import encode_image, is_output, read_image, write_image
from facepipe.types import Image

pytestmark = pytest.mark.models

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run facepipe and return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, astronaut: Image, hopper: Image) -> Path:
    """Portraits, altered copies, a picture without a face, and a text file that calls itself a picture."""
    folder = tmp_path_factory.mktemp("photos")
    write_image(folder / "collins.jpg", astronaut.rgb)
    write_image(folder / "hopper.jpg", hopper.rgb)
    write_image(folder / "collins-mirrored.jpg", np.ascontiguousarray(astronaut.rgb[:, ::-1]))
    both = np.zeros((600, 1024, 3), np.uint8)
    both[:512, :512], both[:, 512:] = astronaut.rgb, hopper.rgb
    write_image(folder / "both.jpg", both)
    write_image(folder / "sky.jpg", np.full((300, 400, 3), 200, np.uint8))
    (folder / "text.jpg").write_text("this is no picture")
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, astronaut: Image) -> Path:
    """A gallery that knows Eileen Collins only."""
    from facepipe.gallery.store import GalleryStore, NewFace
    from facepipe.loading import load_describer

    describer = load_describer("mini", "cpu")
    (photo,) = describer.describe([astronaut])
    folder = tmp_path_factory.mktemp("home") / "gallery"
    with GalleryStore.create(folder, describer.embedder.fingerprint, describer.embedder.dim) as made:
        made.add([NewFace("Eileen Collins", photo.embeddings.vectors[0], "collins.jpg")])
    return folder


def test_identify_names_the_known_and_not_the_stranger(run: Run, photos: Path, gallery: Path) -> None:
    code, out, _ = run("identify", photos / "both.jpg", photos / "collins-mirrored.jpg", "--gallery", gallery, "--json")
    both, mirrored = json.loads(out)
    assert code == 0
    by_place = sorted(both["faces"], key=lambda face: face["box"][0])
    assert [(f["status"], f["person"]) for f in by_place] == [("known", "Eileen Collins"), ("unknown", None)]
    assert [(f["status"], f["person"]) for f in mirrored["faces"]] == [("known", "Eileen Collins")]
    assert set(both) == {"schema_version", "path", "width", "height", "error", "rotate", "faces", "model"}
    assert (both["width"], both["height"]) == (1024, 600)


def test_a_picture_without_a_face_is_an_answer(run: Run, photos: Path, gallery: Path) -> None:
    code, out, _ = run("identify", photos / "sky.jpg", "--gallery", gallery, "--jsonl")
    assert code == 0
    assert json.loads(out)["faces"] == []
    assert json.loads(out)["error"] is None


def test_one_bad_file_among_others_does_not_stop_them(run: Run, photos: Path, gallery: Path) -> None:
    code, out, err = run("identify", photos / "text.jpg", photos / "collins.jpg", "--gallery", gallery, "--jsonl")
    bad, good = map(json.loads, out.splitlines())
    assert code == 7
    assert "text.jpg" in bad["error"] and bad["faces"] == []
    assert bad["model"] == good["model"] != ""
    assert good["faces"][0]["person"] == "Eileen Collins"
    assert "text.jpg" in err and "Traceback" not in err


def test_table_and_csv_say_the_same(run: Run, photos: Path, gallery: Path) -> None:
    assert "Eileen Collins" in run("identify", photos / "collins.jpg", "--gallery", gallery)[1]
    header, row = run("identify", photos / "collins.jpg", "--gallery", gallery, "--csv")[1].splitlines()
    assert "person" in header.split(",")
    assert "Eileen Collins" in row


def test_stdin_is_a_picture_too(
    run: Run, photos: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: Image
) -> None:
    def ask(*arguments: object) -> str:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encode_image(astronaut.rgb))))
        code, out, _ = run(*arguments)
        assert code == 0
        return out

    assert json.loads(ask("identify", "-", "--gallery", gallery, "--jsonl"))["faces"][0]["person"] == "Eileen Collins"
    assert "Known as Eileen Collins" in ask("explain", "-", "--gallery", gallery)
    assert "1 face" in ask("detect", "-")
    assert ask("verify", "-", photos / "collins.jpg", "--explain", tmp_path / "why.html").startswith("same person")


def test_where_files_alone_are_read_stdin_is_told_its_commands(run: Run, gallery: Path, tmp_path: Path) -> None:
    for command in (("enroll", "--name", "X"), ("batch", "--out", tmp_path / "r.csv"), ("blur", "--out", tmp_path)):
        code, _, err = run(*command, "-", "--gallery", gallery)
        assert code == 2 and "standard input, is read by identify, detect, verify, explain alone" in err


def test_pictures_are_written_where_they_were_asked_for(run: Run, photos: Path, gallery: Path, tmp_path: Path) -> None:
    drawn, cut = tmp_path / "drawn", tmp_path / "cut"
    run("identify", photos / "both.jpg", "--gallery", gallery, "--annotate", drawn, "--crops", cut)
    (picture,) = drawn.glob("*.jpg")
    assert read_image(picture).width == 1024
    assert not np.array_equal(read_image(picture).rgb, read_image(photos / "both.jpg").rgb)
    assert len(list(cut.rglob("*.jpg"))) == 2
    assert is_output(str(drawn)) and is_output(str(cut))  # a batch of the folder above does not take them for photos
    run("identify", photos / "both.jpg", "--gallery", gallery, "--annotate", photos)
    assert not is_output(str(photos))  # a folder with somebody's photos goes on being one


def test_a_threshold_of_ones_own_decides(run: Run, photos: Path, gallery: Path) -> None:
    _, out, _ = run(
        "identify", photos / "collins-mirrored.jpg", "--gallery", gallery, "--threshold", "0.999", "--jsonl"
    )
    assert json.loads(out)["faces"][0]["status"] == "unknown"
    assert json.loads(out)["faces"][0]["threshold"] == 0.999


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["identify"], 2, "no picture given"),
        (["identify", "{photos}", "--gallery", "{gallery}"], 2, "facepipe batch"),
        (["identify", "two words.zip", "--gallery", "{gallery}"], 2, "an archive; use `facepipe batch 'two words.zip'"),
        (["identify", "{photos}/missing.jpg", "--gallery", "{gallery}"], 3, "missing.jpg"),
        (["identify", "{photos}/text.jpg", "--gallery", "{gallery}"], 3, "text.jpg"),
        (["identify", "{photos}/sky.jpg", "--gallery", "{photos}/nowhere"], 5, "enroll"),
        (["identify", "{photos}/sky.jpg", "--gallery", "{gallery}", "--model", "sface"], 5, "mini"),
        (["identify", "{photos}/sky.jpg", "--gallery", "{gallery}", "--device", "cuda:9"], 6, "cuda:9"),
        (["verify", "{photos}/sky.jpg", "{photos}/hopper.jpg"], 4, "no face"),
        (["verify", "{photos}/both.jpg", "{photos}/hopper.jpg", "--faces", "only"], 4, "--faces largest"),
        (["detect", "{photos}/text.jpg"], 3, "text.jpg"),
    ],
)
def test_errors_are_one_line_with_the_published_code(
    run: Run, photos: Path, gallery: Path, arguments: list[str], code: int, words: str
) -> None:
    found, _, err = run(*(text.format(photos=photos, gallery=gallery) for text in arguments))
    assert found == code
    lines = [line for line in err.splitlines() if line.startswith("facepipe:")]
    assert len(lines) == 1
    assert words in lines[0]


def test_enrolling_folders_and_again_and_then_asking(run: Run, photos: Path, tmp_path: Path) -> None:
    people = tmp_path / "people"
    for person, names in {"Eileen Collins": ["collins.jpg", "sky.jpg"], "Grace Hopper": ["hopper.jpg"]}.items():
        (people / person / "deeper").mkdir(parents=True)
        for name in names:
            (people / person / "deeper" / name).write_bytes((photos / name).read_bytes())
    home = tmp_path / "gallery"
    code, out, err = run("enroll", people, "--gallery", home)
    assert code == 7
    assert "2 enrolled" in out and "sky.jpg" in err and "no face" in err
    code, out, _ = run("enroll", people, "--gallery", home, "--jsonl")
    assert code == 7
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["already", "no-face", "already"]
    _, out, _ = run("identify", photos / "both.jpg", "--gallery", home, "--jsonl")
    assert {face["person"] for face in json.loads(out)["faces"]} == {"Eileen Collins", "Grace Hopper"}


def test_enrolling_by_name_and_by_list(run: Run, photos: Path, tmp_path: Path) -> None:
    home = tmp_path / "gallery"
    assert run("enroll", photos / "collins.jpg", "--name", "Eileen", "--gallery", home)[0] == 0
    table = tmp_path / "list.csv"
    table.write_text(f"path,name\n{photos / 'hopper.jpg'},Grace\n")
    assert run("enroll", table, "--gallery", home)[0] == 0
    _, out, _ = run("gallery", "list", "--gallery", home, "--json")
    assert {person["name"] for person in json.loads(out)["people"]} == {"Eileen", "Grace"}


def test_a_face_that_looks_like_somebody_else_is_not_enrolled_without_force(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    home = tmp_path / "gallery"
    run("enroll", photos / "collins.jpg", "--name", "Eileen", "--gallery", home)
    code, _, err = run("enroll", photos / "collins-mirrored.jpg", "--name", "Grace", "--gallery", home)
    assert code == 4
    assert "Eileen" in err and "--force" in err
    assert run("enroll", photos / "collins-mirrored.jpg", "--name", "Grace", "--gallery", home, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{photos}/collins.jpg"], 2, "--name"),
        (["{photos}/sky.jpg", "--name", "Nobody"], 4, "no face"),
        (["{photos}/both.jpg", "--name", "Somebody", "--faces", "only"], 4, "--faces"),
        (["{photos}/missing"], 3, "no such file"),
        (["{photos}/text.jpg", "--name", "Text"], 3, "text.jpg"),
        (["{photos}/collins.jpg", "--name", "E", "--retain", "soon"], 2, "90d"),
        (["{photos}/collins.jpg", "--name", "E", "--model", "no-such"], 6, "no-such"),
    ],
)
def test_enrol_says_what_is_wrong(
    run: Run, photos: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    found, _, err = run(
        "enroll", *(text.format(photos=photos) for text in arguments), "--gallery", tmp_path / "gallery"
    )
    assert found == code
    assert words in err
    assert "Traceback" not in err


def test_verify_answers_like_grep(run: Run, photos: Path) -> None:
    assert run("verify", photos / "collins.jpg", photos / "collins-mirrored.jpg")[0] == 0
    code, out, _ = run("verify", photos / "collins.jpg", photos / "hopper.jpg", "--json")
    assert code == 1
    assert json.loads(out)["same"] is False


def test_detect_shows_faces_and_edges(run: Run, photos: Path, tmp_path: Path) -> None:
    edges, drawn = tmp_path / "edges.png", tmp_path / "drawn.png"
    code, out, _ = run("detect", photos / "both.jpg", "--json", "--edges", edges, "--annotate", drawn)
    (photo,) = json.loads(out)["images"]
    assert code == 0
    assert len(photo["faces"]) == 2
    assert all(len(face["landmarks"]) == 5 and face["quality"]["size"] > 40 for face in photo["faces"])
    assert read_image(edges).rgb.std() > 10
    assert read_image(drawn).width == 1024


def test_the_demo_is_right_about_every_picture(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("demo", "--json", "--out", tmp_path / "steps.png")
    facts = json.loads(out)
    assert code == 0
    assert facts["right"] == len(facts["rows"]) == 24
    assert {row["answer"] for row in facts["rows"]} == {"Eileen Collins", "Grace Hopper", "unknown", "no face"}


def test_doctor_finds_the_shipped_models_in_order(run: Run, gallery: Path) -> None:
    code, out, _ = run("doctor", "--json", "--gallery", gallery)
    facts = json.loads(out)
    states = {model["name"]: model["state"] for model in facts["models"]}
    assert code == 0
    assert (states["mini"], states["mtcnn"]) == ("ok", "ok")
    auto = facts["hardware"]["auto"]
    assert auto["device"] == ("cuda:0" if facts["hardware"]["cuda"] else "cpu")
    assert "float" in auto["detect"] and "float" in auto["embed"] and "exact" in auto["match"]
    assert facts["gallery"]["people"] == 1


def test_nothing_but_the_answer_reaches_stdout(
    run: Run, photos: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A native library that prints to descriptor 1 must not get into the answer."""
    import os

    from facepipe.detect.detector import MtcnnDetector

    detect = MtcnnDetector.detect

    def noisy(self: MtcnnDetector, images: list[Image]) -> object:
        os.write(1, b"noise from a library\n")
        return detect(self, images)

    monkeypatch.setattr(MtcnnDetector, "detect", noisy)
    _, out, err = run("identify", photos / "sky.jpg", "--gallery", gallery, "--jsonl")
    assert json.loads(out)["faces"] == []
    assert "noise from a library" in err


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "much"])
@pytest.mark.parametrize(
    "command", [["verify", "a.jpg", "b.jpg", "--threshold"], ["identify", "a.jpg", "--margin"], ["calibrate", "--fpir"]]
)
def test_a_number_that_is_none_is_refused(run: Run, command: list[str], number: str) -> None:
    code, _, err = run(*command, number)
    assert code == 2
    assert "number" in err or "range" in err


def test_a_list_of_names_may_hold_names_that_are_not_utf8(
    run: Run, photos: Path, gallery: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_bytes(f"{photos / 'collins.jpg'}\n".encode() + b"bad\xffname.jpg\n")
    code, out, _ = run("identify", "--files-from", listing, "--gallery", gallery, "--jsonl")
    good, bad = map(json.loads, out.splitlines())
    assert code == 7
    assert good["faces"][0]["person"] == "Eileen Collins"
    assert "no such file" in bad["error"]


def test_one_style_of_answer_at_a_time(run: Run, photos: Path, gallery: Path) -> None:
    code, _, err = run("identify", photos / "sky.jpg", "--gallery", gallery, "--json", "--csv")
    assert (code, "choose one" in err) == (2, True)


@pytest.mark.parametrize("option", ["--annotate", "--edges"])
def test_detect_does_not_draw_over_the_photo_itself(run: Run, photos: Path, option: str) -> None:
    before = (photos / "sky.jpg").read_bytes()
    code, _, err = run("detect", photos / "sky.jpg", option, photos / "sky.jpg")
    assert (code, "one of the inputs" in err) == (2, True)
    assert (photos / "sky.jpg").read_bytes() == before


def test_an_answer_that_cannot_be_written_is_not_an_answer(photos: Path) -> None:
    """`verify` must not say "different" (1) when it could only not print; /dev/full stands for a full disk."""
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "facepipe",
        "verify",
        str(photos / "collins.jpg"),
        str(photos / "collins-mirrored.jpg"),
    ]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        lost = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert lost.returncode == 3
    assert "cannot be written" in lost.stderr and "Traceback" not in lost.stderr
    piped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert piped.stdout is not None and piped.stderr is not None
    piped.stdout.close()
    assert piped.wait() == 141
    assert piped.stderr.read() == ""
    piped.stderr.close()
