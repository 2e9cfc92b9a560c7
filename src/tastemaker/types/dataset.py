"""A dataset: users, items, events, and what hangs on them, as Polars tables over inside numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.types.edges import earlier, without
from tastemaker.types.errors import DataError, NotFound, UsageError, nearest
from tastemaker.types.jagged import Columns, Jagged
from tastemaker.types.schema import Column, Kind, Schema, TimeUnit
from tastemaker.types.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

EVENT_COLUMNS: dict[str, pl.DataType] = {
    "user": pl.Int32(),  # number of the user
    "item": pl.Int32(),  # number of the item; missing for an event without one, as a search
    "time": pl.Int64(),  # microseconds since 1970 (time_unit "us") or a position in time ("step")
    "kind": pl.String(),  # what happened: "view", "purchase", "impression", "search", ...
    "value": pl.Float32(),  # rating, count, seconds
    "query": pl.String(),
    "session": pl.Int64(),
    "slate": pl.Int64(),  # which shown list the event belongs to
    "position": pl.Int32(),  # 0-based place in that list
    "propensity": pl.Float32(),  # probability with which the item was shown there
}
"""Event columns with a fixed meaning and type; any other column is context."""

IMPRESSION = "impression"
PASSIVE_KINDS = frozenset({IMPRESSION, "search"})
"""Kinds of event that are not a choice of the user for an item."""

AVAILABLE = "available"
"""Column of `users` and `items`: since when the row may be known, in the dataset's time unit."""

CHECK_BLOCK = 1 << 18
Table = Literal["users", "items", "events"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tables over inside numbers: row number = inside number, for users and for items.

    users: first column "user" holds the outside ids; further columns are attributes
    items: first column "item" holds the outside ids; further columns are attributes
    events: see `EVENT_COLUMNS`; sorted by user, then time; the order of equal times is kept
    edges: by name, tables of ("head", "relation", "tail") and whatever else they carry; ends are outside ids
        (text), of users in the table "social", of items or of anything else in all others
    dialogues: one row a turn ("dialogue", "turn", "speaker", "text", "items", ...), or None
    kinds: the kind of each attribute and context column; what is not named is inferred
    time_unit: "us", "step" (an order without clock), or None where events carry no time
    notes: provenance in words: source, policies applied, warnings

    Rows of `users` and `items` are sorted by `available` where the column is there, so that everything
    known at a time is a prefix, and a later arrival never moves an earlier number.
    """

    name: str
    users: pl.DataFrame
    items: pl.DataFrame
    events: pl.DataFrame
    edges: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    dialogues: pl.DataFrame | None = None
    kinds: Mapping[Table, Mapping[str, Kind]] = field(default_factory=dict)
    time_unit: TimeUnit | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table, key in ((self.users, "user"), (self.items, "item")):
            if key not in table.columns:
                raise DataError(f"the table of {key}s needs the column {key!r}, it has {table.columns}")
            if AVAILABLE in table.columns and not table[AVAILABLE].is_sorted(nulls_last=True):
                raise DataError(f"the table of {key}s must be sorted by {AVAILABLE!r}, missing values last")
        for name in ("user", "item"):
            if name not in self.events.columns:
                raise DataError(f"events need the column {name!r}, they have {self.events.columns}")
        for name, dtype in EVENT_COLUMNS.items():
            if name in self.events.columns and self.events[name].dtype != dtype:
                raise DataError(f"the event column {name!r} must be {dtype}, got {self.events[name].dtype}")
        if self.time_unit not in (None, *get_args(TimeUnit)):
            raise DataError(f"time_unit is one of {', '.join(get_args(TimeUnit))}, or None, got {self.time_unit!r}")
        if ("time" in self.events.columns) != (self.time_unit is not None):
            raise DataError(f"time_unit is given exactly where events have a time, got {self.time_unit!r}")
        if self.events["user"].null_count() or ("time" in self.events.columns and self.events["time"].null_count()):
            raise DataError("every event needs a user and, where events have times, a time")
        for name, size in (("user", self.n_users), ("item", self.n_items)):
            low, high = cast(Any, self.events[name].min()), cast(Any, self.events[name].max())
            if low is not None and (low < 0 or high >= size):
                raise DataError(f"{name} numbers in events run from 0 to {size - 1}, got {low} to {high}")
        order = self._order()
        if order is not None:
            object.__setattr__(self, "events", self.events[order])

    def _order(self) -> NDArray[np.int64] | None:
        """What sorts events by user, then time; None where they are sorted already."""
        users = self.events["user"].to_numpy()
        times = self.events["time"].to_numpy() if "time" in self.events.columns else None
        for start in range(0, len(users), CHECK_BLOCK):  # in blocks: no copies as long as the table
            block = slice(start, start + CHECK_BLOCK + 1)
            step = np.diff(users[block])
            rising = step >= 0 if times is None else (step > 0) | ((step == 0) & (np.diff(times[block]) >= 0))
            if not rising.all():
                return np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
        return None

    # -- sizes and ids

    @property
    def n_users(self) -> int:
        return self.users.height

    @property
    def n_items(self) -> int:
        return self.items.height

    @property
    def n_events(self) -> int:
        return self.events.height

    @cached_property
    def user_ids(self) -> Vocabulary:
        return Vocabulary(self.users["user"], of="user")

    @cached_property
    def item_ids(self) -> Vocabulary:
        return Vocabulary(self.items["item"], of="item")

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {self.n_users:,} users, {self.n_items:,} items, {self.n_events:,} events)"

    # -- views

    @property
    def has_time(self) -> bool:
        return self.time_unit is not None

    def carries(self) -> frozenset[str]:
        """What systems can learn from: "events", "events.time", "items.title", "edges.kg", "dialogues", ...; and which
        kinds of columns there are: "items:text", "users:category", ..."""
        found = {"events", *(f"events.{c}" for c in self.events.columns if c not in ("user", "item"))}
        found |= {f"users.{c}" for c in self.users.columns if c not in ("user", AVAILABLE)}
        found |= {f"items.{c}" for c in self.items.columns if c not in ("item", AVAILABLE)}
        found |= {f"{table}:{c.kind}" for table in ("users", "items") for c in getattr(self.schema, table).values()}
        found |= {f"edges.{name}" for name in self.edges}
        return frozenset(found | ({"dialogues"} if self.dialogues is not None else set()))

    def choices(self) -> NDArray[np.bool_] | None:
        """Where in the events [N] a user chose an item; None where every event is such a choice.

        Impressions, searches and other events without an item are no choices.
        """
        chosen: pl.Series | None = self.events["item"].is_not_null() if self.events["item"].null_count() else None
        if "kind" in self.events.columns:
            active = ~self.events["kind"].is_in(list(PASSIVE_KINDS)).fill_null(False)
            chosen = active if chosen is None else chosen & active
        return None if chosen is None or chosen.all() else chosen.to_numpy()

    def interactions(self) -> pl.DataFrame:
        """Events in which a user chose an item: see `choices`."""
        chosen = self.choices()
        return self.events if chosen is None else self.events.filter(pl.Series(chosen))

    def histories(self, columns: tuple[str, ...] = ("item",), *, passive: bool = False) -> Jagged[Columns]:
        """Each user's events, oldest first: Jagged of n_users rows; a missing item is -1."""
        rows = self.events if passive else self.interactions()
        if missing := [c for c in columns if c not in rows.columns]:
            raise NotFound(f"events have no column {missing[0]!r}", hint=nearest(missing[0], rows.columns))
        counts = np.bincount(rows["user"].to_numpy(), minlength=self.n_users)
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        filled = {c: rows[c].fill_null(-1) if c == "item" else rows[c] for c in columns}
        return Jagged(Columns({c: s.to_numpy() for c, s in filled.items()}, size=rows.height), offsets)

    def kind(self, table: Table, column: str) -> Kind:
        """The declared kind of a column, or the one its values suggest."""
        declared = self.kinds.get(table, {}).get(column)
        return declared if declared is not None else infer_kind(getattr(self, table)[column])

    @cached_property
    def schema(self) -> Schema:
        """Sizes and columns; what a system is built from."""
        skip = {"user", "item", AVAILABLE, *EVENT_COLUMNS}
        tables: dict[str, dict[str, Column]] = {}
        for table in ("users", "items", "events"):
            frame: pl.DataFrame = getattr(self, table)
            names = [c for c in frame.columns if c not in skip or (table == "events" and c in ("kind", "value"))]
            tables[table] = {name: self._column(table, frame[name]) for name in names}
        return Schema(self.n_users, self.n_items, **tables, time_unit=self.time_unit)

    def _column(self, table: Table, values: pl.Series) -> Column:
        kind = self.kind(table, values.name)
        if kind == "category":
            return Column(kind, size=values.drop_nulls().n_unique())
        if kind == "categories":
            return Column(kind, size=values.explode().drop_nulls().n_unique())
        if kind == "vector":
            lengths = values.drop_nulls().arr.len() if isinstance(values.dtype, pl.Array) else values.list.len()
            return Column(kind, width=max(1, int(cast(Any, lengths.max()) or 1)))
        return Column(kind)

    # -- derived datasets

    def with_events(self, events: pl.DataFrame, **notes: str) -> Dataset:
        """The same users and items with other events."""
        return replace(self, events=events, notes={**self.notes, **notes})

    def asof(self, time: int) -> Dataset:
        """What was known before `time`: earlier events, the users and items available by then, and their edges."""
        if not self.has_time:
            raise UsageError(f"{self.name} has no times, so nothing can be said of a point in time")

        def known(table: pl.DataFrame) -> pl.DataFrame:
            if AVAILABLE not in table.columns:
                return table
            return table.head(int((table[AVAILABLE] < time).fill_null(False).sum()))

        users, items = known(self.users), known(self.items)
        gone = self.users.slice(users.height), self.items.slice(items.height)
        return replace(
            self,
            users=users,
            items=items,
            events=self.events.filter(pl.col("time") < time),
            edges={name: earlier(frame, time) for name, frame in without(self.edges, *gone).items()},
            dialogues=None if self.dialogues is None else earlier(self.dialogues, time),
        )

    # -- identity

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the contents: the same tables give the same text on every machine."""
        total = hashlib.blake2b(digest_size=16)
        frames = {"users": self.users, "items": self.items, "events": self.events}
        frames |= {f"edges.{name}": frame for name, frame in sorted(self.edges.items())}
        if self.dialogues is not None:
            frames["dialogues"] = self.dialogues
        for name, frame in frames.items():
            for column in frame.columns:
                total.update(f"{name}.{column}:{frame[column].dtype}:{frame.height};".encode())
                _hash_column(total, frame[column])
        return total.hexdigest()

    # -- storage and constructors: see tastemaker.types.storage and tastemaker.data

    def save(self, folder: str | Path) -> Path:
        """Write Parquet tables and `dataset.toml` to a folder, replacing it in one step."""
        from tastemaker.types.storage import save_dataset

        return save_dataset(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read a folder written by `save`."""
        from tastemaker.types.storage import load_dataset

        return load_dataset(Path(folder))

    @classmethod
    def read(cls, source: Any, **options: Any) -> Dataset:
        """Read a file, folder, frame or database query; see `tastemaker.data.read` for the options."""
        from tastemaker.data import read

        return read(source, **options)

    @classmethod
    def from_csv(cls, path: str | Path, **options: Any) -> Dataset:
        """Read a CSV or TSV file of events."""
        return cls.read(path, format="csv", **options)

    @classmethod
    def from_parquet(cls, path: str | Path, **options: Any) -> Dataset:
        """Read a Parquet file of events."""
        return cls.read(path, format="parquet", **options)

    @classmethod
    def from_jsonl(cls, path: str | Path, **options: Any) -> Dataset:
        """Read a file with one JSON object a line."""
        return cls.read(path, format="jsonl", **options)

    @classmethod
    def from_polars(cls, events: pl.DataFrame | pl.LazyFrame, **options: Any) -> Dataset:
        """Take a Polars frame of events."""
        return cls.read(events, format="polars", **options)

    @classmethod
    def from_pandas(cls, events: pd.DataFrame, **options: Any) -> Dataset:
        """Take a pandas frame of events."""
        return cls.read(events, format="pandas", **options)

    @classmethod
    def from_arrow(cls, events: pa.Table, **options: Any) -> Dataset:
        """Take an Arrow table (or a file in Arrow IPC format) of events."""
        return cls.read(events, format="arrow", **options)

    @classmethod
    def from_sql(cls, query: str, *, url: str, **options: Any) -> Dataset:
        """Read the rows of a query from any database SQLAlchemy can reach."""
        return cls.read(query, format="sql", url=url, **options)

    @classmethod
    def from_recbole(cls, folder: str | Path, **options: Any) -> Dataset:
        """Read RecBole's atomic files (.inter, .user, .item, .kg, .link)."""
        return cls.read(folder, format="recbole", **options)

    @classmethod
    def from_adjacency(cls, folder: str | Path, **options: Any) -> Dataset:
        """Read LightGCN-style train.txt and test.txt: a user and the items on each line."""
        return cls.read(folder, format="adjacency", **options)


def infer_kind(values: pl.Series) -> Kind:
    """The kind a column's type and values suggest."""
    dtype = values.dtype
    if dtype == pl.Boolean:
        return "flag"
    if dtype.is_numeric() or dtype.is_temporal():
        return "number"
    if isinstance(dtype, pl.List | pl.Array):
        return "vector" if dtype.inner.is_numeric() and dtype.inner.is_float() else "categories"  # type: ignore[union-attr]
    if dtype == pl.String:
        sample = values.drop_nulls().head(1000)
        words = cast(Any, sample.str.count_matches(r"\S+").mean()) or 0
        distinct = sample.n_unique() / max(1, len(sample))
        return "text" if words > 2 and distinct > 0.5 else "category"
    return "category"


def _hash_column(total: Any, values: pl.Series) -> None:
    values = values.rechunk()
    if values.null_count():
        total.update(np.packbits(values.is_null().to_numpy()).tobytes())
    dtype = values.dtype
    if isinstance(dtype, pl.List | pl.Array):
        listed = values.arr.to_list() if isinstance(dtype, pl.Array) else values
        total.update(listed.list.len().fill_null(0).to_numpy().astype(np.int64).tobytes())
        _hash_column(total, listed.explode(empty_as_null=False, keep_nulls=False))
    elif dtype.is_numeric() or dtype == pl.Boolean or dtype.is_temporal():
        physical = values.to_physical()
        total.update(np.ascontiguousarray(physical.fill_null(0 if dtype != pl.Boolean else False).to_numpy()))
    else:
        text = values.cast(pl.String).fill_null("")
        total.update(text.str.len_bytes().to_numpy().astype(np.int64).tobytes())
        for start in range(0, len(text), 1_000_000):
            total.update("".join(text.slice(start, 1_000_000).to_list()).encode())
