"""Every format gives the same dataset, and every fault is found where it stands."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import read
from tastemaker.data.columns import known
from tastemaker.data.text import Dialect, read_text
from tastemaker.types import DataError, Dataset, MissingExtra, NotFound, TastemakerError, UsageError

RNG = np.random.default_rng(7)
N = 300
EVENTS = pl.DataFrame(
    {
        "user_id": RNG.integers(1, 40, N),
        "item_id": [f"i{n}" for n in RNG.integers(0, 60, N)],
        "rating": RNG.integers(1, 11, N) / 2,
        "timestamp": RNG.choice(np.arange(1_500_000_000, 1_500_900_000), N, replace=False),
    }
)
HEAD = "user,item,rating,time\n"
TEN = [f"u{n % 4},i{n % 3},{n % 5}.5,{1_500_000_000 + n}" for n in range(10)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture(scope="module")
def expected() -> Dataset:
    return read(EVENTS)


def as_csv(folder: Path) -> dict[str, Any]:
    EVENTS.write_csv(folder / "e.csv")
    return {"source": folder / "e.csv"}


def as_csv_with_mark(folder: Path) -> dict[str, Any]:
    return {"source": write(folder / "e.csv", b"\xef\xbb\xbf" + EVENTS.write_csv().encode())}


def as_windows_csv(folder: Path) -> dict[str, Any]:
    return {"source": write(folder / "e.csv", EVENTS.write_csv(line_terminator="\r\n", quote_style="always"))}


def as_utf16(folder: Path) -> dict[str, Any]:
    return {"source": write(folder / "e.csv", EVENTS.write_csv(separator=";").encode("utf-16"))}


def as_tsv(folder: Path) -> dict[str, Any]:
    EVENTS.write_csv(folder / "e.tsv", separator="\t")
    return {"source": str(folder / "e.tsv")}


def as_packed(folder: Path) -> dict[str, Any]:
    return {"source": write(folder / "e.csv.gz", gzip.compress(EVENTS.write_csv().encode()))}


def as_headerless(folder: Path) -> dict[str, Any]:
    rows = "\n".join("::".join(map(str, row)) for row in EVENTS.rows())
    return {"source": write(folder / "ratings.dat", rows)}


def as_headerless_tabs(folder: Path) -> dict[str, Any]:
    return {"source": write(folder / "u.data", EVENTS.write_csv(separator="\t", include_header=False))}


def as_parquet(folder: Path) -> dict[str, Any]:
    EVENTS.write_parquet(folder / "e.parquet")
    return {"source": folder / "e.parquet"}


def as_jsonl(folder: Path) -> dict[str, Any]:
    EVENTS.write_ndjson(folder / "e.jsonl")
    return {"source": folder / "e.jsonl"}


def as_packed_jsonl(folder: Path) -> dict[str, Any]:
    lines_ = "\n\n" + "\n".join(EVENTS.write_ndjson().splitlines())
    return {"source": write(folder / "e.jsonl.gz", gzip.compress(lines_.encode()))}


def as_csv_of_pandas(folder: Path) -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(EVENTS.to_dict(as_series=False)).to_csv(folder / "e.csv")  # its index has no name
    return {"source": folder / "e.csv", "columns": {"column_1": None}}


def as_json_array(folder: Path) -> dict[str, Any]:
    EVENTS.write_json(folder / "e.json")
    return {"source": folder / "e.json"}


def as_ipc(folder: Path) -> dict[str, Any]:
    EVENTS.write_ipc(folder / "e.arrow")
    return {"source": folder / "e.arrow"}


def as_ipc_stream(folder: Path) -> dict[str, Any]:
    EVENTS.write_ipc_stream(folder / "e.feather")
    return {"source": folder / "e.feather"}


def as_arrow(folder: Path) -> dict[str, Any]:
    return {"source": EVENTS.to_arrow()}


def as_lazy(folder: Path) -> dict[str, Any]:
    return {"source": EVENTS.lazy()}


def as_categories(folder: Path) -> dict[str, Any]:
    return {"source": EVENTS.with_columns(pl.col("item_id").cast(pl.Categorical))}


def as_pandas(folder: Path) -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    return {"source": pandas.DataFrame(EVENTS.to_dict(as_series=False))}


def as_sqlite(folder: Path) -> dict[str, Any]:
    pytest.importorskip("sqlalchemy")
    with sqlite3.connect(folder / "e.db") as database:
        database.execute("create table e (user_id int, item_id text, rating real, timestamp int)")
        database.executemany("insert into e values (?, ?, ?, ?)", EVENTS.rows())
    database.close()
    return {"source": "select * from e", "url": f"sqlite:///{folder / 'e.db'}"}


def as_recbole(folder: Path) -> dict[str, Any]:
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    write(folder / "e.inter", head + EVENTS.write_csv(separator="\t", include_header=False))
    return {"source": folder}


def as_folder(folder: Path) -> dict[str, Any]:
    EVENTS.write_parquet(folder / "ratings.parquet")
    write(folder / "README.md", "nothing to see")
    return {"source": folder}


SOURCES = [make for name, make in list(globals().items()) if name.startswith("as_")]


@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_every_format_gives_the_same_dataset(make: Any, tmp_path: Path, expected: Dataset) -> None:
    data = read(**make(tmp_path))
    assert data.fingerprint == expected.fingerprint
    assert data.events.schema == expected.events.schema and data.time_unit == "us"
    assert (data.n_users, data.n_items, data.n_events) == (
        EVENTS["user_id"].n_unique(),
        EVENTS["item_id"].n_unique(),
        N,
    )


def test_shorthands_read_too(tmp_path: Path, expected: Dataset) -> None:
    assert Dataset.from_csv(as_csv(tmp_path)["source"]).fingerprint == expected.fingerprint
    assert Dataset.from_polars(EVENTS).fingerprint == expected.fingerprint
    assert Dataset.from_arrow(EVENTS.to_arrow()).fingerprint == expected.fingerprint
    sqlite = as_sqlite(tmp_path)
    assert Dataset.from_sql(sqlite["source"], url=sqlite["url"]).fingerprint == expected.fingerprint


@pytest.mark.services
def test_postgresql(expected: Dataset) -> None:
    url = os.environ.get("TASTEMAKER_TEST_POSTGRES")
    if not url:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("TASTEMAKER_TEST_POSTGRES must name a PostgreSQL server, as postgresql+psycopg://...")
        pytest.skip("set TASTEMAKER_TEST_POSTGRES to the address of a PostgreSQL server")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("drop table if exists tastemaker_test"))
        connection.execute(
            sqlalchemy.text(
                "create table tastemaker_test (user_id bigint, item_id text, rating numeric(3, 1), at timestamptz)"
            )
        )
        rows = [dict(zip(("u", "i", "r", "t"), row, strict=True)) for row in EVENTS.rows()]
        connection.execute(sqlalchemy.text("insert into tastemaker_test values (:u, :i, :r, to_timestamp(:t))"), rows)
    try:
        data = read("select user_id, item_id, rating, at as time from tastemaker_test", url=url)
        assert data.fingerprint == expected.fingerprint
        one = "select user_id, item_id, at as time from tastemaker_test where user_id = :u"
        assert read(one, url=url, parameters={"u": EVENTS["user_id"][0]}).n_users == 1
        with pytest.raises(DataError, match="no_such_table") as caught:
            read("select * from no_such_table", url=url)
        assert "tastemaker_secret" not in str(caught.value)
    finally:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("drop table tastemaker_test"))
        engine.dispose()


# -- faults


def fault(tmp_path: Path, text: str | bytes, name: str = "e.csv", **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / name, text), **options)
    return caught.value


def lines(**changed: str) -> str:
    """Ten good lines under a header, with some replaced: r7=... is line 7 of the file."""
    rows = list(TEN)
    for name, line in changed.items():
        rows[int(name[1:]) - 2] = line
    return HEAD + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("line", "column", "what"),
    [
        (",i1,1.0,1500000100", "user", "is missing"),
        ('"",i1,1.0,1500000100', "user", "is missing"),
        ("u1,,1.0,1500000100", "item", "is missing"),
        ("u1,i1,1.0,", "time", "is missing"),
        ("u1,i1,1.0,yesterday", "time", "is no time"),
        ("u1,i1,1.0,0", "time", "is no time"),
        ("u1,i1,1.0,1500000100000", "time", "is no time"),
        ("u1,i1,good,1500000100", "rating", "is not a number"),
        ("u1,i1,inf,1500000100", "rating", "is not finite"),
        ("u1,i1,1e39,1500000100", "rating", "is not finite"),
        ("u1,i1,1.0", None, "3 fields where there should be 4"),
        ("u1,i1,1.0,1500000100,more", None, "5 fields where there should be 4"),
    ],
)
def test_a_fault_is_found_where_it_stands(tmp_path: Path, line: str, column: str | None, what: str) -> None:
    error = fault(tmp_path, lines(r7=line))
    assert error.exit_code == 3
    assert what in str(error)
    problem = next(p for p in error.problems if what in p.what)
    assert (problem.file, problem.row, problem.column) == (str(tmp_path / "e.csv"), 7, column)
    kept = read(tmp_path / "e.csv", on_bad="skip")
    assert kept.n_events == 9 and "1 of 10 rows left out" in kept.notes["skipped"]
    assert kept.fingerprint == read(write(tmp_path / "f.csv", HEAD + "\n".join(TEN[:5] + TEN[6:]))).fingerprint


def test_every_problem_is_counted_and_ten_are_shown(tmp_path: Path) -> None:
    rows = [f"u1,i{n},bad,{1_500_000_000 + n}" for n in range(25)] + [",i1,1,1500000000", "u1,i1,2"]
    error = fault(tmp_path, HEAD + "\n".join(rows))
    assert error.total == 25 + 1 + 2  # the short line has no time either
    assert len(error.problems) == 10 and [p.row for p in error.problems] == list(range(2, 12))
    assert "25 [rating] is not a number" in str(error) and "... and 18 more" in str(error)
    assert error.problems[0].value == "bad"


def test_lines_are_those_of_the_file_where_fields_hold_line_breaks(tmp_path: Path) -> None:
    text = 'user,item,note,time\nu1,"i\n1","a ""quoted"", word",1500000000\n\nu2,i2,"x\n\ny",soon\nu3,i3,,1500000002\n'
    error = fault(tmp_path, text + "u4,i4,z,1500000003\n")
    assert [(p.row, p.column, p.value) for p in error.problems] == [(5, "time", "soon")]
    data = read(write(tmp_path / "good.csv", text.replace("soon", "1500000001")))
    assert data.items["item"].to_list() == ["i\n1", "i2", "i3"]
    assert data.events["note"].to_list() == ['a "quoted", word', "x\n\ny", None]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    text = "\n" + HEAD + "\n" + "\n".join(TEN) + "\n\n  \n"
    assert read(write(tmp_path / "e.csv", text)).n_events == 10
    assert fault(tmp_path, text.replace("u3,i0,3.5", ",i0,3.5", 1)).problems[0].row == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (HEAD.encode(), "a header and no rows"),
        (b"user,item\nu\xe9,i1\nu2,i2\n", "is no UTF-8"),
        (b'user,item\nu1,"i1\nu2,i2\n', "a quote that is never closed"),
        (b'user,item\nu1,"i1"x\nu2,i2\n', "text after a closing quote"),
        (b"just words\nand words\n", "may be a header or an event"),
        (b"oneword\nother\n", "no separator"),
        (b"user,item,item\nu1,i1,i2\n", "one name to two columns"),
        (b"PK\x03\x04\x00\x00\xff\xfe\x00", "e.csv"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in str(fault(tmp_path, content))


def test_wrong_encoding_names_each_line_and_the_way_out(tmp_path: Path) -> None:
    text = "user,item,rating\n" + "".join(f"u{n},caf{'é' if n % 3 == 1 else 'e'}{n},1\n" for n in range(9))
    error = fault(tmp_path, text.encode("latin-1"))
    assert [p.row for p in error.problems] == [3, 6, 9] and error.total == 3
    assert "encoding='latin-1'" in str(error)
    data = read(tmp_path / "e.csv", encoding="latin-1")
    assert "café1" in data.items["item"].to_list()
    with pytest.raises(DataError, match="cannot be decoded"):
        read(tmp_path / "e.csv", encoding="ascii")


def test_broken_packages_and_binary_files(tmp_path: Path) -> None:
    assert "cannot be unpacked" in str(fault(tmp_path, gzip.compress(b"user,item\na,b\n" * 99)[:40], "e.csv.gz"))
    assert "is no parquet file" in str(fault(tmp_path, b"user,item\na,b\n", "e.parquet"))
    assert "is no arrow file" in str(fault(tmp_path, b"user,item\na,b\n", "e.arrow"))
    with pytest.raises(DataError, match="holds no rows"):
        read(EVENTS.clear())


def test_ids_keep_what_they_say(tmp_path: Path) -> None:
    def users(values: list[str]) -> list[Any]:
        return sorted(
            read(write(tmp_path / "e.csv", "user,item\n" + "".join(f"{v},i\n" for v in values))).users["user"]
        )

    assert users(["1", "20", "-3"]) == [-3, 1, 20]
    assert users(["12.0", "12", "7.0"]) == [7, 12]  # as pandas writes whole numbers beside missing ones
    assert users(["007", "7"]) == ["007", "7"]  # a leading zero is part of a name
    assert users(["1", "x"]) == ["1", "x"]
    assert users(["1e5", "2"]) == ["1e5", "2"]
    assert users([" u1 ", "u1"]) == ["u1"]
    assert users(["9223372036854775807", "1"]) == [1, 2**63 - 1]
    assert users(["9223372036854775808", "1"]) == ["1", "9223372036854775808"]
    assert users(["NA", "Nan"]) == ["NA", "Nan"]  # names, where nothing says that ids are numbers
    with pytest.raises(DataError, match=r"e.csv:3 \[user\]: is missing"):
        users(["1", "NaN", "2"])


def test_ids_in_frames() -> None:
    item = ["a", "b", "c"]
    floats = pl.DataFrame({"user": [1.0, 12.0, None], "item": item})
    with pytest.raises(DataError, match=r"input:3 \[user\]: is missing"):
        read(floats)
    assert read(floats.head(2)).users["user"].to_list() == [1, 12]
    with pytest.raises(DataError, match=r"input:2 \[user\]: is missing"):
        read(pl.DataFrame({"user": [1.0, float("nan"), 2.0], "item": item}))
    with pytest.raises(DataError, match=r"input:2 \[user\]: a fractional number is no id \(found '1.5'\)"):
        read(pl.DataFrame({"user": [1.0, 1.5, 2.0], "item": item}))
    with pytest.raises(DataError, match="no exact id"):
        read(pl.DataFrame({"user": [1.0, 2.0**60, 2.0], "item": item}))
    with pytest.raises(DataError, match="ids are whole numbers or text"):
        read(pl.DataFrame({"user": [[1], [2], [3]], "item": item}))
    huge = pl.DataFrame({"user": pl.Series([1, 2**64 - 1, 2], dtype=pl.UInt64), "item": item})
    assert read(huge).users["user"].to_list() == ["1", str(2**64 - 1), "2"]
    assert read(pl.DataFrame({"user": ["07", " 7", "7"], "item": item})).n_users == 3  # typed text is taken as it is
    with pytest.raises(DataError, match=r"input:2 \[user\]: is missing"):
        read(pl.DataFrame({"user": ["a", " ", "c"], "item": item}))


def test_mixed_types(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    mixed = pandas.DataFrame({"user": [1, "x", 2], "item": ["a", "b", "c"], "rating": [1.0, "two", None]})
    with pytest.raises(DataError, match=r"input:2 \[rating\]: is not a number \(found 'two'\)"):
        read(mixed)
    assert read(mixed, on_bad="skip").users["user"].to_list() == ["1", "2"]
    gaps = pandas.DataFrame({"user": [1, 2], "item": ["a", "b"], "price": [1.5, float("nan")], "seen": [True, None]})
    assert read(gaps).events.select("price", "seen").rows() == [(1.5, True), (None, None)]
    jsonl = '{"user": 1, "item": "a", "rating": 1}\n\n{"user": true, "item": "b", "rating": "3"}\n'
    jsonl += '{"user": "x", "item": "c"}\n'
    assert read(write(tmp_path / "e.jsonl", jsonl)).users["user"].to_list() == ["1", "true", "x"]
    error = fault(tmp_path, jsonl.replace('"3"', '"three"'), "f.jsonl")
    assert [(p.row, p.column) for p in error.problems] == [(3, "rating")]


def test_broken_json_lines(tmp_path: Path) -> None:
    error = fault(tmp_path, '{"user": 1, "item": 2}\n{"user": 1,\n[1]\n{"user": 3, "item": 4}\n', "e.jsonl")
    assert [p.row for p in error.problems] == [2, 3] and error.total == 2
    assert "is empty" in str(fault(tmp_path, "\n", "e.jsonl"))


def test_text_in_a_numeric_column_of_sqlite(tmp_path: Path) -> None:
    source = as_sqlite(tmp_path)
    with sqlite3.connect(tmp_path / "e.db") as database:
        database.execute("insert into e values (1, 'i1', 'much', 1500000000)")
    database.close()
    with pytest.raises(DataError, match=r":301 \[rating\]: is not a number \(found 'much'\)"):
        read(**source)
    with pytest.raises(DataError, match="no such table"):
        read("select * from missing", url=source["url"])
    with pytest.raises(DataError, match="holds no rows"):
        read("select * from e where user_id < 0", url=source["url"])
    with pytest.raises(UsageError, match="not of the form"):
        read("select 1", url="nonsense")
    with pytest.raises(NotFound, match="there is no file"):
        read("select 1", url=f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises((UsageError, MissingExtra)):
        read("select 1", url="mysql+pymysql://me:secret@host/db")


def test_missing_numbers_stay_missing(tmp_path: Path) -> None:
    data = read(write(tmp_path / "e.csv", "user,item,rating\na,b,NA\na,c,\na,d, 4.5\na,e,NaN\n"))
    assert data.events.sort("item")["value"].to_list() == [None, None, 4.5, None]


def test_an_event_without_an_item_needs_a_kind_or_a_query(tmp_path: Path) -> None:
    text = "user,item,event,query,time\na,,search,red shoes,1500000000\na,b,click,,1500000001\n"
    data = read(write(tmp_path / "e.csv", text))
    assert data.events["item"].to_list() == [None, 0] and data.events["query"].to_list() == ["red shoes", None]
    assert data.events["kind"].to_list() == ["search", "click"]


def test_meanings_of_further_columns(tmp_path: Path) -> None:
    text = (
        "user,item,session_id,slate_id,position,pscore,when,zip,n,flag,user_name\n"
        "a,x,s9,3,0,0.5,2020-01-02T00:00:00Z,08540,1,true,Al\nb,y,s1,4,1,1.0,2020-01-01,10001,2,false,Bo\n"
        "a,z,s1,4,2,0.25,2020-01-01T01:00:00+01:00,10002,,true,Al\n"
    )
    path = write(tmp_path / "e.csv", text)
    data = read(path, time="when", columns={"n": "clicks", "user_name": None})
    by_item = data.events.with_columns(data.items["item"].gather(data.events["item"]).alias("id")).sort("id")
    assert by_item["session"].to_list() == [1, 0, 0]  # by first time
    assert by_item["slate"].to_list() == [3, 4, 4] and by_item["position"].to_list() == [0, 1, 2]
    assert by_item["propensity"].to_list() == [0.5, 1.0, 0.25]
    assert by_item["zip"].to_list() == ["08540", "10001", "10002"]
    assert by_item["clicks"].to_list() == [1, 2, None] and by_item["flag"].to_list() == [True, False, True]
    assert "user_name" not in data.events.columns and data.notes["columns"].startswith("user=user, item=item")
    assert "is not from 0 to 1" in str(fault(tmp_path, text.replace("0.25", "1.25"), time="when"))
    assert "is not a whole number" in str(fault(tmp_path, text.replace(",1,1.0", ",1.5,1.0"), time="when"))
    with pytest.raises(NotFound, match="did you mean"):
        read(path, user="usr")


# -- tables beside the events


def test_tables_of_users_and_items(tmp_path: Path) -> None:
    events = write(tmp_path / "e.csv", "user_id,movie_id,timestamp\n2,10,1500000000\n1,11,1500000001\n")
    movies = "movie_id,title,genres,year,zip\n11,A,Drama|War,1999,01\n10,B,War,2001,02\n12,C,,,03\n"
    people = pl.DataFrame({"user_id": [1, 3], "age": [20, 30]})
    data = read(events, items=write(tmp_path / "m.csv", movies), users=people, lists={"genres": "|"})
    assert data.items["item"].to_list() == [10, 11, 12] and data.items["title"].to_list() == ["B", "A", "C"]
    assert data.items["genres"].to_list() == [["War"], ["Drama", "War"], None]
    assert data.items["year"].to_list() == [2001, 1999, None] and data.items["zip"].dtype == pl.String
    assert data.users["user"].to_list() == [2, 1, 3] and data.users["age"].to_list() == [None, 20, 30]
    twice = write(tmp_path / "twice.csv", "item_id,title\n1,a\n2,b\n1,c\n,d\n")
    with pytest.raises(DataError) as caught:
        read(events, items=twice)
    assert [(p.row, p.what) for p in caught.value.problems] == [(4, "the same item again"), (5, "is missing")]
    with pytest.raises(DataError, match="no column holds the ids of items"):
        read(events, items=pl.DataFrame({"title": ["a"]}))


def test_declared_availability_counts_until_an_event_says_otherwise() -> None:
    events = pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"], "time": [1_500_000_000, 1_500_000_100]})
    items = pl.DataFrame({"item": ["y", "x", "z"], "available": [1_400_000_000, 1_500_000_050, None]})
    data = read(events, items=items)
    assert data.items["item"].to_list() == ["y", "x", "z"]
    assert data.items["available"].to_list() == [1_400_000_000_000_000, 1_500_000_000_000_000, None]
    assert data.asof(1_500_000_000_000_001).n_items == 2


def test_nested_and_odd_columns_can_be_stored(tmp_path: Path) -> None:
    text = """{"user": 1, "item": 2, "details": {"a": 1}, "parts": [{"b": 2}], "wide": 1234567890123456789012}
{"user": 1, "item": 3, "details": null, "parts": [], "wide": 5}
"""
    data = read(write(tmp_path / "e.jsonl", text), items=pl.DataFrame({"item": [2], "available": [True]}))
    assert data.events["details"].to_list() == ['{"a":1}', None] and data.events["parts"].to_list() == [['{"b":2}'], []]
    assert data.items.columns == ["item", "source_available"] and data.events["wide"].dtype == pl.Float64
    data.save(tmp_path / "d")
    assert Dataset.load(tmp_path / "d").fingerprint == data.fingerprint


def test_bad_rows_of_tables_are_skipped_and_noted() -> None:
    events = pl.DataFrame({"user": [1], "item": [2]})
    data = read(events, items=pl.DataFrame({"item": [2, 2, None], "title": ["a", "b", "c"]}), on_bad="skip")
    assert data.items.rows() == [(2, "a")] and "2 of 3 items left out" in data.notes["skipped items"]


def test_recbole_files(tmp_path: Path) -> None:
    for part, row in (("train", "u1\ti1\t3\t978300760\n"), ("test", "u2\ti2\t4\t978300761\n")):
        write(tmp_path / f"ml.{part}.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + row)
    head = "item_id:token\ttitle:token_seq\tvector:float_seq\tyear:float\n"
    write(tmp_path / "ml.item", head + 'i1\tA "B\t0.5 1\t1999\n')
    write(tmp_path / "ml.user", "user_id:token\tzip:token\nu1\t08540\nu2\t9\n")
    write(tmp_path / "ml.link", "item_id:token\tentity_id:token\ni1\tm.1\n")
    write(tmp_path / "ml.kg", "head_id:token\trelation_id:token\ttail_id:token\nm.1\tfilm\tm.2\n")
    data = read(tmp_path)
    assert sorted(data.events["split"].to_list()) == ["test", "train"]
    assert data.items["title"].to_list() == [["A", '"B'], None] and data.items["vector"].to_list() == [[0.5, 1.0], None]
    assert data.items["entity_id"].to_list() == ["m.1", None] and data.items["year"].dtype == pl.Int64
    assert data.users["zip"].to_list() == ["08540", "9"] and data.kinds["users"] == {"zip": "category"}
    assert data.kind("items", "vector") == "vector" and data.kind("items", "title") == "categories"
    assert data.edges["kg"].rows() == [("m.1", "film", "m.2")]
    write(
        tmp_path / "ml.test.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu2\ti2\tx\t978300761\n",
    )
    with pytest.raises(DataError, match=r"ml.test.inter:2 \[rating\]: is not a number"):
        read(tmp_path)
    write(tmp_path / "ml.user", "user_id\tzip:token\nu1\t08540\n")
    with pytest.raises(DataError, match="states no type"):
        read(tmp_path)


def test_adjacency_text(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "0 5 6\n1 7 \n3\n")
    write(tmp_path / "test.txt", "0 8\n1\n2 5 9\n")
    data = read(tmp_path)
    assert data.users["user"].to_list() == [0, 1, 2, 3] and data.items["item"].to_list() == [5, 6, 7, 8, 9]
    pairs = data.events.select("user", data.items["item"].gather(data.events["item"]), "split").sort("user", "item")
    train, test = "train", "test"
    assert pairs.rows() == [(0, 5, train), (0, 6, train), (0, 8, test), (1, 7, train), (2, 5, test), (2, 9, test)]
    assert not data.has_time and Dataset.from_adjacency(tmp_path).fingerprint == data.fingerprint
    write(tmp_path / "test.txt", "0 8\n\n1 x\n")
    with pytest.raises(DataError, match=r"test.txt:3"):
        read(tmp_path)


def test_a_saved_dataset_is_loaded(tmp_path: Path, expected: Dataset) -> None:
    expected.save(tmp_path / "d")
    assert read(tmp_path / "d").fingerprint == expected.fingerprint
    assert read(tmp_path / "d", name="new").name == "new"


def test_real_folders(shared_data: Path) -> None:
    counts = {
        "ml-100k": (943, 1_682, 100_000),
        "gowalla": (29_858, 40_981, 1_027_370),
        "steam-200k": (12_393, 5_155, 128_816),
        "book-crossing": (2_946, 17_384, 272_678),
        "amazon-beauty": (22_363, 12_101, 198_502),
        "lastfm-hetrec": (1_892, 17_632, 92_834),
        "frappe": (957, 4_082, 96_203),
        "coat": (290, 300, 11_600),
        "spotify-mpd-slice": (869, 30_049, 67_503),
    }
    for name, wanted in counts.items():
        data = read(shared_data / name)
        assert (data.n_users, data.n_items, data.n_events) == wanted, name
    ml = read(shared_data / "ml-100k")
    assert {"title", "genres"} <= set(ml.items.columns) and ml.edges["kg"].height == 91_631
    with pytest.raises(DataError, match="several files can be recognised as the events"):
        read(shared_data / "ctr-samples")


# -- duplicates


@pytest.mark.parametrize(
    ("policy", "rows"),
    [
        ("keep", [("x", 0, 2.0), ("x", 5, 4.0), ("x", 9, None), ("y", 3, 1.0)]),
        ("first", [("x", 0, 2.0), ("y", 3, 1.0)]),
        ("last", [("x", 9, None), ("y", 3, 1.0)]),
        ("sum", [("x", 9, 6.0), ("y", 3, 1.0)]),
        ("max", [("x", 5, 4.0), ("y", 3, 1.0)]),
    ],
)
def test_duplicates(policy: Any, rows: list[Any]) -> None:
    start = 1_500_000_000
    events = pl.DataFrame(
        {
            "user": ["a"] * 4,
            "item": ["x", "x", "y", "x"],
            "rating": [4.0, 2.0, 1.0, None],
            "time": [start + 5, start, start + 3, start + 9],
        }
    )
    data = read(events, duplicates=policy)
    found = data.events.select(
        data.items["item"].gather(data.events["item"]), pl.col("time") // 1_000_000 - start, "value"
    )
    assert found.sort("item", "time").rows() == rows
    assert data.items["available"].to_list() == [start * 1_000_000, (start + 3) * 1_000_000]  # known since the first


def test_duplicates_as_an_error_name_the_rows(tmp_path: Path) -> None:
    text = "user,item,event\na,x,view\na,x,buy\nb,x,view\na,x,view\n"
    error = fault(tmp_path, text, duplicates="error")
    assert [(p.row, p.what) for p in error.problems] == [(5, "the same user and item as before")]
    assert read(tmp_path / "e.csv", duplicates="first").n_events == 3  # another kind is another event


def test_the_sum_without_values_counts(tmp_path: Path) -> None:
    text = "user,item,query\na,x,\na,x,\nb,x,\na,,shoes\n"
    data = read(write(tmp_path / "e.csv", text), duplicates="sum")
    assert sorted(data.events.select("user", "item", "value").rows(), key=str) == [
        (0, 0, 2.0),
        (0, None, None),
        (1, 0, 1.0),
    ]


# -- options


def test_options_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        read(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="there is no format"):
        read(tmp_path, format="excel")
    with pytest.raises(UsageError, match="duplicates is one of"):
        read(EVENTS, duplicates="drop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot be told from its name"):
        read(write(tmp_path / "e.xyz", "user,item\na,b\n"))
    with pytest.raises(UsageError, match="this is no path"):
        read("select " + "x, " * 2000 + "y from t")
    with pytest.raises(UsageError, match="a source is"):
        read(42)
    with pytest.raises(UsageError, match="takes a frame"):
        read([1, 2], format="pandas")
    with pytest.raises(NotFound, match="holds no table"):
        read(tmp_path / "sub" if (tmp_path / "sub").mkdir() is None else tmp_path)


# -- the scanner against the standard library

CELL = st.text(st.sampled_from(['"', ",", "\n", "a", "é", " ", "\r"]), max_size=5)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=12), blank=st.integers(0, 3))
def test_text_is_read_as_the_standard_library_writes_it(
    rows: list[list[str]], blank: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer, starts = io.StringIO(), []
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["user", "item", "note"])
    for i, row in enumerate(rows):
        buffer.write("\n" * (blank if i % 2 else 0))
        starts.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    path = write(tmp_path_factory.mktemp("scan") / "e.csv", buffer.getvalue())
    raw = read_text(path, Dialect(separator=","), known)
    assert [list(row) for row in raw.frame.rows()] == rows
    assert [raw.where(i) for i in range(len(rows))] == [(str(path), start) for start in starts]
    assert len(raw.faults[0]) == 0


CELLS = st.sampled_from(
    ["", " ", "1", "2.0", "007", "x", "é", "NaN", "inf", "1500000000", "2014-01-01", "9" * 30, '"q"']
)
HEADS = ["user", "item", "rating", "time", "kind", "query", "session", "position", "propensity", "other"]


@settings(max_examples=80, deadline=None)
@given(data=st.data(), on_bad=st.sampled_from(["error", "skip"]))
def test_whatever_comes_is_read_or_refused(
    data: st.DataObject, on_bad: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing but our own errors, and what is read is whole."""
    if data.draw(st.booleans()):
        heads = data.draw(st.lists(st.sampled_from(HEADS), min_size=2, max_size=6, unique=True))
        row = st.lists(CELLS, min_size=len(heads) - data.draw(st.integers(0, 1)), max_size=len(heads))
        rows = data.draw(st.lists(row, max_size=8))
        content = "\n".join([",".join(heads), *(",".join(row) for row in rows)]).encode()
    else:
        content = data.draw(st.binary(max_size=80))
    path = write(tmp_path_factory.mktemp("any") / "e.csv", content)
    with suppress(TastemakerError):
        found = read(path, on_bad=on_bad)
        assert found.n_events and found.fingerprint and not found.users["user"].null_count()
