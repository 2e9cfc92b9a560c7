"""Folders of Parquet files as datasets: how a folder is described, and the one reader of such descriptions.

Ends of edges that are items or users are their outside ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tastemaker.data.build import build
from tastemaker.types import DataError, Dataset, Kind, NotFound
from tastemaker.types.dataset import Table

SECOND = 1_000_000
TEXTS = frozenset(
    {"title", "description", "short_desc", "text", "summary", "profile", "explanation", "preference_text"}
    | {"taste", "taste_short", "reason", "high_rating", "low_rating"}
)
FRONT = {
    "events": ("user", "item", "time"),
    "users": ("user",),
    "items": ("item",),
    "edges": ("head", "relation", "tail"),
}


@dataclass(frozen=True)
class Columns:
    """A file, and its columns: new name -> old name or expression; the others keep their names, unless `only`."""

    file: str
    named: Mapping[str, str | pl.Expr]
    only: bool = False
    drop: tuple[str, ...] = ()
    unique: str | None = None  # keep the first row of each value of this column


def of(
    file: str, *, only: bool = False, drop: tuple[str, ...] = (), unique: str | None = None, **named: str | pl.Expr
) -> Columns:
    """`Columns` in one line."""
    return Columns(file, named, only, drop, unique)


Joined = Columns | tuple[Columns, ...]
"""One file, or several joined on the columns they share; the first says which rows there are."""


@dataclass(frozen=True)
class Parts:
    """Tables under the names used here, and the folder they came from."""

    folder: Path
    events: pl.DataFrame
    users: pl.DataFrame | None = None
    items: pl.DataFrame | None = None


@dataclass(frozen=True)
class Pack:
    """Where a data set's tables are.

    clock: what "time" counts: "s" (seconds), "us" (microseconds) since 1970, or "step" (places in a history)
    link: item column with the item's entity in the knowledge graph
    listed: leave out events whose item has no row in `items`; seen: leave out items without an event
    finish: what no column map can say
    note: what a reader of results should know
    """

    events: Joined
    users: Joined | None = None
    items: Joined | None = None
    edges: Mapping[str, Joined] = field(default_factory=dict)
    clock: str | None = None
    folder: str | None = None
    link: str | None = None
    listed: bool = False
    seen: bool = False
    categories: tuple[str, ...] = ()
    finish: Callable[[Parts], Parts] | None = None
    note: str = ""

    def fits(self, folder: Path) -> bool:
        """Whether a folder has the files that the events are read from."""
        return all((folder / f"{part.file}.parquet").is_file() for part in _several(self.events))


def read_pack(name: str, pack: Pack, folder: str | Path) -> Dataset:
    """The dataset that `pack` describes, under `name`, from a folder of Parquet files.

    Raises NotFound for a file that is not there, DataError for one of another form.
    """
    folder = Path(folder)
    try:
        users, items = (None if t is None else _table(folder, t) for t in (pack.users, pack.items))
        parts = Parts(folder, _table(folder, pack.events), users, items)
        parts = pack.finish(parts) if pack.finish else parts
        events, users, items = parts.events, parts.users, parts.items
        if pack.listed and items is not None:
            events = events.join(items.select("item"), on="item", how="semi", maintain_order="left")
        if pack.seen and items is not None:
            items = items.join(events.select("item"), on="item", how="semi", maintain_order="left")
        edges = {edge: _edges(_table(folder, table)) for edge, table in pack.edges.items()}
        if pack.link and items is not None:
            edges["kg"] = _linked(edges["kg"], items, pack.link)
            items = items.drop(pack.link)
        tables: dict[Table, pl.DataFrame | None] = {
            "users": users,
            "items": items,
            "events": _timed(events, pack.clock),
        }
        ready = {t: _ordered(frame, t) for t, frame in tables.items() if frame is not None}
    except pl.exceptions.PolarsError as error:
        what = str(error).strip().splitlines()[0]
        raise DataError(f"{folder} does not hold {name} in the form that is read here: {what}") from error
    return build(
        name,
        ready["events"],
        ready.get("users"),
        ready.get("items"),
        edges=edges,
        time_unit=None if pack.clock is None else "step" if pack.clock == "step" else "us",
        kinds={t: k for t, frame in ready.items() if (k := _kinds(frame, pack.categories))},
        notes={"about": pack.note} if pack.note else {},
    )


# -- the reader


def _several(table: Joined) -> tuple[Columns, ...]:
    return (table,) if isinstance(table, Columns) else table


def _table(folder: Path, table: Joined) -> pl.DataFrame:
    first, *others = (_file(folder, columns) for columns in _several(table))
    for other in others:
        shared = [c for c in first.columns if c in other.columns]
        first = first.join(other, on=shared, how="left", maintain_order="left")
    return first


def _file(folder: Path, columns: Columns) -> pl.DataFrame:
    path = folder / f"{columns.file}.parquet"
    if not path.is_file():
        raise NotFound(f"{folder} has no {path.name}", hint="name the folder that holds the data set's files")
    frame = pl.read_parquet(path, glob=False)
    named = [(pl.col(old) if isinstance(old, str) else old).alias(new) for new, old in columns.named.items()]
    done = {*columns.drop, *columns.named, *(old for old in columns.named.values() if isinstance(old, str))}
    frame = frame.select(*named, *([] if columns.only else [c for c in frame.columns if c not in done]))
    return frame.unique(columns.unique, keep="first", maintain_order=True) if columns.unique else frame


def _timed(events: pl.DataFrame, clock: str | None) -> pl.DataFrame:
    """Times as whole microseconds, or steps."""
    if clock is None:
        return events
    return events.with_columns(pl.col("time").cast(pl.Int64) * (SECOND if clock == "s" else 1))


def _edges(edges: pl.DataFrame) -> pl.DataFrame:
    return _ordered(edges.with_columns(pl.col("relation").cast(pl.String)), "edges")


def _ordered(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    front = [c for c in FRONT[table] if c in frame.columns]
    return frame.select(*front, pl.exclude(front))


def _linked(edges: pl.DataFrame, items: pl.DataFrame, column: str) -> pl.DataFrame:
    """Edges whose ends are ids of items where they stand for one; numbers of other entities are set apart."""
    links = items.select(pl.col(column).alias("_entity"), pl.col("item").cast(pl.String).alias("_item")).drop_nulls()
    for end in ("head", "tail"):
        own = pl.col(end) if edges[end].dtype == pl.String else pl.format("entity:{}", end)
        edges = edges.join(links, left_on=end, right_on="_entity", how="left", maintain_order="left")
        edges = edges.with_columns(pl.coalesce("_item", own).alias(end)).drop("_item")
    return edges


def _kinds(frame: pl.DataFrame, categories: tuple[str, ...]) -> dict[str, Kind]:
    """Kinds that types and values would not tell: texts by their name, numbers that are labels."""
    kinds: dict[str, Kind] = {}
    for c in frame.columns:
        if c in TEXTS:
            kinds[c] = "text"
        elif c in categories or c.endswith("_id"):
            kinds[c] = "category"
    return kinds


__all__ = ["SECOND", "Columns", "Pack", "Parts", "of", "read_pack"]
