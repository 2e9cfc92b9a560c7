"""SASRec: self-attention over a history, each event seeing those before it, to tell the next item.

Every position of a history predicts the item after it, so one pass over a history teaches all of its prefixes. The
items' vectors serve as input and as output.

Kept from the paper: the shared item table, its inputs scaled by sqrt(D), learned positions, causal blocks with an inner
layer as wide as D and ReLU, dropout. Changed:
- The loss. The paper holds one negative against each positive ("bce" with one negative of an "event" is that). The
  default is the softmax over the whole catalogue, which ranks far better (Klenitskiy, Vasilev); "sampled" and "gbce"
  are for catalogues for which that costs too much, from some hundred thousand items on.
- A learned start is read before the first event. It answers an empty history and lets the first event be learnt.
- Norms come before attention for keys and values too, as transformers are built now; weights of attention are not
  dropped out.
- "all" windows learn from the events before the last `max_len` too.

Ref: Kang, McAuley, "Self-attentive sequential recommendation", ICDM 2018, arXiv:1808.09781; Klenitskiy, Vasilev,
"Turning dross into gold loss", RecSys 2023, arXiv:2309.07602; Petrov, Macdonald, "gSASRec", RecSys 2023,
arXiv:2308.07192.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import (
    Sequences,
    interaction_matrix,
    log_frequency,
    next_items,
    popular,
    recent,
    shared,
    tensors,
    windows,
)
from tastemaker.feeds.sequences import Which
from tastemaker.nn import losses
from tastemaker.nn.catalogue import catalogue_softmax
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.nn.transformer import Transformer
from tastemaker.types import Dataset, Requests, Schema, setting

Loss = Literal["softmax", "sampled", "bce", "gbce"]


class Read(NamedTuple):
    """Vectors of what a batch reads [N, D] and, where items are sampled, of targets [N, D] and negatives [.., n, D]."""

    items: Tensor
    targets: Tensor | None = None
    negatives: Tensor | None = None


@system(
    "sasrec",
    family="sequential",
    title="SASRec: self-attention over a history",
    paper="arXiv:1808.09781",
    learns_from={"events", "events.time"},
    needs={"history"},
)
class SASRec(nn.Module):
    """Tells the next item by attention to the last ones."""

    rows: ClassVar = {"table.weight": ("items", 1)}  # one more: the start

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, log=True, search=(32, 256))
        n_layers: int = setting(2, "Blocks of attention.", low=1, search=(1, 4))
        n_heads: int = setting(2, "Heads of attention; `dim` is a multiple of it.", low=1, search=(1, 2, 4))
        max_len: int = setting(50, "Events of a history that are looked at, the latest.", low=1, log=True)
        dropout: float = setting(0.2, "Share of values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5))
        loss: Loss = setting(
            "softmax",
            "Against what a next item is held: the whole catalogue, or a sample under one of three losses.",
            choices=("softmax", "sampled", "bce", "gbce"),
        )
        negatives: int = setting(256, "Sampled losses: items a sample holds.", low=1, log=True, search=(16, 2048))
        negatives_of: Literal["batch", "event"] = setting(
            "batch",
            "Sampled losses: whether a batch shares a sample, or each event has one without the user's own items.",
            choices=("batch", "event"),
        )
        power: float = setting(
            0.0, "Sampled losses: items are drawn in proportion to popularity to this power.", low=0.0, high=1.0
        )
        calibration: float = setting(
            0.75, "gbce only: how far overconfidence is undone; 0 not at all, 1 in full.", low=0.0, high=1.0
        )
        windows: Which = setting(
            "all",
            "Learn from the last `max_len` events of a history, or from all of it.",
            choices=("last", "all"),
            search=("last", "all"),
        )
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 3e-3))
        batch_size: int = setting(128, "Windows a step.", low=1)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.dim % self.n_heads:
                raise ValueError(f"{self.n_heads} heads do not share a width of {self.dim} evenly")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_items = config, schema.n_items
        self.table = Table(schema.n_items + 1, config.dim, std=0.02, sparse=config.loss != "softmax")
        self.positions = Table(config.max_len + 1, config.dim, std=0.02)
        self.drop = Dropout(config.dropout)
        self.log_q = torch.empty(0)  # [I], log of how often an item is expected in a sample
        self.encoder = Transformer(
            config.dim, config.n_layers, config.n_heads, hidden=config.dim, dropout=config.dropout, activation="relu"
        )

    @property
    def start(self) -> int:
        """The number of the start: the table's last row."""
        return self.n_items

    def program(self, data: Dataset) -> Program:
        c = self.config
        sampler = None
        if c.loss != "softmax":
            matrix = interaction_matrix(data)
            draw = shared if c.negatives_of == "batch" else popular
            sampler = draw(matrix, c.negatives, c.power)
            self.log_q = torch.from_numpy(log_frequency(matrix, c.power) + np.log(c.negatives, dtype=np.float32))
        seen = windows(data, c.max_len + 1, which=c.windows)
        yield Train(
            next_items(seen, c.batch_size, start=self.start, negatives=sampler),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr, betas=(0.9, 0.98)),
        )

    def gather(self, batch: Sequences) -> Read:
        if batch.negatives is None:
            return Read(self.table(batch.items))
        return Read(self.table(batch.items), self.table(batch.targets), self.table(batch.negatives))

    def objective(self, read: Read, batch: Sequences) -> Tensor:
        """The loss of each event [N]."""
        states = self.states(read.items, batch)
        if read.targets is None or read.negatives is None:
            return catalogue_softmax(states, self.table.weight[: self.n_items], batch.targets)
        positive = (states * read.targets).sum(dim=-1)
        if read.negatives.ndim == 2:
            negative = states @ read.negatives.T
        else:
            negative = (read.negatives @ states.unsqueeze(-1)).squeeze(-1)
        hit = batch.negatives == batch.targets.unsqueeze(-1)
        negative = negative.masked_fill(hit, -torch.inf)
        if self.config.loss == "bce":
            return losses.bce(positive, negative)
        if self.config.loss == "gbce":
            return losses.gbce(positive, negative, self.n_items, self.config.calibration)
        return losses.sampled_softmax(positive, negative, None, self.log_q.to(states.device)[batch.negatives])

    def states(self, rows: Tensor, batch: Sequences) -> Tensor:
        """What is known after each event [N, D], from the vectors of the events [N, D]."""
        layout = Layout.of(batch.offsets, batch.longest, len(rows))
        x = rows * self.config.dim**0.5 + self.positions(layout.ages)
        states: Tensor = self.encoder(self.drop(x), layout)
        return states

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """What is known after the last event of each history [B, D]; after an empty one, what the start says."""
        asked = recent(requests, self.n_items, self.config.max_len, start=self.start)
        batch = tensors(asked, self.table.weight.device)
        return self.states(self.table(batch.items), batch)[batch.offsets[1:] - 1]

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors [n, D]."""
        return self.table.weight[: self.n_items] if numbers is None else self.table(numbers)
