"""Triplets: every choice once, each with negatives of its own user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.feeds import Triplets, hardest, shared, triplets, uniform
from tastemaker.types import UsageError

RNG = np.random.default_rng(2)
DENSE = RNG.random((30, 20)) < 0.25
DENSE[4] = False  # a user without choices
MATRIX = sp.csr_array(DENSE.astype(np.float32))


def batches(feed: Any, epoch: int = 0) -> list[Triplets]:
    return [feed.batch(epoch, number) for number in range(len(feed))]


def test_an_epoch_holds_every_choice_once() -> None:
    found = batches(triplets(MATRIX, 7))
    pairs = sorted((u, i) for batch in found for u, i in zip(batch.users, batch.items, strict=True))
    assert pairs == sorted(zip(*np.nonzero(DENSE), strict=True))
    assert all(batch.negatives.shape == (len(batch), 1) and batch.clashes is None for batch in found)
    assert all(a.dtype == np.int64 for a in (found[0].users, found[0].items, found[0].negatives))
    assert not any(DENSE[batch.users[:, None], batch.negatives].any() for batch in found)


def test_drawn_by_user_every_active_user_counts_alike() -> None:
    feed = triplets(MATRIX, 50, draw="users")
    found = [batch for epoch in range(200) for batch in batches(feed, epoch)]
    users, items = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("users", "items"))
    assert DENSE[users, items].all(), "a pair is a choice"
    counts = np.bincount(users, minlength=30)
    expected = len(users) / 29
    assert counts[4] == 0 and abs(np.delete(counts, 4) - expected).max() < 5 * np.sqrt(expected)
    of_one = np.bincount(items[users == 0], minlength=20)[DENSE[0]]
    assert abs(of_one - of_one.mean()).max() < 5 * np.sqrt(of_one.mean()), "a user's choices are all alike"
    assert len(feed) == -(-DENSE.sum() // 50)


def test_shared_negatives_come_with_their_clashes() -> None:
    for batch in batches(triplets(MATRIX, 16, shared(MATRIX, 12))):
        assert batch.negatives.shape == (12,)
        assert np.array_equal(batch.clashes, DENSE[batch.users[:, None], batch.negatives[None, :]])


def test_a_batch_can_be_its_own_negatives() -> None:
    for batch in batches(triplets(MATRIX, 16, "batch")):
        assert np.array_equal(batch.negatives, batch.items)
        assert batch.clashes.diagonal().all(), "a row's own item is no negative of it"
        assert np.array_equal(batch.clashes, DENSE[batch.users[:, None], batch.items[None, :]])


@pytest.mark.parametrize("negatives", [uniform(MATRIX, 3), shared(MATRIX, 5), "batch"])
def test_parts_of_a_batch_make_the_whole(negatives: Any) -> None:
    batch = triplets(MATRIX, 16, negatives).batch(0, 0)
    left, right = batch.take(slice(0, 6)), batch.take(slice(6, 16))
    assert len(left) == 6 and len(right) == len(batch) - 6
    for name in ("users", "items", "negatives", "clashes"):
        whole, parts = getattr(batch, name), [getattr(part, name) for part in (left, right)]
        if whole is None or (name == "negatives" and whole.ndim == 1):
            assert all(part is whole for part in parts)
        else:
            assert np.array_equal(np.concatenate(parts), whole)


def test_a_feed_of_hard_negatives_is_live() -> None:
    feed = triplets(MATRIX, 8, hardest(uniform(MATRIX, 4), lambda users, items: -items.astype(float)))
    assert feed.live and not triplets(MATRIX, 8).live
    assert feed.batch(0, 0).negatives.shape == (8, 1)


def test_batches_depend_on_seed_epoch_and_number() -> None:
    one, two = triplets(MATRIX, 8, draw="users"), triplets(MATRIX, 8, draw="users")
    two.batch(5, 2)
    for name in ("users", "items", "negatives"):
        assert np.array_equal(getattr(one.batch(1, 1), name), getattr(two.batch(1, 1), name))
    two.start(1)
    assert not np.array_equal(one.batch(1, 1).users, two.batch(1, 1).users)


def test_a_matrix_without_choices_is_refused() -> None:
    with pytest.raises(UsageError, match="not one example"):
        triplets(sp.csr_array((3, 4), dtype=np.float32), 8)
