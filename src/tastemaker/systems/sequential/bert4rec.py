"""BERT4Rec: a bidirectional transformer that fills gaps in a history, and is asked with a gap at its end.

Kept from the paper: masked events as the task, blocks with the norm after the residual, GELU and an inner layer of 4 D,
a projection with GELU and a bias an item before the shared item table, AdamW, windows of a whole history. Changed:
- The softmax is taken over masked positions alone, and its memory does not grow with the catalogue.
- `last` of the windows mask their last event alone, as they are asked; the paper adds such windows to its data.
- An empty history is the mask alone, which windows of one event teach.

An event teaches only when it is hidden, and the end of a history, which is what is asked for, is hidden seldom. So
the method needs many passes: a replication found up to thirty times the epochs of the original defaults (Petrov,
Macdonald). `masked` is 0.2 in the paper for MovieLens and up to 0.6 elsewhere; the default was chosen on the
valid part of MovieLens-100K.

Ref: Sun et al., "BERT4Rec", CIKM 2019, arXiv:1904.06690; Petrov, Macdonald, "A systematic review and replicability
study of BERT4Rec", RecSys 2022, arXiv:2207.07483.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Sequences, cloze, recent, tensors, windows
from tastemaker.feeds.sequences import Which
from tastemaker.nn.catalogue import catalogue_softmax
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.nn.transformer import Transformer
from tastemaker.types import Dataset, Requests, Schema, setting


@system(
    "bert4rec",
    family="sequential",
    title="BERT4Rec: fills gaps in a history",
    paper="arXiv:1904.06690",
    learns_from={"events", "events.time"},
    needs={"history"},
)
class BERT4Rec(nn.Module):
    """Tells hidden items from those before and after; the next item is hidden behind the last."""

    rows: ClassVar = {"table.weight": ("items", 1), "bias": ("items",)}  # one more: the mask
    small: ClassVar = {"epochs": 20}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, log=True, search=(32, 256))
        n_layers: int = setting(2, "Blocks of attention.", low=1, search=(1, 4))
        n_heads: int = setting(2, "Heads of attention; `dim` is a multiple of it.", low=1, search=(1, 2, 4))
        max_len: int = setting(50, "Places of a window, the mask at its end included.", low=2, log=True)
        dropout: float = setting(0.1, "Share of values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5))
        masked: float = setting(0.5, "Share of events that are hidden.", low=0.01, high=0.99, search=(0.1, 0.6))
        last: float = setting(
            0.1, "Share of windows that hide their last event alone.", low=0.0, high=1.0, search=(0.0, 0.5)
        )
        windows: Which = setting(
            "all",
            "Learn from the last `max_len` events of a history, or from all of it.",
            choices=("last", "all"),
            search=("last", "all"),
        )
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        weight_decay: float = setting(0.01, "Decay of the weights.", low=0.0)
        batch_size: int = setting(128, "Windows a step.", low=1)
        epochs: int = setting(1000, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(5, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_items = config, schema.n_items
        self.table = Table(schema.n_items + 1, config.dim, std=0.02)
        self.positions = Table(config.max_len, config.dim, std=0.02)
        self.bias = nn.Parameter(torch.zeros(schema.n_items))
        self.first, self.drop = nn.LayerNorm(config.dim), Dropout(config.dropout)
        self.encoder = Transformer(
            config.dim, config.n_layers, config.n_heads, dropout=config.dropout, causal=False, norm="post"
        )
        self.project = nn.Linear(config.dim, config.dim)

    @property
    def mask(self) -> int:
        """The number of the mask: the table's last row."""
        return self.n_items

    def program(self, data: Dataset) -> Program:
        c = self.config
        seen = windows(data, c.max_len, which=c.windows)
        yield Train(
            cloze(seen, c.batch_size, self.mask, share=c.masked, last=c.last),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser("adamw", lr=c.lr, weight_decay=c.weight_decay),
        )

    def gather(self, batch: Sequences) -> Tensor:
        """Vectors of what is read [N, D]."""
        rows: Tensor = self.table(batch.items)
        return rows

    def objective(self, rows: Tensor, batch: Sequences) -> Tensor:
        """The loss of each hidden event [M]."""
        told = self.told(rows, batch, batch.places)
        return catalogue_softmax(told, self.table.weight[: self.n_items], batch.targets, self.bias)

    def told(self, rows: Tensor, batch: Sequences, places: Tensor) -> Tensor:
        """Vectors of the items that are hidden at some places [M, D], from those of all places [N, D]."""
        layout = Layout.of(batch.offsets, batch.longest, len(rows))
        x = self.drop(self.first(rows + self.positions(layout.ages)))
        hidden: Tensor = self.encoder(x, layout)
        return F.gelu(self.project(hidden.index_select(0, places)))

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """What is hidden after each history, and a 1 for the items' bias to meet [B, D + 1]."""
        asked = recent(requests, self.n_items, self.config.max_len - 1, mask=self.mask)
        batch = tensors(asked, self.table.weight.device)
        told = self.told(self.table(batch.items), batch, batch.offsets[1:] - 1)
        return torch.cat([told, told.new_ones(len(told), 1)], dim=1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, their bias the last dimension [n, D + 1]."""
        wanted = self.table.numbers(torch.arange(self.n_items) if numbers is None else numbers)
        return torch.cat([self.table(wanted), self.bias[wanted].unsqueeze(-1)], dim=-1)
