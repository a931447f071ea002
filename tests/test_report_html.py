"""The HTML report: complete, self-contained, harmless whatever the names, and alive in a real browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from facepipe.images import encode_image, read_image
from facepipe.outputs.html import HtmlReport, Limits, thumbnail
from facepipe.outputs.results import write_report
from facepipe.records import Record, face_record, to_record
from facepipe.text import duration
from facepipe.types import Candidate, Failed, Image, Prediction, Recognized, Status
from tests.fakes import face_at

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">$thumbnails$data"
)


def answer(person: str, probability: float | None = 0.95, similarity: float = 0.7) -> Prediction:
    candidates = (Candidate(person, similarity), Candidate("Grace", 0.3))
    return Prediction(face_at(10, 10, 50), Status.KNOWN, person, similarity, probability, 0.43, candidates)


def stranger(similarity: float | None = 0.2) -> Prediction:
    candidates = () if similarity is None else (Candidate("Ada", similarity),)
    return Prediction(face_at(70, 10, 50), Status.UNKNOWN, None, similarity, None, 0.43, candidates)


def likely(person: str, probability: float) -> Prediction:
    """An unknown face that is probably somebody."""
    candidates = (Candidate(person, 0.4), Candidate("Grace", 0.2))
    return Prediction(face_at(70, 10, 50), Status.UNKNOWN, None, 0.4, probability, 0.43, candidates, person)


def ambiguous() -> Prediction:
    candidates = (Candidate("Ada", 0.5), Candidate("Grace", 0.49))
    return Prediction(face_at(130, 10, 50), Status.AMBIGUOUS, None, 0.5, 0.55, 0.43, candidates)


def photo(path: str, *predictions: Prediction, error: str | None = None) -> Record:
    return to_record(Recognized(path, 320, 240, predictions, "mini:1") if error is None else Failed(path, error))


def plain(shade: int = 90) -> bytes:
    return encode_image(np.full((40, 40, 3), shade % 256, np.uint8), "JPEG", quality=80)


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def pictures_of(page: Path) -> list[bytes]:
    chunks = re.findall(r'<script type="application/json" id="t\d+">(.*?)</script>', page.read_text(), re.DOTALL)
    return [base64.b64decode(picture) for chunk in chunks for picture in json.loads(chunk)]


def write(path: Path, *photos: Record, limits: Limits | None = None) -> dict[str, Any]:
    report = HtmlReport(path, limits=limits)
    for number, record in enumerate(photos):
        report.add(record, [plain(40 * number + 9 * place) for place in range(len(record["faces"]))])
    report.finish(seconds=12.5)
    return data_of(path)


def test_everything_is_counted_and_shown(tmp_path: Path) -> None:
    data = write(
        tmp_path / "r.html",
        photo("a.jpg", answer("Ada"), stranger()),
        photo("b.jpg", answer("Ada", 0.6), ambiguous()),
        photo("wall.jpg"),
        photo("broken.jpg", error="broken.jpg: is empty; copy it again"),
    )
    assert data["counts"] == {
        **{"photos": 4, "faces": 4, "known": 2, "ambiguous": 1, "unknown": 1, "maybe": 0, "no_face": 1, "failed": 1},
    }
    (ada,) = data["people"]
    assert (ada["name"], ada["total"], ada["photos"]) == ("Ada", 2, 2)
    assert [face["path"] for face in ada["faces"]] == ["b.jpg", "a.jpg"]  # the less certain first
    assert ada["cover"]["path"] == "a.jpg"  # the most certain on the cover
    assert [face["status"] for face in data["doubtful"]["faces"]] == ["ambiguous", "known"]
    assert data["failures"]["rows"] == [["broken.jpg", "is empty; copy it again", None]]
    assert data["no_face"]["rows"] == [["wall.jpg", None]]
    assert "took 12.5 s" in data["meta"] and "model mini:1" in data["meta"]
    assert len(pictures_of(tmp_path / "r.html")) == 4


def test_one_is_not_many(tmp_path: Path) -> None:
    write(tmp_path / "r.html", photo("a.jpg", answer("Ada")))
    assert "1 photo, 1 face: 1 known" in (tmp_path / "r.html").read_text()
    dom = browse(tmp_path / "r.html", tmp_path / "profile", "--dump-dom")
    for word in ("photo", "face", "person"):
        assert f"<b>1</b><span>{word}</span>" in dom


def test_each_face_has_its_own_picture(tmp_path: Path) -> None:
    photos = [photo(f"{n}.jpg", answer("Ada", 0.5 + n / 1000)) for n in range(450)]
    report = HtmlReport(tmp_path / "r.html", limits=Limits(person_faces=450))
    for number, record in enumerate(photos):
        report.add(record, [plain(number // 2)])
    report.finish()
    pictures = pictures_of(tmp_path / "r.html")
    for face in data_of(tmp_path / "r.html")["people"][0]["faces"]:
        with PIL.Image.open(io.BytesIO(pictures[face["thumb"]])) as picture:
            shade = np.asarray(picture)[20, 20, 0]
        assert abs(int(shade) - int(face["path"].split(".")[0]) // 2) <= 2


def test_an_uncalibrated_gallery_has_doubts_too(tmp_path: Path) -> None:
    data = write(tmp_path / "r.html", photo("a.jpg", answer("Ada", None, 0.45), answer("Grace", None, 0.8)))
    assert [face["person"] for face in data["doubtful"]["faces"]] == ["Ada"]


def test_an_unknown_face_that_is_probably_somebody_is_shown_with_that_person(tmp_path: Path) -> None:
    data = write(
        tmp_path / "r.html",
        photo("a.jpg", answer("Ada"), likely("Bob", 0.6), likely("Bob", 0.8)),
        photo("b.jpg", likely("Ada", 0.7), stranger()),
    )
    assert (data["counts"]["unknown"], data["counts"]["maybe"]) == (4, 3)
    bob, ada = data["maybe"]
    assert (bob["name"], bob["total"], bob["photos"], ada["name"]) == ("Bob", 2, 1, "Ada")
    assert [face["probability"] for face in bob["faces"]] == [0.8, 0.6]  # the most likely first
    assert {face["maybe"] for face in bob["faces"]} == {"Bob"} and bob["faces"][0]["person"] is None
    assert [entry["name"] for entry in data["people"]] == ["Ada"]  # nobody was recognised by it
    assert data["unknown"]["total"] == 1 and data["doubtful"]["total"] == 0
    assert "4 unknown, 3 of them maybe somebody known;" in (tmp_path / "r.html").read_text()


def test_limits_keep_the_most_doubtful_and_the_counts(tmp_path: Path) -> None:
    photos = [photo(f"{n:03d}.jpg", answer("Ada", n / 100), stranger(n / 250)) for n in range(100)]
    data = write(tmp_path / "r.html", *photos, limits=Limits(person_faces=5, doubtful=3, unknown=4))
    (ada,) = data["people"]
    assert ada["total"] == 100 and [face["path"] for face in ada["faces"]] == [f"{n:03d}.jpg" for n in range(5)]
    assert data["doubtful"]["total"] == 90 and len(data["doubtful"]["faces"]) == 3
    assert [face["path"] for face in data["unknown"]["faces"]] == ["099.jpg", "098.jpg", "097.jpg", "096.jpg"]


def test_many_people_share_the_room(tmp_path: Path) -> None:
    photos = [photo(f"{n}.jpg", answer(f"person {n % 100}", n / 4000)) for n in range(4000)]
    data = write(tmp_path / "r.html", *photos, limits=Limits(all_people_faces=300))
    assert data["people_total"] == len(data["people"]) == 100
    assert all(person["total"] == 40 for person in data["people"])
    assert all(1 <= len(person["faces"]) <= 3 for person in data["people"])
    assert data["people"][0]["faces"][0]["path"] == "0.jpg"


def test_memory_stays_bounded(tmp_path: Path) -> None:
    thumb = plain()
    limits = Limits(person_faces=10, doubtful=10, unknown=10, rows=10)
    report = HtmlReport(tmp_path / "r.html", limits=limits)
    record = photo("x" * 50 + ".jpg", answer("Ada", 0.5), stranger())
    report.add(record, [thumb, thumb])
    tracemalloc.start()
    for _ in range(500):
        report.add(record, [thumb, thumb])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 200_000


def test_photos_without_pictures_are_taken(tmp_path: Path) -> None:
    report = HtmlReport(tmp_path / "r.html")
    report.add(photo("a.jpg", answer("Ada")))
    report.add(photo("b.jpg", answer("Ada")), [])
    with pytest.raises(ValueError, match="expected 1, one for each face, got 2"):
        report.add(photo("c.jpg", answer("Ada")), [plain(), plain()])
    report.finish()
    assert [face["thumb"] for face in data_of(tmp_path / "r.html")["people"][0]["faces"]] == [None, None]


def test_a_link_leads_to_the_photo_and_to_nothing_else(tmp_path: Path) -> None:
    name = "javascript:alert('1')?#%.jpg"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).touch()
    photos = [photo(str(tmp_path / "in" / name), answer("Ada")), photo("javascript:alert(1)", answer("Ada"))]
    data = write(tmp_path / "out" / "r.html", *photos)
    links = {face["path"]: face["href"] for face in data["people"][0]["faces"]}
    assert links[str(tmp_path / "in" / name)] == "../in/javascript%3Aalert%28%271%27%29%3F%23%25.jpg"
    assert links["javascript:alert(1)"] is None


def test_the_page_is_self_contained_and_names_are_only_text(tmp_path: Path) -> None:
    write(tmp_path / "r.html", photo(HOSTILE, answer(HOSTILE)), photo(HOSTILE, error=HOSTILE))
    page = (tmp_path / "r.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|src=", page.split('id="data">')[0])
    assert page.count("<script") == 3 and page.count("</script>") == 3  # data, thumbnails, the script
    assert "<img" not in page.split('id="data">')[1].split("</script>")[0]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and "default-src 'none'" in policy.group(1)
    for kind in ("script", "style"):
        content = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)[-1]
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy.group(1)


def test_a_face_says_where_it_is_and_whether_it_is_doubtful(tmp_path: Path) -> None:
    data = write(tmp_path / "r.html", photo("a.jpg", answer("Ada"), stranger()), photo("b.jpg", answer("Ada", 0.6)))
    shown = {face["path"]: face for face in data["people"][0]["faces"]}
    assert shown["a.jpg"]["place"] == [0.031, 0.042, 0.156, 0.208, 1.333]  # 50 pixels at (10, 10) of 320 x 240
    assert (shown["a.jpg"]["number"], shown["a.jpg"]["faces"]) == (1, 2)
    assert [shown[name]["doubtful"] for name in ("a.jpg", "b.jpg")] == [False, True]


def test_of_faces_that_are_equally_sure_the_most_similar_is_the_cover(tmp_path: Path) -> None:
    data = write(
        tmp_path / "r.html",
        *(photo(f"{similarity}.jpg", answer("Ada", 0.99, similarity)) for similarity in (0.7, 0.9, 0.8)),
    )
    (ada,) = data["people"]
    assert ada["cover"]["path"] == "0.9.jpg"
    assert [face["path"] for face in ada["faces"]] == ["0.7.jpg", "0.8.jpg", "0.9.jpg"]


def test_what_earlier_runs_did_is_not_this_runs_speed(tmp_path: Path) -> None:
    def meta(fresh: int) -> str:
        report = HtmlReport(tmp_path / "r.html")
        for number in range(10):
            report.add(photo(f"{number}.jpg"))
        report.finish(seconds=2.0, fresh=fresh)
        return " ".join(data_of(tmp_path / "r.html")["meta"])

    assert "5.0 a second" in meta(10) and "earlier" not in meta(10)
    assert "8 photos from earlier runs 2 scanned in 2.0 s" in meta(2)
    assert "10 photos from earlier runs" in meta(0)
    assert not any("a second" in meta(fresh) for fresh in (0, 2))


def test_an_interrupted_report_leaves_the_old_page(tmp_path: Path) -> None:
    write(tmp_path / "r.html", photo("a.jpg"))
    before = (tmp_path / "r.html").read_bytes()

    def interrupted() -> Iterator[tuple[Record, list[bytes]]]:
        yield photo("b.jpg"), []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(tmp_path / "r.html", interrupted(), 1.0, 1)
    assert (tmp_path / "r.html").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_thumbnail_is_small() -> None:
    image = Image(np.full((900, 900, 3), 7, np.uint8))
    for size, side in ((600, 112), (20, 30)):
        with PIL.Image.open(io.BytesIO(thumbnail(image, face_record(face_at(100, 100, size))))) as picture:
            assert max(picture.size) <= side and picture.format == "JPEG"
            assert size < 112 or picture.size == (112, 112)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_read_by_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ---- in a real browser ----


def browse(page: Path, folder: Path, what: str) -> str:
    """Open a page in headless Chromium without a network; what: `--dump-dom` returns its DOM, or `--screenshot=FILE`."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"
    quiet = "--disable-sync --no-first-run --hide-scrollbars --window-size=1280,1600 --virtual-time-budget=10000"
    command = [browser, *flags.split(), *quiet.split(), "--host-resolver-rules=MAP * ~NOTFOUND"]
    run = subprocess.run(
        [*command, f"--user-data-dir={folder}", what, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return run.stdout


def pink_pixels(page: Path, folder: Path) -> int:
    """Return how many pixels of a page's screenshot have the colour of the pink thumbnails."""
    browse(page, folder, f"--screenshot={folder / 'shot.png'}")
    rgb = read_image(folder / "shot.png").rgb.astype(int)
    return int((np.abs(rgb - PINK).max(axis=2) < 12).sum())


PINK = np.array([255, 0, 255])


def pink() -> bytes:
    return encode_image(np.broadcast_to(PINK.astype(np.uint8), (112, 112, 3)), "JPEG", quality=80)


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    photos = [photo(HOSTILE, answer(HOSTILE, 0.6), stranger()), photo("b.jpg", ambiguous()), photo("wall.jpg")]
    photos.append(photo("c.jpg", likely("Zoë", 0.714), likely(HOSTILE, 0.6)))
    report = HtmlReport(tmp_path / "r.html")
    for record in [*photos, photo(HOSTILE, error="broken")]:
        report.add(record, [pink()] * len(record["faces"]))
    report.finish(seconds=1.0)
    dom = browse(tmp_path / "r.html", tmp_path / "profile", "--dump-dom")
    assert 'data-ready="yes"' in dom
    assert "<title>Who is in these photos</title>" in dom  # no name ran as a script
    for section in ("doubtful", "maybe", "people", "unknown", "failures", "no-face"):
        assert f'<section class="part" id="{section}">' in dom
    assert "maybe Zoë, 71 %" in dom and "maybe <bdi>Zoë</bdi>" in dom
    assert "Ada or Grace?" in dom and "&lt;/script&gt;&lt;script&gt;" in dom
    # A list that is shown whole offers no more; the rule below is what hides the button in every browser.
    assert "Show 0 more" in dom and "[hidden] { display: none !important; }" in dom
    # Two doubtful faces of 96 pixels, a cover, a person's face and an unknown one: all in the first window.
    assert pink_pixels(tmp_path / "r.html", tmp_path / "profile") > 4 * 90 * 90


@pytest.mark.slow
def test_a_browser_shows_five_thousand_faces(tmp_path: Path) -> None:
    report = HtmlReport(tmp_path / "r.html")
    for number in range(2500):
        report.add(photo(f"{number}.jpg", answer(f"person {number % 80}", number / 2500), stranger()), [pink()] * 2)
    report.finish()
    dom = browse(tmp_path / "r.html", tmp_path / "profile", "--dump-dom")
    assert 'data-ready="yes"' in dom
    assert dom.count('class="face"') < 1000  # the rest is made when it is asked for
    assert pink_pixels(tmp_path / "r.html", tmp_path / "profile") > 12 * 90 * 90
