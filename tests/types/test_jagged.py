"""Jagged rows behave as a list of rows does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.types import Columns, Jagged, UsageError, concat

rows = st.lists(st.lists(st.integers(-5, 99), max_size=6), max_size=12)


@given(rows)
def test_lists_come_back(lists: list[list[int]]) -> None:
    jagged = Jagged.from_lists(lists, dtype=np.int32)
    assert jagged.to_lists() == lists
    assert [row.tolist() for row in jagged] == lists
    assert jagged.lengths.tolist() == [len(row) for row in lists]
    assert jagged.rows.tolist() == [b for b, row in enumerate(lists) for _ in row]


@given(rows, st.data())
def test_take_last_where_and_padded_as_lists_do(lists: list[list[int]], data: st.DataObject) -> None:
    jagged = Jagged.from_lists(lists, dtype=np.int32)
    picks = data.draw(st.lists(st.integers(0, max(0, len(lists) - 1)), max_size=15)) if lists else []
    assert jagged.take(np.array(picks, dtype=np.int64)).to_lists() == [lists[p] for p in picks]
    start, stop = data.draw(st.integers(0, 13)), data.draw(st.integers(0, 13))
    assert jagged.take(slice(start, stop)).to_lists() == lists[start:stop]
    n = data.draw(st.integers(1, 4))
    assert jagged.last(n).to_lists() == [row[-n:] for row in lists]
    assert jagged.where(jagged.values > 10).to_lists() == [[v for v in row if v > 10] for row in lists]
    padded = jagged.padded(4, fill=-9)
    assert padded.tolist() == [(row + [-9] * 4)[:4] for row in lists]


@given(rows, rows)
def test_concat_puts_rows_one_after_the_other(left: list[list[int]], right: list[list[int]]) -> None:
    both = concat([Jagged.from_lists(left, dtype=np.int32), Jagged.from_lists(right, dtype=np.int32)])
    assert both.to_lists() == left + right


@given(rows)
def test_from_rows_groups_and_keeps_order(lists: list[list[int]]) -> None:
    pairs = [(b, v) for b, row in enumerate(lists) for v in row]
    order = np.random.default_rng(len(pairs)).permutation(len(pairs))
    numbers = np.array([pairs[o][0] for o in order], dtype=np.int64)
    values = np.array([pairs[o][1] for o in order], dtype=np.int64)
    grouped = Jagged.from_rows(numbers, values, len(lists))
    for b in range(len(lists)):
        assert grouped[b].tolist() == values[numbers == b].tolist()


def test_columns_share_rows_with_their_jagged() -> None:
    table = Jagged(Columns(item=np.array([4, 5, 6]), time=np.array([1, 2, 3])), np.array([0, 1, 3]))
    assert table.column("item").to_lists() == [[4], [5, 6]]
    assert table.take(np.array([1])).column("time").to_lists() == [[2, 3]]
    assert table.last(1).column("item").to_lists() == [[4], [6]]
    assert table[1]["item"].tolist() == [5, 6]
    with pytest.raises(KeyError, match="no column 'price'"):
        table.column("price")


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [1, 3], [0, 2], [0, 4], []])
def test_offsets_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(UsageError, match="offsets must"):
        Jagged(np.arange(3), np.array(offsets, dtype=np.int64))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="share their first dimension"):
        Columns(a=np.arange(3), b=np.arange(2))
