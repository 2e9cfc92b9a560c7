"""TTDS: codes of items and of users change while the language model that reads them learns.

Read in training: events in their order, texts of items, and users' wishes as another language model writes them down.
The model and two quantisers learn at once. A batch says which items and users a prompt names; `gather` encodes their
texts by the model as it stands, without gradient, quantises them, and puts the codes in their places. Then codes stand
still and the model learns on. In: a history, or a wish in `text`. Out: codes, hence items. Ref: arXiv:2409.09253.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl
from torch import Tensor, nn

from tastemaker.contracts import (
    Binds,
    ChatModel,
    Fit,
    Generates,
    Precompute,
    Program,
    Resources,
    Retrieves,
    Train,
    system,
)
from tastemaker.feeds import RowFeed
from tastemaker.types import Codebook, Dataset, Decoding, Epochs, Optimiser, Requests, Samples, Schema, Slates, setting

LEVELS = (256,) * 4


@dataclass(frozen=True)
class Prompts:
    """B prompts: words [N], -1 - e where codes of entity e come; offsets [B + 1]; entities [E], users first."""

    words: Any
    offsets: Any
    entities: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: slice) -> Prompts:
        raise NotImplementedError


class Filled(NamedTuple):
    """Words and codes as vectors [N, D]; of each entity its text and its codes [E, D], and the quantiser's loss [E]."""

    read: Tensor
    texts: Tensor
    codes: Tensor
    losses: Tensor


@system(
    "ttds",
    family="generative",
    title="TTDS: codes of items and users that change while the model learns",
    paper="arXiv:2409.09253",
    learns_from={"events", "events.time", "items:text"},
    uses={"chat"},
)
class TTDS(nn.Module):
    """Writes the codes of the next item after a history or a wish."""

    @dataclass(frozen=True)
    class Config:
        model: str = setting("", "The language model, by name or folder; none: a small one from scratch.")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.model, self.coders = nn.Linear(1, 1), nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])

    def bind(self, resources: Resources) -> None:
        self.chat = resources.chat

    def program(self, data: Dataset) -> Program:
        wishes = yield Precompute(written_wishes, self.chat, data.interactions(), data.items)
        texts = yield Precompute(text_vectors, self.config.model, data.items, wishes)
        alone = [list(part.parameters()) for part in (self.coders, self.model)]
        yield Train(vectors(data, texts), self.read, self.coding, Epochs(5000), parameters=alone[0])
        joint, after = (Optimiser("adamw", lr=lr, schedule="cosine", accumulate=2) for lr in (5e-4, 5e-5))
        yield Train(prompts(data, wishes, tasks=12), self.gather, self.objective, Epochs(4), joint)
        self.books = [Codebook(codes, LEVELS) for codes in (yield Fit(codes_apart, self, data.items, wishes))]
        yield Train(prompts(data, wishes, tasks=9), self.gather, self.objective, Epochs(4), after, parameters=alone[1])

    def read(self, batch: Any) -> Tensor:  # [B, D], a batch being vectors of texts
        raise NotImplementedError

    def coding(self, read: Tensor, batch: Any) -> Tensor:  # [B]
        raise NotImplementedError

    def gather(self, batch: Prompts) -> Filled:
        raise NotImplementedError

    def objective(self, read: Filled, batch: Prompts) -> Tensor:
        """Of each prompt [B]: its answer, its entities' quantisers, and how far their codes lie from their texts."""
        raise NotImplementedError

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        raise NotImplementedError

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        raise NotImplementedError

    def retrieve(self, requests: Requests, k: int) -> Slates:
        raise NotImplementedError


def written_wishes(chat: ChatModel, chosen: pl.DataFrame, items: pl.DataFrame) -> Any: ...  # a text a user


def text_vectors(model: str, items: pl.DataFrame, wishes: Any) -> Any: ...  # [U + I, D]


def codes_apart(system: TTDS, items: pl.DataFrame, wishes: Any) -> Any: ...  # [U, Q] and [I, Q], no two rows alike


def vectors(data: Dataset, texts: Any) -> RowFeed[Any]:
    return RowFeed(data.n_users + data.n_items, 1024, lambda rows, rng: texts[rows])


def prompts(data: Dataset, wishes: Any, tasks: int) -> RowFeed[Prompts]:
    return RowFeed(data.n_users * tasks, 12, lambda rows, rng: Prompts(rows, rows, rows))


CAN: tuple[type[Generates], type[Retrieves], type[Binds]] = (TTDS, TTDS, TTDS)
