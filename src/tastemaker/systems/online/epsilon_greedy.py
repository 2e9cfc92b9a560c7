"""Epsilon-greedy: most requests get what is expected to be best, a share of them a list drawn at random.

Ref: Sutton, Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, section 2.2; with linear arms as the
baseline of Li, Chu, Langford, Schapire, arXiv:1003.0146, section 5.3.

Kept: exploration that depends on nothing. Changed: whole lists are drawn, not single items, so what the log says of a
list's probability is exact: with n items allowed, a list of K is drawn with probability epsilon (n - K)! / n!, and the
best list with 1 - epsilon more. `Slates.logp` says it slot by slot, for off-policy estimates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Program, system
from tastemaker.feeds import interaction_matrix
from tastemaker.index.retriever import ByScores
from tastemaker.nn.arms import Arms, ArmSums
from tastemaker.nn.bandit import Bandit, bandit, restored, with_bandit
from tastemaker.nn.contexts import Contexts, Of
from tastemaker.nn.draws import seeds_of, uniforms
from tastemaker.nn.outcomes import Counted
from tastemaker.nn.space import grown
from tastemaker.types import (
    Array,
    Columns,
    Dataset,
    Feedback,
    Jagged,
    Requests,
    Schema,
    Slates,
    State,
    SystemRef,
    setting,
    to_numpy,
)

PURPOSE = 20  # of the streams of numbers that are drawn
BLOCK = 256  # requests whose allowed items are counted at once


@system(
    "epsilon-greedy",
    family="online",
    title="Epsilon-greedy with linear arms",
    paper="isbn:9780262039246",
    needs={"history"},
)
class EpsilonGreedy:
    """Greedy linear arms; a share of the requests explores, and the log knows how likely each list was."""

    Delta = ArmSums

    @dataclass(frozen=True)
    class Config:
        epsilon: float = setting(
            0.1, "Share of the requests that get a random list.", low=0.0, high=1.0, search=(0.0, 0.3)
        )
        context: Of = setting(
            "vectors",
            "Who asks, as arms see it: a vector and a 1, weights of the nearest clusters, or columns of the context.",
            choices=("vectors", "clusters", "columns"),
        )
        columns: str = setting("", "Context columns of the requests, numbers or vectors, separated by commas.")
        vectors: SystemRef | None = setting(
            None, "System whose vectors place users and items, fitted first; none: singular vectors of the choices."
        )
        dim: int = setting(16, "Width of the singular vectors.", low=1, high=256)
        n_clusters: int = setting(20, "How many clusters users fall into.", low=1)
        nearest: int = setting(5, "Clusters that somebody belongs to.", low=1)
        temperature: float = setting(0.3, "How evenly somebody belongs to these.", low=1e-3, log=True)
        reg: float = setting(1.0, "How many trials what an arm expects at first counts as.", low=1e-6, log=True)
        prior: float = setting(1.0, "Reward expected at first, times the cosine of user and item; 0: none.", low=0.0)
        past: bool = setting(
            False, "Whether the training events are trials already; wants impressions among them, else all seems liked."
        )
        whole: float = setting(1.0, "Value of an event that is a whole reward; larger ones count as it.", low=1e-9)
        counted: Counted = setting(
            "events",
            "What a trial is: every event; or impressions alone, to which other events bring the reward.",
            choices=("events", "impressions"),
        )

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.bandit = Bandit(config, Contexts(), Arms.fresh(np.zeros((schema.n_items, 1)), config.reg))

    def program(self, data: Dataset) -> Program:
        self.bandit = yield from bandit(self.config, data, interaction_matrix(data))

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        """Expected rewards [B, I], or [B, C] of the given items; for requests that explore, random numbers."""
        numbers = None if items is None else np.maximum(to_numpy(items), 0)
        found = self.bandit.arms.means(self.bandit.rows(requests), numbers)
        explores = self._explores(requests)
        if explores.any():
            which = np.arange(self.schema.n_items)[None] if numbers is None else numbers[explores]
            found = np.array(found)
            found[explores] = uniforms(seeds_of(requests)[explores, None], which, PURPOSE + 2)
        return found.astype(np.float32)

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """Lists with the log-probability of each slot after those before it; the trace carries the contexts."""
        slates = ByScores(self).retrieve(requests, k)
        explores = np.flatnonzero(self._explores(requests))
        greedy = slates.items.copy()
        if len(explores):
            sure = type(self)(replace(self.config, epsilon=0.0), self.schema)
            sure.bandit = self.bandit
            greedy[explores] = ByScores(sure).retrieve(requests.take(explores), k).items
        logp = self._logp(slates.items, greedy, self._allowed(requests))
        return Slates(slates.items, slates.scores, logp, Columns(context=self.bandit.rows(requests)))

    def _explores(self, requests: Requests) -> NDArray[np.bool_]:
        """Which requests get a random list [B]."""
        drawn: NDArray[np.bool_] = uniforms(seeds_of(requests)[:, None], np.zeros((1, 1), np.int64), PURPOSE)[:, 0] < (
            self.config.epsilon
        )
        return drawn

    def _logp(
        self, items: NDArray[np.int32], greedy: NDArray[np.int32], allowed: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """log P(the first j + 1 slots) - log P(the first j) of each slot [B, K]; 0 after a list's end."""
        epsilon, slot = self.config.epsilon, np.arange(items.shape[1])
        left = np.maximum(allowed[:, None] - slot, 1)
        best = np.cumprod(items == greedy, axis=1)
        begun = epsilon * np.exp(-np.cumsum(np.log(left), axis=1)) + (1 - epsilon) * best
        ratio = begun / np.column_stack([np.ones(len(items)), begun[:, :-1]])
        return np.where(items >= 0, np.log(ratio), 0.0).astype(np.float32)

    def _allowed(self, requests: Requests) -> NDArray[np.int64]:
        """How many items each request may be answered with [B]."""
        n, found = self.schema.n_items, np.empty(requests.n, dtype=np.int64)
        for start in range(0, requests.n, BLOCK):
            asked = requests.take(slice(start, start + BLOCK))
            free = np.full((asked.n, n), asked.candidates is None)
            for listed, allows in ((asked.candidates, True), (asked.exclude, False)):
                rows = Jagged.empty(asked.n) if listed is None else listed
                known = (rows.values >= 0) & (rows.values < n)
                free[rows.rows[known], rows.values[known]] = allows
            if asked.filter is not None:
                ruled = asked.filter.which >= 0
                free[ruled] &= asked.filter.allowed[asked.filter.which[ruled], :n]
            found[start : start + BLOCK] = free.sum(axis=1)
        return found

    def update(self, feedback: Feedback) -> ArmSums:
        """Sums over the trials of feedback, in the contexts in which they were served."""
        return self.bandit.update(feedback)

    def merge(self, left: ArmSums, right: ArmSums) -> ArmSums:
        return self.bandit.merge(left, right)

    def apply(self, delta: ArmSums) -> EpsilonGreedy:
        return with_bandit(self, self.bandit.learnt(delta))

    def extend(self, users: Any = None, items: Any = None) -> EpsilonGreedy:
        """With newcomers, who stand where their column "vector" says; the arms of new items have seen nothing."""
        return with_bandit(self, self.bandit.extended(users, items), grown(self.schema, users, items))

    def export(self) -> State:
        return self.bandit.export()

    def restore(self, state: State) -> None:
        self.bandit = restored(self.config, self.schema, state)
