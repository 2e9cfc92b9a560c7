"""The invented world: what is planted is there, what is true is recoverable, and the same seed is the same world."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.data.build import build
from tastemaker.data.synthetic import Truth, World, synthetic
from tastemaker.data.synthetic import world as world_module
from tastemaker.data.synthetic.catalogue import START_US
from tastemaker.types import ConfigError, Dataset, Jagged, NotFound, Requests, UsageError


@pytest.fixture(scope="module")
def world() -> World:
    return World({"n_users": 2_000})


@pytest.fixture(scope="module")
def data(world: World) -> Dataset:
    return world.dataset()


@pytest.fixture(scope="module")
def truth(world: World) -> Truth:
    return world.truth()


def watches(data: Dataset) -> dict[str, np.ndarray]:
    """Films watched, in order, and the place of each in its user's history."""
    rows = data.interactions().select("user", "item", "time", "value", "session")
    out = {name: rows[name].to_numpy() for name in rows.columns}
    counts = np.bincount(out["user"], minlength=data.n_users)
    out["place"] = np.arange(rows.height) - np.repeat(np.cumsum(counts) - counts, counts)
    return out


def gini(counts: np.ndarray) -> float:
    ranked = np.sort(counts.astype(np.float64))
    n = len(ranked)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ranked / (n * ranked.sum()))


# -- learnable, in the right order


def ndcg(scores: np.ndarray, relevant: np.ndarray, k: int = 10) -> float:
    top = np.argsort(-scores, axis=1)[:, :k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    gained = (np.take_along_axis(relevant, top, axis=1) * discount).sum(axis=1)
    best = np.cumsum(discount)[np.minimum(relevant.sum(axis=1), k).astype(int) - 1]
    return float((gained / best).mean())


def ease(x: np.ndarray, penalty: float = 150.0) -> np.ndarray:
    gram = x.T @ x + penalty * np.eye(x.shape[1])
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return x @ weights


def item_knn(x: np.ndarray, k: int = 100) -> np.ndarray:
    together = x.T @ x
    norm = np.sqrt(np.diag(together)) + 1e-9
    cosine = together / np.outer(norm, norm)
    np.fill_diagonal(cosine, 0)
    return x @ np.where(cosine >= np.sort(cosine, axis=1)[:, [-k]], cosine, 0)


@pytest.mark.parametrize(("n_users", "seed"), [(1_000, 0), (2_000, 1)])
def test_taste_beats_popularity_beats_chance_and_the_truth_beats_all(n_users: int, seed: int) -> None:
    world = World({"n_users": n_users}, seed=seed)
    data, truth = world.dataset(), world.truth()
    w = watches(data)
    held = w["place"] >= np.floor(0.8 * np.bincount(w["user"], minlength=n_users))[w["user"]]
    x, relevant = (np.zeros((n_users, data.n_items)) for _ in range(2))
    x[w["user"][~held], w["item"][~held]] = 1
    relevant[w["user"][held], w["item"][held]] = 1
    assert (relevant.sum(axis=1) > 0).all()
    past = Jagged.from_rows(w["user"][~held], w["item"][~held], n_users)
    now = np.full(n_users, np.iinfo(np.int64).max)
    np.minimum.at(now, w["user"][held], w["time"][held])
    best = truth.score(Requests.of_items(past).with_(users=np.arange(n_users), now=now))
    scores = {
        "random": np.random.default_rng(0).random(x.shape),
        "popularity": np.broadcast_to(x.sum(axis=0), x.shape),
        "knn": item_knn(x),
        "ease": ease(x),
        "truth": best,
    }
    found = {name: ndcg(np.where(x > 0, -np.inf, score), relevant) for name, score in scores.items()}
    assert found["random"] < 0.025
    assert 0.05 < found["popularity"] < 0.10
    assert found["knn"] > 1.4 * found["popularity"]
    assert 0.12 < found["ease"] < 0.20
    assert found["truth"] > 1.25 * found["ease"]


def test_order_pays_exactly_where_it_was_planted() -> None:
    def gain(**effects: float) -> float:
        world = World({"n_users": 1_500, **effects}, seed=1)
        data, w = world.dataset(), watches(world.dataset())
        n = np.bincount(w["user"])
        held = w["place"] == n[w["user"]] - 1
        user, item = w["user"][~held], w["item"][~held]
        x, relevant, moves = (np.zeros(shape) for shape in [(len(n), data.n_items)] * 2 + [(data.n_items,) * 2])
        x[user, item] = 1
        relevant[w["user"][held], w["item"][held]] = 1
        same = user[1:] == user[:-1]
        np.add.at(moves, (item[:-1][same], item[1:][same]), 1)
        last = np.zeros(len(n), dtype=int)
        last[user] = item
        blind = ease(x)
        ordered = blind + (moves / (moves.sum(axis=1, keepdims=True) + 5))[last]
        with_order, without = (ndcg(np.where(x > 0, -np.inf, s), relevant) for s in (ordered, blind))
        return with_order / without

    assert gain() > 1.2
    assert gain(intent=0.0, sequels=0.0) < 1.08


# -- the truth is the truth of the log


def first_watches(data: Dataset, which: int) -> dict[str, np.ndarray]:
    """The first film of each user's session number `which`, where it was not found on a shown list."""
    rows = data.interactions().with_row_index("row")
    first = rows.group_by("session", maintain_order=True).first()
    first = first.with_columns(number=pl.int_range(pl.len()).over("user")).filter(pl.col("number") == which)
    return {name: first[name].to_numpy() for name in ("user", "item", "time")}


@pytest.mark.parametrize("which", [0, 6])
def test_films_are_chosen_with_the_true_chances(which: int) -> None:
    world = World({"n_users": 6_000, "n_items": 300, "impressions": 0.0}, seed=3)
    data, truth = world.dataset(), world.truth()
    first, w = first_watches(data, which), watches(data)
    start = np.full(data.n_users, -1, dtype=np.int64)
    start[first["user"]] = first["time"]
    before = w["time"] < start[w["user"]]
    history = Jagged.from_rows(w["user"][before], w["item"][before], data.n_users).take(first["user"])
    chances = truth.choice(first["user"], first["time"], history)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-9)
    expected, spread = chances.sum(axis=0), np.sqrt((chances * (1 - chances)).sum(axis=0))
    seen = np.bincount(first["item"], minlength=data.n_items)
    often = expected > 4
    z = (seen - expected)[often] / spread[often]
    assert often.sum() > 100
    assert 0.8 < np.mean(z**2) < 1.25, "the frequency of films does not follow the stated chances"
    taken = chances[np.arange(len(first["item"])), first["item"]]
    entropy = -(chances * np.log(np.maximum(chances, 1e-300))).sum(axis=1).mean()
    assert -np.log(taken).mean() == pytest.approx(entropy, abs=0.06), "nor does which user takes which film"


def shown_lists(data: Dataset) -> pl.DataFrame:
    clicked = data.events.filter((pl.col("kind") == "watch") & pl.col("slate").is_not_null())
    clicked = clicked.select("slate", "position", pl.lit(1).alias("clicked"), pl.col("propensity").alias("again"))
    shown = data.events.filter(pl.col("kind") == "impression")
    return shown.join(clicked, on=["slate", "position"], how="left").with_columns(pl.col("clicked").fill_null(0))


def test_clicks_follow_relevance_and_position(data: Dataset, truth: Truth) -> None:
    shown = shown_lists(data)
    user, item, place = (shown[name].to_numpy() for name in ("user", "item", "position"))
    wanted = truth.relevance(user, item[:, None], shown["time"].to_numpy())[:, 0]
    chance = truth.position_bias()[place] * wanted
    clicked = shown["clicked"].to_numpy()
    for group in (place, np.digitize(wanted, [0.02, 0.05, 0.1, 0.2, 0.4, 0.6])):
        expected, seen = np.bincount(group, weights=chance), np.bincount(group, weights=clicked)
        spread = np.sqrt(np.bincount(group, weights=chance * (1 - chance)))
        assert (np.abs(seen - expected) < 4 * spread).all()


def test_position_bias_is_recoverable_from_the_log_alone() -> None:
    world = World({"n_users": 6_000, "n_items": 300, "impressions": 0.8})
    data = world.dataset()
    shown = shown_lists(data).join(
        data.users.with_row_index("number").select(pl.col("number").cast(pl.Int32).alias("user"), "favourite"),
        on="user",
    )
    # The same film at two places for viewers whom the policy cannot tell apart: a rate ratio over such strata.
    cells = shown.group_by("favourite", "item", "position").agg(pl.len().alias("n"), pl.col("clicked").sum())
    top = cells.filter(pl.col("position") == 0)
    for place in (1, 4, 9):
        pair = top.join(cells.filter(pl.col("position") == place), on=["favourite", "item"], suffix="_there")
        n, m = pair["n"].to_numpy().astype(float), pair["n_there"].to_numpy().astype(float)
        ratio = (pair["clicked_there"].to_numpy() * n / (n + m)).sum() / (
            pair["clicked"].to_numpy() * m / (n + m)
        ).sum()
        assert ratio == pytest.approx(world.truth().position_bias()[place], rel=0.12)


def test_logged_propensities_are_those_of_the_policy(data: Dataset, truth: Truth) -> None:
    shown = shown_lists(data)
    slates = shown["slate"].unique(maintain_order=True).to_list()[:3_000]
    shown = shown.filter(pl.col("slate").is_in(slates))
    w = watches(data)
    first = shown.group_by("slate", maintain_order=True).first()
    users, times = first["user"].to_numpy(), first["time"].to_numpy()
    own = [slice(*np.searchsorted(w["user"], [user, user + 1])) for user in users]
    past = [w["item"][rows][w["time"][rows] < now] for rows, now in zip(own, times, strict=True)]
    history = Jagged.from_lists(past, dtype=np.int64)
    policy = truth.policy(users, times, history)
    np.testing.assert_allclose(policy.sum(axis=1), 1.0, atol=1e-9)
    items = np.full((len(users), 10), -1)
    logged = np.zeros((len(users), 10))
    row = np.repeat(np.arange(len(users)), shown.group_by("slate", maintain_order=True).len()["len"].to_numpy())
    items[row, shown["position"]] = shown["item"]
    logged[row, shown["position"]] = shown["propensity"]
    assert (items >= 0).all(), "these lists are whole"
    for place in range(10):
        chance = policy[np.arange(len(users)), items[:, place]]
        np.testing.assert_allclose(logged[:, place], chance, rtol=1e-4)
        expected, spread = policy.sum(axis=0), np.sqrt((policy * (1 - policy)).sum(axis=0))
        z = ((np.bincount(items[:, place], minlength=data.n_items) - expected) / spread)[expected > 3]
        assert 0.8 < np.mean(z**2) < 1.25, "what is shown at this place is not shown as often as it says"
        policy[np.arange(len(users)), items[:, place]] = 0
        policy /= policy.sum(axis=1, keepdims=True)
    again = shown.filter(pl.col("clicked") == 1)
    assert again["propensity"].equals(again["again"].alias("propensity"))


def test_the_ideal_list_is_the_best_of_the_scores(truth: Truth) -> None:
    users, past = np.array([5, 3, 1_999]), Jagged.from_lists([[1, 2], [], [7]], dtype=np.int64)
    best = truth.ideal(users, 20, history=past)
    chance = truth.choice(users, history=past)
    np.testing.assert_allclose(best.scores, -np.sort(-chance, axis=1)[:, :20], rtol=1e-6)
    assert not set(best.items[0]) & {1, 2} and 7 not in best.items[2]
    wanted = truth.ideal(users, 5, by="relevance").items
    np.testing.assert_array_equal(wanted, np.argsort(-truth.relevance(users), axis=1)[:, :5])
    early = truth.ideal(users, truth.n_items, time=0)
    assert (early.items == -1).all(), "nothing is released before the log"
    with pytest.raises(UsageError, match="relevance"):
        truth.ideal(users, 5, by="fame")
    requests = Requests.of_items(past, users=users)
    np.testing.assert_allclose(truth.score(requests), chance, rtol=1e-6)
    np.testing.assert_allclose(truth.score(requests, np.array([4, 9])), chance[:, [4, 9]], rtol=1e-6)
    with pytest.raises(UsageError, match="users"):
        truth.score(Requests.of_items([[1]]))


# -- planted effects, each of which a setting turns off


def follow_rate(world: World) -> tuple[float, float]:
    """How often the sequel comes next after a part, and how often that film would come by its fame."""
    data, following = world.dataset(), world.catalogue.following
    w = watches(data)
    last = np.append(w["user"][1:] != w["user"][:-1], True)
    sequel = following[w["item"]]
    known = (sequel >= 0) & ~last & (world.catalogue.release[sequel] <= w["time"])
    known &= np.append(world.catalogue.release[sequel[:-1]] <= w["time"][1:], False)
    followed = np.append(sequel[:-1] == w["item"][1:], False)
    fame = np.bincount(w["item"], minlength=data.n_items) / len(w["item"])
    return float(followed[known].mean()), float(fame[sequel[known]].mean())


def test_sequels_come_next_and_in_order(world: World, data: Dataset) -> None:
    rate, chance = follow_rate(world)
    assert rate > 0.4 and rate > 50 * chance
    rate_without, _ = follow_rate(World({"n_users": 1_000, "sequels": 0.0}))
    assert rate_without < 0.1
    w = watches(data)
    place = np.full((data.n_users, data.n_items), 10**6)
    place[w["user"], w["item"]] = w["place"]
    parts = np.flatnonzero(world.catalogue.previous >= 0)
    later, earlier = place[:, parts], place[:, world.catalogue.previous[parts]]
    both = (later < 10**6) & (earlier < 10**6)
    assert both.sum() > 500 and (earlier < later)[both].mean() > 0.9


def test_tastes_drift(world: World, data: Dataset, truth: Truth) -> None:
    people, span = truth.people(np.arange(data.n_users)), truth.end - START_US
    early, late = people.tastes(START_US, span), people.tastes(truth.end, span)
    np.testing.assert_allclose(np.linalg.norm(late, axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose((early * late).sum(axis=1), np.cos(people.drift * np.pi / 2), atol=1e-9)
    # What is watched late fits the late taste better than the early one, most so for those who drift.
    w = watches(data)
    late_half = w["time"] > START_US + 0.7 * span
    vectors = world.catalogue.vectors[w["item"]]
    gain = np.einsum("nd,nd->n", vectors, (late - early)[w["user"]])
    changeable = people.drift[w["user"]] > 0.6
    assert gain[late_half & changeable].mean() > 2 * gain[late_half & ~changeable].mean() > 0
    first_days = w["time"] < START_US + 0.3 * span
    assert gain[first_days & changeable].mean() < -0.1
    still = World({"n_users": 200, "drift": 0.0}).truth()
    assert (still.people(np.arange(200)).drift == 0).all()


@pytest.mark.parametrize("texts", ["attributes", "description"])
def test_content_predicts_taste_for_new_films(data: Dataset, texts: str) -> None:
    items, w = data.items, watches(data)
    if texts == "attributes":
        words = items.select(pl.concat_list("genres", "moods")).to_series()
    else:
        words = items["description"].str.to_lowercase().str.extract_all("[a-z]+")
    long = pl.DataFrame({"item": np.arange(data.n_items), "word": words}).explode("word").unique()
    codes = long["word"].rank("dense").to_numpy() - 1
    features = np.zeros((data.n_items, codes.max() + 1))
    features[long["item"].to_numpy(), codes] = 1
    features *= np.log(data.n_items / features.sum(axis=0))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cut = int(np.quantile(w["time"], 0.75))
    new = np.flatnonzero(items["available"].to_numpy() > cut)
    known = w["time"] <= cut
    seen = np.zeros((data.n_users, data.n_items))
    seen[w["user"][known], w["item"][known]] = 1
    profile = seen @ (features - features.mean(axis=0))
    late = ~known & np.isin(w["item"], new) & (profile[w["user"]] != 0).any(axis=1)
    scores = profile[w["user"][late]] @ features[new].T
    own = scores[np.arange(late.sum()), np.searchsorted(new, w["item"][late])]
    beaten = (own[:, None] > scores).mean(axis=1).mean()  # area under the curve; 0.5 by chance
    assert late.sum() > 500 and beaten > (0.68 if texts == "attributes" else 0.6)


def test_thrifty_viewers_pay_less() -> None:
    def slope(price: float) -> float:
        world = World({"n_users": 1_500, "price": price})
        w = watches(world.dataset())
        thrift = World({"n_users": 1_500}).truth().people(np.arange(1_500)).price  # the same viewers in both
        paid = np.log(world.catalogue.price[w["item"]].astype(float))
        mean = np.bincount(w["user"], paid) / np.bincount(w["user"])
        return float(np.corrcoef(thrift, mean)[0, 1])

    assert slope(1.0) < -0.3
    assert abs(slope(0.0)) < 0.1


def test_fame_is_long_tailed_and_apart_from_taste(world: World, data: Dataset, truth: Truth) -> None:
    w = watches(data)
    old = world.catalogue.release < START_US
    counts = np.bincount(w["item"], minlength=data.n_items)[old]
    wanted = truth.relevance(np.arange(500)).mean(axis=0)[old]
    fame = np.log(world.catalogue.weight)[old]
    assert gini(counts) > 0.4
    assert np.corrcoef(np.log1p(counts), fame)[0, 1] > np.corrcoef(np.log1p(counts), np.log(wanted))[0, 1] + 0.1
    assert abs(np.corrcoef(np.log(wanted), fame)[0, 1]) < 0.4
    level = World({"n_users": 1_000, "popularity": 0.0})
    flat = np.bincount(watches(level.dataset())["item"], minlength=level.n_items)[level.catalogue.release < START_US]
    assert gini(flat) < gini(counts) - 0.1


def test_ratings_follow_taste_and_sessions_have_an_intent(data: Dataset, world: World, truth: Truth) -> None:
    w = watches(data)
    assert set(np.unique(w["value"])) == {1, 2, 3, 4, 5}
    some = slice(0, 20_000)
    wanted = truth.relevance(w["user"][some], w["item"][some, None], w["time"][some])[:, 0]
    assert np.corrcoef(np.log(wanted / (1 - wanted)), w["value"][some])[0, 1] > 0.5
    anything = truth.relevance(np.arange(500)).mean()
    assert wanted.mean() > 2 * anything, "what is watched, and so rated, was wanted: ratings are not missing at random"

    def same_genre(data: Dataset, genre: np.ndarray) -> tuple[float, float]:
        w = watches(data)
        next_user = w["user"][1:] == w["user"][:-1]
        inside = next_user & (w["session"][1:] == w["session"][:-1])
        same = genre[w["item"][1:]] == genre[w["item"][:-1]]
        return float(same[inside].mean()), float(same[next_user & ~inside].mean())

    inside, across = same_genre(data, world.catalogue.genre[:, 0])
    assert inside > across + 0.1
    aimless = World({"n_users": 1_000, "intent": 0.0, "sequels": 0.0})
    inside, across = same_genre(aimless.dataset(), aimless.catalogue.genre[:, 0])
    assert abs(inside - across) < 0.03


def test_friends_are_alike(data: Dataset) -> None:
    social = data.edges["social"]
    favourite = dict(zip(data.users["user"], data.users["favourite"], strict=True))
    head, tail = ([favourite[who] for who in social[end]] for end in ("head", "tail"))
    alike = np.mean([a == b for a, b in zip(head, tail, strict=True)])
    by_chance = np.mean([a == b for a, b in zip(head, np.random.default_rng(0).permutation(tail), strict=True)])
    assert 2 < social.height / data.n_users < 10
    assert alike > 2 * by_chance
    assert not social.is_duplicated().any() and (social["head"] != social["tail"]).all()


# -- the same seed is the same world


def test_the_same_seed_gives_the_same_world() -> None:
    one, again, other = (synthetic(200, seed=seed) for seed in (4, 4, 5))
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint and one.items["title"].to_list() != other.items["title"].to_list()


def outside(data: Dataset, users: set[str]) -> pl.DataFrame:
    events = data.events.with_columns(data.user_ids.ids(data.events["user"].to_numpy()).alias("user"))
    return events.filter(pl.col("user").is_in(list(users))).sort("user", "time", maintain_order=True)


def test_more_users_leave_the_first_ones_as_they_are() -> None:
    few, many = (World({"n_users": n, "n_items": 300}, seed=9).dataset() for n in (150, 900))
    first = set(few.users["user"])
    assert outside(few, first).equals(outside(many, first))
    assert few.users.sort("user").equals(many.users.filter(pl.col("user").is_in(list(first))).sort("user"))
    theirs = many.edges["social"].filter(pl.col("head").is_in(list(first)))
    assert few.edges["social"].sort("head", "tail").equals(theirs.sort("head", "tail"))
    assert few.items.equals(many.items)


def test_streamed_equals_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"n_users": 300}, seed=2, name="films")
    whole = world.dataset()
    monkeypatch.setattr(world_module, "ROWS_A_BLOCK", 1_500)  # a dozen users a block
    world.save(tmp_path / "films", truth=tmp_path / "hidden")
    streamed = Dataset.load(tmp_path / "films")
    for name in ("users", "items", "events"):
        assert getattr(streamed, name).equals(getattr(whole, name)), name
        assert getattr(streamed, name).schema == getattr(whole, name).schema
    assert {name: frame.equals(whole.edges[name]) for name, frame in streamed.edges.items()} == {
        "kg": True,
        "social": True,
    }
    assert streamed.fingerprint == whole.fingerprint and streamed.schema == whole.schema
    assert (streamed.notes, streamed.kinds, streamed.name) == (whole.notes, whole.kinds, whole.name)
    assert world.dataset().fingerprint == whole.fingerprint, "nor does the size of a block matter in memory"

    same = World.open(tmp_path / "hidden")
    assert (same.config, same.seed, same.name) == (world.config, world.seed, world.name)
    hidden = pl.read_parquet(tmp_path / "hidden" / "users.parquet")
    assert hidden["user"].equals(whole.users["user"])
    np.testing.assert_array_equal(hidden["late"].to_numpy(), world.truth().people(np.arange(300)).late)
    with pytest.raises(NotFound, match="no truth"):
        World.open(tmp_path / "films")
    written = sorted(str(path.relative_to(tmp_path / "films")) for path in (tmp_path / "films").rglob("*"))
    assert written == [
        "dataset.toml", "edges", "edges/kg.parquet", "edges/social.parquet",
        "events.parquet", "items.parquet", "users.parquet",
    ]  # fmt: skip


def test_an_interrupted_save_leaves_the_old_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"n_users": 60})
    world.save(tmp_path / "films", truth=tmp_path / "hidden")
    before = Dataset.load(tmp_path / "films").fingerprint

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world_module, "simulate", broken)
    with pytest.raises(KeyboardInterrupt):
        World({"n_users": 60}, seed=1).save(tmp_path / "films", truth=tmp_path / "hidden")
    assert Dataset.load(tmp_path / "films").fingerprint == before
    assert World.open(tmp_path / "hidden").seed == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["films", "hidden"]


def test_numbers_are_those_a_build_from_outside_ids_gives() -> None:
    data = synthetic(120)
    ids = {
        "user": data.user_ids.ids(data.events["user"].to_numpy()),
        "item": data.item_ids.ids(data.events["item"].fill_null(-1).to_numpy()),
    }
    events = data.events.with_columns(series.alias(name) for name, series in ids.items())
    shuffled = {"users": data.users.sample(fraction=1, shuffle=True, seed=1), "items": data.items.reverse()}
    built = build(data.name, events, **shuffled, edges=data.edges, time_unit="us")
    assert built.users.select(data.users.columns).equals(data.users)
    assert built.items.select(data.items.columns).equals(data.items)
    assert built.events.select(data.events.columns).equals(data.events)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_users=st.integers(1, 60),
    n_items=st.integers(50, 200),
    events=st.integers(4, 150),
    seed=st.integers(0, 2**40),
    searches=st.sampled_from([0.0, 0.2, 1.0]),
    impressions=st.sampled_from([0.0, 0.3, 1.0]),
    slate_size=st.integers(1, 50),
)
def test_every_log_is_possible(
    n_users: int, n_items: int, events: int, seed: int, searches: float, impressions: float, slate_size: int
) -> None:
    given_settings = {
        "n_users": n_users, "n_items": n_items, "events_per_user": events, "searches": searches,
        "impressions": impressions, "slate_size": slate_size,
    }  # fmt: skip
    data = World(given_settings, seed=seed).dataset()
    log = data.events
    assert (log["user"].n_unique(), data.n_items) == (n_users, n_items)
    watched = log.filter(pl.col("kind") == "watch")
    assert not watched.select("user", "item").is_duplicated().any()
    assert watched["value"].is_in([1.0, 2.0, 3.0, 4.0, 5.0]).all() and watched["item"].null_count() == 0
    released = data.items["available"].to_numpy()
    named = log.filter(pl.col("item").is_not_null())
    assert (released[named["item"].to_numpy()] <= named["time"].to_numpy()).all()
    assert (data.users["available"].to_numpy()[log["user"].to_numpy()] <= log["time"].to_numpy()).all()
    assert log.group_by("session").agg(pl.col("user").n_unique())["user"].max() == 1

    search = (log["kind"] == "search").to_numpy()
    assert log.filter(pl.Series(search))["item"].null_count() == search.sum()
    found = np.flatnonzero(search) + 1
    assert (log["kind"].gather(found) == "watch").all() and log["item"].gather(found).null_count() == 0
    assert log["query"].gather(found).equals(log["query"].gather(found - 1))
    assert log["query"].is_not_null().sum() == 2 * search.sum()
    assert search.any() == (searches > 0) or len(watched) < 100

    assert ("slate" in log.columns) == (impressions > 0)
    if impressions > 0:
        shown = log.filter(pl.col("kind") == "impression")
        assert not shown.select("slate", "item").is_duplicated().any()
        by_slate = shown.group_by("slate").agg(pl.col("position").sort(), pl.len(), pl.col("time").n_unique())
        assert (by_slate["len"] <= slate_size).all() and (by_slate["time"] == 1).all()
        assert all(list(p) == list(range(len(p))) for p in by_slate["position"])
        assert ((shown["propensity"] > 0) & (shown["propensity"] <= 1)).all()
        keys = ["slate", "position", "item", "propensity", "session"]
        clicked = watched.filter(pl.col("slate").is_not_null())
        assert clicked.join(shown, on=keys, how="semi").height == clicked.height


# -- texts, knowledge, and what a dataset may tell


def test_titles_never_repeat_and_texts_tell_attributes() -> None:
    world = World({"n_users": 10, "n_items": 30_000})
    items = world.catalogue.table()
    assert items["title"].n_unique() == 30_000
    assert items["title"].str.len_chars().max() < 60
    assert items["description"].n_unique() > 29_900
    told = items.select(pl.col("description").str.contains(pl.col("maker"), literal=True)).to_series()
    assert told.all()
    assert (items["description"].str.count_matches(r"\.") == 2).all()
    assert not items["description"].str.contains(r"(?i)\ba [aeiou]|\ban [^aeiou]|[{}]|  ").any()


def test_knowledge_agrees_with_the_table(world: World, data: Dataset) -> None:
    graph = data.edges["kg"]
    assert set(graph["relation"]) == {"has_genre", "has_mood", "made_by", "stars", "part_of", "sequel_of"}
    genres = graph.filter(pl.col("relation") == "has_genre").group_by("head").agg("tail").sort("head")
    assert genres["tail"].list.sort().to_list() == data.items.sort("item")["genres"].list.sort().to_list()
    sequel = graph.filter(pl.col("relation") == "sequel_of")
    later, earlier = (data.item_ids.numbers(sequel[end]) for end in ("head", "tail"))
    assert len(later) > 50 and (later > earlier).all()
    for column in ("series", "maker", "year"):
        a, b = data.items[column].gather(later), data.items[column].gather(earlier)
        assert (a >= b).all() if column == "year" else a.equals(b)
    assert (data.items["part"].gather(later) == data.items["part"].gather(earlier) + 1).all()


def test_a_dataset_tells_nothing_of_the_truth(world: World, data: Dataset) -> None:
    assert data.users.columns == ["user", "available", "age", "country", "favourite", "persona"]
    assert data.items.columns == [
        "item", "available", "title", "genres", "moods", "maker", "cast", "series", "part", "year", "minutes", "price",
        "description",
    ]  # fmt: skip
    assert data.events.columns == [
        "user", "item", "time", "kind", "value", "query", "session", "slate", "position", "propensity",
    ]  # fmt: skip
    assert set(vars(data)) <= {
        "name", "users", "items", "events", "edges", "dialogues", "kinds", "time_unit", "notes",
        "user_ids", "item_ids", "schema", "fingerprint",
    }  # fmt: skip
    assert not any("seed" in text for text in (*data.notes, *data.notes.values()))
    assert all(data.kind("items", name) == kind for name, kind in world_module.KINDS["items"].items())


@pytest.mark.parametrize(
    "wrong", [{"n_user": 5}, {"n_users": 0}, {"n_items": 3}, {"searches": 1.5}, {"slate_size": 0}, {"days": "long"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        World(wrong)


# -- posters


def pixels(png: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
    image.verify()
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
    assert image.format == "PNG" and image.size == (160, 240)
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_posters_are_the_same_in_any_process(world: World, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    code = (
        "import sys; from tastemaker.data.synthetic import World; "
        "sys.stdout.buffer.write(World({'n_users': 2_000}).poster(17))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert fresh.stdout == world.poster(17) == world.poster("f000017")
    assert world.poster(18) != world.poster(17)
    paths = world.draw_posters(tmp_path / "posters", [3, 17])
    assert [path.name for path in paths] == ["f000003.png", "f000017.png"]
    assert paths[1].read_bytes() == fresh.stdout
    for wrong in ("f999999", 10**6, -1):
        with pytest.raises(NotFound):
            world.poster(wrong)


def test_posters_tell_the_genre(world: World) -> None:
    pytest.importorskip("PIL")
    genre = world.catalogue.genre[:, 0]
    two = np.argsort(-np.bincount(genre))[:2]
    rows = [np.flatnonzero(genre == g)[:24] for g in two]
    looks = [np.stack([pixels(world.poster(int(i))).mean(axis=(0, 1)) for i in films]) for films in rows]
    looks = [look - look.mean(axis=1, keepdims=True) for look in looks]  # colour, brightness apart
    looks = [look / np.linalg.norm(look, axis=1, keepdims=True) for look in looks]
    centres = [look[:12].mean(axis=0) for look in looks]
    right = [
        np.linalg.norm(look[12:] - own, axis=1) < np.linalg.norm(look[12:] - other, axis=1)
        for look, own, other in zip(looks, centres, centres[::-1], strict=True)
    ]
    assert np.mean(right) > 0.85


@pytest.mark.slow
def test_memory_does_not_grow_with_users(tmp_path: Path) -> None:
    code = (
        "import sys, resource; from tastemaker.data.synthetic import World; "
        "World({'n_users': int(sys.argv[1]), 'n_items': 5_000}).save(sys.argv[2], truth=sys.argv[3]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )

    def peak_mb(n_users: int) -> int:
        call = [sys.executable, "-c", code, str(n_users), str(tmp_path / "films"), str(tmp_path / "hidden")]
        return int(subprocess.run(call, capture_output=True, check=True, timeout=290).stdout)

    small, large = peak_mb(50_000), peak_mb(200_000)
    assert large < 1_200 and large < small + 200
