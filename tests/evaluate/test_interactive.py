"""The interactive protocol on games whose figures can be worked out by hand, and on bandits that learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.contracts import find
from tastemaker.evaluate import Report, compare
from tastemaker.evaluate.interactive import interact
from tastemaker.evaluate.policy import policy
from tastemaker.simulate import LatentUsers
from tastemaker.train import fit
from tastemaker.types import Actions, Feedback, Requests, Slates, UsageError


class Guessing:
    """Session s wants item s % 3; each turn the request says which turn it is; a hit ends the session."""

    identity = "guessing"

    def reset(self, seeds: Any) -> tuple[Requests, tuple[np.ndarray, int]]:
        return self._ask(np.arange(len(seeds)), 0), (np.arange(len(seeds)), 0)

    def _ask(self, rows: np.ndarray, turn: int) -> Requests:
        return Requests(len(rows), users=rows, now=np.full(len(rows), turn))

    def step(self, state: Any, actions: Actions) -> Any:
        rows, turn = state
        assert actions.slates is not None
        hit = actions.slates.items[:, 0] == rows % 3
        feedback = Feedback(self._ask(rows, turn), reward=hit.astype(np.float32), done=hit, slates=actions.slates)
        return feedback, self._ask(rows[~hit], turn + 1), hit, (rows[~hit], turn + 1)


class InTurn:
    """Shows item 0 first, then 1, then 2."""

    def retrieve(self, requests: Requests, k: int) -> Slates:
        return Slates(requests.now[:, None], np.zeros((requests.n, 1)))


@dataclass(frozen=True)
class Turn:
    at: int


class Asker:
    """The same, as a system that holds sessions."""

    State = Turn

    def begin(self, requests: Requests) -> list[Turn]:
        return [Turn(0)] * requests.n

    def act(self, sessions: list[Turn]) -> tuple[Actions, list[Turn]]:
        items = np.array([[one.at] for one in sessions])
        return Actions(len(sessions), slates=Slates(items, np.zeros(items.shape))), sessions

    def observe(self, sessions: list[Turn], feedback: Feedback) -> list[Turn]:
        return [Turn(one.at + 1) for one in sessions]


@pytest.mark.parametrize("system", [InTurn(), Asker()])
def test_figures_by_hand(system: Any) -> None:
    report = interact(system, Guessing(), turns=2, sessions=6, seeds=(0, 1), at=(1, 2, 9))
    assert report["success@1"] == pytest.approx(1 / 3) and report["success@2"] == pytest.approx(2 / 3)
    assert "success@9" not in report.metrics, "there are two turns"
    assert report["turns"] == pytest.approx((1 + 2 + 2) / 3), "without success all turns count"
    assert report["stayed"] == pytest.approx((1 + 2 + 2) / 3)
    assert report["reward"] == pytest.approx((1 + 0.5 + 0) / 3) and report["total"] == pytest.approx(2 / 3)
    assert "regret" not in report.metrics, "this world does not know what is best"
    assert report.protocol["unit"] == "session" and report.n == 12


def test_a_report_is_stored_drawn_and_compared(tmp_path: Path) -> None:
    world = LatentUsers.drawn(20, 10, 3, seed=1, horizon=15)
    data = world.log(300)
    reports = [interact(fit(name, data), world, turns=15, sessions=8, seeds=(0, 1, 2)) for name in ("random", "linucb")]
    assert [r.protocol["unit"] for r in reports] == ["session", "seed"]
    with pytest.raises(UsageError, match="not comparable"):
        compare([reports[0], interact(fit("random", data), world, turns=9, name="shorter")])
    for report in reports:
        report.save(tmp_path / report.label)
        again = Report.load(tmp_path / report.label)
        assert again.values() == pytest.approx(report.values()) and again.slices.equals(report.slices)
    course = reports[1].slices.filter(metric="regret")
    assert course["mean"].is_sorted() and course.height == 15
    assert course["mean"][-1] == pytest.approx(reports[1]["regret"], rel=1e-5)


def test_what_is_told_in_between_is_merged_and_nobody_else_is_changed() -> None:
    world = LatentUsers.drawn(20, 10, 3, seed=2, horizon=12)
    bundle = fit("linucb", world.log(300))
    before = {name: array.copy() for name, array in bundle.system.export().items()}
    states = {}
    for push in (1, 4):
        plays = policy(bundle, 2, push=push)
        requests, state = world.reset(np.arange(6, dtype=np.uint64))
        own, seen = plays.begin(requests), []
        for _ in range(4):
            actions, own = plays.act(own, requests)
            seen.append(own.system)
            feedback, requests, done, state = world.step(state, actions)
            own = plays.observe(own, feedback, done)
        states[push] = own, len({id(one) for one in seen})
    assert states[1][1] == 4 and states[4][1] == 1, "one snapshot serves until the next is pushed"
    assert states[4][0].system is not bundle.system and states[4][0].pending is None
    after = bundle.system.export()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_exploration_pays_where_what_is_good_is_not_known() -> None:
    """No vectors, no prior: greedy arms keep to what happened to work first; the optimist and the sampler do not."""
    world = LatentUsers.drawn(100, 30, 3, seed=5, reward="linear", noise=0.3, tells=True, horizon=150)
    data = world.log(400, seed=1)
    settings = {"context": "columns", "columns": "taste"}
    found = {}
    for label, name, more in (
        ("optimist", "linucb", {"alpha": 1.0}),
        ("greedy", "linucb", {"alpha": 0.0}),
        ("sampler", "thompson", {"alpha": 0.3}),
        ("random", "random", {}),
    ):
        config = {**settings, **more} if name != "random" else {}
        bundle = fit(name, data, config)
        found[label] = interact(bundle, world, turns=150, sessions=8, seeds=(0, 1), name=label)
    regret = {label: report["regret"] for label, report in found.items()}
    assert regret["optimist"] < 0.8 * regret["greedy"] < regret["random"], regret
    assert regret["sampler"] < 0.8 * regret["greedy"], regret
    late = found["optimist"].slices.filter(metric="regret")["mean"]
    assert late[-1] - late[-5] < 0.7 * (late[4] - late[0]), "the better it knows, the slower regret grows"


def test_settings_that_fit_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="distinct"):
        interact(InTurn(), Guessing(), seeds=(1, 1))
    with pytest.raises(UsageError, match="apart"):
        policy(InTurn(), push=0)
    assert find("linucb").capabilities == ("scores", "retrieves", "updates", "extends")
