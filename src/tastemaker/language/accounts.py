"""Around any chat model: an account of what it cost, a cache by content, a recording; and doubles that play a part.

chat = Counted(Cached(endpoint, "cache"))         # one inside the other
chat.account()                                    # {"plan": Spent(calls=2, ...), "reply": ...}
Record(chat, "talk.jsonl"); Replay("talk.jsonl")  # every answer kept, and played back without a model
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from tastemaker.contracts import ChatModel
from tastemaker.language.prompts import content_key, plain
from tastemaker.types import DataError, NotFound, Problem, UsageError, nearest
from tastemaker.types.files import replace_file

S = TypeVar("S")


@dataclass(frozen=True)
class Spent:
    """What a task cost so far.

    calls: questions answered or failed; failures: those without an answer; cached: answered without asking the model
    requests: messages sent to a model, repairs and all; cost: in the currency of the prices given
    """

    calls: int = 0
    failures: int = 0
    cached: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        mine, theirs = asdict(self), asdict(other)
        return Spent(**{name: mine[name] + theirs[name] for name in mine})


class Ledger:
    """What each task cost, added up from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, Spent] = {}

    def add(self, task: str, spent: Spent) -> None:
        with self._lock:
            self._spent[task] = self._spent.get(task, Spent()) + spent

    def account(self) -> dict[str, Spent]:
        with self._lock:
            return dict(self._spent)


@runtime_checkable
class Accounts(Protocol):
    """A chat model that knows what it spent."""

    def account(self) -> Mapping[str, Spent]: ...


class Counted:
    """Counts calls and seconds of the model inside; tokens and cost too, where that model knows them."""

    def __init__(self, inner: ChatModel) -> None:
        self.inner = inner
        self._ledger = Ledger()

    @property
    def identity(self) -> str:
        return self.inner.identity

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        began, failed = time.perf_counter(), 1
        try:
            answer = self.inner.run(task, given, wanted)
            failed = 0
            return answer
        finally:
            self._ledger.add(task, Spent(calls=1, failures=failed, seconds=time.perf_counter() - began))

    def account(self) -> dict[str, Spent]:
        """By task: calls and seconds as counted here, the rest as the model inside counts it."""
        within = self.inner.account() if isinstance(self.inner, Accounts) else {}
        own = self._ledger.account()
        return {
            task: replace(within.get(task, Spent()), calls=one.calls, failures=one.failures, seconds=one.seconds)
            for task, one in own.items()
        }

    def total(self) -> Spent:
        return sum(self.account().values(), Spent())


class Cached:
    """Answers a question that was answered before from a folder, one file an answer, by a hash of its content.

    What was asked is not written down, the answer is. Files that are damaged, or no longer what is wanted, are asked
    for anew.
    """

    def __init__(self, inner: ChatModel, folder: str | Path) -> None:
        self.inner, self.folder = inner, Path(folder)
        self._ledger = Ledger()

    @property
    def identity(self) -> str:
        return self.inner.identity

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        key = content_key(self.identity, task, given, wanted)
        path = self.folder / key[:2] / f"{key}.json"
        shape: TypeAdapter[S] = TypeAdapter(wanted)
        try:
            answer = shape.validate_json(path.read_bytes())
            self._ledger.add(task, Spent(calls=1, cached=1))
            return answer
        except (OSError, ValidationError):
            answer = self.inner.run(task, given, wanted)
        with replace_file(path) as fresh:
            fresh.write_bytes(shape.dump_json(answer))
        return answer

    def account(self) -> dict[str, Spent]:
        within = self.inner.account() if isinstance(self.inner, Accounts) else {}
        own = self._ledger.account()
        return {task: within.get(task, Spent()) + own.get(task, Spent()) for task in {**within, **own}}


class Record:
    """Writes every question and answer to a file of JSON lines, from which `Replay` plays them back.

    The file holds what people wrote: it is readable by its owner alone.
    """

    def __init__(self, inner: ChatModel, path: str | Path) -> None:
        self.inner, self.path = inner, Path(path)
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        return self.inner.identity

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        answer = self.inner.run(task, given, wanted)
        line = {
            "key": content_key(self.identity, task, given, wanted),
            "identity": self.identity,
            "task": task,
            "given": plain(given),
            "answer": TypeAdapter(wanted).dump_python(answer, mode="json"),
        }
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=True) + "\n")
        return answer

    def account(self) -> Mapping[str, Spent]:
        return self.inner.account() if isinstance(self.inner, Accounts) else {}


class Replay:
    """Plays back what `Record` wrote: the same question, of the same model, gets the same answer.

    A question asked several times gets its answers in their order, and then the last one again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._answers: dict[str, list[Any]] = {}
        self._played: dict[str, int] = {}
        identities: set[str] = set()
        try:
            with self.path.open(encoding="utf-8") as file:
                for row, text in enumerate(file, 1):
                    if text.strip():
                        line = _line(text, self.path, row)
                        self._answers.setdefault(line["key"], []).append(line["answer"])
                        identities.add(line["identity"])
        except FileNotFoundError as error:
            raise NotFound(f"there is no recording {self.path}", hint="Record(chat, path) makes one") from error
        if len(identities) > 1:
            raise DataError(f"{self.path} holds answers of several models: {', '.join(sorted(identities))}")
        self.identity = next(iter(identities), "replay")

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        key = content_key(self.identity, task, given, wanted)
        with self._lock:
            if key not in self._answers:
                raise NotFound(
                    f"the recording {self.path} has no answer to this question of the task {task!r}",
                    hint="record it anew: a question is found by all that is given and wanted, to the letter",
                )
            at = self._played.get(key, 0)
            self._played[key] = min(at + 1, len(self._answers[key]) - 1)
            answer = self._answers[key][at]
        return TypeAdapter(wanted).validate_python(answer)


Script = Sequence[Any] | Callable[[Any], Any]


class Scripted:
    """Answers by task from a list, in its order, or from a function of what is given; for tests.

        Scripted(plan=[Plan(...), Plan(...)], critic=lambda given: Verdict(good=True))

    An answer that is an exception is raised. `asked` keeps every (task, given).
    """

    def __init__(self, *, identity: str = "scripted", **answers: Script) -> None:
        self._identity = identity
        self._scripts: dict[str, Callable[[Any], Any]] = {
            task: script if callable(script) else _in_turn(task, script) for task, script in answers.items()
        }
        self.asked: list[tuple[str, Any]] = []

    @property
    def identity(self) -> str:
        return self._identity

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        if task not in self._scripts:
            raise NotFound(f"the script has no answers to the task {task!r}", hint=nearest(task, self._scripts))
        self.asked.append((task, given))
        answer = self._scripts[task](given)
        if isinstance(answer, Exception):
            raise answer
        return TypeAdapter(wanted).validate_python(answer)


def _in_turn(task: str, answers: Iterable[Any]) -> Callable[[Any], Any]:
    left = iter(list(answers))

    def following(_: Any) -> Any:
        try:
            return next(left)
        except StopIteration:
            raise UsageError(f"the script has no further answer to the task {task!r}") from None

    return following


def _line(text: str, path: Path, row: int) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if not isinstance(line, dict) or not {"key", "identity", "answer"} <= line.keys():
            raise ValueError("it needs key, identity and answer")
    except ValueError as error:
        raise DataError(f"{path} is no recording", [Problem(str(error), str(path), row)]) from error
    return line
