"""Histories as tokens against a loop, and requests read as a feed would show them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tastemaker.data.build import build
from tastemaker.feeds import asked_codes, next_codes, prefixes, windows
from tastemaker.types import Codebook, Dataset, Requests

BOOK = Codebook(np.random.default_rng(0).integers(0, [4, 3], (12, 2)), (4, 3))
HISTORIES = {0: [3, 1, 4, 1, 5], 1: [9], 2: [2, 6, 5, 3]}


def data() -> Dataset:
    users = [u for u, row in HISTORIES.items() for _ in row]
    items = [i for row in HISTORIES.values() for i in row]
    events = pl.DataFrame({"user": users, "item": items, "time": np.arange(len(items))})
    tables = pl.DataFrame({"user": np.arange(3)}), pl.DataFrame({"item": np.arange(12)})
    return build("few", events, *tables, time_unit="step")


def written(items: list[int]) -> list[int]:
    return [int(code) + shift for i in items for code, shift in zip(BOOK.codes[i], (0, 4), strict=True)]


@pytest.mark.parametrize("last", [False, True])
def test_rows_equal_a_loop(last: bool) -> None:
    few = data()
    seen = prefixes(few, 3) if last else windows(few, 4, which="all")
    feed = next_codes(seen, BOOK, 3, groups=5, last=last)
    found = set()
    for number in range(len(feed)):
        batch = feed.batch(0, number)
        signs = {u: 7 + int(s) for u, s in zip(range(3), _signs(), strict=True)}
        for row in range(len(batch)):
            tokens = batch.tokens[batch.offsets[row] : batch.offsets[row + 1]].tolist()
            told = slice(int(batch.told[row]), int(batch.told[row + 1]))
            sees = batch.sees[told].tolist()
            assert [signs[user] for user in batch.owners[told].tolist()] == [int(tokens[0])] * len(sees)
            assert row == 0 or len(tokens) >= batch.offsets[row] - batch.offsets[row - 1], "rows come by length"
            found.add((tokens[0], tuple(tokens[1:]), tuple(map(tuple, batch.targets[told].tolist())), tuple(sees)))
        assert batch.longest == np.diff(batch.offsets).max() and batch.most == np.diff(batch.told).max()
    expected = set()
    for user, row in enumerate(few.histories().column("item").to_lists()):
        if last:
            parts = [(row[max(0, n - 3) : n], [row[n]]) for n in range(len(row))]
        else:
            cuts = [row[max(0, stop - 4) : stop] for stop in range(len(row), 0, -4)]
            parts = [(cut[:-1], cut) for cut in cuts]
        for read, told in parts:
            sees = (1 + 2 * len(read),) if last else tuple(1 + 2 * n for n in range(len(told)))
            expected.add((signs[user], tuple(written(read)), tuple(map(tuple, BOOK.codes[told].tolist())), sees))
    assert found == expected


def _signs() -> list[int]:
    asked = asked_codes(Requests.of_items([[], [], []], users=np.arange(3)), BOOK, 3, groups=5)
    return [int(sign) - 7 for sign in asked.tokens]


def test_a_part_of_a_batch_has_whole_rows() -> None:
    batch = next_codes(windows(data(), 4, which="all"), BOOK, 9).batch(0, 0)
    part = batch.take(slice(1, 3))
    assert len(part) == 2 and part.offsets[0] == part.told[0] == 0
    assert np.array_equal(part.tokens, batch.tokens[batch.offsets[1] : batch.offsets[3]])
    assert np.array_equal(part.targets, batch.targets[batch.told[1] : batch.told[3]])
    assert np.array_equal(part.sees, batch.sees[batch.told[1] : batch.told[3]])
    assert np.array_equal(part.owners, batch.owners[batch.told[1] : batch.told[3]])
    assert len(batch.take(slice(4, 4))) == 0


def test_requests_are_read_as_in_training_and_strangers_have_a_sign() -> None:
    asked = asked_codes(Requests.of_items([[3, 1, 4, 20], [], [-1, 9]], users=np.array([0, -1, 2])), BOOK, 2, groups=5)
    rows = [asked.tokens[a:b].tolist() for a, b in zip(asked.offsets[:-1], asked.offsets[1:], strict=True)]
    assert [row[1:] for row in rows] == [written([1, 4]), [], written([9])]
    assert rows[1][0] == 7 + 5 and rows[0][0] < 12 and rows[2][0] < 12
    nobody = asked_codes(Requests.of_items([[1]]), BOOK, 2, groups=5)
    assert nobody.tokens[0] == 12 and nobody.longest == 3
    single = next_codes(windows(data(), 4), BOOK, 9, groups=5, anonymous=1.0).batch(0, 0)
    assert (single.tokens[single.offsets[:-1]] == 12).all()


def test_codes_that_change_are_read_as_they_stand() -> None:
    books = [BOOK]
    feed = next_codes(windows(data(), 4), lambda: books[-1], 9)
    before = feed.batch(0, 0).targets.copy()
    assert feed.live and not next_codes(windows(data(), 4), BOOK, 9).live
    books.append(BOOK.changed((BOOK.codes + 1) % [4, 3]))
    assert np.array_equal(feed.batch(0, 0).targets, (before + 1) % [4, 3])
