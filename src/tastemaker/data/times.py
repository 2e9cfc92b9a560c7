"""Timestamps in any usual form to whole microseconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import polars as pl

from tastemaker.types import DataError, TimeUnit

SCALES = {
    "s": ("seconds", 1_000_000.0),
    "ms": ("milliseconds", 1_000.0),
    "us": ("microseconds", 1.0),
    "ns": ("nanoseconds", 1e-3),
}
# Largest size of a number that is read in each unit: 1e8 s is March 1973, 1e11 s the year 5138, and so on.
MAGNITUDES = ((1e8, "step"), (1e11, "s"), (1e14, "ms"), (1e17, "us"), (float("inf"), "ns"))
ISO = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m", "%Y%m%d", "%Y%m%d %H%M%S")
WRITTEN = (
    "%m %d, %Y",  # 09 13, 2009
    "%b %d, %Y",
    "%B %d, %Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y",
)
SLASHED = (("%d/%m/%Y", "%m/%d/%Y"), ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"), ("%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"))
# A zone after a time of day: Z, UTC, GMT, +02, +0200, +02:00; in "Mon Apr 05 10:11:12 +0000 2010" the year follows.
ZONE = r"(?i)(\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)(\s+\d{4})?$"


@dataclass(frozen=True)
class Times:
    """Times of rows [N], missing where a row's text is none; their unit, and in words how they were read."""

    values: pl.Series
    unit: TimeUnit
    form: str


def to_times(values: pl.Series, form: str | None = None) -> Times:
    """Read a column of times.

    Whole or fractional numbers count from 1970 in the unit that their size suggests (seconds, milliseconds,
    microseconds, nanoseconds); numbers too small for a clock are steps of an order; numbers such as 20140407 are
    dates. Text may be ISO 8601 (without a zone it is UTC) or one of the usual written forms. `form` overrides the
    guess: "s", "ms", "us", "ns", "step", or a pattern of strptime.

    Raises DataError where days and months cannot be told apart, or where the column cannot hold times at all.
    """
    values = values.rename("time")
    if isinstance(values.dtype, pl.Datetime):
        zone = values.dtype.time_zone
        return Times(
            values.dt.cast_time_unit("us").to_physical(), "us", f"dates and times{f' of {zone}' if zone else ''}"
        )
    if values.dtype == pl.Date:
        return Times(values.cast(pl.Datetime("us")).to_physical(), "us", "dates, at midnight UTC")
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if form is not None and "%" in form:
        return Times(_strptime(values.cast(pl.String).str.strip_chars(), form), "us", f"text of the form {form}")
    if form is not None and form not in (*SCALES, "step"):
        known = ", ".join([*SCALES, "step"])
        raise DataError(f"a time format is one of {known}, or a pattern such as '%d/%m/%Y', got {form!r}")
    if values.dtype == pl.String:
        return _from_text(values.str.strip_chars(), form)
    if values.dtype == pl.Null:
        return Times(values.cast(pl.Int64), "us", "no times")
    if not values.dtype.is_numeric():
        raise DataError(f"times cannot be read from a column of {values.dtype}")
    return _from_numbers(values, form)


def looks_like_time(sample: pl.Series) -> bool:
    """Whether every value of a sample is a point in time by a clock."""
    if len(sample) == 0 or isinstance(sample.dtype, pl.List | pl.Struct | pl.Array):
        return False
    if sample.dtype.is_temporal():
        return sample.dtype in (pl.Date, pl.Datetime)
    try:
        read = to_times(sample)
    except DataError:
        return False
    return read.unit == "us" and read.values.null_count() == 0


def _from_numbers(values: pl.Series, form: str | None) -> Times:
    exact = values.dtype.is_integer()
    if exact:
        values = values.cast(pl.Int64, strict=False)
    else:
        values = values.cast(pl.Float64)
        values = pl.select(pl.when(values.is_finite()).then(values)).to_series()
    low, high = cast(Any, values.min()), cast(Any, values.max())
    if low is None:
        return Times(values.cast(pl.Int64), "us", "no times")
    if form is None:
        if (written := _digits_of_dates(values, low, high)) is not None:
            return written
        form, least = _unit(low), 0.0
        if form != _unit(high) or low < 0:  # some times are slips, or stand for missing ones: most are right
            form = _unit(values.abs().median())
            least = {unit: most for (most, _), (_, unit) in pairwise(MAGNITUDES)}.get(form, 0.0)
        most = next(most for most, unit in MAGNITUDES if unit == form)
    else:
        least, most = 0.0, 2.0**63 / SCALES.get(form, ("", 1.0))[1]
    if not (least <= low and -low < most and high < most):
        values = pl.select(pl.when((values.abs() >= least) & (values.abs() < most)).then(values)).to_series()
    if form == "step":
        whole = values if exact else pl.select(pl.when(values == values.floor()).then(values)).to_series()
        return Times(whole.cast(pl.Int64, strict=False).rename("time"), "step", "steps of an order")
    name, scale = SCALES[form]
    if exact:
        scaled = values * int(scale) if scale >= 1 else values // 1000
    else:
        scaled = (values * scale).round().cast(pl.Int64, strict=False)
    return Times(scaled.rename("time"), "us", f"{name} since 1970")


def _unit(size: Any) -> str:
    return next(unit for most, unit in MAGNITUDES if float(size) < most)


def _digits_of_dates(values: pl.Series, low: Any, high: Any) -> Times | None:
    """Numbers written as 20140407 or 20140407105109, if they are that."""
    for pattern, first, last in (("%Y%m%d", 19000101, 21001231), ("%Y%m%d%H%M%S", 19000101000000, 21001231235959)):
        if first <= low and high <= last:
            read = _strptime(values.cast(pl.Int64).cast(pl.String), pattern)
            if read.null_count() == values.null_count():
                return Times(read, "us", f"numbers of the form {pattern}")
    return None


def _from_text(values: pl.Series, form: str | None) -> Times:
    """Text that holds numbers, or times in words; the reading that most rows allow."""
    present = len(values) - values.null_count()
    whole = values.cast(pl.Int64, strict=False)
    if whole.null_count() == values.null_count():
        return _from_numbers(whole, form)
    mixed = values.cast(pl.Float64, strict=False)
    if form is not None or 2 * (len(mixed) - mixed.null_count()) >= present:
        return _from_numbers(mixed if whole.null_count() > mixed.null_count() else whole, form)
    return _from_words(values)


def _from_words(values: pl.Series) -> Times:
    frame = pl.DataFrame({"text": values}).with_columns(
        pl.col("text").str.extract(ZONE, 2).str.to_uppercase().alias("zone"),
        pl.col("text").str.replace(ZONE, "${1}${3}").str.replace(r"^(\d{4}.*\d)T(\d)", "${1} ${2}").alias("local"),
    )
    local = frame["local"]
    if local.str.contains(r"^\d{4}/").any():
        local = local.str.replace(r"^(\d{4})/(\d\d?)/", "${1}-${2}-")
    read = pl.Series("time", [None], dtype=pl.Int64).new_from_index(0, len(values))
    forms = []
    for pattern in (*ISO, *WRITTEN):
        read, more = _filled(read, local, pattern)
        forms += [pattern] if more else []
        if read.null_count() == values.null_count():
            break
    else:
        for day_first, month_first in SLASHED:
            read, used = _slashed(read, local, day_first, month_first)
            forms += [used] if used else []
    hours, minutes = (frame["zone"].str.extract(r"([+-]\d\d):?(\d\d)?", part) for part in (1, 2))
    ahead = pl.select(
        hours.cast(pl.Int64).fill_null(0) * 60
        + minutes.cast(pl.Int64).fill_null(0) * pl.when(hours.str.starts_with("-")).then(-1).otherwise(1)
    ).to_series()
    read = (read - ahead * 60_000_000).rename("time")
    zoned = frame["zone"].is_not_null().any()
    return Times(read, "us", f"text of the form {' or '.join(forms)}{'' if zoned else ', read as UTC'}")


def _filled(read: pl.Series, text: pl.Series, pattern: str) -> tuple[pl.Series, bool]:
    """Rows still without a time, read by one more pattern; and whether that gave any."""
    open_ = read.is_null() & text.is_not_null()
    more = _strptime(text.filter(open_), pattern) if not open_.all() else _strptime(text, pattern)
    if more.null_count() == len(more):
        return read, False
    if len(more) == len(read):
        return more, True
    return read.scatter(open_.arg_true(), more), True


def _slashed(read: pl.Series, text: pl.Series, day_first: str, month_first: str) -> tuple[pl.Series, str | None]:
    """Dates with slashes: days and months change places between countries, so a column must settle it."""
    open_ = read.is_null() & text.is_not_null()
    rows = text.filter(open_)
    days, months = _strptime(rows, day_first), _strptime(rows, month_first)
    if days.null_count() == months.null_count() and not days.equals(months):
        example = rows.filter((days != months).fill_null(False)).head(1)
        if len(example):
            raise DataError(
                f"times such as {example[0]!r} may mean day/month or month/day",
                hint=f"say which: time_format={day_first!r} or time_format={month_first!r}",
            )
    best, pattern = (days, day_first) if days.null_count() <= months.null_count() else (months, month_first)
    if best.null_count() == len(best):
        return read, None
    return read.scatter(open_.arg_true(), best), pattern


def _strptime(text: pl.Series, pattern: str) -> pl.Series:
    read = text.str.to_datetime(pattern, time_unit="us", strict=False, exact=True)
    return read.dt.convert_time_zone("UTC").to_physical() if "%z" in pattern else read.to_physical()
