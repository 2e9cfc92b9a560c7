"""Edges between users, items and other things: what is left of them when users and items go."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

USER_EDGES = frozenset({"social"})
"""Names of edge tables whose ends are users; the ends of all others are items, or things that are neither."""

ENDS = ("head", "tail")


def without(edges: Mapping[str, pl.DataFrame], users: pl.DataFrame, items: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The edges that lead to none of these users and items, which are rows of their tables.

    An item's name is its id and, where the table has it, its "entity_id".
    """
    names = {"users": [users["user"]], "items": [items[c] for c in ("item", "entity_id") if c in items.columns]}
    gone = {of: pl.concat([n.cast(pl.String).rename("name") for n in series]) for of, series in names.items()}
    left: dict[str, pl.DataFrame] = {}
    for name, frame in edges.items():
        lost = gone["users" if name in USER_EDGES else "items"].drop_nulls()
        ends = [column for column in ENDS if column in frame.columns]
        if len(lost) and ends:
            stays = [~pl.col(end).cast(pl.String).is_in(lost.implode()).fill_null(False) for end in ends]
            frame = frame.filter(pl.all_horizontal(stays))
        left[name] = frame
    return left


def earlier(table: pl.DataFrame, time: int) -> pl.DataFrame:
    """Rows from before `time`; a table without times is left whole."""
    return table.filter(pl.col("time") < time) if "time" in table.columns else table
