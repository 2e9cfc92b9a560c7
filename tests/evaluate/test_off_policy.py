"""Off-policy estimates against loops, against known truth, and on a log whose other policy was run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.evaluate import Report, compare
from tastemaker.evaluate.off_policy import (
    bernstein,
    clipped_ips,
    cross_fitted,
    diagnostics,
    off_policy,
    pseudo_inverse_weights,
)
from tastemaker.simulate.logged import Logged
from tastemaker.types import DataError, Dataset, NotFound, Requests, Slates, UsageError

A = 4
TRUTH = np.array([[0.8, 0.1, 0.3, 0.2], [0.1, 0.7, 0.2, 0.4]])  # mean reward by kind of user and item
LOGGING = np.array([[0.1, 0.4, 0.3, 0.2], [0.4, 0.1, 0.2, 0.3]])
TARGET = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2]])
VALUE = float((TARGET * TRUTH).sum(axis=1).mean())


def logged(n: int, seed: int) -> tuple[Logged, np.ndarray]:
    """n trials of the logging policy, and the target's probabilities [n, A]."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 2, n)
    items = (rng.random(n)[:, None] > LOGGING[users].cumsum(axis=1)).sum(axis=1)
    rewards = (rng.random(n) < TRUTH[users, items]).astype(float)
    return Logged(Requests.of_users(users), items, rewards, LOGGING[users, items], A), TARGET[users]


def test_estimates_equal_loops() -> None:
    log, target = logged(200, 0)
    model = np.random.default_rng(1).random((200, A))
    report = off_policy(log, target, model=model, clip=2.0)
    items, rewards, chances = log.items[:, 0], log.rewards[:, 0], log.propensities[:, 0]
    sums = dict.fromkeys(("ips", "clipped_ips", "dm", "dr", "w", "ww"), 0.0)
    for i in range(200):
        w = target[i, items[i]] / chances[i]
        expected = sum(target[i, a] * model[i, a] for a in range(A))
        sums["ips"] += w * rewards[i]
        sums["clipped_ips"] += min(w, 2.0) * rewards[i]
        sums["dm"] += expected
        sums["dr"] += expected + w * (rewards[i] - model[i, items[i]])
        sums["w"] += w
        sums["ww"] += w * w
    for name in ("ips", "clipped_ips", "dm", "dr"):
        assert report[name] == pytest.approx(sums[name] / 200, rel=1e-6)
    assert report["snips"] == pytest.approx(sums["ips"] / sums["w"], rel=1e-6)
    assert report.protocol["diagnostics"]["effective"] == pytest.approx(sums["w"] ** 2 / sums["ww"])


def test_estimates_of_many_logs_centre_on_the_truth() -> None:
    names = ("ips", "snips", "dr", "clipped_ips")
    found = {name: [] for name in names}
    for seed in range(200):
        log, target = logged(300, seed)
        report = off_policy(log, target, estimators=names, clip=3.0)
        for name in names:
            found[name].append(report[name])
    for name in ("ips", "snips", "dr"):
        mean, error = np.mean(found[name]), np.std(found[name]) / np.sqrt(200)
        assert abs(mean - VALUE) < 4 * error, f"{name} centres on {mean:.4f}, the truth is {VALUE:.4f}"
    assert np.mean(found["clipped_ips"]) < VALUE - 0.05, "cut weights lose reward"
    assert np.std(found["snips"]) < np.std(found["ips"]), "a normalised mean varies less"
    assert np.std(found["dr"]) < np.std(found["ips"]), "a model of rewards takes variance away"


def test_dr_is_right_if_either_of_its_parts_is() -> None:
    log, target = logged(20_000, 3)
    users = log.requests.users
    wrong = Logged(log.requests, log.items, log.rewards, np.full(len(log), 1 / A), A)
    true_model = TRUTH[users]
    with_model = off_policy(wrong, target, model=true_model)
    assert abs(with_model["dr"] - VALUE) < 0.02 < abs(with_model["ips"] - VALUE)
    with_chances = off_policy(log, target, model=np.zeros((len(log), A)))
    assert abs(with_chances["dr"] - VALUE) < 0.02 < abs(with_chances["dm"] - VALUE)


def test_intervals_hold_the_truth_and_narrow() -> None:
    held = {"bootstrap": 0, "bernstein": 0}
    for seed in range(40):
        log, target = logged(400, 1000 + seed)
        report = off_policy(log, target, estimators=("ips", "snips"))
        low, high = report.intervals()["snips"]
        held["bootstrap"] += low <= VALUE <= high
        row = report.slices.row(0, named=True)
        assert row["metric"] == "ips" and row["low"] <= report["ips"] <= row["high"]
        held["bernstein"] += row["low"] <= VALUE <= row["high"]
    assert held["bootstrap"] >= 34 and held["bernstein"] == 40, held
    terms = np.random.default_rng(0).random(4000)
    wide, narrow = (bernstein(terms[:n], (0.0, 1.0)) for n in (100, 4000))
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0]) and narrow[0] < 0.5 < narrow[1]


def test_diagnostics_by_hand() -> None:
    found = diagnostics(np.array([0.0, 1.0, 3.0, 0.0]), clip=2.0)
    assert found == {"effective": 16 / 10, "largest": 3.0, "mean": 1.0, "zero": 0.5, "clipped": 0.25}
    assert clipped_ips(np.array([0.5, 9.0]), np.array([1.0, 1.0]), 4.0).tolist() == [0.5, 4.0]


def test_a_model_never_sees_the_trial_it_judges() -> None:
    log, _ = logged(90, 5)
    changed = log.rewards.copy()
    changed[7] = 1.0 - changed[7]
    other = Logged(log.requests, log.items, changed, log.propensities, A)
    assert np.array_equal(cross_fitted(log)[7], cross_fitted(other)[7])
    assert not np.array_equal(cross_fitted(log), cross_fitted(other))


# -- slates


def slates_logged(n: int, seed: int) -> tuple[Logged, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Ordered pairs of three items, uniformly; a slot's reward is a Bernoulli draw of its item's worth."""
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.permutations(range(3), 2)))
    which = rng.integers(0, 6, n)
    worth = np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.1]])
    items = pairs[which]
    rewards = (rng.random((n, 2)) < worth[[0, 1], items]).astype(float)
    log = Logged(Requests(n), items, rewards, np.tile([1 / 3, 1 / 2], (n, 1)), 3)
    return log, (pairs, np.full(6, 1 / 6)), worth


def test_the_pseudo_inverse_of_a_product_is_its_short_form() -> None:
    rng = np.random.default_rng(2)
    slots = rng.dirichlet(np.ones(3), size=2)
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    mass = slots[0, pairs[:, 0]] * slots[1, pairs[:, 1]]
    items = pairs[rng.integers(0, 9, 50)].astype(np.int32)
    target = rng.dirichlet(np.ones(3), size=(50, 2))
    ratios = np.take_along_axis(target, items[:, :, None].astype(int), 2)[:, :, 0] / slots[[0, 1], items]
    long = pseudo_inverse_weights(ratios, items, target, (pairs, mass))
    np.testing.assert_allclose(long, pseudo_inverse_weights(ratios, items, target), atol=1e-9)


def test_slate_estimators_find_the_value_with_less_variance_than_whole_slates() -> None:
    target = np.zeros((2, 3))
    target[0, 0] = target[1, 1] = 1.0  # always items 0, then 1
    found: dict[str, list[float]] = {"pi": [], "iips": [], "ips": []}
    for seed in range(60):
        log, logging, worth = slates_logged(400, seed)
        chances = np.broadcast_to(target, (400, 2, 3))
        # under shuffling without return the second slot's marginal is 1/3, while given the first it is 1/2
        report = off_policy(log, chances, estimators=("pi", "ips"), logging=logging)
        marginal = Logged(log.requests, log.items, log.rewards, np.full((400, 2), 1 / 3), 3)
        found["iips"].append(off_policy(marginal, chances, estimators=("iips",))["iips"])
        found["pi"].append(report["pi"])
        found["ips"].append(report["ips"])
    value = worth[0, 0] + worth[1, 1]
    for name, values in found.items():
        assert abs(np.mean(values) - value) < 4 * np.std(values) / np.sqrt(60), name
    assert np.std(found["iips"]) < np.std(found["ips"])
    assert np.std(found["pi"]) < np.std(found["ips"])


# -- what comes in and what is refused


def test_trials_of_a_dataset() -> None:
    events = pl.DataFrame(
        {
            "user": pl.Series([0, 0, 0, 1, 1], dtype=pl.Int32),
            "item": pl.Series([0, 1, 1, 1, 0], dtype=pl.Int32),
            "kind": ["impression", "impression", "click", "impression", "click"],
            "value": pl.Series([None, None, 1.0, None, 2.0], dtype=pl.Float32),
            "slate": pl.Series([1, 1, 1, 2, 3], dtype=pl.Int64),
            "propensity": pl.Series([0.5, 0.25, None, 0.5, None], dtype=pl.Float32),
        }
    )
    users, items = pl.DataFrame({"user": [0, 1]}), pl.DataFrame({"item": [0, 1]})
    log = Logged.of(Dataset("toy", users, items, events))
    assert log.items[:, 0].tolist() == [0, 1, 1] and log.propensities[:, 0].tolist() == [0.5, 0.25, 0.5]
    assert log.rewards[:, 0].tolist() == [0.0, 1.0, 0.0], "a click counts for the list it came from"
    with pytest.raises(DataError, match="propensity"):
        Logged.of(Dataset("toy", users, items, events.drop("propensity")))


def test_a_list_is_a_policy_and_reports_are_stored_and_compared(tmp_path: Path) -> None:
    log, target = logged(500, 9)
    best = TRUTH[log.requests.users].argmax(axis=1)
    lists = Slates(best[:, None], np.zeros((500, 1)))
    report, other = off_policy(log, lists, name="best"), off_policy(log, target, name="soft")
    assert report["snips"] > other["snips"] > log.rewards.mean()
    report.save(tmp_path / "report.parquet")
    again = Report.load(tmp_path / "report.parquet")
    assert again.values() == pytest.approx(report.values()) and again.protocol["kind"] == "off-policy"
    assert compare([report, other]).entries[0].label == "best"
    report.save(tmp_path / "report.html")


def test_what_does_not_fit_is_refused() -> None:
    log, target = logged(50, 1)
    with pytest.raises(NotFound, match="ipss"):
        off_policy(log, target, estimators=("ipss",))
    with pytest.raises(UsageError, match="slots"):
        off_policy(log, target, estimators=("pi",))
    with pytest.raises(UsageError, match="sum to 1"):
        off_policy(log, target * 2)
    with pytest.raises(UsageError, match="propensities"):
        Logged(log.requests, log.items, log.rewards, np.zeros(50), A)
    lists: Any = Slates(np.zeros((50, 1)), np.zeros((50, 1)))
    assert off_policy(log, lists, clip=1.0).warnings == ()


def test_open_bandit_estimates_beside_what_the_other_policy_earned(shared_data: Path) -> None:
    frame = pl.read_parquet(shared_data / "open-bandit-men" / "logs.parquet")
    parts = {policy: frame.filter(pl.col("behavior_policy") == policy) for policy in ("random", "bts")}
    log = {
        policy: Logged(Requests(part.height), part["item_id"].to_numpy(), part["click"].to_numpy(), chance, 34)
        for policy, part in parts.items()
        for chance in [part["propensity_score"].to_numpy()]
    }
    truth = {policy: one.rewards.mean() for policy, one in log.items()}
    assert truth["random"] == pytest.approx(0.0046) and truth["bts"] == pytest.approx(0.0069)
    uniform = off_policy(log["bts"], np.full(34, 1 / 34), name="random, from the log of bts", clip=50.0)
    for name in ("snips", "dr"):
        low, high = uniform.intervals()[name]
        assert low <= truth["random"] <= high, f"{name}: {low:.5f} to {high:.5f}, earned {truth['random']:.5f}"
    shown = np.bincount(log["bts"].items[:, 0], minlength=34) / len(log["bts"])
    thompson = off_policy(log["random"], shown, name="bts on average, from the log of random")
    low, high = thompson.intervals()["snips"]
    assert low <= truth["bts"] <= high, f"{low:.5f} to {high:.5f}, earned {truth['bts']:.5f}"
    assert thompson.protocol["diagnostics"]["mean"] == pytest.approx(1.0, abs=0.05)
