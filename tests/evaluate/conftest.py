"""A small world with users, items, columns and times, and systems that answer in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.build import build
from tastemaker.types import Dataset, Requests, Split

N_USERS, N_ITEMS = 80, 60


def world(seed: int = 0) -> Dataset:
    """Users prefer items near them on a ring; item 0 is the most popular; columns of several kinds."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(N_USERS), 14)
    near = (user * N_ITEMS // N_USERS + np.round(rng.normal(0, 6, len(user))).astype(int)) % N_ITEMS
    item = np.where(rng.random(len(user)) < 0.3, np.floor(N_ITEMS * rng.random(len(user)) ** 3).astype(int), near)
    events = pl.DataFrame({"user": user, "item": item, "time": rng.permutation(len(user))})
    users = pl.DataFrame(
        {
            "user": np.arange(N_USERS),
            "age": [None if u % 9 == 0 else 20 + u % 30 for u in range(N_USERS)],
            "land": [["<b>a</b>", "b", "c"][u % 3] for u in range(N_USERS)],
        }
    )
    items = pl.DataFrame(
        {
            "item": np.arange(N_ITEMS),
            "title": [f"<script>alert({i})</script> & the long road home" for i in range(N_ITEMS)],
            "genres": [[f"g{i % 4}", f"g{i % 7}"] if i % 11 else None for i in range(N_ITEMS)],
            "maker": [f"m{i % 20}" for i in range(N_ITEMS)],
            "taste": pl.Series(rng.normal(size=(N_ITEMS, 3)).tolist(), dtype=pl.List(pl.Float32)),
        }
    )
    return build("ring", events, users, items, time_unit="step")


@dataclass(eq=False)
class Vectors:
    """A system of vectors, drawn from a seed."""

    n_users: int
    n_items: int
    seed: int = 0
    dim: int = 6

    @property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return tuple(rng.normal(size=(n, self.dim)).astype(np.float32) for n in (self.n_users, self.n_items))  # type: ignore[return-value]

    def queries(self, requests: Requests) -> np.ndarray:
        assert requests.users is not None
        return self._both[0][requests.users]

    def items(self, numbers: Any = None) -> np.ndarray:
        return self._both[1] if numbers is None else self._both[1][numbers]


@pytest.fixture(scope="session")
def ring() -> Dataset:
    return world()


@pytest.fixture(scope="session")
def parts(ring: Dataset) -> Split:
    """The last three events of each user judge."""
    last = pl.int_range(pl.len()).over("user") >= pl.len().over("user") - 3
    part = ring.events.select(last.cast(pl.Int8) * 2).to_series().to_numpy()
    return Split("last three", ring, part, spec={"kind": "leave-k", "k": 3}, warnings=("The clock <is> off.",))


@pytest.fixture(scope="session")
def vectors(ring: Dataset) -> Vectors:
    return Vectors(ring.n_users, ring.n_items)
