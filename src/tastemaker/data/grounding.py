"""Loosely written predicates, put in a catalogue's own columns and values.

Who writes a filter without seeing the catalogue, as a language model does, says `genre = 'comedy'` where the column is
the list `genres` and its value `Comedy`. Here the nearest column and the nearest value take the place of what is not
there, lists are asked whether they hold a value, and what was changed is said. The result is a predicate as any other
and passes the same check, `data.predicate`: nothing is allowed here that is not allowed there.

Ref: section 4.2 of Huang et al., arXiv:2308.16505, repairs SQL so, by vectors of sentences; here letters decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import polars as pl

from tastemaker.data.predicate import FUNCTIONS, KEYWORDS, LONGEST, MOST_TOKENS, tokens
from tastemaker.types import UsageError

Token = tuple[str, str]
Nearest = Callable[[str, str], str | None]
HOLDS = frozenset({"HAS", "CONTAINS", "INCLUDES"})
EQUAL, UNEQUAL, ORDER = frozenset({"=", "=="}), frozenset({"!=", "<>"}), frozenset({"<", "<=", ">", ">="})
ARGUMENTS = ("(", "column", ",", "text", ")")
CLOSE = 0.6  # likeness of letters from which a column is taken for another


def grounded(where: str, schema: Mapping[str, pl.DataType], nearest: Nearest) -> tuple[str, list[str]]:
    """A predicate over the columns that are there, and what was changed, in words.

    Args:
        schema: the catalogue's columns.
        nearest: (column, value) -> the known value of the column that is most like it; None: there is none, or the
            column's values are not known.

    Raises:
        UsageError: it is too long, or holds signs that no predicate has.
    """
    if len(where) > LONGEST:
        raise UsageError(f"a predicate has at most {LONGEST} characters, this one has {len(where):,}")
    given = list(tokens(where))
    if len(given) > MOST_TOKENS:
        raise UsageError(f"a predicate has at most {MOST_TOKENS} words and signs, this one has {len(given)}")
    writer = _Writer(given, schema, nearest)
    return writer.write(), writer.notes


@dataclass
class _Writer:
    given: Sequence[Token]
    schema: Mapping[str, pl.DataType]
    nearest: Nearest
    notes: list[str] = field(default_factory=list)

    def write(self) -> str:
        written: list[str] = []
        at = 0
        while at < len(self.given):
            kind, token = self.given[at]
            if self._is_column(at):
                column = self._column(token if kind == "word" else token[1:-1].replace('""', '"'))
                text, at = self._comparison(column, at + 1)
            elif kind == "word" and token.upper() == "ARRAY_CONTAINS" and self._follows(at + 1, *ARGUMENTS):
                text, at = self._holds(self._column(_name(self.given[at + 2])), _value(self.given[at + 4])), at + 6
            elif kind == "text" and self._follows(at + 1, "=", "ANY", "(", "column", ")"):
                text, at = self._holds(self._column(_name(self.given[at + 4])), _value(self.given[at])), at + 6
            else:
                text, at = token, at + 1
            written.append(text)
        return " ".join(written)

    def _is_column(self, at: int) -> bool:
        kind, token = self.given[at]
        called = at + 1 < len(self.given) and self.given[at + 1][1] == "("
        return kind == "quoted" or (kind == "word" and token.upper() not in KEYWORDS and not called)

    def _follows(self, at: int, *wanted: str) -> bool:
        """Whether these come from here on: "column" and "text" stand for any of them, else the word or sign itself."""
        if at + len(wanted) > len(self.given):
            return False
        for one, (kind, token) in zip(wanted, self.given[at:], strict=False):
            named = kind == "quoted" or (kind == "word" and token.upper() not in KEYWORDS | FUNCTIONS)
            if one not in (token.upper(), "column" if named else kind):
                return False
        return True

    def _column(self, name: str) -> str:
        if name in self.schema:
            return name
        folded = {column.lower(): column for column in self.schema}
        close = get_close_matches(name.lower(), folded, n=1, cutoff=CLOSE)
        if not close:
            return name  # the check that follows refuses it, and says which columns there are
        self.notes.append(f"{name} was taken to be {folded[close[0]]}")
        return folded[close[0]]

    def _comparison(self, column: str, at: int) -> tuple[str, int]:
        """What is said of a column, and where to read on."""
        negated = self._word(at) == "NOT"
        place = at + negated
        word, operator = self._word(place), self.given[place][1] if place < len(self.given) else ""
        following = self.given[place + 1] if place + 1 < len(self.given) else ("", "")
        before = "NOT " if negated else ""
        if following[0] == "text" and (word in HOLDS or word in ("LIKE", "ILIKE")):
            text = _value(following)
            return before + (self._like(column, text, word in HOLDS)), place + 2
        if following[0] == "text" and operator in EQUAL | UNEQUAL | ORDER and not negated:
            if self._is_number(column):
                return f"{_quoted(column)} {operator} {_number(following)}", place + 2
            if operator in EQUAL | UNEQUAL:
                return ("NOT " if operator in UNEQUAL else "") + self._is(column, _value(following)), place + 2
        if word == "IN" and following[1] == "(" and (found := self._values(place + 2)) is not None:
            values, end = found
            return before + "( " + " OR ".join(self._is(column, value) for value in values) + " )", end
        return _quoted(column), at

    def _values(self, at: int) -> tuple[list[str], int] | None:
        """Texts between commas up to the closing parenthesis, and where to read on; None: there are others too."""
        values: list[str] = []
        while at + 1 < len(self.given) and self.given[at][0] == "text":
            values.append(_value(self.given[at]))
            if self.given[at + 1][1] == ")":
                return values, at + 2
            if self.given[at + 1][1] != ",":
                return None
            at += 2
        return None

    def _is(self, column: str, value: str) -> str:
        if isinstance(self.schema.get(column), pl.List):
            return self._holds(column, value)
        return f"{_quoted(column)} = {_text(self._known(column, value))}"

    def _holds(self, column: str, value: str) -> str:
        if isinstance(self.schema.get(column), pl.List):
            return f"ARRAY_CONTAINS ( {_quoted(column)} , {_text(self._known(column, value))} )"
        return f"{_quoted(column)} ILIKE {_text('%' + self._known(column, value) + '%')}"

    def _like(self, column: str, value: str, holds: bool) -> str:
        bare = value.strip("%_ ")
        if isinstance(self.schema.get(column), pl.List):
            return self._holds(column, bare)
        known = self.nearest(column, bare)
        if known is not None:
            return f"{_quoted(column)} = {_text(self._noted(column, bare, known))}"
        return f"{_quoted(column)} ILIKE {_text('%' + bare + '%' if holds else value)}"

    def _known(self, column: str, value: str) -> str:
        known = self.nearest(column, value)
        return value if known is None else self._noted(column, value, known)

    def _noted(self, column: str, value: str, known: str) -> str:
        if "\\" in known:
            return value  # a backslash has no place in a predicate
        if known != value:
            self.notes.append(f"{column}: {value[:40]!r} was taken to be {known[:40]!r}")
        return known

    def _is_number(self, column: str) -> bool:
        kind = self.schema.get(column)
        return kind is not None and kind.is_numeric()

    def _word(self, at: int) -> str:
        return self.given[at][1].upper() if at < len(self.given) and self.given[at][0] == "word" else ""


def _name(token: Token) -> str:
    return token[1] if token[0] == "word" else token[1][1:-1].replace('""', '"')


def _value(token: Token) -> str:
    return token[1][1:-1].replace("''", "'")


def _number(token: Token) -> str:
    """A number that stands in quotes, without them."""
    try:
        return repr(float(_value(token)))
    except ValueError:
        return token[1]


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
