"""Approximate search for catalogues of millions of items, by FAISS (extra "ann").

Inner product is no distance, and graphs and clusters built for it miss much. Each vector is lifted by one
dimension so that all have the same length; then the highest inner product is the smallest distance (Bachrach
et al., Speeding up the Xbox recommender system, RecSys 2014, section 3.1). On 64 factors of iALS for Gowalla's
40,981 items this raised recall@20 from .91 to .99 for "ivf" (20 of 400 lists read) and, at high widths, from .78
to .95 for "hnsw".

FAISS only nominates. What it finds is scored again as `ExactIndex` scores, so the scores are exact; requests
whose exclusions or filter leave too few nominees are searched exactly, so lists are as long as they can be.

No file of FAISS is ever written or read: its reader trusts what it reads, and bundles come from strangers.
`export` gives the structure as plain arrays, `restored` checks every one of them before FAISS sees it, and the
vectors come from the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.exact import ExactIndex, as_vectors
from tastemaker.index.select import Items, Rules, Scores, empty_lists, select_listed
from tastemaker.types import Array, BundleError, Jagged, State, UsageError, optional

REACH = 3.0  # queries are scaled to so many times the length of the longest vector: recall is flat from 1 to 10
ROUNDS = 10  # of k-means
NOMINEE_BYTES = 32  # numbers and scores of one nominee, in FAISS's types and in ours
KINDS = ("ivf", "hnsw")


@dataclass(frozen=True)
class Build:
    """How an index is built and read; 0 lets the size of the catalogue decide.

    lists, probes: for "ivf", clusters of items (2 sqrt(I)) and how many of them a request reads (a twentieth)
    links, build_width, width: for "hnsw", neighbours an item, and how many items are kept in view while the
        graph is built and read
    """

    lists: int = 0
    probes: int = 0
    links: int = 32
    build_width: int = 200
    width: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or self.links < 2 or self.build_width < 1 or self.width < 1:
            raise UsageError(f"settings of an index are positive, got {self}")


class FaissIndex:
    """An approximate index over item vectors [I, D], finite, which must stay as they are.

    "ivf" is built faster and, on factors, finds more in less time; "hnsw" is for vectors of much the same length.
    A graph built by several threads differs a little from build to build; an exported one, restored, answers as
    the one it was exported from.
    """

    def __init__(self, vectors: Array, kind: Literal["ivf", "hnsw"] = "ivf", **build: int) -> None:
        if kind not in KINDS:
            raise UsageError(f"an index is one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.build = kind, Build(**build)
        self.exact = ExactIndex(vectors)
        self.radius = np.float32(self.exact.longest)
        self._parts: _Lists | _Graph
        lifted = lift(self.vectors, self.radius)
        if kind == "ivf":
            self._parts = _Lists(_centroids(lifted, self.build), self.exact.dim)
        else:
            self._parts = _Graph(self.exact.dim + 1, self.build)
        self._parts.add(self.vectors, lifted)

    def __len__(self) -> int:
        return len(self.exact)

    @property
    def vectors(self) -> Scores:
        return self.exact.vectors

    def extend(self, vectors: Array) -> None:
        """Append the vectors of new items. Build anew once they are many: clusters and lift stay as they were."""
        more = as_vectors(vectors, self.exact.dim)
        self._parts.add(more, lift(more, self.radius))
        self.exact.extend(more)

    def search(
        self,
        queries: Array,
        k: int,
        rules: Rules | None = None,
        *,
        candidates: Jagged[Items] | None = None,
        budget_mb: float = 256,
    ) -> tuple[Items, Scores]:
        """As `ExactIndex.search`, but an item may be missed; scores, order and rules are exact."""
        queries = as_vectors(queries, self.exact.dim, "queries")
        rules = Rules.of(len(queries), len(self)) if rules is None else rules
        if candidates is not None or k >= len(self):
            return self.exact.search(queries, k, rules, candidates=candidates, budget_mb=budget_mb)
        items, scores = empty_lists(len(queries), k)
        for rows, wide, only in self._alike(k, rules, budget_mb):
            found = self._nominate(queries[rows], wide, only)
            listed = Jagged(found.ravel(), np.arange(len(rows) + 1) * wide)
            exact = self.exact.listed_scores(queries[rows], listed)
            items[rows], scores[rows] = select_listed(listed, exact, k, rules.take(rows), len(self))
        short = np.flatnonzero(items[:, -1] < 0)
        if len(short):
            items[short], scores[short] = self.exact.search(queries[short], k, rules.take(short), budget_mb=budget_mb)
        return items, scores

    def _alike(
        self, k: int, rules: Rules, budget_mb: float
    ) -> Iterator[tuple[NDArray[np.int64], int, NDArray[np.bool_] | None]]:
        """Rows that share a filter and a number of nominees: k and what may be excluded, up to a power of two."""
        needed = 1 << np.ceil(np.log2(k + np.diff(rules.offsets))).astype(np.int64)
        kinds = np.stack([np.minimum(needed, len(self)), rules.which])
        for kind in np.unique(kinds, axis=1).T:
            wide, rule = int(kind[0]), int(kind[1])
            rows = np.flatnonzero((kinds == kind[:, None]).all(axis=0))
            at_once = max(1, int(budget_mb * 2**20 / (NOMINEE_BYTES * wide)))
            for start in range(0, len(rows), at_once):
                yield rows[start : start + at_once], wide, None if rule < 0 else rules.allowed[rule, : len(self)]

    def _nominate(self, queries: Scores, n: int, only: NDArray[np.bool_] | None) -> Items:
        lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))[:, None]
        scaled = queries * (REACH * max(float(self.radius), 1e-30) / np.maximum(lengths, 1e-30)).astype(np.float32)
        found: Items = self._parts.find(queries, scaled, n, only, self.build).astype(np.int32)
        return found

    def export(self) -> dict[str, NDArray[Any]]:
        """The structure as plain arrays, without the vectors."""
        about = {f"build.{name}": np.asarray(value) for name, value in asdict(self.build).items()}
        head = {"kind": np.asarray(KINDS.index(self.kind)), "size": np.asarray(len(self)), "radius": self.radius}
        return {**about, **{name: np.asarray(value) for name, value in head.items()}, **self._parts.export()}

    @classmethod
    def restored(cls, vectors: Array, state: State) -> FaissIndex:
        """The index that `export` described, over the same vectors. Raises BundleError where the two do not fit."""
        index = cls.__new__(cls)
        try:
            index.kind = KINDS[int(state["kind"])]  # type: ignore[assignment]
            index.build = Build(**{n: int(state[f"build.{n}"]) for n in asdict(Build())})
            index.exact, index.radius = ExactIndex(vectors), np.float32(state["radius"])
            if int(state["size"]) != len(index) or not 0 <= index.radius < np.inf:
                raise BundleError(f"the index was built over {state['size']} vectors, there are {len(index)}")
            lifted = lift(index.vectors, index.radius)
            parts = _Lists if index.kind == "ivf" else _Graph
            index._parts = parts.restored(index.vectors, lifted, index.build, state)
        except (KeyError, IndexError, TypeError, ValueError, UsageError) as error:
            raise BundleError(f"the index is damaged: {error}") from error
        return index


class _Lists:
    """Clusters of items; a request reads the nearest ones whole.

    Which cluster is nearest is found by exact search, so that a request gets the same answer in any batch.
    """

    def __init__(self, centroids: Scores, dim: int) -> None:
        faiss = _faiss()
        self.centroids = centroids
        half = -0.5 * np.einsum("nd,nd->n", centroids, centroids, dtype=np.float64).astype(np.float32)
        self.nearest = ExactIndex(np.column_stack([centroids, half]))  # x.c - |c|^2 / 2 falls with the distance
        self.quantiser = faiss.IndexFlatIP(dim)  # FAISS asks for one; it is never searched
        self.quantiser.add(np.zeros((len(centroids), dim), dtype=np.float32))
        self.lists = faiss.IndexIVFFlat(self.quantiser, dim, len(centroids), faiss.METRIC_INNER_PRODUCT)
        self.lists.is_trained = True
        self.owner = np.empty(0, dtype=np.int32)

    def add(self, vectors: Scores, lifted: Scores, owner: Items | None = None) -> None:
        if owner is None:
            owner = self.nearest.search(np.column_stack([lifted, np.ones_like(lifted[:, 0])]), 1)[0][:, 0]
        pointer, first = _faiss().swig_ptr, len(self.owner)
        numbers, home = np.arange(first, first + len(vectors)), owner.astype(np.int64)
        self.lists.add_core(len(vectors), pointer(vectors), pointer(numbers), pointer(home))
        self.owner = np.concatenate([self.owner, owner])

    def find(
        self, queries: Scores, scaled: Scores, n: int, only: NDArray[np.bool_] | None, build: Build
    ) -> NDArray[np.int64]:
        probes = min(build.probes or max(4, len(self.centroids) // 20), len(self.centroids))
        asked = np.column_stack([scaled, np.zeros_like(scaled[:, 0]), np.ones_like(scaled[:, 0])])
        homes = self.nearest.search(asked, probes)[0].astype(np.int64)
        settings = _faiss().SearchParametersIVF(nprobe=probes, **_selector(only))
        far, scores = np.zeros(homes.shape, dtype=np.float32), np.empty((len(queries), n), dtype=np.float32)
        found = np.empty((len(queries), n), dtype=np.int64)
        into = map(_faiss().swig_ptr, (homes, far, scores, found))
        # the wrapper without "_c" takes no settings, hence no selector
        self.lists.search_preassigned_c(len(queries), _faiss().swig_ptr(queries), n, *into, False, settings)
        return found

    def export(self) -> dict[str, NDArray[Any]]:
        return {"centroids": self.centroids, "owner": self.owner}

    @classmethod
    def restored(cls, vectors: Scores, lifted: Scores, build: Build, state: State) -> _Lists:
        centroids, owner = as_vectors(state["centroids"], lifted.shape[1], "centroids"), state["owner"]
        if owner.dtype != np.int32 or owner.shape != (len(vectors),) or not len(centroids):
            raise BundleError("the index does not say of every item in which list it is")
        if len(owner) and not 0 <= owner.min() <= owner.max() < len(centroids):
            raise BundleError("the index names lists that it does not have")
        parts = cls(centroids, vectors.shape[1])
        parts.add(vectors, lifted, owner)
        return parts


class _Graph:
    """A navigable graph of items (HNSW, Malkov and Yashunin, arXiv:1603.09320)."""

    def __init__(self, dim: int, build: Build) -> None:
        self.graph = _faiss().IndexHNSWFlat(dim, build.links)
        self.graph.hnsw.efConstruction = build.build_width

    def add(self, vectors: Scores, lifted: Scores) -> None:
        self.graph.add(lifted)

    def find(
        self, queries: Scores, scaled: Scores, n: int, only: NDArray[np.bool_] | None, build: Build
    ) -> NDArray[np.int64]:
        settings = _faiss().SearchParametersHNSW(efSearch=max(build.width, n), **_selector(only))
        asked = np.column_stack([scaled, np.zeros_like(scaled[:, 0])])
        return self.graph.search(asked, n, params=settings)[1]  # type: ignore[no-any-return]

    def export(self) -> dict[str, NDArray[Any]]:
        array, hnsw = _faiss().vector_to_array, self.graph.hnsw
        return {
            "levels": array(hnsw.levels),
            "neighbours": array(hnsw.neighbors),
            "entry": np.asarray(hnsw.entry_point, dtype=np.int32),
        }

    @classmethod
    def restored(cls, vectors: Scores, lifted: Scores, build: Build, state: State) -> _Graph:
        faiss = _faiss()
        parts = cls(lifted.shape[1], build)
        hnsw = parts.graph.hnsw
        start = faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)  # where a level's slots begin
        levels, neighbours, entry = state["levels"], state["neighbours"], int(state["entry"])
        _check_graph(levels, neighbours, entry, start, len(lifted))
        if len(lifted):
            parts.graph.storage.add(lifted)
            parts.graph.ntotal = len(lifted)
            offsets = np.concatenate([[0], np.cumsum(start[levels])]).astype(np.uint64)
            faiss.copy_array_to_vector(levels, hnsw.levels)
            faiss.copy_array_to_vector(offsets, hnsw.offsets)
            faiss.copy_array_to_vector(neighbours, hnsw.neighbors)
            hnsw.entry_point, hnsw.max_level = entry, int(levels.max()) - 1
        return parts


def _check_graph(
    levels: NDArray[np.int32], neighbours: NDArray[np.int32], entry: int, start: NDArray[np.int64], n: int
) -> None:
    """FAISS follows links unchecked: every link must lead to an item that exists, on a level that it has."""
    if levels.dtype != np.int32 or neighbours.dtype != np.int32 or levels.shape != (n,):
        raise BundleError("the graph does not fit the vectors")
    if n == 0:
        return
    if not 1 <= levels.min() <= levels.max() < len(start) or not 0 <= entry < n or levels[entry] != levels.max():
        raise BundleError("the graph's levels are damaged")
    offsets = np.concatenate([[0], np.cumsum(start[levels])])
    if neighbours.shape != (offsets[-1],) or not -1 <= neighbours.min() <= neighbours.max() < n:
        raise BundleError("the graph's links lead out of it")
    for level in range(1, int(levels.max())):
        holders = np.flatnonzero(levels > level)
        slots = offsets[holders][:, None] + np.arange(start[level], start[level + 1])
        linked = neighbours[slots]
        if (levels[linked[linked >= 0]] <= level).any():
            raise BundleError("the graph's links lead to levels that do not exist")


def lift(vectors: Scores, radius: np.float32) -> Scores:
    """Vectors [n, D + 1] of the length `radius`; longer ones stay as long as they are."""
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    missing = np.sqrt(np.maximum(float(radius) ** 2 - squares, 0.0))
    return np.column_stack([vectors, missing.astype(np.float32)])


def _centroids(lifted: Scores, build: Build) -> Scores:
    n = max(1, min(build.lists or int(2 * np.sqrt(len(lifted))), len(lifted)))
    if len(lifted) == 0:
        return np.zeros((1, lifted.shape[1]), dtype=np.float32)
    means = _faiss().Kmeans(lifted.shape[1], n, niter=ROUNDS, seed=build.seed + 1, min_points_per_centroid=1)
    means.train(lifted)
    return np.ascontiguousarray(means.centroids, dtype=np.float32)


def _selector(only: NDArray[np.bool_] | None) -> dict[str, Any]:
    """A search argument that lets FAISS nominate allowed items only."""
    return {} if only is None else {"sel": _faiss().IDSelectorBitmap(np.packbits(only, bitorder="little"))}


def _faiss() -> Any:
    return optional("faiss", extra="ann", why="approximate search")
