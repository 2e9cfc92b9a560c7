"""Coded features to vectors, and the parts that rankers share: plain layers, and outputs for several tasks.

B rows, F tokens of a row, D width, N events of histories, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.nn.table import Table
from tastemaker.types import BundleError

STD = 0.05


class Features(nn.Module):
    """Tokens of a row [B, F, D]: user, item, each category, the mean of each bag, each number times a vector.

    Rows of users and items count from 1; row 0 is the unknown one. What is unknown begins as 0, and says nothing until
    something unknown is met in training.

    Args:
        sizes: of users and items, rows of the table of categories, and how many of its first are unknown ones.
        n_bags, n_numbers: fields of a row.
        sparse: see `Table`.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        n_bags: int,
        n_numbers: int,
        dim: int,
        *,
        std: float = STD,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        n_users, n_items, n_values, n_unknown = sizes
        self.n_bags, self.dim = n_bags, dim
        self.users = Table(n_users + 1, dim, std=std, sparse=sparse)
        self.items = Table(n_items + 1, dim, std=std, sparse=sparse)
        self.values = Table(n_values, dim, std=std, sparse=sparse) if n_unknown else None
        self.slopes = nn.Parameter(torch.randn(n_numbers, dim) * std) if n_numbers else None
        with torch.no_grad():
            self.users.weight[0], self.items.weight[0] = 0.0, 0.0
            if self.values is not None:
                self.values.weight[:n_unknown] = 0.0

    @classmethod
    def of(cls, fields: Any, dim: int, *, std: float = STD, sparse: bool = True) -> Features:
        """For the fields of a feed (see `tastemaker.feeds.fields.Fields`)."""
        unknown = len(fields.categories) + len(fields.bags)
        sizes = fields.n_users, fields.n_items, fields.capacity, unknown
        return cls(sizes, len(fields.bags), len(fields.numbers), dim, std=std, sparse=sparse)

    def forward(self, rows: Any) -> Tensor:
        """[B, F, D] of a batch of rows (see `tastemaker.feeds.rows.Rows`)."""
        return self.with_events(rows)[0]

    def with_events(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Tokens [B, F, D], and the events of the histories [N, Fi, D], each as its item and the item's categories.

        A table is read once: sums of several sparse gradients cost more than all else.
        """
        n, past = len(rows.users), rows.history
        items = self.items(torch.cat([rows.items, past[:, 0]]))
        parts = [self.users(rows.users).unsqueeze(1), items[:n].unsqueeze(1)]
        events = items[n:].unsqueeze(1)
        if self.values is not None:
            codes = rows.categories.flatten(), rows.bags, past[:, 1:].flatten()
            own, bags, of_events = self.values(torch.cat(codes)).split([len(part) for part in codes])
            parts.append(own.view(n, rows.categories.shape[1], self.dim))
            events = torch.cat([events, of_events.view(len(past), past.shape[1] - 1, self.dim)], dim=1)
            if self.n_bags:
                lengths = rows.bag_offsets[1:] - rows.bag_offsets[:-1]
                owners = torch.repeat_interleave(lengths, output_size=len(bags))
                sums = bags.new_zeros(len(lengths), self.dim).index_add(0, owners, bags)
                means = sums / lengths.clamp(min=1).unsqueeze(1)
                parts.append(means.view(n, self.n_bags, self.dim))
        if self.slopes is not None:
            parts.append(rows.numbers.unsqueeze(-1) * self.slopes)
        return torch.cat(parts, dim=1), events


class Layers(nn.Module):
    """Linear layers with ReLU and dropout between them; the last one is plain where `out` is given, else like the rest.

    Args:
        hidden: widths of the inner layers.
    """

    def __init__(self, width: int, hidden: Sequence[int], out: int | None = None, *, dropout: float = 0.0) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for size in hidden:
            steps += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        if out is not None:
            steps.append(nn.Linear(width, out))
        self.steps, self.width = nn.Sequential(*steps), width if out is None else out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.steps(x)
        return y


class Outputs(nn.Module):
    """What T outputs mean: logits of binary tasks, standardised numbers of the others.

    Buffers: binary [T]; centre, spread [T] of the labels of numbers, 0 and 1 for binary tasks.
    """

    binary: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, binary: Sequence[bool], utility: Sequence[float]) -> None:
        super().__init__()
        if utility and len(utility) != len(binary):
            raise ValueError(f"{len(binary)} tasks need as many weights of utility, got {len(utility)}")
        self.weights = tuple(utility) or (1.0,) * len(binary)
        self.register_buffer("binary", torch.tensor(list(binary)))
        self.register_buffer("centre", torch.zeros(len(binary)))
        self.register_buffer("spread", torch.ones(len(binary)))

    def scale(self, moments: Any) -> None:
        """Take the moments [2, T] of the labels, mean and deviation of each."""
        self.centre.copy_(torch.as_tensor(moments[0]))
        self.spread.copy_(torch.as_tensor(moments[1]))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of binary tasks and half the squared error of numbers, summed over the labels there are [B].

        Shapes: outputs, labels [B, T]; a label of NaN takes no part.
        """
        there = ~torch.isnan(labels)
        targets = torch.where(there, (labels - self.centre) / self.spread, 0.0)
        if bool(self.binary.all()):
            losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        else:
            crosses = F.binary_cross_entropy_with_logits(outputs, targets.clamp(0.0, 1.0), reduction="none")
            losses = torch.where(self.binary, crosses, 0.5 * (outputs - targets).square())
        return torch.where(there, losses, 0.0).sum(dim=1)

    def units(self, outputs: Tensor) -> Tensor:
        """Probabilities and numbers, in the units of each task [..., T]."""
        return torch.where(self.binary, torch.sigmoid(outputs), outputs * self.spread + self.centre)

    def utility(self, outputs: Tensor) -> Tensor:
        """One utility [...]: the weighed sum of log-probabilities and of standardised numbers."""
        worth = torch.where(self.binary, F.logsigmoid(outputs), outputs)
        return worth @ outputs.new_tensor(self.weights)


def load_weights(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a module the weights of its `state_dict`, and set it to answer.

    Raises:
        BundleError: they do not fit, or are no numbers.
    """
    weights = {name: torch.as_tensor(array) for name, array in state.items()}
    if bad := [name for name, w in weights.items() if w.is_floating_point() and not torch.isfinite(w).all()]:
        raise BundleError(f"the weights {bad[0]} hold values that are no numbers")
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(f"the weights do not fit the system: {error}") from error
    module.eval()
