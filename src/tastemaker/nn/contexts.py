"""What a linear bandit knows of somebody who asks: a row of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.nn.clusters import Clusters
from tastemaker.nn.space import Space
from tastemaker.types import Requests, State, UsageError

Floats = NDArray[np.float64]
Of = Literal["vectors", "clusters", "columns"]
"""Where contexts come from: the vector of who asks and a 1; weights of the nearest clusters; columns of the context."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """Contexts by one of the three ways; without a `space` they come with the requests, as `columns`."""

    columns: tuple[str, ...] = ()
    space: Space | None = None
    clusters: Clusters | None = None

    def rows(self, requests: Requests) -> Floats:
        """Contexts [B, D]."""
        if self.space is None:
            return context_columns(requests, self.columns)
        queries = self.space.queries(requests)
        if self.clusters is not None:
            return self.clusters.dense(queries)
        return np.column_stack([queries, np.ones(requests.n, dtype=np.float32)]).astype(np.float64)

    def similarity(self) -> Floats:
        """Weights [I, D] with which an item is worth its cosine with who asks; clusters stand for their members."""
        assert self.space is not None
        items = self.space.items
        if self.clusters is not None:
            return (items @ self.clusters.centres.T).astype(np.float64)
        return np.column_stack([items, np.zeros(len(items), dtype=np.float32)]).astype(np.float64)

    def extended(self, users: Any, items: Any) -> Contexts:
        """With newcomers, see `Space.extended`."""
        return self if self.space is None else replace(self, space=self.space.extended(users, items))

    def export(self) -> State:
        own = {} if self.space is None else self.space.export()
        return {**own, **({} if self.clusters is None else self.clusters.export())}


def context_columns(requests: Requests, columns: Sequence[str]) -> Floats:
    """Columns of the requests' context, side by side [B, D]."""
    there = {} if requests.context is None else requests.context
    if missing := [name for name in columns if name not in there]:
        raise UsageError(f"the requests' context lacks {', '.join(missing)}; it has {', '.join(there) or 'nothing'}")
    parts = [np.asarray(there[name], dtype=np.float64).reshape(requests.n, -1) for name in columns]
    return np.concatenate(parts, axis=1)
