"""An environment as Gymnasium knows them: one session, an observation of numbers, an action of item numbers.

    from tastemaker.simulate.gymnasium import as_gymnasium
    env = as_gymnasium(LatentUsers.drawn(100, 50, tells=True), n_items=50, k=5)

Ref: Towers et al., "Gymnasium: a standard interface for reinforcement learning environments", arXiv:2407.17032.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Environment
from tastemaker.types import Actions, Requests, Slates, UsageError, mix, optional

Observe = Callable[[Requests], NDArray[np.float32]]


def as_gymnasium(environment: Environment[Any], *, n_items: int, k: int = 1, observe: Observe | None = None) -> Any:
    """A `gymnasium.Env` of one session.

    An action is an item (`Discrete`), or with k > 1 an item a slot (`MultiDiscrete`); an item named twice is shown
    once. An item that cannot be shown now (it is excluded, filtered out or no candidate) is not shown either: where
    none is left, the turn's list is empty. What is observed in full lies in `requests` and `feedback`.

    Args:
        observe: what of the requests [1] is seen, as a row of numbers [1, W]; None: the numeric columns of the context.

    Raises:
        MissingExtra: gymnasium is not installed.
        UsageError: there is nothing to observe.
    """
    gym = optional("gymnasium", extra="simulate", why="to play an environment through Gymnasium")
    look = observe or context_numbers
    first, _ = environment.reset(mix(np.zeros(1, dtype=np.uint64)))
    width = np.asarray(look(first)).shape[1]
    spaces = gym.spaces

    class Played(gym.Env):  # type: ignore[misc, name-defined]
        metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so
        observation_space = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        action_space = spaces.Discrete(n_items) if k == 1 else spaces.MultiDiscrete([n_items] * k)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
            super().reset(seed=seed)
            drawn = self.np_random.integers(0, 2**63, 1).astype(np.uint64)
            self.requests, self.state = environment.reset(drawn)
            return self._seen(), {}

        def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            items = allowed_items(np.atleast_1d(np.asarray(action, dtype=np.int32)), self.requests)
            listed = np.full((1, k), -1, dtype=np.int32)
            listed[0, : len(items)] = items
            slates = Slates(listed, np.where(listed >= 0, 0.0, -np.inf))
            self.feedback, requests, done, self.state = environment.step(self.state, Actions(1, slates=slates))
            reward = 0.0 if self.feedback.reward is None else float(np.nan_to_num(self.feedback.reward[0]))
            if not done[0]:
                self.requests = requests
            return self._seen(), reward, bool(done[0]), False, {}

        def _seen(self) -> NDArray[np.float32]:
            seen: NDArray[np.float32] = np.asarray(look(self.requests), dtype=np.float32)[0]
            return seen

    return Played()


def context_numbers(requests: Requests) -> NDArray[np.float32]:
    """The numeric columns of the context, side by side [B, W], in the order of their names."""
    columns = {} if requests.context is None else requests.context
    numbers = [columns[name].reshape(requests.n, -1) for name in sorted(columns) if columns[name].dtype.kind in "fiub"]
    if not numbers:
        raise UsageError("the requests carry no numbers to observe", hint="give observe=, from Requests to [B, W]")
    found: NDArray[np.float32] = np.concatenate(numbers, axis=1).astype(np.float32)
    return found


def allowed_items(items: NDArray[np.int32], requests: Requests) -> NDArray[np.int32]:
    """Of items named for one request those that it may be answered with, each once, in their order."""
    items = items[np.sort(np.unique(items, return_index=True)[1])]
    keep = np.ones(len(items), dtype=np.bool_)
    if requests.exclude is not None:
        keep &= ~np.isin(items, requests.exclude[0])
    if requests.candidates is not None:
        keep &= np.isin(items, requests.candidates[0])
    if requests.filter is not None and requests.filter.which[0] >= 0:
        keep &= requests.filter.allowed[requests.filter.which[0], items]
    return items[keep]
