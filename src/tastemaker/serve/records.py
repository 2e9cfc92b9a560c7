"""What the log holds, a record at a time, and how a record becomes a row and a row a record.

Records come from outside, so each is checked before it is taken: a text that a database refuses (a zero byte, half of a
surrogate pair), a number that is none or has no room in 64 bits, and a list whose parts differ in length are the
sender's errors, and must not reach a commit that carries others' records.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from tastemaker.types import UsageError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Row: TypeAlias = dict[str, Any]

LONGEST_ID = 512  # characters of a key, a user, an item, ...: an index of PostgreSQL takes no entry over 2,700 bytes
LONGEST_TEXT = 100_000
LARGEST_JSON = 1_000_000  # bytes of a context or a trace


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    key: chosen by the sender, the same when the event is sent again
    time: microseconds since 1970
    kind: "view", "purchase", "like", ...
    value: a rating, a count, seconds
    position: 0-based place in the list `slate` where the item stood
    context: anything else that is known
    """

    key: str
    time: int
    kind: str
    user: str | None = None
    item: str | None = None
    value: float | None = None
    position: int | None = None
    slate: str | None = None
    session: str | None = None
    query: str | None = None
    experiment: str | None = None
    arm: str | None = None
    system: str | None = None
    snapshot: str | None = None
    context: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """A list that went out.

    slate: its name, by which events refer to it
    time: microseconds since 1970
    system, snapshot: what answered, and which fit of it
    items, scores: in the order shown
    propensities: the probability with which each item stood in its place given those before it; None: not known
    trace: what is to come back with the feedback
    """

    slate: str
    time: int
    user: str | None
    session: str | None
    system: str
    snapshot: str
    experiment: str | None
    arm: str | None
    items: tuple[str, ...]
    scores: tuple[float, ...]
    propensities: tuple[float, ...] | None = None
    query: str | None = None
    trace: Mapping[str, JSON] = field(default_factory=dict)


def event_row(event: Event) -> Row:
    """An event as a row of the table `events`.

    Raises:
        UsageError: something in it cannot be written.
    """
    return {
        "key": checked_name("the key of an event", event.key),
        "time": _whole("the time of an event", event.time, 64),
        "kind": checked_name("the kind of an event", event.kind),
        "user": None if event.user is None else checked_name("the user of an event", event.user),
        "item": None if event.item is None else checked_name("the item of an event", event.item),
        "value": None if event.value is None else _finite("the value of an event", event.value),
        "position": None if event.position is None else _whole("the position of an event", event.position, 32, low=0),
        "slate": None if event.slate is None else checked_name("the slate of an event", event.slate),
        "session": None if event.session is None else checked_name("the session of an event", event.session),
        "query": None if event.query is None else checked_text("the query of an event", event.query, LONGEST_TEXT),
        "experiment": None
        if event.experiment is None
        else checked_name("the experiment of an event", event.experiment),
        "arm": None if event.arm is None else checked_name("the arm of an event", event.arm),
        "system": None if event.system is None else checked_name("the system of an event", event.system),
        "snapshot": None if event.snapshot is None else checked_name("the snapshot of an event", event.snapshot),
        "context": _json("the context of an event", event.context),
    }


def event_of(row: Sequence[Any]) -> Event:
    """The event of a row: the columns of the table `events` in order, without `id`."""
    values: tuple[Any, ...] = (*row[:-1], orjson.loads(row[-1]))
    return Event(*values)


def slate_row(served: Served) -> Row:
    """A served list as a row of the table `slates`.

    Raises:
        UsageError: something in it cannot be written.
    """
    items = [checked_name("an item of a list", item) for item in served.items]
    scores = [_finite("a score of a list", score) for score in served.scores]
    chances = None
    if served.propensities is not None:
        chances = [_finite("a propensity of a list", chance) for chance in served.propensities]
        if outside := [chance for chance in chances if not 0 <= chance <= 1]:
            raise UsageError(f"propensities are probabilities, from 0 to 1, got {outside[0]:g}")
    if len(scores) != len(items) or (chances is not None and len(chances) != len(items)):
        counts = f"{len(items)} items, {len(scores)} scores, {'no' if chances is None else len(chances)} propensities"
        raise UsageError(f"a list has a score, and where they are known a propensity, for each item, got {counts}")
    return {
        "slate": checked_name("the name of a list", served.slate),
        "time": _whole("the time of a list", served.time, 64),
        "user": None if served.user is None else checked_name("the user of a list", served.user),
        "session": None if served.session is None else checked_name("the session of a list", served.session),
        "system": checked_name("the system of a list", served.system),
        "snapshot": checked_name("the snapshot of a list", served.snapshot),
        "experiment": None
        if served.experiment is None
        else checked_name("the experiment of a list", served.experiment),
        "arm": None if served.arm is None else checked_name("the arm of a list", served.arm),
        "items": orjson.dumps(items).decode(),
        "scores": orjson.dumps(scores).decode(),
        "propensities": None if chances is None else orjson.dumps(chances).decode(),
        "query": None if served.query is None else checked_text("the query of a list", served.query, LONGEST_TEXT),
        "trace": _json("the trace of a list", served.trace),
    }


def checked_name(what: str, value: object) -> str:
    """An id or another short name that can be written and indexed."""
    if value == "":
        raise UsageError(f"{what} is empty")
    return checked_text(what, value, LONGEST_ID)


def checked_text(what: str, value: object, longest: int) -> str:
    """A text that can be written."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is text, got {type(value).__name__}")
    if len(value) > longest:
        raise UsageError(f"{what} has at most {longest:,} characters, got {len(value):,}")
    if "\0" in value or not (value.isascii() or _encodable(value)):
        raise UsageError(f"{what} holds a character that no database takes (a zero byte or half a surrogate pair)")
    return str(value)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole(what: str, value: Any, bits: int, *, low: int | None = None) -> int:
    try:
        number = operator.index(value)  # numbers of numpy too
    except TypeError as error:
        raise UsageError(f"{what} is a whole number, got {type(value).__name__}") from error
    highest = 2 ** (bits - 1) - 1
    least = -highest - 1 if low is None else low
    if not least <= number <= highest:
        raise UsageError(f"{what} lies between {least} and {highest}, got {number}")
    return number


def _finite(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{what} is a number, got {type(value).__name__}") from error
    if not math.isfinite(number):
        raise UsageError(f"{what} is a finite number, got {number}")
    return number


def _json(what: str, value: Mapping[str, JSON]) -> str:
    if not value:
        return "{}"
    try:
        encoded = orjson.dumps(dict(value), option=orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, ValueError) as error:  # orjson's own error is a TypeError
        raise UsageError(f"{what} is no JSON: {error}") from error
    if len(encoded) > LARGEST_JSON:
        raise UsageError(f"{what} has at most {LARGEST_JSON:,} bytes, got {len(encoded):,}")
    return encoded.decode()
