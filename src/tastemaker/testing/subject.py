"""A system under test, on a small world whose truth is known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tastemaker.contracts import SystemInfo, find
from tastemaker.data import split, synthetic
from tastemaker.train import Bundle, fit
from tastemaker.types import Cases, Dataset, Requests, Slates, Split, request_seeds, settings

K = 10
SEED = 7
SMALL = {"dim": 32, "epochs": 12, "every": 4, "max_len": 20, "batch_size": 256, "lr": 0.01}
"""Settings that trained systems share by name, at sizes for which seconds are enough; a class may name others in
`small`, as one does that learns from many more rows, or more slowly."""
WORLD, WORLD_OF_ROWS = (300, 200), (100, 100)
"""Users and items of the synthetic dataset; and of that for systems that predict and have no vectors, which learn from
all that was shown, and from what is drawn beside it: several rows for each choice."""


@dataclass(eq=False)
class Subject:
    """A system, its settings, and what it is fitted and asked on."""

    info: SystemInfo
    config: Mapping[str, Any]
    data: Dataset
    parts: Split

    @cached_property
    def bundle(self) -> Bundle:
        return self.fitted()

    def fitted(self, **how: Any) -> Bundle:
        """Fitted anew on the training part, with the seed of every test."""
        return fit(self.info.cls, self.parts.train, self.config, seed=SEED, refit=False, **how)

    @cached_property
    def again(self) -> tuple[Bundle, bool]:
        """Fitted a second time; and whether that left the global streams of random numbers alone."""
        before = _global_streams()
        bundle = self.fitted()
        return bundle, before == _global_streams()

    @cached_property
    def cases(self) -> Cases:
        return self.parts.cases("test")

    def requests(self, n: int = 40) -> Requests:
        """Requests for the first `n` users with held-out events, each with a stream of its own."""
        picked = self.cases.requests.take(slice(0, n))
        return picked.with_(seeds=request_seeds(picked.n, 11))

    def answer(self, requests: Requests, k: int = K) -> Slates:
        slates = self.bundle.retriever.retrieve(requests, k)
        assert isinstance(slates, Slates)
        return slates


def subject(name: str, config: Mapping[str, Any] | None = None, *, data: Dataset | None = None) -> Subject:
    """The system `name` on the synthetic dataset, or on a dataset of your own; made small, where settings allow."""
    info = find(name)
    if data is None:
        ranks_rows = "predicts" in info.capabilities and "embeds" not in info.capabilities
        n_users, n_items = WORLD_OF_ROWS if ranks_rows else WORLD
        data = synthetic(n_users, n_items=n_items, seed=3)
    sizes = {**SMALL, **getattr(info.cls, "small", {})}
    small = {setting: value for setting, value in sizes.items() if setting in settings(info.config)}
    return Subject(info, {**small, **(config or {})}, data, split(data, "ratio:0.8,0,0.2", seed=5))


def _global_streams() -> tuple[str, bytes]:
    drawn = sys.modules["torch"].random.get_rng_state().numpy().tobytes() if "torch" in sys.modules else b""
    return str(np.random.get_state()), drawn  # noqa: NPY002 - the global state is what is looked at
