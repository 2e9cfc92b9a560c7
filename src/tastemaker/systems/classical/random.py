"""Random: every item is as good as any other. The floor that each comparison stands on.

Scores are a hash of the request's seed and the item, so a request gets the same list alone and in a batch, and
another seed gives an independent list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Program, system
from tastemaker.nn.draws import seeds_of
from tastemaker.types import Array, BundleError, Dataset, Requests, Schema, State, mix, to_numpy


@system("random", family="classical", title="Random", paper="none", learns_from=())
class Random:
    """Scores items uniformly at random, by the seeds of the requests (else by user and time)."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.schema = config, schema
        self.salt: NDArray[np.uint64] = np.zeros(1, dtype=np.uint64)

    def program(self, data: Dataset) -> Program:
        self.salt = yield Fit(draw_salt, rng="salt")

    def score(self, requests: Requests, items: Array | None = None) -> NDArray[np.float32]:
        seeds = mix(seeds_of(requests) ^ self.salt)
        if items is None:
            items = np.arange(self.schema.n_items, dtype=np.int32)[None]
        numbers = np.ascontiguousarray(to_numpy(items), dtype=np.int32)
        scores = np.empty((requests.n, numbers.shape[1]), dtype=np.float32)
        _draw(seeds, numbers, scores)
        return scores

    def export(self) -> State:
        return {"salt": self.salt, "n_items": np.array([self.schema.n_items])}

    def restore(self, state: State) -> None:
        salt, n_items = state.get("salt"), state.get("n_items")
        if salt is None or salt.shape != (1,) or salt.dtype != np.uint64:
            raise BundleError("Random keeps a salt, one uint64")
        if n_items is None or n_items.tolist() != [self.schema.n_items]:
            raise BundleError(f"Random was made for another catalogue than one of {self.schema.n_items:,} items")
        self.salt = salt


def draw_salt(rng: np.random.Generator) -> NDArray[np.uint64]:
    """What sets one training seed's lists apart from another's."""
    return rng.integers(0, 2**64, size=1, dtype=np.uint64)


@njit(cache=True, nogil=True, parallel=True)  # type: ignore[untyped-decorator]
def _draw(seeds: Any, numbers: Any, scores: Any) -> None:
    """Minus a uniform number of (0, 1]: near 0, where the best items lie, float32 is fine enough to keep them apart."""
    for row in prange(len(scores)):
        own = numbers[np.int64(row) % len(numbers)]  # one row for all, or one each
        for place in range(len(own)):
            z = seeds[row] + np.uint64(0x9E3779B97F4A7C15) * np.uint64(own[place] + 1)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            scores[row, place] = -np.float32((np.float64(z) + 0.5) * 2.0**-64)
