"""ExactIndex: the right items, the same bits alone and in a batch, whatever BLAS rounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.index import ExactIndex, Rules, exact, select
from tastemaker.types import Jagged, UsageError, mix


def in_double(queries, vectors, k, barred=None):
    """Every score in double precision, rounded once, and a full sort."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    if barred is not None:
        scores[barred] = -np.inf
    order = np.stack([np.lexsort((mix(np.arange(len(vectors))), -row)) for row in scores])[:, :k]
    return order, np.take_along_axis(scores, order, 1)


@pytest.fixture(params=[(512, 4240), (3, 17)], ids=["usual tiles", "tiny tiles"])
def tiles(request, monkeypatch):
    monkeypatch.setattr(exact, "ROWS", request.param[0])
    monkeypatch.setattr(exact, "COLUMNS", request.param[1])


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(("b", "n", "dim", "k"), [(1, 1, 1, 1), (7, 300, 13, 10), (40, 1000, 64, 20), (3, 30, 8, 30)])
def test_finds_what_a_full_sort_finds(b, n, dim, k):
    rng = np.random.default_rng(n)
    queries, vectors = (rng.standard_normal((size, dim)).astype(np.float32) for size in (b, n))
    items, scores = ExactIndex(vectors).search(queries, k)
    wanted = in_double(queries, vectors, k)
    np.testing.assert_array_equal(items, wanted[0])
    np.testing.assert_array_equal(scores, wanted[1])


@pytest.mark.usefixtures("tiles")
def test_the_same_bits_alone_in_any_batch_and_in_any_order():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((900, 40)).astype(np.float32)
    vectors[rng.integers(0, 900, 400)] = vectors[rng.integers(0, 900, 400)]  # equal items
    queries = rng.standard_normal((50, 40)).astype(np.float32)
    index = ExactIndex(vectors)
    items, scores = index.search(queries, 20)
    for rows in (np.array([0]), np.arange(17), rng.permutation(50)):
        again = index.search(queries[rows], 20)
        np.testing.assert_array_equal(again[0], items[rows])
        np.testing.assert_array_equal(again[1], scores[rows])


def test_equal_vectors_fall_back_to_the_fixed_order_and_ties_go_by_hash(monkeypatch):
    vectors = np.repeat(np.random.default_rng(3).standard_normal((4, 24)).astype(np.float32), 100, axis=0)
    query = np.ones((1, 24), np.float32)
    swept = []
    sweep = ExactIndex._sweep

    def watched(*given, in_order=False):
        swept.append("in order" if in_order else "by BLAS")
        return sweep(*given, in_order=in_order)

    monkeypatch.setattr(ExactIndex, "_sweep", watched)
    items, scores = ExactIndex(vectors).search(query, 20)
    best = int((vectors[::100].astype(np.float64) @ query[0]).argmax())
    twins = np.arange(100 * best, 100 * best + 100)
    assert items[0].tolist() == twins[np.argsort(mix(twins))][:20].tolist()
    assert len(set(scores[0])) == 1
    assert swept == ["by BLAS", "in order"]
    swept.clear()
    ExactIndex(vectors[:25]).search(query, 20)  # the sieve holds the whole catalogue: nothing was lost
    assert swept == ["by BLAS"]


def test_a_sieve_that_rounds_badly_changes_nothing(monkeypatch):
    """The product is disturbed by as much as any order of additions may err; the answer must stay the same."""
    rng = np.random.default_rng(4)
    dim, n = 64, 3000
    vectors = (rng.standard_normal((1, dim)) + 1e-5 * rng.standard_normal((n, dim))).astype(np.float32)  # near ties
    queries = rng.standard_normal((20, dim)).astype(np.float32)
    index = ExactIndex(vectors)
    wanted = in_double(queries, vectors, 15)

    sweep = ExactIndex._sweep

    def noisy(self, asked, k, rules, budget_mb, *, in_order=False):
        if in_order:
            return sweep(self, asked, k, rules, budget_mb, in_order=True)
        scores = asked @ vectors.T
        lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        scores += (rng.choice([-1, 1], scores.shape) * dim * 2**-24 * lengths).astype(np.float32)
        return select(scores, k)

    monkeypatch.setattr(ExactIndex, "_sweep", noisy)
    items, scores = index.search(queries, 15)
    np.testing.assert_array_equal(items, wanted[0])
    np.testing.assert_array_equal(scores, wanted[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_rules_hold_and_short_lists_end(seed, k):
    rng = np.random.default_rng(seed)
    vectors, queries = rng.integers(-2, 3, (50, 4)), rng.integers(-2, 3, (6, 4))  # small whole numbers: many ties
    exclude = Jagged.from_lists([rng.integers(0, 55, size) for size in (0, 3, 50, 200, 1, 9)], np.int32)
    allowed, which = rng.random((2, 50)) < 0.5, np.array([-1, 0, 1, -1, 0, 1], np.int32)
    barred = np.array([np.isin(np.arange(50), row) for row in exclude]) | np.where(
        which[:, None] < 0, False, ~allowed[which]
    )
    items, scores = ExactIndex(vectors).search(queries, k, Rules.of(6, 50, exclude, allowed, which))
    wanted, best = in_double(queries.astype(np.float32), vectors.astype(np.float32), k, barred)
    width = min(k, 50)
    wanted = np.where(best > -np.inf, wanted, -1)
    np.testing.assert_array_equal(items[:, :width], wanted)
    assert (items[:, width:] == -1).all() and (scores[:, width:] == -np.inf).all()


def test_candidates_get_the_scores_they_have_in_the_full_search():
    rng = np.random.default_rng(5)
    vectors, queries = (
        rng.standard_normal((400, 33)).astype(np.float32),
        rng.standard_normal((9, 33)).astype(np.float32),
    )
    index = ExactIndex(vectors)
    candidates = Jagged.from_lists([rng.integers(0, 400, size) for size in range(9)], np.int32)
    items, scores = index.search(queries, 5, candidates=candidates)
    full = index.search(queries, 400)
    for r in range(9):
        keep = np.isin(full[0][r], candidates[r])
        n = min(5, int(keep.sum()))
        np.testing.assert_array_equal(items[r, :n], full[0][r][keep][:n])
        np.testing.assert_array_equal(scores[r, :n], full[1][r][keep][:n])
        assert (items[r, n:] == -1).all()


def test_new_vectors_are_appended_and_old_scores_stay():
    rng = np.random.default_rng(6)
    vectors, queries = rng.standard_normal((100, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    index, whole = ExactIndex(vectors[:70]), ExactIndex(vectors)
    before = dict(zip(*(a[0].tolist() for a in index.search(queries, 70)), strict=True))
    index.extend(vectors[70:])
    assert len(index) == 100
    after = dict(zip(*(a[0].tolist() for a in index.search(queries, 100)), strict=True))
    assert before.items() <= after.items()
    np.testing.assert_array_equal(index.search(queries, 100)[0], whole.search(queries, 100)[0])


def test_vectors_are_checked_and_not_copied():
    good = np.zeros((3, 2), np.float32)
    assert ExactIndex(good).vectors is good
    index = ExactIndex(good)
    with pytest.raises(UsageError, match=r"\[n, 2\]"):
        index.search(np.zeros((1, 3)), 1)
    with pytest.raises(UsageError, match=r"\[n, 2\]"):
        index.extend(np.zeros((1, 3)))
    good[1, 0] = np.nan
    with pytest.raises(UsageError, match="row 1"):
        ExactIndex(good)
    with pytest.raises(UsageError, match="finite"):
        ExactIndex(np.full((2, 2), 1e30)).search(np.full((1, 2), 1e30), 1)
    assert ExactIndex(np.zeros((0, 4))).search(np.ones((2, 4)), 3)[0].tolist() == [[-1] * 3] * 2
    assert ExactIndex(np.zeros((5, 4))).search(np.ones((0, 4)), 3)[0].shape == (0, 3)
