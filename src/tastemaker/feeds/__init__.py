"""Feeds: a dataset turned into what systems learn from."""

from tastemaker.feeds.feed import RowFeed, tensors
from tastemaker.feeds.matrix import Repeats, Weight, history_matrix, interaction_matrix
from tastemaker.feeds.negatives import Sampler, chosen, hardest, log_frequency, popular, shared, uniform
from tastemaker.feeds.triplets import Triplets, triplets

__all__ = [
    "Repeats",
    "RowFeed",
    "Sampler",
    "Triplets",
    "Weight",
    "chosen",
    "hardest",
    "history_matrix",
    "interaction_matrix",
    "log_frequency",
    "popular",
    "shared",
    "tensors",
    "triplets",
    "uniform",
]
