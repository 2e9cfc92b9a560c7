"""The one entry for data from outside: any usual source to a Dataset, every row checked."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import polars as pl

from tastemaker.data import check as fit
from tastemaker.data.build import assemble
from tastemaker.data.check import Check, OnBad
from tastemaker.data.columns import EVENT_ROLES, context_name, edge_columns, key_column, recognise
from tastemaker.data.duplicates import Duplicates, deduplicate, mark_duplicates
from tastemaker.data.folders import read_adjacency, read_folder, read_recbole
from tastemaker.data.formats import FORMATS, Tables, format_of, read_table
from tastemaker.data.numbering import Codes
from tastemaker.data.text import Dialect, Raw
from tastemaker.types import (
    AVAILABLE,
    DATASET_FILE,
    EVENT_COLUMNS,
    DataError,
    Dataset,
    Kind,
    NotFound,
    TimeUnit,
    UsageError,
    nearest,
    progress,
)
from tastemaker.types.dataset import Table

Named = str | Literal[False] | None


@dataclass(frozen=True)
class Wishes:
    """What the caller said of columns and rows."""

    roles: Mapping[str, Named]
    columns: Mapping[str, str | None]
    lists: Mapping[str, str]
    time_format: str | None
    duplicates: Duplicates
    on_bad: OnBad


def read(
    source: Any,
    *,
    format: str | None = None,  # noqa: A002 - the word a user looks for
    user: str | None = None,
    item: str | None = None,
    time: Named = None,
    value: Named = None,
    kind: Named = None,
    columns: Mapping[str, str | None] | None = None,
    users: Any = None,
    items: Any = None,
    edges: Mapping[str, Any] | None = None,
    duplicates: Duplicates = "keep",
    name: str | None = None,
    time_format: str | None = None,
    url: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    on_bad: OnBad = "error",
    separator: str | None = None,
    header: bool | None = None,
    quote: str | None = '"',
    encoding: str = "utf-8",
    lists: Mapping[str, str] | None = None,
    kinds: Mapping[Table, Mapping[str, Kind]] | None = None,
) -> Dataset:
    """Read events, and the tables beside them, and number users and items.

    Args:
        source: a path, a frame (Polars, pandas, Arrow), a folder, or with `url` a database query. A folder that
            `Dataset.save` wrote is loaded as it is.
        format: "csv", "parquet", "jsonl", "arrow", "pandas", "polars", "sql", "recbole", "adjacency" or "folder";
            None: told from the source.
        user, item, time, value, kind: the source's column for each; None: recognised by usual names, False: none.
        columns: further columns of the events, and the names they get here; None drops one. The names of
            `EVENT_COLUMNS` (query, session, slate, position, propensity) give a column that meaning.
        users, items: tables with a row for each user or item: a path or a frame.
        edges: tables of (head, relation, tail) by name.
        duplicates: the same user and item (and kind) more than once: "keep" all, the "first" or "last" in time, "sum"
            of the values (without values: how often) at the last time, "max", or "error".
        time_format: "s", "ms", "us", "ns", "step", or a pattern of strptime; None: told from the values.
        url, parameters: the database as SQLAlchemy names it, and values for :names in the query.
        on_bad: "error" raises with every problem counted; "skip" leaves such rows out and says so in `notes`.
        separator, header, quote, encoding: of text files.
        lists: columns of text that hold several values, and what separates these, as {"genres": "|"}.
        kinds: kinds of columns, where types and values would suggest others.

    Raises DataError with file, row and column of each problem: a missing user, item (unless events have a kind or a
    query) or time, text among numbers, lines of another form, two columns that may be the user.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", hint=nearest(format, FORMATS))
    for option, given, allowed in (("duplicates", duplicates, Duplicates), ("on_bad", on_bad, OnBad)):
        if given not in get_args(allowed):
            raise UsageError(f"{option} is one of {', '.join(get_args(allowed))}, got {given!r}")
    form = format or format_of(source, url)
    path = Path(source) if isinstance(source, str | Path) and form != "sql" else None
    if path is not None and (path / DATASET_FILE).is_file():
        found = Dataset.load(path)
        return found if name is None else replace(found, name=name)
    roles = {"user": user, "item": item, "time": time, "value": value, "kind": kind}
    wishes = Wishes(roles, columns or {}, lists or {}, time_format, duplicates, on_bad)
    dialect = Dialect(separator, header, quote, encoding)
    label = path.name if path else form
    with progress(f"reading {label}", 3) as advance:
        tables = _tables(source, form, dialect, url, parameters)
        side = {"users": tables.users, "items": tables.items}
        side |= {t: read_table(s, None, dialect) for t, s in (("users", users), ("items", items)) if s is not None}
        seen = {c for raw in (tables.events, *side.values()) if raw is not None for c in raw.frame.columns}
        if unknown := [c for c in wishes.lists if c not in seen]:
            raise NotFound(f"lists: no table has a column {unknown[0]!r}", hint=nearest(unknown[0], seen))
        graphs = {**tables.edges, **{g: read_table(s, None, dialect) for g, s in (edges or {}).items()}}
        advance(1)
        events = _events(tables.events, wishes)
        notes = {
            "source": label if path else (tables.events.file or "a frame in memory"),
            "format": form,
            **events.notes,
        }
        if tables.ignored:
            notes["ignored"] = ", ".join(tables.ignored)
        del tables  # the source's own values are no longer needed, and may be large
        advance(1)
        sides = {t: _side(raw, t[:-1], events, wishes) for t, raw in side.items() if raw is not None}
        notes |= {f"skipped {t}": table.lost for t, table in sides.items() if table.lost}
        declared = {"events": events.kinds, **{t: table.kinds for t, table in sides.items()}}
        for t, more in (kinds or {}).items():
            declared[t] = {**declared.get(t, {}), **more}
        data = assemble(
            name or ("data" if path is None else path.name if path.is_dir() else path.name.split(".")[0]),
            events.user,
            events.item,
            events.rest,
            sides["users"].frame if "users" in sides else None,
            sides["items"].frame if "items" in sides else None,
            edges={g: _edges(g, raw) for g, raw in graphs.items()},
            time_unit=events.unit,
            kinds=cast(Mapping[Table, Mapping[str, Kind]], {t: found for t, found in declared.items() if found}),
            notes=notes,
        )
        advance(1)
        return deduplicate(data, duplicates)


def _tables(source: Any, form: str, dialect: Dialect, url: str | None, parameters: Mapping[str, Any] | None) -> Tables:
    if form == "recbole":
        return read_recbole(Path(source))
    if form == "adjacency":
        return read_adjacency(Path(source))
    if form == "folder":
        return read_folder(Path(source), dialect)
    return Tables(read_table(source, form, dialect, url=url, parameters=parameters))


@dataclass(frozen=True)
class _Events:
    """Events whose every value fits: encoded ids, the other columns, and what is to be said of them."""

    user: Codes
    item: Codes
    rest: pl.DataFrame
    unit: TimeUnit | None
    names: Mapping[str, str]
    notes: Mapping[str, str]
    kinds: Mapping[str, Kind]


def _events(raw: Raw, wishes: Wishes) -> _Events:
    """Each column of the events in its type; raises, or leaves out, what does not fit."""
    for c in wishes.columns:
        if c not in raw.frame.columns:
            raise NotFound(f"columns: {raw.file or 'the table'} has no {c!r}", hint=nearest(c, raw.frame.columns))
    frame = raw.frame.drop(c for c, new in wishes.columns.items() if new is None)
    renamed = {c: new for c, new in wishes.columns.items() if new is not None}
    given = {**wishes.roles, **{new: c for c, new in renamed.items() if new in EVENT_ROLES}}
    roles = recognise(frame, given, named=raw.named, file=raw.file)
    notes = {"columns": ", ".join(f"{role}={roles[role]}" for role in EVENT_ROLES if role in roles)}
    check, text = Check(raw), not raw.typed
    no_item = "kind" in roles or "query" in roles  # a search, say
    fitted: dict[str, pl.Series] = {}
    unit: TimeUnit | None = None
    with ThreadPoolExecutor(2) as pool:
        users = pool.submit(fit.ids, check, frame[roles["user"]], roles["user"], required=True, text=text)
        items = pool.submit(fit.ids, check, frame[roles["item"]], roles["item"], required=not no_item, text=text)
        if "time" in roles:
            times = fit.times(check, frame[roles["time"]], roles["time"], wishes.time_format)
            fitted["time"], unit, notes["times"] = times.values, times.unit, times.form
        user, item = users.result(), items.result()
    for role, c in roles.items():
        if role not in ("user", "item", "time"):
            fitted[role] = _meant(check, role, c, frame[c], fitted.get("time"))
    kinds: dict[str, Kind] = {}
    for c in frame.columns:
        if c not in roles.values():
            new = renamed.get(c) or context_name(c, ("user", "item"))
            if new in fitted:
                raise UsageError(f"two columns of the events would be called {new!r}", hint="rename one with columns=")
            fitted[new] = _free(frame[c], raw, wishes.lists.get(c))
            kinds |= {new: raw.kinds[c]} if c in raw.kinds else {}
    order = [c for c in EVENT_COLUMNS if c in fitted] + [c for c in fitted if c not in EVENT_COLUMNS]
    rest = frame.drop(frame.columns).with_columns(fitted[c].alias(c) for c in order)  # has rows even without a column
    if wishes.duplicates == "error":
        mark_duplicates(check, user, item, rest)
    keep, lost = check.settle(wishes.on_bad)
    if keep is not None:
        notes["skipped"] = lost
        user, item = Codes(user.codes[keep], user.ids), Codes(item.codes[keep], item.ids)
        rest = rest.filter(pl.Series(keep))
    return _Events(user, item, rest, unit, roles, notes, kinds)


def _meant(check: Check, role: str, column: str, values: pl.Series, times: pl.Series | None) -> pl.Series:
    """A column of the events in the type its meaning asks for."""
    if role in ("kind", "query"):
        return fit.words(values)
    if role in ("session", "slate"):
        return fit.labels(check, values, column, times)
    if role == "position":
        return fit.whole_numbers(check, values, column, pl.Int32())
    if role == "propensity":
        return fit.numbers(check, values, column, low=0.0, high=1.0)
    return fit.numbers(check, values, column)


def _free(values: pl.Series, raw: Raw, separator: str | None) -> pl.Series:
    """A column without a fixed meaning: as it is, cut into its parts, or, in text, as the type its values have."""
    declared = raw.kinds.get(values.name)
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if separator is not None:
        return values.cast(pl.String).str.split(separator)
    if raw.typed or values.dtype != pl.String or declared not in (None, "number"):
        return values
    return fit.guess(values)


@dataclass(frozen=True)
class _Side:
    """A table of users or of items, the kinds it declares, and a sentence on the rows left out."""

    frame: pl.DataFrame
    kinds: Mapping[str, Kind]
    lost: str


def _side(raw: Raw, key: str, events: _Events, wishes: Wishes) -> _Side:
    """Ids checked, attributes in their types."""
    column = key_column(raw.frame, key, events.names[key], file=raw.file)
    check = Check(raw)
    codes = fit.ids(check, raw.frame[column], column, required=True, text=not raw.typed)
    rows = np.arange(len(codes.codes))
    first = np.full(len(codes.ids) + 1, len(rows))
    np.minimum.at(first, codes.codes, rows)
    check.mark(
        pl.Series((codes.codes >= 0) & (first[codes.codes] < rows)), f"the same {key} again", column, raw.frame[column]
    )
    number = pl.Series(codes.codes)
    fitted = {key: codes.ids.gather(number.set(number < 0, None))}
    for c in raw.frame.columns:
        if c == AVAILABLE and events.unit is not None and raw.frame[c].dtype != pl.Boolean:
            form = "step" if events.unit == "step" else wishes.time_format
            fitted[c] = fit.times(check, raw.frame[c], c, form, required=False).values
        elif c != column:
            fitted[f"source_{c}" if c in (key, AVAILABLE) else c] = _free(raw.frame[c], raw, wishes.lists.get(c))
    keep, lost = check.settle(wishes.on_bad, noun=f"{key}s")
    frame = pl.DataFrame([values.alias(c) for c, values in fitted.items()])
    kinds = {c: k for c, k in raw.kinds.items() if c in frame.columns and c != key}
    return _Side(frame if keep is None else frame.filter(pl.Series(keep)), kinds, lost)


def _edges(name: str, raw: Raw) -> pl.DataFrame:
    """A table of edges under the names head, relation, tail; where no relation is given it is the table's name."""
    frame = raw.frame.rename(edge_columns(raw.frame, named=raw.named, file=raw.file))
    if not raw.typed:
        frame = frame.with_columns(fit.guess(frame[c]) for c in frame.columns if frame[c].dtype == pl.String)
    if "relation" not in frame.columns:
        frame = frame.with_columns(relation=pl.lit(name))
    if missing := frame["head"].null_count() + frame["tail"].null_count():
        raise DataError(f"{raw.file or f'edges {name!r}'}: {missing:,} ends of edges are missing")
    return frame.select("head", "relation", "tail", pl.exclude("head", "relation", "tail"))
