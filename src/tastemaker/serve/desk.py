"""What can be asked of a server, whoever asks: from bodies to questions, from answers to plain values.

The routes over HTTP and the tools over MCP are two doors to the same desk.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from tastemaker.serve import models
from tastemaker.serve.cursors import Cursors
from tastemaker.serve.entry import Entry, plain
from tastemaker.serve.live import Live
from tastemaker.serve.log import Event
from tastemaker.serve.names import new_key, new_seed, now
from tastemaker.serve.problems import fields, status_of
from tastemaker.serve.questions import Answer, Id, Question, Why
from tastemaker.serve.runtime import Given, Runtime
from tastemaker.types import NotFound, TastemakerError, UsageError

Plain = dict[str, Any]


class Desk:
    """Answers bodies with plain values, as JSON holds them."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.live, self.cursors = runtime, Live(runtime), Cursors()

    # -- lists

    async def recommend(self, body: models.RecommendBody) -> Plain:
        """A list, or the next page of it."""
        entry = self.runtime.entry(body.system)
        skip, seed = 0, body.seed if body.seed is not None else new_seed()
        mark = fingerprint(body)
        if body.cursor is not None:
            skip, seed, snapshot, kept = self.cursors.open(body.cursor, 4)
            if kept != mark:
                raise UsageError("this cursor belongs to another question", hint="send the same body with each page")
            if snapshot != entry.snapshot:
                raise UsageError("the system was renewed since the page before", hint="begin without a cursor")
        if skip + body.k > models.DEEPEST:
            raise UsageError(f"a list has at most {models.DEEPEST:,} items over all its pages")
        question = asked(body, k=body.k, skip=skip, seed=seed, **wanted(body))
        given = await self.live.answer(entry, question, session=body.session)
        more = self.cursors.seal(skip + body.k, seed, given.entry.snapshot, mark) if given.answer.more else None
        return shown(given, skip, more)

    async def recommend_batch(self, body: models.RecommendBatch) -> Plain:
        """Lists for several; a fault of one leaves the others alone, but that of a full server is everybody's."""
        found = await asyncio.gather(*map(self.recommend, body.requests), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and (not isinstance(one, TastemakerError) or status_of(one) >= 429):
                raise one
        return {"answers": [one if isinstance(one, dict) else _problem(one) for one in found]}

    async def similar(self, body: models.SimilarBody) -> Plain:
        entry = self.runtime.entry(body.system)
        return scored(entry, await self.runtime.apart(entry.similar, body.item, body.k, body.where or None))

    async def score(self, body: models.ItemsBody) -> Plain:
        entry, question = self.runtime.entry(body.system), asked(body)
        scores = await self.runtime.apart(lambda: entry.score(self.runtime.complete(question), body.items))
        return scored(entry, list(zip(body.items, scores, strict=True)))

    async def rerank(self, body: models.ItemsBody) -> Plain:
        entry, question = self.runtime.entry(body.system), asked(body)
        return scored(
            entry, await self.runtime.apart(lambda: entry.rerank(self.runtime.complete(question), body.items))
        )

    async def explain(self, body: models.ItemsBody) -> Plain:
        entry, question = self.runtime.entry(body.system), asked(body)
        reasons = await self.runtime.apart(lambda: entry.explain(self.runtime.complete(question), body.items))
        return {"system": entry.name, "snapshot": entry.snapshot, "reasons": list(map(said, reasons))}

    # -- telling

    async def feedback(self, body: models.FeedbackBody) -> Plain:
        """Events; returns when they are safe on the disk."""
        events = [event_of(one) for one in body.events]
        done = await self.runtime.feedback(events)
        return {"stored": done.stored, "doubled": done.doubled, "keys": [event.key for event in events]}

    # -- looking

    def systems(self) -> Plain:
        shelf = self.runtime.shelf
        return {"default": next(iter(shelf), None), "systems": list(map(about, shelf.values()))}

    def system(self, name: str) -> Plain:
        return about(self.runtime.entry(name))

    async def items(self, system: str | None, find: str | None, limit: int, cursor: str | None) -> Plain:
        """A page of the catalogue, or of the items with some letters in their title or id."""
        entry, skip = self.runtime.entry(system), self._page(cursor, "items", find)
        numbers = await self.runtime.apart(entry.find, find)
        page = numbers[skip : skip + limit].tolist()
        more = self.cursors.seal(skip + limit, "items", find) if skip + limit < len(numbers) else None
        return {"items": [card(entry, number) for number in page], "total": len(numbers), "next": more}

    def item(self, system: str | None, item: Id) -> Plain:
        entry = self.runtime.entry(system)
        return card(entry, entry.bundle.items.number(item))

    async def users(self, system: str | None, find: str | None, limit: int, cursor: str | None) -> Plain:
        entry, skip = self.runtime.entry(system), self._page(cursor, "users", find)
        ids = await self.runtime.apart(entry.find_users, find)
        more = self.cursors.seal(skip + limit, "users", find) if skip + limit < len(ids) else None
        return {"users": ids[skip : skip + limit].to_list(), "total": len(ids), "next": more}

    async def user(self, system: str | None, user: Id, limit: int) -> Plain:
        """The latest choices first, and what the user does not want to see."""
        entry = self.runtime.entry(system)
        question = await self.runtime.apart(self.runtime.complete, Question(user=user))
        past = [*entry.history(user), *(one.item for one in question.recent)][::-1][:limit]
        known = bool(entry.bundle.users.numbers([user])[0] >= 0)
        if not known and not question.recent and not question.hidden:
            raise NotFound(f"no user has the id {user!r}", hint=entry.bundle.users.like(user))
        kept = {"history": past, "hidden": question.hidden[::-1][:limit]}
        return {"user": user, "known": known, **{name: cards(entry, ids) for name, ids in kept.items()}}

    def _page(self, cursor: str | None, kind: str, find: str | None) -> int:
        """Where a page begins."""
        if cursor is None:
            return 0
        skip, *rest = self.cursors.open(cursor, 3)
        if rest != [kind, find]:
            raise UsageError("this cursor belongs to another list", hint="begin without a cursor")
        return int(skip)


# -- from bodies


def asked(body: models.Asker, **more: Any) -> Question:
    return Question(user=body.user, history=tuple(body.history), **more)


def wanted(body: models.RecommendBody) -> dict[str, Any]:
    """What a body says of the list, beside for whom and how long."""
    return {
        "exclude": tuple(body.exclude),
        "candidates": None if body.candidates is None else tuple(body.candidates),
        "where": body.where or None,
        "seen": body.seen,
        "text": body.query,
        "explain": body.explain,
    }


def event_of(body: models.EventBody) -> Event:
    return Event(
        key=body.key or new_key(),
        time=now() if body.time is None else body.time,
        kind=body.kind,
        user=None if body.user is None else str(body.user),
        item=None if body.item is None else str(body.item),
        value=None if body.value is None else float(body.value),
        position=None if body.position is None else body.position - 1,
        slate=body.slate,
        session=body.session,
        query=body.query,
        experiment=None,
        arm=None,
        system=None,
        snapshot=None,
        context=dict(body.context),
    )


def fingerprint(body: models.RecommendBody) -> str:
    """Tells one question from another, whichever page of it is asked for."""
    raw = orjson.dumps(body.model_dump(exclude={"cursor", "k", "seed", "explain", "session"}))
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


# -- to plain values


def shown(given: Given, skip: int, more: str | None) -> Plain:
    answer, entry = given.answer, given.entry
    return {
        "slate": given.slate,
        "system": entry.name,
        "snapshot": entry.snapshot,
        "experiment": given.experiment,
        "arm": given.arm,
        "items": listed(entry, answer, skip),
        "next": more,
    }


def listed(entry: Entry, answer: Answer, skip: int) -> list[Plain]:
    titles = entry.titles_of(answer.items)
    rows: list[Plain] = [
        {"item": item, "score": score, "rank": rank, "title": title}
        for rank, (item, score, title) in enumerate(zip(answer.items, answer.scores, titles, strict=True), skip + 1)
    ]
    if answer.reasons is not None:
        for row, reason in zip(rows, answer.reasons, strict=True):
            row["reason"] = said(reason)
    return rows


def scored(entry: Entry, pairs: Sequence[tuple[Id, float]]) -> Plain:
    answer = Answer([item for item, _ in pairs], [score for _, score in pairs])
    return {"system": entry.name, "snapshot": entry.snapshot, "items": listed(entry, answer, 0)}


def said(reason: Why | None) -> Plain | None:
    if reason is None:
        return None
    return {"text": reason.text, "because_of": list(reason.because_of), "source": reason.source}


def _problem(error: BaseException) -> Plain:
    assert isinstance(error, TastemakerError)
    return fields(status_of(error), error.message, hint=error.hint)


def card(entry: Entry, number: int) -> Plain:
    columns = entry.item(number)
    item = columns.pop("item")
    title = None if entry.title_column is None else columns.get(entry.title_column)
    return {"item": item, "title": None if title is None else str(title), "columns": columns}


def cards(entry: Entry, ids: Sequence[Id]) -> list[Plain]:
    """Items by id; one the catalogue lacks has its id alone."""
    numbers = entry.bundle.items.numbers(ids).tolist()
    return [
        card(entry, number) if number >= 0 else {"item": item, "title": None, "columns": {}}
        for item, number in zip(ids, numbers, strict=True)
    ]


def about(entry: Entry) -> Plain:
    """What is told of an entry: nothing of where it lies on the disk."""
    bundle = entry.bundle
    told = ("data", "fit", "facts", "metrics", "judged_on")
    return {
        "name": entry.name,
        "system": bundle.name,
        "kind": entry.kind,
        "title": bundle.info.title,
        "snapshot": entry.snapshot,
        "opened": entry.opened,
        "capabilities": list(entry.capabilities),
        "needs": sorted(entry.needs),
        "users": len(bundle.users),
        "items": len(entry.ids),
        "columns": {name: str(dtype) for name, dtype in entry.catalogue.schema.items()},
        "about": {name: plain_all(bundle.about[name]) for name in told if name in bundle.about},
    }


def plain_all(value: Any) -> Any:
    """Nested values as JSON."""
    if isinstance(value, dict):
        return {str(name): plain_all(one) for name, one in value.items()}
    return [plain_all(one) for one in value] if isinstance(value, list | tuple) else plain(value)
