"""Indexes of vectors: in this process exactly, by FAISS, and in PostgreSQL by pgvector.

python benchmarks/vector_index.py             writes benchmarks/results/vector_index.json

Made-up vectors in clusters, their lengths as unequal as those of a factorisation, and queries from the same clusters.
Recall is the share of the 20 best items that is found. PostgreSQL is the one that the package pgserver carries, on this
machine and with settings as they come; --url names another, reached as the network allows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from common import interleave, page_table, write

K, CLUSTERS, NAME = 20, 200, "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512, help="of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--url", help="of a PostgreSQL with pgvector")
    given = parser.parse_args()
    with database(given.url) as url:
        found = compared(url, given.items, given.dim, given.requests, given.repeats)
    write("vector_index", found, tables(found))
    for table in tables(found):
        print(*table["rows"], sep="\n")


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {
            "index": name,
            "built in s": told["build_s"],
            "requests a second": told["rate"],
            "with half the items filtered out": told["filtered_rate"],
            "ms a request alone": told["alone_ms"],
            f"recall@{K}": told["recall"],
            "filtered": told["filtered_recall"],
        }
        for name, told in found["indexes"].items()
    ]
    title = f"Indexes over {found['items']:,} vectors of {found['dim']} dimensions"
    server = f"{found['server']} with pgvector {found['pgvector']}, on the same machine"
    note = f"Batches of {found['requests']} requests; {server}."
    return [page_table(title, rows, note)]


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """The address of a database with pgvector: the given one, or one that goes again."""
    if url:
        yield url
        return
    import pgserver

    with TemporaryDirectory() as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def vectors(n: int, dim: int, purpose: str, *, spread: bool) -> Any:
    """Points of clusters; with `spread` their lengths differ as those of items do."""
    import numpy as np

    from tastemaker.types import generator

    centres = generator(0, "centres").standard_normal((CLUSTERS, dim))
    rng = generator(0, purpose)
    points = centres[rng.integers(0, CLUSTERS, n)] + 0.3 * rng.standard_normal((n, dim))
    return (points * (rng.gamma(2, 0.5, (n, 1)) if spread else 1)).astype(np.float32)


def compared(url: str, n_items: int, dim: int, n_requests: int, repeats: int) -> dict[str, Any]:
    """Build every index over the same vectors and ask all of them the same."""
    from tastemaker.index import ExactIndex, FaissIndex, Rules
    from tastemaker.index.pgvector import PgVectorIndex
    from tastemaker.types import generator

    items = vectors(n_items, dim, "items", spread=True)
    queries = vectors(n_requests, dim, "queries", spread=False)
    half = Rules.of(n_requests, n_items, allowed=generator(0, "filter").random(n_items) < 0.5)
    builders: dict[str, Callable[[], Any]] = {
        "ExactIndex": lambda: ExactIndex(items),
        "FaissIndex ivf": lambda: FaissIndex(items, "ivf"),
        "FaissIndex hnsw": lambda: FaissIndex(items, "hnsw"),
        "PgVectorIndex exact": lambda: PgVectorIndex.build(url, f"{NAME}-exact", items, "exact", memory_mb=256),
        "PgVectorIndex hnsw": lambda: PgVectorIndex.build(url, f"{NAME}-hnsw", items, "hnsw", memory_mb=256),
    }
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        indexes = {}
        for name, build in builders.items():
            began = time.perf_counter()
            indexes[name] = build()
            found[name] = {"build_s": round(time.perf_counter() - began, 2)}
            if isinstance(indexes[name], PgVectorIndex):
                stack.callback(PgVectorIndex.drop, url, indexes[name].about.name)
                stack.callback(indexes[name].close)
        wanted, filtered = (indexes["ExactIndex"].search(queries, K, rules)[0] for rules in (None, half))
        batches = interleave({n: lambda i=i: i.search(queries, K) for n, i in indexes.items()}, repeats)
        halves = interleave({n: lambda i=i: i.search(queries, K, half) for n, i in indexes.items()}, repeats)
        alone = interleave({n: lambda i=i: [i.search(q[None], K) for q in queries[:50]] for n, i in indexes.items()}, 3)
        for name, index in indexes.items():
            found[name] |= {
                "rate": round(n_requests / batches[name].median),
                "filtered_rate": round(n_requests / halves[name].median),
                "alone_ms": round(1000 * alone[name].median / 50, 2),
                "recall": recall(index.search(queries, K)[0], wanted),
                "filtered_recall": recall(index.search(queries, K, half)[0], filtered),
                "batches": batches[name].to_json(),
                "filtered_batches": halves[name].to_json(),
                "alone": alone[name].to_json(),
            }
        server, extension = versions(url)
    about = {"items": n_items, "dim": dim, "requests": n_requests, "k": K, "server": server, "pgvector": extension}
    return {**about, "indexes": found}


def recall(found: Any, wanted: Any) -> float:
    import numpy as np

    shares = [len(np.intersect1d(ours, best)) / K for ours, best in zip(found, wanted, strict=True)]
    return round(float(np.mean(shares)), 4)


def versions(url: str) -> tuple[str, str]:
    """Of the server and of its extension."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        ask = "select current_setting('server_version'), extversion from pg_extension where extname = 'vector'"
        server, extension = connection.execute(sqlalchemy.text(ask)).one()
    engine.dispose()
    return f"PostgreSQL {server.split()[0]}", extension


if __name__ == "__main__":
    main()
