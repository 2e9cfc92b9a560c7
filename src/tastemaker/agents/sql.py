"""A language model's SQL, run where it can do nothing but read one table (extra "sql").

    numbers = Questions(table).select("SELECT item FROM items WHERE year > 1990 ORDER BY price LIMIT 20")

Three locks, each enough by itself for most of what could be tried. The statement is parsed by DuckDB without being run,
and every node of what it is made of must be one of a short list: one SELECT over the table `items`, subqueries over the
same, comparisons, arithmetic and functions named below; no join, no WITH, no table function, no other table or file. It
runs in a database in memory without access to files, network or extensions, whose configuration is locked. And it has
so many rows, so much memory and so many seconds; past these it is stopped.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import BudgetExceeded, NotFound, UsageError, nearest, optional

TABLE = "items"
LONGEST = 2000  # characters
ROWS, SECONDS, MEMORY_MB = 10_000, 2.0, 256
DEEPEST = 64  # nodes within nodes
LOCKED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "1",
}
NODES = frozenset(
    {"SELECT_NODE", "BASE_TABLE", "SUBQUERY", "EMPTY", "COLUMN_REF", "STAR", "VALUE_CONSTANT", "FUNCTION", "TYPE"}
    | {"CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"}
    | {"OPERATOR_COALESCE", "OPERATOR_NULLIF", "OPERATOR_CAST", "COMPARE_BETWEEN", "COMPARE_IN", "COMPARE_NOT_IN"}
    | {"COMPARE_EQUAL", "COMPARE_NOTEQUAL", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN", "CASE_EXPR", "ARRAY_EXTRACT"}
    | {"COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_NOT_BETWEEN"}
    | {"ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER", "ORDER_DEFAULT", "ASCENDING", "DESCENDING"}
)
FUNCTIONS = frozenset(
    {"+", "-", "*", "/", "%", "//", "~~", "~~*", "!~~", "!~~*", "like_escape", "abs", "round", "floor", "ceil", "lower"}
    | {"upper", "length", "len", "contains", "starts_with", "ends_with", "list_contains", "list_has", "array_contains"}
    | {"coalesce", "min", "max", "avg", "sum", "count", "count_star", "unnest", "trim", "greatest", "least", "year"}
)
TYPES = frozenset({"INTEGER", "BIGINT", "DOUBLE", "FLOAT", "VARCHAR", "BOOLEAN", "DATE", "INT"})


class Questions:
    """One table that may be asked. Its column `item` holds numbers, 0 to n - 1, whatever it held before."""

    def __init__(
        self, table: pl.DataFrame, *, rows: int = ROWS, seconds: float = SECONDS, memory_mb: int = MEMORY_MB
    ) -> None:
        plain = {
            n: k for n, k in table.schema.items() if not (isinstance(k, pl.List | pl.Array) and k.inner != pl.String)
        }
        numbers = pl.Series("item", np.arange(table.height, dtype=np.int64))
        self.table = table.select(list(plain)).drop("item", strict=False).insert_column(0, numbers)
        self.rows, self.seconds, self.memory_mb = rows, seconds, memory_mb

    @cached_property
    def _duckdb(self) -> Any:
        return optional("duckdb", extra="sql", why="running a language model's SQL")

    def select(self, sql: str) -> NDArray[np.int64]:
        """Numbers of the rows that a SELECT names in its column `item`, in its order, each once.

        Raises:
            UsageError: it is no such statement, or cannot be run.
            BudgetExceeded: it takes more time, memory or rows than it may.
        """
        self.check(sql)
        connection = self._opened()
        timer = threading.Timer(self.seconds, connection.interrupt)
        timer.start()
        try:
            asked = connection.execute(sql)
            columns = [one[0] for one in asked.description]
            if "item" not in columns:
                raise UsageError("the statement selects no column item, so it names no items", hint="SELECT item FROM")
            found = asked.fetchmany(self.rows + 1)
        except (self._duckdb.InterruptException, self._duckdb.OutOfMemoryException) as error:
            raise BudgetExceeded(
                f"the statement needs more than {self.seconds:g} s or {self.memory_mb} MB", hint="ask for less"
            ) from error
        except self._duckdb.Error as error:
            raise UsageError(f"the statement cannot be run: {str(error).splitlines()[0][:200]}") from error
        finally:
            timer.cancel()
            connection.close()
        if len(found) > self.rows:
            raise BudgetExceeded(f"the statement gives more than {self.rows:,} rows", hint="LIMIT, or a narrower WHERE")
        place = columns.index("item")
        numbers = [row[place] for row in found]
        if not all(isinstance(number, int) and 0 <= number < self.table.height for number in numbers):
            raise UsageError("the statement's column item holds something else than items", hint="select it as it is")
        return np.array(list(dict.fromkeys(numbers)), dtype=np.int64)

    def check(self, sql: str) -> None:
        """Refuse what is not one SELECT over the one table, made of parts that are known."""
        if len(sql) > LONGEST:
            raise UsageError(f"a statement has at most {LONGEST} characters, this one has {len(sql):,}")
        parser = self._duckdb.connect(":memory:", config=LOCKED)
        try:
            text = parser.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()[0]
        except self._duckdb.Error as error:
            raise UsageError(f"this is no SELECT: {str(error).splitlines()[0][:200]}") from error
        finally:
            parser.close()
        try:
            tree = json.loads(text)
        except RecursionError as error:
            raise UsageError(f"a statement nests at most {DEEPEST} deep") from error
        if tree["error"]:
            raise UsageError(f"this is no SELECT: {str(tree.get('error_message', ''))[:200]}")
        if len(tree["statements"]) != 1:
            raise UsageError(f"one statement at a time, got {len(tree['statements'])}")
        for node in _nodes(tree["statements"][0], 0):
            self._check_node(node)

    def _check_node(self, node: dict[str, Any]) -> None:
        kind = node.get("type")
        if isinstance(kind, str) and kind not in NODES:
            raise UsageError(f"a statement cannot hold {kind.lower().replace('_', ' ')}")
        if node.get("cte_map", {}).get("map") or node.get("sample") or node.get("qualify"):
            raise UsageError("a statement cannot hold WITH, SAMPLE or QUALIFY")
        if kind == "BASE_TABLE" and node["qualified_name"]["path"] != [TABLE]:
            raise UsageError(f"there is one table, {TABLE}")
        if kind == "STAR" and (node.get("columns") or node.get("expr") or node.get("replace_list")):
            raise UsageError("a statement cannot hold COLUMNS or REPLACE")
        if kind == "FUNCTION":
            path = node["qualified_name"]["path"]
            if len(path) != 1 or path[0].lower() not in FUNCTIONS:
                raise NotFound(f"a statement cannot use {'.'.join(path)!r}", hint=nearest(path[0].lower(), FUNCTIONS))
        if kind == "TYPE" and node["type_name"] not in TYPES:
            raise UsageError(f"a statement cannot cast to {node['type_name']}")

    def _opened(self) -> Any:
        """A database of this table alone."""
        connection = self._duckdb.connect(":memory:")
        try:
            connection.execute(f"SET memory_limit='{self.memory_mb}MB'")
            connection.execute("SET temp_directory=''")
            connection.register("given", self.table.to_arrow())
            connection.execute(f"CREATE TABLE {TABLE} AS SELECT * FROM given")
            connection.unregister("given")
        except self._duckdb.Error as error:
            connection.close()
            raise BudgetExceeded(
                f"{self.table.height:,} items do not fit into {self.memory_mb} MB", hint="filter them first"
            ) from error
        for name, value in LOCKED.items():
            connection.execute(f"SET {name}={value}")
        connection.execute("SET lock_configuration=true")
        return connection


def _nodes(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Every mapping in a parsed statement."""
    if depth > DEEPEST:
        raise UsageError(f"a statement nests at most {DEEPEST} deep")
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from _nodes(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _nodes(one, depth + 1)
