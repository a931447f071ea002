"""The record of a photo, and the tables, CSV and Parquet files that are made from it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facepipe.errors import OutputError
from facepipe.outputs.csvfile import COLUMNS, CsvWriter, write_csv, write_failures
from facepipe.outputs.names import output_stem, safe_name
from facepipe.outputs.parquet import write_parquet
from facepipe.outputs.table import percent, print_photos, summary
from facepipe.records import Record, dumps, to_record
from facepipe.text import printable
from facepipe.types import Candidate, Face, Failed, Prediction, Quality, Recognized, Status
from tests.fakes import face_at

HOSTILE = "<script>alert(\"1\")</script>,\n=cmd|'/c'!A1 [red]x[/red] \u202eevil\x1b[31m"


def known(person: str, similarity: float = 0.71234567, probability: float | None = 0.98765) -> Prediction:
    candidates = (Candidate(person, similarity), Candidate("Grace", 0.31))
    return Prediction(face_at(10, 20, 50), Status.KNOWN, person, similarity, probability, 0.43, candidates)


def ambiguous() -> Prediction:
    candidates = (Candidate("Ada", 0.5), Candidate("Grace", 0.49))
    return Prediction(face_at(90, 20, 40), Status.AMBIGUOUS, None, 0.5, 0.6, 0.43, candidates)


def stranger() -> Prediction:
    return Prediction(face_at(150.126, 20, 30, score=0.91239), Status.UNKNOWN, None, None, None, 0.43)


def photos() -> list[Record]:
    results: list[Recognized | Failed] = [
        Recognized("a/group.jpg", 320, 240, (known("Ada"), ambiguous(), stranger()), "mini:1"),
        Recognized("a/wall.jpg", 100, 80, (), "mini:1"),
        Failed("a/broken.jpg", "a/broken.jpg: is empty; copy the picture again"),
    ]
    return [to_record(result) for result in results]


def test_the_record_is_the_published_one() -> None:
    record = photos()[0]
    assert list(record) == ["schema_version", "path", "width", "height", "error", "rotate", "faces", "model"]
    face = record["faces"][0]
    assert list(face) == [
        *("box", "score", "landmarks", "quality", "turn", "enhanced", "status", "person"),
        *("similarity", "probability", "threshold", "candidates", "suggestion"),
    ]
    assert face["box"] == [10.0, 20.0, 60.0, 70.0]
    assert face["similarity"] == 0.7123 and face["probability"] == 0.9877
    assert face["candidates"] == [{"person": "Ada", "similarity": 0.7123}, {"person": "Grace", "similarity": 0.31}]
    assert face["quality"] == {
        **{"size": 50.0, "sharpness": 500.0, "yaw": 0.0, "pitch": 0.0, "roll": 0.0},
        "edge_density": 0.3,
        "usable": None,
    }
    assert record["faces"][2]["box"][0] == 150.13 and record["faces"][2]["score"] == 0.9124
    assert [record["faces"][2][name] for name in ("person", "similarity", "probability")] == [None] * 3


def test_what_is_not_finite_is_null_and_there_is_one_zero() -> None:
    quality = Quality(float("inf"), float("nan"), -0.0001, 0.0, 0.0, 0.0)
    face = face_at(0, 0, 10)
    odd = Prediction(Face(face.box, 0.5, face.landmarks, quality), Status.UNKNOWN, None, None, None, 0.4)
    text = dumps(to_record(Recognized("x", 1, 1, (odd,), "m")))
    assert '"size":null,"sharpness":null,"yaw":0.0,' in text


def test_names_that_are_no_unicode_can_be_written() -> None:
    record = to_record(Failed("caf\udce9.jpg", "caf\udce9.jpg: odd"))
    assert record["path"] == r"caf\udce9.jpg"
    assert dumps(record).encode("utf-8")


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"x": float("nan")})


finite = st.floats(-500, 5000, width=32)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    x, y, side = draw(finite), draw(finite), draw(st.floats(1, 900, width=32))
    status = draw(st.sampled_from(Status))
    name = draw(st.text(min_size=1, max_size=8))
    similarity = draw(st.none() | st.floats(-1, 1)) if status is Status.UNKNOWN else draw(st.floats(-1, 1))
    return Prediction(
        face_at(x, y, side, draw(st.floats(0, 1))),
        status,
        name if status is Status.KNOWN else None,
        similarity,
        draw(st.none() | st.floats(0, 1)),
        draw(st.floats(-1, 1)),
        tuple(Candidate(draw(st.text(max_size=5)), draw(st.floats(-1, 1))) for _ in range(draw(st.integers(0, 3)))),
    )


@given(st.lists(predictions(), max_size=3), st.text(max_size=12), st.none() | st.text(max_size=9))
def test_a_record_survives_json(faces: list[Prediction], path: str, error: str | None) -> None:
    record = to_record(Recognized(path, 40, 30, tuple(faces), "m") if error is None else Failed(path, error), "m")
    again = json.loads(dumps(record), parse_constant=pytest.fail)
    assert again == record


# ---- CSV and Parquet ----


def lines_of(path: Path) -> io.StringIO:
    return io.StringIO(path.read_bytes().decode(), newline="")


def test_csv_has_a_row_for_each_face_and_none_is_missing(tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", photos())
    rows = list(csv.DictReader(lines_of(tmp_path / "out.csv")))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["path"], row["face"], row["status"]) for row in rows] == [
        ("a/group.jpg", "1", "known"),
        ("a/group.jpg", "2", "ambiguous"),
        ("a/group.jpg", "3", "unknown"),
        ("a/wall.jpg", "", ""),
        ("a/broken.jpg", "", ""),
    ]
    assert rows[0]["x2"] == "60.0" and rows[0]["nose_y"] == "47.5"
    assert json.loads(rows[1]["candidates"])[1] == {"person": "Grace", "similarity": 0.49}
    assert rows[4]["error"].startswith("a/broken.jpg: is empty")


@pytest.mark.parametrize("raw", [False, True])
def test_csv_keeps_a_hostile_name_in_its_cell(raw: bool) -> None:
    buffer = io.StringIO(newline="")
    CsvWriter(buffer, raw=raw).add(to_record(Recognized(HOSTILE, 1, 1, (known(HOSTILE),), "m")))
    buffer.seek(0)
    (row,) = csv.DictReader(buffer)
    assert row["path"] == row["person"] == (HOSTILE if raw else printable(HOSTILE))


def cell(text: str, *, raw: bool) -> str:
    """Return how text lies in a file, by what a reader makes of it."""
    buffer = io.StringIO(newline="")
    CsvWriter(buffer, raw=raw).add(to_record(Failed(text, "why")))
    lines = buffer.getvalue().split("\n")
    assert raw or len(lines) == 3, "a row is a line"
    (row,) = csv.DictReader(io.StringIO(buffer.getvalue(), newline=""))
    assert row["error"] == "why", "the cells behind it stay in their columns"
    return str(row["path"])


@given(st.text(st.characters(exclude_categories=())) | st.sampled_from(["a\rb", "\r\n", '"\r"', "a\n=b"]))
@example("\ud800")  # no UTF-8: an escape in every record
def test_any_text_is_one_cell_and_never_a_formula(text: str) -> None:
    shown = cell(text, raw=False)
    assert shown.removeprefix("'") == printable(text).removeprefix("'")
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
    assert shown.isprintable()
    assert cell(text, raw=True) == text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\uff1d1", "=cmd|'/c calc'!A1"])
def test_a_formula_is_text_in_every_csv_that_is_written(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "out.csv", [to_record(Recognized(text, 1, 1, (known(text),), "m"))])
    write_failures(tmp_path / "failures.csv", [(text, f"{text}: is empty")])
    (row,) = csv.DictReader(lines_of(tmp_path / "out.csv"))
    assert row["path"] == row["person"] == f"'{text}" and float(row["yaw"]) == 0.0
    assert next(csv.DictReader(lines_of(tmp_path / "failures.csv")))["path"] == f"'{text}"
    write_csv(tmp_path / "out.csv", [to_record(Recognized(text, 1, 1, (known(text),), "m"))], raw=True)
    assert next(csv.DictReader(lines_of(tmp_path / "out.csv")))["person"] == text


def test_a_failed_file_is_not_written(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Record]:
        yield photos()[0]
        raise KeyboardInterrupt

    for write in (write_csv, write_parquet):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "out", interrupted())
        with pytest.raises(OutputError, match="is a folder"):
            write(tmp_path, photos())
    assert list(tmp_path.iterdir()) == []


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "out.parquet", photos())
    write_csv(tmp_path / "out.csv", photos())
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.metadata[b"facepipe_schema_version"] == b"1"
    assert table.column_names == list(COLUMNS)
    for row, line in zip(table.to_pylist(), csv.DictReader(lines_of(tmp_path / "out.csv")), strict=True):
        for name, value in row.items():
            if value is None:
                assert line[name] == ""
            elif name == "candidates":
                assert json.loads(line[name]) == value
            else:
                assert type(value)(line[name]) == value


def test_an_empty_batch_is_a_valid_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "out.parquet", [])
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_failures_are_listed(tmp_path: Path) -> None:
    write_failures(
        tmp_path / "failures.csv",
        [("a,b.jpg", "a,b.jpg: is empty"), ("caf\udce9", "gone"), ("a\tb", "a\\tb: is empty")],
    )
    rows = list(csv.reader(lines_of(tmp_path / "failures.csv")))
    assert rows == [["path", "error"], ["a,b.jpg", "is empty"], [r"caf\udce9", "gone"], [r"a\tb", "is empty"]]


# ---- the table ----


def rendered(records: list[Record], width: int = 120) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    print_photos(console, records)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_who_and_how_sure() -> None:
    lines = rendered(photos()).splitlines()
    assert "Ada" in lines[1] and "99 %" in lines[1] and "0.71 / 0.43" in lines[1] and "known" in lines[1]
    assert "Ada or Grace?" in lines[2] and "60 %" in lines[2]
    assert "unknown" in lines[3] and "%" not in lines[3]
    assert "no face" in lines[4]
    assert "failed" in lines[5] and "is empty; copy the picture again" in lines[5]
    assert lines[5].count("a/broken.jpg") == 1
    assert lines[6] == "3 photos, 3 faces: 1 known, 1 ambiguous, 1 unknown; 1 failed"


def test_hostile_names_cannot_write_to_the_terminal() -> None:
    text = rendered([to_record(Recognized(HOSTILE, 1, 1, (known(HOSTILE),), "m"))], width=400)
    assert "\x1b" not in text and "\u202e" not in text
    assert "[red]x[/red]" in text


@pytest.mark.parametrize(
    ("value", "words"), [(None, "–"), (0.0, "<1 %"), (0.5, "50 %"), (0.9949, ">99 %"), (1.0, ">99 %"), (0.99, "99 %")]
)
def test_nobody_is_named_with_certainty(value: float | None, words: str) -> None:
    assert percent(value) == words


def test_one_photo_is_counted_in_the_singular() -> None:
    assert summary([photos()[1]]) == "1 photo, 0 faces"


# ---- names ----


@given(st.text())
def test_a_safe_name_is_one_harmless_path_component(name: str) -> None:
    safe = safe_name(name)
    assert safe == safe_name(name)
    assert 0 < len(safe.encode()) <= 110
    assert safe not in {".", ".."} and not set('/\\\0<>:"|?*') & set(safe) and safe.isprintable()
    assert safe[0] not in ". " and safe[-1] not in ". "


@given(st.lists(st.text(max_size=6), unique=True, max_size=6))
def test_two_people_never_share_a_safe_name(names: list[str]) -> None:
    assert len({safe_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["Ada Lovelace", "Łukasz", "王菲", "O'Neill", "a.b"])
def test_harmless_names_stay_as_they_are(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", "CON", "nul.txt", "", " x", "x.", "x" * 200])
def test_harmful_names_are_changed(name: str) -> None:
    assert safe_name(name) != name


def test_photos_of_the_same_name_in_two_folders_have_two_stems() -> None:
    assert output_stem("a/1.jpg") != output_stem("b/1.jpg")
    assert output_stem("a/1.jpg").startswith("1-")
    assert output_stem("-").startswith("stdin-")
    assert output_stem("a/--rf.jpg").startswith("rf-") and output_stem("---").startswith("_-")  # no option of a command


def test_boxes_are_rounded_from_their_float32(tmp_path: Path) -> None:
    box = np.array([0.1, 0.2, 30.3, 40.4], np.float32)
    face = Face(box, 0.5, face_at(0, 0, 9).landmarks, face_at(0, 0, 9).quality)
    record = to_record(Recognized("x", 1, 1, (Prediction(face, Status.UNKNOWN, None, None, None, 0.4),), "m"))
    assert record["faces"][0]["box"] == [0.1, 0.2, 30.3, 40.4]
