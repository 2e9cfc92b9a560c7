"""Every registered system survives every check."""

from __future__ import annotations

from functools import cache

import pytest

from tastemaker.contracts import names
from tastemaker.testing import CHECKS, Subject, check_fresh_process, run_check, subject


@cache
def _subject(name: str) -> Subject:
    return subject(name)


@pytest.mark.parametrize("system", names())
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(system: str, check: str) -> None:
    run_check(check, _subject(system))


def test_all_bundles_open_in_one_fresh_process() -> None:
    check_fresh_process(_subject(name) for name in names())
