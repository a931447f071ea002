"""Step 4, export: the student as facepipe runs it (safetensors and ONNX), checked, with its record and its model card."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from facepipe.errors import InputError, ModelError
from facepipe.evaluate import metrics
from facepipe.files.atomic import atomic_file
from facepipe.models import mini
from facepipe.models.engines import TorchEngine
from facepipe.models.graphs import mini_graph
from facepipe.models.onnx_engine import OnnxEngine
from facepipe.models.registry import Licence, ModelFile, ModelRecord
from facepipe.types import Float32, UInt8
from scripts.train.runlog import read_log
from scripts.train.shards import read_json, write_json
from scripts.train.students import ARCHITECTURES, folded, trainable

#: Least cosine between the formats of one network on the same chips.
AGREEMENT = 0.999
#: By which the best person must lead the second, as `models add` has it.
MARGIN = 0.03
#: Pairs of different people from which a threshold is measured.
ENOUGH_PAIRS = 1000
#: How long each speed is measured.
MEASURE_SECONDS = 3.0


def load_student(run: Path) -> mini.Mini:
    """Return the averaged network of a run's checkpoint, folded; InputError when there is none."""
    values = read_json(run / "plan.json")
    path = run / "checkpoint.pt"
    if not path.exists():
        raise InputError(f"{run}: holds no checkpoint; run `distill` first")
    state = torch.load(path, map_location="cpu", weights_only=True)["average"]
    if values["start"]:
        return mini.build(state)
    network = trainable(mini.Mini(ARCHITECTURES[values["architecture"]]), values["norm"])
    network.load_state_dict(state)
    return folded(network)


def vectors_of(engine: TorchEngine | OnnxEngine, chips: UInt8) -> Float32:
    """Return unit vectors of chips by an engine, float32 (n, d)."""
    x = ((chips.astype(np.float32) - 127.5) / 128.0).transpose(0, 3, 1, 2)
    parts = [engine.run(np.ascontiguousarray(x[i : i + 32]))[0] for i in range(0, len(x), 32)]
    out = np.concatenate(parts)
    unit: Float32 = out / np.linalg.norm(out, axis=1, keepdims=True)
    return unit


def agreement(network: mini.Mini, exported: bytes, onnx: bytes, chips: UInt8) -> dict[str, float]:
    """Return the least cosine of each format with the trained network in float32, over real chips.

    Formats: the exported file in float32 and in bfloat16, and ONNX by onnxruntime. ModelError when one is below AGREEMENT.
    """
    cpu = torch.device("cpu")
    reference = vectors_of(TorchEngine(network, cpu, torch.float32), chips)

    def loaded() -> mini.Mini:
        return mini.build(safetensors.torch.load(exported))

    found = {
        "float16 file, run in float32": vectors_of(TorchEngine(loaded(), cpu, torch.float32), chips),
        "float16 file, run in bfloat16": vectors_of(TorchEngine(loaded(), cpu, torch.bfloat16), chips),
        "ONNX by onnxruntime": vectors_of(OnnxEngine(onnx, "export", "cpu"), chips),
    }
    least = {name: float((vectors * reference).sum(axis=1).min()) for name, vectors in found.items()}
    for name, value in least.items():
        if not value >= AGREEMENT:
            raise ModelError(
                f"export: {name} agrees with the trained network only to cosine {value:.5f}, expected {AGREEMENT}"
            )
    return least


def milliseconds(network: mini.Mini, dtype: torch.dtype, threads: int, batch: int = 32) -> float:
    """Return milliseconds per face in batches: the best of repeated passes, so that other work on the machine counts least."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine = TorchEngine(mini.build(network.state_dict()), torch.device("cpu"), dtype)
        x = np.random.default_rng(0).normal(size=(batch, 3, mini.SIZE, mini.SIZE)).astype(np.float32)
        engine.run(x)
        times: list[float] = []
        ends = time.perf_counter() + MEASURE_SECONDS
        while time.perf_counter() < ends or len(times) < 5:
            started = time.perf_counter()
            engine.run(x)
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return min(times) / batch * 1e3


@dataclass(frozen=True, slots=True)
class Decision:
    """The threshold and margin that a record gets (None: not measured), and a line that says how they came about."""

    threshold: float | None
    margin: float | None
    line: str


def different_pairs(people: Sequence[str]) -> int:
    """Return how many pairs show two different people."""
    counts = np.unique(np.asarray(people), return_counts=True)[1]
    return int((counts.sum() ** 2 - np.square(counts).sum()) // 2)


def measured_decision(
    network: mini.Mini, chips: UInt8, people: Sequence[str], crops: str = "of the recipe's crops"
) -> Decision:
    """Return as threshold the cosine that one pair of different people in a thousand reaches.

    crops: which they are, for the line.
    people: who each chip shows, or its photo where that is not known. Good enough to begin with; `facepipe calibrate` measures the
    threshold of a gallery on its own photos. No threshold when there are fewer than 1,000 pairs of different people.
    """
    vectors = vectors_of(TorchEngine(mini.build(network.state_dict()), torch.device("cpu"), torch.float32), chips)
    a, b = np.triu_indices(len(chips), 1)
    names = np.asarray(people)
    different = names[a] != names[b]
    count = int(different.sum())
    if count < ENOUGH_PAIRS:
        line = f"threshold: not measured, {count} pairs of different people are too few; see `facepipe evaluate`"
        return Decision(None, None, line)
    threshold = metrics.threshold_at((vectors @ vectors.T)[a, b][different], 1e-3)
    return Decision(round(threshold, 3), MARGIN, f"threshold: FAR 1e-3 over {count:,} pairs {crops}")


def export(
    run: Path,
    out: Path,
    name: str,
    chips: UInt8,
    targets: Path | None = None,
    people: Sequence[str] = (),
    decision: Decision | None = None,
    crops: str = "of the recipe's crops",
) -> dict[str, Any]:
    """Write `NAME.safetensors`, `NAME.onnx`, `NAME.json` (the record and how it came about) and return what the latter holds.

    chips: real faces, uint8 (n, 112, 112, 3), to check the formats with. targets: the folder of `teach`, for the teachers' licences.
    people, crops: who the chips show and which they are, to measure a threshold where no decision is given.
    Raises ModelError when the formats do not agree.
    """
    network = load_student(run)
    chosen = decision or measured_decision(network, chips, people, crops)
    half = {key: tensor.half().contiguous() for key, tensor in network.state_dict().items()}
    exported = safetensors.torch.save(half, metadata={"architecture": json.dumps(asdict(network.architecture))})
    onnx = mini_graph({key: tensor.float().numpy() for key, tensor in half.items()})
    least = agreement(network, exported, onnx, chips)
    for suffix, data in ((".safetensors", exported), (".onnx", onnx)):
        with atomic_file(out / f"{name}{suffix}") as file:
            file.write(data)
    teachers = read_json(targets / "target.json")["teachers"] if targets else []
    record = _record(name, network, exported, chosen)
    log = read_log(run / "log.jsonl") if (run / "log.jsonl").exists() else []
    last: dict[str, Any] = next((line for line in reversed(log) if "cosine_unseen" in line), {})
    facts = {
        "record": record.as_dict(),
        "architecture": asdict(network.architecture),
        "parameters": sum(p.numel() for p in network.parameters()),
        "agreement": least,
        "plan": read_json(run / "plan.json"),
        "teachers": [{k: v for k, v in t.items() if k != "extra"} for t in teachers],
        "last": last,
        "ms_per_face": {
            "float32, one core, batches of 32": round(milliseconds(network, torch.float32, 1), 2),
            "bfloat16, one core, batches of 32": round(milliseconds(network, torch.bfloat16, 1), 2),
        },
    }
    write_json(out / f"{name}.json", facts)
    return facts


def _record(name: str, network: mini.Mini, exported: bytes, chosen: Decision) -> ModelRecord:
    """Return the record that facepipe registers the network with."""
    return ModelRecord(
        name=name,
        kind="embedder",
        network="mini",
        note="Trained with facepipe's own recipe (scripts/train).",
        place="folder",
        files=(ModelFile(f"{name}.safetensors", hashlib.sha256(exported).hexdigest(), len(exported)),),
        licence=Licence("MIT", "see the model card", "see the model card", consent=False),
        hash_source="measured when it was exported",
        input=mini.SIZE,
        template="arcface112",
        mean=(127.5,) * 3,
        std=(128.0,) * 3,
        dim=network.architecture.dim,
        accuracy=(chosen.line,),
        threshold=chosen.threshold,
        margin=chosen.margin,
        user=True,
    )


def model_card(facts: Mapping[str, Any], reports: Sequence[Mapping[str, Any]], data: Mapping[str, Any] | None) -> str:
    """Return the model card, Markdown. reports: JSON documents of `facepipe evaluate`. data: the summary of `crops`."""
    record, plan, architecture = facts["record"], facts["plan"], facts["architecture"]
    file = record["files"][0]
    groups = ", ".join(f"{n} of {c}" for n, c in architecture["groups"])
    start = f"from `{plan['start']}`" if plan["start"] else "from random weights"
    how = f"{plan['samples']:,} samples {start}, batches of {plan['batch']}, normalisation `{plan['norm']}`."
    lines = [
        f"# {record['name']}",
        "",
        f"`{file['file']}`: {file['size']:,} bytes, float16, SHA-256 `{file['sha256']}`. "
        f"{facts['parameters'] / 1e6:.2f} M parameters.",
        "",
        "**Input.** RGB, 112x112, (x - 127.5) / 128, template `arcface112`. **Output.** "
        f"{record['dim']} numbers, to be scaled to unit length; faces are compared by cosine.",
        f"**Network.** Family `mini`: stem of {architecture['stem']} channels with stride {architecture['stem_stride']}, "
        f"groups {groups}"
        + (f", depthwise, {architecture['expand']} times as wide inside" if architecture["expand"] else "")
        + f", neck {architecture['neck']}.",
        f"**Threshold.** {record['threshold']} ({record['accuracy'][0]}).",
        f"**Speed.** {_list(facts['ms_per_face'], ' ms per face')}.",
        f"**Formats agree.** Least cosine with the trained network: {_list(facts['agreement'])}.",
        "",
        "## Training",
        how,
    ]
    if data:
        lines.append(
            f"{data['crops']:,} crops of {data['photos']:,} photos. Dropped: {_list(data['dropped']) or 'none'}."
        )
    for teacher in facts["teachers"]:
        lines.append(
            f"Teacher `{teacher['name']}` ({teacher['dim']} numbers, weight {teacher['weight']:g}): {teacher['licence']}."
        )
    if "cosine_unseen" in facts["last"]:
        lines.append(f"Mean cosine to the target on unseen crops: {facts['last']['cosine_unseen']:.3f}.")
    lines += ["", "## Figures (`facepipe evaluate`)"]
    lines += [line for report in reports for line in _figures(report)] or ["Not measured yet."]
    lines += [
        "",
        "## Limits",
        "A student knows what its teachers know, and their mistakes. Thresholds must be measured on photos like those of the use.",
        "Children, relatives, masks, profiles and faces below 40 pixels are harder than these figures say. "
        "Error rates differ between groups of people; they were measured only for the groups that are listed above. "
        "Do not decide about a person on this alone.",
        "",
    ]
    return "\n".join(lines)


def _list(values: Mapping[str, float], unit: str = "") -> str:
    return ", ".join(f"{name}: {value:.5g}{unit}" for name, value in values.items())


def _figures(report: Mapping[str, Any]) -> list[str]:
    """Return lines for a report of `evaluate verify` or `evaluate identify`; InputError for anything else."""
    if "accuracy" in report and "pairs" in report:
        tar = ", ".join(f"{100 * value:.1f} % at FAR {far}" for far, value in report["tar_at_far"].items())
        lines = [
            f"Verification, {report['pairs']:,} pairs: accuracy {100 * report['accuracy']:.2f} % "
            f"+- {100 * report['accuracy_sd']:.2f}, EER {100 * report['eer']:.2f} %, TAR {tar}; "
            f"{report['failed_to_enrol']} photos without a face count as errors."
        ]
        for group in report.get("groups", ()):
            lines.append(f"Group {group['group']}: accuracy {100 * group['accuracy']:.2f} % of {group['pairs']} pairs.")
        return lines
    if "schema_version" in report:
        simple = {k: v for k, v in report.items() if isinstance(v, (int, float)) and k != "schema_version"}
        return [f"Identification: {_list(simple)}."]
    raise InputError("expected JSON documents of `facepipe evaluate ... --json`")
