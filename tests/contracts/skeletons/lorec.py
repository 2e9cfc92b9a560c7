"""LoRec: users who look like frauds count less, and what a language model knows of frauds helps to tell who they are.

A transform of any training whose batches name their users (`owners`). Read: the system's own batches, its item vectors
and its vectors of histories (`Embeds`); titles of items; profiles of simple attacks, known to be false. A calibrator
learns in turn with the system, two rounds an epoch, to tell those from the users there are; every few epochs weights of
users follow from its scores, and the loss of each row is weighed by its user's. Ref: arXiv:2401.17723.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tastemaker.contracts import Alternate, Embeds, Precompute, Program, Stage, Train, Transform, transform
from tastemaker.feeds import RowFeed
from tastemaker.train.transforms._program import with_stages
from tastemaker.types import Dataset, Optimiser, setting


@dataclass(frozen=True)
class Suspects:
    """B users, of the data or known to be false: numbers [B], labels [B]."""

    users: Any
    labels: Any

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: slice) -> Suspects:
        return Suspects(self.users[rows], self.labels[rows])


class Calibrator(nn.Module):
    """Tells from a history's vectors [B, L, 2 D] how like a fraud it is [B], and what a language model says [B, W]."""

    weights: Tensor  # [U], of the loss of each user

    def __init__(self, n_users: int) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.register_buffer("weights", torch.ones(n_users))


@transform("lorec", title="LoRec: users weighed by how like a fraud they are", paper="arXiv:2401.17723",
           learns_from={"items:text"})  # fmt: skip
class LoRec:
    """Weighs the loss of each user."""

    @dataclass(frozen=True)
    class Config:
        encoder: str = setting("tfidf", "What reads the titles: tfidf, or a language model by name or folder.")
        every: int = setting(5, "Epochs between two looks at the weights.", low=1)
        after: int = setting(30, "Epochs before weights count.", low=0)

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, system: Any, program: Program, data: Dataset) -> Program:
        told = yield Precompute(what_is_known, data.histories(), data.items, self.config.encoder)  # vectors of users
        own = list(system.parameters())
        system.add_module("lorec", Calibrator(data.n_users))
        yield from with_stages(program, lambda stage: self.beside(stage, system, own, told, data))
        del system.lorec  # no part of what the system is

    def beside(self, stage: Stage, system: Any, own: list[Any], told: Any, data: Dataset) -> Stage:
        if not isinstance(stage, Train):
            return stage
        judge: Calibrator = system.lorec
        weighed = replace(
            stage,
            objective=lambda read, batch: stage.objective(read, batch) * judge.weights[batch.owners],
            every_epoch=self.calibrate(system, judge),
            parameters=own if stage.parameters is None else stage.parameters,
        )
        rounds: RowFeed[Suspects] = RowFeed(2 * data.n_users, 512, lambda rows, rng: Suspects(rows, rows))
        how = Optimiser("adamw", lr=0.01, weight_decay=5e-4)
        learnt = Train(rounds, self.gather, self.objective, stage.until, how, parameters=list(judge.parameters()))
        return Alternate([weighed, learnt])

    def calibrate(self, system: Embeds, judge: Calibrator) -> Callable[[int], None]:
        """Every few epochs: those scored above the mean count less, the others a little more."""

        def every_epoch(epoch: int) -> None:
            if epoch % self.config.every == 0 and epoch >= self.config.after:
                judge.weights.clamp_(max=1.05)

        return every_epoch

    def gather(self, batch: Suspects) -> Tensor:
        """Vectors of the histories' items and of the histories up to each of them, without gradient [B, L, 2 D]."""
        raise NotImplementedError

    def objective(self, read: Tensor, batch: Suspects) -> Tensor:
        """Of each user [B]: cross-entropy, entropy of those not known to be false, and -cosine with what is known."""
        raise NotImplementedError


def what_is_known(histories: Any, items: Any, encoder: str) -> Any: ...  # [U, W], without each one's last two events


def made(config: LoRec.Config) -> Transform:
    return LoRec(config)
