"""Sparse products and smoothing against plain torch and SciPy, values and gradients, for random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.nn import sparse
from tastemaker.nn.sparse import (
    Graph,
    bipartite,
    power_sum,
    smoothed,
    smoothed_reference,
    spmm,
    spmm_reference,
)
from tastemaker.types import UsageError


def random_matrix(rng: np.random.Generator, n: int, m: int, share: float) -> sp.csr_array:
    """About `share` of the entries, in float32; some rows and columns are empty."""
    kept = rng.random((n, m)) < share
    return sp.csr_array((rng.standard_normal((n, m)) * kept).astype(np.float32))


@st.composite
def problems(draw: Any, *, square: bool = False) -> tuple[sp.csr_array, int, np.random.Generator]:
    """A matrix, a width and a generator."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 30))
    m = n if square else draw(st.integers(1, 30))
    return random_matrix(rng, n, m, draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))), draw(st.integers(1, 40)), rng


@pytest.fixture(params=["serial", "parallel"], autouse=True)
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs on one thread and on several."""
    monkeypatch.setattr(sparse, "SERIAL_WORK", 0 if request.param == "parallel" else 10**9)


def gradients(value: torch.Tensor, of: list[torch.Tensor], seed: int) -> list[torch.Tensor]:
    slopes = torch.randn(value.shape, generator=torch.Generator().manual_seed(seed), dtype=value.dtype)
    return list(torch.autograd.grad(value, of, slopes))


def close(left: Any, right: Any) -> None:
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


RELAXED = settings(max_examples=25, deadline=None)


@RELAXED
@given(problems(), st.booleans(), st.booleans())
def test_products_are_those_of_torch_and_scipy(problem: Any, from_start: bool, some: bool) -> None:
    matrix, dim, rng = problem
    rows = torch.tensor(rng.permutation(matrix.shape[0])[: rng.integers(0, matrix.shape[0] + 1)]) if some else None
    graph = Graph.of(matrix)
    x = torch.tensor(rng.standard_normal((matrix.shape[1], dim)), dtype=torch.float32, requires_grad=True)
    start = torch.tensor(rng.standard_normal((matrix.shape[0], dim)), dtype=torch.float32, requires_grad=True)
    given_start, of = (start, [x, start]) if from_start else (None, [x])
    ours, theirs = spmm(graph, x, given_start, rows), spmm_reference(graph, x, given_start, rows)
    close(ours, theirs)
    scipys = matrix.astype(np.float64) @ x.detach().numpy() + (start.detach().numpy() if from_start else 0)
    close(ours.detach(), torch.tensor(scipys if rows is None else scipys[rows.numpy()], dtype=torch.float32))
    close(gradients(ours, of, 1), gradients(theirs, of, 1))


@RELAXED
@given(problems(square=True), st.integers(0, 4), st.booleans(), st.integers(0, 40))
def test_smoothing_of_some_nodes_is_the_mean_of_layers(problem: Any, n_layers: int, own: bool, n_nodes: int) -> None:
    matrix, dim, rng = problem
    matrix.data *= 0.3
    graph, nodes = Graph.of(matrix), torch.tensor(rng.integers(0, matrix.shape[0], n_nodes))
    x = torch.tensor(rng.standard_normal((matrix.shape[0], dim)), dtype=torch.float32, requires_grad=True)
    if n_layers == 0 and not own:
        with pytest.raises(UsageError, match="layer"):
            smoothed(graph, x, n_layers, nodes, own=own)
        return
    ours = smoothed(graph, x, n_layers, nodes, own=own)
    theirs = smoothed_reference(graph, x, n_layers, nodes, own=own)
    close(ours, theirs)
    close(gradients(ours, [x], 2), gradients(theirs, [x], 2))


@pytest.mark.parametrize("n_layers", [1, 3])
def test_gradients_agree_with_differences(n_layers: int) -> None:
    rng = np.random.default_rng(0)
    graph, nodes = Graph.of(random_matrix(rng, 7, 7, 0.4)), torch.tensor([0, 3, 3, 6])
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spmm(graph, x, 2 * x), x)
    assert torch.autograd.gradcheck(lambda x: spmm(graph, x, 2 * x, torch.tensor([5, 2])), x)
    assert torch.autograd.gradcheck(lambda x: smoothed(graph, x, n_layers, nodes), x)
    assert torch.autograd.gradcheck(lambda x: smoothed(graph, x, n_layers, nodes, own=False), x)


def test_a_sum_of_powers_is_the_dense_one() -> None:
    rng = np.random.default_rng(1)
    matrix = random_matrix(rng, 9, 9, 0.3)
    dense, x = matrix.toarray().astype(np.float64), rng.standard_normal((9, 4))
    expected = sum(np.linalg.matrix_power(dense, k) for k in range(4)) @ x
    np.testing.assert_allclose(power_sum(Graph.of(matrix), torch.tensor(x), 3), expected, rtol=1e-12)


def test_rows_do_not_depend_on_how_work_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    graph = Graph.of(random_matrix(rng, 400, 400, 0.05))
    x, nodes = torch.randn(400, 17), torch.arange(0, 400, 3)
    found = []
    for work, parts in ((10**9, 1), (0, 1), (0, 7)):
        monkeypatch.setattr(sparse, "SERIAL_WORK", work)
        monkeypatch.setattr(sparse, "PARTS", parts)
        found.append(torch.cat([spmm(graph, x), smoothed(graph, x, 2, nodes)]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_half_precision_is_summed_in_single() -> None:
    graph = Graph.of(random_matrix(np.random.default_rng(3), 20, 20, 0.5))
    x = torch.randn(20, 8, dtype=torch.bfloat16)
    assert torch.equal(spmm(graph, x), spmm(graph, x.float()).bfloat16())
    assert smoothed(graph, x, 2, torch.arange(20)).dtype == torch.bfloat16


def test_the_graph_of_users_and_items_is_normalised_on_both_sides() -> None:
    chosen = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)  # user 2, items 2 and 3: nothing
    whole = bipartite(sp.csr_array(chosen))
    adjacency = np.block([[np.zeros((3, 3)), chosen], [chosen.T, np.zeros((4, 4))]])
    roots = np.sqrt(np.maximum(adjacency.sum(axis=1), 1))
    np.testing.assert_allclose(whole.toarray(), adjacency / roots[:, None] / roots, rtol=1e-6)
    assert whole.dtype == np.float32 and whole.has_sorted_indices
    graph = Graph.of(whole)
    assert graph.indices is graph.t_indices, "a symmetric graph is kept once"
    assert graph.degrees().tolist() == [2, 1, 0, 1, 2, 0, 0]


def test_a_graph_is_no_weight() -> None:
    system = torch.nn.Linear(2, 2)
    system.graph = Graph.of(random_matrix(np.random.default_rng(4), 5, 6, 0.5))
    assert set(system.state_dict()) == {"weight", "bias"}
    assert system.double().graph.values.dtype == torch.float64, "it moves with the system"
    assert system.graph.indices.dtype == torch.int32


def test_dropped_edges_are_gone_in_both_directions_and_the_sum_is_kept() -> None:
    matrix = bipartite(sp.csr_array(np.ones((60, 50), dtype=np.float32)))
    graph = Graph.of(matrix)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        less = graph.dropped(0.3)
    there = sp.csr_array((less.values.numpy(), less.indices.numpy(), less.indptr.numpy()), shape=matrix.shape)
    back = sp.csr_array((less.t_values.numpy(), less.t_indices.numpy(), less.t_indptr.numpy()), shape=matrix.shape)
    np.testing.assert_array_equal(there.toarray(), back.toarray().T)
    gone = float((less.values == 0).float().mean())
    assert abs(gone - 0.3) < 0.03
    np.testing.assert_allclose(less.values[less.values > 0], graph.values[less.values > 0] / 0.7, rtol=1e-6)
    assert abs(float(less.values.sum() / graph.values.sum()) - 1) < 0.05


def test_what_does_not_fit_is_refused() -> None:
    graph = Graph.of(random_matrix(np.random.default_rng(6), 4, 4, 0.5))
    with pytest.raises(UsageError, match="takes vectors"):
        spmm(graph, torch.zeros(5, 2))
    with pytest.raises(UsageError, match="starts from"):
        spmm(graph, torch.zeros(4, 2), torch.zeros(3, 2))
    for nodes in ([0, 4], [-1]):
        with pytest.raises(UsageError, match="rows run from 0 to 3"):
            smoothed(graph, torch.zeros(4, 2), 1, torch.tensor(nodes))
