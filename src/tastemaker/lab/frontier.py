"""What a system costs to train and to answer with, and which of several nothing cheaper equals."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tastemaker.train import Bundle
from tastemaker.types import Cases, quiet

SINGLE_MOST, BATCH_ROWS = 200, 1024  # requests asked one at a time, and at once
WARM = 3  # requests that do not count


@dataclass(frozen=True)
class Costs:
    """What a fitted system costs.

    fit_seconds, peak_mb: of the training that gave it, and the most memory its process used
    bundle_mb: on disk
    ms_per_request: median of requests asked one at a time
    users_per_second: asked in batches
    """

    fit_seconds: float
    peak_mb: float
    bundle_mb: float
    ms_per_request: float
    users_per_second: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Costs:
        return cls(**found)


def answering(bundle: Bundle, cases: Cases, k: int, seconds: float = 1.0) -> tuple[float, float]:
    """Milliseconds a request takes alone, and users a second in batches, each measured for so many seconds."""
    if not len(cases):
        return math.nan, math.nan
    asked = [cases.requests.take(slice(row, row + 1)) for row in range(min(len(cases), SINGLE_MOST + WARM))]
    with quiet():
        for one in asked[:WARM]:
            bundle.retriever.retrieve(one, k)
        times: list[float] = []
        end = time.perf_counter() + seconds
        for one in asked[WARM:] or asked:
            began = time.perf_counter()
            bundle.retriever.retrieve(one, k)
            times.append(time.perf_counter() - began)
            if time.perf_counter() > end:
                break
        rows = np.resize(np.arange(len(cases)), BATCH_ROWS)  # few cases are asked again and again
        batch, answered = cases.requests.take(rows), 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            bundle.retriever.retrieve(batch, k)
            answered += BATCH_ROWS
        return 1000 * median(times), answered / (time.perf_counter() - began)


def size_mb(folder: Path) -> float:
    """Of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def frontier(values: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Places of those that nothing as cheap or cheaper equals or beats, cheapest first.

    Higher values are better, lower costs are. Of two that are equal in both the first stands.
    """
    found: list[int] = []
    best = -math.inf
    for place in sorted(range(len(values)), key=lambda n: (costs[n], -values[n], n)):
        if values[place] > best:
            found.append(place)
            best = values[place]
    return found
