"""A-LLMRec: a frozen collaborative model tells a frozen language model what it knows, through two small networks.

Read in training: events in their order, titles and descriptions; another system's vectors of items, and of each user
before the last choice. First two autoencoders bring the vectors of items and of their texts together, then two maps
carry users and items into the prompt. In: a history, `candidates`. Out: scores of candidates by the likelihood of their
titles, or a title in words. A new item is read by its text alone (`extend`). Ref: arXiv:2404.11343.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from torch import Tensor, nn

from tastemaker.contracts import (
    Embeds,
    Extends,
    Fit,
    Generates,
    Keeps,
    Precompute,
    Program,
    Reranks,
    Scores,
    Train,
    system,
)
from tastemaker.feeds import RowFeed
from tastemaker.nn.inside import kept, revived
from tastemaker.types import (
    Dataset,
    Decoding,
    Epochs,
    Optimiser,
    Requests,
    Samples,
    Schema,
    Slates,
    State,
    SystemRef,
    setting,
    to_numpy,
)


@dataclass(frozen=True)
class Last:
    """B users at their last choice: users [B], as rows of what the other system says of them; chosen, other [B]."""

    users: Any
    chosen: Any
    other: Any

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: slice) -> Last:
        return Last(self.users[rows], self.chosen[rows], self.other[rows])


@system(
    "a-llmrec",
    family="language",
    title="A-LLMRec: collaborative vectors as words of a frozen language model",
    paper="arXiv:2404.11343",
    learns_from={"events", "events.time", "items:text"},
    needs={"history", "candidates"},
)
class ALLMRec(nn.Module):
    """Ranks candidates by how likely a language model holds their titles, told of the vectors of another system."""

    @dataclass(frozen=True)
    class Config:
        base: SystemRef = setting(SystemRef("sasrec", {"dim": 50}), "The collaborative system.")
        width: int = setting(50, "Width of its vectors.", low=1)
        model: str = setting("", "The language model, by name or folder; none: a small one from scratch.")

    def __init__(self, config: Config, schema: Schema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.joint = nn.ModuleList([nn.Linear(config.width, 128), nn.Linear(768, 128)])  # and back
        self.maps = nn.ModuleList([nn.Linear(config.width, 1), nn.Linear(128, 1)])  # into the prompt

    def program(self, data: Dataset) -> Program:
        base = yield Fit(self.config.base, data)
        self.inner = (base,)  # not as a part of this module: it learns no more
        self.users, self.vectors = (yield Fit(last_states, base, data)), (yield Fit(item_vectors, base))
        self.texts = yield Precompute(text_vectors, self.config.model, data.items)
        joint, maps = list(self.joint.parameters()), list(self.maps.parameters())
        how = Optimiser(lr=1e-4, betas=(0.9, 0.98))
        yield Train(last_choices(data, 32), self.gather, self.alignment, Epochs(10), how, parameters=joint)
        yield Train(last_choices(data, 4), self.gather, self.title_loss, Epochs(5), how, parameters=maps)

    def gather(self, batch: Last) -> Tensor:
        raise NotImplementedError

    def alignment(self, read: Tensor, batch: Last) -> Tensor:
        """Of each user [B]: items near their texts, both given back, the chosen one above the other."""
        raise NotImplementedError

    def title_loss(self, read: Tensor, batch: Last) -> Tensor:  # [B], of the words of the chosen item's title
        raise NotImplementedError

    def score(self, requests: Requests, items: Any = None) -> Tensor:
        raise NotImplementedError

    def rerank(self, requests: Requests, slates: Slates) -> Slates:
        raise NotImplementedError

    def generate(self, requests: Requests, n: int, decoding: Decoding) -> Samples:
        raise NotImplementedError

    def logp(self, requests: Requests, samples: Samples) -> Tensor:
        raise NotImplementedError

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> ALLMRec:
        raise NotImplementedError

    def export(self) -> State:
        own = {name: to_numpy(value) for name, value in self.state_dict().items()}
        return {**kept("base", self.inner[0]), **own}

    def restore(self, state: State) -> None:
        self.inner = (revived("base", self.config.base, self.schema, state),)


def last_states(base: Embeds, data: Dataset) -> Any: ...  # [U, D], queries of histories without their last choice


def item_vectors(base: Embeds) -> Any:
    return to_numpy(base.items())


def text_vectors(model: str, items: pl.DataFrame) -> Any: ...  # [I, 768]


def last_choices(data: Dataset, batch_size: int) -> RowFeed[Last]:
    return RowFeed(data.n_users, batch_size, lambda rows, rng: Last(rows, rows, rng.permutation(rows)))


CAN: tuple[type[Scores], type[Reranks], type[Generates], type[Extends], type[Keeps]]
CAN = (ALLMRec, ALLMRec, ALLMRec, ALLMRec, ALLMRec)
