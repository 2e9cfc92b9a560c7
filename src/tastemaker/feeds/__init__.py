"""Feeds: a dataset turned into what systems learn from."""

from tastemaker.feeds.feed import RowFeed, tensors
from tastemaker.feeds.labels import Labelled, Pasts, Task, drawn_labels, tasks_of
from tastemaker.feeds.matrix import Bags, Repeats, Weight, bags, history_matrix, interaction_matrix
from tastemaker.feeds.negatives import Sampler, Stretches, clashes, hardest, log_frequency, popular, shared, uniform
from tastemaker.feeds.purchases import Past, PurchaseLog
from tastemaker.feeds.questions import Confirmed, confirmed
from tastemaker.feeds.reader import Reader
from tastemaker.feeds.rollout import rollout
from tastemaker.feeds.rows import Rows
from tastemaker.feeds.sequences import Sequences, Windows, cloze, next_items, recent, windows
from tastemaker.feeds.tokens import Tokens, asked_codes, next_codes, prefixes
from tastemaker.feeds.triplets import Triplets, distinct, triplets

__all__ = [
    "Bags",
    "Confirmed",
    "Labelled",
    "Past",
    "Pasts",
    "PurchaseLog",
    "Reader",
    "Repeats",
    "RowFeed",
    "Rows",
    "Sampler",
    "Sequences",
    "Stretches",
    "Task",
    "Tokens",
    "Triplets",
    "Weight",
    "Windows",
    "asked_codes",
    "bags",
    "clashes",
    "cloze",
    "confirmed",
    "distinct",
    "drawn_labels",
    "hardest",
    "history_matrix",
    "interaction_matrix",
    "log_frequency",
    "next_codes",
    "next_items",
    "popular",
    "prefixes",
    "recent",
    "rollout",
    "shared",
    "tasks_of",
    "tensors",
    "triplets",
    "uniform",
    "windows",
]
