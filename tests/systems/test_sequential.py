"""SASRec, GRU4Rec and BERT4Rec: a planted chain, plain re-implementations, no look ahead, no trace of padding."""

from __future__ import annotations

import math
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
from tastemaker.nn import losses
from tastemaker.systems.sequential import gru4rec
from tastemaker.train import fit
from tastemaker.types import CapabilityError, ConfigError, Dataset, Requests, Schema, make_config

N_ITEMS = 40
SYSTEMS = ("sasrec", "gru4rec", "bert4rec")
NEXT = np.random.default_rng(4).permutation(N_ITEMS)
"""The item that follows each item of a chain."""


def chain(n_users: int = 250, length: int = 12) -> Dataset:
    """Every user begins somewhere, and what follows is a function of the last item alone. All items are as popular."""
    successor = np.empty(N_ITEMS, dtype=np.int64)
    successor[NEXT] = np.roll(NEXT, -1)  # one cycle through all items
    rows = [np.random.default_rng(0).integers(0, N_ITEMS, n_users)]
    for _ in range(length - 1):
        rows.append(successor[rows[-1]])
    events = pl.DataFrame(
        {
            "user": np.tile(np.arange(n_users), length),
            "item": np.concatenate(rows),
            "time": np.repeat(np.arange(length), n_users),
        }
    )
    users, items = pl.DataFrame({"user": np.arange(n_users)}), pl.DataFrame({"item": np.arange(N_ITEMS)})
    return build("chain", events, users, items, time_unit="step")


def made(name: str, seed: int = 0, **config: Any) -> Any:
    """A system with weights of some size, in evaluation."""
    info = find(name)
    torch.manual_seed(seed)
    system = info.cls(make_config(info.config, {"dim": 8, "max_len": 6, **config}), Schema(3, N_ITEMS))
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return system.eval()


def stage_of(system: Any, data: Dataset) -> Train:
    stage = next(system.program(data))
    assert isinstance(stage, Train)
    return stage


def first_batch(stage: Train) -> Sequences:
    stage.feed.start(3)
    batch: Sequences = tensors(stage.feed.batch(0, 0), "cpu")
    return batch


# -- what is learnt


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_planted_chain_is_found(name: str) -> None:
    parts = split(chain(), "leave-one-out")
    config = {"dim": 32, "max_len": 10, "lr": 0.005, "batch_size": 50, "epochs": 60, "every": 5, "patience": 2}
    if name == "bert4rec":  # it is told a part of the events, and not the next one
        config |= {"masked": 0.5, "dropout": 0.0, "lr": 0.003, "epochs": 80, "every": 20}
    found = evaluate(fit(name, parts, config), parts, ks=(1,), metrics=["recall"]).value("recall@1")
    assert found > 0.95, f"{name} tells {found:.0%} of the chain"


def test_popularity_does_not_find_the_chain() -> None:
    parts = split(chain(), "leave-one-out")
    assert evaluate(fit("popularity", parts), parts, ks=(1,), metrics=["recall"]).value("recall@1") < 0.2


# -- golden losses: the same formulas, plainly


def attention_blocks(system: Any, x: Tensor, causal: bool) -> Tensor:
    """One sequence [n, D] through the blocks of a system, written out."""
    n, dim = x.shape

    def normed(y: Tensor, norm: Any) -> Tensor:
        y = y - y.mean(dim=1, keepdim=True)
        scaled: Tensor = y / torch.sqrt(y.square().mean(dim=1, keepdim=True) + 1e-5) * norm.weight + norm.bias
        return scaled

    for block in system.encoder.blocks:
        weights, biases = block.attention.inward.weight, block.attention.inward.bias

        def attend(y: Tensor, block: Any = block, weights: Any = weights, biases: Any = biases) -> Tensor:
            query, key, value = (
                y @ weights[k * dim : (k + 1) * dim].T + biases[k * dim : (k + 1) * dim] for k in range(3)
            )
            heads = []
            for part in torch.arange(dim).chunk(block.attention.n_heads):
                scores = torch.zeros(n, n)
                for i in range(n):
                    for j in range(n):
                        seen = j <= i or not causal
                        scores[i, j] = query[i, part] @ key[j, part] / math.sqrt(len(part)) if seen else -math.inf
                shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
                heads.append(shares @ value[:, part])
            out: Tensor = torch.cat(heads, dim=1) @ block.attention.outward.weight.T + block.attention.outward.bias
            return out

        def each(y: Tensor, block: Any = block) -> Tensor:
            inner = y @ block.each[0].weight.T + block.each[0].bias
            inner = inner.clamp(min=0) if causal else inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
            out: Tensor = inner @ block.each[3].weight.T + block.each[3].bias
            return out

        if causal:
            x = x + attend(normed(x, block.first))
            x = x + each(normed(x, block.second))
        else:
            x = normed(x + attend(x), block.first)
            x = normed(x + each(x), block.second)
    return normed(x, system.encoder.final) if causal else x


def sequences(batch: Sequences) -> list[tuple[Tensor, Tensor]]:
    """Items of each sequence, and their places in the batch."""
    bounds = batch.offsets.tolist()
    return [(batch.items[a:b], torch.arange(a, b)) for a, b in pairwise(bounds)]


def plain_states(name: str, system: Any, batch: Sequences) -> Tensor:
    out = []
    for items, _ in sequences(batch):
        n, rows = len(items), system.table.weight[items]
        if name == "sasrec":
            backwards = system.positions.weight[torch.arange(n - 1, -1, -1)]
            out.append(attention_blocks(system, rows * math.sqrt(8) + backwards, causal=True))
        elif name == "bert4rec":
            x = rows + system.positions.weight[torch.arange(n - 1, -1, -1)]
            x = F.layer_norm(x, (8,), system.first.weight, system.first.bias)
            x = attention_blocks(system, x, causal=False) @ system.project.weight.T + system.project.bias
            out.append(x * 0.5 * (1 + torch.erf(x / math.sqrt(2))))
        else:
            state, states = torch.zeros(8), []
            w_in, w_state, b_in, b_state = system.gru._flat_weights
            for row in rows:  # Cho et al., arXiv:1406.1078, with torch's place of the reset gate
                a, b = w_in @ row + b_in, w_state @ state + b_state
                reset, update = torch.sigmoid(a[:8] + b[:8]), torch.sigmoid(a[8:16] + b[8:16])
                fresh = torch.tanh(a[16:] + reset * b[16:])
                state = (1 - update) * fresh + update * state
                states.append(state)
            out.append(torch.stack(states))
    return torch.cat(out)


@pytest.mark.parametrize("name", SYSTEMS)
def test_first_losses_equal_a_plain_implementation(name: str) -> None:
    system = made(name, dropout=0.0)
    stage = stage_of(system, chain(20, 9))
    batch = first_batch(stage)
    found = stage.objective(stage.gather(batch), batch)
    states = plain_states(name, system, batch)
    scores = states @ system.table.weight[:N_ITEMS].T + (0 if name == "sasrec" else system.bias)
    places = torch.arange(len(scores)) if batch.places is None else batch.places
    shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    expected = [-shares[place, target].log() for place, target in zip(places, batch.targets, strict=True)]
    assert len(found) == len(batch.targets) > 20
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("own", ["batch", "event"])
@pytest.mark.parametrize("loss", ["sampled", "bce", "gbce"])
def test_sampled_losses_of_sasrec(loss: str, own: str) -> None:
    system = made("sasrec", dropout=0.0, loss=loss, negatives=5, negatives_of=own, power=0.5, calibration=0.6)
    data = chain(20, 9)
    stage = stage_of(system, data)
    batch = first_batch(stage)
    found = stage.objective(stage.gather(batch), batch).detach()
    table, counts = system.table.weight.detach(), np.bincount(data.events["item"].to_numpy(), minlength=N_ITEMS)
    chance = np.sqrt(np.maximum(counts, 0.5)) / np.sqrt(np.maximum(counts, 0.5)).sum()
    power = 5 / (N_ITEMS - 1) * (0.6 * (1 - (N_ITEMS - 1) / 5) + (N_ITEMS - 1) / 5)
    for n, (state, target) in enumerate(
        zip(plain_states("sasrec", system, batch).detach(), batch.targets.tolist(), strict=True)
    ):
        drawn = batch.negatives if own == "batch" else batch.negatives[n]
        held = [j for j in drawn.tolist() if j != target]
        positive = float(state @ table[target])
        if loss == "sampled":
            total = sum(math.exp(float(state @ table[j])) / (5 * chance[j]) for j in held)
            expected = math.log(math.exp(positive) + total) - positive
        else:
            weight = 1.0 if loss == "bce" else power
            expected = weight * math.log1p(math.exp(-positive))
            expected += sum(math.log1p(math.exp(float(state @ table[j]))) for j in held)
        assert float(found[n]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_large_sample_stands_for_the_catalogue() -> None:
    """The correction for how often items are drawn makes the sampled loss the full one, whatever the popularity."""
    data = chain(30, 9)
    events = data.events.filter((pl.col("item") % 3 != 0) | (pl.col("user") % 4 == 0))  # items differ in popularity
    data = data.with_events(events)
    full, sampled = (
        made("sasrec", dropout=0.0),
        made("sasrec", dropout=0.0, loss="sampled", negatives=100_000, power=1.0),
    )
    out = []
    for system in (full, sampled):
        stage = stage_of(system, data)
        batch = first_batch(stage)
        out.append(stage.objective(stage.gather(batch), batch))
    torch.testing.assert_close(out[0], out[1], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("loss", ["bpr-max", "top1-max"])
def test_ranking_losses_of_gru4rec(loss: str) -> None:
    system = made("gru4rec", dropout=0.0, loss=loss, negatives=6, score_reg=0.3).requires_grad_(False)
    stage = stage_of(system, chain(20, 9))
    batch = first_batch(stage)
    found = stage.objective(stage.gather(batch), batch)
    scores = plain_states("gru4rec", system, batch) @ system.table.weight[:N_ITEMS].T + system.bias
    for n, target in enumerate(batch.targets.tolist()):
        held = [float(scores[n, j]) for j in batch.negatives.tolist() if j != target]
        positive, total = float(scores[n, target]), sum(map(math.exp, held))
        shares = [math.exp(r) / total for r in held]
        if loss == "bpr-max":
            expected = -math.log(sum(s / (1 + math.exp(r - positive)) for s, r in zip(shares, held, strict=True)))
            expected += 0.3 * sum(s * r * r for s, r in zip(shares, held, strict=True))
        else:
            terms = [1 / (1 + math.exp(positive - r)) + 1 / (1 + math.exp(-r * r)) for r in held]
            expected = sum(s * t for s, t in zip(shares, terms, strict=True))
        assert float(found[n]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", [losses.bpr_max, losses.top1_max])
def test_a_sample_of_nothing_but_the_target_teaches_nothing(loss: Any) -> None:
    positive, negative = torch.zeros(2, requires_grad=True), torch.tensor([[-torch.inf, -torch.inf], [0.5, -torch.inf]])
    rows = loss(positive, negative)
    (gradient,) = torch.autograd.grad(rows.sum(), [positive])
    assert rows.isfinite().all() and gradient.isfinite().all() and gradient[0] == 0 and gradient[1] < 0


# -- what may not matter


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_request_is_answered_the_same_among_longer_ones(name: str) -> None:
    system = made(name, max_len=20)
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, N_ITEMS, n).tolist() for n in (3, 1, 0, 40, 19, 20, 7)]
    together = system.queries(Requests.of_items(histories))
    for row, history in enumerate(histories):
        alone = system.queries(Requests.of_items([history]))[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_the_last_known_events_count(name: str) -> None:
    system = made(name, max_len=5)
    n = 4 if name == "bert4rec" else 5  # the mask takes a place
    asked = Requests.of_items([[9, 8, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5][-n:], [7, N_ITEMS, 1, 2, 3, -1, 4, 5]])
    queries = system.queries(asked)
    torch.testing.assert_close(queries[0], queries[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(queries[0], queries[2], rtol=0, atol=1e-6)
    assert (system.queries(Requests.of_items([[1, 2, 3, 5, 4]])) - queries[0]).abs().max() > 1e-3, "order matters"
    empty = system.queries(Requests.of_items([[], [N_ITEMS + 3]]))
    assert empty.isfinite().all() and torch.equal(empty[0], empty[1])


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_a_later_event_does_not_change_what_was_known_before(name: str) -> None:
    system = made(name)
    batch = first_batch(stage_of(system, chain(20, 9)))
    before = system.states(system.table(batch.items), batch)
    for start, stop in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        place = (start + stop) // 2
        items = batch.items.clone()
        items[place] = (items[place] + 1) % N_ITEMS
        moved = (system.states(system.table(items), batch) - before).abs().amax(dim=1)
        assert (moved[place:stop] > 1e-4).all() and (moved[:place] == 0).all() and (moved[stop:] == 0).all()


def test_what_bert4rec_must_tell_is_hidden_from_it() -> None:
    system = made("bert4rec", dropout=0.0)
    stage = stage_of(system, chain(20, 9))
    for epoch in range(5):
        batch = tensors(stage.feed.batch(epoch, 0), "cpu")
        assert (batch.items[batch.places] == system.mask).all()
        assert (
            (batch.items == system.mask).sum() == len(batch.targets) == len(stage.objective(stage.gather(batch), batch))
        )


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_recurrent_network_reads_short_and_long_sequences_alike(
    n_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = made("gru4rec", n_layers=n_layers, dropout=0.0)
    batch = first_batch(stage_of(system, chain(20, 9)))
    assert batch.longest > 1 and len(set(batch.offsets.diff().tolist())) > 1
    found = []
    for share in (0.0, 2.0):  # never and always packed
        monkeypatch.setattr(gru4rec, "SPARSE", share)
        rows = system.table(batch.items)
        states = system.states(rows, batch)
        found.append([states, *torch.autograd.grad(states.square().sum(), [rows, *system.gru.parameters()])])
    for padded, packed in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)


# -- what is refused


@pytest.mark.parametrize("name", SYSTEMS)
def test_data_without_an_order_is_refused(name: str) -> None:
    data = chain(5, 4)
    timeless = build("timeless", data.events.select("user", "item"), data.users, data.items)
    with pytest.raises(CapabilityError, match=r"events\.time"):
        fit(name, timeless)


def test_sessions_are_learnt_apart() -> None:
    data = chain(6, 8)
    events = data.events.with_columns(session=(pl.col("time") // 4).cast(pl.Int64))
    stage = stage_of(made("gru4rec", sessions=True), data.with_events(events))
    batch = first_batch(stage)
    assert len(batch) == 12 and batch.longest == 4
    with pytest.raises(CapabilityError, match="no column 'session'"):
        next(made("gru4rec", sessions=True).program(data))


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_asked_or_shared_out_is_answered_with_nothing(name: str) -> None:
    """One of several processes may get no sequence of a batch."""
    system = made(name)
    assert system.queries(Requests.of_items([])).shape == (0, system.items().shape[1])
    stage = stage_of(system, chain(20, 9))
    stage.feed.start(3)
    none = tensors(stage.feed.batch(0, 0).take(slice(0, 0)), "cpu")
    rows = stage.objective(stage.gather(none), none)
    rows.sum().backward()
    assert rows.shape == (0,) and all(p.grad is None or not p.grad.any() for p in system.parameters())


def test_heads_that_do_not_share_the_width_are_refused() -> None:
    for name in ("sasrec", "bert4rec"):
        with pytest.raises(ConfigError, match="3 heads"):
            make_config(find(name).config, {"n_heads": 3})
