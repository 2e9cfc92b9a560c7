"""Feeds: a dataset turned into what systems learn from."""

from tastemaker.feeds.feed import RowFeed, tensors
from tastemaker.feeds.matrix import Bags, Repeats, Weight, bags, history_matrix, interaction_matrix
from tastemaker.feeds.negatives import Sampler, clashes, hardest, log_frequency, popular, shared, uniform
from tastemaker.feeds.sequences import Sequences, Windows, cloze, next_items, recent, windows
from tastemaker.feeds.triplets import Triplets, triplets

__all__ = [
    "Bags",
    "Repeats",
    "RowFeed",
    "Sampler",
    "Sequences",
    "Triplets",
    "Weight",
    "Windows",
    "bags",
    "clashes",
    "cloze",
    "hardest",
    "history_matrix",
    "interaction_matrix",
    "log_frequency",
    "next_items",
    "popular",
    "recent",
    "shared",
    "tensors",
    "triplets",
    "uniform",
    "windows",
]
