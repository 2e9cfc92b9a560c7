"""A queue in front of a worker: what comes while the worker is busy is done together, when it is free.

No question waits for others to arrive: an idle worker takes what there is at once. Under load the queue fills while a
batch is computed, so batches grow by themselves up to `most`, and with them the number of answers a second. A worker
that is done takes the next batch itself, without waiting for the event loop to have read the answers. The queue
is bounded: where it is full, a question is refused at once, with the seconds after which there should be room again;
one that waited past its time is not computed for nobody.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from tastemaker.types import TastemakerError

Q = TypeVar("Q")
A = TypeVar("A")
SMOOTHING = 0.2  # weight of the newest batch in the estimate of what an answer takes


class Overloaded(TastemakerError):
    """More is asked than can be answered; `retry_after` seconds from now there should be room."""

    exit_code = 9

    def __init__(self, retry_after: int) -> None:
        super().__init__("the server has more to do than it can hold", hint=f"ask again in {retry_after} s")
        self.retry_after = retry_after


class TimedOut(TastemakerError):
    """An answer was not there in time."""

    exit_code = 9


@dataclass(slots=True)
class _Waiting(Generic[Q, A]):
    question: Q
    answer: asyncio.Future[A]
    until: float


class Batcher(Generic[Q, A]):
    """Answers questions in batches, on threads of `pool`; it is asked from one event loop.

    Args:
        work: answers a batch, an answer or an exception for each question, in order; it runs on a thread.
        capacity: questions that may wait; beyond, `Overloaded`.
        most: questions of one batch.
        workers: batches at work at once.
        timeout: seconds that a question may take, its wait included.
        seen: is told of each batch: its size, and the seconds it took.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Sequence[A | Exception]],
        pool: Executor,
        *,
        capacity: int = 512,
        most: int = 128,
        workers: int = 1,
        timeout: float = 5.0,
        seen: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.work, self.pool, self.seen = work, pool, seen
        self.capacity, self.most, self.workers, self.timeout = capacity, most, workers, timeout
        self.waiting: deque[_Waiting[Q, A]] = deque()
        self.running = 0  # workers at work
        self._lock = threading.Lock()  # over the two
        self.seconds_each = 0.001

    def __len__(self) -> int:
        """Questions that wait."""
        return len(self.waiting)

    async def ask(self, question: Q) -> A:
        """The answer.

        Raises:
            Overloaded: the queue is full.
            TimedOut: the answer took too long.
        """
        if len(self.waiting) >= self.capacity:
            raise Overloaded(max(1, math.ceil(len(self.waiting) * self.seconds_each / self.workers)))
        loop = asyncio.get_running_loop()
        one = _Waiting[Q, A](question, loop.create_future(), time.monotonic() + self.timeout)
        with self._lock:
            self.waiting.append(one)
            begin = self.running < self.workers
            self.running += begin
        if begin:
            try:
                self.pool.submit(self._go_on, loop)
            except RuntimeError:  # the pool is closed
                self.running -= 1
                raise
        try:
            async with asyncio.timeout(self.timeout):
                return await one.answer
        except TimeoutError:
            raise TimedOut(f"no answer within {self.timeout:g} s", hint="ask for less, or again later") from None

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """On a worker's thread: batch after batch, until nothing waits."""
        while batch := self._next():
            began = time.monotonic()
            answers: Sequence[A | Exception]
            try:
                answers = self.work([one.question for one in batch])
                if len(answers) != len(batch):
                    raise RuntimeError(f"{len(batch)} questions have {len(answers)} answers")
            except Exception as error:
                answers = [error] * len(batch)
            try:
                loop.call_soon_threadsafe(self._tell, batch, answers, time.monotonic() - began)
            except RuntimeError:  # the loop is closed, and nobody waits
                with self._lock:
                    self.running -= 1
                return

    def _next(self) -> list[_Waiting[Q, A]]:
        """The next batch; where there is none, the worker is free from here on."""
        batch: list[_Waiting[Q, A]] = []
        now = time.monotonic()
        with self._lock:
            while self.waiting and len(batch) < self.most:
                one = self.waiting.popleft()
                if not one.answer.done() and one.until > now:  # else whoever asked is gone
                    batch.append(one)
            self.running -= not batch
        return batch

    def _tell(self, batch: list[_Waiting[Q, A]], answers: Sequence[A | Exception], took: float) -> None:
        self.seconds_each += SMOOTHING * (took / len(batch) - self.seconds_each)
        self.seen(len(batch), took)
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
