"""The records of all networks: what they are, whose licence they carry, where their files lie, and how to load them.

A record never causes a download. Files lie in one of three places: shipped in this package, inside another installed
package (found without importing it), or in the model folder, where `facepipe models pull` and `models add` put them.
A file is read once, hashed, and only then understood; a hash that differs from the record's is a ModelError.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facepipe.errors import ModelError
from facepipe.types import Float32

RECORDS = Path(__file__).with_name("records.json")
WEIGHTS = Path(__file__).with_name("weights")
DEFAULT_EMBEDDER = "mini"

#: Name of a record inside a model's folder: a model that the user added.
USER_RECORD = "record.json"
#: Name of the file that holds the hash of a model whose record has none, as the user confirmed it.
PINNED = "pinned.json"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of weights. sha256: 64 hex digits, None when nobody recorded it. size: bytes, None when unknown."""

    file: str
    sha256: str | None
    size: int | None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Licence:
    """Three different things: the licence of the code, of the weights, and of the pictures they were trained on.

    consent: one of them restricts use (research only, non-commercial), so `pull` asks whether the user accepts that.
    """

    code: str
    weights: str
    data: str
    consent: bool


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the length of a network's output says, before it is scaled to unit length: of a face that it can read it is long.

    A network that is trained with a softmax over people makes its output long where it is sure (Ranjan, Castillo and Chellappa
    2017; Meng et al., "MagFace", 2021; Kim, Jain and Liu, "AdaFace", 2022). Measured by `scripts/bench quality`.

    middle: length at which half of the embeddings are nearest to their person; steep: how fast that share changes with it.
    face, weight: below the length `face`, its logarithm times `weight` lowers the log-odds that this is a face.
    """

    middle: float
    steep: float
    face: float
    weight: float

    def __post_init__(self) -> None:
        if not all(0.0 < value < float("inf") for value in (self.middle, self.steep, self.face, self.weight)):
            raise ValueError("lengths: expected positive numbers")

    def usable(self, lengths: Float32) -> Float32:
        """Return how likely each embedding is nearest to its person, float32 (n,), 0..1."""
        return np.asarray(1.0 / (1.0 + (self.middle / lengths) ** self.steep), np.float32)

    def evidence(self, lengths: Float32) -> Float32:
        """Return what each length adds to the log-odds that this is a face, float32 (n,), at most 0."""
        return np.asarray(self.weight * np.minimum(0.0, np.log(lengths / self.face)), np.float32)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What facepipe knows about a network.

    kind: detector or embedder.
    network: which definition reads the files (mini, inception-resnet-v1, onnx, mtcnn, yunet).
    place: shipped, package or folder.
    package: for place package, its import name.
    input: side of the chip in pixels, None for any size.
    mean, std: per channel, the input is (pixel - mean) / std.
    colour: rgb or bgr.
    centre: subtracted from the network's output before it is scaled to unit length.
    threshold, margin: cosine, for step 4; None until measured.
    grouping: cosine by which the mean of two groups' faces may lie below the threshold of step 4 for them to be one person's; None
    until measured (`scripts/bench clusters`).
    lengths: what the length of its output says; None until measured.
    """

    name: str
    kind: str
    network: str
    note: str
    place: str
    files: tuple[ModelFile, ...]
    licence: Licence
    hash_source: str
    package: str | None = None
    input: int | None = None
    template: str | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colour: str = "rgb"
    dim: int | None = None
    centre: tuple[float, ...] | None = None
    accuracy: tuple[str, ...] = ()
    threshold: float | None = None
    margin: float | None = None
    grouping: float | None = None
    lengths: Lengths | None = None
    user: bool = False

    @property
    def fingerprint(self) -> str:
        """Name and digest of the weights and of all that is done to a chip before and after the network.

        Number format and engine do not enter: they change a vector by rounding only.
        """
        pinned = tuple(f.sha256 or pinned_sha256(self, f) for f in self.files)
        facts = [pinned, self.template, self.input, self.mean, self.std, self.colour, self.dim, self.centre]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return f"{self.name}-{digest[:16]}"

    def decision(self) -> tuple[float, float]:
        """Return threshold and margin; ModelError for a network for which nobody has measured them."""
        if self.threshold is None or self.margin is None:
            raise ModelError(
                f"model {self.name!r}: no threshold is recorded; "
                "measure one with `facepipe evaluate`, or give --threshold"
            )
        return self.threshold, self.margin

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON values; `record_from_dict` reads it back."""
        return asdict(self)


#: What the plain fields of a record may hold; a user's record lies on disk, where anybody may have changed it.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "kind", "network", "note", "place", "hash_source", "colour"), (str,)),
    **dict.fromkeys(("package", "template"), (str, type(None))),
    **dict.fromkeys(("input", "dim"), (int, type(None))),
    **dict.fromkeys(("threshold", "margin", "grouping"), (int, float, type(None))),
    "user": (bool,),
}


def record_from_dict(values: Mapping[str, Any]) -> ModelRecord:
    """Build a record from JSON values; ModelError when a field is missing, unknown or of the wrong kind."""
    try:
        fields = {name: value for name, value in values.items() if name != "extra"}  # null in older records
        for name, kinds in _KINDS.items():
            if name in fields and not isinstance(fields[name], kinds):
                raise ValueError(f"{name} is {fields[name]!r}")
        fields["files"] = tuple(ModelFile(**f) for f in fields["files"])
        fields["licence"] = Licence(**fields["licence"])
        if fields.get("lengths") is not None:
            fields["lengths"] = Lengths(**fields["lengths"])
        for name in ("mean", "std"):
            if name in fields:
                r, g, b = (float(v) for v in fields[name])
                fields[name] = (r, g, b)
        if 0.0 in fields.get("std", ()):
            raise ValueError("std is zero")
        if fields.get("centre") is not None:
            fields["centre"] = tuple(float(v) for v in fields["centre"])
        fields["accuracy"] = tuple(fields.get("accuracy", ()))
        record = ModelRecord(**fields)
        if record.place == "folder" and any(Path(f.file).name != f.file for f in record.files):
            raise ValueError("a file lies outside the model's folder")
        return record
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"model record {values.get('name', '?')!r} is damaged: {error}; remove the model and add it again"
        ) from error


def model_folder() -> Path:
    """Return where pulled and added models lie: FACEPIPE_MODELS, or the user's data folder. It may not exist yet."""
    chosen = os.environ.get("FACEPIPE_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("facepipe", appauthor=False) / "models"


def builtin_records() -> list[ModelRecord]:
    """Return the records that facepipe ships, the default embedder first."""
    return [record_from_dict(values) for values in json.loads(RECORDS.read_text(encoding="utf-8"))]


def user_records() -> list[ModelRecord]:
    """Return the records of the models that the user added, by name."""
    return [_read_user_record(path) for path in sorted(model_folder().glob(f"*/{USER_RECORD}"))]


def _read_user_record(path: Path) -> ModelRecord:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the record cannot be read ({error}); remove the folder and add the model again"
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: the record is not a JSON object; remove the folder and add the model again")
    return record_from_dict(values)


def records() -> list[ModelRecord]:
    """Return all records: the shipped ones, then the user's."""
    return builtin_records() + user_records()


def find_embedder(fingerprint: str) -> ModelRecord | None:
    """Return the record of the embedder with this fingerprint, None when there is none on this machine."""
    return next((r for r in records() if r.kind == "embedder" and r.fingerprint == fingerprint), None)


def get_record(name: str) -> ModelRecord:
    """Return the record of this name; ModelError when there is none."""
    for record in builtin_records():
        if record.name == name:
            return record
    user = user_records()
    for record in user:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in builtin_records() + user)
    raise ModelError(f"no model {name!r}; known are {known} (`facepipe models list`)")


def package_folder(package: str) -> Path | None:
    """Return the folder of an installed package without importing it, None when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def locate(record: ModelRecord) -> tuple[Path, ...]:
    """Return where each file of the record belongs on this machine, whether it is there or not.

    ModelError when it belongs in a package that is not installed.
    """
    if record.place == "shipped":
        folder: Path | None = WEIGHTS
    elif record.place == "package":
        assert record.package is not None
        folder = package_folder(record.package)
        if folder is None:
            raise ModelError(
                f"model {record.name!r}: its files come with a package that is not installed; {_how_to_get(record)}"
            )
    else:
        folder = model_folder() / record.name
    assert folder is not None
    return tuple(folder / f.file for f in record.files)


def is_here(record: ModelRecord) -> bool:
    """Say whether all files of the record exist on this machine (unchecked)."""
    try:
        return all(path.is_file() for path in locate(record))
    except ModelError:
        return False


def _how_to_get(record: ModelRecord) -> str:
    if record.place == "folder":
        return f"fetch it with `facepipe models pull {record.name}`"
    return "install facepipe again"


def pinned_sha256(record: ModelRecord, file: ModelFile) -> str | None:
    """Return the hash that the user confirmed for a file whose record has none; None when nothing is pinned."""
    path = model_folder() / record.name / PINNED
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[file.file]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); pull the model {record.name!r} again") from error
    return str(value)


def check_bytes(record: ModelRecord, file: ModelFile, data: bytes, path: Path) -> None:
    """Raise ModelError, naming both hashes, unless `data` is the recorded file."""
    expected = file.sha256 or pinned_sha256(record, file)
    actual = hashlib.sha256(data).hexdigest()
    if expected is None:
        raise ModelError(
            f"{path}: no hash is recorded or confirmed; run `facepipe models pull {record.name}` to confirm one"
        )
    if actual != expected:
        raise ModelError(f"{path}: not the recorded file: SHA-256 {actual}, expected {expected}; {_how_to_get(record)}")


def read_weights(record: ModelRecord) -> list[bytes]:
    """Read and check all files of a record, in order; ModelError when one is absent or not the recorded one."""
    contents = []
    for file, path in zip(record.files, locate(record), strict=True):
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ModelError(
                f"model {record.name!r} is not on this machine ({path} is missing); {_how_to_get(record)}"
            ) from error
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        check_bytes(record, file, data, path)
        contents.append(data)
    return contents


def verify_model(record: ModelRecord) -> tuple[str, str | None]:
    """Return the state of a model on this machine, and for a bad one the reason.

    The state is `ok` (every file has its recorded hash), `absent`, or `bad`.
    """
    if not is_here(record):
        return "absent", None
    try:
        read_weights(record)
    except ModelError as error:
        return "bad", str(error)
    return "ok", None
