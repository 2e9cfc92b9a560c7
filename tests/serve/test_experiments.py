"""Experiments from assignment to verdict: who gets which arm, whose click counts for whom, and what the log proves."""

from __future__ import annotations

import json
import math
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tastemaker.serve.analysis import Result, analyse
from tastemaker.serve.experiments import MIXED, Experiment, Experiments, Metric, assign, read_experiment, uniforms
from tastemaker.serve.interleave import credit, interleaved, overlap, team_draft
from tastemaker.serve.shadows import shadow_trace
from tastemaker.serve.verdicts import advise, promote, roll_back
from tastemaker.types import ConfigError, NotFound, Slates, UsageError, generator, request_seeds

SECOND = 1_000_000
ALPHA = 0.05


def make(name: str = "trial", **more: Any) -> Experiment:
    arms = more.pop("arms", {"old": {"serve": "home"}, "new": {"serve": "home-new"}})
    return read_experiment({"name": name, "arms": arms, "control": "old", "window": 60.0, **more})


# -- what an experiment is


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"arms": {"old": {"serve": "a"}}}, "2 to 5 arms, got 1"),
        ({"control": "older"}, "'older' is not among the arms new, old"),
        ({"arms": {"old": {"serve": "a", "share": 0.5}, "new": {"serve": "b", "share": 0.4}}}, "add up to 1, got 0.9"),
        ({"arms": {"old": {"serve": "a", "share": 0.5}, "new": {"serve": "b"}}}, "every arm a share, or none"),
        ({"arms": {"old": {"serve": "a", "share": 0.5}, "new": {"serve": "b", "share": 0.5}}, "kind": "shadow"},
         "shares are for kind 'ab'"),
        ({"arms": {"old": {"serve": "a"}, "mixed": {"serve": "b"}}}, "name the arm otherwise"),
        ({"kind": "interleave", "guardrails": [{"event": "hide"}]}, "guardrails need kind 'ab'"),
        ({"kind": "interleave", "primary": {"per": "user"}}, "count or value per list"),
        ({"kind": "interleave", "primary": {"detect": 0.6}}, "at most 0.5"),
        ({"unit": "session", "primary": {"per": "user"}}, "needs the unit 'user'"),
        ({"guardrails": [{"event": "click"}]}, "named once"),
        ({"state": "running"}, "started=None"),
        ({"trafic": 0.5}, "did you mean 'traffic'"),
        ({"traffic": 1.5}, "trial, traffic"),
        ({"primary": {"event": "a.b", "of": "trace"}}, "letters, digits and _"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**more)
    assert says in str(caught.value)


def test_an_experiment_survives_json_and_the_order_of_its_arms() -> None:
    one = make(arms={"old": {"serve": "a", "share": 0.7}, "new": {"serve": "b", "share": 0.3}}, salt="s")
    turned = make(arms={"new": {"serve": "b", "share": 0.3}, "old": {"serve": "a", "share": 0.7}}, salt="s")
    assert read_experiment(json.loads(one.model_dump_json())) == one == turned
    assert one.names == ("new", "old") and one.surface == "a" and one.others == ("new",)
    users = np.arange(500)
    np.testing.assert_array_equal(assign(users, one), assign(users, turned))
    assert Metric().name == "click/list" and Metric(event="buy", of="value", per="user").name == "buy.value/user"


def test_its_life_goes_one_way() -> None:
    draft = make()
    running = draft.start(5)
    stopped = running.stop(9)
    assert (stopped.state, stopped.started, stopped.stopped) == ("stopped", 5, 9)
    for wrong in (lambda: running.start(6), lambda: draft.stop(6), lambda: stopped.start(10), lambda: stopped.stop(10)):
        with pytest.raises(UsageError):
            wrong()


# -- who gets which arm


def test_arms_come_in_their_shares() -> None:
    one = make(arms={"old": {"serve": "a", "share": 0.5}, "new": {"serve": "b", "share": 0.2},
                     "third": {"serve": "c", "share": 0.3}}, traffic=0.6)  # fmt: skip
    found = assign(pl.Series([f"user-{u}" for u in range(100_000)]), one)
    counts = np.bincount(found + 1, minlength=4)
    wanted = 100_000 * np.r_[0.4, 0.6 * np.array([0.2, 0.5, 0.3])]
    assert one.names == ("new", "old", "third")
    assert stats.chisquare(counts, wanted).pvalue > 1e-3


@pytest.mark.parametrize("ids", ["u{}", "{}", "0000-{}-a-long-identifier-of-a-device"])
def test_the_numbers_are_uniform_and_independent(ids: str) -> None:
    units = [ids.format(u) for u in range(100_000)]
    first, second = uniforms(units, make(salt="one").key), uniforms(units, make(salt="two").key)
    for u in (*first, *second):
        assert stats.chisquare(np.bincount((u * 100).astype(int), minlength=100)).pvalue > 1e-3
    for a, b in combinations((*first, *second), 2):  # traffic and arm, and two experiments
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(100_000)
        cells = np.bincount((a * 10).astype(int) * 10 + (b * 10).astype(int), minlength=100)
        assert stats.chisquare(cells).pvalue > 1e-3


def test_two_experiments_deal_the_same_users_independently() -> None:
    users = np.arange(100_000)
    one, other = (assign(users, make(name)) for name in ("first", "second"))
    table = np.bincount(one * 2 + other, minlength=4).reshape(2, 2)
    assert stats.chi2_contingency(table).pvalue > 1e-3
    again = assign(users, make("renamed", salt="first"))
    np.testing.assert_array_equal(one, again)  # the salt decides, by default the name


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.text(max_size=8))
def test_who_was_in_stays_in_as_traffic_grows(less: float, more: float, salt: str) -> None:
    less, more = sorted((less, more))
    users = np.arange(400)
    before, after = (assign(users, make(traffic=share, salt=salt)) for share in (less, more))
    np.testing.assert_array_equal(after[before >= 0], before[before >= 0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=20))
def test_a_batch_is_what_its_units_are_alone(units: list[str]) -> None:
    one = make(traffic=0.7)
    np.testing.assert_array_equal(assign(units, one), [assign(unit, one)[0] for unit in units])


def test_ids_of_all_kinds() -> None:
    one = make()
    np.testing.assert_array_equal(assign([17, 18], one), assign(["17", "18"], one))
    np.testing.assert_array_equal(assign(17, one), assign(np.array([17], dtype=np.int32), one))
    assert assign(["a", None], one)[1] == -1 and assign([None], one)[0] == -1 and len(assign([], one)) == 0
    two = uniforms(["ab", "ab\0", "a", "b", ""], 1)
    assert len(np.unique(two[0])) == 5
    with pytest.raises(UsageError, match="texts or whole numbers"):
        assign([1.5], one)
    with pytest.raises(UsageError, match="texts or whole numbers"):
        assign([b"a"], one)


def test_the_assignment_is_frozen() -> None:
    """Another hash would deal everybody anew in the middle of an experiment."""
    one = make(salt="frozen")
    assert "".join(map(str, assign([f"u{i}" for i in range(24)], one))) == FROZEN


FROZEN = "100111010001100010100110"


# -- the registry


def test_one_experiment_a_surface() -> None:
    first, second = make("first").start(1), make("second").start(2)
    elsewhere = make("elsewhere", arms={"old": {"serve": "search"}, "new": {"serve": "home-new"}}).start(3)
    registry = Experiments([first, make("draft"), elsewhere])
    assert {one.name for one in registry.running} == {"first", "elsewhere"}
    assert registry.serves == {"home", "home-new", "search"} and len(registry) == 3
    with pytest.raises(ConfigError, match="first and second both run on 'home'"):
        registry.add(second)
    freed = registry.replace(first.stop(9)).add(second)
    assert freed.on("home") == second and registry.on("home") == first  # a change makes a new registry
    with pytest.raises(NotFound, match="firsst"):
        registry["firsst"]
    with pytest.raises(ConfigError, match="two experiments of the name"):
        registry.add(make("draft"))
    with pytest.raises(UsageError, match="is running"):
        registry.without("first")
    assert "draft" not in registry.without("draft")


def test_what_runs_changes_in_its_traffic_alone() -> None:
    one = make("one", traffic=0.1).start(1)
    registry = Experiments([one, make("draft")])
    assert registry.replace(one.with_traffic(0.5))["one"].traffic == 0.5
    assert registry.replace(make("draft", alpha=0.01))["draft"].alpha == 0.01
    other = make("one", traffic=0.1, salt="other").start(1)
    with pytest.raises(UsageError, match="salt can no longer change"):
        registry.replace(other)
    with pytest.raises(UsageError, match="anew"):
        registry.replace(make("one", traffic=0.1))
    stopped = registry.replace(one.stop(5))
    with pytest.raises(UsageError, match="anew"):
        stopped.replace(one)


def test_the_registry_on_disk(tmp_path: Path) -> None:
    registry = Experiments([make("a").start(1), make("b", kind="interleave", unit="request")])
    registry.write(tmp_path / "e.json")
    assert dict(Experiments.read(tmp_path / "e.json")) == dict(registry)
    assert len(Experiments.read(tmp_path / "none.json")) == 0
    for text, says in (("{", "not JSON"), ("{}", "a list of experiments"), ('[{"name": "x"}]', "experiment x, arms")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match=says):
            Experiments.read(tmp_path / "bad.json")


def test_decisions() -> None:
    one = make("one", traffic=0.5).start(1)
    registry = Experiments([one])
    found = {u: registry.decide("home", user=u) for u in range(200)}
    for user, decided in found.items():
        number = assign(user, one)[0]
        if number < 0:
            assert decided is None
        else:
            assert decided is not None and decided.arm == one.names[number]
            assert dict(decided.shown) == {decided.arm: one.arms[decided.arm].serve} and not decided.unseen
            assert (decided.experiment, decided.kind, decided.unit) == ("one", "ab", str(user))
    assert {None if d is None else d.arm for d in found.values()} == {None, "old", "new"}
    assert registry.decide("elsewhere", user=1) is None
    assert registry.decide("home", session="s", request="r") is None  # a visitor without an id is no unit
    mixed = Experiments([make("m", kind="interleave", unit="request").start(1)]).decide("home", request="r1")
    assert (
        mixed is not None and mixed.arm == MIXED and list(mixed.shown.items()) == [("new", "home-new"), ("old", "home")]
    )
    shadow = Experiments([make("s", kind="shadow", unit="session").start(1)]).decide("home", session="s1")
    assert shadow is not None and shadow.arm == "old"
    assert dict(shadow.shown) == {"old": "home"} and dict(shadow.unseen) == {"new": "home-new"}


# -- interleaving


def lists_of(rows: Any) -> Slates:
    width = max(1, *(len(row) for row in rows))
    items = np.full((len(rows), width), -1, dtype=np.int32)
    for b, row in enumerate(rows):
        items[b, : len(row)] = row
    return Slates(items, np.where(items >= 0, -np.arange(width), -np.inf))


def by_hand(lists: list[list[int]], k: int, orders: list[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """Team draft as the paper tells it, with given orders of the rounds."""
    dealt: list[int] = []
    teams: list[int] = []
    for order in orders:
        for arm in order:
            left = [item for item in lists[arm] if item not in dealt]
            if left and len(dealt) < k:
                dealt.append(left[0])
                teams.append(arm)
    return dealt, teams


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lists_that_are_dealt_are_lists_that_can_be_dealt(data: st.DataObject) -> None:
    n_arms, length, k = data.draw(st.integers(2, 3)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 7))
    pool = st.lists(st.integers(0, 8), min_size=length, max_size=length, unique=True)
    lists = [data.draw(pool) for _ in range(n_arms)]
    slates, teams = team_draft([lists_of([one]) for one in lists], k, np.array([data.draw(st.integers(0, 2**63))]))
    items, owners = slates.items[0], teams[0]
    n = int((items >= 0).sum())
    assert len(set(items[:n])) == n == min(k, len(set().union(*lists)))
    assert (owners[n:] == -1).all()
    credited = int((owners >= 0).sum())
    assert (owners[:credited] >= 0).all()  # nobody's slots come last
    for prefix in range(credited + 1):
        counts = np.bincount(owners[:prefix], minlength=n_arms)
        assert counts.max() - counts.min() <= 1
        if prefix % n_arms == 0:
            assert counts.max() == counts.min()
    rounds = -(-credited // n_arms)
    possible = [by_hand(lists, credited, list(orders))
                for orders in _products(list(permutations(range(n_arms))), rounds)]  # fmt: skip
    assert (items[:credited].tolist(), owners[:credited].tolist()) in possible


def _products(orders: list[tuple[int, ...]], n: int) -> list[list[tuple[int, ...]]]:
    found: list[list[tuple[int, ...]]] = [[]]
    for _ in range(n):
        found = [[*one, order] for one in found for order in orders]
    return found


def test_logp_is_how_often_a_list_comes() -> None:
    """Over 60,000 draws each list comes as often as its slots' probabilities say, and they add up to 1."""
    n = 60_000
    for lists, k in (([[0, 1, 2, 3], [2, 0, 4, 1]], 4), ([[0, 1, 2], [0, 2, 1], [1, 0, 3]], 3), ([[0, 1], [1, 2]], 3)):
        slates, _ = team_draft([lists_of([one] * n) for one in lists], k, request_seeds(n, 7))
        whole = np.exp(slates.logp.sum(axis=1))
        shown, index, counts = np.unique(slates.items, axis=0, return_index=True, return_counts=True)
        assert whole[index].sum() == pytest.approx(1.0, abs=1e-5) and len(shown) > 1
        assert stats.chisquare(counts, whole[index] / whole[index].sum() * n).pvalue > 1e-3


def test_batch_equals_single_and_seeds_decide() -> None:
    rng = np.random.default_rng(0)
    arms = [lists_of([rng.permutation(30)[:8] for _ in range(50)]) for _ in range(3)]
    seeds = request_seeds(50, 1)
    slates, teams = team_draft(arms, 6, seeds)
    for b in range(50):
        alone, own = team_draft([arm.take(slice(b, b + 1)) for arm in arms], 6, seeds[b : b + 1])
        np.testing.assert_array_equal(alone.items[0], slates.items[b])
        np.testing.assert_array_equal(own[0], teams[b])
        np.testing.assert_array_equal(alone.scores[0], slates.scores[b])
    other, _ = team_draft(arms, 6, request_seeds(50, 2))
    assert (other.items != slates.items).any()
    own_place = [
        (arms[t].items[b] == i).argmax() for b in range(50) for i, t in zip(slates.items[b], teams[b], strict=True)
    ]
    np.testing.assert_array_equal(slates.scores.ravel(), -np.array(own_place))  # the score its own arm gave


def test_the_same_list_twice_is_a_fair_coin() -> None:
    n = 40_000
    same = lists_of([[5, 3, 8, 1]] * n)
    slates, teams = team_draft([same, same], 4, request_seeds(n, 3))
    assert (slates.items == same.items).all() and (slates.logp == 0).all()
    assert stats.binomtest(int((teams[:, 0] == 0).sum()), n).pvalue > 1e-3
    assert stats.binomtest(int((teams[:, 2] == 0).sum()), n).pvalue > 1e-3
    assert abs(np.corrcoef(teams[:, 0], teams[:, 2])[0, 1]) < 4 / np.sqrt(n)  # each round tosses anew
    assert (teams[:, 0] != teams[:, 1]).all()


@pytest.mark.parametrize("lengths", [(10, 10), (10, 3), (2, 1), (10, 10, 10), (10, 4, 7)])
@pytest.mark.parametrize("k", [10, 7])
def test_clicks_at_random_favour_nobody(lengths: tuple[int, ...], k: int) -> None:
    """Clicks that depend on place and item but not on who picked: every arm earns the same, short lists or not."""
    rng = np.random.default_rng(sum(lengths) + k)
    n = 30_000
    arms = [lists_of(np.argsort(rng.random((n, 14)), axis=1)[:, :length]) for length in lengths]
    slates, teams = team_draft(arms, k, request_seeds(n, 11))
    clicks = (rng.random((n, k)) < (np.arange(k) + 1.0) ** -0.7 * (0.2 + slates.items / 20)) & (slates.items >= 0)
    earned = credit(teams, clicks, len(arms))
    for a, b in combinations(range(len(arms)), 2):
        gap = earned[:, a] - earned[:, b]
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(n)
        wins, losses = int((gap > 0).sum()), int((gap < 0).sum())
        assert wins + losses == 0 or stats.binomtest(wins, wins + losses).pvalue > 1e-3
    assert (teams[:, : min(lengths)] >= 0).any() or min(lengths) < 2


def test_the_arm_that_users_like_wins() -> None:
    rng = np.random.default_rng(5)
    n = 3000
    liked = rng.random((n, 20))
    good, bad = (lists_of(np.argsort(-liked - noise * rng.random((n, 20)), axis=1)[:, :8]) for noise in (0.2, 3.0))
    slates, teams = team_draft([good, bad], 8, request_seeds(n, 1))
    clicks = rng.random((n, 8)) < np.take_along_axis(liked, slates.items, 1) ** 3
    earned = credit(teams, clicks, 2)
    assert (earned[:, 0] > earned[:, 1]).sum() > 1.15 * (earned[:, 0] < earned[:, 1]).sum()
    assert earned.sum() == clicks.sum()


def test_interleaving_by_id_is_team_draft() -> None:
    lists = [["a", "b", "c", "d"], ["c", 7, "a", "x"]]
    numbers = {"a": 0, "b": 1, "c": 2, "d": 3, 7: 4, "x": 5}
    for seed in (0, 1, 2**64 - 1, 12345):
        items, teams, source, logp = interleaved(lists, 4, seed)
        slates, owners = team_draft([lists_of([[numbers[i] for i in one]]) for one in lists], 4,
                                    np.array([seed], dtype=np.uint64))  # fmt: skip
        assert [numbers[i] for i in items] == slates.items[0].tolist() and teams == owners[0].tolist()
        assert [lists[arm][place] for arm, place in source] == items
        np.testing.assert_allclose(logp, slates.logp[0])
    short = interleaved([["a"], ["b", "c"]], 5, 1)
    assert sorted(short[0]) == ["a", "b", "c"] and short[1][2] == -1 and interleaved([[], []], 3, 1)[0] == []
    with pytest.raises(UsageError, match="2 to 5 arms"):
        interleaved([["a"]], 3, 1)
    with pytest.raises(UsageError, match="same requests"):
        team_draft([lists_of([[1]]), lists_of([[1], [2]])], 3, request_seeds(1, 0))
    with pytest.raises(UsageError, match="k = 0"):
        team_draft([lists_of([[1]])] * 2, 0, request_seeds(1, 0))


# -- unseen lists


def rbo_by_hand(left: list[int], right: list[int], p: float) -> float:
    """Equation 32 of Webber, Moffat, Zobel, term by term."""
    short, long = sorted((left, right), key=len)
    s, n = len(short), len(long)
    x = [0] + [len(set(short[:d]) & set(long[:d])) for d in range(1, n + 1)]
    total = sum(x[d] / d * p**d for d in range(1, n + 1))
    total += sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * total + ((x[n] - x[s]) / n + x[s] / s) * p**n


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=9, unique=True),
       st.lists(st.integers(0, 12), min_size=1, max_size=9, unique=True), st.floats(0.3, 0.98))  # fmt: skip
def test_overlap_is_what_the_paper_says(left: list[int], right: list[int], p: float) -> None:
    found = overlap(lists_of([left]).items, lists_of([right]).items, k=5, persistence=p)
    assert found.rbo[0] == pytest.approx(rbo_by_hand(left, right, p), abs=1e-9)
    a, b = set(left[:5]), set(right[:5])
    assert found.jaccard[0] == pytest.approx(len(a & b) / len(a | b)) and found.first[0] == (left[0] == right[0])
    back = overlap(lists_of([right]).items, lists_of([left]).items, k=5, persistence=p)
    assert back.rbo[0] == pytest.approx(found.rbo[0])


def test_overlap_at_its_ends() -> None:
    one = lists_of([[1, 2, 3], [1, 2, 3], [], []]).items
    other = lists_of([[1, 2, 3], [4, 5, 6], [1], []]).items
    found = overlap(one, other)
    np.testing.assert_allclose(found.rbo, [1.0, 0.0, 0.0, np.nan], atol=1e-12)
    np.testing.assert_allclose(found.jaccard, [1.0, 0.0, 0.0, np.nan])
    top, tail = (overlap(np.array([[1, 2, 3, 4]]), np.array([row])).rbo[0] for row in ([2, 1, 3, 4], [1, 2, 4, 3]))
    assert top < tail < 1.0  # the top counts most


# -- from the log to a verdict


class Log:
    """Tables as the log has them, written row by row."""

    def __init__(self, experiment: str = "trial") -> None:
        self.experiment = experiment
        self.slates: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def show(self, user: Any, arm: str, time: float, items: Any = ("a", "b", "c"), **more: Any) -> str:
        slate = more.pop("slate", f"s{len(self.slates)}")
        row = {"slate": slate, "time": round(time * SECOND), "user": user, "session": None,
               "experiment": self.experiment, "arm": arm, "items": list(items), "trace": "{}", **more}  # fmt: skip
        self.slates.append(row)
        return slate

    def tell(self, slate: str | None, time: float, item: str | None = "a", kind: str = "click", **more: Any) -> None:
        self.events.append({"id": len(self.events), "time": round(time * SECOND), "kind": kind, "user": None,
                            "item": item, "value": None, "slate": slate, **more})  # fmt: skip

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        events = pl.DataFrame(self.events, schema={"id": pl.Int64, "time": pl.Int64, "kind": pl.String,
            "user": pl.String, "item": pl.String, "value": pl.Float64, "slate": pl.String})  # fmt: skip
        slates = pl.DataFrame(self.slates, schema={"slate": pl.String, "time": pl.Int64, "user": pl.String,
            "session": pl.String, "experiment": pl.String, "arm": pl.String, "items": pl.List(pl.String),
            "trace": pl.String})  # fmt: skip
        return events, slates

    def analyse(self, one: Experiment, now: float) -> Result:
        return analyse(one, *self.frames(), now=round(now * SECOND))


def totals(result: Result) -> dict[str, tuple[int, int, float]]:
    return {arm.arm: (arm.units, arm.lists, arm.total) for arm in result.arms}


def test_what_counts_and_what_does_not() -> None:
    one = make(most_lists=3, primary={"of": "count"}).start(0)
    log = Log()
    first = log.show("u1", "new", 10)
    log.tell(first, 12)
    log.tell(first, 13)  # the same item again
    log.tell(first, 14, item="b")
    log.tell(first, 71)  # after the window
    log.tell(first, 9, item="c")  # before the list
    log.tell(first, 15, item="z")  # on an item that is not there
    log.tell(first, 16, kind="view")
    log.tell("s99", 16)  # of a list that nobody saw
    log.tell(None, 16)
    log.events.append(log.events[0])  # a replay
    second = log.show("u2", "old", 20)
    log.tell(second, 21, item=None)  # on the list as a whole
    log.show("u2", "old", 30)
    log.show(None, "old", 30)  # nobody
    log.show("u3", "elsewhere", 30)  # an arm that is none
    for t in range(40, 45):
        log.show("u4", "old", t)  # three count
    log.show("u5", "old", 90)  # its window is open
    log.show("u6", "old", 50)
    log.show("u6", "new", 51)  # in two arms
    log.show("u7", "new", -5)  # before the start
    log.show("u1", "new", 55, trace='{"shadow": true}')
    result = log.analyse(one, 120)
    assert totals(result) == {"new": (1, 1, 2.0), "old": (2, 5, 1.0)}
    assert result.left_out == {"without a unit": 1, "of units in several arms": 2, "beyond most_lists of a unit": 2,
                               "still in their window": 1}  # fmt: skip
    assert any("several arms" in w for w in result.warnings) and any("a clock" in w for w in result.warnings)
    assert result.verdict == "not yet" and result.best is None
    later = log.analyse(one, 150)
    assert totals(later)["old"] == (3, 6, 1.0)


def test_what_a_metric_amounts_to() -> None:
    log = Log()
    for user, arm, value in (("u1", "new", 4.0), ("u2", "old", 1.5)):
        slate = log.show(user, arm, 1, trace=json.dumps({"latency_ms": 10 * value}))
        log.tell(slate, 2, value=value)
        log.tell(slate, 3, item="b", value=math.inf)
        log.tell(slate, 70, item="c", value=1e308)
        log.show(user, arm, 5, trace="no json")
    for metric, wanted in (({"of": "count"}, (2.0, 2.0)), ({"of": "any"}, (1.0, 1.0)), ({"of": "value"}, (4.0, 1.5))):
        found = totals(log.analyse(make(primary=metric), 100))
        assert (found["new"], found["old"]) == ((1, 2, wanted[0]), (1, 2, wanted[1]))
    found = totals(log.analyse(make(primary={"event": "latency_ms", "of": "trace"}), 100))
    assert found == {"new": (1, 1, 40.0), "old": (1, 1, 15.0)}


def test_no_event_is_worth_more_than_can_be_added_up() -> None:
    log = Log()
    for user, arm in (("u1", "new"), ("u2", "new"), ("u3", "old")):
        log.tell(log.show(user, arm, 1), 2, value=1e308)
    result = log.analyse(make(primary={"of": "value"}), 100)
    assert totals(result)["new"] == (2, 2, 2e9) and json.dumps(result.to_json())


def test_a_metric_per_user_waits_for_the_horizon() -> None:
    one = make(primary={"per": "user", "event": "buy"}, horizon=1000.0)
    log = Log()
    slate = log.show("u1", "new", 10)
    log.tell(slate, 900, kind="buy")  # beyond the list's window, within the user's horizon
    log.tell(None, 500, kind="buy", user="u1", item="k")  # names no list
    log.tell(None, 500, kind="buy", user="stranger", item="k")
    log.tell(None, 1011, kind="buy", user="u1", item="m")  # too late
    log.tell(None, 5, kind="buy", user="u1", item="m")  # too early
    log.show("u1", "new", 600)
    log.show("u2", "old", 20)
    log.show("u3", "old", 100)
    assert totals(log.analyse(one, 1050)) == {"new": (1, 1, 2.0), "old": (1, 1, 0.0)}
    assert totals(log.analyse(one, 1200))["old"] == (2, 2, 0.0)
    stopped = one.start(0).stop(1050 * SECOND)
    assert totals(log.analyse(stopped, 5000))["old"] == (1, 1, 0.0)  # u3 was not treated to the end


def stream(one: Experiment, n: int, seed: int, rates: dict[str, float], *, n_users: int = 400, spread: float = 0.5,
           hides: dict[str, float] | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:  # fmt: skip
    """n lists, a second apart, of users who come back and differ by `spread`; an arm's rate is its clicks a list."""
    rng = generator(seed, "stream")
    users = rng.choice(n_users, n, p=rng.dirichlet(np.full(n_users, 1.0)))
    taste = 1 + spread * rng.uniform(-1, 1, n_users)
    names = np.array([f"u{u}" for u in range(n_users)])[users]
    number = assign(names, one)
    arm = np.array(one.names)[number]
    times = np.arange(n) * SECOND
    slate = np.char.add("s", np.arange(n).astype(str))
    slates = pl.DataFrame({"slate": slate, "time": times, "user": names, "session": names, "trace": ["{}"] * n,
        "experiment": [one.name] * n, "arm": arm}).with_columns(items=pl.lit(["a", "b"]))  # fmt: skip
    parts = []
    for kind, of_arm in (("click", rates), ("hide", hides or {})):
        chance = np.array([of_arm.get(name, 0.0) for name in one.names])[number] * taste[users]
        row = np.flatnonzero(rng.random(n) < chance)
        parts.append(pl.DataFrame({"time": times[row] + SECOND, "kind": [kind] * len(row), "user": names[row],
            "item": ["a"] * len(row), "value": np.ones(len(row)), "slate": slate[row]}))  # fmt: skip
    return pl.concat(parts).with_row_index("id"), slates


def test_the_better_arm_is_found_and_promoted() -> None:
    one = make(primary={"detect": 0.2}, guardrails=[{"event": "hide", "direction": "down", "tolerate": 0.5,
                                                     "detect": 0.3}]).start(0)  # fmt: skip
    log = stream(one, 12_000, 1, {"old": 0.3, "new": 0.42}, n_users=1500, hides={"old": 0.2, "new": 0.2})
    result = analyse(one, *log, now=20_000 * SECOND)
    new = result.contrast("new")
    assert (result.verdict, result.best, new.verdict) == ("better", "new", "better")
    assert new.low > 0 and new.lift_low > 0 and new.lift == pytest.approx(0.4, abs=0.15)
    assert new.p < 0.01 and new.since is not None and new.since < 12_000 * SECOND
    by_arm = {arm.arm: arm for arm in result.arms}
    assert new.difference == pytest.approx(by_arm["new"].mean - by_arm["old"].mean)
    assert by_arm["old"].low < 0.3 < by_arm["old"].high
    assert [(g.metric, g.state) for g in result.guardrails] == [("hide/list", "fine")]
    path = result.path
    assert path.columns == ["time", "arm", "units", "lists", "mean", "difference", "low", "high", "p"]
    assert path.height == 200 and path["p"].is_sorted(descending=True) and path["time"].is_sorted()
    assert path["difference"][-1] == new.difference and path["low"][-1] == new.low and path["p"][-1] == new.p
    assert json.loads(json.dumps(result.to_json()))["path"]["low"][0] is None
    decision = advise(one, result, 30_000 * SECOND)
    assert (decision.action, decision.serve, decision.arm) == ("promote", "home-new", "new")
    assert decision.experiment.state == "stopped" and decision.surface == "home"


def test_a_look_does_not_change_what_later_looks_say() -> None:
    one = make(primary={"detect": 0.2}).start(0)
    events, slates = stream(one, 4000, 2, {"old": 0.3, "new": 0.45})
    whole = analyse(one, events, slates, now=5000 * SECOND)
    half = analyse(one, events, slates, now=2000 * SECOND)
    shuffled = analyse(one, events.sample(fraction=1, shuffle=True, seed=1), slates.reverse(), now=5000 * SECOND)
    assert shuffled.to_json() == whole.to_json()
    lazily = analyse(one, events.lazy(), slates.lazy(), now=5000 * SECOND)
    assert lazily.to_json() == whole.to_json()
    cut = analyse(one, events.filter(pl.col("time") <= 2000 * SECOND), slates.filter(pl.col("time") <= 2000 * SECOND),
                  now=2000 * SECOND)  # fmt: skip
    assert cut.to_json() == half.to_json()  # what came later was not seen
    assert half.contrasts[0].p >= whole.contrasts[0].p


def test_the_direction_of_a_metric() -> None:
    one = make(primary={"detect": 0.2, "direction": "down"}).start(0)
    result = analyse(one, *stream(one, 8000, 3, {"old": 0.3, "new": 0.5}, n_users=1500), now=9000 * SECOND)
    assert result.contrasts[0].verdict == "worse" == result.verdict and result.contrasts[0].low > 0
    assert advise(one, result, 9000 * SECOND).action == "roll back"


def test_a_harm_stops_a_better_arm() -> None:
    one = make(primary={"detect": 0.2}, guardrails=[{"event": "hide", "direction": "down", "tolerate": 0.1,
                                                     "detect": 0.3}]).start(0)  # fmt: skip
    log = stream(one, 9000, 4, {"old": 0.3, "new": 0.5}, n_users=1500, hides={"old": 0.1, "new": 0.3})
    result = analyse(one, *log, now=20_000 * SECOND)
    assert result.contrasts[0].verdict == "better" and result.verdict == "harm: stop" and result.best is None
    decision = advise(one, result, 30_000 * SECOND)
    assert (decision.action, decision.serve) == ("roll back", "home") and "hide/list" in decision.why
    waits = promote(one, result, 30_000 * SECOND, arm="new")
    assert waits.action == "wait" and "harmed" in waits.why and waits.experiment == one
    assert promote(one, result, 30_000 * SECOND, arm="new", force=True).action == "promote"
    with pytest.raises(NotFound, match="no arm 'newer'"):
        promote(one, result, 0, arm="newer")
    back = roll_back(one, 30_000 * SECOND)
    assert back.serve == "home" and back.experiment.state == "stopped"


def test_a_guardrail_without_feedback_is_said_to_be_blind() -> None:
    one = make(guardrails=[{"event": "complaint", "direction": "down"}]).start(0)
    result = analyse(one, *stream(one, 500, 5, {"old": 0.3, "new": 0.3}), now=900 * SECOND)
    assert result.guardrails[0].state == "inconclusive" and any("complaint" in w for w in result.warnings)


def test_a_split_that_leaks_is_found() -> None:
    one = make(primary={"detect": 0.2}).start(0)
    events, slates = stream(one, 6000, 6, {"old": 0.3, "new": 0.3}, n_users=6000)
    kept = (pl.col("arm") == "old") | (pl.col("slate").hash(1) % 4 > 0)  # a quarter of one arm's lists is lost
    result = analyse(one, events, slates.filter(kept), now=7000 * SECOND)
    assert result.verdict == "invalid" and not result.split.ok and result.split.p < 0.001
    assert any("not as planned" in w for w in result.warnings)
    assert advise(one, result, 8000 * SECOND).action == "roll back"
    assert promote(one, result, 0, arm="new").action == "wait"
    assert analyse(one, events, slates, now=7000 * SECOND).split.ok


def test_an_effect_that_turns_is_no_verdict() -> None:
    one = make(primary={"detect": 0.3}).start(0)
    first = stream(one, 4000, 7, {"old": 0.2, "new": 0.5}, n_users=800)
    then = stream(one, 9000, 8, {"old": 0.6, "new": 0.2}, n_users=800)
    shift = [table.with_columns(pl.col("time") + 4000 * SECOND, slate=pl.col("slate") + "x",
                                **({"id": pl.col("id") + 10**6} if "id" in table.columns else {}))
             for table in then]  # fmt: skip
    result = analyse(one, *(pl.concat(pair) for pair in zip(first, shift, strict=True)), now=20_000 * SECOND)
    assert result.contrasts[0].p < ALPHA and result.contrasts[0].verdict == "not yet" == result.verdict
    assert any("something changed" in w for w in result.warnings)


def test_several_arms_are_corrected_for() -> None:
    arms = {"old": {"serve": "home"}, "good": {"serve": "b"}, "same": {"serve": "c"}}
    one = make(arms=arms, primary={"detect": 0.2}).start(0)
    log = stream(one, 12_000, 9, {"old": 0.3, "good": 0.45, "same": 0.3}, n_users=2000)
    result = analyse(one, *log, now=20_000 * SECOND)
    assert result.best == "good" and result.contrast("same").verdict == "not yet"
    two = make(arms={"old": {"serve": "home"}, "good": {"serve": "b"}}, primary={"detect": 0.2})
    alone = analyse(two, log[0], log[1].filter(pl.col("arm") != "same"), now=20_000 * SECOND)
    assert result.contrast("good").p >= alone.contrast("good").p
    assert result.contrast("good").low < alone.contrast("good").low  # joint intervals are wider
    with pytest.raises(NotFound, match="god"):
        result.contrast("god")


def test_empty_and_lacking_tables() -> None:
    for kind in ("ab", "interleave", "shadow"):
        result = Log().analyse(make(kind=kind), 5)
        assert result.verdict in ("not yet", "none") and json.dumps(result.to_json())
        assert advise(make(kind=kind), result, 5).action == "wait"
    events, slates = Log().frames()
    with pytest.raises(UsageError, match="slates lacks the column 'arm'"):
        analyse(make(), events, slates.drop("arm"))
    assert analyse(make(), events, slates).at == 0


# -- interleaving, from the log


def mixed_log(one: Experiment, n: int, seed: int, edge: float, *, lasting: float = 0.0, n_users: int = 200) -> Log:
    """n interleaved lists; items of the arm "new" are clicked more by `edge`, or by users whose taste lasts."""
    rng = generator(seed, "mixed")
    rows = [np.argsort(rng.random((n, 12)), axis=1)[:, :4] for _ in one.names]
    slates, teams = team_draft([lists_of(row) for row in rows], 4, request_seeds(n, seed))
    users = rng.integers(0, n_users, n)
    leaning = lasting * rng.choice([-1, 1], n_users)
    log = Log(one.name)
    new = one.names.index("new")
    for b in range(n):
        slate = log.show(f"u{users[b]}", MIXED, b, [str(i) for i in slates.items[b]],
                         trace=json.dumps({"teams": teams[b].tolist()}))  # fmt: skip
        side = np.where(teams[b] == new, 1, -1)
        for place in np.flatnonzero(rng.random(4) < 0.25 + side * (edge + leaning[users[b]])):
            log.tell(slate, b + 1, item=str(slates.items[b, place]))
    return log


@pytest.mark.parametrize("unit", ["request", "user"])
def test_interleaving_finds_the_better_arm(unit: str) -> None:
    one = make(kind="interleave", unit=unit, primary={"detect": 0.1}).start(0)
    log = mixed_log(one, 2500, 1, 0.06)
    result = log.analyse(one, 4000)
    new = result.contrast("new")
    assert (result.verdict, result.best) == ("better", "new") and new.low > 0 and new.p < ALPHA
    by_hand = {"new": 0, "old": 0, "tie": 0}
    teams = {
        row["slate"]: dict(zip(row["items"], json.loads(row["trace"])["teams"], strict=True)) for row in log.slates
    }
    earned: dict[str, list[int]] = {row["slate"]: [0, 0] for row in log.slates}
    for event in log.events:
        earned[event["slate"]][teams[event["slate"]][event["item"]]] += 1
    for of_new, of_old in earned.values():
        by_hand["new" if of_new > of_old else "old" if of_old > of_new else "tie"] += 1
    assert (new.wins, new.losses, new.ties) == (by_hand["new"], by_hand["old"], by_hand["tie"])
    assert new.difference == pytest.approx(new.wins / (new.wins + new.losses) - 0.5)
    assert {a.arm: a.total for a in result.arms}["old"] == sum(old for _, old in earned.values())
    assert result.split.ok and sum(result.split.counts) == 2500 and math.isnan(new.lift)
    assert result.path["difference"][-1] == pytest.approx(new.difference)


def test_several_arms_interleaved() -> None:
    arms = {"old": {"serve": "home"}, "new": {"serve": "b"}, "same": {"serve": "c"}}
    one = make(kind="interleave", unit="request", arms=arms, primary={"detect": 0.1}).start(0)
    result = mixed_log(one, 2500, 3, 0.08).analyse(one, 4000)
    assert result.best == "new" and result.contrast("same").verdict == "not yet"


def test_lists_without_teams_are_ties() -> None:
    one = make(kind="interleave", unit="request").start(0)
    log = Log()
    for b, trace in enumerate(
        ['{"teams": [0, 1, 0]}', '{"teams": [0, 1]}', "{}", '{"teams": "x"}', '{"teams": [0, 9, -1]}']
    ):
        log.tell(log.show("u", MIXED, b, trace=trace), b + 1, item="b")
    log.tell(log.show("u", "old", 9), 10)  # the fallback answered alone
    new = log.analyse(one, 500)
    assert (new.contrasts[0].wins, new.contrasts[0].losses, new.contrasts[0].ties) == (0, 1, 4)
    assert new.left_out["without teams in the trace"] == 3 and any("who picked" in w for w in new.warnings)


# -- shadows, from the log


def test_shadows_beside_what_was_shown() -> None:
    one = make(kind="shadow").start(0)
    log = Log()
    for b in range(20):
        slate = log.show("u", "old", b, ["a", "b", "c"], trace='{"latency_ms": 5}')
        if b < 15:
            items = ["a", "b", "c"] if b < 5 else ["x", "y"]
            log.show("u", "new", b, items, slate=f"h{b}", trace=json.dumps(shadow_trace(slate, 10.0 + b)))
    found = log.analyse(one, 100)
    (new,) = found.shadows
    assert (new.arm, new.lists, new.missing) == ("new", 15, 5)
    assert new.rbo == new.jaccard == new.first == pytest.approx(1 / 3)
    assert (
        new.latency_median == 17.0 and new.shown_latency_median == 5.0 and new.latency_p95 == pytest.approx(23, abs=1)
    )
    assert found.verdict == "none" and advise(one, found, 100).action == "wait"


# -- what is promised


@pytest.mark.parametrize("kind", ["ab", "interleave"])
def test_experiments_without_a_difference_are_called_one_rarely(kind: str) -> None:
    """200 nulls, each watched after every list. benchmarks/live.py does so a thousand times, for every test."""
    rng = generator(0, "nulls", kind)
    alarms, broken = 0, 0
    for run in range(200):
        if kind == "ab":
            one = make(primary={"detect": 0.3}, salt=str(run)).start(0)
            result = analyse(one, *stream(one, 800, run, {"old": 0.4, "new": 0.4}, n_users=200), now=1000 * SECOND)
        else:
            one = make(kind="interleave", unit="request").start(0)
            result = coins(one, 800, rng)
        alarms += result.contrasts[0].p <= ALPHA
        broken += not result.split.ok
    assert alarms <= stats.binom(200, ALPHA).ppf(0.999) and broken <= 2


def coins(one: Experiment, n: int, rng: np.random.Generator) -> Result:
    """An interleaved log of n lists whose clicks know nothing of the teams."""
    first = rng.random(n) < 0.5
    teams = np.where(first, '{"teams": [0, 1]}', '{"teams": [1, 0]}')
    slate = np.char.add("s", np.arange(n).astype(str))
    times = np.arange(n) * SECOND
    slates = pl.DataFrame({"slate": slate, "time": times, "user": slate, "session": slate, "arm": [MIXED] * n,
        "experiment": [one.name] * n, "trace": teams}).with_columns(items=pl.lit(["a", "b"]))  # fmt: skip
    clicked = rng.random(n) < 0.8
    events = pl.DataFrame({"id": np.arange(n), "time": times + 1, "kind": ["click"] * n, "user": slate,
        "item": np.where(rng.random(n) < 0.7, "a", "b"), "value": np.ones(n), "slate": slate})  # fmt: skip
    return analyse(one, events.filter(clicked), slates, now=2 * n * SECOND)
