"""DIN: the history seen from the item: each earlier choice counts as far as it has to do with the one in question.

    v_U(A) = sum_j a(e_j, v_A) e_j

a is a small network over the vectors of the event and the item, their difference and their product. Its outputs are not
normed, so that a history full of the like of the item weighs more than one that holds it once.

Kept from the paper: the activation unit without softmax, Dice, the penalty on vectors that a batch touches. Changed:
events and items are read as their numbers and their categories; the unit reads the product element by element, as the
authors' code does, for the outer product of the paper's figure.

Ref: Zhou et al., "Deep interest network for click-through rate prediction", KDD 2018, arXiv:1706.06978, sections 4.3
(equation 3) and 5.3 (Dice).
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
    """Tokens of the rows [B, F, D], and of the events of their histories [N, Fi, D]."""

    tokens: Tensor
    events: Tensor


@system(
    "din",
    family="ranking",
    title="DIN: a history weighed by the item in question",
    paper="arXiv:1706.06978",
    needs={"users", "history"},
)
class DIN(nn.Module):
    """Weighs what was chosen before by what it says of the item."""

    rows: ClassVar = {"features.users.weight": (1, "users"), "features.items.weight": (1, "items")}
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
        max_len: int = setting(20, "Choices of a history that are read, the latest.", low=1, log=True, search=(10, 100))
        unit: tuple[int, ...] = setting((36,), "Widths of the layers of the activation unit.")
        hidden: tuple[int, ...] = setting((80, 40), "Widths of the deep layers.")
        attention: bool = setting(
            True, "Weigh events by the item in question; off: all alike (the paper's base model)."
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
        self.reader = Reader(schema, config.columns, config.tasks, max_len=config.max_len)
        self.features = Features.of(self.reader.fields, config.dim)
        self.outputs = Outputs(self.reader.binary, config.utility)
        width = len(self.reader.fields.item_places) * config.dim
        self.unit = Activated(4 * width, config.unit, 1) if config.attention else None
        self.deep = Activated(self.reader.fields.n_tokens * config.dim + width, config.hidden, len(config.tasks))

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
        return Read(*self.features.with_events(batch))

    def forward(self, read: Read, batch: Rows) -> Tensor:
        """Outputs [B, T]."""
        out: Tensor = self.deep(torch.cat([read.tokens.flatten(1), self.pooled(read, batch)], dim=1))
        return out

    def pooled(self, read: Read, batch: Rows) -> Tensor:
        """The history of each row as the item sees it [B, W] (paper, equation 3); 0 where there is none."""
        items = read.tokens[:, list(self.reader.fields.item_places)].flatten(1)  # [B, W]
        events = read.events.flatten(1)  # [N, W]
        lengths = batch.offsets[1:] - batch.offsets[:-1]
        rows = torch.repeat_interleave(lengths, output_size=len(events))
        if self.unit is None:
            weighed = events / lengths[rows].unsqueeze(1)
        else:
            mine = items[rows]
            weighed = self.unit(torch.cat([events, mine, events - mine, events * mine], dim=1)) * events
        return torch.zeros_like(items).index_add(0, rows, weighed)

    def objective(self, read: Read, batch: Rows) -> Tensor:
        """The loss of each row [B]."""
        loss: Tensor = self.outputs.loss(self(read, batch), batch.labels)
        return loss if self.config.reg == 0 else loss + read.tokens.square().sum(dim=(1, 2)) * self.config.reg

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


class Dice(nn.Module):
    """p x + (1 - p) a x, p being the sigmoid of the standardised x: x where it is high for its unit, else a x.

    Ref: arXiv:1706.06978, section 5.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:  # one value has no deviation
            mean, variance = self.norm.running_mean, self.norm.running_var
            assert mean is not None and variance is not None
            share = torch.sigmoid((x - mean) / (variance + self.norm.eps).sqrt())
        else:
            share = torch.sigmoid(self.norm(x))
        return share * x + (1 - share) * self.alpha * x


class Activated(nn.Module):
    """Linear layers with Dice between them."""

    def __init__(self, width: int, hidden: Sequence[int], out: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for size in hidden:
            steps += [nn.Linear(width, size), Dice(size)]
            width = size
        self.steps = nn.Sequential(*steps, nn.Linear(width, out))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.steps(x)
        return y
