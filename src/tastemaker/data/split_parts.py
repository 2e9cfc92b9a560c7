"""Which part an event falls to: by its place in a history, its owner, its session, its time, or a column."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data.choices import TEST, TRAIN, VALID, Log
from tastemaker.data.filters import Moment, moment
from tastemaker.data.split_settings import is_share, listed, rounded_down, share_of, shares_of
from tastemaker.types import Dataset, NotFound, UsageError, nearest

MINUTE_US = 60_000_000
WORDS = {
    **dict.fromkeys(("train", "training", "base"), TRAIN),
    **dict.fromkeys(("valid", "validation", "val", "dev"), VALID),
    **dict.fromkeys(("test", "testing"), TEST),
}
"""What the values of a published split column mean."""
Cuts = tuple[int | None, int | None]
"""Times at which valid and test begin; None where there is no such part."""


def last_of(counts: NDArray[np.int64], k: int, valid: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of each owner's last are test and valid: `k` and `k`, or none where nothing would be left."""
    n_test = np.where(counts > (2 * k if valid else k), k, 0)
    return n_test, n_test if valid else np.zeros_like(n_test)


def hold_out(
    kind: str, candidates: NDArray[np.int64], size: int, share: float, valid: float, rng: np.random.Generator
) -> NDArray[np.int8]:
    """The part [size] of users or items of which some candidates are drawn for test and valid, the rest is train."""
    share_of(kind, share)
    if valid:
        share_of(kind, valid)
    n_test = max(1, int(rounded_down(len(candidates), share)))
    n_valid = max(1, int(rounded_down(len(candidates), valid))) if valid else 0
    if n_test + n_valid >= len(candidates):
        raise UsageError(f"{kind} would hold out {n_test + n_valid} of {len(candidates)} and leave none to learn from")
    drawn = rng.permutation(candidates)
    part = np.zeros(size, np.int8)
    part[drawn[:n_test]], part[drawn[n_test : n_test + n_valid]] = TEST, VALID
    return part


def sessions(
    data: Dataset, log: Log, gap: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Session of each choice [n], numbered by user, then by beginning; first and last choice of each session."""
    new = np.ones(len(log.users), np.bool_)
    same_user = log.users[1:] == log.users[:-1]
    if gap is not None:
        if data.time_unit != "us":
            raise UsageError(f"the times of {data.name} are no clock, so no gap of {gap} minutes ends a session")
        new[1:] = ~same_user | (np.diff(log.times) > gap * MINUTE_US)
        run = np.cumsum(new) - 1
    elif "session" not in data.events.columns:
        raise NotFound(f"the events of {data.name} have no column 'session'", hint="say gap=30 for minutes of silence")
    else:
        column = data.events["session"] if log.rows is None else data.events["session"].gather(log.rows)
        if column.null_count():
            raise UsageError(f"every choice needs a session, {column.null_count():,} have none", hint="or give a gap")
        session = column.to_numpy()
        new[1:] = ~same_user | (session[1:] != session[:-1])
        run = np.cumsum(new) - 1
        opens = np.flatnonzero(new)
        runs = pl.DataFrame({"user": log.users[opens], "session": session[opens], "run": np.arange(len(opens))})
        joined = runs.select(pl.col("run").first().over("user", "session")).to_series().to_numpy()
        if (joined != np.arange(len(joined))).any():  # sessions that take turns
            run = np.unique(joined, return_inverse=True)[1][run]
    size = int(run.max(initial=-1)) + 1
    first, final = np.zeros(size, np.int64), np.zeros(size, np.int64)
    final[run] = np.arange(len(run))  # of several rows of a session the last one written stays
    first[run[::-1]] = np.arange(len(run))[::-1]
    return run, first, final


def by_cuts(times: NDArray[np.int64], cuts: Cuts) -> NDArray[np.int8]:
    """Parts by time alone."""
    part = np.zeros(len(times), np.int8)
    for code, begin in zip((VALID, TEST), cuts, strict=True):
        if begin is not None:
            part[times >= begin] = code
    return part


def find_cuts(data: Dataset, log: Log, at: Any) -> Cuts:
    """The times that split a dataset, as given or found by shares."""
    values = listed(at)
    if all(map(is_share, values)) and any(values):
        valid, test = shares_of("time", at)
        before = [1 - test - valid if valid else None, 1 - test if test else None]
        places = [None if share is None else int(rounded_down(len(log.times), share)) for share in before]
        cuts = [None if p is None else int(np.partition(log.times, p)[p]) for p in places]
        return cuts[0], cuts[1]
    if not 1 <= len(values) <= 2 or any(isinstance(value, float | bool) for value in values):
        raise UsageError(f"a split by time takes one or two times, or shares below 1, got {at!r}")
    times = [moment(data, cast(Moment, value)) for value in values]
    if len(times) == 1:
        return None, times[0]
    if times[0] >= times[1]:
        raise UsageError(f"valid begins before test does, got {values[0]} and {values[1]}")
    return times[0], times[1]


def named_parts(data: Dataset, name: str, test: Any, valid: Any) -> NDArray[np.int8]:
    values = data.events[name]
    seen = values.unique().drop_nulls().to_list()
    if test is None and values.dtype != pl.Boolean:
        means = {value: WORDS.get(str(value).strip().lower()) for value in seen}
        if strange := sorted(str(value) for value, code in means.items() if code is None):
            raise UsageError(
                f"the column {name!r} names parts that are unknown: {', '.join(strange[:8])}",
                hint="say which value is test: test=VALUE",
            )
    else:
        tests = [True] if test is None else listed(test)
        valids = [] if valid is None else listed(valid)
        for value in (*tests, *valids):
            if value not in seen:
                raise NotFound(f"{value!r} is no value of {name!r}", hint=nearest(str(value), map(str, seen)))
        means = {value: TEST if value in tests else VALID if value in valids else TRAIN for value in seen}
    part = np.full(len(values), -1, np.int8)
    for value, code in means.items():
        part[(values == value).fill_null(False).to_numpy()] = cast(int, code)
    return part
