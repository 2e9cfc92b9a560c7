"""Loosely written predicates mean what was meant, and allow nothing that a predicate does not."""

from __future__ import annotations

from difflib import get_close_matches

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.data.grounding import grounded
from tastemaker.data.predicate import allowed_by
from tastemaker.types import NotFound, UsageError

TABLE = pl.DataFrame(
    {
        "item": ["a", "b", "c"],
        "title": ["The Mill", "It's late", "Up"],
        "genres": [["Comedy", "Drama"], ["Horror"], []],
        "year": [1999, 2017, 2009],
        "maker": ["Ann O'Hara", None, "Bo Lind"],
    }
)
VALUES = {"genres": ["Comedy", "Drama", "Horror"], "maker": ["Ann O'Hara", "Bo Lind"]}


def nearest(column: str, value: str) -> str | None:
    folded = {one.lower(): one for one in VALUES.get(column, [])}
    close = get_close_matches(value.lower(), folded, 1, 0.6)
    return folded[close[0]] if close else None


@pytest.mark.parametrize(
    ("loose", "holds"),
    [
        ("genre = 'comedy'", [True, False, False]),
        ("genres has 'Comdy' and year > 1990", [True, False, False]),
        ("genres contains 'horror'", [False, True, False]),
        ("genres != 'comedy'", [False, True, True]),
        ("'horor' = ANY(genre)", [False, True, False]),
        ("ARRAY_CONTAINS(Genres, 'drama')", [True, False, False]),
        ("NOT genres has 'comedy'", [False, True, True]),
        ("genres IN ('comedy', 'horror')", [True, True, False]),
        ("genres NOT IN ('comedy')", [False, True, True]),
        ("genres LIKE '%comed%'", [True, False, False]),
        ("yeer >= '2009'", [False, True, True]),
        ("year between 2000 and 2010", [False, False, True]),
        ("maker = 'ann ohara'", [True, False, False]),
        ("maker like '%bo lind%' or title like '%late%'", [False, True, True]),
        ("title contains 'it''s'", [False, True, False]),
        ("title not like '%up%'", [True, True, False]),
        ("maker is null", [False, True, False]),
        ("lower(title) = 'up'", [False, False, True]),
    ],
)
def test_what_was_meant(loose: str, holds: list[bool]) -> None:
    text, _ = grounded(loose, TABLE.schema, nearest)
    assert allowed_by(text, TABLE).tolist() == holds


def test_it_is_said_what_was_changed() -> None:
    _, notes = grounded("genre = 'comdy'", TABLE.schema, nearest)
    assert notes == ["genre was taken to be genres", "genres: 'comdy' was taken to be 'Comedy'"]
    assert grounded("year > 1990 AND genres has 'Drama'", TABLE.schema, nearest)[1] == []


@pytest.mark.parametrize(
    "bad",
    [
        "price < 3",
        "year > (SELECT 1)",
        "SELECT item FROM items",
        "genres has read_csv('/etc/passwd')",
        "REPEAT(title, 99999) = 'x'",
        "year > 1; DROP TABLE items",
        "title = 'x' -- rest",
        "1 = 1",
        "",
        "year >" + "(" * 100,
        "x" * 3000,
    ],
)
def test_nothing_passes_that_is_no_predicate(bad: str) -> None:
    with pytest.raises((NotFound, UsageError)):
        allowed_by(grounded(bad, TABLE.schema, nearest)[0], TABLE)


NAMES = ["genre", "genres", "year", "maker", "ANY", "ARRAY_CONTAINS", "'comedy'", "''", "'%'", "'O''Hara'", "5"]
SIGNS = ["=", "has", "IN", "(", ")", ",", "NOT", "AND", "OR", "LIKE", "IS", "NULL", ";", '"']


@given(st.lists(st.sampled_from([*NAMES, *SIGNS]), max_size=14))
def test_any_words_give_an_answer_an_item_or_a_refusal(parts: list[str]) -> None:
    try:
        flags = allowed_by(grounded(" ".join(parts), TABLE.schema, nearest)[0], TABLE)
    except (NotFound, UsageError):
        return
    assert len(flags) == 3
