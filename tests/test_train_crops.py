"""Steps 1 and 2 of the recipe: what becomes a crop, what stays out, and what the teachers say about it."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from facepipe.embed.alignment import align
from facepipe.errors import InputError, UsageError
from facepipe.evaluate.pairs import PairList
from facepipe.images import encode_image
from facepipe.types import Detected, Embeddings, Face, Image, UInt8
from scripts.train.crops import CropsPlan, make_crops, read_patterns
from scripts.train.evalsets import EvalSet
from scripts.train.faces import POINTS, CropOptions, PhotoWorker, difference_hash
from scripts.train.shards import MARGIN, CropSet, decode, read_json, read_shard
from scripts.train.sources import Photo, read_photos
from scripts.train.teach import fitted, join, joined, judge, mirrored_mean, read_target, teach
from scripts.train.teachers import OnnxTeacher, PackageTeacher, TeacherFacts, TeacherInput, chips_for, load_teacher
from tests.fakes import FakeDetector, FakeEmbedder, face_at

COLOURS = {"ada": (250, 10, 10), "bo": (10, 250, 10), "cy": (10, 10, 250), "di": (250, 250, 0)}


def picture(name: str, seed: int) -> UInt8:
    """A noisy grey photo with the person's square in it; each seed is another picture of the person."""
    rng = np.random.default_rng(seed)
    rgb = np.repeat(rng.integers(100, 140, (240, 240, 1), np.uint8), 3, axis=2)
    square = np.clip(np.asarray(COLOURS[name]) + rng.integers(-4, 5, (90, 90, 1)).repeat(3, 2), 0, 255)
    rgb[80:170, 70:160] = square
    return rgb


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for i, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for j in range(3):
            (root / name / f"{j}.png").write_bytes(encode_image(picture(name, 10 * i + j), "PNG"))
    return root


def run(plan: CropsPlan, out: Path, stop_after: int | None = None) -> dict[str, Any]:
    """Make crops with fakes; stop as a kill does, after so many batches."""
    worker = PhotoWorker(FakeDetector(), FakeEmbedder(), plan.options)

    def mapper(batches: Any) -> Iterator[Any]:
        for i, batch in enumerate(batches):
            if i == stop_after:
                raise KeyboardInterrupt
            yield worker(batch)

    return make_crops(plan, out, mapper)


def test_crops_keep_the_chip_in_their_middle(astronaut: Image) -> None:
    from facepipe.loading import load_describer

    worker = PhotoWorker(load_describer("mini", "cpu").detector, None, CropOptions())
    data = encode_image(astronaut.rgb, "PNG")
    [photo] = worker([Photo("astronaut.png", None, data)])
    [crop] = photo.crops
    [[face]] = [photo.faces for photo in load_describer("mini", "cpu").detector.detect([astronaut])]
    chip = align(astronaut, [face], "arcface112")[0].astype(int)
    middle = decode(crop.jpeg)[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(int)
    assert np.abs(chip - middle).mean() < 3.0  # what JPEG changes
    again = chips_for("arcface112", decode(crop.jpeg)[None], [crop.meta["landmarks"]])[0].astype(int)
    assert np.abs(again - middle).max() <= 3
    assert crop.meta["score"] > 0.95


def test_shards_say_who_and_from_where(photos: Path, tmp_path: Path) -> None:
    summary = run(CropsPlan((photos,)), tmp_path / "out")
    assert summary["crops"] == 12 and summary["photos"] == 12 and summary["dropped"] == {}
    crops = CropSet(tmp_path / "out")
    numbers, names = crops.identities()
    assert names == ("ada", "bo", "cy", "di") and numbers.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for number, stored in enumerate(c for path in crops.paths for c in read_shard(path)):
        assert np.array_equal(crops.read(number), decode(stored.jpeg))
        assert len(stored.meta["sha256"]) == 64


def test_a_kill_changes_nothing_in_the_end(photos: Path, tmp_path: Path) -> None:
    for i in range(60):  # several batches
        (photos / "ada" / f"extra-{i}.png").write_bytes(encode_image(picture("ada", 1000 + i % 50), "PNG"))
    plan = CropsPlan((photos,), per_shard=20)
    whole = run(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "killed", stop_after=3)
    assert 0 < len(list((tmp_path / "killed").glob("*.tar"))) < whole["photos"] // 20
    resumed = run(plan, tmp_path / "killed")
    for key in ("crops", "photos", "dropped"):
        assert resumed[key] == whole[key]
    for path in sorted((tmp_path / "whole").glob("*.tar")):
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()
    assert whole["dropped"]["duplicate: the same photo"] == 10


def test_another_plan_or_other_photos_are_refused(photos: Path, tmp_path: Path) -> None:
    plan = CropsPlan((photos,), per_shard=5)
    run(plan, tmp_path / "out")
    with pytest.raises(UsageError, match="other photos or options"):
        run(replace(plan, similarity=0.5), tmp_path / "out")
    (photos / "aa.png").write_bytes(encode_image(picture("bo", 99), "PNG"))
    with pytest.raises(InputError, match="the photos changed"):
        run(plan, tmp_path / "out")


def test_a_command_without_photos_leaves_nothing_in_the_way(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no photo found"):
        run(CropsPlan((tmp_path / "empty",)), tmp_path / "out")
    assert run(CropsPlan((photos,)), tmp_path / "out")["crops"] == 12


def test_the_same_picture_in_another_size_is_a_duplicate(photos: Path, tmp_path: Path, astronaut: Image) -> None:
    import cv2

    smaller = np.asarray(cv2.resize(astronaut.rgb, (400, 400), interpolation=cv2.INTER_AREA), np.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(encode_image(astronaut.rgb, "PNG"))
    (tmp_path / "a" / "2.jpg").write_bytes(encode_image(smaller, "JPEG", 70))
    from facepipe.loading import load_describer

    worker = PhotoWorker(load_describer("mini", "cpu").detector, None, CropOptions())
    summary = make_crops(CropsPlan((tmp_path / "a",)), tmp_path / "out", lambda batches: map(worker, batches))
    assert summary["crops"] == 1
    assert summary["dropped"] == {"duplicate: the same picture": 1}


def test_forbidden_people_and_pictures_and_excluded_names_stay_out(photos: Path, tmp_path: Path) -> None:
    test_set = tmp_path / "test-set"
    test_set.mkdir()
    shutil.copy(photos / "ada" / "0.png", test_set / "other-name.png")  # the same file; others of ada are only similar
    excluded = tmp_path / "excluded.txt"
    excluded.write_text("# people of the test\nB?\n")
    plan = CropsPlan((photos,), (test_set,), read_patterns(excluded), similarity=0.98)
    summary = run(plan, tmp_path / "out")
    assert summary["dropped"] == {
        "forbidden: the same photo": 1,
        "forbidden: a similar face": 2,
        "excluded identity": 3,
    }
    assert CropSet(tmp_path / "out").identities()[1] == ("cy", "di")


def test_a_person_whose_folder_is_the_input_is_excluded_and_a_list_that_matches_nobody_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "cy.zip", "w") as archive:
        archive.write(photos / "cy" / "0.png", "0.png")
    (photos / "ada" / "2020").mkdir()
    shutil.move(photos / "ada" / "0.png", photos / "ada" / "2020" / "0.png")
    inputs = (photos / "ada", photos / "bo", tmp_path / "cy.zip", photos / "di" / "1.png")
    summary = run(CropsPlan(inputs, exclude=("Ada", "c*", "DI")), tmp_path / "out")
    assert summary["dropped"] == {"excluded identity": 5} and summary["crops"] == 3
    monkeypatch.chdir(photos / "bo")
    assert run(CropsPlan((Path(),), exclude=("bo",)), tmp_path / "here")["crops"] == 0
    said: list[str] = []
    worker = PhotoWorker(FakeDetector(), FakeEmbedder(), CropOptions())
    plan = CropsPlan((photos,), exclude=("photo*", "eve"))
    assert make_crops(plan, tmp_path / "all", lambda b: map(worker, b), said.append)["crops"] == 12
    assert "none of the 2 names matched" in said[-1]


class FixedDetector:
    """Finds one given face in each picture."""

    name = "fixed"

    def __init__(self, face: Face | None) -> None:
        self.face = face

    def detect(self, images: Sequence[Image]) -> Iterator[Detected]:
        return (Detected(image, () if self.face is None else (self.face,)) for image in images)


def test_what_is_no_face_is_dropped() -> None:
    good = face_at(50, 50, 90, 0.99)
    askew = replace(good, landmarks=good.landmarks[[0, 4, 2, 3, 1]])
    expected = {
        "no face": None,
        "no face: low score": face_at(50, 50, 90, 0.8),
        "no face: landmarks": askew,
        "small": face_at(50, 50, 20, 0.99),
        "cut by the border": face_at(150, 150, 90, 0.99),
    }
    photo = Photo("p", None, encode_image(np.full((200, 200, 3), 120, np.uint8), "PNG"))
    for reason, face in expected.items():
        [result] = PhotoWorker(FixedDetector(face), None, CropOptions())([photo])
        assert (dict(result.dropped), result.crops) == ({reason: 1}, [])
    [result] = PhotoWorker(FixedDetector(good), None, CropOptions())([photo])
    assert len(result.crops) == 1 and not result.dropped
    [result] = PhotoWorker(FixedDetector(good), None, CropOptions())([replace(photo, data=b"no picture")])
    assert dict(result.dropped) == {"unreadable": 1}


def test_the_forbidden_are_compared_by_models_of_any_template() -> None:
    class Other(FakeEmbedder):
        template = "margin160"

        def embed(self, chips: UInt8) -> Embeddings:
            assert chips.shape[1:] == (160, 160, 3)
            return super().embed(chips)

    photo = Photo("p", None, encode_image(picture("ada", 1), "PNG"))
    [result] = PhotoWorker(FakeDetector(), Other(), CropOptions())([photo])
    [crop] = result.crops
    assert crop.embedding is not None and crop.embedding.shape == (8,)


def test_archives_are_read_like_folders(photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar, zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            tar.add(path, path.relative_to(photos))
            archive.write(path, path.relative_to(photos))
    folder = [(p.identity, p.data) for p in read_photos([photos]) if isinstance(p, Photo)]
    for name in ("p.tar.gz", "p.zip"):
        packed = [(p.identity, p.data) for p in read_photos([tmp_path / name]) if isinstance(p, Photo)]
        assert packed == folder and len(packed) == 12
        assert [p.data for p in read_photos([tmp_path / name, photos], skip=14) if isinstance(p, Photo)] == [
            data for _, data in folder[2:]
        ]
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(InputError, match=r"bad\.zip"):
        list(read_photos([tmp_path / "bad.zip"]))
    with pytest.raises(InputError, match="no such"):
        list(read_photos([tmp_path / "nowhere"]))


def test_a_perceptual_hash_tells_pictures_apart() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (7, 7, 3), np.uint8).repeat(16, 0).repeat(16, 1) for _ in range(2))

    def count(x: bytes, y: bytes) -> int:
        return (int.from_bytes(x) ^ int.from_bytes(y)).bit_count()

    assert count(difference_hash(a), difference_hash(np.clip(a + 3.0, 0, 255).astype(np.uint8))) <= 24
    assert count(difference_hash(a), difference_hash(b)) > 60


# ---- teachers ----


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """A network that gives the mean of each channel, for a batch of one, as some exports are."""
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 10, 12])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])
    graph = helper.make_graph([helper.make_node("GlobalAveragePool", ["x"], ["y"])], "mean", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "mean.onnx"
    onnx.save(model, path)
    return path


def test_an_onnx_teacher_sees_window_size_colours_and_scale_as_described(onnx_file: Path) -> None:
    wants = TeacherInput("mine", window=(8, 0, 104, 112), size=(12, 10), colour="bgr", mean=(1, 2, 3), std=(2, 2, 2))
    teacher = OnnxTeacher("mean", onnx_file, wants)
    chips = np.zeros((2, 112, 112, 3), np.uint8)
    chips[:, :, 8:104] = np.asarray([[10, 20, 30], [40, 60, 80]], np.uint8)[:, None, None]
    chips[:, :, :8] = 255  # outside the window
    expected = np.array([[29, 18, 7], [79, 58, 37]]) / 2
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert teacher.dim == 3
    assert np.abs(teacher.embed(chips) - expected).max() < 1e-5
    assert teacher.embed(chips[:0]).shape == (0, 3)


def test_a_teacher_is_found_by_its_description(onnx_file: Path) -> None:
    with pytest.raises(UsageError, match="no description"):
        load_teacher(f"mean={onnx_file}")
    onnx_file.with_suffix(".toml").write_text('licence = "mine"\nsize = [12, 10]\n')
    teacher = load_teacher(f"mean={onnx_file}:0.25")
    assert (teacher.name, teacher.weight, teacher.licence) == ("mean", 0.25, "mine")
    onnx_file.with_suffix(".toml").write_text('licence = "mine"\ncolour = "pink"\n')
    with pytest.raises(UsageError, match="rgb or bgr"):
        load_teacher(f"mean={onnx_file}")


@pytest.mark.parametrize("weight", ["-1", "0", "nan", "inf"])
def test_a_weight_that_makes_no_target_is_refused(onnx_file: Path, weight: str) -> None:
    onnx_file.with_suffix(".toml").write_text('licence = "mine"\nsize = [12, 10]\n')
    with pytest.raises(UsageError, match="weight must be above 0"):
        load_teacher(f"mean={onnx_file}:{weight}")
    onnx_file.with_suffix(".toml").write_text(f'licence = "mine"\nsize = [12, 10]\nweight = {weight}\n')
    with pytest.raises(UsageError, match="weight must be above 0"):
        load_teacher(f"mean={onnx_file}")
    with pytest.raises(InputError, match="no such file"):
        load_teacher(f"mean={onnx_file.with_name('other.onnx')}")


def test_a_mirror_image_has_the_same_target() -> None:
    teacher = PackageTeacher(FakeEmbedder(), "none")
    rng = np.random.default_rng(3)
    crops = rng.integers(0, 256, (4, 128, 128, 3), np.uint8)
    points = np.asarray([[[46, 60], [82, 60], [64, 80], [50, 100], [78, 100]]] * 4, float)
    mirrored = points.copy()
    mirrored[:, :, 0] = 127 - points[:, [1, 0, 2, 4, 3], 0]
    mirrored[:, :, 1] = points[:, [1, 0, 2, 4, 3], 1]
    a = mirrored_mean(teacher, crops, list(points))
    b = mirrored_mean(teacher, np.ascontiguousarray(crops[:, :, ::-1]), list(mirrored))
    assert (a * b).sum(axis=1).min() > 0.999


def test_teachers_resume_and_are_joined(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "crops"
    run(CropsPlan((photos,), per_shard=5), out)
    teacher = PackageTeacher(FakeEmbedder(), "none")
    assert teach(out, tmp_path / "t", teacher)["crops"] == 12
    (tmp_path / "t" / "fake" / "shard-000001.npy").unlink()
    assert teach(out, tmp_path / "t", teacher)["crops"] == 5
    with pytest.raises(UsageError, match="another network"):
        teach(out, tmp_path / "t", PackageTeacher(FakeEmbedder("fake:2"), "none"))
    summary = join(out, tmp_path / "t", ["fake"], dim=16)
    target = read_target(CropSet(out), tmp_path / "t")
    assert target.shape == (12, 16) and summary["kept"] == pytest.approx(1.0)
    same = target @ target.T
    people = CropSet(out).identities()[0]
    together = people[:, None] == people
    assert same[together].min() > same[~together].max()
    assert read_json(tmp_path / "t" / "target.json")["teachers"][0]["licence"] == "none"


def test_joined_cosines_are_the_weighted_means_of_the_teachers() -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(40, d)).astype(np.float32) + shift for d, shift in ((6, 0.0), (4, 3.0))]
    facts = [TeacherFacts("a", "a", "", 6, 0.75, False), TeacherFacts("b", "b", "", 4, 0.25, True)]
    joint = fitted(vectors, facts, 16)
    target = joined(vectors, facts, joint)
    parts = [vectors[0], vectors[1] - vectors[1].mean(axis=0)]
    unit = [p / np.linalg.norm(p, axis=1, keepdims=True) for p in parts]
    expected = 0.75 * unit[0] @ unit[0].T + 0.25 * unit[1] @ unit[1].T
    assert np.abs(target @ target.T - expected).max() < 1e-5
    assert joint.kept == pytest.approx(1.0)
    assert joined(vectors, facts, fitted(vectors, facts, 8)).shape == (40, 8)


def test_teachers_are_judged_alone_and_joined_and_parts_are_kept(tmp_path: Path) -> None:
    people = np.repeat(np.arange(4), 2)
    colours = np.asarray(list(COLOURS.values()))[people]
    crops = np.broadcast_to(colours[:, None, None], (8, 128, 128, 3)).astype(np.uint8)
    landmarks = np.repeat(POINTS[None], 8, axis=0)
    a, b = np.triu_indices(8, 1)
    pairs = PairList(tuple(Path(str(i)) for i in range(8)), a, b, people[a] == people[b], people, np.arange(len(a)) % 2)
    evalset = EvalSet("s", pairs, crops, landmarks, np.arange(8))
    said: list[str] = []
    teachers = [PackageTeacher(FakeEmbedder("fake:1"), "none"), PackageTeacher(FakeEmbedder("fake:2"), "none")]
    for _ in range(2):
        figures = judge(evalset, teachers, tmp_path, None, said.append)
    assert len(said) == 2  # the second time both were known
    assert figures["joined"]["accuracy"] == figures["fake, with mirror image"]["accuracy"] == 1.0


@pytest.mark.models
def test_the_open_model_zoo_teacher_knows_people(faces_root: Path) -> None:
    file = faces_root.parent / "weights" / "teachers" / "face-reidentification-retail-0095.onnx"
    if not file.exists():
        pytest.skip("the teacher's weights are not here")
    teacher = load_teacher(f"retail-0095={file}")
    from facepipe.loading import load_describer

    worker = PhotoWorker(load_describer("mini", "cpu").detector, None, CropOptions())
    people = sorted((faces_root / "people").iterdir())[:4]
    photos = [Photo(p.name, person.name, p.read_bytes()) for person in people for p in sorted(person.glob("*.jpg"))[:3]]
    crops = [c for result in worker(photos) for c in result.crops]
    vectors = mirrored_mean(teacher, np.stack([decode(c.jpeg) for c in crops]), [c.meta["landmarks"] for c in crops])
    who = np.asarray([c.meta["identity"] for c in crops])
    same = who[:, None] == who
    cosines = vectors @ vectors.T
    np.fill_diagonal(same, False)
    other = who[:, None] != who
    assert np.median(cosines[same]) > 0.4
    assert np.median(cosines[other]) < 0.25
