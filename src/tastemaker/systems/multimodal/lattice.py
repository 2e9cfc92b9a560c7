"""LATTICE: LightGCN beside a graph of items alike, part of which is learnt.

The fixed part S0 joins each item to the k most alike by each modality, weighed by likeness. The learnt part does the
same after a linear map a modality, anew at the start of every epoch; what it joins follows from the maps as they stand,
how strongly passes a gradient in the first step of the epoch, and is held for the rest. With w the softmax of a number
a modality,

    S = share sym(sum of w_m A_m) + (1 - share) sum of w_m S0_m,      item = LightGCN's vector + unit(S^L own row)

The loss is BPR with the squared lengths of these vectors as the penalty. With `frozen` S is the mean of the S0, which
the authors of FREEDOM found to be no worse.

Kept as published: both graphs, their mixture, when the gradient passes, loss, first values, Adam. Changed: the graph is
made of nearest rows found block by block, where the authors hold several matrices of all items by all (`dense` does,
where memory allows); likeness below 0 counts 0; the graph of choices is LightGCN's own, where their code divides by the
user's degree alone; the vectors of content themselves do not move.

An item nobody has chosen yet gets the mean of its nearest items' rows by S0 (`extend`).

Ref: Zhang et al., "Mining latent structures for multimedia recommendation", ACM MM 2021, arXiv:2104.09036;
github.com/CRIPAC-DIG/LATTICE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Precompute, Program, Train, system
from tastemaker.feeds import Triplets, history_matrix, interaction_matrix, triplets, uniform
from tastemaker.language.features import CONTENT, encoded, item_vectors, sources
from tastemaker.nn.content import ItemContent, restore_array, restore_layers
from tastemaker.nn.neighbours import blended, dense_neighbours, edges, joined, nearest_rows, neighbour_graph
from tastemaker.nn.node_vectors import NodeVectors, export_nodes, restore_nodes
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.nn.sparse import Graph, bipartite, propagated, smoothed, spmm
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, State, setting


class Rows(NamedTuple):
    """What a batch reads: users [B, D]; the chosen item, then what it is held against [B, 1 + n, D]."""

    users: Tensor
    items: Tensor


@system(
    "lattice",
    family="multimodal",
    title="LATTICE: a learnt graph of items beside the graph of choices",
    paper="arXiv:2104.09036",
    learns_from={"events", CONTENT},
    needs={"users"},
)
class LATTICE(nn.Module):
    """LightGCN's vectors, with items joined to those that a learnt likeness finds.

    Published, Amazon Baby, Recall@20 / NDCG@20: .0850 / .0370 (MMRec's table).
    """

    fresh: Tensor
    near: Tensor
    likeness: Tensor
    mixed: Tensor
    built: Tensor
    rows: ClassVar = {"table.weight": ("users", "items"), "near": ("items",), "likeness": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 128), log=True)
        n_layers: int = setting(2, "Steps over the graph of choices.", low=0, high=8, search=(1, 3))
        item_layers: int = setting(1, "Steps over the graph of items.", low=1, high=4)
        neighbours: int = setting(10, "Items an item is joined to by each modality, itself among them.", low=1)
        share: float = setting(0.1, "Share of the learnt graph.", low=0.0, high=1.0, search=(0.0, 1.0))
        frozen: bool = setting(False, "Leave the graph as content has it, with all modalities alike.")
        dense: bool = setting(False, "Find neighbours by matrices of all items by all, where memory allows.")
        columns: str = setting("", "Columns read, separated by commas; none named: all texts, images and vectors.")
        text_dim: int = setting(200, "Width of a text's vector by TF-IDF.", low=1)
        encoder: str = setting("tfidf", "What reads texts: tfidf, or a language model by name or folder.")
        lr: float = setting(1e-3, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(1e-4, "Weight of the squared vectors of a batch.", low=0.0, log=True, search=(1e-6, 1e-2))
        negatives: int = setting(1, "Items a choice is held against.", low=1, search=(1, 16), log=True)
        batch_size: int = setting(2048, "Choices a step.", low=1)
        epochs: int = setting(1000, "Most epochs.", low=1)
        patience: int = setting(20, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(1, "Epochs between evaluations.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        c = self.config = config
        self.schema, self.n_users, self.n_items = schema, schema.n_users, schema.n_items
        self.sources = sources(schema.items, c.columns, text_dim=c.text_dim, encoder=c.encoder)
        self.table = Table(schema.n_users + schema.n_items, c.dim)  # users first
        with torch.no_grad():
            for rows in torch.split(self.table.weight, [schema.n_users, schema.n_items]):
                nn.init.xavier_uniform_(rows)
        learnt = () if c.frozen else self.sources
        self.maps = nn.ModuleList(nn.Linear(source.width, c.dim) for source in learnt)
        n = len(self.sources)
        self.weights = nn.Parameter(torch.zeros(n), requires_grad=n > 1 and not c.frozen)
        self.register_buffer("near", torch.zeros(schema.n_items, n, c.neighbours, dtype=torch.int64))
        self.register_buffer("likeness", torch.zeros(schema.n_items, n, c.neighbours))
        self.register_buffer("mixed", torch.full((n,), 1 / n))  # w as it stood at the start of the epoch
        self.register_buffer("fresh", torch.zeros((), dtype=torch.bool))  # whether this is the first step of an epoch
        self.register_buffer("built", torch.zeros((), dtype=torch.int64))  # epochs begun
        self.known = ItemContent(self.sources)
        self.graph: Graph | None = None  # a system from a bundle has none
        self.content: list[Tensor] = []
        self.matrices: list[sp.csr_array] = []
        self.first: list[Graph] = []  # S0, a graph a modality
        self.held: tuple[int, Graph] | None = None
        self.final = NodeVectors()

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        self.graph = Graph.of((yield Precompute(bipartite, matrix)))
        vectors, kept = yield from item_vectors(self.sources, data.items)
        graphs = []
        for one in vectors:
            graphs.append((yield Precompute(neighbour_graph, one, c.neighbours, weighted=True)))
        self.matrices = graphs
        self.first = [Graph.of(graph).to(self.weights.device) for graph in graphs]
        self.known.take(vectors, kept)
        self.content = [torch.from_numpy(one) for one in vectors]
        yield Train(
            triplets(matrix, c.batch_size, uniform(matrix, c.negatives)),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
            every_epoch=None if c.frozen else self.join,
            after_step=None if c.frozen else self.settle,
        )

    # -- the graph of items

    @torch.no_grad()
    def join(self, epoch: int) -> None:
        """Find each item's nearest by the maps as they stand."""
        nearest = dense_neighbours if self.config.dense else nearest_rows
        for m, points in enumerate(self.mapped()):
            self.near[:, m], self.likeness[:, m] = nearest(points, self.config.neighbours)
        self.mixed.copy_(self.weights.softmax(dim=0))
        self.built += 1
        self.fresh.fill_(True)

    def settle(self, step: int) -> None:
        """From the second step of an epoch on, the graph stays as it is."""
        self.fresh.fill_(False)

    def mapped(self) -> list[Tensor]:
        """The items after each modality's map, of unit length [I, D]."""
        device = self.weights.device
        told = zip(self.maps, self.content, strict=True)
        return [F.normalize(one(vectors.to(device)), dim=1) for one, vectors in told]

    def item_graph(self) -> Graph:
        """S as it stood at the start of the epoch: a function of buffers, so that a run taken up again has the same."""
        built = int(self.built)
        if self.held is None or self.held[0] != built:
            c, weights = self.config, self.mixed.tolist()
            share = 0.0 if c.frozen else c.share
            parts, shares = list(self.matrices), [(1 - share) * w for w in weights]
            if share:
                row, column = (part.cpu().numpy() for part in edges(self.near))
                values = joined(self.near, self.likeness, self.mixed).cpu().numpy()
                parts.append(sp.csr_array((values, (row, column)), shape=parts[0].shape))
                shares.append(share)
            self.held = built, Graph.of(blended(parts, shares)).to(self.weights.device)
        return self.held[1]

    def fresh_layer(self, x: Tensor) -> Tensor:
        """S x, with gradients to maps and weights too [I, D]."""
        share, weights = self.config.share, self.weights.softmax(dim=0)
        total = torch.stack([w * spmm(graph, x) for w, graph in zip(weights, self.first, strict=True)]).sum(dim=0)
        at = self.near.clamp(min=0)
        likeness = [
            (points.unsqueeze(1) * F.embedding(at[:, m], points)).sum(dim=2) * (self.near[:, m] >= 0)
            for m, points in enumerate(self.mapped())
        ]
        values = joined(self.near, torch.stack(likeness, dim=1), weights)
        row, column = edges(self.near)
        learnt = torch.zeros_like(x).index_add(0, row, values.unsqueeze(1) * F.embedding(column, x))
        return share * learnt + (1 - share) * total

    def neighbourly(self, rows: Tensor | None = None) -> Tensor:
        """Unit rows of S^L x at some items [R, D], or at all."""
        x = self.table.weight[self.n_users :]
        if self.training and self.fresh and not self.config.frozen:
            for _ in range(self.config.item_layers):
                x = self.fresh_layer(x)
            return F.normalize(x if rows is None else F.embedding(rows, x), dim=1)
        graph = self.item_graph()
        return F.normalize(spmm(graph, propagated(graph, x, self.config.item_layers - 1), rows=rows), dim=1)

    # -- training

    def gather(self, batch: Triplets) -> Rows:
        c = self.config
        assert self.graph is not None
        items = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1)
        nodes = torch.cat([batch.users.unsqueeze(1), items + self.n_users], dim=1)  # [B, 2 + n]
        mean = smoothed(self.graph, self.table.weight, c.n_layers, nodes.flatten()).view(*nodes.shape, c.dim)
        different, place = torch.unique(items, return_inverse=True)
        return Rows(mean[:, 0], mean[:, 1:] + F.embedding(place, self.neighbourly(different)))

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each choice, and half the squared length of the vectors it looks at [B]."""
        return penalised_bpr(rows.users, rows.items, self.config.reg)

    # -- answering

    def train(self, mode: bool = True) -> Self:
        """Weights may move from here on, so the vectors made of them are forgotten."""
        if self.graph is not None:
            self.final.clear()
        return super().train(mode)

    @torch.no_grad()
    def vectors(self) -> NodeVectors:
        """Made once, and held for as long as the system stays in evaluation."""
        if self.graph is not None and (self.training or not self.final.filled):
            self.final.fill(self.graph, self.table.weight, self.n_users, self.config.n_layers)
            self.final.items += self.neighbourly()
            self.known.hold(self.table.weight[self.n_users :])
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

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> LATTICE:
        """With further users, who are strangers, and further items, by the items their content is most like."""
        state = self.export()
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.n_users + n_users, n_items=self.n_items + n_items)
        fresh = np.zeros((n_items, self.config.dim), dtype=np.float32)
        if items is not None:
            content = encoded(self.sources, items, self.known.kept)
            placed = self.known.placed(content, self.mixed.tolist(), self.config.neighbours)
            fresh = F.normalize(torch.from_numpy(placed), dim=1).numpy()
        larger = type(self)(self.config, schema)
        state["users"] = np.concatenate([state["users"], np.zeros((n_users, self.config.dim), dtype=np.float32)])
        state["items"] = np.concatenate([state["items"], fresh])
        state["messages"] = np.concatenate([state["messages"], np.zeros_like(fresh)])
        larger.restore({name: array for name, array in state.items() if name != "nodes"})
        return larger

    def export(self) -> dict[str, Any]:
        """What answers; what places items that come later; and what lets a later training go on from here."""
        maps = {f"maps.{name}": value.detach().cpu().numpy() for name, value in self.maps.state_dict().items()}
        mixture = {name: getattr(self, name).detach().cpu().numpy() for name in ("weights", "mixed")}
        return {**self.vectors().export(), **export_nodes(self.table), **self.known.export(), **maps, **mixture}

    def restore(self, state: State) -> None:
        self.graph = None
        self.final.restore(state, self.n_users, self.n_items, self.config.dim)
        self.known.restore(state, self.config.dim)
        restore_nodes(self.table, state)
        restore_layers(self.maps, state, "maps.")
        for name in ("weights", "mixed"):
            restore_array(getattr(self, name), state, name)
        self.eval()
