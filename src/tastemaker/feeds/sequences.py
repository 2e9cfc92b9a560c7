"""Sequences of choices: stretches of histories cut into windows, and what is to be told at each of their places.

Everything is ragged: a batch is values end to end and where each sequence starts. Items keep their numbers; what
is no item (a mask, a start) has the number after the last one, and the item table has a row for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.negatives import Sampler
from tastemaker.types import CapabilityError, Dataset, Jagged, Requests, UsageError

Ints = NDArray[np.int64]
Which = Literal["last", "all"]
MINUTE_US = 60_000_000


@dataclass(frozen=True, eq=False)
class Sequences:
    """B sequences of N items in all, and M things to be told about them.

    longest: length of the longest sequence

    Shapes:
        users: [B] int64, whose sequence it is
        items: [N] int64, what is read, oldest first in each sequence
        offsets: [B + 1] int64, sequence b is items[offsets[b]:offsets[b + 1]]
        targets: [M] int64, items to be told
        places: [M] int64, rising: where in `items` each target is to be told; None: at every place, M = N
        negatives: [M, n] int64, or [n] where the whole batch shares them, or None
        times: [N] int64, when what is read happened, in the dataset's time unit, or None
        asked: [N] int64, when what follows happened, or is asked for, or None
    """

    users: Any
    items: Any
    offsets: Any
    targets: Any
    longest: int
    places: Any = None
    negatives: Any = None
    times: Any = None
    asked: Any = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def owners(self) -> Any:
        """The user of each target [M]."""
        lengths = self.offsets[1:] - self.offsets[:-1]
        users = self.users
        whose = users.repeat(lengths) if isinstance(users, np.ndarray) else users.repeat_interleave(lengths)
        return whose if self.places is None else whose[self.places]

    def take(self, rows: slice) -> Sequences:
        """Whole sequences, with their targets."""
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        offsets = self.offsets[first : last + 1]
        start, stop = (int(at) for at in (offsets[0], offsets[-1]))
        low, high = (start, stop) if self.places is None else map(int, np.searchsorted(self.places, (start, stop)))
        shared = self.negatives is None or self.negatives.ndim == 1
        return Sequences(
            self.users[first:last],
            self.items[start:stop],
            offsets - start,
            self.targets[low:high],
            int(np.diff(offsets).max(initial=0)),
            None if self.places is None else self.places[low:high] - start,
            self.negatives if shared else self.negatives[low:high],
            None if self.times is None else self.times[start:stop],
            None if self.asked is None else self.asked[start:stop],
        )


@dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of histories: window w is items[starts[w]:stops[w]], of the user users[w], oldest first.

    Shapes: items [E] int64; users, starts, stops [W] int64; times [E] int64, or None where they are not read
    """

    items: Ints
    users: Ints
    starts: Ints
    stops: Ints
    times: Ints | None = None

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> Ints:
        """Events of each window [W]."""
        return self.stops - self.starts

    def least(self, n: int) -> Windows:
        """The windows of at least `n` events."""
        keep = self.lengths >= n
        return Windows(self.items, self.users[keep], self.starts[keep], self.stops[keep], self.times)

    def gather(self, rows: Rows, spare: int = 0) -> tuple[Ints, Ints]:
        """Items of the named windows end to end, and offsets [B + 1]; `spare` places before each hold -1."""
        source, offsets = self._places(rows, spare)
        items = self.items[np.maximum(source, 0)]
        for place in range(spare):
            items[offsets[:-1] + place] = -1
        return items, offsets

    def gather_times(self, rows: Rows, spare: int = 0) -> Ints | None:
        """Times as `gather` gives items, where they are read; the spare places hold the time of the first event."""
        if self.times is None:
            return None
        source, offsets = self._places(rows, spare)
        first = np.repeat(self.starts[rows], np.diff(offsets))
        return self.times[np.maximum(source, first)]

    def _places(self, rows: Rows, spare: int) -> tuple[Ints, Ints]:
        starts, lengths = self.starts[rows] - spare, self.stops[rows] - self.starts[rows] + spare
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def windows(
    data: Dataset,
    max_len: int,
    *,
    which: Which = "last",
    stride: int | None = None,
    sessions: bool = False,
    gap: float | None = None,
    times: bool = False,
) -> Windows:
    """Cut the users' choices into windows of at most `max_len` events; users without a choice have none.

    Args:
        which: the "last" window of each history, or "all": windows that end `stride` events apart, the last one
            with the last event, back to the first event.
        stride: default: `max_len`, so that windows do not overlap.
        sessions: cut at sessions first, each then being a history: by the column `session` where events have it.
        gap: minutes between two events that end a session; in the place of the column.
        times: whether windows know when their events happened.

    Raises:
        CapabilityError: sessions are asked for, and events have neither the column nor times on a clock.
    """
    step = max_len if stride is None else stride
    if not 1 <= step <= max_len:
        raise UsageError(f"windows hold at least one event, strides at most a window: got {max_len} and {stride}")
    chosen = data.interactions()
    items, users = (chosen[name].to_numpy().astype(np.int64) for name in ("item", "user"))
    moments = chosen["time"].to_numpy() if times else None
    new = np.ones(len(items), dtype=np.bool_)
    new[1:] = users[1:] != users[:-1]
    if sessions or gap is not None:
        if gap is None and "session" in chosen.columns:
            session = chosen["session"].fill_null(-1).to_numpy()
            order = np.lexsort((session, users))  # sessions of a user may take turns
            items, users, session = items[order], users[order], session[order]
            moments = None if moments is None else moments[order]
            new[1:] = (users[1:] != users[:-1]) | (session[1:] != session[:-1])
        elif gap is not None and data.time_unit == "us":
            new[1:] |= np.diff(chosen["time"].to_numpy()) > gap * MINUTE_US
        else:
            missing = "no column 'session'" if gap is None else "no times on a clock"
            raise CapabilityError(
                f"the events of {data.name} have {missing} to cut sessions by",
                hint="learn from whole histories, or give a gap in minutes where events have times",
            )
    firsts = np.flatnonzero(new)
    starts, stops = firsts, np.append(firsts, len(items))[1:]
    if which == "all":
        counts = 1 + np.maximum(0, -(-(stops - starts - max_len) // step))
        starts, stops = np.repeat(starts, counts), np.repeat(stops, counts)
        back = np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
        stops = stops - back * step
    starts = np.maximum(starts, stops - max_len)
    return Windows(items, users[starts], starts, stops, moments)


def next_items(
    seen: Windows, batch_size: int, *, start: int | None = None, negatives: Sampler | None = None
) -> RowFeed[Sequences]:
    """Every window once an epoch; at each event the one after it is to be told.

    Args:
        start: a number that is read before a window's first event, which is then to be told too. Without it
            windows of one event teach nothing, and the last event of a window is not read.
        negatives: see `tastemaker.feeds.negatives`; drawn for each target, or for the batch.
    """
    usable = seen.least(1 if start is not None else 2)

    def make(rows: Rows, rng: np.random.Generator) -> Sequences:
        whole, offsets = usable.gather(rows, 0 if start is None else 1)
        if start is not None:
            whole[offsets[:-1]] = start
        read, told = np.ones(len(whole), dtype=np.bool_), np.ones(len(whole), dtype=np.bool_)
        read[offsets[1:] - 1] = False
        told[offsets[:-1]] = False
        offsets = offsets - np.arange(len(offsets))
        lengths, users = np.diff(offsets), usable.users[rows]
        drawn = None if negatives is None else negatives(np.repeat(users, lengths), rng)
        when = usable.gather_times(rows, 0 if start is None else 1)
        times, asked = (None, None) if when is None else (when[read], when[told])
        return Sequences(
            users, whole[read], offsets, whole[told], int(lengths.max()), negatives=drawn, times=times, asked=asked
        )

    return RowFeed(len(usable), batch_size, make, live=getattr(negatives, "live", False), lengths=usable.lengths)


def cloze(
    seen: Windows,
    batch_size: int,
    mask: int,
    *,
    share: float = 0.2,
    last: float = 0.0,
    negatives: Sampler | None = None,
) -> RowFeed[Sequences]:
    """Every window once an epoch, some of its events hidden behind the number `mask`: those are to be told.

    Args:
        share: the probability with which an event is hidden; where chance hides none of a window, one is drawn.
        last: the probability with which a window hides its last event and no other, as it is when asked.
        negatives: see `tastemaker.feeds.negatives`; drawn for each target, or for the batch.
    """
    usable = seen.least(1)

    def make(rows: Rows, rng: np.random.Generator) -> Sequences:
        items, offsets = usable.gather(rows)
        lengths, users = np.diff(offsets), usable.users[rows]
        hidden = rng.random(len(items)) < share
        only_last = rng.random(len(rows)) < last
        hidden &= ~np.repeat(only_last, lengths)
        hidden[offsets[1:][only_last] - 1] = True
        none = ~np.logical_or.reduceat(hidden, offsets[:-1])
        hidden[(offsets[:-1] + rng.integers(0, lengths))[none]] = True
        places = np.flatnonzero(hidden)
        targets = items[places]
        items[places] = mask
        askers = np.repeat(users, np.add.reduceat(hidden, offsets[:-1], dtype=np.int64))
        drawn = None if negatives is None else negatives(askers, rng)
        return Sequences(users, items, offsets, targets, int(lengths.max()), places, drawn)

    return RowFeed(len(usable), batch_size, make, live=getattr(negatives, "live", False), lengths=usable.lengths)


def recent(
    requests: Requests,
    n_items: int,
    max_len: int,
    *,
    start: int | None = None,
    mask: int | None = None,
    times: bool = False,
) -> Sequences:
    """The last `max_len` events of the requests' histories, as a feed would show them; there are no targets.

    Items without a number below `n_items` are left out first.

    Args:
        start: a number that is read before the first event, as by `next_items`.
        mask: a number that is read after the last event, as by `cloze`.
        times: whether to say when events happened (not with a mask). Where histories do not say it, all happened at
            once; who does not say when he asks does so right after his last event.
    """
    items = requests.items()
    known = items.where(items.values < n_items) if (items.values >= n_items).any() else items
    kept = known.last(max_len)
    before, after = int(start is not None), int(mask is not None)
    lengths = kept.lengths + before + after
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.empty(offsets[-1], dtype=np.int64)
    values[np.arange(len(kept.values)) + kept.rows * (before + after) + before] = kept.values
    if start is not None:
        values[offsets[:-1]] = start
    if mask is not None:
        values[offsets[1:] - 1] = mask
    users = np.full(len(lengths), -1) if requests.users is None else requests.users.astype(np.int64)
    when = _times(requests, n_items, max_len, offsets, before) if times else (None, None)
    none = np.empty(0, dtype=np.int64)
    return Sequences(users, values, offsets, none, int(lengths.max(initial=0)), times=when[0], asked=when[1])


def _times(requests: Requests, n_items: int, max_len: int, offsets: Ints, before: int) -> tuple[Ints, Ints]:
    """When what `recent` reads happened [N], and when what follows did or is asked for [N]."""
    assert requests.history is not None
    columns = requests.history.values
    told = columns["time"].astype(np.int64) if "time" in columns else np.zeros(columns.n_rows, dtype=np.int64)
    items = columns["item"]
    kept = Jagged(told, requests.history.offsets).where((items >= 0) & (items < n_items)).last(max_len)
    some = kept.lengths > 0
    ends = np.zeros(len(kept), dtype=np.int64)  # without events, nothing has happened yet
    ends[some] = kept.values[kept.offsets[1:][some] - 1]
    now = ends if requests.now is None or "time" not in columns else requests.now
    times = np.empty(offsets[-1], dtype=np.int64)
    times[np.arange(len(kept.values)) + (kept.rows + 1) * before] = kept.values
    if before:
        times[offsets[:-1]] = np.where(some, 0, now)
        times[offsets[:-1][some]] = kept.values[kept.offsets[:-1][some]]
    asked = np.empty_like(times)
    asked[:-1] = times[1:]
    filled = np.diff(offsets) > 0
    asked[offsets[1:][filled] - 1] = now[filled]
    return times, asked
