"""SimpleX: a user as an own vector fused with what the user chose, trained by a cosine contrastive loss.

    h = g p_u + (1 - g) V m_u,   m_u = sum over k of a_k q_k,   score = cos(h, q_i)
    loss = 1 - cos(h, q_i) + w mean over j of max(0, cos(h, q_j) - margin)

over many negatives j, of which those below the margin count for nothing. The weights a of the items in the history
are all alike ("mean"), the softmax of c . tanh(W q_k + b) ("self_attention") or of p_u . tanh(W q_k + b)
("user_attention"). A user without a vector of its own is its history alone, whose items then weigh alike under
"user_attention"; one without a history is its vector alone; one without either is the mean user.

Kept from the paper and its code: fusion, pooling, loss, dropout of the fused vector, the target being among the items
of the history. Changed: with `sharing` the negatives are drawn once for all choices of a batch, which makes the
scores of a step one matrix product, and negatives that a user chose are left out; updates touch only rows of the
batch; no penalty on lengths, which a cosine does not see; the rate falls evenly to 0 over `epochs`, in the place of
steps down whenever the validation figure stalls.

`epochs`, `lr` and `weight` come from the size of the data unless they are given. Thirty epochs of Gowalla are 24,000
steps, of a data set of 40,000 choices 1,200, too few at the same rate: a rate of Adam is about the length of a step,
so what the vectors can travel is rate times steps. And a mean over items drawn from a small catalogue holds each of
them against a choice more often: what counts is the weight an item of the catalogue.

Ref: Mao, Zhu, Wang, Dai, Dong, Xiao, He, "SimpleX: a simple and strong baseline for collaborative filtering",
CIKM 2021, arXiv:2109.12613; github.com/reczoo/RecZoo (matching/cf/SimpleX), whose Gowalla settings are the defaults
there but for the rate, the batch and the number of epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tastemaker.contracts import Optimiser, Plateau, Program, Train, system
from tastemaker.feeds import Triplets, interaction_matrix, shared, triplets, uniform
from tastemaker.nn import losses
from tastemaker.nn.pooling import attend
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Jagged, Requests, Schema, setting

Pooling = Literal["mean", "self_attention", "user_attention"]

EPOCHS, STEPS = 30, 2_000  # the longest training is no shorter than either
TRAVEL, RATES = 20.0, (1e-3, 1e-2)  # rate times steps of the longest training, and the bounds that the rate keeps
ITEMS, WEIGHTS = 160, (30.0, 250.0)  # items of the catalogue for a weight of 1, and the bounds that the weight keeps


class Rows(NamedTuple):
    """What a batch reads: users, items [B, D], negatives [n, D] or [B, n, D], items of its histories [M, D]."""

    users: Tensor
    items: Tensor
    negatives: Tensor
    pool: Tensor


@system(
    "simplex",
    family="classical",
    title="SimpleX: user and history fused, cosine contrastive loss",
    paper="arXiv:2109.12613",
    needs={"history"},
)
class SimpleX(nn.Module):
    """Users fused with their histories, and items, compared by cosine."""

    rows: ClassVar = {"user_table.weight": ("users",), "item_table.weight": ("items",)}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "Width of the vectors.", low=1, search=(32, 256), log=True)
        pooling: Pooling = setting(
            "user_attention",
            "How the items of a history are weighed.",
            choices=("mean", "self_attention", "user_attention"),
            search=("mean", "self_attention", "user_attention"),
        )
        gamma: float = setting(0.8, "Share of the user's own vector.", low=0.0, high=1.0, search=(0.0, 1.0))
        max_len: int = setting(500, "Latest choices that are pooled.", low=1)
        margin: float = setting(
            0.9, "Cosine below which a negative counts for nothing.", low=-1.0, high=1.0, search=(0.0, 0.95)
        )
        weight: float | None = setting(
            None,
            "Weight of the mean over the negatives; none: one for 160 items of the catalogue, from 30 to 250.",
            low=0.0,
            search=(10, 1000),
            log=True,
        )
        negatives: int = setting(2000, "Items a choice is held against.", low=1, search=(50, 2000), log=True)
        sharing: bool = setting(True, "Draw the negatives once for the whole batch.")
        dropout: float = setting(0.1, "Dropout of the fused vector.", low=0.0, high=0.99, search=(0.0, 0.3))
        lr: float | None = setting(
            None,
            "Learning rate at the start; none: 20 over the steps that `epochs` make, from 0.001 to 0.01.",
            low=1e-6,
            high=1.0,
            log=True,
            search=(1e-4, 1e-2),
        )
        batch_size: int = setting(1024, "Choices a step.", low=1)
        epochs: int | None = setting(
            None,
            "Most epochs, over which the learning rate falls to 0; none: 30, or as many as make 2,000 steps.",
            low=1,
        )
        patience: int = setting(10, "Evaluations without a rise before training stops.", low=1)
        every: int = setting(1, "Epochs between evaluations.", low=1)
        init: float = setting(0.1, "Standard deviation of the first vectors.", low=1e-6)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        self.weight = between(*WEIGHTS, schema.n_items / ITEMS) if config.weight is None else config.weight
        self.user_table = Table(schema.n_users, dim, std=config.init, sparse=True)
        self.item_table = Table(schema.n_items, dim, std=config.init, sparse=True)
        self.mix = nn.Linear(dim, dim, bias=False)
        if config.pooling != "mean":
            self.key = nn.Linear(dim, dim)
        if config.pooling == "self_attention":
            self.query = nn.Parameter(torch.empty(dim))
            nn.init.normal_(self.query, std=dim**-0.5)

    def program(self, data: Dataset) -> Program:
        c, matrix = self.config, interaction_matrix(data)
        n = min(c.negatives, data.n_items)
        negatives = shared(matrix, n) if c.sharing else uniform(matrix, n)
        histories = data.histories().column("item").last(c.max_len)
        feed = triplets(matrix, c.batch_size, negatives, histories=histories)
        epochs = max(EPOCHS, math.ceil(STEPS / len(feed))) if c.epochs is None else c.epochs
        lr = between(*RATES, TRAVEL / (epochs * len(feed))) if c.lr is None else c.lr
        yield Train(
            feed,
            self.gather,
            self.objective,
            until=Plateau("ndcg@20", c.patience, c.every, epochs),
            optimiser=Optimiser(lr=lr, schedule="linear"),
        )

    def gather(self, batch: Triplets) -> Rows:
        tables = self.user_table, self.item_table, self.item_table, self.item_table
        read = batch.users, batch.items, batch.negatives, batch.pool
        return Rows(*(table(numbers) for table, numbers in zip(tables, read, strict=True)))

    def objective(self, rows: Rows, batch: Triplets) -> Tensor:
        """The cosine contrastive loss of each choice [B] (paper, equation 1)."""
        c = self.config
        fused = self.fuse(rows.users, rows.pool, batch.history, batch.offsets)
        users = F.normalize(F.dropout(fused, c.dropout, self.training), dim=-1)
        positive = (users * F.normalize(rows.items, dim=-1)).sum(dim=-1)
        negatives = F.normalize(rows.negatives, dim=-1)
        if negatives.ndim == 3:
            cosines = torch.bmm(negatives, users.unsqueeze(-1)).squeeze(-1)
            return losses.ccl(positive, cosines, c.margin, self.weight)
        excess: Tensor = _Excess.apply(users, negatives, batch.clashes, c.margin)  # type: ignore[no-untyped-call]
        return (1 - positive) + self.weight * excess

    def fuse(self, users: Tensor, pool: Tensor, history: Tensor, offsets: Tensor) -> Tensor:
        """Users' vectors and their pooled histories, weighed by gamma (paper, equation 4).

        Shapes: users [B, D], pool [M, D], history [N] places in the pool, offsets [B + 1]; returns [B, D].
        """
        if self.config.pooling == "mean":
            pooled = F.embedding_bag(history, pool, offsets[:-1], mode="mean")
        else:
            queries = users if self.config.pooling == "user_attention" else self.query.expand_as(users)
            pooled = attend(queries, torch.tanh(self.key(pool)), pool, history, offsets)
        fused: Tensor = self.config.gamma * users + (1 - self.config.gamma) * self.mix(pooled)
        return fused

    @torch.no_grad()
    def queries(self, requests: Requests) -> Tensor:
        """Users fused with their histories, of unit length [B, D]."""
        items = requests.items()
        n_items = len(self.item_table.weight)
        past: Jagged[Any] = items.where(items.values < n_items).last(self.config.max_len)
        offsets = self.user_table.numbers(past.offsets)
        numbers = self.user_table.numbers([-1] * requests.n if requests.users is None else requests.users)
        unknown = (numbers < 0) | (numbers >= len(self.user_table.weight))
        lost = unknown & (torch.diff(offsets) == 0)
        users = self.user_table.known(numbers).masked_fill((unknown & ~lost).unsqueeze(-1), 0.0)
        pool, history = torch.unique(self.item_table.numbers(past.values), return_inverse=True)
        return F.normalize(self.fuse(users, self.item_table(pool), history, offsets), dim=-1)

    @torch.no_grad()
    def items(self, numbers: Any = None) -> Tensor:
        """The items' vectors, of unit length [n, D]."""
        return F.normalize(self.item_table.weight if numbers is None else self.item_table(numbers), dim=-1)


def between(low: float, high: float, value: float) -> float:
    """The value, or the bound it lies beyond."""
    return min(max(value, low), high)


class _Excess(torch.autograd.Function):
    """The mean over shared negatives of max(0, cosine - margin), clashes left out, without a copy of the cosines.

    Shapes: users [B, D], negatives [n, D], clashes [B, n]; returns [B].
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, negatives: Tensor, clashes: Tensor, margin: float) -> Tensor:  # type: ignore[override]
        over = (users @ negatives.T).sub_(margin).clamp_min_(0.0).masked_fill_(clashes, 0.0)
        means = over.mean(dim=1)
        ctx.save_for_backward(users, negatives, over.sign_())
        return means

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, given: Tensor) -> Any:  # type: ignore[override]
        users, negatives, over = ctx.saved_tensors
        shares = given.unsqueeze(1) / len(negatives)
        return shares * (over @ negatives), over.T @ (shares * users), None, None
