"""Batches: what they depend on, that every row comes once, and that a feed taken up again goes on to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.feeds import RowFeed, tensors
from tastemaker.types import UsageError


@dataclass(frozen=True)
class Drawn:
    """Row numbers, and something drawn for each."""

    rows: Any
    noise: Any

    def __len__(self) -> int:
        return len(self.rows)


def feed(n: int = 23, batch_size: int = 5, **more: Any) -> RowFeed[Drawn]:
    return RowFeed(n, batch_size, lambda rows, rng: Drawn(rows, rng.random(len(rows))), **more)


def same(left: Drawn, right: Drawn) -> bool:
    return np.array_equal(left.rows, right.rows) and np.array_equal(left.noise, right.noise)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 70), st.booleans())
def test_every_row_comes_once_an_epoch(n: int, batch_size: int, shuffle: bool) -> None:
    one = feed(n, batch_size, shuffle=shuffle)
    rows = [one.batch(3, number).rows for number in range(len(one))]
    assert all(len(part) == batch_size for part in rows[:-1]) and 1 <= len(rows[-1]) <= batch_size
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert shuffle or list(np.concatenate(rows)) == list(range(n))


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    one, two = feed(), feed()
    one.start(7)
    two.start(7)
    for epoch, number in ((4, 2), (0, 0), (1, 3)):  # out of order, and after other batches
        two.batch(9, 1)
        assert same(one.batch(epoch, number), two.batch(epoch, number))
    two.start(8)
    assert not same(one.batch(0, 0), two.batch(0, 0))
    assert not same(one.batch(0, 0), one.batch(1, 0))
    assert not np.array_equal(one.batch(0, 0).noise, one.batch(0, 1).noise)


def test_epochs_come_in_orders_of_their_own() -> None:
    one = feed(200, 200)
    orders = [one.batch(epoch, 0).rows for epoch in range(4)]
    assert not any(np.array_equal(orders[0], other) for other in orders[1:])
    positions = np.mean([np.argsort(feed(50, 50).batch(epoch, 0).rows) for epoch in range(400)], axis=0)
    assert abs(positions - 24.5).max() < 4 * 14.43 / 20, "some rows come early more often than chance allows"


@pytest.mark.parametrize("taken", [0, 3, 5, 7])
def test_restored_feeds_go_on_to_the_bit(taken: int) -> None:
    whole = feed()
    whole.start(3)
    expected = [batch for _ in range(3) for batch in whole]
    first = feed()
    first.start(3)
    before = []
    while len(before) < taken:
        for batch in first:
            before.append(batch)
            if len(before) == taken:
                break
    second = feed()
    second.restore(first.state())
    after = []
    while len(before) + len(after) < len(expected):
        after.extend(second)
    assert all(same(*pair) for pair in zip(before + after, expected, strict=True))


def test_a_feed_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="not one example"):
        feed(0)
    with pytest.raises(UsageError, match="at least one row"):
        feed(5, 0)
    with pytest.raises(UsageError, match="there is no number 5"):
        feed(23, 5).batch(0, 5)


def test_tensors_share_memory_with_arrays_and_keep_the_rest() -> None:
    @dataclass(frozen=True)
    class Mixed:
        values: Any
        longest: int
        absent: Any = None

    batch = Mixed(np.arange(3.0), 7)
    moved = tensors(batch, "cpu")
    moved.values[0] = 9.0
    assert batch.values[0] == 9.0 and moved.longest == 7 and moved.absent is None
    with pytest.raises(UsageError, match="frozen dataclass"):
        tensors({"values": np.arange(3)}, "cpu")
