"""Columns into their types. Every value that does not fit is counted; the first few are shown with their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.numbering import NEVER, Codes, encode, first_seen
from tastemaker.data.text import SHOWN, Raw
from tastemaker.data.times import Times, to_times
from tastemaker.types import DataError, Problem

OnBad = Literal["error", "skip"]
MISSING = ("", "na", "n/a", "nan", "null", "none", "\\n", "<na>")  # what stands for a missing number, in lower case
WHOLE = r"^(0|-?[1-9]\d*)(\.0+)?$"  # a whole number as anyone would write it: "007" is a name, not the number 7
EXACT = 2.0**53  # from here on a float skips whole numbers


class Check:
    """Gathers the rows of one table that cannot be used.

    bad: [N] bool, rows with at least one problem
    total: how many problems there are
    advice: what else the reader of the error may do
    """

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.total = 0
        self.bad = np.zeros(raw.frame.height, np.bool_)
        self.counts: Counter[str] = Counter()
        self._first: list[tuple[int, str, str, str | None]] = []
        self.advice = ""
        self._one_at_a_time = Lock()  # columns are checked in threads
        rows, words = raw.faults
        self._add(rows, words, "", None)

    def mark(self, wrong: pl.Series, what: str, column: str, values: pl.Series | None = None) -> None:
        """Rows where `wrong` holds have a problem; `values` are shown with it."""
        if wrong.any():
            rows = wrong.fill_null(False).arg_true().to_numpy().astype(np.int64)
            self._add(rows, [what] * min(len(rows), SHOWN), column, values)

    def _add(self, rows: NDArray[np.int64], words: Sequence[str], column: str, values: pl.Series | None) -> None:
        if len(rows) == 0:
            return
        with self._one_at_a_time:
            self.total += len(rows)
            self.bad[rows] = True
            self.counts[f"[{column}] {words[0]}" if column else "another number of fields"] += len(rows)
            for row, what in zip(rows[:SHOWN].tolist(), words, strict=False):
                value = None if values is None else values[row]
                self._first.append((row, what, column, None if value is None else str(value)[:60]))

    def settle(self, on_bad: OnBad, *, noun: str = "rows") -> tuple[NDArray[np.bool_] | None, str]:
        """Which rows to keep (None: all) and a sentence on the others; raises where bad rows are not to be skipped."""
        if self.total == 0:
            return None, ""
        lost, n = int(np.count_nonzero(self.bad)), len(self.bad)
        counted = "; ".join(
            f"{count:,} {what}" for what, count in sorted(self.counts.items(), key=lambda c: (-c[1], c[0]))
        )
        if on_bad == "skip" and lost < n:
            return ~self.bad, f"{lost:,} of {n:,} {noun} left out: {counted}"
        shown = []
        for row, what, column, value in sorted(self._first, key=lambda found: found[::2])[:SHOWN]:
            file, line = self.raw.where(row)
            shown.append(Problem(what, file, line, column or None, value))
        raise DataError(
            f"{self.raw.file or 'the table'}: {lost:,} of {n:,} {noun} cannot be used ({counted})",
            shown,
            total=self.total,
            hint="repair them, or leave them out and count them with on_bad='skip' (--on-bad skip)" + self.advice,
        )


def ids(check: Check, values: pl.Series, column: str, *, required: bool, text: bool) -> Codes:
    """Encode a column of ids; a missing one is a problem where `required`.

    In text, ids become whole numbers when every one of them is written as one, else they stay text.
    """
    if values.dtype.is_decimal():
        values = values.cast(pl.Float64)
    if values.dtype.is_float():
        values = values.cast(pl.Float64).fill_nan(None)
        if required:
            check.mark(values.is_null(), "is missing", column)
            required = False
        check.mark(values != values.floor(), "a fractional number is no id", column, values)
        check.mark(values.abs() >= EXACT, "a float of this size is no exact id", column, values)
        whole = (values == values.floor()) & (values.abs() < EXACT)
        values = pl.select(pl.when(whole).then(values)).to_series().cast(pl.Int64)
    elif values.dtype in (pl.UInt64, pl.Int128):
        narrow = values.cast(pl.Int64, strict=False)
        values = narrow if narrow.null_count() == values.null_count() else values.cast(pl.String)
    elif not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise DataError(
            f"{check.raw.file or 'the table'}: ids are whole numbers or text, the column {column!r} is {values.dtype}"
        )
    codes = encode(values)
    if codes.ids.dtype == pl.String:
        codes = _plain_ids(codes, text)
    if required and len(codes.codes) and codes.codes.min() < 0:
        check.mark(pl.Series(codes.codes < 0), "is missing", column)
    return codes


def _plain_ids(codes: Codes, text: bool) -> Codes:
    """Ids without surrounding blanks; as whole numbers where all of them are; those that say nothing are missing."""
    given = codes.ids
    found = given.str.strip_chars() if text else given
    found = pl.select(pl.when(found.str.strip_chars() != "").then(found)).to_series()
    if text:
        nothing = found.is_null() | found.str.to_lowercase().is_in(MISSING)
        number = found.str.contains(WHOLE)
        if (number | nothing).all() and number.any():
            whole = found.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
            if (whole.is_not_null() | nothing).all():
                found = whole
    same = found.dtype == given.dtype and found.equals(given)
    return codes if same else codes.renamed(found.rename(given.name))


def numbers(check: Check, values: pl.Series, column: str, *, low: float = -np.inf, high: float = np.inf) -> pl.Series:
    """Finite numbers between `low` and `high` as Float32; what is empty, or NaN, is missing."""
    given = values
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.String, pl.Null)):
        raise DataError(f"{check.raw.file or 'the table'}: the column {column!r} holds {values.dtype}, not numbers")
    values = _parsed(check, values, column, pl.Float32())
    if values.is_finite().all():
        small, large = values.min(), values.max()
        if small is None or (small >= low and large <= high):  # type: ignore[operator]
            return values
    values = values.fill_nan(None)
    check.mark(values.is_infinite(), "is not finite", column, given)
    check.mark(
        values.is_finite() & ((values < low) | (values > high)), f"is not from {low:g} to {high:g}", column, given
    )
    return values


def whole_numbers(check: Check, values: pl.Series, column: str, dtype: pl.DataType) -> pl.Series:
    """Whole numbers of the type `dtype`; what is empty, or NaN, is missing."""
    if values.dtype.is_integer():
        read = values.cast(dtype, strict=False)
        check.mark(read.is_null() & values.is_not_null(), f"is too large for {dtype}", column, values)
        return read
    floats = _parsed(check, values, column, pl.Float64()).fill_nan(None)
    check.mark(floats != floats.floor(), "is not a whole number", column, values)
    kept = pl.select(pl.when(floats == floats.floor()).then(floats)).to_series()
    read = kept.cast(dtype, strict=False)
    if values.dtype == pl.String and dtype == pl.Int64:  # floats round what has more than 15 digits
        read = pl.select(pl.coalesce(values.cast(pl.Int64, strict=False), read)).to_series()
    check.mark(read.is_null() & kept.is_not_null(), f"is too large for {dtype}", column, values)
    return read


def _parsed(check: Check, values: pl.Series, column: str, dtype: pl.DataType) -> pl.Series:
    read = values.cast(dtype, strict=False)
    if read.null_count() == values.null_count():
        return read
    text = values.cast(pl.String).str.strip_chars()
    read = text.cast(dtype, strict=False)
    wrong = read.is_null() & text.is_not_null() & ~text.str.to_lowercase().is_in(MISSING)
    check.mark(wrong, "is not a number", column, values)
    return read


def times(check: Check, values: pl.Series, column: str, form: str | None, *, required: bool = True) -> Times:
    """Times of all rows; where `required`, a row without one is a problem."""
    try:
        read = to_times(values, form)
    except DataError as error:
        where = f"{check.raw.file or 'the table'} [{column}]"
        raise DataError(f"{where}: {error.message}", error.problems, hint=error.hint) from error
    if read.values.null_count():
        nothing = values.is_null()
        if values.dtype == pl.String:
            nothing |= values.str.strip_chars().str.to_lowercase().is_in(MISSING)
        elif values.dtype.is_float():
            nothing |= values.is_nan().fill_null(False)
        if required and nothing.any():
            check.mark(nothing, "is missing", column)
            check.advice = ", or read without times: time=False"
        check.mark(read.values.is_null() & ~nothing, f"is no time like the others ({read.form})", column, values)
    return read


def words(values: pl.Series) -> pl.Series:
    """Text; what is empty is missing."""
    text = values.cast(pl.String)
    return pl.select(pl.when(text.str.strip_chars() != "").then(text)).to_series().rename(values.name)


def labels(check: Check, values: pl.Series, column: str, stamps: pl.Series | None) -> pl.Series:
    """Sessions and slates as whole numbers: their own, or where they are text their place by first time, then name."""
    if values.dtype != pl.String and values.dtype not in (pl.Categorical, pl.Enum):
        return whole_numbers(check, values, column, pl.Int64())
    codes = ids(check, values, column, required=False, text=True)
    table = np.append(codes.ids.to_numpy() if codes.ids.dtype == pl.Int64 else _ranked(codes, stamps), 0)
    read = pl.Series(values.name, table[codes.codes].astype(np.int64))
    return read.set(pl.Series(codes.codes < 0), None)


def _ranked(codes: Codes, stamps: pl.Series | None) -> NDArray[np.int64]:
    timed = None if stamps is None else stamps.fill_null(NEVER).to_numpy()
    seen = pl.DataFrame({"id": codes.ids, "first": first_seen(codes.codes, timed, len(codes.ids))})
    order = seen.with_row_index("code").sort("first", "id")["code"].to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def guess(values: pl.Series) -> pl.Series:
    """A column of text as whole numbers, numbers or flags, where every value is one; else as it is."""
    present = values.drop_nulls()
    head = present.head(100)
    if len(head) == 0 or present.str.contains(r"^[+-]?0\d").any():  # "08540" is a name: as a number it would lose its 0
        return values
    for dtype in (pl.Int64(), pl.Float64()):
        if head.cast(dtype, strict=False).null_count():
            continue
        read = values.cast(dtype, strict=False)
        if read.null_count() == values.null_count() and (dtype == pl.Int64 or read.drop_nulls().is_finite().all()):
            return read
    flags = {"true": True, "false": False}
    if head.str.to_lowercase().is_in(list(flags)).all() and present.str.to_lowercase().is_in(list(flags)).all():
        return values.str.to_lowercase().replace_strict(flags, return_dtype=pl.Boolean)
    return values
