"""Attacks: what profiles hold, what they cost, and how they become users behind the real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tastemaker.audit.arms import ATTACKS, attack_of, attacks_of, defence_of, defences_of
from tastemaker.audit.attacks import Average, Bandwagon, Popular, Random, Segment, draw
from tastemaker.audit.dp import DP, Surrogate, _descend
from tastemaker.audit.poison import Budget, Poisoned, Seen, fake_users, given, poison, unpopular
from tastemaker.data import split, synthetic
from tastemaker.data.sources import get
from tastemaker.feeds import interaction_matrix
from tastemaker.testing.blocks import N_BLOCKS, blocks
from tastemaker.types import ConfigError, DataError, Dataset, NotFound, UsageError

BUDGET = Budget(share=0.1, targets=4, size=20)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return split(synthetic(200, n_items=150, seed=3), "ratio:0.8,0,0.2").train


def fillers(found: Poisoned) -> np.ndarray:
    """[F, m], targets apart."""
    rows = found.profiles.items.values.reshape(len(found.profiles), -1)
    return rows[:, len(found.targets) :]


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_profiles_have_their_size_and_hold_all_targets(name: str, data: Dataset) -> None:
    attack = attack_of("dp:first=2,dim=8" if name == "dp" else name)
    found = poison(data, attack, BUDGET, seed=1)
    n = round(0.1 * Seen.of(data).n_users)
    assert len(found.profiles) == n == found.cost.fake_users and found.cost.events == 20 * n
    assert found.cost.share_of_users == pytest.approx(0.1, abs=0.005)
    assert found.cost.share_of_events == pytest.approx(20 * n / interaction_matrix(data).nnz)
    assert found.cost.knows == attack.knows and found.attack == name
    for row in found.profiles.items:
        assert len(row) == len(set(row.tolist())) == 20 and set(found.targets.tolist()) <= set(row.tolist())
    again, other = (poison(data, attack, BUDGET, seed=seed) for seed in (1, 2))
    assert np.array_equal(again.profiles.items.values, found.profiles.items.values)
    assert again.data.fingerprint == found.data.fingerprint
    assert not np.array_equal(other.profiles.items.values, found.profiles.items.values)


def test_fake_users_stand_behind_the_real_ones_and_are_marked(data: Dataset) -> None:
    found = poison(data, Random(), BUDGET, seed=1)
    after, n = found.data, len(found.profiles)
    assert after.events.head(data.n_events).equals(data.events), "what real users did stays as it was"
    assert after.users.head(data.n_users).equals(data.users) and after.n_users == data.n_users + n
    assert after.items.equals(data.items) and after.user_ids.series.n_unique() == after.n_users
    assert fake_users(after).tolist() == [False] * data.n_users + [True] * n
    assert not fake_users(data).any()
    twice = poison(after, Bandwagon(), BUDGET, seed=1).data
    assert np.array_equal(np.flatnonzero(fake_users(twice)), np.arange(data.n_users, twice.n_users))
    fakes = after.events.filter(pl.col("user") >= data.n_users)
    told = {(u, i) for u, row in enumerate(found.profiles.items, data.n_users) for i in row.tolist()}
    assert set(zip(fakes["user"].to_list(), fakes["item"].to_list(), strict=True)) == told
    assert fakes["time"].is_in(data.interactions()["time"].to_list()).all(), "at times at which things happened"
    assert fakes["kind"].n_unique() == 1 and fakes["kind"][0] in data.events["kind"].unique().to_list()
    assert not set(fakes["session"].to_list()) & set(data.events["session"].to_list())
    per_user = fakes.group_by("user").agg(pl.col("session").n_unique())
    assert (per_user["session"] == 1).all()


def test_ids_of_fake_users_are_new_whatever_ids_are() -> None:
    numbered = blocks(40, 40, 6)
    assert poison(numbered, Random()).data.users["user"].to_list()[-1] == 40
    named = replace(numbered, users=numbered.users.with_columns(pl.format("fake{}", "user").alias("user")))
    assert poison(named, Random()).data.users["user"].to_list()[-1] == "fake-0"


def test_targets_are_unpopular_and_the_same_for_all_attacks(data: Dataset) -> None:
    seen = Seen.of(data)
    aimed = {name: poison(data, attack_of(name), BUDGET, seed=5).targets.tolist() for name in ("random", "segment")}
    assert aimed["random"] == aimed["segment"] and len(set(aimed["random"])) == 4
    tail = np.sort(seen.popularity[seen.popularity > 0])[: int(np.ceil(0.1 * np.count_nonzero(seen.popularity)))]
    assert seen.popularity[aimed["random"]].max() <= tail[-1] and seen.popularity[aimed["random"]].min() >= 1
    drawn = {tuple(unpopular(seen, BUDGET, seed)) for seed in range(5)}
    assert len(drawn) > 1, "another seed aims at other items"


def test_fillers_are_drawn_as_each_attack_says(data: Dataset) -> None:
    """Share of fillers among the tenth of items that is most popular; and how popular fillers are on average."""
    seen, wide = Seen.of(data), replace(BUDGET, share=1.0)
    top = np.argsort(-seen.popularity, kind="stable")[:15]
    shares, means = {}, {}
    for attack in (Random(), Average(), Bandwagon(), Popular(head=0.2)):
        found = fillers(poison(data, attack, wide, seed=0))
        shares[attack.name], means[attack.name] = np.isin(found, top).mean(), seen.popularity[found].mean()
    assert shares["random"] == pytest.approx(0.1, abs=0.02)
    assert means["random"] == pytest.approx(seen.popularity.mean(), rel=0.05)
    assert shares["bandwagon"] == pytest.approx(0.5 + 0.5 * 7 / 139, abs=0.04)  # half, and of what is left by chance
    by_popularity = (seen.popularity**2).sum() / seen.popularity.sum()
    assert means["average"] == pytest.approx(by_popularity, rel=0.1)
    popular = fillers(poison(data, Popular(head=0.2), wide, seed=0))
    assert np.isin(popular, np.argsort(-seen.popularity, kind="stable")[:30]).all()


def test_fillers_are_as_popular_as_those_of_the_authors_files(shared_data: Path) -> None:
    """In the profiles VAT's authors published for Gowalla, .10 (random) and .53 (bandwagon) of fillers are popular."""
    data = get("gowalla", folder=shared_data / "gowalla")
    seen = Seen.of(data)
    top = np.argsort(-seen.popularity, kind="stable")[: data.n_items // 10]
    for attack, published in ((Random(), 0.10), (Bandwagon(), 0.53)):
        found = poison(data, attack)
        assert np.isin(fillers(found), top).mean() == pytest.approx(published, abs=0.02)
        assert (seen.popularity[found.targets] == 10).all(), "as theirs, the least popular items of this data"
        assert found.cost.fake_users in range(295, 301)


def test_a_segment_is_what_goes_with_one_popular_item() -> None:
    """In a world of blocks, what goes with an item is its block."""
    data = blocks(200, 120, 12)
    found = poison(data, Segment(width=10), Budget(share=0.05, size=13), seed=4)
    inside = fillers(found)[:, :4]
    of = data.items["item"].to_numpy()[inside] % N_BLOCKS
    assert (of == of[0, 0]).all() and len(np.unique(inside)) <= 10
    outside = data.items["item"].to_numpy()[fillers(found)[:, 4:]] % N_BLOCKS
    assert len(np.unique(outside)) > 1


def test_values_say_what_each_attack_wants(data: Dataset) -> None:
    ratings = Seen.of(data).ratings
    assert ratings is not None and ratings.whole and (ratings.low, ratings.high) == (1, 5)
    wide = replace(BUDGET, share=1.0)

    def values(found: Poisoned) -> np.ndarray:
        assert found.profiles.values is not None
        return found.profiles.values.reshape(len(found.profiles), -1)

    for name in ("random", "average", "popular", "bandwagon", "segment"):
        told = values(poison(data, attack_of(name), wide, seed=0))
        assert (told[:, :4] == 5).all(), "targets get the highest value"
        assert set(np.unique(told)) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    of_random = values(poison(data, Random(), wide, seed=0))[:, 4:]
    assert of_random.mean() == pytest.approx(ratings.mean, abs=0.15)
    average = poison(data, Average(), wide, seed=0)
    assert np.array_equal(values(average)[:, 4:], np.round(ratings.of_items[fillers(average)]))
    assert (values(poison(data, Popular(), wide, seed=0)) == 5).all()
    segment = values(poison(data, Segment(), wide, seed=0))[:, 4:]
    assert (segment[:, :8] == 5).all() and (segment[:, 8:] == 1).all()
    counted = data.with_events(data.events.drop("value"))
    assert poison(counted, Average(), BUDGET).profiles.values is None


def test_draws_follow_the_weights_and_never_repeat() -> None:
    weights = np.array([0.0, 1, 2, 3, 4, 0.0])
    one = draw(weights, 20_000, 1, np.random.default_rng(0))[:, 0]
    assert np.bincount(one, minlength=6) / len(one) == pytest.approx(weights / 10, abs=0.015)
    several = draw(weights, 50, 4, np.random.default_rng(0))
    assert (np.sort(several, axis=1) == [1, 2, 3, 4]).all()
    assert draw(weights, 3, 0, np.random.default_rng(0)).shape == (3, 0)
    with pytest.raises(UsageError, match="among 4 items"):
        draw(weights, 1, 5, np.random.default_rng(0))


def test_dp_takes_all_items_before_it_takes_one_again() -> None:
    """With a decay that outweighs any score, fillers of fakes are disjoint until every item was taken."""
    data = blocks(60, 61, 8)
    found = poison(data, DP(decay=0.01, first=2, dim=8), Budget(share=0.12, targets=1, size=11), seed=0)
    rows = fillers(found)
    assert rows.shape == (7, 10)
    assert len(np.unique(rows[:6])) == 60, "six fakes of ten fillers take the sixty items, each once"
    assert len(np.unique(rows[6])) == 10, "then the probabilities begin anew"


def test_dp_pushes_targets_into_lists() -> None:
    """A step down the hinge lowers it; and with it, the surrogate gives real users the targets more often."""
    data = blocks(120, 60, 8)
    matrix, targets, rng = interaction_matrix(data), np.array([3, 10]), np.random.default_rng(0)
    n = data.n_users

    def hinge(model: Surrogate) -> float:
        scores = model.users @ model.items.T
        at = scores[:, targets]
        own = matrix.toarray()[:, targets] > 0
        scores[matrix.nonzero()] = -np.inf
        bar = np.sort(scores, axis=1)[:, -10]
        return float(np.where(own, 0, np.maximum(0, bar[:, None] - at)).sum())

    model = Surrogate(n, data.n_items, DP(k=10, lr=1e-3), targets, rng)
    before = hinge(model)
    model._push(matrix, np.arange(n))
    assert before > 0 and hinge(model) < before
    ends = []
    for weight in (0.0, 1.0):
        model = Surrogate(n, data.n_items, DP(k=10, dim=8, hinge=weight), targets, np.random.default_rng(1))
        model.train(matrix, n, 15)
        ends.append(hinge(model))
    assert ends[1] < 0.5 * ends[0]


def test_steps_of_a_row_add_up() -> None:
    rng = np.random.default_rng(0)
    table, rows, steps = rng.random((5, 3)), rng.integers(0, 5, 40), rng.random((40, 3))
    wanted = table.copy()
    np.subtract.at(wanted, rows, steps)
    _descend(table, rows, steps)
    np.testing.assert_allclose(table, wanted, rtol=1e-12)


def test_profiles_are_written_and_read(data: Dataset, tmp_path: Path) -> None:
    found = poison(data, Bandwagon(), BUDGET, seed=3)
    read = given(found.save(tmp_path / "bandwagon.json"), data)
    assert np.array_equal(read.targets, found.targets) and read.cost.events == found.cost.events
    assert read.profiles.items == found.profiles.items
    assert interaction_matrix(read.data).nnz == interaction_matrix(found.data).nnz
    (tmp_path / "bad.json").write_text('{"target_items": ["no such item"], "fake_users": {}}')
    with pytest.raises(DataError, match="does not have"):
        given(tmp_path / "bad.json", data)
    (tmp_path / "worse.json").write_text("[]")
    with pytest.raises(DataError, match="does not hold"):
        given(tmp_path / "worse.json", data)


def test_what_does_not_fit_is_refused(data: Dataset) -> None:
    with pytest.raises(UsageError, match="holds 4 targets"):
        poison(data, Random(), Budget(targets=4, size=3))
    with pytest.raises(UsageError, match="item numbers"):
        poison(data, Random(), targets=[data.n_items])
    with pytest.raises(UsageError, match="as many items"):
        poison(data, Random(), Budget(targets=1000))
    with pytest.raises(NotFound, match="bandwagon"):
        attack_of("bandwagonn")
    with pytest.raises(ConfigError, match="popular"):
        attack_of("bandwagon:popular=2")
    with pytest.raises(UsageError, match="NAME=VALUE"):
        attack_of("bandwagon:0.5")
    with pytest.raises(UsageError, match="twice"):
        attacks_of(["random", "random"])
    assert attack_of("bandwagon:popular=0.3,head=0.2") == Bandwagon(0.3, 0.2)
    assert defence_of("apr:epsilon=0.1+vat:magnitude=uniform") == {
        "apr": {"epsilon": 0.1},
        "vat": {"magnitude": "uniform"},
    }
    with pytest.raises(NotFound, match="transform"):
        defence_of("vatt")
    with pytest.raises(ConfigError, match="magnitude"):
        defences_of({"even": {"vat": {"magnitude": "even"}}})
