"""A language model's SQL reads one table, and can do nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tastemaker.agents.sql import Questions
from tastemaker.types import BudgetExceeded, TastemakerError, UsageError

pytest.importorskip("duckdb")
TABLE = pl.DataFrame(
    {
        "item": ["a", "b", "c", "d"],
        "title": ["The Mill", "It's late", "Up", "A"],
        "genres": [["comedy", "drama"], ["horror"], [], ["comedy"]],
        "year": [1999, 2017, 2009, 1980],
        "vector": [[1.0, 2.0]] * 4,
    }
)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT item FROM items WHERE year >= 1990 ORDER BY year DESC", [1, 2, 0]),
        ("select item, title from items where list_contains(genres, 'comedy') order by item", [0, 3]),
        ("SELECT item FROM items WHERE 'comedy' = ANY(genres) AND title NOT LIKE 'The%'", [3]),
        ("SELECT * FROM items WHERE title ILIKE '%it''s%'", [1]),
        ("SELECT item FROM items WHERE year > (SELECT avg(year) FROM items) ORDER BY year LIMIT 1", [2]),
        ("SELECT item FROM items WHERE year BETWEEN 1970 AND 2000 AND NOT (len(genres) = 1)", [0]),
        ("SELECT item FROM items ORDER BY length(title) DESC", [1, 0, 2, 3]),
    ],
)
def test_what_may_be_asked(sql: str, found: list[int]) -> None:
    assert Questions(TABLE).select(sql).tolist() == found


HOSTILE = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT content AS item FROM read_text('{file}')",
    "SELECT item FROM '{file}'",
    'SELECT item FROM "{file}"',
    "SELECT * FROM glob('/*')",
    "SELECT item FROM items WHERE title = (SELECT content FROM read_text('{file}'))",
    "SELECT item FROM items, read_csv('{file}')",
    "ATTACH '{folder}/x.db'",
    "ATTACH 'https://example.org/x.db' AS x",
    "COPY items TO '{folder}/x.csv'",
    "COPY (SELECT * FROM items) TO '{folder}/x.parquet'",
    "EXPORT DATABASE '{folder}/x'",
    "IMPORT DATABASE '{folder}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL httpfs FROM 'http://example.org'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "SET memory_limit='64GB'",
    "SET enable_external_access=true",
    "RESET lock_configuration",
    "SELECT * FROM duckdb_settings()",
    "SELECT current_setting('home_directory') AS item",
    "SELECT getenv('HOME') AS item",
    "SELECT item FROM items WHERE title = getenv('HOME')",
    "SELECT * FROM information_schema.tables",
    "SELECT item FROM main.items",
    "SELECT item FROM pg_catalog.pg_tables",
    "CREATE TABLE x AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "DROP TABLE items",
    "DELETE FROM items",
    "UPDATE items SET year = 0",
    "INSERT INTO items SELECT * FROM items",
    "SELECT item FROM items; DROP TABLE items",
    "SELECT item FROM items; SELECT item FROM items",
    "BEGIN TRANSACTION",
    "VACUUM",
    "CHECKPOINT",
    "WITH RECURSIVE r AS (SELECT 1 AS item UNION ALL SELECT item + 1 FROM r) SELECT item FROM r",
    "WITH x AS (SELECT 1 AS item) SELECT item FROM x",
    "SELECT item FROM items a, items b, items c, items d",
    "SELECT item FROM items UNION ALL SELECT item FROM items",
    "SELECT unnest(range(1000000000)) AS item",
    "SELECT item FROM range(1000000000) t(item)",
    "SELECT item FROM items WHERE length(repeat(title, 1000000000)) > 1",
    "SELECT item FROM items WHERE regexp_matches(title, '(a+)+$')",
    "SELECT count(*) OVER () AS item FROM items",
    "SELECT COLUMNS('.*') FROM items",
    "SELECT item FROM items USING SAMPLE 1",
    "SELECT item FROM items QUALIFY true",
    "SELECT item FROM items WHERE title = $1",
    "SELECT item FROM items WHERE title = ?",
    "SELECT CAST(title AS BLOB) AS item FROM items",
    "SELECT query FROM query('SELECT 1')",
    "FROM query_table('items') SELECT item",
    "EXPLAIN ANALYZE SELECT item FROM items",
    "PIVOT items ON year",
    "DESCRIBE items",
    "SELECT list_transform(genres, x -> x) AS item FROM items",
    "SELECT item FROM items WHERE system.main.abs(year) > 0",
    "",
    "'; DROP TABLE items; --",
    "SELECT item FROM items WHERE " + "NOT " * 400 + "year",
    "SELECT item FROM items WHERE year = " + "- " * 950 + "year",
    "SELECT item FROM items WHERE year IN (" + ", ".join(["1"] * 3000) + ")",
]


@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: sql[:50])
def test_hostile_statements_are_refused_unrun(sql: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("item\n1\n")
    asked = sql.replace("{file}", str(secret)).replace("{folder}", str(tmp_path))
    questions = Questions(TABLE)
    with pytest.raises(TastemakerError):
        questions.check(asked)  # what `select` does first
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


LEAVING = ("ATTACH", "COPY", "EXPORT", "IMPORT", "INSTALL", "SET", "RESET", "FORCE")


@pytest.mark.parametrize("sql", [*HOSTILE[:2], *(sql for sql in HOSTILE if sql.startswith(LEAVING))])
def test_the_database_itself_refuses_what_leaves_it(sql: str, tmp_path: Path) -> None:
    """The second lock, without the first."""
    import duckdb

    secret = tmp_path / "secret.csv"
    secret.write_text("item\n1\n")
    connection = Questions(TABLE)._opened()
    with pytest.raises(duckdb.Error):
        connection.execute(sql.replace("{file}", str(secret)).replace("{folder}", str(tmp_path))).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_time_rows_and_what_items_are() -> None:
    n = 4000
    big = pl.DataFrame({"item": np.arange(n), "year": np.arange(n) % 97})
    endless = (
        "SELECT item FROM items i WHERE (SELECT count(*) FROM items a WHERE (SELECT count(*) FROM items b "
        "WHERE a.year + b.year > i.year + a.item) > a.item + i.year) > 0"
    )
    with pytest.raises(BudgetExceeded, match=r"0\.2 s"):
        Questions(big, seconds=0.2).select(endless)
    with pytest.raises(BudgetExceeded, match="100 rows"):
        Questions(big, rows=100).select("SELECT item FROM items")
    for wrong in ("SELECT year FROM items", "SELECT item + 9000 AS item FROM items", "SELECT title AS item FROM items"):
        with pytest.raises(UsageError):
            Questions(TABLE).select(wrong)


def test_memory_is_bounded() -> None:
    n = 300_000
    wide = pl.DataFrame({"item": np.arange(n), "title": [f"a name of some length, number {i}" for i in range(n)]})
    for memory_mb in (2, 24):
        with pytest.raises((BudgetExceeded, UsageError)):
            Questions(wide, memory_mb=memory_mb).select("SELECT item FROM items ORDER BY title DESC, item")
