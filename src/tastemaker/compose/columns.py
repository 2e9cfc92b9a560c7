"""What stages read of a catalogue, as arrays: sets of categories, groups, numbers, and how alike two items are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.beyond import HEAD_SHARE
from tastemaker.types import Columns, Jagged, NotFound, UsageError, infer_kind, nearest, to_numpy
from tastemaker.types.schema import Column

POPULARITY, HEAD, TAIL = "popularity", "head", "tail"
"""A column that need not be there: it is counted from stored histories; as groups, its values are head and tail."""

Numbers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Sets:
    """Which categories each item has.

    Shapes:
        values: [N] int32, rising within an item; offsets: [I + 1] int64, item i's are values[offsets[i]:offsets[i + 1]]
        names: of the categories, in the order of their numbers
    """

    values: Numbers
    offsets: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(cls, column: pl.Series) -> Sets:
        """From a column of categories, one or a list of them an item; a missing value is none."""
        frame = pl.DataFrame({"row": np.arange(len(column), dtype=np.int64), "value": column})
        if isinstance(column.dtype, pl.List | pl.Array):
            frame = frame.with_columns(pl.col("value").cast(pl.List(pl.String))).explode("value")
        frame = frame.with_columns(pl.col("value").cast(pl.String)).drop_nulls("value").unique(["row", "value"])
        names = frame["value"].unique().sort()
        codes = names.search_sorted(frame["value"]).to_numpy().astype(np.int32)
        rows = frame["row"].to_numpy()
        order = np.lexsort((codes, rows))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(column)), dtype=np.int64)])
        return cls(np.ascontiguousarray(codes[order]), offsets, names.to_list())

    @property
    def single(self) -> Numbers:
        """The category of each item [I] where none has more than one, -1 for none."""
        lengths = np.diff(self.offsets)
        if (lengths > 1).any():
            raise UsageError("groups need a column with one value an item, this one holds lists")
        codes = np.full(len(lengths), -1, dtype=np.int32)
        codes[lengths > 0] = self.values
        return codes


@dataclass(frozen=True, eq=False)
class Likeness:
    """How alike two items are, from 0 to 1: by the categories they share, or by the cosine of their vectors.

    Shapes:
        vectors: [I, D] float32 of length 1 or 0; D = 0 where categories decide
        sets: the categories; empty where vectors decide
    """

    vectors: NDArray[np.float32]
    sets: Sets

    @classmethod
    def by_sets(cls, sets: Sets) -> Likeness:
        return cls(np.zeros((0, 0), dtype=np.float32), sets)

    @classmethod
    def by_vectors(cls, vectors: Any) -> Likeness:
        """From vectors of any length; a negative cosine counts as 0, and so does a vector without direction."""
        rows = np.ascontiguousarray(to_numpy(vectors), dtype=np.float32)
        norms = np.sqrt(np.einsum("id,id->i", rows, rows, dtype=np.float64))
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(np.float32)
        nothing = Sets(np.empty(0, np.int32), np.zeros(len(rows) + 1, np.int64), [])
        return cls(rows * scale[:, None], nothing)

    @property
    def arrays(self) -> tuple[NDArray[np.float32], Numbers, NDArray[np.int64]]:
        """In the form the kernels read."""
        return self.vectors, self.sets.values, self.sets.offsets


@dataclass(frozen=True, eq=False)
class Shelves:
    """A catalogue's columns, found by name and checked for what they hold.

    columns: what the schema says of them; a column it does not know is judged by its values
    histories: what users chose, for popularity; None: not stored
    """

    catalogue: pl.DataFrame
    columns: Mapping[str, Column]
    histories: Jagged[Columns] | None

    def column(self, name: str) -> pl.Series:
        if name not in self.catalogue.columns:
            raise NotFound(f"the catalogue has no column {name!r}", hint=nearest(name, self.catalogue.columns))
        return self.catalogue[name]

    def kind(self, name: str) -> str:
        values = self.column(name)
        return self.columns[name].kind if name in self.columns else infer_kind(values)

    def sets(self, name: str) -> Sets:
        """The categories of a column of categories, flags or whole numbers."""
        kind, dtype = self.kind(name), self.catalogue[name].dtype
        if kind not in ("category", "categories", "flag") and not dtype.is_integer():
            raise UsageError(f"a column of categories is wanted, {name!r} holds {kind}", hint=self._those("categor"))
        return Sets.of(self.catalogue[name])

    def groups(self, name: str) -> tuple[Numbers, list[str]]:
        """The group of each item [I] (-1: none), and the groups' names."""
        if name == POPULARITY and POPULARITY not in self.catalogue.columns:
            counts = self.popularity()
            order = np.argsort(-counts, kind="stable")
            before = np.cumsum(counts[order]) - counts[order]
            tail = np.empty(len(counts), dtype=np.int32)
            tail[order] = before >= HEAD_SHARE * counts.sum()
            return tail, [HEAD, TAIL]
        sets = self.sets(name)
        return sets.single, sets.names

    def numbers(self, name: str) -> NDArray[np.float32]:
        """A column of numbers or flags [I]; NaN where a value is missing or infinite."""
        if name == POPULARITY and POPULARITY not in self.catalogue.columns:
            return np.log1p(self.popularity()).astype(np.float32)
        values = self.column(name)
        if not (values.dtype.is_numeric() or values.dtype == pl.Boolean or values.dtype.is_temporal()):
            hint = self._those("number")
            raise UsageError(f"a column of numbers or flags is wanted, {name!r} holds {self.kind(name)}", hint=hint)
        found = values.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return np.where(np.isfinite(found), found, np.nan).astype(np.float32)

    def in_stock(self, name: str) -> NDArray[np.bool_]:
        """Where a flag is true, or a number above 0 [I]."""
        return self.numbers(name) > 0

    def popularity(self) -> NDArray[np.int64]:
        """How many users chose each item [I], by the stored histories."""
        if self.histories is None:
            raise UsageError(
                "popularity is counted from stored histories, and the first system's bundle holds none",
                hint="fit it with histories, or give the catalogue a column of that name",
            )
        items = self.histories.values["item"].astype(np.int64)
        known = items >= 0
        pairs = np.unique(self.histories.rows[known] * self.catalogue.height + items[known])
        return np.bincount(pairs % max(1, self.catalogue.height), minlength=self.catalogue.height)

    def _those(self, kind: str) -> str:
        fit = [name for name in self.catalogue.columns if name != "item" and self.kind(name).startswith(kind)]
        return "such columns: " + (", ".join(fit) or "none")
