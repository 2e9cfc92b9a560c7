"""What a difference is worth: intervals by bootstrap, paired tests, and corrections for many comparisons.

U users (requests), M columns (metrics, or systems x metrics), R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import special

from tastemaker.types import UsageError, generator, mix, progress

Floats = NDArray[np.float64]
BLOCK_BYTES = 32 * 2**20
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def bootstrap(
    values: NDArray[Any], *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Ends of the percentile interval for the mean of each column; NaN values are left out of their column.

    The users are drawn with replacement, the same draw for all columns; resample r depends on `seed` and r alone.

    Shapes: values [U, M] (or [U]); returns low [M], high [M]. NaN where a column has no value.
    Ref: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    values = np.asarray(values, dtype=np.float64)
    table = values[:, None] if values.ndim == 1 else values
    n_users, n_columns = table.shape
    if not 0 < level < 1:
        raise UsageError(f"a level lies between 0 and 1, got {level}")
    if n_users == 0:
        return np.full(n_columns, np.nan), np.full(n_columns, np.nan)
    there = ~np.isnan(table)
    whole = bool(there.all())
    filled = table if whole else np.where(there, table, 0.0)
    centre = filled.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    filled = np.where(there, filled - centre, 0.0)  # small numbers keep their digits in the sums
    means = np.empty((resamples, n_columns))
    block = max(1, min(resamples, BLOCK_BYTES // (8 * n_users)))
    weights = np.empty((block, n_users))
    seeds = mix(np.arange(resamples), seed)
    for start in range(0, resamples, block):
        part = weights[: min(block, resamples - start)]
        _draw(seeds[start : start + len(part)], part)
        counts = float(n_users) if whole else part @ there.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may miss all values of a column
            means[start : start + len(part)] = part @ filled / counts
    tail = (1 - level) / 2
    ends = np.full((2, n_columns), np.nan)
    some = there.any(axis=0)
    if some.any():
        ends[:, some] = np.nanquantile(means[:, some], [tail, 1 - tail], axis=0) + centre[some]
    return ends[0], ends[1]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def below(state: np.uint64, n: np.uint64) -> np.uint64:
    """A number below n (up to 2^32) from one state of splitmix64, whose states step by `GOLDEN`."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(32)) * n) >> np.uint64(32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(seeds: NDArray[np.uint64], weights: Floats) -> None:
    """Multinomial counts: how often each user is drawn in each resample."""
    n_users = np.uint64(weights.shape[1])
    for r in range(len(seeds)):
        weights[r] = 0.0
        state = seeds[r]
        for _ in range(weights.shape[1]):
            state += GOLDEN
            weights[r, below(state, n_users)] += 1.0


def paired_t(differences: NDArray[Any]) -> Floats:
    """Two-sided p-values of the paired t test [M] of differences [U, M]; NaN differences are left out."""
    table = _columns(differences)
    there = ~np.isnan(table)
    n = there.sum(axis=0)
    safe = np.maximum(n, 1)
    mean = np.where(there, table, 0.0).sum(axis=0) / safe
    squares = np.where(there, table - mean, 0.0) ** 2
    error = np.sqrt(squares.sum(axis=0) / np.maximum(n - 1, 1) / safe)
    flat = error <= 1e-12 * np.abs(mean)  # no variance: all differences are the same number
    statistic = mean / np.where(flat, 1.0, error)
    p = 2 * special.stdtr(np.maximum(n - 1, 1), -np.abs(statistic))
    p = np.where(flat, np.where(mean == 0, 1.0, 0.0), p)
    return np.where(n < 2, np.nan, p)


def t_interval(differences: Floats, level: float = 0.95) -> tuple[float, float]:
    """The mean of paired differences [N], and half its t interval; NaN differences are left out.

    Half is NaN with fewer than two differences, the mean too without any.
    """
    there = differences[~np.isnan(differences)]
    if len(there) < 2:
        return (float(there.mean()) if len(there) else math.nan), math.nan
    reach = special.stdtrit(len(there) - 1, (1 + level) / 2) * there.std(ddof=1) / math.sqrt(len(there))
    return float(there.mean()), float(reach)


def paired_permutation(
    values: NDArray[Any],
    pairs: Sequence[tuple[int, int]] | None = None,
    *,
    permutations: int = 10_000,
    seed: int = 0,
) -> Floats:
    """Two-sided p-values of the paired permutation test on the mean difference.

    Under the null hypothesis each user's difference may as well have the other sign. All sign patterns are
    tried where there are no more than `permutations` of them; otherwise that many are drawn, the same for all
    pairs, and the observed one is counted in, so that p is never 0.

    Shapes: without `pairs`, values [U, M] are differences and M p-values return; with `pairs`, values [U, C]
    are columns to compare and one p-value a pair returns, at the cost of C columns however many pairs.
    Ref: Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, 2005; Phipson, Smyth 2010.
    """
    table = _columns(values)
    if np.isnan(table).any():
        raise UsageError("the permutation test takes whole columns: leave out users without a value first")
    n_users = len(table)
    if pairs is None:
        left, right = np.arange(table.shape[1]), None
    else:
        left, right = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
        table = table - table.mean(axis=1, keepdims=True)  # what all columns share cancels in the differences

    def sums(flipped: Floats) -> Floats:
        return flipped[:, left] if right is None else flipped[:, left] - flipped[:, right]

    total = table.sum(axis=0, keepdims=True)
    observed = np.abs(sums(total))[0]
    scale = np.abs(table).sum(axis=0)
    reach = observed - 1e-12 * (scale[left] + (0.0 if right is None else scale[right]))  # equal but for rounding
    exact = n_users < 63 and 2**n_users <= permutations
    n = 2**n_users if exact else permutations
    rng = generator(seed, "paired permutation")
    block = max(64, BLOCK_BYTES // (8 * max(1, n_users)) // 8 * 8)
    extreme = np.zeros(len(left), dtype=np.int64)
    with progress("permutation test", n) as advance:
        for start in range(0, n, block):
            size = min(block, n - start)
            if exact:
                bits: NDArray[Any] = (np.arange(start, start + size)[:, None] >> np.arange(n_users)) & 1
            else:
                drawn = np.frombuffer(rng.bytes(size * -(-n_users // 8)), dtype=np.uint8).reshape(size, -1)
                bits = np.unpackbits(drawn, axis=1, count=n_users)
            flipped = 2.0 * (bits.astype(np.float64) @ table) - total
            extreme += (np.abs(sums(flipped)) >= reach).sum(axis=0)
            advance(size)
    return extreme / n if exact else (1 + extreme) / (1 + n)


def holm(p: NDArray[Any]) -> Floats:
    """P-values adjusted so that the chance of any false alarm among them stays below the level.

    Shapes: [..., M] -> [..., M], adjusted along the last axis; NaN stays NaN and is not counted.
    Ref: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """

    def adjust(ordered: Floats) -> Floats:
        n = len(ordered)
        return np.minimum(1.0, np.maximum.accumulate(ordered * (n - np.arange(n))))

    return _adjusted(p, adjust)


def benjamini_hochberg(p: NDArray[Any]) -> Floats:
    """P-values adjusted so that the expected share of false alarms among the findings stays below the level.

    Shapes: [..., M] -> [..., M], adjusted along the last axis; NaN stays NaN and is not counted.
    Ref: Benjamini, Hochberg, Controlling the false discovery rate, 1995.
    """

    def adjust(ordered: Floats) -> Floats:
        n = len(ordered)
        return np.minimum(1.0, np.minimum.accumulate((ordered * n / np.arange(1, n + 1))[::-1])[::-1])

    return _adjusted(p, adjust)


def _adjusted(p: NDArray[Any], adjust: Any) -> Floats:
    def row(values: Floats) -> Floats:
        there = np.flatnonzero(~np.isnan(values))
        order = there[np.argsort(values[there], kind="stable")]
        out = np.full(len(values), np.nan)
        out[order] = adjust(values[order])
        return out

    p = np.asarray(p, dtype=np.float64)
    return np.apply_along_axis(row, -1, p) if p.size else p


def _columns(values: NDArray[Any]) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    return table[:, None] if table.ndim == 1 else table
