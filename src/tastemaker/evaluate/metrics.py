"""Accuracy of ranked lists, one value a request, from where in each list the right answers stand.

Every metric below is a sum over hits, so its cost grows with the hits, not with users x K or users x items.
B requests, N targets, H hits, I items, K cut-off; ranks count from 0, the formulas' positions j from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.types import Jagged

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What a metric is called, what it means, and what it takes.

    better: the direction that is better, or None where neither is
    of: "request" has a value for every request, "catalogue" one for all lists together
    needs: "lists", "popularity" (training events), "diversity" (item columns or vectors), "scores" (of all items)
    usual: computed unless metrics are named
    """

    name: str
    title: str
    means: str
    better: Literal["high", "low"] | None = "high"
    of: Literal["request", "catalogue"] = "request"
    needs: Literal["lists", "popularity", "diversity", "scores"] = "lists"
    usual: bool = True
    accuracy: bool = False

    @property
    def at_k(self) -> bool:
        return self.needs != "scores"


@dataclass(frozen=True, eq=False)
class Hits:
    """Right answers found in the lists of B requests.

    Shapes:
        targets: [B] number of right answers, whether or not the system knows them
        rows, ranks, gains: [H] request, place in its list and worth of each hit; sorted by request, then rank
        ideal: worth of all right answers, highest first (Jagged of B rows), or None where all worths are 1
    """

    targets: NDArray[np.int64]
    rows: NDArray[np.int64]
    ranks: NDArray[np.int64]
    gains: Floats
    ideal: Jagged[Floats] | None = None

    @classmethod
    def of(
        cls,
        places: NDArray[np.int32],
        targets: Jagged[Any],
        gains: Jagged[Any] | None = None,
        keep: NDArray[np.bool_] | None = None,
    ) -> Hits:
        """Hits from the place of each target in its list.

        Shapes: places [N] (-1: not in the list); keep [N] leaves only some targets as right answers.
        """
        rows, worth = targets.rows, None if gains is None else gains.values.astype(np.float64)
        if keep is not None:
            rows, places = rows[keep], places[keep]
            worth = None if worth is None else worth[keep]
        counts = np.bincount(rows, minlength=len(targets))
        found = np.flatnonzero(places >= 0)
        found = found[np.lexsort((places[found], rows[found]))]
        ideal = None
        if worth is not None:
            order = np.lexsort((-worth, rows))
            ideal = Jagged(worth[order], np.concatenate([[0], np.cumsum(counts)]))
        return cls(
            counts,
            rows[found],
            places[found].astype(np.int64),
            np.ones(len(found)) if worth is None else worth[found],
            ideal,
        )

    @cached_property
    def ordinals(self) -> NDArray[np.int64]:
        """Which hit of its request each hit is, counted from 1 [H]."""
        starts = np.flatnonzero(np.diff(self.rows, prepend=-1))
        lengths = np.diff(starts, append=len(self.rows))
        return np.arange(1, len(self.rows) + 1) - np.repeat(starts, lengths)

    def total(self, k: int, worth: NDArray[Any] | None = None) -> Floats:
        """Sum over each request's hits in the first k places of `worth` [H]; without it, their number [B]."""
        inside = self.ranks < k
        weights = None if worth is None else worth[inside]
        return np.bincount(self.rows[inside], weights, minlength=len(self.targets)).astype(np.float64)


def ratio(above: NDArray[Any] | float, below: NDArray[Any] | float) -> Floats:
    """above / below, NaN where below is 0: undefined, and left out of means."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    defined: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
    return defined


def discount(ranks: NDArray[Any]) -> Floats:
    """1 / log2(j + 1) for position j = rank + 1."""
    return np.asarray(1.0 / np.log2(ranks + 2.0))


def recall(hits: Hits, k: int) -> Floats:
    return ratio(hits.total(k), hits.targets)


def recall_capped(hits: Hits, k: int) -> Floats:
    return ratio(hits.total(k), np.minimum(hits.targets, k))


def precision(hits: Hits, k: int) -> Floats:
    return _defined(hits, hits.total(k) / k)


def f1(hits: Hits, k: int) -> Floats:
    # 2PR/(P+R) with P = h/k and R = h/|targets| is 2h/(k+|targets|), which needs no case for h = 0
    return _defined(hits, 2 * hits.total(k) / (k + hits.targets))


def hit_rate(hits: Hits, k: int) -> Floats:
    return _defined(hits, (hits.total(k) > 0).astype(np.float64))


def mrr(hits: Hits, k: int) -> Floats:
    return _defined(hits, hits.total(k, (hits.ordinals == 1) / (hits.ranks + 1.0)))


def average_precision(hits: Hits, k: int) -> Floats:
    return ratio(_precision_at_hits(hits, k), hits.targets)


def average_precision_capped(hits: Hits, k: int) -> Floats:
    return ratio(_precision_at_hits(hits, k), np.minimum(hits.targets, k))


def mean_precision(hits: Hits, k: int) -> Floats:
    # a hit at position p adds 1/n to Precision@n for every n from p to k: harmonic numbers H_k - H_(p-1)
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, k + 1))])
    return _defined(hits, hits.total(k, harmonic[k] - harmonic[np.minimum(hits.ranks, k)]) / k)


def mean_recall(hits: Hits, k: int) -> Floats:
    return ratio(hits.total(k, np.maximum(k - hits.ranks, 0)) / k, hits.targets)


def ndcg(hits: Hits, k: int) -> Floats:
    return _ndcg(hits, k, lambda worth: worth)


def ndcg_exp(hits: Hits, k: int) -> Floats:
    return _ndcg(hits, k, lambda worth: 2.0 ** (worth + 1) - 1)


def ndcg_binary(hits: Hits, k: int) -> Floats:
    return _ndcg(hits, k, np.ones_like)


def _ndcg(hits: Hits, k: int, transform: Callable[[Floats], Floats]) -> Floats:
    gained = hits.total(k, transform(hits.gains) * discount(hits.ranks))
    if hits.ideal is None:
        table = np.concatenate([[0.0], np.cumsum(discount(np.arange(k)))]) * transform(np.ones(1))[0]
        return ratio(gained, table[np.minimum(hits.targets, k)])
    within = np.arange(len(hits.ideal.values)) - np.repeat(hits.ideal.offsets[:-1], hits.ideal.lengths)
    best = within < k
    worth = transform(hits.ideal.values[best]) * discount(within[best])
    ideal = np.bincount(hits.ideal.rows[best], worth, minlength=len(hits.targets))
    return _defined(hits, np.nan_to_num(ratio(gained, ideal)))  # all answers worth 0: nothing to gain


def _precision_at_hits(hits: Hits, k: int) -> Floats:
    return hits.total(k, hits.ordinals / (hits.ranks + 1.0))


def _defined(hits: Hits, values: Floats) -> Floats:
    return np.where(hits.targets > 0, values, np.nan)


def _about(
    function: Callable[[Hits, int], Floats], title: str, means: str, *, usual: bool = True, name: str = ""
) -> Any:
    return Metric(name or function.__name__, title, means, usual=usual, accuracy=True), function


_TABLE = [
    _about(recall, "Recall", "hits in the first K / all targets of the request"),
    _about(recall_capped, "Recall, capped", "hits in the first K / min(K, targets): 1 can be reached", usual=False),
    _about(precision, "Precision", "hits in the first K / K, also where the list is shorter"),
    _about(f1, "F1", "harmonic mean of the request's Precision and Recall = 2 hits / (K + targets)"),
    _about(hit_rate, "Hit rate", "1 where the first K hold at least one target, else 0"),
    _about(
        ndcg,
        "NDCG",
        "sum of gain / log2(j + 1) over hits at position j <= K, divided by the same sum for the best order of "
        "the targets, cut at min(K, targets); the gain is the target's worth, 1 where none is given",
    ),
    _about(ndcg_binary, "NDCG, binary", "NDCG with every target worth 1", usual=False),
    _about(ndcg_exp, "NDCG, exponential", "NDCG with gain 2^(worth + 1) - 1, for ratings as worths", usual=False),
    _about(mrr, "MRR", "1 / position of the first hit in the first K, 0 without a hit"),
    _about(
        average_precision,
        "MAP",
        "sum of Precision@j over positions j <= K that are hits, / all targets (as trec_eval has it)",
        name="map",
    ),
    _about(
        average_precision_capped,
        "MAP, capped",
        "as MAP, / min(K, targets): 1 can be reached",
        name="map_capped",
        usual=False,
    ),
    _about(
        mean_precision,
        "Mean precision",
        "mean of Precision@n over all n = 1..K, hit or not (what Elliot calls MAP)",
        usual=False,
    ),
    _about(mean_recall, "Mean recall", "mean of Recall@n over all n = 1..K (what Elliot calls MAR)", usual=False),
]
ACCURACY: Mapping[str, Metric] = {metric.name: metric for metric, _ in _TABLE}
FUNCTIONS: Mapping[str, Callable[[Hits, int], Floats]] = {metric.name: function for metric, function in _TABLE}


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def locate(
    items: NDArray[np.int32],  # [B, K]
    offsets: NDArray[np.int64],  # [B + 1]
    targets: NDArray[np.int32],  # [N]
    excluded_offsets: NDArray[np.int64],  # [B + 1]
    excluded: NDArray[np.int32],
    n_items: int,
    places: NDArray[np.int32],  # [N], written: rank of each target, -1 where the list lacks it
) -> tuple[int, int]:
    """Where each target stands in its request's list; returns how many places repeat an item, or hold an excluded one.

    An item that a list repeats counts at its first place only.
    """
    owner = np.full(n_items, -1, np.int32)  # which row put the item here last, and at which rank
    rank = np.empty(n_items, np.int32)
    repeated, forbidden = 0, 0
    for row in range(len(items)):
        for j in range(items.shape[1]):
            item = items[row, j]
            if item < 0 or item >= n_items:
                continue
            if owner[item] == row:
                repeated += 1
            else:
                owner[item] = row
                rank[item] = j
        for n in range(offsets[row], offsets[row + 1]):
            item = targets[n]
            places[n] = rank[item] if 0 <= item < n_items and owner[item] == row else -1
        for n in range(excluded_offsets[row], excluded_offsets[row + 1]):
            item = excluded[n]
            if 0 <= item < n_items and owner[item] == row:
                forbidden += 1
                owner[item] = -1  # an item excluded twice is one fault
    return repeated, forbidden
