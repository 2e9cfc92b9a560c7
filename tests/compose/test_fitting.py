"""Learned blends: what was planted is found, held-back events stay unseen, and a fitted pipeline survives the disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tastemaker.compose import (
    PIPELINE,
    PipelineBundle,
    PipelineError,
    PipelineSpec,
    collect,
    compile,  # noqa: A004
    fit_pipeline,
)
from tastemaker.compose.features import FeatureSchema
from tastemaker.compose.fitting import held_back
from tastemaker.compose.ranker import ListJudge, Lists, Ranker, moments
from tastemaker.contracts import Program, find, system
from tastemaker.data import split, synthetic
from tastemaker.evaluate import evaluate
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    BundleError,
    DataError,
    Dataset,
    NotFound,
    Requests,
    Split,
    State,
    UsageError,
    make_config,
    mix,
    setting,
)

K = 10


@system("half", family="classical", title="Knows half of the users", paper="", needs={"users", "history"})
class Half:
    """Item neighbours for every other user; to the others it says anything, and does not mean it."""

    @dataclass(frozen=True)
    class Config:
        odd: bool = setting(False, "Which half.")

    def __init__(self, config: Config, schema: Any) -> None:
        self.config = config
        self.inner: Any = find("itemknn").cls(make_config(find("itemknn").config), schema)

    def program(self, data: Dataset) -> Program:
        yield from self.inner.program(data)

    def score(self, requests: Requests, items: Any = None) -> Any:
        assert requests.users is not None
        known = np.asarray(self.inner.score(requests, items))
        n = known.shape[1]
        numbers = np.arange(n) if items is None else np.maximum(items, 0)
        noise = mix(requests.users[:, None].astype(np.int64) * 1_000_003 + numbers, 9).astype(np.float64) / 2**64
        mine = (requests.users % 2 == 1) == self.config.odd
        return np.where(mine[:, None], known, noise).astype(np.float32)

    def export(self) -> State:
        return self.inner.export()

    def restore(self, state: State) -> None:
        self.inner.restore(state)


HALVES: dict[str, Any] = {
    "name": "halves",
    "retrieve": [{"system": "even", "k": 50}, {"system": "odd", "k": 50}],
    "blend": {"kind": "learned", "columns": ["year", "popularity"], "hidden": 16, "epochs": 30, "held": 5},
    "systems": {"even": {"system": "half"}, "odd": {"system": "half", "settings": {"odd": True}}},
}

BLEND: Any = PipelineSpec.from_json(HALVES).blend


@pytest.fixture(scope="module")
def world() -> Split:
    return split(synthetic(300, n_items=200, seed=3), "leave-k:5,valid=false")


@pytest.fixture(scope="module")
def halves(world: Split) -> PipelineBundle:
    return fit_pipeline(HALVES, world, seed=1, systems={"half": Half})


def ndcg(system: Any, world: Split) -> float:
    return evaluate(system, world, ks=(K,), metrics=["ndcg"]).value(f"ndcg@{K}")


def test_a_learned_blend_knows_whom_to_believe(halves: PipelineBundle, world: Split) -> None:
    """Each retriever knows half of the users; rank fusion must take the noise with the signal, a ranker need not."""
    fused = compile({**HALVES, "blend": {"kind": "rrf"}}, halves.shelf)
    learned = ndcg(halves.pipeline, world)
    single = max(ndcg(bundle, world) for bundle in halves.shelf.values())
    ideal = ndcg(fit("itemknn", world.train), world)
    assert learned > 1.2 * single and learned > 1.2 * ndcg(fused, world)
    assert learned > 0.8 * ideal, "nearly as good as knowing all users"
    assert halves.about["ranker"]["lists"] > 100


def test_the_same_seed_gives_the_same_pipeline(halves: PipelineBundle, world: Split) -> None:
    again = fit_pipeline(HALVES, world, seed=1, systems={"half": Half})
    assert halves.ranker is not None and again.ranker is not None
    for name, array in halves.ranker.network.state().items():
        np.testing.assert_array_equal(array, again.ranker.network.state()[name])


def test_retrievers_learn_from_the_inner_part_first_and_from_all_of_training_last(world: Split) -> None:
    learnt: list[tuple[str, str]] = []

    class Watched(Half):
        def program(self, data: Dataset) -> Program:
            learnt.append(("odd" if self.config.odd else "even", data.fingerprint))
            yield from super().program(data)

    Watched.__tastemaker__ = replace(Half.__tastemaker__, cls=Watched)  # type: ignore[attr-defined]
    fit_pipeline(HALVES, world, seed=2, systems={"half": Watched})
    inner, whole = held_back(world.train, BLEND, seed=2).train.fingerprint, world.train.fingerprint
    assert learnt == [("even", inner), ("odd", inner), ("even", whole), ("odd", whole)]


def test_retrievers_that_saw_the_held_back_events_are_refused(world: Split, halves: PipelineBundle) -> None:
    spec = PipelineSpec.from_json(HALVES)
    inner = held_back(world.train, BLEND, seed=1)
    early = {key: fit(Half, inner.train, {"odd": key == "odd"}) for key in ("even", "odd")}
    assert len(collect(spec, early, inner, seed=1)) > 100
    leaking = {**early, "odd": halves.shelf["odd"]}
    with pytest.raises(UsageError, match="'odd' did not learn from the split's training part"):
        collect(spec, leaking, inner, seed=1)
    with pytest.raises(UsageError, match="only a learned blend"):
        collect(PipelineSpec.from_json({**HALVES, "blend": {"kind": "rrf"}}), early, inner)


def test_features_say_what_the_lists_said(world: Split) -> None:
    """Features of collected candidates, looked up again in the retrievers' own answers."""
    spec = PipelineSpec.from_json(HALVES)
    inner = held_back(world.train, BLEND, seed=1)
    early = {key: fit(Half, inner.train, {"odd": key == "odd"}) for key in ("even", "odd")}
    lists = collect(spec, early, inner, seed=1)
    names = FeatureSchema((("even", 50), ("odd", 50)), ("year", "popularity")).names
    assert lists.features.shape == (len(lists.labels), len(names))
    by = {name: lists.features[:, n] for n, name in enumerate(names)}
    found = by["even: found"] == 1
    assert 0 < found.mean() < 1 and (by["even: 1/rank"][found] > 0).all() and (by["even: 1/rank"][~found] == 0).all()
    np.testing.assert_allclose(by["even: log rank"][found], -np.log(by["even: 1/rank"][found]), atol=1e-5)
    np.testing.assert_allclose(by["even: log rank"][~found], np.log(51), rtol=1e-6)
    assert (by["even: score"] <= by["even: best score"] + 1e-6).all()
    np.testing.assert_array_equal(by["found by"], by["even: found"] + by["odd: found"])
    counts = np.diff(lists.offsets)
    right = np.add.reduceat(lists.labels, lists.offsets[:-1])
    assert (right >= 1).all() and (counts > right).all() and (counts <= right + 100).all()


def test_too_little_to_learn_from_is_said(world: Split) -> None:
    spec = {**HALVES, "retrieve": [{"system": "even", "k": 1}, {"system": "odd", "k": 1}],
            "filter": [{"kind": "where", "where": "price > 1000"}]}  # fmt: skip
    with pytest.raises(DataError, match="only 0 have a right answer"):
        fit_pipeline(spec, world, systems={"half": Half})


# -- the ranker by itself


def lists_of(n: int, seed: int, hidden_rule: bool = False) -> Lists:
    """Lists in which the right answer has the highest first feature; or the second one where the third is below 0."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, n)
    features = rng.normal(size=(lengths.sum(), 8)).astype(np.float32)
    rows = np.repeat(np.arange(n), lengths)
    if hidden_rule:
        features[:, 2] = rng.normal(size=n).astype(np.float32)[rows]
    key = np.where(hidden_rule & (features[:, 2] < 0), features[:, 1], features[:, 0])
    best = np.lexsort((-key, rows))[np.concatenate([[0], np.cumsum(lengths)[:-1]])]
    labels = np.zeros(len(rows), dtype=np.float32)
    labels[best] = 1
    return Lists.of(features, labels, lengths)


def trained(lists: Lists, hidden: int, epochs: int = 30) -> Ranker:
    from tastemaker.train.engine import run_stage
    from tastemaker.train.run import Hardware, Run

    torch.manual_seed(0)
    ranker = Ranker(make_config(Ranker.Config, {"hidden": hidden, "epochs": epochs}), FeatureSchema((("a", 5),)))
    run = Run(3, system=ranker, name="ranker", judge=ListJudge(lists.take(slice(0, 50))), hardware=Hardware("cpu"))
    program, sent = ranker.program(lists.take(np.arange(50, len(lists)))), None
    while True:
        try:
            sent = run_stage(program.send(sent), run)
        except StopIteration:
            return ranker
        run.stage += 1


def test_a_ranker_finds_the_rule_and_a_hidden_layer_the_condition() -> None:
    easy, hard = lists_of(1200, 0), lists_of(1200, 1, hidden_rule=True)
    assert ListJudge(lists_of(200, 7))(trained(easy, hidden=0), "ndcg@1") > 0.9
    test = ListJudge(lists_of(200, 8, hidden_rule=True))
    assert test(trained(hard, hidden=16), "ndcg@1") > test(trained(hard, hidden=0), "ndcg@1") + 0.1


def test_the_loss_is_the_softmax_over_each_list() -> None:
    lists = lists_of(6, 2)
    lists.features[3, 4] = np.nan
    ranker = Ranker(make_config(Ranker.Config, {"hidden": 4}), FeatureSchema((("a", 5),)))
    for name, values in moments(lists.features).items():
        getattr(ranker, name).copy_(torch.from_numpy(values))
    torch.nn.init.normal_(ranker.linear)
    from tastemaker.feeds import tensors

    batch = tensors(lists, "cpu")
    losses = ranker.objective(ranker.gather(batch), batch).detach().numpy()
    scores = ranker.network().scores(lists.features)
    for b in range(6):
        part = slice(lists.offsets[b], lists.offsets[b + 1])
        shares = np.exp(scores[part]) / np.exp(scores[part]).sum()
        assert losses[b] == pytest.approx(-np.log(shares[lists.labels[part] == 1]).mean(), rel=1e-4)
    ranker.objective(ranker.gather(batch), batch).sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in ranker.parameters())


def test_the_ranker_answers_as_it_was_trained_alone_and_in_a_batch() -> None:
    lists = lists_of(40, 3)
    ranker = trained(lists_of(100, 4), hidden=8, epochs=3)
    network = ranker.network()
    batch = torch.from_numpy(lists.features)
    centred = (torch.nan_to_num(batch - ranker.mean) * ranker.scale).clamp(-10, 10)
    np.testing.assert_allclose(network.scores(lists.features), ranker(centred).detach().numpy(), rtol=1e-4, atol=1e-5)
    whole = network.scores(lists.features)
    for n in range(0, len(whole), 17):
        np.testing.assert_array_equal(network.scores(lists.features[n : n + 1]), whole[n : n + 1])


def test_moments_leave_out_what_says_nothing() -> None:
    values = np.array([[1, 5, np.nan], [3, 5, 2], [5, 5, 4]], dtype=np.float32)
    found = moments(values)
    np.testing.assert_allclose(found["mean"], [3, 5, 3])
    np.testing.assert_allclose(found["scale"], [1 / np.sqrt(8 / 3), 0, 1], rtol=1e-6)


# -- on disk

PLAIN: dict[str, Any] = {
    "name": "plain",
    "retrieve": [{"system": "als", "k": 40}, {"system": "popularity", "k": 20}],
    "blend": {"kind": "learned", "columns": ["price"], "hidden": 4, "epochs": 5},
    "rerank": [{"kind": "mmr", "column": "genres"}],
    "systems": {"als": {"system": "ials", "settings": {"dim": 8}}},
}


@pytest.fixture(scope="module")
def plain(parts: Split) -> PipelineBundle:
    return fit_pipeline(PLAIN, parts, seed=4)


@pytest.fixture
def saved(plain: PipelineBundle, tmp_path: Path) -> Path:
    return plain.save(tmp_path / "pipeline")


def test_loaded_equals_saved(plain: PipelineBundle, saved: Path, parts: Split) -> None:
    loaded = PipelineBundle.load(saved)
    requests = parts.cases("test").requests
    ours, theirs = plain.pipeline.retrieve(requests, K), loaded.pipeline.retrieve(requests, K)
    np.testing.assert_array_equal(ours.items, theirs.items)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert loaded.spec == plain.spec and loaded.about == plain.about and loaded.shelf["als"].config.dim == 8
    assert {p.suffix for p in saved.rglob("*") if p.is_file()} == {".json", ".safetensors", ".parquet"}
    kept = {key: bundle.histories is not None for key, bundle in loaded.shelf.items()}
    assert kept == {"als": True, "popularity": False}, "histories are stored once"
    again = loaded.pipeline.save(saved.parent / "again")
    assert PipelineBundle.load(again).pipeline.recommend(["u00000001"], k=3).height == 3


def test_a_fresh_process_answers_the_same(plain: PipelineBundle, saved: Path) -> None:
    users = plain.pipeline.users.series.head(5).to_list()
    code = (
        "import sys, json; from tastemaker.compose import PipelineBundle\n"
        "table = PipelineBundle.load(sys.argv[1]).pipeline.recommend(json.loads(sys.argv[2]), k=4)\n"
        "assert 'torch' not in sys.modules, 'a trained ranker answers without torch'\n"
        "print(table.write_json())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved), json.dumps(users)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(plain.pipeline.recommend(users, k=4).write_json())


def test_a_spec_can_change_around_what_was_fitted(plain: PipelineBundle) -> None:
    other = plain.with_spec({**PLAIN, "rerank": [{"kind": "cap", "column": "maker", "most": 1}]})
    assert other.ranker is plain.ranker and other.pipeline.recommend(["u00000001"], k=5).height == 5
    with pytest.raises(PipelineError, match=r"trained on als \(40\), popularity \(20\) and price"):
        plain.with_spec({**PLAIN, "retrieve": [{"system": "als", "k": 41}, {"system": "popularity", "k": 20}]})
    with pytest.raises(PipelineError, match="there is no system 'ease'"):
        plain.with_spec({**PLAIN, "score": {"system": "ease"}})


def tampered(saved: Path, change: Any) -> None:
    manifest = json.loads((saved / PIPELINE).read_text())
    change(manifest)
    (saved / PIPELINE).write_text(json.dumps(manifest))


def rehash(saved: Path, arrays: dict[str, Any]) -> None:
    """Another ranker, with a manifest that fits it."""
    save_file(arrays, saved / "ranker.safetensors")
    file = (saved / "ranker.safetensors").read_bytes()
    fresh = {"bytes": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    tampered(saved, lambda m: m["ranker"].update(file=fresh))


def test_what_a_stranger_changed_is_refused(saved: Path, tmp_path: Path) -> None:
    def copy() -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(saved, tmp_path / "copy")
        return tmp_path / "copy"

    with pytest.raises(NotFound, match="there is no pipeline"):
        PipelineBundle.load(tmp_path / "nowhere")
    one = copy()
    (one / "ranker.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BundleError, match="ranker"):
        PipelineBundle.load(one)
    one = copy()
    weights = one / "systems" / "als" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(BundleError, match="weights"):
        PipelineBundle.load(one)
    one = copy()
    manifest = one / "systems" / "als" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"ials"', '"ease"'))
    with pytest.raises(BundleError, match="als is missing or not the bundle"):
        PipelineBundle.load(one)
    one = copy()
    shutil.move(one / "systems" / "als", one / "elsewhere")
    (one / "systems" / "als").symlink_to(one / "elsewhere")
    with pytest.raises(BundleError, match="als is missing"):
        PipelineBundle.load(one)
    for change, said in (
        (lambda m: m.update(format=2), "format 2"),
        (lambda m: m.update(more=1), "describes no pipeline"),
        (lambda m: m["systems"].update({"../als": "0" * 64}), "describes no pipeline"),
        (lambda m: m["spec"].update(pool=0), "pool"),
        (lambda m: m.update(ranker=None), "not trained"),
        (lambda m: m["ranker"].update(columns=["year"]), "trained on"),
    ):
        one = copy()
        tampered(one, change)
        with pytest.raises((BundleError, PipelineError), match=said):
            PipelineBundle.load(one)
    good = load_file(saved / "ranker.safetensors")
    for arrays, said in (
        ({**good, "linear": good["linear"][1:]}, "'linear' must be"),
        ({**good, "outer": np.full_like(good["outer"], np.nan)}, "finite"),
        ({**good, "mean": good["mean"].astype(np.float64)}, "float32"),
        ({k: v for k, v in good.items() if k != "bias"}, "a ranker keeps"),
    ):
        one = copy()
        rehash(one, arrays)
        with pytest.raises(BundleError, match=said):
            PipelineBundle.load(one)


def test_only_bundles_are_stored(shelf: dict[str, Bundle], tmp_path: Path) -> None:
    inner = compile({"name": "inner", "retrieve": [{"system": "ials"}]}, shelf)
    outer = compile({"name": "outer", "retrieve": [{"system": "inner"}]}, {"inner": inner})
    with pytest.raises(UsageError, match="'inner' is a Pipeline"):
        outer.save(tmp_path / "outer")


def test_a_stopped_run_goes_on(parts: Split, tmp_path: Path) -> None:
    spec = {**PLAIN, "retrieve": [{"system": "als", "k": 40}], "blend": {"kind": "rrf"}}
    first = fit_pipeline(spec, parts, seed=4, run=tmp_path / "run")
    assert any((tmp_path / "run" / "whole" / "als").rglob("*.safetensors"))
    again = fit_pipeline(spec, parts, seed=4, run=tmp_path / "run")
    assert again.about["fit"]["cpu_seconds"] < max(1.0, first.about["fit"]["cpu_seconds"])
    np.testing.assert_array_equal(first.shelf["als"].system.items(), again.shelf["als"].system.items())
