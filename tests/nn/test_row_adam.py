"""RowAdam against torch's SparseAdam: its kernel (float32) and its generic path (float64)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tastemaker.nn import row_adam
from tastemaker.nn.row_adam import RowAdam


def steps(n: int, dim: int, seed: int, dtype: Any = torch.float32) -> list[torch.Tensor]:
    """Sparse gradients of a few steps: rows repeat, some never come, one step touches nothing."""
    torch.manual_seed(seed)
    found = []
    for step in range(5):
        rows = torch.randint(0, n, (0 if step == 2 else int(torch.randint(1, 3 * n, ())),))
        values = torch.randn(len(rows), dim) * 10.0 ** torch.randint(-3, 2, (len(rows), 1))
        found.append(torch.sparse_coo_tensor(rows.unsqueeze(0), values.to(dtype), (n, dim), check_invariants=True))
    return found


def run(rule: Any, start: torch.Tensor, gradients: list[torch.Tensor], **how: Any) -> tuple[torch.Tensor, Any]:
    table = nn.Parameter(start.clone())
    optimiser = rule([table], **how)
    for gradient in gradients:
        table.grad = gradient.clone()
        optimiser.step()
    return table.detach(), optimiser.state[table]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(0, 10**6),
    st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.5, 0.9)]),
    st.sampled_from([1e-3, 0.5]),
    st.sampled_from([1e-8, 1e-2]),
)
def test_steps_equal_those_of_sparse_adam(
    n: int, dim: int, seed: int, betas: tuple[float, float], lr: float, eps: float
) -> None:
    start, how = torch.randn(n, dim).double(), {"lr": lr, "betas": betas, "eps": eps}
    theirs, wanted = run(torch.optim.SparseAdam, start, steps(n, dim, seed, torch.float64), **how)
    for dtype, off in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        ours, kept = run(RowAdam, start.to(dtype), steps(n, dim, seed, dtype), **how)
        torch.testing.assert_close(ours.double(), theirs, rtol=off, atol=off)
        torch.testing.assert_close(kept["first"].double(), wanted["exp_avg"], rtol=off, atol=off)
        torch.testing.assert_close(kept["second"].double(), wanted["exp_avg_sq"], rtol=off, atol=off)
        assert int(kept["step"]) == wanted["step"] == 5


def test_the_kernel_is_what_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(row_adam, "_move_rows", lambda *arguments: called.append(arguments))
    run(RowAdam, torch.zeros(3, 2), steps(3, 2, 0))
    assert len(called) == 5
    run(RowAdam, torch.zeros(3, 2, dtype=torch.float64), steps(3, 2, 0, torch.float64))
    assert len(called) == 5


def test_untouched_rows_and_their_moments_stay_as_they_are() -> None:
    start = torch.randn(6, 4)
    table = nn.Parameter(start.clone())
    optimiser = RowAdam([table], lr=0.1)
    table.grad = torch.sparse_coo_tensor(torch.tensor([[1, 4, 1]]), torch.ones(3, 4), (6, 4), check_invariants=True)
    optimiser.step()
    still = [0, 2, 3, 5]
    assert torch.equal(table[still], start[still]) and not torch.equal(table[[1, 4]], start[[1, 4]])
    assert not optimiser.state[table]["first"][still].any()


def test_a_dense_gradient_moves_the_rows_that_have_one() -> None:
    """What several processes sum is dense."""
    start, sparse = torch.randn(5, 3), steps(5, 3, 4)
    left, _ = run(RowAdam, start, sparse)
    right, _ = run(RowAdam, start, [gradient.to_dense() for gradient in sparse])
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


def test_its_state_can_be_kept_and_taken_up() -> None:
    gradients, start = steps(7, 5, 9), torch.randn(7, 5)
    whole, _ = run(RowAdam, start, gradients, lr=0.05)
    half, _ = run(RowAdam, start, gradients[:3], lr=0.05)
    first = RowAdam([nn.Parameter(start.clone())], lr=0.05)
    table = first.param_groups[0]["params"][0]
    for gradient in gradients[:3]:
        table.grad = gradient.clone()
        first.step()
    assert torch.equal(table, half)
    again = nn.Parameter(half.clone())
    second = RowAdam([again], lr=0.05)
    second.load_state_dict(first.state_dict())
    for gradient in gradients[3:]:
        again.grad = gradient.clone()
        second.step()
    assert torch.equal(again, whole)
