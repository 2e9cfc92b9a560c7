"""Conditions on items: each as a predicate in words, and as flags of the items that meet it.

The words are of the language that filters know (columns, numbers, texts, comparisons, AND, OR, NOT, IN, ANY); a text
from a catalogue stands in single quotes, with its own doubled. The flags tell a plan how many items are left before
anything is run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tastemaker.language.planner.lexicon import Facet, Flags, Lexicon
from tastemaker.language.planner.measures import Sign

LONGEST_WHERE, MOST_TOKENS, MOST_MENTIONS = 1_800, 320, 56  # within what the language allows, room left for titles
_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|[\w.]+|[<>=!]+|[^\s\w]")
_COMPARED = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "=": np.equal}


@dataclass(frozen=True)
class Size:
    """How much of what the language allows a predicate takes: characters, words and signs, mentions of columns."""

    characters: int = 0
    tokens: int = 0
    mentions: int = 0

    @classmethod
    def of(cls, where: str) -> Size:
        return cls(len(where) + 7, len(_TOKEN.findall(where)) + 3, where.count('"') // 2)

    def __add__(self, other: Size) -> Size:
        return Size(self.characters + other.characters, self.tokens + other.tokens, self.mentions + other.mentions)

    @property
    def allowed(self) -> bool:
        return self.characters <= LONGEST_WHERE and self.tokens <= MOST_TOKENS and self.mentions <= MOST_MENTIONS


@dataclass(frozen=True, eq=False)
class Condition:
    """What an item must be.

    key: what it is about: a later condition of the same key takes its place; replaces: others it takes back
    options: the values it is about, by number; words: the same as words
    """

    key: str
    column: str
    where: str
    mask: Flags = field(repr=False)
    wanted: bool = True
    options: tuple[tuple[int, int], ...] = ()
    words: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        return Size.of(self.where)


def one_of(lexicon: Lexicon, options: Sequence[tuple[int, int]], *, wanted: bool) -> Condition:
    """Items with one of these values (column and value by number), or with none of them."""
    options = tuple(dict.fromkeys(options))
    mask = np.zeros(lexicon.n_items, dtype=np.bool_)
    parts: list[str] = []
    empty: list[str] = []
    for f, v in options:
        facet = lexicon.facets[f]
        mask |= lexicon.holds(facet, v)
        name = column(facet.name)
        parts.append(
            f"{text(facet.values[v])} = ANY({name})" if facet.kind == "list" else f"{name} = {text(facet.values[v])}"
        )
        empty += [] if facet.complete else [f"{name} IS NULL"]
    where = " OR ".join(parts)
    words = tuple(dict.fromkeys(lexicon.facets[f].values[v] for f, v in options))
    first = lexicon.facets[options[0][0]].name
    key = f"{first}:{'|'.join(words)}"
    if wanted:
        return Condition(key, first, where, mask, True, options, words)
    nothing = " AND ".join(dict.fromkeys(empty))  # where nothing is known of an item, it is not refused
    none = f"{nothing} OR NOT ({where})" if nothing else f"NOT ({where})"
    return Condition(f"not {key}", first, none, ~mask, False, options, words)


def flag(facet: Facet, wanted: bool) -> Condition:
    """Items for which a yes-or-no column says so."""
    assert facet.numbers is not None
    where = f"{column(facet.name)} = {'TRUE' if wanted else 'FALSE'}"
    return Condition(facet.name, facet.name, where, facet.numbers == float(wanted))


def bound(facet: Facet, sign: Sign, number: float) -> Condition:
    """Items whose number in a column keeps a bound; of a date the number is a year."""
    assert facet.numbers is not None
    numbers, name = facet.numbers, column(facet.name)
    key = f"{facet.name} {'=' if sign == '=' else sign[0]}"
    replaces = tuple(f"{facet.name} {other}" for other in "<>=") if sign == "=" else (f"{facet.name} =",)
    limit = number
    if facet.kind == "date":
        limit = float(int(number))
        first, last = f"DATE('{int(number):04d}-01-01')", f"DATE('{int(number) + 1:04d}-01-01')"
        numbers = np.floor(numbers)
        where = {
            "<": f"{name} < {first}",
            "<=": f"{name} < {last}",
            ">": f"{name} >= {last}",
            ">=": f"{name} >= {first}",
            "=": f"{name} >= {first} AND {name} < {last}",
        }[sign]
    else:
        where = f"{name} {sign} {written(number)}"
    mask = np.asarray(_COMPARED[sign](numbers, limit))
    return Condition(key, facet.name, where, mask, replaces=replaces)


def with_words(lexicon: Lexicon, words: Sequence[str], *, wanted: bool) -> Condition:
    """Items of whose longer texts one has all these words."""
    mask = np.ones(lexicon.n_items, dtype=np.bool_)
    parts: list[str] = []
    for word in words:
        has = np.zeros(lexicon.n_items, dtype=np.bool_)
        has[lexicon.with_word(word)] = True
        mask &= has
        either = " OR ".join(f"{column(facet.name)} ILIKE {text(f'%{word}%')}" for facet in lexicon.wordy)
        parts.append(f"({either})" if len(lexicon.wordy) > 1 else either)
    where, key = " AND ".join(parts), f"words:{' '.join(words)}"
    if wanted:
        return Condition(key, "", where, mask)
    return Condition(f"not {key}", "", f"NOT ({where})", ~mask, False)


def not_titled(lexicon: Lexicon, titles: Sequence[str], room: int) -> str:
    """A predicate that leaves out titles, as many as there is room for; "" where there is none."""
    if "\\" in lexicon.title:
        return ""
    start = f"{column(lexicon.title)} NOT IN ("
    written: list[str] = []
    for title in titles:
        if "\\" not in title and len(start) + sum(map(len, written)) + 2 * len(written) + len(text(title)) < room - 12:
            written.append(text(title))
    return f"{start}{', '.join(written)})" if written else ""


def column(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def written(number: float) -> str:
    """A number as a predicate holds it: without an exponent or more digits than it has."""
    return f"{int(number)}" if number == int(number) else f"{number:.6f}".rstrip("0")
