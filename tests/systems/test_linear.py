"""EASE and SLIM against dense references, scikit-learn, and data whose structure is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.systems.classical import ease, slim
from tastemaker.train import Bundle, fit
from tastemaker.types import BudgetExceeded, BundleError, DataError, Dataset, Requests, Schema, make_config

RNG = np.random.default_rng(3)


def dataset(matrix: np.ndarray) -> Dataset:
    """Events of a dense matrix of counts [U, I]."""
    users, items = np.nonzero(matrix)
    times = matrix[users, items].astype(int)
    events = pl.DataFrame({"user": users.repeat(times), "item": items.repeat(times)}).cast(pl.Int32)
    return Dataset(
        "toy", pl.DataFrame({"user": range(len(matrix))}), pl.DataFrame({"item": range(matrix.shape[1])}), events
    )


def of_rows(matrix: np.ndarray) -> Requests:
    """Requests whose histories are the rows of a matrix of counts."""
    return Requests.of_items([np.repeat(np.arange(matrix.shape[1]), row.astype(int)) for row in matrix])


def csr(matrix: np.ndarray) -> sp.csr_array:
    return sp.csr_array(matrix.astype(np.float32))


def two_tastes(n_users: int = 80, n_items: int = 30, share: float = 0.4) -> np.ndarray:
    """Users and items of two kinds, by the parity of their numbers; nobody chooses across."""
    same = np.arange(n_users)[:, None] % 2 == np.arange(n_items)[None] % 2
    return (same & (RNG.random((n_users, n_items)) < share)).astype(float)


def ease_by_inverse(x: np.ndarray, reg: float) -> np.ndarray:
    p = np.linalg.inv(x.T @ x + reg * np.eye(x.shape[1]))
    b = p / -np.diag(p)
    np.fill_diagonal(b, 0)
    return b


def slim_by_gradient(x: np.ndarray, l1: float, l2: float, steps: int = 4000) -> np.ndarray:
    """Projected gradient on all columns at once."""
    gram, w = x.T @ x, np.zeros((x.shape[1],) * 2)
    rate = 1 / (np.linalg.eigvalsh(gram)[-1] + l2)
    for _ in range(steps):
        w = np.maximum(w - rate * (gram @ w - gram + l2 * w + l1), 0)
        np.fill_diagonal(w, 0)
    return w


SMALL = RNG.integers(0, 3, (60, 25)) * (RNG.random((60, 25)) < 0.4).astype(float)


# -- EASE


@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-7), ("float32", 1e-5)])
@pytest.mark.parametrize("block", [1024, 7, 1])
def test_ease_is_the_closed_form(dtype: str, close: float, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "BLOCK", block)
    weights, kept = ease.fit_weights(csr(SMALL), 3.0, dtype=dtype)
    np.testing.assert_allclose(weights, ease_by_inverse(SMALL, 3.0), atol=close)
    assert weights.dtype == np.float32 and kept == 1.0


def test_ease_sweeps_a_large_matrix_as_lapack_inverts_it() -> None:
    n = 1200
    root = RNG.standard_normal((n, n)) / np.sqrt(n)
    full = root @ root.T + np.eye(n)
    blocks = [full[rows.start : rows.stop, : rows.stop].copy() for rows in ease._row_blocks(n)]
    ease.invert(blocks)
    expected = -np.linalg.inv(full)
    for rows, block in zip(ease._row_blocks(n), blocks, strict=True):
        np.testing.assert_allclose(block, expected[rows.start : rows.stop, : rows.stop], atol=1e-12)


@pytest.mark.parametrize("block", [1024, 4])
def test_ease_keeps_the_largest_weights_and_states_the_loss(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "BLOCK", block)
    whole = ease_by_inverse(SMALL, 3.0)
    weights, kept = ease.fit_weights(csr(SMALL), 3.0, keep=6)
    assert sp.issparse(weights) and 6 * 25 - 3 <= weights.nnz <= 6 * 25
    sizes = np.abs(whole)
    expected = np.where(sizes >= np.sort(sizes, axis=None)[-weights.nnz], whole, 0)
    np.testing.assert_allclose(weights.toarray(), expected, atol=1e-7)
    assert kept == pytest.approx(np.abs(expected).sum() / sizes.sum())


def test_ease_scores_by_columns_and_not_by_rows() -> None:
    """Items 0 and 1 go together, 1 also goes alone: from 0 follows 1 more than from 1 follows 0."""
    x = np.array([[1, 1, 0]] * 10 + [[0, 1, 0]] * 10 + [[0, 1, 1]] * 2)
    bundle = fit("ease", dataset(x), {"reg": 1.0})
    asked = of_rows(np.eye(3))
    np.testing.assert_allclose(bundle.system.score(asked), ease_by_inverse(x, 1.0), atol=1e-6)
    assert bundle.system.score(asked)[0, 1] != pytest.approx(bundle.system.score(asked)[1, 0], rel=0.1)


def test_ease_stores_a_small_catalogue_whole_and_a_large_one_in_part() -> None:
    data = dataset(two_tastes(60, 40))
    whole, part = (fit("ease", data, {"keep": keep, "reg": 5.0}).system for keep in (10, 9))
    assert isinstance(whole.weights, np.ndarray) and whole.kept == 1.0
    assert sp.issparse(part.weights) and 0 < part.kept < 1
    assert part.export()["kept"][0] == part.kept


def test_ease_tells_in_the_manifest_what_share_of_the_weights_was_lost(tmp_path: Path) -> None:
    data, lost = dataset(two_tastes(60, 40)), {}
    for keep in (10, 9):  # all are kept up to four times as many items
        bundle = fit("ease", data, {"keep": keep, "reg": 5.0})
        bundle.save(tmp_path / str(keep))
        facts = json.loads((tmp_path / str(keep) / "manifest.json").read_text())["about"]["facts"]
        lost[keep] = facts["share of the weights lost"]
        assert Bundle.load(tmp_path / str(keep)).about["facts"] == facts
    assert lost[10] == 0.0
    assert lost[9] == pytest.approx(1 - bundle.system.kept, abs=1e-6) and lost[9] > 0


def test_ease_refuses_what_memory_cannot_hold() -> None:
    data = Dataset(
        "vast",
        pl.DataFrame({"user": [0]}),
        pl.DataFrame({"item": range(3_000_000)}),
        pl.DataFrame({"user": [0, 0], "item": [0, 1]}).cast(pl.Int32),
    )
    with pytest.raises(BudgetExceeded, match=r"EASE of 3,000,000 items needs 16,\d{3}\.\d GB") as refused:
        fit("ease", data)
    assert "available" in str(refused.value) and "k-core" in str(refused.value)


def test_ease_says_when_the_matrix_cannot_be_inverted() -> None:
    twins = np.tile(RNG.integers(0, 2, (50, 1)) * 1000.0, (1, 6))
    with pytest.raises(DataError, match="positive definite in float32"):
        ease.fit_weights(csr(twins), 1e-6, dtype="float32")


# -- SLIM


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 2.0), (1.5, 4.0), (6.0, 0.5)])
def test_slim_reaches_the_optimum(l1: float, l2: float) -> None:
    weights = slim.fit_weights(csr(SMALL), l1, l2, tolerance=1e-7, passes=2000).toarray()
    np.testing.assert_allclose(weights, slim_by_gradient(SMALL, l1, l2), atol=2e-5)


def test_slim_agrees_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    x, l1, l2 = (SMALL > 0).astype(float), 1.0, 2.0
    ours = slim.fit_weights(csr(x), l1, l2, tolerance=1e-7, passes=2000).toarray()
    for j in range(x.shape[1]):
        net = linear_model.ElasticNet(
            alpha=(l1 + l2) / len(x), l1_ratio=l1 / (l1 + l2), positive=True, fit_intercept=False, tol=1e-9
        )
        others = x.copy()
        others[:, j] = 0
        np.testing.assert_allclose(ours[:, j], net.fit(others, x[:, j]).coef_, atol=2e-5)


def test_slim_weights_are_sparse_and_never_negative_nor_of_an_item_for_itself() -> None:
    x = two_tastes(share=0.6)
    loose, tight = (slim.fit_weights(csr(x), l1, 1.0).toarray() for l1 in (0.5, 8.0))
    for w in (loose, tight):
        assert (w >= 0).all() and (np.diag(w) == 0).all()
    assert 0 < (tight > 0).sum() < (loose > 0).sum()


def test_slim_among_neighbours_uses_the_nearest_alone() -> None:
    norms = np.sqrt((SMALL**2).sum(axis=0))
    cosine = SMALL.T @ SMALL / norms / norms[:, None]
    np.fill_diagonal(cosine, 0)
    weights = slim.fit_weights(csr(SMALL), 0.1, 1.0, neighbours=5).toarray()
    allowed = cosine >= np.sort(cosine, axis=0)[-5]
    assert (weights[~allowed] == 0).all() and ((weights > 0).sum(axis=0) <= 5).all() and (weights > 0).any()
    everyone = slim.fit_weights(csr(SMALL), 0.1, 1.0, neighbours=24, tolerance=1e-6).toarray()
    np.testing.assert_allclose(everyone, slim.fit_weights(csr(SMALL), 0.1, 1.0, tolerance=1e-6).toarray(), atol=1e-4)


def test_slim_refuses_negative_strengths() -> None:
    with pytest.raises(DataError, match="never negative"):
        slim.fit_weights(csr(-SMALL), 1.0, 1.0)


# -- both


@pytest.mark.parametrize("name", ["ease", "slim"])
def test_planted_tastes_are_found(name: str) -> None:
    bundle = fit(name, dataset(two_tastes()), {"reg": 5.0} if name == "ease" else {"l1": 0.2, "l2": 2.0})
    answer = bundle.retriever.retrieve(Requests.of_items([[0, 2], [1, 3]]).with_(exclude=None), 8)
    assert (answer.items % 2 == [[0], [1]]).all()


@pytest.mark.parametrize(("name", "config"), [("ease", {}), ("ease", {"keep": 5}), ("slim", {})])
def test_scores_are_the_history_times_the_weights_in_any_batch(name: str, config: dict[str, Any]) -> None:
    system = fit(name, dataset(SMALL), config).system
    weights = system.weights.toarray() if sp.issparse(system.weights) else system.weights
    asked = of_rows(SMALL)
    scores = system.score(asked)
    np.testing.assert_allclose(scores, (SMALL > 0) @ weights, atol=1e-5)
    items = RNG.integers(0, 25, (60, 4))
    assert np.array_equal(system.score(asked, items), np.take_along_axis(scores, items, 1))
    for row in range(0, 60, 7):
        assert np.array_equal(system.score(asked.take(slice(row, row + 1)))[0], scores[row])


@pytest.mark.parametrize("name", ["ease", "slim"])
def test_counts_weigh_when_asked_to(name: str) -> None:
    config = {"weight": "count"}
    system = fit(name, dataset(SMALL), config).system
    weights = system.weights.toarray() if sp.issparse(system.weights) else system.weights
    np.testing.assert_allclose(system.score(of_rows(SMALL)), SMALL @ weights, atol=1e-4)


@pytest.mark.parametrize(("name", "config"), [("ease", {}), ("ease", {"keep": 5}), ("slim", {"l1": 0.1})])
def test_kept_state_comes_back_in_a_fresh_object(name: str, config: dict[str, Any]) -> None:
    bundle = fit(name, dataset(SMALL), config)
    fresh = type(bundle.system)(bundle.config, bundle.schema)
    fresh.restore({key: value.copy() for key, value in bundle.system.export().items()})
    assert np.array_equal(fresh.score(of_rows(SMALL)), bundle.system.score(of_rows(SMALL)))


@pytest.mark.parametrize(("name", "config"), [("ease", {}), ("ease", {"keep": 5}), ("slim", {"l1": 0.1})])
def test_weights_of_another_catalogue_are_refused(name: str, config: dict[str, Any]) -> None:
    bundle = fit(name, dataset(SMALL), config)
    state = dict(bundle.system.export())
    smaller = type(bundle.system)(bundle.config, Schema(60, 24))
    with pytest.raises(BundleError, match="24 items"):
        smaller.restore(state)
    whole = "weights" if "weights" in state else "weights.data"
    for broken in (state[whole].astype(np.float64), np.full_like(state[whole], np.nan)):
        with pytest.raises(BundleError):
            type(bundle.system)(bundle.config, bundle.schema).restore({**state, whole: broken})


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_any_matrix_is_learned_and_answered(draw: st.DataObject, n_users: int, n_items: int) -> None:
    rows = draw.draw(
        st.lists(st.lists(st.integers(0, 2), min_size=n_items, max_size=n_items), min_size=n_users, max_size=n_users)
    )
    x = np.array(rows, dtype=float)
    for name, reference in (("ease", ease_by_inverse(x, 2.0)), ("slim", slim_by_gradient(x, 1.0, 2.0, 500))):
        config = {"weight": "count", **({"reg": 2.0} if name == "ease" else {"l1": 1.0, "l2": 2.0, "tolerance": 1e-6})}
        system = fit(name, dataset(x), config).system
        np.testing.assert_allclose(system.score(of_rows(x)), x @ reference, atol=2e-3)
        assert make_config(type(system).Config, config) == system.config


def test_movielens_random_split_reaches_the_reference(shared_data: Any) -> None:
    """NDCG@10 of EASE, reg 250, on MovieLens-100K with 80/10/10 of each user drawn at random: .3204 by NumPy."""
    ratings = pl.read_parquet(shared_data / "ml-100k" / "ratings.parquet")
    users, items = (ratings[c].to_numpy() for c in ("user_id", "item_id"))
    order = np.lexsort((np.random.default_rng(42).random(len(users)), users))
    users, items = users[order] - 1, items[order] - 1
    size = np.bincount(users)[users]
    place = np.arange(len(users)) - np.searchsorted(users, users)
    tenth = (size * 0.1).astype(int)
    part = np.where(place < tenth, 1, np.where(place < 2 * (size * 0.1).astype(int), 2, 0))
    matrices = []
    for wanted in range(3):
        dense = np.zeros((users.max() + 1, items.max() + 1))
        dense[users[part == wanted], items[part == wanted]] = 1
        matrices.append(dense)
    train, valid, held = matrices
    scores = fit("ease", dataset(train), {"reg": 250.0}).system.score(of_rows(train))
    top = np.argsort(-np.where(train + valid > 0, -np.inf, scores), axis=1)[:, :10]
    hits, discount = np.take_along_axis(held, top, 1), 1 / np.log2(np.arange(2, 12))
    ideal = np.concatenate([[1], np.cumsum(discount)])[np.minimum(held.sum(axis=1).astype(int), 10)]
    assert ((hits * discount).sum(axis=1) / ideal)[held.any(axis=1)].mean() >= 0.32035
