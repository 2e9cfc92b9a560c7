"""Predicates over a catalogue that may come from strangers: a small part of SQL, and nothing besides.

`pl.sql_expr` understands far more than a filter needs. A subquery there may name `read_csv('/any/file')` or a URL,
which Polars opens while it parses (so a stranger learns which files exist, and what answers inside the network);
padding functions allocate what they are told to; aggregates and windows give an answer that is not one an item. So a
predicate is cut into tokens first, and only columns of the catalogue, numbers, texts, comparisons, arithmetic, AND, OR,
NOT, IN, IS NULL, LIKE, BETWEEN and a few elementwise functions pass. What passed is written out again, every column in
quotes, and that text alone is given to Polars: there is no way for it to be read as anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import NotFound, UsageError, nearest

LONGEST, MOST_TOKENS, MOST_MENTIONS = 2000, 400, 64  # characters, words and signs, mentions of columns
DEEPEST, LONGEST_CHAIN = 24, 32  # parentheses open at once; parentheses, NOT and signs in a row
ROWS = 1 << 14  # items looked at at once: what texts joined by + may grow to is bounded

KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "BETWEEN", "TRUE", "FALSE"})
FUNCTIONS = frozenset(
    {"ABS", "ROUND", "FLOOR", "CEIL", "LOWER", "UPPER", "LENGTH", "STARTS_WITH", "ENDS_WITH", "COALESCE"}
    | {"ARRAY_CONTAINS", "ARRAY_LENGTH", "ANY", "DATE"}
)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<text>'(?:[^'\\]|'')*')
      | (?P<quoted>"(?:[^"\\]|"")+")
      | (?P<word>[^\W\d]\w*)
      | (?P<sign><=|>=|<>|!=|==|[=<>+\-*/%(),])
    )""",
    re.VERBOSE,
)


def allowed_by(where: str, catalogue: pl.DataFrame) -> NDArray[np.bool_]:
    """For which rows of the catalogue the predicate holds [I]; where it is undecided (a missing value) it does not.

    Raises:
        NotFound: a column or function is not there; the message offers the nearest.
        UsageError: it is no predicate, too long, or its types do not fit.
    """
    text = checked(where, catalogue.columns)
    try:
        expression = pl.sql_expr(text).alias("allowed")
        parts = [catalogue.slice(start, ROWS).select(expression) for start in range(0, max(1, catalogue.height), ROWS)]
        flags = pl.concat(parts)["allowed"]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        lines = str(error).splitlines()
        raise UsageError(
            f"the predicate {where!r} cannot be applied: {lines[0] if lines else type(error).__name__}",
            hint="columns: " + ", ".join(f"{name} ({dtype})" for name, dtype in catalogue.schema.items()),
        ) from error
    if flags.dtype != pl.Boolean or len(flags) != catalogue.height:
        raise UsageError(f"a predicate says yes or no for every item, {where!r} gives {flags.dtype}")
    return flags.fill_null(False).to_numpy()


def checked(where: str, columns: Sequence[str]) -> str:
    """The predicate written out again from its tokens, if every one of them may stand in it."""
    if len(where) > LONGEST:
        raise UsageError(f"a predicate has at most {LONGEST} characters, this one has {len(where):,}")
    cut = list(tokens(where))
    if len(cut) > MOST_TOKENS:
        raise UsageError(f"a predicate has at most {MOST_TOKENS} words and signs, this one has {len(cut)}")
    known = frozenset(columns)
    written: list[str] = []
    depth = chain = named = 0
    for at, (kind, token) in enumerate(cut):
        following = cut[at + 1][1] if at + 1 < len(cut) else ""
        depth += (token == "(") - (token == ")")
        chain = chain + 1 if token.upper() in ("NOT", "+", "-", "(") else 0
        if depth > DEEPEST or chain > LONGEST_CHAIN:
            raise UsageError(f"a predicate nests at most {DEEPEST} deep: {where[:80]!r}")
        if kind == "word" and token.upper() in KEYWORDS:
            written.append(token.upper())
        elif kind == "word" and following == "(":
            if token.upper() not in FUNCTIONS:
                raise NotFound(f"a predicate cannot use {token!r}", hint=nearest(token.upper(), FUNCTIONS))
            written.append(token.upper())
        elif kind in ("word", "quoted"):
            column = token if kind == "word" else token[1:-1].replace('""', '"')
            if column not in known:
                raise NotFound(f"the catalogue has no column {column!r}", hint=_column_hint(column, columns))
            if following == "(":
                raise UsageError(f"{column!r} is a column and takes no arguments")
            named += 1
            written.append('"' + column.replace('"', '""') + '"')
        else:
            written.append(token)
    if named > MOST_MENTIONS:
        raise UsageError(f"a predicate names columns at most {MOST_MENTIONS} times, this one does {named} times")
    if not named:
        raise UsageError(f"the predicate {where!r} looks at no column", hint=nearest("", columns))
    return " ".join(written)


def tokens(where: str) -> Iterator[tuple[str, str]]:
    """(kind, token), or an error at the first character that begins none."""
    at, text = 0, where.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or text.startswith("--", found.start("sign") if found["sign"] else len(text)):
            rest = text[at:].lstrip()
            raise UsageError(
                f"a predicate cannot hold {rest[:20]!r}",
                hint="columns, numbers, 'texts', comparisons, AND, OR, NOT, IN (...), IS NULL, LIKE, BETWEEN",
            )
        kind = str(found.lastgroup)
        yield kind, found[kind]
        at = found.end()


def _column_hint(column: str, columns: Sequence[str]) -> str:
    if column.upper() == "SELECT":
        return "subqueries have no place in it"
    return nearest(column, columns) + "; a text stands in single quotes"
