"""What a catalogue can be asked for, read from the catalogue itself: titles, columns, values, bounds, words of texts.

    lexicon = Lexicon(catalogue)            # a Polars table, one row an item
    lexicon.columns                         # what a language model is told of it (tasks.Column)
    lexicon.titles, lexicon.values          # `NameIndex`, to find them in text
    lexicon.holds(facet, value)             # for which items: [I]

Nothing here knows what the items are. Everything is indexed once; a question never walks over the items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.language.planner.phrases import ORDINARY
from tastemaker.language.planner.spelling import NameIndex, words
from tastemaker.language.tasks import Column
from tastemaker.language.text import tokens as word_hashes
from tastemaker.types import AVAILABLE, Kind, NotFound, infer_kind, nearest

Flags = NDArray[np.bool_]
TITLES = ("title", "name", "label")
VERY_FEW, FEW = 30, 500  # values of a column up to which they describe; between the two, if items share them:
SHARED = 6  # items a value, on average; others are taken for names
TOLD = 40  # values of a column that are told to a language model
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_ARTICLE_LAST = re.compile(r"^(.*), (the|a|an)$", re.IGNORECASE)
_PARTS = re.compile(r":\s| [-–—] ")


@dataclass(frozen=True, eq=False)
class Facet:
    """A column that can be asked for.

    kind: "value" (a text), "list" (texts), "number", "date", "flag", "text" (words within a longer text)
    values: texts there are, each once; rows: items by value, [N] in the order of `starts` [V + 1]
    numbers: [I] float64, NaN where missing; of dates the year, with the day as a fraction; of flags 0 and 1
    complete: whether no item lacks a value (a list may be empty)
    """

    name: str
    kind: Literal["value", "list", "number", "date", "flag", "text"]
    values: tuple[str, ...] = ()
    starts: NDArray[np.int64] | None = None
    rows: NDArray[np.int64] | None = None
    numbers: NDArray[np.float64] | None = None
    complete: bool = False

    @property
    def describes(self) -> bool:
        """Whether its values are few enough to be words for a kind of item, rather than names."""
        if self.kind not in ("value", "list") or self.rows is None or len(self.values) > FEW:
            return False
        return len(self.values) <= VERY_FEW or len(self.rows) >= SHARED * len(self.values)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its name: "release_year" and "releaseYear" are two."""
        return tuple(words(re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", self.name)))

    @cached_property
    def bounds(self) -> tuple[float, float]:
        known = self.numbers[~np.isnan(self.numbers)] if self.numbers is not None else np.empty(0)
        return (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)

    def quantile(self, q: float) -> float:
        known = self.numbers[~np.isnan(self.numbers)] if self.numbers is not None else np.empty(0)
        return float(np.quantile(known, q)) if len(known) else float("nan")

    @property
    def is_year(self) -> bool:
        """Whether its numbers are years, going by name and size."""
        low, high = self.bounds
        named = any(word in ("year", "date", "released", "published", "release") for word in self.words)
        return self.kind == "date" or (self.kind == "number" and named and low > 0 and high < 3000)


class Lexicon:
    """A catalogue as words and flags.

    Args:
        catalogue: a row an item.
        title: the column of their names; None: "title", "name", or the first of texts that hardly repeat.
        kinds: of columns, where they are declared.
    """

    def __init__(
        self, catalogue: pl.DataFrame, *, title: str | None = None, kinds: Mapping[str, Kind] | None = None
    ) -> None:
        self.n_items = catalogue.height
        self.title = _title_of(catalogue) if title is None else title
        if self.title not in catalogue.columns:
            raise NotFound(f"the catalogue has no column {self.title!r}", hint=nearest(self.title, catalogue.columns))
        self.names: list[str] = catalogue[self.title].cast(pl.String).fill_null("").to_list()
        skip = {"item", AVAILABLE, self.title}
        found = [_facet(catalogue[c], (kinds or {}).get(c)) for c in catalogue.columns if c not in skip]
        self.facets: tuple[Facet, ...] = tuple(one for one in found if one is not None)
        self.by_name = {facet.name: facet for facet in self.facets}
        self._read_titles()
        pairs = [(f, v) for f, facet in enumerate(self.facets) for v in range(len(facet.values))]
        self.value_of = pairs
        self.values = NameIndex([self.facets[f].values[v] for f, v in pairs], plurals=True)
        self._texts = [catalogue[f.name].fill_null("").to_list() for f in self.facets if f.kind == "text"]
        self._wordy = [f for f in self.facets if f.kind == "text"]

    def _read_titles(self) -> None:
        """Titles, and how else people write them: without a year or an article, the article first, a part alone."""
        aliases: list[str] = []
        owners: list[int] = []
        parts: dict[str, list[int]] = {}
        self.years = np.zeros(self.n_items, dtype=np.int32)  # years that stand behind titles, 0: none
        for row, name in enumerate(self.names):
            year = _YEAR.search(name)
            bare = name[: year.start()] if year else name
            self.years[row] = int(year[1]) if year else 0
            forms = [bare]
            if last := _ARTICLE_LAST.match(bare):
                forms.append(f"{last[2]} {last[1]}")
            core = forms[-1].split(" ", 1)
            if core[0].lower() in ("the", "a", "an") and len(core) == 2 and len(core[1]) > 3:
                forms.append(core[1])
            aliases += forms
            owners += [row] * len(forms)
            pieces = _PARTS.split(bare)
            if len(pieces) > 1:
                for piece in (pieces[0], pieces[-1]):
                    told = [word for word in words(piece) if word not in ORDINARY]
                    if len(told) > 1 or (piece == pieces[0] and len("".join(told)) > 5):
                        parts.setdefault(piece, []).append(row)
        for piece, rows in parts.items():
            if len(rows) == 1:  # a part that several share says which of them nobody meant
                aliases.append(piece)
                owners.append(rows[0])
        self.titles, self.title_of = NameIndex(aliases), owners

    # -- what a language model is told

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        told: list[Column] = []
        shown = {"value": "text", "list": "list", "number": "number", "flag": "flag", "text": "text", "date": "text"}
        for facet in self.facets:
            kind = cast(Literal["text", "number", "flag", "list"], shown[facet.kind])
            low, high = facet.bounds if facet.kind == "number" else (None, None)
            sizes = np.empty(0, np.int64) if facet.starts is None else np.diff(facet.starts)
            order = np.argsort(-sizes, kind="stable")[:TOLD].tolist()
            told.append(
                Column(name=facet.name, kind=kind, values=tuple(facet.values[v] for v in order), low=low, high=high)
            )
        return tuple(told)

    # -- which items

    def holds(self, facet: Facet, value: int) -> Flags:
        """Which items have a value [I]."""
        flags = np.zeros(self.n_items, dtype=np.bool_)
        assert facet.starts is not None and facet.rows is not None
        flags[facet.rows[facet.starts[value] : facet.starts[value + 1]]] = True
        return flags

    def count(self, facet: Facet, value: int) -> int:
        assert facet.starts is not None
        return int(facet.starts[value + 1] - facet.starts[value])

    @cached_property
    def _postings(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Words of all texts (hashes, rising), where their items begin, and the items."""
        parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
        for texts in self._texts:
            offsets, hashes = word_hashes(texts)
            parts.append((hashes, np.repeat(np.arange(len(texts)), np.diff(offsets))))
        if not parts:
            return np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, np.int64)
        hashes, rows = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.lexsort((rows, hashes))
        hashes, rows = hashes[order], rows[order]
        fresh = np.ones(len(rows), dtype=np.bool_)
        fresh[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
        hashes, rows = hashes[fresh], rows[fresh]
        found, starts = np.unique(hashes, return_index=True)
        return found, np.append(starts, len(rows)), rows

    @property
    def wordy(self) -> Sequence[Facet]:
        """Columns of longer texts."""
        return self._wordy

    def with_word(self, word: str) -> NDArray[np.int64]:
        """Rows whose texts have a word, one that stands there as it is."""
        found, starts, rows = self._postings
        _, hashes = word_hashes([word])  # compiled code: its first call takes a while
        if len(hashes) != 1 or not len(found):
            return np.empty(0, np.int64)
        place = int(np.searchsorted(found, hashes[0]))
        if place == len(found) or found[place] != hashes[0]:
            return np.empty(0, np.int64)
        return rows[starts[place] : starts[place + 1]]


def _title_of(catalogue: pl.DataFrame) -> str:
    for name in TITLES:
        if name in catalogue.columns and catalogue[name].dtype == pl.String:
            return name
    for name in catalogue.columns:
        if catalogue[name].dtype == pl.String and name != "item":
            known = catalogue[name].drop_nulls()
            if len(known) and known.n_unique() > 0.9 * len(known) and cast(float, known.str.len_chars().mean()) < 80:
                return name
    return "item" if "item" in catalogue.columns else catalogue.columns[0]


def _facet(values: pl.Series, declared: Kind | None) -> Facet | None:
    """A column as it can be asked for; None where it cannot, as a vector or a picture."""
    name, dtype = values.name, values.dtype
    kind = declared or infer_kind(values)
    if "\\" in name or kind in ("vector", "image") or not len(values.drop_nulls()):
        return None
    if dtype == pl.Boolean:
        return Facet(name, "flag", numbers=values.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    if dtype in (pl.Date, pl.Datetime):
        years = values.dt.year().cast(pl.Float64) + (values.dt.ordinal_day().cast(pl.Float64) - 1) / 366
        return Facet(name, "date", numbers=years.fill_null(float("nan")).to_numpy())
    if dtype.is_numeric():
        return Facet(name, "number", numbers=values.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    if isinstance(dtype, pl.List | pl.Array):
        if dtype.inner not in (pl.String, pl.Categorical, pl.Enum):  # type: ignore[union-attr]
            return None
        listed = values.arr.to_list() if isinstance(dtype, pl.Array) else values
        sizes = listed.list.len().fill_null(0).to_numpy()
        rows = np.repeat(np.arange(len(values)), sizes)
        return _valued(
            name, "list", listed.explode(empty_as_null=False, keep_nulls=False), rows, not values.null_count()
        )
    if dtype in (pl.Categorical, pl.Enum) or kind == "category":
        return _valued(name, "value", values, np.arange(len(values)), not values.null_count())
    return Facet(name, "text") if dtype == pl.String else None


def _valued(
    name: str, kind: Literal["value", "list"], values: pl.Series, rows: NDArray[np.int64], complete: bool
) -> Facet | None:
    """Items by value. Values that no predicate can name (with a backslash) are left out."""
    texts = values.cast(pl.String)
    usable = (texts.is_not_null() & ~texts.str.contains("\\", literal=True).fill_null(True)).to_numpy()
    texts, rows = texts.filter(pl.Series(usable)), rows[usable]
    if not len(texts):
        return None
    known = texts.unique().sort()
    codes = (
        pl.DataFrame({"v": texts})
        .join(pl.DataFrame({"v": known, "n": np.arange(len(known))}), on="v", how="left", maintain_order="left")["n"]
        .to_numpy()
    )
    order = np.lexsort((rows, codes))
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(known)))])
    return Facet(name, kind, tuple(known.to_list()), starts, rows[order], complete=complete)
