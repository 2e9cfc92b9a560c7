"""The tree of all tuples against a dictionary of prefixes, and codebooks that change."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tastemaker.types import BundleError, Codebook, Trie, UsageError
from tastemaker.types.codes import ranks

CODES = st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))


def drawn(n: int, depth: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, size, (n, depth))


@settings(max_examples=60, deadline=None)
@given(CODES)
def test_the_tree_holds_the_prefixes_of_all_tuples_and_nothing_else(shape: Any) -> None:
    codes = drawn(*shape)
    trie = Trie.of(codes)
    below: dict[tuple[int, ...], set[int]] = defaultdict(set)
    items: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for item, row in enumerate(codes.tolist()):
        for q in range(len(row)):
            below[tuple(row[:q])].add(row[q])
            items[tuple(row[:q])].add(item)
        items[tuple(row)].add(item)
    names: list[tuple[int, ...]] = [()]
    for node in range(trie.n_nodes):
        children = range(int(trie.starts[node]), int(trie.starts[node + 1]))
        names += [(*names[node], int(trie.tokens[e])) for e in children]
        assert {int(trie.tokens[e]) for e in children} == below.get(names[node], set())
        assert set(trie.order[trie.first[node] : trie.last[node]].tolist()) == items[names[node]]
        level = int(np.searchsorted(trie.levels, node, side="right")) - 1
        assert level == len(names[node])
    assert len(names) == trie.n_nodes == len(items)
    widest = [max(len(c) for name, c in below.items() if len(name) == q) for q in range(codes.shape[1])]
    assert list(trie.widest) == widest


@settings(max_examples=40, deadline=None)
@given(CODES)
def test_walking_the_tree_finds_items_and_refuses_what_is_none(shape: Any) -> None:
    codes = drawn(*shape)
    trie, known = Trie.of(codes), {tuple(row) for row in codes.tolist()}
    assert np.array_equal(codes[trie.items_of(codes)], codes)
    asked = np.random.default_rng(1).integers(-1, shape[2] + 2, (50, shape[1]))
    found = trie.items_of(asked)
    for row, item in zip(asked.tolist(), found.tolist(), strict=True):
        assert (item >= 0) == (tuple(row) in known)
        assert item < 0 or codes[item].tolist() == row


def test_ranks_count_the_items_before_of_the_same_tuple() -> None:
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 3], [0, 0], [1, 2]])
    assert ranks(codes).tolist() == [0, 0, 1, 0, 1, 2]


def test_a_changed_codebook_has_another_tree_and_version() -> None:
    book = Codebook(drawn(10, 2, 4, 0), (4, 4))
    larger = book.extended(np.array([[3, 3]]))
    assert larger.version == book.version + 1 and larger.n_items == 11
    assert np.array_equal(larger.codes[:10], book.codes)
    assert larger.trie.items_of(np.array([[3, 3]]))[0] >= 0 and larger.trie is not book.trie
    assert np.array_equal(book.tokens, book.codes + np.array([0, 4]))


def test_a_codebook_comes_back_from_its_arrays_and_strangers_are_refused() -> None:
    book = Codebook(drawn(10, 2, 4, 0), (4, 5), 3)
    state = book.export()
    again = Codebook.of(state, 10, (4, 5))
    assert np.array_equal(again.codes, book.codes) and again.version == 3
    for n_items, sizes, changes in (
        (11, (4, 5), {}),
        (10, (4, 6), {}),
        (10, (4, 5), {"codes": state["codes"] + 4}),
    ):
        with pytest.raises(BundleError):
            Codebook.of({**state, **changes}, n_items, sizes)
    with pytest.raises(BundleError, match="codebook"):
        Codebook.of({"codes": state["codes"]}, 10, (4, 5))
    with pytest.raises(UsageError, match="run from 0"):
        Codebook(np.array([[4, 0]]), (4, 4))
