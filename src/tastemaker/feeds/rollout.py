"""Rollouts: act, be rewarded, learn from it. Experience is a feed, whose batches are lived when their turn comes.

So what is learnt by rewards is trained, resumed, shared over processes, judged and stopped like everything else:

    yield Train(rollout(self, self.play, episodes=len(pairs), batch_size=32), self.gather, self.objective, Epochs(10))

where `gather` most often gives the log-probability of what was done as the system stands now, and `objective` its part
in the loss (`nn.policy_gradient`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.types import UsageError

B = TypeVar("B")


def rollout(
    system: Any, play: Callable[[Rows, NDArray[np.uint64]], B], *, episodes: int, batch_size: int
) -> RowFeed[B]:
    """A feed of what the system (a module) lives through, as it stands before each step.

    Args:
        play: plays episodes `rows` [B], numbers from 0 to `episodes`, and returns a batch: what was met, what was
            done, what it was worth. It runs without gradients and with nothing dropped out, and whatever it draws
            follows from `seeds` [B] uint64 (draws by torch do so of themselves).
        episodes: how many there are: each is played once an epoch.
        batch_size: episodes played with the same weights.

    Raises:
        UsageError: an episode's worth of play gave no row to learn from.
    """
    import torch

    def lived(rows: Rows, rng: np.random.Generator) -> B:
        seeds = rng.integers(2**64, size=len(rows), dtype=np.uint64)
        was = system.training
        system.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(range(torch.cuda.device_count())):
                torch.manual_seed(int(rng.integers(2**63)))
                batch = play(rows, seeds)
        finally:
            system.train(was)
        if not len(batch):  # type: ignore[arg-type]
            raise UsageError(f"{len(rows)} episodes were played, and not one row to learn from came of them")
        return batch

    return RowFeed(episodes, batch_size, lived, live=True)
