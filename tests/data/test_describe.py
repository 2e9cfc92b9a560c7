"""A description counts what is there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tastemaker.data import build, describe
from tastemaker.data.describe import gini
from tastemaker.types import DataError, Dataset

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Ten users: user 0 has 11 events, the others one each; the last day brings user 9 and item 9."""
    user = [*[0] * 10, 0, *range(1, 9), 9]
    item = [*range(9), 0, None, *[0] * 8, 9]
    events = pl.DataFrame(
        {
            "user": user,
            "item": item,
            "time": [n * DAY for n in range(20)],
            "kind": ["view"] * 10 + ["search"] + ["buy"] * 9,
            "value": [1.0, 2.0, None, 4.0] * 5,
            "shop": ["a", "b"] * 10,
        }
    )
    items = pl.DataFrame({"item": [0, 77], "title": ["a film of few words", None], "genres": [["x"], ["y", "z"]]})
    edges = {"kg": pl.DataFrame({"head": [1], "relation": ["r"], "tail": [2]})}
    return build("toy", events, items=items, time_unit="us", edges=edges, notes={"source": "made up"})


def test_counts(data: Dataset) -> None:
    found = describe(data)
    assert (found.users.n, found.items.n, found.items.with_events, found.n_events) == (10, 11, 10, 20)
    assert found.density == pytest.approx(18 / 110) and found.repeated == pytest.approx(1 / 19)
    assert found.without_item == 1 and found.kinds == {"view": 10, "buy": 9, "search": 1}
    assert found.users.mean == 2.0 and found.users.quantiles["median"] == 1 and found.users.quantiles["most"] == 11
    assert found.users.top == {"1%": 11 / 20, "10%": 11 / 20, "20%": 12 / 20}
    assert found.users.few == pytest.approx(0.9) and found.items.few == pytest.approx(10 / 11)
    assert (found.first, found.last, found.span_days) == ("1970-01-01T00:00:00+00:00", "1970-01-20T00:00:00+00:00", 19)
    assert found.value is not None and found.value["missing"] == 5 and found.value["max"] == 4.0
    assert found.edges == {"kg": 1}


def test_newcomers_are_those_of_the_last_tenth(data: Dataset) -> None:
    found = describe(data)
    # the last two events and the one at the cut are late; users 7, 8 and 9 are new there, of the items only 9 is
    assert found.users.newcomers == pytest.approx(1.0) and found.items.newcomers == pytest.approx(1 / 3)


def test_few_means_fewer_than_five() -> None:
    events = pl.DataFrame({"user": ["a"] * 4 + ["b"] * 5, "item": [*range(4), *range(5)]})
    assert describe(build("x", events)).users.few == 0.5


def test_columns_have_kinds(data: Dataset) -> None:
    columns = describe(data).columns
    assert {name: info.kind for name, info in columns["items"].items()} == {"title": "text", "genres": "categories"}
    assert columns["items"]["title"].missing == 10
    assert columns["events"]["shop"].kind == "category" and columns["events"]["shop"].distinct == 2


def test_it_prints_and_travels_as_json(data: Dataset) -> None:
    found = describe(data)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.table())
    text = console.export_text()
    for part in ("toy", "16.3636%", "1970-01-01", "view 10", "made up", "genres", "gini"):
        assert part in text, part
    assert json.loads(json.dumps(found.to_json()))["users"]["n"] == 10


def test_no_times_no_items_nothing() -> None:
    plain = describe(build("x", pl.DataFrame({"user": ["a"], "item": ["b"]})))
    assert plain.users.newcomers is None and plain.first is None and plain.value is None
    steps = describe(build("x", pl.DataFrame({"user": ["a"], "item": ["b"], "time": [3]}), time_unit="step"))
    assert (steps.first, steps.span_days) == ("3", None)
    nothing = describe(build("x", pl.DataFrame({"user": [], "item": [], "time": []}), time_unit="us"))
    assert nothing.density == 0 and nothing.users.quantiles["most"] == 0
    Console(file=open("/dev/null", "w")).print(plain.table(), steps.table(), nothing.table())  # noqa: SIM115


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_plots(data: Dataset, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    path = describe(data).plot(tmp_path / "plots" / f"tail.{ending}")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") if ending == "png" else b"Long tail" in content
    if ending == "html":
        assert b"<script src=" not in content  # one file, that needs no network


def test_other_endings_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="written as"):
        describe(data).plot(tmp_path / "tail.pdf")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_gini_is_the_mean_difference(counts: list[int]) -> None:
    values = np.array(counts)
    wanted = np.abs(values[:, None] - values).mean() / (2 * values.mean()) if values.sum() else 0.0
    assert gini(values) == pytest.approx(wanted)
