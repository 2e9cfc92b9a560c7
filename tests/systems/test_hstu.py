"""HSTU: its formulas written out, candidates in micro-batches against one by one, times and order that matter."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tastemaker.contracts import Train, find
from tastemaker.data.build import build
from tastemaker.data.splits import split
from tastemaker.evaluate import evaluate
from tastemaker.feeds import tensors
from tastemaker.feeds.sequences import Sequences
from tastemaker.nn.jagged_attention import Sight
from tastemaker.nn.ragged import Layout
from tastemaker.train import fit
from tastemaker.types import CapabilityError, Columns, ConfigError, Dataset, Jagged, Requests, Schema, make_config

N_ITEMS = 40
SECOND, DAY = 1_000_000, 86_400_000_000
NEXT, OTHER = (np.random.default_rng(seed).permutation(N_ITEMS) for seed in (4, 5))
"""The item that follows each item soon, and the one that follows it late."""


def walks(n_users: int = 250, length: int = 12, late: float = 0.5) -> Dataset:
    """What follows an item depends on it and on whether it follows within a minute or days later."""
    rng = np.random.default_rng(0)
    items, times = [rng.integers(0, N_ITEMS, n_users)], [rng.integers(0, 10**9, n_users) * SECOND]
    for _ in range(length - 1):
        days = rng.random(n_users) < late
        items.append(np.where(days, OTHER[items[-1]], NEXT[items[-1]]))
        times.append(
            times[-1] + np.where(days, rng.integers(2, 9, n_users) * DAY, rng.integers(1, 60, n_users) * SECOND)
        )
    events = pl.DataFrame(
        {"user": np.tile(np.arange(n_users), length), "item": np.concatenate(items), "time": np.concatenate(times)}
    )
    users, catalogue = pl.DataFrame({"user": np.arange(n_users)}), pl.DataFrame({"item": np.arange(N_ITEMS)})
    return build("walks", events, users, catalogue, time_unit="us")


def made(seed: int = 0, unit: Any = "us", **config: Any) -> Any:
    """A system with weights of some size, in evaluation."""
    info = find("hstu")
    torch.manual_seed(seed)
    settings = {"dim": 8, "max_len": 6, "dropout": 0.0, "rank_every": 2, "rank_negatives": 3, **config}
    system = info.cls(make_config(info.config, settings), Schema(3, N_ITEMS, time_unit=unit))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        system.log_q.copy_(torch.log_softmax(torch.randn(N_ITEMS), dim=0))
    return system.eval()


def stage_of(system: Any, data: Dataset) -> Train:
    stage = next(system.program(data))
    assert isinstance(stage, Train)
    return stage


def first_batch(stage: Train) -> Sequences:
    stage.feed.start(3)
    batch: Sequences = tensors(stage.feed.batch(0, 0), "cpu")
    return batch


def asking(histories: list[list[int]], seed: int = 0) -> Requests:
    """Requests with times; who asks does so some time after the last event."""
    rng = np.random.default_rng(seed)
    rows = Jagged.from_lists(histories, dtype=np.int32)
    times = rng.integers(0, 10**9, len(rows))[rows.rows] * SECOND + np.arange(len(rows.values)) * 777 * SECOND
    last = np.array([row.max(initial=0) for row in Jagged(times, rows.offsets)], dtype=np.int64)
    now = last + rng.integers(0, 10**7, len(rows)) * SECOND
    return Requests(len(rows), history=Jagged(Columns(item=rows.values, time=times), rows.offsets), now=now)


HISTORIES = [[3, 1, 4], [1], [], list(range(20)), [9, 8, 7, 6, 5, 4], [2, 2]]


# -- the formulas


def plain_layers(system: Any, x: Tensor, told: list[int], asked: list[int]) -> Tensor:
    """One sequence [n, D] through the layers, pair by pair."""
    heads, n = system.config.n_heads, len(x)

    def normed(y: Tensor) -> Tensor:
        y = y - y.mean(dim=1, keepdim=True)
        return y / torch.sqrt(y.square().mean(dim=1, keepdim=True) + 1e-6)

    for layer in system.layers:
        made = normed(x) @ layer.inward.weight.T
        gate, value, query, key = (made / (1 + torch.exp(-made))).chunk(4, dim=1)
        seen = torch.zeros_like(x)
        for part in torch.arange(x.shape[1]).chunk(heads):
            for i in range(n):
                for j in range(i + 1):
                    score = query[i, part] @ key[j, part] + layer.positions[i - j]
                    if layer.times is not None:
                        seconds = max(1, abs(asked[i] - told[j]))
                        score = score + layer.times[math.floor(math.log(seconds) / 0.301)]
                    weight = score / (1 + torch.exp(-score)) / (system.config.max_len + 1)
                    seen[i, part] = seen[i, part] + weight * value[j, part]
        x = x + (gate * normed(seen)) @ layer.outward.weight.T + layer.outward.bias
    return x


def seconds(times: Tensor | None, n: int) -> list[int]:
    return [0] * n if times is None else [t // SECOND for t in times.tolist()]


def plain_states(system: Any, batch: Sequences) -> list[Tensor]:
    out = []
    for a, b in pairwise(batch.offsets.tolist()):
        x = system.table.weight[batch.items[a:b]] * math.sqrt(8) + system.positions.weight[: b - a]
        told, asked = (None if t is None else t[a:b] for t in (batch.times, batch.asked))
        out.append(plain_layers(system, x, seconds(told, b - a), seconds(asked, b - a)))
    return out


@pytest.mark.parametrize("unit", ["us", "step"])
@pytest.mark.parametrize("loss", ["sampled", "softmax"])
def test_first_losses_equal_a_plain_implementation(unit: Any, loss: str) -> None:
    system = made(unit=unit, loss=loss, negatives=5, rank_weight=0.0, temperature=0.2)
    data = walks(12, 5)
    if unit == "step":
        data = replace(data, time_unit="step")
    stage = stage_of(system, data)
    batch = first_batch(stage)
    assert (batch.times is None) == (unit == "step")
    found = stage.objective(stage.gather(batch), batch)
    unit_vectors = F.normalize(system.table.weight[:N_ITEMS], dim=1)
    scores = F.normalize(torch.cat(plain_states(system, batch)), dim=1) @ unit_vectors.T / 0.2
    expected = []
    for row, target in zip(scores, batch.targets.tolist(), strict=True):
        others = range(N_ITEMS) if loss == "softmax" else batch.negatives.tolist()
        total = row[target].exp() + sum(row[j].exp() for j in others if j != target)
        expected.append(total.log() - row[target])
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_an_event_is_told_from_those_before_it() -> None:
    """What is read, when, and what follows it: labels that slip by one would be caught here."""
    data = walks(9, 5)
    stage = stage_of(made(), data)
    batch = first_batch(stage)
    histories = data.histories(("item", "time"))
    for row, (a, b) in enumerate(pairwise(batch.offsets.tolist())):
        whole = histories[int(batch.users[row])]
        assert batch.items[a:b].tolist() == [N_ITEMS, *whole["item"][:-1]]
        assert batch.targets[a:b].tolist() == whole["item"].tolist()
        assert batch.asked[a:b].tolist() == whole["time"].tolist()
        assert batch.times[a:b].tolist() == [whole["time"][0], *whole["time"][:-1]]


# -- candidates


def one_by_one(system: Any, requests: Requests, items: np.ndarray[Any, Any]) -> Tensor:
    """Each candidate as the last event of a sequence of its own, read whole."""
    out = torch.zeros(items.shape, dtype=torch.float64)
    history = requests.history
    assert history is not None and requests.now is not None
    for b in range(requests.n):
        row = history[b]
        kept = slice(max(0, len(row["item"]) - system.config.max_len), None)
        read, times = row["item"][kept].tolist(), row["time"][kept].tolist()
        now = int(requests.now[b])
        told = [times[0] if times else now, *times, now]
        asked = [*told[1:-1], now, now] if system.config.clock == "asked" else told
        if system.config.clock == "event":
            told[-1] = asked[-1] = told[-2]
        clocks = [torch.tensor(t) // SECOND for t in (asked, told)] if system.timed else [None, None]
        n = len(read) + 1
        columns = torch.arange(n + 1)
        sight = Sight.causal(torch.tensor([0, n + 1]), columns, *clocks)
        before = system.table.weight[[N_ITEMS, *read]] * math.sqrt(8) + system.positions.weight[:n]
        for c, item in enumerate(items[b]):
            last = system.candidates(system.table.weight[[int(item)]], torch.tensor([n]))
            x = torch.cat([before, last])
            for layer in system.layers:
                x, _ = layer(x, sight)
            own = system.table.weight[int(item)]
            out[b, c] = system.odds(x[None, -1:], own.view(1, 1, -1), x[-2:-1]).squeeze() + system.log_q[int(item)]
    return out


@pytest.mark.parametrize("clock", ["asked", "event"])
@pytest.mark.parametrize(("unit", "micro_batch"), [("us", 1), ("us", 4), ("us", 64), ("step", 5)])
def test_micro_batches_equal_candidates_one_by_one(unit: Any, micro_batch: int, clock: str) -> None:
    system = made(unit=unit, micro_batch=micro_batch, clock=clock).double()
    requests = asking(HISTORIES)
    items = np.random.default_rng(1).integers(0, N_ITEMS, (len(HISTORIES), 11))
    expected = one_by_one(system, requests, items)
    torch.testing.assert_close(system.score(requests, items), expected, rtol=0, atol=1e-12)
    assert expected.std() > 0.1, "or the scores say nothing"
    whole = system.score(requests)
    torch.testing.assert_close(whole.gather(1, torch.from_numpy(items)), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(system.predict(requests, items)[..., 0], expected.clamp(max=0).exp())


def test_a_score_does_not_depend_on_other_candidates() -> None:
    system, requests = made().double(), asking(HISTORIES)
    items = np.random.default_rng(1).integers(0, N_ITEMS, (len(HISTORIES), 8))
    before = system.score(requests, items)
    items[:, 5] = (items[:, 5] + 1) % N_ITEMS
    moved = (system.score(requests, items) - before).abs() > 0
    assert moved[:, 5].all() and not moved[:, :5].any() and not moved[:, 6:].any()


def test_the_ranker_learns_as_it_is_asked() -> None:
    """In training a candidate sees the history up to its place and no further, and has the odds it would be asked for;
    its loss is that of telling what followed from what did not."""
    system, data = made().double(), walks(12, 5)
    stage = stage_of(system, data)
    batch = first_batch(stage)
    read = stage.gather(batch)
    assert read.ranked is not None and len(read.ranked.places) > 10
    loss = stage.objective(read, batch) - stage.objective(read._replace(ranked=None), batch)
    expected = torch.zeros_like(loss)
    histories = data.histories(("item", "time"))
    columns = Layout.of(batch.offsets, batch.longest, len(batch.items)).columns
    for place, numbers in zip(read.ranked.places.tolist(), read.ranked.numbers.tolist(), strict=True):
        row = int(torch.searchsorted(batch.offsets, place, right=True)) - 1
        whole, at = histories[int(batch.users[row])], int(columns[place])
        assert numbers[0] == whole["item"][at]
        past = Columns(item=whole["item"][:at], time=whole["time"][:at])
        asked = Requests(1, history=Jagged(past, np.array([0, at])), now=whole["time"][at : at + 1])
        odds = system.score(asked, np.array([numbers]))[0] - system.log_q[numbers] - math.log(3)
        total = F.softplus(-odds[0]) + F.softplus(odds[1:]).sum()
        expected[place] = 0.3 * 2 * total  # the weight, and that one of two events is ranked
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)


def test_without_its_loss_there_is_no_ranker() -> None:
    system = made(rank_weight=0.0)
    assert not [name for name, _ in system.named_parameters() if "head" in name or name == "open"]
    with pytest.raises(CapabilityError, match="not learnt to rank"):
        system.score(asking(HISTORIES))


# -- what is learnt

SMALL = {"dim": 32, "max_len": 12, "lr": 0.005, "batch_size": 64, "epochs": 30, "every": 10, "rank_weight": 0.0}
RANKS = {"rank_weight": 1.0, "rank_every": 4}


@pytest.fixture(scope="module")
def taught() -> Any:
    parts = split(walks(300, 12), "leave-one-out")
    configs = {"time": {**SMALL, **RANKS}, "position": {**SMALL, "bias": "position"}}
    return parts, {bias: fit("hstu", parts, config) for bias, config in configs.items()}


def test_time_tells_what_order_cannot(taught: Any) -> None:
    """The ablation of the bias for time, where gaps vary and matter."""
    parts, bundles = taught
    found = {bias: evaluate(b, parts, ks=(1,), metrics=["recall"]).value("recall@1") for bias, b in bundles.items()}
    assert found["time"] > 0.9 and found["position"] < 0.75, found


def test_the_ranker_puts_what_follows_first_and_knows_how_likely_it_is(taught: Any) -> None:
    parts, bundles = taught
    cases = parts.cases("test")
    scores = bundles["time"].system.score(cases.requests)
    right = torch.from_numpy(cases.targets.values.astype(np.int64))
    assert (scores.argmax(dim=1) == right).float().mean() > 0.8
    total = scores.exp().sum(dim=1)
    assert 1 / 3 < total.median() < 3, "probabilities of what comes next add up to about 1"


def test_who_does_not_know_the_moment_asked_about_knows_less(taught: Any) -> None:
    parts, bundles = taught
    behind = fit("hstu", parts, {**SMALL, "clock": "event"})
    told = [evaluate(b, parts, ks=(1,), metrics=["recall"]).value("recall@1") for b in (behind, bundles["time"])]
    assert told[0] < 0.75 < 0.9 < told[1]


def test_an_absence_longer_than_any_is_taken_for_the_longest_that_was_learnt(taught: Any) -> None:
    parts, bundles = taught
    system, requests = bundles["time"].system, parts.cases("test").requests
    assert 0 < int(system.longest) < 100 * 86_400
    told = [system.queries(replace(requests, now=requests.now + years * 365 * DAY)) for years in (10, 20)]
    assert torch.equal(*told) and not torch.equal(told[0], system.queries(requests))


# -- what may not matter, and what is answered without


@pytest.mark.parametrize("unit", ["us", "step"])
def test_a_request_is_answered_the_same_among_longer_ones(unit: Any) -> None:
    system = made(unit=unit, max_len=20).double()
    requests = asking(HISTORIES)
    together, scores = system.queries(requests), system.score(requests)
    for row in range(requests.n):
        one = requests.take(slice(row, row + 1))
        torch.testing.assert_close(together[row], system.queries(one)[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(scores[row], system.score(one)[0], rtol=0, atol=1e-12)
    assert torch.allclose(together.norm(dim=1), torch.ones(requests.n, dtype=torch.float64))


def test_a_later_event_does_not_change_what_was_known_before() -> None:
    system = made()
    batch = first_batch(stage_of(system, walks(20, 9)))
    before = system.read(system.table(batch.items), batch).states
    for start, stop in pairwise(batch.offsets.tolist()):
        place = (start + stop) // 2
        items = batch.items.clone()
        items[place] = (items[place] + 1) % N_ITEMS
        moved = (system.read(system.table(items), batch).states - before).abs().amax(dim=1)
        assert (moved[place:stop] > 1e-5).all() and (moved[:place] == 0).all() and (moved[stop:] == 0).all()


def test_only_the_last_known_events_count_and_their_times() -> None:
    system = made(max_len=3)
    items, times = np.array([7, 1, N_ITEMS + 2, 2, -1, 3]), np.array([1, 50, 60, 700, 800, 9000]) * SECOND

    def ask(rows: Any, **more: Any) -> Tensor:
        columns = Columns(item=items[rows], time=times[rows])
        out: Tensor = system.queries(Requests(1, history=Jagged(columns, np.array([0, len(rows)])), **more))[0]
        return out

    known = [1, 3, 5]
    torch.testing.assert_close(ask(range(6)), ask(known))
    torch.testing.assert_close(ask(known), ask(known, now=[9000 * SECOND]), msg="asked right after the last event")
    assert (ask(known) - ask(known, now=[90_000 * SECOND])).abs().max() > 1e-4, "when one asks matters"
    timeless = system.queries(Requests.of_items([[1, 2, 3]]))[0]
    torch.testing.assert_close(timeless, system.queries(Requests.of_items([[1, 2, 3]], now=[77]))[0])
    times[:] = 5
    torch.testing.assert_close(timeless, ask(known), msg="without times all happened at once")


def test_data_with_an_order_and_no_clock_has_no_bias_for_time() -> None:
    assert any("times" in name for name, _ in made().named_parameters())
    assert not any("times" in name for name, _ in made(unit="step").named_parameters())
    assert not any("times" in name for name, _ in made(bias="position").named_parameters())


def test_nothing_asked_or_shared_out_is_answered_with_nothing() -> None:
    system = made()
    none = Requests.of_items([])
    assert system.queries(none).shape == (0, 8) and system.score(none).shape == (0, N_ITEMS)
    stage = stage_of(system, walks(20, 9))
    stage.feed.start(3)
    batch = tensors(stage.feed.batch(0, 0).take(slice(0, 0)), "cpu")
    rows = stage.objective(stage.gather(batch), batch)
    rows.sum().backward()
    assert rows.shape == (0,) and all(p.grad is None or not p.grad.to_dense().any() for p in system.parameters())


def test_heads_that_do_not_share_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 heads"):
        make_config(find("hstu").config, {"n_heads": 3})
