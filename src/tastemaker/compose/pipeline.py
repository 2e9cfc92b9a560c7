"""A compiled pipeline: answers requests as any bundle does, and says why.

What is asked reaches every stage in the numbers of the pipeline's own catalogue, which is that of the first retriever.
Candidates, exclusions and filters are handed to the retrievers, so that no list runs dry, and are held against what
they answer once more: a retriever that ignores them changes nothing. Everything depends on a request alone, and `k`
only says where the answer is cut: the first 10 of 50 are the 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.compose.blend import Blender, Fused, Pool
from tastemaker.compose.explain import Explainer, Reasons
from tastemaker.compose.features import Trained
from tastemaker.compose.rerank import Step, dealt, depths
from tastemaker.compose.spec import PipelineSpec
from tastemaker.compose.translate import Translation
from tastemaker.contracts import SystemInfo
from tastemaker.index.select import Rules, empty_lists, select_listed
from tastemaker.types import (
    CapabilityError,
    Columns,
    ItemFilter,
    Jagged,
    Requests,
    Schema,
    Slates,
    UsageError,
    Vocabulary,
    concat,
    progress,
    request_seeds,
)

Items = NDArray[np.int32]
Scores = NDArray[np.float32]
BLOCK_BYTES, BLOCK_ROWS = 64 * 2**20, 1024  # what the pools of one block of requests may take


@dataclass(frozen=True)
class PipelineConfig:
    """What a report records as the settings of a pipeline: its whole spec."""

    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineInfo(SystemInfo):
    """What a pipeline declares of itself, as a system does; what it can do depends on its spec."""

    can: tuple[str, ...] = ("retrieves",)

    @property
    def capabilities(self) -> tuple[str, ...]:
        return self.can


@dataclass(frozen=True, eq=False)
class Found:
    """What one system found [B, K]; unlike Slates, -1 may stand anywhere: an item that the pipeline does not know."""

    items: Items
    scores: Scores
    trace: Columns | None


@dataclass(frozen=True, eq=False)
class Channel:
    """A system as a source of candidates.

    allowed: [J] which of the system's items it may name; None: all
    """

    key: str
    bundle: Any
    to: Translation
    k: int
    allowed: NDArray[np.bool_] | None = None

    def find(self, asked: Requests) -> Found:
        """Its best items [B, k], in the pipeline's numbers."""
        moved = self.to.requests(asked)
        if self.allowed is not None:
            moved = moved.with_(filter=both(self.allowed, moved.filter, moved.n))
        slates = self.bundle.retriever.retrieve(moved, self.k)
        n_items = self.bundle.catalogue.height
        if len(slates) != asked.n or int(slates.items.max(initial=-1)) >= n_items:
            raise UsageError(
                f"{self.key} answers {asked.n} requests with {len(slates)} lists of items up to "
                f"{int(slates.items.max(initial=-1))}; its catalogue has {n_items:,}"
            )
        items, scores = empty_lists(asked.n, self.k)
        width = min(self.k, slates.k)
        items[:, :width], scores[:, :width] = slates.items[:, :width], slates.scores[:, :width]
        return Found(self.to.items_back(items), scores, slates.trace)


@dataclass(frozen=True, eq=False)
class Scorer:
    """A system that scores a list anew; its share is `weight`, the rest is the score the list came with."""

    channel: Channel
    weight: float

    def order(self, asked: Requests, items: Items, scores: Scores) -> tuple[Items, Scores]:
        """The same items [B, P], best first; equal ones, and those the system does not know, keep their order."""
        to = self.channel.to
        listed = to.items_to(items)
        known = listed >= 0
        ends = np.concatenate([[0], np.cumsum(known.sum(axis=1), dtype=np.int64)])
        free = to.requests(asked.with_(candidates=None, exclude=None, filter=None))
        slates = self.channel.bundle.retriever.retrieve(
            free.with_(candidates=Jagged(listed[known], ends)), items.shape[1]
        )
        pool = Pool.of([(items, scores), (to.items_back(slates.items), slates.scores)])
        there = pool.rank[:, :, 0] > 0
        pool = Pool(np.where(there, pool.items, -1), pool.rank, pool.score)
        fused = Fused((1.0 - self.weight, self.weight), "minmax")(pool, asked)
        key = np.where(there, -fused, np.inf)
        order = np.lexsort((pool.rank[:, :, 0], key), axis=-1)[:, : items.shape[1]]
        best = np.take_along_axis(pool.items, order, axis=1)
        return best, np.where(best >= 0, np.take_along_axis(fused, order, axis=1), np.float32(-np.inf))


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A pipeline ready to answer; made by `tastemaker.compose.compile`.

    It has what a bundle has (name, info, users, items, catalogue, histories, schema, about, retriever, recommend), so
    servers and evaluators use it as they use any system. Nothing in it changes: many threads may ask at once.

    shelf: the bundles it uses, by key; the first retriever's leads
    allowed: [I] what may be shown at all; None: everything
    pins: items that come into every list which may hold them
    histories: what each user chose so far, as the systems store it
    told: what is known of how it was made
    """

    spec: PipelineSpec
    shelf: Mapping[str, Any]
    catalogue: pl.DataFrame
    channels: tuple[Channel, ...]
    blender: Blender
    steps: tuple[Step, ...] = ()
    scorer: Scorer | None = None
    explainer: Explainer | None = None
    allowed: NDArray[np.bool_] | None = None
    hides_seen: bool = False
    pins: Items = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    ranker: Trained | None = None
    histories: Jagged[Columns] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    Config: ClassVar[type] = PipelineConfig

    # -- what it is, as a bundle tells

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def _lead(self) -> Any:
        return self.channels[0].bundle

    @property
    def users(self) -> Vocabulary:
        """Outside ids of users: those of the first retriever."""
        users: Vocabulary = self._lead.users
        return users

    @property
    def items(self) -> Vocabulary:
        """Outside ids of items: those of the first retriever."""
        items: Vocabulary = self._lead.items
        return items

    @property
    def schema(self) -> Schema:
        schema: Schema = self._lead.schema
        return schema

    @property
    def needs(self) -> frozenset[str]:
        """Request fields without which it cannot answer: those its systems need."""
        return self.info.needs

    @cached_property
    def wants(self) -> frozenset[str]:
        """Request fields that it uses where they are given: `needs`, and what its own stages look at."""
        kinds: set[str] = {one.kind for one in (*self.spec.filter, *self.spec.rerank)}
        kinds |= {self.spec.blend.kind, self.spec.explain.kind if self.spec.explain is not None else ""}
        return self.needs | ({"history"} if kinds & {"seen", "calibrated", "learned", "because"} else frozenset())

    @cached_property
    def info(self) -> PipelineInfo:
        bundles = [channel.bundle for channel in self.channels]
        bundles += [] if self.scorer is None else [self.scorer.channel.bundle]
        infos = [bundle.info for bundle in bundles]
        explaining = (
            [self.shelf[self.spec.explain.system].info]
            if self.spec.explain and self.spec.explain.kind == "system"
            else []
        )
        return PipelineInfo(
            name=self.name,
            family="pipeline",
            title=self.spec.title or " + ".join(channel.key for channel in self.channels),
            paper="",
            cls=Pipeline,
            learns_from=frozenset().union(*(one.learns_from for one in infos)),
            needs=frozenset().union(*(one.needs for one in [*infos, *explaining])),
            uses=frozenset().union(*(one.uses for one in [*infos, *explaining])),
            can=("retrieves", "explains") if self.explainer is not None else ("retrieves",),
        )

    @property
    def config(self) -> PipelineConfig:
        return PipelineConfig(self.spec.model_dump(mode="json"))

    @cached_property
    def about(self) -> dict[str, Any]:
        """Where its systems come from; "data" is theirs, its fingerprint one that no dataset has where they differ."""
        of = {key: dict(bundle.about) for key, bundle in self.shelf.items()}
        data = [one.get("data", {}) for one in of.values()]
        prints = sorted({str(one.get("fingerprint")) for one in data})
        whole = {**self._lead.about.get("data", {}), "fingerprint": " + ".join(prints)}
        return {**self.told, "pipeline": self.spec.fingerprint, "data": whole, "systems": of}

    @property
    def retriever(self) -> Pipeline:
        return self

    @property
    def system(self) -> Pipeline:
        return self

    def __repr__(self) -> str:
        return f"Pipeline({self.name}: {' + '.join(c.key for c in self.channels)}, {self.catalogue.height:,} items)"

    # -- answering

    def retrieve(self, requests: Requests, k: int) -> Slates:
        """The k best items for each request; fewer where the retrievers found fewer.

        Scores never rise along a list. They rank, and mean no more than the last stage that made them does. Traces of
        the retrievers come along, their columns named "<key>.<column>".

        Raises:
            CapabilityError: the requests lack what a system needs.
        """
        if lacking := self.needs - requests.given():
            raise CapabilityError(
                f"{self.name} needs {', '.join(sorted(lacking))} to answer, which these requests do not give"
            )
        items, scores = empty_lists(requests.n, k)
        traces: list[Columns] = []
        with progress(f"retrieving by {self.name}", requests.n) as advance:
            for part in self._blocks(requests.n):
                asked = self._complete(requests.take(part))
                pool, trace = self._pool(asked)
                found, worth = self._ranked(asked, pool, k)
                width = min(k, found.shape[1])
                items[part, :width], scores[part, :width] = found[:, :width], worth[:, :width]
                traces.append(trace)
                advance(asked.n)
        return Slates(items, scores, trace=_stacked(traces))

    def explain(self, requests: Requests, slates: Slates) -> Reasons:
        """One reason a place [B][K]; None where there is nothing to say.

        Raises:
            CapabilityError: the pipeline has no stage that explains.
        """
        if self.explainer is None:
            raise CapabilityError(
                f"{self.name} has no stage that explains", hint='give it one: {"kind": "because", ...}'
            )
        return self.explainer.explain(requests, slates)

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        *,
        history: Iterable[Iterable[Any]] | None = None,
        k: int = 10,
        **more: Any,
    ) -> pl.DataFrame:
        """Recommendations as a table; see `tastemaker.train.Bundle.recommend`."""
        from tastemaker.train.answer import recommend

        return recommend(self, users, history=history, k=k, **more)  # type: ignore[arg-type]

    def pool(self, requests: Requests) -> Pool:
        """What the retrievers find, before anything is blended: what a ranker is trained on."""
        return self._pool(self._complete(requests))[0]

    def inspect(self, requests: Requests, k: int = 10) -> pl.DataFrame:
        """Where each shown item comes from: request, rank, item, score, and its place and score in each retriever's
        list (missing where it was not found)."""
        slates, asked = self.retrieve(requests, k), self._complete(requests)
        pool, _ = self._pool(asked)
        row, rank = np.nonzero(slates.items >= 0)
        shown = slates.items[row, rank]
        same = pool.items[row] == shown[:, None]
        at, found = same.argmax(axis=1), same.any(axis=1)
        table: dict[str, Any] = {
            "request": row,
            "rank": rank + 1,
            "item": self.items.ids(shown),
            "score": slates.scores[row, rank],
        }
        for c, channel in enumerate(self.channels):
            place = np.where(found, pool.rank[row, at, c], 0)
            table[f"{channel.key} rank"] = pl.Series(place).set(pl.Series(place == 0), None)
            table[f"{channel.key} score"] = pl.Series(pool.score[row, at, c]).set(pl.Series(place == 0), None)
        return pl.DataFrame(table)

    def warm(self) -> Pipeline:
        """Answer a made-up request, so that indexes are built and kernels compiled before the first user comes.

        Where systems need more than a user and a history there is none to make up, and nothing is done.
        """
        if self.needs - {"users", "history", "seeds"}:
            return self
        columns = {name: np.zeros(0, dtype=np.int64) for name in ("item", "time", "value")}
        history = Jagged(Columns(columns, size=0), np.zeros(2, dtype=np.int64))
        self.retrieve(Requests(1, users=np.array([-1]), history=history, seeds=request_seeds(1, 0)), 1)
        return self

    def save(self, folder: str | Path) -> Path:
        """Write spec, bundles and ranker to a folder; `tastemaker.compose.PipelineBundle.load` opens it."""
        from tastemaker.compose.bundle import PipelineBundle

        return PipelineBundle(self.spec, dict(self.shelf), self.ranker, dict(self.told)).save(folder)

    # -- stages

    def _blocks(self, n: int) -> Iterator[slice]:
        places = sum(channel.k for channel in self.channels)
        size = int(np.clip(BLOCK_BYTES // (8 * places * (1 + len(self.channels))), 1, BLOCK_ROWS))
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _complete(self, asked: Requests) -> Requests:
        """The requests with what the pipeline itself leaves out."""
        changes: dict[str, Any] = {}
        if self.hides_seen and asked.history is not None:
            seen = asked.items()
            changes["exclude"] = seen if asked.exclude is None else _beside(asked.exclude, seen)
        if self.allowed is not None:
            changes["filter"] = both(self.allowed, asked.filter, asked.n)
        return asked.with_(**changes) if changes else asked

    def _pool(self, asked: Requests) -> tuple[Pool, Columns]:
        Rules.from_requests(asked, self.catalogue.height)  # says what is wrong with a filter before systems see it
        found = [channel.find(asked) for channel in self.channels]
        pool = Pool.of([(slates.items, slates.scores) for slates in found])
        if asked.candidates is not None:
            pool = pool.only(among(pool.items, asked.candidates, self.catalogue.height))
        traces = {
            f"{channel.key}.{name}": column
            for channel, slates in zip(self.channels, found, strict=True)
            for name, column in (slates.trace or {}).items()
        }
        return pool, Columns(traces, size=asked.n)

    def _ranked(self, asked: Requests, pool: Pool, k: int) -> tuple[Items, Scores]:
        """Blended, scored and reranked lists, of which the first k places are decided."""
        n_items, width = self.catalogue.height, pool.items.shape[1]
        rules = Rules.from_requests(asked, n_items)
        blended = self.blender(pool, asked)
        listed = Jagged(pool.items.ravel(), np.arange(asked.n + 1) * width)
        size = min(self.spec.pool, width)
        items, scores = select_listed(listed, blended.ravel(), size, rules, n_items)
        if len(self.pins):
            items, scores = self._with_pins(asked, rules, items, scores)
        if self.scorer is not None:
            items, scores = self.scorer.order(asked, items, scores)
        for step, n in zip(self.steps, depths(self.steps, k, items.shape[1]), strict=True):
            order = step.order(asked, items, scores, n)
            items, scores = order, dealt(order, scores)
        return items, scores

    def _with_pins(self, asked: Requests, rules: Rules, items: Items, scores: Scores) -> tuple[Items, Scores]:
        """Lists with the pinned items they lack behind their last one, where the request allows them."""
        n = len(self.pins)
        rows = Jagged(np.tile(self.pins, asked.n), np.arange(asked.n + 1) * n)
        flat = np.tile(-np.arange(n, dtype=np.float32), asked.n)
        pinned, _ = select_listed(rows, flat, n, rules, self.catalogue.height)
        lacking = (pinned >= 0) & ~(pinned[:, :, None] == items[:, None, :]).any(axis=2)
        if asked.candidates is not None:
            lacking &= among(pinned, asked.candidates, self.catalogue.height)
        both = np.concatenate([items, np.where(lacking, pinned, -1)], axis=1)
        order = np.argsort(both < 0, axis=1, kind="stable")
        there = np.isfinite(scores)
        lowest = np.where(there.any(axis=1), np.where(there, scores, np.inf).min(axis=1, initial=np.inf), 0.0)
        worth = np.concatenate([scores, np.broadcast_to(lowest[:, None], lacking.shape)], axis=1)
        out = np.take_along_axis(both, order, axis=1)
        return out, np.where(out >= 0, np.take_along_axis(worth, order, axis=1), -np.inf).astype(np.float32)


def both(allowed: NDArray[np.bool_], rule: ItemFilter | None, n: int) -> ItemFilter:
    """A filter that holds for all n requests, and each request's own besides."""
    if rule is None:
        return ItemFilter(allowed[None], np.zeros(n, dtype=np.int32))
    if rule.allowed.shape[1] < len(allowed):
        raise UsageError(
            f"a filter must say of all {len(allowed)} items whether they are allowed, got {rule.allowed.shape[1]}"
        )
    rows = np.concatenate([allowed[None], rule.allowed[:, : len(allowed)] & allowed])
    return ItemFilter(rows, rule.which + 1)


def among(items: Items, candidates: Jagged[Items], n_items: int) -> NDArray[np.bool_]:
    """Which entries of lists [B, S] are among the row's candidates."""
    real = (candidates.values >= 0) & (candidates.values < n_items)
    keys = candidates.rows[real] * n_items + candidates.values[real]
    own = np.arange(len(items), dtype=np.int64)[:, None] * n_items + items
    return np.isin(own, keys) & (items >= 0)


def _beside(left: Jagged[Items], right: Jagged[Items]) -> Jagged[Items]:
    """Rows of both, the right one's values after the left one's."""
    whole = concat([left, right])
    return Jagged.from_rows(np.concatenate([left.rows, right.rows]), whole.values, len(left))


def _stacked(traces: list[Columns]) -> Columns | None:
    """The traces of consecutive blocks of requests as one."""
    if not traces or not len(traces[0]):
        return None
    return Columns({name: np.concatenate([trace[name] for trace in traces]) for name in traces[0]})
