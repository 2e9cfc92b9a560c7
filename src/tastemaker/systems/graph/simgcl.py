"""SimGCL: LightGCN's smoothing, and two noisy views of a node that must recognise each other among the batch.

With P = D^-1/2 A D^-1/2 and E one learnt row a node, a vector is a row of (P E + ... + P^L E) / L: unlike LightGCN's,
without layer 0. In a view every layer is moved before the next is made of it, x <- x + epsilon * sign(x) * u / |u| with
u uniform in [0, 1)^D. The loss is BPR of the vectors without noise, with their squared lengths as the penalty, plus
`weight` times InfoNCE between two views of the batch's users, and the same of its chosen items.

Kept as published: views, temperature, losses, first values, Adam; means over the batch as in the authors' torch code,
and the penalty as in their first code, on all smoothed vectors of a triple. The sign passes no gradient, so a view is
the plain vector plus what the noise adds to it, a constant; one way backward serves the plain vectors and both views,
and of the last layer only the batch's rows are computed.

Changed: defaults. The paper picks the weight for each data set, 0.5 on Yelp2018, at a rate of 0.001. The contrast looks
at directions alone, so the shorter the vectors are, the harder it pulls, and the first ones are short: where an epoch
is 20 to 40 steps, it drowns the choices for longer than training waits for a rise. With a weight of 0.03 and a rate
of 0.01 the vectors outgrow it in the first epochs.

Ref: Yu et al., "Are graph augmentations necessary? Simple graph contrastive learning for recommendation", SIGIR 2022,
arXiv:2112.08679; github.com/Coder-Yu/SELFRec, github.com/Coder-Yu/QRec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Precompute, Program, Train, system
from tastemaker.feeds import Triplets, history_matrix, interaction_matrix, triplets, uniform
from tastemaker.nn.losses import info_nce
from tastemaker.nn.node_vectors import NodeVectors, export_nodes, restore_nodes
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.nn.sparse import Graph, bipartite, smoothed, spmm
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, State, setting


class Rows(NamedTuple):
    """What a batch reads: users [B, D]; the chosen item, then what it is held against [B, 1 + n, D]; and two views of
    the batch's different users [u, D] and of its different chosen items [i, D]."""

    users: Tensor
    items: Tensor
    user_view: Tensor
    other_user_view: Tensor
    item_view: Tensor
    other_item_view: Tensor


@system(
    "simgcl",
    family="graph",
    title="SimGCL: contrast of noisy views on the user-item graph",
    paper="arXiv:2112.08679",
    needs={"users"},
)
class SimGCL(nn.Module):
    """LightGCN's vectors, spread more evenly by the contrast of two noisy views.

    Published, Yelp2018, Recall@20 / NDCG@20: .0721 / .0601, where LightGCN has .0639 / .0525.
    """

    rows: ClassVar = {"table.weight": ("users", "items")}
    small: ClassVar = {"epochs": 20}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 256), log=True)
        n_layers: int = setting(3, "Steps of propagation.", low=1, high=8, search=(1, 4))
        lr: float = setting(0.01, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.03))
        reg: float = setting(1e-4, "Weight of the squared vectors of a triple.", low=0.0, log=True, search=(1e-6, 1e-2))
        weight: float = setting(0.03, "Weight of the contrast.", low=0.0, log=True, search=(0.005, 2.0))
        epsilon: float = setting(0.1, "Length of the noise.", low=0.0, log=True, search=(0.01, 1.0))
        temperature: float = setting(0.2, "Temperature of the contrast.", low=1e-3, log=True, search=(0.05, 1.0))
        negatives: int = setting(1, "Items a choice is held against.", low=1, search=(1, 16), log=True)
        batch_size: int = setting(2048, "Choices a step.", low=1)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_users, self.n_items = config, schema.n_users, schema.n_items
        self.table = Table(schema.n_users + schema.n_items, config.dim)  # users first
        with torch.no_grad():
            for rows in torch.split(self.table.weight, [schema.n_users, schema.n_items]):
                nn.init.xavier_uniform_(rows)
        self.graph: Graph | None = None  # a system from a bundle has none
        self.final = NodeVectors()

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        self.graph = Graph.of((yield Precompute(bipartite, matrix)))
        yield Train(
            triplets(matrix, c.batch_size, uniform(matrix, c.negatives)),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Triplets) -> Rows:
        assert self.graph is not None
        n, x = self.config.n_layers, self.table.weight
        items = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1) + self.n_users
        nodes = torch.cat([batch.users.unsqueeze(1), items], dim=1)  # [B, 2 + n]
        users, chosen = torch.unique(batch.users), torch.unique(items[:, 0])
        both = torch.cat([users, chosen])
        plain, seen = torch.split(
            smoothed(self.graph, x, n, torch.cat([nodes.flatten(), both]), own=False), [nodes.numel(), len(both)]
        )
        mean = plain.view(*nodes.shape, -1)
        with torch.no_grad():
            first = spmm(self.graph, x)
            moves = [self._view(first, both) - seen for _ in range(2)]
        views = [torch.split(seen + move, [len(users), len(chosen)]) for move in moves]
        return Rows(mean[:, 0], mean[:, 1:], views[0][0], views[1][0], views[0][1], views[1][1])

    def _view(self, first: Tensor, nodes: Tensor) -> Tensor:
        """The mean of noisy layers at some nodes [R, D], from the first layer without noise [N, D]. Equation 6."""
        assert self.graph is not None
        n, total, layer = self.config.n_layers, torch.zeros(()), first
        for number in range(1, n + 1):
            if number > 1:
                layer = spmm(self.graph, layer, rows=nodes if number == n else None)
            elif n == 1:
                layer = first[nodes]
            noise = F.normalize(torch.rand_like(layer), dim=-1)
            layer = layer + self.config.epsilon * layer.sign() * noise
            total = total + (layer if number == n else layer[nodes])
        return total / n

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each choice with its penalty, and the batch's mean contrast on top of every row [B]."""
        c = self.config
        contrast = info_nce(rows.user_view, rows.other_user_view, c.temperature).mean()
        contrast = contrast + info_nce(rows.item_view, rows.other_item_view, c.temperature).mean()
        return penalised_bpr(rows.users, rows.items, c.reg) + c.weight * contrast

    # -- answering

    def train(self, mode: bool = True) -> Self:
        """Weights may move from here on, so the vectors made of them are forgotten."""
        if self.graph is not None:
            self.final.clear()
        return super().train(mode)

    def vectors(self) -> NodeVectors:
        """Smoothed once, and held for as long as the system stays in evaluation."""
        if self.graph is not None and (self.training or not self.final.filled):
            self.final.fill(self.graph, self.table.weight, self.n_users, self.config.n_layers, own=False)
        return self.final

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The users' vectors [B, D]; a stranger's come from the history, or are the mean of all."""
        return self.vectors().queries(requests, history_matrix)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors [n, D]."""
        items = self.vectors().items
        return items if numbers is None else items[self.table.numbers(numbers)]

    def export(self) -> State:
        """What answers, and E, which answers nothing but lets a later training go on from here."""
        return {**self.vectors().export(), **export_nodes(self.table)}

    def restore(self, state: State) -> None:
        self.graph = None
        self.final.restore(state, self.n_users, self.n_items, self.config.dim)
        restore_nodes(self.table, state)
        self.eval()
