"""A writer that is killed at any moment: what it acknowledged is there exactly once, and sending all again doubles none."""

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

from tastemaker.serve.log import Event, Served, open_log
from tastemaker.types import generator

THREADS = 8
WRITER = """
import itertools, os, sys, threading
from tastemaker.serve.log import Event, Served, open_log

log, first = open_log(sys.argv[1]), int(sys.argv[2])

def write(who):
    for n in itertools.count():
        key = f"{first}-{who}-{n}"
        os.write(1, f"sent {key}\\n".encode())
        done = log.append(
            [Event(key, n, "like", f"u{who}", "i")],
            [Served(key, n, f"u{who}", None, "s", "s", None, None, ("i",), (1.0,))] if n % 3 == 0 else [],
        )
        assert done.doubled == 0 and done.stored == (2 if n % 3 == 0 else 1)
        os.write(1, f"done {key}\\n".encode())

for who in range(8):
    threading.Thread(target=write, args=(who,)).start()
"""


def run_and_kill(url: str, number: int, after: int, delay: float) -> tuple[set[str], set[str]]:
    """Keys that a writer sent, and those it had acknowledged, when it was killed `delay` seconds after so many."""
    command = [sys.executable, "-c", WRITER, url, str(number)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    output, killer = b"", None
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up:
        if not select.select([child.stdout], [], [], 1)[0]:
            continue
        if not (chunk := os.read(child.stdout.fileno(), 1 << 16)):
            break
        output += chunk
        if killer is None and output.count(b"done ") >= after:
            killer = threading.Timer(delay, child.send_signal, [signal.SIGKILL])
            killer.start()
    if killer is not None:
        killer.join()
    child.kill()
    told = child.stderr.read().decode()
    assert child.wait(30) == -signal.SIGKILL and not told, told
    child.stdout.close()
    child.stderr.close()
    lines = [line.split() for line in output.decode().split("\n")[:-1]]
    sent = {key for word, key in lines if word == "sent"}
    return sent, {key for word, key in lines if word == "done"}


def survive(url: str, rounds: int) -> None:
    rng = generator(11, "kill")
    sent: set[str] = set()
    acknowledged: set[str] = set()
    for number in range(rounds):
        new, safe = run_and_kill(url, number, int(rng.integers(1, 120)), float(rng.random() * 0.05))
        assert safe and safe <= new
        sent |= new
        acknowledged |= safe
        with open_log(url) as log:
            keys = [key for frame in log.events() for key in frame["key"]]
            lists = [key for frame in log.slates() for key in frame["slate"]]
        assert len(keys) == len(set(keys)) and len(lists) == len(set(lists))
        assert acknowledged <= set(keys) <= sent, "all that was acknowledged, and nothing that was never sent"
        opened = {key for key in keys if int(key.split("-")[2]) % 3 == 0}
        assert set(lists) == opened, "what one call gave is there together or not at all"
        for who in range(THREADS):
            mine = [int(key.split("-")[2]) for key in keys if key.startswith(f"{number}-{who}-")]
            assert mine == list(range(len(mine))), "a thread's records are there in order, without a gap"
    with open_log(url) as log:
        stored = log.append(
            [Event(key, 0, "like", "u", "i") for key in sorted(sent)],
            [Served(key, 0, "u", None, "s", "s", None, None, ("i",), (1.0,)) for key in sorted(acknowledged)],
        )
        assert stored.doubled >= len(acknowledged) and log.count_events() == len(sent)
        again = log.append([Event(key, 0, "like", "u", "i") for key in sent])
        assert (again.stored, again.doubled) == (0, len(sent))


def test_sqlite_survives_kills(tmp_path: Path) -> None:
    survive(f"sqlite:///{tmp_path / 'log.db'}", rounds=6)


@pytest.mark.services
def test_postgresql_survives_kills_of_its_client(postgres_schema: str) -> None:
    survive(postgres_schema, rounds=3)
