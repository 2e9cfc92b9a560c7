"""Who may be told what happens in training. Anything with a method `log(record)` will do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class JsonLines:
    """Appends every record to a file, one JSON object a line, with the time in seconds since 1970."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def log(self, record: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")


class Terminal:
    """Says every record in a line."""

    def __init__(self, tell: Callable[[str], None] = print) -> None:
        self.tell = tell

    def log(self, record: Mapping[str, Any]) -> None:
        facts = {name: value for name, value in record.items() if name not in ("event", "system", "stage")}
        shown = ", ".join(
            f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items()
        )
        self.tell(f"{record['system']}: {record['event']}: {shown}")
