"""On a graphics processor: the same faces, vectors and names as on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from facepipe.detect.boxes import iou
from facepipe.images import read_image
from facepipe.loading import load_describer
from facepipe.match.cuda import TorchIndex
from facepipe.match.matcher import Matcher
from facepipe.models import transfer
from facepipe.models.mtcnn import TorchCascade
from facepipe.pipeline import Recognizer
from facepipe.types import Described, Image, Policy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.models,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.fixture(scope="module")
def photos(faces_root: Path, astronaut: Image, hopper: Image) -> list[Image]:
    scenes = sorted((faces_root / "scenes").iterdir())[:20]
    people = sorted(faces_root.glob("people/*/enroll-00*"))[:30]
    return [astronaut, hopper, *(read_image(path, max_side=1280) for path in [*scenes, *people])]


@pytest.fixture(scope="module")
def both(photos: Sequence[Image]) -> tuple[list[Described], list[Described]]:
    return load_describer("mini", "cpu").describe(photos), load_describer("mini", "cuda").describe(photos)


def test_the_same_faces_and_vectors(both: tuple[list[Described], list[Described]]) -> None:
    faces = 0
    for cpu, cuda in zip(*both, strict=True):
        assert len(cpu.faces) == len(cuda.faces), cpu.path
        if not cpu.faces:
            continue
        overlap = iou(np.array([f.box for f in cpu.faces]), np.array([f.box for f in cuda.faces]))
        nearest = overlap.argmax(axis=1)
        assert overlap.max(axis=1).min() >= 0.95, cpu.path
        cosines = (cpu.embeddings.vectors * cuda.embeddings.vectors[nearest]).sum(axis=1)
        assert cosines.min() >= 0.999, cpu.path
        faces += len(cpu.faces)
    assert faces > 50


def test_the_same_names(both: tuple[list[Described], list[Described]]) -> None:
    by_cpu, by_cuda = both
    vectors = np.concatenate([photo.embeddings.vectors[:1] for photo in by_cpu if photo.faces][::2])
    rows = np.arange(len(vectors))
    fingerprint = by_cpu[0].embeddings.fingerprint
    matcher = Matcher(fingerprint, [f"person {i}" for i in rows], vectors, vectors, rows, rows)
    names = []
    for device, photos in (("cpu", by_cpu), ("cuda", by_cuda)):
        recognizer = Recognizer.of(load_describer("mini", device), matcher, Policy(0.45, 0.02))
        results = recognizer.decide(photos)
        names.append([sorted(str(p.person) for p in result.predictions) for result in results])
    assert names[0] == names[1]


def test_an_extractor_on_cuda_gets_more_photos_at_a_time() -> None:
    assert load_describer("mini", "cuda").photos > load_describer("mini", "cpu").photos


def test_the_search_is_equal() -> None:
    rng = np.random.default_rng(0)
    templates = rng.standard_normal((30_000, 256)).astype(np.float32)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    probes = templates[::10] + rng.standard_normal((3000, 256)).astype(np.float32) * 0.05
    by_cpu = TorchIndex(templates, torch.device("cpu")).search(probes, 5)
    by_cuda = TorchIndex(templates, torch.device("cuda"), budget=1 << 26).search(probes, 5)
    np.testing.assert_allclose(by_cuda[0], by_cpu[0], atol=1e-5)
    assert (by_cuda[1][:, 0] == by_cpu[1][:, 0]).all()


def test_a_pass_without_room_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.random.default_rng(0).standard_normal((4000, 48, 48, 3)).astype(np.float32)
    cascade = TorchCascade(torch.device("cuda"))
    expected = cascade.finish(crops, 0.0)
    taken = torch.cuda.memory_reserved()
    monkeypatch.setattr(transfer, "_SHARE", 1)
    cascade.crop_batch = len(crops)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((taken + (512 << 20)) / total)
        got = cascade.finish(crops, 0.0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for theirs, ours in zip(expected, got, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_copies_go_through_pinned_memory() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 10, 10).transpose(0, 2, 1)
    tensor = transfer.to_device(array, torch.device("cuda"))
    assert tensor.is_cuda and tensor.stride() == (100, 1, 10)
    (back,) = transfer.to_host(tensor)
    assert (back == array).all()
