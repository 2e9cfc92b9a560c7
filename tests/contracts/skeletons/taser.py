"""TASER: pages become records of a schema, and what fits none becomes a better schema.

No recommender of items: it recommends changes of a schema, and its answers are records. As a system, items are pages
(texts, in the order of a document), and there are no events. Read in training: "text", "document" and "page" of items.
A language model finds the pages with tables, fills types with their rows, and proposes types and fields for the rows
that are left; each round is kept by content. In: pages as `items`. Out: records as JSON. New pages are read by the
schema that was found (`extend`). Ref: arXiv:2508.13404.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tastemaker.contracts import (
    Binds,
    ChatModel,
    Extends,
    Keeps,
    Learns,
    Precompute,
    Program,
    Resources,
    Writes,
    system,
)
from tastemaker.types import Array, CapabilityError, Dataset, Requests, Schema, State, setting


@system(
    "taser",
    family="agentic",
    title="TASER: records from pages, and a schema that grows with them",
    paper="arXiv:2508.13404",
    learns_from={"items.text", "items.document", "items.page"},
    uses={"chat"},
)
class TASER:
    """Writes what stands on a page as records of a schema."""

    @dataclass(frozen=True)
    class Config:
        schema: str = setting("{}", "Types and fields known at first, as JSON.")
        rounds: int = setting(3, "Most changes of the schema.", low=0)
        batch: int = setting(20, "Rows that fit nothing, looked at together.", low=1)
        support: int = setting(2, "Rows that a change must rest on.", low=1)

    def __init__(self, config: Config, schema: Schema) -> None:
        self.config, self.types = config, config.schema
        self.chat: ChatModel | None = None

    def bind(self, resources: Resources) -> None:
        if resources.chat is None:
            raise CapabilityError("taser reads by a language model", hint="fit(..., resources=Resources(chat=...))")
        self.chat = resources.chat

    def program(self, data: Dataset) -> Program:
        c, chat = self.config, self.chat
        tables = yield Precompute(pages_with_tables, chat, data.items, self.types)
        self.records, left = yield Precompute(records_of, chat, tables, self.types)
        for _ in range(c.rounds):
            asked = yield Precompute(proposals, chat, left, self.types, c.batch)
            grown = yield Precompute(settled, chat, asked, self.types, c.support)
            if grown == self.types:
                return
            more, rest = yield Precompute(records_of, chat, left, grown)
            if len(rest) >= len(left):
                return  # nothing is gained by it: the schema stays as it was
            self.types, self.records, left = grown, self.records + more, rest

    def write(self, task: str, requests: Requests, items: Array) -> list[str]:
        """Records on each page, as JSON, by the task "records"."""
        raise NotImplementedError

    def extend(self, users: Any = None, items: pl.DataFrame | None = None) -> TASER:
        raise NotImplementedError

    def export(self) -> State:
        return {"types": np.frombuffer(self.types.encode(), dtype=np.uint8)}

    def restore(self, state: State) -> None:
        self.types = state["types"].tobytes().decode()


def pages_with_tables(chat: ChatModel, pages: pl.DataFrame, types: str) -> Any: ...  # runs of pages, with their headers


def records_of(chat: ChatModel, tables: Any, types: str) -> Any: ...  # records, every cell found on its page; rows left


def proposals(chat: ChatModel, left: Any, types: str, batch: int) -> Any: ...


def settled(chat: ChatModel, asked: Any, types: str, support: int) -> Any: ...  # the schema with what was accepted


CAN: tuple[type[Learns], type[Writes], type[Extends], type[Keeps], type[Binds]] = (TASER, TASER, TASER, TASER, TASER)
