"""iALS against dense references and on data whose structure is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.systems.classical import ials
from tastemaker.systems.classical.ials import Penalty, objective, on_principal_axes, solve, sweep
from tastemaker.train import fit
from tastemaker.types import BundleError, DataError, Dataset, Requests, Schema

RNG = np.random.default_rng(5)
RENDLE = Penalty(reg=0.05, nu=1.0, unobserved=0.2, alpha=1.5)
HU = Penalty(reg=0.3, nu=0.0, unobserved=1.0, alpha=8.0, replaces=True)


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


def csr(matrix: np.ndarray) -> sp.csr_array:
    return sp.csr_array(matrix.astype(np.float32))


def pair_weights(x: np.ndarray, p: Penalty) -> tuple[np.ndarray, np.ndarray]:
    """Weight of (1 - score)^2 and of score^2 of every pair, as the papers write the objective."""
    chosen = x > 0
    return np.where(chosen, p.alpha * x, 0), np.where(chosen & p.replaces, 0, p.unobserved)


def row_reg(x: np.ndarray, p: Penalty) -> np.ndarray:
    return p.reg * ((x > 0).sum(axis=1) + p.unobserved * x.shape[1]) ** p.nu


def half_sweep(x: np.ndarray, other: np.ndarray, p: Penalty) -> np.ndarray:
    """Every row by its own full linear system."""
    one, zero = pair_weights(x, p)
    rows = []
    for u in range(len(x)):
        system = (other.T * (one[u] + zero[u])) @ other + row_reg(x, p)[u] * np.eye(other.shape[1])
        rows.append(np.linalg.solve(system, other.T @ one[u]))
    return np.array(rows)


def users_of(x: np.ndarray, dim: int) -> np.ndarray:
    """Where the users' factors start."""
    return np.zeros((len(x), dim), dtype=np.float32)


def loss(x: np.ndarray, users: np.ndarray, items: np.ndarray, p: Penalty) -> float:
    one, zero = pair_weights(x, p)
    scores = users @ items.T
    fit_part = (one * (1 - scores) ** 2 + zero * scores**2).sum()
    return fit_part + row_reg(x, p) @ (users**2).sum(axis=1) + row_reg(x.T, p) @ (items**2).sum(axis=1)


def counts(n_users: int, n_items: int, share: float) -> np.ndarray:
    return RNG.integers(1, 4, (n_users, n_items)) * (RNG.random((n_users, n_items)) < share).astype(float)


@pytest.mark.parametrize("penalty", [RENDLE, HU])
@pytest.mark.parametrize(("dim", "share"), [(4, 0.3), (33, 0.05), (33, 0.6), (70, 0.3)])
def test_a_half_sweep_is_the_exact_solution(penalty: Penalty, dim: int, share: float) -> None:
    """Rows shorter and longer than the factors are wide, and widths beside the padding."""
    x, items = counts(40, 90, share), RNG.standard_normal((90, dim)) * 0.5
    factors, spectrum = on_principal_axes(items.astype(np.float32))
    users = solve(csr(x), factors, spectrum, penalty)
    np.testing.assert_allclose(users, half_sweep(x, factors.astype(float), penalty), atol=2e-4, rtol=2e-3)


def test_rows_longer_than_one_gather_are_exact() -> None:
    x, items = counts(3, 1500, 0.7), RNG.standard_normal((1500, 8)) * 0.3
    assert (x > 0).sum(axis=1).min() > 2 * ials.CHUNK
    factors, spectrum = on_principal_axes(items.astype(np.float32))
    users = solve(csr(x), factors, spectrum, RENDLE)
    np.testing.assert_allclose(users, half_sweep(x, factors.astype(float), RENDLE), atol=1e-4, rtol=1e-3)


def test_a_chosen_pair_without_extra_weight_is_solved_too() -> None:
    """alpha 1 beside unobserved 1: the pairs' weights differ in nothing but what they are drawn to."""
    flat = replace(HU, alpha=1.0)
    x, items = (counts(20, 30, 0.3) > 0).astype(float), RNG.standard_normal((30, 40)) * 0.5
    factors, spectrum = on_principal_axes(items.astype(np.float32))
    np.testing.assert_allclose(
        solve(csr(x), factors, spectrum, flat), half_sweep(x, factors.astype(float), flat), atol=2e-4, rtol=2e-3
    )


def test_principal_axes_keep_every_inner_product() -> None:
    factors = RNG.standard_normal((50, 6)).astype(np.float32)
    turned, spectrum = on_principal_axes(factors)
    np.testing.assert_allclose(turned @ turned.T, factors @ factors.T, atol=1e-4)
    np.testing.assert_allclose(turned.T @ turned, np.diag(spectrum), atol=1e-3)
    assert (np.diff(spectrum) >= 0).all()


@pytest.mark.parametrize("penalty", [RENDLE, HU])
def test_one_sweep_agrees_with_numpy_and_the_objective_with_its_definition(penalty: Penalty) -> None:
    x, items = counts(60, 40, 0.2), RNG.standard_normal((40, 7)) * 0.3
    swept = sweep(csr(x), csr(x.T), users_of(x, 7), items.astype(np.float32), penalty)[1]
    users = half_sweep(x, items, penalty)
    expected = half_sweep(x.T, users, penalty)
    np.testing.assert_allclose(swept @ swept.T, expected @ expected.T, atol=2e-3)
    found = objective(csr(x), users.astype(np.float32), expected.astype(np.float32), penalty)
    assert found == pytest.approx(loss(x, users, expected, penalty), rel=1e-5)


def curve(x: np.ndarray, items: np.ndarray, penalty: Penalty, steps: int, sweeps: int) -> list[float]:
    """The objective after each sweep."""
    users, values = users_of(x, items.shape[1]), []
    for _ in range(sweeps):
        users, items = sweep(csr(x), csr(x.T), users, items.astype(np.float32), penalty, steps)
        values.append(objective(csr(x), users, items, penalty))
    return values


@pytest.mark.parametrize("penalty", [RENDLE, HU])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_no_sweep_raises_the_objective(penalty: Penalty, steps: int) -> None:
    """Rows of 8 to 64 choices and 40 factors: some are solved exactly, some by steps."""
    x = counts(120, 80, 0.4)
    values = curve(x, RNG.standard_normal((80, 40)) * 0.1, penalty, steps, 10)
    assert (np.diff(values) < 1e-6 * values[0]).all() and values[-1] < 0.99 * values[0]


@pytest.mark.parametrize("penalty", [RENDLE, replace(HU, reg=20.0)])
def test_steps_end_where_the_exact_solution_does(penalty: Penalty) -> None:
    x, items = counts(150, 100, 0.5), RNG.standard_normal((100, 24)) * 0.1
    exact, stepped = (curve(x, items, penalty, steps, 60)[-1] for steps in (0, 3))
    assert stepped == pytest.approx(exact, rel=1e-5)
    assert curve(x, items, penalty, 3, 3)[-1] != curve(x, items, penalty, 0, 3)[-1]  # there are rows that it takes


def test_steps_stop_at_the_solution_even_where_all_factors_vanish() -> None:
    x = counts(60, 50, 0.6)
    values = curve(x, RNG.standard_normal((50, 24)) * 0.1, replace(HU, reg=1e5), 3, 40)
    assert values[-1] == pytest.approx(HU.alpha * x.sum())


@pytest.mark.parametrize("penalty", [RENDLE, HU])
@pytest.mark.parametrize("dim", [33, 70])
def test_steps_are_those_of_preconditioned_conjugate_gradients(penalty: Penalty, dim: int) -> None:
    """From any start; and rows of few choices are solved exactly whatever the start."""
    x = counts(40, 90, 0.3)
    x[:5] = counts(5, 90, 0.05)
    few = (x > 0).sum(axis=1) <= 4 * (2 + 1)
    assert 0 < few.sum() < 40
    factors, spectrum = on_principal_axes((RNG.standard_normal((90, dim)) * 0.5).astype(np.float32))
    start = RNG.standard_normal((40, dim)).astype(np.float32)
    one, zero = pair_weights(x, penalty)
    expected, y = half_sweep(x, factors.astype(float), penalty), factors.astype(float)
    for u in np.flatnonzero(~few):
        d = penalty.unobserved * spectrum.astype(float) + row_reg(x, penalty)[u]
        system = (y.T * (one[u] + zero[u] - penalty.unobserved)) @ y + np.diag(d)
        at, left = start[u].astype(float), y.T @ one[u] - system @ start[u]
        way = left / d
        for _ in range(2):
            length = (left @ (left / d)) / (way @ system @ way)
            at, after = at + length * way, left - length * system @ way
            way = after / d + (after @ (after / d)) / (left @ (left / d)) * way
            left = after
        expected[u] = at
    found = solve(csr(x), factors, spectrum, penalty, start, 2)
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_planted_tastes_are_found() -> None:
    same = np.arange(80)[:, None] % 2 == np.arange(30)[None] % 2
    bundle = fit("ials", dataset(same & (RNG.random((80, 30)) < 0.4)), {"dim": 2, "reg": 0.01})
    answer = bundle.retriever.retrieve(Requests.of_items([[0, 2], [1, 3]]), 8)
    assert (answer.items % 2 == [[0], [1]]).all()


def test_folding_in_gives_the_factors_that_training_gave_the_same_history() -> None:
    x = counts(50, 40, 0.2)
    system = fit("ials", dataset(x), {"dim": 10, "weight": "count"}).system
    trained = half_sweep(x, system.items().astype(float), system.penalty)
    np.testing.assert_allclose(system.queries(of_rows(x)), trained, atol=1e-3)


def test_a_request_is_folded_in_alike_in_any_batch_and_order() -> None:
    x = counts(70, 60, 0.3)
    system = fit("ials", dataset(x), {"dim": 20}).system
    whole = system.queries(of_rows(x))
    for row in range(0, 70, 9):
        assert np.array_equal(system.queries(of_rows(x[row : row + 1]))[0], whole[row])
    backwards = Requests.of_items([np.flatnonzero(row)[::-1].repeat(2) for row in x])
    assert np.array_equal(system.queries(backwards), whole)
    assert not system.queries(Requests.of_items([[]])).any()


def test_weights_below_the_unobserved_one_are_refused() -> None:
    with pytest.raises(DataError, match="raise alpha"):
        fit("ials", dataset(counts(5, 5, 0.5)), {"chosen": "replaces", "unobserved": 1.0, "alpha": 0.5})


def test_kept_state_comes_back_in_a_fresh_object_and_another_size_is_refused() -> None:
    x = counts(30, 20, 0.3)
    bundle = fit("ials", dataset(x), {"dim": 6})
    state = {name: array.copy() for name, array in bundle.system.export().items()}
    fresh = type(bundle.system)(bundle.config, bundle.schema)
    fresh.restore(state)
    assert np.array_equal(
        fresh.queries(of_rows(x)) @ fresh.items().T, bundle.system.queries(of_rows(x)) @ fresh.items().T
    )
    with pytest.raises(BundleError, match="21, 6"):
        type(fresh)(bundle.config, Schema(30, 21)).restore(state)
    broken: dict[str, Any] = {
        "spectrum": -np.ones(6, dtype=np.float32),
        "factors": np.full((20, 6), np.nan, np.float32),
    }
    for name, array in broken.items():
        with pytest.raises(BundleError):
            type(fresh)(bundle.config, bundle.schema).restore({**state, name: array})


def test_the_seed_decides_the_first_factors_and_nothing_else_does() -> None:
    data = dataset(counts(40, 30, 0.2))
    first, again, other = (fit("ials", data, {"dim": 5, "sweeps": 2}, seed=seed).system.items() for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_any_matrix_is_learned_and_answered(
    draw: st.DataObject, n_users: int, n_items: int, dim: int, replaces: bool
) -> None:
    row = st.lists(st.integers(0, 2), min_size=n_items, max_size=n_items)
    x = np.array(draw.draw(st.lists(row, min_size=n_users, max_size=n_users)), dtype=float)
    config = {"dim": dim, "weight": "count", "sweeps": 2, "chosen": "replaces" if replaces else "added"}
    system = fit("ials", dataset(x), config).system
    expected = half_sweep(x, system.items().astype(float), system.penalty)
    assert system.items().shape == (n_items, dim)
    np.testing.assert_allclose(system.queries(of_rows(x)) @ system.items().T, expected @ system.items().T, atol=1e-3)
