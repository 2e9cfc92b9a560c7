"""A writer killed at any moment: what it acknowledged is there exactly once, and sending it again doubles nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tastemaker.serve import tables
from tastemaker.serve.log import Event, Served, open_log
from tastemaker.types import generator

THREADS = 8
WRITERS = """
# Imports once; for each number on its input it forks a writer, says who that is, and when it has ended.
import itertools, os, sys, threading, time
from tastemaker.serve.log import Event, Served, open_log

def write(log, first, who):
    for n in itertools.count():
        key = f"{first}-{who}-{n}"
        os.write(1, f"sent {key}\\n".encode())
        served = [Served(key, n, f"u{who}", None, "s", "s", None, None, ("i",), (1.0,))] if n % 3 == 0 else []
        done = log.append([Event(key, n, "like", f"u{who}", "i")], served)
        assert (done.stored, done.doubled) == (1 + len(served), 0)
        os.write(1, f"done {key}\\n".encode())

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        log = open_log(sys.argv[1])
        for who in range(8):
            threading.Thread(target=write, args=(log, int(line), who)).start()
        time.sleep(1000)
    os.write(1, f"writer {pid}\\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(1, f"over {os.waitstatus_to_exitcode(status)}\\n".encode())
"""


def run_and_kill(writers: subprocess.Popen[bytes], number: int, after: int, delay: float) -> tuple[set[str], set[str]]:
    """Keys that a writer sent, and those it had acknowledged, when it was killed `delay` seconds after so many."""
    assert writers.stdin is not None and writers.stdout is not None
    writers.stdin.write(f"{number}\n".encode())
    writers.stdin.flush()
    output, killer, give_up = b"", None, time.monotonic() + 120
    while b"over " not in output or not output.endswith(b"\n"):
        assert time.monotonic() < give_up and writers.poll() is None, output[-2000:]
        if not select.select([writers.stdout], [], [], 1)[0]:
            continue
        output += os.read(writers.stdout.fileno(), 1 << 16)
        if killer is None and output.count(b"done ") >= after and b"writer " in output:
            pid = int(output.partition(b"writer ")[2].split()[0])
            killer = threading.Timer(delay, os.kill, [pid, signal.SIGKILL])
            killer.start()
    lines = [line.split() for line in output.decode().splitlines()]
    assert ["over", str(-signal.SIGKILL)] in lines, "it ended by the kill, not by a fault"
    return {key for word, key in lines if word == "sent"}, {key for word, key in lines if word == "done"}


def survive(url: str, rounds: int) -> None:
    rng = generator(11, "kill")
    sent: set[str] = set()
    acknowledged: set[str] = set()
    command = [sys.executable, "-c", WRITERS, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writers:
        for number in range(rounds):
            after, delay = int(rng.integers(1, 120)), float(rng.random() * 0.05)
            new, safe = run_and_kill(writers, number, after, delay)
            assert safe and safe <= new
            sent |= new
            acknowledged |= safe
            check(url, number, sent, acknowledged)
    with open_log(url) as log:
        shown = [served(key) for key in sorted(acknowledged)]
        stored = log.append([event(key) for key in sorted(sent)], shown)
        assert stored.doubled >= len(acknowledged) and log.count_events() == len(sent)
        again = log.append([event(key) for key in sent], shown)
        assert (again.stored, again.doubled) == (0, len(sent) + len(shown))


def check(url: str, number: int, sent: set[str], acknowledged: set[str]) -> None:
    """What is in the log after the kill of writer `number`."""
    with open_log(url) as log:
        with tables.writer(log.engine).connect() as connection, tables.exclusive(connection):
            pass  # PostgreSQL may still be at the last commit of the dead
        keys = [key for frame in log.events() for key in frame["key"]]
        lists = [key for frame in log.slates() for key in frame["slate"]]
    assert len(keys) == len(set(keys)) and len(lists) == len(set(lists))
    assert acknowledged <= set(keys) <= sent, "all that was acknowledged, and nothing that was never sent"
    with_lists = {key for key in keys if int(key.split("-")[2]) % 3 == 0}
    assert set(lists) == with_lists, "what one call gave is there together or not at all"
    for who in range(THREADS):
        mine = [int(key.split("-")[2]) for key in keys if key.startswith(f"{number}-{who}-")]
        assert mine == list(range(len(mine))), "a thread's records are there in order, without a gap"


def event(key: str) -> Event:
    return Event(key, 0, "like", "u", "i")


def served(key: str) -> Served:
    return Served(key, 0, "u", None, "s", "s", None, None, ("i",), (1.0,))


def test_sqlite_survives_kills(tmp_path: Path) -> None:
    survive(f"sqlite:///{tmp_path / 'log.db'}", rounds=6)


@pytest.mark.services
def test_postgresql_survives_kills_of_its_client(postgres_schema: str) -> None:
    survive(postgres_schema, rounds=3)
