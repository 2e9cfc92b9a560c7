"""What is asked of a served system, a question at a time, and what it answers, in ids of the outside world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Id = str | int


@dataclass(frozen=True, slots=True)
class Past:
    """One thing a user did since the system was fitted: an item, when (microseconds since 1970), how strongly."""

    item: Id
    time: int
    value: float = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """One list that is asked for.

    user: None for somebody without an id
    history: items, oldest first, that come after what is stored of the user
    recent: what the log has of the user; the runtime fills it in
    hidden: items the user does not want to see again; the runtime fills it in
    k: length of the list, its first `skip` items left out
    candidates: all that may be answered with; None: the catalogue
    where: a predicate over the catalogue's columns, as SQL
    seen: whether items of the history may come again
    seed: where the random stream of a system that draws begins
    explain: whether each item comes with a reason
    """

    user: Id | None = None
    history: tuple[Id, ...] = ()
    recent: tuple[Past, ...] = ()
    hidden: tuple[Id, ...] = ()
    k: int = 10
    skip: int = 0
    exclude: tuple[Id, ...] = ()
    candidates: tuple[Id, ...] | None = None
    where: str | None = None
    seen: bool = False
    text: str | None = None
    seed: int = 0
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Why:
    """A reason: a sentence, the items it rests on, and who gave it."""

    text: str
    because_of: tuple[Id, ...] = ()
    source: str = "system"


@dataclass(slots=True)
class Answer:
    """The list, best first; `more` says whether it goes on; `logp` where the system drew it."""

    items: list[Id]
    scores: list[float]
    logp: list[float] | None = None
    reasons: list[Why | None] | None = None
    more: bool = False
    trace: dict[str, Any] = field(default_factory=dict)


def groups(questions: Sequence[Question]) -> list[list[int]]:
    """Places of questions that can be asked in one batch: with candidates or without, with a text or without."""
    found: dict[tuple[bool, bool], list[int]] = {}
    for place, question in enumerate(questions):
        found.setdefault((question.candidates is not None, question.text is not None), []).append(place)
    return list(found.values())
