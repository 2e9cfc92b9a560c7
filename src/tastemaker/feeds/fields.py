"""Fields: the columns of users, items and events that a ranker reads, and the frozen code that turns them into numbers.

Every category has a row of one table: column c says "unknown" with row c, and values follow in the order in which they
were learnt, from the training part alone. The vocabulary only grows, so rows keep their meaning when a later fit goes
on from this one. Numbers are standardised by the training part's mean and deviation; what is missing is the mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.feeds.labels import Task
from tastemaker.types import BundleError, Columns, Dataset, Jagged, Kind, Schema, State, UsageError, nearest

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
TABLES = ("users", "items", "events")
READABLE: tuple[Kind, ...] = ("category", "categories", "number", "flag")
CLIP = 5.0  # deviations from the mean beyond which numbers are cut
ARRAYS = ("vocabulary", "numbers", "users", "items", "user_numbers", "item_numbers", "bags", "bag_offsets")


@dataclass(frozen=True)
class Fields:
    """Which columns are read, by kind, each named "<table>.<column>" and in the order users, items, events.

    A row of features has a token for the user, the item, each category, each bag and each number, in this order.

    capacity: rows of the table of categories, enough for the values of the schema with room to grow
    behaviours: values from which on an event of a history stands out, beside having happened at all
    """

    n_users: int
    n_items: int
    categories: tuple[str, ...]
    bags: tuple[str, ...]
    numbers: tuple[str, ...]
    capacity: int
    behaviours: tuple[float, ...] = ()
    timed: bool = True

    @classmethod
    def of(cls, schema: Schema, columns: Sequence[str] | None, tasks: Sequence[Task]) -> Fields:
        """The named columns; None: all categories, bags, numbers and flags that are no label and no id.

        Raises:
            UsageError: there is no such column, it is of a kind that is not read, or it is the label.
        """
        known = {f"{table}.{name}": one for table in TABLES for name, one in getattr(schema, table).items()}
        labels = {f"events.{name}" for name in ("kind", "value", *(task.column for task in tasks))}
        if columns is None:
            rows = {"users": schema.n_users, "items": schema.n_items}
            columns = [
                name
                for name, one in known.items()
                if one.kind in READABLE
                and name not in labels
                and not (one.kind == "categories" and name.startswith("events."))
                and not (one.size is not None and not 1 < one.size <= rows.get(name.split(".")[0], 2 * one.size) / 2)
            ]
        for name in columns:
            if name not in known:
                raise UsageError(f"no column {name!r} can be read", hint=nearest(name, known))
            if known[name].kind not in READABLE or (known[name].kind == "categories" and name.startswith("events.")):
                raise UsageError(f"{name} is of kind {known[name].kind!r}, which is not read here")
            if name in labels:
                raise UsageError(f"{name} says what is to be predicted, so it cannot be read")
        ordered = [name for name in known if name in set(columns)]
        of_kind = {kind: tuple(name for name in ordered if known[name].kind == kind) for kind in READABLE}
        coded = tuple(name for name in ordered if known[name].kind in ("category", "flag"))
        wanted = sum((known[name].size or 2) + 1 for name in (*coded, *of_kind["categories"]))
        return cls(
            schema.n_users,
            schema.n_items,
            coded,
            of_kind["categories"],
            of_kind["number"],
            1 << max(1, wanted - 1).bit_length(),
            tuple(t.threshold for t in tasks if t.threshold is not None),
            schema.time_unit is not None,
        )

    @property
    def n_tokens(self) -> int:
        return 2 + len(self.categories) + len(self.bags) + len(self.numbers)

    @property
    def item_places(self) -> tuple[int, ...]:
        """Tokens that an event of a history has too: the item's own and those of its categories."""
        return (1, *(2 + n for n, name in enumerate(self.categories) if name.startswith("items.")))

    def named(self, kind: Iterable[str], table: str) -> list[tuple[int, str]]:
        """Place among fields of a kind, and column, of those of one table."""
        return [(n, name.split(".", 1)[1]) for n, name in enumerate(kind) if name.startswith(f"{table}.")]


class Encoder:
    """Turns numbers of users and items, and context, into coded fields; holds what it learnt as arrays (`state`).

    vocabulary: JSON of [column, value] for each row of the table after those of "unknown"
    numbers: [F, 2] mean and 1 / deviation of each number
    users, items: [1 + U, ..], [1 + I, ..] the own code (0: unknown) and those of the categories of each
    bags: codes of the bags of all users, then all items, one table after the other; row 0 of each is the unknown one
    """

    def __init__(self, fields: Fields, state: State) -> None:
        self.fields = fields
        self.arrays = {name: np.asarray(state[name]) for name in ARRAYS}
        self.bags = Jagged(self.arrays["bags"], self.arrays["bag_offsets"])
        self.user_codes, self.item_codes = self.arrays["users"], self.arrays["items"]
        self.user_numbers, self.item_numbers = self.arrays["user_numbers"], self.arrays["item_numbers"]
        self.n_user_bags = len(fields.named(fields.bags, "users"))
        self.n_item_bags = len(fields.named(fields.bags, "items"))

    @cached_property
    def words(self) -> Mapping[str, Mapping[str, int]]:
        """Column -> value -> row of the table."""
        return _words(self.fields, json.loads(self.arrays["vocabulary"].tobytes()))

    def context(self, columns: Mapping[str, Any], n: int) -> tuple[Ints, Floats]:
        """Codes [n, ..] and numbers [n, ..] of the fields of events, from columns by name; one not given is unknown."""
        f = self.fields
        codes = [
            _codes(_series(columns, column, n), self.words[f.categories[at]], at)
            for at, column in f.named(f.categories, "events")
        ]
        scale = self.arrays["numbers"]
        numbers = [_scaled(_series(columns, column, n), scale[at]) for at, column in f.named(f.numbers, "events")]
        return _stacked(codes, n, np.int64), _stacked(numbers, n, np.float32)

    @classmethod
    def check(cls, fields: Fields, state: State) -> Encoder:
        """An encoder from arrays that may come from a stranger.

        Raises:
            BundleError: they are not whole or do not fit the fields.
        """
        try:
            made = cls(fields, state)
            n_words = len(json.loads(made.arrays["vocabulary"].tobytes())) + len(fields.categories) + len(fields.bags)
            _ = made.words
            coded = {"users": (made.user_codes, fields.n_users), "items": (made.item_codes, fields.n_items)}
            fits = n_words <= fields.capacity and made.arrays["numbers"].shape == (len(fields.numbers), 2)
            for table, (codes, n) in coded.items():
                fits &= codes.shape == (n + 1, 1 + len(fields.named(fields.categories, table)))
                fits &= bool(codes.min() >= 0 and codes[:, 0].max() <= n and codes[:, 1:].max(initial=0) < n_words)
            for table, numbers in (("users", made.user_numbers), ("items", made.item_numbers)):
                fits &= numbers.shape == (len(coded[table][0]), len(fields.named(fields.numbers, table)))
                fits &= bool(np.isfinite(numbers).all())
            rows = (fields.n_users + 1) * made.n_user_bags + (fields.n_items + 1) * made.n_item_bags
            fits &= len(made.bags) == rows and made.bags.values.min(initial=0) >= 0
            fits &= made.bags.values.max(initial=0) < n_words and bool(np.isfinite(made.arrays["numbers"]).all())
        except (KeyError, TypeError, ValueError, IndexError, UsageError) as error:
            raise BundleError(f"the coded columns are not whole: {error}") from error
        if not fits:
            raise BundleError("the coded columns do not fit the fields of the schema")
        return made


def learn(data: Dataset, fields: Fields, known: Sequence[Sequence[Any]] = ()) -> dict[str, NDArray[Any]]:
    """The state of an `Encoder`, from a training part.

    A user or an item without an event is coded as unknown, since nothing is learnt of it.

    Args:
        known: [column, value] of an older vocabulary, which keeps its rows.

    Raises:
        UsageError: there are more values than the schema says.
    """
    frames = {"users": data.users, "items": data.items, "events": data.events}
    columns = [*fields.categories, *fields.bags]
    words: list[list[Any]] = [list(one) for one in known]
    there = {tuple(one) for one in words}
    for n, name in enumerate(columns):
        series = _column(frames, name)
        values = _texts(series.explode() if name in fields.bags else series).drop_nulls().unique().sort().to_list()
        words += [[n, value] for value in values if (n, value) not in there]
    if len(words) + len(columns) > fields.capacity:
        if not known:
            raise UsageError(f"the columns have {len(words):,} values, more than the schema says")
        words = words[: fields.capacity - len(columns)]  # no room to grow: later values are unknown
    table = _words(fields, words)
    scale = np.array([_moments(_column(frames, name)) for name in fields.numbers], np.float32).reshape(-1, 2)
    arrays: dict[str, NDArray[Any]] = {
        "vocabulary": np.frombuffer(json.dumps(words).encode(), dtype=np.uint8).copy(),
        "numbers": scale,
    }
    bags = []
    for side, n, key in (("users", data.n_users, "user"), ("items", data.n_items, "item")):
        seen = np.bincount(data.events[key].drop_nulls().to_numpy(), minlength=n) > 0
        own = np.concatenate([[0], np.where(seen, np.arange(1, n + 1), 0)])
        coded = [own]
        for at, column in fields.named(fields.categories, side):
            coded.append(np.concatenate([[at], _codes(frames[side][column], table[fields.categories[at]], at)]))
        arrays[side] = np.stack(coded, axis=1).astype(np.int64)
        numbers = [
            np.concatenate([[0.0], _scaled(frames[side][column], scale[at])])
            for at, column in fields.named(fields.numbers, side)
        ]
        arrays[f"{key}_numbers"] = _stacked(numbers, n + 1, np.float32)
        bags.append(_bags(frames[side], [(fields.bags[at], c) for at, c in fields.named(fields.bags, side)], table, n))
    arrays["bags"] = np.concatenate([bag.values for bag in bags])
    arrays["bag_offsets"] = np.concatenate([bags[0].offsets, bags[1].offsets[1:] + bags[0].offsets[-1]])
    return arrays


def _bags(
    frame: pl.DataFrame, columns: Sequence[tuple[str, str]], table: Mapping[str, Mapping[str, int]], n: int
) -> Jagged[Any]:
    """Codes of the bags of a table, those of a row side by side; the first row is the unknown one, whose are empty."""
    width = len(columns)
    rows, codes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place, (name, column) in enumerate(columns):
        values = frame[column]
        lengths = values.list.len().fill_null(0).to_numpy().astype(np.int64)
        flat = _texts(values.explode(empty_as_null=False, keep_nulls=False))
        found = _codes(flat, table[name], -1)
        row = np.repeat((np.arange(n) + 1) * width + place, lengths)
        rows.append(row[found >= 0])
        codes.append(found[found >= 0])
    return Jagged.from_rows(np.concatenate(rows), np.concatenate(codes), (n + 1) * width)


def _words(fields: Fields, words: Sequence[Sequence[Any]]) -> dict[str, dict[str, int]]:
    columns = [*fields.categories, *fields.bags]
    table: dict[str, dict[str, int]] = {name: {} for name in columns}
    for row, (n, value) in enumerate(words, len(columns)):
        table[columns[n]][value] = row
    return table


def _column(frames: Mapping[str, pl.DataFrame], name: str) -> pl.Series:
    table, column = name.split(".", 1)
    return frames[table][column]


def _series(columns: Mapping[str, Any], name: str, n: int) -> pl.Series:
    if name not in columns:
        return pl.repeat(None, n, dtype=pl.String, eager=True)
    values = columns[name]
    if isinstance(values, pl.Series):
        return values
    array = np.asarray(values)
    return pl.Series(name, array.tolist() if array.dtype == object else array, strict=False)


def _texts(values: pl.Series) -> pl.Series:
    """Values as the vocabulary has them: whole numbers without a point, whatever their type."""
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        if (whole.cast(pl.Float64) == values.cast(pl.Float64)).fill_null(True).all():
            values = whole
    return values.cast(pl.String)


def _codes(values: pl.Series, words: Mapping[str, int], unknown: int) -> Ints:
    """Rows of the table [N], `unknown` for a value that is not in it or missing."""
    left = pl.DataFrame({"value": _texts(values)})
    right = pl.DataFrame(
        {"value": list(words), "row": list(words.values())}, schema={"value": pl.String, "row": pl.Int64}
    )
    joined = left.join(right, on="value", how="left", maintain_order="left")["row"]
    return joined.fill_null(unknown).to_numpy().astype(np.int64, copy=False)


def _floats(values: pl.Series) -> NDArray[np.float64]:
    physical = values.to_physical() if values.dtype.is_temporal() else values
    return physical.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def _moments(values: pl.Series) -> tuple[float, float]:
    """Mean, and 1 / deviation, of what is there; a column that says nothing is scaled to 0."""
    numbers = _floats(values)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return 0.0, 0.0
    mean, deviation = float(numbers.mean()), float(numbers.std())
    return mean, 1.0 / deviation if deviation > 1e-9 * (1.0 + abs(mean)) else 0.0


def _scaled(values: pl.Series, moments: NDArray[Any]) -> NDArray[Any]:
    scaled = (_floats(values) - float(moments[0])) * float(moments[1])
    return np.clip(np.nan_to_num(scaled, nan=0.0), -CLIP, CLIP)


def _stacked(columns: Sequence[NDArray[Any]], n: int, dtype: Any) -> NDArray[Any]:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.empty((n, 0), dtype=dtype)


def context_of(data: Dataset, events: Ints, without: Iterable[str] = ()) -> Columns:
    """The context columns of some events, as a request carries them."""
    names = [name for name in data.schema.events if name not in {"kind", "value", *without}]
    picked = data.events.select(names)[events] if names else None
    return Columns({name: picked[name].to_numpy() for name in names} if picked is not None else {}, size=len(events))
