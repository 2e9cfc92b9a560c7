"""What happens after a time changes nothing that was learnt or answered before it, to the bit.

A log is cut at a time t. Then everything after t is changed: events dropped, made up, shuffled, altered, users and
items added whose ids sort before all others. Training data, matrices, fitted states and answers must not move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tastemaker.contracts import find, names
from tastemaker.data import build, holdout, load_split, save_split, split, synthetic
from tastemaker.feeds import interaction_matrix
from tastemaker.testing import subject
from tastemaker.train import Bundle, fit
from tastemaker.train.bundle import export_state
from tastemaker.types import IMPRESSION, CapabilityError, Dataset, Requests, Slates, Split, request_seeds

K = 10


@dataclass(frozen=True)
class World:
    """Tables with outside ids, as a log in the outside world is."""

    events: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    edges: dict[str, pl.DataFrame]

    def dataset(self) -> Dataset:
        kinds = base().kinds
        return build("log", self.events, self.users, self.items, edges=self.edges, kinds=kinds, time_unit="us")


@cache
def base() -> Dataset:
    return synthetic(150, n_items=120, seed=5)


@cache
def world() -> World:
    data = base()
    ids = [
        data.user_ids.ids(data.events["user"].to_numpy()).alias("user"),
        data.item_ids.ids(data.events["item"].fill_null(-1).to_numpy()).alias("item"),
    ]
    return World(data.events.drop("user", "item").hstack(ids), data.users, data.items, dict(data.edges))


@cache
def cut() -> int:
    return int(np.quantile(base().events["time"].to_numpy(), 0.7))


Change = Callable[[World, int, np.random.Generator], World]


def parted(w: World, t: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    return w.events.filter(pl.col("time") < t), w.events.filter(pl.col("time") >= t)


def drop_all(w: World, t: int, rng: np.random.Generator) -> World:
    """Nothing comes later, and nobody: users and items that arrive after t are not in the tables either."""
    late = pl.concat([table.filter(pl.col("available") >= t).to_series(0).rename("id") for table in (w.users, w.items)])
    edges = {
        name: frame.filter(~pl.col("head").is_in(late.implode()) & ~pl.col("tail").is_in(late.implode()))
        for name, frame in w.edges.items()
    }
    users, items = (table.filter(pl.col("available") < t) for table in (w.users, w.items))
    return World(parted(w, t)[0], users, items, edges)


def drop_some(w: World, t: int, rng: np.random.Generator) -> World:
    before, after = parted(w, t)
    return replace(w, events=pl.concat([before, after.sample(fraction=0.5, seed=1)]))


def shuffle(w: World, t: int, rng: np.random.Generator) -> World:
    """Who, what and when after t change places."""
    before, after = parted(w, t)
    mixed = [
        after[c].shuffle(seed=n) if c in ("user", "item", "time") else after[c] for n, c in enumerate(after.columns)
    ]
    return replace(w, events=pl.concat([before, pl.DataFrame(mixed)]))


def alter(w: World, t: int, rng: np.random.Generator) -> World:
    """Values, kinds, queries and times after t are others."""
    before, after = parted(w, t)
    after = after.with_columns(
        value=pl.Series(rng.uniform(-9, 9, after.height), dtype=after["value"].dtype),
        kind=pl.lit("purchase"),
        query=pl.lit("what nobody asked"),
        time=pl.col("time") + pl.Series(rng.integers(0, 10**13, after.height)),
    )
    return replace(w, events=pl.concat([before, after]))


def arrive(w: World, t: int, rng: np.random.Generator) -> World:
    """New users and items, with ids before all others, events, attributes and edges."""
    n = 40
    new_users = pl.DataFrame({"user": [f"a{i:04}" for i in range(n)], "available": t + rng.integers(0, 10**12, n)})
    new_items = pl.DataFrame({"item": [f"a{i:04}" for i in range(n)], "available": t + rng.integers(0, 10**12, n)})
    fresh_user, fresh_item = rng.integers(0, n, 600), rng.integers(0, n, 600)
    events = pl.DataFrame(
        {
            "user": pl.Series([f"a{i:04}" for i in fresh_user]).set(
                pl.Series(rng.random(600) < 0.3), w.users["user"][0]
            ),
            "item": pl.Series([f"a{i:04}" for i in fresh_item]).set(
                pl.Series(rng.random(600) < 0.3), w.items["item"][0]
            ),
            "time": t + rng.integers(0, 10**12, 600),
            "kind": ["watch", "buy", IMPRESSION] * 200,
            "value": rng.uniform(0, 5, 600),
            "session": np.arange(600) + 10**9,
        }
    )
    more = pl.DataFrame({"head": new_items["item"], "relation": "sequel_of", "tail": w.items["item"].head(n)})
    back = pl.DataFrame({"head": w.items["item"].head(n), "relation": "has_sequel", "tail": new_items["item"]})
    follows = pl.DataFrame({"head": w.users["user"].head(n), "relation": "follows", "tail": new_users["user"]})
    return World(
        pl.concat([w.events, events.cast({c: w.events.schema[c] for c in events.columns})], how="diagonal"),
        pl.concat([w.users, new_users], how="diagonal"),
        pl.concat(
            [w.items, new_items.with_columns(genres=pl.lit(["unheard of"]), price=pl.lit(1e6, dtype=pl.Float32))],
            how="diagonal",
        ),
        {"kg": pl.concat([w.edges["kg"], more, back]), "social": pl.concat([w.edges["social"], follows])},
    )


def everything(w: World, t: int, rng: np.random.Generator) -> World:
    for change in (drop_some, shuffle, arrive, alter):
        w = change(w, t, rng)
    return w


CHANGES: dict[str, Change] = {f.__name__: f for f in (drop_all, drop_some, shuffle, alter, arrive, everything)}


@cache
def changed(name: str) -> Dataset:
    return CHANGES[name](world(), cut(), np.random.default_rng(3)).dataset()


@cache
def parts_of(name: str | None) -> Split:
    return split(world().dataset() if name is None else changed(name), f"time:{cut()}")


def assert_blind(before: Dataset, after: Dataset) -> None:
    """Both hold the same, to the bit."""
    assert before.user_ids == after.user_ids and before.item_ids == after.item_ids, "the numbering moved"
    assert before.schema == after.schema, "the schema moved"
    assert before.fingerprint == after.fingerprint, "the contents moved"
    for weight in ("binary", "count", "value"):
        one, two = (interaction_matrix(data, weight=weight) for data in (before, after))  # type: ignore[arg-type]
        assert np.array_equal(one.indptr, two.indptr) and np.array_equal(one.indices, two.indices)
        assert one.data.tobytes() == two.data.tobytes(), "the training matrix moved"


@pytest.mark.parametrize("name", CHANGES)
def test_training_is_blind_to_what_comes_later(name: str, tmp_path: Path) -> None:
    before, after = parts_of(None), parts_of(name) if name != "drop_all" else None
    if after is None:  # with nothing left to hold out there is no split, but what was known is the same
        assert_blind(before.train, changed(name).asof(cut()))
        return
    assert not np.array_equal(before.events("test")["item"].to_numpy(), after.events("test")["item"].to_numpy())
    assert_blind(before.train, after.train)
    save_split(after, tmp_path)
    assert_blind(before.train, load_split(tmp_path, data=after.data).train)
    assert_blind(holdout(before, "time:0.8").train, holdout(after, "time:0.8").train)


@pytest.mark.parametrize("name", names())
def test_systems_are_blind_to_what_comes_later(name: str, tmp_path: Path) -> None:
    before, after = parts_of(None), parts_of("everything")
    if missing := find(name).missing_from(before.train):
        pytest.skip(f"{name} learns from {', '.join(sorted(missing))}, which the log lacks")
    try:
        small = subject(name, data=base()).config  # and a step of training is as blind as a hundred
        small |= {key: value for key, value in {"epochs": 2, "every": 2}.items() if key in small}
        bundles = [
            fit(name, parts.train, small, seed=1, cache=tmp_path / str(n)) for n, parts in enumerate((before, after))
        ]
    except CapabilityError as error:
        pytest.skip(str(error))
    one, two = (export_state(bundle.system) for bundle in bundles)
    assert set(one) == set(two)
    for key in one:
        assert np.asarray(one[key]).tobytes() == np.asarray(two[key]).tobytes(), f"{key} of {name} moved"
    left, right = (answer(bundle, parts) for bundle, parts in zip(bundles, (before, after), strict=True))
    assert np.array_equal(left.items, right.items) and left.scores.tobytes() == right.scores.tobytes()
    asked = before.train.user_ids.series.head(20).to_list()
    assert bundles[0].recommend(asked, k=K).equals(bundles[1].recommend(asked, k=K))


def answer(bundle: Bundle, parts: Split) -> Slates:
    """Lists at the time of the cut for everybody known by then."""
    known = parts.train
    history = known.histories(("item", "time", "value"))
    now = np.full(known.n_users, cut())
    requests = Requests.of_users(np.arange(known.n_users), history=history, now=now, seeds=request_seeds(len(now), 2))
    slates: Slates = bundle.retriever.retrieve(requests, K)
    return slates


LEAKS: dict[str, Callable[[Dataset], Dataset]] = {
    "the whole vocabulary": lambda data: data.with_events(data.events.filter(pl.col("time") < cut())),
    "leave-one-out": lambda data: split(data, "leave-one-out").train,
    "a random split": lambda data: split(data, "ratio:0.8,0.1,0.1").train,
    "one event too many": lambda data: data.asof(
        int(data.events["time"].sort().filter(data.events["time"].sort() >= cut())[0]) + 1
    ),
    "edges of later items": lambda data: replace(data.asof(cut()), edges=data.edges),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_caught(leak: str) -> None:
    before, after = (LEAKS[leak](parts_of(name).data) for name in (None, "everything"))
    with pytest.raises(AssertionError):
        assert_blind(before, after)


def test_a_cut_by_share_is_blind_below_its_own_time() -> None:
    """A share of events depends on how many come later; given its time, training does not."""
    parts = split(world().dataset(), "time:0.6,0.2,0.2")
    again = split(changed("everything"), "time", at=[parts.cut, cut()])
    assert parts.cut is not None and parts.cut < cut() and parts.cut == again.cut
    assert_blind(parts.train, again.train)
