"""Databases and a Redis for the tests of what a server keeps."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import absent


@pytest.fixture
def postgres_schema(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a schema of its own in the PostgreSQL database, dropped in the end."""
    sa = pytest.importorskip("sqlalchemy")
    url = request.getfixturevalue("postgres_url")
    name = f"tastemaker_test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {name}"))
    yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    address: str = request.getfixturevalue("postgres_schema")
    return address


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis to write to: the one that TASTEMAKER_TEST_REDIS names, else one started for the tests."""
    if url := os.environ.get("TASTEMAKER_TEST_REDIS"):
        yield url
        return
    binary = shutil.which("redis-server")
    if binary is None:
        absent("no Redis: set TASTEMAKER_TEST_REDIS=redis://host:port/number, or put redis-server on the PATH")
    folder = tmp_path_factory.mktemp("redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with (folder / "log").open("w") as output:
        server = subprocess.Popen([binary, *options], stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(200):
            if "ready to accept connections" in (folder / "log").read_text(errors="replace").lower():
                break
            if server.poll() is not None:
                absent("redis-server does not start:\n" + (folder / "log").read_text(errors="replace"))
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
