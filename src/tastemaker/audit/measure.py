"""How far an attack got: in how many lists of real users its targets stand, and how high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.evaluate.metrics import locate
from tastemaker.feeds import interaction_matrix
from tastemaker.types import Dataset, Jagged, Requests, Split, UsageError, progress, request_seeds
from tastemaker.types.split import HISTORY_COLUMNS

BLOCK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Reach:
    """Of each target, among the real users who never chose it: the share whose list of k holds it; its discounted gain.

    Shapes: targets, hit_rates, ndcgs, users [T]
    """

    targets: NDArray[np.int64]
    hit_rates: NDArray[np.float64]
    ndcgs: NDArray[np.float64]
    users: NDArray[np.int64]

    @property
    def hit_rate(self) -> float:
        """The mean over targets."""
        return float(self.hit_rates.mean())

    @property
    def ndcg(self) -> float:
        """The mean over targets of 1 / log2(rank + 1), 0 where a list does not hold the target."""
        return float(self.ndcgs.mean())


def reach(retriever: Any, split: Split, targets: NDArray[np.integer[Any]], *, k: int = 50, seed: int = 0) -> Reach:
    """Ask for every real user of the training part, items seen there left out, and look for the targets.

    retriever: answers `retrieve(requests, k)` in the numbers of the split, as a bundle's does.
    """
    aimed: NDArray[np.int64] = np.asarray(targets, dtype=np.int64)
    asked, users = questions(split.train, seed)
    if not len(users):
        raise UsageError("there is nobody to ask: no user of the training part has a choice")
    everything = interaction_matrix(split.data)
    own = everything[users][:, aimed].toarray() > 0  # [U, T], whatever part of the split it is in
    places = np.full((len(users), len(aimed)), -1, dtype=np.int32)
    with progress("target items", len(users)) as advance:
        for start in range(0, len(users), BLOCK_ROWS):
            part = asked.take(slice(start, start + BLOCK_ROWS))
            lists = np.ascontiguousarray(retriever.retrieve(part, k).items[:, :k])
            wanted = np.tile(aimed.astype(np.int32), part.n)
            offsets = np.arange(part.n + 1, dtype=np.int64) * len(aimed)
            none = Jagged.empty(part.n)
            found = np.full(len(wanted), -1, dtype=np.int32)
            locate(lists, offsets, wanted, none.offsets, none.values, split.data.n_items, found)
            places[start : start + part.n] = found.reshape(part.n, -1)
            advance(part.n)
    counted = (~own).sum(axis=0)
    hits = (places >= 0) & ~own
    gains = np.where(hits, 1 / np.log2(np.maximum(places, 0) + 2.0), 0.0)
    many = np.maximum(counted, 1)
    return Reach(aimed, hits.sum(axis=0) / many, gains.sum(axis=0) / many, counted)


def questions(train: Dataset, seed: int = 0) -> tuple[Requests, NDArray[np.int64]]:
    """A request for every user with a choice, right after the last event of all; and the users' numbers."""
    columns = tuple(name for name in HISTORY_COLUMNS if name in train.events.columns)
    past = train.histories(columns)
    users = np.flatnonzero(past.lengths)
    history = past.take(users)
    now = None
    if train.has_time and train.n_events:
        now = np.full(len(users), int(train.events["time"].max()) + 1, dtype=np.int64)  # type: ignore[arg-type]
    asked = Requests(
        len(users),
        users=users.astype(np.int32),
        history=history,
        exclude=history.column("item"),
        now=now,
        seeds=request_seeds(len(users), seed),
    )
    return asked, users
