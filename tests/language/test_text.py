"""TF-IDF and its axes against a dense reference, and texts read as they should be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data import synthetic
from tastemaker.language.text import TfidfSvd, fit_text, item_texts, tokens
from tastemaker.types import BundleError, NotFound

TEXTS = [
    "A detective hunts a killer in the rain",
    "The detective and the killer, again: RAIN!",
    "A farm girl, a horse and a summer",
    "Summer on the farm; the horse runs",
    "",
    "Ünïcode détective 42",
]


def words_of(texts: list[str]) -> list[list[str]]:
    """Words the slow way."""
    kept = "".join
    return [kept(c if c.isalnum() or ord(c) > 127 else " " for c in text.lower()).split() for text in texts]


def reference(texts: list[str], dim: int, least: int, most: float) -> np.ndarray:
    """Vectors of the texts by a dense decomposition, up to the axes' signs."""
    lists = words_of(texts)
    vocabulary = sorted({word for words in lists for word in words})
    counts = np.array([[words.count(word) for word in vocabulary] for words in lists], dtype=float)
    df = (counts > 0).sum(axis=0)
    keep = (df >= least) & (df <= max(least, most * len(texts)))
    weighted = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)[:, keep]
    weighted *= np.log((1 + len(texts)) / (1 + df[keep])) + 1
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)
    axes = np.linalg.svd(weighted, full_matrices=False)[2][:dim].T
    vectors = weighted @ axes
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


@pytest.mark.parametrize("n", [80, 700])  # taken apart whole, and by iteration
def test_cosines_are_those_of_a_dense_decomposition(n: int) -> None:
    texts = item_texts(synthetic(20, n_items=n, seed=1).items, ["title", "description"])
    encoder = TfidfSvd.of(fit_text(texts, 6))
    ours, dense = encoder.encode(texts), reference(texts, 6, 2, 0.5)
    assert ours.shape == (n, 6) and ours.dtype == np.float32
    np.testing.assert_allclose(ours @ ours.T, dense @ dense.T, atol=1e-2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abz09 .,-É\n", max_size=30), max_size=8))
def test_words_are_runs_of_letters_and_digits(texts: list[str]) -> None:
    offsets, hashes = tokens(texts)
    expected = words_of(texts)
    assert np.diff(offsets).tolist() == [len(words) for words in expected]
    spoken: dict[str, int] = {}
    for word, value in zip([word for words in expected for word in words], hashes, strict=True):
        assert spoken.setdefault(word, value) == value
    assert len(set(spoken.values())) == len(spoken)


def test_the_like_lie_near_and_the_strange_at_nothing() -> None:
    encoder = TfidfSvd.of(fit_text(TEXTS, 3))
    vectors = encoder.encode([*TEXTS, "zzz qqq"])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2:4].max() + 0.1 and cosines[2, 3] > cosines[1, 2] + 0.2
    assert not vectors[4].any() and not vectors[6].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[:4], axis=1), 1, rtol=1e-5)


def test_a_text_is_encoded_alike_alone_and_among_others() -> None:
    texts = item_texts(synthetic(20, n_items=60, seed=1).items)
    encoder = TfidfSvd.of(fit_text(texts, 20))
    assert np.array_equal(encoder.encode(texts)[7], encoder.encode(texts[7:8])[0])
    assert encoder.encode([]).shape == (0, 20)


def test_more_axes_than_the_texts_span_stay_zero() -> None:
    vectors = TfidfSvd.of(fit_text(TEXTS, 40, most=1.0)).encode(TEXTS)
    assert vectors.shape == (6, 40) and np.isfinite(vectors).all() and not vectors[:, 10:].any()
    empty = TfidfSvd.of(fit_text(["", ""], 5))
    assert empty.encode(["what now"]).tolist() == [[0.0] * 5]
    assert TfidfSvd.of(fit_text([], 5)).encode(["what now"]).shape == (1, 5)


def test_rare_and_common_words_are_left_out() -> None:
    state = fit_text(["the cat", "the dog", "the cat", "the emu"], 2)
    assert state["words"].tolist() == tokens(["cat"])[1].tolist()
    assert len(fit_text(["the cat", "the dog", "the cat", "the emu"], 2, most=1.0, words=1)["words"]) == 1


def test_the_same_texts_give_the_same_encoder_and_name() -> None:
    one, two = TfidfSvd.of(fit_text(TEXTS, 3)), TfidfSvd.of(fit_text(TEXTS, 3))
    other = TfidfSvd.of(fit_text(TEXTS[:4], 3))
    assert one.identity == two.identity != other.identity
    again = TfidfSvd.of(one.state())
    assert again.identity == one.identity and np.array_equal(again.encode(TEXTS), one.encode(TEXTS))


def test_texts_of_items_join_words_and_lists_of_words() -> None:
    items = pl.DataFrame({"item": ["a", "b"], "title": ["One", None], "genres": [["x", "y"], []], "price": [1.0, 2.0]})
    assert item_texts(items) == ["One. x y", ". "]
    assert item_texts(items, ["genres"]) == ["x y", ""]
    assert item_texts(items.select("item", "price")) == ["", ""]
    with pytest.raises(NotFound, match="titel"):
        item_texts(items, ["titel"])


def test_a_damaged_encoder_is_refused() -> None:
    state = fit_text(TEXTS, 3)
    for name, broken in (
        ("axes", state["axes"][:-1]),
        ("words", state["words"][::-1]),
        ("rarity", state["rarity"] * np.nan),
    ):
        with pytest.raises(BundleError):
            TfidfSvd.of({**state, name: broken})
    with pytest.raises(BundleError, match="axes"):
        TfidfSvd.of({name: state[name] for name in ("words", "rarity")})


def test_numbers_and_lists_of_numbers_are_words_where_they_are_named() -> None:
    items = pl.DataFrame({"item": [1, 2], "title": ["a cup", None], "tags": [[3, 14], None], "year": [1999, None]})
    assert item_texts(items) == ["a cup", ""]
    assert item_texts(items, ("title", "tags", "year")) == ["a cup. 3 14. 1999", ". . "]
