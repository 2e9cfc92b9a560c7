"""A server in this process over a few quick systems fitted on the made-up catalogue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tastemaker.data import synthetic
from tastemaker.train import fit
from tastemaker.types import Dataset

pytest.importorskip("fastapi")


@pytest.fixture(scope="session")
def data() -> Dataset:
    return synthetic(200, seed=3)


@pytest.fixture(scope="session")
def bundles(data: Dataset) -> dict[str, Any]:
    return {name: fit(name, data) for name in ("ials", "ease", "popularity")}


@pytest.fixture
def make(bundles: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """make(**settings) -> Runtime with the three systems, its log in a folder of this test."""
    from tastemaker.serve.entry import Entry
    from tastemaker.serve.runtime import Runtime
    from tastemaker.serve.settings import Settings

    made = []

    def runtime(**given: Any) -> Any:
        settings = Settings(**{"log_url": f"sqlite:///{tmp_path / 'log.db'}", "web": False, **given})
        one = Runtime(settings)
        for name, bundle in bundles.items():
            one.put(Entry(name, bundle, snapshot="first"))
        made.append(one)
        return one

    yield runtime
    for one in made:
        one.close()


@pytest.fixture
def live(make: Callable[..., Any]) -> Iterator[Callable[..., str]]:
    """live(**settings), or live(runtime) -> the address of a server on a port of this machine."""
    import uvicorn

    from tastemaker.serve.app import create_app

    running = []

    def start(runtime: Any = None, **given: Any) -> str:
        config = uvicorn.Config(create_app(runtime or make(**given)), port=0, log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def client(make: Callable[..., Any]) -> Iterator[Any]:
    """A client of the whole application."""
    from starlette.testclient import TestClient

    from tastemaker.serve.app import create_app

    with TestClient(create_app(make())) as asking:
        yield asking
