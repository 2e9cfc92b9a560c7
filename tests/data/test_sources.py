"""Public data sets: fetched from a server on this machine, or read from folders; tiny ones of each kind."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.sources import get, registry, source, sources
from tastemaker.data.sources.amazon import CATEGORIES
from tastemaker.data.sources.fetch import Remote
from tastemaker.data.sources.packs import NO_EVENTS, PACKS
from tastemaker.types import DataError, Dataset, NotFound, UsageError

Host = Callable[[str, dict[str, bytes]], Any]


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []


@pytest.fixture
def hosted(server: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Put files on the server as those of a source; downloads go to a fresh cache."""
    url, script = server
    monkeypatch.setenv("TASTEMAKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TASTEMAKER_DATA", raising=False)

    known = {s.name: s for s in sources()}

    def host(name: str, contents: dict[str, bytes]) -> Any:
        real = known[name]
        assert {remote.name for remote in real.files} == set(contents)
        script.files |= contents
        moved = replace(real, files=tuple(Remote(url + remote.name) for remote in real.files))
        monkeypatch.setattr(registry, "_table", lambda: {name: moved})
        return script

    return host


def zipped(folder: str, contents: dict[str, str], encoding: str = "utf-8") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            archive.writestr(f"{folder}/{name}", text.encode(encoding))
    return out.getvalue()


def rows(data: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    """Events under outside ids."""
    ids = {
        "user": data.user_ids.ids(data.events["user"].to_numpy()),
        "item": data.item_ids.ids(data.events["item"].to_numpy()),
    }
    return pl.DataFrame([ids[c].alias(c) if c in ids else data.events[c] for c in ("user", "item", *columns)]).rows()


U_DATA = ["1\t10\t5\t100", "1\t20\t3\t50", "2\t10\t1\t70", "3\t30\t4\t10", "3\t10\t2\t20"]
ML_100K = {
    "u.data": "\n".join(U_DATA) + "\n",
    "u.genre": "unknown|0\nAction|1\nFilm-Noir|2\n\n",
    "u.item": "10|Les Mis\u00e9rables (1995)|01-Jan-1995||http://x|0|1|1\n20|unknown||||1|0|0\n"
    "30|Up, Up|4-Feb-1971||u|0|0|0\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|0\n3|23|M|writer|V0R2M\n",
    **{f"u{k}.test": U_DATA[k - 1] + "\n" for k in range(1, 6)},
    "ua.test": U_DATA[0] + "\n",
    "ub.test": U_DATA[2] + "\n" + U_DATA[4] + "\n",
}


def test_ml_100k(hosted: Host) -> None:
    script = hosted("ml-100k", {"ml-100k.zip": zipped("ml-100k", ML_100K, "latin-1")})
    data = get("ml-100k")
    assert rows(data, "time", "value", "fold", "ua_test", "ub_test") == [
        (3, 30, 10_000_000, 4.0, 4, False, False),
        (3, 10, 20_000_000, 2.0, 5, False, True),
        (1, 20, 50_000_000, 3.0, 2, False, False),
        (1, 10, 100_000_000, 5.0, 1, True, False),
        (2, 10, 70_000_000, 1.0, 3, False, True),
    ]
    items = data.items.select("item", pl.col("release_date").cast(pl.String), "title", "genres").sort("item").rows()
    assert items == [
        (10, "1995-01-01", "Les Mis\u00e9rables (1995)", ["Action", "Film-Noir"]),
        (20, None, "unknown", ["unknown"]),
        (30, "1971-02-04", "Up, Up", []),
    ]
    assert data.users.sort("user").select("age", "gender", "occupation", "zip_code").row(2) == (
        23,
        "M",
        "writer",
        "V0R2M",
    )
    assert data.notes["terms"].startswith("research use") and "Harper" in data.notes["cite"]
    assert get("ml-100k").fingerprint == data.fingerprint and script.asked == [None], "fetched once"


def test_ml_1m(hosted: Host) -> None:
    films = "1::Alien: Part 3 (1992)::Action|Sci-Fi\n2::Caf\u00e9 \x85 (1970)::Drama\n"
    contents = {"ratings.dat": "1::2::5::978300760\n1::1::3::978300761\n2::1::4::978300000\n", "movies.dat": films}
    contents["users.dat"] = "1::F::1::10::48067\n2::M::56::16::70072-1234\n"
    hosted("ml-1m", {"ml-1m.zip": zipped("ml-1m", contents, "latin-1")})
    data = get("ml-1m")
    assert rows(data, "value") == [(2, 1, 4.0), (1, 2, 5.0), (1, 1, 3.0)]
    assert data.time_unit == "us" and data.events["time"][0] == 978_300_000_000_000
    assert dict(data.items.select("title", "genres").iter_rows()) == {
        "Alien: Part 3 (1992)": ["Action", "Sci-Fi"],
        "Caf\u00e9 \x85 (1970)": ["Drama"],
    }
    assert data.kind("users", "age") == data.kind("users", "occupation") == "category"
    assert data.users.sort("user")["zip_code"].to_list() == ["48067", "70072-1234"]


@pytest.mark.parametrize("name", ["ml-latest-small", "ml-20m", "ml-25m", "ml-32m"])
def test_movielens_in_csv(hosted: Host, name: str) -> None:
    contents = {
        "ratings.csv": "userId,movieId,rating,timestamp\n7,1,4.5,964982703\n7,3,0.5,964981247\n8,1,3.0,964000000\n",
        "movies.csv": 'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n'
        '3,"""Hi""",(no genres listed)\n9,Z,War\n',
        "links.csv": "movieId,imdbId,tmdbId\n1,0112346,9087\n3,0113228,\n9,0114885,31357\n",
        "tags.csv": 'userId,movieId,tag,timestamp\n7,3,"so, so",1445714994\n8,1,NA,1445714995\n',
        "genome-scores.csv": "movieId,tagId,relevance\n" + "1,1,0.025\n" * 100,
    }
    hosted(name, {f"{name}.zip": zipped(name, contents)})
    data = get(name)
    assert rows(data, "value") == [(8, 1, 3.0), (7, 3, 0.5), (7, 1, 4.5)]
    assert data.items.select("item", "title", "genres", "imdb_id", "tmdb_id").sort("item").rows() == [
        (1, "American President, The (1995)", ["Comedy", "Drama"], "0112346", 9087),
        (3, '"Hi"', [], "0113228", None),
        (9, "Z", ["War"], "0114885", 31357),
    ]
    assert data.edges["tags"].rows() == [
        (3, "tagged", "so, so", 7, 1445714994_000_000),
        (1, "tagged", "NA", 8, 1445714995_000_000),
    ]


@pytest.mark.parametrize("name", ["gowalla", "yelp2018", "amazon-book"])
def test_lightgcn_split(hosted: Host, name: str) -> None:
    contents = {
        "train.txt": "0 0 1 2\n1 2\n2 \n",
        "test.txt": "0 3\n1 0 3\n",
        "user_list.txt": "org_id remap_id\nnkN_do 0\n62GNFh 1\nJLwCub 2\n",
        "item_list.txt": "org_id remap_id\n0060090383 0\nB00L85UKTW 1\nc 2\nd 3\n",
    }
    hosted(name, {file: text.encode() for file, text in contents.items()})
    data = get(name)
    parts = {"train": [(0, 0), (0, 1), (0, 2), (1, 2)], "test": [(0, 3), (1, 0), (1, 3)]}
    assert sorted(rows(data, "split")) == sorted((*pair, part) for part, pairs in parts.items() for pair in pairs)
    assert data.users.rows() == [(0, "nkN_do"), (1, "62GNFh"), (2, "JLwCub")]
    assert data.items["orig_id"].to_list() == ["0060090383", "B00L85UKTW", "c", "d"]
    assert data.time_unit is None


def packed(*lines: Any) -> bytes:
    return gzip.compress(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines).encode()
    )


def test_amazon_ratings_of_three_editions(hosted: Host) -> None:
    expected = [("A2", "B1", 4.0), ("A1", "0205616461", 5.0), ("A1", "B1", 2.0)]
    hosted(
        "amazon-2014-beauty",
        {"ratings_Beauty.csv": b"A1,0205616461,5.0,1369699200\nA1,B1,2.0,1369699201\nA2,B1,4.0,1300000000\n"},
    )
    assert rows(get("amazon-2014-beauty"), "value") == expected
    hosted(
        "amazon-2018-fashion",
        {"AMAZON_FASHION.csv": b"0205616461,A1,5.0,1369699200\nB1,A1,2.0,1369699201\nB1,A2,4.0,1300000000\n"},
    )
    assert rows(get("amazon-2018-fashion"), "value") == expected
    lines = [
        "user_id,parent_asin,rating,timestamp",
        "A1,0205616461,5.0,1369699200123",
        "A1,B1,2.0,1369699201123",
        "A2,B1,4.0,1300000000123",
    ]
    hosted("amazon-2023-video-games", {"Video_Games.csv.gz": packed(*lines)})
    data = get("amazon-2023-video-games")
    assert rows(data, "value") == expected and data.events["time"][0] == 1_300_000_000_123_000


REVIEWS = [
    {
        "reviewerID": "A1",
        "asin": "B1",
        "overall": 5.0,
        "unixReviewTime": 1369699200,
        "summary": "Good",
        "reviewText": "Very \u00fcber good",
    },
    {
        "reviewerID": "A2",
        "asin": "B2",
        "overall": 1.0,
        "unixReviewTime": 1369699100,
        "reviewText": "Bad",
        "helpful": [0, 1],
    },
]


def test_amazon_2014_5core(hosted: Host) -> None:
    sold = [
        "{'asin': 'B0', 'title': 'not reviewed', 'broken",
        "{'asin': 'B1', 'title': \"A 'fine' thing\", 'price': 3, 'imUrl': 'http://i', "
        "'categories': [['Beauty', 'Nails'], ['Beauty']]}",
        "{'asin': 'B2', 'brand': 'Acme', 'description': 'It is.', 'price': 12.5, 'salesRank': {'Beauty': 4}}",
    ]
    hosted(
        "amazon-2014-beauty-5core", {"reviews_Beauty_5.json.gz": packed(*REVIEWS), "meta_Beauty.json.gz": packed(*sold)}
    )
    data = get("amazon-2014-beauty-5core")
    assert rows(data, "value", "summary", "text") == [
        ("A2", "B2", 1.0, None, "Bad"),
        ("A1", "B1", 5.0, "Good", "Very \u00fcber good"),
    ]
    names = ("item", "title", "brand", "price", "description", "image", "categories")
    assert data.items.select(names).sort("item").rows() == [
        ("B1", "A 'fine' thing", None, 3.0, None, "http://i", ["Beauty", "Nails"]),
        ("B2", None, "Acme", 12.5, "It is.", None, None),
    ]
    assert "verified" not in data.events.columns and data.kind("events", "text") == "text"


def test_amazon_2014_code_is_no_item(hosted: Host, tmp_path: Path) -> None:
    """Lines of 2014 are Python literals; what is more than a literal is refused, not run."""
    evil = f"{{'asin': 'B1', 'title': open({str(tmp_path / 'evil')!r}, 'w')}}"
    hosted(
        "amazon-2014-beauty-5core", {"reviews_Beauty_5.json.gz": packed(*REVIEWS), "meta_Beauty.json.gz": packed(evil)}
    )
    with pytest.raises(DataError, match=r"meta_Beauty\.json:1: is no item"):
        get("amazon-2014-beauty-5core")
    assert not (tmp_path / "evil").exists()


def test_amazon_2018_5core(hosted: Host) -> None:
    sold = [
        {
            "asin": "B1",
            "title": "Thing",
            "brand": "",
            "price": "$1,012.50",
            "category": ["a", "b"],
            "description": ["x", "y"],
            "rank": "1",
            "image": ["u1", "u2"],
        },
        {"asin": "B1", "title": "Thing again", "category": []},
        {
            "asin": "B2",
            "title": "var aPage = new Date().getTime();",
            "brand": "Acme",
            "price": "$5 - $7",
            "rank": ["1"],
            "category": [],
            "imageURLHighRes": ["h"],
        },
        {"asin": "B9", "title": "not reviewed"},
    ]
    reviews = [{**review, "verified": True, "style": {"Size:": "L"}, "vote": "2"} for review in REVIEWS]
    hosted(
        "amazon-2018-all-beauty-5core",
        {"All_Beauty_5.json.gz": packed(*reviews), "meta_All_Beauty.json.gz": packed(*sold)},
    )
    data = get("amazon-2018-all-beauty-5core")
    assert data.events["verified"].to_list() == [True, True]
    names = ("item", "title", "brand", "price", "description", "categories", "image")
    assert data.items.select(names).sort("item").rows() == [
        ("B1", "Thing", None, 1012.5, "x\ny", ["a", "b"], "u1"),
        ("B2", None, "Acme", None, None, [], "h"),
    ]


def test_amazon_2023_5core(hosted: Host) -> None:
    sold = [
        {
            "parent_asin": "B1",
            "title": "Thing",
            "store": "Shop",
            "price": 9.99,
            "features": ["f"],
            "description": [],
            "categories": ["a"],
            "images": [{"thumb": "t", "large": "l"}],
        },
        {
            "parent_asin": "B2",
            "title": "Other",
            "store": None,
            "price": "from 3",
            "features": [],
            "description": ["d"],
            "categories": [],
            "images": [],
        },
        {"parent_asin": "B9", "title": "not rated"},
    ]
    ratings = packed("user_id,parent_asin,rating,timestamp", "A1,B1,5.0,1588615855070", "A1,B2,3.0,1588615855071")
    hosted("amazon-2023-all-beauty-5core", {"All_Beauty.csv.gz": ratings, "meta_All_Beauty.jsonl.gz": packed(*sold)})
    data = get("amazon-2023-all-beauty-5core")
    assert rows(data, "value") == [("A1", "B1", 5.0), ("A1", "B2", 3.0)]
    names = ("item", "title", "brand", "price", "description", "features", "categories", "image")
    assert data.items.select(names).sort("item").rows() == [
        ("B1", "Thing", "Shop", np.float32(9.99).item(), "", "f", ["a"], "l"),
        ("B2", "Other", None, None, "d", "", [], None),
    ]


def test_hostile_and_broken_archives_leave_no_dataset(hosted: Host, tmp_path: Path) -> None:
    hosted("ml-1m", {"ml-1m.zip": zipped("../../../evil", {"ratings.dat": "1::2::5::978300760\n"})})
    with pytest.raises(DataError, match="leads out of its folder"):
        get("ml-1m")
    home = tmp_path / "cache" / "data" / "ml-1m"
    assert not [p for p in home.rglob("*") if p.is_file() and p.suffix != ".lock"], "not trusted any longer"
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("ratings.dat"))
    contents = {
        "ratings.dat": "1::2::5::978300760\n1::2::five::978300760\n",
        "movies.dat": "2::A::B\n",
        "users.dat": "1::F::1::10\n",
    }
    hosted("ml-1m", {"ml-1m.zip": zipped("ml-1m", contents)})
    with pytest.raises(
        DataError, match=r"users\.dat is not the file of MovieLens(.|\n)*users\.dat:1: does not have the 5 fields"
    ):
        get("ml-1m", cache=tmp_path / "other")
    contents["users.dat"] = "1::F::1::10::48067\n"
    hosted("ml-1m", {"ml-1m.zip": zipped("ml-1m", contents)})
    with pytest.raises(DataError, match=r"ratings\.dat:2"):
        get("ml-1m", cache=tmp_path / "third")


# -- from folders


def test_a_folder_is_used_as_it_is_and_left_so(hosted: Host, tmp_path: Path) -> None:
    archive = zipped("ml-100k", ML_100K, "latin-1")
    script = hosted("ml-100k", {"ml-100k.zip": archive})
    wanted = get("ml-100k").fingerprint
    script.asked.clear()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ml-100k.zip").write_bytes(archive)
    for name, text in ML_100K.items():
        (tmp_path / "b" / "ml-100k").mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / "ml-100k" / name).write_text(text, encoding="latin-1")
    for folder in ("a", "b", "b/ml-100k"):
        before = sorted((tmp_path / folder).rglob("*"))
        data = get("ml-100k", folder=tmp_path / folder)
        assert data.fingerprint == wanted and data.notes["from"] == "a folder of files"
        assert sorted((tmp_path / folder).rglob("*")) == before
    assert script.asked == []
    (tmp_path / "c").mkdir()
    with pytest.raises(NotFound, match=r"does not hold ml-100k(.|\n)*ml-100k\.zip; or u\.data, .*; or Parquet"):
        get("ml-100k", folder=tmp_path / "c")


def test_a_wrong_archive_in_a_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ml-100k.zip").write_bytes(zipped("ml-100k", ML_100K, "latin-1"))
    with pytest.raises(DataError, match=r"checksum is sha256:.*is published"):
        get("ml-100k", folder=tmp_path, cache=tmp_path / "cache")
    assert (tmp_path / "ml-100k.zip").is_file()


def test_the_environment_names_folder_and_cache(hosted: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = hosted("ml-100k", {"ml-100k.zip": zipped("ml-100k", ML_100K, "latin-1")})
    get("ml-100k")
    assert (tmp_path / "cache" / "data" / "ml-100k" / "ml-100k.zip").is_file()
    monkeypatch.delenv("TASTEMAKER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert registry.cache_folder() == tmp_path / "home" / ".cache" / "tastemaker" / "data"
    script.asked.clear()
    pack = tmp_path / "sets" / "ml-100k"
    pack.mkdir(parents=True)
    for name, text in ML_100K.items():
        (pack / name).write_text(text, encoding="latin-1")
    monkeypatch.setenv("TASTEMAKER_DATA", str(tmp_path / "sets"))
    assert get("ml-100k").n_events == 5 and script.asked == []
    monkeypatch.setenv("TASTEMAKER_DATA", str(tmp_path / "cache"))
    assert get("ml-100k").n_events == 5 and script.asked == [None], "not there, so it is fetched"


def test_a_folder_of_another_form_is_an_error(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "song": [2]}).write_parquet(tmp_path / "playlist_tracks.parquet")
    with pytest.raises(DataError, match=r"not hold spotify-mpd-slice in the form that is read here: .*playlist_id"):
        get("spotify-mpd-slice", folder=tmp_path)
    (tmp_path / "playlist_tracks.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="not hold spotify-mpd-slice"):
        get("spotify-mpd-slice", folder=tmp_path)


def test_a_page_that_says_sorry_is_not_trusted(hosted: Host) -> None:
    name, ratings = (
        "amazon-2023-gift-cards-5core",
        packed("user_id,parent_asin,rating,timestamp", "A,B,5.0,1588615855070"),
    )
    hosted(name, {"Gift_Cards.csv.gz": b"<html>sorry</html>", "meta_Gift_Cards.jsonl.gz": packed({"parent_asin": "B"})})
    with pytest.raises(DataError, match=r"is no zip, tar.gz or gz file: it begins with b'<htm'"):
        get(name)
    hosted(name, {"Gift_Cards.csv.gz": ratings, "meta_Gift_Cards.jsonl.gz": packed({"parent_asin": "B"})})
    assert rows(get(name), "value") == [("A", "B", 5.0)]


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TASTEMAKER_DATA", raising=False)
    with pytest.raises(UsageError, match="redial holds dialogues, no events"):
        get("redial")
    with pytest.raises(NotFound, match="did you mean 'ml-100k'"):
        get("ml-10k")
    with pytest.raises(NotFound, match=r"coat is read from a folder(.|\n)*TASTEMAKER_DATA"):
        get("coat")


def test_the_table_of_sources() -> None:
    table = {s.name: s for s in sources()}
    assert len(table) == len(sources()) and set(PACKS) | set(NO_EVENTS) <= set(table) and set(CATEGORIES) <= set(table)
    for s in table.values():
        assert s.title and s.terms and s.citation and s.holds, s.name
        assert (s.read is not None) == bool(s.files) == bool(s.raw)
        assert bool(s.files or s.pack) == (s.reason is None), s.name
        assert all(file.url.startswith("https://") for file in s.files)
    assert {name for name in table if name.startswith("amazon-20") and not name.endswith("-5core")} == {
        name for name, category in CATEGORIES.items() if not category.core
    }
    unchecked = {s.name for s in table.values() if "trusted" in s.checked}
    assert unchecked == {name for name, category in CATEGORIES.items() if category.core}
    assert source("ml-1m").checked == "published checksums" and source("coat").checked == "not fetched"
    assert len([name for name in CATEGORIES if "2014" in name]) == 48
    assert "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall/Prime_Pantry.csv" in [
        file.url for s in table.values() for file in s.files
    ]
