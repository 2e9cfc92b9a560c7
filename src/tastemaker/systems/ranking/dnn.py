"""DNN: the vectors of all fields end to end, and plain layers over them.

The baseline that click models with explicit products of features are held against: what such a product adds is what
this network cannot find by itself.

Ref: the deep part of Cheng et al., "Wide & deep learning for recommender systems", DLRS 2016, arXiv:1606.07792.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Reader, Rows
from tastemaker.nn.features import Features, Layers, Outputs, load_weights
from tastemaker.types import Dataset, Requests, Schema, State, setting


@system(
    "dnn",
    family="ranking",
    title="DNN: plain layers over all fields",
    paper="arXiv:1606.07792",
    needs={"users"},
)
class DNN(nn.Module):
    """Scores a row by plain layers over its fields."""

    rows: ClassVar = {"features.users.weight": (1, "users"), "features.items.weight": (1, "items")}
    small: ClassVar = {"dim": 8, "epochs": 6, "every": 6, "negatives": 1, "batch_size": 96, "max_len": 5, "lr": 0.02}

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
        width = self.reader.fields.n_tokens * config.dim
        self.deep = Layers(width, config.hidden, len(config.tasks), dropout=config.dropout)

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

    def gather(self, batch: Rows) -> Tensor:
        """Tokens of the rows [B, F, D]."""
        tokens: Tensor = self.features(batch)
        return tokens

    def forward(self, tokens: Tensor, batch: Rows) -> Tensor:
        """Outputs [B, T]."""
        out: Tensor = self.deep(tokens.flatten(1))
        return out

    def objective(self, tokens: Tensor, batch: Rows) -> Tensor:
        """The loss of each row [B]."""
        loss: Tensor = self.outputs.loss(self(tokens, batch), batch.labels)
        return loss if self.config.reg == 0 else loss + tokens.square().sum(dim=(1, 2)) * self.config.reg

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
