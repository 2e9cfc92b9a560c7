"""Vectors of items as short tuples of codes: residual k-means, plain or with clusters of one size; hashes and chance
as controls; and what is done about items that get the same tuple.

Each level's codes name the nearest of K vectors; the next level looks at what is left over (the residual). The
learned way is in `tastemaker.nn.rqvae`.

I items, W width, Q levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.types import UsageError, generator, mix
from tastemaker.types.codes import Ints, ranks

Floats = NDArray[np.float32]
How = Literal["kmeans", "balanced", "lsh", "random"]
BLOCK = 1 << 24  # distances held at once
EPSILON, ROUNDS, REPAIRS = 0.003, 50, 20  # of LC-Rec


def quantised(
    vectors: Floats, how: How, n_levels: int, size: int, *, seed: int = 0, iterations: int = 25
) -> dict[str, NDArray[Any]]:
    """Codes of items, and what gives further items theirs.

    Args:
        how: "kmeans": residual k-means; "balanced": with clusters of one size, give or take an item; "lsh": the sides
            of random planes on which a vector lies, no residual; "random": drawn, whatever the vector.
        size: codes of a level at most; "lsh" uses the largest power of 2 that is no larger.

    Returns "codes" [I, Q] int64; "mean" and "scale" [W], by which vectors are standardised; "centres" [Q, K, W], or
    for "lsh" the planes [Q, log2 K, W], and for "random" nothing.

    Ref: residual k-means: Chen, Guan, Wang, "Approximate nearest neighbor search by residual vector quantization",
        Sensors 2010; for codes of items: Ju et al., "Generative recommendation with semantic IDs", arXiv:2507.22224;
        planes and chance as controls: Rajput et al., arXiv:2305.05065, section 4.2.
    """
    if n_levels < 1 or size < 2:
        raise UsageError(f"codes need a level and two codes in it, got {n_levels} levels of {size}")
    rng = generator(seed, "codes")
    mean, scale = vectors.mean(axis=0), max(float(vectors.std()), 1e-12)
    state = {"mean": mean.astype(np.float32), "scale": np.array([scale], dtype=np.float32)}
    left = (vectors - mean) / np.float32(scale)
    if how == "random":
        empty = np.zeros((n_levels, size, 0), dtype=np.float32)
        return {**state, "codes": rng.integers(0, size, (len(vectors), n_levels)), "centres": empty}
    if how == "lsh":
        bits = int(np.log2(size))
        state["centres"] = rng.standard_normal((n_levels, bits, vectors.shape[1])).astype(np.float32)
        return {**state, "codes": coded(vectors, state, how)}
    centres, codes = np.zeros((n_levels, size, vectors.shape[1]), dtype=np.float32), []
    for level in range(n_levels):
        centres[level] = kmeans(left, size, rng, iterations=iterations, balanced=how == "balanced")
        near = balanced_nearest(left, centres[level]) if how == "balanced" else nearest(left, centres[level])
        codes.append(near)
        left = left - centres[level][near]
    return {**state, "codes": np.stack(codes, axis=1), "centres": centres}


def coded(vectors: Floats, state: Mapping[str, NDArray[Any]], how: How, first: int = 0) -> Ints:
    """Codes [n, Q] of vectors, by what `quantised` learnt; for "random", of the items numbered `first` and on."""
    centres = state["centres"]
    if how == "random":
        n = np.arange(first, first + len(vectors), dtype=np.uint64)
        return np.stack([mix(n, 1 + q) % np.uint64(centres.shape[1]) for q in range(len(centres))], 1).astype(np.int64)
    left = (vectors - state["mean"]) / state["scale"]
    if how == "lsh":
        sides = np.einsum("iw,qbw->iqb", left, centres, optimize=True) > 0
        found: Ints = sides.astype(np.int64) @ (1 << np.arange(centres.shape[1]))
        return found
    codes = []
    for level in centres:
        codes.append(nearest(left, level))
        left = left - level[codes[-1]]
    return np.stack(codes, axis=1)


def residuals(vectors: Floats, state: Mapping[str, NDArray[Any]], codes: Ints) -> Floats:
    """What is left of standardised vectors [I, W] after the levels of `codes` [I, q]."""
    left: Floats = (vectors - state["mean"]) / state["scale"]
    for level, column in zip(state["centres"], codes.T, strict=False):
        left = left - level[column]
    return left


# -- clusters


def kmeans(x: Floats, k: int, rng: np.random.Generator, *, iterations: int = 25, balanced: bool = False) -> Floats:
    """Centres [k, W] of clusters of rows [n, W]; rows where there are fewer different ones than that.

    The first centres are drawn one after the other in proportion to their squared distance from those before; a
    centre that loses all its rows takes the row that lies farthest from its own.

    Ref: Lloyd, "Least squares quantization in PCM", 1982; Arthur, Vassilvitskii, "k-means++", SODA 2007.
    """
    centres = _spread_out(x, k, rng)
    before: Ints | None = None
    for _ in range(iterations):
        near = balanced_nearest(x, centres) if balanced else nearest(x, centres)
        if before is not None and np.array_equal(near, before):
            break
        before = near
        counts = np.bincount(near, minlength=k)
        members = sp.csr_array((np.ones(len(x), dtype=np.float32), (near, np.arange(len(x)))), shape=(k, len(x)))
        centres = np.asarray(members @ x / np.maximum(counts, 1)[:, None], dtype=np.float32)
        if (empty := np.flatnonzero(counts == 0)).size:
            away = np.square(x - centres[near]).sum(axis=1)
            taken = np.argsort(-away, kind="stable")[: len(empty)]
            centres[empty[: len(taken)]] = x[taken]
    return centres


def nearest(x: Floats, centres: Floats) -> Ints:
    """The nearest centre of each row [n], the first of equals."""
    lengths = np.square(centres).sum(axis=1)
    found = np.empty(len(x), dtype=np.int64)
    step = max(1, BLOCK // len(centres))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        found[rows] = (lengths - 2 * (x[rows] @ centres.T)).argmin(axis=1)
    return found


def balanced_nearest(x: Floats, centres: Floats) -> Ints:
    """A centre for each row [n], each centre having n / K rows, rounded down or up: near ones, as far as there is room.

    Rows ask for the nearest centre that might take them; a full centre keeps the nearest of those that asked, and
    never takes a farther one again. What comes out is stable: no row and centre would both rather have each other.

    Ref: Gale, Shapley, "College admissions and the stability of marriage", American Mathematical Monthly 1962.
    """
    n, k = len(x), len(centres)
    away = np.square(x).sum(axis=1)[:, None] + np.square(centres).sum(axis=1) - 2 * (x @ centres.T)
    wanted = np.bincount(away.argmin(axis=1), minlength=k)
    room = np.full(k, n // k)
    room[np.argsort(-wanted, kind="stable")[: n % k]] += 1
    limit = np.where(room > 0, np.inf, -np.inf)  # a centre takes rows that are nearer than this
    held = np.full(n, -1)
    while (free := np.flatnonzero(held < 0)).size:
        open_to = np.where(away[free] < limit, away[free], np.inf)
        choice = open_to.argmin(axis=1)
        stuck = np.isinf(open_to[np.arange(len(free)), choice])
        if stuck.any():  # rows that lie as near as the farthest ones held: any centre with room
            spare = np.repeat(np.arange(k), np.maximum(room - np.bincount(held[held >= 0], minlength=k), 0))
            lost = free[stuck]
            held[lost] = spare[: len(lost)]
            free, choice = free[~stuck], choice[~stuck]
        held[free] = choice
        order = np.lexsort((away[np.arange(n), np.maximum(held, 0)], held))
        order = order[held[order] >= 0]
        groups = held[order]
        begins = np.searchsorted(groups, np.arange(k))
        rank = np.arange(len(order)) - begins[groups]
        held[order[rank >= room[groups]]] = -1
        full = np.bincount(groups, minlength=k) >= np.maximum(room, 1)
        last = order[np.minimum(begins + room - 1, len(order) - 1)]
        limit = np.where(full & (room > 0), away[last, np.arange(k)], limit)
    return held


def _spread_out(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Rows drawn as first centres [k, W]."""
    picked = np.empty(k, dtype=np.int64)
    lengths = np.square(x).sum(axis=1)
    away = np.full(len(x), np.inf)
    for n, draw in enumerate(rng.random(k)):
        mass = np.cumsum(np.ones(len(x)) if n == 0 else away)
        picked[n] = min(np.searchsorted(mass, draw * mass[-1], side="right"), len(x) - 1)
        row = x[picked[n]]
        away = np.minimum(away, np.maximum(lengths - 2 * (x @ row) + row @ row, 0))
    return x[picked]


# -- items with the same tuple


def with_digit(codes: Ints, size: int, n_codes: int) -> Ints:
    """Codes [I, Q + 1] with a last digit that counts the items of each tuple, in the order of their numbers.

    Where more than `size` items have one tuple, the others get the next code of the last level before the digit that
    has room.

    Ref: arXiv:2305.05065, section 3.1 ("Handling collisions").

    Raises:
        UsageError: there are more items than tuples with the first codes that they have.
    """
    codes = codes.copy()
    for _ in range(n_codes):
        digits = ranks(codes)
        over = digits >= size
        if not over.any():
            return np.concatenate([codes, digits[:, None]], axis=1)
        codes[over, -1] = (codes[over, -1] + 1) % n_codes
    raise UsageError(
        f"{size} digits do not tell apart the items of one tuple", hint="more digits, levels or codes a level"
    )


def digits_for(codes: Ints, old: Ints, size: int, n_codes: int) -> Ints:
    """Codes [n, Q + 1] of further items, whose digits go on where those of the old codes [I, Q + 1] end."""
    whole = np.concatenate([old[:, :-1], codes])
    taken = np.concatenate([old[:, -1], np.full(len(codes), -1)])
    for _ in range(n_codes):
        _, groups = np.unique(whole, axis=0, return_inverse=True)
        groups = groups.ravel()
        highest = np.full(groups.max(initial=0) + 1, -1)
        np.maximum.at(highest, groups, taken)
        fresh = highest[groups[len(old) :]] + 1 + ranks(codes)
        over = fresh >= size
        if not over.any():
            return np.concatenate([codes, fresh[:, None]], axis=1)
        codes = codes.copy()
        codes[over, -1] = (codes[over, -1] + 1) % n_codes
        whole[len(old) :] = codes
    raise UsageError(f"{size} digits do not tell apart the items of one tuple", hint="fit anew, with more digits")


def spread_last(codes: Ints, left: Floats, centres: Floats, *, repairs: int = REPAIRS) -> Ints:
    """Codes [I, Q] in which items that shared a tuple have last codes of their own, as far as `repairs` rounds go.

    A round takes the items of each shared tuple as a batch and deals the last level's codes to them by `sinkhorn`.

    Shapes: left [I, W], what the levels before the last leave over; centres [K, W] of the last level.
    Ref: Zheng et al., "Adapting large language models by integrating collaborative semantics for recommendation"
        (LC-Rec), arXiv:2311.09049, section III-B.
    """
    codes = codes.copy()
    for _ in range(repairs):
        _, groups, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
        groups = groups.ravel()
        shared = np.flatnonzero(counts[groups] > 1)
        if not len(shared):
            break
        shared = shared[np.argsort(groups[shared], kind="stable")]
        sizes = counts[counts > 1]
        rows = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(shared)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        x = left[shared]
        away = np.square(x).sum(axis=1)[:, None] + np.square(centres).sum(axis=1) - 2 * (x @ centres.T)
        padded = np.full((len(sizes), int(sizes.max()), len(centres)), np.nan)
        padded[rows, places] = away
        codes[shared, -1] = sinkhorn(padded)[rows, places].argmax(axis=1)
    return codes


def sinkhorn(away: NDArray[np.float64], *, epsilon: float = EPSILON, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """Shares [G, m, K] in which the rows of each group take codes, all codes being taken as much as one another.

    The distances of a group are brought to [-1, 1]; exp(-distance / epsilon) is then scaled, columns to 1 / K and
    rows to 1 / m in turn. In logarithms, so that nothing is lost to 0.

    Shapes: away [G, m, K] squared distances; a row of NaN fills a smaller group.
    Ref: Cuturi, "Sinkhorn distances", NeurIPS 2013, arXiv:1306.0895.
    """
    there = ~np.isnan(away[:, :, :1])
    low, high = (f(away, axis=(1, 2), keepdims=True) for f in (np.nanmin, np.nanmax))
    half = np.maximum((high - low) / 2, 1e-12)
    logs = np.where(there, -((away - (low + high) / 2) / half) / epsilon, -np.inf)
    n_rows, k = there.sum(axis=1, keepdims=True), away.shape[2]
    for _ in range(rounds):
        logs = logs - _log_sum(logs, 1) - np.log(k)
        logs = np.where(there, logs - _log_sum(np.where(there, logs, 0.0), 2) - np.log(n_rows), -np.inf)
    return np.exp(logs)


def _log_sum(logs: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    highest = logs.max(axis=axis, keepdims=True)
    summed: NDArray[np.float64] = highest + np.log(np.exp(logs - highest).sum(axis=axis, keepdims=True))
    return summed


# -- what codes are worth


def code_figures(codes: Ints, sizes: tuple[int, ...]) -> dict[str, float]:
    """How codes [I, Q] are used: "collisions", the share of items whose tuple another one has too; of each level from
    1 on "usage n", the share of its codes that occur, and "perplexity n", how many codes used alike would say as much.
    """
    told = {"collisions": float((_group_sizes(codes) > 1).mean()) if len(codes) else 0.0}
    for level, (column, size) in enumerate(zip(codes.T, sizes, strict=True), 1):
        shares = np.bincount(column, minlength=size) / max(1, len(column))
        shares = shares[shares > 0]
        told[f"usage {level}"] = len(shares) / size
        told[f"perplexity {level}"] = float(np.exp(-(shares * np.log(shares)).sum()))
    return told


def reconstruction_error(vectors: Floats, state: Mapping[str, NDArray[Any]], codes: Ints) -> float:
    """The share of the vectors' variance that the centres of their codes leave over."""
    before = (vectors - state["mean"]) / state["scale"]
    return float(np.square(residuals(vectors, state, codes)).sum() / max(np.square(before).sum(), 1e-12))


def _group_sizes(codes: Ints) -> Ints:
    """How many items have the tuple of each [I]."""
    _, groups, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(counts[groups.ravel()])
