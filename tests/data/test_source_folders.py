"""The folders of real data: each read, its counts those that its README publishes, or the reason why it is none."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tastemaker.data.sources import get, registry, source
from tastemaker.data.sources.fetch import Remote
from tastemaker.data.sources.packs import NO_EVENTS, PACKS
from tastemaker.types import Dataset, UsageError

# users, items, events, and parts of the split where one is published
COUNTS: dict[str, tuple[int, int, int, dict[str, int] | None]] = {
    "ml-100k": (943, 1682, 100_000, None),
    "ml-1m": (6040, 3883, 1_000_209, {"train": 988_129, "valid": 6040, "test": 6040}),
    "ml-1m-collm": (838, 3255, 51_623, {"train": 33_891, "valid": 10_401, "test": 7331}),
    "ml-latest-small": (610, 9742, 100_836, None),
    "ml-latest-small-2016": (671, 9066, 100_004, None),
    "gowalla": (29_858, 40_981, 1_027_370, {"train": 810_128, "test": 217_242}),
    "lastfm-hetrec": (1892, 4489, 52_668, {"train": 42_135, "test": 10_533}),
    "lastfm-hetrec-raw": (1892, 17_632, 92_834, None),
    "steam-200k": (12_393, 5155, 128_816, None),
    "book-crossing": (2946, 17_384, 272_678, None),
    "amazon-games": (50_546, 16_859, 452_989, {"train": 351_897, "valid": 50_546, "test": 50_546}),
    "amazon-beauty": (22_363, 12_101, 198_502, {"train": 153_776, "valid": 22_363, "test": 22_363}),
    "amazon-industrial-scientific": (3285, 3686, 21_737, None),
    "amazon-phones-colarec": (27_879, 10_429, 194_439, {"train": 137_277, "valid": 28_581, "test": 28_581}),
    "amazon-phones-search": (27_879, 10_428, 174_754, {"train": 174_087, "test": 667}),
    "amazon-scientific-clip": (2928, 1585, 19_712, {"train": 13_856, "valid": 2928, "test": 2928}),
    "amazon-beauty-impressions": (11_388, 11_897, 146_616, None),
    "lastfm-s3rec": (1090, 3646, 52_551, {"train": 50_371, "valid": 1090, "test": 1090}),
    "lastfm-ear": (1801, 7432, 76_693, {"train": 52_910, "valid": 15_471, "test": 8312}),
    "lastfm-kg": (1872, 3846, 21_173, None),
    "diginetica-sample": (2986, 7139, 12_391, None),
    "xrec-yelp": (15_962, 14_085, 393_680, None),
    "news-dkn": (469, 9075, 10_863 + 6576, None),
    "frappe": (957, 4082, 96_203, {"train": 75_773, "test": 18_943}),
    "frappe-nfm": (913, 4082, 86_582, {"train": 57_722, "test": 28_860}),
    "open-bandit-men": (265, 34, 20_000 + 46 + 69, None),
    "coat": (290, 300, 11_600, {"train": 6960, "test": 4640}),
    "retailrocket": (2174, 30_113, 99_555, {"train": 97_381, "test": 2174}),
    "spotify-mpd-slice": (869, 30_049, 67_503, {"train": 66_634, "test": 869}),
    "spotify-editorial": (100, 8154, 9634, None),
    "ml-1m-agent4rec": (1000, 3292, 185_249, {"train": 74_271, "valid": 55_486, "test": 55_492}),
}


@pytest.fixture(scope="module")
def read(shared_data: Path) -> dict[str, Dataset]:
    return {name: get(name, folder=shared_data) for name in PACKS}


def test_every_folder_is_known(shared_data: Path) -> None:
    folders = {path.name for path in shared_data.iterdir() if path.is_dir()}
    assert folders == {pack.folder or name for name, pack in PACKS.items()} | set(NO_EVENTS)
    for name in NO_EVENTS:
        with pytest.raises(UsageError, match=f"{name} holds .*(no events|no users' events)"):
            get(name, folder=shared_data)


@pytest.mark.parametrize("name", PACKS)
def test_counts_are_those_published(name: str, read: dict[str, Dataset]) -> None:
    data, (users, items, events, parts) = read[name], COUNTS[name]
    assert (data.n_users, data.n_items, data.n_events) == (users, items, events)
    if parts is not None:
        found = dict(data.events.drop_nulls("split").group_by("split").len().iter_rows())
        assert found == parts
    assert not data.events["user"].null_count() and not data.events["item"].null_count()
    assert data.notes["source"] == source(name).title and data.notes["terms"] == source(name).terms
    assert data.schema.n_items == items  # every column has a kind
    # Nothing but ids is left without a name, and what is text is not taken for a label.
    assert all(data.kind("items", c) == "text" for c in data.items.columns if c in ("title", "description", "text"))


def test_a_dataset_comes_back_from_its_folder(read: dict[str, Dataset], tmp_path: Path) -> None:
    for name in ("ml-100k", "coat", "open-bandit-men", "amazon-scientific-clip", "lastfm-hetrec-raw"):
        back = Dataset.load(read[name].save(tmp_path / name))
        assert back.fingerprint == read[name].fingerprint and back.schema == read[name].schema


def test_times_of_places_in_a_history(read: dict[str, Dataset]) -> None:
    """Where only the order is known, each user's times count up, and held-out events come last."""
    for name in ("ml-1m", "amazon-games", "amazon-beauty", "lastfm-s3rec", "retailrocket", "amazon-phones-colarec"):
        data = read[name]
        assert data.time_unit == "step"
        place = pl.int_range(pl.len()).over("user")
        events = data.events.with_columns(
            place=place, last=pl.col("split").replace({"train": "0", "valid": "1", "test": "2"})
        )
        assert (events["time"] == events["place"]).all(), name
        assert events.select(((pl.col("last") >= pl.col("last").shift(1)).over("user")).all()).item(), name
    assert read["retailrocket"].events.filter(pl.col("timestamp").is_null())["split"].unique().to_list() == ["test"]


def test_real_times(read: dict[str, Dataset]) -> None:
    first = {
        "ml-100k": "1997-09-20 03:05:10",
        "ml-latest-small": "1996-03-29 18:36:55",
        "open-bandit-men": "2019-11-24 00:01:03.979311",
        "diginetica-sample": "2016-01-03",
    }
    for name, time in first.items():
        assert read[name].time_unit == "us"
        assert str(read[name].events["time"].cast(pl.Datetime("us")).min()).startswith(time), name


def test_what_was_shown_and_what_was_clicked(read: dict[str, Dataset]) -> None:
    for name, shown, clicks in (
        ("open-bandit-men", 20_000, 115),
        ("news-dkn", 10_863, 6576),
        ("amazon-beauty-impressions", 56_955, 11_391),
    ):
        events = read[name].events
        kinds = events.filter(pl.col("value").is_not_null()).group_by("kind").agg(pl.len(), pl.col("value").sum())
        assert {k: (n, v) for k, n, v in kinds.iter_rows()} == {
            "impression": (shown, clicks),
            "click": (clicks, clicks),
        }
    bandit = read["open-bandit-men"].events
    random = bandit.filter(pl.col("behavior_policy") == "random", pl.col("kind") == "impression")
    np.testing.assert_allclose(random["propensity"].to_numpy(), 1 / 34, rtol=1e-6)
    assert bandit["position"].unique().sort().to_list() == [0, 1, 2]
    lists = read["amazon-beauty-impressions"].events.filter(pl.col("kind") == "impression").group_by("slate").len()
    assert lists.height == 11_391 and lists["len"].unique().to_list() == [5]
    assert read["news-dkn"].interactions().height == 6576


def test_the_frappe_split_fits_its_rows(read: dict[str, Dataset], shared_data: Path) -> None:
    """Rows of CA-FATA are coded; counts of days and countries must agree part by part all the same."""
    coded = pl.read_parquet(shared_data / "frappe" / "cafata_split.parquet")
    events = read["frappe"].events.drop_nulls("split")
    for column in ("daytime", "weekday", "homework", "country", "city"):
        for part in ("train", "test"):
            ours = events.filter(pl.col("split") == part)[column].value_counts()["count"].sort()
            theirs = coded.filter(pl.col("split") == part)[column].value_counts()["count"].sort()
            assert ours.equals(theirs), (column, part)
    # Counts are rescaled there, so their order is compared: every part has the same number of each.
    ranks = [
        frame.select("split", pl.col(c).rank("dense").alias("rank")) for frame, c in ((events, "value"), (coded, "cnt"))
    ]
    left, right = (frame.group_by("split", "rank").len().sort("split", "rank") for frame in ranks)
    assert left.equals(right)
    assert read["frappe"].events["split"].null_count() == 96_203 - 94_716


def test_edges_end_at_items_and_users(read: dict[str, Dataset]) -> None:
    heads = {"ml-100k": 72_592, "lastfm-kg": 15_518, "retailrocket": 304_537}
    for name, linked in heads.items():
        kg = read[name].edges["kg"]
        assert kg.columns == ["head", "relation", "tail"] and kg["relation"].dtype == pl.String
        assert int((read[name].item_ids.numbers(kg["head"]) >= 0).sum()) == linked, name
    assert read["ml-100k"].edges["kg"].height == 91_631
    social = read["lastfm-hetrec"].edges["social"]
    assert social.height == 25_434
    assert (read["lastfm-hetrec"].user_ids.numbers(social["head"]) >= 0).all()
    assert (read["lastfm-hetrec"].user_ids.numbers(social["tail"]) >= 0).all()
    tags = read["lastfm-hetrec-raw"].edges["tags"]
    assert tags.height == 186_479 and tags["tail"].null_count() == 0 and "metal" in set(tags["tail"].head(5000))
    assert read["ml-latest-small-2016"].edges["tags"].height == 1296


def test_attributes(read: dict[str, Dataset]) -> None:
    data = read["coat"]
    assert data.users["features"].list.len().unique().to_list() == [4], "gender, age, place, interest"
    assert data.items["features"].list.len().unique().to_list() == [4], "gender, type, colour, front page"
    assert data.users.filter(pl.col("user") == 0)["features"][0].to_list()[0] == "gender:women"
    widths = {"ml-1m": 768, "amazon-games": 768, "amazon-scientific-clip": 512}
    for name, width in widths.items():
        column = read[name].schema.items["text_vector"]
        assert (column.kind, column.width) == ("vector", width)
    assert read["amazon-games"].items["text_vector"].null_count() == 14
    assert read["lastfm-s3rec"].schema.items["attributes"].size == 388
    assert read["lastfm-ear"].schema.items["attributes"].size == 33
    assert read["xrec-yelp"].events["explanation"].count() == 3000
    searches = read["amazon-phones-search"].events
    assert searches["query"].n_unique() == 164, "one of the 165 led to no purchase"
    assert not searches["query"].null_count() and searches["kind"].unique().to_list() == ["purchase"]
    assert read["retailrocket"].events["kind"].unique().sort().to_list() == ["cart", "purchase", "view"]
    assert (
        read["steam-200k"].events["value"].count() == 70_489 and read["book-crossing"].events["value"].count() == 62_656
    )


def test_the_archive_of_ml_100k_gives_the_same(
    read: dict[str, Dataset], shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """u.data and its like, written from the tables, zipped and read as GroupLens's archive: the same dataset."""
    tables = {t: pl.read_parquet(shared_data / "ml-100k" / f"{t}.parquet") for t in ("ratings", "users", "items")}
    ratings, genres = tables["ratings"], tables["items"]["genres"].explode().unique().sort().to_list()
    core = ["user_id", "item_id", "rating", "timestamp"]

    def text(frame: pl.DataFrame, separator: str) -> bytes:
        return frame.write_csv(separator=separator, include_header=False, quote_style="never").encode("latin-1")

    flags = [pl.col("genres").list.contains(g).cast(pl.Int8).alias(g) for g in genres]
    films = tables["items"].select("item_id", "title", "release_date", pl.lit("").alias("video"), "imdb_url", *flags)
    tests = {f"u{fold}.test": ratings.filter(pl.col("fold") == fold) for fold in range(1, 6)}
    tests |= {f"{half}.test": ratings.filter(pl.col(f"{half}_test")) for half in ("ua", "ub")}
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("ml-100k/u.data", text(ratings.select(core), "\t"))
        archive.writestr("ml-100k/u.genre", "".join(f"{g}|{i}\n" for i, g in enumerate(genres)))
        archive.writestr("ml-100k/u.item", text(films, "|"))
        archive.writestr("ml-100k/u.user", text(tables["users"], "|"))
        for name, frame in tests.items():
            archive.writestr(f"ml-100k/{name}", text(frame.select(core), "\t"))
    real = source("ml-100k")
    free = replace(real, files=(Remote(real.files[0].url),))
    monkeypatch.setattr(registry, "_table", lambda: {"ml-100k": free})
    fetched, packed = get("ml-100k", folder=tmp_path, cache=tmp_path / "cache"), read["ml-100k"]
    assert fetched.events.equals(packed.events)
    same = pl.col("genres").list.sort()
    assert fetched.items.with_columns(same).equals(packed.items.select(fetched.items.columns).with_columns(same))
    assert fetched.users.equals(packed.users.select(fetched.users.columns))


def test_the_text_of_gowalla_gives_the_same(read: dict[str, Dataset], shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "gowalla"
    pairs = pl.read_parquet(folder / "interactions.parquet").with_columns(pl.col("item_id").cast(pl.String))
    for part in ("train", "test"):
        lines = pairs.filter(pl.col("split") == part).group_by("user_id", maintain_order=True).agg("item_id")
        lines = lines.select(pl.format("{} {}", "user_id", pl.col("item_id").list.join(" ")))
        (tmp_path / f"{part}.txt").write_text("\n".join(lines.to_series()) + "\n")
    for key in ("user", "item"):
        ids = pl.read_parquet(folder / f"{key}_map.parquet").select(org_id="orig_id", remap_id=f"{key}_id")
        ids.write_csv(tmp_path / f"{key}_list.txt", separator=" ")
    fetched, packed = get("gowalla", folder=tmp_path), read["gowalla"]
    order = ["user", "item", "split"]
    assert fetched.events.select(order).sort(order).equals(packed.events.select(order).sort(order))
    assert fetched.items.equals(packed.items.cast({"orig_id": pl.Int64}))
    assert fetched.users.equals(packed.users.cast({"orig_id": pl.Int64}))
