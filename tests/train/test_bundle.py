"""A bundle answers as the fitted system did, and what a stranger made of one is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from tastemaker.data.build import build
from tastemaker.train import Bundle, fit
from tastemaker.types import BundleError, CapabilityError, Dataset, NotFound, UsageError


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two groups of users with tastes of their own, and titles."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 8)
    items = (users % 2) * 20 + rng.integers(0, 20, len(users))
    events = pl.DataFrame({"user": [f"u{u}" for u in users], "item": items, "time": np.arange(len(users)) * 1_000_000})
    catalogue = pl.DataFrame({"item": range(40), "title": [f"Film {i}" for i in range(40)], "year": range(1980, 2020)})
    return build("films", events.unique(["user", "item"], maintain_order=True), items=catalogue, time_unit="us")


@pytest.fixture(scope="module")
def bundle(data: Dataset) -> Bundle:
    return fit("itemknn", data)


@pytest.fixture
def saved(bundle: Bundle, tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "bundle")


def test_loaded_equals_saved(bundle: Bundle, saved: Path) -> None:
    loaded = Bundle.load(saved)
    users = bundle.users.series.to_list()
    assert loaded.recommend(users, k=7).equals(bundle.recommend(users, k=7))
    assert loaded.config == bundle.config and loaded.schema == bundle.schema and loaded.about == bundle.about
    assert {p.suffix for p in saved.iterdir()} == {".json", ".safetensors", ".parquet"}


def test_a_known_user_gets_own_taste_and_nothing_seen(bundle: Bundle, data: Dataset) -> None:
    answer = bundle.recommend(["u1"], k=5)
    seen = set(data.histories().column("item")[bundle.users.number("u1")].tolist())
    assert answer["rank"].to_list() == [1, 2, 3, 4, 5]
    assert all(item >= 20 for item in answer["item"]), "u1 likes the second half of the catalogue"
    assert not seen & set(bundle.items.numbers(answer["item"]).tolist())
    assert answer["title"].to_list() == [f"Film {i}" for i in answer["item"]]


def test_a_new_user_is_answered_from_a_history(bundle: Bundle) -> None:
    answer = bundle.recommend(history=[[1, 2, 3], [30, "31"]], k=4)
    assert answer["request"].to_list() == [0] * 4 + [1] * 4
    assert all(item < 20 for item in answer.filter(pl.col("request") == 0)["item"])
    assert all(item >= 20 for item in answer.filter(pl.col("request") == 1)["item"])


def test_filters_exclusions_and_candidates_hold(bundle: Bundle) -> None:
    young = bundle.recommend(["u0"], filter="year >= 1990 AND year < 1995", k=10, columns=["year"])
    assert 0 < young.height <= 5 and all(1990 <= y < 1995 for y in young["year"])
    same = bundle.recommend(["u0"], filter=pl.col("year").is_between(1990, 1994), k=10, columns=["year"])
    assert same.equals(young)
    first = bundle.recommend(["u0"], k=1)["item"].to_list()
    assert first[0] not in bundle.recommend(["u0"], exclude=first)["item"].to_list()
    assert set(bundle.recommend(["u0"], candidates=[3, 4, 33], seen=True)["item"]) <= {3, 4, 33}


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"users": ["nobody"]}, NotFound, "no user has the id 'nobody'"),
        ({}, UsageError, "say for whom"),
        ({"history": [["no such film"]]}, NotFound, "no item of the histories is known"),
        ({"users": ["u1"], "filter": "yaer > 1990"}, NotFound, "yaer"),
        ({"users": ["u1"], "filter": "item IN (SELECT a FROM read_csv('/etc/hostname'))"}, NotFound, "SELECT"),
        ({"users": ["u1"], "filter": "year + 1"}, UsageError, "says yes or no"),
        ({"users": ["u1"], "filter": "year >"}, UsageError, "cannot be applied"),
        ({"users": ["u1", "u2"], "history": [[1]]}, UsageError, "2 users need as many histories"),
        ({"users": ["u1"], "exclude": [999]}, NotFound, "no item has the id 999"),
        ({"users": ["u1"], "columns": ["titel"]}, NotFound, "did you mean 'title'"),
    ],
)
def test_wrong_calls_say_what_to_do(bundle: Bundle, call: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        bundle.recommend(**call)


def test_without_stored_histories_a_history_is_asked_for(data: Dataset) -> None:
    bare = fit("itemknn", data, histories=False)
    with pytest.raises(CapabilityError, match="give a history"):
        bare.recommend(["u1"])
    assert bare.recommend(["u1"], history=[[21, 22]], k=3).height == 3


def _tamper(folder: Path, name: str, change: Any) -> None:
    """Change a file and put its new hash into the manifest, as a stranger would."""
    change(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_a_changed_byte_is_noticed(saved: Path) -> None:
    weights = saved / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match="not the file that the manifest describes"):
        Bundle.load(saved)


def test_indices_out_of_range_are_refused(saved: Path) -> None:
    def out_of_range(path: Path) -> None:
        arrays = {name: array.copy() for name, array in load_file(path).items()}
        name = next(n for n in arrays if n.endswith(".indices"))
        arrays[name][0] = 2**30
        save_file(arrays, path)

    _tamper(saved, "weights.safetensors", out_of_range)
    with pytest.raises(BundleError):
        Bundle.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"system": "no-such-system"},
        {"version": 999},
        {"surprise": 1},
        {"files": {}},
        {"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
        {"config": {"no_such_setting": 1}},
        {"schema": {"n_users": 10**12, "n_items": 10**12}},
        {"schema": {}},
    ],
)
def test_a_strange_manifest_is_refused(saved: Path, change: dict[str, Any]) -> None:
    _edit(saved, **change)
    with pytest.raises((BundleError, NotFound, UsageError)):
        Bundle.load(saved)


def test_what_is_no_bundle_is_said(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(NotFound, match="no bundle"):
        Bundle.load(tmp_path / "nothing")
    (saved / "manifest.json").write_text("{not json")
    with pytest.raises(BundleError, match="not a manifest"):
        Bundle.load(saved)
    (saved / "users.parquet").unlink()
    with pytest.raises(BundleError):
        Bundle.load(saved)


def test_links_out_of_a_bundle_are_refused(saved: Path, tmp_path: Path) -> None:
    shutil.move(saved / "users.parquet", tmp_path / "users.parquet")
    (saved / "users.parquet").symlink_to(tmp_path / "users.parquet")
    with pytest.raises(BundleError, match="missing or not the file"):
        Bundle.load(saved)
