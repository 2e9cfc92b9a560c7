"""Systems whose best setting is known, and data in which the order of events decides."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from tastemaker.contracts import Fit, Plateau, Program, Train, system
from tastemaker.data import split, synthetic
from tastemaker.data.build import build
from tastemaker.feeds import RowFeed
from tastemaker.types import Dataset, Diverged, Requests, Split, setting


def counted(data: Dataset) -> Any:
    return np.bincount(data.interactions()["item"].to_numpy(), minlength=data.n_items).astype(np.float32)


def rows_of(scores: Any, requests: Requests, items: Any) -> Any:
    rows = np.broadcast_to(scores, (requests.n, len(scores)))
    return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)


@system("tilted", family="classical", title="Popularity, tilted", paper="none")
class Tilted:
    """Popularity to a power: as good as popularity above 0, worse than chance below. The default is the worst."""

    fits: ClassVar[list[dict[str, Any]]] = []
    stop_after: ClassVar[int | None] = None
    seconds: ClassVar[float] = 0.0

    @dataclass(frozen=True)
    class Config:
        power: float = setting(-1.0, "Exponent of the counts.", low=-1.0, high=1.0, search=(-1.0, 1.0))
        shape: int = setting(1, "Does nothing.", low=0, high=9, search=(0, 9))

    def __init__(self, config: Any, schema: Any) -> None:
        self.config, self.schema = config, schema
        self.scores = np.zeros(schema.n_items, dtype=np.float32)

    def program(self, data: Dataset) -> Program:
        if Tilted.stop_after is not None and len(Tilted.fits) >= Tilted.stop_after:
            raise KeyboardInterrupt
        Tilted.fits.append({"power": self.config.power, "shape": self.config.shape})
        counts = yield Fit(counted, data)
        time.sleep(Tilted.seconds)
        if self.config.power < -0.99 and self.config.shape == 9:
            raise Diverged("tilted too far")
        self.scores = np.sign(self.config.power) * np.log1p(counts) * abs(self.config.power) ** 0.5

    def score(self, requests: Requests, items: Any = None) -> Any:
        return rows_of(self.scores, requests, items)

    def export(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def restore(self, state: Any) -> None:
        self.scores = state["scores"]


@system("stepwise", family="classical", title="Learns in steps", paper="none")
class Stepwise(nn.Module):
    """Trained by gradients to no end: how good it is depends on its setting alone, and every epoch is the same."""

    epochs: ClassVar[list[float]] = []
    seconds: ClassVar[float] = 0.0
    most: ClassVar[int] = 6

    @dataclass(frozen=True)
    class Config:
        power: float = setting(1.0, "Exponent of the counts.", low=-1.0, high=1.0, search=(-1.0, 1.0))

    def __init__(self, config: Any, schema: Any) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("scores", torch.zeros(schema.n_items))

    def program(self, data: Dataset) -> Program:
        self.scores.copy_(torch.from_numpy(np.log1p(counted(data)) * np.float32(self.config.power)))
        yield Train(
            RowFeed(4, 4, lambda rows, rng: Numbers(rows.astype(np.float32))),
            lambda batch: batch.values,
            lambda values, batch: (values - self.weight).square(),
            until=Plateau("ndcg@10", patience=99, every=1, most=self.most),
            every_epoch=self.note,
        )

    def note(self, epoch: int) -> None:
        time.sleep(Stepwise.seconds)
        Stepwise.epochs.append(self.config.power)

    def score(self, requests: Requests, items: Any = None) -> Any:
        return rows_of(self.scores.numpy(), requests, items)


@dataclass(frozen=True)
class Numbers:
    values: Any

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: slice) -> Numbers:
        return Numbers(self.values[rows])


@system("successor", family="sequential", title="What followed before", paper="none", needs={"history"})
class Successor:
    """Scores an item by how often it followed the last one of the history."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, config: Any, schema: Any) -> None:
        self.config, self.schema = config, schema
        self.follows = np.zeros((schema.n_items,) * 2, dtype=np.float32)

    def program(self, data: Dataset) -> Program:
        self.follows = yield Fit(followers, data)

    def score(self, requests: Requests, items: Any = None) -> Any:
        histories = requests.items()
        last = np.maximum(histories.offsets[1:] - 1, 0)
        scores = np.where(
            (histories.lengths > 0)[:, None],
            self.follows[histories.values[np.minimum(last, len(histories.values) - 1)]],
            0,
        ).astype(np.float32)
        return scores if items is None else np.take_along_axis(scores, np.maximum(items, 0), 1)

    def export(self) -> dict[str, Any]:
        return {"follows": self.follows}

    def restore(self, state: Any) -> None:
        self.follows = state["follows"]


def followers(data: Dataset) -> Any:
    found = np.zeros((data.n_items,) * 2, dtype=np.float32)
    users, items = (data.events[name].to_numpy() for name in ("user", "item"))
    same = users[1:] == users[:-1]
    np.add.at(found, (items[:-1][same], items[1:][same]), 1.0)
    return found


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    for cls in (Tilted, Stepwise):
        monkeypatch.setattr(cls, "seconds", 0.0)
    monkeypatch.setattr(Tilted, "stop_after", None)
    monkeypatch.setattr(Stepwise, "most", 6)
    Tilted.fits.clear()
    Stepwise.epochs.clear()


@pytest.fixture
def fakes() -> dict[str, Any]:
    return {"tilted": Tilted, "stepwise": Stepwise, "successor": Successor}


@pytest.fixture(scope="session")
def catalogue() -> Dataset:
    return synthetic(120, n_items=80, seed=2)


@pytest.fixture(scope="session")
def parts(catalogue: Dataset) -> Split:
    return split(catalogue, "leave-one-out")


@pytest.fixture(scope="session")
def chain() -> Dataset:
    """Everybody walks the same ring of items from a place of their own: the last item alone says the next one."""
    n_items, n_users, steps = 60, 150, 12
    starts = np.random.default_rng(0).integers(n_items, size=n_users)
    return build(
        "chain",
        pl.DataFrame(
            {
                "user": np.repeat(np.arange(n_users), steps),
                "item": np.concatenate([(start + np.arange(steps)) % n_items for start in starts]),
                "time": np.tile(np.arange(steps), n_users),
            }
        ),
        time_unit="step",
    )
