"""PgVectorIndex: exact answers equal ExactIndex's, the graph's recall, rules, generations, and what it leaves behind.

TASTEMAKER_TEST_PGVECTOR may name a server to use instead of the one that the package pgserver carries.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import absent

from tastemaker.index import ExactIndex, Rules, retriever
from tastemaker.index import pgvector as home
from tastemaker.index.pgvector import PgVectorIndex
from tastemaker.index.postgres import Database
from tastemaker.types import ConfigError, Jagged, NotFound, Requests, TastemakerError, UsageError

pytestmark = pytest.mark.services
pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")
pytest.importorskip("pgvector")
N, D, B = 3000, 16, 200


def catalogue(n=N, seed=0):
    """Clustered vectors whose lengths differ as those of a factorisation do, and queries."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, D))
    points = centres[rng.integers(0, 30, n)] + 0.3 * rng.standard_normal((n, D))
    return (points * rng.gamma(2, 0.5, (n, 1))).astype(np.float32), centres[rng.integers(0, 30, B)].astype(np.float32)


VECTORS, QUERIES = catalogue()
EXACT = ExactIndex(VECTORS)
RNG = np.random.default_rng(1)
EIGHTHS = RNG.integers(-2, 3, (400, 4)).astype(np.float32) / 8  # few distinct vectors, so nearly all scores are tied
TIED = np.concatenate([EIGHTHS, EIGHTHS, np.zeros((200, 4), dtype=np.float32)])


@pytest.fixture(scope="module")
def url():
    if given_url := os.environ.get("TASTEMAKER_TEST_PGVECTOR"):
        yield given_url
        return
    try:
        import pgserver
    except ImportError:
        absent("no PostgreSQL with pgvector: pip install pgserver, or set TASTEMAKER_TEST_PGVECTOR=postgresql://...")
    with TemporaryDirectory(prefix="tastemaker-pg") as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="module")
def graph(url):
    with PgVectorIndex.build(url, "graph", VECTORS) as index:
        yield index
    PgVectorIndex.drop(url, "graph")


@pytest.fixture(scope="module")
def exact(url):
    with PgVectorIndex.build(url, "exact", VECTORS, "exact") as index:
        yield index
    PgVectorIndex.drop(url, "exact")


@pytest.fixture(scope="module")
def tied(url):
    with PgVectorIndex.build(url, "tied", TIED, "exact") as index:
        yield index
    PgVectorIndex.drop(url, "tied")


@pytest.fixture
def name(url, request):
    """A name of its own for each test, free again after it."""
    name = f"t.{abs(hash(request.node.name)) % 10**12}"
    yield name
    database = Database(url)
    database.prune(name, 0)
    database.close()


@pytest.fixture
def statements(monkeypatch):
    """The statements that are sent, with the bytes of their parameters."""
    seen = []
    value = Database.value

    def told(self, about, statement, parameters, settings):
        size = sum(len(getattr(p, "data", p)) if not isinstance(p, int | float) else 8 for p in parameters.values())
        seen.append((statement, size))
        return value(self, about, statement, parameters, settings)

    monkeypatch.setattr(Database, "value", told)
    return seen


def recall(found, wanted):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, wanted, strict=True)])


def same(found, wanted):
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def rules_of(b, n=N, seed=2):
    """Exclusions of the best items for every other row; filters that allow half, few, one and no item."""
    rng = np.random.default_rng(seed)
    best = EXACT.search(QUERIES[:b], min(300, n))[0]
    exclude = Jagged.from_lists([best[r, : 300 * (r % 2)] for r in range(b)], np.int32)
    allowed = np.stack([rng.random(n) < 0.5, np.arange(n) < 25, np.arange(n) == n - 1, np.zeros(n, bool)])
    return Rules.of(b, n, exclude, allowed, (np.arange(b) % 7 - 1).clip(max=3).astype(np.int32))


# -- exact


@pytest.mark.parametrize("k", [1, 20, N + 3])
@pytest.mark.parametrize("b", [1, 5, 40])
def test_exact_search_equals_that_in_memory_to_the_last_bit(exact, b, k):
    same(exact.search(QUERIES[:b], k), EXACT.search(QUERIES[:b], k))
    same(exact.search(QUERIES[:b], k, rules_of(b)), EXACT.search(QUERIES[:b], k, rules_of(b)))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_exact_search_equals_that_in_memory_where_nearly_all_scores_are_tied(tied, data):
    b, k, n = data.draw(st.sampled_from([1, 3, 30])), data.draw(st.sampled_from([1, 7, 100])), len(TIED)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    queries = rng.integers(-1, 2, (b, 4)).astype(np.float32) / 4
    exclude = Jagged.from_lists([rng.integers(0, n + 9, rng.integers(0, 60)) for _ in range(b)], np.int32)
    rules = Rules.of(b, n, exclude, rng.random((2, n)) < [[0.5], [0.02]], rng.integers(-1, 2, b).astype(np.int32))
    same(tied.search(queries, k, rules), ExactIndex(TIED).search(queries, k, rules))


def test_answers_that_the_first_look_does_not_prove_are_asked_for_again(tied, statements):
    query = np.array([[0.25, 0, 0, 0]], dtype=np.float32)  # five different scores among 1,000 items
    same(tied.search(query, 20), ExactIndex(TIED).search(query, 20))
    assert sum("bound" in statement for statement, _ in statements) == 1
    statements.clear()
    none = np.zeros((1, 4), dtype=np.float32)  # all 1,000 scores are 0, and known to be: the hash alone decides
    same(tied.search(none, 20), ExactIndex(TIED).search(none, 20))
    assert not any("bound" in statement for statement, _ in statements)


def test_a_few_requests_are_scanned_for_and_many_share_one_pass(exact, statements):
    exact.search(QUERIES[:3], 10)
    assert [("between" in s) for s, _ in statements] == [False, False]  # numbers, then vectors of the best
    statements.clear()
    exact.search(QUERIES, 10)
    assert sum("between" in s for s, _ in statements) == 1
    statements.clear()
    few = Rules.of(B, N, allowed=np.arange(N) < 25)  # few items are looked up, for however many requests
    same(exact.search(QUERIES, 10, few), EXACT.search(QUERIES, 10, few))
    assert len(statements) == 2 and not any("between" in s for s, _ in statements)


@pytest.mark.parametrize("budget_mb", [0.02, 1])
def test_a_small_budget_changes_nothing(exact, graph, budget_mb):
    rules, candidates = rules_of(30), Jagged.from_lists([[7, 3, -1, 7, u] for u in range(30)], np.int32)
    same(exact.search(QUERIES[:30], 9, rules, budget_mb=budget_mb), EXACT.search(QUERIES[:30], 9, rules))
    same(graph.search(QUERIES[:30], 9, rules, budget_mb=budget_mb), graph.search(QUERIES[:30], 9, rules))
    small = graph.search(QUERIES[:30], 9, candidates=candidates, budget_mb=budget_mb)
    same(small, EXACT.search(QUERIES[:30], 9, candidates=candidates))


# -- by the graph


def test_finds_nearly_all_with_exact_scores_in_exact_order(graph):
    items, scores = graph.search(QUERIES, 20)
    assert recall(items, EXACT.search(QUERIES, 20)[0]) > 0.97
    same((items, scores), EXACT.search(QUERIES, 20, candidates=Jagged(items.ravel(), np.arange(B + 1) * 20)))


def test_it_is_the_graph_that_answers(url, name):
    with PgVectorIndex.build(url, name, VECTORS, links=2, build_width=4, width=1) as index:
        items, _ = index.search(QUERIES, 1)
        assert (items >= 0).all() and recall(items, EXACT.search(QUERIES, 1)[0]) < 0.95


def test_a_request_alone_gets_what_it_gets_in_a_batch_and_from_another_process(graph, url):
    items, scores = graph.search(QUERIES, 20)
    with PgVectorIndex.open(url, "graph") as other:
        assert other.about == graph.about and len(other) == N
        for r in range(0, 60, 7):
            same(other.search(QUERIES[r : r + 1], 20), (items[r : r + 1], scores[r : r + 1]))


def test_rules_are_exact_and_lists_full_where_they_can_be(graph):
    rules = rules_of(B)
    items, _ = graph.search(QUERIES, 20, rules)
    wanted, _ = EXACT.search(QUERIES, 20, rules)
    np.testing.assert_array_equal((items >= 0).sum(axis=1), (wanted >= 0).sum(axis=1))
    for r in range(B):
        mine = items[r][items[r] >= 0]
        assert len(np.unique(mine)) == len(mine)
        assert not np.isin(mine, rules.excluded[rules.offsets[r] : rules.offsets[r + 1]]).any()
        assert rules.which[r] < 0 or rules.allowed[rules.which[r], mine].all()
    full = wanted[:, -1] >= 0
    assert recall(items[full], wanted[full]) > 0.95  # rows with the best 300 excluded among them


def test_a_block_takes_two_round_trips_and_exclusions_are_never_sent(graph, statements):
    graph.search(QUERIES[: home.BATCH], 10)
    assert len(statements) == 2
    plain = list(statements)
    statements.clear()
    rng = np.random.default_rng(3)
    far = Rules.of(home.BATCH, N, Jagged.from_lists([rng.permutation(N)[:100] for _ in range(home.BATCH)], np.int32))
    graph.search(QUERIES[: home.BATCH], 10, far)
    assert [statement for statement, _ in statements] == [statement for statement, _ in plain]
    assert statements[0][1] == plain[0][1]
    statements.clear()
    graph.search(QUERIES[:5], 10, Rules.of(5, N, allowed=np.arange(N) % 2 == 0))
    assert all(len(statement) < 800 for statement, _ in statements)
    assert statements[0][1] < 5 * 4 * (D + 4) + N // 8 + 100  # a filter is a bit an item


def test_candidates_are_scored_exactly(graph):
    lists = [np.random.default_rng(u).integers(-1, N, u) for u in range(50)]
    candidates = Jagged.from_lists([*lists[:-1], [5, 5, -1, 9]], np.int32)
    same(graph.search(QUERIES[:50], 6, candidates=candidates), EXACT.search(QUERIES[:50], 6, candidates=candidates))
    with pytest.raises(UsageError, match="candidates run from 0 to 2999"):
        graph.search(QUERIES[:1], 1, candidates=Jagged.from_lists([[N]], np.int32))


def test_as_the_retrievers_index(graph):
    class Vectors:
        def queries(self, requests):
            return QUERIES[requests.users]

        def items(self, numbers=None):
            return VECTORS

    requests = Requests.of_users(np.arange(50), exclude=Jagged.from_lists([[u] for u in range(50)], np.int32))
    near = retriever(Vectors(), index=graph).retrieve(requests, 10)
    assert recall(near.items, retriever(Vectors()).retrieve(requests, 10).items) > 0.97


@pytest.mark.parametrize("kind", home.KINDS)
def test_small_catalogues(url, name, kind):
    for n in (0, 1, 3):
        with PgVectorIndex.build(url, name, VECTORS[:n], kind) as small:
            same(small.search(QUERIES[:4], 2), ExactIndex(VECTORS[:n]).search(QUERIES[:4], 2))
            assert small.search(QUERIES[:0], 2)[0].shape == (0, 2)
            small.extend(VECTORS[n : n + 40])
            same(small.search(QUERIES[:4], 2), ExactIndex(VECTORS[: n + 40]).search(QUERIES[:4], 2))
    with PgVectorIndex.build(url, name, np.zeros((50, D)), kind) as flat:
        items, scores = flat.search(np.zeros((2, D)), 5)
        assert (items >= 0).all() and (scores == 0).all()


def test_half_precision_nominates_and_single_precision_scores(url, name, graph):
    version = graph._database.version
    if version < (0, 7):
        with pytest.raises(ConfigError, match="single precision only"):
            PgVectorIndex.build(url, name, VECTORS, half=True)
        with pytest.raises(ConfigError, match=r"up to 1,999 dimensions; got 2,000"):
            PgVectorIndex.build(url, name, np.ones((2, 2000)))
        return
    with PgVectorIndex.build(url, name, VECTORS, half=True) as index:
        items, scores = index.search(QUERIES, 20)
        assert recall(items, EXACT.search(QUERIES, 20)[0]) > 0.96
        same((items, scores), EXACT.search(QUERIES, 20, candidates=Jagged(items.ravel(), np.arange(B + 1) * 20)))
    wide = np.random.default_rng(0).standard_normal((60, 3999)).astype(np.float32)
    with PgVectorIndex.build(url, name, wide) as index:
        assert index.about.half
        same(index.search(wide[:5], 3), ExactIndex(wide).search(wide[:5], 3))
        with pytest.raises(UsageError, match="to 20,000 long"):
            index.extend(wide[:3] * 1e4)
    with pytest.raises(UsageError, match=r"0\.01 to 20,000 long"):
        PgVectorIndex.build(url, name, VECTORS * 1e6, half=True)


# -- what changes


def test_new_vectors_are_found_long_ones_too(url, name):
    asked = QUERIES[:60]
    more = np.concatenate([asked[:1] * 9, catalogue(150, seed=5)[0]])
    with PgVectorIndex.build(url, name, VECTORS) as index, PgVectorIndex.open(url, name) as other:
        before = other.search(asked, 20)
        index.extend(more)
        assert len(index) == N + 151 and len(other) == N
        wanted = ExactIndex(np.concatenate([VECTORS, more])).search(asked, 20)
        items, _ = index.search(asked, 20)
        assert items[0, 0] == N and recall(items, wanted[0]) > 0.95
        assert (other.search(asked, 20)[0] < N).all()  # what others append is not there
        assert recall(other.search(asked, 20)[0], before[0]) > 0.95
        with pytest.raises(UsageError, match=r"3151 items by now, this process knows of 3000"):
            other.extend(more)
        assert other.refresh() == N + 151
        same(other.search(asked, 20), index.search(asked, 20))
        few = Rules.of(60, N + 151, allowed=np.arange(N + 151) >= N + 140)
        same(other.search(asked, 5, few), ExactIndex(np.concatenate([VECTORS, more])).search(asked, 5, few))
        with pytest.raises(UsageError, match=r"\[n, 16\]"):
            other.extend(more[:, :3])


def test_a_new_generation_replaces_the_old_one_at_once(url, name):
    first = PgVectorIndex.build(url, name, VECTORS, "exact")
    with first, PgVectorIndex.build(url, name, -VECTORS[:100], "exact") as second:
        assert second.is_current() and not first.is_current()
        same(first.search(QUERIES, 5), EXACT.search(QUERIES, 5))  # as it was opened, until it is closed
        with PgVectorIndex.open(url, name) as now:
            assert now.about == second.about
            same(now.search(QUERIES, 5), ExactIndex(-VECTORS[:100]).search(QUERIES, 5))
        with PgVectorIndex.build(url, name, VECTORS, "exact", keep=0):
            for stale in (first, second):
                with pytest.raises(NotFound, match="has been removed"):
                    stale.search(QUERIES, 5)
                with pytest.raises(NotFound, match="has been removed"):
                    stale.extend(VECTORS)
                with pytest.raises(NotFound, match="has been removed"):
                    stale.refresh()


def tables(url):
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        found = connection.execute("select relname from pg_class where relname like 'tastemaker%'").fetchall()
        return sorted(row[0] for row in found)


def test_a_build_that_fails_leaves_nothing(url, name, monkeypatch):
    with PgVectorIndex.build(url, name, VECTORS, "exact") as index:
        before = tables(url)

        def fail(*_):
            raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(home, "analyse", fail)  # the last step: vectors and graph are there
            with pytest.raises(RuntimeError, match="power cut"):
                PgVectorIndex.build(url, name, VECTORS[:200])
        assert tables(url) == before and index.is_current()
        damaged = VECTORS.copy()
        damaged[70, 1] = np.nan
        with pytest.raises(UsageError, match="row 70"):
            PgVectorIndex.build(url, name, damaged)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "resize", fail)
            with pytest.raises(RuntimeError, match="power cut"):
                index.extend(VECTORS)
        same(index.search(QUERIES, 5), EXACT.search(QUERIES, 5))
        assert index.refresh() == N


def test_vectors_are_read_in_blocks_from_a_file(url, name, tmp_path, monkeypatch):
    mapped = np.memmap(tmp_path / "vectors", dtype=np.float32, mode="w+", shape=VECTORS.shape)
    mapped[:] = VECTORS
    monkeypatch.setattr(home, "BLOCK", 700)
    with PgVectorIndex.build(url, name, mapped, "exact") as index:
        same(index.search(QUERIES, 20), EXACT.search(QUERIES, 20))
        index.extend(mapped)
        twice = ExactIndex(np.concatenate([VECTORS, VECTORS]))
        same(index.search(QUERIES[:20], 20), twice.search(QUERIES[:20], 20))


def test_searches_go_on_while_items_are_appended_and_generations_change(url, name):
    with PgVectorIndex.build(url, name, VECTORS, "exact") as index, PgVectorIndex.open(url, name) as writer:
        wanted = EXACT.search(QUERIES[:20], 5)

        def search(part):
            for _ in range(5):
                same(index.search(QUERIES[:part], 5), (wanted[0][:part], wanted[1][:part]))
            return True

        with ThreadPoolExecutor(4) as pool:
            searching = [pool.submit(search, part) for part in (3, 20, 3, 20)]
            writer.extend(VECTORS[:700])
            PgVectorIndex.build(url, name, VECTORS[:50], "exact").close()
            assert all(future.result() for future in searching)
        with PgVectorIndex.open(url, name) as now:
            assert len(now) == 50


def test_dropping_removes_every_generation(url, name):
    before = tables(url)
    for _ in range(3):
        PgVectorIndex.build(url, name, VECTORS[:9]).close()
    assert len(tables(url)) > len(before)
    PgVectorIndex.drop(url, name)
    assert tables(url) == before
    for gone in (PgVectorIndex.open, PgVectorIndex.drop):
        with pytest.raises(NotFound, match="has no index"):
            gone(url, name)


# -- the database


def test_vectors_are_stored_as_the_extension_itself_reads_them(exact, graph, url):
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
        register_vector(connection)
        for index in (exact, graph):
            ask = f"select number, vector from {index.about.table} where number % 100 = 7 order by number"
            rows = connection.execute(ask).fetchall()
            assert [row[0] for row in rows] == list(range(7, N, 100))
            read = np.stack([row[1].to_numpy() for row in rows])
            np.testing.assert_array_equal(read[:, :D], VECTORS[7::100])
        np.testing.assert_allclose(np.linalg.norm(read, axis=1), EXACT.longest, rtol=1e-5)  # the graph's are lifted


def test_settings_do_not_outlive_a_search(graph):
    graph.search(QUERIES[:3], 5)
    with graph._database.reading.connect() as connection:
        raw = connection.connection.driver_connection
        assert [raw.execute(f"show {name}").fetchone()[0] for name in ("enable_seqscan", "enable_sort")] == ["on"] * 2
        assert raw.execute("show hnsw.ef_search").fetchone()[0] == "40"


def test_connections_that_the_server_closed_are_replaced(graph, url):
    import psycopg

    plain = url.replace("postgresql+psycopg", "postgresql")
    doomed = f"{plain}{'&' if '?' in plain else '?'}application_name=doomed"
    with PgVectorIndex.open(doomed, "graph") as index, psycopg.connect(plain, autocommit=True) as other:
        same(index.search(QUERIES, 5), graph.search(QUERIES, 5))  # by several connections, perhaps
        end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'doomed'"
        assert other.execute(end).fetchall()
        same(index.search(QUERIES, 5), graph.search(QUERIES, 5))


def test_who_may_not_make_the_extension_is_told_who_may(url):
    import psycopg

    plain = url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(plain, autocommit=True) as owner:
        owner.execute("create database bare")
        owner.execute("create role visitor login")
        owner.execute("grant create on database bare to visitor")
        try:
            at = psycopg.conninfo.conninfo_to_dict(plain)
            where = f"host={at['host']}" + (f"&port={at['port']}" if "port" in at else "")
            visitor = f"postgresql://visitor:secret@/bare?{where}"
            with pytest.raises(TastemakerError, match="extension") as caught:
                PgVectorIndex.build(visitor, "x", VECTORS[:3])
            assert isinstance(caught.value, ConfigError) and "administrator" in caught.value.hint
            assert "secret" not in str(caught.value)
            with pytest.raises(NotFound, match="has no index 'x'"):
                PgVectorIndex.open(visitor, "x")
        finally:
            owner.execute("drop database bare with (force)")
            owner.execute("drop role visitor")


def test_addresses_that_lead_nowhere(url):
    with pytest.raises(UsageError, match=r"begins with postgresql://, got sqlite"):
        PgVectorIndex.open("sqlite:///x.db", "x")
    with pytest.raises(UsageError, match="not of the form"):
        PgVectorIndex.open("nonsense", "x")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        PgVectorIndex.open("postgresql://u:secret@127.0.0.1:1/d", "x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "A", "a b", 'a"; drop table x; --', "é", "-a", "a" * 64, "a\n", None])
def test_names_are_plain(url, bad):
    for call in (PgVectorIndex.open, PgVectorIndex.drop, lambda u, n: PgVectorIndex.build(u, n, VECTORS[:3])):
        with pytest.raises(UsageError, match="an index is named by"):
            call(url, bad)


def test_the_nearest_name_is_offered(url, graph):
    with pytest.raises(NotFound, match="did you mean 'graph'"):
        PgVectorIndex.open(url, "graf")


def test_settings_are_checked(url):
    for arguments, message in [
        ({"kind": "ivf"}, "hnsw, exact"),
        ({"width": 0}, "width is 1 to 1000"),
        ({"links": 1}, "links are 2 to 100"),
        ({"links": 16, "build_width": 20}, "at least twice"),
        ({"linkz": 16}, "did you mean 'links'"),
        ({"keep": -1}, "keep is 0 or more"),
        ({"kind": "exact", "half": True}, "half is a setting of the graph"),
    ]:
        with pytest.raises(UsageError, match=message):
            PgVectorIndex.build(url, "x", VECTORS[:3], **arguments)
    for shape in ((3,), (3, 0), (2, 2, 2)):
        with pytest.raises(UsageError, match=r"vectors must be \[n, D\]"):
            PgVectorIndex.build(url, "x", np.zeros(shape))


@pytest.mark.parametrize(
    ("dim", "kind", "version", "half"),
    [
        (1999, "hnsw", (0, 6, 2), False),
        (2000, "hnsw", (0, 7, 0), True),
        (3999, "hnsw", (0, 8), True),
        (16_000, "exact", (0, 4), False),
    ],
)
def test_long_vectors_are_indexed_in_half_precision(dim, kind, version, half):
    assert home._fitting(dim, 1.0, kind, False, version) is half


@pytest.mark.parametrize(
    ("dim", "kind", "version", "error", "message"),
    [
        (2000, "hnsw", (0, 6, 2), ConfigError, "pgvector 0.6.2 builds graphs in single precision"),
        (4000, "hnsw", (0, 8), UsageError, "up to 3,999"),
        (16_001, "exact", (0, 8), UsageError, "up to 16,000"),
        (8, "hnsw", (0, 4, 4), ConfigError, "builds no graphs"),
    ],
)
def test_vectors_too_long_are_refused(dim, kind, version, error, message):
    with pytest.raises(error, match=message):
        home._fitting(dim, 1.0, kind, False, version)
