"""Photos per CPU second and per wall second of `facepipe batch`, against the usual script and face_recognition, by kind of photo."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOOLS = ("facepipe", "script", "face_recognition")
PEOPLE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, default=Path("../shared/faces"), help="folder with scenes/ and lfw/")
    parser.add_argument("--scenes", type=int, default=24, help="photos in each turn")
    parser.add_argument("--lfw", type=int, default=96)
    parser.add_argument("--large", type=int, default=3, help="scenes scaled to 12 megapixels")
    parser.add_argument(
        "--mix", default="94,1000,200", help="scenes, LFW photos and large ones in the whole that is told of"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of facepipe: cpu, cuda or cuda:N")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", nargs=3, metavar=("TOOL", "LIST", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        tool, listing, workers = options.run
        print(json.dumps(RUNNERS[tool](Path(listing).read_text().split("\n"), int(workers))))
        return
    from scripts.benchlib import machine, spread

    print(machine())
    mix = dict(zip(("scenes", "lfw", "large"), map(int, options.mix.split(",")), strict=True))
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    totals: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pools = photos(options.faces, Path(folder), options.large * options.turns)
        for turn in range(options.turns):
            rng = random.Random(options.seed + turn)
            chosen = {kind: rng.sample(pool, min(getattr(options, kind), len(pool))) for kind, pool in pools.items()}
            # A different order in each turn: none of them always runs on a warm or a busy machine.
            for tool in rng.sample(options.tools, len(options.tools)):
                for kind, paths in chosen.items():
                    if not paths:
                        continue
                    answer = run(tool, paths, options.workers, Path(folder), options.device)
                    each = answer["cpu"] / len(paths), answer["wall"] / len(paths)
                    seconds.setdefault((tool, kind), []).append(each)
                    how = answer["how"]
                    print(
                        f"turn {turn + 1} {tool:16} {kind:7} n={len(paths):4} cpu {each[0]:.4f} wall {each[1]:.4f} s a photo, "
                        f"{answer['faces']} faces; {how}",
                        flush=True,
                    )
                totals.setdefault((tool, "mix"), []).append(
                    tuple(  # type: ignore[arg-type]
                        sum(mix[kind] * seconds[tool, kind][-1][which] for kind in chosen if chosen[kind])
                        / sum(mix[kind] for kind in chosen if chosen[kind])
                        for which in (0, 1)
                    )
                )
    print(
        f"\nphotos a second; the mix weighs the kinds {mix}; {options.workers} worker(s) for facepipe, one thread for the others"
    )
    for (tool, kind), values in {**seconds, **totals}.items():
        cpu = spread([1 / value[0] for value in values])
        wall = spread([1 / value[1] for value in values])
        print(f"{tool:16} {kind:7} per CPU second {cpu}; per wall second {wall}")
    peers = [tool for tool in options.tools if tool != "facepipe"] if "facepipe" in options.tools else []
    for tool in peers:
        for (other, kind), theirs in {**seconds, **totals}.items():
            if other == tool:
                ours = {**seconds, **totals}["facepipe", kind]
                per_cpu, per_wall = (
                    spread([t[which] / o[which] for t, o in zip(theirs, ours, strict=True)], 1) for which in (0, 1)
                )
                print(
                    f"facepipe against {tool}, {kind}: per CPU second {per_cpu} times; per wall second {per_wall} times"
                )


def photos(faces: Path, folder: Path, large: int) -> dict[str, list[str]]:
    """Return the paths of each kind; makes so many large ones."""
    import cv2

    scenes = sorted((faces / "scenes").iterdir())
    pools = {"scenes": scenes, "lfw": sorted((faces / "lfw").glob("*/*.jpg"))}
    made = []
    for path in random.Random(7).sample(scenes, min(large, len(scenes))):
        picture = cv2.imread(str(path))
        assert picture is not None, path
        factor = (12e6 / (picture.shape[0] * picture.shape[1])) ** 0.5
        picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        made.append(folder / f"{path.stem}-12mp.jpg")
        cv2.imwrite(str(made[-1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return {kind: [str(path) for path in pool] for kind, pool in {**pools, "large": made}.items()}


def run(tool: str, paths: list[str], workers: int, folder: Path, device: str) -> dict[str, Any]:
    """Run a tool over photos in a process of its own; return CPU and wall seconds after its start-up, and the faces found."""
    listing = folder / "list.txt"
    listing.write_text("\n".join(paths))
    command = [sys.executable, __file__, "--run", tool, str(listing), str(workers)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "FACEPIPE_DEVICE": device}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def measured(work: Callable[[], int], how: str) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    faces = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "faces": faces, "how": how}


def random_recognizer() -> Any:
    """Build the command's engines and a gallery of random people."""
    import numpy as np

    from facepipe.loading import load_describer
    from facepipe.match.matcher import Matcher
    from facepipe.pipeline import Recognizer
    from facepipe.types import Policy

    describer = load_describer("mini", os.environ.get("FACEPIPE_DEVICE", "cpu"))
    vectors = np.random.default_rng(0).normal(size=(PEOPLE, describer.embedder.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(PEOPLE)
    matcher = Matcher(describer.embedder.fingerprint, [f"person {i}" for i in rows], vectors, vectors, rows, rows)
    return Recognizer.of(describer, matcher, Policy(0.3, 0.02))


def run_facepipe(paths: list[str], workers: int) -> dict[str, Any]:
    from facepipe.cli import process

    process.settle()
    from facepipe import batch
    from facepipe.cli import allocator
    from facepipe.images import read_image

    allocator.share_arenas()
    recognizer = random_recognizer()
    recognizer.recognize([read_image(paths[0], max_side=640)])  # kernels are compiled at the first use

    def work() -> int:
        chosen = batch.BatchOptions(workers, give_back=allocator.give_back)
        with tempfile.TemporaryDirectory() as folder:
            outputs = batch.Outputs(Path(folder) / "out.jsonl")
            (counts,) = batch.run(paths, outputs, lambda before, late: (recognizer, True), chosen)
            return counts.faces

    where = os.environ.get("FACEPIPE_DEVICE", "cpu")
    answer = measured(work, f"the command's own batch, {workers} worker(s), {where}, mini, defaults")
    if where.startswith("cuda"):
        import torch

        answer["how"] += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of its memory at most"
    return answer


def run_script(paths: list[str], _: int) -> dict[str, Any]:
    """The usual script: MTCNN, InceptionResnetV1, IndexFlatIP, one photo at a time."""
    warnings.simplefilter("ignore")
    import faiss
    import numpy as np
    import torch
    from PIL import Image

    from scripts.benchlib import import_facenet_pytorch

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    package, how = import_facenet_pytorch()
    mtcnn = package.MTCNN(keep_all=True, device="cpu")
    torch.manual_seed(0)
    # Its trained weights cannot be had offline; random ones take the same time.
    resnet = package.InceptionResnetV1(pretrained=None).eval()
    index = faiss.IndexFlatIP(512)
    vectors = np.random.default_rng(0).normal(size=(PEOPLE, 512)).astype(np.float32)
    index.add(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def work() -> int:
        found = 0
        for path in paths:
            with torch.no_grad():
                faces = mtcnn(Image.open(path).convert("RGB"))
                if faces is not None:
                    index.search(resnet(faces).numpy(), 3)
                    found += len(faces)
        return found

    return measured(work, f"facenet-pytorch's defaults (min_face_size 20), one thread, {how}")


def import_face_recognition() -> Any:
    """Import the peer; it asks for dlib's sources, and dlib-bin is dlib as well."""
    shim = types.ModuleType("pkg_resources")  # gone from setuptools; its models' package asks it for file names
    shim.resource_filename = lambda name, path: str(Path(sys.modules[name].__file__ or "").parent / path)  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", shim)
    try:
        import face_recognition
    except ModuleNotFoundError as error:
        sys.exit(
            f"{error}; run: {sys.executable} -m pip install --no-deps dlib-bin face_recognition face_recognition_models"
        )
    return face_recognition


def run_face_recognition(paths: list[str], _: int) -> dict[str, Any]:
    """face_recognition with its defaults: dlib's HOG detector, ResNet-29, distances to all known people."""
    import numpy as np

    face_recognition = import_face_recognition()
    known = list(np.random.default_rng(0).normal(size=(PEOPLE, 128)))

    def work() -> int:
        found = 0
        for path in paths:
            picture = face_recognition.load_image_file(path)
            for encoding in face_recognition.face_encodings(picture):
                face_recognition.face_distance(known, encoding).argmin()
                found += 1
        return found

    work_one = face_recognition.load_image_file(paths[0])
    face_recognition.face_encodings(work_one[:100, :100])
    return measured(work, "face_recognition's defaults (HOG, one upsampling)")


RUNNERS: dict[str, Callable[[list[str], int], dict[str, Any]]] = {
    "facepipe": run_facepipe,
    "script": run_script,
    "face_recognition": run_face_recognition,
}


if __name__ == "__main__":
    main()
