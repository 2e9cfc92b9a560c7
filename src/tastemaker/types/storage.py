"""A dataset on disk: a folder of Parquet files and one small TOML file."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tastemaker.types.dataset import Dataset
from tastemaker.types.errors import DataError, NotFound
from tastemaker.types.files import replace_folder
from tastemaker.types.schema import Kind, TimeUnit

DATASET_FILE = "dataset.toml"
FORMAT = 1


def save_dataset(data: Dataset, folder: Path) -> Path:
    """Write `data`; the folder appears whole or not at all.

    Splits saved beside an older dataset stay; each knows its dataset's fingerprint, and refuses another.
    """
    with replace_folder(folder, marker=DATASET_FILE) as fresh:
        if (folder / "splits").is_dir():
            shutil.copytree(folder / "splits", fresh / "splits")
        for name in ("users", "items", "events"):
            getattr(data, name).write_parquet(fresh / f"{name}.parquet", compression="zstd", compression_level=1)
        for name, frame in data.edges.items():
            (fresh / "edges").mkdir(exist_ok=True)
            frame.write_parquet(fresh / "edges" / f"{name}.parquet")
        if data.dialogues is not None:
            data.dialogues.write_parquet(fresh / "dialogues.parquet")
        write_header(
            fresh,
            data.name,
            counts={"users": data.n_users, "items": data.n_items, "events": data.n_events},
            kinds=data.kinds,
            time_unit=data.time_unit,
            notes=data.notes,
            fingerprint=data.__dict__.get("fingerprint"),  # known already; never computed only to be stored
        )
    return folder


def write_header(
    folder: Path,
    name: str,
    *,
    counts: Mapping[str, int],
    kinds: Mapping[Any, Mapping[str, Kind]],
    time_unit: TimeUnit | None,
    notes: Mapping[str, str],
    fingerprint: str | None = None,
) -> None:
    """Write the TOML file that makes a folder of Parquet tables a dataset."""
    about: dict[str, Any] = {"format": FORMAT, "name": name}
    if time_unit:
        about["time_unit"] = time_unit
    about["counts"], about["notes"] = dict(counts), dict(notes)
    about["kinds"] = {table: dict(columns) for table, columns in kinds.items()}
    if fingerprint:
        about["fingerprint"] = fingerprint
    (folder / DATASET_FILE).write_text(to_toml(about), encoding="utf-8")


def load_dataset(folder: Path) -> Dataset:
    """Read a folder that `save_dataset` wrote."""
    about_file = folder / DATASET_FILE
    if not about_file.is_file():
        raise NotFound(
            f"{folder} holds no dataset (there is no {DATASET_FILE})",
            hint=f"import one with: tastemaker data import FILE --out {folder}",
        )
    about = tomllib.loads(about_file.read_text(encoding="utf-8"))
    if about.get("format") != FORMAT:
        raise DataError(f"{about_file} is of format {about.get('format')!r}, this version reads format {FORMAT}")
    edges = {path.stem: pl.read_parquet(path) for path in sorted((folder / "edges").glob("*.parquet"))}
    dialogues = folder / "dialogues.parquet"
    data = Dataset(
        name=about["name"],
        users=pl.read_parquet(folder / "users.parquet"),
        items=pl.read_parquet(folder / "items.parquet"),
        events=pl.read_parquet(folder / "events.parquet"),
        edges=edges,
        dialogues=pl.read_parquet(dialogues) if dialogues.is_file() else None,
        kinds=about.get("kinds", {}),
        time_unit=about.get("time_unit"),
        notes=about.get("notes", {}),
    )
    if "fingerprint" in about:
        data.__dict__["fingerprint"] = about["fingerprint"]
    return data


def to_toml(table: dict[str, Any], prefix: str = "") -> str:
    """TOML of nested tables of strings, numbers, flags and lists of them: what our own files hold."""
    import json

    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    quoted = {
        key: key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
        for key in table
    }
    lines = [f"{quoted[key]} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            path = f"{prefix}.{quoted[key]}" if prefix else quoted[key]
            lines += ["", f"[{path}]", to_toml(value, path).rstrip("\n")]
    return "\n".join(lines) + "\n"
