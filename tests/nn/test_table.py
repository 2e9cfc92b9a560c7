"""The embedding class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from tastemaker.nn.table import Table


def test_rows_come_by_number_in_any_shape() -> None:
    table = Table(6, 3)
    for numbers in (np.array([[1, 5], [0, 1]], dtype=np.int32), torch.tensor([[1, 5], [0, 1]])):
        assert torch.equal(table(numbers), table.weight[torch.tensor([[1, 5], [0, 1]])])
    assert table(np.empty(0, dtype=np.int64)).shape == (0, 3)


def test_the_unknown_get_the_mean_of_all_rows() -> None:
    table = Table(4, 3)
    rows = table.known(np.array([2, -1, 4, 0], dtype=np.int32))
    assert torch.equal(rows[[0, 3]], table.weight[[2, 0]])
    torch.testing.assert_close(rows[[1, 2]], table.weight.mean(dim=0).expand(2, 3))


@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_reach_the_rows_of_the_batch(sparse: bool) -> None:
    table = Table(5, 2, sparse=sparse)
    table(np.array([3, 3, 1])).sum().backward()
    gradient = table.weight.grad
    assert gradient is not None and gradient.is_sparse == sparse
    assert gradient.to_dense().sum(dim=1).tolist() == [0, 2, 0, 4, 0]


def test_first_values_have_the_wanted_spread() -> None:
    torch.manual_seed(0)
    assert abs(Table(1000, 50, std=0.3).weight.std().item() - 0.3) < 0.01
    assert abs(Table(1000, 50, std=None).weight.std().item() - (2 / 1050) ** 0.5) < 1e-3


def test_what_changes_embeddings_changes_every_way_of_reading_them() -> None:
    class Masked(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * torch.tensor([1.0, 0.0])

    table = Table(4, 2)
    parametrize.register_parametrization(table, "weight", Masked())
    for rows in (table(np.arange(4)), table.known(np.arange(-1, 4)), table.weight):
        assert not rows[:, 1].any() and rows[:, 0].any()
