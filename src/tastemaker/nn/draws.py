"""Draws by counter: what a request draws for an item depends on the request's seed and the item alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.types import Requests, mix


def seeds_of(requests: Requests) -> NDArray[np.uint64]:
    """The requests' seeds; where there are none, what user and time make of them: [B]."""
    if requests.seeds is not None:
        return requests.seeds
    seeds = np.zeros(requests.n, dtype=np.uint64)
    for part in (requests.users, requests.now):
        if part is not None:
            seeds = mix(seeds ^ mix(part))
    return seeds


def uniforms(seeds: NDArray[np.uint64], numbers: NDArray[np.integer[Any]], purpose: int = 0) -> NDArray[np.float64]:
    """Numbers of (0, 1) for pairs of a seed [B, 1] and a number [B or 1, C]; one stream a purpose."""
    drawn = mix(mix(seeds, purpose) ^ mix(numbers), purpose + 1) >> np.uint64(11)  # 53 bits: as many as a float64 keeps
    return (drawn.astype(np.float64) + 0.5) * 2.0**-53
