"""PureSVD, GF-CF and the truncated SVD under both, against dense references and planted structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.nn import svd
from tastemaker.nn.svd import truncated_svd
from tastemaker.train import fit
from tastemaker.types import BundleError, DataError, Dataset, Requests, Schema, generator

RNG = np.random.default_rng(8)


def dataset(matrix: np.ndarray) -> Dataset:
    """Events of a dense matrix of counts [U, I]."""
    users, items = np.nonzero(matrix)
    times = matrix[users, items].astype(int)
    events = pl.DataFrame({"user": users.repeat(times), "item": items.repeat(times)}).cast(pl.Int32)
    return Dataset(
        "toy", pl.DataFrame({"user": range(len(matrix))}), pl.DataFrame({"item": range(matrix.shape[1])}), events
    )


def of_rows(matrix: np.ndarray) -> Requests:
    return Requests.of_items([np.repeat(np.arange(matrix.shape[1]), row.astype(int)) for row in matrix])


def of_rank(rank: int, n: int, m: int, noise: float = 0.0) -> np.ndarray:
    """A matrix with `rank` clear singular values and noise below them."""
    left, right = (np.linalg.qr(RNG.standard_normal((size, rank)))[0] for size in (n, m))
    return left @ np.diag(np.linspace(30, 10, rank)) @ right.T + noise * RNG.standard_normal((n, m))


def scores_of(system: Any, requests: Requests) -> np.ndarray:
    if hasattr(system, "score"):
        return np.asarray(system.score(requests))
    return np.asarray(system.queries(requests) @ system.items().T)


def pure_svd(x: np.ndarray, dim: int, popularity: float = 1.0) -> np.ndarray:
    """Scores of all users, by a full decomposition."""
    norms = np.sqrt((x**2).sum(axis=0))
    v = np.linalg.svd(x * np.where(norms > 0, norms, 1) ** (popularity - 1), full_matrices=False)[2][:dim].T
    return x @ v @ v.T


def gf_cf(x: np.ndarray, dim: int, alpha: float = 0.3) -> np.ndarray:
    """Scores of all users, with the item-item matrices written out."""
    users, items = (np.maximum(x.sum(axis=axis), 1e-12) for axis in (1, 0))
    r = x / np.sqrt(users)[:, None] / np.sqrt(items)
    v = np.linalg.svd(r, full_matrices=False)[2][:dim].T
    return x @ r.T @ r + alpha * x / np.sqrt(items) @ v @ v.T * np.sqrt(items)


X = (RNG.random((90, 40)) < of_rank(4, 90, 40) * 0.15 + 0.25).astype(float)
CASES = [
    ("puresvd", {"dim": 6}),
    ("puresvd", {"dim": 6, "popularity": 0.4}),
    ("gf-cf", {"dim": 6}),
    ("gf-cf", {"dim": 5}),
]


# -- the decomposition


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("shape", [(300, 200), (150, 400)])
def test_leading_triples_agree_with_lapack(
    small: bool, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svd, "SMALL", 512 if small else 0)
    dense = of_rank(12, *shape, noise=0.01)
    values, vectors = truncated_svd(sp.csr_array(dense.astype(np.float32)), 9, generator(0, "svd"), tolerance=1e-4)
    _, s, vt = np.linalg.svd(dense)
    np.testing.assert_allclose(values, s[:9], rtol=1e-4)
    np.testing.assert_allclose(np.abs(vectors.T @ vt[:9].T), np.eye(9), atol=5e-3)
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(9)] > 0).all()


def test_a_flat_spectrum_is_found_to_the_stated_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd, "SMALL", 0)
    matrix = sp.csr_array((RNG.random((800, 600)) < 0.02).astype(np.float32))
    values, vectors = truncated_svd(matrix, 20, generator(0, "svd"))
    image = matrix.T @ (matrix @ vectors)
    assert (np.linalg.norm(image - vectors * values**2, axis=0) <= 0.031 * values**2).all()
    np.testing.assert_allclose(values, np.linalg.svd(matrix.toarray())[1][:20], rtol=2e-3)


@pytest.mark.parametrize("small", [True, False])
def test_beyond_the_rank_values_and_vectors_are_zero(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd, "SMALL", 512 if small else 0)
    values, vectors = truncated_svd(sp.csr_array(of_rank(3, 200, 150).astype(np.float32)), 8, generator(0, "svd"))
    assert (values[:3] > 9).all() and not values[3:].any() and not vectors[:, 3:].any()
    np.testing.assert_allclose(vectors[:, :3].T @ vectors[:, :3], np.eye(3), atol=1e-5)


def test_the_start_does_not_show_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svd, "SMALL", 0)
    matrix = sp.csr_array(of_rank(6, 300, 200, noise=0.01).astype(np.float32))
    first, second = (truncated_svd(matrix, 6, generator(seed, "svd"), tolerance=1e-5)[1] for seed in (0, 1))
    np.testing.assert_allclose(first, second, atol=1e-3)


# -- both systems


@pytest.mark.parametrize(("name", "config"), CASES)
def test_scores_are_those_of_the_dense_formula(name: str, config: dict[str, Any]) -> None:
    system = fit(name, dataset(X), config).system
    expected = pure_svd(X, **config) if name == "puresvd" else gf_cf(X, **config)
    np.testing.assert_allclose(scores_of(system, of_rows(X)), expected, atol=1e-4)


def test_popularity_below_one_dampens_popular_items() -> None:
    plain, damped = (
        scores_of(fit("puresvd", dataset(X), {"dim": 4, "popularity": p}).system, of_rows(X)) for p in (1.0, 0.0)
    )
    popular = np.argsort(X.sum(axis=0))[-10:]
    assert damped[:, popular].mean() / damped.mean() < plain[:, popular].mean() / plain.mean()


@pytest.mark.parametrize("name", ["puresvd", "gf-cf"])
def test_planted_tastes_are_found(name: str) -> None:
    same = np.arange(80)[:, None] % 2 == np.arange(30)[None] % 2
    bundle = fit(name, dataset(same & (RNG.random((80, 30)) < 0.4)), {"dim": 2})
    answer = bundle.retriever.retrieve(Requests.of_items([[0, 2], [1, 3]]), 8)
    assert (answer.items % 2 == [[0], [1]]).all()


@pytest.mark.parametrize(("name", "config"), CASES)
def test_a_request_is_answered_alike_in_any_batch(name: str, config: dict[str, Any]) -> None:
    bundle = fit(name, dataset(X), config)
    asked = of_rows(X)
    whole = bundle.retriever.retrieve(asked, 40)
    for row in range(0, 90, 11):
        alone = bundle.retriever.retrieve(asked.take(slice(row, row + 1)), 40)
        assert np.array_equal(alone.items[0], whole.items[row]) and np.array_equal(alone.scores[0], whole.scores[row])


def test_gf_cf_scores_of_some_items_are_those_of_all() -> None:
    system = fit("gf-cf", dataset(X), {"dim": 7}).system
    items = RNG.integers(-1, 40, (90, 6))
    whole = np.take_along_axis(system.score(of_rows(X)), np.maximum(items, 0), 1)
    assert np.array_equal(system.score(of_rows(X), items)[items >= 0], whole[items >= 0])


def test_gf_cf_refuses_edges_below_zero() -> None:
    data = dataset(X)
    rated = data.with_events(data.events.with_columns(value=pl.Series(-np.ones(data.n_events, dtype=np.float32))))
    with pytest.raises(DataError, match="never negative"):
        fit("gf-cf", rated, {"weight": "value"})


@pytest.mark.parametrize(("name", "config"), CASES)
def test_kept_state_comes_back_and_another_catalogue_is_refused(name: str, config: dict[str, Any]) -> None:
    bundle = fit(name, dataset(X), config)
    state = {key: array.copy() for key, array in bundle.system.export().items()}
    fresh = type(bundle.system)(bundle.config, bundle.schema)
    fresh.restore(state)
    assert np.array_equal(scores_of(fresh, of_rows(X)), scores_of(bundle.system, of_rows(X)))
    with pytest.raises(BundleError):
        type(fresh)(bundle.config, Schema(91, 41)).restore(state)
    with pytest.raises(BundleError):
        type(fresh)(bundle.config, bundle.schema).restore({**state, "vectors": state["vectors"] * np.nan})
    with pytest.raises(BundleError):
        type(fresh)(bundle.config, bundle.schema).restore({key: a for key, a in state.items() if key != "vectors"})


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_any_matrix_is_learned_and_answered(draw: st.DataObject, n_users: int, n_items: int) -> None:
    row = st.lists(st.integers(0, 1), min_size=n_items, max_size=n_items)
    x = np.array(draw.draw(st.lists(row, min_size=n_users, max_size=n_users)), dtype=float)
    system = fit("puresvd", dataset(x), {"dim": 20}).system
    np.testing.assert_allclose(scores_of(system, of_rows(x)), x, atol=1e-3)  # all vectors: nothing is lost
    system = fit("gf-cf", dataset(x), {"dim": 20, "alpha": 0.0}).system
    np.testing.assert_allclose(scores_of(system, of_rows(x)), gf_cf(x, 9, 0.0), atol=1e-4)
    system = fit("gf-cf", dataset(x), {"dim": 20, "alpha": 1.0}).system
    np.testing.assert_allclose(scores_of(system, of_rows(x)) - gf_cf(x, 9, 0.0), x, atol=1e-3)
