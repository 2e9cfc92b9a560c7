"""The engine runs stages in order, keeps what is done, and derives every stream from seed and purpose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tastemaker.contracts import Fit, Precompute, Program, system
from tastemaker.data.build import build
from tastemaker.train import fit
from tastemaker.train.codec import content_key, pack, recall, store, unpack
from tastemaker.types import CapabilityError, Columns, ConfigError, Dataset, Jagged, Requests, UsageError, setting

calls: list[str] = []


def noise(n: int, *, rng: np.random.Generator) -> NDArray[np.float32]:
    calls.append("noise")
    return rng.random(n, dtype=np.float32)


def doubled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    calls.append("doubled")
    return values * 2


def counts(data: Dataset) -> NDArray[np.float32]:
    calls.append("counts")
    return np.bincount(data.events["item"].to_numpy(), minlength=data.n_items).astype(np.float32)


@system("stages", family="classical", title="A probe of the engine", paper="none", learns_from={"events"})
class Stages:
    """Adds noise to counts in three stages."""

    stop: ClassVar[bool] = False

    @dataclass(frozen=True)
    class Config:
        scale: float = setting(1.0, "Factor of the noise.", low=0.0)

    def __init__(self, config: Any, schema: Any) -> None:
        self.config, self.schema = config, schema

    def program(self, data: Dataset) -> Program:
        base = yield Precompute(counts, data)
        drawn = yield Fit(noise, data.n_items, rng="noise")
        if Stages.stop:
            raise KeyboardInterrupt
        self.weights = base + self.config.scale * (yield Fit(doubled, drawn))

    def score(self, requests: Requests, items: Any = None) -> NDArray[np.float32]:
        rows = np.broadcast_to(self.weights, (requests.n, len(self.weights)))
        return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)

    def export(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights}


@pytest.fixture
def data() -> Dataset:
    return build("tiny", pl.DataFrame({"user": [1, 1, 2, 3], "item": ["a", "b", "a", "c"]}))


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    monkeypatch.setattr(Stages, "stop", False)
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))


def test_the_seed_decides_everything(data: Dataset) -> None:
    first, second, other = (fit(Stages, data, seed=s).system.weights for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_precomputed_values_are_found_by_content(data: Dataset) -> None:
    fit(Stages, data)
    fit(Stages, data, {"scale": 3.0})
    assert calls.count("counts") == 1
    fit(Stages, data.with_events(data.events.head(2)))
    assert calls.count("counts") == 2


def test_a_stopped_run_goes_on_where_it_was(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = fit(Stages, data, seed=5).system.weights
    calls.clear()
    monkeypatch.setattr(Stages, "stop", True)
    with pytest.raises(KeyboardInterrupt):
        fit(Stages, data, seed=5, run=tmp_path / "run")
    monkeypatch.setattr(Stages, "stop", False)
    resumed = fit(Stages, data, seed=5, run=tmp_path / "run").system.weights
    assert np.array_equal(resumed, undisturbed)
    assert calls.count("noise") == 1, "a finished stage was run again"


def test_a_run_folder_belongs_to_one_run(data: Dataset, tmp_path: Path) -> None:
    fit(Stages, data, run=tmp_path / "run")
    with pytest.raises(UsageError, match="another system, setting, seed, dataset or resource"):
        fit(Stages, data, {"scale": 2.0}, run=tmp_path / "run")


def test_what_is_missing_is_named(data: Dataset) -> None:
    class Needy(Stages):
        pass

    needy = system("needy", family="classical", title="x", paper="x", learns_from={"items.text"})(Needy)
    with pytest.raises(CapabilityError, match=r"items\.text"):
        fit(needy, data)
    with pytest.raises(ConfigError, match="scale"):
        fit(Stages, data, {"scael": 1})


def test_costs_are_recorded(data: Dataset) -> None:
    about = fit(Stages, data).about
    assert about["fit"]["seconds"] > 0 and about["fit"]["peak_mb"] > 10
    assert about["data"]["fingerprint"] == data.fingerprint


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain)
def test_plain_values_are_stored_and_recalled(value: Any) -> None:
    assert unpack(*pack(value)) == value
    assert content_key(value) == content_key(unpack(*pack(value)))


def test_every_noun_is_stored_and_recalled(tmp_path: Path) -> None:
    value = {
        "csr": sp.csr_array(np.eye(3, dtype=np.float32)),
        "rows": Jagged(Columns(item=np.arange(3)), np.array([0, 1, 3])),
        "pair": (np.float32(2.5), [np.arange(4).reshape(2, 2)]),
        "frame": pl.DataFrame({"a": ["x", None], "b": [[1], [2, 3]]}),
    }
    store(value, tmp_path / "v.safetensors")
    back = recall(tmp_path / "v.safetensors")
    assert (back["csr"] != value["csr"]).nnz == 0
    assert back["rows"] == value["rows"] and back["frame"].equals(value["frame"])
    assert back["pair"][0] == 2.5 and back["pair"][1][0].tolist() == [[0, 1], [2, 3]]
    with pytest.raises(TypeError, match="cannot be stored"):
        pack(object())


def test_keys_differ_where_contents_do() -> None:
    values: list[Any] = [1, 1.0, "1", [1], (1,), {"a": 1}, np.array([1]), np.array([1.0]), np.array([[1]]), None, True]
    assert len({content_key(value) for value in values}) == len(values)
