"""TIGER: codes learnt from texts beat planes, and these chance; its answers are those of its log-probabilities."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.contracts import Generates, find
from tastemaker.data import split
from tastemaker.data.build import build
from tastemaker.evaluate import evaluate
from tastemaker.testing import blocks, subject
from tastemaker.train import Bundle, fit
from tastemaker.types import (
    Beam,
    BundleError,
    CapabilityError,
    Dataset,
    Greedy,
    ItemFilter,
    Jagged,
    Requests,
    Sample,
    Samples,
    UsageError,
    make_config,
    request_seeds,
)

SMALL = {**find("tiger").cls.small, "dim": 32, "lr": 0.01}
N_KINDS, OF_KIND, LENGTH, WIDTH = 12, 24, 8, 16


def kinds(n_users: int = 300, seed: int = 0) -> Dataset:
    """Items of 12 kinds, told by their vectors. What follows an item is any item of the next kind: with few events an
    item, only who knows the kinds can tell."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((N_KINDS, WIDTH))
    n_items = N_KINDS * OF_KIND
    vectors = centres[np.arange(n_items) % N_KINDS] + 0.4 * rng.standard_normal((n_items, WIDTH))
    kind = (rng.integers(0, N_KINDS, n_users)[:, None] + np.arange(LENGTH)) % N_KINDS
    items = rng.integers(0, OF_KIND, (n_users, LENGTH)) * N_KINDS + kind
    events = pl.DataFrame(
        {
            "user": np.repeat(np.arange(n_users), LENGTH),
            "item": items.ravel(),
            "time": np.tile(np.arange(LENGTH), n_users),
        }
    )
    table = pl.DataFrame({"item": np.arange(n_items), "vector": vectors.astype(np.float32)})
    return build("kinds", events, pl.DataFrame({"user": np.arange(n_users)}), table, time_unit="step")


def recall(codes: str, **more: Any) -> float:
    parts = split(kinds(), "leave-one-out")
    config = {**SMALL, "codes": codes, "size": 16, "epochs": 6, "every": 6, "groups": 0, "max_len": 4, **more}
    report = evaluate(fit("tiger", parts, config, seed=1), parts, ks=(30,), metrics=["recall"])
    return float(report.value("recall@30"))


def test_learnt_codes_beat_planes_and_planes_beat_chance() -> None:
    found = {codes: recall(codes) for codes in ("kmeans", "lsh", "random")}
    assert found["kmeans"] > found["lsh"] + 0.05 and found["lsh"] > found["random"] + 0.05, found
    assert found["kmeans"] > 0.5, "most of the next kind stands in a list a little longer than a kind"


def test_an_rqvae_and_dealt_out_codes_find_the_kinds_too() -> None:
    config = {"code_epochs": 150, "latent": 8, "code_lr": 0.003, "collisions": "sinkhorn", "levels": 3}
    assert recall("rqvae", **config) > 0.5


@cache
def fitted() -> Bundle:
    return fit("tiger", blocks(), {**SMALL, "epochs": 2}, seed=1, refit=False)


def asked(n: int = 3, **more: Any) -> Requests:
    histories = blocks().histories().column("item").take(slice(0, n))
    return Requests.of_items(histories, users=np.arange(n), seeds=request_seeds(n, 4), **more)


def ruled() -> Requests:
    n_items = blocks().n_items
    allowed = np.random.default_rng(0).random((1, n_items)) < 0.3
    requests = asked()
    return requests.with_(exclude=requests.items(), filter=ItemFilter(allowed, np.array([0, -1, 0])))


def test_it_generates() -> None:
    assert isinstance(fitted().system, Generates)


def test_scores_are_log_probabilities_and_a_wide_search_orders_by_them() -> None:
    system, requests = fitted().system, asked()
    scores = system.score(requests)
    total = np.exp(scores.numpy().astype(np.float64)).sum(axis=1)
    assert (total > 0.1).all() and (total <= 1 + 1e-5).all(), (
        "items hold a part of the probability, never more than all"
    )
    n = blocks().n_items
    slates = system.retrieve(requests, n)
    for row in range(3):
        np.testing.assert_allclose(slates.scores[row], scores[row][slates.items[row]], rtol=1e-4, atol=1e-4)
    best = system.generate(requests, 5, Beam(n))
    assert np.array_equal(best.slates.items.reshape(3, 5), slates.items[:, :5])
    narrow = system.generate(requests, 1, Greedy())
    codes = system.coded.book.codes[narrow.slates.items.ravel()]
    assert np.array_equal(narrow.tokens.values.reshape(3, -1) - system.coded.book.shifts, codes)


def test_a_greedy_answer_is_the_likeliest_code_at_each_step() -> None:
    system, requests = fitted().system, asked()
    item = int(system.generate(requests, 1, Greedy()).slates.items[0, 0])
    scores, codes = system.score(requests.take(slice(0, 1)))[0].double().exp().numpy(), system.coded.book.codes
    at = np.arange(len(codes))
    for q in range(codes.shape[1]):
        reading = system._read(requests.take(slice(0, 1)))
        told = reading.logp(torch.from_numpy(codes[at[:1]])[None])[q][0, 0].detach().numpy()
        open_codes = np.unique(codes[at, q])
        at = at[codes[at, q] == open_codes[told[open_codes].argmax()]]
    assert at.tolist() == [item] and scores.shape == (len(codes),)


@pytest.mark.parametrize("decoding", [Beam(), Sample(), Sample(0.7)])
def test_generated_items_are_allowed_and_their_codes_are_theirs(decoding: Any) -> None:
    system, requests, n = fitted().system, ruled(), 6
    samples = system.generate(requests, n, decoding)
    assert requests.exclude is not None and requests.filter is not None
    items = samples.slates.items.reshape(3, n)
    for row in range(3):
        shown = items[row][items[row] >= 0]
        assert len(shown) == n and not np.isin(shown, requests.exclude[row]).any()
        rule = requests.filter.which[row]
        assert rule < 0 or requests.filter.allowed[rule, shown].all()
    tokens = samples.tokens.values.reshape(3 * n, -1) - system.coded.book.shifts
    assert np.array_equal(tokens, system.coded.book.codes[items.ravel()])
    if decoding != Sample(0.7):
        told = system.logp(requests, samples)
        np.testing.assert_allclose(told.detach(), samples.logp.values, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            samples.slates.logp.ravel(), samples.logp.values.reshape(3 * n, -1).sum(1), rtol=1e-5
        )


def test_samples_are_as_frequent_as_told() -> None:
    system, n = fitted().system, 3000
    requests = ruled().take(slice(0, 1))
    samples = system.generate(requests, n, Sample())
    chance = {
        int(i): float(np.exp(p)) for i, p in zip(samples.slates.items[:, 0], samples.slates.logp[:, 0], strict=True)
    }
    counts = Counter(samples.slates.items[:, 0].tolist())
    assert sum(chance.values()) == pytest.approx(1, abs=0.02)
    for item, p in chance.items():
        assert counts[item] / n == pytest.approx(p, abs=4.5 * np.sqrt(p / n))


def test_log_probabilities_teach() -> None:
    system, requests = fitted().system, asked()
    samples = system.generate(requests, 4, Sample())
    system.zero_grad()
    told = system.logp(requests, samples)
    assert len(told) == len(samples.tokens.values)
    told.sum().backward()
    missing = [name for name, p in system.writer.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing and system.writer.tokens.weight.grad.any()
    system.zero_grad()
    wrong = replace(samples, tokens=Jagged(samples.tokens.values + 1, samples.tokens.offsets))
    with pytest.raises(UsageError, match="no item"):
        system.logp(requests, wrong)
    with pytest.raises(UsageError, match="rows of"):
        system.logp(requests, Samples(4))
    with pytest.raises(UsageError, match="Greedy"):
        system.generate(requests, 2, Greedy())


def test_a_new_item_gets_the_codes_of_its_like_and_is_found() -> None:
    bundle = fitted()
    system, old = bundle.system, blocks().n_items
    like = bundle.catalogue.row(7, named=True)
    fresh = pl.DataFrame([{**like, "item": 10_000}], schema=bundle.catalogue.schema)
    larger = system.extend(items=fresh)
    ours, theirs = larger.coded.book, system.coded.book
    assert ours.n_items == old + 1 and np.array_equal(ours.codes[:old], theirs.codes)
    assert np.array_equal(ours.codes[old, :-1], theirs.codes[7, :-1]), "the same words, the same first codes"
    only = asked(candidates=Jagged.from_lists([[old], [old, 3], []], dtype=np.int32))
    assert larger.retrieve(only, 3).items.tolist()[0] == [old, -1, -1]
    assert larger.retrieve(only, 3).lengths.tolist() == [1, 2, 0]
    with pytest.raises(UsageError, match="version 1 of a codebook"):
        larger.logp(only, system.generate(asked(), 2, Beam()))
    with pytest.raises(BundleError):
        system.restore({**system.export(), **larger.coded.book.export()})


def test_reading_each_prefix_apart_learns_too() -> None:
    parts = split(blocks(), "leave-one-out")
    bundle = fit("tiger", parts, {**SMALL, "attention": "full", "epochs": 2, "batch_size": 128}, seed=1)
    found = evaluate(bundle, parts, ks=(10,), metrics=["recall"]).value("recall@10")
    assert found > 2.5 * 10 / parts.data.n_items


def test_no_words_no_codes() -> None:
    bare = replace(blocks(), items=blocks().items.select("item"))
    with pytest.raises(CapabilityError, match="items:text"):
        fit("tiger", bare)


def test_a_run_says_how_its_codes_are_used() -> None:
    facts = fitted().about["facts"]
    assert 0 <= facts["collisions"] <= 1 and 0 < facts["usage 1"] <= 1 and 0 < facts["reconstruction error"] < 1


def test_heads_and_codes_that_do_not_fit_are_refused() -> None:
    config = find("tiger").config
    for wrong in ({"dim": 30, "n_heads": 4}, {"codes": "lsh", "collisions": "sinkhorn"}):
        with pytest.raises(Exception, match="do not fit together"):
            make_config(config, wrong)


def test_default_settings_describe_the_published_shape() -> None:
    coding = find("tiger").config().coding
    assert coding.sizes == (256, 256, 256, 256) and subject("tiger").config["levels"] == 2
