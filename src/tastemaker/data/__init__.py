"""Data in: reading, checking, describing, filtering and splitting."""

from tastemaker.data.build import build
from tastemaker.data.describe import describe
from tastemaker.data.predicate import allowed_by
from tastemaker.data.read import read
from tastemaker.data.split_store import load_split, save_split, split_names
from tastemaker.data.splits import holdout, split
from tastemaker.data.synthetic import synthetic

__all__ = [
    "allowed_by",
    "build",
    "describe",
    "holdout",
    "load_split",
    "read",
    "save_split",
    "split",
    "split_names",
    "synthetic",
]
