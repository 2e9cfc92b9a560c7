"""Invariants of the nouns hold where they are built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.types import (
    Column,
    Columns,
    DataError,
    Dataset,
    Feedback,
    ItemFilter,
    Jagged,
    NotFound,
    Requests,
    Samples,
    Schema,
    Slates,
    UsageError,
    Vocabulary,
    generator,
    mix,
    request_seeds,
)

ids = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), unique=True, min_size=1, max_size=30),
    st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=30),
)


@given(ids)
def test_vocabulary_numbers_and_ids_are_inverse(values: list[int] | list[str]) -> None:
    vocabulary = Vocabulary(values)
    numbers = np.arange(len(values))
    assert vocabulary.numbers(values).tolist() == numbers.tolist()
    assert vocabulary.ids(numbers).to_list() == values
    assert vocabulary.ids([-1]).to_list() == [None]


@given(ids)
def test_a_vocabulary_only_grows(values: list[int] | list[str]) -> None:
    first = Vocabulary(values[: len(values) // 2 + 1])
    grown = first.extend(values)
    assert set(grown.series.to_list()) == set(values)
    assert grown.series.head(len(first)).to_list() == first.series.to_list()
    assert grown.extend(values) is grown


@given(st.lists(st.integers(0, 50), max_size=5000))
def test_small_and_large_lookups_agree(asked: list[int]) -> None:
    vocabulary = Vocabulary(range(0, 40, 2))
    few = vocabulary.numbers(asked[:4000])
    many = vocabulary.numbers(pl.Series(asked[:4000], dtype=pl.Int64))
    assert few.tolist() == many.tolist() == [v // 2 if v % 2 == 0 and v < 40 else -1 for v in asked[:4000]]


def test_a_missing_id_is_unknown_whatever_ids_are_called() -> None:
    vocabulary = Vocabulary(["None", "a"])
    assert vocabulary.numbers([None, "a"]).tolist() == [-1, 1]
    assert vocabulary.numbers([None, "a"] * 3000).tolist() == [-1, 1] * 3000


def test_ids_of_another_type_are_unknown_not_wrong() -> None:
    whole = Vocabulary([1, 2, 3])
    assert whole.numbers(["2", "x", 2.0, 2.5, None]).tolist() == [1, -1, 1, -1, -1]
    assert Vocabulary(["1", "2"]).numbers([2, "3"]).tolist() == [1, -1]


def test_twice_the_same_id_is_refused() -> None:
    with pytest.raises(DataError, match="same id twice"):
        Vocabulary(["a", "b", "a"])


def test_a_missing_id_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="'anna'"):
        Vocabulary(["anna", "bert"], of="user").number("ana")


def test_requests_check_their_rows() -> None:
    with pytest.raises(UsageError, match="3 requests need 3 rows of users, got 2"):
        Requests(3, users=np.array([1, 2]))
    with pytest.raises(UsageError, match="needs the column 'item'"):
        Requests(1, history=Jagged(Columns(time=np.array([1])), np.array([0, 1])))
    given_ = Requests.of_items([[1, -1, 2], []], users=np.array([4, 5]))
    assert given_.given() == {"users", "history"}
    assert given_.items().to_lists() == [[1, 2], []]
    picked = given_.take(np.array([1, 0]))
    assert picked.users is not None and picked.users.tolist() == [5, 4]
    assert picked.items().to_lists() == [[], [1, 2]]


def test_filter_rows_must_exist() -> None:
    with pytest.raises(UsageError, match="run from -1 to 0"):
        ItemFilter(np.ones((1, 4), dtype=bool), np.array([1]))


def test_slates_have_no_gaps() -> None:
    with pytest.raises(UsageError, match="no gaps"):
        Slates(np.array([[1, -1, 2]]), np.zeros((1, 3)))
    slates = Slates(np.array([[1, 2, -1]]), np.array([[3.0, 2.0, -np.inf]]), trace=Columns(arm=np.array([7])))
    assert slates.lengths.tolist() == [2]
    assert slates.head(1).items.tolist() == [[1]] and slates.head(1).trace == slates.trace


def test_feedback_and_samples_check_their_rows() -> None:
    with pytest.raises(UsageError, match="2 sessions need 2 rows of reward"):
        Feedback(Requests(2), reward=np.zeros(3, dtype=np.float32))
    with pytest.raises(UsageError, match="at least one answer"):
        Samples(0, text=np.array(["a"], dtype=object))
    with pytest.raises(UsageError, match="share their offsets"):
        Samples(
            1,
            tokens=Jagged(np.arange(3), np.array([0, 1, 3])),
            logp=Jagged(np.zeros(3, dtype=np.float32), np.array([0, 2, 3])),
        )


def test_schema_survives_json() -> None:
    schema = Schema(3, 4, items={"genre": Column("category", size=5), "v": Column("vector", width=8)}, time_unit="us")
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(NotFound, match="genre"):
        schema.column("items", "gnre")


def _events(users: list[int], items: list[int | None], times: list[int]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}
    return pl.DataFrame({"user": users, "item": items, "time": times}, schema=schema)


def _tables(n_users: int, n_items: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": [f"i{n}" for n in range(n_items)]})


def test_dataset_sorts_events_and_keeps_the_order_of_equal_times() -> None:
    users, items = _tables(2, 4)
    data = Dataset("x", users, items, _events([1, 0, 1, 1], [3, 0, 1, 2], [5, 9, 5, 1]), time_unit="us")
    assert data.events.rows() == [(0, 0, 9), (1, 2, 1), (1, 3, 5), (1, 1, 5)]
    assert data.histories().column("item").to_lists() == [[0], [2, 3, 1]]


@pytest.mark.parametrize(
    ("users", "items", "match"),
    [([2], [0], "user numbers in events run from 0 to 1, got 2"), ([0], [4], "item numbers in events run from 0 to 3")],
)
def test_numbers_out_of_range_are_refused(users: list[int], items: list[int], match: str) -> None:
    with pytest.raises(DataError, match=match):
        Dataset("x", *_tables(2, 4), _events(users, items, [1]), time_unit="us")  # type: ignore[arg-type]


def test_time_needs_its_unit_and_types_are_checked() -> None:
    with pytest.raises(DataError, match="time_unit"):
        Dataset("x", *_tables(2, 4), _events([0], [0], [1]))
    wrong = _events([0], [0], [1]).with_columns(pl.col("time").cast(pl.Float64))
    with pytest.raises(DataError, match="'time' must be Int64"):
        Dataset("x", *_tables(2, 4), wrong, time_unit="us")


def test_the_fingerprint_sees_every_change(tmp_path: Path) -> None:
    users, items = _tables(2, 4)
    data = Dataset("x", users, items, _events([0, 1], [0, 1], [1, 2]), time_unit="us")
    others = [
        Dataset("x", users, items, _events([0, 1], [0, 1], [1, 3]), time_unit="us"),
        Dataset("x", users, items, _events([0, 1], [0, None], [1, 2]), time_unit="us"),
        Dataset("x", users, items.with_columns(pl.lit("a").alias("genre")), data.events, time_unit="us"),
        Dataset("x", users, items, data.events, edges={"kg": pl.DataFrame({"head": [1]})}, time_unit="us"),
    ]
    prints = {data.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == len(others) + 1
    data.save(tmp_path / "saved")
    assert Dataset.load(tmp_path / "saved").fingerprint == data.fingerprint


def test_saving_never_removes_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years of work")
    data = Dataset("x", *_tables(2, 4), _events([0], [0], [1]), time_unit="us")
    with pytest.raises(UsageError, match="left alone"):
        data.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "ten years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_streams_depend_on_seed_and_purpose_alone() -> None:
    first = generator(1, "a").random(4)
    generator(1, "b").random(1000)
    assert np.array_equal(first, generator(1, "a").random(4))
    assert not np.array_equal(first, generator(1, "b").random(4))
    assert not np.array_equal(first, generator(2, "a").random(4))
    assert len(np.unique(request_seeds(10_000, 3))) == 10_000
    bits = np.unpackbits(mix(np.arange(4096)).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.01
