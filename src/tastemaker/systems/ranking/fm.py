"""FM: a factorisation machine, every two fields of a row by the inner product of their vectors.

    y(x) = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j

The sum over pairs is half of (sum v_i x_i)^2 - sum (v_i x_i)^2, so a row costs no more than its fields. Each task has a
machine of its own over the same fields.

Kept from the paper: the model of degree 2, any real features, a bag of categories as values of 1 / its size. Changed:
Adam and early stopping in the place of plain descent with tuned regularisation; cross-entropy for binary tasks and
squared error for numbers, as in the paper's libFM.

Ref: Rendle, "Factorization machines", ICDM 2010, doi:10.1109/ICDM.2010.127, equations 1 and 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Reader, Rows
from tastemaker.nn.features import Features, Outputs, load_weights
from tastemaker.types import Dataset, Requests, Schema, State, setting


class Read(NamedTuple):
    """Vectors [B, F, T * D] and weights [B, F, T] of the fields of a batch."""

    vectors: Tensor
    weights: Tensor


@system(
    "fm",
    family="ranking",
    title="FM: factorisation machine over all fields",
    paper="doi:10.1109/ICDM.2010.127",
    needs={"users"},
)
class FM(nn.Module):
    """Scores a row by all pairs of its fields."""

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
        self.features = Features.of(self.reader.fields, config.dim * len(config.tasks))
        self.outputs = Outputs(self.reader.binary, config.utility)
        self.weights = Features.of(self.reader.fields, len(self.reader.tasks), std=0.01)
        self.bias = nn.Parameter(torch.zeros(len(self.reader.tasks)))

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
        """Outputs [B, T] (paper, equation 1, its last sum by equation 5)."""
        n_tasks = len(self.reader.tasks)
        vectors = read.vectors.view(*read.vectors.shape[:2], n_tasks, -1)  # [B, F, T, D]
        pairs = (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=-1) / 2
        out: Tensor = self.bias + read.weights.sum(dim=1) + pairs
        return out

    def objective(self, read: Read, batch: Rows) -> Tensor:
        """The loss of each row [B]."""
        loss: Tensor = self.outputs.loss(self(read, batch), batch.labels)
        return (
            loss
            if self.config.reg == 0
            else loss
            + (read.vectors.square().sum(dim=(1, 2)) + read.weights.square().sum(dim=(1, 2))) * self.config.reg
        )

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
