"""Step 3, distill: a student learns the target vectors, can be killed at any moment, and goes on exactly where it was.

Everything random follows from the seed and the step's number, and the learning rate from the step: a checkpoint of weights, averages,
optimizers and step is therefore all there is to know. The rate is constant and falls in a straight line at the end; until it falls,
the run can be made longer or shorter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from facepipe.errors import UsageError
from facepipe.files.atomic import atomic_file
from facepipe.models.devices import network_dtype, resolve_device
from facepipe.models.mini import Mini
from facepipe.types import Float32, Int64, UInt8
from scripts.train.augment import Strength, middle
from scripts.train.data import Batch, TrainingSet, batches, held_out, normalised, plain_chips
from scripts.train.evalsets import EvalSet, unseen_people
from scripts.train.losses import MarginSoftmax, cosine_loss, relational_loss
from scripts.train.muon import Muon
from scripts.train.runlog import Log, Stop, Sums, plot, short
from scripts.train.shards import CropSet, read_json, write_json
from scripts.train.students import ARCHITECTURES, folded, load_start, trainable
from scripts.train.teach import read_target

Say = Callable[[str], None]

#: What the figures on people that are never trained on are called.
UNSEEN = "held out"
#: Highest learning rates, as measured for the shipped network.
_MUON_RATE, _ADAM_RATE = 1.2e-2, 2e-3
#: More steps than anybody makes.
_ANY = 1 << 40


@dataclass(frozen=True, slots=True)
class DistillPlan:
    """All that decides what is learnt; a run's folder belongs to one plan.

    samples: crops seen in all.
    optimizer: muon for convolutions and the linear layer (AdamW for the stem and all of one dimension), or adamw for all.
    lr: after `warmup` samples, a twentieth of the run at most; 0: 1.2e-2 for muon, 2e-3 for adamw.
    decay: share of the run, at its end, in which the rate falls to nothing and augmentation is weaker.
    ema: decay of the averaged weights, which are what is evaluated and exported.
    relational: weight of the relational loss. identity: weight of the margin softmax, 0 without.
    start: "" from nothing, a model's name, or a .safetensors file.
    hold_out: share of the people that is never trained on.
    """

    architecture: str = "early"
    norm: str = "bn"
    samples: int = 500_000
    batch: int = 128
    optimizer: str = "muon"
    lr: float = 0.0
    weight_decay: float = 0.02
    warmup: int = 10_000
    decay: float = 0.3
    ema: float = 0.999
    relational: float = 4.0
    identity: float = 0.0
    margin: str = "cosface"
    start: str = ""
    hold_out: float = 0.05
    seed: int = 0
    strength: Strength = field(default_factory=Strength)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return max(1, self.samples // self.batch)

    @property
    def falls_from(self) -> int:
        """The step from which on the rate falls."""
        return min(self.steps, round((1.0 - self.decay) * self.steps))

    def pace(self, step: int) -> float:
        """Return the learning rate as a share of the highest: it rises in a straight line, stays, and falls in a straight line."""
        rising = (step + 1) / max(1, min(self.warmup, self.samples // 20) // self.batch)
        falling = (self.steps - step) / max(1, self.steps - self.falls_from)
        return max(0.0, min(1.0, rising, falling))


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how it runs, and what is looked at meanwhile: none of it belongs to the plan.

    workers: processes that make batches. every: samples between evaluations. seconds: between checkpoints. minutes: the plan's
    samples are made more or fewer at each checkpoint, so that the run ends after so much time of training.
    """

    device: str = "auto"
    workers: int = 1
    threads: int = 0
    compile: bool = False
    every: int = 50_000
    seconds: float = 60.0
    line_seconds: float = 60.0
    minutes: float | None = None


class Student:
    """The network that is trained, its averaged copy, the identities' centres, and the optimizer."""

    def __init__(self, plan: DistillPlan, identities: int, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        if plan.start:
            self.network = load_start(plan.start)
            self.network.requires_grad_(True)
        else:
            if plan.architecture not in ARCHITECTURES:
                raise UsageError(f"no student {plan.architecture!r}; choose one of {', '.join(ARCHITECTURES)}")
            self.network = trainable(Mini(ARCHITECTURES[plan.architecture]), plan.norm)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = deepcopy(self.network).requires_grad_(False).eval()
        dim = self.network.architecture.dim
        self.head = MarginSoftmax(dim, max(1, identities), plan.margin).to(device) if plan.identity else None
        self.optimizers = self._optimizers(plan)
        self.step = 0

    def _optimizers(self, plan: DistillPlan) -> list[torch.optim.Optimizer]:
        """Return the optimizers, each group with its highest rate as `highest`."""
        if plan.optimizer not in ("muon", "adamw"):
            raise UsageError(f"no optimizer {plan.optimizer!r}; choose muon or adamw")
        muon: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = list(self.head.parameters()) if self.head else []
        plain: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            if parameter.ndim < 2:
                plain.append(parameter)
            elif plan.optimizer == "muon" and not name.startswith("stem."):
                muon.append(parameter)
            else:
                decayed.append(parameter)
        rate = plan.lr or (_MUON_RATE if plan.optimizer == "muon" else _ADAM_RATE)
        adam = rate if plan.optimizer == "adamw" else rate * _ADAM_RATE / _MUON_RATE
        groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW([g for g in groups if g["params"]], lr=adam, betas=(0.9, 0.98), fused=True)
        ]
        if muon:
            made.append(Muon(muon, lr=rate, weight_decay=plan.weight_decay))
        for group in (group for optimizer in made for group in optimizer.param_groups):
            group["highest"] = group["lr"]
        return made

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values only, so that it can be read back without unpickling objects."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "head": self.head.state_dict() if self.head else {},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        if self.head:
            self.head.load_state_dict(state["head"])
        for optimizer, known in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(known)
        self.step = int(state["step"])

    def averaged(self, decay: float) -> None:
        """Move the averaged copy towards the network; faster in the beginning, when there is little to average."""
        share = 1.0 - min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            mine: list[torch.Tensor] = list(self.average.parameters())
            theirs: list[torch.Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(mine, theirs, share)
            for own, other in zip(self.average.buffers(), self.network.buffers(), strict=True):
                own.copy_(other)


def turned_to(target: Float32, current: Float32, train: Int64) -> Float32:
    """Turn the targets into the student's space: the rotation that brings them nearest to its vectors of the training crops.

    A rotation changes no cosine between targets, and a student that starts trained need not learn it (orthogonal Procrustes).
    """
    u, _, v = np.linalg.svd(target[train].T.astype(np.float64) @ current[train].astype(np.float64))
    return np.asarray(target @ (u @ v), np.float32)


def embed_chips(network: nn.Module, chips: UInt8, device: torch.device, dtype: torch.dtype, batch: int = 64) -> Float32:
    """Return the unit vectors of chips, float32 (n, d)."""
    parts = []
    network.eval()
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for start in range(0, len(chips), batch):
            out = network(normalised(torch.from_numpy(chips[start : start + batch]), device))
            parts.append(normalize(out.float()).cpu().numpy())
    return np.concatenate(parts)


class Run:
    """One distillation: its data, its student, its folder."""

    def __init__(
        self,
        plan: DistillPlan,
        machine: Machine,
        crops: Path,
        targets: Path,
        out: Path,
        evalsets: Sequence[EvalSet] = (),
        say: Say = lambda _: None,
    ) -> None:
        self.plan, self.machine, self.out, self.evalsets, self.say = plan, machine, out, evalsets, say
        self.device = resolve_device(machine.device)
        self.dtype = network_dtype(self.device)
        if machine.threads:
            torch.set_num_threads(machine.threads)
        self.crops = CropSet(crops)
        target = read_target(self.crops, targets)
        identities, names = self.crops.identities()
        unseen = held_out(self.crops, plan.hold_out, plan.seed)
        self.train, self.unseen = np.flatnonzero(~unseen), np.flatnonzero(unseen)[:2048]
        if len(self.train) < plan.batch:
            raise UsageError(
                f"{crops}: {len(self.train)} crops to train on, fewer than a batch of {plan.batch}; use --batch"
            )
        if plan.identity and not names:
            raise UsageError(
                f"{crops}: no identities are known; --identity needs folders named like the people in them"
            )
        self.student = Student(plan, len(names), self.device)
        dim = self.student.network.architecture.dim
        if target.shape[1] != dim:
            raise UsageError(
                f"{targets}: targets of {target.shape[1]} numbers for a student of {dim}; join with --dim {dim}"
            )
        if plan.start:
            everything = plain_chips(self.crops, np.arange(len(self.crops)))
            current = embed_chips(self.student.network, everything, self.device, self.dtype)
            target = turned_to(target, current, self.train)
        self.target, self.identities = target, identities
        self.unseen_chips = plain_chips(self.crops, self.unseen)
        self.dataset = TrainingSet(self.crops, self.train, target, identities, plan.batch, plan.strength, plan.seed)
        #: Seconds of training before this process.
        self.spent = 0.0

    # -- one step ------------------------------------------------------------------------------------------------------------

    def losses(self, forward: Callable[[Tensor], Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the parts of the loss, and `loss` itself."""
        x = normalised(batch.chips, self.device)
        target = batch.target.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = forward(x)
        student = normalize(out.float())
        parts = {"cosine": cosine_loss(student, target), "relational": relational_loss(student, target)}
        parts["loss"] = parts["cosine"] + self.plan.relational * parts["relational"]
        if self.student.head is not None:
            parts["identity"] = self.student.head(student, batch.identity.to(self.device))
            parts["loss"] = parts["loss"] + self.plan.identity * parts["identity"]
        return parts

    def update(self, forward: Callable[[Tensor], Tensor], batch: Batch) -> dict[str, Tensor]:
        """One step of the optimizer and of the average."""
        student = self.student
        pace = self.plan.pace(student.step)
        for group in (group for optimizer in student.optimizers for group in optimizer.param_groups):
            group["lr"] = pace * group["highest"]
        student.network.train()
        parts = self.losses(forward, batch)
        for optimizer in student.optimizers:
            optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.network.parameters(), 5.0)
        for optimizer in student.optimizers:
            optimizer.step()
        student.step += 1
        student.averaged(self.plan.ema)
        return {name: part.detach() for name, part in parts.items()}

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield the batches of the steps that are left: at full strength, then, while the rate falls, weaker ones."""
        machine, pin = self.machine, self.device.type == "cuda"
        for weaker in (False, True):
            dataset = self.dataset.weaker() if weaker else self.dataset
            while (first := self.student.step) < self._end(weaker):
                last = self._end(weaker) if weaker or machine.minutes is None else _ANY
                with closing(batches(dataset, first, last, machine.workers, pin)) as stream:
                    for batch in stream:
                        yield batch
                        if self.student.step >= self._end(weaker):
                            break

    def _end(self, weaker: bool) -> int:
        return self.plan.steps if weaker else self.plan.falls_from

    # -- looking ---------------------------------------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, Any]:
        """Return the mean cosine to the target on unseen crops, how they are told apart, and the figures of each evaluation set."""
        network = folded(self.student.average).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        figures: dict[str, Any] = {}
        if len(self.unseen):
            vectors = embed_chips(network, self.unseen_chips, self.device, self.dtype)
            wanted = self.target[self.unseen]
            figures["cosine_unseen"] = float((vectors * wanted).sum(axis=1).mean())
            off = ~np.eye(len(vectors), dtype=bool)
            if off.any():
                difference = vectors @ vectors.T - wanted @ wanted.T
                figures["relation_error_unseen"] = float(np.sqrt(np.square(difference[off]).mean()))
            people = unseen_people(vectors, self.identities[self.unseen])
            if people:
                figures[UNSEEN] = people
        for evalset in self.evalsets:
            chips = np.stack([middle(crop) for crop in evalset.crops])
            figures[evalset.name] = evalset.verification(embed_chips(network, chips, self.device, self.dtype))
        return figures

    # -- the run -----------------------------------------------------------------------------------------------------------------

    def go(self) -> dict[str, Any]:
        """Train to the end and return the last figures. KeyboardInterrupt after a checkpoint when asked to stop."""
        machine, student = self.machine, self.student
        self._resume()
        forward = torch.compile(student.network) if machine.compile else student.network
        log = Log(self.out / "log.jsonl", student.step)
        if student.step == 0:
            log.write(step=0, samples=0, **self.evaluate())
        started = saved = lined = time.monotonic()
        since, sums, every = 0, Sums(), max(1, machine.every // self.plan.batch)
        first = student.step
        with Stop() as stop, closing(self._batches()) as stream:
            for batch in stream:
                plan = self.plan
                sums.add(self.update(forward, batch))
                since += 1
                step, now = student.step, time.monotonic()
                if now - lined >= machine.line_seconds or step == plan.steps or step % every == 0:
                    rate = since * plan.batch / (now - lined) if now > lined else 0.0
                    means = sums.means()
                    seconds = now - started
                    log.write(
                        step=step,
                        samples=step * plan.batch,
                        rate=round(rate, 1),
                        pace=round(plan.pace(step), 4),
                        **means,
                    )
                    left = (plan.steps - step) * seconds / max(1, step - first)
                    self.say(
                        f"{step * plan.batch:,} of {plan.steps * plan.batch:,} samples, "
                        + ", ".join(f"{k} {v:.4f}" for k, v in means.items())
                        + f", {rate:.0f} crops/s, {left / 60:.0f} min left"
                    )
                    if step % every == 0 and step < plan.steps:
                        self._look(log)
                    lined, since, sums = time.monotonic(), 0, Sums()
                if now - saved >= machine.seconds or step == plan.steps or stop.asked:
                    self._save(now - started)
                    self._replan(now - started, step - first)
                    saved = time.monotonic()
                if step >= self.plan.steps:
                    break
                if stop.asked:
                    self.say(f"stopped at step {step}; the same command goes on")
                    raise KeyboardInterrupt
        seconds = round(self.spent + time.monotonic() - started, 1)
        return {"samples": student.step * self.plan.batch, "seconds": seconds, **self._look(log)}

    def _look(self, log: Log) -> dict[str, Any]:
        figures = self.evaluate()
        log.write(step=self.student.step, samples=self.student.step * self.plan.batch, **figures)
        self.say(f"  {short(figures)}")
        plot(self.out / "log.jsonl", self.out / "plot.png")
        return figures

    def _save(self, seconds: float) -> None:
        with atomic_file(self.out / "checkpoint.pt") as file:
            torch.save({**self.student.state(), "seconds": self.spent + seconds}, file)

    def _replan(self, seconds: float, steps: int) -> None:
        """Make the plan as long as the time that is left allows, at this process's pace; nothing to do without `minutes`."""
        step = self.student.step
        if self.machine.minutes is None or step >= self.plan.falls_from:
            return
        left = self.machine.minutes * 60 - self.spent - seconds
        wanted = step + max(0, round(left * steps / seconds))
        self.plan = replace(self.plan, samples=max(1, wanted) * self.plan.batch)
        write_json(self.out / "plan.json", asdict(self.plan))

    def _resume(self) -> None:
        """Take the folder for this plan, and go on from its checkpoint when it has one."""
        known, mine = self.out / "plan.json", json.loads(json.dumps(asdict(self.plan)))
        stored = read_json(known) if known.exists() else mine
        if {**stored, "samples": 0} != {**mine, "samples": 0}:
            raise UsageError(f"{self.out}: holds a run of another plan; choose another --out or remove it")
        checkpoint = self.out / "checkpoint.pt"
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location=self.device, weights_only=True)
            self.student.load(state)
            self.spent = float(state["seconds"])
            before = replace(self.plan, samples=stored["samples"])
            if stored != mine and self.student.step > min(before.falls_from, self.plan.falls_from):
                raise UsageError(
                    f"{self.out}: at step {self.student.step} the learning rate falls, for {before.samples:,} samples or for "
                    f"{self.plan.samples:,}: the length can be changed only before"
                )
            self.say(f"goes on at step {self.student.step} of {self.plan.steps}")
        write_json(known, mine)

    def rate(self, steps: int = 12) -> float:
        """Measure crops per second on a copy of the student, data and all; the student itself stays as it is."""
        kept = deepcopy(self.student.state())
        stream = batches(self.dataset, 0, steps + 4, self.machine.workers)
        started = time.monotonic()
        with closing(stream):
            for i, batch in enumerate(stream):
                if i == 4:
                    started = time.monotonic()
                self.update(self.student.network, batch)
        rate = steps * self.plan.batch / (time.monotonic() - started)
        self.student.load(kept)
        # A fresh optimizer has no moments; loading an empty state keeps those of the trial.
        for optimizer in self.student.optimizers:
            optimizer.state.clear()
        return rate


def plan_for(minutes: float, run: Run) -> DistillPlan:
    """Return the run's plan with as many samples as it can see in so many minutes; a plan that the folder holds already stays."""
    known = run.out / "plan.json"
    if known.exists():
        return replace(run.plan, samples=read_json(known)["samples"])
    rate = run.rate()
    samples = max(run.plan.batch, int(rate * minutes * 60 * 0.97) // run.plan.batch * run.plan.batch)
    run.say(f"{rate:.0f} crops/s: {samples:,} samples in {minutes:g} minute{'' if minutes == 1 else 's'}")
    return replace(run.plan, samples=samples)
