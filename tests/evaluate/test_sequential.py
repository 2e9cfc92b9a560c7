"""Evidence against closed forms and SciPy; intervals by what they promise: to be right at all moments at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, optimize, stats

from tastemaker.evaluate import holm
from tastemaker.evaluate.sequential import (
    LEAST,
    Sums,
    adjusted,
    always_valid,
    best_ratio,
    bounded_difference,
    bounded_mean,
    counts_evidence,
    difference,
    lift,
    mean_sequence,
    mixture_evidence,
    mixture_reach,
    sign_test,
    win_share,
)
from tastemaker.types import UsageError, generator

ALPHA = 0.05
STREAMS = 1000
MOST = ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / STREAMS)  # what a rate of ALPHA reaches in so many streams


# -- counts


def test_sign_evidence_is_the_ratio_of_two_likelihoods() -> None:
    n = 37
    wins = np.arange(n + 1)
    effect = 0.1
    a = (1 / (4 * effect**2) - 1) / 2
    assert stats.beta(a, a).std() == pytest.approx(effect)
    wanted = stats.betabinom(n, a, a).logpmf(wins) - stats.binom(n, 0.5).logpmf(wins)
    np.testing.assert_allclose(sign_test(wins, n - wins, effect=effect), wanted, atol=1e-10)


def test_counts_evidence_is_the_ratio_of_two_likelihoods() -> None:
    shares = np.array([0.2, 0.3, 0.5])
    counts = np.array([[0, 0, 0], [4, 1, 9], [30, 20, 10]])
    found = counts_evidence(counts, shares, concentration=20.0)
    for row, value in zip(counts[1:], found[1:], strict=True):
        n = int(row.sum())
        mixed = stats.dirichlet_multinomial(20 * shares, n).logpmf(row)
        assert value == pytest.approx(mixed - stats.multinomial(n, shares).logpmf(row), abs=1e-9)
    assert found[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.9]])
def test_evidence_is_a_fair_game(shares: list[float]) -> None:
    """From any state the expected next value is the present one: what Ville's inequality asks for."""
    rng = np.random.default_rng(0)
    states = rng.integers(0, 300, size=(50, 2))
    now = np.exp(counts_evidence(states, np.array(shares)))
    after = sum(p * np.exp(counts_evidence(states + np.eye(2, dtype=int)[k], np.array(shares)))
                for k, p in enumerate(shares))  # fmt: skip
    np.testing.assert_allclose(after, now, rtol=1e-9)


def test_the_share_of_wins_is_covered_at_all_times() -> None:
    rng = generator(0, "wins")
    wins = np.cumsum(rng.random((STREAMS, 300)) < 0.3, axis=1)
    low, high = win_share(wins, np.arange(1, 301) - wins, effect=0.1, alpha=ALPHA)
    assert ((low > 0.3) | (high < 0.3)).any(axis=1).mean() <= MOST
    assert (high - low)[:, -1].mean() < 0.22
    wins = np.cumsum(rng.random((STREAMS, 3000)) < 0.5, axis=1)
    p = always_valid(sign_test(wins, np.arange(1, 3001) - wins))
    assert 0.01 < (p[:, -1] <= ALPHA).mean() <= MOST  # the promise is kept, and not by saying nothing


def test_the_interval_leaves_out_one_half_when_the_test_says_so() -> None:
    rng = np.random.default_rng(1)
    wins, losses = rng.integers(0, 400, size=(2, 500))
    evidence = sign_test(wins, losses)
    low, high = win_share(wins, losses)
    np.testing.assert_array_equal((low > 0.5) | (high < 0.5), evidence >= np.log(20))
    both = (wins > 0) & (losses > 0)  # at the ends the evidence is just enough
    assert ((low <= wins / np.maximum(wins + losses, 1)) & (high >= wins / np.maximum(wins + losses, 1)))[both].all()
    none = win_share(np.array([0]), np.array([0]))
    assert none[0][0] == 0.0 and none[1][0] == 1.0


def test_a_wrong_split_is_found_and_a_right_one_left_alone() -> None:
    rng = generator(1, "split")
    shares = np.array([0.2, 0.8])
    first = np.cumsum(rng.random((STREAMS, 2000)) < 0.2, axis=1)
    counts = np.stack([first, np.arange(1, 2001) - first], axis=-1)
    p = always_valid(counts_evidence(counts, shares))
    assert (p[:, -1] <= ALPHA).mean() <= MOST
    lost = np.cumsum(rng.random((100, 40_000)) < 0.2 * 0.9 / (0.2 * 0.9 + 0.8), axis=1)[:, ::100]
    n = np.arange(1, 40_001)[::100]
    found = always_valid(counts_evidence(np.stack([lost, n - lost], axis=-1), shares))[:, -1]
    assert (found < 0.001).mean() > 0.95  # a tenth of one arm's units is missing
    with pytest.raises(UsageError, match="add up to 1"):
        counts_evidence(counts, np.array([0.3, 0.8]))


# -- the normal mixture


def test_the_mixture_is_the_integral_it_stands_for() -> None:
    for z, ratio in ((0.3, 0.5), (2.5, 4.0), (-4.0, 30.0)):

        def both(d: float, z: float = z, ratio: float = ratio) -> float:
            return float(stats.norm.pdf(z - d) * stats.norm.pdf(d, 0, np.sqrt(ratio)))

        over, _ = integrate.quad(both, -60, 60)
        assert mixture_evidence(z, ratio) == pytest.approx(np.log(over / stats.norm.pdf(z)), abs=1e-6)


def test_reach_evidence_and_theorem_agree() -> None:
    ratio = np.geomspace(0.01, 1e5, 40)
    reach = mixture_reach(ratio, ALPHA)
    np.testing.assert_allclose(mixture_evidence(reach, ratio), np.log(1 / ALPHA))
    t, sigma, rho = 730.0, 1.7, 0.08  # theorem 2.2, in its own letters
    theirs = sigma * np.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * np.log(np.sqrt(t * rho**2 + 1) / ALPHA))
    assert mixture_reach(t * rho**2, ALPHA) * sigma / np.sqrt(t) == pytest.approx(theirs)
    assert np.isinf(mixture_reach(0.0, ALPHA)) and mixture_evidence(3.0, 0.0) == 0.0
    assert (reach > stats.norm.isf(ALPHA / 2)).all()  # never narrower than an interval for one look


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_the_best_ratio_is_the_best(alpha: float) -> None:
    found = optimize.minimize_scalar(lambda x: float(mixture_reach(np.exp(x), alpha)), bounds=(-3, 6), method="bounded")
    assert best_ratio(alpha) == pytest.approx(np.exp(found.x), rel=1e-3)
    with pytest.raises(UsageError):
        best_ratio(1.5)


# -- sums


def test_sums_of_finished_units_are_means_and_variances() -> None:
    y = np.random.default_rng(0).gamma(0.5, size=200)
    sums = Sums.of(y)
    for t in (1, 2, 50, 199):
        assert sums.ratio[t] == pytest.approx(y[: t + 1].mean())
        assert sums.variance[t] == pytest.approx(y[: t + 1].var(ddof=1))
    assert np.isnan(sums.variance[0]) and sums.n[-1] == 200 and sums.active[-1] == (y != 0).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 8))
def test_sums_by_unit_are_those_of_the_units_so_far(seed: int, n: int, n_units: int) -> None:
    rng = np.random.default_rng(seed)
    units, y, x = rng.integers(0, n_units, n), rng.integers(-1, 3, n).astype(float), rng.random(n)
    where = rng.random(n) < 0.7
    sums = Sums.of(y, x, units=units, where=where)
    for t in range(n):
        seen = [units[: t + 1] == u for u in range(n_units)]
        seen = [s & where[: t + 1] for s in seen if (s & where[: t + 1]).any()]
        gathered = np.array([[x[: t + 1][s].sum(), y[: t + 1][s].sum()] for s in seen]).reshape(-1, 2)
        gx, gy = gathered[:, 0], gathered[:, 1]
        assert sums.n[t] == len(seen) and sums.active[t] == (gy != 0).sum()
        wanted = [gx.sum(), gy.sum(), (gx * gx).sum(), (gx * gy).sum(), (gy * gy).sum()]
        np.testing.assert_allclose([s[t] for s in (sums.x, sums.y, sums.xx, sums.xy, sums.yy)], wanted, atol=1e-9)


def test_the_error_of_a_ratio_is_that_of_resampled_units() -> None:
    rng = np.random.default_rng(2)
    lists = rng.poisson(3, 3000) + 1
    clicks = rng.binomial(lists, rng.beta(1, 3, 3000))
    units = np.repeat(np.arange(3000), lists)
    y = np.concatenate([np.r_[np.ones(c), np.zeros(n - c)] for c, n in zip(clicks, lists, strict=True)])
    sums = Sums.of(y, units=units).at(slice(-1, None))
    error = np.sqrt(sums.variance[0] / sums.n[0])
    drawn = rng.integers(0, 3000, size=(2000, 3000))
    resampled = (clicks[drawn].sum(axis=1) / lists[drawn].sum(axis=1)).std()
    assert error == pytest.approx(resampled, rel=0.06)
    alone = Sums.of(y).at(slice(-1, None))
    assert error > 1.25 * np.sqrt(alone.variance[0] / alone.n[0])  # lists of one user are not independent


# -- means and their differences


def arms(rng: np.random.Generator, y: np.ndarray, share: float = 0.5) -> tuple[Sums, Sums]:
    treated = rng.random(len(y)) < share
    return Sums.of(y, where=treated), Sums.of(y, where=~treated)


def test_a_difference_has_the_error_of_welchs_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 3.0, 400), rng.normal(0.7, 1.0, 400)
    y, treated = np.concatenate([a, b]), np.arange(800) < 400
    track = difference(Sums.of(y, where=treated), Sums.of(y, where=~treated), effect=0.3)
    welch = stats.ttest_ind(a, b, equal_var=False)
    error = (a.mean() - b.mean()) / welch.statistic
    best = best_ratio(ALPHA)
    ratio = (0.3 / error) ** 2 * best / mixture_reach(best, ALPHA) ** 2
    assert track.estimate[-1] == pytest.approx(a.mean() - b.mean())
    assert track.evidence[-1] == pytest.approx(mixture_evidence(welch.statistic, ratio))
    assert track.high[-1] - track.estimate[-1] == pytest.approx(mixture_reach(ratio, ALPHA) * error)
    assert (track.high - track.low)[-1] / 2 > 1.96 * error


@pytest.mark.parametrize("name", ["coin", "rare, a small arm", "heavy tail"])
def test_differences_are_covered_at_all_times(name: str) -> None:
    rng = generator(2, name)
    n, missed, said = 1500, 0, 0
    for _ in range(STREAMS):
        treated = rng.random(n) < (0.1 if "small" in name else 0.5)
        y = {
            "coin": lambda t: (rng.random(n) < np.where(t, 0.6, 0.5)).astype(float),
            "rare, a small arm": lambda t: (rng.random(n) < np.where(t, 0.06, 0.05)).astype(float),
            "heavy tail": lambda t: np.exp(rng.normal(size=n)) * (1 + t),
        }[name](treated)
        truth = {"coin": 0.1, "rare, a small arm": 0.01, "heavy tail": np.exp(0.5)}[name]
        track = difference(Sums.of(y, where=treated), Sums.of(y, where=~treated), effect=max(truth, 0.05))
        missed += bool(((track.low > truth) | (track.high < truth)).any())
        said += bool(track.p[-1] <= ALPHA)
    assert missed / STREAMS <= MOST
    assert said > 0.3 * STREAMS or name == "rare, a small arm"


def test_users_who_come_back_do_not_cry_wolf() -> None:
    """Users differ and return. By unit the null is kept at all times; list by list it is not."""
    rng = generator(3, "returning")
    n, n_users, alarms = 2000, 150, np.zeros(2)
    for _ in range(300):
        users = rng.choice(n_users, size=n, p=rng.dirichlet(np.full(n_users, 0.7)))
        y = (rng.random(n) < rng.beta(0.4, 0.6, n_users)[users]).astype(float)
        treated = (rng.random(n_users) < 0.5)[users]
        for way, units in enumerate((users, None)):
            one, other = (Sums.of(y, units=units, where=w) for w in (treated, ~treated))
            alarms[way] += difference(one, other, effect=0.15).p[-1] <= ALPHA
    assert alarms[0] / 300 <= ALPHA + 0.03
    assert alarms[1] / 300 > 0.5


def test_a_mean_is_covered_and_says_nothing_too_early() -> None:
    rng = generator(4, "mean")
    missed = 0
    for _ in range(300):
        track = mean_sequence(Sums.of(rng.exponential(2.0, 1000)), effect=0.2, null=2.0)
        missed += bool(((track.low > 2.0) | (track.high < 2.0)).any())
    assert missed / 300 <= ALPHA + 0.03
    assert np.isinf(track.low[: LEAST - 1]).all() and np.isfinite(track.low[LEAST - 1 :]).all()
    np.testing.assert_array_equal((track.low > 2.0) | (track.high < 2.0), track.evidence >= np.log(1 / ALPHA))
    rare = np.zeros(1000)
    rare[::100] = 1.0
    assert np.isinf(mean_sequence(Sums.of(rare), effect=0.01).high).all()  # ten clicks are no limit theorem


def test_an_arm_that_fails_altogether_is_found() -> None:
    """No click at all leaves that arm without a variance; the evidence must neither wait for it nor explode."""
    rng = generator(5, "broken")
    treated = rng.random(60_000) < 0.05
    y = ((rng.random(60_000) < 0.02) & ~treated).astype(float)
    track = difference(Sums.of(y, where=treated), Sums.of(y, where=~treated), effect=0.004)
    assert track.p[-1] < ALPHA and track.high[-1] < 0
    assert track.p[3000] > ALPHA  # 150 lists without a click are nothing yet: 3 were expected


def test_a_small_arm_that_was_unlucky_borrows_the_variance_of_the_other() -> None:
    treated = np.arange(12_000) >= 11_900
    y = ((np.arange(12_000) % 3 == 0) & ~treated).astype(float)  # a hundred units, 33 clicks expected, none seen
    one, other = Sums.of(y, where=treated), Sums.of(y, where=~treated)
    track = difference(one, other, effect=0.1)
    pooled = y[~treated].var(ddof=1) * 11_900 / 12_000
    error = np.sqrt(pooled * (1 / 100 + 1 / 11_900))
    best = best_ratio(ALPHA)
    ratio = (0.1 / error) ** 2 * best / mixture_reach(best, ALPHA) ** 2
    assert (track.high - track.low)[-1] / 2 == pytest.approx(mixture_reach(ratio, ALPHA) * error)
    assert difference(other, one, effect=0.1).evidence[-1] == pytest.approx(track.evidence[-1])


def test_a_tolerated_loss_is_asked_for_by_weight() -> None:
    rng = generator(6, "guardrail")
    treated = rng.random(100_000) < 0.5
    y = (rng.random(100_000) < np.where(treated, 0.28, 0.3)).astype(float)
    one, other = Sums.of(y, where=treated), Sums.of(y, where=~treated)
    assert difference(one, other, effect=0.015).high[-1] < 0  # something is lost
    assert difference(one, other, effect=0.015, weight=0.85).low[-1] > 0  # not fifteen in a hundred
    strict = difference(one, other, effect=0.015, weight=0.98)
    assert strict.estimate[-1] == pytest.approx(one.ratio[-1] - 0.98 * other.ratio[-1]) and strict.high[-1] < 0


def test_the_lift_agrees_with_the_difference() -> None:
    rng = np.random.default_rng(7)
    y = rng.gamma(2.0, size=4000)
    one, other = arms(rng, y)
    effect = 0.1 * np.nan_to_num(other.ratio)
    track = difference(one, other, effect=effect)
    estimate, low, high = lift(one, other, effect=effect)
    assert estimate[-1] == pytest.approx(one.ratio[-1] / other.ratio[-1] - 1)
    later = slice(200, None)
    np.testing.assert_array_equal(((low > 0) | (high < 0))[later], ((track.low > 0) | (track.high < 0))[later])
    assert low[-1] == pytest.approx(track.low[-1] / other.ratio[-1], abs=0.02)
    assert (low <= estimate)[later].all() and (high >= estimate)[later].all()
    nothing = lift(*arms(rng, np.zeros(100)), effect=0.1)
    assert np.isnan(nothing[0]).all() and np.isinf(nothing[2]).all()


# -- bounded outcomes


def test_bounded_means_are_covered_at_all_times() -> None:
    rng = generator(8, "bounded")
    x = -1 + 3 * rng.beta(0.3, 0.9, size=(STREAMS, 1000))
    truth = -1 + 3 * 0.25
    centre, low, high = bounded_mean(x, bounds=(-1, 2), alpha=ALPHA)
    assert ((low > truth) | (high < truth)).any(axis=1).mean() <= MOST
    assert (low >= -1).all() and (high <= 2).all() and (high - low)[:, -1].mean() < 0.7
    assert abs(centre[:, -1].mean() - truth) < 0.02
    with pytest.raises(UsageError, match=r"between 0\.0 and 1\.0"):
        bounded_mean(np.array([0.5, 1.5]))


def test_a_stake_does_not_know_what_it_is_laid_on() -> None:
    """Another outcome at t changes nothing before t, and at t only through the outcome itself."""
    x = np.random.default_rng(0).random(50)
    changed = x.copy()
    changed[30] = 1 - changed[30]
    for ours, theirs in zip(bounded_mean(x), bounded_mean(changed), strict=True):
        np.testing.assert_array_equal(ours[:30], theirs[:30])
    by_hand, staked, surprise = 0.0, 0.0, 0.0
    mean, variance = 0.5, 0.25
    sums, squares = 0.0, 0.0
    for t, one in enumerate(x, 1):
        stake = min(np.sqrt(2 * np.log(2 / ALPHA) / (variance * t * np.log(1 + t))), 0.5)
        by_hand, staked = by_hand + stake * one, staked + stake
        surprise += (one - mean) ** 2 * (-np.log(1 - stake) - stake)
        sums += one
        mean = (0.5 + sums) / (t + 1)
        squares += (one - mean) ** 2
        variance = (0.25 + squares) / (t + 1)
    centre, low, _ = bounded_mean(x)
    assert centre[-1] == pytest.approx(by_hand / staked)
    assert low[-1] == pytest.approx(max(0, by_hand / staked - (np.log(2 / ALPHA) + surprise) / staked))


def test_bounded_differences_are_covered_and_wider_than_the_limit() -> None:
    rng = generator(9, "bounded difference")
    missed = 0
    for _ in range(300):
        treated = rng.random(1500) < 0.5
        y = (rng.random(1500) < np.where(treated, 0.5, 0.4)).astype(float)
        _, low, high = bounded_difference(y, treated)
        missed += bool(((low > 0.1) | (high < 0.1)).any())
    assert missed / 300 <= ALPHA + 0.03
    track = difference(Sums.of(y, where=treated), Sums.of(y, where=~treated), effect=0.1)
    assert (high - low)[-1] > 1.3 * (track.high - track.low)[-1]
    assert (low[0], high[0]) != (0.0, 0.0) and low[0] >= -1 and high[0] <= 1


# -- several comparisons


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0, 1)))
def test_the_correction_is_holms_at_every_moment(p: np.ndarray) -> None:
    np.testing.assert_allclose(adjusted(p), holm(p.T).T)


def test_p_values_only_fall() -> None:
    evidence = np.array([0.0, 1.0, -2.0, 3.0, 2.0])
    np.testing.assert_allclose(always_valid(evidence), np.exp([0.0, -1.0, -1.0, -3.0, -3.0]))
    assert always_valid(np.array([-5.0]))[0] == 1.0
