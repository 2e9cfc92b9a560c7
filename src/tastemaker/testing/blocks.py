"""Blocks: users who choose among the items of one block alone, all items being as popular as one another.

What is right is known: whoever has seen a few choices of a user must recommend from the user's own block. Popularity
cannot; nor can a system whose labels have slipped, whose users and items are mixed up, or which has learnt to copy.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.build import build
from tastemaker.types import Dataset, Slates, generator

N_BLOCKS = 4
DAY = 86_400_000_000  # microseconds
WORDS = ("river boat harbour tide", "engine wheel road garage", "oven bread flour kitchen", "star orbit moon rocket")


def blocks(n_users: int = 240, n_items: int = 120, chosen: int = 12, seed: int = 0) -> Dataset:
    """Each user chooses `chosen` items of one block, in random order, a day apart. Ids modulo 4 are blocks."""
    rng = generator(seed, "blocks")
    users = np.repeat(np.arange(n_users), chosen)
    own = n_items // N_BLOCKS
    picked = np.argsort(rng.random((n_users, own)), axis=1)[:, :chosen].ravel()
    items = picked * N_BLOCKS + users % N_BLOCKS
    times = np.tile(np.arange(chosen), n_users) * DAY + np.repeat(rng.integers(0, DAY, n_users), chosen)
    words = [WORDS[item % N_BLOCKS].split() for item in range(n_items)]
    titles = [" ".join(rng.permutation(w)[:3]) + f" {n}" for n, w in enumerate(words)]
    events = pl.DataFrame({"user": users, "item": items, "time": times, "kind": "purchase", "value": np.float32(1.0)})
    item_table = pl.DataFrame(
        {"item": np.arange(n_items), "title": titles, "description": [t + " story" for t in titles]}
    )
    return build("blocks", events, pl.DataFrame({"user": np.arange(n_users)}), item_table, time_unit="us")


def share_of_own_block(data: Dataset, slates: Slates, users: NDArray[np.int32]) -> float:
    """Share of recommended items that lie in the user's own block; by chance a quarter.

    Shapes: users [B], for whom the B lists are.
    """
    of_items, of_users = (table.to_series(0).to_numpy() % N_BLOCKS for table in (data.items, data.users))
    there = slates.items >= 0
    own = of_items[slates.items] == of_users[users][:, None]
    return float(own[there].mean()) if there.any() else 0.0
