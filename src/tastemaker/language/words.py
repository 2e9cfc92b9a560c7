"""A small vocabulary of words, learnt from the texts at hand: each text as the numbers of those that are known.

Words are told apart by hashes (see `tastemaker.language.text.tokens`); there is no word without a text that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.language.text import item_texts, tokens
from tastemaker.types import BundleError, Jagged

Words = NDArray[np.uint64]


def common_words(texts: Sequence[str], most: int, least: int = 2) -> Words:
    """Hashes of the `most` words that are in most texts, in `least` or more of them; rising."""
    offsets, hashes = tokens(texts)
    rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
    found, place = np.unique(hashes, return_inverse=True)
    pairs = np.unique(rows * max(1, len(found)) + place)  # a word counts once a text
    counts = np.bincount(pairs % max(1, len(found)), minlength=len(found))
    order = np.argsort(-counts, kind="stable")[:most]
    return np.sort(found[order[counts[order] >= least]])


def word_numbers(texts: Sequence[str], words: Words, most: int) -> Jagged[NDArray[np.int64]]:
    """The numbers of the first `most` known words of each text, in their order."""
    offsets, hashes = tokens(texts)
    place = np.searchsorted(words, hashes)
    known = place < len(words)
    known[known] = words[place[known]] == hashes[known]
    kept = Jagged(place.astype(np.int64), offsets).where(known)
    within = np.arange(len(kept.values)) - np.repeat(kept.offsets[:-1], kept.lengths)
    return kept.where(within < most)


def checked_words(state: Any, most: int) -> Words:
    """The words that a bundle keeps; BundleError where they are none: it may come from a stranger."""
    words = np.asarray(state)
    if words.ndim != 1 or words.dtype != np.uint64 or len(words) > most or (words[1:] <= words[:-1]).any():
        raise BundleError(f"hashes of at most {most} words were expected, rising; got {words.dtype}{list(words.shape)}")
    return words


def title_texts(items: pl.DataFrame, columns: str = "") -> list[str]:
    """The words that stand for each item: of the named columns (commas between), else of the title, or all texts."""
    named = [name.strip() for name in columns.split(",") if name.strip()]
    return item_texts(items, named or (["title"] if "title" in items.columns else []))
