"""Choices as matrices, against loops over the events."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.feeds import history_matrix, interaction_matrix
from tastemaker.types import EVENT_COLUMNS, Columns, DataError, Dataset, Jagged, Requests, UsageError

N_USERS, N_ITEMS = 6, 5
KINDS = ("view", "purchase", "impression", "search", None)
EVENT = st.tuples(
    st.integers(0, N_USERS - 1),
    st.one_of(st.none(), st.integers(0, N_ITEMS - 1)),
    st.integers(0, 20),
    st.sampled_from(KINDS),
    st.one_of(st.none(), st.just(float("nan")), st.integers(-3, 5).map(float)),
)


def dataset(rows: list[tuple[Any, ...]], n_users: int = N_USERS, n_items: int = N_ITEMS) -> Dataset:
    names = ("user", "item", "time", "kind", "value")
    events = pl.DataFrame(rows, schema={n: EVENT_COLUMNS[n] for n in names}, orient="row", strict=False)
    users, items = pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": range(n_items)})
    return Dataset("toy", users, items, events, time_unit="step")


def reference(data: Dataset, weight: str, repeats: str) -> np.ndarray:
    """The same, event by event."""
    out = np.zeros((data.n_users, data.n_items))
    for row in data.events.iter_rows(named=True):  # sorted by user, then time
        if row["item"] is None or row["kind"] in ("impression", "search"):
            continue
        value = 1.0 if row["value"] is None or np.isnan(row["value"]) else row["value"]
        place = row["user"], row["item"]
        if weight == "binary":
            out[place] = 1
        elif weight == "count":
            out[place] += 1
        else:
            out[place] = value if repeats == "last" else out[place] + value
    return out


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, max_size=40), st.sampled_from(["binary", "count", "value"]), st.sampled_from(["last", "sum"]))
def test_matrix_equals_a_loop_over_events(rows: list[Any], weight: Any, repeats: Any) -> None:
    data = dataset(rows)
    matrix = interaction_matrix(data, weight=weight, repeats=repeats)
    assert isinstance(matrix, sp.csr_array) and matrix.dtype == np.float32 and matrix.shape == (N_USERS, N_ITEMS)
    np.testing.assert_array_equal(matrix.toarray(), reference(data, weight, repeats))
    for row in range(N_USERS):  # sorted, and no entry twice
        assert (np.diff(matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]) > 0).all()
    chosen = {(u, i) for u, i, _, kind, _ in rows if i is not None and kind not in ("impression", "search")}
    assert matrix.nnz == len(chosen), "an item chosen with the value 0 is an entry too"


@settings(max_examples=40, deadline=None)
@given(st.lists(EVENT, max_size=40), st.sampled_from(["binary", "count", "value"]), st.sampled_from(["last", "sum"]))
def test_a_history_weighs_what_it_weighed_in_training(rows: list[Any], weight: Any, repeats: Any) -> None:
    data = dataset(rows)
    requests = Requests(N_USERS, history=data.histories(("item", "value")))
    trained = interaction_matrix(data, weight=weight, repeats=repeats)
    asked = history_matrix(requests, N_ITEMS, weight=weight, repeats=repeats)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(trained, part), getattr(asked, part))


def test_histories_drop_what_training_did_not_know() -> None:
    requests = Requests.of_items([[3, -1, 1, 7, 3], [], [9]])
    counts = history_matrix(requests, 5, weight="count")
    np.testing.assert_array_equal(counts.toarray(), [[0, 1, 0, 2, 0], [0] * 5, [0] * 5])


@pytest.mark.parametrize("repeats", ["last", "sum"])
def test_a_history_without_values_has_the_value_one(repeats: Any) -> None:
    matrix = history_matrix(Requests.of_items([[0, 0, 2]]), 3, weight="value", repeats=repeats)
    np.testing.assert_array_equal(matrix.toarray(), [[1 if repeats == "last" else 2, 0, 1]])


def test_values_of_the_history_are_used() -> None:
    history = Jagged(Columns(item=np.array([2, 0, 2]), value=np.array([5.0, 3.0, 4.0])), np.array([0, 3]))
    matrix = history_matrix(Requests(1, history=history), 3, weight="value")
    np.testing.assert_array_equal(matrix.toarray(), [[3, 0, 4]])


def test_neighbouring_rows_with_one_item_stay_apart() -> None:
    data = dataset([(0, 3, 1, "view", 2.0), (1, 3, 1, "view", 4.0), (1, 3, 2, "view", 5.0)])
    matrix = interaction_matrix(data, weight="value").toarray()
    assert matrix[0, 3] == 2 and matrix[1, 3] == 5 and matrix.sum() == 7


def test_nothing_is_a_matrix_too() -> None:
    assert interaction_matrix(dataset([], 0, 0)).shape == (0, 0)
    assert interaction_matrix(dataset([], 3, 0)).nnz == 0
    assert history_matrix(Requests.of_items([]), 4).shape == (0, 4)


def test_what_cannot_be_weighed_is_refused() -> None:
    bare = dataset([(0, 0, 1, "view", 1.0)])
    with pytest.raises(DataError, match="no column 'value'"):
        interaction_matrix(bare.with_events(bare.events.drop("value")), weight="value")
    with pytest.raises(DataError, match="finite"):
        interaction_matrix(dataset([(0, 0, 1, "view", float("inf"))]), weight="value")
    with pytest.raises(UsageError, match="no history"):
        history_matrix(Requests.of_users([0]), 3)
