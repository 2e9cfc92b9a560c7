"""What viewers do: sessions, searches, lists shown, films watched and rated, simulated viewer by viewer.

A session may open with a shown list: a logging policy that knows only fame and the genre the viewer names in
public draws it place by place, and a place is looked at with a chance that falls with its position. Then the
viewer looks for films unprompted, at times by a search; the sequel of what was just watched comes first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from numba import njit, prange
from numpy.typing import NDArray

from tastemaker.data.synthetic.catalogue import DIM, START_US, Ints
from tastemaker.data.synthetic.choice import (
    STAY,
    UNSEEN_PART,
    Habits,
    Shelves,
    freshness,
    genre_shares,
    relevance,
    utility,
)
from tastemaker.data.synthetic.people import MEAN_TENURE, People, keys, normal, pick, uniform
from tastemaker.data.synthetic.texts import N_QUERIES
from tastemaker.data.synthetic.words import N_GENRES
from tastemaker.types import EVENT_COLUMNS, IMPRESSION

WATCH, SEARCH = "watch", "search"
KINDS = (WATCH, SEARCH, IMPRESSION)
MINUTE_US = 60_000_000
MOST_TRIES = 400  # films that come to mind before a viewer gives up
PER_USER = 1 << 14  # sessions, and slates, of one viewer at most: session number = viewer * PER_USER + place

MEAN_SESSION = 1 + 1 / math.expm1(1 / 1.5)
CLICKS_A_SLATE = 1.4  # roughly; only the expected number of events depends on it
SEARCH_SHAPE = (0.45, 0.6, 0.75, 0.9)  # running shares of the kinds of query


class Log(NamedTuple):
    """Rows of events, -1 or NaN where a column says nothing."""

    item: Ints
    time: NDArray[np.int64]
    kind: NDArray[np.int8]
    value: NDArray[np.float32]
    query: Ints
    session: Ints
    slate: Ints
    position: Ints
    propensity: NDArray[np.float32]


def session_rate(events_per_user: float, impressions: float) -> float:
    """Sessions a whole log, so that a viewer watches `events_per_user` films on average."""
    return events_per_user / MEAN_TENURE / (MEAN_SESSION + impressions * CLICKS_A_SLATE)


@njit(cache=True, nogil=True)
def _plan(state, habits):  # type: ignore[no-untyped-def]
    """Films looked for in the next session, and whether it opens with a shown list."""
    length = 1 + min(int(-1.5 * math.log(uniform(state))), 9)
    return length, uniform(state) < habits.impressions


@njit(cache=True, nogil=True)
def _room(plan_keys, n_sessions, habits, out):  # type: ignore[no-untyped-def]
    """How many rows each viewer can fill at most."""
    state = np.empty(1, np.uint64)
    for b in range(len(plan_keys)):
        state[0] = plan_keys[b]
        for _ in range(n_sessions[b]):
            length, shown = _plan(state, habits)
            out[b] += 2 * length + (2 * habits.slate_size if shown else 0)


@njit(cache=True, nogil=True)
def _has(items, kind, start, stop, film):  # type: ignore[no-untyped-def]
    """Whether a film was watched in the rows [start, stop)."""
    for row in range(start, stop):  # noqa: SIM110 (Numba compiles no generators)
        if items[row] == film and kind[row] == 0:
            return True
    return False


@njit(cache=True, nogil=True)
def _rate(state, logit, tone):  # type: ignore[no-untyped-def]
    stars = 2.8 + 0.55 * (logit + 1.0) + tone + 0.6 * normal(state)
    return min(max(math.floor(stars + 0.5), 1.0), 5.0)


@njit(cache=True, nogil=True, parallel=True)
def _simulate(  # type: ignore[no-untyped-def]
    people_keys, plan_keys, clock_keys, n_sessions, joined, early, late, drift, thrift, seeking, tone, favourite,
    starts, shelves, habits, log, counts,
):  # fmt: skip
    for b in prange(len(people_keys)):
        counts[b] = _live(
            people_keys[b], plan_keys[b], clock_keys[b], n_sessions[b], joined[b], early[b], late[b], drift[b],
            thrift[b], seeking[b], tone[b], favourite[b], starts[b], shelves, habits, log,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _write(log, row, item, time, kind, value, query, session, slate, position, propensity):  # type: ignore[no-untyped-def]
    log.item[row], log.time[row], log.kind[row], log.value[row] = item, time, kind, value
    log.query[row], log.session[row] = query, session
    log.slate[row], log.position[row], log.propensity[row] = slate, position, propensity


@njit(cache=True, nogil=True)
def _mass(totals, film):  # type: ignore[no-untyped-def]
    return totals[film] - (totals[film - 1] if film > 0 else 0.0)


@njit(cache=True, nogil=True)
def _draw_slate(state, policy, n_known, seen_mass, log, first, row, slate, chances):  # type: ignore[no-untyped-def]
    """Fill a list with films not watched yet, and the chance of each given those before it; the number of films."""
    left = policy[n_known - 1] - seen_mass
    for place in range(len(slate)):
        for _ in range(MOST_TRIES):
            film = pick(policy, 0, n_known, uniform(state))
            again = _has(log.item, log.kind, first, row, film)
            for other in range(place):
                again = again or slate[other] == film
            if not again:
                break
        if again:  # nearly everything was seen
            return place
        mass = _mass(policy, film)
        slate[place], chances[place] = film, mass / max(left, mass)
        left -= mass
    return len(slate)


@njit(cache=True, nogil=True)
def _come_to_mind(  # type: ignore[no-untyped-def]
    state, taste, thrift, shares, intent, crowd, now, stops, shelves, habits, log, first, row
):  # fmt: skip
    """The next film a viewer wants, -1 where none is found."""
    for _ in range(MOST_TRIES):
        genre = intent
        if intent < 0 or uniform(state) > STAY:
            genre = pick(shares, 0, N_GENRES, uniform(state))
        low, high = shelves.starts[genre], stops[genre]
        if high == low:
            continue
        film = shelves.films[pick(shelves.famous if crowd else shelves.obscure, low, high, uniform(state))]
        if uniform(state) > freshness(now - shelves.release[film]):
            continue
        chance = relevance(utility(taste, thrift, film, habits.taste, shelves))
        before = shelves.previous[film]
        if before >= 0 and not _has(log.item, log.kind, first, row, before):
            chance *= UNSEEN_PART
        if uniform(state) < chance and not _has(log.item, log.kind, first, row, film):
            return film
    return -1


@njit(cache=True, nogil=True)
def _live(  # type: ignore[no-untyped-def]
    own_key, plan_key, clock_key, n_sessions, joined, early, late, drift, thrift, seeking, tone, favourite,
    first, shelves, habits, log,
):  # fmt: skip
    """One viewer's whole log, from row `first` on; the number of rows."""
    state, plan, clock = np.empty(1, np.uint64), np.empty(1, np.uint64), np.empty(1, np.uint64)
    state[0], plan[0], clock[0] = own_key, plan_key, clock_key
    taste, shares, stops = np.empty(DIM), np.empty(N_GENRES), np.empty(N_GENRES, np.int64)
    slate, chances = np.empty(habits.slate_size, np.int32), np.empty(habits.slate_size)
    policy = shelves.shown[favourite]
    n_items, end = len(shelves.release), START_US + habits.span
    total = 0.0
    for _ in range(n_sessions + 1):
        total -= math.log(uniform(clock))
    clock[0] = clock_key
    elapsed, now, n_known, last, n_slates, seen_mass, row = 0.0, joined, 0, -1, 0, 0.0, first
    for session in range(n_sessions):
        elapsed -= math.log(uniform(clock))
        now = max(joined + int((end - joined) * (elapsed / total)), now + 30 * MINUTE_US)
        if session == 0 or (n_known < n_items and shelves.release[n_known] <= now):
            while n_known < n_items and shelves.release[n_known] <= now:
                n_known += 1
            for genre in range(N_GENRES):
                low, high = shelves.starts[genre], shelves.starts[genre + 1]
                stops[genre] = low + np.searchsorted(shelves.films[low:high], n_known)
        turn = drift * min(max((now - START_US) / habits.span, 0.0), 1.0) * (math.pi / 2)
        for d in range(DIM):
            taste[d] = math.cos(turn) * early[d] + math.sin(turn) * late[d]
        genre_shares(taste, shelves.genres, shares)
        intent = pick(shares, 0, N_GENRES, uniform(state)) if uniform(state) < habits.intent else -1
        length, shown = _plan(plan, habits)

        if shown:
            n_shown = _draw_slate(state, policy, n_known, seen_mass, log, first, row, slate, chances)
            for place in range(n_shown):
                _write(log, row, slate[place], now, 2, np.nan, -1, session, n_slates, place, chances[place])
                row += 1
            for place in range(n_shown):
                film = slate[place]
                logit = utility(taste, thrift, film, habits.taste, shelves)
                looks, wants = uniform(state), uniform(state)
                if looks < (place + 1.0) ** -habits.bias and wants < relevance(logit):
                    now += MINUTE_US
                    stars = _rate(state, logit, tone)
                    _write(log, row, film, now, 0, stars, -1, session, n_slates, place, chances[place])
                    seen_mass += _mass(policy, film)
                    now += shelves.minutes[film] * MINUTE_US
                    last = film
                    row += 1
            n_slates += 1

        for _ in range(length):
            searching = uniform(state) < habits.searches
            film = shelves.following[last] if last >= 0 else -1
            goes_on = film >= 0 and film < n_known and uniform(state) < habits.sequels
            if not goes_on or _has(log.item, log.kind, first, row, film):
                crowd = not searching and uniform(state) < seeking
                film = _come_to_mind(
                    state, taste, thrift, shares, intent, crowd, now, stops, shelves, habits, log, first, row
                )
            if film < 0:  # nothing more is wanted
                break
            query = -1
            if searching:
                kind, u = 0, uniform(state)
                while kind < N_QUERIES - 1 and u > SEARCH_SHAPE[kind]:
                    kind += 1
                query = film * N_QUERIES + kind
                _write(log, row, -1, now, 1, np.nan, query, session, -1, -1, np.nan)
                now += MINUTE_US
                row += 1
            stars = _rate(state, utility(taste, thrift, film, habits.taste, shelves), tone)
            _write(log, row, film, now, 0, stars, query, session, -1, -1, np.nan)
            seen_mass += _mass(policy, film)
            now += (shelves.minutes[film] + 5) * MINUTE_US
            last = film
            row += 1
    return row - first


def simulate(
    people: People, numbers: NDArray[np.int32], shelves: Shelves, habits: Habits, queries: pl.Series, *, seed: int
) -> pl.DataFrame:
    """Events of B viewers as a dataset holds them; `numbers` [B] are their rows in the table of users."""
    log, counts = _run(people, shelves, habits, seed)
    keep = log.item >= 0
    columns = {
        "user": pl.Series(np.repeat(numbers, counts), dtype=pl.Int32),
        "item": pl.Series(log.item).set(pl.Series(~keep), None),
        "time": pl.Series(log.time),
        "kind": pl.Series(KINDS).gather(log.kind),
        "value": pl.Series(log.value).fill_nan(None),
        "query": queries.gather(_missing(log.query)),
        "session": pl.Series(np.repeat(people.users, counts) * PER_USER + log.session),
    }
    if habits.impressions > 0:
        slate = np.where(log.slate >= 0, np.repeat(people.users, counts) * PER_USER + log.slate, -1)
        columns |= {
            "slate": _missing(slate),
            "position": _missing(log.position),
            "propensity": pl.Series(log.propensity).fill_nan(None),
        }
    frame = pl.DataFrame(columns)
    return frame.cast({name: EVENT_COLUMNS[name] for name in frame.columns})  # type: ignore[arg-type]


def _missing(numbers: NDArray[np.integer]) -> pl.Series:
    return pl.Series(numbers).set(pl.Series(numbers < 0), None)


def _run(people: People, shelves: Shelves, habits: Habits, seed: int) -> tuple[Log, NDArray[np.int64]]:
    """The simulation of B viewers: rows end to end, and how many rows each has."""
    tenure = (START_US + habits.span - people.joined) / habits.span
    n_sessions = np.clip(np.rint(people.activity * tenure * habits.rate), 3, habits.most).astype(np.int64)
    own, plan, clock = (keys(people.users, seed, purpose) for purpose in ("choices", "plan", "clock"))
    room = np.zeros(len(people.users), dtype=np.int64)
    _room(plan, n_sessions, habits, room)
    starts = np.cumsum(room) - room
    n = int(room.sum())
    types = (np.int32, np.int64, np.int8, np.float32, np.int32, np.int32, np.int32, np.int32, np.float32)
    log = Log(*(np.empty(n, dtype=column) for column in types))  # type: ignore[arg-type]
    counts = np.zeros(len(people.users), dtype=np.int64)
    _simulate(
        own, plan, clock, n_sessions, people.joined, people.early, people.late, people.drift, people.price,
        people.seeking, people.tone, people.stated[:, 0].copy(), starts, shelves, habits, log, counts,
    )  # fmt: skip
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.repeat(starts, counts) + within
    return Log(*(column[rows] for column in log)), counts  # type: ignore[arg-type]
