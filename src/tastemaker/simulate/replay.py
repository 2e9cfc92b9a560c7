"""Replay: a log of randomised trials as an environment, in which only what happened to be shown is answered.

A policy is asked what it would show in a logged trial. Where that is the logged item, the logged reward is its answer;
otherwise the trial is thrown away, and nobody learns of it. Over uniformly logged trials what remains is distributed
as if the policy had chosen by itself. Where propensities differ, a trial that agrees is kept with probability
(smallest propensity) / (its propensity), which leaves a uniform log.

Ref: Li, Chu, Langford, Wang, "Unbiased offline evaluation of contextual-bandit-based news article recommendation
algorithms", arXiv:1003.5956, algorithm 2; rejection by propensity: Dudik, Erhan, Langford, Li, arXiv:1210.4862.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tastemaker.simulate.logged import Logged
from tastemaker.types import Actions, Columns, Feedback, Jagged, Requests, UsageError, mix


@dataclass(frozen=True, eq=False)
class ReplayState:
    """Where sessions stand: a walk through the trials, in which session b has every B-th step.

    Shapes: steps [B] int64, the step each session is at
    apart: B; stride, start: step n is trial (start + n * stride) modulo N
    """

    steps: NDArray[np.int64]
    apart: int
    stride: int
    start: int


@dataclass(frozen=True, eq=False)
class LoggedReplay:
    """An environment that replays trials of one item. Each trial is met once, by one session; the order is the seed's.

    In the feedback of a trial that was thrown away there is no event, and the reward is NaN.
    """

    log: Logged

    def __post_init__(self) -> None:
        if self.log.k != 1 or not len(self.log):
            raise UsageError(f"a replay needs trials of one item, got {len(self.log)} of {self.log.k}")

    @cached_property
    def identity(self) -> str:
        """A hash of the log."""
        total = hashlib.blake2b(digest_size=16)
        for array in (self.log.items, self.log.rewards, self.log.propensities):
            total.update(np.ascontiguousarray(array).tobytes())
        return f"replay {total.hexdigest()}"

    @property
    def n_items(self) -> int:
        return self.log.n_items

    def reset(self, seeds: NDArray[np.uint64]) -> tuple[Requests, ReplayState]:
        n = len(self.log)
        if not 1 <= len(seeds) <= n:
            raise UsageError(f"a replay of {n} trials has 1 to {n} sessions, got {len(seeds)}")
        drawn = int(mix(np.asarray(seeds, dtype=np.uint64)[:1])[0])
        stride = drawn % n
        while math.gcd(stride, n) != 1:  # so that the walk meets every trial once
            stride += 1
        state = ReplayState(np.arange(len(seeds)), len(seeds), stride, (drawn >> 32) % n)
        return self.log.requests.take(self._trials(state)), state

    def step(self, state: ReplayState, actions: Actions) -> tuple[Feedback, Requests, NDArray[np.bool_], ReplayState]:
        slates = actions.slates
        if slates is None or len(slates) != len(state.steps):
            raise UsageError(f"{len(state.steps)} users ask, and want a list each")
        trials = self._trials(state)
        logged, chances = self.log.items[trials, 0], self.log.propensities[trials, 0]
        luck = (mix(trials, state.start).astype(np.float64) + 0.5) * 2.0**-64
        kept = (slates.items[:, 0] == logged) & (luck <= self._smallest / chances)
        rewards = self.log.rewards[trials, 0]
        columns = Columns(
            item=logged[kept],
            position=np.zeros(int(kept.sum()), dtype=np.int32),
            kind=np.full(int(kept.sum()), "outcome", dtype=object),
            value=rewards[kept].astype(np.float32),
            time=state.steps[kept],
        )
        after = state.steps + state.apart
        done = after >= len(self.log)
        feedback = Feedback(
            self.log.requests.take(trials),
            events=Jagged(columns, np.concatenate([[0], np.cumsum(kept)])),
            reward=np.where(kept, rewards, np.nan).astype(np.float32),
            done=done,
            slates=slates,
        )
        state = ReplayState(after[~done], state.apart, state.stride, state.start)
        return feedback, self.log.requests.take(self._trials(state)), done, state

    @cached_property
    def _smallest(self) -> float:
        return float(self.log.propensities.min())

    def _trials(self, state: ReplayState) -> NDArray[np.int64]:
        return (state.start + state.steps * state.stride) % len(self.log)
