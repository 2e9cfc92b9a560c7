"""APR: adversarial personalised ranking, for any system that is trained on what its `gather` reads.

Every step looks twice: at the vectors as they are, and at the same vectors moved by `epsilon` in the direction that
raises the loss fastest. A system that must rank well under the worst small shift of its vectors overfits less.

    loss = L(v) + weight * L(v + d),   d = epsilon * g / |g|,   g = dL/dv

Kept from the paper: the objective (equation 8) and the direction of a single gradient (equation 7), normalised for each
vector. Changed: it is no model of its own but a transform of any pairwise, pointwise or listwise training; the paper
begins with a pre-trained BPR-MF, here `after` epochs pass before the second look begins.

Ref: He, He, Du, Chua, "Adversarial personalized ranking for recommendation", SIGIR 2018, arXiv:1808.03908.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tastemaker.contracts import Program, Stage, Train, transform
from tastemaker.train.transforms._program import with_stages
from tastemaker.types import Dataset, UsageError, setting

Objective = Callable[[Any, Any], Tensor]


@transform("apr", title="APR: ranking under the worst small shift of the vectors", paper="arXiv:1808.03908")
class APR:
    """Adds the loss at adversarially shifted vectors to every training stage."""

    @dataclass(frozen=True)
    class Config:
        epsilon: float = setting(0.5, "Length of the shift of each vector.", low=0.0, search=(0.05, 2.0), log=True)
        weight: float = setting(
            1.0, "Weight of the loss at the shifted vectors.", low=0.0, search=(0.1, 10.0), log=True
        )
        after: int = setting(0, "Epochs of plain training before.", low=0)

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, system: Any, program: Program, data: Dataset) -> Program:
        yield from with_stages(program, lambda stage: self._harder(stage, system))
        if hasattr(system, "apr_on"):
            del system.apr_on  # no part of what the system is

    def _harder(self, stage: Stage, system: Any) -> Stage:
        if not isinstance(stage, Train):
            return stage
        system.register_buffer("apr_on", torch.tensor(self.config.after == 0), persistent=True)
        before = stage.every_epoch

        def every_epoch(epoch: int) -> None:
            if before is not None:
                before(epoch)
            system.apr_on.fill_(epoch >= self.config.after)

        return replace(stage, objective=self._objective(stage.objective, system), every_epoch=every_epoch)

    def _objective(self, plain: Objective, system: Any) -> Objective:
        def objective(read: Any, batch: Any) -> Tensor:
            losses = plain(read, batch)
            if not system.apr_on:
                return losses
            moving = [value.detach().requires_grad_() for value in vectors(read)]
            with torch.enable_grad():
                raised = plain(with_vectors(read, moving), batch).sum()
            slopes = torch.autograd.grad(raised, moving, allow_unused=True)
            shifted = [
                value if slope is None else value + self.config.epsilon * torch.nn.functional.normalize(slope, dim=-1)
                for value, slope in zip(vectors(read), slopes, strict=True)
            ]
            return losses + self.config.weight * plain(with_vectors(read, shifted), batch)

        return objective


def vectors(read: Any) -> list[Tensor]:
    """The tensors of what `gather` gave that gradients flow through."""
    found = [value for value in _parts(read).values() if isinstance(value, Tensor) and value.requires_grad]
    if not found:
        raise UsageError(
            "an adversarial shift needs a gather that gives the vectors a batch reads; this one gives none"
        )
    return found


def with_vectors(read: Any, others: list[Tensor]) -> Any:
    """The same with other tensors in the place of `vectors(read)`."""
    places = [n for n, value in _parts(read).items() if isinstance(value, Tensor) and value.requires_grad]
    changed = dict(zip(places, others, strict=True))
    if isinstance(read, Tensor):
        return others[0]
    return read._replace(**changed) if hasattr(read, "_replace") else replace(read, **changed)


def _parts(read: Any) -> dict[str, Any]:
    if isinstance(read, Tensor):
        return {"": read}
    if hasattr(read, "_asdict"):
        return dict(read._asdict())
    if is_dataclass(read) and not isinstance(read, type):
        return {f.name: getattr(read, f.name) for f in fields(read)}
    raise UsageError(f"gather gives a tensor, a NamedTuple or a dataclass of them, got {type(read).__name__}")
