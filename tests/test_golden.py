"""The first losses of every trained system are what they were: a change of them is a change of the method.

TASTEMAKER_WRITE_GOLDEN=1 python -m pytest tests/test_golden.py     writes them anew, after a change on purpose.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tastemaker.contracts import names
from tastemaker.testing import subject, watch

FILE = Path(__file__).parent / "golden" / "first_losses.json"
STEPS = 4
GOLDEN = json.loads(FILE.read_text()) if FILE.is_file() else {}


@pytest.mark.parametrize("name", names())
def test_first_losses(name: str) -> None:
    seen = watch(subject(name), steps=STEPS)
    if seen is None:
        assert name not in GOLDEN, f"{name} was trained by steps, and is no longer"
        return
    if os.environ.get("TASTEMAKER_WRITE_GOLDEN") == "1":
        GOLDEN[name] = seen.losses
        FILE.write_text(json.dumps(dict(sorted(GOLDEN.items())), indent=1) + "\n")
    assert seen.losses == pytest.approx(GOLDEN[name], rel=1e-5), "the first losses have changed"
