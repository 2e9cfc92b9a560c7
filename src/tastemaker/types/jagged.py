"""Ragged data without padding: values end to end, and where each row starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tastemaker.types.errors import UsageError

Ints = NDArray[np.integer[Any]]


class Columns(Mapping[str, NDArray[Any]]):
    """A small immutable table: named arrays that share their first dimension.

    Shapes:
        each column: [N, ...]
    """

    __slots__ = ("_arrays", "_size")

    def __init__(self, arrays: Mapping[str, Any] | None = None, *, size: int | None = None, **more: Any) -> None:
        self._arrays: dict[str, NDArray[Any]] = {k: np.asarray(v) for k, v in {**(arrays or {}), **more}.items()}
        sizes = {name: len(a) if a.ndim else -1 for name, a in self._arrays.items()}
        if len(set(sizes.values())) > 1 or -1 in sizes.values():
            raise UsageError(f"columns must share their first dimension, got lengths {sizes}")
        self._size = next(iter(sizes.values()), 0 if size is None else size)
        if size is not None and size != self._size:
            raise UsageError(f"columns have {self._size} rows, expected {size}")

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {sorted(self._arrays)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        """The number of columns, as of any mapping; `n_rows` counts the rows."""
        return len(self._arrays)

    @property
    def n_rows(self) -> int:
        return self._size

    def take(self, rows: Ints | slice) -> Columns:
        picked = {name: a[rows] for name, a in self._arrays.items()}
        return Columns(picked, size=None if picked else len(np.arange(self._size)[rows]))

    def with_columns(self, **more: Any) -> Columns:
        return Columns({**self._arrays, **more}, size=self._size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Columns) or self._size != other._size or set(self) != set(other):
            return NotImplemented if not isinstance(other, Columns) else False
        return all(np.array_equal(a, other[name]) for name, a in self._arrays.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inner = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in self._arrays.items())
        return f"Columns({inner})"


V = TypeVar("V", bound="NDArray[Any] | Columns")


def _n_rows(values: NDArray[Any] | Columns) -> int:
    return values.n_rows if isinstance(values, Columns) else len(values)


@dataclass(frozen=True, eq=False)
class Jagged(Generic[V]):
    """B rows of different lengths.

    Shapes:
        values: [N, ...], or Columns of N rows
        offsets: [B + 1] int64, from 0 to N, never falling; row b is values[offsets[b]:offsets[b + 1]]
    """

    values: V
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Columns):
            object.__setattr__(self, "values", np.asarray(self.values))
        offsets = np.ascontiguousarray(self.offsets, dtype=np.int64)
        object.__setattr__(self, "offsets", offsets)
        n = _n_rows(self.values)
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n:
            raise UsageError(f"offsets must run from 0 to {n} (the number of values), got {offsets!r}")
        if (np.diff(offsets) < 0).any():
            raise UsageError(f"offsets must never fall, got {offsets!r}")

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[Any]], dtype: Any = None) -> Jagged[NDArray[Any]]:
        lists = [np.asarray(row, dtype=dtype) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists], dtype=np.int64)])
        empty = np.empty(0, dtype=np.int32 if dtype is None else dtype)
        filled = [row for row in lists if len(row)]
        return Jagged(np.concatenate(filled) if filled else empty, offsets)

    @classmethod
    def from_rows(cls, rows: Ints, values: V, n: int) -> Jagged[V]:
        """Group `values` by their row number `rows` [N], keeping the order inside each row."""
        rows = np.asarray(rows)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n), dtype=np.int64)])
        if len(rows) > 1 and (np.diff(rows) < 0).any():
            order = np.argsort(rows, kind="stable")
            values = cast(V, values.take(order) if isinstance(values, Columns) else values[order])
        return Jagged(values, offsets)

    @classmethod
    def empty(cls, n: int, dtype: Any = np.int32) -> Jagged[NDArray[Any]]:
        return Jagged(np.empty(0, dtype=dtype), np.zeros(n + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of each row [B]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row number of each value [N]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def __getitem__(self, row: int) -> V:
        row = range(len(self))[row]
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return cast(V, self.values.take(part) if isinstance(self.values, Columns) else self.values[part])

    def __iter__(self) -> Iterator[V]:
        return (self[row] for row in range(len(self)))

    def column(self, name: str) -> Jagged[NDArray[Any]]:
        """One column of a jagged table, sharing memory with it."""
        if not isinstance(self.values, Columns):
            raise UsageError(f"these rows have no columns, so there is no column {name!r}")
        return Jagged(self.values[name], self.offsets)

    def _gather(self, index: NDArray[np.int64], lengths: NDArray[np.int64]) -> Jagged[V]:
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        values = self.values.take(index) if isinstance(self.values, Columns) else self.values[index]
        return Jagged(cast(V, values), offsets)

    def take(self, rows: Ints | slice) -> Jagged[V]:
        """The named rows, in the named order (repeats allowed)."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            stop = max(start, stop)
            part = slice(int(self.offsets[start]), int(self.offsets[stop]))
            values = self.values.take(part) if isinstance(self.values, Columns) else self.values[part]
            return Jagged(cast(V, values), self.offsets[start : stop + 1] - self.offsets[start])
        rows = np.arange(len(self))[rows]
        lengths = self.lengths[rows]
        starts = np.repeat(self.offsets[:-1][rows], lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._gather(starts + within, lengths)

    def last(self, n: int) -> Jagged[V]:
        """At most the last `n` values of each row."""
        lengths = np.minimum(self.lengths, n)
        starts = np.repeat(self.offsets[1:] - lengths, lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return self._gather(starts + within, lengths)

    def where(self, keep: NDArray[np.bool_]) -> Jagged[V]:
        """Only the values for which `keep` [N] holds; every row stays, perhaps empty."""
        index = np.flatnonzero(keep)
        return self._gather(index, np.bincount(self.rows[index], minlength=len(self)))

    def padded(self, length: int | None = None, *, fill: Any = -1) -> NDArray[Any]:
        """A dense copy [B, length, ...], cut or filled on the right."""
        if isinstance(self.values, Columns):
            raise UsageError("pad one column at a time: .column(name).padded(...)")
        width = int(self.lengths.max(initial=0)) if length is None else length
        out = np.full((len(self), width, *self.values.shape[1:]), fill, dtype=self.values.dtype)
        within = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        keep = within < width
        out[self.rows[keep], within[keep]] = self.values[keep]
        return out

    def to_lists(self) -> list[list[Any]]:
        if isinstance(self.values, Columns):
            raise UsageError("list one column at a time: .column(name).to_lists()")
        return [row.tolist() for row in cast("Jagged[NDArray[Any]]", self)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Jagged):
            return NotImplemented
        same = type(self.values) is type(other.values) and np.array_equal(self.offsets, other.offsets)
        if not same:
            return False
        if isinstance(self.values, Columns):
            return bool(self.values == other.values)
        return bool(np.array_equal(self.values, other.values))

    __hash__ = None  # type: ignore[assignment]


def concat(parts: Sequence[Jagged[V]]) -> Jagged[V]:
    """The rows of all parts, one after the other."""
    each: list[Any] = [part.values for part in parts]
    if isinstance(each[0], Columns):
        columns = {name: np.concatenate([values[name] for values in each]) for name in each[0]}
        values: Any = Columns(columns, size=None if columns else sum(v.n_rows for v in each))
    else:
        values = np.concatenate(each)
    shifts = np.cumsum([0, *(int(part.offsets[-1]) for part in parts[:-1])])
    tails = [part.offsets[1:] + shift for part, shift in zip(parts, shifts, strict=True)]
    return Jagged(values, np.concatenate([np.zeros(1, dtype=np.int64), *tails]))


def joined(left: Jagged[NDArray[Any]], right: Jagged[NDArray[Any]]) -> Jagged[NDArray[Any]]:
    """Rows end to end: each row of `left`, then that of `right`."""
    offsets = left.offsets + right.offsets
    values = np.empty(offsets[-1], dtype=np.result_type(left.values, right.values))
    values[np.arange(len(left.values)) + np.repeat(right.offsets[:-1], left.lengths)] = left.values
    values[np.arange(len(right.values)) + np.repeat(left.offsets[1:], right.lengths)] = right.values
    return Jagged(values, offsets)
