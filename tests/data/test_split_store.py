"""A split comes back from the disk as it was, for the data it was made of and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.build import build
from tastemaker.data.split_store import load_split, save_split, split_names
from tastemaker.data.splits import split
from tastemaker.types import DataError, Dataset, NotFound, Split, UsageError


def log(n: int = 60, seed: int = 0) -> Dataset:
    """Five users and seven items; sessions of twenty events."""
    item = np.random.default_rng(seed).integers(0, 7, n)
    frame = pl.DataFrame({"user": np.arange(n) % 5, "item": item, "time": np.arange(n), "session": np.arange(n) // 20})
    return build("log", frame.with_columns(kind=pl.Series(["view", "view", "buy"] * (n // 3))), time_unit="step")


def facts(parts: Split) -> dict[str, Any]:
    """All that a split says, arrays as lists."""
    plain = {f: getattr(parts, f) for f in ("name", "spec", "cut", "history", "warnings", "repeats")}
    return plain | {f: None if (a := getattr(parts, f)) is None else a.tolist() for f in ("part", "case", "asked")}


@pytest.mark.parametrize(
    "kind", ["time:0.6,0.2,0.2", "time:40", "session:1,ask=next", "column:kind,test=buy", "cold-user:0.4", "random:0.5"]
)
def test_a_split_survives_the_disk(kind: str, tmp_path: Path) -> None:
    data = log()
    data.save(tmp_path)
    parts = split(data, kind, seed=2, repeats=True)
    save_split(parts, tmp_path, "mine")
    for loaded in (load_split(tmp_path, "mine"), load_split(tmp_path, "mine", data)):
        assert facts(loaded) == facts(parts)
        assert loaded.train.fingerprint == parts.train.fingerprint
        ours, theirs = loaded.cases(), parts.cases()
        assert ours.targets == theirs.targets and ours.requests.history == theirs.requests.history
        assert facts(split(data, **loaded.spec)) == facts(parts)
    save_split(split(data, "leave-one-out"), tmp_path, "mine")
    save_split(parts, tmp_path, "other one")
    assert load_split(tmp_path, "mine").spec["kind"] == "leave-one-out"
    assert split_names(tmp_path) == ["mine", "other one"]
    assert not [p for p in (tmp_path / "splits").iterdir() if p.name.startswith(".")]


def test_a_stored_split_is_refused_for_other_data(tmp_path: Path) -> None:
    data = log()
    data.save(tmp_path)
    place = save_split(split(data, "leave-one-out"), tmp_path)
    with pytest.raises(DataError, match="made of other data"):
        load_split(tmp_path, "main", log(seed=1))
    with pytest.raises(NotFound, match="'main'"):
        load_split(tmp_path, "mein")
    for name in ("../main", "", ".hidden", "a/b"):
        with pytest.raises(UsageError, match="cannot be named"):
            load_split(tmp_path, name)
    pl.DataFrame({"part": pl.Series([0, 1, 7] * 20, dtype=pl.Int8)}).write_parquet(place / "parts.parquet")
    with pytest.raises(DataError, match="damaged"):
        load_split(tmp_path)
    (place / "parts.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        load_split(tmp_path)
    (place / "split.toml").write_text("format = [")
    with pytest.raises(DataError, match="cannot be read"):
        load_split(tmp_path)


def test_an_interrupted_save_leaves_the_old_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = log()
    data.save(tmp_path)
    save_split(split(data, "leave-one-out"), tmp_path)

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tastemaker.data.split_store.to_toml", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_split(split(data, "random:0.5"), tmp_path)
    assert load_split(tmp_path).spec["kind"] == "leave-one-out"
