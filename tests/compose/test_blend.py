"""Blending: lists side by side, fused as the papers say, against plain references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.compose.blend import Fused, Pool, TakeTurns, make_blender
from tastemaker.compose.spec import Learned
from tastemaker.types import Requests, UsageError

B = 3


@st.composite
def found(draw: st.DrawFn) -> list[tuple[Any, Any]]:
    """Lists of one to four retrievers for B requests: items may repeat, be unknown (-1), and scores be equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 9))
        items = rng.integers(-1, 12, (B, width)).astype(np.int32)
        scores = np.sort(rng.integers(-6, 6, (B, width)) / 2, axis=1)[:, ::-1].astype(np.float32)
        made.append((items, scores))
    return made


def ranks(lists: list[tuple[Any, Any]], r: int) -> list[dict[int, tuple[int, float]]]:
    """Of each retriever: item -> (rank from 1, score), the first place of an item counting."""
    whole = []
    for items, scores in lists:
        one: dict[int, tuple[int, float]] = {}
        for at, (item, score) in enumerate(zip(items[r].tolist(), scores[r].tolist(), strict=True)):
            if item >= 0:
                one.setdefault(item, (at + 1, score))
        whole.append(one)
    return whole


@given(found())
@settings(max_examples=40, deadline=None)
def test_a_pool_lays_lists_side_by_side(lists: list[tuple[Any, Any]]) -> None:
    pool = Pool.of(lists)
    for r in range(B):
        wanted = ranks(lists, r)
        order = list(dict.fromkeys(item for one in wanted for item in one))
        assert pool.items[r][pool.items[r] >= 0].tolist() == order
        for at, item in enumerate(order):
            for c, one in enumerate(wanted):
                rank, score = one.get(item, (0, 0.0))
                assert pool.rank[r, at, c] == rank and pool.score[r, at, c] == score


def scaled(one: dict[int, tuple[int, float]], how: str, constant: float) -> dict[int, float]:
    scores = np.array([score for _, score in one.values()])
    if how == "rrf":
        return {item: 1 / (constant + rank) for item, (rank, _) in one.items()}
    if how == "rank":
        return {item: (len(one) - rank + 1) / len(one) for item, (rank, _) in one.items()}
    low, high, spread = scores.min(initial=np.inf), scores.max(initial=-np.inf), scores.std() if len(one) else 0
    if how == "z":
        return {item: (score - low) / spread if spread > 0 else 0.0 for item, (_, score) in one.items()}
    return {item: (score - low) / (high - low) if high > low else 1.0 for item, (_, score) in one.items()}


@pytest.mark.parametrize("how", ["rrf", "rank", "z", "minmax"])
@given(found(), st.floats(0, 100))
@settings(max_examples=40, deadline=None)
def test_fusing(how: str, lists: list[tuple[Any, Any]], constant: float) -> None:
    pool = Pool.of(lists)
    weights = tuple(float(w) for w in np.linspace(0.5, 2, len(lists)))
    out = Fused(weights, how, constant)(pool, Requests(B))
    for r in range(B):
        parts = [scaled(one, how, constant) for one in ranks(lists, r)]
        for at, item in enumerate(pool.items[r]):
            if item >= 0:
                wanted = sum(w * part.get(item, 0.0) for w, part in zip(weights, parts, strict=True))
                assert out[r, at] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


@given(found(), st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_interleaving(lists: list[tuple[Any, Any]], given_weights: list[float]) -> None:
    weights = given_weights[: len(lists)]
    pool = Pool.of(lists)
    out = TakeTurns(tuple(weights))(pool, Requests(B))
    for r in range(B):
        left = [[item for item in one] for one in ranks(lists, r)]
        turns, wanted = [0] * len(lists), []
        while any(left):
            c = min((c for c in range(len(lists)) if left[c]), key=lambda c: ((turns[c] + 1) / weights[c], c))
            turns[c] += 1
            wanted.append(left[c][0])
            left = [[item for item in one if item != wanted[-1]] for one in left]
        there = pool.items[r] >= 0
        got = pool.items[r][there][np.argsort(-out[r][there], kind="stable")].tolist()
        assert got == wanted


def test_a_weight_of_three_gets_three_turns_of_four() -> None:
    lists = [(np.arange(40, dtype=np.int32)[None] + c * 100, np.ones((1, 40), np.float32)) for c in range(2)]
    pool = Pool.of(lists)
    out = TakeTurns((3.0, 1.0))(pool, Requests(1))
    first = pool.items[0][np.argsort(-out[0])][:40]
    assert (first < 100).sum() == 30


def test_scores_that_are_no_numbers_are_refused() -> None:
    pool = Pool.of([(np.array([[1, 2]], np.int32), np.array([[np.inf, 1]], np.float32))])
    with pytest.raises(UsageError, match="finite"):
        Fused((1.0,), "minmax")(pool, Requests(1))
    with pytest.raises(UsageError, match="made by training"):
        make_blender(Learned(), [1.0])
