"""The only embedding class: rows of parameters by number."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Table(nn.Module):
    """n rows of D parameters.

    Everything that changes embeddings (masks, searched widths, shared codes) registers a parametrisation of
    `weight` with `torch.nn.utils.parametrize`; whoever reads rows reads them through it.

    Args:
        n, dim: rows, and their width.
        std: standard deviation of the first values; None: Xavier's, sqrt(2 / (n + dim)).
        sparse: gradients and updates touch only the rows of the batch. Pays where a batch reads few of many rows;
            weight decay and gradient clipping need it off.
    """

    def __init__(self, n: int, dim: int, *, std: float | None = 0.1, sparse: bool = False) -> None:
        super().__init__()
        self.sparse = sparse
        self.weight = nn.Parameter(torch.empty(n, dim))
        if std is None:
            nn.init.xavier_normal_(self.weight)
        else:
            nn.init.normal_(self.weight, std=std)

    def forward(self, numbers: Any) -> Tensor:
        """Rows by number: [...] to [..., D]. Numbers may be a NumPy array or a tensor."""
        return F.embedding(self.numbers(numbers), self.weight, sparse=self.sparse)

    def known(self, numbers: Any) -> Tensor:
        """Rows by number, where a number may be unknown (-1, or past the end): it gets the mean of all rows."""
        wanted = self.numbers(numbers)
        unknown = (wanted < 0) | (wanted >= len(self.weight))
        rows = F.embedding(wanted.masked_fill(unknown, 0), self.weight)
        if not unknown.any():
            return rows
        return torch.where(unknown.unsqueeze(-1), self.weight.mean(dim=0), rows)

    def numbers(self, numbers: Any) -> Tensor:
        """Numbers as an int64 tensor where the table lies."""
        return torch.as_tensor(numbers, dtype=torch.int64, device=self.weight.device)

    def extra_repr(self) -> str:
        n, dim = self.weight.shape
        return f"{n}, {dim}" + (", sparse" if self.sparse else "")
