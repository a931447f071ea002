"""Cold start: one `facepipe identify` of a 1-megapixel photo among 1,000 people in a fresh process, against both peers' scripts."""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEOPLE = 1000

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
import faiss, numpy as np, torch
from PIL import Image
from scripts.benchlib import import_facenet_pytorch
package, _ = import_facenet_pytorch()
mtcnn = package.MTCNN(keep_all=True, device="cpu")
resnet = package.InceptionResnetV1(pretrained=None).eval()
resnet.load_state_dict(torch.load({weights!r}, weights_only=True))
known = np.load({known!r})
index = faiss.IndexFlatIP(known.shape[1])
index.add(known)
with torch.no_grad():
    faces = mtcnn(Image.open({photo!r}).convert("RGB"))
    scores, rows = index.search(resnet(faces).numpy(), 1)
for score, row in zip(scores[:, 0], rows[:, 0]):
    print("person", row, score)
"""

FACE_RECOGNITION = """
from scripts import bench_batch
face_recognition = bench_batch.import_face_recognition()
import numpy as np
known = list(np.load({known!r}))
picture = face_recognition.load_image_file({photo!r})
for encoding in face_recognition.face_encodings(picture):
    distances = face_recognition.face_distance(known, encoding)
    print("person", distances.argmin(), distances.min())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"), help="folder with scenes/")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--tools", nargs="+", default=["facepipe", "script", "face_recognition"])
    options = parser.parse_args()
    from scripts.benchlib import machine, spread

    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        commands = prepare(options.faces, root)
        seconds: dict[str, list[tuple[float, float]]] = {tool: [] for tool in options.tools}
        for turn in range(-1, options.turns):  # the first one brings everything into the disk's cache
            for tool in random.Random(turn).sample(options.tools, len(options.tools)):
                measured, answer = run(commands[tool], root / "bytecode")
                if turn < 0:
                    print(
                        f"{tool}: {len(answer.splitlines())} lines, the first: {answer.splitlines()[0].strip()[:100]}"
                    )
                else:
                    seconds[tool].append(measured)
    for tool, values in seconds.items():
        wall, cpu = ([value[which] for value in values] for which in (0, 1))
        print(f"{tool:16} wall {spread(wall)} s; CPU {spread(cpu)} s")
    for tool in options.tools[1:]:
        for which, name in enumerate(("wall", "CPU")):
            ratios = [
                theirs[which] / ours[which]
                for theirs, ours in zip(seconds[tool], seconds[options.tools[0]], strict=True)
            ]
            print(f"{options.tools[0]} against {tool}, {name} time: {spread(ratios, 1)} times as fast")


def run(command: list[str], bytecode: Path) -> tuple[tuple[float, float], str]:
    """Return wall and CPU seconds of a fresh process, and what it printed.

    bytecode: where Python keeps what it compiled, as beside installed packages; the first turn fills it.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONPYCACHEPREFIX": str(bytecode),
    }
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    return (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), done.stdout


def prepare(faces: Path, root: Path) -> dict[str, list[str]]:
    """Make the photo, the gallery and the peers' files; return the command of each tool."""
    import cv2
    import numpy as np
    import torch

    from facepipe.gallery.store import GalleryStore, NewFace
    from facepipe.models.registry import get_record
    from scripts.benchlib import import_facenet_pytorch

    scene = next(path for path in sorted((faces / "scenes").iterdir()) if path.suffix == ".jpg")
    picture = cv2.imread(str(scene))
    assert picture is not None, scene
    factor = (1e6 / (picture.shape[0] * picture.shape[1])) ** 0.5
    photo = root / "photo.jpg"
    cv2.imwrite(str(photo), cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))

    def people(dim: int) -> np.ndarray:
        vectors = np.random.default_rng(0).normal(size=(PEOPLE, dim)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    record = get_record("mini")
    assert record.dim is not None
    with GalleryStore.create(root / "gallery", record.fingerprint, record.dim) as gallery:
        gallery.add([NewFace(f"person {i}", vector, f"{i}.jpg") for i, vector in enumerate(people(record.dim))])
    network = import_facenet_pytorch()[0].InceptionResnetV1(pretrained=None)
    torch.save(network.state_dict(), root / "resnet.pt")
    np.save(root / "known512.npy", people(512))
    np.save(root / "known128.npy", people(128))
    names = {"photo": str(photo), "weights": str(root / "resnet.pt")}
    identify = [sys.executable, "-m", "facepipe", "identify", str(photo), "--gallery", str(root / "gallery"), "--jsonl"]
    return {
        "facepipe": identify,
        "script": [sys.executable, "-c", SCRIPT.format(**names, known=str(root / "known512.npy"))],
        "face_recognition": [sys.executable, "-c", FACE_RECOGNITION.format(**names, known=str(root / "known128.npy"))],
    }


if __name__ == "__main__":
    main()
