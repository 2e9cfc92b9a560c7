"""A journal: one JSON object a line, each on disk before the next thing is done.

A line that a kill cut short is the last one, and is dropped when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tastemaker.types import UsageError, replace_file

FORMAT = 1


class Journal:
    """What has been done so far, in order; `file` None: kept in memory alone."""

    def __init__(self, file: Path | None, key: str, about: Mapping[str, Any]) -> None:
        self.file = file
        self.records: list[dict[str, Any]] = []
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.lock = (file.parent / f".{file.name}.lock").open("w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(f"another process is at work in {file.parent}") from error
            self.records = _whole_lines(file) if file.is_file() else []
        if not self.records:
            self.add({"kind": "begin", "format": FORMAT, "key": key, **about})
        elif self.records[0].get("key") != key:
            raise UsageError(
                f"{file} belongs to another search: other data, split, systems, budget or options",
                hint="choose another folder, or remove this one",
            )

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a record; it is on disk when this returns."""
        self.records.append(dict(record))
        if self.file is None:
            return
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Let others at it."""
        if self.file is not None:
            self.lock.close()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, in order."""
        return [record for record in self.records if record["kind"] == kind]


def _whole_lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file; what stands after the last whole one is cut off."""
    found: list[dict[str, Any]] = []
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines(keepends=True)
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith("\n") or not isinstance(record, dict) or "kind" not in record:
            break
        found.append(record)
    if len(found) < len(lines):
        with replace_file(file) as fresh:
            fresh.write_text("".join(lines[: len(found)]), encoding="utf-8")
    return found
