"""Linear arms: each item has a ridge regression of its own from contexts to rewards, kept as two sums.

    A = reg I + sum x x'      b = reg prior + sum r x      weights A^-1 b      width of the mean at x: sqrt(x' A^-1 x)

The sums add up, so what was learnt in several places, in any order, is put together by addition.

Ref: Li, Chu, Langford, Schapire, arXiv:1003.0146, algorithm 1 (disjoint linear models). I items, D numbers a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.types import BundleError, State

Floats = NDArray[np.float64]
BLOCK_NUMBERS = 1 << 22  # float64 that a block of products may take


@dataclass(frozen=True, eq=False)
class ArmSums:
    """What trials add to arms: of items [n], rising, the sums of x x' [n, D, D] and of r x [n, D]."""

    items: NDArray[np.int64]
    outer: Floats
    rewards: Floats

    @classmethod
    def of(cls, items: NDArray[np.integer[Any]], contexts: Floats, rewards: Floats, counts: Floats) -> ArmSums:
        """Sums over trials: items [N], contexts [N, D], rewards [N], counts [N] (a trial's weight in x x')."""
        found, place = np.unique(items.astype(np.int64), return_inverse=True)
        n, width = contexts.shape
        outer: Any = np.zeros((len(found), width * width))
        sums: Any = np.zeros((len(found), width))
        step = max(1, BLOCK_NUMBERS // (width * width))
        for start in range(0, n, step):
            part = slice(start, start + step)
            rows = contexts[part]
            owners = sp.csr_array((np.ones(len(rows)), (place[part], np.arange(len(rows)))), (len(found), len(rows)))
            pairs = (counts[part, None, None] * rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
            outer += owners @ pairs
            sums += owners @ (rewards[part, None] * rows)
        outer = outer.reshape(len(found), width, width)
        return cls(found, outer, sums)

    def merged(self, other: ArmSums) -> ArmSums:
        """Both together."""
        items, place = np.unique(np.concatenate([self.items, other.items]), return_inverse=True)
        outer = np.zeros((len(items), *self.outer.shape[1:]))
        rewards = np.zeros((len(items), self.rewards.shape[1]))
        for part, at in ((self, place[: len(self.items)]), (other, place[len(self.items) :])):
            outer[at] += part.outer
            rewards[at] += part.rewards
        return ArmSums(items, outer, rewards)


@dataclass(frozen=True, eq=False)
class Arms:
    """All items' regressions: A [I, D, D] and b [I, D]."""

    precision: Floats
    rewards: Floats

    @classmethod
    def fresh(cls, prior: Floats, reg: float) -> Arms:
        """Arms that have seen nothing, and expect <x, prior> [I, D]."""
        n, width = prior.shape
        return cls(np.tile(reg * np.eye(width), (n, 1, 1)), reg * prior)

    @cached_property
    def inverse(self) -> Floats:
        """A^-1 [I, D, D]."""
        found: Any = np.linalg.inv(self.precision)
        return np.asarray(found, dtype=np.float64)

    @cached_property
    def weights(self) -> Floats:
        """A^-1 b [I, D]."""
        found: Floats = np.einsum("ide,ie->id", self.inverse, self.rewards)
        return found

    def means(self, contexts: Floats, items: NDArray[np.integer[Any]] | None = None) -> Floats:
        """Expected rewards of all items [B, I], or of items [B, C]."""
        if items is None:
            found: Floats = contexts @ self.weights.T
            return found
        picked: Floats = np.einsum("bd,bcd->bc", contexts, self.weights[items])
        return picked

    def widths(self, contexts: Floats, items: NDArray[np.integer[Any]] | None = None) -> Floats:
        """sqrt(x' A^-1 x) of all items [B, I], or of items [B, C]."""
        n, width = contexts.shape
        columns = len(self.weights) if items is None else items.shape[1]
        squares: Any = np.empty((n, columns))
        step = max(1, BLOCK_NUMBERS // (width * width * (1 if items is None else max(columns, 1))))
        flat = self.inverse.reshape(len(self.inverse), -1)
        for start in range(0, n, step):
            part = slice(start, start + step)
            pairs = (contexts[part, :, None] * contexts[part, None, :]).reshape(-1, width * width)
            squares[part] = pairs @ flat.T if items is None else np.einsum("bj,bcj->bc", pairs, flat[items[part]])
        found: Floats = np.sqrt(np.maximum(squares, 0.0))
        return found

    def learnt(self, sums: ArmSums) -> Arms:
        """Arms that have seen these trials too; only the arms concerned are inverted anew."""
        known = sums.items < len(self.precision)
        at = sums.items[known]
        precision, rewards, inverse = self.precision.copy(), self.rewards.copy(), self.inverse.copy()
        precision[at] += sums.outer[known]
        rewards[at] += sums.rewards[known]
        inverse[at] = np.linalg.inv(precision[at])
        found = Arms(precision, rewards)
        found.__dict__["inverse"] = inverse
        return found

    def joined(self, more: Arms) -> Arms:
        """With further arms at the end."""
        return Arms(np.concatenate([self.precision, more.precision]), np.concatenate([self.rewards, more.rewards]))

    def export(self) -> State:
        return {"arms.precision": self.precision, "arms.rewards": self.rewards}

    @classmethod
    def of(cls, state: State, n_items: int) -> Arms:
        """What `export` gave. Raises BundleError where it does not fit."""
        precision, rewards = state.get("arms.precision"), state.get("arms.rewards")
        if precision is None or rewards is None or rewards.ndim != 2 or len(rewards) != n_items:
            raise BundleError(f"the arms of {n_items:,} items are missing, or of another number of items")
        if precision.shape != (n_items, rewards.shape[1], rewards.shape[1]) or precision.dtype != np.float64:
            raise BundleError(
                f"each arm keeps a float64 matrix and a vector, got shapes {precision.shape}, {rewards.shape}"
            )
        if not (np.isfinite(precision).all() and np.isfinite(rewards).all()):
            raise BundleError("arms hold values that are no numbers")
        try:
            np.linalg.cholesky(precision)
        except np.linalg.LinAlgError as error:
            raise BundleError("the matrix of an arm is not positive definite") from error
        return cls(precision, rewards)
