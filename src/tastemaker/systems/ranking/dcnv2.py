"""DCN V2: cross layers, which multiply the input by linear maps of what was found so far, and a deep network.

    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

After l layers x_l holds products of up to l + 1 features, each with a weight of its own. With `rank` the matrix is
W = U V^T; with `experts` several such maps are mixed by a gate of the input: DCN-Mix.

Kept from the paper: cross layers of all three kinds, the deep network behind them ("stacked") or beside ("parallel").
Changed: an expert is W = U tanh(C tanh(V^T x)) as in the paper, with tanh for the nonlinearity the paper leaves open;
numbers are read as a vector times the standardised number.

Ref: Wang et al., "DCN V2", WWW 2021, arXiv:2008.13535, equations 1 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Reader, Rows
from tastemaker.nn.features import Features, Layers, Outputs, load_weights
from tastemaker.types import Dataset, Requests, Schema, State, setting


@system(
    "dcnv2",
    family="ranking",
    title="DCN V2: cross layers and deep layers",
    paper="arXiv:2008.13535",
    needs={"users"},
)
class DCNv2(nn.Module):
    """Multiplies features layer by layer, and reads the products with a deep network."""

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
        n_layers: int = setting(2, "Cross layers.", low=0, search=(1, 4))
        rank: int | None = setting(None, "Rank of a cross layer's matrix; none: full.", low=1)
        experts: int = setting(1, "Maps of low rank that a cross layer mixes; more than 1 need `rank`.", low=1)
        structure: Literal["stacked", "parallel"] = setting(
            "parallel",
            "Where the deep network stands.",
            choices=("stacked", "parallel"),
            search=("stacked", "parallel"),
        )
        lr: float = setting(0.001, "Learning rate.", low=1e-6, high=1.0, log=True, search=(3e-4, 0.01))
        reg: float = setting(
            0.0, "Weight of the squared vectors of a row's fields.", low=0.0, log=True, search=(1e-6, 0.01)
        )
        batch_size: int = setting(1024, "Rows a step, those drawn not counted.", low=1)
        epochs: int = setting(10, "Most epochs.", low=1)
        patience: int = setting(2, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(1, "Epochs between evaluations.", low=1)

        def __post_init__(self) -> None:
            if self.experts > 1 and self.rank is None:
                raise ValueError("experts are maps of low rank: say which rank")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config = config
        self.reader = Reader(schema, config.columns, config.tasks)
        self.features = Features.of(self.reader.fields, config.dim)
        self.outputs = Outputs(self.reader.binary, config.utility)
        width = self.reader.fields.n_tokens * config.dim
        self.cross = nn.ModuleList(Cross(width, config.rank, config.experts) for _ in range(config.n_layers))
        self.deep = Layers(width, config.hidden, dropout=config.dropout)
        read = self.deep.width + (width if config.structure == "parallel" else 0)
        self.last = nn.Linear(read, len(config.tasks))

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
        first = tokens.flatten(1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        if self.config.structure == "stacked":
            stacked: Tensor = self.last(self.deep(crossed))
            return stacked
        beside: Tensor = self.last(torch.cat([crossed, self.deep(first)], dim=1))
        return beside

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


class Cross(nn.Module):
    """One cross layer (paper, equations 1, 2 and 4): full, of low rank, or a mixture of maps of low rank."""

    def __init__(self, width: int, rank: int | None, experts: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.gate = nn.Linear(width, experts) if experts > 1 else None
        if rank is None:
            self.full = nn.Parameter(torch.empty(width, width))
            nn.init.xavier_uniform_(self.full)
            return
        self.inward = nn.Parameter(torch.randn(experts, width, rank) * width**-0.5)
        self.outward = nn.Parameter(torch.randn(experts, rank, width) * rank**-0.5)
        if experts > 1:
            self.middle = nn.Parameter(torch.randn(experts, rank, rank) * rank**-0.5)

    def forward(self, first: Tensor, crossed: Tensor) -> Tensor:
        """[B, W] from the input [B, W] and what was found so far [B, W]."""
        if not hasattr(self, "inward"):
            return first * (crossed @ self.full.T + self.bias) + crossed
        low = torch.einsum("bw,ewr->ber", crossed, self.inward)
        if self.gate is None:
            return first * (low[:, 0] @ self.outward[0] + self.bias) + crossed
        low = torch.tanh(torch.einsum("ber,ers->bes", torch.tanh(low), self.middle))
        shares = torch.softmax(self.gate(crossed), dim=1)
        mixed = torch.einsum("be,ber,erw->bw", shares, low, self.outward)  # shares sum to 1, so the bias is added once
        return first * (mixed + self.bias) + crossed
