"""The page of benchmarks shows what a result lays out, whatever the benchmark is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tastemaker.lab.pages import benchmarks_text

MACHINE = {"processor": "Abacus", "cores": 2, "memory_gb": 1.5, "load_1min": 0.2}


def page(folder: Path, **found: Any) -> str:
    head = {"benchmark": "sums", "date": "2026-01-01", "command": "python benchmarks/sums.py", "machine": MACHINE}
    (folder / "sums.json").write_text(json.dumps({**head, **found}))
    return benchmarks_text(folder)


def test_tables_are_shown_and_other_figures_linked(tmp_path: Path) -> None:
    table = {
        "title": "Sums | products",
        "columns": ["who", "seconds", "users"],
        "rows": [["ours", 0.12345, 29858], ["a|b", 1234.56, None]],
        "note": "Theirs rests on Sundays.",
    }
    text = page(tmp_path, tables=[table], secret=17)
    assert (
        text
        == """## sums

`python benchmarks/sums.py`, 2026-01-01: Abacus, 2 cores, 1.5 GB, load 0.2 when it was written. \
[All figures](../benchmarks/results/sums.json).

**Sums \\| products**

| who | seconds | users |
|---|---:|---:|
| ours | 0.1235 | 29,858 |
| a\\|b | 1,235 |  |

Theirs rests on Sundays."""
    )


def test_a_result_without_tables_is_linked_alone(tmp_path: Path) -> None:
    text = page(tmp_path, figures={"a": 1})
    assert "sums.json" in text and "| " not in text
