"""Numbers of a pipeline and of a system that knows other users and items."""

from __future__ import annotations

import numpy as np

from tastemaker.compose.translate import Translation, look_up
from tastemaker.types import Columns, ItemFilter, Jagged, Requests, Slates, Vocabulary

OURS = Vocabulary(["u0", "u1", "u2"], of="user"), Vocabulary(["a", "b", "c", "d"], of="item")
THEIRS = Vocabulary(["u2", "u9", "u0"], of="user"), Vocabulary(["d", "x", "b"], of="item")
TO = Translation.between(*OURS, *THEIRS)
SAME = Translation.between(*OURS, *OURS)


def test_requests_are_asked_in_the_systems_numbers() -> None:
    past = Jagged(Columns(item=np.array([1, 0, -1, 3, 7]), time=np.arange(5)), np.array([0, 3, 5]))
    asked = Requests(
        2,
        users=np.array([2, 1]),
        history=past,
        candidates=Jagged.from_lists([[0, 3], [1, 99]], np.int32),
        exclude=Jagged.from_lists([[2], []], np.int32),
        filter=ItemFilter(np.array([[True, False, True, True]]), np.array([0, -1])),
        seeds=np.array([5, 6]),
    )
    moved = TO.requests(asked)
    assert moved.users is not None and moved.users.tolist() == [0, -1]
    assert moved.history is not None and moved.candidates is not None and moved.exclude is not None
    assert moved.history.values["item"].tolist() == [2, -1, 0], "unknown items go, events without one stay"
    assert moved.history.values["time"].tolist() == [0, 2, 3] and moved.history.offsets.tolist() == [0, 2, 3]
    assert moved.candidates.to_lists() == [[0], [2]]
    assert moved.exclude.to_lists() == [[], []]
    assert moved.filter is not None and moved.filter.allowed.tolist() == [[True, False, False]]
    assert moved.seeds is asked.seeds
    assert SAME.requests(asked) is asked and SAME.same and not TO.same


def test_lists_come_back_in_the_pipelines_numbers() -> None:
    assert TO.items_back(np.array([[2, 0], [1, -1]])).tolist() == [[1, 3], [-1, -1]]
    assert TO.items_to(np.array([0, 1, 2, 3, -1, 50])).tolist() == [-1, 2, -1, 0, -1, -1]
    slates, known = TO.slates_to(
        Slates(np.array([[0, 1, 3], [2, -1, -1]]), np.array([[3, 2, 1], [1, -np.inf, -np.inf]]))
    )
    assert slates.items.tolist() == [[2, 0, -1], [-1, -1, -1]] and slates.scores[0, :2].tolist() == [2, 1]
    assert known.tolist() == [[False, True, True], [False, False, False]]
    rows = TO.rows(np.array([[1.0], [2.0], [3.0]]), 4)
    assert rows.tolist() == [[0], [3], [0], [1]]


def test_an_empty_table_knows_nothing() -> None:
    assert look_up(np.empty(0, dtype=np.int32), np.array([0, 3])).tolist() == [-1, -1]
