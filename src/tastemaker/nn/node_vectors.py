"""Vectors of users and items after smoothing over their graph, held as long as the weights stay as they are.

A user the graph does not know gets what propagation gives a new node with edges to the items of the user's history.
With z = x + P x + ... + P^(L-1) x a user's mean of layers is (x_u + sum over the user's items i of z_i / sqrt(d_u d_i))
/ (L + 1). So each item has a message, z_i / sqrt(d_i) / (L + 1), and the vector of a new user is the sum of the
messages of n items over sqrt(n). A new user's own layer 0, which nobody learnt, is 0; what the new edges would change
of the items' vectors is left out.

Ref: He et al., "LightGCN", arXiv:2002.02126, equations 3 and 4.

U users, I items, D width, B requests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from tastemaker.nn.product import history_product
from tastemaker.nn.sparse import Graph, power_sum, spmm
from tastemaker.nn.table import Table
from tastemaker.types import BundleError, Requests, State

NAMES = ("users", "items", "messages")
NODES = "nodes"


class NodeVectors(nn.Module):
    """users [U, D], items [I, D] and the items' messages [I, D]; without rows before `fill`, and in no `state_dict`.

    A user without an edge has a row of zeros, and counts as a stranger; an item without one has no message.
    """

    users: Tensor
    items: Tensor
    messages: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.register_buffer(name, torch.zeros(0, 0), persistent=False)

    def clear(self) -> None:
        """Forget the vectors."""
        self.users = self.items = self.messages = self.items.new_zeros(0, 0)

    @property
    def filled(self) -> bool:
        return len(self.items) > 0

    @torch.no_grad()
    def fill(self, graph: Graph, x: Tensor, n_users: int, n_layers: int, *, own: bool = True) -> None:
        """Take the mean of the layers of x [U + I, D]; `own`: whether layer 0 counts in it."""
        before = power_sum(graph, x, n_layers - 1) if n_layers else torch.zeros_like(x)
        mean = spmm(graph, before, x if own else None).div_(n_layers + own)
        degrees = graph.degrees().to(x.dtype).unsqueeze(1)
        linked, roots = degrees > 0, degrees.clamp(min=1).sqrt()
        self.users, self.items = mean[:n_users] * linked[:n_users], mean[n_users:]
        self.messages = (before * linked / (roots * (n_layers + own)))[n_users:]

    def queries(self, requests: Requests, histories: Callable[[Requests, int], sp.csr_array]) -> Tensor:
        """Vectors of the requests [B, D]; of a stranger without a history, the mean of all users.

        Args:
            histories: gives the items of requests as a matrix of ones [B, I]: `feeds.history_matrix`.
        """
        n_users, n_items = len(self.users), len(self.items)
        numbers = np.full(requests.n, -1) if requests.users is None else requests.users
        known = (numbers >= 0) & (numbers < n_users)
        rows = self.users.new_zeros(requests.n, self.items.shape[1])
        rows[known] = self.users[torch.from_numpy(numbers[known]).to(rows.device)]
        strangers = torch.nonzero(~rows.any(dim=1)).squeeze(1)
        if len(strangers):
            rows[strangers] = self.users.sum(dim=0) / self.users.any(dim=1).sum().clamp(min=1)
            if requests.history is not None:
                chosen = histories(requests.take(strangers.cpu().numpy()), n_items)
                told = torch.from_numpy(history_product(chosen, self.messages.cpu().numpy())).to(rows.device)
                roots = torch.from_numpy(np.diff(chosen.indptr)).to(rows).clamp(min=1).sqrt()
                heard = told.any(dim=1)
                rows[strangers[heard]] = told[heard] / roots[heard].unsqueeze(1)
        return rows

    def export(self) -> State:
        return {name: getattr(self, name).detach().cpu().numpy() for name in NAMES}

    def restore(self, state: State, n_users: int, n_items: int, dim: int) -> None:
        """Take what `export` gave; BundleError where it does not fit these sizes or is not finite."""
        for name, n in zip(NAMES, (n_users, n_items, n_items), strict=True):
            array = state.get(name)
            if array is None or array.shape != (n, dim) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise BundleError(
                    f"vectors after smoothing are finite float32 {name} [{n}, {dim}]; there are none such"
                )
        for name in NAMES:
            setattr(self, name, torch.from_numpy(np.array(state[name])))


def export_nodes(table: Table) -> State:
    """The learnt rows before smoothing, which a later training goes on from."""
    return {NODES: table.weight.detach().cpu().numpy()}


@torch.no_grad()
def restore_nodes(table: Table, state: State) -> None:
    """Take what `export_nodes` gave; where it is not there, rows are no numbers, and nothing can go on from them."""
    array = state.get(NODES)
    if array is None:
        table.weight.fill_(torch.nan)
        return
    if array.shape != table.weight.shape or array.dtype != np.float32 or not np.isfinite(array).all():
        raise BundleError(f"rows before smoothing are finite float32 {list(table.weight.shape)}; these are not")
    table.weight.copy_(torch.from_numpy(np.array(array)))
