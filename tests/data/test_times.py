"""Timestamps in any usual form mean the same moment."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.times import looks_like_time, to_times
from tastemaker.types import DataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(year: int, month: int = 1, day: int = 1, *clock: int) -> int:
    return (datetime(year, month, day, *clock, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def series(*values: Any, dtype: Any = None) -> pl.Series:
    return pl.Series("t", list(values), dtype=dtype)


@pytest.mark.parametrize(
    ("given_", "moment"),
    [
        (1_396_867_869, us(2014, 4, 7, 10, 51, 9)),
        (1_396_867_869.277, us(2014, 4, 7, 10, 51, 9, 277_000)),
        (1_396_867_869_277, us(2014, 4, 7, 10, 51, 9, 277_000)),
        (1_396_867_869_277_001, us(2014, 4, 7, 10, 51, 9, 277_001)),
        (1_396_867_869_277_001_999, us(2014, 4, 7, 10, 51, 9, 277_001)),
        ("1396867869", us(2014, 4, 7, 10, 51, 9)),
        ("1396867869.5", us(2014, 4, 7, 10, 51, 9, 500_000)),
        (20140407, us(2014, 4, 7)),
        ("20140407", us(2014, 4, 7)),
        (20140407105109, us(2014, 4, 7, 10, 51, 9)),
        ("2014-04-07", us(2014, 4, 7)),
        ("2014/4/7", us(2014, 4, 7)),
        ("2014-04-07T10:51:09.277Z", us(2014, 4, 7, 10, 51, 9, 277_000)),
        ("2014-04-07 10:51:09", us(2014, 4, 7, 10, 51, 9)),
        ("2014-04-07T10:51", us(2014, 4, 7, 10, 51)),
        ("2014-04-07T12:51:09+02:00", us(2014, 4, 7, 10, 51, 9)),
        ("2014-04-07 07:21:09 -0330", us(2014, 4, 7, 10, 51, 9)),
        ("2014-04-07T12:51:09+02", us(2014, 4, 7, 10, 51, 9)),
        ("2014-04-07 10:51:09 UTC", us(2014, 4, 7, 10, 51, 9)),
        ("20140407T105109", us(2014, 4, 7, 10, 51, 9)),
        ("  2014-04-07  ", us(2014, 4, 7)),
        ("04 7, 2014", us(2014, 4, 7)),
        ("Apr 7, 2014", us(2014, 4, 7)),
        ("07-Apr-2014", us(2014, 4, 7)),
        ("7 April 2014", us(2014, 4, 7)),
        ("27/04/2014", us(2014, 4, 27)),
        ("04/27/2014 10:51", us(2014, 4, 27, 10, 51)),
        ("27.04.2014", us(2014, 4, 27)),
        ("Mon Apr 07 12:51:09 +0200 2014", us(2014, 4, 7, 10, 51, 9)),
        ("Mon, 07 Apr 2014 10:51:09 GMT", us(2014, 4, 7, 10, 51, 9)),
        (datetime(2014, 4, 7, 10, 51, 9), us(2014, 4, 7, 10, 51, 9)),
        (datetime(2014, 4, 7, 12, 51, 9, tzinfo=timezone(timedelta(hours=2))), us(2014, 4, 7, 10, 51, 9)),
        (date(2014, 4, 7), us(2014, 4, 7)),
    ],
)
def test_one_moment_in_many_forms(given_: Any, moment: int) -> None:
    read = to_times(series(given_, None, given_))
    assert read.values.to_list() == [moment, None, moment]
    assert read.unit == "us" and read.values.dtype == pl.Int64
    assert looks_like_time(series(given_))


def test_forms_may_differ_from_row_to_row() -> None:
    read = to_times(series("2014-04-07", "2014-04-07T10:51:09+02:00", "2014-04-07 10:51", "soon", None))
    assert read.values.to_list() == [us(2014, 4, 7), us(2014, 4, 7, 8, 51, 9), us(2014, 4, 7, 10, 51), None, None]
    mixed = to_times(series("1396867869", "1396867869.5", "x"))
    assert mixed.values.to_list() == [us(2014, 4, 7, 10, 51, 9), us(2014, 4, 7, 10, 51, 9, 500_000), None]


def test_an_order_without_a_clock() -> None:
    assert to_times(series(0, 1, 2)).unit == "step"
    assert to_times(series("3", "1")).values.to_list() == [3, 1]
    assert to_times(series(1.0, 2.5)).values.to_list() == [1, None]
    assert not looks_like_time(series(1, 2, 3)) and not looks_like_time(series("a")) and not looks_like_time(series())


def test_a_time_of_another_size_is_none() -> None:
    good = [1_396_867_869 + n for n in range(5)]
    for odd in (0, -1, 1_396_867_869_000, 17):
        read = to_times(series(*good, odd))
        assert read.values.to_list() == [t * 1_000_000 for t in good] + [None]


def test_the_unit_can_be_said() -> None:
    assert to_times(series(0, 5), "s").values.to_list() == [0, 5_000_000]
    assert to_times(series("7", "1396867869"), "step").values.to_list() == [7, 1396867869]
    assert to_times(series("1.5"), "ms").values.to_list() == [1500]
    assert to_times(series("2014 07 04"), "%Y %d %m").values.to_list() == [us(2014, 4, 7)]
    assert to_times(series("07.04.2014 01:00 +0100"), "%d.%m.%Y %H:%M %z").values.to_list() == [us(2014, 4, 7)]
    assert to_times(series(2**62), "s").values.to_list() == [None]  # beyond what microseconds can count
    with pytest.raises(DataError, match="a time format is one of"):
        to_times(series(1), "seconds")


def test_days_and_months_are_not_guessed() -> None:
    with pytest.raises(DataError, match="may mean day/month or month/day"):
        to_times(series("03/04/2015", "01/02/2015"))
    assert to_times(series("03/04/2015", "13/04/2015")).values[0] == us(2015, 4, 3)
    assert to_times(series("03/04/2015", "04/13/2015")).values[0] == us(2015, 3, 4)
    assert to_times(series("03/04/2015"), "%m/%d/%Y").values[0] == us(2015, 3, 4)


def test_columns_that_hold_no_times() -> None:
    for values in (series(True), series([1]), series(timedelta(1))):
        with pytest.raises(DataError, match="cannot be read"):
            to_times(values)
    assert to_times(series(None, None)).values.to_list() == [None, None]
    assert to_times(series(float("nan"), dtype=pl.Float64)).values.to_list() == [None]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1)), min_size=1, max_size=8), st.data())
def test_numbers_text_and_datetimes_agree(moments: list[datetime], data: st.DataObject) -> None:
    moments = [moment.replace(microsecond=0) for moment in moments]
    wanted = [(moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1) for moment in moments]
    zone = timezone(timedelta(minutes=data.draw(st.integers(-14 * 60, 14 * 60))))
    forms = [
        series(*moments),
        series(*(w // 1_000_000 for w in wanted)),
        series(*(w // 1_000 for w in wanted)),
        series(*(str(w) for w in wanted)),
        series(*(moment.isoformat() for moment in moments)),
        series(*(moment.replace(tzinfo=UTC).astimezone(zone).isoformat() for moment in moments)),
    ]
    for form in forms:
        assert to_times(form).values.to_list() == wanted
