"""The review page's server: who may speak to it, what it answers, and that no answer, name or path does more than it says."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facepipe.errors import UsageError
from facepipe.groups.values import FaceKey
from facepipe.images import content_hash, encode_image
from facepipe.review.asked import Asked
from tests.review_fakes import Face, FakeGroups, Pile

starlette = pytest.importorskip("starlette", reason="the extra [web] is not installed")
pytest.importorskip("httpx2", reason="httpx2 is not installed")

from starlette.testclient import TestClient  # noqa: E402

from facepipe.review.calls import Calls  # noqa: E402
from facepipe.review.guard import TOKEN, new_token  # noqa: E402
from facepipe.review.server import Review  # noqa: E402

PORT = 43210
HOST = f"127.0.0.1:{PORT}"
HTML = '<img src=x onerror="alert(1)">'


def jpeg(shade: int) -> bytes:
    return encode_image(np.full((40, 40, 3), shade, np.uint8), "JPEG")


def pile(folder: Path) -> FakeGroups:
    """Two groups that may be the same person, one alone, a known person with a face that may be theirs; photos on the disk."""
    faces = []
    for number in range(12):
        rgb = np.full((300, 400, 3), 20 * number, np.uint8)
        rgb[100:200, 150:250] = 255 - 20 * number
        path = folder / f"photo {number}.png"
        path.write_bytes(data := encode_image(rgb, "PNG"))
        key = FaceKey(content_hash(data), 0)
        faces.append(Face(key, str(path), (150.0, 100.0, 250.0, 200.0), jpeg(20 * number), f"20{10 + number}-06-01"))
    keys = [face.key for face in faces]
    faces[11].maybe = ("Anna", 0.7)
    begun = Pile(
        groups={1: keys[0:4], 2: keys[4:6], 3: [keys[6]], 4: [keys[11]]},
        people={"Anna": {keys[7]: "enrolled", keys[8]: "recognised"}, HTML: {keys[9]: "enrolled"}},
        alike={(1, 2): 0.41},
        maybe={2: ("Anna", 0.66)},
    )
    return FakeGroups(faces, begun, {key.content: (400, 300) for key in keys})


@pytest.fixture
def groups(tmp_path: Path) -> FakeGroups:
    return pile(tmp_path)


@pytest.fixture
def client(groups: FakeGroups) -> Iterator[TestClient]:
    token = new_token()
    review = Review(lambda: Calls(groups, "/photos/results.jsonl.catalog"), token, PORT)
    with TestClient(review.app, base_url=f"http://{HOST}", headers={TOKEN: token}) as client:
        yield client


def name_of(key: FaceKey) -> str:
    return f"{key.content}:{key.number}"


def say(client: TestClient, **body: Any) -> Any:
    answer = client.post("/api/answer", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# ---- who may speak to it ----


def test_nothing_under_api_is_told_without_the_token(client: TestClient) -> None:
    for headers in ({TOKEN: ""}, {TOKEN: "wrong"}, {TOKEN: client.headers[TOKEN][:-1]}):
        for path in ("state", "groups", "photo?content=" + "0" * 64, "picture?content=" + "0" * 64, "nothing"):
            assert client.get(f"/api/{path}", headers=headers).status_code == 401
        for path in ("answer", "thumbnails", "rows", "find"):
            assert client.post(f"/api/{path}", headers=headers, json={}).status_code == 401


def test_a_token_in_the_address_or_a_cookie_is_none(client: TestClient) -> None:
    token = client.headers[TOKEN]
    assert client.get(f"/api/state?token={token}", headers={TOKEN: ""}).status_code == 401
    assert client.get("/api/state", headers={TOKEN: "", "cookie": f"token={token}"}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "", HOST + "."]
)
def test_another_host_is_refused_whatever_it_asks_for(client: TestClient, host: str) -> None:
    for path in ("/", "/page/main.js", "/api/state"):
        assert client.get(path, headers={"host": host}).status_code == 421


def test_localhost_is_this_machine_too(client: TestClient) -> None:
    assert client.get("/api/state", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://{HOST}", f"http://127.0.0.1:{PORT + 1}"])
def test_another_origin_is_refused_though_it_has_the_token(client: TestClient, origin: str) -> None:
    assert client.post("/api/answer", headers={"origin": origin}, json={"do": "undo"}).status_code == 403
    assert client.post("/api/find", headers={"origin": f"http://{HOST}"}, json={}).status_code == 200


def test_nothing_is_allowed_to_other_origins(client: TestClient) -> None:
    answer = client.options("/api/answer", headers={"origin": "http://evil.example", TOKEN: ""})
    assert answer.status_code in {401, 403}
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_each_answer_tells_the_browser_to_load_nothing_from_elsewhere(client: TestClient) -> None:
    asked = [
        client.get("/"),
        client.get("/page/page.css"),
        client.get("/api/state"),
        client.get("/api/state", headers={TOKEN: ""}),
    ]
    for answer in [*asked, client.get("/nothing"), client.get("/", headers={"host": "evil.example"})]:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/%2e%2e/%2e%2e/errors.py",
        "/page/..%5cserver.py",
        "/page//etc/passwd",
        "/page/page.html%00.js",
        "/page/",
        "/../../etc/passwd",
        "/server.py",
    ],
)
def test_only_the_pages_own_files_are_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_the_page_has_no_script_style_or_address_of_its_own() -> None:
    folder = Path(__file__).parent.parent / "facepipe/review/page"
    page = (folder / "page.html").read_text()
    assert "<style" not in page and "style=" not in page and "onclick" not in page
    assert page.count("<script") == page.count('<script type="module" src="/page/')
    for file in folder.iterdir():
        text = file.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http:" not in text and "https:" not in text, file.name
        for maker in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            ".cssText",
        ):
            assert maker not in text, f"{file.name}: {maker}"


def test_the_browser_is_given_the_token_in_a_private_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a command line can be read by every user of the machine."""
    import webbrowser

    from facepipe.cli.review import _opened

    given: list[str] = []
    monkeypatch.setattr(webbrowser, "open", given.append)
    with _opened(f"http://{HOST}/#token=secret"):
        (address,) = given
        page = Path(address.removeprefix("file://"))
        assert "secret" not in address and f"url=http://{HOST}/#token=secret" in page.read_text()
        assert page.parent.stat().st_mode & 0o077 == 0
    assert not page.exists()


# ---- what it answers ----


def test_groups_are_told_in_the_order_of_the_table_and_single_faces_apart(
    client: TestClient, groups: FakeGroups
) -> None:
    groups.fresh = {2}
    groups.refreshed += 1
    assert client.get("/api/groups").json() == {"ids": [2, 1]}
    assert client.get("/api/groups?state=single").json() == {"ids": [3, 4]}
    assert client.get("/api/groups?state=named").json() == {"ids": []}
    state = client.get("/api/state").json()
    assert (state["open"], state["single"], state["pairs"], state["suggestions"], state["people"]) == (2, 2, 1, 1, 2)
    rows = client.post("/api/rows", json={"groups": [1, 99, 2], "faces": 3}).json()["rows"]
    assert [(row["id"], row["size"], len(row["faces"])) for row in rows] == [(1, 4, 3), (2, 2, 2)]
    assert rows[1]["suggestion"] == ["Anna", 0.66]
    assert rows[0]["faces"][0]["face"] == rows[0]["cover"]


def test_every_answer_can_be_given_and_taken_back(client: TestClient, groups: FakeGroups) -> None:
    faces = [name_of(key) for key in groups.all]
    given: list[dict[str, Any]] = [
        {"do": "put_out", "group": 1, "faces": [faces[3]]},
        {"do": "apart", "groups": [1, 2]},
        {"do": "join", "groups": [1, 2]},
        {"do": "name", "group": 1, "person": "Carl"},
        {"do": "ignore", "group": 3},
        {"do": "skip", "group": 4},
        {"do": "confirm", "faces": [faces[11]], "person": "Anna"},
        {"do": "deny", "faces": [faces[8]], "person": "Anna"},
        {"do": "rename", "person": "Anna", "to": "Anne"},
        {"do": "merge", "people": ["Anne", HTML], "into": "Anne"},
        {"do": "split", "person": "Anne", "faces": [faces[9]], "into": "Bob"},
        {"do": "cover", "person": "Anne", "face": faces[11]},
    ]
    before = (client.get("/api/people").json(), client.get("/api/groups").json())
    for number, body in enumerate(given, 1):
        told = say(client, **body, since=number - 1)
        assert told["number"] == number and told["alone"] and told["what"]
    people = {person["name"]: person for person in client.get("/api/people").json()["people"]}
    assert sorted(people) == ["Anne", "Bob", "Carl"]
    assert people["Carl"]["faces"] == 5 and people["Anne"]["cover"] == faces[11]
    assert client.get("/api/groups").json() == {"ids": []}
    for body in reversed(given):
        assert say(client, do="undo")["what"].startswith("taken back: "), body
    assert (client.get("/api/people").json(), client.get("/api/groups").json()) == before
    history = client.get("/api/history?count=100").json()["answers"]
    assert len(history) == 2 * len(given)
    assert all(answer["undone"] for answer in history[len(given) :])
    assert client.post("/api/answer", json={"do": "undo"}).status_code == 400


def test_an_answer_says_whether_another_window_answered_meanwhile(client: TestClient) -> None:
    assert say(client, do="skip", group=3, since=0)["alone"]
    assert not say(client, do="skip", group=4, since=0)["alone"]


def test_names_are_kept_as_they_are_and_what_is_no_name_is_refused(client: TestClient) -> None:
    assert say(client, do="name", group=1, person=HTML)["version"] == 1
    assert HTML in client.get("/api/names").json()["names"]
    for person in ("", "  ", "a\u202eb", "a\nb", "x" * 300, 7, None, ["Anna"]):
        answer = client.post("/api/answer", json={"do": "name", "group": 2, "person": person})
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]
    assert client.get("/api/person", params={"name": HTML}).json()["person"]["faces"] == 5
    assert client.get("/api/person", params={"name": "../../etc"}).status_code == 404


def test_thumbnails_come_many_at_once_and_one_that_is_not_there_is_empty(
    client: TestClient, groups: FakeGroups
) -> None:
    keys = list(groups.all)[:3]
    names = [name_of(keys[0]), "0" * 64 + ":0", name_of(keys[2])]
    assert pictures_of(client, names) == [groups.all[keys[0]].jpeg, b"", groups.all[keys[2]].jpeg]


def pictures_of(client: TestClient, names: list[str]) -> list[bytes]:
    data, found = client.post("/api/thumbnails", json={"faces": names}).content, []
    while data:
        (size,) = struct.unpack(">I", data[:4])
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def test_a_face_without_a_kept_picture_is_cut_out_of_its_photo(client: TestClient, groups: FakeGroups) -> None:
    from facepipe.images import read_image_bytes

    keys = list(groups.all)
    for key in keys[:3]:
        groups.all[key].jpeg = b""
    Path(groups.all[keys[1]].path).write_bytes(b"nothing any more")
    for _ in range(2):  # the second time they are remembered
        found = pictures_of(client, [name_of(key) for key in keys[:4]])
        assert [bool(jpeg) for jpeg in found] == [True, False, True, True]
        assert read_image_bytes(found[0], "answer").rgb.max() > 200
        Path(groups.all[keys[0]].path).unlink(missing_ok=True)


def test_an_enrolled_face_of_another_place_has_a_picture_too(client: TestClient, groups: FakeGroups) -> None:
    groups.outside[5] = jpeg(77)
    assert pictures_of(client, ["gallery:5", "gallery:6"]) == [jpeg(77), b""]
    for name in ("gallery:0", "gallery:-1", "gallery:x", "gallery:", "gallery:" + "9" * 30):
        assert client.post("/api/thumbnails", json={"faces": [name]}).status_code == 400
    assert client.post("/api/answer", json={"do": "deny", "faces": ["gallery:5"], "person": "Anna"}).status_code == 400


def test_a_search_tells_the_command_that_finds_the_same(client: TestClient) -> None:
    found = client.post("/api/find", json={"with": ["Anna"], "without": [HTML], "since": "2017-01-01"}).json()
    assert [Path(photo["path"]).name for photo in found["photos"]] == ["photo 7.png", "photo 8.png"]
    assert found["command"] == (
        f"facepipe find /photos/results.jsonl.catalog --with=Anna '--without={HTML}' --since=2017-01-01"
    )


def test_a_person_and_a_face_are_told_with_what_is_known(client: TestClient, groups: FakeGroups) -> None:
    keys = list(groups.all)
    faces = client.get("/api/person?name=Anna").json()["faces"]
    assert [face["status"] for face in faces] == ["recognised", "enrolled"]
    photo = client.get("/api/photo", params={"content": keys[11].content}).json()
    assert photo["faces"][0]["suggestion"] == ["Anna", 0.7] and photo["faces"][0]["group"] == 4
    nearest = client.get("/api/nearest", params={"face": name_of(keys[11]), "person": "Anna"}).json()["nearest"]
    assert nearest[0] == {"person": "Anna", "similarity": 0.71, "face": name_of(keys[7])}
    assert client.get("/api/group?id=1").json()["alike"][0]["likeness"] == 0.41
    assert client.get("/api/pairs").json()["pairs"] == [[1, 2, 0.41]]
    assert client.get("/api/suggestions").json()["suggestions"][0]["face"] == name_of(keys[11])


def test_progress_of_a_scan_is_told(client: TestClient, groups: FakeGroups) -> None:
    from facepipe.groups.shown import Progress

    groups.running = Progress(True, 120, 340, 2)
    assert client.get("/api/state").json()["scan"] == {"running": True, "photos": 120, "faces": 340, "failed": 2}


# ---- photos ----


def test_a_photo_is_decoded_and_written_anew(client: TestClient, groups: FakeGroups) -> None:
    from facepipe.images import read_image_bytes

    key = next(iter(groups.all))
    whole = client.get("/api/picture", params={"content": key.content, "side": 200})
    assert whole.headers["content-type"] == "image/jpeg"
    assert read_image_bytes(whole.content, "answer").rgb.shape == (150, 200, 3)
    face = client.get("/api/picture", params={"content": key.content, "side": 96, "number": 0})
    rgb = read_image_bytes(face.content, "answer").rgb
    assert rgb.shape == (96, 96, 3)
    assert rgb[48, 48].min() > 200
    assert rgb[3, 3].max() < 100


def test_a_photo_in_an_archive_is_shown_too(client: TestClient, groups: FakeGroups, tmp_path: Path) -> None:
    face = next(iter(groups.all.values()))
    with zipfile.ZipFile(tmp_path / "summer.zip", "w") as archive:
        archive.write(face.path, "day/one.png")
    face.path = f"{tmp_path / 'summer.zip'}!day/one.png"
    assert client.get("/api/picture", params={"content": face.key.content}).status_code == 200
    face.path = f"{tmp_path / 'summer.zip'}!day/other.png"
    assert client.get("/api/picture", params={"content": face.key.content}).status_code == 404


def test_a_photo_that_is_gone_another_one_or_no_picture_is_a_line(client: TestClient, groups: FakeGroups) -> None:
    gone, other, none = list(groups.all.values())[:3]
    Path(gone.path).unlink()
    Path(other.path).write_bytes(Path(none.path).read_bytes())
    for content, number in ((gone.key.content, 0), (other.key.content, 0), (none.key.content, 7), ("f" * 64, 0)):
        answer = client.get("/api/picture", params={"content": content, "number": number})
        assert answer.status_code == 404
        assert set(answer.json()) == {"error"} and "Traceback" not in answer.text


@pytest.mark.parametrize(
    "content", ["", "..", "/etc/passwd", "A" * 64, "0" * 63, "0" * 65, "../" * 20, "0" * 63 + "\n"]
)
def test_a_photo_is_named_by_its_content_and_nothing_else(client: TestClient, content: str) -> None:
    for path in ("photo", "picture"):
        assert client.get(f"/api/{path}", params={"content": content}).status_code == 400


# ---- what is no request ----


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"do": 1}',
        b'{"do": "nothing"}',
        b'{"do": "join", "groups": [1]}x',
        b'{"do": "apart", "groups": [1]}',
        b'{"do": "put_out", "group": -1, "faces": []}',
        b'{"do": "name", "group": 1e300}',
    ],
)
def test_what_is_no_request_is_refused_in_one_line(client: TestClient, groups: FakeGroups, body: bytes) -> None:
    answer = client.post("/api/answer", content=body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"] and groups.version == 0


def test_a_request_that_is_too_large_is_not_read(client: TestClient) -> None:
    assert client.post("/api/answer", content=b"x" * (1 << 20) + b"x").status_code == 413
    assert client.post("/api/answer", content=iter([b"{}"])).status_code == 411
    assert client.put("/api/answer", json={}).status_code == 405


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(_JSON)
def test_a_value_is_of_its_kind_or_refused(value: object) -> None:
    asked = Asked({"v": value})
    kinds: dict[str, Callable[[Any], bool]] = {
        "text": lambda found: found == value and isinstance(value, str),
        "number": lambda found: found >= 0 and not isinstance(value, (bool, float)),
        "flag": lambda found: found is value,
        "face": lambda found: name_of(found) == value or str(value).split(":")[1].startswith("0"),
        "content": lambda found: found == value and len(found) == 64,
        "faces": lambda found: isinstance(found[0], FaceKey),
        "texts": lambda found: found == value,
        "numbers": lambda found: isinstance(value, list) and len(found) == len(value) > 0,
    }
    for kind, right in kinds.items():
        try:
            found = getattr(asked, kind)("v")
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            assert right(found), (kind, value)
