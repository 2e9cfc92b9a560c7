"""Columns are recognised by name or by content, and never by a coin toss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tastemaker.data import read
from tastemaker.data.columns import edge_columns, known, recognise
from tastemaker.types import DataError, NotFound, UsageError

CLOCK = [1_500_000_000, 1_500_000_001]


def roles(named: bool = True, given: dict[str, Any] | None = None, **columns: list[Any]) -> dict[str, str]:
    return recognise(pl.DataFrame(columns), given or {}, named=named, file="f.csv")


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("userId movieId rating timestamp", "user item value time"),
        ("User-ID ISBN Book-Rating", "user item value"),
        ("reviewerID asin overall unixReviewTime", "user item value time"),
        ("user_id parent_asin rating timestamp", "user item value time"),
        ("visitorid itemid event ts", "user item kind time"),
        ("userID artistID weight", "user item value"),
        ("session_id item_id timestamp", "user item time"),
        ("user_id session_id item_id time", "user session item time"),
        ("user_id item_id movie_id plays", "user item - value"),
        ("user_id item_id pos split", "user item time -"),
        ("user_id item_id pos timestamp", "user item - time"),
        ("USER_ID BUSINESS_ID STARS DATE", "user item value time"),
        ("user item slate_id position pscore query", "user item slate position propensity query"),
    ],
)
def test_usual_names(names: str, wanted: str) -> None:
    columns = names.split()
    found = roles(**{name: [1, 2] for name in columns})
    assert found == {role: name for role, name in zip(wanted.split(), columns, strict=True) if role != "-"}


def test_what_is_named_wins_and_false_means_none() -> None:
    frame = {"user": [1, 2], "buyer": [3, 4], "item": [5, 6], "rating": [1, 2], "time": CLOCK}
    assert roles(given={"user": "buyer"}, **frame)["user"] == "buyer"
    assert "time" not in roles(given={"time": False, "value": False}, **frame)
    with pytest.raises(NotFound, match="did you mean 'buyer'"):
        roles(given={"user": "byer"}, **frame)
    with pytest.raises(DataError, match="named for two roles"):
        roles(given={"user": "item", "item": "item"}, **frame)


def test_ambiguous_columns_are_listed_with_the_way_out() -> None:
    with pytest.raises(DataError) as caught:
        roles(user_id=[1, 2], uid=[3, 4], item=[5, 6])
    text = str(caught.value)
    assert "more than one column may be the user: user_id, uid" in text
    assert "uid (Int64: 3, 4)" in text and "--user user_id" in text
    with pytest.raises(DataError, match="more than one column may be the value: rating, value") as caught:
        roles(user=[1, 2], item=[5, 6], rating=[1, 2], value=[3, 4])
    assert "value=False: there is none" in str(caught.value)


def test_unknown_columns_are_listed_with_the_way_out() -> None:
    with pytest.raises(DataError) as caught:
        roles(who=["a", "b"], item=["x", "y"])
    assert "no column is recognised as the user" in str(caught.value) and "who (String: a, b)" in str(caught.value)
    assert "user='...'" in str(caught.value)


def test_columns_without_names_go_by_place_and_content() -> None:
    assert roles(False, column_1=["1", "2"], column_2=["3", "4"]) == {"user": "column_1", "item": "column_2"}
    four = {"column_1": ["1", "2"], "column_2": ["3", "4"], "column_3": ["5", "4"], "column_4": ["978300760"] * 2}
    in_order = {"user": "column_1", "item": "column_2", "value": "column_3", "time": "column_4"}
    assert roles(False, **four) == in_order
    swapped = {**four, "column_3": four["column_4"], "column_4": four["column_3"]}
    assert roles(False, **swapped) == {**in_order, "value": "column_4", "time": "column_3"}
    assert roles(False, **{**four, "column_3": ["a", "b"]}) == {k: v for k, v in in_order.items() if k != "value"}
    with pytest.raises(DataError, match="no column is recognised as the user"):
        roles(False, **{f"column_{i}": ["1", "2"] for i in range(1, 8)})  # too many to guess
    assert roles(False, {"user": "column_2"}, **four)["item"] == "column_1"


def test_one_datetime_is_the_time_and_two_are_ambiguous() -> None:
    days = pl.Series([1, 2]).cast(pl.Datetime("us"))
    frame = pl.DataFrame({"user": [1, 2], "item": [3, 4], "seen_on": days})
    assert recognise(frame, {}, named=True, file=None)["time"] == "seen_on"
    with pytest.raises(DataError, match="more than one column may be the time"):
        recognise(frame.with_columns(left_on=days), {}, named=True, file=None)


def test_other_columns_are_kept_under_names_that_cannot_be_mistaken() -> None:
    frame = pl.DataFrame({"buyer": [1, 2], "user": [3, 4], "item": [5, 6], "time": CLOCK, "shop": ["a", "b"]})
    data = read(frame, user="buyer", time=False)
    assert data.events.columns == ["user", "item", "source_user", "source_time", "shop"]
    assert not data.has_time
    assert read(frame, columns={"shop": "kind", "time": None}).events["kind"].to_list() == ["a", "b"]
    with pytest.raises(NotFound, match="has no 'shp'"):
        read(frame, columns={"shp": "kind"})
    with pytest.raises(UsageError, match="two columns of the events would be called 'shop'"):
        read(frame, user="buyer", columns={"user": "shop"})
    with pytest.raises(NotFound, match="no table has a column 'shops'"):
        read(frame, user="buyer", lists={"shops": "|"})


def test_edges() -> None:
    def edges(*names: str, named: bool = True) -> dict[str, str]:
        return edge_columns(pl.DataFrame({name: [1] for name in names}), named=named, file="kg")

    assert edges("head_id", "relation_id", "tail_id") == {
        "head_id": "head",
        "relation_id": "relation",
        "tail_id": "tail",
    }
    assert edges("user_id", "friend_id") == {"user_id": "head", "friend_id": "tail"}
    assert edges("c0", "c1", "c2") == {"c0": "head", "c1": "relation", "c2": "tail"}
    with pytest.raises(DataError, match="no columns for head and tail"):
        edges("left", "right")
    frame = pl.DataFrame({"source": [1, 2], "target": [2, 3]})
    events = pl.DataFrame({"user": [1], "item": [2]})
    assert read(events, edges={"trust": frame}).edges["trust"].rows() == [(1, "trust", 2), (2, "trust", 3)]
    with pytest.raises(DataError, match="ends of edges are missing"):
        read(events, edges={"trust": frame.with_columns(target=pl.Series([None, 3]))})


def test_headers_are_told_from_events(tmp_path: Path) -> None:
    def first(text: str, **options: Any) -> Any:
        (tmp_path / "e.csv").write_text(text)
        return read(tmp_path / "e.csv", **options)

    assert first("1,2\n3,4\n").n_events == 2
    assert first("a,b,7\nc,d,8\n").n_events == 2
    assert first("who,what,score\nc,d,8\n", user="who", item="what").n_events == 1
    assert first("a,b\nc,d\n", header=False).n_events == 2
    with pytest.raises(DataError, match="may be a header or an event"):
        first("a,b\nc,d\n")
    assert first("user|item\n1|2\n").n_events == 1
    assert first("1;2;3,5\n3;4;1,0\n", value=False).events.columns == ["user", "item", "column_3"]
    assert first("1 2 3\n3 4 1\n").n_events == 2
    assert first("\n\n1,2\n3,4\n").n_events == 2
    assert first(" user , item ,,\n1,2,3,4\n").events.columns == ["user", "item", "column_3", "column_4"]
    assert known("User ID") and known("unixReviewTime") and not known("whatever") and not known("h")
