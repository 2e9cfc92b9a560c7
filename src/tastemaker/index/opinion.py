"""What another system says of items, asked in one way whatever it can do: which suit somebody, which are alike.

opinion = Opinion(system, n_items)
opinion.suited(prefer, items, 100)      # the best of some items for whoever likes these
opinion.alike(seeds)                    # likeness of every item to these: [I], never [I, I]
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Embeds, Scores
from tastemaker.index.exact import as_vectors
from tastemaker.index.retriever import Retriever, retriever
from tastemaker.types import Columns, Jagged, Requests, to_numpy

Numbers = NDArray[np.int32]
Floats = NDArray[np.float32]
SHARE = 0.2  # of the catalogue that a system of lists alone is asked for


class Opinion:
    """A fitted system, asked about items.

    Args:
        latest: a time after all that the system was fitted on; None: its histories have no times.
    """

    def __init__(self, system: Any, n_items: int, latest: int | None = None) -> None:
        self.system, self.n_items, self.latest = system, n_items, latest

    @cached_property
    def retriever(self) -> Retriever:
        return retriever(self.system)

    def suited(
        self, prefer: Numbers, items: Numbers, k: int, *, user: int = -1, seed: int = 0
    ) -> tuple[Numbers, Floats]:
        """The k best of the items for somebody with this history, best first, and their scores.

        Where the system has an opinion of fewer, the others follow in the order they are given in.
        """
        k = min(k, len(items))
        among = None if len(items) == self.n_items else Jagged(items, np.array([0, len(items)], dtype=np.int64))
        asked = self._requests([prefer]).with_(
            users=np.array([user], dtype=np.int32), candidates=among, seeds=np.array([seed], dtype=np.uint64)
        )
        slates = self.retriever.retrieve(asked, k)
        there = slates.items[0] >= 0
        found, scores = slates.items[0][there], slates.scores[0][there]
        if len(found) < k:
            rest = items[~np.isin(items, found)][: k - len(found)]
            low = scores.min() - 1 if len(scores) else 0.0
            found, scores = np.append(found, rest), np.append(scores, np.full(len(rest), low))
        return found.astype(np.int32), scores.astype(np.float32)

    def alike(self, seeds: Numbers) -> Floats:
        """Mean likeness of all items to the seeds [I]: cosines of vectors, or how each suits who has one seed alone."""
        if isinstance(self.system, Embeds):
            return np.asarray(self._vectors @ self._vectors[seeds].mean(axis=0), dtype=np.float32)
        alone = self._requests([[seed] for seed in seeds])
        if isinstance(self.system, Scores):
            return np.asarray(to_numpy(self.system.score(alone, None)).mean(axis=0), dtype=np.float32)
        slates = self.retriever.retrieve(alone, max(1, int(SHARE * self.n_items)))
        total = np.zeros(self.n_items, dtype=np.float32)
        there = slates.items >= 0
        ranks = np.broadcast_to(1 / np.log2(np.arange(slates.k) + 2), slates.items.shape)
        np.add.at(total, slates.items[there], ranks[there])
        return np.asarray(total / max(len(seeds), 1), dtype=np.float32)

    @cached_property
    def _vectors(self) -> Floats:
        vectors = as_vectors(self.system.items())
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _requests(self, histories: Any) -> Requests:
        """Who has these histories, as events one step after another."""
        rows: Jagged[Any] = Jagged.from_lists(histories, dtype=np.int32)
        columns: dict[str, Any] = {"item": rows.values, "value": np.ones(len(rows.values), dtype=np.float32)}
        if self.latest is not None:
            columns["time"] = self.latest + 1 + np.arange(len(rows.values), dtype=np.int64)
        return Requests(len(rows), users=np.full(len(rows), -1), history=Jagged(Columns(columns), rows.offsets))
