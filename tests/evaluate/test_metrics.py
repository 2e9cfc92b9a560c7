"""Accuracy metrics against ir_measures (trec_eval) and against formulas written out by hand."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, Rprec, ScoredDoc, Success, nDCG

from tastemaker.evaluate.full import stand
from tastemaker.evaluate.metrics import FUNCTIONS, Hits, locate
from tastemaker.types import Jagged, Requests, mix

KS = (1, 3, 5, 10)
N_ITEMS = 40


def random_lists(seed: int, graded: bool, width: int = 10) -> tuple[np.ndarray, Jagged, Jagged | None]:
    """Lists (some short, some empty), targets of 1 to 15 items, and worths of 1 to 4."""
    rng = np.random.default_rng(seed)
    n = 12
    items = np.stack([rng.permutation(N_ITEMS)[:width] for _ in range(n)]).astype(np.int32)
    for row, length in enumerate(rng.integers(0, width + 1, n)):
        items[row, length if row % 3 == 0 else width :] = -1
    targets = Jagged.from_lists([rng.permutation(N_ITEMS)[: rng.integers(1, 16)] for _ in range(n)], dtype=np.int32)
    gains = Jagged(rng.integers(1, 5, len(targets.values)).astype(np.float32), targets.offsets) if graded else None
    return items, targets, gains


def found(items: np.ndarray, targets: Jagged, n_items: int = N_ITEMS) -> np.ndarray:
    places = np.empty(len(targets.values), dtype=np.int32)
    none = Jagged.empty(len(targets))
    locate(items, targets.offsets, targets.values, none.offsets, none.values, n_items, places)
    return places


def oracle(items: np.ndarray, targets: Jagged, gains: Jagged | None, measures: list) -> dict:
    qrels = {
        str(q): {str(t): 1 if gains is None else int(gains[q][j]) for j, t in enumerate(targets[q])}
        for q in range(len(targets))
    }
    run = [
        ScoredDoc(str(q), str(item), 1000.0 - rank)
        for q in range(len(items))
        for rank, item in enumerate(items[q])
        if item >= 0
    ]
    values = {measure: np.zeros(len(targets)) for measure in measures}  # a request without a list scores 0
    for row in ir_measures.iter_calc(measures, qrels, run):
        values[row.measure][int(row.query_id)] = row.value
    return values


@pytest.mark.parametrize("graded", [False, True])
def test_equal_to_trec_eval(graded: bool) -> None:
    pairs = {
        "ndcg": lambda k: nDCG @ k,
        "precision": lambda k: ir_measures.P @ k,
        "recall": lambda k: ir_measures.R @ k,
        "mrr": lambda k: RR @ k,
        "map": lambda k: AP @ k,
        "hit_rate": lambda k: Success @ k,
    }
    for seed in range(25):
        items, targets, gains = random_lists(seed, graded)
        hits = Hits.of(found(items, targets), targets, gains)
        theirs = oracle(items, targets, gains, [make(k) for make in pairs.values() for k in KS])
        for name, make in pairs.items():
            for k in KS:
                np.testing.assert_allclose(FUNCTIONS[name](hits, k), theirs[make(k)], atol=1e-9, err_msg=f"{name}@{k}")


def by_hand(name: str, row: list[int], right: dict[int, float], k: int) -> float:
    """The definitions, one request at a time."""
    hit = [item in right for item in row[:k]] + [False] * (k - len(row[:k]))
    precision = [sum(hit[:n]) / n for n in range(1, k + 1)]
    recall = [sum(hit[:n]) / len(right) for n in range(1, k + 1)]
    best = sorted(right.values(), reverse=True)[:k]

    def gained(worth: list[float], to_gain) -> float:
        return sum(to_gain(g) / np.log2(j + 2) for j, g in enumerate(worth))

    exponential = lambda g: 2 ** (g + 1) - 1 if g else 0.0  # noqa: E731
    shown = [right.get(item, 0.0) if h else 0.0 for item, h in zip(row[:k] + [-1] * k, hit, strict=False)]
    match name:
        case "recall_capped":
            return sum(hit) / min(k, len(right))
        case "f1":
            p, r = precision[-1], recall[-1]
            return 2 * p * r / (p + r) if p + r else 0.0
        case "map_capped":
            return sum(p for p, h in zip(precision, hit, strict=True) if h) / min(k, len(right))
        case "mean_precision":
            return float(np.mean(precision))
        case "mean_recall":
            return float(np.mean(recall))
        case "ndcg_exp":
            return gained(shown, exponential) / gained(best, exponential)
        case "ndcg_binary":
            ones = [1.0] * len(best)
            return gained([float(g > 0) for g in shown], float) / gained(ones, float)
    raise AssertionError(name)


@pytest.mark.parametrize(
    "name", ["recall_capped", "f1", "map_capped", "mean_precision", "mean_recall", "ndcg_exp", "ndcg_binary"]
)
def test_equal_to_the_definition(name: str) -> None:
    for seed in range(10):
        items, targets, gains = random_lists(seed, graded=True)
        assert gains is not None
        hits = Hits.of(found(items, targets), targets, gains)
        for k in KS:
            ours = FUNCTIONS[name](hits, k)
            for q in range(len(targets)):
                right = dict(zip(targets[q].tolist(), gains[q].tolist(), strict=True))
                row = [int(item) for item in items[q] if item >= 0]
                assert ours[q] == pytest.approx(by_hand(name, row, right, k), abs=1e-12)


def test_map_is_not_what_elliot_calls_map() -> None:
    """One target at position 2 of 4: AP is 1/2, the mean of Precision@1..4 is (0 + 1/2 + 1/3 + 1/4) / 4."""
    targets = Jagged.from_lists([[7]], dtype=np.int32)
    hits = Hits.of(found(np.array([[3, 7, 5, 6]], np.int32), targets), targets)
    assert FUNCTIONS["map"](hits, 4)[0] == pytest.approx(1 / 2)
    assert FUNCTIONS["mean_precision"](hits, 4)[0] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_bounds_and_order(seed: int, k: int) -> None:
    """All lie in [0, 1]; a hit rate is never below recall; a list cut at K knows nothing of what follows."""
    items, targets, gains = random_lists(seed, graded=seed % 2 == 0)
    hits = Hits.of(found(items, targets), targets, gains)
    cut = Hits.of(found(np.ascontiguousarray(items[:, :k]), targets), targets, gains)
    for name, function in FUNCTIONS.items():
        values = function(hits, k)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all(), name
        np.testing.assert_array_equal(values, function(cut, k), err_msg=name)
    assert (FUNCTIONS["hit_rate"](hits, k) >= FUNCTIONS["recall"](hits, k)).all()
    assert (FUNCTIONS["recall_capped"](hits, k) >= FUNCTIONS["recall"](hits, k)).all()


def test_the_best_order_scores_one() -> None:
    targets = Jagged.from_lists([[4, 2, 9], [1]], dtype=np.int32)
    gains = Jagged(np.array([1, 3, 2, 5], np.float32), targets.offsets)
    best = np.array([[2, 9, 4], [1, 0, 3]], np.int32)
    hits = Hits.of(found(best, targets), targets, gains)
    for name in ("ndcg", "ndcg_exp", "ndcg_binary", "recall_capped", "map_capped", "mrr"):
        np.testing.assert_allclose(FUNCTIONS[name](hits, 3), 1.0, err_msg=name)


def test_repeats_and_unknown_items_earn_nothing() -> None:
    targets = Jagged.from_lists([[5, 99]], dtype=np.int32)  # 99 is beyond the catalogue
    places = found(np.array([[5, 5, 5, 1]], np.int32), targets)
    assert places.tolist() == [0, -1]
    hits = Hits.of(places, targets)
    assert FUNCTIONS["precision"](hits, 4)[0] == 0.25
    assert FUNCTIONS["recall"](hits, 4)[0] == 0.5


def test_locate_counts_faults() -> None:
    none, targets = Jagged.from_lists([[3, 3, 60], [8]], dtype=np.int32), Jagged.from_lists([[1], [2]], dtype=np.int32)
    places = np.empty(2, dtype=np.int32)
    items = np.array([[1, 3, 3], [8, 2, -1]], np.int32)
    assert locate(items, targets.offsets, targets.values, none.offsets, none.values, 20, places) == (1, 2)
    assert places.tolist() == [0, 1]


def test_keeping_some_targets_only() -> None:
    """What is left out is no right answer any more; a request left without any is undefined."""
    items, targets, gains = random_lists(3, graded=True)
    places = found(items, targets)
    keep = targets.values % 2 == 0
    some = targets.where(keep)
    assert gains is not None
    expected = Hits.of(found(items, some), some, gains.where(keep))
    got = Hits.of(places, targets, gains, keep)
    for name, function in FUNCTIONS.items():
        np.testing.assert_allclose(function(got, 5), function(expected, 5), err_msg=name)
    nothing = Hits.of(places, targets, gains, np.zeros(len(places), np.bool_))
    assert all(np.isnan(function(nothing, 5)).all() for function in FUNCTIONS.values())


# -- metrics of the whole ranking


def full(scores: np.ndarray, targets: Jagged, **fields: object) -> dict[str, np.ndarray]:
    return stand(scores, targets, mix(np.arange(scores.shape[1])), Requests(len(scores), **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("ties", [False, True])
def test_auc_and_r_precision(ties: bool) -> None:
    """Against the definition pair by pair, and against trec_eval's Rprec where nothing is tied."""
    rng = np.random.default_rng(ties)
    n = 30
    scores = rng.normal(size=(n, N_ITEMS)).astype(np.float32)
    scores = np.round(scores) if ties else scores
    targets = Jagged.from_lists([rng.permutation(N_ITEMS)[: rng.integers(1, 9)] for _ in range(n)], dtype=np.int32)
    seen = [np.setdiff1d(rng.permutation(N_ITEMS)[:7], targets[q]) for q in range(n)]
    exclude = Jagged.from_lists([[*row, *row[:2], 77] for row in seen], dtype=np.int32)  # repeats, and an unknown item
    got = full(scores, targets, exclude=exclude)
    hashed = mix(np.arange(N_ITEMS))
    ordered = np.full((n, N_ITEMS), -1, np.int32)
    for q in range(n):
        wrong = np.setdiff1d(np.arange(N_ITEMS), [*targets[q], *seen[q]])
        a, b = scores[q, targets[q]][:, None], scores[q, wrong][None, :]
        assert got["auc"][q] == pytest.approx(((a > b) + 0.5 * (a == b)).mean())
        allowed = np.setdiff1d(np.arange(N_ITEMS), seen[q])
        ranking = allowed[np.lexsort((hashed[allowed], -scores[q, allowed]))]
        ordered[q, : len(ranking)] = ranking
        first = ranking[: len(targets[q])]
        assert got["r_precision"][q] == pytest.approx(np.isin(first, targets[q]).mean())
    np.testing.assert_allclose(got["r_precision"], oracle(ordered, targets, None, [Rprec])[Rprec], atol=1e-9)


def test_auc_among_candidates_and_filters() -> None:
    from tastemaker.types import ItemFilter

    scores = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    targets = Jagged.from_lists([[1]], dtype=np.int32)
    assert full(scores, targets)["auc"][0] == pytest.approx(4 / 5)
    some = Jagged.from_lists([[0, 1, 5]], dtype=np.int32)
    assert full(scores, targets, candidates=some)["auc"][0] == pytest.approx(1 / 2)
    no_first = ItemFilter(np.array([[False, True, True, True, True, True]]), np.zeros(1, np.int32))
    assert full(scores, targets, filter=no_first)["auc"][0] == 1.0
    alone = Jagged.from_lists([[1]], dtype=np.int32)
    assert np.isnan(full(scores, targets, candidates=alone)["auc"][0])  # no pair, nothing to say


def test_a_target_unknown_to_the_system_loses_every_pair() -> None:
    scores = np.array([[3, 2, 1]], np.float32)
    got = full(scores, Jagged.from_lists([[0, 50]], dtype=np.int32))
    assert got["auc"][0] == 0.5 and got["r_precision"][0] == 0.5
    assert full(scores, Jagged.from_lists([[50]], dtype=np.int32))["auc"][0] == 0.0
