"""A catalogue written in codes: what is said of items, as vectors; what makes codes of vectors; and the codes.

self.coded = CodedItems(ItemTexts(schema.items), CodeConfig("kmeans", levels=3))
yield from self.coded.learn(data.items, RowFeed)       # within a program; then coded.book holds the codes
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from tastemaker.contracts import Stage
from tastemaker.nn.code_answers import CodeAnswers, KeptTree, Reading
from tastemaker.nn.content import under
from tastemaker.nn.item_codes import CodeConfig, Floats, ItemCoder, Rows
from tastemaker.types import Codebook, Requests, State


class Said(Protocol):
    """What gives the vectors of items: `tastemaker.language.features.ItemVectors`.

    sources: the ways in which something is said of items; kept: what the encoder of each knows of the catalogue
    """

    kept: list[State]

    @property
    def sources(self) -> Sequence[Any]: ...

    @property
    def width(self) -> int: ...

    def learn(self, items: pl.DataFrame) -> Generator[Stage, Any, Floats]:
        """Stages that give the vectors [I, W] of a catalogue; what encoders know of it is kept."""

    def encode(self, items: pl.DataFrame) -> Floats:
        """Those of items that came later [n, W]."""


class CodedItems(nn.Module):
    """Gives items their codes; those of items that come later are made as the first ones were.

    book: the codes as they stand
    """

    def __init__(self, said: Said, coding: CodeConfig) -> None:
        super().__init__()
        self.said, self.coding = said, coding
        self.coder = ItemCoder(coding, said.width)
        self.book = Codebook(np.empty((0, len(coding.sizes)), dtype=np.int64), coding.sizes)
        self._given: NDArray[np.int64] | None = None  # codes of an older fit's items, -1 in the rows of others
        self._tree = KeptTree()

    def learn(self, items: pl.DataFrame, feed: Rows) -> Generator[Stage, Any, None]:
        """Stages that give a catalogue its codes: those of an older fit, where one was adopted, and new ones."""
        if self._given is None:
            vectors = yield from self.said.learn(items)
            codes = yield from self.coder.learn(vectors, feed)
        else:
            codes = self.coder.renewed(self._given, lambda fresh: self.said.encode(items[fresh]))
        self.book = self.book.changed(codes)

    def adopt(self, old: CodedItems, items: NDArray[np.integer[Any]]) -> None:
        """Take an older fit's codes and what made them; `items`: the older number of each item, -1 for a new one."""
        self.said.kept = old.said.kept
        self.coder.adopt(old.coder)
        self.book = old.book
        self._given = np.where(items[:, None] >= 0, old.book.codes[np.maximum(items, 0)], -1)

    @property
    def adopted(self) -> bool:
        """Whether codes come from an older fit."""
        return self._given is not None

    def with_items(self, items: pl.DataFrame | None) -> dict[str, Any]:
        """What `export` gives, with codes for further items too, numbered on from the old ones."""
        book = self.book
        if items is not None and len(items):
            book = book.extended(self.coder.further(self.said.encode(items), book.codes))
        return {**self.export(), **book.export()}

    def answers(self, read: Callable[[Requests], Reading], beams: int, device: Any) -> CodeAnswers:
        """What a network answers with that reads requests."""
        return CodeAnswers(read, self.book, self._tree.of(self.book, device), beams)

    def export(self) -> dict[str, Any]:
        told = {f"coder.{name}": array for name, array in self.coder.export().items()}
        for n, kept in enumerate(self.said.kept):
            told |= {f"encoder.{n}.{name}": array for name, array in kept.items()}
        return {**told, **self.book.export()}

    def restore(self, state: State, n_items: int) -> None:
        """Take what `export` gave; BundleError where it does not fit."""
        self.book = Codebook.of(state, n_items, self.coding.sizes)
        self.coder.restore(under(state, "coder."))
        self.said.kept = [under(state, f"encoder.{n}.") for n in range(len(self.said.sources))]
