"""The answers do not move by accident: boxes, landmarks, quality and vectors of the two portraits, as they were recorded.

`scripts/golden` records them in golden/portraits.json. Everything goes through the command line, on the CPU. Answers may differ a
little between processors, number formats and engines: what the comparison allows was measured, see `NEAR`.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from facepipe.models.registry import get_record

pytestmark = pytest.mark.models

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "portraits.json"
#: How far an answer may be from the recorded one: box, landmarks, size and sharpness as shares, angles in degrees, vectors as
#: 1 - cosine. Measured: without AVX, and between torch and OpenCV's engines, boxes and landmarks moved by 0.0001, angles by 0.1,
#: vectors by 0.000001; with bfloat16, imitated, scores by 0.0001, vectors by 0.00006. The rest is room for other decoders of JPEG.
NEAR = {
    "box": 0.003,
    "landmarks": 0.003,
    "score": 0.002,
    "size": 0.003,
    "sharpness": 0.01,
    "yaw": 0.25,
    "pitch": 0.25,
    "roll": 0.25,
    "edge_density": 0.003,
    "vector": 0.0003,
}
#: Photos for which the engines that start without torch are taken.
FEW = ("astronaut.png", "hopper.jpg")
#: Holds one face several times, which enrolment would leave out.
NOT_ENROLLED = ("crowd.jpg",)

Answers = dict[str, dict[str, Any]]


def pictures() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """Yield the portraits and altered copies: file name, picture, options of `save`."""
    import matplotlib.cbook
    import skimage.data

    astronaut = Image.fromarray(np.asarray(skimage.data.astronaut()))  # type: ignore[no-untyped-call]
    hopper = Image.open(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    small = hopper.resize((hopper.width * 2 // 5, hopper.height * 2 // 5), Image.Resampling.LANCZOS)
    large = Image.new("RGB", (4000, 1100), "grey")
    large.paste(astronaut, (300, 300))
    large.paste(hopper.resize((900, 1055), Image.Resampling.BICUBIC), (2800, 20))
    crowd = Image.new("RGB", (4000, 1100), "grey")
    for place in range(6):
        crowd.paste((astronaut, hopper)[place % 2], (100 + 640 * place, 200))
    turned_by_exif = Image.Exif()
    turned_by_exif[0x0112] = 6
    yield "astronaut.png", astronaut, {}
    yield "astronaut-turned.png", astronaut.rotate(12, Image.Resampling.BICUBIC), {}
    yield "astronaut-mirrored.png", ImageOps.mirror(astronaut), {}
    yield "astronaut-blurred.png", astronaut.filter(ImageFilter.GaussianBlur(2)), {}
    yield "astronaut-exif.jpg", astronaut.rotate(90), {"exif": turned_by_exif, "quality": 90}
    yield "hopper.jpg", hopper, {"quality": 90}
    yield "hopper-small.png", small, {}
    yield "hopper-dark.png", hopper.point(lambda value: value * 0.3), {}
    yield "hopper-grey.jpg", hopper.convert("L"), {"quality": 60}
    yield "large.jpg", large, {"quality": 90}
    yield "crowd.jpg", crowd, {"quality": 90}
    yield "empty.png", Image.linear_gradient("L").convert("RGB").resize((640, 480)), {}


def save_pictures(folder: Path) -> list[Path]:
    """Write the pictures into a folder and return their paths."""
    for name, picture, options in pictures():
        picture.save(folder / name, **options)
    return [folder / name for name, _, _ in pictures()]


def facepipe(*arguments: object) -> str:
    """Run a command of this checkout and return what it prints; what the user has set in the environment does not count."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FACEPIPE_")}
    command = [sys.executable, "-m", "facepipe", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 7), f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}"
    return done.stdout


def answers_for(paths: list[Path], folder: Path) -> Answers:
    """Return what detection finds in each picture, and what enrolment puts into a gallery. folder: for files in between."""
    import pyarrow.parquet

    found = json.loads(facepipe("detect", *paths, "--json", "--device", "cpu"))["images"]
    answers: Answers = {Path(image["path"]).name: {"detected": image["faces"], "enrolled": []} for image in found}
    names, gallery, exported = folder / "names.csv", folder / "gallery", folder / "faces.parquet"
    with names.open("w", newline="") as file:
        rows = [(str(path), path.name) for path in paths if path.name not in NOT_ENROLLED]
        csv.writer(file).writerows([("path", "name"), *rows])
    facepipe(
        *("enroll", names, "--gallery", gallery, "--faces", "all", "--accept-poor", "--force", "--device", "cpu", "-q")
    )
    facepipe("gallery", "export", exported, "--gallery", gallery, "-q")
    for row in pyarrow.parquet.read_table(exported).to_pylist():
        box = [round(row[side], 2) for side in ("x1", "y1", "x2", "y2")]
        vector = base64.b64encode(np.array(row["vector"], "<f4").tobytes()).decode()
        answers[row["person"]]["enrolled"].append({"box": box, "score": round(row["score"], 4), "vector": vector})
    return answers


def differences(golden: Answers, answers: Answers) -> dict[str, list[str]]:
    """Say what moved by more than it may, for each stage: `detect`, and `embed` for vectors of faces that did not move."""
    told: dict[str, list[str]] = {"detect": [], "embed": []}
    for name, answer in answers.items():
        for kind, faces in answer.items():
            before = golden[name][kind]
            if len(before) != len(faces):
                told["detect"].append(f"{name}, {kind}: {len(faces)} faces, {len(before)} recorded")
                continue
            for face in faces:
                old = min(before, key=lambda one: _apart(one["box"], face["box"]))
                moved = _moved(old, face)
                where = f"{name}, {kind}, face at {[round(side) for side in face['box']]}"
                told["detect"] += [f"{where}: {text}" for what, text in moved.items() if what != "vector"]
                if list(moved) == ["vector"]:
                    told["embed"].append(f"{where}: {moved['vector']}")
    return told


def _apart(one: list[float], other: list[float]) -> float:
    return float(np.abs(np.subtract(one, other)).max())


def _moved(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Return by figure what is further from the recorded one than `NEAR` allows. Lengths count as shares of the face's size."""
    x1, y1, x2, y2 = old["box"]
    side = min(x2 - x1, y2 - y1)
    away: dict[str, float] = {what: _apart(old[what], new[what]) / side for what in ("box", "landmarks") if what in old}
    away["score"] = abs(old["score"] - new["score"])
    for what, value in old.get("quality", {}).items():
        if value is None:  # what step 1 does not know
            continue
        scale = value if what in ("size", "sharpness") else 1.0
        away[what] = abs(new["quality"][what] - value) / scale
    if "vector" in old:
        one, other = (np.frombuffer(base64.b64decode(face["vector"]), "<f4") for face in (old, new))
        away["vector"] = 1.0 - float(one @ other)
    return {
        what: f"{what} moved by {value:.5f}, {NEAR[what]} is allowed"
        for what, value in away.items()
        if not value <= NEAR[what]
    }


def behaviour() -> dict[str, int | str]:
    """Return the numbers that are raised when the answers of a stage change on purpose, and which embedder answers."""
    numbers: dict[str, int | str] = {"embedder": get_record("mini").fingerprint}
    for stage in ("detect", "embed"):
        try:
            numbers[stage] = int(getattr(import_module(f"facepipe.{stage}"), "BEHAVIOUR", 1))
        except ModuleNotFoundError:
            numbers[stage] = 1
    return numbers


def complaints(golden: dict[str, Any], answers: Answers) -> list[str]:
    """Return what moved under a behaviour number that was not raised, and what to do then."""
    texts = []
    told = differences(golden["pictures"], answers)
    before, now = golden["behaviour"], behaviour()
    raised = {stage: now[stage] > before[stage] for stage in ("detect", "embed")}
    raised["embed"] |= now["embedder"] != before.get("embedder")
    for stage, lines in told.items():
        # Vectors follow where the landmarks go.
        if lines and not (raised[stage] or raised["detect"]):
            texts.append(
                f"the answers of {stage} changed; if that is wanted, raise BEHAVIOUR in facepipe/{stage}/__init__.py and record "
                "again with scripts/golden:\n  " + "\n  ".join(lines)
            )
    return texts


def check(answers: Answers) -> None:
    golden = json.loads(GOLDEN.read_text())
    texts = complaints(golden, answers)
    assert not texts, "\n".join(texts)
    assert golden["behaviour"] == behaviour(), "the behaviour numbers changed: record again with scripts/golden"


def test_the_answers_are_those_that_were_recorded(tmp_path: Path) -> None:
    answers = answers_for(save_pictures(tmp_path), tmp_path)
    assert set(answers) == set(json.loads(GOLDEN.read_text())["pictures"])
    check(answers)


def test_the_engines_for_a_few_photos_give_the_same_answers(tmp_path: Path) -> None:
    check(answers_for([path for path in save_pictures(tmp_path) if path.name in FEW], tmp_path))


def record() -> str | None:
    """Write golden/portraits.json; return why not where answers changed and the behaviour numbers did not."""
    with TemporaryDirectory() as folder:
        answers = answers_for(save_pictures(Path(folder)), Path(folder))
    if GOLDEN.exists():
        golden = json.loads(GOLDEN.read_text())
        known = {name: answer for name, answer in answers.items() if name in golden["pictures"]}
        if texts := complaints(golden, known):
            return "\n".join([*texts, f"{GOLDEN}: not written"])
        if golden["behaviour"] == behaviour():
            # What differs by rounding stays as it was recorded: small steps would add up.
            answers |= {name: golden["pictures"][name] for name in known}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"behaviour": behaviour(), "pictures": answers}, indent=1) + "\n")
    return None


if __name__ == "__main__":
    sys.exit(record())
