"""What a catalogue's columns say of its items, as vectors: one matrix for each way of saying it (a modality).

    found = sources(schema.items, "")                                # what there is, and how wide it is
    vectors, kept = yield from item_vectors(found, data.items)       # within a program: encoded once, then cached
    more = encoded(found, new_items, kept)                           # items that came later

text        columns of words, joined, by TF-IDF on its main axes or by a language model
an image    a column of files, by statistics of colours and edges
a vector    a column of vectors, as they are
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.contracts import Precompute, Stage, TextEncoder
from tastemaker.language.images import DIM, ImageStatistics
from tastemaker.language.text import TfidfSvd, fit_text, item_texts
from tastemaker.language.transformer import TransformerText
from tastemaker.types import Column, DataError, State, UsageError, nearest

Floats = NDArray[np.float32]
CONTENT = "items:text|items:image|items:vector"
"""What a system learns from that reads any of them."""
TFIDF = "tfidf"


@dataclass(frozen=True)
class Source:
    """A modality: its name, the columns it is read from, the width of its vectors, and for texts what encodes them."""

    name: str
    kind: Literal["text", "image", "vector"]
    columns: tuple[str, ...]
    width: int
    encoder: str = ""


def sources(
    columns: Mapping[str, Column], wanted: str = "", *, text_dim: int = 200, encoder: str = TFIDF
) -> tuple[Source, ...]:
    """The modalities of a catalogue with these columns: texts together first, then images and vectors by column.

    Args:
        wanted: names of columns, separated by commas, in whose order the modalities come; none named: all of them.
        text_dim: width of a text's vector by TF-IDF.
        encoder: "tfidf", or a language model by name or folder.

    Raises:
        UsageError: a column is not there or says nothing of this kind, or there is none at all.
    """
    told = {name: c for name, c in columns.items() if c.kind in ("text", "image", "vector")}
    names = [name.strip() for name in wanted.split(",") if name.strip()] or list(told)
    for name in names:
        if name not in columns:
            raise UsageError(f"the items have no column {name!r}", hint=nearest(name, columns))
        if name not in told and columns[name].kind not in ("category", "categories"):
            raise UsageError(f"the column {name!r} holds {columns[name].kind}: neither text, images nor vectors")
    words = tuple(name for name in names if name not in told or told[name].kind == "text")
    found: list[Source] = []
    for name in names:
        if name in words:
            if not any(one.kind == "text" for one in found):
                width = text_dim if encoder == TFIDF else TransformerText(encoder).dim
                found.append(Source("text", "text", words, width, encoder))
        elif told[name].kind == "image":
            found.append(Source(name, "image", (name,), DIM))
        else:
            found.append(Source(name, "vector", (name,), told[name].width))
    if not found:
        raise UsageError("the items have no texts, images or vectors to learn from", hint=", ".join(columns) or "none")
    return tuple(found) if wanted else tuple(sorted(found, key=lambda one: one.kind != "text"))


def said_of_items(columns: Mapping[str, Column], wanted: str = "", *, text_dim: int = 200) -> tuple[Source, ...]:
    """The named columns; where none are named, all texts, or where there are none of these, all else there is."""
    found = sources(columns, wanted, text_dim=text_dim)
    texts = tuple(source for source in found if source.kind == "text")
    return found if wanted else texts or found


class ItemVectors:
    """What `said_of_items` finds as one vector an item, and what its encoders know of the catalogue."""

    def __init__(self, columns: Mapping[str, Column], wanted: str = "", *, text_dim: int = 200) -> None:
        self.sources = said_of_items(columns, wanted, text_dim=text_dim)
        self.kept: list[State] = []

    @property
    def width(self) -> int:
        return sum(source.width for source in self.sources)

    def learn(self, items: pl.DataFrame) -> Generator[Stage, Any, Floats]:
        """Stages that give the vectors [I, W] of a catalogue."""
        vectors, self.kept = yield from item_vectors(self.sources, items)
        return np.concatenate(vectors, axis=1)

    def encode(self, items: pl.DataFrame) -> Floats:
        """Those of items that came later [n, W]."""
        return np.concatenate(encoded(self.sources, items, self.kept), axis=1)


def item_vectors(
    found: Sequence[Source], items: pl.DataFrame
) -> Generator[Stage, Any, tuple[list[Floats], list[State]]]:
    """Stages that give the vectors of each modality [I, W], and what its encoder keeps; see the module."""
    vectors: list[Floats] = []
    kept: list[State] = []
    for source in found:
        raw = read(source, items)
        kept.append((yield Precompute(learn, source, raw)))
        vectors.append((yield Precompute(encode, source, raw, kept[-1])))
    return vectors, kept


def encoded(found: Sequence[Source], items: pl.DataFrame, kept: Sequence[State]) -> list[Floats]:
    """The vectors of each modality [n, W] of items that came later."""
    return [encode(source, read(source, items), one) for source, one in zip(found, kept, strict=True)]


def read(source: Source, items: pl.DataFrame) -> dict[str, Any]:
    """What a modality is made of, by content: texts; files, with hashes of them; or vectors [n, W], 0 where missing."""
    if missing := [name for name in source.columns if name not in items.columns]:
        raise UsageError(f"the items have no column {missing[0]!r}", hint=nearest(missing[0], items.columns))
    if source.kind == "text":
        known = {} if source.encoder == TFIDF else {"identity": TransformerText(source.encoder).identity}
        return {"texts": item_texts(items, source.columns), **known}
    column = items[source.columns[0]]
    if source.kind == "image":
        paths = column.cast(pl.String).fill_null("").to_list()
        return {"paths": paths, "hashes": [_hash_of(path) if path else "" for path in paths]}
    rows = column.cast(pl.List(pl.Float32))
    lengths = rows.list.len().fill_null(0).to_numpy()
    if wrong := np.flatnonzero((lengths != source.width) & (lengths > 0)).tolist():
        raise DataError(
            f"the vectors of {source.name!r} have {source.width} numbers, row {wrong[0]} has {lengths[wrong[0]]}"
        )
    vectors = np.zeros((items.height, source.width), dtype=np.float32)
    flat = rows.drop_nulls().explode(empty_as_null=False, keep_nulls=False).fill_null(float("nan")).to_numpy()
    vectors[lengths > 0] = flat.reshape(-1, source.width)
    if not np.isfinite(vectors).all():
        raise DataError(f"the vectors of {source.name!r} hold values that are no numbers")
    return {"vectors": vectors}


def learn(source: Source, raw: Mapping[str, Any]) -> State:
    """What an encoder must know beforehand: the words of the catalogue, where TF-IDF reads texts."""
    return fit_text(raw["texts"], source.width) if source.encoder == TFIDF else {}


def encode(source: Source, raw: Mapping[str, Any], kept: State) -> Floats:
    """Vectors [n, W] of unit length; 0 where nothing is said."""
    if source.kind == "text":
        encoder: TextEncoder = TfidfSvd.of(kept) if source.encoder == TFIDF else TransformerText(source.encoder)
        return encoder.encode(raw["texts"])
    if source.kind == "image":
        return ImageStatistics().encode(raw["paths"])
    vectors: Floats = raw["vectors"]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 1e-12, lengths, 1), dtype=np.float32)


def _hash_of(path: str) -> str:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise DataError(f"there is no image {path}", hint="paths are as the items' column has them") from error
