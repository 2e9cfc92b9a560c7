"""DP: data poisoning of deep recommenders, by a model of what the attacked system will learn.

Fake users are made one after another. Each begins with the targets alone. A surrogate is trained on the real users and
the fakes so far, and in doing so pushes the targets into the lists of real users; what it then scores high for the fake
user are the fillers whose company makes the targets rise. So that fakes differ, an item that was taken is scored lower
by a factor from then on, until every item was taken once.

Kept: the hinge that stands for the attacker's wish (the score of the last item of a user's list minus a target's), the
choice of fillers by score times probability, the decay of probabilities and their reset. Changed: the surrogate is a
factorisation under BPR, as the attacked systems learn from choices without ratings, and scores enter the product
through a logistic function, since a factor makes negative ones larger; the hinge is taken for some users of a batch;
and the surrogate is not begun anew for each fake user, but goes on for an epoch.

Ref: Huang et al., "Data poisoning attacks to deep learning based recommender systems", NDSS 2021, arXiv:2101.02644.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.audit.attacks import assembled
from tastemaker.audit.poison import Ints, Profiles, Seen
from tastemaker.feeds import uniform
from tastemaker.types import progress, setting

BATCH = 1024
HINGED = 64  # users of a batch whose lists the hinge looks at


@dataclass(frozen=True)
class DP:
    """Fillers that a surrogate scores high for a user of the targets; values by the means of their items."""

    name: ClassVar[str] = "dp"
    title: ClassVar[str] = "fillers chosen by a surrogate model, a fake user at a time"
    knows: ClassVar[str] = "the choices of all users"
    decay: float = setting(0.8, "What an item's probability is multiplied by when it was taken.", low=0.01, high=1.0)
    k: int = setting(50, "Length of the lists into which targets are pushed.", low=1)
    hinge: float = setting(1.0, "Weight of pushing beside that of learning.", low=0.0)
    first: int = setting(20, "Epochs of the surrogate before the first fake user.", low=1)
    epochs: int = setting(1, "Epochs of the surrogate for each further one.", low=0)
    dim: int = setting(32, "Width of the surrogate's vectors.", low=1)
    lr: float = setting(0.05, "Learning rate of the surrogate.", low=1e-5, high=1.0)
    reg: float = setting(0.01, "Weight of the squared vectors of the surrogate.", low=0.0)

    def profiles(self, seen: Seen, targets: Ints, n: int, size: int, rng: np.random.Generator) -> Profiles:
        n_real, n_items = seen.matrix.shape
        wanted = size - len(targets)
        fillers = np.zeros((n, wanted), dtype=np.int64)
        probability = np.ones(n_items)
        free = np.setdiff1d(np.arange(n_items), targets)
        surrogate = Surrogate(n_real + n, n_items, self, targets, rng)
        real = seen.matrix.tocoo()
        users, items = [real.row.astype(np.int64)], [real.col.astype(np.int64)]
        with progress("attack dp", n) as advance:
            for fake in range(n):
                users.append(np.full(len(targets), n_real + fake))
                items.append(targets)
                known = _matrix(users, items, (n_real + n, n_items))
                surrogate.train(known, n_real, self.epochs if fake else self.first)
                likely = probability[free] / (1 + np.exp(-surrogate.scores(n_real + fake)[free]))
                taken = free[np.argsort(-likely, kind="stable")[:wanted]]
                fillers[fake] = taken
                probability[taken] *= self.decay
                if (probability[free] < 1).all():
                    probability[:] = 1.0
                users.append(np.full(wanted, n_real + fake))
                items.append(taken)
                advance(1)
        return assembled(
            targets, fillers, seen.ratings, None if seen.ratings is None else seen.ratings.of_items[fillers]
        )


class Surrogate:
    """A factorisation that learns to rank, and to put the targets into lists, by plain stochastic descent."""

    def __init__(self, n_users: int, n_items: int, how: DP, targets: Ints, rng: np.random.Generator) -> None:
        self.how, self.targets, self.rng = how, targets, rng
        self.users = rng.normal(0, 0.1, (n_users, how.dim)).astype(np.float32)
        self.items = rng.normal(0, 0.1, (n_items, how.dim)).astype(np.float32)

    def scores(self, user: int) -> NDArray[np.float64]:
        """Scores of all items for a user [I]."""
        found: NDArray[np.float64] = (self.items @ self.users[user]).astype(np.float64)
        return found

    def train(self, known: sp.csr_array, n_real: int, epochs: int) -> None:
        """Passes over all choices; users below `n_real` are those whose lists the targets are pushed into."""
        sample = uniform(known, 1)
        whose = np.repeat(np.arange(known.shape[0]), np.diff(known.indptr))
        for _ in range(epochs):
            order = self.rng.permutation(known.nnz)
            for start in range(0, len(order), BATCH):
                rows = order[start : start + BATCH]
                users, items = whose[rows], known.indices[rows].astype(np.int64)
                self._rank(users, items, sample(users, self.rng)[:, 0])
                if self.how.hinge:
                    self._push(known, np.unique(users[users < n_real][:HINGED]))

    def _rank(self, users: Ints, chosen: Ints, others: Ints) -> None:
        """A step down the BPR loss of these triples."""
        u, i, j = self.users[users], self.items[chosen], self.items[others]
        slope = -1 / (1 + np.exp((u * (i - j)).sum(axis=1, keepdims=True)))
        _descend(self.users, users, self.how.lr * (slope * (i - j) + self.how.reg * u))
        rows = np.concatenate([chosen, others])
        steps = np.concatenate([slope * u + self.how.reg * i, -slope * u + self.how.reg * j])
        _descend(self.items, rows, self.how.lr * steps)

    def _push(self, known: sp.csr_array, users: Ints) -> None:
        """A step down max(0, score of the last item of a list - score of a target), for these users, all targets."""
        seen = known[users]
        u = self.users[users]
        scores = u @ self.items.T
        at_targets = scores[:, self.targets]
        rows = np.repeat(np.arange(len(users)), np.diff(seen.indptr))
        scores[rows, seen.indices] = -np.inf
        k = min(self.how.k, scores.shape[1])
        last = np.argpartition(-scores, k - 1, axis=1)[:, k - 1]
        bar = scores[np.arange(len(users)), last]
        own = np.zeros(scores.shape, dtype=np.bool_)
        own[rows, seen.indices] = True
        below = (bar[:, None] > at_targets) & ~own[:, self.targets] & np.isfinite(bar)[:, None]
        weights = (self.how.hinge / len(self.targets) * below).astype(np.float32)  # [B, T]
        moved = weights.sum(axis=1, keepdims=True)
        step = self.how.lr
        _descend(self.users, users, step * (moved * self.items[last] - weights @ self.items[self.targets]))
        up = -(weights.T @ u)  # [T, D]
        _descend(self.items, np.concatenate([last, self.targets]), step * np.concatenate([moved * u, up]))


def _descend(table: NDArray[Any], rows: Ints, steps: NDArray[Any]) -> None:
    """Take steps [B, D] off rows [B] of a table; those of the same row add up."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    table[ordered[starts]] -= np.add.reduceat(steps[order], starts, axis=0)


def _matrix(users: list[Ints], items: list[Ints], shape: tuple[int, int]) -> sp.csr_array:
    rows, columns = np.concatenate(users), np.concatenate(items)
    matrix = sp.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix
