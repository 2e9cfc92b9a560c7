"""The invented world: what is planted is there, what is true is recoverable, and the same seed is the same world."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tastemaker.data.synthetic import Truth, World
from tastemaker.data.synthetic.catalogue import START_US
from tastemaker.types import Dataset, Jagged, Requests, UsageError


@pytest.fixture(scope="module")
def world() -> World:
    return World(n_users=2_000)


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
    world = World(n_users=n_users, seed=seed)
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
        world = World(n_users=1_500, **effects, seed=1)
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
    world = World(n_users=6_000, n_items=300, impressions=0.0, seed=3)
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
    world = World(n_users=6_000, n_items=300, impressions=0.8)
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
    rate_without, _ = follow_rate(World(n_users=1_000, sequels=0.0))
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
    still = World(n_users=200, drift=0.0).truth()
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
        world = World(n_users=1_500, price=price)
        w = watches(world.dataset())
        thrift = World(n_users=1_500).truth().people(np.arange(1_500)).price  # the same viewers in both
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
    level = World(n_users=1_000, popularity=0.0)
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
    aimless = World(n_users=1_000, intent=0.0, sequels=0.0)
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
