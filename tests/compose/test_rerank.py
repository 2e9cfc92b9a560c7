"""Reranking: every step equals a slow plain reference, and keeps the promises that steps share."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tastemaker.compose.columns import Likeness, Sets
from tastemaker.compose.rerank import AtMost, AtPlace, ByFactor, ByFloors, ByMix, ByVariety, dealt, relevance
from tastemaker.types import Requests

I = 30  # noqa: E741 - items
RNG = np.random.default_rng(4)
GENRES = Sets.of(pl.Series([[f"g{g}" for g in RNG.choice(6, n, replace=False)] for n in RNG.integers(0, 4, I)]))
BRANDS = Sets.of(pl.Series([None if b == 4 else f"b{b}" for b in RNG.integers(0, 5, I)]))
VECTORS = Likeness.by_vectors(np.concatenate([np.zeros((1, 5)), RNG.normal(size=(I - 1, 5))]))


@st.composite
def lists(draw: st.DrawFn, rows: int = 4, width: int = 12) -> tuple[Any, Any, Requests]:
    """Sorted lists of different lengths with their histories; scores of few values, so that many are equal."""
    seed = draw(st.integers(0, 2**32 - 1))
    lengths = draw(hnp.arrays(np.int64, rows, elements=st.integers(0, width)))
    values = draw(st.sampled_from([2, 5, 1000]))
    rng = np.random.default_rng(seed)
    items = np.full((rows, width), -1, dtype=np.int32)
    scores = np.full((rows, width), -np.inf, dtype=np.float32)
    for r, n in enumerate(lengths):
        items[r, :n] = rng.permutation(I)[:n]
        scores[r, :n] = np.sort(rng.integers(-values, values, n) / 4)[::-1]
    past = [rng.integers(-1, I + 2, n).tolist() for n in rng.integers(0, 8, rows)]
    return items, scores, Requests.of_items(past)


def row(items: Any, r: int) -> list[int]:
    return items[r][items[r] >= 0].tolist()


def order(step: Any, given: Any, n: int = 12) -> Any:
    items, scores, asked = given
    return step.order(asked, items, scores, n)


def categories(sets: Sets, item: int) -> set[int]:
    return set(sets.values[sets.offsets[item] : sets.offsets[item + 1]].tolist())


def alike(likeness: Likeness, a: int, b: int) -> float:
    if likeness.vectors.shape[1]:
        return max(0.0, float(likeness.vectors[a].astype(np.float64) @ likeness.vectors[b].astype(np.float64)))
    x, y = categories(likeness.sets, a), categories(likeness.sets, b)
    return len(x & y) / len(x | y) if x | y else 0.0


# -- what all steps promise

STEPS: dict[str, Any] = {
    "mmr by genres": ByVariety(Likeness.by_sets(GENRES), 0.4, 100),
    "mmr by vectors": ByVariety(VECTORS, 0.7, 6),
    "calibrated": ByMix(GENRES, 0.6, 0.01, 100, 500),
    "fair": ByFloors(np.arange(I, dtype=np.int32) % 3 - 1, np.array([0.3, 0.5]), 10),
    "boost": ByFactor(np.arange(I) % 4 == 0, 1.7),
    "bury": ByFactor(np.arange(I) % 4 == 0, 0.1),
    "pin": AtPlace(np.array([3, 1, 4], dtype=np.int32), 2),
    "cap": AtMost(BRANDS, 1, 5, drop=False),
}
IDLE: dict[str, Any] = {
    "mmr": ByVariety(Likeness.by_sets(GENRES), 0.0, 100),
    "calibrated": ByMix(GENRES, 0.0, 0.01, 100, 500),
    "fair": ByFloors(np.arange(I, dtype=np.int32) % 3 - 1, np.array([0.0, 0.0]), 100),
    "boost": ByFactor(np.arange(I) % 4 == 0, 1.0),
    "pin": AtPlace(np.array([I + 5], dtype=np.int32), 0),
    "cap": AtMost(BRANDS, I, 10, drop=True),
}


@pytest.mark.parametrize("name", STEPS)
@given(lists())
@settings(max_examples=25, deadline=None)
def test_a_step_gives_the_same_items_in_another_order(name: str, given: Any) -> None:
    out = order(STEPS[name], given)
    for r in range(len(out)):
        assert sorted(row(out, r)) == sorted(row(given[0], r))
        assert (out[r, len(row(out, r)) :] == -1).all()
    scores = dealt(out, given[1])
    assert ((out >= 0) == np.isfinite(scores)).all()
    assert (np.diff(np.where(out >= 0, scores, -1e9), axis=1) <= 0).all(), "scores never rise"


@pytest.mark.parametrize("name", STEPS)
@given(lists())
@settings(max_examples=20, deadline=None)
def test_batch_equals_single_and_a_shorter_answer_is_its_beginning(name: str, given: Any) -> None:
    items, scores, asked = given
    whole = order(STEPS[name], given)
    for r in range(len(items)):
        one = slice(r, r + 1)
        np.testing.assert_array_equal(order(STEPS[name], (items[one], scores[one], asked.take(one))), whole[one])
    np.testing.assert_array_equal(order(STEPS[name], given, n=4)[:, :4], whole[:, :4])


@pytest.mark.parametrize("name", IDLE)
@given(lists())
@settings(max_examples=20, deadline=None)
def test_a_step_that_decides_nothing_changes_nothing(name: str, given: Any) -> None:
    np.testing.assert_array_equal(order(IDLE[name], given), given[0])


def test_relevance_goes_from_0_to_1() -> None:
    items = np.array([[1, 2, 3], [4, 5, -1], [6, -1, -1], [-1, -1, -1]], dtype=np.int32)
    scores = np.where(items >= 0, np.array([[5, 3, 1], [2, 2, 0], [-7, 0, 0], [0, 0, 0]]), -np.inf).astype(np.float32)
    np.testing.assert_array_equal(relevance(items, scores), [[1, 0.5, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])


# -- each step against its reference


@pytest.mark.parametrize("likeness", [Likeness.by_sets(GENRES), VECTORS], ids=["genres", "vectors"])
@given(lists(), st.floats(0, 1), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_mmr(likeness: Likeness, given: Any, weight: float, first: int) -> None:
    """Each place goes to an item of the highest marginal relevance."""
    items, scores, _ = given
    out, worth = order(ByVariety(likeness, weight, first), given), relevance(items, scores)
    for r in range(len(items)):
        rel = dict(zip(row(items, r), worth[r].tolist(), strict=False))
        left, above = row(items, r), []
        for item in row(out, r)[:first]:
            value = {
                j: (1 - weight) * rel[j] - weight * max((alike(likeness, j, a) for a in above), default=0) for j in left
            }
            assert value[item] >= max(value.values()) - 1e-6
            if likeness is not VECTORS:  # without rounding: of equals the one that stood higher
                assert item == max(left, key=lambda j: value[j])
            left.remove(item)
            above.append(item)
        assert row(out, r)[first:] == left


def mix(sets: Sets, chosen: list[int]) -> dict[int, float]:
    """Steck's distribution over categories; every item with categories has a mass of 1."""
    mass: dict[int, float] = {}
    with_any = [i for i in chosen if 0 <= i < I and categories(sets, i)]
    for item in with_any:
        for c in categories(sets, item):
            mass[c] = mass.get(c, 0.0) + 1 / len(categories(sets, item)) / len(with_any)
    return mass


def divergence(wanted: dict[int, float], had: dict[int, float], smoothing: float) -> float:
    return sum(
        p * math.log(p / ((1 - smoothing) * had.get(c, 0.0) + smoothing * p)) for c, p in wanted.items() if p > 0
    )


@given(lists(), st.floats(0.01, 1), st.sampled_from([0.01, 0.3]), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_calibrated(given: Any, weight: float, smoothing: float, first: int) -> None:
    """Each place goes to an item of the least weighed divergence from the history's mix."""
    items, scores, asked = given
    out, worth = order(ByMix(GENRES, weight, smoothing, first, 500), given), relevance(items, scores)
    for r, past in enumerate(asked.items().to_lists()):
        wanted = mix(GENRES, past)
        if not wanted:
            assert row(out, r) == row(items, r), "without a history there is nothing to come close to"
            continue
        rel = dict(zip(row(items, r), worth[r].tolist(), strict=False))
        left, above = row(items, r), []
        for item in row(out, r)[:first]:
            value = {
                j: (1 - weight) * rel[j] - weight * divergence(wanted, mix(GENRES, [*above, j]), smoothing)
                for j in left
            }
            assert value[item] >= max(value.values()) - 1e-9
            left.remove(item)
            above.append(item)
        assert row(out, r)[first:] == left


def test_calibrated_brings_the_mix_close() -> None:
    sets = Sets.of(pl.Series(["drama"] * 20 + ["comedy"] * 10))
    items = np.arange(30, dtype=np.int32)[None]
    scores = np.linspace(1, 0, 30, dtype=np.float32)[None]
    asked = Requests.of_items([[0, 1, 2, 25]])  # three quarters drama
    plain, close = items[0, :8], ByMix(sets, 0.99, 0.01, 100, 500).order(asked, items, scores, 8)[0, :8]
    assert (plain < 20).mean() == 1.0 and (close < 20).mean() == 0.75
    recent = ByMix(sets, 0.99, 0.01, 100, 1).order(asked, items, scores, 8)[0, :8]
    assert (recent >= 20).all(), "only the last event counts"


def floors_hold(out: list[int], groups: Any, shares: Any, first: int, listed: list[int]) -> bool:
    there = [sum(groups[i] == g for i in listed) for g in range(len(shares))]
    return all(
        sum(groups[i] == g for i in out[:t]) >= min(math.floor(share * t + 1e-9), there[g])
        for t in range(1, min(first, len(out)) + 1)
        for g, share in enumerate(shares)
    )


@given(lists(width=6), st.lists(st.sampled_from([0.0, 0.2, 1 / 3, 0.5]), min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_fair_is_the_first_order_of_all_that_keep_the_floors(given: Any, shares: list[float], first: int) -> None:
    """Against all permutations: the floors hold, and no order that keeps them is closer to relevance."""
    if sum(shares) > 1:
        shares = [s / sum(shares) for s in shares]
    groups = np.arange(I, dtype=np.int32) % (len(shares) + 1) - 1
    out = order(ByFloors(groups, np.array(shares), first), given)
    for r in range(len(out)):
        listed = row(given[0], r)
        kept = (list(p) for p in itertools.permutations(listed) if floors_hold(list(p), groups, shares, first, listed))
        assert row(out, r) == next(kept)


@given(lists(rows=3, width=25), st.integers(1, 6), st.integers(1, 25), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_fair_keeps_any_floors_that_a_list_can_keep(given: Any, n_groups: int, first: int, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(n_groups))
    groups = np.random.default_rng(seed).integers(-1, n_groups, I).astype(np.int32)
    out = order(ByFloors(groups, shares, first), given, n=25)
    for r in range(len(out)):
        assert floors_hold(row(out, r), groups, shares, first, row(given[0], r))


@given(lists(), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_boost(given: Any, factor: float) -> None:
    items, scores, _ = given
    which = np.arange(I) % 3 == 0
    out, worth = order(ByFactor(which, factor), given), relevance(items, scores)
    for r in range(len(items)):
        rel = {i: w * (factor if which[i] else 1) for i, w in zip(row(items, r), worth[r].tolist(), strict=False)}
        assert row(out, r) == sorted(rel, key=lambda i: -rel[i])


@given(lists(), st.lists(st.integers(0, I - 1), min_size=1, max_size=5, unique=True), st.integers(0, 14))
@settings(max_examples=40, deadline=None)
def test_pin(given: Any, pinned: list[int], place: int) -> None:
    out = order(AtPlace(np.array(pinned, dtype=np.int32), place), given)
    for r in range(len(out)):
        there = [i for i in pinned if i in row(given[0], r)]
        others = [i for i in row(given[0], r) if i not in pinned]
        at = min(place, len(others))
        assert row(out, r) == [*others[:at], *there, *others[at:]]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("sets", [BRANDS, GENRES], ids=["brands", "genres"])
@given(lists(), st.integers(1, 3), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_cap(drop: bool, sets: Sets, given: Any, most: int, first: int) -> None:
    out = order(AtMost(sets, most, first, drop), given)
    for r in range(len(out)):
        top: list[int] = []
        over: list[int] = []
        rest: list[int] = []
        for item in row(given[0], r):
            full = any(sum(c in categories(sets, t) for t in top) >= most for c in categories(sets, item))
            (rest if len(top) == first else over if full else top).append(item)
        assert row(out, r) == [*top, *([] if drop else over), *rest]
        if drop:
            shown = row(out, r)[:first] if len(top) == first else row(out, r)
            counts = [sum(c in categories(sets, i) for i in shown) for c in range(len(sets.names))]
            assert max(counts, default=0) <= most


def test_sets_and_likeness() -> None:
    sets = Sets.of(pl.Series([["b", "a", "b"], None, [], ["c", None], ["a"]]))
    assert sets.names == ["a", "b", "c"] and sets.offsets.tolist() == [0, 2, 2, 2, 3, 4]
    assert sets.values.tolist() == [0, 1, 2, 0]
    assert Sets.of(pl.Series([True, None, False])).names == ["false", "true"]
    assert Sets.of(pl.Series([3, None, 1])).single.tolist() == [1, -1, 0]
    unit = np.linalg.norm(VECTORS.vectors, axis=1)
    assert unit[0] == 0 and np.allclose(unit[1:], 1)
