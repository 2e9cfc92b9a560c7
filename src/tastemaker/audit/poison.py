"""Data poisoning: users who do not exist, put behind the real ones so that a few items are recommended more.

An attack writes profiles; here they become a dataset, with an account of what they cost. Fake users are numbered
behind the real ones and the dataset's notes say from where on (`fake_users`), so that real users keep their numbers,
cases made before the attack stay valid, and evaluation leaves fake users out.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.feeds import interaction_matrix
from tastemaker.types import (
    AVAILABLE,
    EVENT_COLUMNS,
    DataError,
    Dataset,
    Jagged,
    UsageError,
    generator,
    replace_file,
    setting,
)

Ints = NDArray[np.int64]
NOTE = "fake users from number"
FAKE = "fake"


@dataclass(frozen=True)
class Budget:
    """What an attacker may spend, and on which items."""

    share: float = setting(0.01, "Fake users for each real one.", low=0.0, high=1.0)
    targets: int = setting(5, "Items that are to be recommended more.", low=1)
    tail: float = setting(0.1, "They are drawn among this share of items, the least popular.", low=0.0, high=1.0)
    size: int | None = setting(None, "Items of a fake profile; none: the mean of real ones.", low=1)


@dataclass(frozen=True, eq=False)
class Seen:
    """What there is to know of a dataset.

    Shapes:
        matrix: who chose what [U, I]
        popularity: [I] users who chose each item
        ratings: values of the choices, or None where events carry none
    """

    matrix: sp.csr_array
    popularity: Ints
    ratings: Ratings | None

    @classmethod
    def of(cls, data: Dataset) -> Seen:
        matrix = interaction_matrix(data)
        counts = np.bincount(matrix.indices, minlength=data.n_items).astype(np.int64)
        return cls(matrix, counts, Ratings.of(data))

    @property
    def n_users(self) -> int:
        """Users with a choice."""
        return int(np.count_nonzero(np.diff(self.matrix.indptr)))

    @property
    def mean_size(self) -> int:
        """Items of the average profile, rounded."""
        return round(int(self.matrix.nnz) / max(1, self.n_users))


@dataclass(frozen=True, eq=False)
class Ratings:
    """How the dataset's values are spread: lowest, highest, mean, deviation; whether whole; means of items [I]."""

    low: float
    high: float
    mean: float
    deviation: float
    whole: bool
    of_items: NDArray[np.float64]

    @classmethod
    def of(cls, data: Dataset) -> Ratings | None:
        """None where events have no values, or all the same one."""
        chosen = data.interactions()
        if "value" not in chosen.columns:
            return None
        rated = chosen.select("item", "value").filter(pl.col("value").is_finite())
        values = rated["value"].to_numpy().astype(np.float64)
        if not len(values) or values.min() == values.max():
            return None
        items = rated["item"].to_numpy()
        counts = np.bincount(items, minlength=data.n_items)
        sums = np.bincount(items, values, minlength=data.n_items)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), values.mean())
        whole = bool((values == np.round(values)).all())
        return cls(values.min(), values.max(), values.mean(), values.std(), whole, means)

    def fitting(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values that the dataset could hold."""
        inside = np.clip(np.round(values) if self.whole else values, self.low, self.high)
        return inside.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Profiles:
    """What F fake users choose.

    Shapes:
        items: Jagged of F rows of distinct item numbers
        values: one a choice [N], or None where the data has none
    """

    items: Jagged[NDArray[np.int32]]
    values: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.items)


class Attack(Protocol):
    """Writes profiles; a frozen dataclass of its settings. `knows`: what an attacker must know for it, in words."""

    name: ClassVar[str]
    title: ClassVar[str]
    knows: ClassVar[str]

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        """n profiles of `size` items, the targets among them."""
        ...


@dataclass(frozen=True)
class Cost:
    """What an attack took: fake users and their events, as shares of the real ones too; knowledge; seconds."""

    fake_users: int
    events: int
    share_of_users: float
    share_of_events: float
    knows: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A dataset after an attack: real users first, then the fake ones."""

    data: Dataset
    attack: str
    targets: Ints
    profiles: Profiles
    cost: Cost

    def save(self, path: str | Path) -> Path:
        """Write targets and fake profiles in outside ids as JSON, as `given` takes them."""
        ids, n_real = self.data.item_ids, self.data.n_users - len(self.profiles)
        names = self.data.user_ids.series[n_real:].to_list()
        rows = [ids.ids(row).to_list() for row in self.profiles.items]
        fakes = {str(name): row for name, row in zip(names, rows, strict=True)}
        stored = {"target_items": ids.ids(self.targets).to_list(), "fake_users": fakes}
        with replace_file(path) as fresh:
            fresh.write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)


def poison(
    data: Dataset,
    attack: Attack,
    budget: Budget | None = None,
    *,
    targets: Sequence[int] | Ints | None = None,
    seed: int = 0,
) -> Poisoned:
    """Attack a dataset: the same users and items, and fake users behind them.

    Args:
        targets: item numbers; None: drawn among unpopular items, the same ones for every attack of a seed.

    Raises:
        UsageError: a profile cannot hold the targets, or the catalogue cannot fill it.
    """
    budget = budget or Budget()
    began = time.perf_counter()
    seen = Seen.of(data)
    aimed = unpopular(seen, budget, seed) if targets is None else np.unique(np.asarray(targets, dtype=np.int64))
    if not len(aimed) or aimed[0] < 0 or aimed[-1] >= data.n_items:
        raise UsageError(f"targets are item numbers from 0 to {data.n_items - 1}, got {aimed.tolist()}")
    n, size = max(1, round(budget.share * seen.n_users)), budget.size
    size = min(max(seen.mean_size, len(aimed) + 1), data.n_items) if size is None else size
    if not len(aimed) <= size <= data.n_items:
        raise UsageError(
            f"a profile of {size} items holds {len(aimed)} targets and is filled from {data.n_items} items",
            hint="choose another size, or fewer targets",
        )
    made = attack.profiles(seen, aimed, n, size, generator(seed, "attack", attack.name))
    _check(made, data.n_items)
    events = len(made.items.values)
    cost = Cost(
        fake_users=len(made),
        events=events,
        share_of_users=len(made) / max(1, seen.n_users),
        share_of_events=events / max(1, seen.matrix.nnz),
        knows=attack.knows,
        seconds=time.perf_counter() - began,
    )
    return Poisoned(injected(data, made, attack.name, seed), attack.name, aimed, made, cost)


def unpopular(seen: Seen, budget: Budget, seed: int = 0) -> Ints:
    """Targets, rising: drawn among the least popular items that somebody chose."""
    rng = generator(seed, "targets")
    chosen = np.flatnonzero(seen.popularity)
    if len(chosen) < budget.targets:
        raise UsageError(f"{budget.targets} targets need as many items with a choice, there are {len(chosen)}")
    order = chosen[np.lexsort((rng.random(len(chosen)), seen.popularity[chosen]))]  # ties in random order
    tail = order[: max(budget.targets, math.ceil(budget.tail * len(order)))]
    return np.sort(rng.choice(tail, budget.targets, replace=False)).astype(np.int64)


def fake_users(data: Dataset) -> NDArray[np.bool_]:
    """Which users of a dataset were put there by an attack [U]."""
    return np.arange(data.n_users) >= int(data.notes.get(NOTE, data.n_users))


def injected(data: Dataset, profiles: Profiles, name: str, seed: int = 0) -> Dataset:
    """The dataset with the profiles as users behind its own.

    Their attributes are those of real users drawn at random, and so are their times, so that nothing but the choices
    tells them apart; what else an event may carry is missing.
    """
    rng = generator(seed, "injected", name)
    n, rows = len(profiles), profiles.items.rows
    users = data.users[rng.integers(0, data.n_users, n)].with_columns(_fresh_ids(data.users["user"], n))
    if AVAILABLE in users.columns:  # behind the real ones in time too, or unknown as the last of them is
        last = data.users[AVAILABLE]
        users = users.with_columns(pl.lit(last[-1], dtype=last.dtype).alias(AVAILABLE))
    order = np.lexsort((rng.random(len(rows)), rows))  # a profile in random order
    chosen = data.interactions()
    columns: dict[str, Any] = {"user": data.n_users + rows, "item": profiles.items.values[order]}
    if data.has_time:
        times = rng.choice(chosen["time"].to_numpy(), len(rows))
        columns["time"] = times[np.lexsort((times, rows))]
    if "kind" in chosen.columns:
        columns["kind"] = np.repeat(chosen["kind"].mode().sort()[0], len(rows))
    if "value" in chosen.columns and profiles.values is not None:
        columns["value"] = profiles.values[order]
    if "session" in chosen.columns:
        columns["session"] = int(chosen["session"].max() or 0) + 1 + rows  # type: ignore[arg-type]
    events = pl.DataFrame(columns).with_columns(pl.col(c).cast(EVENT_COLUMNS[c]) for c in columns)
    notes = {**data.notes, NOTE: data.notes.get(NOTE, str(data.n_users)), "attack": name}
    joined = pl.concat([data.events, events], how="diagonal")
    return replace(data, users=pl.concat([data.users, users]), events=joined, notes=notes)


def given(path: str | Path, data: Dataset) -> Poisoned:
    """An attack written down earlier, or elsewhere: {"target_items": [ids], "fake_users": {id: [ids]}}.

    Raises:
        DataError: the file is not of this form, or names items that the dataset lacks.
    """
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        wanted, rows = list(stored["target_items"]), [list(row) for row in stored["fake_users"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} does not hold {{"target_items": [...], "fake_users": {{...}}}}: {error}') from error
    items: Jagged[NDArray[np.int32]] = Jagged.from_lists(
        [data.item_ids.numbers(row).tolist() for row in rows], np.int32
    )
    targets = data.item_ids.numbers(wanted).astype(np.int64)
    if not len(targets) or targets.min() < 0 or items.values.min(initial=0) < 0:
        raise DataError(f"{path} names items that {data.name} does not have, or no target")
    seen, profiles, name = Seen.of(data), Profiles(items), Path(path).stem
    _check(profiles, data.n_items)
    shares = len(rows) / max(1, seen.n_users), len(items.values) / max(1, seen.matrix.nnz)
    cost = Cost(len(rows), len(items.values), *shares, knows="not stated", seconds=0.0)
    return Poisoned(injected(data, profiles, name), name, np.unique(targets), profiles, cost)


def _check(profiles: Profiles, n_items: int) -> None:
    pairs = profiles.items.rows * n_items + profiles.items.values
    if len(np.unique(pairs)) < len(pairs):
        raise DataError("a fake profile holds an item twice")
    if profiles.values is not None and len(profiles.values) != len(pairs):
        raise DataError(f"{len(pairs)} fake choices need as many values, got {len(profiles.values)}")


def _fresh_ids(known: pl.Series, n: int) -> pl.Series:
    """n ids of the same type that are not among the known ones."""
    if known.dtype.is_integer():
        first = int(known.max() or 0) + 1  # type: ignore[arg-type]
        return pl.Series("user", np.arange(first, first + n)).cast(known.dtype)
    prefix = FAKE
    while known.str.starts_with(prefix).any():
        prefix += "-"
    return pl.Series("user", [f"{prefix}{number}" for number in range(n)])
