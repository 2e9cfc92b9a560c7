"""How old what is served has become, and whether the world has changed since: staleness, and drift with its chance.

Two samples never agree exactly, and small ones not nearly, so a distance alone says nothing. Each one is given beside
what chance alone would have made it. Choices of one person hang together, and a test that shuffled single choices
would call any handful of busy people a change of taste. So people are what is shuffled:

- somebody seen both before and since keeps the number of choices on either side, and which are which is drawn anew;
- of those seen on one side only, who is on which side is drawn anew, and whoever is drawn to the new side shows as
  long a stretch of choices as somebody new did.

Both leave a stationary world as it is. The distance is Jensen and Shannon's, 0 for equal shares and 1 for shares that
have nothing in common. Numbers, as columns of a context, are compared by the population stability index over tenths of
the old values, whose chance is known in closed form.

Ref: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), 1991; Endres, Schindelin,
"A new metric for probability distributions", IEEE Trans. Inf. Theory 49(7), 2003 (its root is a metric); Yurdakul,
Naranjo, "Statistical properties of the population stability index", J. Risk Model Validation 14(4), 2020.
"""

from __future__ import annotations

import datetime
import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from tastemaker.evaluate.statistics import holm
from tastemaker.types import EVENT_COLUMNS, Dataset, UsageError, Vocabulary, generator

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

    from tastemaker.train import Bundle

Ints = NDArray[np.int64]

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
DRAWS = 299  # shuffles; the smallest p is 1 / 300
MOST = 50_000  # choices a test looks at; of more, some users are drawn
ALPHA = 0.05  # of all tests together
FEWEST = 30  # choices since, below which nothing is tested
DAYS_FOR_HOURS, DAYS_FOR_WEEKDAYS = 3, 14  # whole days that are compared by these at least
BINS = 10
MATTERS = 0.1  # stability index below which a change is of no consequence, however certain


@dataclass(frozen=True)
class Shift:
    """Whether shares have changed.

    what: "popularity", "hour", "weekday", "kind"
    distance: Jensen-Shannon, 0 to 1
    chance: what shuffling gives in the middle
    p: share of shuffles that give as much, adjusted for how many tests were made
    before, since: how many rows were compared
    """

    what: str
    distance: float
    chance: float
    p: float
    before: int
    since: int

    @property
    def drifted(self) -> bool:
        return self.p < ALPHA


@dataclass(frozen=True)
class Stability:
    """Whether the numbers of a column have changed: population stability index, and the p of so large a one.

    what: the column
    chance: what chance alone makes of the index on average
    missing: share of missing values before and since
    """

    what: str
    index: float
    chance: float
    p: float
    before: int
    since: int
    missing: tuple[float, float]

    @property
    def drifted(self) -> bool:
        return self.p < ALPHA and self.index > MATTERS


@dataclass(frozen=True)
class Drift:
    """What happened since a bundle was fitted.

    until: the newest time it has learnt from, in the unit of its data
    days: since then; None where times are no clock
    events: choices since; known_users, known_items: share of them by users and on items it knows
    new_users, new_items: how many it does not know
    skipped: what was not tested, and why
    """

    system: str
    until: int
    days: float | None
    events: int
    known_users: float
    known_items: float
    new_users: int
    new_items: int
    shifts: tuple[Shift, ...] = ()
    columns: tuple[Stability, ...] = ()
    skipped: Mapping[str, str] | None = None

    @property
    def drifted(self) -> list[str]:
        """What has changed beyond chance."""
        return [s.what for s in self.shifts if s.drifted] + [c.what for c in self.columns if c.drifted]

    def shift(self, what: str) -> Shift | None:
        """One of the shifts by name."""
        return next((one for one in self.shifts if one.what == what), None)

    def statement(self) -> str:
        """What a person wants to know, in a sentence or two."""
        if not self.events:
            age = "has learnt all there is"
        elif self.days is None:
            age = "is behind"
        elif self.days < 1:
            age = "is less than a day old"
        else:
            age = f"is {self.days:,.0f} day{'' if round(self.days) == 1 else 's'} old"
        parts = [f"{self.system} {age}"]
        if self.events:
            parts.append(
                f"{self.events:,} choices since, {1 - self.known_items:.1%} of them of items it does not know and "
                f"{1 - self.known_users:.1%} by users it does not know"
            )
        popularity = self.shift("popularity")
        if popularity is not None:
            found = "has drifted" if popularity.drifted else "has not drifted beyond chance"
            parts.append(
                f"popularity {found} (distance {popularity.distance:.3f}, by chance {popularity.chance:.3f}, "
                f"p = {popularity.p:.3g})"
            )
        others = [what for what in self.drifted if what != "popularity"]
        if others:
            parts.append(f"changed too: {', '.join(others)}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "skipped": dict(self.skipped or {}),
            "drifted": self.drifted,
            "statement": self.statement(),
        }

    def table(self) -> ConsoleRenderable:
        """What the terminal shows."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        drawn = Table(header_style="bold", title_justify="left")
        for name, right in (("what", False), ("measure", False), ("found", True), ("by chance", True), ("p", True)):
            drawn.add_column(name, justify="right" if right else "left")
        drawn.add_column("")
        for shift in self.shifts:
            row = shift.what, "Jensen-Shannon distance", f"{shift.distance:.4f}", f"{shift.chance:.4f}"
            drawn.add_row(*row, f"{shift.p:.3g}", "drifted" if shift.drifted else "")
        for column in self.columns:
            row = escape(column.what), "stability index", f"{column.index:.4f}", f"{column.chance:.4f}"
            drawn.add_row(*row, f"{column.p:.3g}", "drifted" if column.drifted else "")
        for what, why in (self.skipped or {}).items():
            drawn.add_row(what, why, "", "", "", "")
        said = escape(self.statement())
        return Group(said, drawn) if drawn.row_count else Group(said)

    def __rich__(self) -> ConsoleRenderable:
        return self.table()


def drift_of(bundle: Bundle, data: Dataset, *, now: int | None = None, draws: int = DRAWS, seed: int = 0) -> Drift:
    """What `data` has that a bundle has not learnt from, and how it differs from what it has.

    Args:
        data: what the bundle was fitted on, and what happened since.
        now: microseconds since 1970; default: the clock's. Without a meaning where times are no clock.

    Raises:
        UsageError: the data has no times, or nobody knows until when the bundle has learnt.
    """
    if not data.has_time:
        raise UsageError(f"{data.name} has no times, so nobody knows what is new in it")
    until = learnt_until(bundle)
    choices = data.interactions()
    fresh = choices["time"] > until
    before, since = choices.filter(~fresh), choices.filter(fresh)
    users = _known(bundle.users, data.user_ids, since["user"])
    items = _known(bundle.items, data.item_ids, since["item"])
    days = None
    if data.time_unit == "us":
        days = max(0.0, ((clock.time_ns() // 1000 if now is None else now) - until) / DAY_US)
    shifts, columns, skipped = changes(before, since, data, draws=draws, seed=seed)
    return Drift(
        bundle.name, until, days, since.height, float(users.mean()) if len(users) else 1.0,
        float(items.mean()) if len(items) else 1.0, since["user"].filter(pl.Series(~users)).n_unique(),
        since["item"].filter(pl.Series(~items)).n_unique(), shifts, columns, skipped,
    )  # fmt: skip


def learnt_until(bundle: Bundle) -> int:
    """The newest time a bundle has learnt from, in the unit of its data.

    Raises:
        UsageError: it does not say.
    """
    until = bundle.about.get("data", {}).get("until")
    if until is None and bundle.histories is not None and "time" in bundle.histories.values:
        times = bundle.histories.values["time"]
        until = int(times.max()) if len(times) else None
    if until is None:
        raise UsageError(
            f"the bundle of {bundle.name} does not say until when it has learnt",
            hint="fit it again on data with times",
        )
    return int(until)


def changes(
    before: pl.DataFrame, since: pl.DataFrame, data: Dataset, *, draws: int = DRAWS, seed: int = 0
) -> tuple[tuple[Shift, ...], tuple[Stability, ...], dict[str, str]]:
    """Tests of everything that two tables of choices have in common, and what could not be tested."""
    skipped: dict[str, str] = {}
    tests: dict[str, tuple[pl.DataFrame, pl.DataFrame]] = {}
    columns: list[Stability] = []
    if since.height < FEWEST or before.height < FEWEST:
        return (), (), {"drift": f"{before.height:,} choices before and {since.height:,} since are too few to test"}
    tests["popularity"] = tuple(part.select("user", value="item") for part in (before, since))  # type: ignore[assignment]
    if data.time_unit == "us":
        hour, day = pl.col("time") // HOUR_US, pl.col("time") // DAY_US
        for what, least, whole, unit, value in (
            ("hour", DAYS_FOR_HOURS, 1, hour, hour % 24),
            ("weekday", DAYS_FOR_WEEKDAYS, 7, day, (day + 3) % 7),  # 1970 began on a Thursday
        ):
            parts = [_whole_days(part, whole) for part in (before, since)]
            if (days := min(n for _, n in parts)) < least:
                skipped[what] = f"{days} whole days are too few, {least} would do"
                continue
            visits = [part.select("user", unit=unit, value=value).unique(maintain_order=True) for part, _ in parts]
            tests[what] = visits[0], visits[1]
    if "kind" in before.columns and min(part["kind"].drop_nulls().len() for part in (before, since)) >= FEWEST:
        names = pl.concat([before["kind"], since["kind"]]).drop_nulls().unique().sort()
        if len(names) > 1:
            codes = {name: code for code, name in enumerate(names)}
            coded = pl.col("kind").replace_strict(codes, default=None, return_dtype=pl.Int64)
            kinds = [part.select("user", value=coded).drop_nulls() for part in (before, since)]
            tests["kind"] = kinds[0], kinds[1]
    shifts = [shift(what, *parts, draws=draws, seed=seed) for what, parts in tests.items()]
    for name, dtype in before.schema.items():
        context = name == "value" or name not in EVENT_COLUMNS
        if context and dtype.is_numeric() and (found := stability(before[name], since[name])) is not None:
            columns.append(found)
    adjusted = holm(np.array([s.p for s in shifts] + [c.p for c in columns], dtype=np.float64)).tolist()
    of_shifts, of_columns = adjusted[: len(shifts)], adjusted[len(shifts) :]
    return (
        tuple(replace(one, p=p) for one, p in zip(shifts, of_shifts, strict=True)),
        tuple(replace(one, p=p) for one, p in zip(columns, of_columns, strict=True)),
        skipped,
    )


def _whole_days(choices: pl.DataFrame, of: int) -> tuple[pl.DataFrame, int]:
    """The choices of whole days, as many as `of` goes into, and how many those are: half a week has no Sunday."""
    first, last = (int(end) // DAY_US for end in (choices["time"].min(), choices["time"].max()))  # type: ignore[arg-type]
    n = max(0, last - first - 1) // of * of  # the first and the last may be parts of days
    inside = pl.col("time").is_between((first + 1) * DAY_US, (first + 1 + n) * DAY_US, closed="left")
    return choices.filter(inside), n


# -- shares


def shift(what: str, before: pl.DataFrame, since: pl.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> Shift:
    """How far the shares of values lie apart, and how often shuffling people sets them as far apart.

    Args:
        before, since: columns "user" and "value", whole numbers from 0; of a user in the order of time.
    """
    rng = generator(seed, "drift", what)
    table = pl.concat([part.select("user", "value", since=pl.lit(late)) for late, part in enumerate((before, since))])
    table = _some_users(table, rng).sort("user", "since", maintain_order=True)
    values = table["value"].to_numpy().astype(np.int64)
    late = table["since"].to_numpy().astype(bool)
    starts = np.flatnonzero(np.diff(table["user"].to_numpy(), prepend=-1))
    people = _People(values, late, starts, int(values.max(initial=0)) + 1)
    found = distance(*people.counts)
    shuffled = np.array([distance(*people.shuffled(rng)) for _ in range(draws)])
    p = (1 + int((shuffled >= found - 1e-12).sum())) / (draws + 1)
    return Shift(what, found, float(np.median(shuffled)) if draws else math.nan, p, int((~late).sum()), int(late.sum()))


def distance(before: NDArray[Any], since: NDArray[Any]) -> float:
    """Jensen-Shannon distance of two vectors of counts: the root of the divergence in bits, 0 to 1."""
    p, q = (counts / max(counts.sum(), 1e-300) for counts in (before.astype(np.float64), since.astype(np.float64)))
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()) / (2 * math.log(2))
    return math.sqrt(max(0.0, float(divergence)))


def _some_users(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The rows of users drawn at random, about `MOST` of them; all where there are no more."""
    if table.height <= MOST:
        return table
    sizes = table.group_by("user", maintain_order=True).len()
    order = rng.permutation(sizes.height)
    enough = int(np.searchsorted(np.cumsum(sizes["len"].to_numpy()[order]), MOST)) + 1
    return table.join(sizes[order[:enough]].select("user"), on="user", how="semi", maintain_order="left")


class _People:
    """Choices of people before and since, to be shuffled.

    Shapes: values, late [N], sorted by person and, of one person, by time; starts [P], where a person begins.
    """

    def __init__(self, values: Ints, late: NDArray[np.bool_], starts: Ints, n: int) -> None:
        self.values, self.starts, self.n = values, starts, n
        self.sizes = np.diff(np.append(starts, len(values)))
        self.counts = tuple(np.bincount(values[side], minlength=n) for side in (~late, late))
        n_late = np.add.reduceat(late.astype(np.int64), starts)
        self.n_late = n_late
        both = (n_late > 0) & (n_late < self.sizes)
        rows = np.repeat(both, self.sizes)
        self.returning = values[rows]
        self.owner = np.repeat(np.arange(int(both.sum())), self.sizes[both])
        self.firsts = np.repeat(np.cumsum(self.sizes[both]) - self.sizes[both], self.sizes[both])
        self.lates = np.repeat(n_late[both], self.sizes[both])
        self.once = np.flatnonzero(~both)
        self.newcomers = self.sizes[n_late == self.sizes]
        self.total = self.counts[0] + self.counts[1]

    def shuffled(self, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Counts before and since in a world where the difference means nothing."""
        drawn = np.zeros(self.n, dtype=np.int64)
        gone = np.zeros(self.n, dtype=np.int64)  # choices of those drawn to the new side that lie outside the stretch
        if len(self.returning):
            order = np.argsort(self.owner + rng.random(len(self.owner)))
            chosen = np.arange(len(order)) - self.firsts < self.lates
            drawn += np.bincount(self.returning[order[chosen]], minlength=self.n)
        if len(self.newcomers):
            who = rng.permutation(self.once)[: len(self.newcomers)]
            sizes = self.sizes[who]
            shown = np.minimum(sizes, rng.permutation(self.newcomers))
            offsets = (rng.random(len(who)) * (sizes - shown + 1)).astype(np.int64)
            drawn += np.bincount(self._stretches(self.starts[who] + offsets, shown), minlength=self.n)
            gone += np.bincount(self._stretches(self.starts[who], sizes), minlength=self.n)
            gone -= np.bincount(self._stretches(self.starts[who] + offsets, shown), minlength=self.n)
        return self.total - drawn - gone, drawn

    def _stretches(self, starts: Ints, lengths: Ints) -> Ints:
        """Values of several stretches, one after the other."""
        ends = np.cumsum(lengths)
        places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
        found: Ints = self.values[places]
        return found


# -- numbers


def stability(before: pl.Series, since: pl.Series, bins: int = BINS) -> Stability | None:
    """The population stability index over bins of equally many old values; missing ones are a bin of their own.

    None where there are too few values, or all are the same.
    """
    old, new = (part.cast(pl.Float64).drop_nulls().drop_nans().to_numpy() for part in (before, since))
    if len(old) < FEWEST or len(before) == 0 or len(since) < FEWEST:
        return None
    edges = np.unique(np.quantile(old, np.linspace(0, 1, bins + 1)[1:-1]))
    if not len(edges) or (edges[0] == edges[-1] and old.min() == old.max()):
        return None
    missing = len(before) - len(old), len(since) - len(new)
    counts = [
        np.append(np.bincount(np.searchsorted(edges, part, side="left"), minlength=len(edges) + 1), lost)
        for part, lost in zip((old, new), missing, strict=True)
    ]
    used = (counts[0] + counts[1]) > 0
    n, m = len(before), len(since)
    p, q = ((part[used] + 0.5) / (size + 0.5 * used.sum()) for part, size in zip(counts, (n, m), strict=True))
    index = float(((q - p) * np.log(q / p)).sum())
    free, scale = int(used.sum()) - 1, 1 / n + 1 / m
    tail = float(special.chdtrc(free, index / scale)) if free else 1.0
    return Stability(before.name, index, free * scale, tail, n, m, (missing[0] / n, missing[1] / m))


def _known(vocabulary: Vocabulary, own: Vocabulary, numbers: pl.Series) -> NDArray[np.bool_]:
    """Which of these numbers [N] stand for ids that a vocabulary has."""
    known = vocabulary.numbers(own.series) >= 0
    return np.asarray(known[numbers.to_numpy()], dtype=np.bool_)


def when(data: Dataset, at: int) -> str:
    """A time of a dataset in words."""
    if data.time_unit != "us":
        return f"step {at:,}"
    moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=at)
    return moment.isoformat(sep=" ", timespec="minutes").removesuffix("+00:00")


__all__: Sequence[str] = [
    "Drift", "Shift", "Stability", "changes", "distance", "drift_of", "learnt_until", "shift", "stability", "when",
]  # fmt: skip
