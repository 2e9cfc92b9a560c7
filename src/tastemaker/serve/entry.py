"""One thing that is served: a bundle, open and warm, answering questions in batches.

An entry never changes. A newer bundle is another entry, made and warmed beside it, which then takes its place; whoever
was asking the old one gets the old one's answer. What a batch costs is spent in kernels: a question adds a few entries
to ragged arrays, and no answer depends on which questions stood beside it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.compose import PIPELINE, PipelineBundle
from tastemaker.contracts import Acts, Embeds, Profiles, Reranks, Resources, Retrieves, Scores
from tastemaker.data import allowed_by
from tastemaker.index.exact import ExactIndex, as_vectors
from tastemaker.index.select import Rules
from tastemaker.serve.questions import Answer, Id, Question, Why, groups
from tastemaker.train import Bundle
from tastemaker.train.bundle import MANIFEST
from tastemaker.types import (
    CapabilityError,
    Columns,
    ItemFilter,
    Jagged,
    NotFound,
    Requests,
    Slates,
    TastemakerError,
    UsageError,
    mix,
    to_numpy,
)

FILTERS = 256  # predicates whose bitmaps are kept
TITLES = ("title", "name")  # columns of the catalogue that name an item, the first one there is
SIMILAR = 50  # items of a history that a reason may rest on, the latest


class Entry:
    """A bundle under a name.

    Args:
        bundle: what answers; anything with the attributes of a `Bundle` that are read here, as a pipeline has.
        snapshot: tells this fit of it from others; goes into the log with each list.
        of_shelf: whether it is a pipeline of systems that are served beside it, and follows them when they change; one
            from a folder brought its own.
    """

    def __init__(self, name: str, bundle: Any, *, snapshot: str, of_shelf: bool = False) -> None:
        self.name, self.bundle, self.snapshot, self.opened = name, bundle, snapshot, time.time()
        self.of_shelf = of_shelf
        self.system = bundle.system
        self.needs: frozenset[str] = frozenset(bundle.info.needs)
        self.catalogue: pl.DataFrame = bundle.catalogue
        self.ids: list[Id] = self.catalogue["item"].to_list()
        self.title_column = next((c for c in TITLES if c in self.catalogue.columns), None)
        self.titles: list[Any] | None = (
            None if self.title_column is None else self.catalogue[self.title_column].to_list()
        )
        self._bitmaps: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """Whether it is one fitted system or a pipeline of several."""
        return "system" if isinstance(self.bundle, Bundle) else "pipeline"

    def __repr__(self) -> str:
        return f"Entry({self.name}: {self.bundle.name}, snapshot {self.snapshot})"

    def warm(self, k: int = 10) -> None:
        """Answer for nobody and for somebody, so that kernels are compiled and vectors are there before it counts."""
        if not self.lists:
            return
        known = self.bundle.users.series.head(2).to_list()
        asked = [Question(k=k), *(Question(user=user, k=k) for user in known)]
        asked.append(Question(history=tuple(self.ids[:1]), k=k))
        for answer in self.answer(asked):
            if isinstance(answer, Exception):
                raise answer

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What can be asked of it: names of routes."""
        can = ["recommend"] if self.lists else []
        if isinstance(self.system, Acts):
            can.append("act")
            can += ["profile"] if isinstance(self.system, Profiles) else []
        if isinstance(self.system, Scores | Embeds):
            can.append("score")
        if isinstance(self.system, Scores | Embeds | Reranks):
            can.append("rerank")
        if isinstance(self.system, Embeds) or (self.lists and "users" not in self.needs):
            can.append("similar")
        if self.explains:
            can.append("explain")
        return tuple(can)

    @property
    def lists(self) -> bool:
        """Whether it answers with lists."""
        return isinstance(self.system, Retrieves | Embeds | Scores)

    @property
    def explains(self) -> bool:
        return "explains" in self.bundle.info.capabilities or isinstance(self.system, Embeds)

    # -- questions become requests

    def requests(self, questions: Sequence[Question]) -> Requests:
        """The questions of one group (`groups`), completed with what the bundle and the log know of the users."""
        n = len(questions)
        users = self.bundle.users.numbers([q.user if q.user is not None else "" for q in questions])
        users[[q.user is None for q in questions]] = -1
        history = self._history(questions, users)
        exclude = self._excluded(questions, history)
        candidates = None
        if n and questions[0].candidates is not None:
            candidates = self._numbers([q.candidates or () for q in questions], strict=True)
        asked = Requests(
            n,
            users=users,
            history=history,
            text=None if not n or questions[0].text is None else np.array([q.text for q in questions], dtype=object),
            exclude=exclude,
            candidates=candidates,
            filter=self._filter(questions),
            now=np.full(n, int(time.time() * 1e6)) if self.bundle.schema.time_unit == "us" else None,
            seeds=mix(np.array([q.seed for q in questions], dtype=np.int64)),
        )
        if lacking := self.needs - asked.given():
            raise CapabilityError(f"{self.name} needs {', '.join(sorted(lacking))} to answer")
        return asked

    def _history(self, questions: Sequence[Question], users: NDArray[np.int32]) -> Jagged[Columns]:
        """What is stored, then what the log has, then what the question brings."""
        n, stored = len(questions), self.bundle.histories
        if stored is None or not len(stored):
            stored = Jagged(Columns(item=np.empty(0, np.int32)), np.zeros(2, np.int64))
            rows = stored.take(np.zeros(n, np.int64))
        else:
            rows = stored.take(np.maximum(users, 0))
            if (users < 0).any():
                rows = rows.where(users[rows.rows] >= 0)
        if not any(q.recent or q.history for q in questions):
            return rows
        more = [[*(p.item for p in q.recent), *q.history] for q in questions]
        lengths = np.array([len(row) for row in more])
        numbers = self.bundle.items.numbers([item for row in more for item in row])
        owners = np.repeat(np.arange(n), lengths)
        own: dict[str, Any] = {"item": numbers}
        if "value" in rows.values:
            own["value"] = np.array(
                [v for q in questions for v in (*(p.value for p in q.recent), *(1.0 for _ in q.history))]
            )
        if "time" in rows.values:
            own["time"] = self._times(questions, rows.values["time"])
        known = numbers >= 0
        whole = Columns(
            {
                name: np.concatenate([array, np.asarray(own[name])[known].astype(array.dtype)])
                for name, array in rows.values.items()
                if name in own
            }
        )
        joined: Jagged[Columns] = Jagged.from_rows(np.concatenate([rows.rows, owners[known]]), whole, n)
        return joined

    def _times(self, questions: Sequence[Question], stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times of what is new: on the clock, or one step after all that is stored where the data has no clock."""
        if self.bundle.schema.time_unit != "us":
            total = sum(len(q.recent) + len(q.history) for q in questions)
            return np.full(total, int(stored.max(initial=0)) + 1)
        now = int(time.time() * 1e6)
        return np.array([t for q in questions for t in (*(p.time for p in q.recent), *(now for _ in q.history))])

    def _excluded(self, questions: Sequence[Question], history: Jagged[Columns]) -> Jagged[NDArray[np.int32]]:
        """What must not come: items of the history, hidden ones, and those the question names."""
        parts, rows = [], []
        if not all(q.seen for q in questions):
            seen = np.array([q.seen for q in questions])
            keep = ~seen[history.rows]
            parts.append(history.values["item"][keep])
            rows.append(history.rows[keep])
        named = [(*q.hidden, *q.exclude) for q in questions]
        if any(named):
            parts.append(self.bundle.items.numbers([item for row in named for item in row]))
            rows.append(np.repeat(np.arange(len(questions)), [len(row) for row in named]))
        if not parts:
            return Jagged.empty(len(questions))
        numbers, owners = np.concatenate(parts), np.concatenate(rows)
        known = numbers >= 0
        excluded: Jagged[NDArray[np.int32]] = Jagged.from_rows(owners[known], numbers[known], len(questions))
        return excluded

    def _numbers(self, rows: Sequence[Sequence[Id]], *, strict: bool) -> Jagged[NDArray[np.int32]]:
        flat = [item for row in rows for item in row]
        numbers = self.bundle.items.numbers(flat)
        if strict and (numbers < 0).any():
            unknown = flat[int(np.flatnonzero(numbers < 0)[0])]
            raise NotFound(f"no item has the id {unknown!r}", hint=self.bundle.items.like(unknown))
        return Jagged(numbers, np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def _filter(self, questions: Sequence[Question]) -> ItemFilter | None:
        wanted = list(dict.fromkeys(q.where for q in questions if q.where is not None))
        if not wanted:
            return None
        place = {predicate: row for row, predicate in enumerate(wanted)}
        which = np.array([-1 if q.where is None else place[q.where] for q in questions], dtype=np.int32)
        return ItemFilter(np.stack([self.bitmap(predicate) for predicate in wanted]), which)

    def bitmap(self, predicate: str) -> NDArray[np.bool_]:
        """Which items a predicate allows [I]; the last few are remembered."""
        with self._lock:
            if (known := self._bitmaps.get(predicate)) is not None:
                self._bitmaps.move_to_end(predicate)
                return known
        allowed: NDArray[np.bool_] = allowed_by(predicate, self.catalogue)
        with self._lock:
            self._bitmaps[predicate] = allowed
            while len(self._bitmaps) > FILTERS:
                self._bitmaps.popitem(last=False)
        return allowed

    # -- answers

    def answer(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Lists for questions, each its answer or its own error."""
        answers: list[Answer | Exception] = [Answer([], [])] * len(questions)
        for places in groups(questions):
            asked = [questions[place] for place in places]
            try:
                found: Sequence[Answer | Exception] = self._answer(asked)
            except TastemakerError as error:
                found = [error] if len(asked) == 1 else [self.answer([one])[0] for one in asked]
            for place, one in zip(places, found, strict=True):
                answers[place] = one
        return answers

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        requests = self.requests(questions)
        most = max(q.skip + q.k for q in questions)
        slates = self.bundle.retriever.retrieve(requests, min(most + 1, len(self.ids)))
        reasons = self._reasons(requests, slates, questions)
        rows, scores = slates.items.tolist(), slates.scores.tolist()
        logps = None if slates.logp is None else slates.logp.tolist()
        traces = {} if slates.trace is None else {name: column.tolist() for name, column in slates.trace.items()}
        answers = []
        for b, question in enumerate(questions):
            end = question.skip + question.k
            row = [number for number in rows[b] if number >= 0]
            shown = row[question.skip : end]
            answers.append(
                Answer(
                    [self.ids[number] for number in shown],
                    scores[b][question.skip : question.skip + len(shown)],
                    None if logps is None else logps[b][question.skip : question.skip + len(shown)],
                    reasons[b][question.skip : question.skip + len(shown)]
                    if reasons is not None and question.explain
                    else None,
                    len(row) > end,
                    {name: column[b] for name, column in traces.items()},
                )
            )
        return answers

    def score(self, question: Question, items: Sequence[Id]) -> list[float]:
        """How much each item suits [len(items)]; exclusions do not matter."""
        requests = self.requests([question])
        numbers = self._numbers([items], strict=True).values[None, :]
        if isinstance(self.system, Scores):
            scores = to_numpy(self.system.score(requests, numbers))[0]
        elif isinstance(self.system, Embeds):
            queries = as_vectors(self.system.queries(requests))
            scores = ExactIndex(self._vectors[numbers[0]]).listed_scores(
                queries, Jagged(np.arange(numbers.shape[1], dtype=np.int32), np.array([0, numbers.shape[1]]))
            )
        else:
            raise CapabilityError(f"{self.name} gives lists, and says no score of an item that is named")
        return [float(score) for score in scores]

    def rerank(self, question: Question, items: Sequence[Id]) -> list[tuple[Id, float]]:
        """The items in the order that suits, with scores."""
        if len(set(items)) < len(items):
            raise UsageError("a list that is to be put in order names each item once")
        if not isinstance(self.system, Reranks):
            scores = np.array(self.score(question, items), dtype=np.float32)
            order = np.lexsort((np.arange(len(items)), -scores))
            return [(items[place], float(scores[place])) for place in order]
        requests = self.requests([question])
        numbers = self._numbers([items], strict=True).values[None, :]
        given = Slates(numbers, -np.arange(numbers.shape[1], dtype=np.float32)[None, :])
        found = self.system.rerank(requests, given)
        pairs = zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True)
        return [(self.ids[number], score) for number, score in pairs if number >= 0]

    def similar(self, item: Id, k: int, where: str | None = None) -> list[tuple[Id, float]]:
        """Items near an item: by the cosine of vectors, else what somebody with this item alone is answered."""
        number = self.bundle.items.number(item)
        if self._index is not None:
            allowed = None if where is None else self.bitmap(where)[None, :]
            rules = Rules.of(1, len(self.ids), Jagged.from_lists([[number]], dtype=np.int32), allowed)
            items, scores = self._index.search(self._index.vectors[number][None, :], k, rules)
            return [(self.ids[i], s) for i, s in zip(items[0].tolist(), scores[0].tolist(), strict=True) if i >= 0]
        if "users" in self.needs:
            raise CapabilityError(f"{self.name} knows users alone, and cannot say what lies near an item")
        [answer] = self.answer([Question(history=(item,), k=k, where=where)])
        if isinstance(answer, Exception):
            raise answer
        return list(zip(answer.items, answer.scores, strict=True))

    def explain(self, question: Question, items: Sequence[Id]) -> list[Why | None]:
        """Why each item suits; None where there is nothing to say."""
        if not self.explains:
            raise CapabilityError(f"{self.name} gives no reasons")
        requests = self.requests([question])
        numbers = self._numbers([items], strict=True).values[None, :]
        slates = Slates(numbers, np.zeros(numbers.shape, dtype=np.float32))
        reasons = self._reasons(requests, slates, [Question(explain=True)])
        assert reasons is not None
        return reasons[0]

    # -- reasons

    def _reasons(
        self, requests: Requests, slates: Slates, questions: Sequence[Question]
    ) -> list[list[Why | None]] | None:
        if not any(q.explain for q in questions):
            return None
        if "explains" in self.bundle.info.capabilities:
            return [
                [
                    None
                    if reason is None
                    else Why(reason.text, tuple(self.ids[i] for i in reason.because_of), reason.source)
                    for reason in row
                ]
                for row in self.system.explain(requests, slates)
            ]
        if self._index is None:
            return [[None] * slates.k for _ in range(len(slates))]
        return [self._nearest(requests.history[b]["item"], slates.items[b]) for b in range(len(slates))]  # type: ignore[index]

    def _nearest(self, history: NDArray[np.int32], shown: NDArray[np.int32]) -> list[Why | None]:
        """For each item shown, the one of the history whose vector points most nearly the same way."""
        assert self._index is not None
        past = history[history >= 0][-SIMILAR:]
        if not len(past):
            return [None] * len(shown)
        vectors = self._index.vectors
        cosines = vectors[np.maximum(shown, 0)] @ vectors[past].T
        best = cosines.argmax(axis=1)
        found: list[Why | None] = []
        for place, number in enumerate(shown.tolist()):
            near = int(past[best[place]])
            if number < 0 or cosines[place, best[place]] <= 0 or near == number:
                found.append(None)
                continue
            called = self.titles[near] if self.titles is not None and self.titles[near] else self.ids[near]
            found.append(Why(f"Because you chose {called}", (self.ids[near],), "nearest item of your history"))
        return found

    @cached_property
    def _vectors(self) -> NDArray[np.float32]:
        return as_vectors(self.system.items())

    @cached_property
    def _index(self) -> ExactIndex | None:
        """The items' vectors at length 1, where the system has vectors."""
        if not isinstance(self.system, Embeds):
            return None
        lengths = np.linalg.norm(self._vectors, axis=1, keepdims=True)
        return ExactIndex(self._vectors / np.maximum(lengths, 1e-12))

    # -- looking

    def item(self, number: int) -> dict[str, Any]:
        """An item's columns, as JSON can hold them."""
        return {name: plain(value) for name, value in self.catalogue.row(number, named=True).items()}

    def titles_of(self, items: Sequence[Id]) -> list[str | None]:
        """What items are called."""
        if self.titles is None:
            return [None] * len(items)
        found = [self.titles[number] if number >= 0 else None for number in self.bundle.items.numbers(items).tolist()]
        return [None if title is None else str(title) for title in found]

    def find(self, letters: str | None) -> NDArray[np.int64]:
        """Numbers of the items whose title or id has these letters in it, those that begin with them first."""
        if not letters:
            return np.arange(len(self.ids))
        names = self.catalogue["item"].cast(pl.String)
        if self.title_column is not None:
            names = pl.concat([names.rename("text"), self.catalogue[self.title_column].cast(pl.String).rename("text")])
        places = _found(names, letters) % max(len(self.ids), 1)
        return places[np.sort(np.unique(places, return_index=True)[1])]

    def find_users(self, letters: str | None) -> pl.Series:
        """Ids of the users with these letters in them."""
        users: pl.Series = self.bundle.users.series
        return users if not letters else users.gather(_found(users.cast(pl.String), letters))

    def history(self, user: Id) -> list[Id]:
        """What the bundle stores of a user, oldest first."""
        number = int(self.bundle.users.numbers([user])[0])
        if number < 0 or self.bundle.histories is None:
            return []
        return [self.ids[i] for i in self.bundle.histories[number]["item"].tolist() if i >= 0]


def _found(names: pl.Series, letters: str) -> NDArray[np.int64]:
    """Places of names with these letters, without regard to case."""
    lower = names.str.to_lowercase()
    at = lower.str.find(letters.lower(), literal=True)
    places = np.flatnonzero(at.is_not_null().fill_null(False).to_numpy())
    order = np.argsort(at.gather(places).to_numpy() > 0, kind="stable")
    return places[order]


def plain(value: Any) -> Any:
    """A cell of the catalogue as JSON."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, pl.Series):
        return [plain(one) for one in value.to_list()]
    if isinstance(value, list):
        return [plain(one) for one in value]
    return str(value)


def opened(folder: str | Path, name: str | None = None, resources: Resources | None = None) -> Entry:
    """An entry from a bundle's folder, warm; its snapshot is named by what the manifest holds.

    resources: for a system that leans on some
    """
    whole = (Path(folder) / PIPELINE).is_file()
    bundle: Any = PipelineBundle.load(folder).pipeline if whole else Bundle.load(folder, resources)
    digest = hashlib.sha256((Path(folder) / (PIPELINE if whole else MANIFEST)).read_bytes()).hexdigest()[:12]
    entry = Entry(name or bundle.name, bundle, snapshot=digest)
    entry.warm()
    return entry
