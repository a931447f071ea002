"""The whole way in a browser, against the real server: names, undo, two windows, and kill -9 of the server in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from facepipe.groups.album import Album
from tests.piles import fill, people

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra [web] is not installed")

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
expect = sync_api.expect
expect.set_options(timeout=20_000)  # a loaded machine is no failure


@contextmanager
def serving(place: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `facepipe review` as a user does; give the process and the address that it prints."""
    command = [sys.executable, "-m", "facepipe", "review", str(place), "--gallery", str(place.parent / "gallery")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return fill(tmp_path / "r.jsonl.catalog", people(12, 5))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


def opened(browser: Browser, address: str) -> Any:
    page = browser.new_context().new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("input.name:focus")
    return page


def test_nothing_that_the_page_showed_is_lost_by_kill_9(browser: Browser, place: Path) -> None:
    shown: list[str] = []
    for turn in range(4):
        with serving(place) as (process, address):
            page = opened(browser, address)
            left = 12 - len(shown)
            expect(page.locator("nav a[data-view=groups] b")).to_have_text(str(left))
            for number in range(2):
                name = f"Person {turn}-{number}"
                page.locator("article.row input.name").first.fill(name)
                page.keyboard.press("Enter")
                expect(page.locator("#toast")).to_contain_text(f"is {name}")
                shown.append(name)
                page.wait_for_selector("input.name:focus")
            # One more is on its way when the server dies: it is there whole or not at all.
            page.locator("article.row input.name").first.fill(f"On its way {turn}")
            page.keyboard.press("Enter")
            process.send_signal(signal.SIGKILL)
            process.wait()
            expect(page.locator("#trouble, .toast.bad").first).to_be_visible()
            page.context.close()
        with Album(place, place.parent / "gallery") as album:
            named = {group.person: group for group in album.table(state="named")}
            assert set(shown) <= set(named)
            for person, group in named.items():
                faces = album.person(str(person))
                assert {face.status for face in faces} <= {"enrolled", "confirmed"}
                assert len(faces) == group.size == 5
            shown = sorted(map(str, named))
    with serving(place) as (_, address):
        page = opened(browser, address)
        for left in reversed(range(len(shown))):
            page.keyboard.press("Control+z")
            expect(page.locator("nav a[data-view=people] b")).to_have_text(str(left or ""))
        expect(page.locator("nav a[data-view=groups] b")).to_have_text("12")
        expect(page.locator("nav a[data-view=people] b")).to_have_text("")
        page.context.close()
    with Album(place, place.parent / "gallery") as album:
        assert album.people() == [] and len(album.table()) == 12


def test_ctrl_c_ends_it_and_a_reload_shows_what_was_said(browser: Browser, place: Path) -> None:
    with serving(place) as (process, address):
        page = opened(browser, address)
        page.keyboard.press("-")
        expect(page.locator("nav a[data-view=groups] b")).to_have_text("11")
        page.reload()
        expect(page.locator("nav a[data-view=groups] b")).to_have_text("11")
        other = opened(browser, address)
        other.locator("#undo").click()
        expect(page.locator("nav a[data-view=groups] b")).to_have_text("12")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        page.context.close()
        other.context.close()


def test_the_server_listens_on_this_machine_alone_and_says_little(place: Path) -> None:
    import http.client
    import socket

    with serving(place) as (_, address):
        port = int(address.split(":")[2].split("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200
        assert "server" not in {name.lower() for name, _ in answer.getheaders()}
        connection.close()
        # Its own address on a network, where it has one, does not answer.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            outer = probe.getsockname()[0]
        if not outer.startswith("127."):
            with pytest.raises(OSError), socket.create_connection((outer, port), timeout=2):
                pass
