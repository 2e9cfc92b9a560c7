"""Rollouts: a planted bandit is learnt, and a run that was stopped goes on to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tastemaker.contracts import Epochs, Optimiser, Program, Train, system
from tastemaker.data import split, synthetic
from tastemaker.feeds import rollout
from tastemaker.nn.policy_gradient import reinforce
from tastemaker.train import fit
from tastemaker.train.bundle import export_state
from tastemaker.types import Dataset, Requests, Split, UsageError, setting

ARMS, BEST, EPISODES = 5, 3, 60
PLAYED: list[list[int]] = []
MODES: list[tuple[bool, bool]] = []


@dataclass(frozen=True)
class Played:
    """Arms that were drawn [B], and how much better than usual they paid [B]."""

    arms: Any
    worth: Any

    def __len__(self) -> int:
        return len(self.arms)

    def take(self, rows: slice) -> Played:
        return Played(self.arms[rows], self.worth[rows])


@system("bandit", family="classical", title="A planted bandit", paper="none", needs={"users"})
class Bandit(nn.Module):
    """Draws an arm, and is paid more often by the best one."""

    usual: Tensor

    @dataclass(frozen=True)
    class Config:
        epochs: int = setting(40, "Epochs.")
        batch_size: int = setting(8, "Episodes a step.")
        by: str = setting("seeds", "What draws: the seeds, or torch.")
        empty: bool = setting(False, "Whether nothing comes of playing.")
        stop: int = setting(-1, "The step that fails.")

    def __init__(self, config: Any, schema: Any) -> None:
        super().__init__()
        self.config = config
        self.arms = nn.Parameter(torch.zeros(ARMS))
        self.drop = nn.Dropout(0.5)
        self.register_buffer("usual", torch.zeros(()))

    def program(self, data: Dataset) -> Program:
        c = self.config
        yield Train(
            rollout(self, self.play, episodes=EPISODES, batch_size=c.batch_size),
            self.gather,
            self.objective,
            until=Epochs(c.epochs),
            optimiser=Optimiser("adam", lr=0.1),
            after_step=self.done,
        )

    def play(self, rows: Any, seeds: Any) -> Played:
        PLAYED.append(rows.tolist())
        MODES.append((torch.is_grad_enabled(), self.training))
        if self.config.empty:
            return Played(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
        chances = torch.softmax(self.drop(self.arms), dim=0).numpy().astype(np.float64)
        if self.config.by == "torch":
            drawn = torch.multinomial(torch.from_numpy(chances), len(rows), replacement=True).numpy()
            luck = torch.rand(len(rows)).numpy()
        else:
            streams = [np.random.default_rng(int(seed)).random(2) for seed in seeds]
            drawn = np.array([np.searchsorted(chances.cumsum(), u * chances.sum()) for u, _ in streams])
            luck = np.array([v for _, v in streams])
        paid = (luck < np.where(drawn == BEST, 0.8, 0.2)).astype(np.float32)
        worth = paid - float(self.usual)
        return Played(drawn.astype(np.int64), worth.astype(np.float32))

    def gather(self, batch: Played) -> Tensor:
        assert self.training, "training goes on as it was"
        return torch.log_softmax(self.arms, dim=0)[batch.arms]

    def objective(self, logp: Tensor, batch: Played) -> Tensor:
        self.paid = batch.worth.mean() + self.usual
        return reinforce(logp, batch.worth)

    def done(self, step: int) -> None:
        self.usual.lerp_(self.paid, 0.1)
        if step == self.config.stop and STOPPING:
            raise Stopped

    def queries(self, requests: Requests) -> Tensor:
        return torch.ones(requests.n, 1)

    def items(self, numbers: Any = None) -> Tensor:
        return torch.arange(80.0).unsqueeze(1)


STOPPING: list[int] = []


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")


def state(bundle: Any) -> dict[str, Any]:
    return dict(export_state(bundle.system))


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return set(left) == set(right) and all(np.array_equal(left[k], right[k]) for k in left)


def test_the_best_arm_is_learnt(parts: Split) -> None:
    learnt = fit(Bandit, parts, seed=1).system.arms.detach().softmax(dim=0)
    assert learnt[BEST] > 0.95
    early = fit(Bandit, parts, {"epochs": 1}, seed=1).system.arms.detach().softmax(dim=0)
    assert early[BEST] < 0.9, "it was not told"


def test_every_episode_is_played_once_an_epoch_and_in_a_new_order(parts: Split) -> None:
    PLAYED.clear()
    fit(Bandit, parts, {"epochs": 3}, seed=1)
    assert [len(rows) for rows in PLAYED] == [8] * 7 + [4] + [8] * 7 + [4] + [8] * 7 + [4]
    epochs = [[row for rows in PLAYED[n : n + 8] for row in rows] for n in (0, 8, 16)]
    assert all(sorted(epoch) == list(range(EPISODES)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_nothing_is_dropped_and_no_gradient_flows_while_it_plays(parts: Split) -> None:
    MODES.clear()
    fit(Bandit, parts, {"epochs": 1}, seed=1)
    assert set(MODES) == {(False, False)}


@pytest.mark.parametrize("by", ["seeds", "torch"])
def test_what_is_drawn_follows_from_the_seed(parts: Split, by: str) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = state(fit(Bandit, parts, {"epochs": 2, "by": by}, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    assert same(first, state(fit(Bandit, parts, {"epochs": 2, "by": by}, seed=1)))
    assert not same(first, state(fit(Bandit, parts, {"epochs": 2, "by": by}, seed=2)))


@pytest.mark.parametrize("by", ["seeds", "torch"])
@pytest.mark.parametrize("at", [7, 11])  # at an epoch's end, and within one
def test_a_stopped_run_goes_on_to_the_bit(parts: Split, tmp_path: Path, by: str, at: int) -> None:
    config = {"epochs": 3, "by": by, "stop": at}
    whole = state(fit(Bandit, parts, config, seed=3))
    STOPPING.append(1)
    with pytest.raises(Stopped):
        fit(Bandit, parts, config, seed=3, run=tmp_path / "run", checkpoint_seconds=0)
    STOPPING.clear()
    PLAYED.clear()
    assert same(whole, state(fit(Bandit, parts, config, seed=3, run=tmp_path / "run")))
    assert len(PLAYED) == 3 * 8 - at, "only what was not learnt from yet is played"


def test_play_without_experience_is_refused(parts: Split) -> None:
    with pytest.raises(UsageError, match="not one row"):
        fit(Bandit, parts, {"empty": True})
