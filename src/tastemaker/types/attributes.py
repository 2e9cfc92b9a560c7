"""What can be said of items with yes or no: values of their columns, as that a film's genres hold "drama"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from tastemaker.types.arrays import State
from tastemaker.types.errors import BundleError, DataError, NotFound, nearest
from tastemaker.types.jagged import Jagged
from tastemaker.types.schema import Schema

Bits = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attributes of I items, of which there are A, in the order of columns, then values.

    columns: the columns they are values of
    names: (column, value) of each attribute, both as text
    single: columns of which an item has one value at most

    Shapes: owned: I rows of attribute numbers, rising
    """

    columns: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    single: frozenset[str]
    owned: Jagged[NDArray[np.int32]]

    @classmethod
    def of(cls, items: pl.DataFrame, columns: Sequence[str]) -> Attributes:
        """The values of these columns of a table of items, a row an item.

        Raises:
            NotFound: there is no such column.
            DataError: the columns hold no value.
        """
        names: list[tuple[str, str]] = []
        rows, numbers, single = [], [], set()
        for column in columns:
            if column not in items.columns:
                raise NotFound(f"items have no column {column!r}", hint=nearest(column, items.columns))
            values = items[column]
            listed = isinstance(values.dtype, pl.List | pl.Array)
            table = pl.DataFrame({"row": np.arange(items.height), "value": values})
            table = (table.explode("value") if listed else table).drop_nulls()
            table = table.with_columns(pl.col("value").cast(pl.String)).unique(maintain_order=True)
            known = table["value"].unique().sort()
            numbers.append(known.search_sorted(table["value"]).to_numpy().astype(np.int64) + len(names))
            rows.append(table["row"].to_numpy())
            names += [(column, value) for value in known.to_list()]
            single |= set() if listed else {column}
        if not names:
            raise DataError(f"not one attribute is told of any item by the columns {', '.join(columns) or '(none)'}")
        row, number = np.concatenate(rows), np.concatenate(numbers).astype(np.int32)
        order = np.lexsort((number, row))
        owned = Jagged.from_rows(row[order], number[order], items.height)
        return cls(tuple(columns), tuple(names), frozenset(single), owned)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_items(self) -> int:
        return len(self.owned)

    @cached_property
    def column(self) -> NDArray[np.int64]:
        """Which of the columns each attribute is a value of [A]."""
        place = {name: n for n, name in enumerate(self.columns)}
        return np.array([place[name] for name, _ in self.names], dtype=np.int64)

    @cached_property
    def number(self) -> Mapping[tuple[str, str], int]:
        """The number of each attribute by column and value."""
        return {name: n for n, name in enumerate(self.names)}

    @cached_property
    def matrix(self) -> sp.csr_array:
        """Which item has which attribute [I, A], float32."""
        ones = np.ones(len(self.owned.values), dtype=np.float32)
        return sp.csr_array((ones, self.owned.values, self.owned.offsets), shape=(self.n_items, len(self)))

    @cached_property
    def bits(self) -> Bits:
        """The items of each attribute as packed bits [A, ceil(I / 8)]."""
        return np.packbits(self.matrix.T.toarray().astype(np.bool_), axis=1)

    def of_items(self, items: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which attributes items [B] have [B, A]."""
        return np.asarray(self.matrix[items].toarray() > 0)

    def export(self) -> dict[str, NDArray[Any]]:
        """As arrays, for a bundle."""
        told = json.dumps([list(self.columns), list(map(list, self.names)), sorted(self.single)]).encode()
        return {
            "attributes.names": np.frombuffer(told, dtype=np.uint8),
            "attributes.owned": self.owned.values,
            "attributes.offsets": self.owned.offsets,
        }

    @classmethod
    def restore(cls, state: State, schema: Schema) -> Attributes:
        """From the arrays of `export`.

        Raises:
            BundleError: they are no attributes of as many items as the schema has.
        """
        try:
            columns, names, single = json.loads(state["attributes.names"].tobytes())
            owned = Jagged(state["attributes.owned"].astype(np.int32), state["attributes.offsets"])
            found = cls(tuple(columns), tuple((c, v) for c, v in names), frozenset(single), owned)
            fits = len(owned) == schema.n_items and {c for c, _ in found.names} <= set(columns)
            low, high = owned.values.min(initial=0), owned.values.max(initial=-1)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"the attributes of the items cannot be read: {error}") from error
        if not fits or low < 0 or high >= len(found):
            raise BundleError(f"the attributes do not fit a catalogue of {schema.n_items} items")
        return found


def askable(schema: Schema) -> tuple[str, ...]:
    """Columns of items of which a person can be asked: categories, each of which several items may have."""
    of_kind = {name: one for name, one in schema.items.items() if one.kind in ("categories", "category")}
    return tuple(name for name, one in of_kind.items() if one.size and 1 < one.size <= schema.n_items / 2)
