"""The off-policy protocol: what a policy would have earned, from what was logged while another one chose.

N trials, K slots, A items; w = pi(a|x) / mu(a|x), the target's probability of what was shown over the logging policy's.

| estimator | a trial's term | where it errs |
|---|---|---|
| ips | w r | variance, where the policies differ |
| snips | w r / mean(w) | a bias that falls with N, bounded by the rewards |
| clipped_ips | min(w, c) r | too low where weights are cut, rewards being positive |
| dm | sum_a pi(a|x) q(x, a) | wherever the reward model q does |
| dr | dm + w (r - q(x, a)) | variance of the model's errors only; right if either model or propensities are |
| iips (slates) | sum_k w_k r_k | where a slot's reward depends on the other slots |
| pi (slates) | q_pi' Gamma^+ 1_s times the slate's reward | where the slate's reward is no sum over slots |

Ref: ips: Horvitz, Thompson, JASA 1952; snips: Swaminathan, Joachims, NeurIPS 2015; clipped: Ionides, JCGS 2008; dr:
Dudik, Langford, Li, arXiv:1103.4601; iips: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay, Wen, arXiv:1804.10488; pi:
Swaminathan, Krishnamurthy, Agarwal, Dudik, Langford, Jose, Zitouni, arXiv:1605.04812. Intervals: the bootstrap over
trials, and the empirical Bernstein bound of Maurer, Pontil, arXiv:0907.3740, theorem 4, which holds at every N.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.candidates import fingerprint
from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.report import SLICE_COLUMNS, Report, Statistics
from tastemaker.evaluate.subject import Subject
from tastemaker.simulate.logged import Logged
from tastemaker.types import NotFound, Slates, UsageError, generator, nearest
from tastemaker.types.meter import machine, metered

Floats = NDArray[np.float64]
ESTIMATORS: Mapping[str, Metric] = {
    "ips": Metric("ips", "IPS", "Mean reward, each trial weighed by how much likelier the policy is to show its item."),
    "snips": Metric("snips", "SNIPS", "IPS divided by the mean weight."),
    "clipped_ips": Metric("clipped_ips", "Clipped IPS", "IPS with weights cut at a largest one."),
    "dm": Metric("dm", "Direct method", "The reward that a model of rewards expects of the policy."),
    "dr": Metric("dr", "Doubly robust", "The direct method, its errors on the log put right by IPS."),
    "iips": Metric("iips", "Independent IPS", "IPS of every slot by itself, summed."),
    "pi": Metric("pi", "Pseudo-inverse", "IPS of slates whose reward is a sum over slots."),
}
ONE_SLOT = ("ips", "snips", "clipped_ips", "dm", "dr")
SLATES = ("ips", "snips", "clipped_ips", "iips", "pi")


def off_policy(
    log: Logged,
    target: Any,
    *,
    estimators: Sequence[str] | None = None,
    model: NDArray[Any] | None = None,
    clip: float = 10.0,
    logging: tuple[NDArray[Any], NDArray[Any]] | None = None,
    name: str | None = None,
    tuning: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
    seed: int = 0,
) -> Report:
    """Estimate what a policy would have earned a trial, and return a Report.

    Args:
        log: what was shown, with propensities.
        target: a bundle or system (it shows the best item of its list), Slates of one list a trial, or probabilities:
            [A] the same for all trials, [N, A], or of slates [N, K, A], slot by slot.
        estimators: names in `ESTIMATORS`; None: all that suit the number of slots.
        model: rewards [N, A] that a model expects, for dm and dr; None: `cross_fitted` means of each item.
        clip: the largest weight of clipped_ips.
        logging: for pi, slates [M, K] and probabilities [M] of a logging policy that is no product over slots.
        name: what the report calls the policy.

    Raises:
        NotFound: an estimator is unknown.
        UsageError: arguments do not fit together.
    """
    statistics = statistics or Statistics(seed=seed)
    wanted = list(estimators or (ONE_SLOT if log.k == 1 else SLATES))
    for one in wanted:
        if one not in ESTIMATORS:
            raise NotFound(f"there is no estimator {one!r}", hint=nearest(one, ESTIMATORS))
    if unfit := set(wanted) - set(ONE_SLOT if log.k == 1 else SLATES):
        raise UsageError(f"{', '.join(sorted(unfit))} cannot be had of trials of {log.k} slots")
    if not len(log):
        raise UsageError("the log has no trial, so there is nothing to estimate from")
    if not clip > 0:
        raise UsageError(f"the largest weight is above 0, got {clip}")
    with metered() as cost:
        about, chances = _chances(log, target, name, tuning)
        slots = np.take_along_axis(chances, log.items[:, :, None].astype(np.int64), 2)[:, :, 0] / log.propensities
        weights, rewards = slots.prod(axis=1), log.rewards.sum(axis=1)
        if model is None and {"dm", "dr"} & set(wanted):
            model = cross_fitted(log, seed=seed)
        rows: dict[str, Floats] = {}
        for one in wanted:
            if one in ("dm", "dr"):
                assert model is not None
                rows[one] = (direct if one == "dm" else doubly_robust)(weights, rewards, chances[:, 0], log, model)
            elif one == "pi":
                rows[one] = pseudo_inverse_weights(slots, log.items, chances, logging) * rewards
            elif one == "iips":
                rows[one] = (slots * log.rewards).sum(axis=1)
            else:
                rows[one] = SIMPLE[one](weights, rewards, clip)
        found = diagnostics(weights, clip)
        bounds = _bounds(wanted, chances, log, clip)
        slices = [
            [
                "interval",
                "empirical Bernstein",
                len(log),
                one,
                float(rows[one].mean()),
                *bernstein(rows[one], ends, how),
            ]
            for (one, ends), how in zip(bounds.items(), [statistics.level] * len(bounds), strict=True)
        ]
    return Report(
        system=about,
        split={"name": "log", "part": None, "cases": fingerprint(log.items, log.rewards, log.propensities)},
        protocol={
            "kind": "off-policy",
            "requests": len(log),
            "slots": log.k,
            "catalogue": log.n_items,
            "clip": clip,
            "model": None if not {"dm", "dr"} & set(wanted) else "given or cross-fitted means",
            "seed": seed,
            "logged": float(log.rewards.sum(axis=1).mean()),
            "diagnostics": found,
            "facts": [
                f"{len(log):,} logged trials",
                f"{log.n_items:,} items",
                f"{found['effective']:,.0f} trials in effect",
                f"largest weight {found['largest']:,.1f}",
                f"{found['clipped']:.1%} of the weights above {clip:g}",
            ],
        },
        requests=pl.DataFrame({"request": np.arange(len(log))}),
        rows={one: terms.astype(np.float32) for one, terms in rows.items()},
        totals={},
        glossary={one: ESTIMATORS[one] for one in wanted},
        slices=pl.DataFrame(slices, schema=SLICE_COLUMNS, orient="row"),
        cost={"seconds": cost.seconds, "cpu_seconds": cost.cpu_seconds, "peak_mb": cost.peak_mb},
        machine=machine(),
        warnings=tuple(_warnings(found, len(log))),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        statistics=statistics,
    )


# -- estimators: one term a trial [N], whose mean is the estimate


def ips(weights: Floats, rewards: Floats, clip: float = math.inf) -> Floats:
    """w r."""
    return weights * rewards


def clipped_ips(weights: Floats, rewards: Floats, clip: float) -> Floats:
    """min(w, clip) r."""
    return np.minimum(weights, clip) * rewards


def snips(weights: Floats, rewards: Floats, clip: float = math.inf) -> Floats:
    """v + w (r - v) / mean(w), where v = sum(w r) / sum(w).

    The second part's mean is 0, so the estimate is v; and the terms vary as v does when trials are drawn anew (they are
    its influence function), so that intervals over them are intervals of the ratio.
    """
    mean = weights.mean()
    if mean == 0:
        return np.full(len(weights), np.nan)
    value = (weights * rewards).mean() / mean
    terms: Floats = value + weights * (rewards - value) / mean
    return terms


SIMPLE = {"ips": ips, "clipped_ips": clipped_ips, "snips": snips}


def direct(weights: Floats, rewards: Floats, chances: Floats, log: Logged, model: NDArray[Any]) -> Floats:
    """sum_a pi(a|x) q(x, a); chances, model [N, A]."""
    expected: Floats = np.einsum("na,na->n", chances, np.asarray(model, dtype=np.float64))
    return expected


def doubly_robust(weights: Floats, rewards: Floats, chances: Floats, log: Logged, model: NDArray[Any]) -> Floats:
    """sum_a pi(a|x) q(x, a) + w (r - q(x, shown))."""
    shown = np.take_along_axis(np.asarray(model, dtype=np.float64), log.items.astype(np.int64), 1)[:, 0]
    return direct(weights, rewards, chances, log, model) + weights * (rewards - shown)


def pseudo_inverse_weights(
    slots: Floats,
    items: NDArray[np.int32],
    chances: Floats,
    logging: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Floats:
    """q_pi' Gamma^+ 1_s of each trial [N]: what a slate's reward is weighed with.

    1_s marks which item stands in which slot of slate s, q_pi is its mean under the target, Gamma the mean of 1_s 1_s'
    under the logging policy. Where that is a product over slots, this is 1 - K + sum_k w_k.

    Shapes: slots [N, K] ratios w_k; chances [N, K, A] the target's slot by slot; logging: slates [M, K] and their
    probabilities [M], the same for every request, or None for a product over slots.
    Ref: arXiv:1605.04812, equation 3, and example 3 for the product.
    """
    k = items.shape[1]
    if logging is None:
        short: Floats = 1.0 - k + slots.sum(axis=1)
        return short
    slates, mass = np.asarray(logging[0], dtype=np.int64), np.asarray(logging[1], dtype=np.float64)
    n_items = chances.shape[2]
    places = slates + np.arange(k) * n_items  # [M, K]
    gamma = np.zeros((k * n_items, k * n_items))
    np.add.at(gamma, (places[:, :, None], places[:, None, :]), mass[:, None, None])
    inverse = np.linalg.pinv(gamma, rcond=1e-10, hermitian=True)
    shown = items.astype(np.int64) + np.arange(k) * n_items
    marked = inverse[shown].sum(axis=1)  # [N, KA]
    found: Floats = np.einsum("nj,nj->n", chances.reshape(len(items), -1), marked)
    return found


def cross_fitted(log: Logged, *, folds: int = 3, prior: float = 1.0, seed: int = 0) -> Floats:
    """Rewards [N, A] to be expected of each item: its mean in the other folds, drawn towards the mean of all.

    A trial is never among those that its own expectation comes from, so that dr stays unbiased.
    prior: how many trials the mean of all counts as.
    """
    if log.k != 1:
        raise UsageError(f"means are of trials of one item, these have {log.k} slots")
    fold = generator(seed, "folds").permutation(len(log)) % min(folds, max(len(log), 1))
    items, rewards, found = log.items[:, 0], log.rewards[:, 0], np.zeros((len(log), log.n_items))
    for one in range(folds):
        others = fold != one
        counts = np.bincount(items[others], minlength=log.n_items)
        sums = np.bincount(items[others], rewards[others], minlength=log.n_items)
        centre = rewards[others].mean() if others.any() else 0.0
        found[fold == one] = (sums + prior * centre) / (counts + prior)
    return found


# -- how far an estimate can be trusted


def diagnostics(weights: Floats, clip: float) -> dict[str, float]:
    """Effective sample size (sum w)^2 / sum w^2, largest and mean weight, shares of weights that are 0 or cut.

    The mean weight is about 1 where propensities are right and the log covers the policy.
    Ref: Kish, Survey Sampling, 1965 (effective sample size).
    """
    total, squares = float(weights.sum()), float(np.square(weights).sum())
    return {
        "effective": total**2 / squares if squares > 0 else 0.0,
        "largest": float(weights.max(initial=0.0)),
        "mean": float(weights.mean()) if len(weights) else math.nan,
        "zero": float((weights == 0).mean()) if len(weights) else math.nan,
        "clipped": float((weights > clip).mean()) if len(weights) else math.nan,
    }


def bernstein(terms: Floats, ends: tuple[float, float], level: float = 0.95) -> tuple[float, float]:
    """Ends of the empirical Bernstein interval for the mean of independent terms that lie between `ends`.

    mean -+ sqrt(2 V log(4 / delta) / n) + 7 (b - a) log(4 / delta) / (3 (n - 1)), V the sample variance and delta the
    chance that it misses, half of it on each side.

    Ref: arXiv:0907.3740, theorem 4.
    """
    n = len(terms)
    if n < 2:
        return ends
    reach = math.log(4 / (1 - level))
    half = math.sqrt(2 * float(terms.var(ddof=1)) * reach / n) + 7 * (ends[1] - ends[0]) * reach / (3 * (n - 1))
    mean = float(terms.mean())
    return max(mean - half, ends[0]), min(mean + half, ends[1])


def _bounds(wanted: Sequence[str], chances: Floats, log: Logged, clip: float) -> dict[str, tuple[float, float]]:
    """Between which values a term can lie, for estimators whose terms are independent and bounded.

    The largest possible weight is taken to be the target's largest probability over the log's smallest propensity.
    """
    rewards = log.rewards.sum(axis=1)
    low, high = min(float(rewards.min()), 0.0), max(float(rewards.max()), 0.0)
    largest = float((chances.max(axis=(0, 2)) / log.propensities.min(axis=0)).prod())
    cut = min(clip, largest)
    every = {"ips": (low * largest, high * largest), "clipped_ips": (low * cut, high * cut)}
    return {one: every[one] for one in wanted if one in every}


def _warnings(found: Mapping[str, float], n: int) -> list[str]:
    said = []
    if found["effective"] < 0.01 * n:
        said.append(
            f"The weights leave {found['effective']:,.0f} of {n:,} trials in effect: "
            "the log says little of this policy."
        )
    if n > 100 and not 0.5 < found["mean"] < 2:
        said.append(
            f"The mean weight is {found['mean']:.2f}, and would be about 1 if propensities were right and the log held "
            "whatever the policy shows."
        )
    return said


def _chances(
    log: Logged, target: Any, name: str | None, tuning: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], Floats]:
    """What the report says of the target policy, and its probabilities [N, K, A], slot by slot."""
    n, k, n_items = len(log), log.k, log.n_items
    if isinstance(target, np.ndarray | list):
        given = np.asarray(target, dtype=np.float64)
        if given.ndim < 3:
            given = given[None, None] if given.ndim == 1 else given[:, None]
        try:
            chances = np.broadcast_to(given, (n, k, n_items))
        except ValueError as error:
            raise UsageError(f"probabilities are [{n}, {k}, {n_items}] or less, got {np.shape(target)}") from error
        if (given < 0).any() or not np.allclose(given.sum(axis=-1), 1.0, atol=1e-4):
            raise UsageError("the probabilities of a slot's items are at least 0 and sum to 1")
        return {"label": name or "policy", "name": None, "config": {}, "tuning": None}, chances
    subject = Subject.of(target, n, name=name, tuning=tuning, budget_mb=256)
    slates: Slates = subject.answer(subject.known(log.requests, log.n_items), k, 0)
    chances = np.zeros((n, k, n_items))
    there = slates.items[:, :k] >= 0
    row, slot = np.nonzero(there)
    chances[row, slot, slates.items[:, :k][there]] = 1.0
    return subject.about, chances
