"""GRU4Rec: a recurrent network reads a session event by event and tells the next item after each.

Kept from the papers: gated recurrent units, one vector an item for input and output ("constrained embedding") with a
bias for the output, the ranking losses BPR-max and TOP1-max over sampled items, sessions as an option. Changed:
- A batch is whole sequences, read in one pass; the papers read many sessions side by side, one event a step, and cut
  the gradient after each.
- The default loss is cross-entropy over the whole catalogue; sampled items are drawn for the batch in the place of
  the other sessions' items.
- A learned start is read before the first event: it answers an empty history and lets the first event be learnt.
- Adam in the place of Adagrad.

Ref: Hidasi, Karatzoglou, Baltrunas, Tikk, "Session-based recommendations with recurrent neural networks", ICLR 2016,
arXiv:1511.06939; Hidasi, Karatzoglou, "Recurrent neural networks with top-k gains for session-based recommendations",
CIKM 2018, arXiv:1706.03847.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Sequences, interaction_matrix, next_items, recent, shared, tensors, windows
from tastemaker.feeds.sequences import Which
from tastemaker.nn import losses
from tastemaker.nn.catalogue import catalogue_softmax
from tastemaker.nn.dropout import Dropout
from tastemaker.nn.ragged import Layout
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Requests, Schema, setting

SPARSE = 0.4  # share of a rectangle that must be filled, or a CPU is faster without it


class Read(NamedTuple):
    """Vectors of what a batch reads [N, D] and, where items are sampled, of targets and negatives, a bias the last
    dimension: [N, D + 1] and [n, D + 1]."""

    items: Tensor
    targets: Tensor | None = None
    negatives: Tensor | None = None


@system(
    "gru4rec",
    family="sequential",
    title="GRU4Rec: a recurrent network over a session",
    paper="arXiv:1511.06939",
    learns_from={"events", "events.time"},
    needs={"history"},
)
class GRU4Rec(nn.Module):
    """Tells the next item from a state that every event changes."""

    rows: ClassVar = {"table.weight": ("items", 1), "bias": ("items",)}  # one more: the start

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors and of the state.", low=1, log=True, search=(32, 256))
        n_layers: int = setting(1, "Recurrent layers.", low=1, search=(1, 2))
        max_len: int = setting(50, "Events of a history that are looked at, the latest.", low=1, log=True)
        dropout: float = setting(0.2, "Share of values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5))
        loss: Literal["softmax", "bpr-max", "top1-max"] = setting(
            "softmax",
            "Cross-entropy over the whole catalogue, or a ranking loss over a sample of it.",
            choices=("softmax", "bpr-max", "top1-max"),
        )
        negatives: int = setting(512, "Ranking losses: items a batch's sample holds.", low=1, log=True)
        power: float = setting(
            0.75, "Ranking losses: items are drawn in proportion to popularity to this power.", low=0.0, high=1.0
        )
        score_reg: float = setting(
            1.0, "bpr-max only: weight of the squared scores of sampled items.", low=0.0, search=(0.0, 2.0)
        )
        sessions: bool = setting(
            False, "Learn from each session apart, by the events' column `session`; then ask with a session too."
        )
        windows: Which = setting(
            "all",
            "Learn from the last `max_len` events of a history, or from all of it.",
            choices=("last", "all"),
            search=("last", "all"),
        )
        lr: float = setting(0.003, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 1e-2))
        batch_size: int = setting(128, "Windows a step.", low=1)
        epochs: int = setting(200, "Most epochs.", low=1)
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(2, "Epochs between evaluations.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.n_items = config, schema.n_items
        self.table = Table(schema.n_items + 1, config.dim, std=None, sparse=config.loss != "softmax")
        self.bias = nn.Parameter(torch.zeros(schema.n_items))
        self.drop = Dropout(config.dropout)
        between = config.dropout if config.n_layers > 1 else 0.0
        self.gru = nn.GRU(config.dim, config.dim, config.n_layers, batch_first=True, dropout=between)

    @property
    def start(self) -> int:
        """The number of the start: the table's last row."""
        return self.n_items

    def program(self, data: Dataset) -> Program:
        c = self.config
        sampler = None if c.loss == "softmax" else shared(interaction_matrix(data), c.negatives, c.power)
        seen = windows(data, c.max_len + 1, which=c.windows, sessions=c.sessions)
        yield Train(
            next_items(seen, c.batch_size, start=self.start, negatives=sampler),
            self.gather,
            self.objective,
            until=Plateau("ndcg@10", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Sequences) -> Read:
        if batch.negatives is None:
            return Read(self.table(batch.items))
        return Read(self.table(batch.items), self._output(batch.targets), self._output(batch.negatives))

    def objective(self, read: Read, batch: Sequences) -> Tensor:
        """The loss of each event [N]."""
        states = self.states(read.items, batch)
        if read.targets is None or read.negatives is None:
            return catalogue_softmax(states, self.table.weight[: self.n_items], batch.targets, self.bias)
        states = _with_one(states)
        positive = (states * read.targets).sum(dim=-1)
        hit = batch.negatives == batch.targets.unsqueeze(-1)
        negative = (states @ read.negatives.T).masked_fill(hit, -torch.inf)
        if self.config.loss == "top1-max":
            return losses.top1_max(positive, negative)
        return losses.bpr_max(positive, negative, self.config.score_reg)

    def states(self, rows: Tensor, batch: Sequences) -> Tensor:
        """The state after each event [N, D], from the vectors of the events [N, D]."""
        layout = Layout.of(batch.offsets, batch.longest, len(rows))
        rows = self.drop(rows)
        if not len(rows):
            return rows
        if rows.device.type == "cpu" and len(rows) < SPARSE * layout.n_rows * layout.length:
            states = self._packed(rows, layout)
        else:
            states = layout.flat(self.gru(layout.pad(rows))[0])
        dropped: Tensor = self.drop(states)
        return dropped

    def _packed(self, rows: Tensor, layout: Layout) -> Tensor:
        """The same, only events being read: the first ones of all sequences, longest sequence first, and so on."""
        lengths = layout.offsets[1:] - layout.offsets[:-1]
        rank = torch.empty_like(lengths)
        rank[torch.argsort(lengths, descending=True, stable=True)] = torch.arange(len(lengths))
        order = torch.argsort(layout.columns * len(lengths) + torch.repeat_interleave(rank, lengths))
        read = self.gru(PackedSequence(rows[order], torch.bincount(layout.columns)))[0].data
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        states: Tensor = read[back]
        return states

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """The state after each history, and a 1 for the items' bias to meet [B, D + 1]; with none, after the start."""
        asked = recent(requests, self.n_items, self.config.max_len, start=self.start)
        batch = tensors(asked, self.table.weight.device)
        return _with_one(self.states(self.table(batch.items), batch)[batch.offsets[1:] - 1])

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, their bias the last dimension [n, D + 1]."""
        return self._output(torch.arange(self.n_items) if numbers is None else numbers)

    def _output(self, numbers: Any) -> Tensor:
        numbers = self.table.numbers(numbers)
        return torch.cat([self.table(numbers), self.bias[numbers].unsqueeze(-1)], dim=-1)


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
