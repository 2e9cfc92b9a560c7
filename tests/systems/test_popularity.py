"""Popularity against its formula, and Random against chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.contracts import find
from tastemaker.systems.classical.popularity import DAY, popularity
from tastemaker.systems.classical.random import draw_salt
from tastemaker.types import (
    BundleError,
    ConfigError,
    DataError,
    Dataset,
    Requests,
    Schema,
    generator,
    make_config,
    mix,
    request_seeds,
)

N_ITEMS = 6


def dataset(rows: list[tuple[int, int, int]], unit: Any = "step") -> Dataset:
    """Rows of (user, item, time)."""
    schema = {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    users = pl.DataFrame({"user": range(10)})
    return Dataset("toy", users, pl.DataFrame({"item": range(N_ITEMS)}), events, time_unit=unit)


def system(name: str, **config: Any) -> Any:
    info = find(name)
    return info.cls(make_config(info.config, config), Schema(10, N_ITEMS))


EVENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, N_ITEMS - 1), st.integers(0, 100)), max_size=40)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from(["users", "events"]), st.one_of(st.none(), st.floats(0.5, 50)))
def test_counts_equal_a_loop_over_events(rows: list[Any], by: Any, half_life: float | None) -> None:
    expected, end = np.zeros(N_ITEMS), max((t for _, _, t in rows), default=0)
    latest = {(user, item): time for user, item, time in sorted(rows, key=lambda row: row[2])}
    counted = rows if by == "events" else [(u, i, t) for (u, i), t in latest.items()]
    for _, item, time in counted:
        expected[item] += 1 if half_life is None else 0.5 ** ((end - time) / half_life)
    smallest = np.finfo(np.float32).tiny  # what decayed below it is nothing, in float32
    np.testing.assert_allclose(popularity(dataset(rows), by, half_life), expected, rtol=1e-5, atol=smallest)


def test_decay_finds_the_newly_popular() -> None:
    rows = [(user, 0, 0) for user in range(9)] + [(user, 1, 30 * DAY) for user in range(4)]
    data = dataset(rows, "us")
    assert popularity(data).argmax() == 0
    decayed = popularity(data, half_life=10)
    assert decayed.argmax() == 1
    np.testing.assert_allclose(decayed[:2], [9 / 8, 4], rtol=1e-6)  # half_life is in days


def test_impressions_are_not_popularity() -> None:
    data = dataset([(0, 0, 1), (1, 0, 2), (2, 1, 3)])
    shown = data.with_events(data.events.with_columns(kind=pl.Series(["impression", "impression", "view"])))
    np.testing.assert_array_equal(popularity(shown), [0, 1, 0, 0, 0, 0])


def test_very_old_choices_stay_finite() -> None:
    counts = popularity(dataset([(0, 0, 0), (0, 1, 2**50)], "us"), half_life=1e-6)
    np.testing.assert_array_equal(counts, [0, 1, 0, 0, 0, 0])


def test_decay_needs_times() -> None:
    data = dataset([(0, 0, 1)])
    timeless = Dataset("timeless", data.users, data.items, data.events.drop("time"))
    with pytest.raises(DataError, match="no times"):
        popularity(timeless, half_life=3)
    with pytest.raises(ConfigError):
        system("popularity", half_life=-1.0)


def test_popularity_scores_are_the_counts_for_everybody() -> None:
    ours = system("popularity")
    stage = next(ours.program(dataset([(0, 2, 1), (1, 2, 1), (1, 4, 1)])))
    ours.counts = stage.function(*stage.args, **stage.kwargs)
    scores = ours.score(Requests(3))
    np.testing.assert_array_equal(scores, np.tile([0, 0, 2, 0, 1, 0], (3, 1)))
    np.testing.assert_array_equal(ours.score(Requests(1), np.array([[4, 2, 0]])), [[1, 2, 0]])
    scores[0] = -1  # an answer belongs to who asked
    assert ours.score(Requests(1)).min() == 0


@pytest.mark.parametrize("counts", [np.zeros(5, dtype=np.float32), np.full(N_ITEMS, np.nan, dtype=np.float32), None])
def test_popularity_of_a_stranger_is_checked(counts: Any) -> None:
    with pytest.raises(BundleError):
        system("popularity").restore({} if counts is None else {"counts": counts})


# -- Random


def test_random_orders_are_uniform() -> None:
    scores = system("random").score(Requests(6000, seeds=request_seeds(6000, 3)))
    first = np.bincount(scores.argmax(axis=1), minlength=N_ITEMS)
    assert np.abs(first - 1000).max() < 5 * (1000 * 5 / 6) ** 0.5, "each item is first equally often"
    assert abs(np.corrcoef(scores[:, 0], scores[:, 1])[0, 1]) < 0.06
    assert scores.min() >= -1 and scores.max() < 0
    assert abs(scores.mean() + 0.5) < 0.01


def test_random_answers_depend_on_seed_and_training_alone() -> None:
    ours = system("random")
    requests = Requests(20, seeds=request_seeds(20, 0))
    whole = ours.score(requests)
    order = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(ours.score(requests.take(order)), whole[order])
    np.testing.assert_array_equal(ours.score(requests.take(slice(4, 5))), whole[4:5])
    items = np.array([[3, -1, 0]] * 20)
    np.testing.assert_array_equal(ours.score(requests, items)[:, [0, 2]], whole[:, [3, 0]])
    assert len(np.unique(whole)) == whole.size
    ours.salt = draw_salt(generator(1, "salt"))
    assert not np.isin(ours.score(requests), whole).any()


def test_random_without_seeds_goes_by_user_and_time() -> None:
    ours = system("random")
    a, b = (ours.score(Requests(4, users=[1, 1, 2, 1], now=now)) for now in ([5, 5, 5, 6], [5, 5, 5, 7]))
    np.testing.assert_array_equal(a[0], a[1])
    np.testing.assert_array_equal(a[:3], b[:3])
    assert len(np.unique(np.concatenate([a[[0, 2, 3]], b[3:]])[:, 0])) == 4
    assert ours.score(Requests(2)).shape == (2, N_ITEMS)


def test_random_lists_of_a_large_catalogue_have_no_ties_at_the_top() -> None:
    large = find("random").cls(None, Schema(1, 2_000_000))
    best = np.sort(large.score(Requests(1, seeds=mix(np.array([5]))))[0])[-1000:]
    assert len(np.unique(best)) == 1000


def test_random_state_comes_back_and_is_checked() -> None:
    ours, other = system("random"), system("random")
    ours.salt = draw_salt(generator(3, "salt"))
    other.restore(ours.export())
    requests = Requests(2, seeds=request_seeds(2, 0))
    np.testing.assert_array_equal(ours.score(requests), other.score(requests))
    for damage in ({"salt": np.zeros(2, dtype=np.uint64)}, {"salt": np.zeros(1)}, {"n_items": np.array([7])}):
        with pytest.raises(BundleError):
            other.restore({**ours.export(), **damage})
