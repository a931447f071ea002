"""From a pile of photos to people with names, the whole way: scan, the review page in a browser, batch; its keys and clicks.

The browser is driven by who the photos' folders say they show, so what is counted is what a person has to type and click; looking at
the faces takes a person longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from facepipe.groups.album import Album
from facepipe.groups.values import FaceKey
from scripts.benchlib import machine

RUN = [sys.executable, "-m", "facepipe"]


class Truth:
    """Who the pile's photos show: the folder that a photo comes from names its largest face."""

    def __init__(self, faces: Path, pile: Path, count: int) -> None:
        found = [path for part in ("people", "strangers", "scenes") for path in (faces / part).rglob("*")]
        rest = sorted((faces / "lfw").rglob("*.jpg"))
        rng = random.Random(16)
        found = [path for path in sorted(found) if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}]
        found += rng.sample(rest, max(0, min(len(rest), count - len(found))))
        rng.shuffle(found)
        pile.mkdir()
        self.who: dict[str, str] = {}
        for number, path in enumerate(found[:count]):
            name = pile / f"IMG_{number:05d}{path.suffix}"
            name.symlink_to(path)
            if path.parent.parent.name in {"people", "lfw"}:
                self.who[str(name)] = path.parent.name

    def of(self, album: Album, key: FaceKey) -> str | None:
        """Return whose face it is, None when nobody knows."""
        photo = album.photo(key.content)
        if photo is None:
            return None
        largest = max(photo.faces, key=lambda face: face.box[2] - face.box[0])
        return self.who.get(photo.path) if largest.key == key else None


class Hand:
    """Types and clicks, and counts it."""

    def __init__(self, page: Any) -> None:
        self.page, self.keys, self.clicks = page, 0, 0

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.keys += len(text)
        self.page.keyboard.type(text)

    def press(self, key: str) -> None:
        """Press one key."""
        self.keys += 1
        self.page.keyboard.press(key)

    def click(self, where: Any) -> None:
        """Click once."""
        self.clicks += 1
        where.click()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", type=Path, help="folder with people/, strangers/, scenes/ and lfw/")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--people", type=int, default=20, help="so many different people get a name")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        truth = Truth(options.faces.resolve(), folder / "pile", options.photos)
        catalog, gallery, out = folder / "r.jsonl.catalog", folder / "gallery", folder / "r.jsonl"
        timed("scan", "scan", folder / "pile", "--catalog", catalog)
        started = time.monotonic()
        named = review(catalog, gallery, truth, options.people)
        print(f"review: {time.monotonic() - started:.0f} s, driven")
        timed("batch", "batch", folder / "pile", "--out", out, "--gallery", gallery)
        judge(out, truth, named)


def timed(what: str, *command: object) -> None:
    """Run a command of facepipe; print what it says and how long it takes."""
    started = time.monotonic()
    done = subprocess.run([*RUN, *map(str, command)], stdout=subprocess.PIPE, text=True, check=False)
    print(f"{what}: {time.monotonic() - started:.0f} s; {done.stdout.strip().splitlines()[:2]}")


def review(catalog: Path, gallery: Path, truth: Truth, people: int) -> set[str]:
    """Name groups in the browser until so many people have names, then answer pairs and suggestions; return who has one."""
    from playwright.sync_api import expect, sync_playwright

    command = [*RUN, "review", str(catalog), "--gallery", str(gallery)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), chromium_sandbox=os.geteuid() != 0
        )
        page = chromium.new_page()
        page.goto(address)
        page.wait_for_selector("input.name:focus", timeout=120_000)
        hand, named, answered = Hand(page), set[str](), 0
        with Album(catalog, gallery) as album:
            while len(named) < people:
                row = page.locator("article.row.current")
                group = album.group(int(row.get_attribute("data-id") or 0))
                whose = {face.key: truth.of(album, face.key) for face in album.faces(group.id) if face.status != "out"}
                ((name, most),) = Counter(whose.values()).most_common(1)
                if name is None or most * 2 <= len(whose):
                    hand.press("-")
                else:
                    for key, who in whose.items():
                        if who != name and (tile := row.locator(f'[data-face="{key.content}:{key.number}"]')).count():
                            hand.click(tile)
                    page.locator("article.row.current input.name").focus()
                    hand.type(name)
                    hand.press("Enter")
                    named.add(name)
                answered += 1
                expect(page.locator(f'article.row[data-id="{group.id}"]')).to_have_count(0)
                page.wait_for_selector("article.row.current input.name:focus")
            print(f"{answered} groups answered, {len(named)} people named: {hand.keys} keys, {hand.clicks} clicks")
        for view in ("pairs", "suggestions"):
            told = page.locator(f"nav a[data-view={view}] b").text_content()
            print(f"{view} left to answer, a key each: {told or 0}")
        chromium.close()
        server.terminate()
    return named


def judge(out: Path, truth: Truth, named: set[str]) -> None:
    """Compare the results with who the photos show."""
    counts: Counter[str] = Counter()
    for line in out.read_text().splitlines():
        record = json.loads(line)
        if not record["faces"] or (who := truth.who.get(record["path"])) is None:
            continue
        found = max(record["faces"], key=lambda face: face["box"][2] - face["box"][0])["person"]
        kind = "named" if who in named else "other"
        counts[f"{kind} {'right' if found == who else 'unknown' if found is None else 'wrong'}"] += 1
    total = sum(counts[f"named {how}"] for how in ("right", "unknown", "wrong"))
    right, wrong, others = counts["named right"], counts["named wrong"], counts["other unknown"] + counts["other wrong"]
    print(
        f"of {total} photos of the {len(named)} people {right} have the right name ({right / max(total, 1):.1%}), {wrong} a wrong one"
    )
    print(f"of {others} photos of other people {counts['other wrong']} have a name, which is wrong")


if __name__ == "__main__":
    main()
