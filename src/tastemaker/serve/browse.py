"""Routes for looking around: what the catalogue's columns hold, many items at once, and some drawn by chance.

A form of filters is made from the columns alone: what kind each is, how far it reaches, which values it has. That is
computed once for an entry, since an entry never changes, and only when somebody asks.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from tastemaker.serve import models
from tastemaker.serve.desk import card, cards
from tastemaker.serve.entry import Entry, plain
from tastemaker.serve.problems import RESPONSES
from tastemaker.serve.routes import OnPath, json
from tastemaker.serve.runtime import Runtime
from tastemaker.types import generator

MOST_VALUES = 60  # of a column that are named, those of the most items
FEW = 0.5  # a column of texts with more different values than this share of the items is no column of categories
PROBED = 20_000  # rows at the top of the catalogue by which a column of texts is judged


class ColumnInfo(BaseModel):
    """A column, as a filter needs to know it."""

    name: str
    kind: str = Field(description="number, flag, category (one of some), categories (some of some), text or other.")
    low: float | None = None
    high: float | None = None
    whole: bool = Field(False, description="Whether its numbers are whole.")
    values: list[dict[str, Any]] = Field([], description="The most frequent values, each with the number of its items.")
    distinct: int | None = Field(None, description="How many different values there are.")
    missing: int = Field(0, description="Items without a value.")


class ColumnsInfo(BaseModel):
    columns: list[ColumnInfo]


class Wanted(models.Body):
    """Items by id."""

    items: Annotated[list[models.Id], Field(min_length=1, max_length=models.MOST_HISTORY)]
    system: models.Name | None = None


class Sample(BaseModel):
    """Some users, and some items that many know."""

    users: list[models.Id]
    items: list[models.Item]


def browse(runtime: Runtime) -> APIRouter:
    """The routes."""
    router = APIRouter(responses=RESPONSES, tags=["look"])

    @router.get("/systems/{name}/columns", response_model=ColumnsInfo)
    async def columns(name: OnPath) -> Response:
        """The catalogue's columns: kinds, ranges, the most frequent values. Filters are made from this."""
        return json({"columns": await runtime.apart(columns_of, runtime.entry(name))})

    @router.get("/systems/{name}/sample", response_model=Sample)
    async def sample(
        name: OnPath,
        users: Annotated[int, Query(ge=0, le=100)] = 1,
        items: Annotated[int, Query(ge=0, le=100)] = 0,
        seed: Annotated[int | None, Query(ge=0, le=2**53)] = None,
    ) -> Response:
        """Users drawn by chance, and items drawn by chance in favour of what was chosen often, so that some are known
        to whoever looks. The same seed draws the same."""
        entry = runtime.entry(name)
        found = await runtime.apart(drawn, entry, users, items, secrets.randbits(53) if seed is None else seed)
        return json({"users": found[0], "items": [card(entry, number) for number in found[1]]})

    @router.post("/items/lookup", response_model=models.Items)
    async def lookup(body: Wanted) -> Response:
        """These items with all their columns, in this order; one that is unknown has its id alone."""
        found = await runtime.apart(cards, runtime.entry(body.system), body.items)
        return json({"items": found, "total": len(found), "next": None})

    return router


_kept: WeakKeyDictionary[Entry, list[dict[str, Any]]] = WeakKeyDictionary()  # gone with an entry that is replaced


def columns_of(entry: Entry) -> list[dict[str, Any]]:
    """Every column of an entry's catalogue but the ids and the titles, as a filter needs to know it."""
    if (known := _kept.get(entry)) is None:
        skipped = ("item", entry.title_column)
        known = _kept[entry] = [described(series) for series in entry.catalogue if series.name not in skipped]
    return known


def described(series: pl.Series) -> dict[str, Any]:
    """One column: its kind, and what belongs to the kind."""
    dtype = series.dtype
    about: dict[str, Any] = {"name": series.name, "kind": "other", "missing": series.null_count()}
    if dtype == pl.Boolean:
        return {**about, "kind": "flag"}
    if dtype.is_numeric():
        reach = series.drop_nulls() if dtype.is_integer() else series.drop_nulls().drop_nans()
        ends = {} if reach.is_empty() else {"low": plain(reach.min()), "high": plain(reach.max())}
        return {**about, "kind": "number", "whole": dtype.is_integer(), **ends}
    if isinstance(dtype, pl.List) and dtype.inner in (pl.String, pl.Categorical, pl.Enum):
        return {**about, "kind": "categories", **_counted(series.explode(), series.name)}
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        some = series.head(PROBED).drop_nulls()
        if len(some) and some.n_unique() <= max(MOST_VALUES, FEW * len(some)):
            return {**about, "kind": "category", **_counted(series, series.name)}
        return {**about, "kind": "text"}
    return about


def _counted(values: pl.Series, name: str) -> dict[str, Any]:
    counts = values.drop_nulls().cast(pl.String).rename("value").value_counts(name="count")
    top = counts.sort(["count", "value"], descending=[True, False]).head(MOST_VALUES)
    return {"values": top.to_dicts(), "distinct": counts.height}


def drawn(entry: Entry, users: int, items: int, seed: int) -> tuple[list[Any], list[int]]:
    """Ids of users and numbers of items, each at most once."""
    rng = generator(seed, "browse")
    own = entry.bundle.users.series
    who = rng.choice(len(own), min(users, len(own)), replace=False)
    weights = np.ones(len(entry.ids))
    if (stored := entry.bundle.histories) is not None and len(stored):
        chosen = stored.values["item"]
        weights += np.bincount(chosen[chosen >= 0], minlength=len(entry.ids))
    # the largest of log(u) / weight: drawn without replacement, in proportion (Efraimidis, Spirakis, 2006)
    keys = np.log(rng.random(len(weights))) / weights
    return own.gather(who).to_list(), np.argsort(-keys)[:items].tolist()
