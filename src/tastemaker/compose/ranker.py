"""The ranker of a learned blend: a linear layer and a small hidden one beside it, trained list by list.

The loss is the cross-entropy between the right answers of a request and the softmax of its candidates' scores. With
uniformly drawn negatives the gradient is that of the whole list in expectation, up to a constant. The linear layer lets
it begin as a weighted sum of ranks and scores; the hidden one lets a feature of the request (the length of its history,
the best score of a retriever) decide whom to believe.

Ref: Cao et al., "Learning to rank: from pairwise approach to listwise approach", ICML 2007 (top-one probabilities);
Bruch et al., "An analysis of the softmax cross entropy loss for learning-to-rank", ICTIR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tastemaker.compose.features import CLIP, FeatureSchema, Network
from tastemaker.contracts import Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.evaluate.metrics import FUNCTIONS, Hits
from tastemaker.feeds import RowFeed
from tastemaker.nn.ragged import Layout
from tastemaker.types import Jagged, State, setting


@dataclass(frozen=True, eq=False)
class Lists:
    """Candidates of B requests, N in all.

    longest: candidates of the request that has most

    Shapes:
        features: [N, F] float32, NaN where a value is missing
        labels: [N] float32, 1 for a right answer, else 0
        offsets: [B + 1] int64, request b has the candidates offsets[b]:offsets[b + 1]
    """

    features: Any
    labels: Any
    offsets: Any
    longest: int

    @classmethod
    def of(cls, features: NDArray[np.float32], labels: NDArray[np.float32], lengths: NDArray[np.int64]) -> Lists:
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(features, labels, offsets, int(lengths.max(initial=0)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: slice | NDArray[np.int64]) -> Lists:
        """Some of the requests."""
        picked = Jagged(np.arange(len(self.labels)), self.offsets).take(rows)
        return Lists.of(self.features[picked.values], self.labels[picked.values], picked.lengths)


def list_feed(lists: Lists, batch_size: int) -> RowFeed[Lists]:
    """Every request once an epoch, in random order."""
    return RowFeed(len(lists), batch_size, lambda rows, rng: lists.take(rows))


def moments(features: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Mean of each feature, and 1 / its standard deviation; 0 for a feature that says nothing [F]."""
    known = np.isfinite(features)
    n = np.maximum(known.sum(axis=0), 1)
    whole = np.where(known, features, 0.0).astype(np.float64)
    mean = whole.sum(axis=0) / n
    spread = np.sqrt((np.where(known, whole - mean, 0.0) ** 2).sum(axis=0) / n)
    usable = spread > 1e-6 * (1 + np.abs(mean))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=usable)
    return {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}


@system(
    "ranker",
    family="ranking",
    title="Ranker of a learned blend, trained list by list",
    paper="doi:10.1145/1273496.1273513",
    learns_from=(),
)
class Ranker(nn.Module):
    """Scores a candidate by what retrievers and catalogue say of it."""

    @dataclass(frozen=True)
    class Config:
        hidden: int = setting(32, "Width of the hidden layer; 0: a linear ranker.", low=0)
        epochs: int = setting(100, "Most epochs.", low=1)
        patience: int = setting(5, "Evaluations without a rise before training stops.", low=1)
        batch_size: int = setting(64, "Requests a step.", low=1)
        lr: float = setting(0.003, "Learning rate.", low=1e-6, high=1.0, log=True)
        weight_decay: float = setting(0.001, "Pull of the weights to 0.", low=0.0)

    mean: Tensor
    scale: Tensor

    def __init__(self, config: Config, schema: FeatureSchema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.register_buffer("mean", torch.zeros(schema.width))
        self.register_buffer("scale", torch.ones(schema.width))
        self.linear = nn.Parameter(torch.zeros(schema.width))
        self.inner = nn.Parameter(torch.randn(config.hidden, schema.width) * schema.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(config.hidden))
        self.outer = nn.Parameter(torch.randn(config.hidden) * 0.1 * max(1, config.hidden) ** -0.5)

    def program(self, lists: Lists) -> Program:
        c = self.config
        found = yield Fit(moments, lists.features)
        for name, values in found.items():
            getattr(self, name).copy_(torch.from_numpy(values))
        yield Train(
            list_feed(lists, c.batch_size),
            self.gather,
            self.objective,
            until=Plateau("ndcg@100", c.patience, 1, c.epochs),
            optimiser=Optimiser("adamw", lr=c.lr, weight_decay=c.weight_decay),
            parameters=[p for p in self.parameters() if p.numel()],
        )

    def gather(self, batch: Lists) -> Tensor:
        """Standardised features [N, F]; a missing value is the mean."""
        centred = torch.nan_to_num(batch.features - self.mean, nan=0.0)
        return (centred * self.scale).clamp(-CLIP, CLIP)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores [N] of standardised features [N, F]."""
        return rows @ self.linear + torch.relu(rows @ self.inner.T + self.bias) @ self.outer

    def objective(self, rows: Tensor, batch: Lists) -> Tensor:
        """Cross-entropy of each request's right answers among its candidates [B]."""
        layout = Layout.of(batch.offsets, batch.longest, len(rows))
        there = layout.filled()
        scores = layout.pad(self(rows)).masked_fill(~there, -torch.inf)
        logs = torch.log_softmax(scores, dim=1).masked_fill(~there, 0.0)
        right = layout.pad(batch.labels)
        return -(right * logs).sum(dim=1) / right.sum(dim=1).clamp(min=1.0)

    def network(self) -> Network:
        """The ranker as it answers, without torch."""
        return Network.of(self.export(), self.schema.width)

    def export(self) -> State:
        return {
            name: np.ascontiguousarray(getattr(self, name).detach().cpu().numpy(), dtype=np.float32)
            for name in ("mean", "scale", "linear", "inner", "bias", "outer")
        }


@dataclass(frozen=True)
class ListJudge:
    """Judges a ranker by its order of held-back lists; right answers that no retriever found are not among them."""

    lists: Lists

    def __call__(self, system: Any, metric: str) -> float:
        name, _, k = metric.partition("@")
        scores = system.network().scores(self.lists.features)
        rows = np.repeat(np.arange(len(self.lists)), np.diff(self.lists.offsets))
        order = np.lexsort((-scores, rows))
        place = np.empty(len(order), dtype=np.int32)
        place[order] = np.arange(len(order)) - self.lists.offsets[rows[order]]
        right = np.flatnonzero(self.lists.labels > 0)
        targets = Jagged.from_rows(rows[right], right.astype(np.int32), len(self.lists))
        return float(np.nanmean(FUNCTIONS[name](Hits.of(place[right], targets), int(k))))
