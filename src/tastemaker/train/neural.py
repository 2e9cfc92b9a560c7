"""The training loop: every system that learns by gradient steps learns here.

A step's random draws (dropout, noise) come from a stream of the run's seed, the stage and the step; a batch from one
of the seed, the epoch and its number. So a run that was killed and is taken up from its last checkpoint ends with the
weights it would have had, to the bit.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tastemaker.contracts import Batch, Feed, Optimiser, Plateau, Train
from tastemaker.feeds.feed import tensors
from tastemaker.nn.compiling import compiled
from tastemaker.nn.row_adam import RowAdam
from tastemaker.nn.table import Table
from tastemaker.train.codec import recall, store
from tastemaker.train.neural_processes import processes
from tastemaker.train.run import NeedsJudge, Run
from tastemaker.types import Diverged, UsageError, mix, progress

AHEAD = 3  # batches that are made while a step runs
UNCHECKED = 20  # losses an accelerator may be ahead of the check that they are numbers
EXPLOSION = 1e4  # times the first losses
FIRST_LOSSES = 50


def train(stages: Sequence[Train], run: Run) -> dict[str, Any]:
    """Run training stages, an epoch of each in turn, until the first one's end; leave the best weights in the system.

    Returns what was found: epochs, steps, best_epoch, metric, best, seconds, examples_per_second, waiting_share,
    parameters, device, and "evaluations": [{"epoch", "loss", metric}]; a warm start has one of epoch 0, without a loss.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        return Loop(stages, run).go()


class Part:
    """One Train stage: its feed, its optimisers, and how many steps they made."""

    def __init__(self, stage: Train, system: nn.Module, run: Run, number: int, epochs: int) -> None:
        self.stage, self.feed, self.how = stage, stage.feed, stage.optimiser
        self.feed.start(run.seed + 1_000_003 * run.stage + number)
        given = list(system.parameters() if stage.parameters is None else stage.parameters)
        self.parameters = [p for p in given if p.requires_grad]
        if not self.parameters:
            raise UsageError(f"{run.name} has no parameter that could be trained")
        self.optimisers = optimisers(self.parameters, system, self.how)
        self.steps = 0
        self.longest = epochs * math.ceil(len(self.feed) / self.how.accumulate)
        self.rows = compiled(self.loss) if run.hardware.compile else self.loss

    def loss(self, batch: Any) -> Tensor:
        """One loss a row."""
        rows: Tensor = self.stage.objective(self.stage.gather(batch), batch)
        return rows

    def set_rate(self) -> None:
        """The learning rate of the coming step."""
        how, step = self.how, self.steps
        if how.warmup == 0 and how.schedule == "constant":
            return
        share = min(1.0, (step + 1) / how.warmup) if how.warmup else 1.0
        if how.schedule != "constant" and step >= how.warmup:
            gone = (step - how.warmup) / max(1, self.longest - how.warmup)
            share = 1 - gone if how.schedule == "linear" else (1 + math.cos(math.pi * min(1.0, gone))) / 2
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = how.lr * max(0.0, share)

    def state(self) -> dict[str, Any]:
        kept = [{str(n): dict(values) for n, values in o.state_dict()["state"].items()} for o in self.optimisers]
        return {"steps": self.steps, "optimisers": kept}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            moments = {int(n): {k: torch.as_tensor(v) for k, v in values.items()} for n, values in kept.items()}
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def optimisers(parameters: Sequence[nn.Parameter], system: nn.Module, how: Optimiser) -> list[torch.optim.Optimizer]:
    """One optimiser for dense parameters and one for the rows of sparse tables, where there are such."""
    tables = {id(m.weight) for m in system.modules() if isinstance(m, Table) and m.sparse}
    sparse = [p for p in parameters if id(p) in tables]
    dense = [p for p in parameters if id(p) not in tables]
    if sparse and (how.weight_decay or how.clip or how.name == "adamw" or (how.name == "sgd" and how.momentum)):
        raise UsageError(
            "weight decay, clipping and momentum look at whole tables, and a table here is sparse",
            hint="build it with sparse=False",
        )
    common: dict[str, Any] = {"lr": how.lr, "weight_decay": how.weight_decay}
    if how.name == "sgd":
        return [torch.optim.SGD([*dense, *sparse], momentum=how.momentum, **common)]
    if how.name == "adagrad":
        made: list[torch.optim.Optimizer] = [torch.optim.Adagrad(group, **common) for group in (dense, sparse) if group]
        return made
    rule = torch.optim.AdamW if how.name == "adamw" else torch.optim.Adam
    made = [rule(dense, betas=how.betas, fused=True, **common)] if dense else []
    return [*made, RowAdam(sparse, lr=how.lr, betas=how.betas)] if sparse else made


class Loop:
    """A training stage, or several that take turns, under way."""

    def __init__(self, stages: Sequence[Train], run: Run) -> None:
        if not isinstance(run.system, nn.Module):
            raise UsageError(f"{run.name} is trained by gradients, so it must be a torch.nn.Module")
        self.run, self.system, self.group = run, run.system, processes()
        self.until = stages[0].until
        self.device = pick_device(run.hardware.device)
        self.system.to(self.device)
        most = self.until.most if isinstance(self.until, Plateau) else self.until.n
        self.most = run.fixed.get(run.stage, most)
        self.parts = [Part(stage, self.system, run, n, self.most) for n, stage in enumerate(stages)]
        self.judged = isinstance(self.until, Plateau) and run.stage not in run.fixed
        if self.judged and run.judge is None:
            raise NeedsJudge
        self.epoch, self.turn, self.number = 0, 0, 0  # epochs done, stage of the turn, batches of its epoch done
        self.best, self.best_epoch, self.stale = -math.inf, 0, 0
        self.best_weights: dict[str, Tensor] = {}
        self.average = self._weights() if stages[0].optimiser.ema else {}
        self.evaluations: list[dict[str, Any]] = []
        self.first_losses: list[float] = []
        self.unchecked: list[tuple[int, Tensor, Sequence[Batch]]] = []
        self.loss_sum, self.losses = 0.0, 0
        self.seconds = self.waited = 0.0
        self.examples = 0
        self.late = False
        self.saved = time.monotonic()

    # -- the whole

    def go(self) -> dict[str, Any]:
        file = self._file()
        if file is not None and file.is_file():
            self._restore(recall(file))
        counts = {"parameters": sum(p.numel() for p in self.parts[0].parameters), "device": str(self.device)}
        batches = sum(len(part.feed) for part in self.parts)
        self._log("start", epochs=self.most, batches=batches, epoch=self.epoch, **counts)
        if self.judged and self.run.warm is not None and not self.evaluations and self.epoch == self.number == 0:
            assert isinstance(self.until, Plateau)
            self._judge(self.until.metric, None)
        with progress(f"{self.run.name}: training", self.most * batches) as self.advance:
            self.advance(self.epoch * batches + self.number)
            while self.epoch < self.most and not self.late and not self._flat():
                self._epoch()
        self._check()
        if self.late:
            self._save()
        weights = self.best_weights or self.average
        if weights:
            self.system.load_state_dict(weights)
        self.system.eval()
        self.system.to("cpu")
        found = {
            "epochs": self.epoch,
            "steps": sum(part.steps for part in self.parts),
            "best_epoch": self.best_epoch if self._chosen else self.epoch,
            "metric": self.until.metric if isinstance(self.until, Plateau) and self.judged else None,
            "best": self.best if self._chosen else None,
            "stopped": "out of time" if self.late else "no rise" if self._flat() else "done",
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(self.examples / max(self.seconds, 1e-9)),
            "waiting_share": round(self.waited / max(self.seconds, 1e-9), 4),
            **counts,
            "evaluations": self.evaluations,
        }
        if self.device.type == "cuda":
            found["device_peak_mb"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        self._log("end", **{k: v for k, v in found.items() if k != "evaluations"})
        return found

    @property
    def _chosen(self) -> bool:
        """Whether some weights were judged the best; those a warm start begins with are epoch 0."""
        return self.best > -math.inf

    def _flat(self) -> bool:
        return self.judged and isinstance(self.until, Plateau) and self.stale >= self.until.patience

    def _epoch(self) -> None:
        """One epoch of every part, from where the loop stands."""
        began, before, waited = time.perf_counter(), self.examples, self.waited
        for turn in range(self.turn, len(self.parts)):
            part, self.turn = self.parts[turn], turn
            if self.number == 0 and part.stage.every_epoch is not None:
                self._seed(int(mix(self.epoch, self.run.seed + 15485863 * (self.run.stage + 1) + turn)) % 2**63)
                part.stage.every_epoch(self.epoch)
            self.system.train()
            self._batches(part)
            if self.late:
                break
            self.number = 0
        self._check()
        seconds = time.perf_counter() - began
        self.seconds += seconds
        if self.late:
            return
        self.turn = 0
        self.epoch += 1
        loss = self.loss_sum / max(1, self.losses)
        self.loss_sum, self.losses = 0.0, 0
        rate = (self.examples - before) / max(seconds, 1e-9)
        share = (self.waited - waited) / max(seconds, 1e-9)
        self._log("epoch", epoch=self.epoch, loss=loss, seconds=seconds, examples_per_second=rate, waiting_share=share)
        if self.judged and isinstance(self.until, Plateau) and self.epoch % self.until.every == 0:
            self._judge(self.until.metric, loss)
        if not self.judged:
            self.evaluations.append({"epoch": self.epoch, "loss": loss})
        if self.group.agree(float(self._over_time())):
            self.late = True
        self._maybe_save()

    # -- steps

    def _batches(self, part: Part) -> None:
        """The rest of a part's epoch."""
        pending: list[Batch] = []
        source = ahead(part.feed, self.epoch, self.number)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            pending.append(batch)
            self.number += 1
            if len(pending) < part.how.accumulate and self.number < len(part.feed):
                continue
            loss = self._step(part, pending)
            self.examples += sum(map(len, pending))
            self.advance(len(pending), self._said(loss))
            pending = []
            self._maybe_save()
            if self.group.size == 1 and self._over_time():
                self.late = True
                source.close()
                return

    def _step(self, part: Part, batches: Sequence[Batch]) -> Tensor:
        """One update from the mean of all rows of these batches, over all processes. Returns their mean loss."""
        stream = int(mix(part.steps, self.run.seed + 7919 * self.run.stage + 104729 * self.turn))
        self._seed((stream + self.group.rank) % 2**63)
        part.set_rate()
        for optimiser in part.optimisers:
            optimiser.zero_grad(set_to_none=True)
        total: Any = 0.0
        rows = 0
        for batch in batches:
            with self._precision():
                losses = part.rows(tensors(self.group.share(batch), self.device))
            rows += losses.numel()
            summed = losses.sum()
            whole = losses.mean() if len(batches) == self.group.size == 1 else summed
            torch.autograd.backward(whole)
            total = total + summed.detach()
        if len(batches) > 1 or self.group.size > 1:
            n = self.group.sum_gradients(part.parameters, rows)
            for parameter in part.parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(n)
        loss: Tensor = total / rows
        self._watch(part.steps, loss, batches)
        if part.how.clip is not None:
            torch.nn.utils.clip_grad_norm_(part.parameters, part.how.clip)
        for optimiser in part.optimisers:
            optimiser.step()
        if self.average:
            self._add_to_average(part.how.ema or 0.0)
        if part.stage.after_step is not None:
            part.stage.after_step(part.steps)
        part.steps += 1
        return loss

    def _seed(self, seed: int) -> None:
        """Start the streams that dropout and noise draw from. (torch.manual_seed would ask every kind of device.)"""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _precision(self) -> Any:
        return (
            torch.autocast(self.device.type, torch.bfloat16) if self.run.hardware.precision == "bf16" else nullcontext()
        )

    def _watch(self, step: int, loss: Tensor, batches: Sequence[Batch]) -> None:
        """See to it that losses are numbers; an accelerator is asked for several at once, so as not to wait for it."""
        self.unchecked.append((step, loss, list(batches)))
        if self.device.type == "cpu" or len(self.unchecked) >= UNCHECKED:
            self._check()

    def _check(self) -> None:
        for step, loss, batches in self.unchecked:
            value = float(loss)
            usual = EXPLOSION * max(1e-3, sum(map(abs, self.first_losses)) / max(1, len(self.first_losses)))
            if not math.isfinite(value) or (self.first_losses and abs(value) > usual):
                what = "is no number" if not math.isfinite(value) else f"grew to {value:.3g}"
                raise Diverged(
                    f"the loss of {self.run.name} {what} at step {step} (epoch {self.epoch + 1}, "
                    f"batch {fingerprint(batches)})",
                    hint="try a smaller lr, a warmup, a clip, or precision fp32; look for extreme values in the data",
                )
            if len(self.first_losses) < FIRST_LOSSES:
                self.first_losses.append(value)
            self.loss_sum, self.losses = self.loss_sum + value, self.losses + 1
        self.unchecked.clear()

    def _said(self, loss: Tensor) -> str:
        metric = self.until.metric if isinstance(self.until, Plateau) else ""
        judged = f" {metric} {self.evaluations[-1][metric]:.4f} (best {self.best:.4f})" if self._chosen else ""
        shown = f" loss {self.loss_sum / self.losses:.4f}" if self.losses else ""
        rate = self.examples / max(self.seconds, 1e-9) if self.seconds else 0
        return f"epoch {self.epoch + 1}/{self.most}{shown}{judged}" + (f" {rate:,.0f}/s" if rate else "")

    # -- judging

    def _judge(self, metric: str, loss: float | None) -> None:
        value = 0.0
        if self.group.first:
            assert self.run.judge is not None
            with self._averaged(), torch.no_grad():
                self.system.eval()
                value = float(self.run.judge(self.system, metric))
        value = self.group.agree(value)
        if not math.isfinite(value):
            raise UsageError(f"the validation figure {metric} of {self.run.name} is no number")
        self.evaluations.append({"epoch": self.epoch, "loss": loss, metric: value})
        if value > self.best:
            self.best, self.best_epoch, self.stale = value, self.epoch, 0
            self.best_weights = {k: v.detach().clone() for k, v in (self.average or self._weights()).items()}
        else:
            self.stale += 1
        self._log("evaluation", epoch=self.epoch, metric=metric, value=value, best=self.best)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.system.state_dict().items()}

    def _add_to_average(self, decay: float) -> None:
        for name, value in self.system.state_dict().items():
            kept = self.average[name]
            if kept.is_floating_point():
                kept.lerp_(value.detach(), 1 - decay)
            else:
                kept.copy_(value)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the moving average in the place of the weights, where one is kept."""
        if not self.average:
            yield
            return
        now = self._weights()
        self.system.load_state_dict(self.average)
        try:
            yield
        finally:
            self.system.load_state_dict(now)

    # -- stopping and going on

    def _over_time(self) -> bool:
        return self.run.deadline is not None and time.monotonic() > self.run.deadline

    def _file(self) -> Path | None:
        return None if self.run.file is None else self.run.file.with_suffix(".checkpoint")

    def _maybe_save(self) -> None:
        if time.monotonic() - self.saved >= self.run.checkpoint_seconds:
            self._save()

    def _save(self) -> None:
        file = self._file()
        if file is None or not self.group.first:
            return
        self._check()
        store(self._state(), file)
        self.saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        names = (
            "epoch turn number best best_epoch stale evaluations first_losses loss_sum losses seconds waited examples"
        )
        return {
            **{name: getattr(self, name) for name in names.split()},
            "best": repr(self.best),  # may be infinite
            "weights": self._weights(),
            "best_weights": self.best_weights,
            "average": self.average,
            "parts": [part.state() for part in self.parts],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.system.load_state_dict(_as_tensors(state.pop("weights")))
        self.best_weights = _as_tensors(state.pop("best_weights"), self.device)
        self.average = _as_tensors(state.pop("average"), self.device)
        for part, kept in zip(self.parts, state.pop("parts"), strict=True):
            part.restore(kept)
        self.best = float(state.pop("best"))
        for name, value in state.items():
            setattr(self, name, value)

    def _log(self, event: str, **facts: Any) -> None:
        if self.group.first:
            self.run.log(event, **facts)


def ahead(feed: Feed, epoch: int, first: int) -> Generator[Batch, None, None]:
    """An epoch's batches from number `first` on, made in a thread of their own while the last ones are used."""
    if feed.live:
        yield from (feed.batch(epoch, number) for number in range(first, len(feed)))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tastemaker-feed") as pool:
        numbers = iter(range(first, len(feed)))
        made = deque(pool.submit(feed.batch, epoch, number) for number in islice(numbers, AHEAD))
        while made:
            batch = made.popleft().result()
            if (number := next(numbers, None)) is not None:
                made.append(pool.submit(feed.batch, epoch, number))
            yield batch


def pick_device(wanted: str) -> torch.device:
    """The device of this name; "auto" is the accelerator, where there is one."""
    if wanted == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(wanted)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"there is no device {wanted!r} here: {error}", hint="auto, cpu, cuda, cuda:0, mps") from error
    return device


def fingerprint(batches: Sequence[Batch]) -> str:
    """A short hash of the batches' arrays."""
    total = hashlib.blake2b(digest_size=6)
    for batch in batches:
        for part in fields(batch):  # type: ignore[arg-type]
            value = getattr(batch, part.name)
            if isinstance(value, np.ndarray):
                total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def _as_tensors(arrays: Mapping[str, Any], device: Any = None) -> dict[str, Tensor]:
    return {name: torch.as_tensor(array, device=device) for name, array in arrays.items()}
