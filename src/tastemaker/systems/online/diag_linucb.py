"""Diag-LinUCB: a bandit on the edges of a sparse graph from clusters of users to items, fed by additions alone.

Users fall into C clusters; each cluster is linked to the W items nearest to its centre. Somebody belongs to the K
nearest clusters, with weights w that sum to 1. An edge (c, j) keeps two numbers, d = 1 + sum w_c^2 over its trials and
b = sum w_c r, and item j is worth

    sum_c w_c b_cj / d_cj  +  alpha sqrt(sum_c w_c^2 / d_cj)        over the edges of j to the K clusters

That is LinUCB with an arm an item, contexts w, and only the diagonal of each arm's matrix. With K = 1 the matrix is
diagonal, and the two are the same. With more, evidence that clusters share is counted for each of them: an item that is
tried often by people of K clusters in equal parts seems up to K times as good as it is, one that is seldom tried does
not, and alpha has to make up for it. An edge that is not there contributes nothing, no bonus either, so an item without
edges is never explored.

Ref: Yi, Wang, He, Chandrasekaran, Wu, Heldt, Hong, Chen, Chi, "Online matching: a real-time bandit system for
large-scale recommendations", RecSys 2023, arXiv:2307.15893.

Kept: clusters, graph, weights, the two numbers of an edge, the bonus under one root, trials credited with w as it was
served (`Slates.trace`), lists in random order of the best (`spread`), and the entry of new items by their vectors.
Changed: vectors come from any system that has them, or from singular vectors; an edge may begin with the cosine of
centre and item as what it expects (`prior`; 0 as published); and where a list wants more items than edges lead to, it
goes on with the items nearest to the user, all of them scored below those with edges.
Published: lifts in live traffic only, none on public data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.feeds import interaction_matrix
from tastemaker.index import Rules
from tastemaker.index.retriever import ByScores
from tastemaker.index.select import select_listed
from tastemaker.nn.clusters import Clusters, spherical_kmeans
from tastemaker.nn.draws import seeds_of, uniforms
from tastemaker.nn.edges import CLUSTER, Edges, EdgeSums, nearest_items
from tastemaker.nn.outcomes import Counted, as_served, summed, trials
from tastemaker.nn.space import Space, grown, placed, space
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

Floats = NDArray[np.float64]
PURPOSE = 30  # of the streams of numbers that are drawn
BLOCK = 1024  # requests that are looked up at once


@system(
    "diag-linucb",
    family="online",
    title="Diag-LinUCB: online matching on a sparse graph",
    paper="arXiv:2307.15893",
    needs={"history"},
)
class DiagLinUCB:
    """Nominates by clusters, learns two numbers an edge; finds what is new and good within hours, at any size."""

    Delta = EdgeSums

    @dataclass(frozen=True)
    class Config:
        alpha: float = setting(1.0, "How much an edge's uncertainty counts; 0: greedy.", low=0.0, search=(0.0, 2.0))
        n_clusters: int = setting(20, "How many clusters users fall into.", low=1, search=(10, 1000), log=True)
        nearest: int = setting(5, "Clusters that somebody belongs to.", low=1, search=(1, 10))
        temperature: float = setting(0.3, "How evenly somebody belongs to these.", low=1e-3, log=True)
        width: int = setting(200, "Items that a cluster is linked to.", low=1, search=(50, 500), log=True)
        fresh: int = setting(5, "Clusters that a new item is linked to; all, where nothing is known of it.", low=1)
        vectors: SystemRef | None = setting(
            None, "System whose vectors place users and items, fitted first; none: singular vectors of the choices."
        )
        dim: int = setting(16, "Width of the singular vectors.", low=1, high=256)
        prior: float = setting(1.0, "Reward expected at first, times the cosine of centre and item.", low=0.0)
        spread: int = setting(1, "The list is drawn from so many of the best, in random order; 1: best first.", low=1)
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
        self.space = Space(np.zeros((0, 1), np.float32), np.zeros((schema.n_items, 1), np.float32))
        self.clusters = Clusters(np.zeros((1, 1), np.float32), config.nearest, config.temperature)
        self.edges = Edges(np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))

    def program(self, data: Dataset) -> Program:
        c = self.config
        self.space = yield from space(c.vectors, c.dim, data, interaction_matrix(data))
        centres = yield Fit(spherical_kmeans, self.space.users, c.n_clusters, rng="clusters")
        self.clusters = Clusters(centres, c.nearest, c.temperature)
        keys = yield Fit(nearest_items, centres, self.space.items, c.width)
        self.edges = Edges.of(keys, len(centres), *self._begun(keys, self.space.items))
        if c.past:
            self.edges = self.edges.learnt(EdgeSums(*(yield Fit(summed, self, data))))

    def _begun(self, keys: NDArray[np.int64], items: NDArray[np.float32], first: int = 0) -> tuple[Floats, Floats]:
        """d and b of edges that have seen nothing [n]; `items` are the vectors from item `first` on."""
        centres = self.clusters.centres[keys // CLUSTER]
        near = np.einsum("nd,nd->n", centres, items[keys % CLUSTER - first]).astype(np.float64)
        return np.ones(len(keys)), self.config.prior * np.maximum(near, 0.0)

    # -- answering

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """Lists by edges; the trace carries clusters and weights, `logp` is there where the order is drawn."""
        numbers, weights = self.clusters.memberships(self.space.queries(requests))
        most = max(k, self.config.spread)
        if requests.candidates is not None:
            slates = ByScores(self).retrieve(requests, most)
        else:
            parts = [slice(start, start + BLOCK) for start in range(0, max(requests.n, 1), BLOCK)]
            found = [self._nominated(requests.take(p), numbers[p], weights[p], most) for p in parts]
            items, scores = (np.concatenate(side) for side in zip(*found, strict=True))
            short = np.flatnonzero(items[:, -1] < 0)
            if len(short):  # more is wanted than edges lead to
                rest = ByScores(self).retrieve(requests.take(short), most)
                items[short], scores[short] = rest.items, rest.scores
            slates = Slates(items, scores)
        trace = Columns(cluster=numbers, weight=weights)
        if self.config.spread > 1:
            return self._shuffled(slates, seeds_of(requests), k, trace)
        return Slates(slates.items, slates.scores, trace=trace)

    def _nominated(
        self, requests: Requests, numbers: NDArray[np.int32], weights: Floats, k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The k best of the items that edges lead to: cost grows with K * W, whatever the catalogue's size."""
        n_items = self.schema.n_items
        listed, bounds = self.edges.look_up(numbers, weights, self.config.alpha, n_items)
        return select_listed(listed, bounds, k, Rules.from_requests(requests, n_items), n_items)

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        """Upper confidence bounds [B, I], or [B, C] of given items; those without edges come after all with."""
        queries = self.space.queries(requests)
        numbers, weights = self.clusters.memberships(queries)
        edges = self.edges
        scores = (queries @ self.space.items.T).astype(np.float32)
        scores += np.float32(min((edges.earned / edges.seen).min(initial=0.0), 0.0) - 3.0)
        edges.score(numbers, weights, self.config.alpha, scores)
        return scores if items is None else np.take_along_axis(scores, np.maximum(to_numpy(items), 0), 1)

    def _shuffled(self, slates: Slates, seeds: NDArray[np.uint64], k: int, trace: Columns) -> Slates:
        """The first `spread` items in an order of which each is as likely, then the rest, cut at k."""
        among = np.minimum(slates.lengths, self.config.spread)[:, None]
        slot = np.arange(slates.k)
        drawn = uniforms(seeds[:, None], np.arange(slates.k)[None], PURPOSE)
        order = np.argsort(np.where(slot < among, drawn, 1.0 + slot), axis=1, kind="stable")
        items, scores = np.take_along_axis(slates.items, order, 1), np.take_along_axis(slates.scores, order, 1)
        logp = -np.log(np.maximum(among - slot[:k], 1)).astype(np.float32)
        return Slates(items[:, :k], scores[:, :k], logp, trace)

    # -- learning

    def update(self, feedback: Feedback) -> EdgeSums:
        """Sums over the trials of feedback, credited to the clusters and weights of the lists as served."""
        c = self.config
        seen = trials(feedback, self.schema.n_items, whole=c.whole, counted=c.counted)
        served = as_served(feedback, "cluster", "weight")
        if served is None:
            served = list(self.clusters.memberships(self.space.queries(feedback.requests)))
        numbers, weights = (np.asarray(side)[seen.rows] for side in served)
        weights = weights.astype(np.float64)
        keys = numbers.astype(np.int64) * CLUSTER + seen.items[:, None]
        squares, rewards = seen.counts[:, None] * weights**2, seen.rewards[:, None] * weights
        return EdgeSums.of(keys.ravel(), squares.ravel(), rewards.ravel())

    def merge(self, left: EdgeSums, right: EdgeSums) -> EdgeSums:
        return left.merged(right)

    def apply(self, delta: EdgeSums) -> DiagLinUCB:
        return self._with(self.space, self.edges.learnt(delta), self.schema)

    def extend(self, users: Any = None, items: Any = None) -> DiagLinUCB:
        """With newcomers, who stand where their column "vector" says; new items join the nearest clusters' lists."""
        schema, edges = grown(self.schema, users, items), self.edges
        if items is not None and len(items):
            old, centres = self.schema.n_items, self.clusters.centres
            vectors = placed(items, centres.shape[1])
            near = np.argsort(-(vectors @ centres.T), axis=1, kind="stable")
            linked = np.where(vectors.any(axis=1), min(self.config.fresh, len(centres)), len(centres))
            row, place = np.nonzero(np.arange(len(centres)) < linked[:, None])
            fresh = near[row, place].astype(np.int64) * CLUSTER + old + row
            begun = self._begun(fresh, vectors, old)
            numbers = (np.concatenate(pair) for pair in ((edges.seen, begun[0]), (edges.earned, begun[1])))
            edges = Edges.of(np.concatenate([edges.keys, fresh]), len(centres), *numbers)
        return self._with(self.space.extended(users, items), edges, schema)

    def _with(self, known: Space, edges: Edges, schema: Schema) -> DiagLinUCB:
        other = type(self)(self.config, schema)
        other.space, other.clusters, other.edges = known, self.clusters, edges
        return other

    # -- keeping

    def export(self) -> State:
        return {**self.space.export(), **self.clusters.export(), **self.edges.export()}

    def restore(self, state: State) -> None:
        c, n_items = self.config, self.schema.n_items
        self.space = Space.of(state, self.schema.n_users, n_items)
        self.clusters = Clusters.of(state, self.space.items.shape[1], c.nearest, c.temperature)
        self.edges = Edges.restored(state, len(self.clusters.centres), n_items)
