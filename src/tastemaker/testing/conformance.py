"""What every system must survive, whoever wrote it.

    from tastemaker.testing import check
    check("my-system")          # every check, on the synthetic dataset; raises with the list of what failed

or, one test a check, in a test file of your own:

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_system(name): run_check(name, subject("my-system"))
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tastemaker.evaluate import evaluate
from tastemaker.testing import trained
from tastemaker.testing.blocks import blocks, share_of_own_block
from tastemaker.testing.subject import K, Subject, subject
from tastemaker.train import Bundle
from tastemaker.train.bundle import export_state, restore_state
from tastemaker.types import (
    BundleError,
    Columns,
    ConfigError,
    Dataset,
    ItemFilter,
    Jagged,
    Requests,
    Slates,
    TastemakerError,
    config_to_json,
    make_config,
    request_seeds,
    settings,
)


def check_declaration(s: Subject) -> None:
    """The declaration is complete, and every setting has a sentence and a default inside its range."""
    assert s.info.title and s.info.capabilities, "a system has a title and at least one capability"
    assert inspect.getdoc(s.info.cls), "the class says in its docstring what it is"
    for name, (_, about) in settings(s.info.config).items():
        assert about.doc, f"the setting {name} has no sentence"
    defaults = make_config(s.info.config)
    assert make_config(s.info.config, json.loads(json.dumps(config_to_json(defaults)))) == defaults


def check_unknown_setting(s: Subject) -> None:
    """A setting that does not exist is refused by name."""
    try:
        make_config(s.info.config, {"no_such_setting": 1})
    except ConfigError as error:
        named = "no_such_setting" in str(error)
    else:
        raise AssertionError("an unknown setting was accepted")
    assert named, "the refusal does not name the setting"


def check_constructor(s: Subject) -> None:
    """The constructor takes config and schema alone, and leaves global random state alone."""
    s.info.cls(make_config(s.info.config, s.config), s.parts.train.schema)
    assert s.again[1], "training drew from a global stream of random numbers"


def check_lists(s: Subject) -> None:
    """Lists hold no duplicates and no seen item; scores are finite and never rise."""
    requests = s.requests()
    slates = s.answer(requests)
    assert requests.exclude is not None
    for row, scores, seen in zip(slates.items, slates.scores, requests.exclude, strict=True):
        items = row[row >= 0]
        assert len(items) == len(set(items.tolist())), "an item stands in a list twice"
        assert not np.isin(items, seen).any(), "an excluded item was shown"
        assert np.isfinite(scores[row >= 0]).all(), "a score is not finite"
        assert (np.diff(scores[row >= 0]) <= 0).all(), "scores rise down the list"
    assert len(s.answer(requests.take(slice(0, 0)))) == 0, "no requests, no lists"


def check_batch_equals_single(s: Subject) -> None:
    """A request is answered the same alone as among others, in any order."""
    requests = s.requests(25)
    whole = s.answer(requests)
    order = np.random.default_rng(0).permutation(requests.n)
    shuffled = s.answer(requests.take(order))
    _alike(whole.take(order), shuffled, "the order of requests matters")
    for row in range(0, requests.n, 5):
        one = slice(row, row + 1)
        _alike(whole.take(one), s.answer(requests.take(one)), "batch differs from single")


def check_candidates(s: Subject) -> None:
    """Only candidates are shown, and fewer candidates than asked for give a short list."""
    requests = s.requests(20)
    rng = np.random.default_rng(1)
    rows = [rng.choice(s.bundle.schema.n_items, size, replace=False) for size in rng.integers(0, 30, requests.n)]
    given = Jagged.from_lists(rows, dtype=np.int32)
    slates = s.answer(requests.with_(candidates=given, exclude=None))
    for row, allowed in zip(slates.items, given, strict=True):
        shown = row[row >= 0]
        assert np.isin(shown, allowed).all(), "an item was shown that is no candidate"
        assert len(shown) == min(K, len(allowed)), "candidates are missing from a list they fit in"


def check_filter(s: Subject) -> None:
    """Only items that the filter allows are shown."""
    requests = s.requests(20)
    allowed = np.random.default_rng(2).random((2, s.bundle.schema.n_items)) < 0.1
    which = np.arange(requests.n, dtype=np.int32) % 3 - 1
    slates = s.answer(requests.with_(filter=ItemFilter(allowed, which)))
    for row, rule in zip(slates.items, which, strict=True):
        shown = row[row >= 0]
        assert rule < 0 or allowed[rule, shown].all(), "an item was shown that the filter forbids"


def check_short_lists(s: Subject) -> None:
    """Asking for more than the catalogue gives all of it, then -1."""
    requests = s.requests(3)
    n = s.bundle.schema.n_items
    slates = s.answer(requests, n + 5)
    assert requests.exclude is not None
    expected = n - np.array([len(np.unique(row)) for row in requests.exclude])
    assert slates.k == n + 5
    assert np.array_equal(slates.lengths, expected), "a full list does not hold the whole catalogue"


def check_deterministic(s: Subject) -> None:
    """Same data, settings and seed: the same state to the bit, and the same answers."""
    again, _ = s.again
    ours, theirs = export_state(s.bundle.system), export_state(again.system)
    assert set(ours) == set(theirs)
    for name in ours:
        assert np.array_equal(ours[name], theirs[name], equal_nan=True), f"{name} differs between two runs"
    requests = s.requests()
    _same(s.answer(requests), again.retriever.retrieve(requests, K), "two runs answer differently")


def check_strangers(s: Subject) -> None:
    """Unknown users, unknown items and empty histories are answered as declared, without an error."""
    n = s.bundle.schema.n_items
    users = np.full(3, -1, dtype=np.int32)
    items = Jagged(np.array([-1, 0, -1, n - 1], dtype=np.int32), np.array([0, 0, 2, 4]))
    columns = {"item": items.values}
    if s.data.has_time:
        columns["time"] = np.zeros(4, dtype=np.int64)
    history = Jagged(Columns(columns), items.offsets)
    slates = s.answer(Requests(3, users=users, history=history, seeds=request_seeds(3, 0)))
    assert (slates.lengths == K).all(), "a stranger gets a full list too"
    assert np.isfinite(slates.scores).all()


def check_score_of_items(s: Subject) -> None:
    """`score` of given items equals the same entries of the whole row."""
    system = s.bundle.system
    if not hasattr(system, "score"):
        return
    requests = s.requests(10)
    rows = np.asarray(system.score(requests, None))
    assert rows.shape == (requests.n, s.bundle.schema.n_items) and np.isfinite(rows).all()
    items = np.random.default_rng(3).integers(0, s.bundle.schema.n_items, (requests.n, 7)).astype(np.int32)
    np.testing.assert_allclose(
        np.asarray(system.score(requests, items)), np.take_along_axis(rows, items, 1), rtol=1e-5, atol=1e-6
    )


def check_planted_structure(s: Subject) -> None:
    """What was learnt finds held-out items far better than chance does."""
    if not s.info.learns_from:
        return  # it learns from nothing, so there is nothing to find
    report = evaluate(s.bundle, s.parts, ks=(K,))
    chance = K / s.bundle.schema.n_items
    found = report.value(f"recall@{K}")
    assert found > 1.5 * chance, f"recall@{K} {found:.3f} is no better than chance ({chance:.3f})"


def check_blocks(s: Subject) -> None:
    """Where users keep to a block of items, all as popular, recommendations come from the user's own block."""
    data = blocks()
    if not s.info.needs & {"users", "history"} or s.info.missing_from(data):
        return  # the same for everybody, or it learns from more than the blocks have
    other = subject(s.info.name, s.config, data=data)
    requests = other.cases.requests
    assert requests.users is not None
    share = share_of_own_block(data, other.answer(requests), requests.users)
    assert share > 0.8, f"{share:.0%} of what is recommended lies in the user's own block, a quarter would by chance"


def check_round_trip(s: Subject) -> None:
    """Exported and restored into a fresh system, it answers the same."""
    fresh = s.info.cls(make_config(s.info.config, s.config), s.parts.train.schema)
    restore_state(fresh, {name: array.copy() for name, array in export_state(s.bundle.system).items()})
    other = Bundle(fresh, s.info, s.bundle.config, s.bundle.schema, s.bundle.users, s.bundle.catalogue)
    requests = s.requests()
    _same(s.answer(requests), other.retriever.retrieve(requests, K), "restored state answers differently")


def check_wrong_state(s: Subject) -> None:
    """Weights that do not fit the schema are refused: a bundle may come from a stranger."""
    state = export_state(s.bundle.system)
    if not state:
        return
    from dataclasses import replace

    schema = s.parts.train.schema
    larger = replace(schema, n_items=schema.n_items + 3, n_users=schema.n_users + 3)
    stranger = s.info.cls(make_config(s.info.config, s.config), larger)
    try:
        restore_state(stranger, state)
    except BundleError:
        return
    raise AssertionError("weights of another catalogue's size were accepted")


def check_extend(s: Subject) -> None:
    """New items join, and the scores of old ones stay as they were."""
    system = s.bundle.system
    if not hasattr(system, "extend"):
        return
    more = s.bundle.catalogue.tail(5)
    larger = system.extend(items=more)
    requests = s.requests(10)
    old = s.bundle.schema.n_items
    if hasattr(system, "items"):
        assert np.array_equal(np.asarray(larger.items())[:old], np.asarray(system.items()))
    else:
        assert np.array_equal(
            np.asarray(larger.score(requests, None))[:, :old], np.asarray(system.score(requests, None))
        )


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): function
    for name, function in [*globals().items(), *vars(trained).items()]
    if name.startswith("check_")
}


def run_check(name: str, on: Subject) -> None:
    """Run one check of `CHECKS`; AssertionError says what broke."""
    CHECKS[name](on)


def check(name: str, config: Mapping[str, Any] | None = None, *, data: Dataset | None = None) -> None:
    """Run every check on a system, its bundle opened in a fresh process too; raise with all that failed."""
    on = subject(name, config, data=data)
    failed: list[str] = []
    for title, function in CHECKS.items():
        try:
            function(on)
        except (AssertionError, TastemakerError) as error:
            failed.append(f"{title}: {error}")
    try:
        check_fresh_process([on])
    except AssertionError as error:
        failed.append(f"fresh_process: {error}")
    if failed:
        raise AssertionError(f"{name} fails {len(failed)} checks:\n  " + "\n  ".join(failed))


def check_fresh_process(subjects: Iterable[Subject]) -> None:
    """Bundles opened in a process of their own, without the dataset, answer to the bit as they did here."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for on in subjects:
            on.bundle.save(root / on.info.name)
            asked = on.bundle.users.series.head(10).to_list()
            on.bundle.recommend(asked, k=K).write_parquet(root / f"{on.info.name}.parquet")
            (root / f"{on.info.name}.json").write_text(json.dumps(asked))
        done = subprocess.run(
            [sys.executable, "-c", _FRESH, str(root), str(K)], capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]


_FRESH = """
import json, sys
from pathlib import Path
import polars as pl
from tastemaker.train import Bundle
for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
    asked = json.loads(folder.with_suffix(".json").read_text())
    got = Bundle.load(folder).recommend(asked, k=int(sys.argv[2]))
    assert got.equals(pl.read_parquet(folder.with_suffix(".parquet"))), f"{folder.name} answers differently"
"""


def _alike(left: Slates, right: Slates, otherwise: str) -> None:
    """The same lists, but for what rounding of a product of another shape can do: swap items all but tied."""
    assert np.allclose(left.scores, right.scores, rtol=1e-4, atol=1e-5), otherwise
    for row, column in zip(*np.nonzero(left.items != right.items), strict=True):
        near = np.abs(left.scores[row] - left.scores[row, column]) <= 1e-5 + 1e-4 * abs(left.scores[row, column])
        last = column == left.k - 1 or near[-1]
        assert last or right.items[row, column] in left.items[row, near], otherwise


def _same(left: Slates, right: Slates, otherwise: str) -> None:
    assert np.array_equal(left.items, right.items) and np.array_equal(left.scores, right.scores), otherwise
