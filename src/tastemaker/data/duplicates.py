"""What becomes of the same user and item met more than once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from tastemaker.data.check import Check
from tastemaker.data.numbering import Codes
from tastemaker.types import Dataset

Duplicates = Literal["keep", "first", "last", "sum", "max", "error"]


def mark_duplicates(check: Check, user: Codes, item: Codes, rest: pl.DataFrame) -> None:
    """Every row whose user, item (and kind) an earlier row has is a problem."""
    key = pl.DataFrame({"user": user.codes, "item": item.codes}).hstack(rest.select(*_kind(rest)))
    again = ~key.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    check.mark(again & pl.Series((item.codes >= 0) & (user.codes >= 0)), "the same user and item as before", "item")


def deduplicate(data: Dataset, policy: Duplicates) -> Dataset:
    """One event for each user and item (and kind): the first or the last in time, the sum, or the largest value.

    The sum stands at the last event, since it is not known before; without values it counts the events. The
    largest value keeps its own event, the earliest of equals. Events that are no choice (impressions, searches)
    stay as they are: a list that was shown twice was shown twice.
    """
    if policy in ("keep", "error"):
        return data
    key = ["user", "item", *_kind(data.events)]
    rows = data.events.with_row_index("_row")  # sorted by user, then time
    chosen = data.choices()
    mask = pl.Series("chosen", np.ones(rows.height, dtype=np.bool_) if chosen is None else chosen)
    alone, rows = rows.filter(~mask), rows.filter(mask)
    if policy == "sum":
        worth = pl.col("value").fill_null(0).sum() if "value" in rows.columns else pl.len()
        rows = rows.with_columns(value=worth.over(key).cast(pl.Float32))
    elif policy == "max" and "value" in rows.columns:
        rows = rows.sort("value", descending=True, nulls_last=True, maintain_order=True)
    kept = rows.unique(key, keep="last" if policy in ("last", "sum") else "first", maintain_order=True)
    events = pl.concat([kept, alone], how="diagonal").sort("_row").drop("_row")
    merged = data.n_events - events.height
    return data.with_events(events, duplicates=f"{policy}: {merged:,} of {data.n_events:,} events merged into others")


def _kind(events: pl.DataFrame) -> list[str]:
    return ["kind"] if "kind" in events.columns else []
