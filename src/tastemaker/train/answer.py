"""From ids and words of the outside world to requests, and from slates back to ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.data import allowed_by
from tastemaker.types import (
    CapabilityError,
    Columns,
    ItemFilter,
    Jagged,
    NotFound,
    Requests,
    Slates,
    UsageError,
    concat,
    nearest,
    request_seeds,
)

if TYPE_CHECKING:
    from tastemaker.train.bundle import Bundle

Predicate = str | pl.Expr


def recommend(
    bundle: Bundle,
    users: Iterable[Any] | None = None,
    *,
    history: Iterable[Iterable[Any]] | None = None,
    k: int = 10,
    exclude: Iterable[Any] = (),
    candidates: Iterable[Any] | None = None,
    filter: Predicate | None = None,  # noqa: A002 - the word a user looks for
    seen: bool = False,
    columns: Sequence[str] | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Recommendations as a table: request, user, rank, item, score, and columns of the catalogue.

    Args:
        users: outside ids. Their stored histories are used; `history` rows, if also given, follow them.
        history: for each request, outside ids of items, oldest first.
        exclude, candidates: outside ids of items, for all requests.
        filter: a Polars expression over the catalogue's columns, or text as in SQL ("year > 1990"), whoever wrote it.
        seen: whether items of the history may be recommended again.
        columns: catalogue columns to show; default: the title, where there is one.
        seed: for systems that draw at random.
    """
    requests = ask(bundle, users, history=history, seed=seed)
    n = requests.n
    if not seen and requests.history is not None:
        requests = requests.with_(exclude=requests.items())
    if excluded := list(exclude):
        rows = _same_for_all(bundle, excluded, n)
        both = rows if requests.exclude is None else _join_rows(requests.exclude, rows)
        requests = requests.with_(exclude=both)
    if candidates is not None:
        requests = requests.with_(candidates=_same_for_all(bundle, list(candidates), n))
    if filter is not None:
        requests = requests.with_(filter=resolve_filter(bundle.catalogue, filter, n))
    slates = bundle.retriever.retrieve(requests, k)
    return as_table(bundle, slates, users=None if users is None else requests.users, columns=columns)


def ask(
    bundle: Bundle,
    users: Iterable[Any] | None = None,
    *,
    history: Iterable[Iterable[Any]] | None = None,
    seed: int = 0,
) -> Requests:
    """Requests for users by id and for histories of item ids, completed with what the bundle stores."""
    ids = None if users is None else [users] if isinstance(users, str) else list(users)
    rows = None if history is None else [[h] if isinstance(h, str) else list(h) for h in history]
    if ids is None and rows is None:
        raise UsageError("say for whom: users by id, or histories of items", hint="recommend(users=['u1'])")
    if ids is not None and rows is not None and len(ids) != len(rows):
        raise UsageError(f"{len(ids)} users need as many histories, got {len(rows)}")
    n = len(ids) if ids is not None else len(rows or [])
    numbers = None if ids is None else bundle.users.numbers(ids)
    given = None if rows is None else _given_histories(bundle, rows)
    stored = None if numbers is None else _stored_histories(bundle, ids or [], numbers, required=given is None)
    parts = [part for part in (stored, given) if part is not None]
    joined = parts[0] if len(parts) == 1 else _join_columns(parts[0], parts[1]) if parts else None
    requests = Requests(n, users=numbers, history=joined, seeds=request_seeds(n, seed))
    if lacking := bundle.info.needs - requests.given():
        raise CapabilityError(
            f"{bundle.name} needs {', '.join(sorted(lacking))} to answer, which this call does not give",
            hint="give a history, or fit with histories=True so that the bundle stores them",
        )
    return requests


def resolve_filter(catalogue: pl.DataFrame, predicate: Predicate, n: int) -> ItemFilter:
    """A predicate over the catalogue's columns as a bitmap that holds for all `n` requests."""
    which = np.zeros(n, dtype=np.int32)
    if isinstance(predicate, str):
        return ItemFilter(allowed_by(predicate, catalogue), which)
    try:
        allowed = catalogue.select(predicate.alias("allowed"))["allowed"]
    except pl.exceptions.PolarsError as error:
        what = NotFound if isinstance(error, pl.exceptions.ColumnNotFoundError) else UsageError
        columns = "the catalogue has the columns " + ", ".join(catalogue.columns)
        raise what(f"the filter cannot be applied: {str(error).splitlines()[0]}", hint=columns) from error
    if allowed.dtype != pl.Boolean or len(allowed) != catalogue.height:
        raise UsageError(f"a filter says yes or no for every item, this one gives {allowed.dtype} [{len(allowed)}]")
    return ItemFilter(allowed.fill_null(False).to_numpy(), which)


def as_table(
    bundle: Bundle,
    slates: Slates,
    *,
    users: NDArray[np.int32] | None = None,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Slates as rows with outside ids and columns of the catalogue."""
    shown = [c for c in ("title", "name") if c in bundle.catalogue.columns][:1] if columns is None else list(columns)
    if missing := [c for c in shown if c not in bundle.catalogue.columns]:
        raise NotFound(
            f"the catalogue has no column {missing[0]!r}", hint=nearest(missing[0], bundle.catalogue.columns)
        )
    row, rank = np.nonzero(slates.items >= 0)
    numbers = slates.items[row, rank]
    table = {"request": pl.Series(row, dtype=pl.Int64)}
    if users is not None:
        table["user"] = bundle.users.ids(users[row])
    table |= {
        "rank": pl.Series(rank + 1),
        "item": bundle.items.ids(numbers),
        "score": pl.Series(slates.scores[row, rank]),
    }
    return pl.DataFrame(table).hstack(bundle.catalogue[numbers].select(shown))


def _given_histories(bundle: Bundle, rows: list[list[Any]]) -> Jagged[Columns]:
    flat = [item for row in rows for item in row]
    numbers = bundle.items.numbers(flat)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    known = Jagged(numbers, offsets).where(numbers >= 0)
    if len(flat) and not len(known.values):
        raise NotFound(f"no item of the histories is known, the first is {flat[0]!r}", hint=bundle.items.like(flat[0]))
    return Jagged(Columns(item=known.values), known.offsets)


def _stored_histories(
    bundle: Bundle, ids: list[Any], numbers: NDArray[np.int32], *, required: bool
) -> Jagged[Columns] | None:
    if bundle.histories is None:
        return None
    if required and "history" in bundle.info.needs and (numbers < 0).any():
        unknown = ids[int(np.flatnonzero(numbers < 0)[0])]
        hint = "for a new user give a history; " + bundle.users.like(unknown)
        raise NotFound(f"no user has the id {unknown!r}", hint=hint)
    known = bundle.histories.take(np.maximum(numbers, 0)) if len(bundle.histories) else None
    if known is None:
        return Jagged(Columns(item=np.empty(0, dtype=np.int32)), np.zeros(len(ids) + 1, dtype=np.int64))
    return known.where(numbers[known.rows] >= 0)


def _same_for_all(bundle: Bundle, ids: list[Any], n: int) -> Jagged[NDArray[np.int32]]:
    numbers = bundle.items.numbers(ids)
    if (numbers < 0).any():
        unknown = ids[int(np.flatnonzero(numbers < 0)[0])]
        raise NotFound(f"no item has the id {unknown!r}", hint=bundle.items.like(unknown))
    return Jagged(np.tile(numbers, n), np.arange(n + 1, dtype=np.int64) * len(numbers))


def _join_rows(left: Jagged[Any], right: Jagged[Any]) -> Jagged[Any]:
    """Rows of both, the right one's values after the left one's."""
    n = len(left)
    stacked = concat([left, right])
    return Jagged.from_rows(np.concatenate([left.rows, right.rows]), stacked.values, n)


def _join_columns(left: Jagged[Columns], right: Jagged[Columns]) -> Jagged[Columns]:
    """Histories one after the other; columns that one side lacks (times of a new event) are left out."""
    shared = [name for name in left.values if name in right.values]
    cut = [Jagged(Columns({name: part.values[name] for name in shared}), part.offsets) for part in (left, right)]
    joined: Jagged[Columns] = _join_rows(cut[0], cut[1])
    return joined
