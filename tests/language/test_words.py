"""A vocabulary of the commonest words, and texts as numbers of those that are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tastemaker.language.words import checked_words, common_words, title_texts, word_numbers
from tastemaker.types import BundleError

TEXTS = ["Red boat, red sail", "blue boat", "a red wheel", "", "wheel of a boat"]


def test_the_commonest_words_are_known() -> None:
    words = common_words(TEXTS, 3)
    assert len(words) == 3 and (np.diff(words.astype(object)) > 0).all()
    numbers = word_numbers(["boat", "red", "wheel", "a"], words, 5).to_lists()
    known = [row[0] if row else None for row in numbers]
    assert known[0] is not None and known[1:].count(None) == 1, "a boat is in three texts; of three words in two, two"
    assert len(common_words(TEXTS, 100)) == 4, "in two texts or more: red, boat, a, wheel"
    assert len(common_words(TEXTS, 100, least=1)) == 7
    assert len(common_words([], 5)) == 0


def test_texts_are_the_first_known_words_in_their_order() -> None:
    words = common_words(TEXTS, 100)
    one = {text: word_numbers([text], words, 1).to_lists()[0] for text in ("red", "boat", "a", "wheel")}
    red, boat, a, wheel = (found[0] for found in one.values())
    assert word_numbers(TEXTS, words, 3).to_lists() == [[red, boat, red], [boat], [a, red, wheel], [], [wheel, a, boat]]
    assert word_numbers(TEXTS, words, 1).to_lists() == [[red], [boat], [a], [], [wheel]]


def test_words_of_a_stranger_are_checked() -> None:
    words = common_words(TEXTS, 10)
    assert checked_words(words, 10) is words
    for wrong in (words[::-1], words.astype(np.int64), words[None], None):
        with pytest.raises(BundleError):
            checked_words(wrong, 10)
    with pytest.raises(BundleError):
        checked_words(words, 2)


def test_a_title_stands_for_its_item() -> None:
    items = pl.DataFrame({"item": [1], "title": ["Red boat"], "brand": ["Sea"]})
    assert title_texts(items) == ["Red boat"] and title_texts(items, "brand, title") == ["Sea. Red boat"]
    assert title_texts(items.drop("title")) == ["Sea"]
