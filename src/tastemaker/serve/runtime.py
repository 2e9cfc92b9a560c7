"""What runs behind the routes: entries by name, a queue before each, the log, histories, sessions.

The shelf is an immutable mapping that is replaced as a whole: a request takes the entry it begins with and keeps it, so
a swap under load is seen by nobody but in the snapshot's name.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from tastemaker.compose import PipelineSpec
from tastemaker.compose import compile as compose
from tastemaker.contracts import Resources
from tastemaker.index.threads import n_cores, stay_alone
from tastemaker.serve.batching import Batcher
from tastemaker.serve.entry import Entry, opened
from tastemaker.serve.histories import Histories, Recent
from tastemaker.serve.log import Event, EventLog, Served, open_log
from tastemaker.serve.metrics import Metrics
from tastemaker.serve.names import now
from tastemaker.serve.questions import Answer, Question
from tastemaker.serve.resources import chat_of, lend
from tastemaker.serve.settings import Settings
from tastemaker.serve.traffic import Traffic
from tastemaker.types import NotFound, TastemakerError, UsageError, nearest, replace_file

T = TypeVar("T")
LINGER = 0.05  # seconds that lists gather before they are written
Asked = tuple[Entry, Question]


@dataclass(frozen=True)
class Given:
    """A list as it goes out: what answered, under which name it is in the log."""

    slate: str
    entry: Entry
    answer: Answer
    experiment: str | None = None
    arm: str | None = None


class Runtime:
    """Entries and what they share. Made in the event loop's thread; `close` when done."""

    def __init__(self, settings: Settings | None = None, *, log: EventLog | None = None) -> None:
        self.settings = settings or Settings()
        self.log = log if log is not None else open_log(self.settings.log_url)
        self.chat = chat_of(self.settings)
        self.metrics, self.traffic = Metrics(), Traffic()
        self.histories = Histories(self.log, shared=self.settings.shared_log)
        self.histories.on_erasure = self.traffic.forget
        self._shelf: Mapping[str, Entry] = MappingProxyType({})
        self._sources: dict[str, Path] = {}
        self._before: dict[str, Entry] = {}
        self._batchers: dict[str, Batcher[Asked, Answer]] = {}
        self._slates: list[Served] = []
        self._workers = self.settings.workers or max(1, n_cores() - 1)
        threads = max(2, self._workers + 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answers", initializer=alone)
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self.ready = False
        self.on_put: list[Callable[[Entry], None]] = []

    # -- the shelf

    @property
    def shelf(self) -> Mapping[str, Entry]:
        """Entries by name; the first one is the default."""
        return self._shelf

    def entry(self, name: str | None = None) -> Entry:
        """The entry of this name, or the default one.

        Raises:
            NotFound: there is none.
        """
        shelf = self._shelf
        if not shelf:
            raise NotFound("nothing is served yet", hint="tastemaker serve BUNDLE")
        if name is None:
            return next(iter(shelf.values()))
        if name not in shelf:
            raise NotFound(f"no system is served as {name!r}", hint=nearest(name, shelf))
        return shelf[name]

    def open(self, folder: str | Path, name: str | None = None) -> Entry:
        """Open a bundle, warm it, and serve it under a name (default: its system's), in the place of what was there."""
        entry = opened(folder, name, Resources(chat=self.chat))
        self.put(entry)
        self._sources[entry.name] = Path(folder)
        return entry

    def put(self, entry: Entry, *, keep_before: bool = True) -> None:
        """Serve an entry under its name; the one before it can be had back by `roll_back`, unless it is not kept.

        Who listens (`on_put`) is told before anybody can be answered by it.
        """
        lend(entry, self._shelf, self.chat)
        for tell in self.on_put:
            tell(entry)
        with self._lock:
            if keep_before and (before := self._shelf.get(entry.name)) is not None:
                self._before[entry.name] = before
            self._shelf = MappingProxyType({**self._shelf, entry.name: entry})
        self.metrics.snapshot(entry.name, entry.snapshot, entry.bundle)
        if entry.kind == "system":
            self._renew(entry.name)
            if "+" not in entry.snapshot:  # else it has only learnt a little more
                self._lend(entry.name)

    def source(self, name: str) -> Path | None:
        """The folder an entry was opened from."""
        self.entry(name)
        return self._sources.get(name)

    def remove(self, name: str) -> None:
        """Serve an entry no longer."""
        self.entry(name)
        with self._lock:
            self._shelf = MappingProxyType({key: entry for key, entry in self._shelf.items() if key != name})
        self._lend(name)

    def _lend(self, changed: str) -> None:
        """Tell the systems that lean on others what is served beside them now."""
        for name, other in self._shelf.items():
            if name != changed:
                lend(other, self._shelf, self.chat)

    def roll_back(self, name: str) -> Entry:
        """Serve again what was served under this name before.

        Raises:
            UsageError: nothing was.
        """
        self.entry(name)
        if name not in self._before:
            raise UsageError(f"nothing was served as {name!r} before what is there now")
        before = self._before[name]
        self.put(before)
        return before

    # -- pipelines

    def systems(self) -> dict[str, Any]:
        """The bundles that pipelines can be made of, by name."""
        return {name: entry.bundle for name, entry in self._shelf.items() if entry.kind == "system"}

    def open_pipelines(self) -> None:
        """Serve every pipeline in the folder that the settings name."""
        folder = self.settings.pipelines_dir
        for file in sorted(folder.glob("*.json")) if folder is not None else ():
            self._compose(PipelineSpec.from_json(file.read_bytes()))

    def serve_pipeline(self, spec: PipelineSpec) -> Entry:
        """Serve a pipeline under its name, and keep it where the settings say.

        Raises:
            PipelineError: it does not fit together.
            UsageError: a system has this name.
        """
        if (there := self._shelf.get(spec.name)) is not None and there.kind == "system":
            raise UsageError(
                f"{spec.name!r} is the name of a system that is served", hint="name the pipeline otherwise"
            )
        entry = self._compose(spec)
        if (folder := self.settings.pipelines_dir) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with replace_file(folder / f"{spec.name}.json") as fresh:
                fresh.write_text(spec.to_json() + "\n", encoding="utf-8")
        return entry

    def _compose(self, spec: PipelineSpec) -> Entry:
        made = compose(spec, self.systems())
        entry = Entry(spec.name, made, snapshot=spec.fingerprint[:12], of_shelf=True)
        entry.warm()
        self.put(entry)
        return entry

    def _renew(self, name: str) -> None:
        """Put pipelines together again that lean on a system which was swapped; one from a folder brought its own."""
        for other in list(self._shelf.values()):
            if other.of_shelf and name in other.bundle.shelf:
                self._compose(other.bundle.spec)

    # -- answers

    async def ask(self, entry: Entry, question: Question) -> Answer:
        """An answer from an entry, through its queue.

        Raises:
            Overloaded, TimedOut: there is more to do than can be done.
        """
        if entry.name not in self._batchers:
            self._batchers[entry.name] = Batcher(
                self._answer,
                self._pool,
                capacity=self.settings.capacity,
                most=self.settings.batch,
                workers=self._workers,
                timeout=self.settings.timeout,
                seen=partial(self._seen, entry.name),
            )
        return await self._batchers[entry.name].ask((entry, question))

    def _seen(self, name: str, size: int, seconds: float) -> None:
        self.metrics.batch(name, size, seconds)
        self.traffic.batch(name, size)

    def waiting(self) -> int:
        """Questions in all queues."""
        return sum(map(len, self._batchers.values()))

    def _answer(self, asked: Sequence[Asked]) -> list[Answer | Exception]:
        """On a worker's thread: a batch, perhaps of two snapshots of one name."""
        users = {str(q.user) for _, q in asked if q.user is not None}
        recent = self.histories.of(users)
        answers: list[Answer | Exception] = [TastemakerError("not answered")] * len(asked)
        for entry in dict.fromkeys(entry for entry, _ in asked):
            places = [place for place, (one, _) in enumerate(asked) if one is entry]
            found = entry.answer([completed(asked[place][1], recent) for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    async def apart(self, work: Callable[..., T], *given: Any) -> T:
        """Something else that computes, on a thread, within the time an answer may take."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.settings.timeout):
            return await loop.run_in_executor(self._pool, partial(work, *given))

    async def slowly(self, work: Callable[..., T], *given: Any) -> T:
        """Something that takes as long as it takes, as opening a bundle, on a thread of its own."""
        return await asyncio.to_thread(work, *given)

    def complete(self, question: Question) -> Question:
        """A question with what the log knows of its user."""
        users = set() if question.user is None else {str(question.user)}
        return completed(question, self.histories.of(users))

    # -- the log

    def note(self, given: Given, question: Question, *, session: str | None = None, shadow: bool = False) -> None:
        """Write a list down, without waiting for it; what the log has no room for is counted as lost."""
        answer = given.answer
        if not shadow:
            self.traffic.told("list", question.user, given.entry.name, answer.items)
        if not self.settings.log_slates:
            return
        served = Served(
            slate=given.slate,
            time=now(),
            user=None if question.user is None else str(question.user),
            session=session,
            system=given.entry.name,
            snapshot=given.entry.snapshot,
            experiment=given.experiment,
            arm=given.arm,
            items=tuple(map(str, answer.items)),
            scores=tuple(answer.scores),
            propensities=None if answer.logp is None else tuple(math.exp(min(one, 0.0)) for one in answer.logp),
            query=question.text,
            trace={**answer.trace, **({"shadow": True} if shadow else {})},
        )
        self._slates.append(served)
        if len(self._slates) == 1:
            asyncio.get_running_loop().call_later(LINGER, self._write_slates)

    def _write_slates(self) -> None:
        """Hand the lists that gathered to the log. One commit for many: nobody waits for them, as for an event."""
        gathered, self._slates = self._slates, []
        if not gathered:
            return
        try:
            self.log.submit(served=gathered)
        except TastemakerError:
            self.metrics.lost.inc(len(gathered))

    async def feedback(self, events: Sequence[Event]) -> Any:
        """Write events down; returns when they are safe on the disk."""
        self._write_slates()  # an event never comes before the list that it answers
        done = await asyncio.wrap_future(self.log.submit(events=events))
        self.histories.forget({event.user for event in events if event.user is not None})
        self.metrics.events.inc(len(events))
        for event in events:
            self.traffic.told(event.kind, event.user, None, [] if event.item is None else [event.item])
        return done

    def background(self, job: Awaitable[Any]) -> None:
        """Let something go on beside the answers; its failure is counted, and harms nobody."""
        task = asyncio.ensure_future(job)
        self._tasks.add(task)

        def over(task: asyncio.Future[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                self.metrics.failed.inc()

        task.add_done_callback(over)

    def health(self) -> dict[str, Any]:
        """What readiness asks: entries are warm, the log can be written to."""
        self.log.health()
        return {"status": "ready" if self._shelf else "empty", "systems": list(self._shelf), "waiting": self.waiting()}

    def close(self) -> None:
        """Finish what is at work, and write out the log."""
        for task in list(self._tasks):
            task.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._write_slates()
        self.log.close()


def alone() -> None:
    """On each thread that answers: nothing below brings threads of its own, since the event loop needs a core too."""
    from numba import set_num_threads

    stay_alone()
    set_num_threads(1)


def completed(question: Question, recent: Mapping[str, Recent]) -> Question:
    if question.user is None or (not (known := recent.get(str(question.user), Recent())).chosen and not known.hidden):
        return question
    return replace(question, recent=known.chosen, hidden=known.hidden)
