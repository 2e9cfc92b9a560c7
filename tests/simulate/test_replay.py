"""Replay: what it keeps of a log is worth what the policy is worth, and each trial is met once."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.evaluate.interactive import interact
from tastemaker.simulate import Logged, LoggedReplay
from tastemaker.types import Actions, Requests, Slates, UsageError, request_seeds

TRUTH = np.array([[0.8, 0.1, 0.3], [0.1, 0.7, 0.4]])


def logged(n: int, chances: np.ndarray, seed: int = 0) -> Logged:
    """n trials with items drawn by user from `chances` [2, 3]."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, 2, n)
    items = np.minimum((rng.random(n)[:, None] > chances[users].cumsum(axis=1)).sum(axis=1), 2)
    rewards = (rng.random(n) < TRUTH[users, items]).astype(float)
    return Logged(Requests.of_users(users), items, rewards, chances[users, items], 3)


class Best:
    """Shows each user the best item."""

    def retrieve(self, requests: Requests, k: int) -> Slates:
        return Slates(TRUTH[requests.users].argmax(axis=1)[:, None], np.zeros((requests.n, 1)))


@pytest.mark.parametrize("chances", [np.full((2, 3), 1 / 3), np.array([[0.2, 0.5, 0.3], [0.25, 0.25, 0.5]])])
def test_what_is_kept_is_worth_what_the_policy_is(chances: np.ndarray) -> None:
    log = logged(12_000, chances)
    report = interact(Best(), LoggedReplay(log), turns=500, sessions=24, seeds=(0,))
    assert report["reward"] == pytest.approx(0.75, abs=0.03)
    kept = report["known"] * 24 / 12_000
    assert kept == pytest.approx(chances.min() if chances.std() else 1 / 3, abs=0.02)
    assert abs(log.rewards.mean() - 0.75) > 0.2, "the log itself is worth far less"


def test_each_trial_is_met_once() -> None:
    log = logged(101, np.full((2, 3), 1 / 3))
    world, met = LoggedReplay(log), []
    requests, state = world.reset(request_seeds(7, 3))
    while requests.n:
        met.append(world._trials(state))
        slates = Slates(np.zeros((requests.n, 1)), np.zeros((requests.n, 1)))
        feedback, requests, done, state = world.step(state, Actions(requests.n, slates=slates))
        rejected = np.isnan(feedback.reward)
        assert feedback.events is not None and (feedback.events.lengths == ~rejected).all()
        assert requests.n == (~done).sum()
    assert sorted(np.concatenate(met).tolist()) == list(range(101))


def test_a_replay_is_of_single_items() -> None:
    pair = Logged(Requests(1), np.array([[0, 1]]), np.zeros((1, 2)), np.ones((1, 2)), 2)
    with pytest.raises(UsageError, match="one item"):
        LoggedReplay(pair)
