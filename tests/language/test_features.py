"""What a catalogue says as vectors: which columns are read, and that what is alike comes out alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data.synthetic import World
from tastemaker.language.features import CONTENT, Source, encode, encoded, item_vectors, learn, read, sources
from tastemaker.language.images import DIM, ImageStatistics
from tastemaker.types import Column, DataError, UsageError

COLUMNS = {
    "title": Column("text"),
    "year": Column("number"),
    "genres": Column("categories"),
    "poster": Column("image"),
    "vector": Column("vector", width=3),
    "plot": Column("text"),
}


def names(found: tuple[Source, ...]) -> list[tuple[str, tuple[str, ...], int]]:
    return [(one.name, one.columns, one.width) for one in found]


def test_texts_are_read_together_and_what_is_named_is_read_in_its_order() -> None:
    assert names(sources(COLUMNS, text_dim=7)) == [
        ("text", ("title", "plot"), 7),
        ("poster", ("poster",), DIM),
        ("vector", ("vector",), 3),
    ]
    named = sources(COLUMNS, "vector, title, genres", text_dim=9)
    assert names(named) == [("vector", ("vector",), 3), ("text", ("title", "genres"), 9)]
    for wanted, message in (("titel", "did you mean 'title'"), ("year", "holds number")):
        with pytest.raises(UsageError) as refused:
            sources(COLUMNS, wanted)
        assert message in str(refused.value) + str(refused.value.hint)
    with pytest.raises(UsageError, match="no texts, images or vectors"):
        sources({"year": Column("number")})
    assert set(CONTENT.split("|")) == {"items:text", "items:image", "items:vector"}


def test_vectors_come_as_they_are_and_missing_ones_are_zero() -> None:
    (source,) = sources(COLUMNS, "vector")
    items = pl.DataFrame({"vector": [[3.0, 0.0, 4.0], None, [0.0, 0.0, 0.0], [0.0, -2.0, 0.0]]})
    found = encode(source, read(source, items), {})
    np.testing.assert_allclose(found, [[0.6, 0, 0.8], [0, 0, 0], [0, 0, 0], [0, -1, 0]])
    fixed = items.with_columns(pl.col("vector").cast(pl.Array(pl.Float32, 3)))
    np.testing.assert_allclose(encode(source, read(source, fixed), {}), found)
    for wrong, message in (([[1.0, 2.0]], "row 0 has 2"), ([[1.0, float("inf"), 0.0]], "no numbers")):
        with pytest.raises(DataError, match=message):
            read(source, pl.DataFrame({"vector": wrong}))


def test_the_program_and_newcomers_see_texts_alike() -> None:
    found = sources({"title": Column("text")}, text_dim=8)
    items = pl.DataFrame({"title": ["a red boat", "a blue boat", "the cat and the dog", "a dog and a red cat"] * 3})
    stages: Any = item_vectors(found, items)
    sent = None
    try:
        while True:
            stage = stages.send(sent)
            sent = stage.function(*stage.args, **stage.kwargs)
    except StopIteration as end:
        vectors, kept = end.value
    np.testing.assert_allclose(encoded(found, items.head(2), kept)[0], vectors[0][:2], atol=1e-6)
    raw = read(found[0], items)
    np.testing.assert_allclose(encode(found[0], raw, learn(found[0], raw)), vectors[0])


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[str]]:
    pytest.importorskip("PIL")
    made = World(n_users=20, n_items=80, seed=1)
    return made, [str(path) for path in made.draw_posters(tmp_path_factory.mktemp("posters"))]


def test_posters_of_one_genre_look_more_alike(painted: tuple[Any, list[str]]) -> None:
    made, paths = painted
    vectors = ImageStatistics().encode(paths)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    first = made.catalogue.genre[:, 0]
    same = first[:, None] == first
    np.fill_diagonal(same, False)
    likeness = vectors @ vectors.T
    assert likeness[same].mean() > likeness[~same & ~np.eye(len(first), dtype=bool)].mean() + 0.1
    nearest = np.where(np.eye(len(first), dtype=bool), -1, likeness).argmax(axis=1)
    assert (first[nearest] == first).mean() > 0.8, "the nearest poster is nearly always of the same genre"


def test_images_that_are_missing_or_broken(tmp_path: Path, painted: tuple[Any, list[str]]) -> None:
    (source,) = sources({"poster": Column("image")})
    items = pl.DataFrame({"poster": [painted[1][0], None]})
    raw = read(source, items)
    assert len(raw["hashes"][0]) == 16 and raw["hashes"][1] == ""
    vectors = encode(source, raw, {})
    assert vectors[0].any() and not vectors[1].any()
    with pytest.raises(DataError, match="there is no image"):
        read(source, pl.DataFrame({"poster": [str(tmp_path / "none.png")]}))
    (tmp_path / "text.png").write_text("this is no image")
    with pytest.raises(DataError, match="cannot be read as an image"):
        ImageStatistics().encode([str(tmp_path / "text.png")])


def test_a_plain_image_and_one_mirrored() -> None:
    image_of = pytest.importorskip("PIL.Image")
    from tastemaker.language.images import statistics

    grey = np.full((64, 64, 3), 128, dtype=np.uint8)
    assert np.isfinite(statistics(grey)).all()
    stripes = grey.copy()
    stripes[:, ::8] = 255
    turned = stripes.swapaxes(0, 1)
    across, down = statistics(stripes)[-128:].reshape(16, 8), statistics(turned)[-128:].reshape(16, 8)
    assert across.sum(axis=0).argmax() == 0 and down.sum(axis=0).argmax() == 4, "edges tell their direction"
    buffer = io.BytesIO()
    image_of.fromarray(grey).save(buffer, format="PNG")
    assert buffer.tell() > 0
