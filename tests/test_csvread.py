"""CSV files as people make them: what is wrong is one line with the file, the line, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from facepipe.errors import InputError
from facepipe.evaluate.pairs import read_pairs
from facepipe.evaluate.splits import read_groups
from facepipe.files.csvread import read_csv, read_table
from facepipe.gallery.enrolment.intake import collect_photos

READERS: dict[str, Callable[[Path], object]] = {
    "enroll": lambda path: collect_photos([path], None),
    "pairs": lambda path: read_pairs(path, path.parent),
    "groups": read_groups,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("path,name\n1.jpg,Zoë\n".encode("latin-1"), "line 2: is not UTF-8 (perhaps Latin-1"),
        (b"path;name\n1.jpg;Ann\n", "line 1: columns are separated by semicolons, expected commas"),
        (b"path\tname\n1.jpg\tAnn\n", "line 1: columns are separated by tabs, expected commas"),
        ("path,name\n1.jpg,Ann\n".encode("utf-16"), "line 1: is UTF-16 or not text"),
        (b'path,name\n1.jpg,"Ann\n', "line 2: cannot be read as CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "line 1: is UTF-16 or not text"),
    ],
)
def test_every_reader_says_which_line_and_what_to_do(tmp_path: Path, reader: str, data: bytes, says: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    message = str(caught.value)
    assert message.startswith(f"{path}, ") and says in message
    assert "\n" not in message and ";" in message.removeprefix(str(path))


def test_a_mark_at_the_start_and_any_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b'\xef\xbb\xbfPath, Name\r\n1.jpg,"Ann, the\r\nelder"\r\n\r\n2.jpg\r\n')
    assert [row.cells[0] for row in read_csv(path, "path,name")] == ["Path", "1.jpg", "2.jpg"]
    assert read_table(path, ("path", "name"), "path,name") == [
        (3, {"path": "1.jpg", "name": "Ann, the\r\nelder"}),
        (5, {"path": "2.jpg", "name": ""}),
    ]


@pytest.mark.parametrize(
    "text", ["path,name\n1.jpg,Ann\n", "name,path\nAnn,1.jpg\n", "Name , note, PATH\nAnn,x,1.jpg\n", "1.jpg,Ann\n"]
)
def test_the_columns_of_an_enrolment_may_stand_in_any_order(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    (photo,), astray = collect_photos([tmp_path / "list.csv"], None)
    assert (photo.path, photo.person, astray) == (tmp_path / "1.jpg", "Ann", [])


def test_a_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,group\n1.jpg,a,b\n")
    with pytest.raises(InputError, match=r"line 2: 3 cells under 2 columns"):
        read_groups(path)
