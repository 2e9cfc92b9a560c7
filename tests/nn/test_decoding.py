"""Search and sampling on the tree of tuples against a dictionary for each beam; nothing forbidden is ever written."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tastemaker.nn.decoding import Limits, Tree, free_search, sample, search, told_logp, uniforms_of
from tastemaker.types import ItemFilter, Jagged, Requests, Trie, UsageError, request_seeds

Prefix = tuple[int, ...]


class Table:
    """A made-up system: the next code's log-probabilities follow from a hash of the request and the codes before."""

    def __init__(self, n_requests: int, size: int, seed: int = 0) -> None:
        self.n, self.size, self.seed = n_requests, size, seed
        self.kept: dict[tuple[int, Prefix], Tensor] = {}
        self.paths: list[list[Prefix]] = [[()] for _ in range(n_requests)]

    def row(self, request: int, prefix: Prefix) -> Tensor:
        key = request, prefix
        if key not in self.kept:
            rng = np.random.default_rng([self.seed, request, len(prefix), *prefix])
            self.kept[key] = torch.log_softmax(torch.from_numpy(rng.normal(size=self.size) * 2), -1).float()
        return self.kept[key]

    def __call__(self, rows: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        if rows is not None and codes is not None:
            self.paths = [
                [(*self.paths[b][r], c) for r, c in zip(rows[b].tolist(), codes[b].tolist(), strict=True)]
                for b in range(self.n)
            ]
        return torch.stack([torch.stack([self.row(b, p) for p in self.paths[b]]) for b in range(self.n)])

    def all(self, codes: Tensor) -> list[Tensor]:
        """Log-probabilities at each level along tuples [B, n, Q]."""
        given = list(enumerate(codes.tolist()))
        return [
            torch.stack([torch.stack([self.row(b, tuple(row[:q])) for row in rows]) for b, rows in given])
            for q in range(codes.shape[-1])
        ]


def by_dictionary(
    system: Table, request: int, codes: NDArray[np.int64], allowed: set[int], width: int
) -> list[tuple[Prefix, float]]:
    """Beam search with a dictionary of what may follow each beginning, beam by beam."""
    follows: dict[Prefix, set[int]] = {}
    for item in allowed:
        row = codes[item].tolist()
        for q in range(len(row)):
            follows.setdefault(tuple(row[:q]), set()).add(row[q])
    beams: list[tuple[Prefix, float]] = [((), 0.0)]
    for _ in range(codes.shape[1]):
        grown = [
            ((*prefix, code), float(np.float32(score) + system.row(request, prefix)[code].numpy()))
            for prefix, score in beams
            for code in follows.get(prefix, ())
        ]
        beams = sorted(grown, key=lambda one: -one[1])[:width]
    return beams


def rules(n_requests: int, n_items: int, rng: np.random.Generator) -> tuple[Requests, list[set[int]]]:
    """Requests with some of candidates, exclusions and a filter, and the items that each may be answered with."""
    which = rng.random(3) < 0.5
    allowed = [set(range(n_items)) for _ in range(n_requests)]
    more: dict[str, Any] = {}
    for name, wanted in zip(("candidates", "exclude"), which, strict=False):
        if wanted:
            rows = [rng.choice(n_items, rng.integers(0, n_items + 1)).tolist() for _ in range(n_requests)]
            strange = [[*row, n_items + 5] for row in rows]
            more[name] = Jagged.from_lists(strange, dtype=np.int32)
            allowed = [a & set(r) if name == "candidates" else a - set(r) for a, r in zip(allowed, rows, strict=True)]
    if which[2]:
        table, rule = rng.random((2, n_items)) < 0.5, rng.integers(-1, 2, n_requests)
        more["filter"] = ItemFilter(table, rule)
        allowed = [
            a if r < 0 else a & set(np.flatnonzero(table[r]).tolist()) for a, r in zip(allowed, rule, strict=True)
        ]
    return Requests(n_requests, seeds=request_seeds(n_requests, 3), **more), allowed


WORLDS = st.tuples(
    st.integers(1, 30), st.integers(1, 4), st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**32 - 1)
)


@settings(max_examples=80, deadline=None)
@given(WORLDS)
def test_search_equals_a_dictionary_for_each_beam(world: Any) -> None:
    n_items, depth, size, k, seed = world
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, size, (n_items, depth))
    trie = Trie.of(codes)
    requests, allowed = rules(3, n_items, rng)
    width = k + int(rng.integers(0, 4))
    found = search(Table(3, size, seed), Tree.of(trie), k, width, Limits.of(requests, trie))
    for row in range(3):
        expected: list[tuple[int, Prefix, float]] = []
        for prefix, score in by_dictionary(Table(3, size, seed), row, codes, allowed[row], width):
            below = [i for i in trie.order.tolist() if tuple(codes[i].tolist()) == prefix and i in allowed[row]]
            expected += [(item, prefix, score) for item in below]
        expected = expected[:k]
        items = [i for i in found.items[row].tolist() if i >= 0]
        assert items == [item for item, _, _ in expected]
        assert [tuple(c) for c in found.codes[row, : len(items)].tolist()] == [p for _, p, _ in expected]
        np.testing.assert_allclose(found.scores[row, : len(items)], [s for _, _, s in expected], rtol=1e-6)
        assert set(items) <= allowed[row] and len(items) == len(set(items))
        assert len(items) == min(k, len(allowed[row])), "a list is short only where fewer items are allowed"


@settings(max_examples=40, deadline=None)
@given(WORLDS)
def test_what_is_sampled_is_allowed(world: Any) -> None:
    n_items, depth, size, n, seed = world
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, size, (n_items, depth))
    trie = Trie.of(codes)
    requests, allowed = rules(3, n_items, rng)
    assert requests.seeds is not None
    limits, tree = Limits.of(requests, trie), Tree.of(trie)
    uniforms = torch.from_numpy(uniforms_of(requests.seeds, n, depth))
    drawn = sample(Table(3, size, seed), tree, uniforms, limits=limits)
    told, whole = told_logp(Table(3, size, seed).all(drawn.codes), drawn.codes, tree, limits)
    for row in range(3):
        for s in range(n):
            item = int(drawn.items[row, s])
            assert item in allowed[row] if allowed[row] else item == -1
            assert bool(whole[row, s]) == bool(allowed[row])
            if item >= 0:
                assert drawn.codes[row, s].tolist() == codes[item].tolist()
                torch.testing.assert_close(told[row, s], drawn.logp[row, s], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_are_as_frequent_as_their_log_probabilities_say(temperature: float) -> None:
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 2], [2, 1], [2, 2]])
    trie, n = Trie.of(codes), 6000
    requests = Requests(1, exclude=Jagged.from_lists([[3]], dtype=np.int32), seeds=request_seeds(1, 5))
    assert requests.seeds is not None
    uniforms = torch.from_numpy(uniforms_of(requests.seeds, n, 2))
    tree, limits = Tree.of(trie), Limits.of(requests, trie)
    drawn = sample(Table(1, 3), tree, uniforms, temperature=temperature, limits=limits)
    chances = {int(i): math.exp(float(p)) for i, p in zip(drawn.items[0], drawn.logp[0].sum(-1), strict=True)}
    assert sum(chances.values()) == pytest.approx(1, abs=1e-5), "all that is allowed was drawn, and adds to 1"
    counts = Counter(drawn.items[0].tolist())
    for item, chance in chances.items():
        spread = math.sqrt(chance * (1 - chance) / n)
        assert counts[item] / n == pytest.approx(chance, abs=4.5 * spread)


def test_a_request_draws_the_same_alone_as_among_others() -> None:
    codes = np.random.default_rng(0).integers(0, 4, (30, 3))
    tree = Tree.of(Trie.of(codes))
    seeds = request_seeds(3, 9)
    whole = uniforms_of(seeds, 8, 3)
    assert np.array_equal(whole[1:2], uniforms_of(seeds[1:2], 8, 3)) and np.array_equal(
        whole[:, :5], uniforms_of(seeds, 5, 3)
    )
    assert len(np.unique(whole)) == whole.size and whole.min() >= 0 and whole.max() < 1

    class One(Table):
        def row(self, request: int, prefix: Prefix) -> Tensor:
            return super().row(0, prefix)

    together = sample(One(3, 4), tree, torch.from_numpy(whole))
    alone = sample(One(1, 4), tree, torch.from_numpy(whole[1:2]))
    assert torch.equal(together.items[1], alone.items[0])


def test_a_wide_search_is_exact_and_an_exclusion_moves_no_other_score() -> None:
    codes = np.random.default_rng(2).integers(0, 4, (25, 3))
    trie = Trie.of(codes)
    free = search(Table(1, 4), Tree.of(trie), 25, 25)
    exact = [float(sum(Table(1, 4).row(0, tuple(c[:q]))[c[q]] for q in range(3))) for c in codes.tolist()]
    np.testing.assert_allclose(free.scores[0], [exact[i] for i in free.items[0].tolist()], rtol=1e-5)
    assert (np.diff(free.scores[0].numpy()) <= 0).all() and sorted(free.items[0].tolist()) == list(range(25))
    gone = free.items[0, :5].tolist()
    requests = Requests(1, exclude=Jagged.from_lists([gone], dtype=np.int32))
    rest = search(Table(1, 4), Tree.of(trie), 25, 25, Limits.of(requests, trie))
    assert torch.equal(rest.items[0, :20], free.items[0, 5:]) and torch.equal(rest.scores[0, :20], free.scores[0, 5:])
    assert (rest.items[0, 20:] == -1).all()


def test_log_probabilities_have_gradients_and_without_a_tree_anything_may_follow() -> None:
    codes = np.array([[0, 1], [0, 2], [1, 1]])
    tree = Tree.of(Trie.of(codes))
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    told, whole = told_logp([torch.log_softmax(logits, -1)] * 2, torch.from_numpy(codes)[None], tree)
    assert whole.all() and float(told[0, 2, 1].detach()) == 0, "where one code alone may follow, it is sure"
    (gradient,) = torch.autograd.grad(told.sum(), [logits])
    assert gradient.isfinite().all()
    assert (gradient[0, :, 3].abs() < 1e-6).all(), "a code that may not follow takes no part"
    assert (gradient[0, 0, :2].abs() > 1e-3).all()
    written, scores = free_search(Table(2, 4), 2, 16)
    assert len({tuple(c) for c in written[0].tolist()}) == 16 and (scores.diff(dim=1) <= 0).all()
    assert float(scores[0].double().exp().sum()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UsageError, match="temperature"):
        sample(Table(1, 4), tree, torch.zeros(1, 1, 2), temperature=0.0)
