"""VBPR: factorisation with a second part whose items are what images and texts say of them.

    score = b_i + p_u . q_i + t_u . (E f_i) + c . f_i

with f_i the vectors of the item's modalities side by side, E a matrix and c a vector for all items. Learnt from pairs.

Kept from the paper: score, loss, a penalty of E and c of their own. Changed: the other penalty is on whole vectors,
E f included; vectors of every modality, not of an image network alone, each of unit length. An item that comes later
has b and q of 0 and is ranked by what its content says (`extend`).

Ref: He, McAuley, "VBPR: visual Bayesian personalized ranking from implicit feedback", AAAI 2016, arXiv:1510.01784.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Triplets, interaction_matrix, triplets, uniform
from tastemaker.language.features import CONTENT, encoded, item_vectors, sources
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.nn.table import Table
from tastemaker.types import BundleError, Dataset, Requests, Schema, State, setting


class Rows(NamedTuple):
    """What a batch reads: users [B, 2 D]; the chosen item, then what it is held against [B, 1 + n, 2 D + 1]."""

    users: Tensor
    items: Tensor


@system(
    "vbpr",
    family="multimodal",
    title="VBPR: factorisation beside what items look like",
    paper="arXiv:1510.01784",
    learns_from={"events", CONTENT},
    needs={"users"},
)
class VBPR(nn.Module):
    """Users, items and their content as vectors whose inner product ranks.

    Published with image and text vectors, Amazon Baby, Recall@20 / NDCG@20: .0663 / .0284 (MMRec's table).
    """

    content: Tensor
    rows: ClassVar = {"user_table.weight": ("users",), "item_table.weight": ("items",), "content": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of either part of the vectors.", low=1, search=(16, 128), log=True)
        columns: str = setting("", "Columns read, separated by commas; none named: all texts, images and vectors.")
        text_dim: int = setting(200, "Width of a text's vector by TF-IDF.", low=1)
        encoder: str = setting("tfidf", "What reads texts: tfidf, or a language model by name or folder.")
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(0.01, "Weight of the squared vectors of a batch.", low=0.0, log=True, search=(1e-5, 0.1))
        content_reg: float = setting(1e-4, "Weight of the squares of E and c.", low=0.0, log=True, search=(1e-6, 1e-2))
        negatives: int = setting(1, "Items a choice is held against.", low=1, search=(1, 16), log=True)
        batch_size: int = setting(2048, "Choices a step.", low=1)
        epochs: int = setting(1000, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)
        init: float = setting(0.1, "Standard deviation of the first vectors.", low=1e-6)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        c = self.config = config
        self.schema = schema
        self.sources = sources(schema.items, c.columns, text_dim=c.text_dim, encoder=c.encoder)
        width = sum(source.width for source in self.sources)
        self.user_table = Table(schema.n_users, 2 * c.dim, std=c.init)
        self.item_table = Table(schema.n_items, c.dim + 1, std=c.init)  # the bias last
        self.map = nn.Linear(width, c.dim + 1, bias=False)  # E, and c last
        self.register_buffer("content", torch.zeros(schema.n_items, width))
        self.kept: list[State] = [{} for _ in self.sources]

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        vectors, self.kept = yield from item_vectors(self.sources, data.items)
        self.content.copy_(torch.from_numpy(np.concatenate(vectors, axis=1)))
        yield Train(
            triplets(matrix, c.batch_size, uniform(matrix, c.negatives)),
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Triplets) -> Rows:
        numbers = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1)
        return Rows(self.user_table(batch.users), self.whole(self.item_table(numbers), self.content[numbers]))

    def whole(self, own: Tensor, content: Tensor) -> Tensor:
        """Items [..., 2 D + 1]: q, E f and the sum of both biases, from their rows [..., D + 1] and content."""
        told = self.map(content)
        return torch.cat([own[..., :-1], told[..., :-1], own[..., -1:] + told[..., -1:]], dim=-1)

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """BPR of each choice with its penalty, and that of E and c [B] (paper, section 3.4)."""
        of_map = self.config.content_reg / 2 * self.map.weight.square().sum()
        return penalised_bpr(rows.users, rows.items, self.config.reg) + of_map

    # -- answering

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The users' vectors, and a 1 for the items' bias to meet [B, 2 D + 1]; a stranger's is the mean of all."""
        rows = self.user_table.known(requests.users)
        return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, their bias the last dimension [n, 2 D + 1]."""
        if numbers is None:
            return self.whole(self.item_table.weight, self.content)
        return self.whole(self.item_table(numbers), self.content[self.item_table.numbers(numbers)])

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> VBPR:
        """With further users, who are strangers, and further items, known by their content alone."""
        n_users, n_items = (0 if table is None else len(table) for table in (users, items))
        schema = replace(self.schema, n_users=self.schema.n_users + n_users, n_items=self.schema.n_items + n_items)
        larger, state = type(self)(self.config, schema), self.export()
        strangers = self.user_table.weight.detach().mean(dim=0).expand(n_users, -1)
        state["user_table.weight"] = torch.cat([self.user_table.weight.detach(), strangers]).numpy()
        if items is not None:
            told = np.concatenate(encoded(self.sources, items, self.kept), axis=1)
            state["content"] = np.concatenate([state["content"], told])
            own = np.zeros((n_items, self.config.dim + 1), dtype=np.float32)
            state["item_table.weight"] = np.concatenate([state["item_table.weight"], own])
        larger.restore(state)
        return larger

    def export(self) -> dict[str, Any]:
        """Tables, E and c, the content of items, and what its encoders know."""
        weights = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        told = {f"source.{n}.{name}": a for n, kept in enumerate(self.kept) for name, a in kept.items()}
        return {**weights, **told}

    def restore(self, state: State) -> None:
        prefix = [f"source.{n}." for n in range(len(self.sources))]
        self.kept = [{k.removeprefix(p): a for k, a in state.items() if k.startswith(p)} for p in prefix]
        weights = {k: torch.from_numpy(np.array(a)) for k, a in state.items() if not k.startswith("source.")}
        if bad := [name for name, w in weights.items() if not torch.isfinite(w).all()]:
            raise BundleError(f"the weights {bad[0]} hold values that are no numbers")
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f"the weights do not fit the system: {error}") from error
        self.eval()
