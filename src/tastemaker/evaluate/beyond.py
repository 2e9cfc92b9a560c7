"""Beyond accuracy: what the lists do to the catalogue, to popular and rare items, and to variety.

B requests, I items, K cut-off, N targets, H hits; c_i: how often item i is recommended, N_c = sum of c_i.
Ref: formulas as checked number by number against "Evaluating ChatGPT as a Recommender System: A Rigorous
Approach" (arXiv:2309.03613) and Elliot; where another library means something else by a name, the text says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from tastemaker.evaluate.metrics import Floats, Hits, Metric, discount, ratio
from tastemaker.types import Dataset, Jagged, NotFound, Requests, UsageError, nearest

HEAD_SHARE = 0.8
"""The head: most popular items, taken until they hold this share of the training interactions."""

BEYOND: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "coverage",
            "Coverage",
            "distinct items in the first K of all lists / items of the catalogue",
            "high",
            "catalogue",
        ),
        Metric(
            "gini",
            "Gini evenness",
            "1 - Gini index of how often each catalogue item is recommended: 1 is even, 0 is one item for all "
            "(Elliot's sense; libraries that report the plain index give 1 minus this)",
            "high",
            "catalogue",
        ),
        Metric(
            "entropy",
            "Entropy",
            "bits: mean over lists of the mean over their items of -log2(c_i / N_c); the Shannon entropy of the "
            "recommended items where all lists are equally long",
            "high",
            "catalogue",
        ),
        Metric(
            "epc",
            "EPC",
            "expected popularity complement: sum over hits of (1 - popularity / training users) / log2(j + 1), "
            "divided by the sum of 1 / log2(j + 1) over the list",
            "high",
            needs="popularity",
        ),
        Metric(
            "efd",
            "EFD",
            "expected free discovery: as EPC with -log2(popularity / training interactions), popularity 0 as 1",
            "high",
            needs="popularity",
            usual=False,
        ),
        Metric(
            "self_information",
            "Self-information",
            "bits: mean over the list of log2(training users / popularity), popularity 0 as 1 (Zhou et al. 2010)",
            None,
            needs="popularity",
        ),
        Metric("arp", "ARP", "mean training popularity (users) of the items of the list", None, needs="popularity"),
        Metric("aclt", "ACLT", "number of long-tail items in the list", None, needs="popularity"),
        Metric("aplt", "APLT", "long-tail items in the list / length of the list", None, needs="popularity"),
        Metric(
            "popreo",
            "PopREO",
            "standard deviation / mean over {head, tail} of hits in the group / targets in the group: 0 is fair, "
            "1 gives everything to one group",
            "low",
            "catalogue",
            needs="popularity",
        ),
        Metric(
            "poprsp",
            "PopRSP",
            "standard deviation / mean over {head, tail} of recommended in the group / (request, item of the group) "
            "pairs not excluded: 0 is fair, 1 gives everything to one group",
            "low",
            "catalogue",
            needs="popularity",
        ),
        Metric(
            "serendipity",
            "Serendipity",
            "hits that are not among the K most popular items the user has not seen, / K (Ge et al. 2010, the "
            "popularity list as the expected one)",
            "high",
            needs="popularity",
        ),
        Metric(
            "diversity",
            "Diversity",
            "intra-list diversity: mean over pairs of items in the list of 1 - cosine of their attributes; undefined "
            "for lists of fewer than 2",
            None,
            needs="diversity",
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Popularity:
    """What the training part says of the items.

    Shapes:
        counts: [I] training users of each item
        order: [I] place of each item when sorted by popularity, 0 the most popular
        tail: [I] whether the item is outside the head
    """

    counts: NDArray[np.int64]
    order: NDArray[np.int64]
    tail: NDArray[np.bool_]
    n_users: int

    @classmethod
    def of(cls, train: Dataset) -> Popularity:
        """Popularity in the interactions of `train`; a user counts once an item."""
        events = train.interactions()
        users, items = events["user"].to_numpy(), events["item"].to_numpy()
        counts = _distinct_users(users, items, np.zeros(train.n_items, np.int64))
        by_count = np.argsort(-counts, kind="stable")
        before = np.cumsum(counts[by_count]) - counts[by_count]
        tail = np.empty(len(counts), np.bool_)
        tail[by_count] = before >= HEAD_SHARE * counts.sum()
        order = np.empty(len(counts), np.int64)
        order[by_count] = np.arange(len(counts))
        return cls(counts, order, tail, int(np.count_nonzero(np.bincount(users, minlength=1))))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distinct_users(users: NDArray[Any], items: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Users of each item; events come sorted by user, so a repeat is seen by the item's last user."""
    last = np.full(len(counts), -1, np.int64)
    for n in range(len(users)):
        if last[items[n]] != users[n]:
            last[items[n]] = users[n]
            counts[items[n]] += 1
    return counts


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _expected(
    order: NDArray[np.int64],
    tail: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    excluded_offsets: NDArray[np.int64],
    excluded: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank of each target [N] among its user's unseen items by popularity, and excluded pairs [head, tail]."""
    n_items = len(order)
    expected = np.full(len(targets), n_items, np.int64)
    taken = np.zeros(2, np.int64)
    owner = np.full(n_items, -1, np.int32)  # an item excluded twice counts once
    for row in range(len(offsets) - 1):
        for n in range(offsets[row], offsets[row + 1]):
            if 0 <= targets[n] < n_items:
                expected[n] = order[targets[n]]
        for m in range(excluded_offsets[row], excluded_offsets[row + 1]):
            item = excluded[m]
            if item < 0 or item >= n_items or owner[item] == row:
                continue
            owner[item] = row
            taken[int(tail[item])] += 1
            for n in range(offsets[row], offsets[row + 1]):
                if 0 <= targets[n] < n_items and order[item] < order[targets[n]]:
                    expected[n] -= 1
    return expected, taken


class Variety:
    """Attributes of items by which lists are called diverse: one row of unit length (or zero) an item."""

    def __init__(self, rows: Any, of: str) -> None:
        self.of = of
        squares = np.asarray(rows.multiply(rows).sum(axis=1) if sp.issparse(rows) else (rows * rows).sum(axis=1))
        norms = np.sqrt(squares.reshape(-1).astype(np.float64))
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        unit = sp.diags_array(scale) @ rows if sp.issparse(rows) else rows * scale[:, None].astype(rows.dtype)
        self.rows: Any = sp.csr_array(unit) if sp.issparse(rows) else unit
        self.present = norms > 0

    @classmethod
    def of_items(cls, by: str | NDArray[Any] | None, train: Dataset | None) -> Variety | None:
        """From a column of the items, from vectors [I, D], or, by default, from their first column of categories."""
        if isinstance(by, np.ndarray):
            if by.ndim != 2 or (train is not None and len(by) != train.n_items):
                raise UsageError(f"vectors of items are [I, D], one row an item, got shape {list(by.shape)}")
            return cls(by.astype(np.float32), "given vectors")
        if train is None:
            if by is not None:
                raise UsageError(f"diversity by {by!r} needs the table of items", hint="pass a Split, or train=")
            return None
        kinds = {name: column.kind for name, column in train.schema.items.items()}
        if by is None:
            found = [name for kind in ("categories", "category") for name, has in kinds.items() if has == kind]
            if not found:
                return None
            by = found[0]
        by = by.removeprefix("items.")
        if by not in kinds:
            raise NotFound(f"items have no column {by!r}", hint=nearest(by, kinds))
        if kinds[by] == "vector":
            filled = train.items[by].cast(pl.List(pl.Float32)).fill_null([0.0] * train.schema.items[by].width)
            return cls(filled.explode().to_numpy().reshape(train.n_items, -1), f"items.{by}")
        if kinds[by] in ("category", "categories", "flag"):
            return cls(_indicators(train.items[by]), f"items.{by}")
        raise UsageError(f"diversity takes a column of categories or vectors, {by!r} holds {kinds[by]}")

    def within(self, items: NDArray[np.int32]) -> Floats:
        """Mean of 1 - cosine over the pairs of each list [B]; NaN for lists of fewer than 2."""
        row, place = np.nonzero(items >= 0)
        picks = items[row, place]
        lists = sp.csr_array((np.ones(len(picks), np.float32), (row, picks)), shape=(len(items), self.rows.shape[0]))
        sums = lists @ self.rows
        squares = sums.multiply(sums).sum(axis=1) if sp.issparse(sums) else np.einsum("bd,bd->b", sums, sums)
        own = np.bincount(row, self.present[picks], minlength=len(items))
        lengths = np.bincount(row, minlength=len(items)).astype(np.float64)
        pairs = lengths * (lengths - 1)
        return np.clip(1 - ratio(np.asarray(squares, np.float64).reshape(-1) - own, pairs), 0.0, 2.0)


def _indicators(values: pl.Series) -> sp.csr_array:
    """One column a category, 1 where the item has it [I, categories]."""
    frame = pl.DataFrame({"row": np.arange(len(values)), "value": values})
    if isinstance(values.dtype, pl.List | pl.Array):
        frame = frame.with_columns(pl.col("value").cast(pl.List(pl.String))).explode("value")
    frame = frame.with_columns(pl.col("value").cast(pl.String)).drop_nulls("value").unique(maintain_order=True)
    codes = frame["value"].rank("dense").to_numpy().astype(np.int64) - 1
    shape = (len(values), max(1, int(codes.max(initial=0)) + 1))
    return sp.csr_array((np.ones(len(codes), np.float32), (frame["row"].to_numpy(), codes)), shape=shape)


@dataclass(eq=False)
class Tally:
    """Counts over lists, taken block by block; `figures` turns them into metrics."""

    names: Mapping[str, Sequence[int]]
    n_items: int
    popularity: Popularity | None = None
    variety: Variety | None = None
    counts: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    shares: dict[int, Floats] = field(default_factory=dict)
    lists: dict[int, int] = field(default_factory=dict)
    rows: dict[str, list[Floats]] = field(default_factory=dict)

    @property
    def ks(self) -> list[int]:
        return sorted({k for ks in self.names.values() for k in ks})

    def add(self, items: NDArray[np.int32]) -> None:
        """Take in the lists [b, K] of the next requests."""
        places = np.where(items < 0, self.n_items, items)
        lengths = (items >= 0).cumsum(axis=1)
        for k in self.ks:
            first = places[:, :k]
            length = lengths[:, min(k, items.shape[1]) - 1] if items.shape[1] else np.zeros(len(items), np.int64)
            flat = first.ravel()
            empty = np.zeros(self.n_items, dtype=np.int64)
            self.counts[k] = self.counts.get(k, empty) + np.bincount(flat, minlength=self.n_items + 1)[:-1]
            self.lists[k] = self.lists.get(k, 0) + int((length > 0).sum())
            if k in self.names.get("entropy", ()):
                share = np.repeat(1.0 / np.maximum(length, 1), first.shape[1])
                weighed = np.bincount(flat, share, minlength=self.n_items + 1)[:-1]
                self.shares[k] = self.shares.get(k, empty.astype(np.float64)) + weighed
            self._keep("_length", k, length.astype(np.float64))
            for name, quantity in self._quantities.items():
                if k in self.names.get(name, ()):
                    total = quantity[first].sum(axis=1)
                    self._keep(name, k, np.where(length > 0, total, np.nan) if name == "aclt" else ratio(total, length))
            if self.variety is not None and k in self.names.get("diversity", ()):
                self._keep("diversity", k, self.variety.within(items[:, :k]))

    def _keep(self, name: str, k: int, values: Floats) -> None:
        self.rows.setdefault(f"{name}@{k}", []).append(values)

    @cached_property
    def _quantities(self) -> dict[str, Floats]:
        """What is summed over the items of a list; the last entry stands for an empty place."""
        if self.popularity is None:
            return {}
        counts, tail = self.popularity.counts, self.popularity.tail
        rarity = np.log2(max(1, self.popularity.n_users) / np.maximum(counts, 1))
        each = {"arp": counts, "aclt": tail, "aplt": tail, "self_information": rarity}
        return {name: np.append(values, 0).astype(np.float64) for name, values in each.items() if name in self.names}

    def figures(
        self, hits: Hits, places: NDArray[np.int32], targets: Jagged[NDArray[np.int32]], requests: Requests
    ) -> tuple[dict[str, Floats], dict[str, float]]:
        """Values by request [B], and values of the whole, by name@k."""
        rows = {name: np.concatenate(parts) for name, parts in self.rows.items()}
        whole: dict[str, float] = {}
        for k in self.names.get("coverage", ()):
            whole[f"coverage@{k}"] = float(np.count_nonzero(self.counts[k]) / max(1, self.n_items))
        for k in self.names.get("gini", ()):
            whole[f"gini@{k}"] = evenness(self.counts[k])
        for k in self.names.get("entropy", ()):
            whole[f"entropy@{k}"] = entropy(self.counts[k], self.shares[k], self.lists[k])
        if self.popularity is not None:
            self._popularity(self.popularity, hits, places, targets, requests, rows, whole)
        return {name: values for name, values in rows.items() if not name.startswith("_")}, whole

    def _popularity(
        self,
        popularity: Popularity,
        hits: Hits,
        places: NDArray[np.int32],
        targets: Jagged[NDArray[np.int32]],
        requests: Requests,
        rows: dict[str, Floats],
        whole: dict[str, float],
    ) -> None:
        item = _hit_items(places, targets)
        counts, total = popularity.counts[item], max(1, int(popularity.counts.sum()))
        novelty = {
            "epc": 1 - counts / max(1, popularity.n_users),
            "efd": -np.log2(np.maximum(counts, 1) / total),
        }
        for name, worth in novelty.items():
            for k in self.names.get(name, ()):
                table = np.concatenate([[0.0], np.cumsum(discount(np.arange(k)))])
                whole_list = table[rows[f"_length@{k}"].astype(np.int64)]
                rows[f"{name}@{k}"] = ratio(hits.total(k, worth * discount(hits.ranks)), whole_list)
        if not {"serendipity", "poprsp", "popreo"} & set(self.names):
            return
        excluded = requests.exclude if requests.exclude is not None else Jagged.empty(len(targets))
        expected, taken = _expected(
            popularity.order, popularity.tail, targets.offsets, targets.values, excluded.offsets, excluded.values
        )
        surprise = expected[_hit_index(places, targets)]
        for k in self.names.get("serendipity", ()):
            found = hits.total(k, (surprise >= k).astype(np.float64)) / k
            rows[f"serendipity@{k}"] = np.where(hits.targets > 0, found, np.nan)
        known = targets.values[(targets.values >= 0) & (targets.values < self.n_items)]
        wanted = np.bincount(popularity.tail[known].astype(np.int64), minlength=2)
        sizes = np.bincount(popularity.tail.astype(np.int64), minlength=2)
        for k in self.names.get("popreo", ()):
            inside = popularity.tail[item[hits.ranks < k]].astype(np.int64)
            whole[f"popreo@{k}"] = spread(np.bincount(inside, minlength=2), wanted)
        for k in self.names.get("poprsp", ()):
            shown = np.bincount(popularity.tail.astype(np.int64), self.counts[k], minlength=2)
            whole[f"poprsp@{k}"] = spread(shown, len(targets) * sizes - taken)


def _hit_index(places: NDArray[np.int32], targets: Jagged[Any]) -> NDArray[np.int64]:
    """Which targets were found, in the order `Hits` keeps them."""
    found = np.flatnonzero(places >= 0)
    return found[np.lexsort((places[found], targets.rows[found]))]


def _hit_items(places: NDArray[np.int32], targets: Jagged[NDArray[np.int32]]) -> NDArray[np.int32]:
    return targets.values[_hit_index(places, targets)]


def evenness(counts: NDArray[Any]) -> float:
    """1 - Gini index of counts [I]: 1 where all are equal, 0 where one item has all, NaN without counts."""
    n, total = len(counts), float(counts.sum())
    if total == 0:
        return float("nan")
    if n < 2:
        return 1.0
    weights = 2.0 * np.arange(1, n + 1) - n - 1
    return float(1 - (weights * np.sort(counts)).sum() / total / (n - 1))


def entropy(counts: NDArray[Any], shares: Floats, n_lists: int) -> float:
    """Bits: sum over items of share_i * -log2(c_i / N_c), divided by the number of lists."""
    shown = counts > 0
    if not shown.any():
        return float("nan")
    bits = -np.log2(counts[shown] / counts.sum())
    return float((shares[shown] * bits).sum() / n_lists)


def spread(part: NDArray[Any], whole: Iterable[Any]) -> float:
    """Population standard deviation / mean of part / whole over the groups that are not empty."""
    rates = ratio(part, np.asarray(whole))
    rates = rates[np.isfinite(rates)]
    return float(rates.std() / rates.mean()) if len(rates) and rates.mean() > 0 else float("nan")
