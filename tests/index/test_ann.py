"""FaissIndex: recall against exact search, exact scores and rules, safe storage."""

from __future__ import annotations

import numpy as np
import pytest

from tastemaker.index import ExactIndex, FaissIndex, Rules, retriever
from tastemaker.types import BundleError, Jagged, Requests, UsageError

pytest.importorskip("faiss")
N, D = 3000, 16
KINDS = ["ivf", "hnsw"]


def catalogue(n=N, seed=0):
    """Clustered vectors whose lengths differ as those of a factorisation do."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, D))
    points = centres[rng.integers(0, 30, n)] + 0.3 * rng.standard_normal((n, D))
    return (points * rng.gamma(2, 0.5, (n, 1))).astype(np.float32), centres[rng.integers(0, 30, 200)].astype(np.float32)


VECTORS, QUERIES = catalogue()
EXACT = ExactIndex(VECTORS)


@pytest.fixture(scope="module")
def indexes():
    return {kind: FaissIndex(VECTORS, kind, build_width=60) for kind in KINDS}


@pytest.fixture(params=KINDS)
def index(request, indexes):
    return indexes[request.param]


def recall(found, wanted):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)])


def test_finds_nearly_all_with_exact_scores_in_exact_order(index):
    items, scores = index.search(QUERIES, 20)
    wanted = EXACT.search(QUERIES, 20)
    assert recall(items, wanted[0]) > 0.97
    again = EXACT.search(QUERIES, 20, candidates=Jagged(items.ravel(), np.arange(201) * 20))
    np.testing.assert_array_equal(again[0], items)
    np.testing.assert_array_equal(again[1], scores)


def test_a_request_alone_gets_what_it_gets_in_a_batch(index):
    items, scores = index.search(QUERIES, 20)
    for r in range(0, 60, 7):
        one = index.search(QUERIES[r : r + 1], 20)
        np.testing.assert_array_equal(one[0][0], items[r])
        np.testing.assert_array_equal(one[1][0], scores[r])


def test_rules_are_exact_and_lists_full_where_they_can_be(index):
    rng = np.random.default_rng(1)
    best = EXACT.search(QUERIES, 300)[0]
    exclude = Jagged.from_lists([best[r, : 300 * (r % 2)] for r in range(200)], np.int32)
    allowed = np.stack([rng.random(N) < 0.5, np.arange(N) < 25])  # the second leaves next to nothing
    which = (np.arange(200) % 4 - 1).clip(max=1).astype(np.int32)
    rules = Rules.of(200, N, exclude, allowed, which)
    items, _ = index.search(QUERIES, 20, rules)
    wanted, _ = EXACT.search(QUERIES, 20, rules)
    np.testing.assert_array_equal((items >= 0).sum(axis=1), (wanted >= 0).sum(axis=1))
    for r in range(200):
        mine = items[r][items[r] >= 0]
        assert not np.isin(mine, exclude[r]).any() and len(np.unique(mine)) == len(mine)
        assert which[r] < 0 or allowed[which[r], mine].all()
    assert recall(items, wanted) > 0.95


def test_new_vectors_are_found_long_ones_too(index):
    more = np.concatenate([QUERIES[:1] * 9, catalogue(500, seed=5)[0]])
    grown = FaissIndex.restored(VECTORS, index.export())
    grown.extend(more)
    assert len(grown) == N + 501
    wanted = ExactIndex(np.concatenate([VECTORS, more])).search(QUERIES, 20)[0]
    items = grown.search(QUERIES, 20)[0]
    assert items[0, 0] == N and recall(items, wanted) > 0.93
    assert len(index) == N


def test_export_and_restore_answer_alike(index):
    state = index.export()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    again = FaissIndex.restored(VECTORS.copy(), {name: array.copy() for name, array in state.items()})
    for left, right in zip(again.search(QUERIES, 10), index.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(left, right)


def damaged(state, name, change):
    return {**state, name: change(state[name].copy())}


def put(value, at=0):
    def change(array):
        array.flat[at] = value
        return array

    return change


DAMAGE = [
    *[(kind, "kind", put(7)) for kind in KINDS],
    *[(kind, "size", put(N + 1)) for kind in KINDS],
    *[(kind, "build.links", put(-1)) for kind in KINDS],
    *[(kind, "radius", lambda a: np.asarray(np.nan)) for kind in KINDS],
    ("ivf", "owner", put(10**6)),
    ("ivf", "owner", put(-1)),
    ("ivf", "owner", lambda a: a[:-1]),
    ("ivf", "owner", lambda a: a.astype(np.int64)),
    ("ivf", "centroids", put(np.inf)),
    ("ivf", "centroids", lambda a: a[:, :-1]),
    ("hnsw", "levels", put(0)),
    ("hnsw", "levels", put(100)),
    ("hnsw", "levels", lambda a: np.ones_like(a) * 2),
    ("hnsw", "neighbours", put(N)),
    ("hnsw", "neighbours", put(-2)),
    ("hnsw", "neighbours", lambda a: a[:-1]),
    ("hnsw", "entry", put(N)),
    ("hnsw", "entry", put(-1)),
]


@pytest.mark.parametrize(("kind", "name", "change"), DAMAGE)
def test_damaged_structures_are_refused_before_faiss_sees_them(indexes, kind, name, change):
    state = indexes[kind].export()
    with pytest.raises(BundleError, match=r"index|graph"):
        FaissIndex.restored(VECTORS, damaged(state, name, change))
    with pytest.raises(BundleError, match="damaged"):
        FaissIndex.restored(VECTORS, {k: v for k, v in state.items() if k != name})
    with pytest.raises(BundleError):
        FaissIndex.restored(VECTORS[:-1], state)


def test_links_to_levels_that_do_not_exist_are_refused():
    graph = FaissIndex(VECTORS, "hnsw", build_width=20, links=8)
    state = graph.export()
    levels = state["levels"]
    start = np.array([0, 16, 24, 32, 40, 48, 56])  # 2 * links slots on the ground level, links above
    tall = int(np.flatnonzero(levels > 1)[0])
    slot = int(start[levels[:tall]].sum()) + 16
    low = int(np.flatnonzero(levels == 1)[0])
    with pytest.raises(BundleError, match="levels that do not exist"):
        FaissIndex.restored(VECTORS, damaged(state, "neighbours", put(low, slot)))


def test_as_the_retrievers_index():
    class Vectors:
        def queries(self, requests):
            return QUERIES[requests.users]

        def items(self, numbers=None):
            return VECTORS

    requests = Requests.of_users(np.arange(50), exclude=Jagged.from_lists([[u] for u in range(50)], np.int32))
    near = retriever(Vectors(), index=FaissIndex(VECTORS)).retrieve(requests, 10)
    assert recall(near.items, retriever(Vectors()).retrieve(requests, 10).items) > 0.97
    few = requests.with_(candidates=Jagged.from_lists([[5, 9]] * 50, np.int32))
    assert set(retriever(Vectors(), index=FaissIndex(VECTORS)).retrieve(few, 3).items[7]) == {5, 9, -1}


@pytest.mark.parametrize("kind", KINDS)
def test_small_catalogues(kind):
    for n in (0, 1, 3):
        small = FaissIndex(VECTORS[:n], kind)
        items, _ = small.search(QUERIES[:4], 2)
        np.testing.assert_array_equal(items, ExactIndex(VECTORS[:n]).search(QUERIES[:4], 2)[0])
        np.testing.assert_array_equal(FaissIndex.restored(VECTORS[:n], small.export()).search(QUERIES[:4], 2)[0], items)
    items, scores = FaissIndex(np.zeros((50, D)), kind).search(np.zeros((2, D)), 5)
    assert (items >= 0).all() and (scores == 0).all()


def test_settings_are_checked():
    with pytest.raises(UsageError, match="ivf, hnsw"):
        FaissIndex(VECTORS, "pq")
    with pytest.raises(UsageError, match="positive"):
        FaissIndex(VECTORS, links=-1)
