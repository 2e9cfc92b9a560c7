"""People who answer questions, against a plain simulator of one session at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data import split
from tastemaker.data.build import build
from tastemaker.simulate import AttributeUsers
from tastemaker.types import Actions, Attributes, Columns, Dataset, NotFound, Slates, UsageError, request_seeds

TAGS = ("blue", "green", "red", "round", "small")


def tagged(n_users: int = 30, n_items: int = 40, chosen: int = 8, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.choice(n_items, chosen, replace=False) for _ in range(n_users)])
    lists = [sorted(rng.choice(TAGS, rng.integers(0, 4), replace=False).tolist()) for _ in range(n_items)]
    towns = rng.choice(["north", "south", None], n_items).tolist()
    table = pl.DataFrame(
        {"item": np.arange(n_items), "tags": lists, "town": towns}, schema_overrides={"tags": pl.List(pl.String)}
    )
    events = pl.DataFrame({"user": np.repeat(np.arange(n_users), chosen), "item": items})
    return build("tagged", events, pl.DataFrame({"user": np.arange(n_users)}), table)


def people(**more: Any) -> AttributeUsers:
    return AttributeUsers.of(split(tagged(), "ratio:0.7,0,0.3", seed=1), columns=("tags", "town"), **more)


def asking(names: list[str], values: list[tuple[str, ...]], lists: Any = None) -> Actions:
    told = np.empty(len(names), dtype=object)
    told[:] = values
    slates = None if lists is None else Slates(np.array(lists), np.zeros(np.shape(lists)))
    return Actions(len(names), slates=slates, ask=Columns(attribute=np.array(names, dtype=object), values=told))


def test_attributes_are_those_of_the_table() -> None:
    data = tagged()
    attributes = Attributes.of(data.items, ("tags", "town"))
    assert attributes.names[:2] == (("tags", "blue"), ("tags", "green")) and len(attributes) == 7
    assert attributes.single == {"town"}
    ids = data.items["item"].to_list()
    for number in range(data.n_items):
        row = data.items.row(number, named=True)
        expected = {("tags", tag) for tag in row["tags"]} | ({("town", row["town"])} if row["town"] else set())
        assert {attributes.names[a] for a in attributes.owned[number]} == expected, ids[number]
    again = Attributes.restore(attributes.export(), data.schema)
    assert again.names == attributes.names and again.owned == attributes.owned
    with pytest.raises(NotFound, match="no column 'tag'"):
        Attributes.of(data.items, ("tag",))


def test_answers_are_those_of_a_plain_simulator() -> None:
    world = people(horizon=3)
    requests, state = world.reset(request_seeds(50, 4))
    rng = np.random.default_rng(0)
    targets, rows = world.targets[state.pairs].tolist(), list(range(50))
    table = tagged().items
    assert requests.context is not None
    for n, (name, value) in enumerate(zip(requests.context["attribute"], requests.context["value"], strict=True)):
        said = table[name][targets[n]]
        assert value in said if name == "tags" else value == said, "what is told at the outset is true"
    for turn in range(3):
        names, values, lists = [], [], []
        for _ in rows:
            kind = rng.integers(4)
            names.append(("tags", "town", "tags", "")[kind])
            values.append(((TAGS[rng.integers(5)],), ("north",), TAGS, ())[kind])
            lists.append(rng.choice(40, 3, replace=False))
        feedback, requests, done, state = world.step(state, asking(names, values, lists))
        assert feedback.answers is not None and feedback.reward is not None
        for place, row in enumerate(rows):
            own = table["tags" if names[place] == "tags" else "town"][targets[row]]
            has = set(own.to_list()) if names[place] == "tags" else {own}
            true = [value for value in values[place] if value in has]
            reply, told = feedback.answers["reply"][place], feedback.answers["value"][place]
            assert reply == (-1 if not names[place] else int(bool(true)))
            if len(values[place]) > 1:
                assert list(told) == true, "of several values, those that the item has"
            hit = targets[row] in lists[place]
            assert feedback.reward[place] == hit and done[place] == (hit or turn == 2)
        rows = [row for row, over in zip(rows, done, strict=True) if not over]
        assert requests.n == len(rows) == len(state.pairs)
    assert not rows


def test_seeds_decide_everything_and_a_session_is_the_same_alone() -> None:
    world = people()
    (first, a), (second, b) = (world.reset(request_seeds(20, 3)) for _ in range(2))
    assert np.array_equal(a.pairs, b.pairs) and first.context == second.context
    alone, one = world.reset(request_seeds(20, 3)[7:8])
    assert one.pairs[0] == a.pairs[7] and alone.context == first.take(slice(7, 8)).context
    assert len(np.unique(world.reset(request_seeds(500, 3))[1].pairs)) > 0.5 * len(world)


def test_who_is_met_and_what_is_excluded() -> None:
    parts = split(tagged(), "ratio:0.7,0,0.3", seed=1)
    halves = [people(people=stretch) for stretch in ((0.0, 0.5), (0.5, 1.0))]
    users = [set(half.asked.users[half.askers].tolist()) for half in halves]
    assert not users[0] & users[1] and sum(map(len, halves)) == len(people())
    requests, state = people().reset(request_seeds(30, 0))
    assert requests.exclude is not None and requests.history is not None
    for row, target in enumerate(people().targets[state.pairs]):
        assert target not in requests.exclude[row]
        assert set(requests.exclude[row]) == set(requests.items()[row])
    assert people(unseen=False).reset(request_seeds(3, 0))[0].exclude is None
    assert people(unseen=False).identity != people().identity
    assert parts.sizes["test"] >= len(people()), "items without attributes are nobody's target"


def test_what_does_not_fit_is_refused() -> None:
    world = people()
    _, state = world.reset(request_seeds(2, 0))
    with pytest.raises(UsageError, match="2 users ask"):
        world.step(state, Actions(3))
    feedback, *_ = world.step(state, asking(["shape", "tags"], [("flat",), ("plaid",)]))
    assert feedback.answers is not None and feedback.answers["reply"].tolist() == [-1, -1], "what means nothing to them"
