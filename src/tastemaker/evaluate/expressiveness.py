"""What a system can tell apart in the graph of users and items: graphs, nodes, and how close a user is to an item.

Three measures, as the paper below sets them beside each other:

graphs   Two graphs that colour refinement (the Weisfeiler-Leman test) gives the same colours, no message-passing
         network without node ids can tell apart: `look_alike`.
nodes    Nodes of different colours are not automorphic, and a network without node ids gives nodes of one colour one
         vector. Random ids tell nearly all nodes apart: `nodes_told_apart` puts both numbers side by side.
links    A user and an item are the closer the more walks of length k lead from one to the other. A system is perfect
         in this if its scores order the items of every user as the walks do: `closeness` says how near it comes.

Ref: Cai, Xia, Ren, Huang, "How expressive are graph neural networks in recommendation?", CIKM 2023, arXiv:2308.11127.

U users, I items, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.contracts import Embeds, capabilities
from tastemaker.evaluate.report import Figure
from tastemaker.evaluate.statistics import bootstrap
from tastemaker.evaluate.subject import Subject
from tastemaker.feeds import interaction_matrix
from tastemaker.index.retriever import QUERIES, score_blocks
from tastemaker.types import (
    CapabilityError,
    Dataset,
    Requests,
    Split,
    UsageError,
    generator,
    mix,
    progress,
    request_seeds,
    to_numpy,
)

Ints = NDArray[np.int64]
DIGITS = 5  # decimals, of the largest number, to which vectors must differ to be two


# -- links


@dataclass(frozen=True, eq=False)
class Closeness:
    """How far a system orders items as walks do: Kendall's tau-b, 1 where it agrees and near 0 where it does not.

    tau: mean over the users, with an interval
    hops: length of the walks
    undefined: users left out, since all their items are equally close

    Shapes: users [n], taus [n], sorted by user.
    """

    tau: Figure
    hops: int
    undefined: int
    users: NDArray[np.int32]
    taus: NDArray[np.float64]


def closeness(
    system: Any,
    data: Dataset | Split,
    *,
    n_users: int = 500,
    hops: int = 3,
    seed: int = 0,
    budget_mb: float = 256,
) -> Closeness:
    """Mean tau-b between a system's scores and the numbers of walks, over the new items each user can reach.

    For a user it compares items that walks of length `hops` reach and the user did not choose. A user all of whose
    items get one score has tau 0.

    Args:
        system: a bundle or system that gives scores or vectors.
        data: the events it was fitted on; of a split, the training part.
        n_users: how many users are drawn, of those who chose anything.
        hops: length of the walks, odd.
        seed: for the draw, for systems that draw, and for the interval.

    Raises:
        CapabilityError: the system gives neither vectors nor scores.
    """
    from scipy.stats import kendalltau

    if hops < 1 or hops % 2 == 0:
        raise UsageError(f"walks from a user end at an item after an odd number of hops, got {hops}")
    subject = Subject.of(system, 0, name=None, tuning=None, budget_mb=budget_mb)
    learnt = data.train if isinstance(data, Split) else data
    matrix = interaction_matrix(learnt)
    active = np.flatnonzero(np.diff(matrix.indptr))
    users = np.sort(generator(seed, "closeness").permutation(active)[:n_users])
    taus = np.full(len(users), np.nan)
    requests = _requests(subject, learnt, users, seed)
    with progress("closeness", len(users)) as advance:
        for part, scores in score_blocks(subject.system, requests, budget_mb=budget_mb):
            reached, chosen = walks(matrix, users[part], hops), matrix[users[part]]
            for row, own in enumerate(scores):
                near = np.zeros(max(matrix.shape[1], len(own)))
                near[_columns(reached, row)] = reached.data[reached.indptr[row] : reached.indptr[row + 1]]
                near[_columns(chosen, row)] = 0
                items = np.flatnonzero(near[: len(own)])
                if len(items) > 1 and np.ptp(near[items]) > 0:
                    tau = kendalltau(own[items], near[items], method="asymptotic").statistic
                    taus[part.start + row] = 0.0 if np.isnan(tau) else tau
            advance(len(scores))
    told = ~np.isnan(taus)
    low, high = bootstrap(taus[told], seed=seed)
    mean = float(taus[told].mean()) if told.any() else float("nan")
    figure = Figure(mean, float(low[0]), float(high[0]), int(told.sum()))
    return Closeness(figure, hops, int((~told).sum()), users[told].astype(np.int32), taus[told])


def walks(matrix: sp.csr_array, users: Ints, hops: int = 3) -> sp.csr_array:
    """Numbers of walks of length `hops`, odd, from users to items [len(users), I]; matrix [U, I] of ones."""
    whole = matrix.astype(np.float64)
    back, found = whole.T.tocsr(), whole[users]
    for _ in range(hops // 2):
        found = found @ back @ whole
    return sp.csr_array(found)


# -- nodes


@dataclass(frozen=True, eq=False)
class Colours:
    """The stable colouring of a graph of users and items; no user has the colour of an item.

    Shapes: users [U], items [I], colours numbered from 0. rounds: how many refinements changed anything.
    """

    users: Ints
    items: Ints
    rounds: int

    @property
    def n_users(self) -> int:
        """Different colours of users."""
        return len(np.unique(self.users))

    @property
    def n_items(self) -> int:
        """Different colours of items."""
        return len(np.unique(self.items))


def refine(matrix: sp.csr_array, *, rounds: int | None = None) -> Colours:
    """Colour refinement: a node's next colour is its colour and those of its neighbours, until no more are told apart.

    Nodes of one colour may still differ; nodes of two colours surely do. Sets of colours are compared by a 64-bit
    sum, which takes two different ones for equal with a chance of 2^-64.

    Args:
        matrix: who chose what [U, I]; entries do not count, only where they stand.
        rounds: most refinements, which is what a network of so many layers sees; None: until nothing changes.

    Ref: Weisfeiler, Leman, 1968; Morris et al., "Weisfeiler and Leman go neural", arXiv:1810.02244, section 3.
    """
    sides = matrix, sp.csr_array(matrix.T.tocsr())
    colours = [np.full(side.shape[0], number, dtype=np.int64) for number, side in enumerate(sides)]
    done = 0
    while rounds is None or done < rounds:
        finer = [_recolour(colours[n], sides[n], colours[1 - n]) for n in (0, 1)]
        shift = int(finer[0].max(initial=-1)) + 1
        finer[1] += shift
        if all(len(np.unique(new)) == len(np.unique(old)) for new, old in zip(finer, colours, strict=True)):
            break
        colours, done = finer, done + 1
    return Colours(colours[0], colours[1], done)


def _recolour(own: Ints, side: sp.csr_array, others: Ints) -> Ints:
    """Numbers of the different pairs of own colour and neighbours' colours."""
    names = mix(others)[side.indices]
    before = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(names, dtype=np.uint64)])
    around = before[side.indptr[1:]] - before[side.indptr[:-1]]  # sums modulo 2^64
    pairs = np.stack([own.astype(np.uint64), around], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


@dataclass(frozen=True)
class NodesToldApart:
    """Different vectors a system has, and different colours the graph has, for users and for items."""

    n_users: int
    n_items: int
    users: int
    items: int
    user_colours: int
    item_colours: int


def nodes_told_apart(system: Any, data: Dataset | Split) -> NodesToldApart:
    """How many nodes a system of vectors tells apart, and how many can be told apart without node ids.

    Raises:
        CapabilityError: the system gives no vectors.
    """
    subject = Subject.of(system, 0, name=None, tuning=None, budget_mb=256)
    if not isinstance(subject.system, Embeds):
        can = ", ".join(capabilities(subject.system))
        raise CapabilityError(f"nodes are told apart by their vectors, and {subject.label} has none: it can do {can}")
    learnt = data.train if isinstance(data, Split) else data
    requests = _requests(subject, learnt, np.arange(learnt.n_users), 0)
    edges = [*range(0, requests.n, QUERIES), requests.n]
    blocks = [to_numpy(subject.system.queries(requests.take(slice(a, b)))) for a, b in pairwise(edges)]
    items = to_numpy(subject.system.items())
    colours = refine(interaction_matrix(learnt))
    return NodesToldApart(
        learnt.n_users,
        learnt.n_items,
        users=_distinct(np.concatenate(blocks)),
        items=_distinct(items),
        user_colours=colours.n_users,
        item_colours=colours.n_items,
    )


def _distinct(vectors: NDArray[Any]) -> int:
    """How many rows differ by more than rounding."""
    scale = np.abs(vectors).max(initial=0.0) or 1.0
    return len(np.unique(np.round(vectors / scale, DIGITS), axis=0))


# -- graphs


def look_alike(left: sp.csr_array, right: sp.csr_array) -> bool:
    """Whether colour refinement cannot tell two graphs of users and items apart; matrices [U, I] and [U', I']."""
    if left.shape != right.shape or left.nnz != right.nnz:
        return False
    both = refine(sp.csr_array(sp.block_diag([left, right], format="csr")))
    n_users, n_items = left.shape
    return all(
        np.array_equal(np.sort(colours[:n]), np.sort(colours[n:]))
        for colours, n in ((both.users, n_users), (both.items, n_items))
    )


def _requests(subject: Subject, data: Dataset, users: Ints, seed: int) -> Requests:
    """What the users chose, as the system may be asked it."""
    columns = tuple(c for c in ("item", "time", "value") if c in data.events.columns)
    history, seeds = data.histories(columns).take(users), request_seeds(len(users), seed)
    asked = Requests(len(users), users=users.astype(np.int32), history=history, seeds=seeds)
    return subject.known(asked, data.n_items if subject.n_items is None else subject.n_items)


def _columns(matrix: sp.csr_array, row: int) -> NDArray[Any]:
    columns: NDArray[Any] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return columns


__all__ = [
    "Closeness",
    "Colours",
    "NodesToldApart",
    "closeness",
    "look_alike",
    "nodes_told_apart",
    "refine",
    "walks",
]
