"""Server processes killed while a bandit learns: every acknowledged event counts once, in all of them, in the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.data import synthetic
from tastemaker.nn.edges import CLUSTER
from tastemaker.serve.log import open_log
from tastemaker.train import Bundle, fit
from tastemaker.types import Requests, generator

pytest.importorskip("fastapi")

EVENTS, SENDERS = 100, 4
MAKER = """
# Imports once; for each line on its input, a bundle, a log, a Redis and a port, it forks a server and says who that is.
import json, os, signal, sys
import uvicorn
from tastemaker.serve.app import create_app
from tastemaker.serve.entry import opened
from tastemaker.serve.runtime import Runtime
from tastemaker.serve.settings import Settings
import tastemaker.systems.online.diag_linucb

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        bundle, log, shared, port = json.loads(line)
        runtime = Runtime(Settings(log_url=log, web=False, mcp=False, shared_log=True, learn_every=0.1, keep_every=0.2,
                                   learning_url=shared or None))
        runtime.put(opened(bundle))
        uvicorn.run(create_app(runtime), port=port, log_level="error")
        os._exit(0)
    os.write(1, f"{pid}\\n".encode())
"""


@pytest.fixture(scope="module")
def maker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        yield one


class Servers:
    """Two server processes at two ports, one log."""

    def __init__(self, maker: subprocess.Popen[str], bundle: Path, log: str, shared: str) -> None:
        self.maker, self.given = maker, (str(bundle), log, shared)
        self.ports = [free_port(), free_port()]
        self.pids = [self.start(port) for port in self.ports]

    def start(self, port: int) -> int:
        assert self.maker.stdin is not None and self.maker.stdout is not None
        print(json.dumps([*self.given, port]), file=self.maker.stdin, flush=True)
        return int(self.maker.stdout.readline())

    def kill(self, which: int) -> None:
        """At once, in the midst of whatever it does; and start another in its place a little later."""
        os.kill(self.pids[which], signal.SIGKILL)
        time.sleep(0.3)
        self.pids[which] = self.start(self.ports[which])

    def call(self, which: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """An answer; asked again, as a client would, until there is one."""
        give_up = time.monotonic() + 60
        while True:
            try:
                with closing(HTTPConnection("127.0.0.1", self.ports[which], timeout=10)) as connection:
                    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                    answer = connection.getresponse()
                    text = answer.read()
            except (OSError, HTTPException):
                assert time.monotonic() < give_up and self.maker.poll() is None
                time.sleep(0.05)
                continue
            assert answer.status == 200, text
            found: dict[str, Any] = json.loads(text)
            return found

    def end(self) -> None:
        """Let them end in order."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in self.pids) and time.monotonic() < give_up:
            time.sleep(0.05)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def servers(*given: Any) -> Iterator[Servers]:
    running = Servers(*given)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return fit("diag-linucb", synthetic(60, n_items=40, seed=5), {"n_clusters": 6, "nearest": 3, "width": 25})


def send(running: Servers, bundle: Bundle, who: int, sent: list[tuple[str, str, str]]) -> None:
    """What one client does: lists, likes and impressions, each until it is acknowledged, at both processes in turn."""
    rng = generator(who, "sender")
    users, items = bundle.users.series.to_list(), bundle.catalogue["item"].to_list()
    for n in range(EVENTS // SENDERS):
        user = users[rng.integers(len(users))]
        event = {"key": f"{who}-{n}", "user": user, "item": items[rng.integers(len(items))]}
        event["kind"] = "like" if rng.random() < 0.5 else "impression"
        if n % 5 == 0:
            shown = running.call(n % 2, "/recommend", {"user": user, "k": 5})
            event |= {"item": shown["items"][int(rng.integers(5))]["item"], "slate": shown["slate"]}
        running.call((n + who) % 2, "/feedback", {"events": [event]})
        sent.append((event["user"], event["item"], event["kind"]))


def undisturbed(bundle: Bundle, sent: list[tuple[str, str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """d and b of all edges after these trials, by the equations: d += w^2, b += w r."""
    system = bundle.system
    seen, earned = system.edges.seen.copy(), system.edges.earned.copy()
    place = {int(key): at for at, key in enumerate(system.edges.keys)}
    for user, item, kind in sent:
        asked = Requests.of_users([bundle.users.number(user)])
        numbers, weights = system.clusters.memberships(system.space.queries(asked))
        for cluster, weight in zip(numbers[0].tolist(), weights[0].tolist(), strict=True):
            at = place.get(cluster * int(CLUSTER) + bundle.items.number(item))
            if at is not None:
                seen[at] += weight**2
                earned[at] += weight * (kind == "like")
    return seen, earned


def survive(maker: subprocess.Popen[str], bundle: Bundle, folder: Path, shared: str = "") -> None:
    from safetensors.numpy import load_file

    bundle.save(folder / "bundle")
    log_url = f"sqlite:///{folder / 'log.db'}"
    sent: list[tuple[str, str, str]] = []
    with servers(maker, folder / "bundle", log_url, shared) as running:
        clients = [threading.Thread(target=send, args=(running, bundle, who, sent)) for who in range(SENDERS)]
        for client in clients:
            client.start()
        for which, share in ((0, 0.3), (1, 0.6)):
            while len(sent) < share * EVENTS:
                time.sleep(0.005)
            running.kill(which)
        for client in clients:
            client.join(100)
        assert len(sent) == EVENTS, "each was acknowledged"
        with open_log(log_url) as log:
            assert log.count_events() == EVENTS
            last = log.changed_since(None)[1]
        seen, earned = undisturbed(bundle, sent)
        expected = type(bundle.system)(bundle.config, bundle.schema)
        expected.restore({**bundle.system.export(), "edges.seen": seen, "edges.earned": earned})
        user = bundle.users.series[3]
        wanted = expected.score(Requests.of_users([3]))[0]
        for which in (0, 1):
            give_up = time.monotonic() + 30
            while not (got := running.call(which, "/recommend", {"user": user, "k": 40, "seen": True}))[
                "snapshot"
            ].endswith(f"+{last}"):
                assert time.monotonic() < give_up, got["snapshot"]
                time.sleep(0.05)
            numbers = bundle.items.numbers([one["item"] for one in got["items"]])
            assert sorted(numbers.tolist()) == list(range(40))
            scores = [one["score"] for one in got["items"]]
            np.testing.assert_allclose(scores, wanted[numbers], rtol=1e-5, err_msg=f"process {which}")
    kept = load_file(next((folder / "log.db.learnt").glob("*.safetensors")))
    np.testing.assert_allclose(kept["edges.seen"], seen, rtol=1e-6)  # weights are made in float32
    np.testing.assert_allclose(kept["edges.earned"], earned, rtol=1e-6, atol=1e-7)
    assert (seen > 1).sum() > 60


def test_killed_processes_lose_nothing_and_count_nothing_twice(
    maker: subprocess.Popen[str], bundle: Bundle, tmp_path: Path
) -> None:
    survive(maker, bundle, tmp_path)


@pytest.mark.services
def test_nor_do_those_that_share_what_they_learn_in_redis(
    maker: subprocess.Popen[str], bundle: Bundle, tmp_path: Path, redis_url: str
) -> None:
    survive(maker, bundle, tmp_path, redis_url)
