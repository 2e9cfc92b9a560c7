"""Predicates from strangers: what passes means what it says; the rest of SQL is refused before it is parsed."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import allowed_by, predicate
from tastemaker.types import NotFound, UsageError

N = 40_000  # more than are looked at in one go
RNG = np.random.default_rng(0)
ITEMS = pl.DataFrame(
    {
        "item": [f"i{n}" for n in range(N)],
        "year": pl.Series(RNG.integers(1950, 2020, N)).set(pl.Series(RNG.random(N) < 0.1), None),
        "price": RNG.random(N) * 20,
        "genres": [["drama", "war"], ["comedy"], [], None] * (N // 4),
        "title": ["The Boat", "it's", "A", None] * (N // 4),
        "flag": [True, False, None, True] * (N // 4),
        'odd "name"': range(N),
        "in": range(N),
        "day": [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)] * (N // 2),
    }
)
YEAR, PRICE = pl.col("year"), pl.col("price")


@pytest.mark.parametrize(
    ("where", "same"),
    [
        ("year > 1990", YEAR > 1990),
        ("year>=1990 AND NOT price < 5.5", (YEAR >= 1990) & ~(PRICE < 5.5)),
        ("year between 1990 and 1995 or price <= 1e0", YEAR.is_between(1990, 1995) | (PRICE <= 1.0)),
        ("year IN (1990, 1991) ", YEAR.is_in([1990, 1991])),
        ("year IS NULL", YEAR.is_null()),
        ("(year - 1950) * 2 <> -price + .5", (YEAR - 1950) * 2 != -PRICE + 0.5),
        ("title LIKE 'The%'", pl.col("title").str.starts_with("The")),
        ("LOWER(title) = 'it''s'", pl.col("title") == "it's"),
        ("flag", pl.col("flag")),
        ("array_contains(genres, 'drama')", pl.col("genres").list.contains("drama")),
        ("'drama' = ANY(genres)", pl.col("genres").list.contains("drama")),
        ('"odd ""name""" % 2 = 0', pl.col('odd "name"') % 2 == 0),
        ('"in" < 3', pl.col("in") < 3),
        ("day >= DATE('2020-06-01')", pl.col("day") >= datetime.date(2020, 6, 1)),
        ("COALESCE(year, 0) < 1950", YEAR.fill_null(0) < 1950),
    ],
)
def test_a_predicate_means_what_polars_means_by_it(where: str, same: pl.Expr) -> None:
    wanted = ITEMS.select(same.alias("x"))["x"].fill_null(False).to_numpy()
    assert 0 < wanted.sum() < N
    np.testing.assert_array_equal(allowed_by(where, ITEMS), wanted)


HOSTILE = [
    "title IN (SELECT * FROM read_csv('{file}'))",
    "EXISTS (SELECT * FROM read_parquet('{file}'))",
    "title = (SELECT title FROM read_json('{file}'))",
    "title IN (WITH x AS (SELECT 1) SELECT * FROM x)",
    "title IN (TABLE read_csv('{file}'))",
    "read_csv('{file}')",
    "title IN (SELECT a FROM read_csv('http://127.0.0.1:9/x'))",
    "RPAD(title, 1000000000, 'x') = title",
    "REPEAT(title, 1000000000) = title",
    "year > AVG(year)",
    "SUM(year) OVER () > 1",
    "ROW_NUMBER() OVER (ORDER BY year) > 1",
    "UNNEST(genres) = 'drama'",
    "FIRST(title) = 'A'",
    "REGEXP_LIKE(title, '(a{{1000}}){{1000}}')",
    "title ~ '(a*)*b'",
    "title RLIKE 'a'",
    "title || title = 'x'",
    "year::text = '1990'",
    "CAST(year AS VARCHAR) = '1990'",
    "CASE WHEN flag THEN TRUE ELSE FALSE END",
    "year = 1990 -- and so on",
    "year /* so */ = 1990",
    "year = 1990; DROP TABLE items",
    "COLUMNS('.*') IS NULL",
    "* IS NULL",
    "year > $1",
    "x'41' = title",
    "year > 0x10",
    "year > 1_000",
    "self.year > 1",
    "title = E'\\\\x41'",
    '"year" ( title )',
    "flag\x00",
]


@pytest.mark.parametrize("where", HOSTILE)
def test_nothing_else_reaches_the_sql_parser(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("password\nhunter2\n")

    def never(text: str) -> None:
        raise AssertionError(f"{text} was parsed")

    monkeypatch.setattr(predicate.pl, "sql_expr", never)
    with pytest.raises(UsageError) as refused:
        allowed_by(where.format(file=secret), ITEMS)
    assert "password" not in str(refused.value) and "No such file" not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("yaer > 1990", "did you mean 'year'"),
        ('title = "The Boat"', "single quotes"),
        ("lowr(title) = 'a'", "'LOWER'"),
        ("1 = 1", "looks at no column"),
        ("", "looks at no column"),
        ("year", "yes or no for every item"),
        ("title > 5", "cannot be applied"),
        ("year >", "cannot be applied"),
        ("(" * 25 + "flag" + ")" * 25, "at most 24 deep"),
        ("NOT " * 40 + "flag", "at most 24 deep"),
        ("flag OR " * 65 + "flag", "at most 64 times"),
        ("year = 1 " + "+ 1 " * 300, "at most 400"),
        ("year > 1" + " " * 2000 + "AND flag", "at most 2000"),
    ],
)
def test_a_refusal_says_why(where: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        allowed_by(where, ITEMS)


@given(st.text(alphabet="yearpicflgANDORNOTIN()'\"=<>!+-*/%,.0123456789 \n\\;:|~[]{}_é", max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_flags_or_a_clear_error(where: str) -> None:
    few = ITEMS.head(5)
    try:
        flags = allowed_by(where, few)
    except UsageError:
        return
    assert flags.dtype == np.bool_ and flags.shape == (5,)


def test_a_predicate_is_elementwise() -> None:
    """Whatever passes answers for a part of the catalogue as it does within the whole."""
    for where in ("ABS(year) > 1980 AND LENGTH(title) > 1", "price > ROUND(price, 0)", "ARRAY_LENGTH(genres) >= 1"):
        whole = allowed_by(where, ITEMS)
        np.testing.assert_array_equal(allowed_by(where, ITEMS.slice(7, 11)), whole[7:18])
    assert issubclass(NotFound, UsageError)
