"""What a dataset holds: counts, density, long tail, time span, cold shares, columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types import AVAILABLE, DataError, Dataset, Kind, TimeUnit, optional
from tastemaker.types.dataset import Table

FEW = 5  # users and items with fewer events count as nearly cold
LATE = 0.1  # the share of events, the latest, in which newcomers are counted
POINTS = 400  # points of a plotted curve
QUANTILES = {"least": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "most": 1.0}


@dataclass(frozen=True)
class Side:
    """Users, or items: how many, and how events fall on them.

    with_events: how many have an event at all; the figures below are over these
    quantiles, mean: events of one
    gini: 0 all alike, towards 1 a few have all
    top: share of events that the most active 1, 10 and 20 % have
    few: share with fewer than `FEW` events
    newcomers: share of the latest `LATE` of events whose user (item) is first seen there; None without times
    """

    n: int
    with_events: int
    quantiles: Mapping[str, float]
    mean: float
    gini: float
    top: Mapping[str, float]
    few: float
    newcomers: float | None


@dataclass(frozen=True)
class ColumnInfo:
    """A column: its kind and type, how many values are missing, how many are distinct (None: not counted)."""

    kind: Kind
    dtype: str
    missing: int
    distinct: int | None


@dataclass(frozen=True)
class Description:
    """What `describe` found. `curves` are counts of events a user (item), largest first, thinned for plotting."""

    name: str
    n_events: int
    users: Side
    items: Side
    density: float
    repeated: float
    without_item: int
    time_unit: TimeUnit | None
    first: str | None
    last: str | None
    span_days: float | None
    kinds: Mapping[str, int]
    value: Mapping[str, float] | None
    columns: Mapping[str, Mapping[str, ColumnInfo]]
    edges: Mapping[str, int]
    dialogue_turns: int
    notes: Mapping[str, str]
    curves: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the curves."""
        return {key: value for key, value in asdict(self).items() if key != "curves"}

    def table(self) -> Any:
        """A table for the terminal (rich)."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table as Drawn

        facts = Drawn(title=escape(self.name), title_justify="left", show_header=False, box=None)
        for name, text in self._facts():
            facts.add_row(f"[bold]{name}[/]", escape(text))
        sides = Drawn("", "users", "items", header_style="bold", title="events of one", title_justify="left")
        for name, get in _SIDE_ROWS.items():
            sides.add_row(name, get(self.users), get(self.items))
        columns = Drawn("table", "column", "kind", "type", "missing", "distinct", header_style="bold")
        for table, infos in self.columns.items():
            for column, info in infos.items():
                distinct = "" if info.distinct is None else f"{info.distinct:,}"
                columns.add_row(table, escape(column), info.kind, escape(info.dtype), f"{info.missing:,}", distinct)
        return Group(facts, sides, *([columns] if columns.row_count else []))

    def _facts(self) -> list[tuple[str, str]]:
        rows = [
            ("users", f"{self.users.n:,} ({self.users.with_events:,} with events)"),
            ("items", f"{self.items.n:,} ({self.items.with_events:,} with events)"),
            (
                "events",
                f"{self.n_events:,}" + (f" ({self.without_item:,} without an item)" if self.without_item else ""),
            ),
            ("density", f"{self.density:.4%} of all pairs; {self.repeated:.1%} of events repeat a pair"),
        ]
        if self.span_days is not None:
            rows.append(("time", f"{self.first} to {self.last}, {self.span_days:,.1f} days"))
        elif self.first is not None:
            rows.append(("time", f"steps {self.first} to {self.last} of an order, no clock"))
        if self.kinds:
            rows.append(("kinds", ", ".join(f"{kind} {count:,}" for kind, count in self.kinds.items())))
        if self.value:
            rows.append(("value", ", ".join(f"{name} {number:,.4g}" for name, number in self.value.items())))
        rows += [(f"edges {name}", f"{count:,}") for name, count in self.edges.items()]
        if self.dialogue_turns:
            rows.append(("dialogues", f"{self.dialogue_turns:,} turns"))
        return rows + list(self.notes.items())

    def plot(self, path: str | Path) -> Path:
        """Draw the long tail, and events over time where there is one, to an .html, .png or .svg file."""
        altair = optional("altair", extra="viz", why="Plotting")
        path = Path(path)
        if path.suffix not in (".html", ".png", ".svg"):
            raise DataError(f"plots are written as .html, .png or .svg, got {path.name!r}")
        if path.suffix != ".html":
            optional("vl_convert", extra="viz", why=f"Writing {path.suffix} files")
        tails = [
            {"who": who, "rank": rank, "events": count}
            for who in ("users", "items")
            for rank, count in zip(*self.curves[who], strict=True)
        ]
        log = altair.Scale(type="log", nice=False)
        tail = altair.Chart(altair.Data(values=tails), title="Long tail", width=360, height=260).mark_line()
        drawn = tail.encode(
            x=altair.X("rank:Q", scale=log, title="rank, the most active first"),
            y=altair.Y("events:Q", scale=log, title="events"),
            color=altair.Color("who:N", title=None),
        )
        if "time" in self.curves:
            bins = [{"time": when, "events": count} for when, count in zip(*self.curves["time"], strict=True)]
            kind = "T" if self.time_unit == "us" else "Q"
            over = altair.Chart(altair.Data(values=bins), title="Events over time", width=360, height=260).mark_area()
            drawn |= over.encode(x=altair.X(f"time:{kind}", title=None), y=altair.Y("events:Q", title="events"))
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.properties(title=self.name).save(str(path), **({"inline": True} if path.suffix == ".html" else {}))
        return path


_SIDE_ROWS: dict[str, Any] = {
    **{name: (lambda side, name=name: f"{side.quantiles[name]:,.0f}") for name in QUANTILES},
    "mean": lambda side: f"{side.mean:,.1f}",
    "gini": lambda side: f"{side.gini:.3f}",
    **{
        f"share of the top {share}": (lambda side, share=share: f"{side.top[share]:.1%}")
        for share in ("1%", "10%", "20%")
    },
    f"fewer than {FEW} events": lambda side: f"{side.few:.1%}",
    f"new in the last {LATE:.0%} of events": lambda s: "-" if s.newcomers is None else f"{s.newcomers:.1%}",
}


def describe(data: Dataset) -> Description:
    """Count what `data` holds; one pass over each column, no event by event."""
    events = data.events
    users, items = events["user"].to_numpy(), events["item"].drop_nulls().to_numpy()
    with_item = events.filter(pl.col("item").is_not_null()) if events["item"].null_count() else events
    pairs = with_item["user"].cast(pl.Int64) * data.n_items + with_item["item"]
    distinct = pairs.n_unique()
    counts = {
        "users": np.bincount(users, minlength=data.n_users),
        "items": np.bincount(items, minlength=data.n_items),
    }
    newcomers: dict[str, float | None] = {"users": None, "items": None}
    first = last = span = None
    curves: dict[str, Any] = {who: _curve(count) for who, count in counts.items()}
    if data.has_time and data.n_events:
        times = events["time"]
        low, high = cast(int, times.min()), cast(int, times.max())
        newcomers = {"users": _newcomers(events, "user"), "items": _newcomers(with_item, "item")}
        curves["time"] = _over_time(times, low, high, data.time_unit)
        first, last = _when(low, data.time_unit), _when(high, data.time_unit)
        span = (high - low) / 86_400e6 if data.time_unit == "us" else None
    kinds: dict[str, int] = {}
    if "kind" in events.columns:
        found = events["kind"].value_counts(sort=True).head(20)
        kinds = {str(kind): count for kind, count in found.rows()}
    value = None
    if "value" in events.columns and events["value"].count():
        worth = events["value"].drop_nulls()
        value = {name: float(cast(float, getattr(worth, name)())) for name in ("min", "mean", "max")}
        value |= {"distinct": worth.n_unique(), "missing": events["value"].null_count()}
    return Description(
        name=data.name,
        n_events=data.n_events,
        users=_side(counts["users"], newcomers["users"]),
        items=_side(counts["items"], newcomers["items"]),
        density=distinct / max(1, data.n_users * data.n_items),
        repeated=1 - distinct / max(1, len(pairs)) if len(pairs) else 0.0,
        without_item=events["item"].null_count(),
        time_unit=data.time_unit,
        first=first,
        last=last,
        span_days=span,
        kinds=kinds,
        value=value,
        columns=_columns(data),
        edges={name: frame.height for name, frame in data.edges.items()},
        dialogue_turns=0 if data.dialogues is None else data.dialogues.height,
        notes=dict(data.notes),
        curves=curves,
    )


def gini(counts: NDArray[np.integer[Any]]) -> float:
    """Gini coefficient of counts [N]: mean absolute difference over twice the mean; 0 where all are equal."""
    ordered = np.sort(counts).astype(np.float64)
    total, n = ordered.sum(), len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total else 0.0


def _side(counts: NDArray[np.intp], newcomers: float | None) -> Side:
    active = np.sort(counts[counts > 0])[::-1]
    total = max(1, int(active.sum()))
    head = {
        f"{share}%": float(active[: int(np.ceil(len(active) * share / 100))].sum() / total) for share in (1, 10, 20)
    }
    of_one = active if len(active) else np.zeros(1, np.int64)
    quantiles = dict(zip(QUANTILES, np.quantile(of_one, list(QUANTILES.values())).tolist(), strict=True))
    few = float(np.mean(counts < FEW)) if len(counts) else 0.0
    return Side(len(counts), len(active), quantiles, float(of_one.mean()), gini(active), head, few, newcomers)


def _newcomers(events: pl.DataFrame, key: str) -> float:
    """Share of the latest events whose user (item) has no event before them."""
    if events.height == 0:
        return 0.0
    cut = events["time"].quantile(1 - LATE, interpolation="lower")
    late = events.filter(pl.col("time") >= cut)[key]
    before = events.filter(pl.col("time") < cut)[key].unique()
    return float(1 - cast(float, late.is_in(before.implode()).mean()))


def _curve(counts: NDArray[np.intp]) -> tuple[list[int], list[int]]:
    """Rank and count, largest first, at points evenly spaced on a logarithmic axis."""
    ordered = np.sort(counts[counts > 0])[::-1]
    if len(ordered) == 0:
        return [], []
    ranks = np.unique(np.geomspace(1, len(ordered), min(POINTS, len(ordered))).round().astype(np.int64))
    return ranks.tolist(), ordered[ranks - 1].tolist()


def _over_time(times: pl.Series, low: int, high: int, unit: TimeUnit | None) -> tuple[list[Any], list[int]]:
    """Start of each of at most 100 equal spans, and the events in it."""
    n = min(100, max(1, high - low))
    found, edges = np.histogram(times.to_numpy(), bins=n, range=(low, max(high, low + 1)))
    starts = [_when(int(edge), unit) if unit == "us" else float(edge) for edge in edges[:-1]]
    return starts, found.tolist()


def _when(time: int, unit: TimeUnit | None) -> str:
    if unit != "us":
        return str(time)
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).isoformat(timespec="seconds")
    except OverflowError:
        return f"{time} us"


def _columns(data: Dataset) -> dict[str, dict[str, ColumnInfo]]:
    """Kind, type, missing and distinct values of every column but ids and the tables' own bookkeeping."""
    found: dict[str, dict[str, ColumnInfo]] = {}
    tables: tuple[Table, ...] = ("users", "items", "events")
    for table in tables:
        frame: pl.DataFrame = getattr(data, table)
        found[table] = {}
        for name in frame.columns:
            if name in ("user", "item") or (name == AVAILABLE and table != "events"):
                continue
            values = frame[name]
            plain = not isinstance(values.dtype, pl.List | pl.Array | pl.Struct) and values.dtype != pl.Binary
            kind = data.kind(table, name)
            distinct = values.n_unique() - bool(values.null_count()) if plain and kind != "number" else None
            found[table][name] = ColumnInfo(kind, str(values.dtype), values.null_count(), distinct)
    return found
