"""Feeds: a dataset turned into what systems learn from."""

from tastemaker.feeds.feed import RowFeed, tensors
from tastemaker.feeds.matrix import Bags, Repeats, Weight, bags, history_matrix, interaction_matrix
from tastemaker.feeds.negatives import Sampler, Stretches, clashes, hardest, log_frequency, popular, shared, uniform
from tastemaker.feeds.purchases import Past, PurchaseLog
from tastemaker.feeds.sequences import Sequences, Windows, cloze, next_items, recent, windows
from tastemaker.feeds.triplets import Triplets, distinct, triplets

__all__ = [
    "Bags",
    "Past",
    "PurchaseLog",
    "Repeats",
    "RowFeed",
    "Sampler",
    "Sequences",
    "Stretches",
    "Triplets",
    "Weight",
    "Windows",
    "bags",
    "clashes",
    "cloze",
    "distinct",
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
