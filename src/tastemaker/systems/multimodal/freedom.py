"""FREEDOM: LightGCN on a graph of choices that is thinned anew every epoch, beside a fixed graph of items alike.

The item graph S is made once: each item is joined to the k most alike by each modality, and the modalities' graphs are
added by their shares. Item i is the mean of its layers over the graph of choices, plus row i of S^L times the items'
own rows. In training the graph of choices keeps only a share of its edges, drawn anew every epoch without putting back,
edge (u, i) in proportion to 1 / sqrt(d_u d_i), so that those between much-chosen nodes go first; it is whole in
answering. The loss is BPR of these vectors, plus `content` times BPR of the users against what items' content says, one
linear map a modality, whose vectors may move.

Kept as published: both graphs, thinning, propagation, loss, first values, Adam. Changed: texts are read by TF-IDF where
no language model is named; rows of content move only when a batch reads them; the choice of an epoch's edges is by
Gumbel's trick, which has no limit of 2^24 of them.

An item nobody has chosen yet gets the mean of its nearest items' own rows (`extend`).

Ref: Zhou, Shen, "A tale of two graphs: freezing and denoising graph structures for multimodal recommendation",
ACM MM 2023, arXiv:2211.06924; github.com/enoche/FREEDOM, github.com/enoche/MMRec.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Precompute, Program, Train, system
from tastemaker.feeds import Triplets, history_matrix, interaction_matrix, triplets, uniform
from tastemaker.language.features import CONTENT, encoded, item_vectors, sources
from tastemaker.nn.content import ItemContent, restore_layers
from tastemaker.nn.neighbours import blended, neighbour_graph, shares_of
from tastemaker.nn.node_vectors import NodeVectors, export_nodes, restore_nodes
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.nn.sparse import Graph, bipartite, propagated, smoothed, spmm
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, State, mix, setting


class Rows(NamedTuple):
    """What a batch reads: users [B, D]; the chosen item, then what it is held against [B, 1 + n, D]; and what each
    modality's content says of those [B, 1 + n, D]."""

    users: Tensor
    items: Tensor
    told: tuple[Tensor, ...]


@system(
    "freedom",
    family="multimodal",
    title="FREEDOM: a thinned graph of choices beside a fixed graph of items alike",
    paper="arXiv:2211.06924",
    learns_from={"events", CONTENT},
    needs={"users"},
)
class FREEDOM(nn.Module):
    """LightGCN's vectors, with items joined to those that look and read alike.

    Published, Amazon Baby, Recall@20 / NDCG@20: .0992 / .0424, where LightGCN has .0754 / .0328 (MMRec's table).
    """

    draw: Tensor
    rows: ClassVar = {"table.weight": ("users", "items"), "content.weight": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 128), log=True)
        n_layers: int = setting(2, "Steps over the graph of choices.", low=1, high=8, search=(1, 3))
        item_layers: int = setting(1, "Steps over the graph of items; 0: leave it out.", low=0, high=4, search=(1, 2))
        neighbours: int = setting(10, "Items an item is joined to by each modality, itself among them.", low=1)
        thinned: float = setting(0.8, "Share of choices left out of an epoch.", low=0.0, high=0.99, search=(0.5, 0.9))
        thin_by: Literal["degree", "chance"] = setting(
            "degree", "Whether much-chosen nodes lose most, or all alike.", choices=("degree", "chance")
        )
        content: float = setting(1e-3, "Weight of the loss on content.", low=0.0, log=True, search=(1e-5, 1e-2))
        columns: str = setting("", "Columns read, separated by commas; none named: all texts, images and vectors.")
        shares: str = setting(
            "", "What each modality counts in the item graph, in their order; none given: images a tenth."
        )
        text_dim: int = setting(200, "Width of a text's vector by TF-IDF.", low=1)
        encoder: str = setting("tfidf", "What reads texts: tfidf, or a language model by name or folder.")
        lr: float = setting(1e-3, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
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
        self.shares = shares_of(c.shares, [source.kind for source in self.sources])
        self.table = Table(schema.n_users + schema.n_items, c.dim)  # users first
        with torch.no_grad():
            for rows in torch.split(self.table.weight, [schema.n_users, schema.n_items]):
                nn.init.xavier_uniform_(rows)
        self.content = Table(schema.n_items, sum(s.width for s in self.sources), sparse=True)
        self.maps = nn.ModuleList(nn.Linear(source.width, c.dim, bias=False) for source in self.sources)
        self.register_buffer("draw", torch.zeros((), dtype=torch.int64))  # tells which choices this epoch keeps
        self.known = ItemContent(self.sources)
        self.familiar = np.zeros(schema.n_items, dtype=np.bool_)  # items whose content an older fit has moved
        self.matrix: sp.csr_array | None = None  # a system from a bundle has none, and no graphs
        self.graph: Graph | None = None
        self.item_graph: Graph | None = None
        self.thin: tuple[int, Graph] | None = None
        self.final = NodeVectors()

    def program(self, data: Dataset) -> Program:
        c = self.config
        self.matrix = interaction_matrix(data)
        self.graph = Graph.of((yield Precompute(bipartite, self.matrix)))
        vectors, kept = yield from item_vectors(self.sources, data.items)
        graphs = []
        for one in vectors:
            graphs.append((yield Precompute(neighbour_graph, one, c.neighbours)))
        self.item_graph = Graph.of(blended(graphs, self.shares))
        self.known.take(vectors, kept)
        with torch.no_grad():
            fresh = torch.from_numpy(~self.familiar)
            self.content.weight[fresh] = torch.from_numpy(np.concatenate(vectors, axis=1)).to(self.draw.device)[fresh]
        yield Train(
            triplets(self.matrix, c.batch_size, uniform(self.matrix, c.negatives)),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
            every_epoch=self.draw_edges,
        )

    def adopt(self, old: FREEDOM, users: NDArray[np.integer[Any]], items: NDArray[np.integer[Any]]) -> None:
        """Note which items an older fit knows: their content goes on from where it stands."""
        self.familiar = items >= 0

    def draw_edges(self, epoch: int) -> None:
        """Choose anew which choices an epoch keeps: a number they follow from."""
        self.draw.copy_(torch.randint(2**62, ()))

    def gather(self, batch: Triplets) -> Rows:
        c, x = self.config, self.table.weight
        assert self.item_graph is not None
        items = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1)
        nodes = torch.cat([batch.users.unsqueeze(1), items + self.n_users], dim=1)  # [B, 2 + n]
        mean = smoothed(self.thinned(), x, c.n_layers, nodes.flatten()).view(*nodes.shape, c.dim)
        chosen = mean[:, 1:]
        different, place = torch.unique(items, return_inverse=True)
        if c.item_layers:
            before = propagated(self.item_graph, x[self.n_users :], c.item_layers - 1)
            chosen = chosen + F.embedding(place, spmm(self.item_graph, before, rows=different))
        if not c.content:
            return Rows(mean[:, 0], chosen, ())
        content = torch.split(self.content(different), [source.width for source in self.sources], dim=1)
        told = (F.embedding(place, one(part)) for one, part in zip(self.maps, content, strict=True))
        return Rows(mean[:, 0], chosen, tuple(told))

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each choice, and of its users with what the content of each modality says [B] (equations 10, 11)."""
        loss = penalised_bpr(rows.users, rows.items)
        for told in rows.told:
            loss = loss + self.config.content * penalised_bpr(rows.users, told)
        return loss

    def thinned(self) -> Graph:
        """The graph of choices of this epoch: a function of `draw`, so that a run taken up again has the same."""
        assert self.matrix is not None and self.graph is not None
        if not self.config.thinned:
            return self.graph
        draw = int(self.draw)
        if self.thin is None or self.thin[0] != draw:
            kept = kept_edges(self.matrix, self.config.thinned, draw, even=self.config.thin_by == "chance")
            self.thin = draw, Graph.of(bipartite(kept)).to(self.draw.device)
        return self.thin[1]

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
            assert self.item_graph is not None
            c, x = self.config, self.table.weight
            self.final.fill(self.graph, x, self.n_users, c.n_layers)
            if c.item_layers:
                before = propagated(self.item_graph, x[self.n_users :], c.item_layers - 1)
                self.final.items += spmm(self.item_graph, before)
                self.known.hold(before)
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

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> FREEDOM:
        """With further users, who are strangers, and further items, by the items their content is most like."""
        state = self.export()
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.n_users + n_users, n_items=self.n_items + n_items)
        fresh = np.zeros((n_items, self.config.dim), dtype=np.float32)
        if items is not None and self.config.item_layers:
            content = encoded(self.sources, items, self.known.kept)
            fresh = self.known.placed(content, self.shares, self.config.neighbours)
        larger = type(self)(self.config, schema)
        state["users"] = np.concatenate([state["users"], np.zeros((n_users, self.config.dim), dtype=np.float32)])
        state["items"] = np.concatenate([state["items"], fresh])
        state["messages"] = np.concatenate([state["messages"], np.zeros_like(fresh)])
        larger.restore({name: array for name, array in state.items() if name != "nodes"})
        return larger

    def export(self) -> dict[str, Any]:
        """What answers; what places items that come later; and what lets a later training go on from here."""
        maps = {f"maps.{name}": value.detach().cpu().numpy() for name, value in self.maps.state_dict().items()}
        return {**self.vectors().export(), **export_nodes(self.table), **self.known.export(), **maps}

    def restore(self, state: State) -> None:
        self.matrix = self.graph = self.item_graph = None
        self.final.restore(state, self.n_users, self.n_items, self.config.dim)
        self.known.restore(state, self.config.dim)
        restore_nodes(self.table, state)
        restore_layers(self.maps, state, "maps.")
        if len(self.known.lent) == self.n_items:  # where a later training goes on from; an extended system has fewer
            with torch.no_grad():
                self.content.weight.copy_(torch.from_numpy(np.concatenate(self.known.vectors, axis=1)))
        self.eval()


def kept_edges(matrix: sp.csr_array, thinned: float, draw: int, *, even: bool = False) -> sp.csr_array:
    """The choices an epoch keeps: floor((1 - thinned) E) of them, without putting back.

    A choice is drawn in proportion to 1 / sqrt(d_u d_i), or `even`. The largest of log weight plus Gumbel noise are
    such a draw (Vieira, "Gumbel-max trick and weighted reservoir sampling", 2014).

    Shapes: matrix [U, I] of ones; returns [U, I].
    """
    n = matrix.nnz
    uniform_draws = (mix(np.arange(n), draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    keys: NDArray[np.float64] = -np.log(-np.log(np.clip(uniform_draws, 1e-300, 1 - 2**-53)))
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    if not even:
        by_user = np.diff(matrix.indptr)[rows]
        by_item = np.bincount(matrix.indices, minlength=matrix.shape[1])[matrix.indices]
        keys -= 0.5 * np.log(by_user.astype(np.float64) * by_item)
    size = int((1 - thinned) * n)
    kept = np.sort(np.argpartition(-keys, size - 1)[:size]) if size else np.empty(0, dtype=np.int64)
    data = np.ones(len(kept), dtype=np.float32)
    return sp.csr_array((data, (rows[kept], matrix.indices[kept])), shape=matrix.shape)
