"""An explanation says what is so: its figures are those of the answer, and what it says would change the answer does."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st

import facepipe
from facepipe.cli import main
from facepipe.detect.detector import MtcnnDetector
from facepipe.detect.trace import trace
from facepipe.embed.alignment import TEMPLATES, align
from facepipe.errors import UsageError
from facepipe.explain.enrolled import without
from facepipe.explain.layers import Layers
from facepipe.explain.reasons import hanging, sentence, turning_points, two_figures, why_not
from facepipe.explain.saliency import chip_matrix, cover, on_photo, patches
from facepipe.explain.writing import write
from facepipe.gallery import people
from facepipe.gallery.arrays.snapshot import GallerySnapshot
from facepipe.gallery.store import GalleryStore, NewFace
from facepipe.images import read_image, write_image
from facepipe.images.samples import PEOPLE, portraits, probes
from facepipe.loading import load_describer
from facepipe.models.graphs import mini_graph
from facepipe.models.registry import get_record, read_weights
from facepipe.outputs.table import either, who
from facepipe.predict.decision import decide
from facepipe.types import Candidate, Embeddings, Float32, Image, Policy, Prediction, UInt8
from tests.fakes import FakeDetector, FakeEmbedder, face_at, picture

HOSTILE = '<script>alert("1")</script> \u202eAnna'


def unit(rng: np.random.Generator, dim: int = 8) -> Float32:
    vector = rng.normal(size=dim)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


# The sentence


def answer(status: str, person: str | None, similarity: float, threshold: float, *others: float) -> dict[str, object]:
    candidates = [
        {"person": name, "similarity": value} for name, value in zip("ABC", (similarity, *others), strict=False)
    ]
    return {
        "status": status,
        "person": person,
        "similarity": similarity,
        "threshold": threshold,
        "margin": 0.03,
        "candidates": candidates,
    }


def test_the_sentence_of_the_issue() -> None:
    known = answer("known", "A", 0.61, 0.48, 0.39)
    assert sentence(known, 40, {"A": 3}) == (
        "Known as A because the 3 photos of A together are more similar (0.61) than the threshold for 40 people (0.48), "
        "and the next person, B, is 0.22 behind."
    )
    assert sentence(answer("known", "A", 0.61, 0.48), 1, {"A": 1}).endswith("and nobody else is enrolled.")
    unknown = sentence(answer("unknown", None, 0.31, 0.48, 0.2), 40, {"A": 1})
    assert unknown.startswith("Unknown because the photo of A is less similar (0.31) than the threshold for 40 people")
    close = sentence(answer("ambiguous", None, 0.61, 0.48, 0.60), 40, {"A": 2})
    assert "the next person, B, is only 0.01 behind, less than the margin (0.03)" in close
    assert "the given threshold (0.48)" in sentence(known, 40, {"A": 3}, given=True)
    taken = answer("known", "B", 0.9, 0.48, 0.6)
    taken["similarity"] = 0.6
    assert sentence(taken, 2, {"A": 1, "B": 1}).endswith(
        "A is more similar, but is another face of this photo (--repeat names a person twice)."
    )
    nobody = {**unknown_of_nobody(), "candidates": []}
    assert "nobody in the gallery" in sentence(nobody, 0, {})


def unknown_of_nobody() -> dict[str, object]:
    return {**answer("unknown", None, 0.0, 0.5), "similarity": None}


@given(st.floats(-1, 1), st.floats(-1, 1))
@example(0.0, -0.00390625)
def test_figures_show_which_is_greater(value: float, limit: float) -> None:
    shown = [float(text) for text in two_figures(value, limit)]
    if abs(value - limit) > 1e-4:
        assert (shown[0] < shown[1]) == (value < limit) and shown[0] != shown[1]


def test_why_not_somebody() -> None:
    known = answer("known", "A", 0.61, 0.48, 0.30)
    said = why_not(known, "B", 0.30, 3, 2, 40)
    assert said.startswith("Not B because the 3 photos of B together are less similar (0.30) than the threshold (0.48)")
    assert "A is 0.31 ahead" in said
    assert why_not(known, "A", 0.61, 3, 1, 40).startswith("It is A")


def test_what_it_hangs_on_is_told_in_words() -> None:
    known = answer("known", "A", 0.61, 0.48)
    stays, falls = {"face": 1, "status": "known", "person": "A"}, {"face": 2, "status": "unknown", "person": None}
    assert "no single photo" in hanging(known, [stays], {1: "x.jpg"}, 1)
    assert "without y.jpg it would be unknown" in hanging(known, [stays, falls], {1: "x.jpg", 2: "y.jpg"}, 2)


def test_whoever_has_another_face_of_the_photo_is_not_why_it_is_ambiguous() -> None:
    taken = answer("ambiguous", None, 0.56, 0.12, 0.125, 0.112)
    taken["similarity"] = 0.125
    said = sentence(taken, 20, {"A": 3, "B": 1, "C": 1}, given=True)
    assert (
        "photo of B is more similar (0.12" in said
        and "C, is only 0.01 behind" in said
        and "A is more similar, but" in said
    )
    assert either(taken) == ["B", "C"] and who(taken) == "B or C?"
    said = why_not(taken, "A", 0.56, 3, 1, 20, taken=True)
    assert "another face of this photo is more similar to A" in said and "less" not in said
    assert "of 1 " not in why_not(answer("unknown", None, 0.1, 0.4), "A", 0.1, 1, 1, 1)


@given(st.integers(0, 10**6))
def test_a_turning_point_turns_the_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = unit(rng, 3)
    templates = np.stack([people, unit(rng, 3), unit(rng, 3), unit(rng, 3)])
    vectors = np.stack([people, unit(rng, 3), unit(rng, 3)])
    policy = Policy(float(rng.uniform(0.0, 1.0)), float(rng.uniform(0.0, 0.3)), top_k=4)
    faces = [face_at(0, 0, 40), face_at(100, 0, 40), face_at(200, 0, 40)]
    offered = []
    for vector in vectors:
        scores = [float(np.clip(vector @ template, -1.0, 1.0)) for template in templates]
        offered.append(tuple(Candidate(f"P{i}", scores[i]) for i in np.argsort(scores)[::-1].tolist()))

    def at(threshold: float, margin: float = policy.margin) -> Prediction:
        return decide(faces, offered, replace(policy, threshold=threshold, margin=margin))[1]

    now = at(policy.threshold)
    said = turning_points(now, policy.margin, at)
    if (found := re.search(r"threshold of (-?[\d.]+) or less it would be (\w+)", said)) is not None:
        other = at(float(found[1]))
        assert now.status == "unknown" and (other.person or other.status) == found[2] and other.status != "unknown"
    if (found := re.search(r"threshold above (-?[\d.]+) it would be unknown", said)) is not None:
        assert at(min(1.0, float(found[1]) + 1e-9)).status == "unknown"
    if (found := re.search(r"margin of ([\d.]+) or less it would be (\w+)", said)) is not None:
        assert now.status == "ambiguous" and at(policy.threshold, float(found[1])).person == found[2]


# The gallery without a photo


@given(st.integers(0, 10**6))
def test_a_snapshot_without_a_face_is_that_of_a_gallery_from_which_it_was_removed(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("gallery") / "g"
    with GalleryStore.create(folder, "fake:1", 8) as gallery:
        names = [f"p{n}" for n in range(int(rng.integers(1, 4))) for _ in range(int(rng.integers(1, 4)))]
        gallery.add([NewFace(name, unit(rng)) for name in names])
        before = gallery.snapshot()
        row = int(rng.integers(len(names)))
        face = int(before.face_ids[row])
        people.remove(gallery.database, before.persons[before.owners[row]], [face])
        assert_alike(without(before, face), gallery.snapshot())


def assert_alike(found: GallerySnapshot, wanted: GallerySnapshot) -> None:
    assert found.persons == wanted.persons
    for name in ("templates", "vectors", "owners", "face_ids", "person_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a gallery, two photos of each of two people with chips, and a mirrored photo of one of them."""
    folder = tmp_path_factory.mktemp("explain")
    altered = {probe.image.path: probe.image for probe in probes()}
    with facepipe.Gallery(folder / "gallery") as gallery:
        for name, portrait in portraits().items():
            shown = [portrait, altered[f"{portrait.path} blurred"], altered[f"{portrait.path} dark"]]
            list(gallery.enroll(shown, name=name, keep_chips=True, force=True, accept_poor=True))
    write_image(folder / "photo.jpg", altered["Collins turned"].rgb)
    return folder


@pytest.mark.models
@pytest.mark.parametrize("threshold", [None, 0.97, 0.995])
def test_what_is_said_of_a_photo_left_out_holds_when_it_is_removed(
    album: Path, tmp_path: Path, threshold: float | None
) -> None:
    with GalleryStore.open(album / "gallery") as gallery:
        made = facepipe.explain(album / "photo.jpg", gallery, threshold=threshold)
    told = made.facts["predict"]["without"]
    assert told
    for number, one in enumerate(told):
        copy = tmp_path / str(number)
        shutil.copytree(album / "gallery", copy)
        with GalleryStore.open(copy) as smaller:
            people.remove(smaller.database, PEOPLE[0], [one["face"]])
            (photo,) = facepipe.Recognizer(smaller, threshold=threshold)(album / "photo.jpg")
        found = photo.predictions[0]
        assert (str(found.status), found.person) == (one["status"], one["person"])
        assert found.similarity == pytest.approx(one["similarity"], abs=2e-3)
        assert found.threshold == pytest.approx(one["threshold"], abs=1e-4)


@pytest.mark.models
def test_the_threshold_at_which_the_answer_turns(album: Path) -> None:
    with GalleryStore.open(album / "gallery") as gallery:
        made = facepipe.explain(album / "photo.jpg", gallery)
        said = re.search(r"above ([\d.]+) it would be unknown", made.facts["predict"]["turns"])
        assert said is not None and made.facts["answer"]["status"] == "known"
        for change, status in ((0.002, "unknown"), (-0.002, "known")):
            there = facepipe.Recognizer(gallery, threshold=float(said[1]) + change)
            assert next(there(album / "photo.jpg")).predictions[0].status == status


@pytest.mark.models
@pytest.mark.parametrize("top_k", [1, 3])
def test_of_two_faces_of_one_person_each_is_explained_as_it_is_decided(album: Path, tmp_path: Path, top_k: int) -> None:
    shown = portraits()[PEOPLE[0]].rgb
    small = np.array(cv2.GaussianBlur(shown, (0, 0), 2.0), np.uint8)
    twice = Image(np.ascontiguousarray(np.hstack([shown, small])), "twice")
    with GalleryStore.open(album / "gallery") as gallery:
        whole = next(facepipe.Recognizer(gallery, quick=True)([twice]))
        (number,) = [n for n, one in enumerate(whole.predictions, 1) if one.status == "unknown"]
        made = facepipe.explain(twice, gallery, face=number, top_k=top_k, against=PEOPLE[0])
        assert f"{PEOPLE[0]} is more similar, but is another face of this photo" in made.sentence
        assert "less similar" in made.sentence and PEOPLE[1] in made.sentence
        assert "another face of this photo is more similar" in made.facts["against"]["sentence"]
        assert made.facts["predict"]["copies"]["mirrored"]["status"] == "unknown"
        close = facepipe.explain(twice, gallery, face=number, top_k=top_k, threshold=-1.0, margin=2.0)
        assert (
            close.facts["answer"]["status"]
            == next(facepipe.Recognizer(gallery, quick=True, threshold=-1.0, margin=2.0)([twice]))
            .predictions[number - 1]
            .status
        )


@pytest.mark.models
def test_its_figures_are_those_of_identify(album: Path) -> None:
    with GalleryStore.open(album / "gallery") as gallery:
        made = facepipe.explain(album / "photo.jpg", gallery)
        there = next(facepipe.Recognizer(gallery, quick=True)(album / "photo.jpg")).predictions[0]
        assert made.facts["answer"]["similarity"] == round(there.similarity or 0.0, 4)


@pytest.mark.models
def test_another_photo_under_the_name_of_an_enrolled_one_is_not_shown(tmp_path: Path) -> None:
    first, second = (portraits()[name] for name in PEOPLE)
    write_image(tmp_path / "a.png", first.rgb)
    with facepipe.Gallery(tmp_path / "gallery") as gallery:
        list(gallery.enroll(tmp_path / "a.png", name="A"))
        assert "face-1" in facepipe.explain(first, gallery).pictures
        write_image(tmp_path / "a.png", second.rgb)
        made = facepipe.explain(first, gallery)
        assert "face-1" not in made.pictures and any("photo" in line for line in made.facts["missing"])


# The parts of detection


@pytest.mark.models
def test_a_trace_tells_what_detection_did(astronaut: Image, hopper: Image) -> None:
    detector = load_describer("mini", "cpu").detector
    assert isinstance(detector, MtcnnDetector)
    lying = Image(np.ascontiguousarray(np.rot90(astronaut.rgb)), "lying")
    x1, y1, x2, y2 = next(iter(detector.detect([hopper]))).faces[0].box.astype(int).tolist()
    cut = (x2 - x1) // 10  # a border is needed to find it again
    close = Image(np.ascontiguousarray(hopper.rgb[y1 + cut : y2 - cut, x1 + cut : x2 - cut]), "close")
    for image in (astronaut, hopper, lying, close):
        face = next(iter(detector.detect([image]))).faces[0]
        found = trace(detector, image, face)
        first, second, third = (len(boxes) for boxes in found.passed)
        assert found.windows >= found.searched >= first >= second >= third >= 1
        nearest = min(found.passed[2].tolist(), key=lambda box: np.abs(np.array(box) - face.box).max())
        assert np.abs(np.array(nearest) - face.box).max() < 0.1 * face.quality.size
        assert len(found.looks) == 4
        if not face.turn:  # its score is the mean of all looks
            # With a border it was searched at another size.
            assert np.mean(found.looks) == pytest.approx(face.score, abs=0.05 if image is close else 0.01)
        assert found.scale is not None and 8 < found.scale * face.quality.size < 20


# The maps


class CornerEmbedder(FakeEmbedder):
    """Sees nothing but the brightness of one part of a chip."""

    def embed(self, chips: UInt8) -> Embeddings:
        bright = chips[:, 20:50, 60:100].reshape(len(chips), -1).mean(axis=1) / 255
        angle = bright * np.pi / 2
        vectors = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
        return Embeddings(vectors, self.fingerprint)


def test_a_map_lights_up_where_the_embedder_looks() -> None:
    chip = np.full((112, 112, 3), 20, np.uint8)
    chip[20:50, 60:100] = 255
    covered = cover(CornerEmbedder(dim=2), chip)
    found = covered.map_of(np.array([1.0, 0.0], np.float32))
    inside = np.zeros((112, 112), bool)
    inside[20:50, 60:100] = True
    assert found[inside].mean() > 8 * np.abs(found[~inside]).mean()
    np.testing.assert_allclose(covered.map_of(np.array([0.0, -1.0], np.float32)) > 0, found > 0)
    np.testing.assert_array_equal(covered.map_of(np.zeros(2, np.float32)), 0.0)


@pytest.mark.parametrize("size", [112, 160])
def test_each_pixel_is_covered_by_patches_of_each_size(size: int) -> None:
    masks, groups, _ = patches(size)
    for group in set(groups):
        assert masks[np.array(groups) == group].max(axis=0).min() > 0.3


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_map_lies_in_the_photo_where_its_chip_was_cut(name: str, turn: int) -> None:
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    image, face = Image(np.asarray(rgb, np.uint8)), face_at(90, 70, 90)
    if TEMPLATES[name].points is None:
        face = type(face)(face.box, face.score, face.landmarks, face.quality, turn)
    chip = align(image, [face], name)[0]
    back = np.stack([on_photo(chip[..., c].astype(np.float32), image, face, name) for c in range(3)], axis=2)
    inside = (slice(85, 145), slice(105, 165))
    assert np.abs(back[inside] - rgb[inside]).mean() < 12  # turned wrongly it is 50
    assert chip_matrix(face, 1.0, TEMPLATES[name]).shape == (2, 3)


@pytest.mark.models
def test_half_a_face_of_somebody_else_is_where_the_map_says(astronaut: Image, hopper: Image) -> None:
    describer = load_describer("mini", "cpu")
    described = describer.describe([astronaut, hopper])
    first, second = (
        align(image, [photo.faces[0]], "arcface112")[0]
        for image, photo in zip((astronaut, hopper), described, strict=True)
    )
    a, b = (photo.embeddings.vectors[0] for photo in described)
    layers = Layers(get_record("mini"))
    for inside in (np.arange(112)[:, None] >= 67, np.arange(112)[None] < 56):
        mixed = np.where(np.broadcast_to(inside, (112, 112))[..., None], second, first).astype(np.uint8)
        where = np.broadcast_to(inside, (112, 112))
        for found in (cover(describer.embedder, mixed).map_of(b - a), layers.gradient_map(mixed, b - a)):
            assert found[where].mean() > found[~where].mean()


@pytest.mark.models
def test_layers_and_gradients_are_those_of_the_network_that_embeds(astronaut: Image) -> None:
    describer = load_describer("mini", "cpu")
    photo = describer.describe([astronaut])[0]
    chip = align(astronaut, [photo.faces[0]], "arcface112")[0]
    layers = Layers(get_record("mini"))
    vector = photo.embeddings.vectors[0]
    import torch

    with torch.no_grad():
        same = layers._vectors(layers._input(chip[None]))[0].numpy() @ vector
    assert float(same) == pytest.approx(1.0, abs=0.01)
    seen = layers.activations(chip[None])
    sizes = [values.shape[2] for values in seen.values()]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) >= 3
    assert all(values.min() >= 0.0 for values in seen.values())


# The command, the page and the files


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    captured = capfd.readouterr()
    return stop.value.code, captured.out + captured.err


@pytest.mark.models
def test_the_page_is_whole_safe_and_small(album: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(album / "gallery", tmp_path / "gallery")
    with GalleryStore.open(tmp_path / "gallery") as gallery:
        people.rename(gallery.database, PEOPLE[0], '<script>alert("1")</script>')
    for name in ("a.html", "a.png", "a.json"):
        code, said = run(
            capfd, "explain", album / "photo.jpg", "--gallery", tmp_path / "gallery", "--out", tmp_path / name,
            "--against", PEOPLE[1],
        )  # fmt: skip
        assert code == 0, said
    page = (tmp_path / "a.html").read_text()
    assert len(page) < 2_000_000
    assert "<script" not in page and "http://" not in page and "https://" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and page.count("<section") == page.count("</section")
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["sentence"] in said.replace("\n", " ") and facts["answer"]["status"] == "known"
    assert facts["missing"] == [] and len(facts["embed"]["layers"]) >= 3
    assert facts["against"]["person"] == PEOPLE[1] and facts["saliency"]["rather_than"] == PEOPLE[1]
    assert {name: copy["status"] for name, copy in facts["predict"]["copies"].items()}["mirrored"] == "known"
    assert read_image(tmp_path / "a.png").width > 900
    code, said = run(
        capfd, "explain", album / "photo.jpg", "--gallery", tmp_path / "gallery", "--out", album / "photo.jpg"
    )
    assert code == 2 and "suffix" in said
    code, said = run(capfd, "explain", album / "photo.jpg", "--gallery", tmp_path / "gallery", "--against", "Nobody")
    assert code == 2 and "no person named" in said


@pytest.mark.models
def test_an_onnx_network_is_explained_by_what_is_covered(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACEPIPE_MODELS", str(tmp_path / "models"))
    (tmp_path / "same.onnx").write_bytes(mini_graph(safetensors.numpy.load(read_weights(get_record("mini"))[0])))
    added = ("--name", "same", "--template", "arcface112", "--std", "128", "--threshold", "0.35")
    code, said = run(capfd, "models", "add", tmp_path / "same.onnx", *added)
    assert code == 0, said
    maps = {}
    for model in ("mini", "same"):
        home = tmp_path / model
        shutil.copytree(album / "gallery", home)
        code, said = run(capfd, "gallery", "reembed", "--model", model, "--gallery", home)
        assert code == 0, said
        with facepipe.Gallery(home) as gallery:
            made = facepipe.explain(album / "photo.jpg", gallery, device="cpu", out=tmp_path / f"{model}.html")
        assert made.facts["answer"]["status"] == "known" and (tmp_path / f"{model}.html").stat().st_size < 2_000_000
        maps[model] = made.maps["person"]
    assert (made.facts["embed"]["layers"], set(made.maps)) == (None, {"person", "rather"})
    assert made.facts["missing"] == [
        "step 2: same does not run in torch, so its layers are not shown and no gradients are taken"
    ]
    assert np.corrcoef(maps["mini"].ravel(), maps["same"].ravel())[0, 1] > 0.95


@pytest.mark.models
def test_two_photos_are_explained(album: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "hopper.png", portraits()[PEOPLE[1]].rgb)
    code, said = run(capfd, "verify", album / "photo.jpg", tmp_path / "hopper.png", "--explain", tmp_path / "pair.html")
    assert code == 1 and "different people" in said
    assert "Different people, because" in (tmp_path / "pair.html").read_text()


def test_without_pictures_layers_or_a_known_detector_it_says_what_is_missing(tmp_path: Path) -> None:
    embedder = FakeEmbedder()
    with facepipe.Gallery(tmp_path / "gallery", model=embedder) as gallery:
        for colour in ("red", "green", "blue"):
            shown = picture(colour)
            list(
                gallery.enroll(
                    shown, name=colour, detector=FakeDetector(), embedder=embedder, threshold=0.9, force=True
                )
            )
        made = facepipe.explain(
            picture("red"), gallery, detector=FakeDetector(), embedder=embedder, threshold=0.9, out=tmp_path / "a.html"
        )
        assert made.facts["answer"]["person"] == "red" and set(made.maps) == {"person", "rather"}
        told = " ".join(made.facts["missing"])
        assert "detector of your own" in told and "does not run in torch" in told and "neither chip nor photo" in told
        assert all(
            line.split(";")[0] in (tmp_path / "a.html").read_text().replace("&#x27;", "'")
            for line in made.facts["missing"]
        )
        with pytest.raises(UsageError, match="suffix"):
            write(tmp_path / "a.txt", made)


@pytest.mark.models
def test_a_sealed_gallery_is_explained_like_any_other(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEPIPE_PASSPHRASE", "a long passphrase")
    with facepipe.Gallery(tmp_path / "sealed") as gallery:
        for name, portrait in portraits().items():
            list(gallery.enroll(portrait, name=name))
        made = facepipe.explain(album / "photo.jpg", gallery)
    assert made.sentence.startswith(f"Known as {PEOPLE[0]} because the photo of {PEOPLE[0]} is more similar")
    assert any("keep-chips" in line for line in made.facts["missing"])
