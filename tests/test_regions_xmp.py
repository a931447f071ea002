"""XMP packets: read in every shape, changed without touching what is not ours, and never trusted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facepipe.regions.geometry import Frame, iou, stored
from facepipe.regions.merge import EMPTY, Named, is_written, merged
from facepipe.regions.xmp import MAX_BYTES, Region, XmpError, read_packet
from tests.xmp_samples import PROGRAMS, digikam, lightroom, packet, windows

BOX = (0.2, 0.3, 0.4, 0.5)
ELSEWHERE = (0.6, 0.6, 0.8, 0.9)
FRAME = Frame(400, 300)


def regions_of(data: bytes) -> list[Region]:
    return read_packet(data)[0]


def found(data: bytes) -> list[tuple[str | None, str]]:
    return [(region.name, region.kind) for region in regions_of(data)]


# Reading


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_regions_of_each_program_are_read(program: str) -> None:
    regions = [region for region in regions_of(PROGRAMS[program]("Zoë")) if region.name]
    assert {region.name for region in regions} == {"Zoë"}
    assert all(region.box == pytest.approx(BOX) and not region.own for region in regions)
    assert len(regions) == (2 if program == "digikam" else 1)


def test_a_face_that_nobody_is_named_in_has_no_name_and_a_focus_point_is_no_face() -> None:
    assert found(lightroom()) == [("Anna", "mwg"), (None, "mwg")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_xmp(encoding: str) -> None:
    assert found(digikam("Zoë").decode().lstrip("\ufeff").encode(encoding)) == [("Zoë", "mp"), ("Zoë", "mwg")]


def test_what_is_too_long_for_a_name_is_none() -> None:
    assert found(windows("A" * 1001)) == [(None, "mp")]


def test_padding_behind_a_packet_is_no_damage() -> None:
    assert found(windows() + b"\0" * 2000) == [("Anna", "mp")]


@pytest.mark.parametrize(
    "numbers",
    ["nan", "inf", "-inf", "1e999", "-0.2", "0", "", "a", "0x1p3", "1_0", "٣", "1e", "9" * 400],
)
def test_an_odd_width_is_no_region(numbers: str) -> None:
    text = (
        digikam().decode().replace('stArea:w="0.2"', f'stArea:w="{numbers}"').replace(", 0.2, 0.2", f", {numbers}, 0.2")
    )
    if numbers == "9" * 400:
        assert found(text.encode()) == []
    else:
        assert "mwg" not in [kind for _, kind in found(text.encode())]


def test_a_region_outside_the_picture_is_none_and_one_that_reaches_out_is_cut() -> None:
    assert found(windows(x=1.5)) == []
    (region,) = regions_of(windows(x=0.0, y=0.4))
    assert region.box == pytest.approx((0.0, 0.3, 0.1, 0.5))


def test_pixels_as_a_unit() -> None:
    text = (
        lightroom(x=120, y=120, width=80, height=60)
        .decode()
        .replace('stArea:y="120"/>', 'stArea:y="120" stArea:unit="pixel"/>')
    )
    assert regions_of(text.encode())[0].box == pytest.approx(BOX)


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&c;</x:xmpmeta>"""
EXTERNAL = b"""<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>"""
MANY = "".join(f'<rdf:li MPReg:Rectangle="0.1, 0.1, 0.1, 0.1" MPReg:PersonDisplayName="{n}"/>' for n in range(1001))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not XML"),
    "text": (b"hello", "is not XML"),
    "binary": (bytes(range(256)), "is not XML"),
    "billion laughs": (LAUGHS, "document type"),
    "a file as an entity": (EXTERNAL, "document type"),
    "an entity that nobody declared": (packet("&who;"), "is not XML"),
    "no UTF-8": (digikam().replace(b"kept", b"\xff\xfe"), "is not XML"),
    "a control character": (digikam().replace(b"kept", b"\x01").replace(b"<!-- \x01 -->", b"\x01"), "is not XML"),
    "cut off": (digikam()[:-200], "is not XML"),
    "other XML": (b"<html/>", "is not XMP"),
    "nested without end": (b"<a>" * 1_000_000, "nested too deeply"),
    "nested in a region": (packet("<mwg-rs:Regions>" * 99), "nested too deeply"),
    "large": (b" " * (MAX_BYTES + 1), "has more than"),
    "many elements": (b"<a>" + b"<b/>" * 1_000_001 + b"</a>", "too many elements"),
    "many regions": (
        packet(f"<MP:RegionInfo><MPRI:Regions><rdf:Bag>{MANY}</rdf:Bag></MPRI:Regions></MP:RegionInfo>"),
        "more than 1,000",
    ),
    "many fields": (packet("<MP:RegionInfo>" + "<MP:a/>" * 100_000 + "</MP:RegionInfo>"), "too many elements"),
    "half a UTF-16": (b"\xff\xfea", "is not UTF-16"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_packet_is_an_error_of_one_line_and_soon(case: str) -> None:
    data, why = HOSTILE[case]
    started = time.monotonic()
    for call in (read_packet, lambda data: merged(data, [Named("Anna", BOX)], FRAME)):
        with pytest.raises(XmpError) as caught:
            call(data)
        assert "\n" not in str(caught.value)
        if call is read_packet:
            assert why in str(caught.value)
    assert time.monotonic() - started < 10


def test_long_blanks_and_long_numbers_take_no_time() -> None:
    started = time.monotonic()
    assert found(windows().replace(b"0.2, 0.3, 0.2", b"9" * 2_000_000 + b"x, 0.3, 0.2")) == []
    ours = write(windows(), ("Bob", ELSEWHERE)).replace(b"rdf:about", b" " * 2_000_000 + b"rdf:about")
    assert found(merged(ours, [], None)) == [("Anna", "mp")]
    assert time.monotonic() - started < 5


@settings(max_examples=300)
@given(
    st.binary(max_size=300)
    | st.integers(0, 2500).flatmap(
        lambda place: st.binary(max_size=8).map(lambda junk: digikam()[:place] + junk + digikam()[place:])
    )
)
def test_any_bytes_are_regions_or_an_error(data: bytes) -> None:
    for call in (read_packet, lambda data: merged(data, [Named("Bob", ELSEWHERE)], FRAME)):
        try:
            call(data)
        except XmpError as error:
            assert "\n" not in str(error)


# Writing


def write(data: bytes, *people: tuple[str, tuple[float, float, float, float]], turn: int = 1) -> bytes:
    return merged(data, [Named(name, box) for name, box in people], Frame(400, 300, turn))


def test_a_new_sidecar_has_both_forms_and_the_size() -> None:
    data = write(EMPTY, ('Zoë <&> "O\'Neil"', BOX), ("Bob", ELSEWHERE), turn=6)
    regions = regions_of(data)
    assert sorted(found(data), key=str) == sorted(
        [(n, k) for n in ("Bob", 'Zoë <&> "O\'Neil"') for k in ("mwg", "mp")], key=str
    )
    for region in regions:
        wanted = stored(ELSEWHERE if region.name == "Bob" else BOX, 6)
        assert iou(region.box, wanted) > 0.999
        assert region.own
        assert region.kind == "mp" or region.size == (400, 300)
    assert is_written(data)


def test_the_same_again_changes_nothing_and_taking_away_leaves_nothing() -> None:
    data = write(EMPTY, ("Anna", BOX), ("Bob", ELSEWHERE))
    assert write(data, ("Anna", BOX), ("Bob", ELSEWHERE)) is data
    assert write(data, ("Bob", ELSEWHERE), ("Anna", BOX)) is data
    assert merged(data, [], None) == EMPTY
    assert {region.name for region in regions_of(write(data, ("Bob", ELSEWHERE)))} == {"Bob"}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_others_wrote_stays_byte_for_byte(program: str, ends: str) -> None:
    before = PROGRAMS[program]().replace(b"\n", ends.encode())
    after = write(before, ("Bob", ELSEWHERE))
    # In the forms that the other program uses: a reader that looks at one form sees everybody.
    forms = {region.kind for region in regions_of(before)}
    assert {region.kind for region in regions_of(after) if region.name == "Bob" and region.own} == forms
    # Nothing is missing, and all is in its order: what was put in is cut out again.
    rest = iter(after)
    assert all(byte in rest for byte in before)
    assert merged(after, [], None) == before
    assert merged(write(after, ("Carl", ELSEWHERE)), [], None) == before


@given(
    st.sampled_from(sorted(PROGRAMS)),
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1).filter(str.strip),
            st.sampled_from([ELSEWHERE, (0.7, 0.0, 1.2, 0.2), (-0.1, 0.7, 0.1, 0.9)]),
        ),
        max_size=3,
    ),
    st.integers(1, 8),
)
def test_any_names_go_in_and_out(
    program: str, people: list[tuple[str, tuple[float, float, float, float]]], turn: int
) -> None:
    for before in (PROGRAMS[program](), EMPTY):
        after = write(before, *people, turn=turn)
        assert write(after, *people, turn=turn) == after
        assert merged(after, [], None) == before
        if before == EMPTY:
            assert {region.name for region in regions_of(after)} == {name.strip() for name, _ in people}


def test_the_size_is_that_of_the_photo_as_it_is() -> None:
    data = write(EMPTY, ("Anna", BOX))
    smaller = merged(data, [Named("Anna", BOX)], Frame(200, 150))
    assert [region.size for region in regions_of(smaller) if region.kind == "mwg"] == [(200, 150)]
    assert smaller == merged(EMPTY, [Named("Anna", BOX)], Frame(200, 150))


def test_a_face_that_another_program_named_is_left_to_it() -> None:
    for name in ("Anna", "Somebody else"):
        before = digikam("Anna")
        assert write(before, (name, BOX)) == before
    # In the reading of a program that means the displayed picture as well.
    assert write(digikam("Anna"), ("Somebody else", BOX), turn=3) == digikam("Anna")
    # A face that nobody is named in is free.
    assert ("Bob", "mwg") in found(write(lightroom(), ("Bob", (0.75, 0.75, 0.85, 0.85))))


def test_what_somebody_renamed_or_moved_is_theirs() -> None:
    ours = write(digikam(), ("Bob", ELSEWHERE))
    renamed = ours.replace(b"Bob", b"Carl")
    assert write(renamed, ("Bob", ELSEWHERE)) != ours
    assert {region.name for region in regions_of(write(renamed, ("Bob", ELSEWHERE)))} == {"Anna", "Carl"}
    assert {region.name for region in regions_of(merged(renamed, [], None))} == {"Anna", "Carl"}


def test_what_somebody_deleted_stays_deleted_until_the_answer_changes() -> None:
    ours = write(digikam(), ("Bob", ELSEWHERE))
    mwg_alone = re.compile(rb"\s*<rdf:li[^>]*><mwg-rs:Area.*?Bob.*?</rdf:li>")
    assert len(mwg_alone.findall(ours)) == 1
    deleted = mwg_alone.sub(b"", ours)
    again = write(deleted, ("Bob", ELSEWHERE))
    assert {region.name for region in regions_of(again)} == {"Anna"}
    assert write(again, ("Bob", ELSEWHERE)) is again
    assert {region.name for region in regions_of(write(again, ("Carl", ELSEWHERE)))} == {"Anna", "Carl"}
    assert merged(again, [], None) == digikam()


def test_who_is_named_in_the_photo_itself_needs_no_sidecar() -> None:
    inside = [Region("Anna", BOX, "mwg", None, (0.3, 0.4, 0.2, 0.2), "photo.jpg")]
    anna, bob = Named("Anna", BOX), Named("Bob", ELSEWHERE)
    assert merged(EMPTY, [anna], FRAME, inside) == EMPTY
    # Programs that see a sidecar look there alone: then it has everybody.
    assert {region.name for region in regions_of(merged(EMPTY, [anna, bob], FRAME, inside))} == {"Anna", "Bob"}
    # Somebody else's word about a face counts more than facepipe's.
    wrong = merged(EMPTY, [Named("Carl", BOX), bob], FRAME, inside)
    assert {region.name for region in regions_of(wrong)} == {"Bob"}


SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "an empty RDF": lambda data: (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
    ),
    "another prefix": lambda data: (
        b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about=""/></r:RDF>'
    ),
    "an empty list": lambda data: packet(
        "<mwg-rs:Regions rdf:parseType='Resource'><mwg-rs:RegionList><rdf:Bag/></mwg-rs:RegionList></mwg-rs:Regions>"
    ),
    "prefixes that mean something else": lambda data: data.replace(
        b'xmlns:MP="http://ns.microsoft.com/photo/1.2/"', b'xmlns:MP="other"'
    ),
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes_take_regions_too(shape: str) -> None:
    before = SHAPES[shape](windows())
    after = write(before, ("Bob", ELSEWHERE))
    assert "Bob" in [name for name, _ in found(after)]
    assert write(after, ("Bob", ELSEWHERE)) is after
    assert not is_written(merged(after, [], None))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00b", "\ud800", "\ufffe", "a\x1b[31m"])
def test_a_name_that_xml_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(XmpError, match="control characters"):
        write(EMPTY, (name, BOX))


def test_a_list_that_nothing_can_be_added_to_is_left() -> None:
    with pytest.raises(XmpError, match="in a form that nothing can be added to"):
        write(packet("<mwg-rs:Regions mwg-rs:RegionList=''/>"), ("Bob", ELSEWHERE))


def test_a_sidecar_in_utf16_is_read_and_not_written() -> None:
    with pytest.raises(XmpError, match="UTF-8"):
        write(digikam().decode().encode("utf-16"), ("Bob", ELSEWHERE))
