"""Amazon reviews of 2014, 2018 and 2023 by category: all ratings, or the 5-core with texts and what is sold.

Ref: McAuley et al. 2015 (arXiv:1506.04757); Ni et al., EMNLP 2019; Hou et al. 2024 (arXiv:2403.03952).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tastemaker.data.read import read
from tastemaker.data.sources.archive import locate
from tastemaker.data.sources.checksums import CORES_2023, RATINGS
from tastemaker.data.sources.fetch import Remote
from tastemaker.types import DataError, Dataset, Kind, Problem, progress
from tastemaker.types.dataset import Table

SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("title", "description", "features", "summary", "text"), "text"),
    "brand": "category",
    "image": "image",
}


@dataclass(frozen=True)
class Edition:
    """Addresses of one edition's files, {} being the category, and how its ratings are laid out."""

    year: str
    citation: str
    ratings: str
    core: str
    items: str
    columns: Mapping[str, Any]


EDITIONS = {
    "2014": Edition(
        "2014",
        "McAuley et al., SIGIR 2015; He and McAuley, WWW 2016",
        f"{SNAP}/ratings_{{}}.csv",
        f"{SNAP}/reviews_{{}}_5.json.gz",
        f"{SNAP}/meta_{{}}.json.gz",
        {"header": False, "user": "column_1", "item": "column_2", "value": "column_3", "time": "column_4"},
    ),
    "2018": Edition(
        "2018",
        "Ni, Li and McAuley, EMNLP 2019",
        f"{UCSD}/amazon_v2/categoryFilesSmall/{{}}.csv",
        f"{UCSD}/amazon_v2/categoryFilesSmall/{{}}_5.json.gz",
        f"{UCSD}/amazon_v2/metaFiles2/meta_{{}}.json.gz",
        {"header": False, "item": "column_1", "user": "column_2", "value": "column_3", "time": "column_4"},
    ),
    "2023": Edition(
        "2023",
        "Hou et al., arXiv:2403.03952",
        f"{UCSD}/amazon_2023/benchmark/0core/rating_only/{{}}.csv.gz",
        f"{UCSD}/amazon_2023/benchmark/5core/rating_only/{{}}.csv.gz",
        f"{UCSD}/amazon_2023/raw/meta_categories/meta_{{}}.jsonl.gz",
        {"header": True, "user": "user_id", "item": "parent_asin", "value": "rating", "time": "timestamp"},
    ),
}

EMPTY_CORES = frozenset(
    {"2023/Amazon_Fashion", "2023/Appliances", "2023/Digital_Music", "2023/Handmade_Products"}
    | {"2023/Health_and_Personal_Care", "2023/Subscription_Boxes"}
)
"""Categories of which the 5-core leaves nothing."""


@dataclass(frozen=True)
class Category:
    """One category of one edition: all ratings, or the 5-core."""

    edition: Edition
    name: str
    core: bool

    @property
    def remotes(self) -> tuple[Remote, ...]:
        if not self.core:
            return (self._remote(self.edition.ratings, RATINGS[self.edition.year][self.name]),)
        known = CORES_2023.get(self.name) if self.edition.year == "2023" else None
        return self._remote(self.edition.core, known), self._remote(self.edition.items, None)

    def _remote(self, address: str, sha256: str | None) -> Remote:
        return Remote(address.format(self.name), sha256 and f"sha256:{sha256}")


def _slug(category: str) -> str:
    return category.lower().replace("_", "-").removeprefix("amazon-")


CATEGORIES: dict[str, Category] = {
    f"amazon-{year}-{_slug(name)}" + ("-5core" if core else ""): Category(EDITIONS[year], name, core)
    for core in (False, True)
    for year, sums in RATINGS.items()
    for name in sorted(sums)
    if not (core and f"{year}/{name}" in EMPTY_CORES)
}


def read_category(folder: Path, name: str) -> Dataset:
    """All ratings of a category with their times; of a 5-core also facts of the items and (not in 2023) the reviews."""
    category = CATEGORIES[name]
    edition, files = category.edition, [remote.name.removesuffix(".gz") for remote in category.remotes]
    clock = "ms" if edition.year == "2023" else "s"
    source: Any = locate(folder, files[0])
    options: dict[str, Any] = dict(edition.columns, separator=",")
    if not category.core:
        return read(source, time_format=clock, name=name, **options)
    if edition.year != "2023":
        source, options = _reviews(source), {}
    sold = {"2014": _sold_2014, "2018": _sold_2018, "2023": _sold_2023}[edition.year]
    seen = (
        source["item"] if isinstance(source, pl.DataFrame) else pl.read_csv(source, columns=["parent_asin"]).to_series()
    )
    items = sold(locate(folder, files[1]), seen.unique())
    tables: dict[Table, list[str]] = {"items": items.columns}
    tables |= {"events": source.columns} if isinstance(source, pl.DataFrame) else {}
    kinds = {table: {c: KINDS[c] for c in columns if c in KINDS} for table, columns in tables.items()}
    return read(source, time_format=clock, name=name, items=items, kinds=kinds, **options)


def _lines(path: Path, schema: Mapping[str, Any]) -> pl.LazyFrame:
    return pl.scan_ndjson(path, schema=dict(schema))


def _collected(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not the file that is expected: {str(error).strip().splitlines()[0]}") from error


def _reviews(path: Path) -> pl.DataFrame:
    """Reviews, a JSON object a line, under the names used here."""
    names = {
        "reviewerID": ("user", pl.String),
        "asin": ("item", pl.String),
        "overall": ("value", pl.Float32),
        "unixReviewTime": ("time", pl.Int64),
        "verified": ("verified", pl.Boolean),
        "summary": ("summary", pl.String),
        "reviewText": ("text", pl.String),
    }
    lines = _lines(path, {key: kind for key, (_, kind) in names.items()})
    frame = _collected(lines.rename({key: name for key, (name, _) in names.items()}), path)
    return frame.drop("verified") if frame["verified"].null_count() == frame.height else frame


SOLD_2014: dict[str, Any] = {
    **dict.fromkeys(("title", "brand"), pl.String),
    "price": pl.Float32,
    **dict.fromkeys(("description", "imUrl"), pl.String),
    "categories": pl.List(pl.List(pl.String)),
}


def _sold_2014(path: Path, seen: pl.Series) -> pl.DataFrame:
    """Items of 2014: a line is a Python literal, so only lines of items that were reviewed are taken apart."""
    wanted, rows = set(seen.to_list()), []
    with path.open(encoding="utf-8") as file, progress(f"reading {path.name}", path.stat().st_size) as advance:
        for number, line in enumerate(file, start=1):
            advance(len(line))
            asin = re.search(r"'asin': '([^']*)'", line)
            if asin is None or asin[1] not in wanted:
                continue
            try:
                row = ast.literal_eval(line)
                rows.append((asin[1], *(row.get(key) for key in SOLD_2014)))
            except (ValueError, SyntaxError, AttributeError, RecursionError, MemoryError) as error:
                raise DataError(f"{path} is damaged", [Problem(f"is no item: {error}", str(path), number)]) from error
    frame = pl.DataFrame(rows, schema={"item": pl.String, **SOLD_2014}, orient="row", strict=False)
    flat = pl.col("categories").list.eval(pl.element().explode()).list.unique(maintain_order=True)
    frame = frame.with_columns(flat).rename({"imUrl": "image"})
    return frame.unique("item", keep="first", maintain_order=True)


def _sold_2018(path: Path, seen: pl.Series) -> pl.DataFrame:
    """Items of 2018. A title that holds a web page's script is none; prices are taken where they are one amount."""
    fields = ("asin", "title", "brand", "price", "description", "category", "imageURLHighRes", "imageURL", "image")
    lines = _lines(path, dict.fromkeys(fields, pl.String)).filter(pl.col("asin").is_in(seen.implode()))
    images = pl.coalesce(_listed(c).list.first() for c in fields[-3:])
    return _collected(
        lines.unique("asin", keep="first", maintain_order=True).select(
            pl.col("asin").alias("item"),
            pl.when(~pl.col("title").str.contains("getTime", literal=True)).then("title"),
            pl.when(pl.col("brand") != "").then("brand"),
            _amount("price"),
            _listed("description").list.join("\n").alias("description"),
            _listed("category").alias("categories"),
            images.alias("image"),
        ),
        path,
    )


def _sold_2023(path: Path, seen: pl.Series) -> pl.DataFrame:
    """Items of 2023; `brand` is the shop's name."""
    fields = ("parent_asin", "title", "store", "price", "description", "features", "categories")
    schema = {**dict.fromkeys(fields, pl.String), "images": pl.List(pl.Struct({"large": pl.String}))}
    lines = _lines(path, schema).filter(pl.col("parent_asin").is_in(seen.implode()))
    return _collected(
        lines.unique("parent_asin", keep="first", maintain_order=True).select(
            pl.col("parent_asin").alias("item"),
            "title",
            pl.col("store").alias("brand"),
            _amount("price"),
            *(_listed(c).list.join("\n").alias(c) for c in ("description", "features")),
            _listed("categories").alias("categories"),
            pl.col("images").list.first().struct.field("large").alias("image"),
        ),
        path,
    )


def _listed(column: str) -> pl.Expr:
    """A list of words that came as JSON; a bare word is a list of one, an empty one is none."""
    text = pl.col(column)
    several = pl.when(text.str.starts_with("[")).then(text).str.json_decode(pl.List(pl.String))
    return pl.when(text.str.starts_with("[")).then(several).when(text != "").then(pl.concat_list(text))


def _amount(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all(r"[$,\s]", "").cast(pl.Float32, strict=False).alias(column)


__all__ = ["CATEGORIES", "Category", "read_category"]
