"""Negatives: drawn from the distribution that is stated, and never what the user chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tastemaker.feeds import clashes, hardest, log_frequency, negatives, popular, shared, uniform
from tastemaker.types import UsageError

RNG = np.random.default_rng(5)


def matrix_of(dense: Any) -> sp.csr_array:
    return sp.csr_array(np.asarray(dense, dtype=np.float32))


def power_law(n_users: int, n_items: int, density: float = 0.15) -> np.ndarray:
    """Choices that fall off with the item's number; the first user chose nothing."""
    dense = RNG.random((n_users, n_items)) < np.minimum(0.95, 4 * density / np.sqrt(1 + np.arange(n_items)))
    dense[0] = False
    return dense


def frequencies(sampler: Any, user: int, n_items: int, draws: int = 40_000) -> np.ndarray:
    """How often each item was drawn for a user, over several batches."""
    found = [sampler(np.full(draws // 8, user), np.random.default_rng(seed)) for seed in range(8)]
    return np.bincount(np.concatenate(found).ravel(), minlength=n_items)


def assert_drawn_from(counts: np.ndarray, probabilities: np.ndarray) -> None:
    """A chi-square test that a right sampler fails once in ten thousand runs; the seeds are fixed."""
    possible = probabilities > 0
    assert not counts[~possible].any(), "an item was drawn that has no probability"
    expected = probabilities[possible] / probabilities.sum() * counts.sum()
    assert possible.sum() == 1 or chisquare(counts[possible], expected).pvalue > 1e-4


DENSE = power_law(40, 60)


@pytest.mark.parametrize("power", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("user", [0, 1, 7])
def test_draws_follow_popularity_to_the_power_among_what_was_not_chosen(power: float, user: int) -> None:
    sampler = popular(matrix_of(DENSE), 2, power) if power else uniform(matrix_of(DENSE), 2)
    popularity = DENSE.sum(axis=0).astype(float)
    wanted = np.where(DENSE[user], 0.0, popularity**power)
    assert_drawn_from(frequencies(sampler, user, 60), wanted)


def test_draws_of_a_row_are_independent() -> None:
    sampler = uniform(matrix_of(np.zeros((1, 6))), 2)
    pairs = np.concatenate([sampler(np.zeros(5000, dtype=np.int64), np.random.default_rng(s)) for s in range(8)])
    assert_drawn_from(np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36), np.ones(36))
    follow = pairs[:-1, 1] * 6 + pairs[1:, 0]  # the next row's first after this row's last
    assert_drawn_from(np.bincount(follow, minlength=36), np.ones(36))


@pytest.mark.parametrize("power", [0.0, 0.75])
@pytest.mark.parametrize("left", [1, 2, 5])
def test_users_who_chose_nearly_everything_get_the_rest(power: float, left: int) -> None:
    """Where rejection would go on forever: the most popular items are the user's own."""
    dense = np.zeros((50, 300), dtype=bool)
    dense[1:, :250] = RNG.random((49, 250)) < 0.6
    dense[1, 250:] = True  # rare, but chosen once
    dense[0] = True
    rest = np.array([255, 260, 270, 280, 299])[:left]
    dense[0, rest] = False
    if left > 2:
        dense[2:8, 260] = True
    popularity = dense.sum(axis=0).astype(float)
    counts = frequencies(popular(matrix_of(dense), 3, power), 0, 300, draws=8000)
    assert_drawn_from(counts, np.where(dense[0], 0.0, popularity**power))


def test_where_nobody_chose_what_is_left_all_of_it_is_alike() -> None:
    dense = np.zeros((3, 40), dtype=bool)
    dense[:, :30] = True
    assert_drawn_from(frequencies(popular(matrix_of(dense), 1, 0.75), 1, 40), np.arange(40) >= 30)


def test_who_chose_everything_gets_any_item() -> None:
    for power in (0.0, 0.75):
        counts = frequencies(popular(matrix_of(np.ones((2, 8))), 1, power), 1, 8)
        assert_drawn_from(counts, np.ones(8))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.75, 2.0]), st.integers(1, 12), st.floats(0.0, 1.0))
def test_nothing_a_user_chose_is_ever_drawn(seed: int, power: float, n_items: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random((6, n_items)) < density
    dense[rng.integers(6), rng.integers(n_items)] = True  # somebody chose something
    users = rng.integers(0, 6, 200)
    drawn = popular(matrix_of(dense), 3, power)(users, rng)
    assert drawn.shape == (200, 3) and drawn.min() >= 0 and drawn.max() < n_items
    full = dense.all(axis=1)[users]
    assert not dense[users[:, None], drawn][~full].any()


def test_unsorted_rows_are_sorted_first() -> None:
    shuffled = sp.csr_array((np.ones(3, dtype=np.float32), np.array([4, 0, 2]), np.array([0, 3])), shape=(1, 5))
    drawn = uniform(shuffled, 50)(np.zeros(4, dtype=np.int64), np.random.default_rng(0))
    assert set(drawn.ravel()) == {1, 3} and list(shuffled.indices) == [4, 0, 2], "or the caller's matrix was changed"


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_shared_items_follow_popularity_for_the_whole_batch(power: float) -> None:
    sampler = shared(matrix_of(DENSE), 5000, power)
    drawn = np.concatenate([sampler(np.arange(40), np.random.default_rng(s)) for s in range(8)])
    assert drawn.shape == (40_000,) and drawn.dtype == np.int64
    assert_drawn_from(np.bincount(drawn, minlength=60), DENSE.sum(axis=0).astype(float) ** power)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 20), st.integers(0, 25))
def test_clashes_are_what_the_user_chose(seed: int, n_users: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random((7, 9)) < 0.4
    users, items = rng.integers(0, 7, n_users), rng.integers(0, 9, n)  # both with repeats
    assert np.array_equal(clashes(matrix_of(dense), users, items), dense[users[:, None], items[None, :]])


@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_hardest_are_those_the_system_scores_highest(as_tensor: bool) -> None:
    matrix, scores = matrix_of(DENSE), RNG.random((40, 60)).astype(np.float32)

    def score(users: Any, items: Any) -> Any:
        found = scores[users[:, None], items]
        return torch.from_numpy(found).requires_grad_() if as_tensor else found

    pool, picked = uniform(matrix, 8), hardest(uniform(matrix, 8), score, 3)
    users = RNG.integers(0, 40, 100)
    drawn, best = pool(users, np.random.default_rng(1)), picked(users, np.random.default_rng(1))
    expected = np.sort(scores[users[:, None], drawn], axis=1)[:, ::-1][:, :3]
    np.testing.assert_array_equal(scores[users[:, None], best], expected)
    assert not DENSE[users[:, None], best].any()
    with pytest.raises(UsageError, match="hardest 9"):
        hardest(pool, score, 9)(users, np.random.default_rng(1))


def test_log_frequency_is_the_logarithm_of_the_probability() -> None:
    popularity = DENSE.sum(axis=0)
    for power in (1.0, 0.5, 0.0):
        weights = np.maximum(popularity, 0.5) ** power
        np.testing.assert_allclose(np.exp(log_frequency(matrix_of(DENSE), power)), weights / weights.sum(), rtol=1e-5)
    assert np.isfinite(log_frequency(matrix_of(np.eye(3, 5)))).all()


def test_the_same_stream_gives_the_same_items() -> None:
    for sampler in (uniform(matrix_of(DENSE), 2), popular(matrix_of(DENSE), 2), shared(matrix_of(DENSE), 9, 0.5)):
        users = np.arange(40)
        first, again, other = (sampler(users, np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one negative"):
        uniform(matrix_of(DENSE), 0)
    with pytest.raises(UsageError, match="no item was chosen"):
        popular(matrix_of(np.zeros((2, 3))), 1, 0.5)
    with pytest.raises(UsageError, match="at least 0"):
        popular(matrix_of(DENSE), 1, -0.5)
    with pytest.raises(UsageError, match="no items"):
        uniform(sp.csr_array((2, 0), dtype=np.float32), 1)


def test_an_exact_draw_follows_the_distribution_too() -> None:
    """What is fallen back on after too many rejections, called for itself."""
    reach = negatives.item_reach(matrix_of(DENSE), 1.0)
    own = np.flatnonzero(DENSE[3]).astype(np.int32)
    drawn = [negatives._draw_absent(own, 0, len(own), reach, share) for share in RNG.random(20_000)]
    assert_drawn_from(np.bincount(drawn, minlength=60), np.where(DENSE[3], 0.0, DENSE.sum(axis=0)))
