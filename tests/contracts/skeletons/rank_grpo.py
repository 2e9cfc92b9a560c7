"""Rank-GRPO: a small language model that writes a ranked list after a dialogue, rewarded rank by rank.

Read in training: dialogues (turns, and the items that were liked in them), titles of items; a teacher's lists, which
are mapped to the catalogue. First the lists are imitated. Then the system writes a group of lists for each dialogue as
it stands (`play`); each rank's reward is held against the group's at that rank. In: a dialogue. Out: lists, as words
and as items. Ref: arXiv:2510.20150.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Binds, ChatModel, Generates, Precompute, Program, Resources, Retrieves, Train, system
from tastemaker.feeds import RowFeed, rollout
from tastemaker.types import Dataset, Decoding, Epochs, Optimiser, Requests, Samples, Schema, Slates, setting


@dataclass(frozen=True)
class Lists:
    """B lists: words of prompts [P] and of what was written [N], offsets [B + 1] of each; the rank of each word [N]; by
    how much each rank is better than its group's [B, K]; the words' log-probabilities when they were drawn [N]."""

    prompt: Any
    prompt_offsets: Any
    written: Any
    offsets: Any
    ranks: Any = None
    gains: Any = None
    old: Any = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: slice) -> Lists:
        raise NotImplementedError


@system(
    "rank-grpo",
    family="conversational",
    title="Rank-GRPO: lists written after a dialogue, rewarded rank by rank",
    paper="arXiv:2510.20150",
    learns_from={"dialogues", "items.title"},
    needs={"dialogue"},
    uses={"chat"},
)
class RankGRPO(nn.Module):
    """Writes titles, one a line, after a dialogue."""

    @dataclass(frozen=True)
    class Config:
        model: str = setting("", "The language model, by name or folder; none: a small one from scratch.")
        group: int = setting(8, "Lists written for a dialogue.", low=2)
        length: int = setting(20, "Items of a list.", low=1)
        beta: float = setting(1e-3, "Weight of the divergence from the model that imitates.", low=0.0)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.writer = nn.Linear(1, 1)
        self.reference = copy.deepcopy(self.writer).requires_grad_(False)

    def bind(self, resources: Resources) -> None:
        self.teacher = resources.chat

    def program(self, data: Dataset) -> Program:
        assert data.dialogues is not None
        self.talks, own = data.dialogues, list(self.writer.parameters())
        told = yield Precompute(teacher_lists, self.teacher, self.talks, data.items, self.config.length)
        how = Optimiser("adamw", lr=5e-5, warmup=100, schedule="cosine", accumulate=8)
        n = self.talks["dialogue"].n_unique()
        yield Train(imitated(told, n), self.gather, self.imitation, Epochs(10), how, parameters=own)
        self.reference.load_state_dict(self.writer.state_dict())
        lived, slow = rollout(self, self.play, episodes=n, batch_size=4), Optimiser(lr=1e-6, betas=(0.9, 0.99))
        yield Train(lived, self.gather, self.objective, Epochs(2), slow, parameters=own)

    def play(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64]) -> Lists:
        """A group of lists for each of these dialogues, drawn by `generate`; an item found counts once, at its rank."""
        raise NotImplementedError

    def gather(self, batch: Lists) -> Tensor:
        """Log-probabilities of the written words as the system stands, and under the reference [N, 2]."""
        raise NotImplementedError

    def imitation(self, logp: Tensor, batch: Lists) -> Tensor:  # [B]
        raise NotImplementedError

    def objective(self, logp: Tensor, batch: Lists) -> Tensor:
        """Of each list [B]: over ranks the mean of gain times clipped ratio, the geometric mean of its words'."""
        raise NotImplementedError

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        """n lists a request: `text`, and `slates` of the items that are named in it, with `logp` of each slot."""
        raise NotImplementedError

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        raise NotImplementedError

    def retrieve(self, requests: Requests, k: int) -> Slates:
        raise NotImplementedError


def teacher_lists(
    chat: ChatModel, talks: pl.DataFrame, items: pl.DataFrame, k: int
) -> Any: ...  # mapped, judged, moved


def imitated(told: Any, n: int) -> RowFeed[Lists]:
    return RowFeed(n, 12, lambda rows, rng: Lists(rows, rows, rows, rows))


CAN: tuple[type[Generates], type[Retrieves], type[Binds]] = (RankGRPO, RankGRPO, RankGRPO)
