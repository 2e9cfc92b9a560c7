"""Vectors of a catalogue in PostgreSQL, for catalogues that outgrow a process (extension pgvector, extra "stores").

The database nominates, this process decides. The database is asked for the numbers of likely items; exclusions
are struck out here, so they are never sent; then the vectors of what is left are fetched and scored by the
kernel of `ExactIndex`. Hence scores are those of `ExactIndex` to the last bit, and so is the order. That is two round
trips, for one request as for a block of 64. Everything travels in PostgreSQL's binary formats, made and read whole by
NumPy, an array as one parameter and an answer as one value.

"hnsw" nominates by a graph (Malkov and Yashunin, arXiv:1603.09320) over vectors lifted to one length, as
`FaissIndex` does. An item may be missed: on 64 factors of iALS for Gowalla's 40,981 items .98 of the best 20 are found
and .99 of the best 300. A graph by inner product itself would find .998 of the best 20 and no more than .6 of the best
300, however wide it is read: long vectors become its hubs and hide the others, which are what is left for a user with a
history. Requests for which the graph cannot find enough, because a filter leaves few items or exclusions are many, are
searched exactly.

"exact" nominates by products that the database rounds as it likes, with places to spare; the bound on rounding
that `ExactIndex` uses tells which answers are proved, and the few others are asked for again by score. Answers
equal those of `ExactIndex`. A few requests are scanned for by the database. For many at once the table is read
through this process in strips, once for all of them, which costs less from about a dozen requests on.

Ties go by the fixed hash of the item. An index answers the same every time, to a request alone and in any batch,
from any process. Two graphs built from the same vectors are not the same graph: pgvector draws levels at random
and inserts in parallel; what they find differs a little, what they say of it does not.

Every build is a new generation in a table of its own, written, indexed and made the current one in one
transaction: nobody sees half of it, and what a crash leaves behind is nothing. An open index stays with its
generation, because vectors of another model are no answer to the queries of this one; `keep` generations stay
readable behind the current one until whoever reads them has opened the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tastemaker.index.ann import REACH, lift
from tastemaker.index.exact import SPARE, ExactIndex, as_vectors
from tastemaker.index.postgres import (
    FLOAT4,
    INT4,
    Database,
    Generation,
    analyse,
    copy,
    gone,
    int_array,
    make_graph,
    make_table,
    no_index,
    vector_array,
    vector_cells,
)
from tastemaker.index.select import Items, Rules, Scores, check_numbers, empty_lists, fold, row_slices, select_listed
from tastemaker.index.threads import share
from tastemaker.types import Array, ConfigError, DataError, Jagged, UsageError, nearest

KINDS = ("hnsw", "exact")
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
GRAPH_DIMS, HALF_DIMS, STORED_DIMS = 2000, 4000, 16_000  # limits of pgvector; a lift takes one of the first two
HALF_LENGTHS = 0.01, 20_000  # beyond these, numbers of half precision lose digits, or overflow
WIDEST = 1000  # items that a graph can keep in view
SCANNED = 10_000  # items that a graph which goes on searching may be expected to look at
BATCH = 64  # requests of one statement on the graph; the next one may run on another connection
MANY = 12  # requests from which one pass through the table beats as many scans
LISTED = 16  # of a filter that allows fewer than one item in so many, each is looked up by its number
STRIP = 16_384  # vectors read at once in such a pass
BLOCK = 65_536  # vectors written at once


@dataclass(frozen=True)
class Build:
    """How the graph of an index is built and read.

    links: neighbours an item, 2 to 100
    build_width, width: how many items are kept in view while the graph is built and read, at most 1,000
    half: the graph compares vectors in half precision, which halves its size (pgvector 0.7; always so where
        vectors are too long otherwise)
    """

    links: int = 24
    build_width: int = 150
    width: int = 200
    half: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.links <= 100 or not 2 * self.links <= self.build_width <= WIDEST:
            raise UsageError(f"links are 2 to 100 and build_width is at least twice that, at most 1,000, got {self}")
        if not 1 <= self.width <= WIDEST:
            raise UsageError(f"width is 1 to {WIDEST}, got {self.width}")


class PgVectorIndex:
    """An index over item vectors [I, D] that a PostgreSQL database holds; made by `build`, found again by `open`.

    Threads may share one; it keeps a few connections, which `close` (or a `with`) gives back.
    """

    def __init__(self, database: Database, generation: Generation) -> None:
        self._database, self._now = database, _Snapshot(database, generation)

    @classmethod
    def open(cls, url: str, name: str) -> PgVectorIndex:
        """The current generation of the index `name`.

        Args:
            url: as SQLAlchemy writes it: postgresql://user@host/database

        Raises:
            NotFound: there is no index of that name.
            ConfigError: the database cannot be reached, or its extension not be used.
        """
        with _opened(url) as database:
            found = database.current(_checked(name))
            if found is None:
                raise no_index(database, name)
            return cls(database, found)

    @classmethod
    def build(
        cls,
        url: str,
        name: str,
        vectors: Array,
        kind: Literal["hnsw", "exact"] = "hnsw",
        *,
        keep: int = 1,
        memory_mb: int | None = None,
        **graph: Any,
    ) -> PgVectorIndex:
        """Store vectors under `name`, index them, and make them the current generation, all or nothing.

        Args:
            vectors: [I, D], finite, read in blocks: they may be mapped from a file
            kind: "hnsw", approximate, D up to 1,999 (3,999 with pgvector 0.7); "exact", D up to 16,000
            keep: how many older generations stay for those who still read them
            memory_mb: the server's memory for this build (its maintenance_work_mem), by default what is set there;
                a graph that does not fit, at 4 D + 32 links + 280 bytes an item, takes many times longer to build
            graph: links, build_width, width, half: see `Build`
        """
        name, settings = _checked(name), _settings(graph)
        if kind not in KINDS:
            raise UsageError(f"an index is one of {', '.join(KINDS)}, got {kind!r}")
        if keep < 0 or (memory_mb is not None and memory_mb < 1):
            raise UsageError(f"keep is 0 or more and memory_mb 1 or more, got {keep} and {memory_mb}")
        n, dim = _shape(vectors)
        longest = _longest(vectors, dim)
        with _opened(url) as database:
            database.prepare()
            half = _fitting(dim, longest, kind, settings.half, database.version)
            described = {"name": name, "kind": kind, "size": n, "dim": dim, "width": settings.width}
            lengths = {"radius": float(np.float32(longest)), "longest": longest}
            with database.begin(f"index {name!r} was not built") as connection:
                database.lock(connection, name)
                made = database.add(connection, {**described, **lengths, "half": half})
                table = make_table(connection, made)
                copy(connection, made, _lifted(vectors, made), 0)
                if kind == "hnsw":
                    make_graph(connection, made, table, settings.links, settings.build_width, memory_mb)
                analyse(connection, made)
            database.prune(name, 1 + keep)
            return cls(database, made)

    @classmethod
    def drop(cls, url: str, name: str) -> None:
        """Remove every generation of the index `name`. Raises NotFound where there is none."""
        with _opened(url) as database:
            if not database.prune(_checked(name), 0):
                raise no_index(database, name)
            database.close()

    def __len__(self) -> int:
        return self._now.about.size

    @property
    def about(self) -> Generation:
        """What the registry says of the generation that is read here."""
        return self._now.about

    def is_current(self) -> bool:
        """Whether no newer generation has been built."""
        current = self._database.current(self.about.name)
        return current is not None and current.id == self.about.id

    def refresh(self) -> int:
        """Take up items that another process appended to this generation; returns how many items there are now."""
        found = self._database.one(self.about.id)
        if found is None:
            raise gone(self.about)
        self._now = _Snapshot(self._database, found)
        return found.size

    def extend(self, vectors: Array) -> None:
        """Append the vectors of new items; old items keep their numbers and scores.

        A graph takes some milliseconds an item, and the lift stays as it was: once they are many, build anew.
        Raises UsageError where another process has appended meanwhile, since the numbers would be taken.
        """
        about, database = self.about, self._database
        n, dim = _shape(vectors, about)
        longest = _longest(vectors, dim)
        _check_half(about.half, max(longest, about.longest))
        with database.begin(f"nothing was appended to index {about.name!r}") as connection:
            found = database.one(about.id, connection)
            if found is None:
                raise gone(about)
            if found.size != about.size:
                raise UsageError(
                    f"index {about.name!r} has {found.size} items by now, this process knows of {about.size}",
                    hint="refresh(), and number the new items after those",
                )
            copy(connection, about, _lifted(vectors, about), about.size)
            grown = replace(found, size=about.size + n, longest=max(found.longest, longest))
            database.resize(connection, grown)
        self._now = _Snapshot(database, grown)

    def search(
        self,
        queries: Array,
        k: int,
        rules: Rules | None = None,
        *,
        candidates: Jagged[Items] | None = None,
        budget_mb: float = 256,
    ) -> tuple[Items, Scores]:
        """As `ExactIndex.search`; by "hnsw" an item may be missed. `budget_mb` bounds the vectors held at once."""
        return self._now.search(queries, k, rules, candidates, budget_mb)

    def close(self) -> None:
        """Give the connections back."""
        self._database.close()

    def __enter__(self) -> PgVectorIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# -- search


@dataclass(frozen=True)
class _Snapshot:
    """What a search works on: items that others append meanwhile are not there."""

    database: Database
    about: Generation

    def search(
        self, queries: Array, k: int, rules: Rules | None, candidates: Jagged[Items] | None, budget_mb: float
    ) -> tuple[Items, Scores]:
        n = self.about.size
        queries = as_vectors(queries, self.about.dim, "queries")
        rules = Rules.of(len(queries), n) if rules is None else rules
        items, scores = empty_lists(len(queries), k)
        if candidates is not None:
            return self._best(queries, candidates, k, rules, budget_mb)
        if n == 0 or len(queries) == 0:
            return items, scores
        if self.about.kind == "hnsw":

            def work(tasks: Any) -> None:
                for rows, ask in tasks:
                    listed = self._near(queries[rows], ask)
                    items[rows], scores[rows] = self._best(queries[rows], listed, k, rules.take(rows), budget_mb)

            share(list(self._on_the_graph(k, rules)), work)
        short = np.flatnonzero(items[:, -1] < 0)
        if len(short):
            items[short], scores[short] = self._exact(queries[short], k, rules.take(short), budget_mb)
        return items, scores

    def _best(
        self, queries: Scores, listed: Jagged[Items], k: int, rules: Rules, budget_mb: float
    ) -> tuple[Items, Scores]:
        scores = self.listed_scores(queries, listed, budget_mb)
        return select_listed(listed, scores, k, rules, self.about.size)

    def listed_scores(self, queries: Scores, listed: Jagged[Items], budget_mb: float) -> Scores:
        """As `ExactIndex.listed_scores`; each vector is fetched once for the many rows that list it."""
        values = np.ascontiguousarray(listed.values, dtype=np.int32)
        check_numbers(values, self.about.size)
        scores, step = np.zeros(len(values), dtype=np.float32), self._within(budget_mb)
        for first in range(0, len(values), step):
            part = values[first : first + step]
            numbers, places = np.unique(part, return_inverse=True)
            if none := int((numbers < 0).sum()):
                numbers, places = numbers[none:], np.maximum(places - none, -1)
            if len(numbers):
                inside = Jagged(places.astype(np.int32), np.clip(listed.offsets - first, 0, len(part)))
                scores[first : first + step] = ExactIndex(self._fetch(numbers)).listed_scores(queries, inside)
        return scores

    def _within(self, budget_mb: float) -> int:
        """Vectors that may be held at once, as sent and as read; the database's own limit for one value is 1 GB."""
        return max(1, int(min(budget_mb, 2048) * 2**20 / (12 * (self.about.stored + 2))))

    # -- by the graph

    def _on_the_graph(self, k: int, rules: Rules) -> Iterator[tuple[NDArray[np.int64], _Ask]]:
        """What to ask the graph for, for which rows; rows that a scan serves better are left out."""
        limit = SCANNED if self.database.goes_on else WIDEST
        for rows, wide, allowed in _alike(k + SPARE, rules, self.about.size):
            reach = wide * self.about.size / allowed.count  # items to look at until so many are allowed
            if k < allowed.count and reach <= limit:
                width = min(WIDEST, max(self.about.width, int(reach)))
                for start in range(0, len(rows), BATCH):
                    yield rows[start : start + BATCH], _Ask(wide, width, allowed)

    def _near(self, queries: Scores, ask: _Ask) -> Jagged[Items]:
        """Nominees of each row, not in order."""
        lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))[:, None]
        asked = (queries * (REACH * max(self.about.longest, 1e-30) / np.maximum(lengths, 1e-30))).astype(np.float32)
        settings = {"hnsw.ef_search": ask.width, "enable_seqscan": "off", "enable_sort": "off", "jit": "off"}
        if self.database.goes_on:
            settings["hnsw.iterative_scan"] = "relaxed_order"
        column, query = "t.vector", "q.vector"
        if self.about.half:
            column, query = (f"{name}::halfvec({self.about.stored})" for name in (column, query))
        condition, parameters = ask.allowed.in_sql(listed=False)
        statement = f"""
            select string_agg(int4send(q.row::int4) || int4send(near.number), ''::bytea)
            from unnest(%(queries)b::vector[]) with ordinality as q (vector, row)
            cross join lateral (
                select t.number from {{table}} as t where {condition}
                order by {column} <-> {query} limit %(wide)b::int4
            ) as near"""
        parameters |= {"queries": self._packed(asked), "wide": ask.wide}
        found = np.frombuffer(self._ask(statement, parameters, settings), dtype=INT4).reshape(-1, 2)
        return Jagged.from_rows(found[:, 0] - 1, found[:, 1].astype(np.int32), len(queries))

    # -- exactly

    def _exact(self, queries: Scores, k: int, rules: Rules, budget_mb: float) -> tuple[Items, Scores]:
        n = self.about.size
        kept = min(k + max(SPARE, k // 4), n)
        looked_at = sum(len(rows) * allowed.looked_at for rows, _, allowed in _alike(kept, rules, n))
        sieve = self._sweep if looked_at >= MANY * n else self._scan
        sieved, rough = sieve(queries, kept, rules, budget_mb)
        listed = Jagged(sieved.ravel(), np.arange(len(queries) + 1) * kept)
        items, scores = self._best(queries, listed, k, rules, budget_mb)
        doubt = _doubt(queries, self.about.longest)
        last, worst = rough[:, -1].astype(np.float64), scores[:, -1].astype(np.float64)
        for row in np.flatnonzero((kept < n) & (last > -np.inf) & (doubt > 0) & ~(worst > last + doubt)):
            one = slice(row, row + 1)
            listed = self._above(queries[one], worst[row] - doubt[row], rules.take(one))
            items[one], scores[one] = self._best(queries[one], listed, k, rules.take(one), budget_mb)
        return items, scores

    def _scan(self, queries: Scores, kept: int, rules: Rules, budget_mb: float) -> tuple[Items, Scores]:
        """The `kept` best by the database's own products; it scans the table once a row."""
        items, rough = empty_lists(len(queries), kept)
        for rows, wide, allowed in _alike(kept, rules, self.about.size):
            condition, parameters = allowed.in_sql(listed=True)
            statement = f"""
                select string_agg(int4send(q.row::int4) || int4send(near.number) || float4send(near.score), ''::bytea)
                from unnest(%(queries)b::vector[]) with ordinality as q (vector, row)
                cross join lateral (
                    select t.number, (-(t.vector <#> q.vector))::float4 as score from {{table}} as t where {condition}
                    order by t.vector <#> q.vector, t.tie limit %(wide)b::int4
                ) as near"""
            at_once = max(1, int(budget_mb * 2**20 / (48 * wide)))
            for start in range(0, len(rows), at_once):
                part = rows[start : start + at_once]
                parameters |= {"queries": self._packed(queries[part]), "wide": wide}
                answer = self._ask(statement, parameters, {"jit": "off"})
                told = np.frombuffer(answer, dtype=[("row", INT4), ("number", INT4), ("score", FLOAT4)])
                found = Jagged.from_rows(told["row"] - 1, told, len(part))
                listed = Jagged(found.values["number"].astype(np.int32), found.offsets)
                scores = found.values["score"].astype(np.float32)
                items[part], rough[part] = select_listed(listed, scores, kept, rules.take(part), self.about.size)
        return items, rough

    def _sweep(self, queries: Scores, kept: int, rules: Rules, budget_mb: float) -> tuple[Items, Scores]:
        """The `kept` best by BLAS products; the table comes through this process once, strip by strip."""
        items, rough = empty_lists(len(queries), kept)
        step = min(STRIP, self._within(budget_mb / 2))
        height = max(1, int(budget_mb * 2**17 / step))  # scores of so many rows take half the budget
        for first in range(0, self.about.size, step):
            strip = self._fetch(np.arange(first, min(first + step, self.about.size)), whole=True)
            for start in range(0, len(queries), height):
                rows = slice(start, min(start + height, len(queries)))
                with np.errstate(over="ignore", invalid="ignore"):  # refused by name when they are selected from
                    scores = np.matmul(queries[rows], strip.T)

                def work(parts: Any, scores: Scores = scores, rows: slice = rows, first: int = first) -> None:
                    own = rules.take(rows)
                    for part in parts:
                        fold(scores[part], first, own.take(part), items[rows][part], rough[rows][part])

                share(row_slices(*scores.shape), work)
        return items, rough

    def _above(self, query: Scores, bound: float, rules: Rules) -> Jagged[Items]:
        """Every item that scores at least `bound` for one query, by the database's own products."""
        (_, _, allowed), *_ = _alike(1, rules, self.about.size)
        condition, parameters = allowed.in_sql(listed=True)
        statement = f"""
            select string_agg(int4send(t.number), ''::bytea)
            from unnest(%(queries)b::vector[]) as q (vector)
            join {{table}} as t on t.vector <#> q.vector <= %(bound)b::float8
            where {condition}"""
        parameters |= {"queries": self._packed(query), "bound": -bound}
        found = np.frombuffer(self._ask(statement, parameters, {"jit": "off"}), dtype=INT4).astype(np.int32)
        return Jagged(found, np.array([0, len(found)]))

    # -- what travels

    def _fetch(self, numbers: NDArray[Any], *, whole: bool = False) -> Scores:
        """Vectors [n, D] of items by their numbers, which rise; `whole`: without a gap."""
        if whole:
            condition = "t.number between %(first)b::int4 and %(last)b::int4"
            parameters: dict[str, Any] = {"first": int(numbers[0]), "last": int(numbers[-1])}
        else:
            condition, parameters = "t.number = any (%(listed)b::int4[])", {"listed": int_array(numbers)}
        statement = f"""
            select string_agg(int4send(t.number) || vector_send(t.vector), ''::bytea)
            from {{table}} as t where {condition}"""
        cells = np.dtype([("number", INT4), *vector_cells(self.about.stored)])
        found = np.frombuffer(self._ask(statement, parameters), dtype=cells)
        if len(found) != len(numbers):
            raise DataError(f"the database lacks vectors of {len(numbers) - len(found)} items of {self.about.name!r}")
        vectors = np.empty((len(found), self.about.dim), dtype=np.float32)
        vectors[np.searchsorted(numbers, found["number"])] = found["vector"][:, : self.about.dim]
        return vectors

    def _packed(self, queries: Scores) -> Any:
        """Queries as a parameter vector[], with a 0 where stored vectors have their lift."""
        if self.about.stored > self.about.dim:
            queries = np.column_stack([queries, np.zeros(len(queries), dtype=np.float32)])
        return vector_array(self.database.vector_oid, queries)

    def _ask(self, statement: str, parameters: dict[str, Any], settings: dict[str, Any] | None = None) -> bytes:
        parameters = {"n": self.about.size, **parameters}
        return self.database.value(self.about, statement, parameters, settings or {})


@dataclass(frozen=True)
class _Ask:
    """What the graph is asked for: so many nominees, with so many items in view, of those allowed."""

    wide: int
    width: int
    allowed: _Allowed


@dataclass(frozen=True, eq=False)
class _Allowed:
    """The `count` items a filter allows of n; no bitmap: all."""

    n: int
    count: int
    bitmap: NDArray[np.bool_] | None = None

    @property
    def few(self) -> bool:
        """Whether to name the items rather than to look at every one."""
        return self.count * LISTED < self.n

    @property
    def looked_at(self) -> int:
        """Items that a scan looks at."""
        return self.count if self.few else self.n

    @cached_property
    def bits(self) -> bytes:
        assert self.bitmap is not None
        return np.packbits(self.bitmap, bitorder="little").tobytes()

    def in_sql(self, *, listed: bool) -> tuple[str, dict[str, Any]]:
        """The filter as a condition on `t.number` with its parameters; `listed`: few items are named."""
        if self.bitmap is None:
            return "t.number < %(n)b::int4", {}
        if listed and self.few:
            return "t.number = any (%(listed)b::int4[])", {"listed": int_array(np.flatnonzero(self.bitmap))}
        condition = "case when t.number < %(n)b::int4 then get_bit(%(allowed)b::bytea, t.number) = 1 else false end"
        return condition, {"allowed": self.bits}


def _alike(k: int, rules: Rules, n: int) -> Iterator[tuple[NDArray[np.int64], int, _Allowed]]:
    """Rows that share a filter and a number of nominees: k and what may be excluded, up to a power of two.

    Rows whose filter allows nothing are left out.
    """
    wide = np.minimum(1 << np.ceil(np.log2(k + np.diff(rules.offsets))).astype(np.int64), n)
    for which in np.unique(rules.which):
        bitmap = None if which < 0 else rules.allowed[which, :n]
        count = n if bitmap is None else int(np.count_nonzero(bitmap))
        same = rules.which == which
        for many in np.unique(wide[same]) if count else ():
            yield np.flatnonzero(same & (wide == many)), int(many), _Allowed(n, count, bitmap)


def _doubt(queries: Scores, longest: float) -> NDArray[np.float64]:
    """How far [B] a product in any order of additions may be from the one in fixed order; see `index.exact`."""
    eps, tiny = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
    sizes = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64)) * longest
    return np.asarray(np.where(sizes > 0, (queries.shape[1] + 4) * (eps * sizes + 2 * tiny), 0.0))


# -- what is asked for


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    """A database, closed again if what follows fails."""
    database = Database(url)
    try:
        yield database
    except BaseException:
        database.close()
        raise


def _checked(name: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(
            f"an index is named by up to 63 of a-z, 0-9, '_', '.' and '-', a letter or digit first, got {name!r}"
        )
    return name


def _settings(given: dict[str, Any]) -> Build:
    known = [field.name for field in fields(Build)]
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"an index has no setting {unknown[0]!r}", hint=nearest(unknown[0], known))
    return Build(**given)


def _shape(vectors: Array, about: Generation | None = None) -> tuple[int, int]:
    shape = tuple(vectors.shape)
    before = 0 if about is None else about.size
    if len(shape) != 2 or shape[1] < 1 or (about is not None and shape[1] != about.dim):
        raise UsageError(f"vectors must be [n, {'D' if about is None else about.dim}], got shape {list(shape)}")
    if before + shape[0] >= 2**31:
        raise UsageError(f"an index holds up to 2^31 - 1 items, got {before + shape[0]:,}")
    return shape[0], shape[1]


def _fitting(dim: int, longest: float, kind: str, half: bool, version: tuple[int, ...]) -> bool:
    """Whether the graph must be of half precision; refuses what this version of pgvector cannot index."""
    tell, about = f"pgvector {'.'.join(map(str, version))}", f'kind="exact" takes up to {STORED_DIMS:,} dimensions'
    if kind == "exact":
        if half:
            raise UsageError("half is a setting of the graph; an exact index has none")
        if dim > STORED_DIMS:
            raise UsageError(f"pgvector stores vectors of up to {STORED_DIMS:,} dimensions, got {dim:,}")
        return False
    if version < (0, 5):
        raise ConfigError(f"{tell} builds no graphs", hint=f"install pgvector 0.5 or newer; {about}")
    if dim >= HALF_DIMS:
        raise UsageError(f"a graph is of up to {HALF_DIMS - 1:,} dimensions, got {dim:,}", hint=about)
    half = half or dim >= GRAPH_DIMS
    if half and version < (0, 7):
        raise ConfigError(
            f"{tell} builds graphs in single precision only, of up to {GRAPH_DIMS - 1:,} dimensions; got {dim:,}",
            hint=f"pgvector 0.7 has half precision, for up to {HALF_DIMS - 1:,}; {about}",
        )
    _check_half(half, longest)
    return half


def _check_half(half: bool, longest: float) -> None:
    low, high = HALF_LENGTHS
    if half and not low <= longest <= high:
        raise UsageError(
            f"the longest vector of a graph in half precision is {low} to {high:,} long, got {longest:.3g}",
            hint="scale vectors and queries",
        )


def _blocks(vectors: Array, dim: int) -> Iterator[Scores]:
    return (as_vectors(vectors[first : first + BLOCK], dim) for first in range(0, len(vectors), BLOCK))


def _longest(vectors: Array, dim: int) -> float:
    """The length of the longest vector; all of them are checked."""
    return max((ExactIndex(block).longest for block in _blocks(vectors, dim)), default=0.0)


def _lifted(vectors: Array, about: Generation) -> Iterator[Scores]:
    """Blocks of vectors as they are stored."""
    blocks = _blocks(vectors, about.dim)
    return (lift(block, np.float32(about.radius)) for block in blocks) if about.kind == "hnsw" else blocks
