"""UDITSR: search and recommendation as one: a user and a demand come near an item, and the demand may be a query.

Read in training: events with "query", the words that led to the choice, missing where there was no search; nothing of
users and items but their numbers, and the words they were often met with. A batch's choices, searched or not, are held
against items drawn. In: a user, and `text`, the query, "" where there is none. Out: scores. Ref: arXiv:2407.00912.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl
import scipy.sparse as sp
from torch import Tensor, nn

from tastemaker.contracts import Learns, Precompute, Program, Scores, Train, system
from tastemaker.feeds import RowFeed, interaction_matrix, uniform
from tastemaker.nn.sparse import bipartite
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Optimiser, Plateau, Requests, Schema, setting


@dataclass(frozen=True)
class Searches:
    """B choices: users, items, negatives [B]; words of queries [N], offsets [B + 1]; a row without words: no search."""

    users: Any
    items: Any
    negatives: Any
    words: Any
    offsets: Any

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owners(self) -> Any:
        return self.users

    def take(self, rows: slice) -> Searches:
        raise NotImplementedError


class Met(NamedTuple):
    """Users, items and what they are held against [B, D]; the demand, asked or guessed, and as it is guessed [B, D]."""

    users: Tensor
    items: Tensor
    others: Tensor
    demands: Tensor
    guessed: Tensor


@system(
    "uditsr",
    family="ranking",
    title="UDITSR: search and recommendation by taste and demand",
    paper="arXiv:2407.00912",
    learns_from={"events", "events.query"},
    needs={"users"},
)
class UDITSR(nn.Module):
    """Scores an item by how near a user moved by a demand comes to it."""

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(100, "Width of the vectors.", low=1, log=True)
        known: float = setting(1.5, "Weight of guessing the demand of those who searched.", low=0.0)
        moved: float = setting(0.2, "Weight of the contrast of user plus demand and items.", low=0.0)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.users, self.things = Table(schema.n_users, config.dim), Table(schema.n_items, config.dim)

    def program(self, data: Dataset) -> Program:
        chosen = interaction_matrix(data)
        self.often = yield Precompute(frequent_words, data.interactions(), users=3, items=10)
        self.graph = yield Precompute(bipartite, chosen)
        yield Train(
            searches(data, self.often, chosen, 256),
            self.gather,
            self.objective,
            Plateau("ndcg@5", patience=10, most=100),
            Optimiser("adamw", lr=1e-4, weight_decay=1e-5),
        )

    def gather(self, batch: Searches) -> Met:
        """Messages pass over the graph, each edge moving them by its demand as the system stands."""
        raise NotImplementedError

    def objective(self, met: Met, batch: Searches) -> Tensor:  # [B]
        raise NotImplementedError

    def score(self, requests: Requests, items: Any = None) -> Tensor:
        """Where `text` says nothing, the demand is guessed for each pair of user and item."""
        raise NotImplementedError


def frequent_words(chosen: pl.DataFrame, users: int, items: int) -> Any: ...  # [U, 3], [I, 10], and the words' numbers


def searches(data: Dataset, often: Any, chosen: sp.csr_array, batch_size: int) -> RowFeed[Searches]:
    drawn = uniform(chosen, 1)
    return RowFeed(chosen.nnz, batch_size, lambda rows, rng: Searches(rows, rows, drawn(rows, rng), rows, rows))


CAN: tuple[type[Learns], type[Scores]] = (UDITSR, UDITSR)
