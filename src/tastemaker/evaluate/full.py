"""Metrics that look at the whole ranking, AUC and R-precision, exact and without a users x items matrix.

B requests of one block, I items, T targets of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tastemaker.evaluate.metrics import Floats, Metric
from tastemaker.index import score_blocks
from tastemaker.index.select import Rules, row_slices
from tastemaker.index.threads import share
from tastemaker.types import Cases, Jagged, Requests, mix

ASKED = 65_536  # requests made at once; their scores come in smaller blocks

FULL: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "auc",
            "AUC",
            "share of pairs of a target and an allowed item that is none in which the target scores higher, a tie "
            "counting half; over all allowed items; a target unknown to the system loses every pair",
            needs="scores",
            usual=False,
            accuracy=True,
        ),
        Metric(
            "r_precision",
            "R-precision",
            "hits in the first R / R, R being the number of the request's targets",
            needs="scores",
            usual=False,
            accuracy=True,
        ),
    )
}


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _stand(
    scores: NDArray[np.float32],  # [b, I]
    order: NDArray[np.uint64],  # [I]
    offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    excluded_offsets: NDArray[np.int64],
    excluded: NDArray[np.int32],
    allowed: NDArray[np.bool_],  # [F, I]
    which: NDArray[np.int32],  # [b]
    listed_offsets: NDArray[np.int64],  # of candidates; empty where all items are
    listed: NDArray[np.int32],
    auc: Floats,
    r_precision: Floats,
) -> None:
    n_items = scores.shape[1]
    for row in range(len(scores)):
        line = scores[row]
        barred = np.full(n_items, len(listed_offsets) > 0)
        if len(listed_offsets) > 0:
            for c in range(listed_offsets[row], listed_offsets[row + 1]):
                if 0 <= listed[c] < n_items:
                    barred[listed[c]] = False
        if which[row] >= 0:
            for item in range(n_items):
                barred[item] |= not allowed[which[row], item]
        for e in range(excluded_offsets[row], excluded_offsets[row + 1]):
            if 0 <= excluded[e] < n_items:
                barred[excluded[e]] = True
        n_allowed = n_items - barred.sum()
        wanted = targets[offsets[row] : offsets[row + 1]]
        known = wanted[(wanted >= 0) & (wanted < n_items)]
        known = known[~barred[known]]
        known = known[np.argsort(line[known])]
        marks = line[known]
        n = len(known)
        passed = np.zeros(n + 1, np.int64)  # passed[i]: items that score above exactly the i lowest targets
        tied = np.zeros(n, np.int64)
        before = np.zeros(n, np.int64)  # tied items that the fixed order puts in front
        for item in range(n_items):
            if n == 0 or line[item] < marks[0] or barred[item]:
                continue
            low = np.searchsorted(marks, line[item])
            passed[low] += 1
            while low < n and marks[low] == line[item]:
                tied[low] += 1
                before[low] += order[item] < order[known[low]]
                low += 1
        n_wrong = n_allowed - n
        won, found, higher = 0.0, 0, 0
        for i in range(n - 1, -1, -1):
            higher += passed[i + 1]
            above = np.searchsorted(marks, marks[i], side="right")
            right_higher, right_tied = n - above, above - np.searchsorted(marks, marks[i])
            won += n_wrong - (higher - right_higher) - 0.5 * (tied[i] - right_tied)
            found += higher + before[i] < len(wanted)
        pairs = n_wrong * len(wanted)
        auc[row] = won / pairs if pairs > 0 else np.nan
        r_precision[row] = found / len(wanted) if len(wanted) > 0 else np.nan


def stand(
    scores: NDArray[np.float32],
    targets: Jagged[NDArray[np.int32]],
    order: NDArray[np.uint64],
    requests: Requests,
) -> dict[str, Floats]:
    """AUC and R-precision of each request among the items it allows; the kernel runs on all cores.

    Shapes: scores [b, I], of every item; order [I] ranks items of equal score, lower first.
    """
    values = {name: np.empty(len(scores)) for name in FULL}

    def work(parts: Iterator[slice]) -> None:
        for part in parts:
            right, asked = targets.take(part), requests.take(part)
            rules = Rules.from_requests(asked, scores.shape[1])
            listed = asked.candidates
            _stand(
                scores[part],
                order,
                right.offsets,
                right.values,
                rules.offsets,
                rules.excluded,
                rules.allowed,
                rules.which,
                np.empty(0, np.int64) if listed is None else listed.offsets,
                np.empty(0, np.int32) if listed is None else listed.values,
                values["auc"][part],
                values["r_precision"][part],
            )

    share(row_slices(*scores.shape), work)
    return values


def full_metrics(
    system: Any,
    cases: Cases,
    ask: Callable[[Cases, int], Requests],
    budget_mb: float,
    advance: Callable[[float], None],
) -> dict[str, Floats]:
    """AUC and R-precision of every case, from blocks of scores that stay within the budget.

    `ask` makes the requests of a block of cases that begins at a given number.
    """
    order = np.empty(0, np.uint64)
    found: dict[str, list[Floats]] = {name: [] for name in FULL}
    for start in range(0, len(cases), ASKED):
        part = cases.take(slice(start, start + ASKED))
        requests = ask(part, start)
        for rows, scores in score_blocks(system, requests, budget_mb=budget_mb):
            order = mix(np.arange(scores.shape[1])) if len(order) != scores.shape[1] else order
            for name, values in stand(scores, part.targets.take(rows), order, requests.take(rows)).items():
                found[name].append(values)
            advance(len(scores))
    return {name: np.concatenate(parts) for name, parts in found.items()}
