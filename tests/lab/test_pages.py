"""The page of benchmarks shows what a result lays out, whatever the benchmark is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tastemaker.lab.pages import benchmarks_text, results_table

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


def test_a_figure_is_shown_with_what_chance_makes_of_it() -> None:
    def run(value: float, seconds: float, low: float, high: float) -> dict[str, Any]:
        cost = {"fit_seconds": seconds, "evaluate_seconds": 1.0, "fit_peak_mb": 5, "evaluate_peak_mb": int(100 * value)}
        return {"metrics": {"ndcg@5": value}, "intervals": {"ndcg@5": [low, high]}, **cost}

    runs = [run(0.2, 10.0, -0.0, 0.3), run(0.3, 20.0, -0.0, 0.5)]
    one = {"metrics": {"ndcg@5": 0.25}, "published": {"ndcg@5": 0.5}, "runs": runs, "note": "", "machine": {}}
    counts = {"users": 1, "items": 1, "events": 1}
    parts = {"train": 1, "valid": 0, "test": 1, "warnings": []}
    head = {"recipe": "r", "title": "R", "source": "", "note": "", "protocol": "p", "data": counts, "split": parts}
    shown = results_table({**head, "systems": {"a": one, "b": {**one, "metrics": {"ndcg@5": 0.2}, "runs": runs[:1]}}})
    assert "| system | ndcg@5 | 95% of ndcg@5 | seeds | fit s | evaluate s | peak MB |" in shown
    assert "| `a` | 0.2500 (0.5000) | 0.0000 to 0.4000 | 2: 0.2000 to 0.3000 | 15.0 | 1.0 | 30 |" in shown
    assert "| `b` | 0.2000 (0.5000) | 0.0000 to 0.3000 | 1 | 10.0 | 1.0 | 20 |" in shown
