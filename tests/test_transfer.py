"""Batches that fit, half of one that does not, rough first looks, and exact search by torch: all of it on the CPU."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.options import DetectOptions
from facepipe.match import cuda
from facepipe.match.cuda import CUDA_PEOPLE, TorchIndex, cuda_index
from facepipe.models.mtcnn import HALF_DOUBT, TorchCascade
from facepipe.models.transfer import fitting, in_parts, to_device, to_host
from facepipe.types import Image
from tests.test_onednn import crops

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@given(st.integers(0, 60), st.integers(1, 70), st.integers(1, 60))
def test_a_pass_that_memory_does_not_hold_is_halved(count: int, at_once: int, room: int) -> None:
    sizes: list[int] = []

    def run(start: int, stop: int) -> list[int]:
        if stop - start > room:
            raise torch.OutOfMemoryError("no room")
        sizes.append(stop - start)
        return list(range(start, stop))

    parts = in_parts(run, count, at_once)
    assert [number for part in parts for number in part] == list(range(count))
    # Nearly as large as can be, and no hole of small ones.
    assert all(size >= max(1, min(room, at_once, count) // 2) for size in sizes[:-1])


def test_one_item_that_memory_does_not_hold_is_an_error() -> None:
    def run(start: int, stop: int) -> None:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        in_parts(run, 5, 2)


def test_batches_follow_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 16 << 30))
    assert fitting(CPU, 1 << 20, 512, 4096) == 512
    assert fitting(CUDA, 1 << 20, 512, 4096) == 1024
    assert fitting(CUDA, 1 << 10, 512, 4096) == 4096
    assert fitting(CUDA, 1 << 40, 512, 4096) == 1


def test_copies_keep_values_and_layout() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1)
    tensor = to_device(array, CPU)
    assert tensor.stride() == (12, 1, 4)
    first, second = to_host(tensor, tensor + 1)
    assert (first == array).all() and (second == array + 1).all()


# ---- a rough first look ----


@pytest.fixture(scope="module")
def exact() -> TorchCascade:
    return TorchCascade(CPU)


@pytest.mark.models
def test_crops_that_pass_are_exact(exact: TorchCascade, astronaut: Image) -> None:
    rough = TorchCascade(CPU, torch.float16)
    rough.crop_batch = 70
    for size, name in ((24, "refine"), (48, "finish")):
        pixels = crops(astronaut, size, 300)
        for least in (0.0, 0.1, 0.7, 0.9):
            expected, got = getattr(exact, name)(pixels, least), getattr(rough, name)(pixels, least)
            passed = expected[0] > least
            assert passed.any() and ((got[0] > least) == passed).all()
            for theirs, ours in zip(expected, got, strict=True):
                assert theirs.shape == ours.shape
                np.testing.assert_allclose(ours[passed], theirs[passed], atol=1e-4)


@pytest.mark.models
def test_the_third_networks_rough_look_is_as_near_as_it_promises(exact: TorchCascade, astronaut: Image) -> None:
    pixels = crops(astronaut, 48, 200)
    expected, offsets, _ = exact.finish(pixels, 0.0)
    answer = TorchCascade(CPU, torch.float16).finish_roughly(pixels)
    assert answer is not None and answer[0].dtype == np.float32
    between = (expected > 1e-5) & (expected < 1 - 1e-5)
    logits = [np.log(p[between] / (1 - p[between])) for p in (expected, answer[0])]
    assert np.abs(logits[0] - logits[1]).max() < HALF_DOUBT
    assert np.abs(answer[1] - offsets)[expected > 0.5].max() < 0.02


@pytest.mark.models
def test_rough_first_looks_find_the_same_faces(exact: TorchCascade, astronaut: Image, hopper: Image) -> None:
    options = DetectOptions(min_face=24)
    by_exact = MtcnnDetector(exact, options).find([astronaut, hopper])
    by_rough = MtcnnDetector(TorchCascade(CPU, torch.float16), options).find([astronaut, hopper])
    for theirs, ours in zip(by_exact, by_rough, strict=True):
        assert len(theirs) == len(ours) > 0
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(a.box, b.box, atol=1e-3 * a.quality.size)
            np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.02 * a.quality.size)


# ---- search ----


@given(st.integers(0, 40), st.integers(0, 12), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99), st.booleans())
def test_exact_search_by_torch_is_that_of_faiss(
    people: int, probes: int, k: int, block: int, seed: int, twins: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Few values, so that equal products are exactly equal, and people who are the same.
    templates = rng.integers(-3, 4, (people, 4)).astype(np.float32)
    if twins and people:
        templates = templates[rng.integers(0, people, people)]
    vectors = rng.integers(-3, 4, (probes, 4)).astype(np.float32)
    index = TorchIndex(templates, CPU)
    index._block = block
    scores, rows = index.search(vectors, k)
    flat = faiss.IndexFlatIP(4)
    if people:
        flat.add(templates)
    found = min(k, people)
    assert scores.shape == rows.shape == (probes, k)
    assert (rows[:, found:] == -1).all() and (scores[:, found:] == -1).all()
    if probes and found:
        assert (scores[:, :found] == flat.search(vectors, k)[0][:, :found]).all()
    for vector, values, who in zip(vectors, scores[:, :found], rows[:, :found], strict=True):
        assert len(set(who.tolist())) == found
        assert (templates[who] @ vector == values).all()
        assert all(a > b or (a == b and i < j) for a, b, i, j in zip(values, values[1:], who, who[1:], strict=False))


def test_the_search_moves_to_the_graphics_processor_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = np.zeros((CUDA_PEOPLE, 1), np.float32)
    made: list[object] = []
    room = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (room, 1 << 40))

    def index_of(*arguments: object) -> str:
        made.append(arguments)
        return "index"

    monkeypatch.setattr(cuda, "TorchIndex", index_of)
    assert cuda_index(templates, CPU) is None
    assert cuda_index(templates[1:], CUDA) is None
    index: object = cuda_index(templates, CUDA)
    assert index == "index" and made == [(templates, CUDA)]
    room = templates.nbytes
    assert cuda_index(templates, CUDA) is None
