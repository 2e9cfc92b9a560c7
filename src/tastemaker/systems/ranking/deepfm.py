"""DeepFM: a factorisation machine and a deep network over the same vectors, their outputs summed.

    y = y_FM + y_DNN

Kept from the paper: the shared vectors, so that products of two fields and deep ones are learnt from the same input
without features made by hand. Changed: numbers are read as a vector times the standardised number, not in buckets; with
several tasks all share the products of pairs and weigh their dimensions apart (with one task, the sum of the paper).

Ref: Guo, Tang, Ye, Li, He, "DeepFM", IJCAI 2017, arXiv:1703.04247, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Reader, Rows
from tastemaker.nn.features import Features, Layers, Outputs, load_weights
from tastemaker.types import Dataset, Requests, Schema, State, setting


class Read(NamedTuple):
    """Vectors [B, F, D] and weights [B, F, T] of the fields of a batch."""

    vectors: Tensor
    weights: Tensor


@system(
    "deepfm",
    family="ranking",
    title="DeepFM: factorisation machine and deep layers",
    paper="arXiv:1703.04247",
    needs={"users"},
)
class DeepFM(nn.Module):
    """Sums products of all pairs of fields and a deep network."""

    rows: ClassVar = {
        "features.users.weight": (1, "users"),
        "features.items.weight": (1, "items"),
        "weights.users.weight": (1, "users"),
        "weights.items.weight": (1, "items"),
    }
    small: ClassVar = {"dim": 8, "epochs": 3, "every": 3, "negatives": 1, "batch_size": 96, "max_len": 5, "lr": 0.04}

    @dataclass(frozen=True)
    class Config:
        tasks: tuple[str, ...] = setting(("choice",), "What is predicted, as 'choice', 'value>=4', 'kind=buy'.")
        utility: tuple[float, ...] = setting((), "Weight of each task in the score; empty: all alike.")
        columns: tuple[str, ...] | None = setting(
            None, "Columns that are read beside user and item, as 'items.genre'; none named: all that can be."
        )
        negatives: int = setting(
            4, "Items drawn beside each choice that was made outside a shown list.", low=0, search=(1, 8)
        )
        dim: int = setting(16, "Width of the vectors.", low=1, log=True, search=(8, 64))
        hidden: tuple[int, ...] = setting((128, 64), "Widths of the deep layers.")
        dropout: float = setting(
            0.0, "Share of inner values that training leaves out.", low=0.0, high=0.9, search=(0.0, 0.5)
        )
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(
            0.0, "Weight of the squared vectors of a row's fields.", low=0.0, log=True, search=(1e-6, 0.01)
        )
        batch_size: int = setting(1024, "Rows a step, those drawn not counted.", low=1)
        epochs: int = setting(10, "Most epochs.", low=1)
        patience: int = setting(2, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(1, "Epochs between evaluations.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.reader = Reader(schema, config.columns, config.tasks)
        self.features = Features.of(self.reader.fields, config.dim)
        self.outputs = Outputs(self.reader.binary, config.utility)
        n_tasks = len(config.tasks)
        self.weights = Features.of(self.reader.fields, n_tasks, std=0.01)
        self.mix = nn.Parameter(torch.ones(n_tasks, config.dim)) if n_tasks > 1 else None
        width = self.reader.fields.n_tokens * config.dim
        self.deep = Layers(width, config.hidden, n_tasks, dropout=config.dropout)

    def program(self, data: Dataset) -> Program:
        c = self.config
        self.outputs.scale(self.reader.take((yield Fit(self.reader.learn, data))))
        yield Train(
            self.reader.feed(data, c.batch_size, negatives=c.negatives),
            self.gather,
            self.objective,
            until=Plateau("auc", c.patience, c.every, c.epochs),
            optimiser=Optimiser(lr=c.lr),
        )

    def gather(self, batch: Rows) -> Read:
        return Read(self.features(batch), self.weights(batch))

    def forward(self, read: Read, batch: Rows) -> Tensor:
        """Outputs [B, T] (paper, equations 1 to 4)."""
        products = (read.vectors.sum(dim=1).square() - read.vectors.square().sum(dim=1)) / 2  # [B, D]
        pairs = products.sum(dim=1, keepdim=True) if self.mix is None else products @ self.mix.T
        out: Tensor = read.weights.sum(dim=1) + pairs + self.deep(read.vectors.flatten(1))
        return out

    def objective(self, read: Read, batch: Rows) -> Tensor:
        """The loss of each row [B]."""
        loss: Tensor = self.outputs.loss(self(read, batch), batch.labels)
        return loss if self.config.reg == 0 else loss + read.vectors.square().sum(dim=(1, 2)) * self.config.reg

    @property
    def tasks(self) -> Sequence[str]:
        return self.reader.names

    @torch.no_grad()
    def predict(self, requests: Requests, items: Any = None) -> Tensor:
        """Probabilities, or numbers, of each task [B, C, T]."""
        return self.outputs.units(self.reader.ask(self, requests, items))

    @torch.no_grad()
    def score(self, requests: Requests, items: Any = None) -> Tensor:
        """Utilities [B, C]: the weighed sum of what the tasks say."""
        return self.outputs.utility(self.reader.ask(self, requests, items))

    def adopt(self, old: Any, users: Any, items: Any) -> None:
        self.reader.adopt(old.reader)

    def export(self) -> State:
        return {**self.state_dict(), **self.reader.export()}

    def restore(self, state: State) -> None:
        load_weights(self, self.reader.restore(state))
