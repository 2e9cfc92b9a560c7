"""What every system that learns by gradient steps must survive besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tastemaker.contracts import Alternate, Train
from tastemaker.data import holdout
from tastemaker.testing.subject import SEED, Subject
from tastemaker.train.bundle import export_state
from tastemaker.train.engine import built, run_stage
from tastemaker.train.run import Run, Validation
from tastemaker.types import make_config


class Enough(Exception):
    """Seen as many steps as were wanted."""


@dataclass
class Watched:
    """The first epoch of a system's first training stage, seen step by step.

    losses: mean loss of every step
    reached: for every parameter, whether a gradient other than 0 came to it
    """

    losses: list[float] = field(default_factory=list)
    reached: dict[str, bool] = field(default_factory=dict)


def watch(s: Subject, steps: int = 10**9) -> Watched | None:
    """Run a system's program up to its first training stage, and an epoch of that; None where there is none."""
    from tastemaker.train.neural import Loop

    seen = Watched()
    inner = holdout(s.parts.train, seed=SEED)
    run = Run(SEED, name=s.info.name, judge=Validation(inner))
    system = run.system = built(s.info, make_config(s.info.config, s.config), s.parts.train.schema, SEED)

    class WatchedLoop(Loop):
        def _watch(self, step: int, loss: Any, batches: Sequence[Any]) -> None:
            super()._watch(step, loss, batches)
            seen.losses.append(float(loss.detach()))
            for name, parameter in system.named_parameters():
                if parameter.requires_grad:
                    gradient = parameter.grad
                    came = gradient is not None and bool((_values(gradient) != 0).any())
                    seen.reached[name] = seen.reached.get(name, False) or came
            if len(seen.losses) >= steps:
                raise Enough

        def _maybe_save(self) -> None:
            if self.epoch == 1:
                raise Enough

    import torch

    program, sent = system.program(inner.train), None
    while True:
        try:
            stage = program.send(sent)
        except StopIteration:
            return None
        if isinstance(stage, Train | Alternate):
            break
        sent = run_stage(stage, run)
        run.stage += 1
    with torch.random.fork_rng(), suppress(Enough):
        WatchedLoop([stage] if isinstance(stage, Train) else stage.trains, run).go()
    return seen


def _values(gradient: Any) -> Any:
    return gradient._values() if gradient.is_sparse else gradient


def check_gradient_reaches_every_parameter(s: Subject) -> None:
    """In one epoch a gradient comes to every parameter that may be trained."""
    seen = watch(s)
    if seen is None:
        return
    missed = [name for name, came in seen.reached.items() if not came]
    assert seen.reached and not missed, f"no gradient came to {', '.join(missed)}"


def check_loss_falls(s: Subject) -> None:
    """The loss of every training stage ends below where it began."""
    for told in s.bundle.about.get("training", ()):
        losses = [row["loss"] for row in told["evaluations"]]
        first = first_loss(s)
        assert np.isfinite(losses).all() and losses[-1] < first, f"the loss went from {first:.4f} to {losses[-1]:.4f}"


def first_loss(s: Subject) -> float:
    """Loss of the very first step."""
    seen = watch(s, steps=1)
    assert seen is not None
    return seen.losses[0]


class Stop:
    """Ends a training after its first epoch, as a failing machine would."""

    def log(self, record: Mapping[str, Any]) -> None:
        if record["event"] == "epoch":
            raise Enough


def check_resume(s: Subject) -> None:
    """Stopped at an epoch's end and taken up again, training ends with the same weights to the bit."""
    if not s.bundle.about.get("training"):
        return
    with TemporaryDirectory() as name:
        run = Path(name) / "run"
        with suppress(Enough):
            s.fitted(run=run, checkpoint_seconds=0, loggers=[Stop()])
        resumed, whole = export_state(s.fitted(run=run).system), export_state(s.bundle.system)
    differing = [key for key in whole if not np.array_equal(whole[key], resumed[key], equal_nan=True)]
    assert not differing, f"{differing[0]} differs after training was taken up again"
