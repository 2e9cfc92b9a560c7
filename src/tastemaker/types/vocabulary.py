"""The only place where outside ids (whole numbers or strings) meet inside numbers (dense, 0-based)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types.errors import DataError, NotFound, Problem, nearest

UNKNOWN = -1
"""The number of an id that a vocabulary does not hold. It is no padding id: no table has a row for it."""


class Vocabulary:
    """An ordered set of outside ids; the position of an id is its number. Vocabularies only grow.

    Args:
        ids: distinct ids, all whole numbers or all strings, in the order of their numbers.
        of: what the ids name ("user", "item"), for messages.
    """

    def __init__(self, ids: pl.Series | Iterable[int] | Iterable[str], *, of: str = "id") -> None:
        series = ids if isinstance(ids, pl.Series) else pl.Series(of, list(ids), strict=True)
        if len(series) == 0 and series.dtype == pl.Null:
            series = series.cast(pl.String)
        if series.dtype.is_integer():
            series = series.cast(pl.Int64)
        elif series.dtype != pl.String:
            raise DataError(f"ids of {of}s must be whole numbers or strings, got {series.dtype}")
        if series.null_count():
            raise DataError(f"ids of {of}s must not be missing, got {series.null_count():,} missing")
        if series.n_unique() != len(series):
            twice = series.filter(series.is_duplicated()).unique(maintain_order=True)
            shown = [Problem("the same id twice", column=of, value=str(v)) for v in twice.head(5)]
            raise DataError(f"ids of {of}s must be distinct", shown, total=len(twice))
        self.of = of
        self.series = series.rename(of).rechunk()

    def __len__(self) -> int:
        return len(self.series)

    def __contains__(self, outside: object) -> bool:
        return outside in self._numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.series.equals(other.series)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({len(self):,} {self.of} ids, {self.series.dtype})"

    @property
    def is_text(self) -> bool:
        return bool(self.series.dtype == pl.String)

    @cached_property
    def _numbers(self) -> dict[Any, int]:
        return dict(zip(self.series.to_list(), range(len(self)), strict=True))

    def _cast(self, outside: pl.Series) -> pl.Series:
        """Ids in this vocabulary's own type; what cannot be one becomes missing, hence unknown."""
        if outside.dtype == self.series.dtype:
            return outside
        if self.is_text:
            return outside.cast(pl.String)
        if outside.dtype == pl.String:
            return outside.str.to_integer(strict=False)
        if outside.dtype.is_float():
            return pl.select(pl.when(outside == outside.floor()).then(outside)).to_series().cast(pl.Int64, strict=False)
        return outside.cast(pl.Int64, strict=False)

    def numbers(self, outside: pl.Series | Iterable[Any]) -> NDArray[np.int32]:
        """Numbers of ids [N]; `UNKNOWN` (-1) where an id is not here."""
        if not isinstance(outside, pl.Series):
            rows = list(outside)
            if len(rows) <= 4096:  # a request: no series, no join
                own = _text if self.is_text else _whole
                return np.fromiter((self._numbers.get(own(o), UNKNOWN) for o in rows), np.int32, len(rows))
            outside = pl.Series(self.of, rows, strict=False)
        left = pl.DataFrame({"id": self._cast(outside)})
        right = pl.DataFrame({"id": self.series, "number": np.arange(len(self), dtype=np.int32)})
        joined = left.join(right, on="id", how="left", maintain_order="left")
        return joined["number"].fill_null(UNKNOWN).to_numpy().astype(np.int32, copy=False)

    def number(self, outside: Any) -> int:
        """The number of one id, or an error that names the nearest ids."""
        found = int(self.numbers([outside])[0])
        if found == UNKNOWN:
            raise NotFound(f"no {self.of} has the id {outside!r}", hint=self.like(outside))
        return found

    def like(self, outside: Any) -> str:
        """A hint for an id that is not here: the nearest among the first few thousand."""
        return nearest(str(outside), map(str, self.series.head(5000)))

    def ids(self, numbers: NDArray[np.integer[Any]] | Iterable[int]) -> pl.Series:
        """Ids of numbers [N]; missing (null) where a number is -1."""
        index = np.asarray(numbers if isinstance(numbers, np.ndarray) else list(numbers), dtype=np.int64)
        if len(index) and (index.min() < UNKNOWN or index.max() >= len(self)):
            raise NotFound(f"{self.of} numbers run from 0 to {len(self) - 1}, got {index.min()} to {index.max()}")
        picks = pl.Series(index, dtype=pl.Int64)
        return self.series.gather(picks.set(picks == UNKNOWN, None))

    def extend(self, outside: pl.Series | Iterable[Any]) -> Vocabulary:
        """This vocabulary with the ids it lacks appended; the numbers of old ids stay."""
        more = outside if isinstance(outside, pl.Series) else pl.Series(self.of, list(outside), strict=False)
        more = self._cast(more).drop_nulls().unique(maintain_order=True)
        new = more.filter(pl.Series(self.numbers(more) == UNKNOWN))
        return Vocabulary(pl.concat([self.series, new.rename(self.of)]), of=self.of) if len(new) else self


def _text(outside: Any) -> str | None:
    """An id as text; what is missing is unknown, whatever ids are called."""
    return None if outside is None else str(outside)


def _whole(outside: Any) -> int | None:
    """An id as a whole number, or None where it is none (so that 1.5 and "x" are unknown, not wrong)."""
    try:
        number = int(outside)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if not isinstance(outside, float) or outside == number else None
