"""retriever and score_blocks: dispatch, rules honoured for every kind of system, memory, batch equals single."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tastemaker.index import ExactIndex, retriever, score_blocks, select
from tastemaker.index.retriever import ByScores, ByVectors
from tastemaker.types import BudgetExceeded, CapabilityError, ItemFilter, Jagged, Requests, Slates, UsageError

home = importlib.import_module("tastemaker.index.retriever")  # the package's name "retriever" is the function
U, I, D = 40, 600, 12  # noqa: E741
RNG = np.random.default_rng(0)
USERS = RNG.integers(-8, 9, (U, D)).astype(np.float32) / 8  # dyadic: every sum is exact, so both kinds agree
ITEMS = RNG.integers(-8, 9, (I, D)).astype(np.float32) / 8


class Vectors:
    """Embeds: the inner product of two tables."""

    def __init__(self):
        self.asked = []

    def queries(self, requests):
        self.asked.append(requests.n)
        return USERS[requests.users].astype(np.float64)

    def items(self, numbers=None):
        return ITEMS if numbers is None else ITEMS[numbers]


class Table:
    """Scores: the same utilities as `Vectors`, from a table that is its own."""

    def __init__(self):
        self.table = USERS @ ITEMS.T
        self.asked = []

    def score(self, requests, items=None):
        self.asked.append((requests.n, I if items is None else items.shape[1]))
        if items is None:
            whole = requests.n == U and np.array_equal(requests.users, np.arange(U))
            return self.table if whole else self.table[requests.users]
        scores = np.take_along_axis(self.table[requests.users], np.maximum(items, 0), 1)
        return np.where(items < 0, np.nan, scores)  # the score of -1 is arbitrary


class Lists:
    """Retrieves: always the same list."""

    def retrieve(self, requests, k):
        return Slates(np.tile(np.arange(k), (requests.n, 1)), np.zeros((requests.n, k)))


def asked(rows=slice(0, U), **more):
    rng = np.random.default_rng(1)
    exclude = Jagged.from_lists([rng.integers(0, I + 5, 3 * (u % 20)) for u in range(U)], np.int32)
    candidates = Jagged.from_lists([rng.integers(0, I, u) for u in range(U)], np.int32)
    rule = ItemFilter(rng.random((2, I)) < 0.3, rng.integers(-1, 2, U))
    every = {"exclude": exclude, "candidates": candidates, "filter": rule}
    chosen = {name: every[name] for name in more.get("fields", ())}
    return Requests.of_users(np.arange(U), **chosen).take(rows)


def brute(requests, k):
    """The reference: one dense table, everything barred set to -inf."""
    scores = (USERS @ ITEMS.T)[requests.users]
    for r in range(requests.n):
        free = np.ones(I, bool)
        if requests.exclude is not None:
            free[requests.exclude[r][requests.exclude[r] < I]] = False
        if requests.candidates is not None:
            free &= np.isin(np.arange(I), requests.candidates[r])
        if requests.filter is not None and requests.filter.which[r] >= 0:
            free &= requests.filter.allowed[requests.filter.which[r]]
        scores[r, ~free] = -np.inf
    return select(scores, k)


FIELDS = [(), ("exclude",), ("filter",), ("candidates",), ("exclude", "filter", "candidates")]


@pytest.mark.parametrize("fields", FIELDS, ids=lambda f: "+".join(f) or "plain")
@pytest.mark.parametrize("make", [Vectors, Table])
@pytest.mark.parametrize("k", [1, 20, I + 3])
def test_lists_are_the_best_allowed_items(make, fields, k):
    requests = asked(fields=fields)
    slates = retriever(make()).retrieve(requests, k)
    items, scores = brute(requests, k)
    np.testing.assert_array_equal(slates.items, items)
    np.testing.assert_array_equal(slates.scores, scores)


@pytest.mark.parametrize("make", [Vectors, Table])
def test_batch_equals_single_and_order_is_irrelevant(make):
    requests = asked(fields=("exclude", "filter"))
    found = retriever(make())
    whole = found.retrieve(requests, 10)
    shuffled = np.random.default_rng(2).permutation(U)
    parts = [found.retrieve(requests.take(slice(u, u + 1)), 10) for u in range(U)]
    np.testing.assert_array_equal(np.concatenate([p.items for p in parts]), whole.items)
    np.testing.assert_array_equal(np.concatenate([p.scores for p in parts]), whole.scores)
    np.testing.assert_array_equal(found.retrieve(requests.take(shuffled), 10).items, whole.items[shuffled])


def test_many_blocks_give_what_one_gives(monkeypatch):
    requests = asked(fields=("exclude", "filter"))
    wanted = retriever(Vectors()).retrieve(requests, 7)
    monkeypatch.setattr(home, "QUERIES", 3)
    monkeypatch.setattr(home, "SEARCHES", 11)
    system = Vectors()
    np.testing.assert_array_equal(retriever(system).retrieve(requests, 7).items, wanted.items)
    assert max(system.asked) == 3 and sum(system.asked) == U


@pytest.mark.parametrize("fields", [(), ("candidates",)])
def test_the_budget_bounds_what_a_system_is_asked_for(fields):
    system = Table()
    budget_mb = 5 * I * 4 * home.COPIES / 2**20
    slates = retriever(system, budget_mb=budget_mb).retrieve(asked(fields=fields), 4)
    np.testing.assert_array_equal(slates.items, brute(asked(fields=fields), 4)[0])
    assert max(n * c for n, c in system.asked[1:]) <= 5 * I
    assert sum(n for n, _ in system.asked[1:]) == U
    with pytest.raises(BudgetExceeded, match="600 items"):
        retriever(system, budget_mb=0.001).retrieve(asked(), 4)


def test_a_systems_own_table_is_not_written_to():
    system = Table()
    before = system.table.copy()
    requests = asked(fields=("exclude", "filter"))
    retriever(system).retrieve(requests, 5)
    np.testing.assert_array_equal(system.table, before)


def test_dispatch_is_by_capability_and_the_first_wins():
    class All(Lists, Vectors, Table):
        pass

    system = Lists()
    assert retriever(system) is system
    assert retriever(All.__new__(All)).retrieve(asked(), 3).items[0].tolist() == [0, 1, 2]
    assert isinstance(retriever(All.__new__(All), index=ExactIndex(ITEMS)), ByVectors)
    assert isinstance(retriever(Vectors()), ByVectors)
    assert isinstance(retriever(Table()), ByScores)
    with pytest.raises(CapabilityError, match="object cannot be asked for lists"):
        retriever(object())
    with pytest.raises(CapabilityError, match="no vectors of requests"):
        retriever(Table(), index=ExactIndex(ITEMS))
    with pytest.raises(CapabilityError, match=r"Lists cannot .* retrieves"):
        next(score_blocks(Lists(), asked()))


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")

    class Tensors(Vectors):
        def queries(self, requests):
            return torch.tensor(USERS[requests.users], requires_grad=True)

        def items(self, numbers=None):
            return torch.nn.Parameter(torch.tensor(ITEMS))

    np.testing.assert_array_equal(retriever(Tensors()).retrieve(asked(), 6).items, brute(asked(), 6)[0])


def test_new_items_are_found_after_refresh():
    system = Vectors()
    found = retriever(system)
    found.retrieve(asked(), 3)
    more = np.concatenate([ITEMS, 50 * USERS[:1]])
    system.items = lambda numbers=None: more
    found.refresh()
    assert found.retrieve(asked(), 3).items[0, 0] == I


@pytest.mark.parametrize("make", [Vectors, Table])
def test_score_blocks_cover_everything_once_within_the_budget(make):
    requests = asked(fields=("exclude",))
    budget_mb = 7 * I * 4 * home.COPIES / 2**20
    parts, blocks = zip(*score_blocks(make(), requests, budget_mb=budget_mb), strict=True)
    assert [p.start for p in parts] == list(range(0, U, 7)) and parts[-1].stop == U
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), USERS @ ITEMS.T)
    assert list(score_blocks(make(), asked(slice(0, 0)))) == []


@pytest.mark.parametrize("make", [Vectors, Table])
def test_no_requests_no_lists(make):
    assert retriever(make()).retrieve(asked(slice(0, 0), fields=("candidates",)), 3).items.shape == (0, 3)
    assert retriever(make()).retrieve(asked(slice(0, 0)), 3).items.shape == (0, 3)


def test_answers_of_the_wrong_shape_are_refused():
    system = Table()
    system.score = lambda requests, items=None: np.zeros((requests.n + 1, I))
    with pytest.raises(UsageError, match="1 requests with 1 rows"):
        retriever(system).retrieve(asked(slice(0, 1)), 3)
    system.score = lambda requests, items=None: np.zeros((requests.n, I if items is None else items.shape[1] + 1))
    with pytest.raises(UsageError, match="candidates"):
        retriever(system).retrieve(asked(fields=("candidates",)), 3)
    with pytest.raises(UsageError, match="k = 0"):
        retriever(Table()).retrieve(asked(), 0)
