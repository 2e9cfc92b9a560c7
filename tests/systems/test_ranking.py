"""The ranking room: parity with NumPy, what each mechanism is for, context and candidates, behind a retriever."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tastemaker.compose import fit_pipeline
from tastemaker.contracts import Predicts, find
from tastemaker.data import build, split
from tastemaker.evaluate import pointwise
from tastemaker.feeds import tensors
from tastemaker.testing import blocks
from tastemaker.train import Bundle, fit
from tastemaker.types import Columns, Dataset, Jagged, Requests, Split

SYSTEMS = ("fm", "dnn", "deepfm", "dcnv2", "mmoe", "din", "infnet")
QUICK: dict[str, Any] = {"dim": 8, "epochs": 8, "batch_size": 128, "lr": 0.02, "every": 8}


def world(rule: Any, *, n: int = 2000, seed: int = 0, **columns: Any) -> Dataset:
    """Shown items that are taken exactly where `rule` says so, each list of one."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 30, n), rng.integers(0, 24, n)
    context = {name: draw(rng, n) for name, draw in columns.items()}
    taken = rule(users, items, **context)
    frame = pl.DataFrame(
        {
            "user": users,
            "item": items,
            "kind": np.where(taken, "click", "impression"),
            "value": np.where(taken, 1.0 + users % 5, np.nan),
            "split": rng.choice(["train", "test"], n, p=[0.8, 0.2]),
            **context,
        }
    ).with_columns(pl.col("value").fill_nan(None))
    genres = pl.DataFrame({"item": np.arange(24), "genre": [f"g{i % 4}" for i in range(24)]})
    groups = pl.DataFrame({"user": np.arange(30), "group": [f"u{u % 4}" for u in range(30)]})
    return build("planted", frame, groups, genres)


def when(rng: np.random.Generator, n: int) -> Any:
    return rng.choice(["day", "night"], n)


@cache
def contextual() -> Split:
    """Even items are taken by day, odd ones by night: nothing follows from either alone."""
    return split(world(lambda users, items, when: (items % 2 == 0) == (when == "day"), when=when), "column:split")


@cache
def fitted(name: str, **more: Any) -> Bundle:
    if name == "infnet":
        more = {"n_layers": 1, "residual": False, **more}
    config = {**QUICK, "negatives": 0, "columns": ("events.when", "items.genre", "users.group"), **more}
    return fit(name, contextual().train, config, seed=1, refit=False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_product_of_item_and_context_is_found(name: str) -> None:
    report = pointwise(fitted(name), contextual())
    assert report["auc"] > 0.95 and report["logloss"] < 0.45, f"{report['auc']:.3f}"


@pytest.mark.parametrize("name", SYSTEMS)
def test_candidates_are_answered_in_their_context(name: str) -> None:
    bundle = fitted(name)
    system = bundle.system
    assert isinstance(system, Predicts) and tuple(system.tasks) == ("choice",)
    users, items = np.array([3, 3, -1]), np.array([[0, 1, 2], [0, 1, 2], [-1, 4, 5]], np.int32)
    context = Columns(when=np.array(["day", "night", "day"], dtype=object))
    asked = Requests(3, users=users, context=context, history=Jagged(Columns(item=np.empty(0, np.int32)), np.zeros(4)))
    chances = system.predict(asked, items)
    assert chances.shape == (3, 3, 1) and ((chances >= 0) & (chances <= 1)).all()
    assert chances[0, 0, 0] > chances[0, 1, 0] and chances[1, 0, 0] < chances[1, 1, 0], (
        "what suits turns with the context"
    )
    worth = np.asarray(system.score(asked, items))
    np.testing.assert_allclose(np.exp(worth), np.asarray(chances[:, :, 0]), atol=1e-6)
    listed = bundle.retriever.retrieve(asked.take(slice(0, 2)), 24)
    numbers = bundle.items.ids(listed.items[:, :6].ravel()).to_numpy().reshape(2, 6).astype(int)
    assert (numbers[0] % 2 == 0).mean() > 0.8 and (numbers[1] % 2 == 1).mean() > 0.8


def rows_of(bundle: Bundle, n: int = 40) -> Any:
    batch = bundle.system.reader.feed(contextual().train, n, negatives=0).batch(0, 0)
    return tensors(batch, "cpu")


def test_fm_is_the_sum_over_pairs() -> None:
    system, batch = fitted("fm").system, rows_of(fitted("fm"))
    with torch.no_grad():
        read = system.gather(batch)
        got = system(read, batch)[:, 0].numpy()
    vectors, weights = read.vectors.numpy().astype(np.float64), read.weights.numpy().astype(np.float64)
    n = vectors.shape[1]
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(axis=1) for i in range(n) for j in range(i + 1, n))
    np.testing.assert_allclose(
        got, float(system.bias.detach()) + weights.sum(axis=(1, 2)) + pairs, rtol=1e-4, atol=1e-4
    )


def test_a_cross_layer_is_the_papers_equation() -> None:
    cross = find("dcnv2").cls.program.__globals__["Cross"]
    first, inner = torch.randn(5, 6), torch.randn(5, 6)
    full = cross(6, None, 1)
    by_hand = (
        first.numpy() * (inner.numpy() @ full.full.detach().numpy().T + full.bias.detach().numpy()) + inner.numpy()
    )
    np.testing.assert_allclose(full(first, inner).detach().numpy(), by_hand, rtol=1e-5, atol=1e-6)
    low = cross(6, 2, 1)
    matrix = (low.inward[0] @ low.outward[0]).T
    same = first * (inner @ matrix.T + low.bias) + inner
    torch.testing.assert_close(low(first, inner), same)
    mixed = cross(6, 2, 3)
    with torch.no_grad():
        for name in ("inward", "middle", "outward"):
            getattr(mixed, name).copy_(getattr(mixed, name)[:1].expand(3, -1, -1))
    one = torch.tanh(torch.tanh(inner @ mixed.inward[0]) @ mixed.middle[0]) @ mixed.outward[0]
    torch.testing.assert_close(mixed(first, inner), first * (one + mixed.bias) + inner, rtol=1e-4, atol=1e-5)


def test_gates_of_mmoe_sum_to_one_and_differ_by_task() -> None:
    bundle = fitted("mmoe", tasks=("choice", "value>=4"))
    batch = rows_of(bundle)
    shares = bundle.system.shares(bundle.system.gather(batch)).detach()
    assert shares.shape[1:] == (2, 4)
    torch.testing.assert_close(shares.sum(dim=2), torch.ones(len(batch), 2))
    assert (shares[:, 0] - shares[:, 1]).abs().max() > 0.01, "a gate for each task"


@pytest.mark.parametrize("name", ["fm", "mmoe"])
def test_several_tasks_are_learnt_at_once(name: str) -> None:
    tasks = ("choice", "value>=4", "value")
    bundle = fitted(name, tasks=tasks, lr=0.005, epochs=15, every=15)
    report = pointwise(bundle, contextual())
    assert report["auc[choice]"] > 0.9 and report["auc[value>=4]"] > 0.9, report.values()
    assert report["rmse[value]"] < 0.9, "a plain mean is off by 1.4"


def test_din_weighs_what_is_like_the_item() -> None:
    """By equation: the unit's output times the event, summed over the history, without softmax."""
    bundle = fitted("din")
    system, batch = bundle.system, rows_of(bundle)
    with torch.no_grad():
        read = system.gather(batch)
        got = system.pooled(read, batch)
        places = list(system.reader.fields.item_places)
        for b in (0, 7, 23):
            item = read.tokens[b, places].flatten()
            total = torch.zeros_like(item)
            for event in read.events[batch.offsets[b] : batch.offsets[b + 1]].flatten(1):
                told = torch.cat([event, item, event - item, event * item])
                total += system.unit(told.unsqueeze(0))[0] * event
            torch.testing.assert_close(got[b], total, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def flow() -> Any:
    """INFNet with two blocks and two tasks, and rows with histories."""
    bundle = fit(
        "infnet",
        blocks(40, 24, 5),
        {**QUICK, "epochs": 1, "every": 1, "tasks": ("choice", "kind=purchase"), "negatives": 1, "max_len": 6},
        seed=1,
        refit=False,
    )
    batch = bundle.system.reader.feed(blocks(40, 24, 5), 64, negatives=1).batch(0, 0)
    return bundle.system, tensors(batch, "cpu")


def test_gates_are_between_0_and_1_and_the_same_for_all_tokens(flow: Any) -> None:
    system, batch = flow
    with torch.no_grad():
        begun = system.begun(system.gather(batch), batch)
        gated = system.blocks[0](begun)
    ratio = gated.fields / begun.fields
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=1e-4)


def test_the_order_of_a_history_does_not_matter_to_infnet(flow: Any) -> None:
    from dataclasses import replace

    system, batch = flow
    places = torch.cat(
        [torch.arange(int(low), int(high)).flip(0) for low, high in zip(batch.offsets, batch.offsets[1:], strict=False)]
    )
    turned = replace(batch, history=batch.history[places], marks=batch.marks[places])
    emptied = batch.offsets.new_zeros(len(batch.offsets))
    none = replace(batch, history=batch.history[:0], marks=batch.marks[:0], offsets=emptied, longest=0)
    with torch.no_grad():
        said, again, of_none = (system(system.gather(one), one) for one in (batch, turned, none))
    torch.testing.assert_close(again, said, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(of_none).all(), "an empty history is answered"
    assert not torch.allclose(of_none, said), "a history says something"


def test_attention_without_keys_is_attention() -> None:
    """Keys and values are folded into queries and mixtures: the same as torch's own."""
    attend = find("infnet").cls.program.__globals__["CrossAttention"](8, 2, True)
    plain = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        parts = attend.query.weight, attend.key.weight, attend.value.weight
        plain.in_proj_weight.copy_(torch.cat(parts))
        plain.in_proj_bias.copy_(torch.cat([attend.query.bias, torch.zeros(8), attend.value.bias]))
        plain.out_proj.weight.copy_(attend.out.weight)
        plain.out_proj.bias.copy_(attend.out.bias)
    queries, tokens, filled = torch.randn(3, 4, 8), torch.randn(3, 5, 8), torch.rand(3, 5) < 0.7
    filled[:, 0] = True
    expected, _ = plain(queries, tokens, tokens, key_padding_mask=~filled)
    torch.testing.assert_close(attend(queries, tokens, filled), expected, rtol=1e-4, atol=1e-5)


def sides(n_users: int = 1200, n_groups: int = 6, copies: int = 2, n_asked: int = 6) -> Dataset:
    """Everybody is on one of two sides in each group, as told by one earlier choice in it; what is asked about is liked
    if it is on that side. So of all that is past, the one choice in the item's own group counts."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, (n_users, n_groups))
    order, users = np.argsort(rng.random((n_users, n_groups)), axis=1), np.arange(n_users)
    past = (order * 2 + np.take_along_axis(side, order, axis=1)) * copies + rng.integers(0, copies, order.shape)
    asked = rng.integers(0, n_groups * 2 * copies, (n_users, n_asked))
    group, own = asked // (2 * copies), asked // copies % 2
    value = np.where(side[users[:, None], group] == own, 5.0, 1.0)
    events = pl.DataFrame(
        {
            "user": np.repeat(users, n_groups + n_asked),
            "item": np.concatenate([past, asked], axis=1).ravel(),
            "time": np.tile(np.arange(n_groups + n_asked), n_users),
            "value": np.concatenate([np.full(past.shape, np.nan), value], axis=1).ravel(),
        }
    ).with_columns(pl.col("value").fill_nan(None))
    items = pl.DataFrame({"item": np.arange(n_groups * 2 * copies)}).with_columns(
        group=pl.format("g{}", pl.col("item") // (2 * copies)), side=pl.format("s{}", pl.col("item") // copies % 2)
    )
    kinds: Any = {"items": {"group": "category", "side": "category"}}
    return build("sides", events, pl.DataFrame({"user": users}), items, kinds=kinds, time_unit="step")


@pytest.mark.slow
def test_infnet_finds_the_one_choice_that_counts_by_attention() -> None:
    """The ablation that costs most in the paper: the mean of what is past in the place of attention to it."""
    parts = split(sides(), "leave-one-out")
    config = {"tasks": ("value>=4",), "negatives": 0, "dim": 16, "max_len": 12, "lr": 0.01, "batch_size": 256}
    config |= {"epochs": 25, "every": 25, "columns": ("items.group", "items.side")}
    found = {
        cross: np.mean(
            [pointwise(fit("infnet", parts, {**config, "cross": cross}, seed=s), parts)["auc"] for s in (0, 1)]
        )
        for cross in (True, False)
    }
    assert found[True] > found[False] + 0.05 and found[True] > 0.65, found


@pytest.mark.parametrize("off", ["cross", "gates", "task_tokens", "residual"])
def test_every_part_of_infnet_can_be_taken_away(off: str) -> None:
    """Each ablation learns, and every parameter that is left has a part in it."""
    config = {**QUICK, "epochs": 1, "every": 1, off: False, "tasks": ("choice", "kind=purchase")}
    data = blocks(40, 24, 5)
    info = find("infnet")
    from tastemaker.contracts import Train
    from tastemaker.types import make_config

    system = info.cls(make_config(info.config, config), data.schema)
    program = system.program(data)
    stage = program.send(None)
    stage = program.send(stage.function(*stage.args))
    assert isinstance(stage, Train)
    batch = tensors(stage.feed.batch(0, 0), "cpu")
    stage.objective(stage.gather(batch), batch).mean().backward()
    missed = [name for name, p in system.named_parameters() if p.grad is None]
    assert not missed, f"no gradient came to {missed}"


@pytest.mark.parametrize("name", ["deepfm", "din"])
def test_behind_a_retriever_in_a_pipeline(name: str) -> None:
    """A score stage orders what a retriever found as the ranker does, and answers from user and history."""
    data = blocks(60, 40, 8)
    spec = {
        "name": "ranked",
        "retrieve": [{"system": "popularity", "k": 40}],
        "score": {"system": "ranker"},
        "systems": {"ranker": {"system": name, "settings": {**QUICK, "epochs": 4, "every": 4}}},
    }
    made = fit_pipeline(spec, data)
    requests = Requests.of_users(np.arange(5), history=data.histories(("item",)).take(np.arange(5)))
    slates = made.pipeline.retrieve(requests, 10)
    ranker = made.pipeline.shelf["ranker"].system
    scores = np.asarray(ranker.score(requests, slates.items))
    assert (slates.lengths == 10).all() and (np.diff(scores, axis=1) <= 1e-5).all()
    best = np.sort(np.asarray(ranker.score(requests, None)), axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(scores, best, rtol=1e-4, atol=1e-5)
