"""The log as a dataset, to fit anew on what happened since.

A list that went out becomes a row of kind "impression" for each item, with its place and the propensity of it, as in
the synthetic data; where the client told which items were really seen (events of kind "impression" that name the list),
those stand instead. An event that names a list gets its place and propensity from there, and its user and session where
it has none. Lists of shadow systems were seen by nobody and are left out.

What a user took back is no choice: an event that unsays an earlier one removes it, by the rule by which a running
server reads the log (`tastemaker.serve.histories`), so that a system learns from what it would be answering with.

Where a `base` dataset is given, its events come first, its tables stay, and its users and items keep their numbers; new
ones follow in the order of their first event. A dataset promises that what is known at a time is a prefix of its
tables. So a row of the base of which nobody knows since when it has been there counts as there when the log begins; and
only where the base has rows that are younger than the log's first events do numbers have to move. What the base has
already, the same user, item, kind and microsecond, is not added again, so that the log may be put behind a dataset that
was made of it, or behind what a bundle remembers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.serve.histories import NEUTRAL, TAKES_BACK, UNWANTED
from tastemaker.serve.log import EventLog
from tastemaker.types import (
    AVAILABLE,
    EVENT_COLUMNS,
    IMPRESSION,
    PASSIVE_KINDS,
    DataError,
    Dataset,
    UsageError,
    Vocabulary,
)

UNSAYS = UNWANTED | TAKES_BACK  # kinds that take back what was said of the item before
NO_CHOICE = UNSAYS | NEUTRAL
LEFT_OUT = NO_CHOICE - PASSIVE_KINDS  # where no kinds are asked for
TEXTS = pl.List(pl.String)
SAID: dict[str, Any] = {"id": pl.Int64, "time": pl.Int64, "value": pl.Float64, "position": pl.Int32}
SAID |= dict.fromkeys(("kind", "user", "item", "slate", "session", "query", "context"), pl.String)
SERVED: dict[str, Any] = {"time": pl.Int64, "items": TEXTS, "propensities": pl.List(pl.Float64)}
SERVED |= dict.fromkeys(("slate", "user", "session", "query", "trace"), pl.String)


def dataset_of(
    log: EventLog,
    *,
    kinds: Collection[str] | None = None,
    catalogue: pl.DataFrame | None = None,
    users: Vocabulary | None = None,
    since: int | None = None,
    base: Dataset | None = None,
    context: Collection[str] = (),
    name: str | None = None,
) -> Dataset:
    """Everything in the log, after everything in `base`.

    Args:
        kinds: of events, "impression" for lists that were shown; None: choices, impressions and searches. Kinds that
            turn an item down ("hide", "dislike") are left out unless they are named, since a dataset has no negative
            choices.
        catalogue: items, with the column "item". Beside a base: attributes of the items that the base lacks. Without
            one, its items keep their numbers, as a bundle has them.
        users: users that keep their numbers, where there is no base.
        since: only what happened at this time (microseconds since 1970) or later.
        context: names in the context of events that become columns; those that are columns of the base do anyway.
        name: of the dataset; default: that of the base, or "log".

    Raises:
        UsageError: `users` and `base` exclude each other.
        DataError: the catalogue does not fit the base's items.
    """
    if base is not None and users is not None:
        raise UsageError("a base dataset has users of its own: give either a base or users")
    start = _start(catalogue, users) if base is None else base
    rows, notes = _rows(log, kinds, since)
    rows = _in_unit(_with_context(rows, context, start.events), start)
    parts, grown = [start.events, rows], {}
    for key, table, extra in (
        ("user", start.users, None),
        ("item", start.items, catalogue if base is not None else None),
    ):
        cast = _ids_as(table[key], rows[key], None if extra is None else extra[key])
        if AVAILABLE not in table.columns and base is None:
            table = table.with_columns(pl.lit(None, pl.Int64).alias(AVAILABLE))
        extra = None if extra is None else extra.with_columns(cast(extra[key]))
        rows = rows.with_columns(cast(rows[key]))
        grown[key], ids, numbers = _grown(table.with_columns(cast(table[key])), key, rows, extra)
        own = numbers[parts[0][key].fill_null(-1).to_numpy()], numbers[Vocabulary(ids, of=key).numbers(rows[key])]
        parts = [part.with_columns(_numbered(key, n)) for part, n in zip(parts, own, strict=True)]
    old, new = parts[0], _lacking(parts[1], parts[0], start)
    if known := rows.height - new.height:
        notes["log"] += f"; {known:,} of them are in {start.name} already"
    for label in ("session", "slate"):
        new = new.with_columns(_labels(new[label], old[label] if label in old.columns else None))
    dropped = {c for c in new.columns if c not in old.columns and new[c].null_count() == new.height}
    events = pl.concat([old, new.drop(dropped if start.has_time else dropped | {"time"})], how="diagonal")
    return Dataset(
        name or start.name,
        grown["user"],
        grown["item"],
        events.select(*(c for c in EVENT_COLUMNS if c in events.columns), pl.exclude(*EVENT_COLUMNS)),
        edges=start.edges,
        dialogues=start.dialogues,
        kinds=start.kinds,
        time_unit=start.time_unit,
        notes={**start.notes, **notes},
    )


def _start(catalogue: pl.DataFrame | None, users: Vocabulary | None) -> Dataset:
    """The users and items that are known, without an event."""
    people = pl.DataFrame(schema={"user": pl.String}) if users is None else users.series.to_frame("user")
    items = pl.DataFrame(schema={"item": pl.String}) if catalogue is None else catalogue
    events = pl.DataFrame(schema={c: EVENT_COLUMNS[c] for c in ("user", "item", "time")})
    return Dataset("log", people, items, events, time_unit="us")


# -- rows, with ids as the log has them


def _rows(log: EventLog, kinds: Collection[str] | None, since: int | None) -> tuple[pl.DataFrame, dict[str, str]]:
    """Impressions and events in the order of their times, and what is to be said of them."""
    said, served = _all(log.events(), SAID), _all(log.slates(), SERVED)
    shadow = pl.col("trace").str.json_path_match("$.shadow") == "true"
    served = served.filter(~shadow.fill_null(False), pl.col("items").list.len() > 0)
    shown = _shown(served)
    told = said.filter(kind=IMPRESSION)["slate"].drop_nulls().unique()
    places = shown.select("slate", "item", "propensity", place="position").unique(["slate", "item"], keep="first")
    owners = served.select("slate", owner="user", visit="session")
    said = (
        said.join(owners, on="slate", how="left", maintain_order="left")
        .join(places, on=["slate", "item"], how="left", maintain_order="left")
        .with_columns(pl.coalesce(c, of) for c, of in (("user", "owner"), ("session", "visit"), ("position", "place")))
        .drop("owner", "visit", "place")
    )
    kept = _not_taken_back(said)
    taken_back = said.height - kept.height
    wanted = ~pl.col("kind").is_in(LEFT_OUT) if kinds is None else pl.col("kind").is_in(kinds)
    shown = shown.filter(~pl.col("slate").is_in(told.implode())).with_columns(kind=pl.lit(IMPRESSION))
    rows = pl.concat([shown, kept], how="diagonal").filter(wanted).sort("time", maintain_order=True)
    if since is not None:
        rows = rows.filter(pl.col("time") >= since)
    of_nobody = rows["user"].null_count()
    rows = rows.filter(pl.col("user").is_not_null())
    n_shown = int((rows["kind"] == IMPRESSION).sum())
    text = f"{rows.height - n_shown:,} events and {n_shown:,} impressions"
    if taken_back:
        text += f"; {taken_back:,} choices were taken back"
    if of_nobody:
        text += f"; {of_nobody:,} rows of users without an id are left out"
    types = {name: EVENT_COLUMNS[name] for name in ("value", "position", "propensity")}
    return rows.drop("id").cast(types), {"log": text}  # type: ignore[arg-type]


def _all(blocks: Iterable[pl.DataFrame], schema: Mapping[str, Any]) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=schema), *(block.select(*schema) for block in blocks)])


def _shown(served: pl.DataFrame) -> pl.DataFrame:
    """A row for each item of each list."""
    unknown = pl.col("items").list.eval(pl.when(pl.element().is_null()).then(0.0))  # a missing value for each item
    return served.select(
        *("time", "user", "slate", "session", "query"),
        item="items",
        position=pl.int_ranges(pl.col("items").list.len(), dtype=pl.Int32),
        propensity=pl.coalesce("propensities", unknown),
    ).explode("item", "position", "propensity")


def _not_taken_back(said: pl.DataFrame) -> pl.DataFrame:
    """Events without the choices that the same user unsaid later."""
    key = ["user", "item"]
    unsaid = said.filter(pl.col("kind").is_in(UNSAYS)).drop_nulls(key).group_by(key).agg(unsaid=pl.col("id").max())
    choice = ~pl.col("kind").is_in(NO_CHOICE)
    late = (pl.col("id") < pl.col("unsaid")).fill_null(False)
    return said.join(unsaid, on=key, how="left", maintain_order="left").filter(~(choice & late)).drop("unsaid")


def _with_context(rows: pl.DataFrame, names: Collection[str], events: pl.DataFrame) -> pl.DataFrame:
    """What is wanted of the events' contexts as columns, in the types that the base has them in."""
    own = {c: dtype for c, dtype in events.schema.items() if c not in EVENT_COLUMNS and not dtype.is_nested()}
    columns = []
    for name in dict.fromkeys([*names, *own]):
        if name in EVENT_COLUMNS or "'" in name or "\\" in name:
            raise UsageError(f"no column of contexts can be called {name!r}", hint="choose another name in the context")
        text = pl.col("context").str.json_path_match(f"$['{name}']")
        dtype = own.get(name, pl.String())
        value = text == "true" if dtype == pl.Boolean else text.cast(dtype, strict=False)
        columns.append(value.alias(name))
    return rows.with_columns(columns).drop("context")


def _in_unit(rows: pl.DataFrame, start: Dataset) -> pl.DataFrame:
    """Times as the base has them: where it has steps, each distinct time is one more."""
    if start.time_unit != "step":
        return rows
    last = start.events["time"].max()
    begin = 0 if last is None else int(last) + 1  # type: ignore[arg-type]
    return rows.with_columns((pl.col("time").rank("dense").cast(pl.Int64) - 1 + begin).alias("time"))


def _lacking(new: pl.DataFrame, old: pl.DataFrame, start: Dataset) -> pl.DataFrame:
    """Rows that the base lacks. A base without kinds, as a bundle remembers it, has choices alone."""
    if start.time_unit != "us" or not old.height:
        return new
    key = [c for c in ("user", "item", "time", "kind") if c in old.columns]
    rows = new.with_row_index("_row")
    there = rows.join(old.select(key), on=key, how="semi", nulls_equal=True)
    if "kind" not in key:
        there = there.filter(~pl.col("kind").is_in(PASSIVE_KINDS), pl.col("item").is_not_null())
    return rows.join(there.select("_row"), on="_row", how="anti", maintain_order="left").drop("_row")


def _labels(texts: pl.Series, old: pl.Series | None) -> pl.Series:
    """Sessions or lists as numbers, in the order of their first event, after those of the base."""
    last = None if old is None else old.max()
    begin = 0 if last is None else int(last) + 1  # type: ignore[arg-type]
    distinct = texts.drop_nulls().unique(maintain_order=True)
    numbers = pl.Series(np.arange(begin, begin + len(distinct)), dtype=pl.Int64)
    return texts.replace_strict(distinct, numbers, default=None, return_dtype=pl.Int64)


# -- tables


def _ids_as(own: pl.Series, *others: pl.Series | None) -> Any:
    """A function that makes ids of one type: whole numbers where the base has such and every other id is one."""

    def whole(ids: pl.Series) -> pl.Series:
        return ids.cast(pl.String).str.to_integer(strict=False)

    given = [ids for ids in others if ids is not None]
    if own.dtype.is_integer() and all(whole(ids).null_count() == ids.null_count() for ids in given):
        return whole
    return lambda ids: ids.cast(pl.String)


def _grown(
    table: pl.DataFrame, key: str, rows: pl.DataFrame, extra: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.Series, NDArray[np.int32]]:
    """The table with the rows it lacked; its ids, then theirs; and the number that each of these has now.

    The last number is -1, so that a missing id stays missing.
    """
    seen = rows.select(key, _first="time").drop_nulls(key).unique(key, keep="first", maintain_order=True)
    more = seen.select(key).join(table, on=key, how="anti", maintain_order="left")
    if extra is not None:
        more = more.join(extra.join(table, on=key, how="anti"), on=key, how="full", coalesce=True)
    try:
        more = more.select(pl.col(c).cast(dtype) for c, dtype in table.schema.items() if c in more.columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"new {key}s do not fit the columns of the base: {error}") from error
    whole = pl.concat([table, more], how="diagonal").join(seen, on=key, how="left", maintain_order="left")
    whole = whole.with_row_index("_number")
    if AVAILABLE in whole.columns:
        there = pl.when(pl.col("_number") < table.height).then(pl.lit(rows["time"].min(), pl.Int64))
        available = pl.min_horizontal(pl.coalesce(AVAILABLE, there), "_first").cast(pl.Int64)
        whole = whole.with_columns(available.alias(AVAILABLE)).sort(AVAILABLE, nulls_last=True, maintain_order=True)
    numbers = np.full(whole.height + 1, -1, np.int32)
    numbers[whole["_number"].to_numpy()] = np.arange(whole.height, dtype=np.int32)
    ids = whole.sort("_number")[key]
    return whole.select(table.columns), ids, numbers


def _numbered(key: str, numbers: NDArray[np.int32]) -> pl.Series:
    column = pl.Series(key, numbers)
    return column.set(column < 0, None)
