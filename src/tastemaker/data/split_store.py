"""Splits on disk: beside a saved dataset, one folder each, found by name.

splits/NAME/split.toml      what was asked for, the cut, the warnings, the fingerprint of the dataset
splits/NAME/parts.parquet   a row an event, in the dataset's order: part, and case and asked where a split has them
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import polars as pl

from tastemaker.types import DataError, Dataset, NotFound, Split, UsageError, nearest, replace_folder, to_toml

SPLITS = "splits"
SPLIT_FILE = "split.toml"
PARTS_FILE = "parts.parquet"
FORMAT = 1
COLUMNS = {"part": pl.Int8, "case": pl.Int64, "asked": pl.Boolean}


def save_split(split: Split, folder: str | Path, name: str = "main") -> Path:
    """Write a split beside the dataset in `folder`; its own folder appears whole or not at all."""
    target = _place(Path(folder), name)
    columns = {column: getattr(split, column) for column in COLUMNS}
    about: dict[str, Any] = {
        "format": FORMAT,
        "name": split.name,
        "fingerprint": split.data.fingerprint,
        "history": split.history,
        "repeats": split.repeats,
        "warnings": list(split.warnings),
        **({} if split.cut is None else {"cut": split.cut}),
        "events": dict(split.sizes),
        "spec": dict(split.spec),
    }
    with replace_folder(target, marker=SPLIT_FILE) as fresh:
        pl.DataFrame({c: v for c, v in columns.items() if v is not None}).write_parquet(fresh / PARTS_FILE)
        (fresh / SPLIT_FILE).write_text(to_toml(about), encoding="utf-8")
    return target


def load_split(folder: str | Path, name: str = "main", data: Dataset | None = None) -> Split:
    """The split `name` of the dataset in `folder`, which is read unless it is given as `data`.

    Raises:
        NotFound: no split of that name lies there.
        DataError: the split is damaged, or it was made of other data.
    """
    place = _place(Path(folder), name)
    if not (place / SPLIT_FILE).is_file():
        raise NotFound(f"{folder} has no split {name!r}", hint=nearest(name, split_names(folder)))
    data = Dataset.load(folder) if data is None else data
    try:
        about = tomllib.loads((place / SPLIT_FILE).read_text(encoding="utf-8"))
        parts = pl.read_parquet(place / PARTS_FILE)
    except (tomllib.TOMLDecodeError, pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"the split in {place} cannot be read: {error}") from error
    if about.get("format") != FORMAT:
        raise DataError(f"{place} is of format {about.get('format')!r}, this version reads format {FORMAT}")
    if about.get("fingerprint") != data.fingerprint:
        raise DataError(
            f"the split {name!r} was made of other data than {data.name} holds now",
            hint="split the dataset again, or load the one it was made of",
        )
    if dict(parts.schema) != {c: COLUMNS.get(c) for c in parts.columns} or "part" not in parts.columns:
        raise DataError(f"{place / PARTS_FILE} has the columns {dict(parts.schema)}, expected some of {COLUMNS}")
    try:
        return Split(
            about["name"],
            data,
            spec=about["spec"],
            cut=about.get("cut"),
            history=about["history"],
            warnings=tuple(about["warnings"]),
            repeats=about["repeats"],
            **{column: parts[column].to_numpy() for column in parts.columns},
        )
    except (KeyError, UsageError) as error:
        raise DataError(f"the split in {place} is damaged: {error}") from error


def split_names(folder: str | Path) -> list[str]:
    """Names of the splits saved beside the dataset in `folder`."""
    return sorted(file.parent.name for file in (Path(folder) / SPLITS).glob(f"*/{SPLIT_FILE}"))


def _place(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"\w[\w .+-]*", name):
        raise UsageError(
            f"a split cannot be named {name!r}", hint="letters, digits, dots, dashes and underscores make a name"
        )
    return folder / SPLITS / name
