"""The folders of public data that are read here: for each a few lines on what its columns mean.

A published split is kept in the event column "split", or under the name of the study that made it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from tastemaker.data.sources.folders import SECOND, Pack, Parts, of
from tastemaker.types import DataError


def _with_clicks(events: pl.DataFrame) -> pl.DataFrame:
    """What was shown (kind "impression", value 1 where it was clicked), and a row of kind "click" for each click."""
    shown = events.with_columns(kind=pl.lit("impression"), value=pl.col("click").cast(pl.Float32)).drop("click")
    return pl.concat([shown, shown.filter(pl.col("value") > 0).with_columns(kind=pl.lit("click"))])


def _logged(parts: Parts) -> Parts:
    return replace(parts, events=_with_clicks(parts.events))


def _collm(parts: Parts) -> Parts:
    """The part "valid_small" repeats rows of "valid"."""
    return replace(parts, events=parts.events.filter(pl.col("split") != "valid_small"))


def _impressions(parts: Parts) -> Parts:
    """Lists of a history and of candidates to rows; candidates come one step after the history."""
    lists = parts.events.with_row_index("slate")
    shown = lists.select(
        "user", "slate", "timestamp", "split", time=pl.col("history").list.len(), item="candidates", click="labels"
    ).explode("item", "click")
    past = lists.unique("user", keep="first", maintain_order=True).select(
        "user",
        time=pl.int_ranges(0, pl.col("history").list.len()),
        item="history",
        kind=pl.lit("click"),
        split=pl.lit("train"),
    )
    return replace(parts, events=pl.concat([past.explode("time", "item"), _with_clicks(shown)], how="diagonal_relaxed"))


def _coat(parts: Parts) -> Parts:
    """Flags of users and of coats to the names of those that are set."""
    names = pl.read_parquet(parts.folder / "feature_names.parquet", glob=False)

    def named(frame: pl.DataFrame | None, key: str) -> pl.DataFrame:
        assert frame is not None
        rows, flags = np.nonzero(np.array(frame["features"].to_list()))
        labels = names.filter(pl.col("side") == key)["text"]
        table = pl.DataFrame([frame[key].gather(rows), labels.gather(flags).alias("features")])
        return table.group_by(key, maintain_order=True).agg("features")

    return replace(parts, users=named(parts.users, "user"), items=named(parts.items, "item"))


def _frappe(parts: Parts) -> Parts:
    """The split of CA-FATA, which publishes it on coded rows of users with ten rows or more.

    Its codes number the sorted values of each column, and its counts are rescaled; so both tables, sorted by all
    they share, agree row by row.
    """
    coded = pl.read_parquet(parts.folder / "cafata_split.parquet", glob=False)
    shared = [c for c in coded.columns if c in parts.events.columns]
    kept = parts.events.with_row_index("_row").filter(pl.len().over("user") >= 10)

    def keys(frame: pl.DataFrame, count: str) -> pl.DataFrame:
        return frame.with_columns(pl.col(c).rank("dense") for c in shared).sort(*shared, count)

    ours, theirs = keys(kept, "value"), keys(coded, "cnt")
    if not ours.select(shared).equals(theirs.select(shared)):
        raise DataError(f"{parts.folder}: usage.parquet and cafata_split.parquet do not hold the same rows")
    split = ours.select("_row").with_columns(theirs["split"])
    events = parts.events.with_row_index("_row").join(split, on="_row", how="left", maintain_order="left")
    return replace(parts, events=events.drop("_row"))


def _coded(place: int) -> pl.Expr:
    """The code of a field in a row of a libfm file, as text."""
    return pl.col("features").list.get(place).cast(pl.String)


def _steps(clock: str) -> pl.Expr:
    """Places in a user's history where the held-out rows have no time: they come last, valid before test."""
    part = pl.col("split").replace_strict({"train": 0, "valid": 1, "test": 2}, return_dtype=pl.Int64)
    return (part * (1 << 40) + pl.col(clock).fill_null(0)).rank("ordinal").over("user_id").cast(pl.Int64) - 1


FEATURES = tuple(f"user_feature_{i}" for i in range(4))
SEGMENT = pl.concat_str([pl.col(c).str.head(8) for c in FEATURES], separator="-")
OF_EVENTS = ("timestamp", "item_id", "position", "click", "propensity_score", "behavior_policy", "user_item_affinity")
FRIEND, TAGGED = pl.lit("friend"), pl.lit("tagged")
GENRES = pl.col("genres").list.filter(pl.element() != "(no genres listed)")
HELD_OUT_LAST = "held-out rows carry no time, so times are places in a history with held-out rows last"

PACKS: dict[str, Pack] = {
    "ml-100k": Pack(
        of("ratings", user="user_id", item="item_id", value="rating", time="timestamp"),
        of("users", user="user_id"),
        (
            of(
                "items",
                item="item_id",
                release_date=pl.col("release_date").str.to_date("%d-%b-%Y", strict=False),
                drop=("imdb_url",),
            ),
            of("kg_link", item="item_id", entity="entity_id"),
        ),
        {"kg": of("kg")},
        clock="s",
        link="entity",
        note="fold k: the row is in uk.test and in no other uk.test; ua_test, ub_test: the row is in ua.test, ub.test",
    ),
    "ml-1m": Pack(
        of("interactions", user="user_id", item="item_id", time="pos"),
        of("users", user="user_id"),
        (of("movies", item="movie_id"), of("bert_embeddings", item="movie_id", text_vector="embedding")),
        clock="step",
        categories=("age", "occupation"),
        note="the order of events is known, stars and times are not",
    ),
    "ml-1m-collm": Pack(
        of("collm_samples", user="uid", item="iid", value="label", time="timestamp", drop=("history",)),
        None,
        of("collm_items", item="iid"),
        clock="s",
        folder="ml-1m",
        finish=_collm,
        note="value 1: rated above 3 stars, else 0",
    ),
    "ml-latest-small": Pack(
        of("ratings", user="user_id", item="item_id", value="rating", time="timestamp"),
        None,
        of("movies", item="item_id", genres=GENRES),
        clock="s",
        note="chatgpt_split: parts of the rigorous ChatGPT evaluation, missing where its 10-core leaves a row out",
    ),
    "ml-latest-small-2016": Pack(
        of("ratings_2016", user="user_id", item="item_id", value="rating", time="timestamp"),
        None,
        of("movies", item="item_id", genres=GENRES),
        {
            "tags": of(
                "tags_2016",
                head="item_id",
                relation=TAGGED,
                tail="tag",
                user="user_id",
                time=pl.col("timestamp").cast(pl.Int64) * SECOND,
                only=True,
            )
        },
        clock="s",
        folder="ml-latest-small",
        seen=True,
        note="titles are those of the 2018 edition",
    ),
    "gowalla": Pack(
        of("interactions", user="user_id", item="item_id"),
        of("user_map", user="user_id"),
        of("item_map", item="item_id"),
    ),
    "lastfm-hetrec": Pack(
        of("lightgcn_interactions", user="user_id", item="item_id", value="weight"),
        of("lightgcn_trust", user="user_id", only=True, unique="user"),
        None,
        {"social": of("lightgcn_trust", head="user_id", relation=FRIEND, tail="friend_id")},
        note="the split and the numbering of LightGCN's repository; 12 users have friends and no events",
    ),
    "lastfm-hetrec-raw": Pack(
        (
            of("user_artists", user="user_id", item="artist_id", value="plays"),
            of("chatgpt_split", user="user_id", item="artist_id", chatgpt_split="split", only=True),
        ),
        None,
        of("artists", item="artist_id", title="name", drop=("url",)),
        {
            "social": of("user_friends", head="user_id", relation=FRIEND, tail="friend_id"),
            "tags": (
                of(
                    "user_tagged_artists",
                    head="artist_id",
                    relation=TAGGED,
                    tag_id="tag_id",
                    user="user_id",
                    time=pl.datetime("year", "month", "day", time_unit="us").cast(pl.Int64),
                    only=True,
                ),
                of("tags", tail="tag"),
            ),
        },
        folder="lastfm-hetrec",
        note="chatgpt_split: parts of the rigorous ChatGPT evaluation, missing where it leaves a row out",
    ),
    "steam-200k": Pack(
        of("purchases", user="user_id", item="game_id", value="hours"),
        of("users", user="user_id"),
        of("games", item="game_id", title="name"),
        note="value: hours played, missing for games bought and never played",
    ),
    "book-crossing": Pack(
        of("history", user="user_id", item="item_id", value="rating"),
        of("users", user="user_id"),
        of("items", item="item_id", year=pl.col("year").cast(pl.Int32, strict=False)),
        categories=("isbn", "author"),
        note="value: rating from 1 to 10, missing for books taken up and not rated",
    ),
    "amazon-games": Pack(
        of("interactions", user="user_id", item="item_id", time="pos"),
        of("users", user="user_id", drop=("llmrank_user_id",)),
        (
            of("items", item="item_id", drop=("llmrank_item_id",)),
            of("bert_embeddings", item="item_id", text_vector="embedding", only=True, unique="item"),
        ),
        clock="step",
        categories=("asin",),
    ),
    "amazon-beauty": Pack(
        of("interactions", user="user_id", item="item_id", time="pos"),
        of("users", user="user_id"),
        (of("items", item="item_id"), of("item_cf_embeddings", item="item_id", cf_vector="embedding")),
        clock="step",
        categories=("asin", "user_sid"),
    ),
    "amazon-industrial-scientific": Pack(
        of("interactions", user="user_id", item="item_id", value="rating", time="timestamp", drop=("pos",)),
        None,
        of("items", item="item_id"),
        clock="s",
        categories=("asin",),
        note="valid and test rows are complete; of the training rows only those in their histories are here",
    ),
    "amazon-phones-colarec": Pack(
        of("interactions", user="user_id", item="item_id", time=_steps("time"), timestamp="time"),
        None,
        of("items", item="item_id"),
        clock="step",
        note=HELD_OUT_LAST,
    ),
    "lastfm-s3rec": Pack(
        of("interactions", user="user_id", item="item_id", time="pos"),
        None,
        of("items", item="item_id", attributes=pl.col("attributes").list.unique(maintain_order=True)),
        clock="step",
    ),
    "diginetica-sample": Pack(
        of(
            "views",
            user="session_id",
            session=pl.col("session_id"),
            item="item_id",
            only=True,
            time=pl.col("eventdate").cast(pl.Datetime("us")).cast(pl.Int64) + pl.col("time_ms").cast(pl.Int64) * 1000,
        ),
        clock="us",
        note="a session is its own user; the hour of the day is not known, so each session starts at midnight",
    ),
    "amazon-scientific-clip": Pack(
        of("interactions", user="user_id", item="item_id", time="pos"),
        of("users", user="user_id"),
        (of("items", item="item_id"), of("features", item="item_id", text_vector="feat1", image_vector="feat3")),
        clock="step",
        categories=("asin",),
    ),
    "xrec-yelp": Pack(
        (
            of("interactions", user="user_id", item="item_id"),
            of("explanations", user="user_id", item="item_id", explanation="explanation", only=True),
        ),
        of("explanations", user="user_id", profile="user_summary", only=True, unique="user"),
        of("explanations", item="item_id", title="title", profile="item_summary", only=True, unique="item"),
        note="3,000 pairs carry an explanation; they were drawn across the parts of the split",
    ),
    "amazon-beauty-impressions": Pack(
        of("impressions", user="user_id", split=pl.col("split").replace({"dev": "valid"})),
        None,
        of("items_llm_text", item="asin"),
        clock="step",
        finish=_impressions,
        note="the source lists the clicked candidate first, so places in a list mean nothing and are left out",
    ),
    "news-dkn": Pack(
        of("impressions", user="user_id", item="title", drop=("entity_ids", "entity_names")),
        None,
        of("impressions", item="title", title=pl.col("title"), entities="entity_names", only=True, unique="item"),
        finish=_logged,
    ),
    "lastfm-ear": Pack(
        of("interactions", user="user_id", item="item_id"),
        of("users", user="user_id"),
        of("items", item="item_id", attributes="feature_index"),
        note="attributes: the 33 that a system may ask about; categories: the tags they were merged from",
    ),
    "lastfm-kg": Pack(
        of("user_artists", user="user_id", item="artist_id", value="plays"),
        None,
        of("item_entity", item="artist_id", entity="entity_id"),
        {"kg": of("kg")},
        link="entity",
        listed=True,
        note="artists that are linked to the knowledge graph, as published",
    ),
    "frappe": Pack(
        of("usage", value="cnt"),
        None,
        of("apps", title="name"),
        categories=("city",),
        finish=_frappe,
        note="split: train and test of CA-FATA, missing for rows of users with fewer than ten, which it leaves out",
    ),
    "frappe-nfm": Pack(
        of(
            "nfm_valid_test",
            only=True,
            user=pl.col("features").list.get(0),
            item=pl.col("features").list.get(1),
            kind=pl.when(pl.col("label") > 0).then(pl.lit("use")).otherwise(pl.lit("impression")),
            split=pl.col("split").replace({"valid": "train"}),
            daytime=_coded(2),
            weekday=_coded(3),
            isweekend=_coded(4),
            homework=_coded(5),
            cost=_coded(6),
            weather=_coded(7),
            country=_coded(8),
            city=_coded(9),
        ),
        folder="frappe",
        note="the valid rows of NFM stand in for training, whose 202,027 rows are not at hand; an 'impression' is an "
        "app drawn at random that the user did not use then",
    ),
    "open-bandit-men": Pack(
        of(
            "logs",
            user=SEGMENT,
            item="item_id",
            propensity="propensity_score",
            drop=(*FEATURES, "timestamp"),
            slate=pl.int_range(pl.len()),
            position=pl.col("position").cast(pl.Int32) - 1,
            time=pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="us").cast(pl.Int64),
            click="click",
        ),
        of("logs", user=SEGMENT, unique="user", drop=OF_EVENTS),
        of("items", item="item_id"),
        clock="us",
        finish=_logged,
        note="the log names no users: a user is a combination of the four user features",
    ),
    "coat": Pack(
        of("ratings", user="user_id", item="item_id", value="rating"),
        of("user_features", user="user_id"),
        of("item_features", item="item_id"),
        finish=_coat,
        note="training ratings are of coats the users chose, test ratings of coats drawn at random",
    ),
    "amazon-phones-search": Pack(
        (
            of("qrels", user="user_id", item="asin", kind=pl.lit("purchase"), drop=("relevance",)),
            of("queries", query="text"),
        ),
        note="an event is a purchase after a query; queries were made from the paths of product categories",
    ),
    "retailrocket": Pack(
        of(
            "events",
            user="user_id",
            item="item_id",
            time=_steps("timestamp"),
            timestamp="timestamp",
            kind=pl.col("behavior").replace({"buy": "purchase"}),
            drop=("behavior",),
        ),
        None,
        None,
        {"kg": of("kg", head="c0", relation="c1", tail="c2")},
        clock="step",
        note=HELD_OUT_LAST,
    ),
    "spotify-mpd-slice": Pack(of("playlist_tracks", user="playlist_id", item="track_id"), note="a user is a playlist"),
    "spotify-editorial": Pack(
        of("tracks", user="playlist_id", item="track_id", time=pl.int_range(pl.len()).over("playlist_id"), only=True),
        of("playlists", user="playlist_id", title="playlist_name", description="playlist_description"),
        (
            of(
                "tracks",
                item="track_id",
                title="track_name",
                unique="item",
                drop=("playlist_id", "playlist_name", "genre"),
            ),
            of("audio_features", item="track_id"),
        ),
        clock="step",
        categories=("album_name",),
        note="a user is a playlist, times are places in it",
    ),
    "ml-1m-agent4rec": Pack(
        of("interactions", user="user_id", item="item_id"),
        of(
            "users",
            user="user_id",
            taste=pl.col("taste").list.join(" "),
            taste_short=pl.col("taste_short").list.join(" "),
            reason=pl.col("reason").list.join(" "),
        ),
        of("movies", item="item_id"),
    ),
}

NO_EVENTS: dict[str, str] = {
    "adult-census": "holds census records, no events",
    "cranfield": "holds documents, queries and judgements, no events",
    "ctr-samples": "holds a few hundred rows each of logs for click models, for checks of formats, no users' events",
    "ml-1m-posters": "holds posters of the films of ml-1m, no events",
    "opendialkg": "holds dialogues, no events",
    "recagent-profiles": "holds made-up personas and how they are related, no events",
    "redial": "holds dialogues, no events",
    "reddit-movie-catalog": "holds titles of films, no events",
    "tallrec-movie": "holds instructions in words, no events",
    "tmdb-5000": "holds descriptions of films, no events",
}
"""Folders that are no datasets, and why."""


__all__ = ["NO_EVENTS", "PACKS"]
