"""Systems that learn while they serve: their equations, what merges, what is found, and where vectors come from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.contracts import Fit, find
from tastemaker.evaluate.interactive import interact
from tastemaker.nn.clusters import Clusters, spherical_kmeans
from tastemaker.nn.edges import CLUSTER
from tastemaker.nn.outcomes import trials
from tastemaker.simulate import LatentUsers, Logged
from tastemaker.testing import blocks
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    Actions,
    BundleError,
    CapabilityError,
    Columns,
    Feedback,
    Jagged,
    Requests,
    Slates,
    SystemRef,
    generator,
    request_seeds,
)

LEARNERS = ("diag-linucb", "linucb", "thompson", "epsilon-greedy")
EVERYTHING = {"width": 10_000, "prior": 0.0}
DATA = blocks(60, 40, chosen=6)


@cache
def fitted(name: str, **config: Any) -> Any:
    return fit(name, DATA, config).system


def told(users: Any, items: Any, rewards: Any, trace: Columns | None = None) -> Feedback:
    """One event a request."""
    users, items = np.asarray(users), np.asarray(items, dtype=np.int32)
    columns = Columns(
        item=items, kind=np.full(len(items), "click", dtype=object), value=np.asarray(rewards, dtype=np.float32)
    )
    slates = None if trace is None else Slates(items[:, None], np.zeros((len(items), 1)), trace=trace)
    return Feedback(Requests.of_users(users), events=Jagged(columns, np.arange(len(items) + 1)), slates=slates)


def random_feedback(n: int, seed: int, trace: Columns | None = None) -> Feedback:
    rng = np.random.default_rng(seed)
    return told(rng.integers(0, 60, n), rng.integers(0, 40, n), rng.integers(0, 2, n), trace)


# -- equations


def test_linucb_equals_a_loop_over_trials() -> None:
    system = fitted("linucb", alpha=0.7, dim=4)
    feedback = random_feedback(200, 1)
    users, items, rewards = feedback.requests.users, feedback.events.values["item"], feedback.events.values["value"]
    x = system.bandit.rows(feedback.requests)
    asked = Requests.of_users([3, 17, 41])
    z = system.bandit.rows(asked)
    expected = np.empty((3, 40))
    for j in range(40):
        a = np.eye(5)
        b = np.append(system.bandit.contexts.space.items[j], 0.0).astype(float)
        for i in range(len(users)):
            if items[i] == j:
                a += np.outer(x[i], x[i])
                b += rewards[i] * x[i]
        inverse = np.linalg.inv(a)
        for r in range(3):
            expected[r, j] = z[r] @ inverse @ b + 0.7 * np.sqrt(z[r] @ inverse @ z[r])
    learnt = system.apply(system.update(feedback))
    np.testing.assert_allclose(learnt.score(asked), expected, rtol=1e-5)
    some = np.array([[5, 1], [0, 39], [7, 7]])
    np.testing.assert_allclose(learnt.score(asked, some), np.take_along_axis(expected, some, 1), rtol=1e-5)


def test_diag_linucb_equals_a_loop_over_edges() -> None:
    system = fitted("diag-linucb", alpha=0.7, n_clusters=6, nearest=3, width=12, prior=0.0)
    feedback = random_feedback(300, 2)
    numbers, weights = system.clusters.memberships(system.space.queries(feedback.requests))
    linked = {(int(key // CLUSTER), int(key % CLUSTER)) for key in system.edges.keys}
    assert len(linked) == 6 * 12
    d, b = dict.fromkeys(linked, 1.0), dict.fromkeys(linked, 0.0)
    for i, (item, reward) in enumerate(zip(*(feedback.events.values[n] for n in ("item", "value")), strict=True)):
        for c, w in zip(numbers[i], weights[i], strict=True):
            if (c, item) in linked:
                d[c, item] += w * w
                b[c, item] += w * reward
    learnt = system.apply(system.update(feedback))
    asked = Requests.of_users(np.arange(20))
    numbers, weights = system.clusters.memberships(system.space.queries(asked))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    scores = learnt.score(asked)
    slates = learnt.retrieve(asked, 8)
    for r in range(20):
        worth = {}
        for item in range(40):
            known = [(c, w) for c, w in zip(numbers[r], weights[r], strict=True) if (c, item) in linked]
            if known:
                mean = sum(w * b[c, item] / d[c, item] for c, w in known)
                worth[item] = mean + 0.7 * np.sqrt(sum(w * w / d[c, item] for c, w in known))
        np.testing.assert_allclose(scores[r, list(worth)], list(worth.values()), rtol=1e-5)
        others = np.setdiff1d(np.arange(40), list(worth))
        assert scores[r, others].max() < scores[r, list(worth)].min() - 1, "without an edge there is no bonus"
        np.testing.assert_allclose(slates.scores[r], sorted(worth.values(), reverse=True)[:8], rtol=1e-5)
    assert set(slates.trace) == {"cluster", "weight"}


def test_with_one_cluster_a_user_diag_linucb_is_linucb() -> None:
    shared = {"n_clusters": 8, "alpha": 1.3, "prior": 0.0}
    asked = Requests.of_users(np.arange(60))

    def gap(nearest: int) -> float:
        diagonal = fitted("diag-linucb", nearest=nearest, width=10_000, **shared)
        full = fitted("linucb", nearest=nearest, context="clusters", **shared)
        np.testing.assert_array_equal(diagonal.clusters.centres, full.bandit.contexts.clusters.centres)
        for seed in range(3):
            diagonal = diagonal.apply(diagonal.update(random_feedback(400, seed)))
            full = full.apply(full.update(random_feedback(400, seed)))
        return float(np.abs(diagonal.score(asked).astype(np.float64) - full.score(asked)).max())

    assert gap(1) < 1e-6, "one-hot contexts have a diagonal matrix"
    assert gap(4) > 1e-2, "with more clusters the diagonal leaves something out"


def test_thompson_draws_from_what_is_believed() -> None:
    system = fitted("thompson", alpha=0.8)
    system = system.apply(system.update(random_feedback(500, 4)))
    asked = Requests(4000, users=np.full(4000, 5), seeds=request_seeds(4000, 2))
    drawn = system.score(asked).astype(np.float64)
    x = system.bandit.rows(asked)[:1]
    mean, width = system.bandit.arms.means(x)[0], 0.8 * system.bandit.arms.widths(x)[0]
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * width / np.sqrt(4000)).all()
    np.testing.assert_allclose(drawn.std(axis=0), width, rtol=0.1)
    assert np.abs(np.corrcoef(drawn[:, :6].T)[np.triu_indices(6, 1)]).max() < 0.08, "arms are drawn independently"


# -- what lists say of their own chance


@pytest.mark.parametrize(
    ("name", "config"), [("epsilon-greedy", {"epsilon": 0.5}), ("diag-linucb", {"spread": 3, "n_clusters": 4})]
)
def test_logp_agrees_with_how_often_lists_are_drawn(name: str, config: dict[str, Any]) -> None:
    system = fitted(name, **config)
    n = 6000
    few = Jagged(np.tile(np.array([0, 4, 8, 12], dtype=np.int32), n), np.arange(0, 4 * n + 1, 4))
    asked = Requests(n, users=np.full(n, 5), candidates=few, seeds=request_seeds(n, 3))
    slates = system.retrieve(asked, 2)
    lists, first, counts = np.unique(slates.items, axis=0, return_index=True, return_counts=True)
    chances = np.exp(slates.logp[first].sum(axis=1))
    assert chances.sum() == pytest.approx(1.0, abs=1e-5), "every list there is was drawn"
    np.testing.assert_allclose(counts / n, chances, atol=0.02)
    assert len(lists) == (12 if name == "epsilon-greedy" else 6)


def test_epsilon_greedy_knows_how_many_items_it_draws_from() -> None:
    system = fitted("epsilon-greedy", epsilon=1.0)
    exclude = Jagged.from_lists([[1, 2, 2], [], [5]], dtype=np.int32)
    slates = system.retrieve(Requests(3, users=np.arange(3), exclude=exclude, seeds=request_seeds(3, 0)), 2)
    np.testing.assert_allclose(slates.logp, -np.log([[38, 37], [40, 39], [39, 38]]), rtol=1e-5)
    greedy = fitted("epsilon-greedy", epsilon=0.0).retrieve(Requests.of_users([1, 2]), 5)
    assert (greedy.logp == 0).all()


# -- what feedback adds


def dyadic(n: int, seed: int) -> Columns:
    """Weights whose sums and products are exact."""
    rng = np.random.default_rng(seed)
    numbers = np.argsort(rng.random((n, 6)), axis=1)[:, :3].astype(np.int32)
    return Columns(cluster=numbers, weight=np.tile([0.5, 0.25, 0.25], (n, 1)))


def state_of(system: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in system.export().items()}


@pytest.mark.parametrize("name", LEARNERS)
def test_merged_deltas_equal_sequential_ones_in_any_order(name: str) -> None:
    exact = name == "diag-linucb"
    system = fitted(
        name, **({"n_clusters": 6, "nearest": 3, "prior": 0.0} if exact else {"context": "clusters", "n_clusters": 6})
    )
    parts = [random_feedback(50, seed, dyadic(50, seed) if exact else None) for seed in range(8)]
    deltas = [system.update(part) for part in parts]
    one_by_one = state_of(reduce(lambda snapshot, delta: snapshot.apply(delta), deltas, system))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(8)
        with ThreadPoolExecutor(4) as pool:
            shuffled = list(pool.map(system.update, [parts[i] for i in order]))
        merged = state_of(system.apply(reduce(system.merge, shuffled)))
        tree = state_of(system.apply(system.merge(reduce(system.merge, deltas[:3]), reduce(system.merge, deltas[3:]))))
        for key, array in one_by_one.items():
            for other in (merged, tree):
                if exact:
                    assert np.array_equal(array, other[key]), key
                else:
                    np.testing.assert_allclose(array, other[key], rtol=1e-9, atol=1e-12)
    fresh = state_of(system)
    assert any(not np.array_equal(fresh[key], one_by_one[key]) for key in fresh)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_trial_is_credited_to_who_was_served_then(name: str) -> None:
    system = fitted(name)
    as_was = system.retrieve(Requests.of_users([7]), 3)
    by_trace = told([33], [9], [1.0], as_was.trace)  # by now the user is another one
    plain, traced, other = (
        system.apply(system.update(f)) for f in (told([7], [9], [1.0]), by_trace, told([33], [9], [1.0]))
    )
    asked = Requests(4, users=np.array([7, 33, 1, 2]), seeds=request_seeds(4, 0))
    np.testing.assert_allclose(traced.score(asked), plain.score(asked), atol=1e-6)
    assert not np.allclose(traced.score(asked), other.score(asked), atol=1e-3)


def test_trials_of_feedback() -> None:
    columns = Columns(
        item=np.array([1, 2, -1, 99, 3, 3], dtype=np.int32),
        kind=np.array(["impression", "click", "search", "click", "impression", "rating"], dtype=object),
        value=np.array([5.0, np.nan, 1.0, 1.0, np.nan, 4.0], dtype=np.float32),
    )
    feedback = Feedback(Requests(3), events=Jagged(columns, np.array([0, 2, 4, 6])))
    found = trials(feedback, 10, whole=8.0)
    assert found.rows.tolist() == [0, 0, 2, 2] and found.items.tolist() == [1, 2, 3, 3]
    assert found.rewards.tolist() == [0.0, 0.125, 0.0, 0.5] and found.counts.tolist() == [1, 1, 1, 1]
    assert trials(feedback, 10, counted="impressions").counts.tolist() == [1, 0, 1, 0]
    assert len(trials(Feedback(Requests(2)), 10).items) == 0
    said = columns.with_columns(kind=np.array(["dislike", "skip", "undo", "like", "undo", "hide"], dtype=object))
    found = trials(Feedback(Requests(3), events=Jagged(said, np.array([0, 2, 4, 6]))), 10)
    assert found.items.tolist() == [1, 2, 3] and found.rewards.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_fit_on_the_log_brings_back_what_was_learnt_live(name: str) -> None:
    world = LatentUsers.drawn(30, 12, 3, seed=3, level=0.0, tells=True)
    data = world.log(500)
    of = {} if name == "diag-linucb" else {"context": "columns", "columns": "taste"}
    again = fit(name, data, {**of, "past": True, "counted": "impressions"}).system
    live = fit(name, data, {**of, "counted": "impressions"}).system
    log = Logged.of(data)
    order = np.random.default_rng(0).permutation(500)
    for rows in np.array_split(order, 7):
        kinds = ("impression", "click")
        both = [(kind, rows if kind == "impression" else rows[log.rewards[rows, 0] > 0]) for kind in kinds]
        for kind, some in both:  # a click comes later than the impression it answers
            columns = Columns(item=log.items[some, 0], kind=np.full(len(some), kind, dtype=object))
            events = Jagged(columns, np.arange(len(some) + 1))
            live = live.apply(live.update(Feedback(log.requests.take(some), events=events)))
    for key, array in state_of(again).items():
        np.testing.assert_allclose(array, state_of(live)[key], rtol=1e-6, atol=1e-9)  # products of other shapes
    assert state_of(again).keys() == state_of(live).keys()


# -- what is found


def test_planted_best_items_are_found() -> None:
    """Two kinds of user, six items for each, one of which is the best: both are at the top of the learnt lists."""
    tastes = np.repeat(np.eye(2), 30, axis=0)
    items = np.repeat([[0.6, -0.8], [-0.8, 0.6]], 6, axis=0)
    items[4], items[9] = [1.0, 0.0], [0.0, 1.0]
    world = LatentUsers(tastes, items, level=-1.5, horizon=60)
    data = world.log(3000, seed=2)
    random = interact(fit("random", data), world, turns=60, sessions=20, seeds=(0,))["regret"]
    for name, config in (
        ("diag-linucb", {"n_clusters": 2, "nearest": 1}),
        ("linucb", {"dim": 4}),
        ("thompson", {"dim": 4, "alpha": 0.3}),
        ("epsilon-greedy", {"dim": 4}),
    ):
        system = fit(name, data, {"prior": 0.0, **config}).system
        assert interact(system, world, turns=60, sessions=20, seeds=(0,))["regret"] < 0.4 * random, name
        requests, state = world.reset(request_seeds(40, 1))
        for _ in range(60):
            slates = system.retrieve(requests, 1)
            feedback, requests, _, state = world.step(state, Actions(len(slates), slates=slates))
            system = system.apply(system.update(feedback))
        top = system.retrieve(Requests.of_users(np.arange(60)), 1).items[:, 0]
        assert (top == np.repeat([4, 9], 30)).mean() > 0.8, name


@pytest.mark.parametrize(
    ("name", "config"), [("diag-linucb", {"n_clusters": 2, "nearest": 2}), ("linucb", {"dim": 4, "prior": 0.0})]
)
def test_bonuses_find_good_items_that_come_late(name: str, config: dict[str, Any]) -> None:
    """Of eight items that come at turn 10 one is better for each kind of user than all that was there; greed stays."""
    old = np.repeat([[0.6, -0.5, 0.62], [-0.5, 0.6, 0.62]], 4, axis=0)
    fresh = np.tile([[-0.6, -0.8, 0.0]], (8, 1))
    fresh[3], fresh[6] = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    world = LatentUsers(
        np.repeat(np.eye(3)[:2], 30, axis=0),
        np.concatenate([old, fresh]),
        slope=6.0,
        level=-4.0,
        arrivals=np.repeat([0, 10], 8),
        horizon=100,
    )
    data = world.log(3000, seed=1)
    regret = {
        alpha: interact(fit(name, data, {"alpha": alpha, **config}), world, turns=100, sessions=12, seeds=(0, 1))[
            "regret"
        ]
        for alpha in (0.0, 1.0)
    }
    assert regret[1.0] < 0.4 * regret[0.0], regret


def test_what_clusters_share_is_counted_for_each() -> None:
    """Tried often by people of two clusters in equal parts, an item seems up to twice as good as it is."""
    system = fitted("diag-linucb", n_clusters=6, nearest=2, alpha=0.0, **EVERYTHING)
    numbers, _ = system.clusters.memberships(system.space.queries(Requests.of_users([5])))
    trace = Columns(cluster=np.tile(numbers, (4000, 1)), weight=np.full((4000, 2), 0.5))
    rewards = np.arange(4000) % 4 == 0
    learnt = system.apply(system.update(told(np.full(4000, 5), np.full(4000, 8), rewards, trace)))
    assert learnt.score(Requests.of_users([5]))[0, 8] == pytest.approx(0.5, rel=0.01), "its rewards average 0.25"


def test_random_order_of_the_best_pays_while_feedback_is_late() -> None:
    """Between two snapshots the best item would get all requests; with one every turn, drawing costs a little."""
    items = np.column_stack([np.linspace(-0.2, 0.95, 24), np.zeros(24)])
    items[12:] = items[12:, ::-1]
    world = LatentUsers(
        np.repeat(np.eye(2), 30, axis=0),
        np.random.default_rng(1).permutation(items),
        level=-1.5,
        slope=3.0,
        horizon=150,
    )
    data = world.log(3000, seed=2)
    config = {"n_clusters": 2, "nearest": 1, "prior": 0.0}
    regret = {
        (push, spread): interact(
            fit("diag-linucb", data, {**config, "spread": spread}),
            world,
            turns=150,
            sessions=10,
            seeds=(0, 1),
            push=push,
        )["regret"]
        for push in (1, 25)
        for spread in (1, 8)
    }
    assert regret[25, 8] < 0.9 * regret[25, 1], regret
    assert regret[1, 1] < regret[1, 8] < regret[25, 8] * 1.1, regret


def test_clusters_of_blocks_are_the_blocks() -> None:
    rng = np.random.default_rng(0)
    own = np.repeat(np.arange(4), [40, 30, 20, 10])
    vectors = np.eye(4, 6)[own] + 0.1 * rng.standard_normal((100, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    centres = spherical_kmeans(vectors, 4, generator(0, "clusters"))
    assert (vectors @ centres.T).argmax(axis=1).tolist() == own.tolist(), "the largest has number 0"
    numbers, weights = Clusters(centres, 2, 0.3).memberships(np.zeros((1, 6), dtype=np.float32))
    assert numbers.tolist() == [[0, 1]] and weights.tolist() == [[0.5, 0.5]]
    assert len(spherical_kmeans(vectors[:3], 10, generator(0, "clusters"))) == 3


# -- newcomers, and other systems' vectors


def test_new_items_join_the_clusters_they_are_near_to() -> None:
    system = fitted("diag-linucb", n_clusters=6, fresh=2)
    vector = system.clusters.centres[3].tolist()
    table = pl.DataFrame({"item": ["a", "b"], "vector": [vector, [0.0] * len(vector)]})
    larger = system.extend(items=table)
    links = [(larger.edges.keys[larger.edges.keys % CLUSTER == item] // CLUSTER).tolist() for item in (40, 41)]
    assert len(links[0]) == 2 and 3 in links[0] and links[1] == list(range(6)), "nothing is known of b"
    asked = Requests.of_users(np.arange(60))
    np.testing.assert_array_equal(larger.score(asked)[:, :40], system.score(asked))
    for name in LEARNERS[1:]:
        other = fitted(name)
        grown = other.extend(items=pl.DataFrame({"item": ["a"]}), users=pl.DataFrame({"user": ["z"]}))
        seeded = asked.with_(seeds=request_seeds(60, 0))
        np.testing.assert_allclose(grown.score(seeded)[:, :40], other.score(seeded), atol=1e-6)
        assert grown.apply(grown.update(told([60], [40], [1.0]))).score(seeded).shape == (60, 41)


def test_vectors_of_another_system_place_users_and_items(tmp_path: Path) -> None:
    config = {"vectors": {"name": "puresvd", "config": {"dim": 4}}, "n_clusters": 4}
    bundle = fit("diag-linucb", DATA, config, seed=3)
    other = fit("puresvd", DATA, {"dim": 4}, seed=3)
    vectors = np.asarray(other.system.items())
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(bundle.system.space.items, vectors / lengths, rtol=1e-5)
    again = fit("diag-linucb", DATA, {**config, "vectors": {"name": "puresvd", "config": {"dim": 4}}}, seed=3)
    np.testing.assert_array_equal(again.system.space.users, bundle.system.space.users)
    assert bundle.config.vectors == SystemRef("puresvd", {"dim": 4})
    bundle.save(tmp_path / "bundle")
    users = DATA.users["user"].head(5).to_list()
    assert Bundle.load(tmp_path / "bundle").recommend(users).equals(bundle.recommend(users))
    with pytest.raises(CapabilityError, match="gives no vectors"):
        fit("diag-linucb", DATA, {"vectors": "popularity"})


def test_a_system_of_gradient_steps_is_fitted_first_and_kept_in_the_run(tmp_path: Path) -> None:
    config = {"vectors": {"name": "bpr-mf", "config": {"dim": 8, "epochs": 2}}, "n_clusters": 4}
    first = fit("linucb", DATA, config, run=tmp_path / "run")
    kept = list((tmp_path / "run" / "systems").iterdir())
    assert len(kept) == 1 and "bpr-mf" in kept[0].name
    second = fit("linucb", DATA, config, run=tmp_path / "run")
    for name, array in first.system.export().items():
        np.testing.assert_array_equal(array, second.system.export()[name])


def test_the_program_says_that_it_fits_another_system() -> None:
    info = find("diag-linucb")
    system = info.cls(info.config(vectors=SystemRef("puresvd")), DATA.schema)
    stage = next(system.program(DATA))
    assert isinstance(stage, Fit) and stage.function == SystemRef("puresvd") and stage.args == (DATA,)


def test_a_damaged_graph_is_refused() -> None:
    system = fitted("diag-linucb", n_clusters=6, width=12)
    state = state_of(system)
    for name, change in (
        ("edges.items", lambda a: np.where(np.arange(len(a)) == 0, 40, a)),
        ("edges.items", lambda a: np.where(np.arange(len(a)) == 0, a[1], a)),
        ("edges.seen", lambda a: -a),
        ("edges.offsets", lambda a: a[:-1]),
        ("centres", lambda a: a * np.nan),
    ):
        fresh = find("diag-linucb").cls(system.config, DATA.schema)
        with pytest.raises(BundleError):
            fresh.restore({**state, name: change(state[name])})
