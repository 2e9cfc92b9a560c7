"""Intervals and tests: against SciPy, against cases worked by hand, and by what they promise in simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tastemaker.evaluate import benjamini_hochberg, bootstrap, holm, paired_permutation, paired_t
from tastemaker.types import UsageError


def test_bootstrap_covers_the_truth() -> None:
    """95 % intervals of 600 samples of 80 normal values hold their mean in about 95 % of the samples."""
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(80, 600))
    low, high = bootstrap(values, resamples=1000, seed=1)
    coverage = ((low <= 3.0) & (high >= 3.0)).mean()
    assert 0.92 <= coverage <= 0.97
    width = (high - low).mean()
    assert width == pytest.approx(2 * 1.96 * 2 / np.sqrt(80), rel=0.05)
    narrow_low, narrow_high = bootstrap(values, level=0.5, seed=1)
    assert ((narrow_low <= 3.0) & (narrow_high >= 3.0)).mean() == pytest.approx(0.5, abs=0.08)


def test_bootstrap_is_a_function_of_the_seed() -> None:
    values = np.random.default_rng(0).random((500, 3))
    first, again, other = (bootstrap(values, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-6, atol=0)
    alone = bootstrap(values[:, 1], seed=7)  # all columns share the draws, so one column alone gets the same
    np.testing.assert_allclose([alone[0][0], alone[1][0]], [first[0][1], first[1][1]])


def test_bootstrap_leaves_out_what_is_undefined() -> None:
    values = np.random.default_rng(0).random((400, 2))
    values[::2, 0] = np.nan
    low, high = bootstrap(values, resamples=4000, seed=0)
    half, _ = bootstrap(values[1::2, :1], resamples=4000, seed=0)
    assert low[0] == pytest.approx(half[0], abs=0.004)
    assert high[0] - low[0] > high[1] - low[1]  # half the users, a wider interval
    empty = bootstrap(np.full((5, 1), np.nan))
    assert np.isnan(empty).all() and np.isnan(bootstrap(np.empty((0, 2)))).all()
    with pytest.raises(UsageError):
        bootstrap(values, level=1.0)


def test_t_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((50, 8)), rng.random((50, 8))
    np.testing.assert_allclose(paired_t(a - b), stats.ttest_rel(a, b).pvalue, rtol=1e-10)
    same = paired_t(np.zeros((9, 1)))
    assert same[0] == 1.0 and paired_t(np.ones((9, 1)))[0] == 0.0 and np.isnan(paired_t(np.ones((1, 1))))[0]


def test_permutation_equals_scipy() -> None:
    """Exactly, where all sign patterns are tried; closely, where they are drawn."""
    rng = np.random.default_rng(3)
    small = np.round(rng.normal(0.4, 1, size=(9, 6)), 1)  # rounded: ties must be counted as SciPy counts them
    exact = [
        stats.permutation_test(
            (small[:, j],), lambda d, axis=-1: d.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        for j in range(6)
    ]
    np.testing.assert_allclose(paired_permutation(small), np.minimum(exact, 1.0), atol=1e-12)
    large = rng.normal(0.15, 1, size=(200, 4))
    np.testing.assert_allclose(paired_permutation(large, permutations=20_000), paired_t(large), atol=0.015)


def test_permutation_of_pairs_equals_that_of_differences() -> None:
    values = np.random.default_rng(1).random((150, 4))
    pairs = [(0, 1), (2, 0), (3, 1)]
    differences = np.stack([values[:, i] - values[:, j] for i, j in pairs], axis=1)
    np.testing.assert_array_equal(
        paired_permutation(values, pairs, permutations=3000, seed=5),
        paired_permutation(differences, permutations=3000, seed=5),
    )
    assert (paired_permutation(np.ones((400, 1)), permutations=999) == 1 / 1000).all()  # never 0
    assert (paired_permutation(np.zeros((400, 1)), permutations=999) == 1.0).all()
    with pytest.raises(UsageError):
        paired_permutation(np.array([[np.nan], [1.0]]))


def test_false_alarms_come_at_the_stated_rate() -> None:
    """2,000 comparisons of systems that do not differ: about 5 % are called different at 0.05, 1 % at 0.01."""
    rng = np.random.default_rng(0)
    a, b = (rng.beta(0.3, 1.0, size=(120, 2000)) for _ in range(2))
    for p in (paired_permutation(a - b, permutations=2000), paired_t(a - b)):
        assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)
        assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.008)
    better = a + 0.1
    assert (paired_permutation(better - b, permutations=2000) < 0.05).mean() > 0.6


def test_corrections_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, 0.02])
    np.testing.assert_allclose(holm(np.array([[0.5, 0.9], [0.01, np.nan]])), [[1.0, 1.0], [0.01, np.nan]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_keep_order_and_only_raise(p: list[float]) -> None:
    values = np.array(p)
    np.testing.assert_allclose(benjamini_hochberg(values), stats.false_discovery_control(values), atol=1e-12)
    for adjusted in (holm(values), benjamini_hochberg(values)):
        assert (adjusted >= values - 1e-15).all() and (adjusted <= 1).all()
        order = np.argsort(values, kind="stable")
        assert (np.diff(adjusted[order]) >= -1e-15).all()
    assert (holm(values) >= benjamini_hochberg(values) - 1e-12).all()


def test_holm_keeps_the_chance_of_any_false_alarm() -> None:
    p = np.random.default_rng(0).random((4000, 10))
    assert (holm(p) < 0.05).any(axis=1).mean() == pytest.approx(0.05, abs=0.012)
    assert (p < 0.05).any(axis=1).mean() > 0.35  # what happens without


def test_bootstrap_is_fast() -> None:
    values = np.random.default_rng(0).random((30_000, 30))
    bootstrap(values[:100], resamples=10)
    start = time.process_time()
    bootstrap(values, resamples=1000)
    assert time.process_time() - start < 1.5  # processor time over all cores; 0.3 s on an idle machine
