"""MovieLens as GroupLens packs it: 100K, 1M, and the editions in CSV (20M, 25M, 32M, latest-small)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tastemaker.data.read import read
from tastemaker.data.sources.archive import locate
from tastemaker.types import DataError, Dataset, Kind, Problem

SECOND = 1_000_000
NO_GENRE = "(no genres listed)"
TITLES: dict[str, Kind] = {"title": "text", "imdb_id": "category", "tmdb_id": "category"}
FOLDS = {f"u{fold}.test": pl.lit(fold, pl.Int8).alias("fold") for fold in range(1, 6)}
HALVES = {"ua.test": "ua_test", "ub.test": "ub_test"}
FILES_100K = ("u.data", "u.user", "u.item", "u.genre", *FOLDS, *HALVES)
FILES_1M = ("ratings.dat", "users.dat", "movies.dat")
FILES_CSV = ("ratings.csv", "movies.csv", "links.csv", "tags.csv")


def read_100k(folder: Path, name: str) -> Dataset:
    """u.data with the users' and films' attributes, and the published folds as event columns.

    `fold` k: the row is in uk.test; `ua_test`, `ub_test`: the row is in ua.test, ub.test.
    """
    names = ("user", "item", "value", "time")
    events = _rows(locate(folder, "u.data"), "\t", names).cast(pl.Int64)
    tests = {part: _rows(locate(folder, part), "\t", names).cast(pl.Int64) for part in (*FOLDS, *HALVES)}
    folds = pl.concat(tests[part].select("user", "item", fold) for part, fold in FOLDS.items())
    events = events.join(folds, on=["user", "item"], how="left", maintain_order="left")
    for part, column in HALVES.items():
        held = tests[part].select("user", "item", pl.lit(True).alias(column))
        events = events.join(held, on=["user", "item"], how="left", maintain_order="left")
    genres = _rows(locate(folder, "u.genre"), "|", ("genre", "number"))["genre"].to_list()
    films = _rows(locate(folder, "u.item"), "|", ("item", "title", "released", "video", "url", *genres))
    flags = pl.concat_list(pl.when(pl.col(g) == "1").then(pl.lit(g)) for g in genres).list.drop_nulls()
    return read(
        events.with_columns(pl.col(*HALVES.values()).fill_null(False)),
        time_format="s",
        name=name,
        users=_rows(locate(folder, "u.user"), "|", ("user", "age", "gender", "occupation", "zip_code")).cast(
            {"user": pl.Int64, "age": pl.Int16}
        ),
        items=films.select(
            pl.col("item").cast(pl.Int64),
            pl.col("released").str.to_date("%d-%b-%Y", strict=False).alias("release_date"),
            "title",
            flags.alias("genres"),
        ),
        kinds={"items": {"title": "text"}, "users": {"zip_code": "category"}},
    )


def read_1m(folder: Path, name: str) -> Dataset:
    """ratings.dat with the users' and films' attributes; age and occupation are the codes of the archive's README."""
    users = _rows(locate(folder, "users.dat"), "::", ("user", "gender", "age", "occupation", "zip_code"))
    films = _rows(locate(folder, "movies.dat"), "::", ("item", "title", "genres"))
    return read(
        locate(folder, "ratings.dat"),
        separator="::",
        header=False,
        user="column_1",
        item="column_2",
        value="column_3",
        time="column_4",
        time_format="s",
        name=name,
        users=users.cast({"user": pl.Int64, "age": pl.Int8, "occupation": pl.Int8}),
        items=films.select(pl.col("item").cast(pl.Int64), "title", pl.col("genres").str.split("|")),
        kinds={
            "users": {"age": "category", "occupation": "category", "zip_code": "category"},
            "items": {"title": "text"},
        },
    )


def read_csv(folder: Path, name: str) -> Dataset:
    """ratings.csv with titles, genres and ids of films elsewhere; tags are edges from a film to a word."""
    films = _table(locate(folder, "movies.csv"), {"movieId": pl.Int64, "title": pl.String, "genres": pl.String})
    links = _table(locate(folder, "links.csv"), {"movieId": pl.Int64, "imdbId": pl.String, "tmdbId": pl.Int64})
    tags = _table(
        locate(folder, "tags.csv"), {"userId": pl.Int64, "movieId": pl.Int64, "tag": pl.String, "timestamp": pl.Int64}
    )
    films = films.join(links, on="movieId", how="left", maintain_order="left")
    data = read(
        locate(folder, "ratings.csv"),
        separator=",",
        header=True,
        user="userId",
        item="movieId",
        value="rating",
        time="timestamp",
        time_format="s",
        name=name,
        items=films.select(
            pl.col("movieId").alias("item"),
            pl.col("genres").str.split("|").list.filter(pl.element() != NO_GENRE),
            "title",
            pl.col("imdbId").alias("imdb_id"),
            pl.col("tmdbId").alias("tmdb_id"),
        ),
        kinds={"items": TITLES},
    )
    tagged = tags.drop_nulls("tag").select(
        pl.col("movieId").alias("head"),
        pl.lit("tagged").alias("relation"),
        pl.col("tag").alias("tail"),
        pl.col("userId").alias("user"),
        (pl.col("timestamp") * SECOND).alias("time"),
    )
    return replace(data, edges={"tags": tagged})


def _rows(path: Path, separator: str, names: tuple[str, ...]) -> pl.DataFrame:
    """A small table of the older archives: Latin-1, no header, no quotes; every value as text."""
    lines = pl.Series("line", path.read_text(encoding="latin-1").split("\n")).str.strip_chars_end("\r")
    cut = lines.filter(lines != "").str.split(separator)
    odd = (cut.list.len() != len(names)).arg_true()
    if len(odd) or not len(cut):
        problems = [
            Problem(f"does not have the {len(names)} fields {', '.join(names[:5])}", str(path), row + 1)
            for row in odd.head(5)
        ]
        raise DataError(f"{path} is not the file of MovieLens", problems, total=len(odd))
    return pl.DataFrame([cut.list.get(place).alias(name) for place, name in enumerate(names)])


def _table(path: Path, schema: dict[str, Any]) -> pl.DataFrame:
    try:
        return pl.read_csv(path, schema_overrides=schema).select(*schema)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not the file of MovieLens: {str(error).splitlines()[0]}") from error


__all__ = ["FILES_1M", "FILES_100K", "FILES_CSV", "read_1m", "read_100k", "read_csv"]
