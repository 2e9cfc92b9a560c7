"""Tests and intervals that stay right however often one looks, for comparisons of systems on live traffic.

A fixed-sample p-value holds at one moment that was named before. Who watches a dashboard looks all the time and stops
when it pleases him, and would call one of two equal systems the better nearly every time, if only he waits. All that is
here holds at all moments at once: "the chance that the interval EVER misses the truth is at most alpha" (a confidence
sequence), "the chance that p EVER falls to alpha while nothing differs is at most alpha" (an always-valid p-value).

The instrument is evidence: a process that starts at 1 and is a fair game while nothing differs. By Ville's inequality
the chance that it ever reaches 1/alpha is at most alpha. It is kept here as its logarithm.

    counts       `counts_evidence`, `sign_test`, `win_share`: exact at every sample size
    means        `mean_sequence`, `difference`: unbounded outcomes, exact in the limit, hence a least number of units
    bounded      `bounded_mean`, `bounded_difference`: exact at every sample size, and wider for it

All are functions of cumulative sums, so the whole course can be drawn, and asked for anew at every event.

Units and ratios. A unit is what was dealt to an arm, often a user, who comes back: her lists are not independent, and
clicks per list treated as so many coin tosses call noise a finding. So `Sums` adds up by unit: x (lists) and y (clicks)
of each, and a ratio sum(y) / sum(x) has the variance of the units' residuals y - ratio * x (the delta method: Deng,
Knoblich, Lu, arXiv:1803.06336, section 3). The clock of the process is what is known, 1 / error^2, and not the number
of units: the two differ when old users bring new lists. A standardised course whose steps are independent on this clock
is a Brownian motion there; steps of one user that agree with her earlier ones make it cross less often (Slepian 1962).

Shapes: T moments, M comparisons; the last axis is time. Logarithms are natural.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tastemaker.evaluate.statistics import Floats
from tastemaker.types import UsageError

LEAST = 25  # units that differ from zero, expected in each arm, before the limit theorem is leant on
BET = 0.5  # the most that the empirical Bernstein sequence stakes


@dataclass(frozen=True, eq=False)
class Track:
    """An estimate over time, with its confidence sequence and the evidence that it is not the null value.

    Shapes: each [..., T]. Ends are infinite and evidence is 0 where nothing can be said yet.
    """

    estimate: Floats
    low: Floats
    high: Floats
    evidence: Floats

    @cached_property
    def p(self) -> Floats:
        """Always-valid p-values: they only fall, and under the null reach a level with at most that chance."""
        return always_valid(self.evidence)


def always_valid(evidence: NDArray[Any]) -> Floats:
    """P-values [..., T] of the largest evidence so far (Johari, Pekelis, Walsh, arXiv:1512.04922, section 3)."""
    highest = np.maximum.accumulate(np.asarray(evidence, dtype=np.float64), axis=-1)
    p: Floats = np.exp(-np.maximum(highest, 0.0))
    return p


def adjusted(p: NDArray[Any]) -> Floats:
    """Holm's correction over M comparisons at every moment: [M, T] -> [M, T].

    Each row is a p-value at any stopping time, so the corrected ones are too, and the chance that any of the true nulls
    is ever rejected stays below the level. Ref: Holm 1979; as `statistics.holm`, for all moments at once.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, axis=0, kind="stable")
    steps = np.arange(len(p), 0, -1, dtype=np.float64).reshape(-1, *[1] * (p.ndim - 1))
    raised = np.minimum(1.0, np.maximum.accumulate(np.take_along_axis(p, order, axis=0) * steps, axis=0))
    out = np.empty_like(p)
    np.put_along_axis(out, order, raised, axis=0)
    return out


# -- counts: exact


def counts_evidence(counts: NDArray[Any], shares: NDArray[Any], *, concentration: float = 600.0) -> Floats:
    """Log evidence [..., T] that counts [..., T, A] of A kinds do not come with the stated shares [A].

    The alternative is a Dirichlet mixture around the shares; the larger `concentration`, the smaller the deviations
    that it looks for: 600 stands for about two points in a hundred at shares of one half.

    With prior a = concentration * shares and counts c, n in all, it is the log of
    prod_k [G(a_k + c_k) / (G(a_k) shares_k^c_k)] * G(concentration) / G(concentration + n), G the gamma function.

    Ref: Lindon, Malek, "Anytime-valid inference for multinomial count data", arXiv:2011.03567 (the sequential
    multinomial test, used there against sample ratio mismatch).
    """
    counts, shares = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if counts.shape[-1:] != shares.shape or (shares <= 0).any() or not math.isclose(float(shares.sum()), 1.0):
        raise UsageError(f"shares are positive and add up to 1, one for each of {counts.shape[-1]}, got {shares}")
    prior = concentration * shares
    n = counts.sum(axis=-1)
    mixed = (special.gammaln(prior + counts) - special.gammaln(prior)).sum(axis=-1)
    mixed = mixed - special.gammaln(concentration + n) + special.gammaln(concentration)
    found: Floats = mixed - (counts * np.log(shares)).sum(axis=-1)
    return found


def sign_test(wins: NDArray[Any], losses: NDArray[Any], *, effect: float = 0.05) -> Floats:
    """Log evidence [..., T] that wins and losses (cumulative, ties apart) are no tosses of a fair coin.

    effect: how far from one half the share of wins is that one would not want to miss.

    Evidence is the log of 2^(w + l) B(a + w, a + l) / B(a, a).

    Ref: Robbins, "Statistical methods related to the law of the iterated logarithm", 1970; Howard, Ramdas, McAuliffe,
    Sekhon, arXiv:1810.08240 (the two-sided beta-binomial mixture).
    """
    return counts_evidence(np.stack([wins, losses], axis=-1), np.full(2, 0.5), concentration=2 * _beta(effect))


def win_share(
    wins: NDArray[Any], losses: NDArray[Any], *, effect: float = 0.05, alpha: float = 0.05
) -> tuple[Floats, Floats]:
    """Ends of the confidence sequence for the share of wins: shares that the evidence does not refuse.

    It leaves out one half exactly when `sign_test` has reached log(1 / alpha).
    """
    wins, losses = np.asarray(wins, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    a = _beta(effect)
    mixed = special.betaln(a + wins, a + losses) - special.betaln(a, a)
    centre = np.where(wins + losses > 0, wins / np.maximum(wins + losses, 1.0), 0.5)

    def end(outer: float) -> Floats:
        """Between the observed share, where the evidence is least, and 0 or 1, where it is endless."""
        kept, refused = centre.copy(), np.full_like(centre, outer)
        for _ in range(40):  # to 1e-12
            middle = (kept + refused) / 2
            against = mixed - special.xlogy(wins, middle) - special.xlog1py(losses, -middle)
            inside = against < -math.log(alpha)
            kept, refused = np.where(inside, middle, kept), np.where(inside, refused, middle)
        return refused

    return end(0.0), end(1.0)


def _beta(effect: float) -> float:
    """a of Beta(a, a) whose standard deviation is `effect`."""
    if not 0 < effect < 0.5:
        raise UsageError(f"an effect on a share of wins lies between 0 and 0.5, got {effect}")
    return (1 / (4 * effect**2) - 1) / 2


# -- the normal mixture


def best_ratio(alpha: float) -> float:
    """Of the mixture's variance to the error's: where its interval is narrowest for what is known.

    The root of d/dr [(1 + r) / r * log((1 + r) / alpha^2)] = 0 is r = -W(-alpha^2 / e) - 1, W Lambert's lower branch.

    Ref: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, arXiv:2103.06476, on the choice of rho.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha lies between 0 and 1, got {alpha}")
    return float(-special.lambertw(-(alpha**2) / math.e, -1).real) - 1


def mixture_reach(ratio: NDArray[Any] | float, alpha: float) -> Floats:
    """Half the width of the interval, in standard errors; infinite where the ratio is 0.

    sqrt((1 + r) / r * log((1 + r) / alpha^2)) for the ratio r.

    Ref: arXiv:2103.06476, theorem 2.2, where t rho^2 is the ratio and sigma / sqrt(t) the standard error.
    """
    ratio = np.asarray(ratio, dtype=np.float64)
    safe = np.where(ratio > 0, ratio, 1.0)
    reach = np.sqrt((1 + safe) / safe * (np.log1p(safe) - 2 * math.log(alpha)))
    found: Floats = np.where(ratio > 0, reach, np.inf)
    return found


def mixture_evidence(z: NDArray[Any] | float, ratio: NDArray[Any] | float) -> Floats:
    """Log evidence of a standardised difference z: log(1 / alpha) exactly where |z| is the reach.

    (z^2 r / (1 + r) - log(1 + r)) / 2: the likelihood of z under a normal mixture of effects over that under none.
    """
    z, ratio = np.asarray(z, dtype=np.float64), np.asarray(ratio, dtype=np.float64)
    found: Floats = 0.5 * (z**2 * ratio / (1 + ratio) - np.log1p(ratio))
    return found


def _track(estimate: Floats, error: Floats, effect: Floats | float, alpha: float, ready: NDArray[np.bool_]) -> Track:
    """The mixture tuned so that its interval is at its best when half its width is `effect`."""
    ready = ready & np.isfinite(error) & (error > 0) & np.isfinite(estimate)
    safe = np.where(ready, error, 1.0)
    ratio = _ratio(safe, effect, alpha)
    half = mixture_reach(ratio, alpha) * safe
    evidence = mixture_evidence(np.where(ready, estimate, 0.0) / safe, ratio)
    low, high = np.where(ready, estimate - half, -np.inf), np.where(ready, estimate + half, np.inf)
    return Track(estimate, low, high, np.where(ready, evidence, 0.0))


def _ratio(error: Floats, effect: Floats | float, alpha: float) -> Floats:
    best = best_ratio(alpha)
    scale = np.nan_to_num(np.abs(effect)) * math.sqrt(best) / float(mixture_reach(best, alpha))
    found: Floats = (scale / error) ** 2
    return found


# -- means and ratios


@dataclass(frozen=True, eq=False)
class Sums:
    """Cumulative sums over the units of an arm: all that a mean or a ratio and its error need.

    Shapes: each [T]
        n: units so far; active: those of them whose y is not 0
        x, y, xx, xy, yy: sums over units of each unit's x, y and their products
    """

    n: Floats
    active: Floats
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    @classmethod
    def of(
        cls,
        y: NDArray[Any],
        x: NDArray[Any] | None = None,
        *,
        units: NDArray[np.integer[Any]] | None = None,
        where: NDArray[np.bool_] | None = None,
    ) -> Sums:
        """Sums after each of T rows, in the order of time.

        Args:
            y, x: outcome and weight of each row [T]; x None: 1
            units: number of the unit each row belongs to [T]; None: every row is a unit of its own
            where: the rows that count [T], as those of an arm; the others leave the sums as they were
        """
        y = np.asarray(y, dtype=np.float64)
        x = np.ones_like(y) if x is None else np.asarray(x, dtype=np.float64)
        if where is not None:
            y, x = np.where(where, y, 0.0), np.where(where, x, 0.0)
        one = np.ones_like(y) if where is None else np.asarray(where, dtype=np.float64)
        if units is None:
            new, x0, y0 = one, np.zeros_like(x), np.zeros_like(y)
        else:
            before, x0, y0 = _earlier(np.asarray(units), one, x, y)
            new = one * (before == 0)
        x1, y1 = x0 + x, y0 + y
        awake = (y1 != 0).astype(np.float64) - (y0 != 0)
        steps = (new, awake, x, y, x1 * x1 - x0 * x0, x1 * y1 - x0 * y0, y1 * y1 - y0 * y0)
        return cls(*(np.cumsum(step) for step in steps))

    def at(self, moments: Any) -> Sums:
        """The sums at some of the moments."""
        return Sums(*(getattr(self, field.name)[moments] for field in fields(self)))

    @cached_property
    def ratio(self) -> Floats:
        """sum(y) / sum(x) [T]: the mean where x is 1; NaN before the first unit."""
        found: Floats = np.where(self.x > 0, self.y / np.where(self.x > 0, self.x, 1.0), np.nan)
        return found

    @cached_property
    def variance(self) -> Floats:
        """Of one unit's part in the ratio [T]: over n it is the ratio's squared error; NaN below two units."""
        enough = (self.n > 1) & (self.x > 0)
        ratio, n = np.where(enough, self.ratio, 0.0), np.where(enough, self.n, 2.0)
        residual = np.maximum(self.yy - 2 * ratio * self.xy + ratio**2 * self.xx, 0.0) / (n - 1)
        weight = np.where(enough, self.x, 1.0) / n
        found: Floats = np.where(enough, residual / weight**2, np.nan)
        return found


def _earlier(units: NDArray[np.integer[Any]], *columns: Floats) -> list[Floats]:
    """Of each column [T], what the row's unit had gathered before the row."""
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(units) else np.empty(0, dtype=np.int64)
    lengths = np.diff(np.r_[first, len(units)])
    found = []
    for column in columns:
        before = np.r_[0.0, np.cumsum(column[order])[:-1]] if len(units) else column
        out = np.empty_like(column)
        out[order] = before - np.repeat(before[first], lengths)
        found.append(out)
    return found


def mean_sequence(sums: Sums, *, effect: Floats | float, alpha: float = 0.05, null: float = 0.0) -> Track:
    """Confidence sequence for a mean or ratio; the evidence is against `null`.

    effect: the deviation, in the outcome's own measure, at which the interval is to be at its best.

    Ref: arXiv:2103.06476, theorem 2.2, on the clock of information (see above).
    """
    ready = (sums.n >= LEAST) & (sums.active >= LEAST)
    error = np.sqrt(sums.variance / np.maximum(sums.n, 1.0))
    shifted = _track(sums.ratio - null, error, effect, alpha, ready)
    return Track(sums.ratio, shifted.low + null, shifted.high + null, shifted.evidence)


def difference(
    treated: Sums, control: Sums, *, effect: Floats | float, alpha: float = 0.05, weight: float = 1.0
) -> Track:
    """Confidence sequence for treated - weight * control, means or ratios of two arms; the evidence is against 0.

    The arms' units are independent by assignment. With `weight` 0.98 one asks whether more than two in a hundred of the
    control's mean were lost. The error is the larger one of two: with a variance for each arm, and with one for both.
    In a small arm that was unlucky enough to see nothing yet the former is 0, and only the latter is to be believed.
    effect: as in `mean_sequence`; may change with time, as a share of the control's mean.

    Ref: arXiv:2103.06476, theorem 2.2 and section 3 (randomised experiments).
    """
    errors = _errors(treated, control, weight)
    estimate = treated.ratio - weight * control.ratio
    return _track(estimate, np.sqrt(errors[0] + weight**2 * errors[1]), effect, alpha, _ready(treated, control))


def lift(treated: Sums, control: Sums, *, effect: Floats | float, alpha: float = 0.05) -> tuple[Floats, Floats, Floats]:
    """treated / control - 1 with the ends of its interval [T], which knows that the control's mean is an estimate too.

    Ref: Fieller, "Some problems in interval estimation", 1954, with the reach of the sequence in the normal's place.
    """
    ready = _ready(treated, control) & (control.ratio != 0)
    first, second = (np.where(ready, error, 1.0) for error in _errors(treated, control, 1.0))
    error = np.sqrt(first + second)
    reach = mixture_reach(np.where(error > 0, _ratio(np.where(error > 0, error, 1.0), effect, alpha), 0.0), alpha)
    squared = np.where(np.isfinite(reach), reach, 0.0) ** 2
    m1, m0 = np.where(ready, treated.ratio, 0.0), np.where(ready, control.ratio, 1.0)
    known = m0**2 - squared * second
    bounded = ready & np.isfinite(reach) & (known > 0)
    known = np.where(bounded, known, 1.0)
    root = np.sqrt(np.maximum((m1 * m0) ** 2 - known * (m1**2 - squared * first), 0.0))
    ends = [(m1 * m0 + sign * root) / known - 1 for sign in (-1, 1)]
    low, high = np.where(bounded, np.minimum(*ends), -np.inf), np.where(bounded, np.maximum(*ends), np.inf)
    some = np.isfinite(control.ratio) & (control.ratio != 0)
    estimate = np.where(some, treated.ratio / np.where(some, control.ratio, 1.0) - 1, np.nan)
    return estimate, low, high


def _errors(treated: Sums, control: Sums, weight: float) -> tuple[Floats, Floats]:
    """Squared errors of the two means, of the larger kind."""
    n1, n0 = np.maximum(treated.n, 1.0), np.maximum(control.n, 1.0)
    shared = (n1 * treated.variance + n0 * control.variance) / (n1 + n0)
    own1, own0 = treated.variance / n1, control.variance / n0
    larger = own1 + weight**2 * own0 >= shared / n1 + weight**2 * shared / n0
    return np.where(larger, own1, shared / n1), np.where(larger, own0, shared / n0)


def _ready(treated: Sums, control: Sums) -> NDArray[np.bool_]:
    """Enough units, and enough of them active if both arms are alike: an arm that fails altogether must not wait."""
    fewer, both = np.minimum(treated.n, control.n), treated.n + control.n
    active = treated.active + control.active
    ready: NDArray[np.bool_] = (fewer >= LEAST) & (active * fewer >= LEAST * both)
    return ready


# -- bounded outcomes: exact


def bounded_mean(
    x: NDArray[Any], *, bounds: tuple[float, float] = (0.0, 1.0), alpha: float = 0.05
) -> tuple[Floats, Floats, Floats]:
    """Centre and ends of the empirical Bernstein confidence sequence for the mean of bounded outcomes [..., T].

    Ref: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", arXiv:2010.09686, theorem 2
    (predictable plug-in), with the stakes proposed beside it.
    """
    low, high = bounds
    x = (np.asarray(x, dtype=np.float64) - low) / (high - low)
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        least, most = low + (high - low) * x.min(), low + (high - low) * x.max()
        raise UsageError(f"outcomes lie between {low} and {high}, got some from {least:.6g} to {most:.6g}")
    t = np.arange(1, x.shape[-1] + 1)

    def before(values: Floats, first: float) -> Floats:
        """Values as they were a step earlier: a stake must not know what it is laid on."""
        return np.concatenate([np.full((*values.shape[:-1], 1), first), values[..., :-1]], axis=-1)

    mean = (0.5 + np.cumsum(x, axis=-1)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2, axis=-1)) / (t + 1)
    stake = np.minimum(np.sqrt(2 * math.log(2 / alpha) / (before(variance, 0.25) * t * np.log1p(t))), BET)
    surprise = 4 * (x - before(mean, 0.5)) ** 2 * (-np.log1p(-stake) - stake) / 4
    staked = np.cumsum(stake, axis=-1)
    centre = np.cumsum(stake * x, axis=-1) / staked
    half = (math.log(2 / alpha) + np.cumsum(surprise, axis=-1)) / staked
    scale = high - low
    ends = np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
    return low + scale * centre, low + scale * ends[0], low + scale * ends[1]


def bounded_difference(
    y: NDArray[Any], treated: NDArray[np.bool_], *, bounds: tuple[float, float] = (0.0, 1.0), alpha: float = 0.05
) -> tuple[Floats, Floats, Floats]:
    """Centre and ends [T] for mean(treated) - mean(control), exact at every sample size; outcomes [T] as they came.

    Each arm has an interval of its own at alpha / 2, so both are right at alpha. On a long run `difference` is about
    half as wide.
    """
    y, treated = np.asarray(y, dtype=np.float64), np.asarray(treated, dtype=np.bool_)
    width = bounds[1] - bounds[0]
    parts = []
    for arm in (treated, ~treated):
        found = bounded_mean(y[arm], bounds=bounds, alpha=alpha / 2)
        nothing = (bounds[0] + width / 2, *bounds)
        latest = np.cumsum(arm)  # of the arm's own moments, the last one by each moment; 0: none yet
        parts.append([np.r_[start, column][latest] for start, column in zip(nothing, found, strict=True)])
    (centre1, low1, high1), (centre0, low0, high0) = parts
    return centre1 - centre0, low1 - high0, high1 - low0
