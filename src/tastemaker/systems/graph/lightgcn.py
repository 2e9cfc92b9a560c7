"""LightGCN: vectors of users and items, smoothed over the graph of who chose what, and nothing else.

With P = D^-1/2 A D^-1/2 of the bipartite graph and E one learnt row a node, the vector of a node is its row of
(E + P E + ... + P^L E) / (L + 1). The loss is BPR on the smoothed vectors, with the squared lengths of the rows of E
that a batch reads as the penalty.

Kept from the paper: propagation without weights or activations, the mean of layers, loss, penalty, first values, Adam.
As in the authors' torch code, a pair is of a user drawn at random, so that all users count alike (`draw`). Changed: of
the last layer only the rows of the batch are computed (`tastemaker.nn.sparse.smoothed`); a user the graph does not
know is answered by propagation from the items of the history (`tastemaker.nn.node_vectors`); training stops when
validation no longer rises, where the authors' runs last 1,000 epochs.

Ref: He et al., "LightGCN: simplifying and powering graph convolution network for recommendation", SIGIR 2020,
arXiv:2002.02126; github.com/gusye1234/LightGCN-PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Precompute, Program, Train, system
from tastemaker.feeds import Triplets, history_matrix, interaction_matrix, triplets, uniform
from tastemaker.nn.node_vectors import NodeVectors, export_nodes, restore_nodes
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.nn.sparse import Graph, bipartite, smoothed
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, State, setting


class Rows(NamedTuple):
    """What a batch reads: smoothed users [B, D]; the chosen item, then what it is held against [B, 1 + n, D]; and
    the nodes' own rows of E, user first [B, 2 + n, D]."""

    users: Tensor
    items: Tensor
    own: Tensor


@system(
    "lightgcn",
    family="graph",
    title="LightGCN: vectors smoothed over the user-item graph",
    paper="arXiv:2002.02126",
    needs={"users"},
)
class LightGCN(nn.Module):
    """Vectors smoothed over the user-item graph; learnt from pairs.

    Published, Gowalla, Recall@20 / NDCG@20: .1687 / .1417 with one layer, .1786 / .1524 with two, .1824 / .1547
    with three (the authors' torch code).
    """

    rows: ClassVar = {"table.weight": ("users", "items")}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 256), log=True)
        n_layers: int = setting(3, "Steps of propagation; 0: plain factorisation.", low=0, high=8, search=(1, 4))
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(1e-4, "Weight of the squared rows a batch reads.", low=0.0, log=True, search=(1e-6, 1e-2))
        negatives: int = setting(1, "Items a choice is held against.", low=1, search=(1, 16), log=True)
        draw: Literal["users", "choices"] = setting(
            "users",
            "What a pair is drawn by: users, all alike, then one of the user's choices; or every choice once an epoch.",
            choices=("users", "choices"),
            search=("users", "choices"),
        )
        dropout: float = setting(0.0, "Share of edges left out of a step.", low=0.0, high=0.9)
        batch_size: int = setting(2048, "Pairs a step.", low=1)
        epochs: int = setting(1000, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(5, "Epochs between evaluations.", low=1)
        init: float = setting(0.1, "Standard deviation of the first vectors.", low=1e-6)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_users, self.n_items = config, schema.n_users, schema.n_items
        self.table = Table(schema.n_users + schema.n_items, config.dim, std=config.init)  # users first
        self.graph: Graph | None = None  # a system from a bundle has none
        self.final = NodeVectors()

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        self.graph = Graph.of((yield Precompute(bipartite, matrix)))
        yield Train(
            triplets(matrix, c.batch_size, uniform(matrix, c.negatives), draw=c.draw),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Triplets) -> Rows:
        c = self.config
        assert self.graph is not None
        graph = self.graph.dropped(c.dropout) if c.dropout and self.training else self.graph
        items = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1) + self.n_users
        nodes = torch.cat([batch.users.unsqueeze(1), items], dim=1)  # [B, 2 + n]
        mean = smoothed(graph, self.table.weight, c.n_layers, nodes.flatten()).view(*nodes.shape, c.dim)
        return Rows(mean[:, 0], mean[:, 1:], self.table(nodes))

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each pair, and half the squared length of the rows of E it reads [B]."""
        return penalised_bpr(rows.users, rows.items) + self.config.reg / 2 * rows.own.square().sum(dim=(1, 2))

    # -- answering

    def train(self, mode: bool = True) -> Self:
        """Weights may move from here on, so the vectors made of them are forgotten."""
        if self.graph is not None:
            self.final.clear()
        return super().train(mode)

    def vectors(self) -> NodeVectors:
        """Smoothed once, and held for as long as the system stays in evaluation."""
        if self.graph is not None and (self.training or not self.final.filled):
            self.final.fill(self.graph, self.table.weight, self.n_users, self.config.n_layers)
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
