"""Slate GRU: what was shown and not taken counts too; vectors are distributions, from which lists are drawn.

Read in training: events with "slate", "position" and "kind": impressions and clicks, a list without a click being a
choice of nothing; a column of items that groups them. A row is a user's lists in their order: how unlikely each click
was among what was shown, and the row's part of the divergence from the prior. In: a history, and as `candidates` the
list that will be shown, where it is known. Out: chances of clicks, lists by Thompson sampling. Ref: arXiv:2104.15046.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tastemaker.contracts import Fit, Predicts, Program, Retrieves, Train, system
from tastemaker.feeds import RowFeed
from tastemaker.nn.table import Table
from tastemaker.types import Dataset, Optimiser, Plateau, Requests, Schema, Slates, setting


@dataclass(frozen=True)
class Shown:
    """B users, S lists, N items: users [B], lists [B + 1], items [N], offsets [S + 1]; place taken [S], -1: none."""

    users: Any
    lists: Any
    items: Any
    offsets: Any
    taken: Any

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: slice) -> Shown:
        raise NotImplementedError


class Drawn(NamedTuple):
    """Vectors drawn, of items shown [P, N, D] and of the states before each list [P, S, D]; what that costs [B]."""

    items: Tensor
    states: Tensor
    cost: Tensor


@system(
    "slate-gru",
    family="online",
    title="Slate GRU: choices among what was shown, with vectors that know how sure they are",
    paper="arXiv:2104.15046",
    learns_from={"events.slate", "events.position", "events.kind", "items:category"},
    needs={"history"},
)
class SlateGRU(nn.Module):
    """Draws lists as likely to be right as it holds them to be."""

    tasks: ClassVar = ("kind=click",)

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(50, "Width of the vectors.", low=1, log=True)
        draw: Literal["list", "slot", "mean"] = setting("slot", "A draw a list, a draw a slot, or none.")
        temperature: float = setting(1.0, "What deviations are multiplied by when lists are drawn; 0: none.", low=0.0)

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.means, self.deviations = Table(schema.n_items, config.dim), Table(schema.n_items, config.dim)
        self.state = nn.GRUCell(config.dim, config.dim, bias=False)

    def program(self, data: Dataset) -> Program:
        self.groups, shown = (yield Fit(groups_of, data.items)), (yield Fit(lists_shown, data.events))
        yield Train(
            shown_lists(data, shown, 512),
            self.gather,
            self.objective,
            Plateau("ndcg@20"),
            Optimiser(betas=(0.1, 0.1)),  # as the authors have it
        )

    def gather(self, batch: Shown) -> Drawn:
        raise NotImplementedError

    def objective(self, drawn: Drawn, batch: Shown) -> Tensor:
        """Of each user [B]: -log of the probability of what was taken, among what was shown and nothing, and `cost`."""
        return drawn.cost + torch.zeros(len(batch))

    def score(self, requests: Requests, items: Any = None) -> Tensor:
        """By means: minus the distance of state and item."""
        raise NotImplementedError

    def predict(self, requests: Requests, items: Any = None) -> Tensor:
        """The chance of a click [B, C, 1] in a list of the request's candidates; without these, in a list of one."""
        raise NotImplementedError

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """Drawn from the requests' seeds."""
        raise NotImplementedError


def groups_of(items: Any) -> Any: ...  # [I]


def lists_shown(events: Any) -> Any: ...  # as `Shown` has them


def shown_lists(data: Dataset, shown: Any, batch_size: int) -> RowFeed[Shown]:
    return RowFeed(data.n_users, batch_size, lambda rows, rng: Shown(rows, rows, rows, rows, rows))


CAN: tuple[type[Predicts], type[Retrieves]] = (SlateGRU, SlateGRU)
