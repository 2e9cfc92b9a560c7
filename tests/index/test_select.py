"""select: parity with a sort, ties, exclusions, filters, short lists, hostile scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.index import Rules, select
from tastemaker.index.select import empty_lists, fold, merge, select_listed
from tastemaker.types import Jagged, UsageError, mix


def sorted_best(scores, k, exclude=None, allowed=None, which=None, first_item=0):
    """The ten-line reference: everything sorted, what is barred left out."""
    b, n = scores.shape
    items, best = np.full((b, k), -1, np.int32), np.full((b, k), -np.inf, np.float32)
    numbers = first_item + np.arange(n)
    for r in range(b):
        free = scores[r] > -np.inf
        free &= ~np.isin(numbers, [] if exclude is None else exclude[r])
        if allowed is not None and which[r] >= 0:
            free &= allowed[which[r], numbers]
        order = np.lexsort((mix(numbers), -scores[r]))
        order = order[free[order]][:k]
        items[r, : len(order)], best[r, : len(order)] = numbers[order], scores[r, order]
    return items, best


@st.composite
def problems(draw):
    """Scores with few distinct values (ties everywhere), exclusions, filters; n around the kernel's chunk of 64."""
    b, n = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 5, 63, 64, 65, 130, 700]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 3, 50, 10**6]))
    scores = (rng.integers(-levels, levels + 1, (b, n)) / levels).astype(np.float32)
    scores[rng.random((b, n)) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = -np.inf
    first = draw(st.sampled_from([0, 7]))
    share = draw(st.sampled_from([0.0, 0.1, 1.0]))
    rows = [rng.permutation(n + first + 9)[: int(share * (n + 9))] - 3 for _ in range(b)]
    allowed = rng.random((2, n + first)) < draw(st.sampled_from([0.0, 0.5]))
    which = rng.integers(-1, 2, b).astype(np.int32)
    return scores, draw(st.sampled_from([1, 3, 20, 100])), Jagged.from_lists(rows, np.int32), allowed, which, first


@settings(max_examples=300, deadline=None)
@given(problems())
def test_equals_a_sort(problem):
    scores, k, exclude, allowed, which, first = problem
    before = scores.copy()
    found = select(scores, k, exclude=exclude, allowed=allowed, which=which, first_item=first)
    wanted = sorted_best(scores, k, exclude, allowed, which, first)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_array_equal(scores, before)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(1, 40))
def test_blocks_of_items_give_the_same_as_all_at_once(problem, width):
    scores, k, exclude, allowed, which, _ = problem
    b, n = scores.shape
    allowed = np.resize(allowed, (2, n))
    rules = Rules.of(b, n, exclude, allowed, which)
    one, two = empty_lists(b, k), empty_lists(b, k)
    for turn, start in enumerate(range(0, n, width)):
        target = one if turn % 2 else two
        fold(np.ascontiguousarray(scores[:, start : start + width]), start, rules, *target)
    merge(*one, *two)
    wanted = sorted_best(scores, k, exclude, allowed, which)
    np.testing.assert_array_equal(one[0], wanted[0])
    np.testing.assert_array_equal(one[1], wanted[1])


def test_large_enough_for_several_threads():
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((300, 4000)).astype(np.float32)
    exclude = Jagged.from_lists([rng.integers(0, 4000, 5 * (r % 40)) for r in range(300)], np.int32)
    found, wanted = select(scores, 50, exclude=exclude), sorted_best(scores, 50, exclude)
    np.testing.assert_array_equal(found[0], wanted[0])


def test_ties_do_not_follow_the_order_of_items():
    items, _ = select(np.zeros((1, 1000), np.float32), 100)
    assert abs(np.corrcoef(np.arange(100), items[0])[0, 1]) < 0.3
    assert abs(items[0].mean() - 500) < 100  # a prefix would have 50
    shifted, _ = select(np.zeros((1, 500), np.float32), 50, first_item=500)
    assert list(shifted[0]) == [i for i in select(np.zeros((1, 1000), np.float32), 1000)[0][0] if i >= 500][:50]


def test_other_layouts_and_types_are_taken():
    scores = np.random.default_rng(2).standard_normal((6, 80)).astype(np.float32)
    wanted = select(scores, 5)[0]
    padded = np.zeros((6, 160), np.float32)
    padded[:, ::2] = scores
    for same in (np.asfortranarray(scores), padded[:, ::2], scores.astype(np.float64)):
        np.testing.assert_array_equal(select(same, 5)[0], wanted)
    frozen = scores.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(select(frozen, 5)[0], wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 70, 129])
def test_scores_that_are_no_scores_are_refused_wherever_they_stand(bad, at):
    scores = np.linspace(5, 6, 130, dtype=np.float32)[None].repeat(2, axis=0)
    scores[1, at] = bad
    with pytest.raises(UsageError, match=f"item {at} is {bad}"):
        select(scores, 3)
    select(scores, 3, exclude=Jagged.from_lists([[], [at]], np.int32))  # what is excluded is not looked at


def test_empty_problems():
    assert select(np.zeros((0, 5), np.float32), 3)[0].shape == (0, 3)
    items, scores = select(np.zeros((2, 0), np.float32), 3)
    assert (items == -1).all() and (scores == -np.inf).all()


def test_shapes_that_do_not_fit_are_refused():
    scores = np.zeros((2, 5), np.float32)
    with pytest.raises(UsageError, match="at least one"):
        select(scores, 0)
    with pytest.raises(UsageError, match="2 rows"):
        select(scores, 1, exclude=Jagged.empty(3))
    with pytest.raises(UsageError, match="all 5 items"):
        select(scores, 1, allowed=np.ones((1, 4), bool), which=np.zeros(2, np.int32))
    with pytest.raises(UsageError, match="from -1 to 0"):
        select(scores, 1, allowed=np.ones((1, 5), bool), which=np.ones(2, np.int32))
    with pytest.raises(UsageError, match="rows, items"):
        select(scores[0], 1)


def test_listed_items_count_once_and_follow_the_rules():
    listed = Jagged.from_lists([[4, 2, 4, -1, 9], [], [1, 0]], np.int32)
    scores = np.array([1, 3, 1, np.nan, 2, 5, 5], np.float32)  # the score of -1 is arbitrary
    allowed = np.array([[True, False, True, True, True, True, True, True, True, True]])
    rules = Rules.of(3, 10, Jagged.from_lists([[2], [2], []], np.int32), allowed, np.array([-1, -1, 0], np.int32))
    items, best = select_listed(listed, scores, 3, rules, 10)
    assert items.tolist() == [[9, 4, -1], [-1, -1, -1], [0, -1, -1]]
    assert best[0].tolist() == [2, 1, -np.inf]
    with pytest.raises(UsageError, match="0 to 9, got 10"):
        select_listed(Jagged.from_lists([[10]], np.int32), scores[:1], 1, Rules.of(1, 10), 10)
