"""Who is compared with whom: pair lists and open-set splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.errors import InputError, UsageError
from facepipe.evaluate.pairs import read_pairs
from facepipe.evaluate.splits import (
    PeopleSet,
    SplitRule,
    read_families,
    read_groups,
    read_people,
    read_strangers,
    splits,
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    touch(tmp_path, "Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg", "Bob/Bob_0002.png")
    (tmp_path / "pairs.txt").write_text("2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t2\nBob\t2\tAnn\t2\n")
    return tmp_path


def test_lfw_pairs_keep_their_folds_labels_and_people(lfw: Path) -> None:
    pairs = read_pairs(lfw / "pairs.txt", lfw)
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]
    assert [pairs.photos[i].name for i in pairs.a] == ["Ann_0001.jpg", "Ann_0001.jpg", "Bob_0001.jpg", "Bob_0002.png"]
    assert pairs.people[pairs.a].tolist() == [0, 0, 1, 1]
    assert pairs.people[pairs.b].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\t1\nAnn\t1\t2\n", "promises 4 pairs, the file holds 1"),
        ("1\t1\nAnn\t1\nAnn\t1\tBob\t1\n", "line 2: expected 3 or 4 fields"),
        ("1\t1\nAnn\t1\tx\nAnn\t1\tBob\t1\n", "expected a photo number, got 'x'"),
        ("1\t1\nAnn\t1\t9\nAnn\t1\tBob\t1\n", "does not exist; check --images"),
        ("a,b\nx,y\n", "expected a header with a,b,same"),
        ("a,b,same\nx,y,maybe\n", "same is 1 or 0"),
        ("a,b,same\n", "no pairs"),
        ("a,b,same\nnone.jpg,Ann/Ann_0001.jpg,1\n", "does not exist; check --images"),
        ("", "expected a header"),
    ],
)
def test_a_wrong_pair_list_is_refused_with_the_line(lfw: Path, text: str, message: str) -> None:
    (lfw / "wrong.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_pairs(lfw / "wrong.txt", lfw)


def test_a_missing_or_binary_pair_list_is_an_input_error(lfw: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(lfw / "none.txt", lfw)
    (lfw / "binary").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(InputError, match=r"not UTF-8|not text"):
        read_pairs(lfw / "binary", lfw)


def test_a_csv_joins_people_through_same_and_deals_them_into_folds(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(8)]
    touch(tmp_path, *names)
    lines = [
        "a,b,same,group",
        "0.jpg,1.jpg,1,x",
        "1.jpg,2.jpg,yes,x",
        "3.jpg,4.jpg,1,y",
        "0.jpg,3.jpg,0,y",
        "5.jpg,6.jpg,0,x",
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    pairs = read_pairs(tmp_path / "pairs.csv", tmp_path, folds=3)
    of = dict(zip([p.name for p in pairs.photos], pairs.people.tolist(), strict=True))
    assert of["0.jpg"] == of["1.jpg"] == of["2.jpg"]
    assert of["3.jpg"] == of["4.jpg"] != of["0.jpg"]
    assert len(set(of.values())) == 4
    assert pairs.groups == ("x", "x", "y", "y", "x")
    assert pairs.fold[0] == pairs.fold[1] == pairs.fold[3]  # photo a of all three shows one person


def test_people_strangers_and_families_are_folders(tmp_path: Path) -> None:
    touch(tmp_path, "p/Ann/a.jpg", "p/Ann/deep/b.png", "p/Bob/c.jpg", "p/empty/notes.txt", "p/pairs.txt")
    assert [len(own) for own in read_people(tmp_path / "p").photos] == [2, 1]
    touch(tmp_path, "s/x.jpg", "s/y.jpg", "s/Eve/1.jpg", "s/Eve/2.jpg", "s/readme.txt")
    assert read_strangers(tmp_path / "s").people == ("Eve", "x.jpg", "y.jpg")
    touch(tmp_path, "f/F1/A/1.jpg", "f/F1/B/1.jpg", "f/F2/A/1.jpg")
    assert [family.people for family in read_families(tmp_path / "f")] == [("A", "B")]
    for read in (read_people, read_strangers, read_families):
        with pytest.raises(InputError, match="no such folder"):
            read(tmp_path / "none")
        (tmp_path / "nothing").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="holds no"):
            read(tmp_path / "nothing")


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=12),
    st.floats(0.1, 1.0),
    st.integers(1, 4),
    st.integers(0, 99),
    st.booleans(),
)
def test_splits_keep_people_and_photos_apart(
    counts: list[int], known: float, enroll: int, seed: int, patterns: bool
) -> None:
    people = PeopleSet(
        tuple(str(i) for i in range(len(counts))),
        tuple(
            tuple(Path(f"{i}/{'enroll' if n < 1 else 'probe'}-{n}.jpg") for n in range(c)) for i, c in enumerate(counts)
        ),
    )
    if max(counts) == 1:
        return
    rule = SplitRule("enroll-*" if patterns else None, None, enroll, known, 3, seed)
    found = list(splits(people, rule))
    assert len(found) == 3
    for split in found:
        assert len(split.enrolled) == max(1, round(known * len(counts)))
        for person, (gallery, probes) in enumerate(zip(split.gallery, split.probes, strict=True)):
            assert not set(gallery) & set(probes)
            assert bool(gallery) == (person in split.enrolled)
            assert all(0 <= n < counts[person] for n in (*gallery, *probes))
    assert [s.enrolled for s in found] == [s.enrolled for s in splits(people, rule)]  # the seed decides


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    people = PeopleSet(("Ann",), ((Path("a/1.jpg"), Path("a/2.jpg")),))
    with pytest.raises(UsageError, match="matches no photo"):
        list(splits(people, SplitRule("enroll-*")))
    with pytest.raises(UsageError, match="leaves no photo"):
        list(splits(people, SplitRule("1*", "probe-*")))
    with pytest.raises(UsageError, match="known"):
        SplitRule(known=0.0)
    with pytest.raises(UsageError, match="repeats"):
        SplitRule(repeats=0)


def test_groups_are_read_by_path_or_person(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("person,group\nAnn,old\nBob,young\n")
    assert read_groups(tmp_path / "g.csv") == {"Ann": "old", "Bob": "young"}
    (tmp_path / "bad.csv").write_text("who,what\nAnn,old\n")
    with pytest.raises(InputError, match="expected a header"):
        read_groups(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_groups(tmp_path / "none.csv")


@pytest.mark.models
def test_lfw_itself_is_whole(faces_root: Path) -> None:
    pairs = read_pairs(faces_root / "lfw" / "pairs.txt", faces_root / "lfw")
    assert len(pairs) == 6000
    assert int(pairs.same.sum()) == 3000
    assert np.bincount(pairs.fold).tolist() == [600] * 10
