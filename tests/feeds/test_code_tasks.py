"""Tasks of codes and words against a reading of their rows, and prompts that keep their own answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tastemaker.data.build import build
from tastemaker.feeds import prefixes, windows
from tastemaker.feeds.code_tasks import (
    CODES,
    NEXT,
    NEXT_BY_TITLES,
    NEXT_TITLE,
    TITLE,
    Phrases,
    Prompts,
    Told,
    aligned_tasks,
)
from tastemaker.types import Codebook, Dataset, Jagged

NUMBERS = np.random.default_rng(0).permutation(12)
BOOK = Codebook(np.stack([NUMBERS // 4, NUMBERS % 4], axis=1), (3, 4))
TITLES = [[i % 5, (i * i) % 5] for i in range(11)] + [[]]  # the last item has none
PHRASES = Phrases(BOOK, Jagged.from_lists(TITLES, dtype=np.int64), 5, 2)
CHOSEN = {0: [3, 1, 4, 1, 5], 1: [9], 2: [2, 6, 5, 3]}
END, SIGNS = 7 + 5, 7 + 6


def data() -> Dataset:
    users = [u for u, row in CHOSEN.items() for _ in row]
    items = [i for row in CHOSEN.values() for i in row]
    events = pl.DataFrame({"user": users, "item": items, "time": np.arange(len(items))})
    tables = pl.DataFrame({"user": np.arange(3)}), pl.DataFrame({"item": np.arange(12)})
    return build("few", events, *tables, time_unit="step")


HISTORIES = dict(enumerate(data().histories().column("item").to_lists()))  # by the numbers that items have here


def in_codes(items: list[int]) -> list[int]:
    return [int(code) + shift for i in items for code, shift in zip(BOOK.codes[i], (0, 3), strict=True)]


def in_words(items: list[int]) -> list[int]:
    return [token for i in items for token in [*(7 + word for word in TITLES[i]), END]]


def rows_of(batch: Told) -> list[tuple[list[int], list[int]]]:
    """What is read of each row before anything is told, and all that is told of it, as tokens."""
    shifts, found = [0, 3, 7], []
    for row in range(len(batch)):
        start, stop = int(batch.offsets[row]), int(batch.offsets[row + 1])
        tokens = batch.tokens[start:stop].tolist()
        mine = np.flatnonzero((batch.places >= start) & (batch.places < stop))
        told = [int(batch.targets[m]) + shifts[batch.heads[m]] for m in mine]
        places = [int(batch.places[m]) - start for m in mine]
        assert places == list(range(places[0], len(tokens))), "an answer is told token by token, to the row's end"
        assert tokens[places[0] + 1 :] == told[:-1], "what was told is read, but for the last token"
        found.append((tokens[: places[0] + 1], told))
    assert batch.longest == np.diff(batch.offsets).max()
    return found


def stretches(items: list[int]) -> list[tuple[list[int], int]]:
    """Beginnings of a window, and what comes next."""
    return [(items[:n], items[n]) for n in range(1, len(items))]


def test_every_task_asks_and_tells_what_it_says() -> None:
    seen = windows(data(), 4, which="all")
    cuts = [row[max(0, stop - 4) : stop] for row in HISTORIES.values() for stop in range(len(row), 0, -4)]
    assert len(seen) == len(cuts) == 4
    feed = aligned_tasks(seen, PHRASES, 7, aligned=10.0)
    assert len(feed) == -(-(4 + 4 * 40) // 7)
    found = [row for number in range(len(feed)) for row in rows_of(feed.batch(0, number))]
    by_task: dict[int, list[tuple[list[int], list[int]]]] = {task: [] for task in range(5)}
    for prompt, answer in found:
        by_task[prompt[0] - SIGNS].append((prompt[1:], answer))
    assert sorted(by_task[NEXT]) == sorted(([], in_codes(cut)) for cut in cuts), "each window once"
    pairs = [pair for cut in cuts for pair in stretches(cut)]
    expected = {
        NEXT_BY_TITLES: [(in_words(past[-2:]), in_codes([then])) for past, then in pairs],
        NEXT_TITLE: [(in_codes(past), in_words([then])) for past, then in pairs],
        CODES: [(in_words([i]), in_codes([i])) for i in range(11)],
        TITLE: [(in_codes([i]), in_words([i])) for i in range(11)],
    }
    for task, rows in expected.items():
        assert len(by_task[task]) == 40
        for row in by_task[task]:
            assert row in rows, (task, row)
        assert len({str(row) for row in by_task[task]}) > len(rows) // 2, "they are drawn among all"


def test_without_words_or_wishes_there_are_codes_alone() -> None:
    seen = windows(data(), 4, which="all")
    bare = Phrases(BOOK, Jagged.empty(12, np.int64), 5, 2)
    for feed in (aligned_tasks(seen, PHRASES, 9, aligned=0.0), aligned_tasks(seen, bare, 9, aligned=2.0)):
        assert len(feed) == 1 and {prompt[0] for prompt, _ in rows_of(feed.batch(0, 0))} == {SIGNS + NEXT}


def test_a_part_of_a_batch_has_whole_rows() -> None:
    batch = aligned_tasks(windows(data(), 4, which="all"), PHRASES, 40, aligned=3.0).batch(0, 0)
    whole = rows_of(batch)
    assert rows_of(batch.take(slice(0, 13))) + rows_of(batch.take(slice(13, 40))) == whole
    assert len(batch.take(slice(40, 44))) == 0


def test_prompts_keep_answers_of_their_own_though_histories_are_alike() -> None:
    events = pl.DataFrame({"user": [0, 0, 1, 1], "item": [3, 4, 3, 7], "time": [0, 1, 0, 1]})
    alike = build(
        "alike", events, pl.DataFrame({"user": [0, 1]}), pl.DataFrame({"item": np.arange(12)}), time_unit="step"
    )
    prompts = Prompts(prefixes(alike, 3).least(2), PHRASES, 100, 0.0)
    asked = prompts.take(np.array([1, 0]))
    (first, then), (again, other) = alike.histories().column("item").to_lists()
    assert first == again and then != other
    assert asked.users.tolist() == [1, 0] and asked.targets.tolist() == [other, then]
    assert asked.histories.to_lists() == [[first], [first]]
    assert asked.tokens.tolist() == [SIGNS + NEXT, *in_codes([first])] * 2


def test_prompts_are_of_all_sorts_and_say_what_answers_them() -> None:
    prompts = Prompts(prefixes(data(), 2).least(2), PHRASES, 100, 1.0)
    assert len(prompts) == 3 * 7
    asked = prompts.take(np.random.default_rng(0).permutation(21))
    told = {task: 0 for task in range(5)}
    for row, target in enumerate(asked.targets):
        sign, *tokens = asked.tokens[asked.offsets[row] : asked.offsets[row + 1]].tolist()
        past = asked.histories[row].tolist()
        task = sign - SIGNS
        told[task] += 1
        assert (past == []) == (task == CODES)
        assert tokens == {NEXT: in_codes(past), NEXT_BY_TITLES: in_words(past), CODES: in_words([target])}[task]
        whole = HISTORIES[int(asked.users[row])]
        assert target in whole[1:] and (
            task == CODES or any(whole[:n][-2:] == past and whole[n] == target for n in range(5) if n < len(whole))
        )
    assert told == {NEXT: 7, NEXT_BY_TITLES: 7, CODES: 7, NEXT_TITLE: 0, TITLE: 0}
    few = Prompts(prefixes(data(), 2).least(2), PHRASES, 3, 0.0)
    assert len(few) == 3 and len(set(few.rows.tolist())) == 3


@pytest.mark.parametrize("n", [0, 2])
def test_groups_are_cut_by_prompt(n: int) -> None:
    from tastemaker.feeds.code_tasks import Groups

    rng = np.random.default_rng(n)
    offsets = np.array([0, 2, 3, 7])
    parts = [rng.random((3, 2, 2)) for _ in range(5)]
    groups = Groups(np.arange(7), offsets, 4, *parts)
    part = groups.take(slice(1, 3))
    assert part.tokens.tolist() == [2, 3, 4, 5, 6] and part.offsets.tolist() == [0, 1, 5] and part.longest == 4
    assert np.array_equal(part.old, groups.old[1:]) and len(groups.take(slice(3, 3))) == 0
