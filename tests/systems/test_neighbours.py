"""ItemKNN, UserKNN and the search for nearest rows, against dense NumPy and on data whose structure is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.contracts import find
from tastemaker.feeds import interaction_matrix
from tastemaker.nn import similarity
from tastemaker.nn.similarity import Measure, Neighbours, TermWeights
from tastemaker.types import BundleError, Dataset, Requests, UsageError, make_config, mix

SYSTEMS = ("itemknn", "userknn")
RNG = np.random.default_rng(20)


def dataset(matrix: np.ndarray) -> Dataset:
    """Events of a dense matrix of counts [U, I]."""
    users, items = np.nonzero(matrix)
    times = matrix[users, items].astype(int)
    events = pl.DataFrame({"user": users.repeat(times), "item": items.repeat(times)}).cast(pl.Int32)
    return Dataset(
        "toy", pl.DataFrame({"user": range(len(matrix))}), pl.DataFrame({"item": range(matrix.shape[1])}), events
    )


def fitted(name: str, data: Dataset, **config: Any) -> Any:
    """A system whose program was run by hand."""
    info = find(name)
    system = info.cls(make_config(info.config, config), data.schema)
    program, sent = system.program(data), None
    while True:
        try:
            stage = program.send(sent)
        except StopIteration:
            return system
        sent = stage.function(*stage.args, **stage.kwargs)


def of_rows(matrix: np.ndarray, **more: Any) -> Requests:
    """Requests whose histories are the rows of a matrix of counts."""
    return Requests.of_items([np.repeat(np.arange(matrix.shape[1]), row.astype(int)) for row in matrix], **more)


# -- ten-line references, dense


def weighted(x: np.ndarray, how: str, fit: np.ndarray, k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """Weights of documents x, with what is learned of the terms from the documents `fit`."""
    n, df = len(fit), (fit != 0).sum(axis=0)
    if how == "tfidf":
        return np.sqrt(x) * (1 + np.log((1 + n) / (1 + df)))
    if how == "bm25":
        length, mean = x.sum(axis=1, keepdims=True), fit.sum() / n
        tf = np.divide(x * (k1 + 1), x + k1 * (1 - b + b * length / mean), out=np.zeros_like(x), where=x > 0)
        return tf * np.log(1 + (n - df + 0.5) / (df + 0.5))
    return x


def similarities(x: np.ndarray, y: np.ndarray, m: Measure) -> np.ndarray:
    """Of the rows of x, which are of the history, to the rows of y."""
    dot, xx, yy = x @ y.T, (x**2).sum(axis=1)[:, None], (y**2).sum(axis=1)[None]
    if m.kind == "dot":
        return dot
    below = xx**m.alpha * yy ** (1 - m.alpha) if m.kind == "cosine" else xx + yy - dot
    below = below + m.shrinkage
    return np.divide(dot, below, out=np.zeros_like(dot), where=(below > 0) & (dot > 0))


def k_best(rows: np.ndarray, k: int, leave_out: np.ndarray | None = None) -> np.ndarray:
    """The k largest positive entries of each row, equal ones by a hash of the column; 0 elsewhere."""
    rows, n = rows.astype(np.float32).copy(), rows.shape[1]
    rank = np.empty(n, dtype=int)
    rank[np.argsort(mix(np.arange(n)))] = np.arange(n)
    for number, row in enumerate(rows):
        if leave_out is not None and leave_out[number] >= 0:
            row[leave_out[number]] = 0
        row[np.lexsort((rank, row))[: max(n - k, 0)]] = 0
    return rows


MEASURES = [
    Measure(),
    Measure("cosine", alpha=0.3, shrinkage=2.0),
    Measure("cosine", alpha=1.0),
    Measure("jaccard"),
    Measure("jaccard", shrinkage=3.0),
    Measure("dot"),
]


# -- the search


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(1, 12),
    st.integers(1, 7),
    st.integers(1, 5),
    st.sampled_from(MEASURES),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_nearest_rows_equal_a_dense_search(
    n_queries: int, n: int, n_terms: int, k: int, measure: Measure, history: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left, right = (
        np.where(rng.random((r, n_terms)) < 0.4, 2.0 ** rng.integers(0, 3, (r, n_terms)), 0) for r in (n_queries, n)
    )
    out = rng.integers(-1, n + 2, n_queries)  # beyond the last document: nobody is left out
    found = Neighbours(sp.csr_array(right.astype(np.float32)), measure, history=history).nearest(
        sp.csr_array(left.astype(np.float32)), k, leave_out=out
    )
    whole = similarities(right, left, measure).T if history else similarities(left, right, measure)
    expected = k_best(whole, k, np.where(out < n, out, -1))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert found.nnz == np.count_nonzero(expected)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("density", [0.02, 0.4])
def test_the_best_of_a_crowd_are_found(measure: Measure, density: float) -> None:
    """More documents than are held at once while a row is searched, many of them equally near."""
    x = np.where(RNG.random((600, 25)) < density, 2.0 ** RNG.integers(0, 2, (600, 25)), 0)
    documents = sp.csr_array(x.astype(np.float32))
    near = Neighbours(documents, measure).nearest(documents[:50], 3, leave_out=np.arange(50))
    expected = k_best(similarities(x[:50], x, measure), 3, np.arange(50))
    np.testing.assert_allclose(near.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_blocks_and_threads_change_nothing(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = sp.random_array((300, 60), density=0.1, rng=RNG, dtype=np.float32, format="csr")
    near = Neighbours(documents, measure)
    monkeypatch.setattr(similarity, "SERIAL_WORK", 10**9)
    serial = near.nearest(documents, 7)
    monkeypatch.setattr(similarity, "SERIAL_WORK", 1)
    monkeypatch.setattr(similarity, "BLOCK_WORK", 1000)
    parallel = near.nearest(documents, 7)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(serial, part), getattr(parallel, part))


def test_ties_do_not_follow_the_order_of_numbers() -> None:
    same = sp.csr_array(np.ones((400, 1), dtype=np.float32))
    kept = Neighbours(same, Measure()).nearest(same[:1], 20).indices
    assert 100 < kept.mean() < 300, "all are equally near, so low numbers are no likelier than high ones"


def test_negative_similarities_are_no_neighbours() -> None:
    documents = sp.csr_array(np.array([[1.0, 1], [1, -1], [-1, 0], [1, 0]], dtype=np.float32))
    near = Neighbours(documents, Measure()).nearest(documents[:1], 4).toarray()
    np.testing.assert_allclose(near, [[1, 0, 0, 0.5**0.5]], rtol=1e-6)  # the second row's product cancels to 0


def test_queries_of_another_width_are_refused() -> None:
    documents = sp.csr_array(np.eye(3, dtype=np.float32))
    with pytest.raises(UsageError, match="need 3 columns, got 4"):
        Neighbours(documents, Measure()).nearest(sp.csr_array((1, 4), dtype=np.float32), 2)


@pytest.mark.parametrize("how", ["none", "tfidf", "bm25"])
def test_term_weights_equal_their_formulas(how: Any) -> None:
    fit, asked = (RNG.poisson(0.5, (n, 9)).astype(float) for n in (30, 5))
    weights = TermWeights.of(sp.csr_array(fit.astype(np.float32)), how)
    np.testing.assert_allclose(
        weights.apply(sp.csr_array(asked.astype(np.float32))).toarray(), weighted(asked, how, fit), rtol=1e-5
    )


# -- the systems against dense references

ITEM_CONFIGS = [
    {},
    {"weighting": "none", "neighbours": 3},
    {"weighting": "tfidf", "similarity": "jaccard", "shrinkage": 2.0, "neighbours": 4},
    {"neighbours_of": "history", "normalised": True, "alpha": 0.7, "neighbours": 4},
    {"weighting": "none", "normalised": True, "centred": True, "alpha": 0.3, "neighbours": 5},
    {"similarity": "dot", "amplification": 2.0, "weight": "count", "neighbours": 6},
]


@pytest.mark.parametrize("config", ITEM_CONFIGS)
def test_itemknn_equals_its_formula(config: dict[str, Any]) -> None:
    counts = RNG.poisson(0.35, (40, 15)).astype(float)
    counts[:, 4] = counts[7] = 0  # an item nobody chose, a user who chose nothing
    system = fitted("itemknn", dataset(counts), **config)
    c = system.config
    x = counts if c.weight == "count" else (counts > 0).astype(float)
    items = weighted(x.T, c.weighting, x.T)
    measure = Measure(c.similarity, c.alpha, c.shrinkage)
    s = similarities(items, items, measure)  # [of the history, scored]
    near = k_best(s.T if c.neighbours_of == "scored" else s, c.neighbours, np.arange(15)) ** c.amplification
    if c.normalised:
        near = near / np.maximum(near.sum(axis=1, keepdims=True), 1e-9)
    s = near.T if c.neighbours_of == "scored" else near
    mean = x.mean(axis=0) if c.centred else np.zeros(15)
    np.testing.assert_allclose(system.score(of_rows(counts)), (x - mean) @ s + mean, rtol=1e-4, atol=1e-6)


USER_CONFIGS = [
    {},
    {"weighting": "none", "similarity": "jaccard", "neighbours": 3},
    {"weighting": "tfidf", "alpha": 0.2, "shrinkage": 1.0, "amplification": 2.0, "neighbours": 5},
    {"weight": "count", "similarity": "dot", "neighbours": 7},
]


@pytest.mark.parametrize("config", USER_CONFIGS)
def test_userknn_equals_its_formula(config: dict[str, Any]) -> None:
    counts, asked = (RNG.poisson(0.35, (n, 15)).astype(float) for n in (40, 6))
    counts[3] = asked[2] = 0
    system = fitted("userknn", dataset(counts), **config)
    c = system.config
    x, q = (counts, asked) if c.weight == "count" else ((counts > 0) * 1.0, (asked > 0) * 1.0)
    measure = Measure(c.similarity, c.alpha, c.shrinkage)
    for rows, users in ((q, None), (x, np.arange(40)), (x, None)):
        s = similarities(weighted(rows, c.weighting, x), weighted(x, c.weighting, x), measure)
        near = k_best(s, c.neighbours, users) ** c.amplification
        np.testing.assert_allclose(system.score(of_rows(rows, users=users)), near @ x, rtol=1e-4, atol=1e-6)


# -- behaviour of both


def blocks(n_users: int = 60, n_items: int = 30, groups: int = 3) -> np.ndarray:
    """Users of a group choose half of the items of that group, and no others."""
    same = np.arange(n_users)[:, None] % groups == np.arange(n_items)[None] % groups
    return (same & (np.random.default_rng(0).random((n_users, n_items)) < 0.5)).astype(float)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("kind", ["cosine", "jaccard"])
def test_planted_groups_are_found(name: str, kind: str) -> None:
    system = fitted(name, dataset(blocks()), similarity=kind)
    scores = system.score(Requests.of_items([[0, 3], [1], [2, 5, 8]]))
    groups = np.arange(30) % 3
    for row, group in zip(scores, (0, 1, 2), strict=True):
        assert (row[groups != group] == 0).all(), "nothing leads from one group to another"
        assert (np.argsort(-row)[:8] % 3 == group).all()


@pytest.mark.parametrize("name", SYSTEMS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from(["none", "tfidf", "bm25"]))
def test_any_sparse_data_gives_finite_scores(name: str, n_users: int, n_items: int, seed: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.4, (n_users, n_items))
    system = fitted(name, dataset(counts), weighting=how, weight="count")
    requests = Requests.of_items([rng.integers(-1, n_items + 2, rng.integers(0, 5)) for _ in range(4)])
    scores = system.score(requests)
    assert scores.shape == (4, n_items) and scores.dtype == np.float32 and np.isfinite(scores).all()
    items = rng.integers(-1, n_items, (4, 3))
    expected = np.where(items >= 0, np.take_along_axis(scores, np.maximum(items, 0), axis=1), 0)
    np.testing.assert_array_equal(system.score(requests, items), expected)


@pytest.mark.parametrize("name", SYSTEMS)
def test_batch_equals_single_to_the_bit(name: str) -> None:
    counts = RNG.poisson(0.3, (80, 40))
    system = fitted(name, dataset(counts))
    requests = of_rows(counts[:30], users=np.where(np.arange(30) % 3, np.arange(30), -1))
    whole = system.score(requests)
    for row in range(30):
        np.testing.assert_array_equal(system.score(requests.take(slice(row, row + 1)))[0], whole[row])


def test_a_named_user_is_no_neighbour_of_their_own() -> None:
    counts = np.zeros((3, 4))
    counts[0, [0, 1, 2]] = counts[1, [0, 3]] = 1
    system = fitted("userknn", dataset(counts), weighting="none", neighbours=1)
    history = [[0, 1, 2]]
    named, stranger = (system.score(Requests.of_items(history, users=[u]))[0] for u in (0, -1))
    assert named[3] > 0 and named[1] == 0, "user 1 is the neighbour of user 0"
    assert stranger[1] > 0 and stranger[3] == 0, "user 0 is the neighbour of somebody with the same history"
    later = system.score(Requests.of_items(history, users=[99]))[0]
    np.testing.assert_array_equal(later, stranger)  # a user who came after training


def test_itemknn_answers_an_empty_history_with_constants() -> None:
    data = dataset(blocks())
    assert (fitted("itemknn", data).score(Requests.of_items([[]])) == 0).all()
    system = fitted("itemknn", data, centred=True, normalised=True)
    np.testing.assert_array_equal(system.score(Requests.of_items([[]]))[0], system.start)
    assert system.start.std() > 0


# -- what is kept


@pytest.mark.parametrize("name", SYSTEMS)
def test_state_comes_back(name: str) -> None:
    counts = RNG.poisson(0.3, (50, 20))
    system = fitted(name, dataset(counts), neighbours=5)
    other = type(system)(system.config, system.schema)
    other.restore({key: array.copy() for key, array in system.export().items()})
    np.testing.assert_array_equal(system.score(of_rows(counts)), other.score(of_rows(counts)))


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("damage", ["shape", "index", "number", "missing", "cut"])
def test_state_of_a_stranger_is_checked(name: str, damage: str) -> None:
    system = fitted(name, dataset(blocks()))
    key = "similar" if name == "itemknn" else "chosen"
    state = {name: array.copy() for name, array in system.export().items()}
    if damage == "shape":
        state[f"{key}.shape"][1] += 1
    elif damage == "index":
        state[f"{key}.indices"][0] = 10**6
    elif damage == "number":
        state[f"{key}.data"][0] = np.nan
    elif damage == "missing":
        del state[f"{key}.indptr"]
    else:
        state[f"{key}.data"] = state[f"{key}.data"][:-1]
    with pytest.raises(BundleError):
        type(system)(system.config, system.schema).restore(state)


def test_constants_of_a_stranger_are_checked() -> None:
    system = fitted("itemknn", dataset(blocks()), centred=True)
    for start in (np.zeros(29, dtype=np.float32), np.full(30, np.inf, dtype=np.float32)):
        with pytest.raises(BundleError):
            type(system)(system.config, system.schema).restore({**system.export(), "start": start})


# -- real data


@pytest.mark.slow
def test_gowalla_gives_the_published_figures(shared_data: Any) -> None:
    events = pl.read_parquet(shared_data / "gowalla" / "interactions.parquet").rename(
        {"user_id": "user", "item_id": "item"}
    )
    n_users, n_items = (events[c].max() + 1 for c in ("user", "item"))
    tables = pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": range(n_items)})
    train, test = (
        Dataset("gowalla", *tables, events.filter(pl.col("split") == part).select("user", "item"))
        for part in ("train", "test")
    )
    bars = {"weighting": "none", "normalised": True, "centred": True}
    best = {"weighting": "tfidf", "similarity": "jaccard", "amplification": 1.5, "normalised": True, "centred": True}
    truth = interaction_matrix(test)
    for config, recall, ndcg in ((bars, 0.1565, 0.1210), (best, 0.1685, 0.1265)):
        found = evaluated(fitted("itemknn", train, **config), train, truth)
        assert found[0] > recall and found[1] > ndcg, found


def evaluated(system: Any, train: Dataset, truth: sp.csr_array, k: int = 20) -> tuple[float, float]:
    """Recall and NDCG of full rankings without the items seen, over users with held-out items."""
    from tastemaker.index.select import select

    histories, gains = train.histories(), 1 / np.log2(np.arange(2, k + 2))
    ideal, recall, ndcg = np.concatenate([[0], np.cumsum(gains)]), 0.0, 0.0
    users = np.flatnonzero(np.diff(truth.indptr))
    for start in range(0, len(users), 512):
        part = users[start : start + 512]
        history = histories.take(part)
        items, _ = select(system.score(Requests(len(part), history=history)), k, exclude=history.column("item"))
        held = truth[part]
        sizes = np.diff(held.indptr)
        hits = np.take_along_axis(held.toarray() > 0, items.astype(int), axis=1)
        recall += (hits.sum(axis=1) / sizes).sum()
        ndcg += ((hits * gains).sum(axis=1) / ideal[np.minimum(sizes, k)]).sum()
    return recall / len(users), ndcg / len(users)
