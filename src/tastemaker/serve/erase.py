"""Erasing a person: from the log, the sessions, the bundles and the datasets, so that no file holds the id any more.

The log's rows are deleted and its files cleared of what was deleted. In a bundle and in a dataset a row has a number
that others rely on, so it stays, emptied, under a tombstone: a random name that has nothing to do with the id.

A request whose answer got lost is sent again, perhaps after its user was erased, and must not bring the user back. The
log would take it for new, since its key is gone. So the keys of erased records stay, each as a keyed hash (HMAC-SHA-256
under a random key that the database made for itself): a record with such a key counts as doubled, and nothing of it is
stored. Keys are hashed rather than the id, because a person may come back and be welcome; hashed rather than kept,
because senders build keys from ids; and under a key, so that hashes of one database say nothing about another's and
cannot be looked up in a table made beforehand. Whoever has the database has the key too, and can check a guess of a
record's key: that is the least that idempotency can do with.

A session holds what was said in it and the profile of its person, and goes as a whole. One that named no user belongs
to nobody, and goes when its time is over, or by its own name (`DELETE /sessions/{id}`).

What a system has learnt stays in its weights (for some systems, neighbours of users say, these are the choices
themselves) until it is fitted again on data without the person: `tastemaker refresh`. A bundle's manifest says so.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tastemaker.serve.log import EventLog
from tastemaker.serve.sessions import SessionStore
from tastemaker.train import Bundle
from tastemaker.types import AVAILABLE, Dataset, TastemakerError, UsageError, Vocabulary
from tastemaker.types.edges import without

TOMBSTONE = "erased-"
IN_WEIGHTS = "weights learnt from erased users' events, until the system is fitted again"


@dataclass(frozen=True, slots=True)
class Place:
    """How much was taken away somewhere: where, what of it, how many."""

    where: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was taken away, and what this could not reach."""

    places: tuple[Place, ...]
    remains: tuple[str, ...]

    @property
    def total(self) -> int:
        """How much there was altogether."""
        return sum(place.count for place in self.places)

    def to_json(self) -> dict[str, Any]:
        return {"places": [asdict(place) for place in self.places], "remains": list(self.remains)}


class Unfinished(TastemakerError):
    """Some places could not be cleared; all others were. `erased` tells of these."""

    def __init__(self, failures: Sequence[str], erased: Erased) -> None:
        lines = ["the user is not erased everywhere:", *(f"  - {failure}" for failure in failures)]
        super().__init__("\n".join(lines), hint="see to these and run the same again; what is done stays done")
        self.erased = erased


def erase(
    user: str,
    *,
    log: EventLog | None = None,
    sessions: SessionStore | None = None,
    bundles: Iterable[str | Path] = (),
    datasets: Iterable[str | Path] = (),
) -> Erased:
    """Take a person out of every place given. Running it again does no harm.

    Args:
        user: the outside id.
        log, sessions: where the server writes; with a session goes its profile.
        bundles: folders of bundles, each replaced in one step.
        datasets: folders of datasets, as `data export-log` writes them; splits beside them have to be made anew.

    Raises:
        Unfinished: a place could not be cleared; the others were.
    """
    if not user:
        raise UsageError("the id of the user to erase is empty")
    steps: list[tuple[str, Callable[[], dict[str, int]]]] = []
    if sessions is not None:
        steps.append(("sessions", partial(_from_sessions, sessions, user)))
    if log is not None:
        steps.append(("log", partial(_from_log, log, user)))
    steps += [(str(folder), partial(_from_bundle, Path(folder), user)) for folder in bundles]
    steps += [(str(folder), partial(_from_dataset, Path(folder), user)) for folder in datasets]
    if not steps:
        raise UsageError("there is nothing to erase from", hint="give a log, sessions, bundles or datasets")
    places: list[Place] = []
    failures: list[str] = []
    for where, step in steps:
        try:
            places += [Place(where, what, count) for what, count in step().items()]
        except (TastemakerError, OSError) as error:
            failures.append(f"{where}: {error}")
    done = Erased(tuple(places), tuple(_remains(log, sessions, places)))
    if failures:
        raise Unfinished(failures, done)
    return done


def _remains(log: EventLog | None, sessions: SessionStore | None, places: Sequence[Place]) -> list[str]:
    found = [store.remains for store in (log, sessions) if store is not None and store.remains is not None]
    if any(place.what == "id" and place.count for place in places):
        found.append(
            f"bundles: {IN_WEIGHTS} (tastemaker refresh); servers that have one open keep it until they reload"
        )
    return list(dict.fromkeys(found))


def _from_log(log: EventLog, user: str) -> dict[str, int]:
    gone = log.erase(user)
    return {"events": gone.events, "lists": gone.slates}


def _from_sessions(sessions: SessionStore, user: str) -> dict[str, int]:
    return {"sessions": sessions.erase(user)}


def _from_bundle(folder: Path, user: str) -> dict[str, int]:
    """The history emptied, the id replaced, every file and the manifest written anew."""
    bundle = Bundle.load(folder)
    number = int(bundle.users.numbers([user])[0])
    if number < 0:
        return {"id": 0}
    ids, n_events, histories = _without(bundle.users.series, number), 0, bundle.histories
    if histories is not None:
        n_events = int(histories.lengths[number])
        histories = histories.where(histories.rows != number)
    before = bundle.about.get("erased", {})
    told = {"users": before.get("users", 0) + 1, "last": f"{datetime.now(UTC):%Y-%m-%d}", "remains": IN_WEIGHTS}
    users = Vocabulary(ids, of="user")
    replace(bundle, users=users, histories=histories, about={**bundle.about, "erased": told}).save(folder)
    return {"id": 1, "history": n_events}


def _from_dataset(folder: Path, user: str) -> dict[str, int]:
    """The events gone, the row of the user emptied, the edges and dialogues of the user gone."""
    data = Dataset.load(folder)
    number = int(data.user_ids.numbers([user])[0])
    if number < 0:
        return {"row": 0}
    row = pl.int_range(pl.len()) == number
    emptied = [pl.when(~row).then(c).alias(c) for c in data.users.columns if c not in ("user", AVAILABLE)]
    users = data.users.with_columns(_without(data.users["user"], number), *emptied)
    events = data.events.filter(pl.col("user") != number)
    dialogues = data.dialogues
    if dialogues is not None and dialogues.schema.get("user") == pl.String:
        dialogues = dialogues.filter((pl.col("user") != user).fill_null(True))
    edges = without(data.edges, data.users[number : number + 1], data.items.clear())
    changed = replace(data, users=users, events=events, dialogues=dialogues, edges=edges)
    changed.save(folder)
    return {"row": 1, "events": data.n_events - events.height}


def _without(ids: pl.Series, number: int) -> pl.Series:
    """Ids with a tombstone in the place of one."""
    taken = set(ids.to_list())
    while (tombstone := _tombstone(ids.dtype.is_integer())) in taken:
        continue
    return ids.set(pl.Series(np.arange(len(ids)) == number), tombstone)


def _tombstone(whole: bool) -> str | int:
    """A name nobody has: text, or far below any id where ids are whole numbers."""
    return -(2**62) - secrets.randbits(62) if whole else TOMBSTONE + secrets.token_hex(12)
