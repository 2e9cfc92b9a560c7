"""MMoE: experts that all tasks share, a gate of its own for each task, and a tower on what its gate mixed.

    f_k(x) = sum_i g_k(x)_i f_i(x),  g_k(x) = softmax(W_k x),  y_k = h_k(f_k(x))

Tasks that have little in common weigh the experts apart, where one shared bottom would make them quarrel. Built for
several tasks, as `tasks = ["choice", "value>=4"]`; with one it is a mixture of experts.

Kept from the paper: experts, linear softmax gates, towers. Changed: fields are vectors learnt with the rest.

Ref: Ma, Zhao, Yi, Chen, Hong, Chi, "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts", KDD 2018, doi:10.1145/3219819.3220007, equations 5 to 7.
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
    "mmoe",
    family="ranking",
    title="MMoE: experts shared by tasks, mixed by gates",
    paper="doi:10.1145/3219819.3220007",
    needs={"users"},
)
class MMoE(nn.Module):
    """Predicts several tasks from experts that each mixes its own way."""

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
        experts: int = setting(4, "Experts.", low=1, search=(2, 8))
        hidden: tuple[int, ...] = setting((64,), "Widths of the layers of an expert.")
        tower: tuple[int, ...] = setting((32,), "Widths of the layers of a task's tower.")
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
        width, n_tasks = self.reader.fields.n_tokens * config.dim, len(config.tasks)
        self.experts = nn.ModuleList(
            Layers(width, config.hidden, dropout=config.dropout) for _ in range(config.experts)
        )
        inner = config.hidden[-1] if config.hidden else width
        self.gates = nn.Linear(width, n_tasks * config.experts, bias=False) if config.experts > 1 else None
        self.towers = nn.ModuleList(Layers(inner, config.tower, 1, dropout=config.dropout) for _ in range(n_tasks))

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
        found = torch.stack([expert(tokens.flatten(1)) for expert in self.experts], dim=1)  # [B, E, W]
        mixed = self.shares(tokens) @ found  # [B, T, W]
        return torch.cat([tower(mixed[:, n]) for n, tower in enumerate(self.towers)], dim=1)

    def shares(self, tokens: Tensor) -> Tensor:
        """Each task's weights of the experts [B, T, E], which sum to 1 (paper, equation 7)."""
        if self.gates is None:
            return tokens.new_ones(len(tokens), len(self.towers), 1)
        return torch.softmax(self.gates(tokens.flatten(1)).unflatten(1, (len(self.towers), -1)), dim=-1)

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
