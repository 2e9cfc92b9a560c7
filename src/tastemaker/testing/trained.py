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
    """The first epoch of each of a system's training stages, seen step by step.

    losses: mean loss of every step of the first stage
    began: loss of the first step of each stage; None where the system learns from what it lives through itself
    reached: for every parameter, whether a gradient other than 0 came to it, in any stage
    """

    losses: list[float] = field(default_factory=list)
    began: list[float | None] = field(default_factory=list)
    reached: dict[str, bool] = field(default_factory=dict)


def watch(s: Subject, steps: int = 10**9) -> Watched | None:
    """Run a system's program, an epoch of each training stage, until so many losses; None where there is no stage."""
    from tastemaker.train.neural import Loop

    seen = Watched()
    inner = holdout(s.parts.train, seed=SEED)
    run = Run(SEED, name=s.info.name, judge=Validation(inner))
    system = run.system = built(s.info, make_config(s.info.config, s.config), s.parts.train.schema, SEED)

    class WatchedLoop(Loop):
        fresh = True

        def _watch(self, step: int, loss: Any, batches: Sequence[Any]) -> None:
            super()._watch(step, loss, batches)
            value = float(loss.detach())
            if self.fresh:
                seen.began.append(None if self.parts[0].feed.live else value)
            if len(seen.began) == 1:
                seen.losses.append(value)
            self.fresh = False
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
    with torch.random.fork_rng():
        while len(seen.losses) < steps:
            try:
                stage = program.send(sent)
            except StopIteration:
                break
            if isinstance(stage, Train | Alternate):
                with suppress(Enough):
                    WatchedLoop([stage] if isinstance(stage, Train) else stage.trains, run).go()
                sent = {}
            else:
                sent = run_stage(stage, run)
            run.stage += 1
    return seen if seen.losses else None


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
    """The loss of every training stage ends below where it began, but for those that learn from their own doing."""
    trainings = s.bundle.about.get("training", ())
    seen = watch(s, steps=1 if len(trainings) == 1 else 10**9) if trainings else None
    for told, began in zip(trainings, [] if seen is None else seen.began, strict=True):
        losses = [row["loss"] for row in told["evaluations"]]
        assert np.isfinite(losses).all(), f"a loss is no number: {losses}"
        assert began is None or losses[-1] < began, f"the loss went from {began:.4f} to {losses[-1]:.4f}"


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
