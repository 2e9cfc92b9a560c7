"""Latent-factor users against their own formulas, and the adapter to Gymnasium."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.simulate import LatentState, LatentUsers, Logged, as_gymnasium
from tastemaker.simulate.gymnasium import allowed_items
from tastemaker.types import Actions, Jagged, Requests, Slates, UsageError, request_seeds


def lists(items: object) -> Actions:
    array = np.asarray(items)
    return Actions(len(array), slates=Slates(array, np.zeros(array.shape)))


@pytest.mark.parametrize("reward", ["linear", "logistic"])
def test_rewards_have_the_means_that_the_truth_says(reward: str) -> None:
    world = LatentUsers.drawn(1, 6, 3, seed=1, reward=reward, noise=0.2, patience=0.6, level=0.0)
    state = LatentState(request_seeds(20_000, 0), np.zeros(20_000, dtype=np.int32), 0)
    items = np.tile([2, 5, 0], (20_000, 1))
    feedback, *_ = world.step(state, lists(items))
    product = world.items[[2, 5, 0]] @ world.tastes[0]
    mean = (1 + product) / 2 if reward == "linear" else 1 / (1 + np.exp(-4.0 * product))
    expected = float((mean * 0.6 ** np.arange(3)).sum())
    assert world.expected(state, Slates(items, np.zeros(items.shape)))[0] == pytest.approx(expected)
    assert feedback.reward.mean() == pytest.approx(expected, abs=0.02)
    assert feedback.events is not None and len(feedback.events.values["item"]) == 60_000
    if reward == "logistic":
        assert set(np.unique(feedback.events.values["value"])) == {0.0, 1.0}


def test_the_best_list_is_the_best_of_all_lists() -> None:
    world = LatentUsers.drawn(3, 5, 4, seed=2, patience=0.5)
    state = LatentState(request_seeds(3, 0), np.arange(3, dtype=np.int32), 0)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    worth = np.stack([world.expected(state, Slates(np.tile(pair, (3, 1)), np.zeros((3, 2)))) for pair in pairs])
    np.testing.assert_allclose(world.best(state, 2), worth.max(axis=0))


def test_luck_is_the_same_whatever_else_is_shown_and_whoever_else_asks() -> None:
    world = LatentUsers.drawn(50, 20, 4, seed=3, level=0.0)
    requests, state = world.reset(request_seeds(30, 5))
    alone, state_alone = world.reset(request_seeds(30, 5)[7:8])
    assert alone.users[0] == requests.users[7]
    whole, *_ = world.step(state, lists(np.tile([3, 4], (30, 1))))
    other, *_ = world.step(state, lists(np.tile([9, 4], (30, 1))))
    one, *_ = world.step(state_alone, lists([[3, 4]]))
    values = [f.events.values["value"].reshape(-1, 2) for f in (whole, other, one)]
    assert np.array_equal(values[0][:, 1], values[1][:, 1]) and np.array_equal(values[0][7], values[2][0])


def test_tastes_drift_and_items_come() -> None:
    world = LatentUsers.drawn(40, 30, 4, seed=4, drift=np.pi / 20, fresh=0.5, horizon=10, stay=True)
    requests, state = world.reset(request_seeds(8, 0))
    assert requests.filter is not None and 10 <= requests.filter.allowed.sum() <= 20
    late = int(np.flatnonzero(world.arrivals > 0)[0])
    with pytest.raises(UsageError, match="does not have yet"):
        world.step(state, lists(np.full((8, 1), late)))
    there = int(np.flatnonzero(world.arrivals == 0)[0])
    begun = world.means(state)[:, there]
    for turn in range(10):
        _, following, done, state = world.step(state, lists(np.full((8, 1), there)))
        assert done.all() == (turn == 9) and following.n == (0 if turn == 9 else 8)
        if turn < 9:
            assert np.array_equal(following.users, requests.users), "the same user stays"
    turned = world.means(LatentState(request_seeds(8, 0), requests.users, 10))
    assert np.isfinite(turned).all(), "by the half all items have come"
    aside = 1 / (1 + np.exp(-(4.0 * world.towards[requests.users] @ world.items[there] - 2.0)))
    np.testing.assert_allclose(turned[:, there], aside, atol=1e-9)
    assert not np.allclose(begun, turned[:, there])


def test_its_log_is_one_of_uniform_trials() -> None:
    world = LatentUsers.drawn(30, 10, 3, seed=5, level=0.0, tells=True)
    data = world.log(4000, seed=1)
    log = Logged.of(data)
    assert len(log) == 4000 and np.allclose(log.propensities, 0.1)
    counts = np.bincount(log.items[:, 0], minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 30, "each item as often as any other"
    state = LatentState(np.zeros(4000, np.uint64), log.requests.users, 0)
    truth = world.expected(state, Slates(log.items, np.zeros(log.items.shape)))
    assert log.rewards.mean() == pytest.approx(truth.mean(), abs=0.03)
    np.testing.assert_allclose(log.requests.context["taste"], world._context(log.requests.users, 0))
    assert data.schema.events["taste"].width == 4
    asked, _ = world.after(data).reset(request_seeds(5, 0))
    assert asked.history is not None and len(asked.history) == 5


@pytest.mark.filterwarnings("ignore:.*Box observation space")
def test_gymnasium_accepts_it_as_one_of_its_own() -> None:
    pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    world = LatentUsers.drawn(20, 12, 3, seed=6, tells=True, horizon=5)
    check_env(as_gymnasium(world, n_items=12, k=3), skip_render_check=True)
    env = as_gymnasium(world, n_items=12)
    first, _ = env.reset(seed=3)
    rewards, over = [], False
    while not over:
        seen, reward, over, cut, _ = env.step(np.int64(4))
        rewards.append(reward)
        assert env.observation_space.contains(seen) and not cut and len(env.feedback) == 1
    assert len(rewards) == 5
    again, _ = env.reset(seed=3)
    assert np.array_equal(first, again)
    with pytest.raises(UsageError, match="observe"):
        as_gymnasium(LatentUsers.drawn(5, 5, 2), n_items=5)


def test_what_may_not_be_shown_is_left_out_of_an_action() -> None:
    requests = Requests(1, exclude=Jagged.from_lists([[2]], dtype=np.int32), candidates=Jagged.from_lists([[1, 2, 5]]))
    assert allowed_items(np.array([5, 2, 5, 3, 1], dtype=np.int32), requests).tolist() == [5, 1]
