"""Attacks that fill profiles by rule: random, average, popular, bandwagon and segment.

A profile holds all targets, and fillers that make its user look like others or tie the targets to what others choose.
All profiles of an audit are equally long, so that attacks differ in what they say, not in how much.

Where choices carry values (ratings), targets get the highest one, and fillers what the attack says.

Ref: Lam, Riedl, "Shilling recommender systems for fun and profit", WWW 2004; Mobasher, Burke, Bhaumik, Williams,
"Toward trustworthy recommender systems", ACM TOIT 7(4), 2007 (bandwagon, segment).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.audit.poison import Ints, Profiles, Ratings, Seen
from tastemaker.types import Jagged, UsageError, setting

BLOCK_CELLS = 1 << 24  # keys of draws that are held at once
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Random:
    """Targets, and fillers drawn at random, all items alike; values as spread over the whole dataset."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "fillers drawn at random"
    knows: ClassVar[str] = "the catalogue; where choices have values, their mean and deviation"

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        fillers = draw(_others(np.ones(len(seen.popularity)), targets), n, size - len(targets), rng)
        values = None if seen.ratings is None else rng.normal(seen.ratings.mean, seen.ratings.deviation, fillers.shape)
        return assembled(targets, fillers, seen.ratings, values)


@dataclass(frozen=True)
class Average:
    """Targets, and fillers as an average user has them: drawn as often as they are chosen, valued by their mean.

    In its first form fillers are drawn at random and only their values follow the items, which on choices without
    values would be the random attack.
    """

    name: ClassVar[str] = "average"
    title: ClassVar[str] = "fillers as an average user chooses them"
    knows: ClassVar[str] = "the popularity and the mean value of every item"

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        fillers = draw(_others(seen.popularity, targets), n, size - len(targets), rng)
        means = None if seen.ratings is None else seen.ratings.of_items[fillers]
        return assembled(targets, fillers, seen.ratings, means)


@dataclass(frozen=True)
class Bandwagon:
    """Targets, a share of fillers among the most popular items, with the highest value, and the others at random."""

    name: ClassVar[str] = "bandwagon"
    title: ClassVar[str] = "half of the fillers among the most popular items"
    knows: ClassVar[str] = "which items are the most popular"
    popular: float = setting(0.5, "Share of fillers that are drawn among the popular items.", low=0.0, high=1.0)
    head: float = setting(0.1, "Share of the items that are called popular.", low=0.0, high=1.0)

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        wanted, free = size - len(targets), len(seen.popularity) - len(targets)
        popular = min(round(self.popular * wanted), free)
        first = draw(head(seen, targets, self.head, popular), n, popular, rng)
        return _with_random(seen, targets, first, wanted, "mean", rng)


@dataclass(frozen=True)
class Popular:
    """Targets, and fillers among the most popular items alone, with the highest value."""

    name: ClassVar[str] = "popular"
    title: ClassVar[str] = "all fillers among the most popular items"
    knows: ClassVar[str] = "which items are the most popular"
    head: float = setting(0.1, "Share of the items that are called popular.", low=0.0, high=1.0)

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        return Bandwagon(1.0, self.head).profiles(seen, targets, n, size, rng)


@dataclass(frozen=True)
class Segment:
    """Targets, and items that go with one popular item, with the highest value; the others at random, with the lowest.

    It aims at those who like that item: the segment is what its users chose most, for how popular it is elsewhere.
    """

    name: ClassVar[str] = "segment"
    title: ClassVar[str] = "half of the fillers among what goes with one popular item"
    knows: ClassVar[str] = "which items are chosen along with one popular item"
    inside: float = setting(0.5, "Share of fillers that are drawn among the segment.", low=0.0, high=1.0)
    width: int = setting(50, "Items of the segment.", low=1)
    head: float = setting(0.1, "Share of the items, the most popular ones, among which its centre is drawn.", low=0.0)

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        wanted, free = size - len(targets), len(seen.popularity) - len(targets)
        inside = min(round(self.inside * wanted), free)
        centre = int(draw(head(seen, targets, self.head, 1), 1, 1, rng)[0, 0])
        users = seen.matrix[:, [centre]].nonzero()[0]
        together = np.asarray(seen.matrix[users].sum(axis=0)).ravel()
        likeness = _others(together / np.sqrt(np.maximum(seen.popularity, 1)), targets, least=1e-9)
        members = np.argsort(-likeness, kind="stable")[: max(self.width, inside)]
        weights = np.zeros(len(likeness))
        weights[members] = likeness[members] > 0
        inside = min(inside, int(weights.sum()))
        return _with_random(seen, targets, draw(weights, n, inside, rng), wanted, "low", rng)


def head(seen: Seen, targets: Ints, share: float, least: int) -> Floats:
    """Weights [I]: 1 for the most popular share of the items, at least so many, targets apart; 0 for the others."""
    popularity = _others(seen.popularity, targets, least=-1.0)
    order = np.argsort(-popularity, kind="stable")
    weights = np.zeros(len(order))
    weights[order[: max(least, math.ceil(share * len(order)))]] = 1.0
    weights[targets] = 0.0
    return weights


def draw(weights: Floats, n: int, size: int, rng: np.random.Generator) -> Ints:
    """n rows of `size` distinct items [n, size], each drawn in proportion to its weight among those left.

    Ref: Efraimidis, Spirakis, "Weighted random sampling with a reservoir", IPL 97(5), 2006.
    """
    usable = np.flatnonzero(weights > 0)
    if len(usable) < size:
        raise UsageError(f"{size} fillers of a profile cannot be drawn among {len(usable)} items", hint="fewer of them")
    out = np.empty((n, size), dtype=np.int64)
    step = max(1, BLOCK_CELLS // max(1, len(usable)))
    for start in range(0, n if size else 0, step):
        keys = rng.exponential(size=(min(step, n - start), len(usable))) / weights[usable]
        part = np.argpartition(keys, size - 1, axis=1)[:, :size] if size < len(usable) else np.argsort(keys, axis=1)
        out[start : start + len(keys)] = usable[part]
    return out


def assembled(targets: Ints, fillers: Ints, ratings: Ratings | None, values: Floats | None = None) -> Profiles:
    """Profiles of the targets and fillers [n, m]; values [n, m] of fillers, made to fit; targets have the highest."""
    n = len(fillers)
    items = np.concatenate([np.broadcast_to(targets, (n, len(targets))), fillers], axis=1)
    offsets = np.arange(n + 1, dtype=np.int64) * items.shape[1]
    jagged: Jagged[NDArray[np.int32]] = Jagged(items.astype(np.int32).ravel(), offsets)
    if ratings is None or values is None:
        return Profiles(jagged)
    top = np.full((n, len(targets)), ratings.high, dtype=np.float32)
    return Profiles(jagged, np.concatenate([top, ratings.fitting(values)], axis=1).ravel())


def _with_random(
    seen: Seen, targets: Ints, first: Ints, wanted: int, others: str, rng: np.random.Generator
) -> Profiles:
    """Fillers `first` [n, m] of the highest value, made up to `wanted` by random ones of "mean" or "low" values."""
    n, m = first.shape
    spare = draw(_others(np.ones(len(seen.popularity)), targets), n, wanted, rng)
    again = (spare[:, :, None] == first[:, None, :]).any(axis=2) if m else np.zeros(spare.shape, dtype=np.bool_)
    more = np.take_along_axis(spare, np.argsort(again, axis=1, kind="stable")[:, : wanted - m], axis=1)
    fillers, ratings = np.concatenate([first, more], axis=1), seen.ratings
    if ratings is None:
        return assembled(targets, fillers, None)
    spread = 0.0 if others == "low" else ratings.deviation
    rest = rng.normal(ratings.low if others == "low" else ratings.mean, spread, more.shape)
    return assembled(targets, fillers, ratings, np.concatenate([np.full(first.shape, ratings.high), rest], axis=1))


def _others(weights: NDArray[np.number], targets: Ints, least: float = 0.0) -> Floats:
    """Weights [I] as floats, those of targets set to `least`."""
    out = np.asarray(weights, dtype=np.float64).copy()
    out[targets] = least
    return out
