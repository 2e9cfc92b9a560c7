"""RecoWorld: people who say what they miss before they leave, and a system that hears it and learns how to keep them.

`People` is the world: they have tastes, tire of what they saw, and are patient for a while. They see lists; the system
sees what they choose, for how long, and what they say. Read in training: events and a column of items, by which they
are set up, and the vectors of another system, which rank. Which way to rerank comes next is learnt by rewards.
In: sessions. Out: lists. Ref: arXiv:2509.10397.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Acts, Environment, Fit, Program, Train, system
from tastemaker.feeds import interaction_matrix, rollout
from tastemaker.types import (
    Actions,
    Dataset,
    Epochs,
    Feedback,
    Optimiser,
    Requests,
    Schema,
    State,
    SystemRef,
    setting,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Minds:
    """B people: seeds [B], tastes [B, G], what they are tired of [B, G], patience [B], what they asked for [B, G]."""

    seeds: NDArray[np.uint64]
    tastes: NDArray[np.float32]
    tired: NDArray[np.float32]
    patience: NDArray[np.float32]
    wanted: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class People:
    """The world: attributes of items [I, G] and tastes people are drawn from [U, G]."""

    attributes: NDArray[np.float32]
    tastes: NDArray[np.float32]

    @property
    def identity(self) -> str:
        return f"people {self.tastes.shape}"

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, Minds]:
        raise NotImplementedError

    def step(self, state: Minds, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], Minds]:
        """Each item read is an event, its value the seconds; a wish is `text` and an event "asked" without an item, a
        wish that was met an event "heard"; the reward is 1 for whoever stays."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Turns:
    """N turns: what was known [N, W], the way taken [N], by how much it was better than its group [N]."""

    known: Any
    ways: Any
    gains: Any

    def __len__(self) -> int:
        return len(self.ways)

    def take(self, rows: slice) -> Turns:
        return Turns(self.known[rows], self.ways[rows], self.gains[rows])


@dataclass(frozen=True, eq=False)
class Heard:
    """A session: numbers of the items shown, and the wishes that hold [G]."""

    shown: tuple[int, ...]
    wishes: NDArray[np.float32]


@system(
    "recoworld",
    family="agentic",
    title="RecoWorld: reranks by what people say before they leave",
    paper="arXiv:2509.10397",
    learns_from={"events", "items:category|items:categories"},
    needs={"history"},
)
class RecoWorld(nn.Module):
    """Takes one of a few ways to rerank at every turn."""

    State = Heard

    @dataclass(frozen=True)
    class Config:
        base: SystemRef = setting(SystemRef("bpr-mf"), "System whose vectors rank.")
        group: int = setting(8, "Sessions begun alike.", low=2)
        sessions: int = setting(4000, "Sessions an epoch.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.policy = config, nn.Linear(8, 4)

    def program(self, data: Dataset) -> Program:
        base = yield Fit(self.config.base, data)
        self.vectors = yield Fit(item_vectors, base)
        self.people = people_of((yield Fit(tastes_of, interaction_matrix(data), data.items)))
        lived = rollout(self, self.play, episodes=self.config.sessions, batch_size=64)
        yield Train(lived, self.gather, self.objective, Epochs(5), Optimiser(lr=1e-3))

    def play(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64]) -> Turns:
        """A group of sessions of each seed in `people`, played by `begin`, `act` and `observe` to their ends."""
        raise NotImplementedError

    def gather(self, batch: Turns) -> Tensor:  # log-probabilities of the ways taken [N]
        raise NotImplementedError

    def objective(self, logp: Tensor, batch: Turns) -> Tensor:  # [N]
        raise NotImplementedError

    def begin(self, requests: Requests) -> list[Heard]:
        raise NotImplementedError

    def act(self, sessions: list[Heard]) -> tuple[Actions, list[Heard]]:
        raise NotImplementedError

    def observe(self, sessions: list[Heard], feedback: Feedback) -> list[Heard]:
        """What was said (`feedback.text`) becomes wishes, what was shown is not shown again."""
        raise NotImplementedError


def item_vectors(base: Any) -> Any: ...  # [I, D]


def tastes_of(chosen: Any, items: Any) -> Any: ...  # {"attributes": [I, G], "tastes": [U, G]}


def people_of(found: State) -> Environment[Minds]:
    return People(found["attributes"], found["tastes"])


CAN: tuple[type[Acts[Heard]], type[Environment[Minds]]] = (RecoWorld, People)
