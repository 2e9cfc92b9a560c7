"""RecSys Challenge 2018, playlist continuation: several ways to recall tracks, then boosted trees put them in order.

A user is a playlist, an item a track. Read in training: events (track, its place in the playlist as time), of playlists
"title" where it is told, of tracks artist and album. In: a history (the seeds) and `text` (the title), either or both.
Out: lists of up to 500, without the seeds. Ref: arXiv:1810.01520; Volkovs et al., RecSys Challenge 2018.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from tastemaker.contracts import Fit, Keeps, Learns, Precompute, Program, Retrieves, Stage, system
from tastemaker.data import holdout
from tastemaker.feeds import interaction_matrix
from tastemaker.nn.inside import kept, revived
from tastemaker.types import Dataset, Requests, Schema, Slates, Split, State, SystemRef, setting


@system(
    "playlists",
    family="classical",
    title="Playlist continuation: recalled in several ways, ordered by trees",
    paper="arXiv:1810.01520",
    learns_from={"events", "events.time", "items.artist", "items.album"},
)
class Playlists:
    """Goes on with a playlist after its title, its first tracks, or some of them."""

    @dataclass(frozen=True)
    class Config:
        factors: SystemRef = setting(SystemRef("ials", {"dim": 200}), "System whose vectors recall tracks.")
        rounds: int = setting(150, "Trees.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema

    def program(self, data: Dataset) -> Program:
        inner = holdout(data, "ratio:0.5")  # what trees learn to find is hidden from all that recalls
        recall = yield from self.recallers(inner.train)
        pairs = yield Fit(candidate_pairs, recall, inner, rng="pairs")
        self.trees: State = {}
        for _ in range(self.config.rounds):
            self.trees = yield Fit(one_more_tree, self.trees, pairs, label="trees", of=self.config.rounds)
        self.factors, *self.told = yield from self.recallers(data)

    def recallers(self, data: Dataset) -> Generator[Stage, Any, tuple[Any, ...]]:
        """What recalls tracks, and what trees are told of them."""
        chosen, titles = interaction_matrix(data, weight="count"), data.users.get_column("title", default=None)
        factors = yield Fit(self.config.factors, data)
        near = yield Fit(neighbours, chosen, damping=0.9)
        named = yield Fit(title_factors, chosen, titles, dim=200, rng="titles")
        return factors, near, named, (yield Precompute(track_facts, chosen, data.items))

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """By trees where there are seeds, by the title where there are none; the most chosen where nothing is told."""
        raise NotImplementedError

    def export(self) -> State:
        return {**kept("factors", self.factors), **self.trees}

    def restore(self, state: State) -> None:
        self.factors = revived("factors", self.config.factors, self.schema, state)


def neighbours(chosen: sp.csr_array, damping: float) -> Any: ...  # rows of length 1 [U, I], counts ** (damping - 1) [I]


def title_factors(chosen: sp.csr_array, titles: pl.Series | None, dim: int, rng: np.random.Generator) -> Any: ...


def track_facts(chosen: sp.csr_array, items: pl.DataFrame) -> Any: ...  # means over the playlists that hold it [I, F]


def candidate_pairs(recall: tuple[Any, ...], inner: Split, rng: np.random.Generator) -> Any: ...  # [P, F], labels [P]


def one_more_tree(trees: Any, pairs: Any) -> Any: ...  # against the pairwise loss within each playlist


CAN: tuple[type[Learns], type[Retrieves], type[Keeps]] = (Playlists, Playlists, Playlists)
