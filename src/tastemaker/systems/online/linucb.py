"""LinUCB: an optimistic ridge regression for each item, from contexts to rewards, that learns while it serves.

A list is ordered by mean + alpha * width: what an arm expects, and how little it knows of somebody like this.

Ref: Li, Chu, Langford, Schapire, "A contextual-bandit approach to personalized news article recommendation", WWW 2010,
arXiv:1003.0146, algorithm 1 (disjoint linear models).

Kept: the arms, their sums and the bonus. Changed: K items are served where the paper shows one, all of them being
trials; contexts may be vectors of any system, a 1 beside them; and an arm may begin with the cosine of user and item as
what it expects (`prior`; 0 as published), so that the first list is that of the vectors. Memory grows with items times
the square of the context's width: `diag-linucb` is for large catalogues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Program, system
from tastemaker.feeds import interaction_matrix
from tastemaker.index.retriever import ByScores
from tastemaker.nn.arms import Arms, ArmSums
from tastemaker.nn.bandit import Bandit, bandit, restored, with_bandit
from tastemaker.nn.contexts import Contexts, Of
from tastemaker.nn.outcomes import Counted
from tastemaker.nn.space import grown
from tastemaker.types import (
    Array,
    Columns,
    Dataset,
    Feedback,
    Requests,
    Schema,
    Slates,
    State,
    SystemRef,
    setting,
    to_numpy,
)


@system(
    "linucb",
    family="online",
    title="LinUCB: optimistic linear arms",
    paper="arXiv:1003.0146",
    needs={"history"},
)
class LinUCB:
    """A ridge regression an item, with all of its covariance; alpha says how much is explored."""

    Delta = ArmSums

    @dataclass(frozen=True)
    class Config:
        alpha: float = setting(1.0, "How much an arm's uncertainty counts; 0: greedy.", low=0.0, search=(0.0, 2.0))
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
        """Upper confidence bounds [B, I], or [B, C] of the given items."""
        numbers = None if items is None else np.maximum(to_numpy(items), 0)
        rows = self.bandit.rows(requests)
        bounds = self.bandit.arms.means(rows, numbers)
        if self.config.alpha:
            bounds = bounds + self.config.alpha * self.bandit.arms.widths(rows, numbers)
        return bounds.astype(np.float32)

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The items of the highest bounds; the trace carries the contexts."""
        slates = ByScores(self).retrieve(requests, k)
        return Slates(slates.items, slates.scores, trace=Columns(context=self.bandit.rows(requests)))

    def update(self, feedback: Feedback) -> ArmSums:
        """Sums over the trials of feedback, in the contexts in which they were served."""
        return self.bandit.update(feedback)

    def merge(self, left: ArmSums, right: ArmSums) -> ArmSums:
        return self.bandit.merge(left, right)

    def apply(self, delta: ArmSums) -> LinUCB:
        return with_bandit(self, self.bandit.learnt(delta))

    def extend(self, users: Any = None, items: Any = None) -> LinUCB:
        """With newcomers, who stand where their column "vector" says; the arms of new items have seen nothing."""
        return with_bandit(self, self.bandit.extended(users, items), grown(self.schema, users, items))

    def export(self) -> State:
        return self.bandit.export()

    def restore(self, state: State) -> None:
        self.bandit = restored(self.config, self.schema, state)
