"""VAT: vulnerability-aware adversarial training, for any system that is trained on what its `gather` reads.

Injected users work on those whom a system fits well: such a user's vectors follow whatever resembles the choices. So,
as in APR, every step is taken at the vectors as they are and at the same vectors moved to where the loss rises fastest,
but the move is as long as the user is vulnerable, which is told from the user's loss L(u) in the batch:

    g(u) = gain * sigmoid(mean L / L(u) - 1),   d = epsilon * g(u) * G / |G|,   G = dL/dv
    loss = L(v) + weight * L(v + d)

g is 1 for the average user (at the default gain of 2), nears 2 for users who are fitted best, and .54 for the worst.

Kept from the paper: the magnitude, the direction and the loss, for users, positives and negatives alike; L(u) is the
sum of the losses of a user's rows in the batch, as in the authors' code. Changed: it is a transform of any training.
The loss is the system's own, its penalty with it, and is computed once for both the magnitude and the direction. A
vector that several users read (a shared negative, a pooled history) has no g of its own: it moves along the gradient in
which each row weighs as its user's g, by as much longer as that is than the plain gradient, at most `gain` times; for a
vector that one user reads this is the rule above, exactly. `memory` and `measure` offer steadier readings of L(u).

Ref: Zhang et al., "Improving the shortest plank: vulnerability-aware adversarial training for robust recommender
system", RecSys 2024, arXiv:2409.17476; APR: arXiv:1808.03908.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tastemaker.contracts import Alternate, Program, Stage, Train, transform
from tastemaker.train.transforms._program import with_stages
from tastemaker.train.transforms.apr import vectors, with_vectors
from tastemaker.types import Dataset, UsageError, setting

Objective = Callable[[Any, Any], Tensor]
LEAST = 1e-12  # a loss, or a length, that counts as none
BUFFERS = ("vat_on", "vat_past")


@transform("vat", title="VAT: shifts as long as a user is vulnerable, against injected users", paper="arXiv:2409.17476")
class VAT:
    """Adds the loss at vectors shifted by the vulnerability of their user to every training stage."""

    @dataclass(frozen=True)
    class Config:
        epsilon: float = setting(
            0.5, "Length of the shift of an average user's vectors.", low=0.0, search=(0.1, 1.0), log=True
        )
        weight: float = setting(1.0, "Weight of the loss at the shifted vectors.", low=0.0, search=(0.5, 2.0), log=True)
        gain: float = setting(2.0, "Magnitude that the best fitted users near.", low=0.0, search=(1.0, 3.0))
        after: int = setting(5, "Epochs of plain training before.", low=0)
        magnitude: Literal["vulnerability", "uniform", "shuffled"] = setting(
            "vulnerability",
            "By each user's vulnerability; or, to tell its worth, the average user's for all, or dealt out at random.",
            choices=("vulnerability", "uniform", "shuffled"),
        )
        measure: Literal["sum", "mean"] = setting(
            "sum", "A user's loss: the sum, or the mean, of the user's rows in the batch.", choices=("sum", "mean")
        )
        memory: float = setting(
            0.0, "Share of a user's loss that is kept from earlier batches; 0: the batch alone.", low=0.0, high=0.999
        )

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, system: Any, program: Program, data: Dataset) -> Program:
        def harder(stage: Stage) -> Stage:
            if isinstance(stage, Alternate):
                return replace(stage, trains=[self._harder(train, system, data.n_users) for train in stage.trains])
            return self._harder(stage, system, data.n_users) if isinstance(stage, Train) else stage

        yield from with_stages(program, harder)
        if not hasattr(system, "vat_on"):
            raise UsageError(f"vat changes training by gradients, and {type(system).__name__} has none")
        for name in BUFFERS:
            if hasattr(system, name):
                delattr(system, name)  # no part of what the system is

    def _harder(self, stage: Train, system: Any, n_users: int) -> Train:
        system.register_buffer("vat_on", torch.tensor(self.config.after == 0), persistent=True)
        if self.config.memory:
            system.register_buffer("vat_past", torch.full((n_users,), -1.0), persistent=True)  # -1: not seen yet
        before = stage.every_epoch

        def every_epoch(epoch: int) -> None:
            if before is not None:
                before(epoch)
            system.vat_on.fill_(epoch >= self.config.after)

        return replace(stage, objective=self._objective(stage.objective, system), every_epoch=every_epoch)

    def _objective(self, plain: Objective, system: Any) -> Objective:
        def objective(read: Any, batch: Any) -> Tensor:
            losses = plain(read, batch)
            if not system.vat_on:
                return losses
            gains = self.gains(losses.detach(), owners_of(batch, losses), system)
            shifts = shifts_of(losses, gains, vectors(read), self.config.epsilon, self.config.gain)
            moved = [value + shift for value, shift in zip(vectors(read), shifts, strict=True)]
            return losses + self.config.weight * plain(with_vectors(read, moved), batch)

        return objective

    @torch.no_grad()
    def gains(self, losses: Tensor, owners: Tensor | None, system: Any = None) -> Tensor:
        """The magnitude of each row [N], from its loss [N] and its user [N] (paper, section 4.2).

        owners: None where the batch names no users: every row is then taken for a user of its own, and not remembered.
        """
        c = self.config
        if c.magnitude == "uniform":
            return torch.full_like(losses, c.gain / 2)
        rows = torch.arange(len(losses), device=losses.device) if owners is None else owners
        users, place = torch.unique(rows, return_inverse=True)
        totals = losses.new_zeros(len(users)).index_add(0, place, losses)
        if c.measure == "mean":
            totals = totals / torch.bincount(place, minlength=len(users))
        totals = totals.clamp_min(LEAST)
        if c.memory and owners is not None:
            past = system.vat_past[users]
            totals = torch.where(past < 0, totals, c.memory * past + (1 - c.memory) * totals)
            system.vat_past[users] = totals
        of_user = c.gain * torch.sigmoid(totals.mean() / totals - 1)
        if c.magnitude == "shuffled":
            of_user = of_user[torch.randperm(len(users), device=of_user.device)]
        return of_user[place]


def owners_of(batch: Any, losses: Tensor) -> Tensor | None:
    """The user of each loss [N], where the batch names them."""
    owners: Tensor | None = getattr(batch, "owners", None)
    if owners is not None and len(owners) != len(losses):
        raise UsageError(f"{len(losses)} losses of a batch need as many owners, got {len(owners)}")
    return owners


def shifts_of(losses: Tensor, gains: Tensor, read: list[Tensor], epsilon: float, most: float) -> list[Tensor]:
    """How each vector moves, without gradient: see the module's text. losses, gains [N]; the last axis is a vector."""
    plain = torch.autograd.grad(losses.sum(), read, retain_graph=True, allow_unused=True)
    weighed = torch.autograd.grad((gains * losses).sum(), read, retain_graph=True, allow_unused=True)
    shifts = []
    for value, slope, heavy in zip(read, plain, weighed, strict=True):
        if slope is None or heavy is None:
            shifts.append(torch.zeros_like(value))
            continue
        length = slope.norm(dim=-1, keepdim=True).clamp_min(LEAST)
        grown = (heavy.norm(dim=-1, keepdim=True) / length).clamp(max=most)
        shifts.append(epsilon * grown * torch.nn.functional.normalize(heavy, dim=-1))
    return shifts
