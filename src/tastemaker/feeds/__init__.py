"""Feeds: a dataset turned into what systems learn from."""

from tastemaker.feeds.matrix import Repeats, Weight, history_matrix, interaction_matrix

__all__ = ["Repeats", "Weight", "history_matrix", "interaction_matrix"]
