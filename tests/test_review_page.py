"""The review page in a browser: by mouse, by keyboard alone, in two windows, on a phone, in the dark."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from facepipe.groups.shown import Progress
from facepipe.groups.values import FaceKey
from tests.review_fakes import Face, FakeGroups, Pile
from tests.test_review import HTML, jpeg, pile

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra [web] is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # a loaded machine is no failure


class Served:
    """A server of the page in a thread. address: with its token. refuses: a test asks for what is refused."""

    refuses = False

    def __init__(self, groups: FakeGroups) -> None:
        from facepipe.review.calls import Calls
        from facepipe.review.guard import new_token
        from facepipe.review.running import config_of, listen
        from facepipe.review.server import Review

        self.groups, token = groups, new_token()
        self.listener = listen(0)
        port = self.listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/#token={token}"
        self.server = uvicorn.Server(
            config_of(Review(lambda: Calls(groups, "/photos/summer.jsonl.catalog"), token, port))
        )
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that a container's root does not have.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def groups(tmp_path: Path) -> FakeGroups:
    return pile(tmp_path)


@pytest.fixture
def served(groups: FakeGroups) -> Iterator[Served]:
    served = Served(groups)
    yield served
    served.stop()


@pytest.fixture
def windows(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Opens windows of one browser; afterwards nothing may have gone wrong in them, or been asked of anybody else."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open(address: str | None = None, **how: Any) -> Page:
        if not contexts or how:
            contexts.append(browser.new_context(**how))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(error.stack or str(error)))
        page.on("console", lambda message: wrong.append(message.text) if is_wrong(message, served.refuses) else None)
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        here = served.address.partition("#")[0]
        page.on("request", lambda r: None if r.url.startswith((here, f"blob:{here}")) else wrong.append(r.url))
        page.goto(served.address if address is None else address)
        if address is None:
            page.wait_for_selector("html[data-ready]")
            page.wait_for_selector("input.name:focus")
        return page

    yield open
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def page(windows: Callable[..., Page]) -> Page:
    return windows()


def is_wrong(message: Any, refuses: bool) -> bool:
    """Say whether the console complains; that the server has gone, or refused an answer, is told on the page as well."""
    told = "ERR_CONNECTION_REFUSED" in message.text or (refuses and re.search(r"status of 40[04] ", message.text))
    return message.type in {"error", "warning"} and not told


def name_field(page: Page) -> Any:
    """The name's field that has the focus."""
    return page.locator("input.name:focus")


def shown_groups(page: Page) -> list[int]:
    page.wait_for_timeout(50)
    return [int(row.get_attribute("data-id") or 0) for row in page.locator("article.row").all()]


def go(page: Page, view: str) -> None:
    page.evaluate("view => { location.hash = `#/${view}`; }", view)


# ---- the token ----


def test_the_token_leaves_the_address_and_survives_a_reload(page: Page, served: Served) -> None:
    assert "token" not in page.url and page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.locator("article.row")).to_have_count(2)
    assert page.evaluate("history.length") <= 2


def test_another_window_of_the_page_gets_the_token_from_this_one(
    page: Page, windows: Callable[..., Page], served: Served
) -> None:
    other = windows(served.address.partition("#")[0])
    expect(other.locator("article.row")).to_have_count(2)


def test_without_the_token_nothing_is_shown(browser: Browser, served: Served) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        for address in (served.address.partition("#")[0], served.address[:-1] + "x"):
            page.goto("about:blank")
            page.goto(address)
            expect(page.locator("#trouble")).to_contain_text("This address is not valid any more")
            expect(page.locator("article.row, .tile")).to_have_count(0)


@pytest.mark.parametrize(
    "view", ["nothing", "constructor", "person/%", "person/Nobody", "group/99", "group/x", "groups/x", "/"]
)
def test_an_address_that_leads_nowhere_is_a_line_or_the_groups(page: Page, served: Served, view: str) -> None:
    served.refuses = True
    go(page, view)
    expect(page.locator("article.row, .empty:visible").first).to_be_visible()
    go(page, "groups")
    expect(page.locator("article.row")).to_have_count(2)


# ---- groups ----


def test_groups_are_named_by_the_keyboard_alone(page: Page, groups: FakeGroups) -> None:
    expect(name_field(page)).to_have_attribute("aria-label", re.compile("4 faces"))
    page.keyboard.type("ann")
    expect(name_field(page)).to_have_value("anna")  # completed; what was not typed is marked
    page.keyboard.type("eliese")
    expect(name_field(page)).to_have_value(re.compile("anneliese", re.IGNORECASE))
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("4 faces are")
    expect(name_field(page)).to_have_attribute("placeholder", "Anna? 66 %")  # the next group
    page.keyboard.press("Enter")  # accepts
    expect(page.locator(".empty:visible h2")).to_have_text("All groups are answered.")
    assert {person.name: person.faces for person in groups.people()}["Anna"] == 4
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator("article.row")).to_have_count(2)
    assert [group.state for group in groups.table(state=None)] == ["open"] * 4


def test_keys_say_later_nobody_and_not_this_person(page: Page, groups: FakeGroups) -> None:
    page.keyboard.press("ArrowDown")
    expect(name_field(page)).to_have_attribute("placeholder", "Anna? 66 %")
    page.keyboard.press("!")
    expect(name_field(page)).to_have_attribute("placeholder", "Who is this?")
    page.keyboard.press(".")
    expect(page.locator("article.row")).to_have_count(1)
    page.keyboard.press("-")
    expect(page.locator("article.row")).to_have_count(0)
    assert {group.id: group.state for group in groups.table(state=None)} == {
        1: "ignored",
        2: "skipped",
        3: "open",
        4: "open",
    }


def test_a_face_is_put_out_by_a_click_and_comes_back_by_another(page: Page, groups: FakeGroups) -> None:
    face = page.locator("article.row").first.locator(".tile .pic").nth(2)
    face.click()
    expect(page.locator("#toast")).to_contain_text("put out")
    expect(page.locator(".tile.out")).to_have_count(1)
    assert groups.group(1).size == 3
    face.click()
    expect(page.locator(".tile.out")).to_have_count(0)
    assert groups.group(1).size == 4


def test_what_was_put_out_is_back_when_it_is_taken_back_elsewhere(page: Page, groups: FakeGroups) -> None:
    for view, tile in (("groups", "article.row .tile .pic"), ("group/1", ".tile .pic"), ("person/Anna", ".tile .pic")):
        go(page, view)
        page.locator(tile).nth(1).click()
        expect(page.locator(".tile.out")).to_have_count(1)
        page.locator("#undo").click()
        expect(page.locator(".tile.out")).to_have_count(0)


def test_the_next_name_can_be_typed_before_the_last_answer_is_there(page: Page, groups: FakeGroups) -> None:
    give = groups.name

    def slowly(id: int, person: str, *, most: int = 20) -> int:
        time.sleep(1.0)
        return give(id, person, most=most)

    groups.name = slowly  # type: ignore[method-assign]
    page.keyboard.type("Xaver")
    page.keyboard.press("Enter")
    page.keyboard.press(
        "Enter"
    )  # once too often: accepts the next suggestion, and does not answer the first group again
    expect(page.locator(".empty:visible h2")).to_have_text("All groups are answered.")
    assert [answer.what for answer in groups.answers()] == ["name", "name"]
    assert {group.person for group in groups.table(state="named")} == {"Xaver", "Anna"}


def test_a_refused_answer_leaves_the_group_where_it_was(page: Page, groups: FakeGroups, served: Served) -> None:
    served.refuses = True
    page.locator("article.row input.name").first.fill("a\u202eb")
    page.keyboard.press("Enter")
    expect(page.locator(".toast.bad")).to_contain_text("is not a name")
    expect(page.locator("article.row:not(.sent)")).to_have_count(2)
    assert groups.version == 0


def test_a_face_is_put_out_by_the_keyboard(page: Page, groups: FakeGroups) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator(".tile.out")).to_have_count(1)
    assert groups.group(1).size == 3
    page.keyboard.press("o")
    expect(page.locator("dialog.sheet")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(name_field(page)).to_have_count(1)


def test_marked_groups_are_joined(page: Page, groups: FakeGroups) -> None:
    page.keyboard.press("+")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("+")
    expect(page.locator(".joinbar")).to_contain_text("2 groups marked")
    page.get_by_role("button", name="Join 2").click()
    expect(page.locator("article.row")).to_have_count(1)
    assert groups.group(1).size == 6
    page.locator("#toast").get_by_role("button", name="Undo").click()
    expect(page.locator("article.row")).to_have_count(2)


def test_a_join_by_keyboard_that_is_taken_back_shows_both_groups_as_they_were(page: Page, groups: FakeGroups) -> None:
    before = page.locator("article.row .facts").all_inner_texts()
    for key in ("+", "ArrowDown", "+", "="):
        page.keyboard.press(key)
    expect(page.locator("article.row")).to_have_count(1)
    expect(page.locator("article.row .facts")).to_contain_text("6 faces")
    page.keyboard.press("Control+z")
    expect(page.locator("article.row .facts")).to_have_text(before)


def test_a_completion_leaves_what_was_typed_as_it_is(page: Page, groups: FakeGroups) -> None:
    page.keyboard.type("zo")  # Zoe is known
    page.keyboard.type("/b" + "x" * 250)
    expect(name_field(page)).to_have_value("zo/b" + "x" * 250)


def test_what_is_typed_stays_when_another_window_answers(
    page: Page, windows: Callable[..., Page], groups: FakeGroups
) -> None:
    other = windows()
    page.bring_to_front()
    page.keyboard.type("Zo")
    other.keyboard.press("ArrowDown")
    other.keyboard.press(".")
    expect(other.locator("article.row")).to_have_count(1)
    expect(page.locator("article.row")).to_have_count(1)
    expect(name_field(page)).to_have_value("Zo")


def test_two_windows_agree_and_the_second_answer_to_a_group_is_told(
    page: Page, windows: Callable[..., Page], groups: FakeGroups
) -> None:
    other = windows()
    other.locator("article.row").first.get_by_role("button", name="Nobody I need").click()
    expect(page.locator("article.row")).to_have_count(1)
    expect(page.locator("nav a[data-view=groups] b")).to_have_text("1")
    page.locator("#undo").click()
    expect(other.locator("article.row")).to_have_count(2)


def test_faces_that_a_scan_finds_appear(page: Page, groups: FakeGroups) -> None:
    groups.running = Progress(True, 1200, 3400, 0)
    expect(page.locator("#scan")).to_have_text("Scanning: 1,200 photos, 3,400 faces")
    key = FaceKey("e" * 64, 0)
    for at in (key, FaceKey("e" * 64, 1)):
        groups.all[at] = Face(at, "new.jpg", (0.0, 0.0, 9.0, 9.0), jpeg(90))
    groups.now.groups[9] = [key, FaceKey("e" * 64, 1)]
    groups.fresh, groups.refreshed = {9}, 1
    expect(page.locator("article.row")).to_have_count(3)
    assert shown_groups(page)[-1] != 9 or page.locator("article.row[data-id='9'] .new").is_visible()
    expect(page.locator("article.row[data-id='9'] .new")).to_be_visible()
    groups.running = Progress(False, 1200, 3400, 0)
    expect(page.locator("#scan")).to_be_hidden()


# ---- pairs and suggestions ----


@pytest.mark.parametrize(("key", "left"), [("y", [6]), ("n", [4, 2])])
def test_likely_joins_are_answered_by_one_key(page: Page, groups: FakeGroups, key: str, left: list[int]) -> None:
    go(page, "pairs")
    expect(page.locator(".side")).to_have_count(2)
    page.keyboard.press(key)
    expect(page.locator(".empty h2")).to_have_text("No more pairs.")
    assert [group.size for group in groups.table() if group.size > 1] == left


@pytest.mark.parametrize(("key", "faces"), [("y", 3), ("n", 2)])
def test_suggestions_are_answered_by_one_key(page: Page, groups: FakeGroups, key: str, faces: int) -> None:
    go(page, "suggestions")
    expect(page.locator(".ask h2")).to_have_text("Is this Anna?")
    expect(page.locator(".ask .like .pic")).to_have_count(2)
    page.keyboard.press(key)
    expect(page.locator(".empty h2")).to_have_text("No more suggestions.")
    assert len(groups.person("Anna")) == faces


# ---- photos and people ----


def test_the_photo_behind_a_face_shows_its_boxes_in_their_places(page: Page, groups: FakeGroups) -> None:
    first = page.locator("article.row").first.locator(".tile").first
    first.hover()
    first.locator(".look").click()
    sheet = page.locator("dialog.sheet")
    image = sheet.locator(".frame img")
    expect(image).to_have_js_property("complete", True)
    page.wait_for_function("() => document.querySelector('.frame img').naturalWidth > 0")
    frame, box = image.bounding_box(), sheet.locator(".box").bounding_box()
    assert frame is not None and box is not None
    assert abs((box["x"] - frame["x"]) / frame["width"] - 150 / 400) < 0.02
    assert abs(box["height"] / frame["height"] - 100 / 300) < 0.02
    expect(sheet.locator(".nearest li")).to_have_count(3)
    page.keyboard.press("ArrowRight")
    expect(sheet.locator(".path")).to_contain_text("photo 1.png")
    sheet.locator("input.name").fill("Dora")
    page.keyboard.press("Enter")
    expect(sheet.locator(".who h3")).to_contain_text("Dora")
    assert [face.status for face in groups.person("Dora")] == ["enrolled"]
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()


def test_a_persons_page_puts_out_renames_splits_and_merges(page: Page, groups: FakeGroups) -> None:
    go(page, "people")
    page.get_by_role("link", name=re.compile("Anna")).click()
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator(".tile").first.locator(".under")).to_have_text("72 %")  # doubtful first
    page.locator(".tile .pic").first.click()
    expect(page.locator(".tile.out")).to_have_count(1)
    assert len(groups.person("Anna")) == 1
    page.locator(".tile .pic").first.click()
    expect(page.locator(".tile.out")).to_have_count(0)

    page.get_by_role("button", name="Choose faces").click()
    page.locator(".tile .pic").first.click()
    page.get_by_role("combobox", name="Who are these?").fill("Bob")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(1)
    assert len(groups.person("Bob")) == 1

    page.get_by_role("button", name="Rename").click()
    page.get_by_role("combobox", name="New name").fill("Anne / 100 % <b>")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Anne / 100 % <b>")
    page.get_by_role("button", name="Same as").click()
    page.get_by_role("combobox", name="Who is the same person?").fill("Bob")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Bob")
    expect(page.locator(".tile")).to_have_count(2)


def test_doubtful_faces_are_confirmed_but_for_those_that_were_clicked_out(page: Page, groups: FakeGroups) -> None:
    keys = list(groups.all)
    groups.now.people["Anna"] |= {keys[2]: "recognised", keys[3]: "recognised"}
    groups.begun.people["Anna"] |= {keys[2]: "recognised", keys[3]: "recognised"}
    go(page, "person/Anna")
    expect(page.locator(".tile .flag")).to_have_count(3)
    page.locator(".tile .pic").first.click()
    expect(page.locator(".tile.out")).to_have_count(1)
    page.get_by_role("button", name=re.compile("doubtful are right")).click()
    expect(page.locator(".tile .flag")).to_have_count(0)
    assert [face.status for face in groups.person("Anna")] == ["confirmed", "confirmed", "enrolled"]


def test_the_cover_of_a_person_is_chosen(page: Page, groups: FakeGroups) -> None:
    go(page, "person/Anna")
    page.get_by_role("button", name="Choose faces").click()
    page.locator(".tile .pic").first.click()
    page.get_by_role("button", name="Use as cover").click()
    expect(page.locator("#toast")).to_contain_text("another cover")
    assert groups.people()[0].cover == groups.person("Anna")[0].key


def test_a_search_finds_who_is_together_and_shows_the_photo(page: Page, groups: FakeGroups) -> None:
    go(page, "search")
    expect(page.locator(".hint")).to_contain_text("12 photos")
    page.get_by_role("combobox", name="With", exact=True).type("anna")
    page.keyboard.press("Enter")
    expect(page.locator(".hint")).to_contain_text("2 photos")
    expect(page.locator(".shot")).to_have_count(2)
    page.locator("input[type=date]").first.fill("2018-01-01")
    expect(page.locator(".hint")).to_contain_text("1 photo")
    expect(page.locator("code")).to_contain_text("--with=Anna --since=2018-01-01")
    page.locator(".shot").click()
    expect(page.locator("dialog.sheet .who h3")).to_contain_text("Anna")


def test_answers_are_listed_and_each_can_be_taken_back(page: Page, groups: FakeGroups) -> None:
    page.locator("article.row").first.get_by_role("button", name="Later").click()
    page.locator("article.row").first.get_by_role("button", name="Nobody I need").click()
    expect(page.locator("article.row")).to_have_count(0)
    go(page, "history")
    expect(page.locator(".answers li")).to_have_count(2)
    page.locator(".answers li").last.get_by_role("button", name="Undo").click()
    expect(page.locator(".answers .undone")).to_have_count(1)
    assert groups.group(1).state == "open" and groups.group(2).state == "ignored"


# ---- hostile names, many faces, small screens ----


def test_a_name_with_html_is_text_everywhere(page: Page, groups: FakeGroups) -> None:
    for name in (HTML, "</script><script>alert(1)</script>", "{{7*7}}", "a&lt;b", "javascript:alert(1)"):
        page.locator("input.name").first.fill(name)
        page.keyboard.press("Enter")
        expect(page.locator("#toast")).to_contain_text(name)
        go(page, "people")
        page.get_by_text(name, exact=True).click()
        expect(page.locator("h1")).to_have_text(name)
        go(page, "history")
        expect(page.locator(".answers li").first).to_contain_text(name)
        page.locator("#undo").click()
        go(page, "groups")
        expect(page.locator("article.row")).to_have_count(2)
    assert page.locator("main script, img[onerror]").count() == 0


def many(count: int) -> FakeGroups:
    """A hundred thousand faces, five in each group."""
    keys = [FaceKey(f"{number:064x}", 0) for number in range(5 * count)]
    picture = jpeg(120)
    faces = [Face(key, f"IMG_{place}.jpg", (0.0, 0.0, 50.0, 50.0), picture) for place, key in enumerate(keys)]
    return FakeGroups(faces, Pile(groups={number + 1: keys[5 * number : 5 * number + 5] for number in range(count)}))


class TestManyFaces:
    """A pile of a hundred thousand."""

    @pytest.fixture
    def groups(self) -> FakeGroups:
        return many(20_000)

    def test_only_what_is_seen_is_drawn(self, page: Page, groups: FakeGroups) -> None:
        expect(page.locator("nav a[data-view=groups] b")).to_have_text("20,000")
        page.wait_for_selector("article.row .tile img[src]")
        assert page.locator("article.row").count() < 30
        page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.row')].some((row) => row.dataset.id > 9990 && row.querySelector('img[src]'))"
        )
        page.keyboard.press("End")
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_selector("article.row[data-id='20000'] .tile img[src]")
        assert page.locator("article.row").count() < 40

        # Scrolling past ten thousand groups asks for those that can be seen, not for all.
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
        page.evaluate(
            """() => new Promise((resolve) => {
              let left = 50;
              const step = () => {
                scrollBy(0, -40_000);
                if ((left -= 1)) requestAnimationFrame(step);
                else resolve();
              };
              requestAnimationFrame(step);
            })"""
        )
        page.wait_for_selector("article.row .tile img[src]")
        assert len(asked) < 120


VIEWS = ("groups", "groups/single", "group/1", "pairs", "suggestions", "people", "person/Anna", "search", "history")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(windows: Callable[..., Page], width: int) -> None:
    page = windows(viewport={"width": width, "height": 800}, has_touch=width < 700, is_mobile=width < 700)
    for view in VIEWS:
        go(page, view)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        outside = page.evaluate(
            """() => [...document.querySelectorAll('button, a, input')].filter((node) => {
              const { left, right, width, height } = node.getBoundingClientRect();
              return width && height && (left < -1 || right > innerWidth + 1);
            }).map((node) => node.outerHTML.slice(0, 90))"""
        )
        assert not outside, (view, outside)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(windows: Callable[..., Page], scheme: str) -> None:
    page = windows(color_scheme=scheme)
    for view in VIEWS:
        go(page, view)
        page.wait_for_timeout(150)
        faint = page.evaluate(_FAINT)
        assert not faint, (view, faint)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 120) == (scheme == "dark")


#: Texts with less contrast than WCAG's 4.5 to 1 against the nearest ground that is not transparent.
_FAINT = """() => {
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (a > 0.5 && getComputedStyle(at).backgroundColor.startsWith('rgb')) return [r, g, b];
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *, header *')].filter((node) => node.children.length === 0 && node.textContent.trim()
    && node.getClientRects().length && !node.closest('.pic')).map((node) => {
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    return [node.textContent, (a + 0.05) / (b + 0.05)];
  }).filter(([, contrast]) => contrast < 4.5);
}"""


def test_a_server_that_has_gone_is_told_and_everything_was_kept(page: Page, served: Served, groups: FakeGroups) -> None:
    page.keyboard.press(".")
    expect(page.locator("article.row")).to_have_count(1)
    served.stop()
    expect(page.locator("#trouble")).to_contain_text("all your answers are kept")
    assert groups.group(1).state == "skipped"
