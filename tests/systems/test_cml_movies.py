"""CML movies: what is new is placed by its text, nothing later than asked is read, and the parts are right."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.data import synthetic
from tastemaker.data.build import build
from tastemaker.feeds import Past, PurchaseLog, Stretches
from tastemaker.feeds.purchases import ALWAYS
from tastemaker.systems.classical.cml_movies import covariance, into_ball, logistic
from tastemaker.testing import run_check, subject
from tastemaker.testing.blocks import N_BLOCKS, blocks
from tastemaker.types import Dataset, Requests


def without(data: Dataset, new: np.ndarray) -> tuple[Dataset, pl.DataFrame]:
    """The dataset before some items came out, and the table of those."""
    names = data.items["item"].to_numpy()
    events = data.events.with_columns(
        user=data.users["user"].gather(data.events["user"]), item=data.items["item"].gather(data.events["item"])
    )
    kept = ~pl.Series(np.isin(names, new))
    old = build("old", events.filter(~pl.col("item").is_in(new)), data.users, data.items.filter(kept), time_unit="us")
    return old, data.items.filter(~kept)


def test_an_item_nobody_has_seen_finds_its_customers_by_its_text() -> None:
    data = blocks()
    new = data.items["item"].to_numpy()[-12:]
    old, table = without(data, new)
    s = subject("cml-movies", data=old)
    larger = s.bundle.system.extend(items=table)
    history = old.histories(("item", "time"))
    requests = Requests(old.n_users, users=np.arange(old.n_users, dtype=np.int32), history=history)
    odds = (larger.queries(requests) @ larger.items(np.arange(old.n_items, old.n_items + 12)).T).numpy()
    own = (old.users["user"].to_numpy() % N_BLOCKS)[:, None] == (new % N_BLOCKS)[None]
    better = (odds[own][:, None] > odds[~own][None, :]).mean()
    assert better > 0.9, f"a new item of the own block wins {better:.0%} of the time"
    chances = larger.probabilities(requests, np.arange(4)).numpy()
    assert ((chances > 0) & (chances < 1)).all()


def test_the_past_is_that_before_the_time_and_no_more() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([0, 1, 7, 30])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = np.concatenate([np.sort(rng.integers(0, 1000, n)) for n in lengths])
    items, vectors = rng.integers(0, 9, len(times)), rng.standard_normal((9, 4)).astype(np.float32)
    past = Past(items, times, offsets, vectors, half_life=50.0, max_len=10)
    users, until = rng.integers(0, 4, 60), rng.integers(0, 1100, 60)
    profiles, habits = past.before(users, until)
    for user, cut, profile, habit in zip(users, until, profiles, habits, strict=True):
        rows = [r for r in range(offsets[user], offsets[user + 1]) if times[r] < cut]
        expected, recency = np.zeros(4), 0.0
        if rows:
            latest = rows[-10:]
            weights = 0.5 ** ((times[rows[-1]] - times[latest]) / 50.0)
            expected, recency = weights @ vectors[items[latest]] / weights.sum(), 0.5 ** ((cut - times[rows[-1]]) / 50)
        np.testing.assert_allclose(profile, expected, atol=1e-5)
        np.testing.assert_allclose(habit, [np.log1p(len(rows)), recency], atol=1e-5)
    later = Past(items, np.where(times >= 500, times + 10**6, times), offsets, vectors[::-1].copy(), 50.0, 10)
    assert not np.array_equal(later.before(users, until)[0], profiles)


def test_skipped_items_came_out_about_when_the_item_did_and_were_skipped() -> None:
    data = synthetic(60, n_items=150, seed=2)
    log = PurchaseLog.of(data, Past.of(data, np.zeros((data.n_items, 2), np.float32), 1.0, 10))
    window = np.quantile(np.abs(np.diff(np.sort(log.release[log.sold]))), 0.9) * 40.0
    offered = log.offered(log.sold, window)
    rng = np.random.default_rng(1)
    drawn = offered.draw(log.users, log.items, 8, rng)
    chosen = set(zip(log.users.tolist(), log.items.tolist(), strict=True))
    assert not any((user, item) in chosen for user, row in zip(log.users, drawn, strict=True) for item in row)
    assert log.sold[drawn].all()
    inside = np.abs(log.release[drawn] - log.release[log.items][:, None]) <= window
    sizes = offered.stops - offered.starts
    assert inside[sizes[log.items] > 50].all() and (sizes[log.items] > 50).sum() > 0
    everything = log.offered(log.sold, 0.0)
    assert (everything.stops - everything.starts == log.sold.sum()).all()


def test_a_stretch_that_was_chosen_to_the_last_is_drawn_from_all_the_same() -> None:
    from scipy.sparse import csr_array

    matrix = csr_array(np.array([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=np.float32))
    stretch = Stretches(matrix, np.array([2, 0, 1, 3]), np.array([0, 0, 0, 0]), np.array([3, 3, 4, 4]))
    rng = np.random.default_rng(0)
    assert set(stretch.draw(np.array([0] * 50), np.array([0] * 50), 4, rng).ravel()) <= {0, 1, 2}
    assert set(stretch.draw(np.array([0] * 50), np.array([3] * 50), 4, rng).ravel()) == {3}
    assert set(stretch.draw(np.array([1] * 50), np.array([3] * 50), 4, rng).ravel()) == {2, 3}


def test_pairs_stand_for_all_who_were_there_and_did_not_buy() -> None:
    data = synthetic(80, n_items=60, seed=4)
    log = PurchaseLog.of(data, Past.of(data, np.zeros((data.n_items, 2), np.float32), 1.0, 10))
    users, items, until, labels, weights = log.pairs(log.sold, "event", np.random.default_rng(0), n=10**6, others=40)
    assert labels.sum() == len(log.users) and (weights[labels > 0] == 1).all()
    absent = (labels == 0) & (weights > 0)
    assert not log.bought(users[absent], items[absent]).any()
    assert (log.first_seen[users[absent]] < until[absent]).all()
    assert log.bought(log.users, log.items).all()
    everybody = np.arange(data.n_users)
    total = 0.0
    for item, time in zip(log.items, log.times, strict=True):
        never = ~log.bought(everybody, np.full(data.n_users, item))
        total += (never & (log.first_seen < time)).sum() / (log.items == item).sum()
    assert weights[labels == 0].sum() == pytest.approx(total, rel=0.05)


def test_logistic_regression_finds_the_weights_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20_000, 2))
    odds = -1.0 + features @ [1.5, -0.7]
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)
    np.testing.assert_allclose(logistic(features, labels, np.ones(20_000)), [-1.0, 1.5, -0.7], atol=0.08)
    twice = np.concatenate([np.ones(10_000), np.full(10_000, 2.0)])
    repeated = np.concatenate([np.arange(20_000), np.arange(10_000, 20_000)])
    expected = logistic(features[repeated], labels[repeated], np.ones(30_000))
    np.testing.assert_allclose(logistic(features, labels, twice), expected, atol=1e-3)
    assert logistic(-features, labels, np.ones(20_000))[1] == pytest.approx(1e-3)  # nearer never counts against


def test_covariance_and_ball_by_the_book() -> None:
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    book = np.cov(points.numpy().T, bias=True)
    assert covariance(points).item() == pytest.approx(np.square(book - np.diag(np.diag(book))).sum())
    inside = into_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    np.testing.assert_allclose(inside.numpy(), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)


def test_an_unknown_time_is_later_than_all() -> None:
    data = synthetic(30, n_items=40, seed=1)
    past = Past.of(data, np.ones((data.n_items, 2), np.float32), 1e9, 50)
    users = np.arange(data.n_users)
    assert (past.before(users, np.full(data.n_users, ALWAYS))[1][:, 1] == 1.0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"item_points": True, "profile": "release"},
        {"hardest": True, "window": 0.0, "held": 0.0, "columns": "title, description"},
    ],
)
def test_other_settings_survive_the_checks_too(settings: dict[str, object]) -> None:
    s = subject("cml-movies", settings)
    for check in ("gradient_reaches_every_parameter", "loss_falls", "round_trip", "strangers"):
        run_check(check, s)
    system = s.bundle.system
    if settings.get("item_points"):
        items = s.parts.train.events["item"].drop_nulls().unique().to_numpy()
        bought = torch.from_numpy(items.astype(np.int64))
        torch.testing.assert_close(system.points[bought], system.own.weight[bought].detach())
        assert not torch.allclose(system.points, system.placed(system.vectors))
