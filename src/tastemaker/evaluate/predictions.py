"""Figures of predictions: what was predicted held against what happened, a value a question or one for all.

| metric | of a question | the figure |
|---|---|---|
| auc | of a positive: the share of negatives that score below it, ties half | the mean: area under the ROC curve |
| gauc | the AUC among its user's questions, where these have both labels | the mean: users weigh by their questions |
| logloss | -log of the probability of what happened | the mean |
| mse, rmse | the squared difference of prediction and label | the mean, and its root |
| ece | | by bins of the prediction: mean of abs(mean label - mean prediction), weighed by their questions |

Labels and predictions are [E], of E questions.

Ref: Zhu et al., "Optimized cost per click in Taobao display advertising", KDD 2017, arXiv:1703.02091 (GAUC); Guo,
Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, arXiv:1706.04599, section 2 (ECE).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.metrics import Metric

Floats = NDArray[np.float64]
LEAST = 1e-7  # probabilities are kept so far from 0 and 1 when a logarithm is taken
BINS = 10

METRICS: Mapping[str, Metric] = {
    "auc": Metric(
        "auc", "AUC", "chance that a positive scores above a negative, ties half", accuracy=True, needs="scores"
    ),
    "gauc": Metric(
        "gauc", "GAUC", "AUC among the questions of each user, users weighed by them", accuracy=True, needs="scores"
    ),
    "logloss": Metric("logloss", "Log loss", "-log of the probability of what happened", "low", needs="scores"),
    "mse": Metric("mse", "Squared error", "squared difference of prediction and label", "low", needs="scores"),
    "rmse": Metric("rmse", "RMSE", "root of the mean squared error", "low", of="catalogue", needs="scores"),
    "ece": Metric(
        "ece", "Calibration error", "mean gap of label and prediction over bins", "low", of="catalogue", needs="scores"
    ),
}
BINARY_ONLY = frozenset({"auc", "gauc", "logloss", "ece"})
BY_ORDER = frozenset({"auc", "gauc"})  # need no probability, but any score


def auc(labels: NDArray[Any], predictions: NDArray[Any]) -> Floats:
    """The share of negatives that score below each positive, ties half [E]; NaN for negatives. The mean is the AUC."""
    negatives = np.sort(predictions[labels <= 0])
    out = np.full(len(labels), np.nan)
    if len(negatives):
        mine = predictions[labels > 0]
        below = np.searchsorted(negatives, mine, "left") + np.searchsorted(negatives, mine, "right")
        out[labels > 0] = below / (2.0 * len(negatives))
    return out


def gauc(labels: NDArray[Any], predictions: NDArray[Any], users: NDArray[Any]) -> Floats:
    """The AUC among the user's questions, for each question [E]; NaN where the user has one label alone."""
    if not len(labels):
        return np.empty(0)
    _, group = np.unique(users, return_inverse=True)
    order = np.lexsort((predictions, group))
    of, score, right = group[order], predictions[order], labels[order] > 0
    new = np.ones(len(of), dtype=np.bool_)
    new[1:] = (of[1:] != of[:-1]) | (score[1:] != score[:-1])
    run = np.cumsum(new) - 1  # questions of a user with one score
    size = np.bincount(run)
    first = np.cumsum(size) - size
    start = np.searchsorted(of, np.arange(of[-1] + 1))
    rank = (first + (size + 1) / 2)[run] - start[of]  # from 1 within the user, ties at their mean
    n, positive = np.bincount(of), np.bincount(of, right)
    pairs = positive * (n - positive)
    won = np.bincount(of, rank * right) - positive * (positive + 1) / 2
    by_user = np.divide(won, pairs, out=np.full(len(n), np.nan), where=pairs > 0)
    return np.asarray(by_user[group])


def logloss(labels: NDArray[Any], predictions: NDArray[Any]) -> Floats:
    """-log of the probability of each label [E]."""
    chance = np.clip(np.asarray(predictions, np.float64), LEAST, 1 - LEAST)
    return -np.where(labels > 0, np.log(chance), np.log1p(-chance))


def squared_error(labels: NDArray[Any], predictions: NDArray[Any]) -> Floats:
    """(prediction - label)^2 [E]."""
    return np.asarray((np.asarray(predictions, np.float64) - labels) ** 2)


def rmse(labels: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(squared_error(labels, predictions).mean())) if len(labels) else math.nan


def reliability(labels: NDArray[Any], predictions: NDArray[Any], bins: int = BINS) -> pl.DataFrame:
    """Mean prediction and label in bins of equal width: low, high, n, predicted, observed; empty bins are left out."""
    place = np.clip((np.asarray(predictions, np.float64) * bins).astype(np.int64), 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    there = np.flatnonzero(n)
    means = [np.bincount(place, values, minlength=bins)[there] / n[there] for values in (predictions, labels)]
    return pl.DataFrame(
        {"low": there / bins, "high": (there + 1) / bins, "n": n[there], "predicted": means[0], "observed": means[1]}
    )


def ece(labels: NDArray[Any], predictions: NDArray[Any], bins: int = BINS) -> float:
    """Expected calibration error: the gaps of the reliability table, weighed by n."""
    table = reliability(labels, predictions, bins)
    n, gap = table["n"].to_numpy(), (table["predicted"] - table["observed"]).abs().to_numpy()
    return float((gap * n).sum() / max(1, n.sum()))


ROWS = {"auc": auc, "logloss": logloss, "mse": squared_error}
TOTALS = {"rmse": rmse, "ece": ece}
