"""The invented world as a thing: the same seed is the same world, streamed or not; its texts, graph and posters."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.data.build import build
from tastemaker.data.synthetic import Truth, World, synthetic
from tastemaker.data.synthetic import world as world_module
from tastemaker.types import ConfigError, Dataset, NotFound, UsageError


@pytest.fixture(scope="module")
def world() -> World:
    return World(n_users=2_000)


@pytest.fixture(scope="module")
def data(world: World) -> Dataset:
    return world.dataset()


@pytest.fixture(scope="module")
def truth(world: World) -> Truth:
    return world.truth()


# -- the same seed is the same world


def test_the_same_seed_gives_the_same_world() -> None:
    one, again, other = (synthetic(200, seed=seed) for seed in (4, 4, 5))
    assert one.fingerprint == again.fingerprint
    assert one.fingerprint != other.fingerprint and one.items["title"].to_list() != other.items["title"].to_list()


def outside(data: Dataset, users: set[str]) -> pl.DataFrame:
    events = data.events.with_columns(data.user_ids.ids(data.events["user"].to_numpy()).alias("user"))
    return events.filter(pl.col("user").is_in(list(users))).sort("user", "time", maintain_order=True)


def test_more_users_leave_the_first_ones_as_they_are() -> None:
    few, many = (World(n_users=n, n_items=300, seed=9).dataset() for n in (150, 900))
    first = set(few.users["user"])
    assert outside(few, first).equals(outside(many, first))
    assert few.users.sort("user").equals(many.users.filter(pl.col("user").is_in(list(first))).sort("user"))
    theirs = many.edges["social"].filter(pl.col("head").is_in(list(first)))
    assert few.edges["social"].sort("head", "tail").equals(theirs.sort("head", "tail"))
    assert few.items.equals(many.items)


def test_streamed_equals_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(n_users=300, seed=2, name="films")
    whole = world.dataset()
    monkeypatch.setattr(world_module, "ROWS_A_BLOCK", 1_500)  # a dozen users a block
    world.save(tmp_path / "films", truth=tmp_path / "hidden")
    streamed = Dataset.load(tmp_path / "films")
    for name in ("users", "items", "events"):
        assert getattr(streamed, name).equals(getattr(whole, name)), name
        assert getattr(streamed, name).schema == getattr(whole, name).schema
    assert {name: frame.equals(whole.edges[name]) for name, frame in streamed.edges.items()} == {
        "kg": True,
        "social": True,
    }
    assert streamed.fingerprint == whole.fingerprint and streamed.schema == whole.schema
    assert (streamed.notes, streamed.kinds, streamed.name) == (whole.notes, whole.kinds, whole.name)
    assert world.dataset().fingerprint == whole.fingerprint, "nor does the size of a block matter in memory"

    same = World.open(tmp_path / "hidden")
    assert (same.config, same.seed, same.name) == (world.config, world.seed, world.name)
    hidden = pl.read_parquet(tmp_path / "hidden" / "users.parquet")
    assert hidden["user"].equals(whole.users["user"])
    np.testing.assert_array_equal(hidden["late"].to_numpy(), world.truth().people(np.arange(300)).late)
    with pytest.raises(NotFound, match="no truth"):
        World.open(tmp_path / "films")
    written = sorted(str(path.relative_to(tmp_path / "films")) for path in (tmp_path / "films").rglob("*"))
    assert written == [
        "dataset.toml", "edges", "edges/kg.parquet", "edges/social.parquet",
        "events.parquet", "items.parquet", "users.parquet",
    ]  # fmt: skip


def test_the_truth_is_not_kept_in_the_dataset(tmp_path: Path) -> None:
    for inside in ("films", "films/hidden"):
        with pytest.raises(UsageError, match="beside"):
            World(n_users=5).save(tmp_path / "films", truth=tmp_path / inside)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_old_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(n_users=60)
    world.save(tmp_path / "films", truth=tmp_path / "hidden")
    before = Dataset.load(tmp_path / "films").fingerprint

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world_module, "simulate", broken)
    with pytest.raises(KeyboardInterrupt):
        World(n_users=60, seed=1).save(tmp_path / "films", truth=tmp_path / "hidden")
    assert Dataset.load(tmp_path / "films").fingerprint == before
    assert World.open(tmp_path / "hidden").seed == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["films", "hidden"]


def test_numbers_are_those_a_build_from_outside_ids_gives() -> None:
    data = synthetic(120)
    ids = {
        "user": data.user_ids.ids(data.events["user"].to_numpy()),
        "item": data.item_ids.ids(data.events["item"].fill_null(-1).to_numpy()),
    }
    events = data.events.with_columns(series.alias(name) for name, series in ids.items())
    shuffled = {"users": data.users.sample(fraction=1, shuffle=True, seed=1), "items": data.items.reverse()}
    built = build(data.name, events, **shuffled, edges=data.edges, time_unit="us")
    assert built.users.select(data.users.columns).equals(data.users)
    assert built.items.select(data.items.columns).equals(data.items)
    assert built.events.select(data.events.columns).equals(data.events)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_users=st.integers(1, 60),
    n_items=st.integers(20, 200),
    events=st.integers(4, 150),
    seed=st.integers(0, 2**40),
    searches=st.sampled_from([0.0, 0.2, 1.0]),
    impressions=st.sampled_from([0.0, 0.3, 1.0]),
    slate_size=st.integers(1, 50),
)
def test_every_log_is_possible(
    n_users: int, n_items: int, events: int, seed: int, searches: float, impressions: float, slate_size: int
) -> None:
    given_settings = {
        "n_users": n_users, "n_items": n_items, "events_per_user": events, "searches": searches,
        "impressions": impressions, "slate_size": slate_size,
    }  # fmt: skip
    data = World(given_settings, seed=seed).dataset()
    log = data.events
    assert (log["user"].n_unique(), data.n_items) == (n_users, n_items)
    watched = log.filter(pl.col("kind") == "watch")
    assert not watched.select("user", "item").is_duplicated().any()
    assert watched["value"].is_in([1.0, 2.0, 3.0, 4.0, 5.0]).all() and watched["item"].null_count() == 0
    released = data.items["available"].to_numpy()
    named = log.filter(pl.col("item").is_not_null())
    assert (released[named["item"].to_numpy()] <= named["time"].to_numpy()).all()
    assert (data.users["available"].to_numpy()[log["user"].to_numpy()] <= log["time"].to_numpy()).all()
    assert log.group_by("session").agg(pl.col("user").n_unique())["user"].max() == 1

    search = (log["kind"] == "search").to_numpy()
    assert log.filter(pl.Series(search))["item"].null_count() == search.sum()
    found = np.flatnonzero(search) + 1
    assert (log["kind"].gather(found) == "watch").all() and log["item"].gather(found).null_count() == 0
    assert log["query"].gather(found).equals(log["query"].gather(found - 1))
    assert log["query"].is_not_null().sum() == 2 * search.sum()
    assert search.any() == (searches > 0) or len(watched) < 100

    assert ("slate" in log.columns) == (impressions > 0)
    if impressions > 0:
        shown = log.filter(pl.col("kind") == "impression")
        assert not shown.select("slate", "item").is_duplicated().any()
        by_slate = shown.group_by("slate").agg(pl.col("position").sort(), pl.len(), pl.col("time").n_unique())
        assert (by_slate["len"] <= slate_size).all() and (by_slate["time"] == 1).all()
        assert all(list(p) == list(range(len(p))) for p in by_slate["position"])
        assert ((shown["propensity"] > 0) & (shown["propensity"] <= 1)).all()
        keys = ["slate", "position", "item", "propensity", "session"]
        clicked = watched.filter(pl.col("slate").is_not_null())
        assert clicked.join(shown, on=keys, how="semi").height == clicked.height


# -- texts, knowledge, and what a dataset may tell


def test_titles_never_repeat_and_texts_tell_attributes() -> None:
    world = World(n_users=10, n_items=30_000)
    items = world.catalogue.table()
    assert items["title"].n_unique() == 30_000
    assert items["title"].str.len_chars().max() < 60
    assert items["description"].n_unique() > 29_900
    told = items.select(pl.col("description").str.contains(pl.col("maker"), literal=True)).to_series()
    assert told.all()
    assert (items["description"].str.count_matches(r"\.") == 2).all()
    assert not items["description"].str.contains(r"(?i)\ba [aeiou]|\ban [^aeiou]|[{}]|  ").any()


def test_knowledge_agrees_with_the_table(world: World, data: Dataset) -> None:
    graph = data.edges["kg"]
    assert set(graph["relation"]) == {"has_genre", "has_mood", "made_by", "stars", "part_of", "sequel_of"}
    genres = graph.filter(pl.col("relation") == "has_genre").group_by("head").agg("tail").sort("head")
    assert genres["tail"].list.sort().to_list() == data.items.sort("item")["genres"].list.sort().to_list()
    sequel = graph.filter(pl.col("relation") == "sequel_of")
    later, earlier = (data.item_ids.numbers(sequel[end]) for end in ("head", "tail"))
    assert len(later) > 50 and (later > earlier).all()
    for column in ("series", "maker", "year"):
        a, b = data.items[column].gather(later), data.items[column].gather(earlier)
        assert (a >= b).all() if column == "year" else a.equals(b)
    assert (data.items["part"].gather(later) == data.items["part"].gather(earlier) + 1).all()


def test_a_dataset_tells_nothing_of_the_truth(world: World, data: Dataset) -> None:
    assert data.users.columns == ["user", "available", "age", "country", "favourite", "persona"]
    assert data.items.columns == [
        "item", "available", "title", "genres", "moods", "maker", "cast", "series", "part", "year", "minutes", "price",
        "description",
    ]  # fmt: skip
    assert data.events.columns == [
        "user", "item", "time", "kind", "value", "query", "session", "slate", "position", "propensity",
    ]  # fmt: skip
    assert set(vars(data)) <= {
        "name", "users", "items", "events", "edges", "dialogues", "kinds", "time_unit", "notes",
        "user_ids", "item_ids", "schema", "fingerprint",
    }  # fmt: skip
    assert not any("seed" in text for text in (*data.notes, *data.notes.values()))
    assert all(data.kind("items", name) == kind for name, kind in world_module.KINDS["items"].items())


@pytest.mark.parametrize(
    "wrong", [{"n_user": 5}, {"n_users": 0}, {"n_items": 19}, {"searches": 1.5}, {"slate_size": 0}, {"days": "long"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        World(wrong)


# -- posters


def pixels(png: bytes) -> np.ndarray:
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
    image.verify()
    image = pytest.importorskip("PIL.Image").open(io.BytesIO(png))
    assert image.format == "PNG" and image.size == (160, 240)
    return np.asarray(image.convert("RGB"), dtype=np.float64)


def test_posters_are_the_same_in_any_process(world: World, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    code = (
        "import sys; from tastemaker.data.synthetic import World; "
        "sys.stdout.buffer.write(World(n_users=2_000).poster(17))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert fresh.stdout == world.poster(17) == world.poster("f000017")
    assert world.poster(18) != world.poster(17)
    paths = world.draw_posters(tmp_path / "posters", [3, 17])
    assert [path.name for path in paths] == ["f000003.png", "f000017.png"]
    assert paths[1].read_bytes() == fresh.stdout
    small = World(n_users=5, n_items=50)
    data = small.dataset(posters=tmp_path / "all")
    assert data.kind("items", "poster") == "image"
    assert Path(data.items["poster"][7]).read_bytes() == small.poster(str(data.items["item"][7]))
    for wrong in ("f999999", 10**6, -1):
        with pytest.raises(NotFound):
            world.poster(wrong)


def test_posters_tell_the_genre(world: World) -> None:
    pytest.importorskip("PIL")
    genre = world.catalogue.genre[:, 0]
    two = np.argsort(-np.bincount(genre))[:2]
    rows = [np.flatnonzero(genre == g)[:24] for g in two]
    looks = [np.stack([pixels(world.poster(int(i))).mean(axis=(0, 1)) for i in films]) for films in rows]
    looks = [look - look.mean(axis=1, keepdims=True) for look in looks]  # colour, brightness apart
    looks = [look / np.linalg.norm(look, axis=1, keepdims=True) for look in looks]
    centres = [look[:12].mean(axis=0) for look in looks]
    right = [
        np.linalg.norm(look[12:] - own, axis=1) < np.linalg.norm(look[12:] - other, axis=1)
        for look, own, other in zip(looks, centres, centres[::-1], strict=True)
    ]
    assert np.mean(right) > 0.85


@pytest.mark.slow
def test_memory_does_not_grow_with_users(tmp_path: Path) -> None:
    code = (
        "import sys, resource; from tastemaker.data.synthetic import World; "
        "World(n_users=int(sys.argv[1]), n_items=5_000).save(sys.argv[2], truth=sys.argv[3]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )

    def peak_mb(n_users: int) -> int:
        call = [sys.executable, "-c", code, str(n_users), str(tmp_path / "films"), str(tmp_path / "hidden")]
        return int(subprocess.run(call, capture_output=True, check=True, timeout=290).stdout)

    small, large = peak_mb(50_000), peak_mb(200_000)
    assert large < 1_200 and large < small + 200
