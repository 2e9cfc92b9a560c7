"""The split of NGCF's and LightGCN's repositories: in train.txt and test.txt a line is a user and that user's items."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tastemaker.data.read import read
from tastemaker.data.sources.archive import locate
from tastemaker.types import DataError, Dataset


def read_split(folder: Path, name: str) -> Dataset:
    """Both parts with their split; ids are those of the files, the original ones are the column `orig_id`."""
    return read(
        locate(folder, "train.txt").parent,
        format="adjacency",
        name=name,
        users=_ids(locate(folder, "user_list.txt"), "user"),
        items=_ids(locate(folder, "item_list.txt"), "item"),
        kinds={"users": {"orig_id": "category"}, "items": {"orig_id": "category"}},
    )


def _ids(path: Path, key: str) -> pl.DataFrame:
    """The number that the split gives to each original id."""
    try:
        table = pl.read_csv(path, separator=" ", quote_char=None, infer_schema_length=None, truncate_ragged_lines=True)
        return table.select(pl.col("remap_id").cast(pl.Int64).alias(key), pl.col("org_id").alias("orig_id"))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} does not list org_id and remap_id: {str(error).splitlines()[0]}") from error


__all__ = ["read_split"]
