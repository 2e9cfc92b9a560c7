"""Lists from any system: what it answers with itself, or its vectors searched, or its scores scanned.

Candidates, exclusions and filters are honoured here, once, for all systems that give vectors or scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tastemaker.contracts import Embeds, Retrieves, Scores, capabilities
from tastemaker.index.exact import ExactIndex, as_vectors
from tastemaker.index.select import Rules, empty_lists, fold, row_slices, select_listed
from tastemaker.index.threads import share
from tastemaker.types import Array, BudgetExceeded, CapabilityError, Jagged, Requests, Slates, UsageError, to_numpy
from tastemaker.types.progress import progress

QUERIES = 1024  # requests whose vectors a system is asked for at once
SEARCHES = 8 * QUERIES  # requests whose vectors are searched at once
COPIES = 3  # blocks of scores that a system is taken to hold at once: its own work, its answer, the last answer


class Retriever(Protocol):
    """Turns requests into lists."""

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k best items for each request, best first; a list is shorter where fewer are allowed."""
        ...


class Index(Protocol):
    """Vectors of a catalogue that can be searched: `ExactIndex`, `FaissIndex`, or another."""

    def __len__(self) -> int: ...

    def search(
        self,
        queries: Array,
        k: int,
        rules: Rules | None = None,
        *,
        candidates: Jagged[NDArray[np.int32]] | None = None,
        budget_mb: float = 256,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...


def retriever(system: Any, *, budget_mb: float = 256, index: Index | None = None) -> Retriever:
    """What turns requests into lists by the first of these that `system` can do: Retrieves, Embeds, Scores.

    Args:
        budget_mb: memory for blocks of scores; what the system itself needs to make them is estimated.
        index: an index over the system's item vectors; without one they are taken from it at the first call
            and searched exactly. `ByVectors.refresh` takes them again.

    Raises:
        CapabilityError: the system can do none of the three.
    """
    if isinstance(system, Retrieves) and index is None:
        return system
    if isinstance(system, Embeds):
        return ByVectors(system, budget_mb, index)
    if index is not None:
        raise CapabilityError("an index holds vectors of items, and this system gives no vectors of requests")
    if isinstance(system, Scores):
        return ByScores(system, budget_mb)
    raise _cannot(system, "lists")


class ByVectors:
    """Lists by inner product of the vectors of requests and items."""

    def __init__(self, system: Embeds, budget_mb: float = 256, index: Index | None = None) -> None:
        self.system, self.budget_mb, self._index = system, budget_mb, index

    @property
    def index(self) -> Index:
        if self._index is None:
            self._index = ExactIndex(self.system.items())
        return self._index

    def refresh(self) -> None:
        """Take the vectors of all items from the system again, for instance after it was extended."""
        self._index = ExactIndex(self.system.items())

    def retrieve(self, requests: Requests, k: int) -> Slates:
        index = self.index
        items, scores = empty_lists(requests.n, k)
        with progress("retrieving", requests.n) as advance:
            for part in _blocks(requests.n, SEARCHES):
                asked = requests.take(part)
                rules = Rules.from_requests(asked, len(index))
                queries = _queries(self.system, asked)
                items[part], scores[part] = index.search(
                    queries, k, rules, candidates=asked.candidates, budget_mb=self.budget_mb
                )
                advance(asked.n)
        return Slates(items, scores)


class ByScores:
    """Lists by a scan over the scores of the whole catalogue, or of the candidates."""

    def __init__(self, system: Scores, budget_mb: float = 256) -> None:
        self.system, self.budget_mb = system, budget_mb
        self._n_items: int | None = None

    def retrieve(self, requests: Requests, k: int) -> Slates:
        items, best = empty_lists(requests.n, k)
        find = self._among if requests.candidates is not None else self._scan
        with progress("retrieving", requests.n) as advance:
            for part in find(requests, items, best):
                advance(part.stop - part.start)
        return Slates(items, best)

    def _scan(self, requests: Requests, items: NDArray[np.int32], best: NDArray[np.float32]) -> Iterator[slice]:
        n_items = self._count(requests) if requests.n else 0
        for part, scores in score_blocks(self.system, requests, budget_mb=self.budget_mb, n_items=n_items):
            rules = Rules.from_requests(requests.take(part), n_items)

            def work(pieces: Any, scores: Any = scores, rules: Rules = rules, part: slice = part) -> None:
                for piece in pieces:
                    fold(scores[piece], 0, rules.take(piece), items[part][piece], best[part][piece])

            share(row_slices(*scores.shape), work)
            yield part

    def _among(self, requests: Requests, items: NDArray[np.int32], best: NDArray[np.float32]) -> Iterator[slice]:
        assert requests.candidates is not None
        n_items = self._count(requests)
        widest = int(requests.candidates.lengths.max(initial=1))
        for part in _blocks(requests.n, _rows_within(self.budget_mb, widest)):
            asked = requests.take(part)
            assert asked.candidates is not None
            listed = asked.candidates.padded(fill=-1)
            scores = _rows(self.system.score(asked, listed), asked.n)
            if scores.shape != listed.shape:
                raise UsageError(f"scores of candidates {list(listed.shape)} must be as many, got {list(scores.shape)}")
            flat = Jagged(listed.ravel(), np.arange(asked.n + 1) * listed.shape[1])
            rules = Rules.from_requests(asked, n_items)
            items[part], best[part] = select_listed(flat, scores.ravel(), items.shape[1], rules, n_items)
            yield part

    def _count(self, requests: Requests) -> int:
        """How many items the system knows."""
        if self._n_items is None:
            self._n_items = _n_items(self.system, requests)
        return self._n_items


def score_blocks(
    system: Any, requests: Requests, *, budget_mb: float = 256, n_items: int | None = None
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Scores of the whole catalogue, a block of requests at a time: (rows, scores [b, I] float32).

    The blocks are made so large that a system which holds two of them while it works stays within the budget.
    Read them, do not write to them: they may be the system's own. What is excluded or filtered is scored too.
    A system that only scores is asked about one request to count its items, where `n_items` does not say.

    Raises:
        CapabilityError: the system gives neither vectors nor scores.
        BudgetExceeded: the scores of one request alone exceed the budget.
    """
    if requests.n == 0:
        return
    if isinstance(system, Embeds):
        vectors = as_vectors(system.items())
        for part in _blocks(requests.n, min(QUERIES, _rows_within(budget_mb, len(vectors)))):
            queries = as_vectors(_queries(system, requests.take(part)), vectors.shape[1], "queries")
            yield part, np.matmul(queries, vectors.T)
    elif isinstance(system, Scores):
        n_items = _n_items(system, requests) if n_items is None else n_items
        for part in _blocks(requests.n, _rows_within(budget_mb, n_items)):
            asked = requests.take(part)
            yield part, _rows(system.score(asked, None), asked.n)
    else:
        raise _cannot(system, "scores of the whole catalogue")


def _queries(system: Embeds, requests: Requests) -> NDArray[np.float32]:
    """Vectors of the requests [B, D], asked for in blocks."""
    parts = [requests.take(part) for part in _blocks(requests.n, QUERIES)]
    return np.concatenate([_rows(system.queries(part), part.n) for part in parts])


def _n_items(system: Scores, requests: Requests) -> int:
    return int(np.shape(to_numpy(system.score(requests.take(slice(0, 1)), None)))[1])


def _rows_within(budget_mb: float, n: int) -> int:
    """How many rows of n scores fit into the budget."""
    rows = int(budget_mb * 2**20 / (4 * COPIES * max(n, 1)))
    if rows == 0:
        raise BudgetExceeded(
            f"scores of {n:,} items for one request need {4 * COPIES * n / 2**20:.1f} MB, the budget is {budget_mb} MB",
            hint="give a larger budget_mb",
        )
    return rows


def _blocks(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _rows(answer: Array, n: int) -> NDArray[np.float32]:
    """What a system answered for n requests, as contiguous float32 [n, ...]."""
    array = np.ascontiguousarray(to_numpy(answer), dtype=np.float32)
    if array.ndim != 2 or len(array) != n:
        raise UsageError(f"a system answers {n} requests with {n} rows, got shape {list(array.shape)}")
    return array


def _cannot(system: Any, what: str) -> CapabilityError:
    can = ", ".join(capabilities(system)) or "nothing that is known"
    return CapabilityError(
        f"{type(system).__name__} cannot be asked for {what}: it can do {can}",
        hint="a system needs retrieve, or queries and items, or score",
    )
