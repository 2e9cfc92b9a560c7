"""The queue: batches grow under load, it is bounded, and each question has its own fate."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tastemaker.serve.batching import Batcher, Overloaded, TimedOut


def run(scenario: Any) -> Any:
    return asyncio.run(scenario())


def test_an_idle_worker_takes_a_question_at_once_and_a_busy_one_takes_all_that_came_since() -> None:
    sizes: list[int] = []
    gate, begun = threading.Event(), threading.Event()

    def work(questions: Sequence[int]) -> list[int]:
        sizes.append(len(questions))
        begun.set()
        gate.wait(10)
        return [-q for q in questions]

    async def scenario() -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            batcher: Batcher[int, int] = Batcher(work, pool, most=8)
            first = asyncio.create_task(batcher.ask(0))
            await asyncio.to_thread(begun.wait, 10)
            others = [asyncio.create_task(batcher.ask(n)) for n in range(1, 12)]
            await asyncio.sleep(0)
            gate.set()
            return [await first, *[await other for other in others]]

    assert run(scenario) == [-n for n in range(12)], "every question gets its own answer"
    assert sizes == [1, 8, 3]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    gate = threading.Event()

    def work(questions: Sequence[int]) -> list[int]:
        gate.wait(10)
        return list(questions)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher: Batcher[int, int] = Batcher(work, pool, capacity=3, most=1)
            going = [asyncio.create_task(batcher.ask(n)) for n in range(4)]  # one at work, three wait
            await asyncio.sleep(0.05)
            with pytest.raises(Overloaded) as refused:
                await batcher.ask(9)
            assert refused.value.retry_after >= 1
            gate.set()
            assert [await one for one in going] == [0, 1, 2, 3], "what was let in is answered"
            assert await batcher.ask(5) == 5, "and there is room again"

    run(scenario)


def test_one_fault_harms_no_neighbour_and_a_crash_is_told_to_all_of_its_batch() -> None:
    def work(questions: Sequence[int]) -> list[Any]:
        if 99 in questions:
            raise ValueError("crashed")
        return [KeyError(q) if q % 2 else q for q in questions]

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher: Batcher[int, Any] = Batcher(work, pool)
            found = await asyncio.gather(*map(batcher.ask, range(4)), return_exceptions=True)
            assert [type(one) for one in found] == [int, KeyError, int, KeyError]
            with pytest.raises(ValueError, match="crashed"):
                await batcher.ask(99)
            assert await batcher.ask(2) == 2

    run(scenario)


def test_what_waited_too_long_is_not_computed() -> None:
    done: list[int] = []

    def work(questions: Sequence[int]) -> list[int]:
        if 0 in questions:
            time.sleep(0.3)
        done.extend(questions)
        return list(questions)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher: Batcher[int, int] = Batcher(work, pool, most=1, timeout=0.15)
            first = asyncio.create_task(batcher.ask(0))
            await asyncio.sleep(0.02)
            with pytest.raises(TimedOut):
                await batcher.ask(1)
            with pytest.raises(TimedOut):
                await first
            await asyncio.sleep(0.3)
            assert await batcher.ask(2) == 2

    run(scenario)
    assert 1 not in done


def test_whoever_goes_away_leaves_the_queue() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def work(questions: Sequence[int]) -> list[int]:
        gate.wait(10)
        seen.extend(questions)
        return list(questions)

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher: Batcher[int, int] = Batcher(work, pool, most=1)
            first = asyncio.create_task(batcher.ask(0))
            gone = asyncio.create_task(batcher.ask(1))
            last = asyncio.create_task(batcher.ask(2))
            await asyncio.sleep(0.02)
            gone.cancel()
            await asyncio.sleep(0)
            gate.set()
            assert (await first, await last) == (0, 2)

    run(scenario)
    assert seen == [0, 2]
