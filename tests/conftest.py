"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

for _pool in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # numba's count becomes torch's once its pool is up
    os.environ.setdefault(_pool, "1")  # test processes share the cores: threads would wait for each other

REPOSITORY = Path(__file__).resolve().parent.parent


def absent(what: str) -> NoReturn:
    """A service is not there: skip, or fail where services are mandatory."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what} (REQUIRE_SERVICES=1 makes it mandatory)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, or a skip that says how to name it."""
    folder = Path(os.environ.get("TASTEMAKER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set TASTEMAKER_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A database to write to, as SQLAlchemy names it."""
    url = os.environ.get("TASTEMAKER_TEST_POSTGRES")
    return url or absent("no PostgreSQL: set TASTEMAKER_TEST_POSTGRES=postgresql+psycopg://user@host:port/database")
