"""Thompson sampling with linear arms: each request is answered by what the items might well be worth.

Every request draws the weights of all arms from what is believed of them, N(A^-1 b, alpha^2 A^-1), and is given the
items that are best under the draw. Arms are independent and a request sees one context, so drawing <x, weights> from
N(<x, A^-1 b>, alpha^2 x' A^-1 x) for each item is the same draw at a fraction of the cost.

Ref: Agrawal, Goyal, "Thompson sampling for contextual bandits with linear payoffs", ICML 2013, arXiv:1209.3352,
algorithm 1; the disjoint arms are those of `linucb`, with what was changed there.

Kept: the posterior and its scale. Changed: an arm an item, where the paper has one for all. Draws follow from the
request's seed and the item, so that a request is answered the same alone and in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

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
    Requests,
    Schema,
    Slates,
    State,
    SystemRef,
    setting,
    to_numpy,
)

PURPOSE = 10  # of the streams of numbers that are drawn


@system(
    "thompson",
    family="online",
    title="Thompson sampling with linear arms",
    paper="arXiv:1209.3352",
    needs={"history"},
)
class Thompson:
    """Explores as often as an item may be the best, as far as is known."""

    Delta = ArmSums

    @dataclass(frozen=True)
    class Config:
        alpha: float = setting(
            0.1, "Scale of the draws, in widths of what is believed; 0: greedy.", low=0.0, search=(0.0, 2.0)
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
        """Rewards as drawn [B, I], or [B, C] of the given items."""
        numbers = None if items is None else np.maximum(to_numpy(items), 0)
        rows = self.bandit.rows(requests)
        worth = self.bandit.arms.means(rows, numbers)
        if self.config.alpha:
            which = np.arange(self.schema.n_items)[None] if numbers is None else numbers
            draws = special.ndtri(uniforms(seeds_of(requests)[:, None], which, PURPOSE))
            worth = worth + self.config.alpha * self.bandit.arms.widths(rows, numbers) * draws
        return worth.astype(np.float32)

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The items that are best as drawn; the trace carries the contexts."""
        slates = ByScores(self).retrieve(requests, k)
        return Slates(slates.items, slates.scores, trace=Columns(context=self.bandit.rows(requests)))

    def update(self, feedback: Feedback) -> ArmSums:
        """Sums over the trials of feedback, in the contexts in which they were served."""
        return self.bandit.update(feedback)

    def merge(self, left: ArmSums, right: ArmSums) -> ArmSums:
        return self.bandit.merge(left, right)

    def apply(self, delta: ArmSums) -> Thompson:
        return with_bandit(self, self.bandit.learnt(delta))

    def extend(self, users: Any = None, items: Any = None) -> Thompson:
        """With newcomers, who stand where their column "vector" says; the arms of new items have seen nothing."""
        return with_bandit(self, self.bandit.extended(users, items), grown(self.schema, users, items))

    def export(self) -> State:
        return self.bandit.export()

    def restore(self, state: State) -> None:
        self.bandit = restored(self.config, self.schema, state)
