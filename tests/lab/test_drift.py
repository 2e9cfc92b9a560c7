"""Drift is told from chance: a stationary world is seldom accused, however people hang together; a changed one is."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2

from tastemaker.data.build import build
from tastemaker.lab.drift import DAY_US, FEWEST, changes, distance, drift_of, learnt_until, shift, stability
from tastemaker.train import Bundle, fit
from tastemaker.types import Dataset, UsageError

Table = pl.DataFrame
counts = arrays(np.int64, 6, elements=st.integers(0, 50)).filter(lambda a: a.sum() > 0)


@given(counts, counts)
def test_the_distance_is_jensen_and_shannons(left: Any, right: Any) -> None:
    assert distance(left, right) == pytest.approx(float(jensenshannon(left, right, base=2)), abs=1e-6)
    assert distance(left, right) == pytest.approx(distance(right, 7 * left), abs=1e-9)
    assert 0 <= distance(left, right) <= 1 + 1e-12


def table(rows: list[tuple[int, int]]) -> Table:
    return Table(rows, schema={"user": pl.Int32, "value": pl.Int64}, orient="row")


def people(seed: int, returning: float, *, drift: float = 0.0, loyal: bool = False) -> tuple[Table, Table]:
    """Choices of 120 people before and since, of 40 values with tastes; since then some values' fame changed places.

    returning: share seen on both sides, the others on one; loyal: everybody has one value and keeps to it.
    """
    rng = np.random.default_rng(seed)
    n, users = 40, 120
    fame = rng.dirichlet(np.full(n, 0.5))
    later = fame.copy()
    moved = rng.permutation(n)[: int(drift * n)]
    later[moved] = later[rng.permutation(moved)]
    before: list[tuple[int, int]] = []
    since: list[tuple[int, int]] = []
    for user in range(users):
        own = np.arange(n) % 5 == rng.integers(5)
        sizes = 1 + rng.poisson(8), 1 + rng.poisson(4)
        sides = (True, True) if rng.random() < returning else ((True, False), (False, True))[rng.integers(2)]
        kept = int(rng.choice(n, p=fame))
        for rows, size, there, popularity in zip((before, since), sizes, sides, (fame, later), strict=True):
            if there:
                chance = popularity * np.where(own, 8.0, 1.0)
                values = [kept] * size if loyal else rng.choice(n, size, p=chance / chance.sum())
                rows += [(user, int(value)) for value in values]
    return table(before), table(since)


@pytest.mark.parametrize("returning", [1.0, 0.5, 0.0])
def test_a_world_that_stays_is_seldom_accused_and_one_that_changes_always(returning: float) -> None:
    still = np.array([shift("popularity", *people(s, returning), draws=39, seed=s).p for s in range(24)])
    assert (still <= 0.05).mean() <= 0.15 and 0.25 < np.median(still) < 0.85
    moved = [shift("popularity", *people(s, returning, drift=0.6), draws=39, seed=s) for s in range(4)]
    assert all(one.p <= 0.05 and one.distance > one.chance for one in moved)


def test_people_are_shuffled_and_not_choices() -> None:
    """Loyal newcomers: by choices alone the samples differ wildly, by people not at all."""
    accused, naive = 0, 0
    for seed in range(20):
        before, since = people(seed, 0.0, loyal=True)
        found = shift("popularity", before, since, draws=59, seed=seed)
        accused += found.p <= 0.05
        values = np.concatenate([before["value"].to_numpy(), since["value"].to_numpy()])
        rng = np.random.default_rng(seed)
        shuffles = []
        for _ in range(59):
            rng.shuffle(values)
            sides = values[: before.height], values[before.height :]
            shuffles.append(distance(*(np.bincount(side, minlength=40) for side in sides)))
        naive += (1 + sum(one >= found.distance for one in shuffles)) / 60 <= 0.05
    assert accused <= 3 and naive >= 12


def test_the_answer_depends_on_the_seed_alone_and_large_tables_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    before, since = people(3, 0.5)
    first = shift("popularity", before, since, draws=19, seed=1)
    assert first == shift("popularity", before, since, draws=19, seed=1)
    assert (first.before, first.since) == (before.height, since.height)
    monkeypatch.setattr("tastemaker.lab.drift.MOST", 200)
    part = shift("popularity", before, since, draws=19, seed=1)
    assert 200 <= part.before + part.since < 260


def test_the_stability_index_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=4000), rng.normal(0.2, 1.0, 3000)
    found = stability(pl.Series("price", old), pl.Series("price", new))
    assert found is not None and found.drifted is False, "it is certain, and too small to matter"
    edges = np.quantile(old, np.arange(1, 10) / 10)
    p, q = (np.bincount(np.searchsorted(edges, x), minlength=10) / len(x) for x in (old, new))
    assert found.index == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=0.02)
    assert found.p == pytest.approx(chi2.sf(found.index / (1 / 4000 + 1 / 3000), 9), abs=1e-12)
    far = stability(pl.Series("price", old), pl.Series("price", new + 1))
    assert far is not None and far.drifted
    kept = [stability(pl.Series("x", rng.normal(size=900)), pl.Series("x", rng.normal(size=200))) for _ in range(60)]
    assert np.mean([one.p < 0.05 for one in kept if one is not None]) <= 0.15
    assert np.mean([one.index for one in kept if one is not None]) == pytest.approx(kept[0].chance, rel=0.3)  # type: ignore[union-attr]


def test_missing_numbers_count_and_constants_do_not() -> None:
    old = pl.Series("stars", [1.0, 2.0, 3.0, 4.0, None] * 100)
    gone = stability(old, pl.Series("stars", [1.0, 2.0, None, None, None] * 40))
    assert gone is not None and gone.drifted and gone.missing == (0.2, 0.6)
    assert stability(pl.Series("x", [2.0] * 100), pl.Series("x", [2.0] * 100)) is None
    assert stability(old.head(20), old) is None


@cache
def shop(*, moved: bool = False, days: int = 60, later: int = 20, seed: int = 0) -> Dataset:
    """Purchases of 60 people, about one a day each; in the last days perhaps others, at night and dearer."""
    rng = np.random.default_rng(seed)
    rows = []
    fame = np.random.default_rng(1).dirichlet(np.full(30, 2.0))
    for user in range(60):
        for day in range(days + later):
            night = moved and day >= days
            item = int(rng.choice(30, p=fame[::-1] if night else fame))
            hour = int(rng.integers(0, 6) if night else rng.integers(9, 22))
            price = float(rng.normal(20 if night else 10, 3))
            rows.append((f"u{user}", f"i{item}", day * DAY_US + hour * 3_600_000_000, "buy", price))
    events = pl.DataFrame(rows, schema=["user", "item", "time", "kind", "price"], orient="row")
    kind = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("view")).otherwise(pl.lit("buy"))
    if moved:
        kind = pl.when(pl.col("time") >= days * DAY_US).then(pl.lit("view")).otherwise(kind)
    return build("shop", events.with_columns(kind=kind), time_unit="us")


@pytest.fixture(scope="module")
def served() -> Bundle:
    return fit("popularity", shop().asof(60 * DAY_US))


def test_a_changed_world_is_described(served: Bundle) -> None:
    data = shop(moved=True)
    extra = pl.DataFrame({"user": ["new"], "item": ["fresh"], "time": [79 * DAY_US], "kind": ["buy"], "price": [1.0]})
    ids = data.events.with_columns(
        user=data.user_ids.ids(data.events["user"]), item=data.item_ids.ids(data.events["item"])
    )
    data = build("shop", pl.concat([ids, extra]), time_unit="us")
    found = drift_of(served, data, now=90 * DAY_US, draws=199)
    assert found.events == 60 * 20 + 1 and found.new_users == found.new_items == 1
    assert found.known_items == pytest.approx(1200 / 1201)
    assert found.days == pytest.approx(30, abs=1)
    assert set(found.drifted) == {"popularity", "hour", "kind", "price"}, "weekdays stayed as they were"
    said = found.statement()
    assert said.startswith("popularity is 30 days old; 1,201 choices since, 0.1% of them of items it does not know")
    assert "popularity has drifted" in said
    assert json.loads(json.dumps(found.to_json()))["drifted"] == found.drifted
    console = Console(width=120, file=io.StringIO())
    console.print(found)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Jensen-Shannon" in shown and "price" in shown and shown.count("drifted") >= 5


def test_a_world_that_stays_is_not_accused(served: Bundle) -> None:
    found = drift_of(served, shop(), now=80 * DAY_US, draws=199)
    assert found.drifted == [] and found.known_users == found.known_items == 1.0
    assert {one.what for one in found.shifts} == {"popularity", "hour", "weekday", "kind"}
    assert "has not drifted beyond chance" in found.statement()


def test_what_cannot_be_tested_is_said(served: Bundle) -> None:
    short = drift_of(served, shop(later=2), now=62 * DAY_US, draws=19)
    assert set(short.skipped or {}) == {"hour", "weekday"} and short.events == 120
    few = drift_of(served, shop(later=0), now=60 * DAY_US)
    assert few.events == 0 and few.shifts == () and "has learnt all there is" in few.statement()
    nothing = changes(shop().events.head(FEWEST - 1), shop().events, shop())
    assert nothing[:2] == ((), ()) and "too few" in nothing[2]["drift"]


def test_until_when_a_bundle_has_learnt(served: Bundle) -> None:
    until = served.about["data"]["until"]
    assert until == shop().asof(60 * DAY_US).events["time"].max() == learnt_until(served)
    silent = replace(served, about={"data": {"name": "shop"}})
    assert learnt_until(silent) == until, "its histories tell"
    with pytest.raises(UsageError, match="does not say until when"):
        learnt_until(replace(silent, histories=None))
    timeless = build("timeless", pl.DataFrame({"user": [1, 2], "item": [1, 2]}))
    with pytest.raises(UsageError, match="no times"):
        drift_of(served, timeless)
