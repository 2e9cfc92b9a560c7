"""SimpleX: its equations against NumPy, its gradient against autograd's, and what it sets by the size of the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from tastemaker.contracts import find
from tastemaker.data import synthetic
from tastemaker.systems.classical.simplex import _Excess
from tastemaker.train.bundle import histories_of
from tastemaker.types import Dataset, Jagged, Requests, make_config

DATA = synthetic(80, n_items=60, seed=3)


def made(settings: dict[str, Any], data: Dataset = DATA) -> Any:
    info = find("simplex")
    torch.manual_seed(0)
    return info.cls(make_config(info.config, settings), data.schema)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def fused(system: Any, users: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
    """Equations 3 and 4 of the paper, a user at a time."""
    c, rows = system.config, []
    weights = {name: value.detach().numpy().astype(float) for name, value in system.named_parameters()}
    for user, history in zip(users, histories, strict=True):
        q = weights["item_table.weight"][history]
        a = np.full(len(q), 1.0 / len(q))
        if c.pooling != "mean":
            keys = np.tanh(q @ weights["key.weight"].T + weights["key.bias"])
            by = weights["query"] if c.pooling == "self_attention" else user
            a = np.exp(keys @ by) / np.exp(keys @ by).sum()
        rows.append(c.gamma * user + (1 - c.gamma) * weights["mix.weight"] @ (a @ q))
    return np.array(rows)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "self_attention", "user_attention"])
def test_the_loss_is_that_of_the_paper(pooling: str, sharing: bool) -> None:
    settings = {"dim": 6, "pooling": pooling, "sharing": sharing, "negatives": 20, "margin": 0.2, "weight": 7.0}
    system = made({**settings, "dropout": 0.0, "init": 1.0, "batch_size": 32, "max_len": 9})
    batch = next(system.program(DATA)).feed.batch(0, 0)
    turned = {name: torch.as_tensor(getattr(batch, name)) for name in ("users", "items", "negatives", "pool")}
    parts = {name: torch.as_tensor(getattr(batch, name)) for name in ("history", "offsets")}
    clashes = None if batch.clashes is None else torch.as_tensor(batch.clashes)
    asked = type(batch)(**turned, **parts, clashes=clashes)
    loss = system.objective(system.gather(asked), asked).detach().numpy()
    vectors = system.item_table.weight.detach().numpy().astype(float)
    ends = batch.offsets
    histories = [batch.pool[batch.history[ends[b] : ends[b + 1]]] for b in range(len(batch))]
    assert all(0 < len(h) <= 9 for h in histories)
    users = unit(fused(system, system.user_table.weight.detach().numpy()[batch.users].astype(float), histories))
    held = np.broadcast_to(batch.negatives, (len(batch), 20)) if sharing else batch.negatives
    over = np.maximum(np.einsum("bd,bnd->bn", users, unit(vectors[held])) - 0.2, 0.0)
    if sharing:
        chosen = DATA.interactions().select("user", "item").unique()
        pairs = set(zip(chosen["user"].to_list(), chosen["item"].to_list(), strict=True))
        clash = np.array([[(u, i) in pairs for i in held[b]] for b, u in enumerate(batch.users)])
        assert clash.any() and np.array_equal(clash, batch.clashes)
        over[clash] = 0.0
    wanted = 1 - (users * unit(vectors[batch.items])).sum(axis=1) + 7.0 * over.mean(axis=1)
    np.testing.assert_allclose(loss, wanted, atol=2e-5)


def test_its_own_gradient_is_that_of_autograd() -> None:
    torch.manual_seed(1)
    users, negatives = (torch.randn(n, 5, dtype=torch.float64, requires_grad=True) for n in (7, 11))
    clashes, up = torch.rand(7, 11) < 0.2, torch.randn(7, dtype=torch.float64)
    found = torch.autograd.grad((_Excess.apply(users, negatives, clashes, 0.3) * up).sum(), (users, negatives))
    plain = F.relu(users @ negatives.T - 0.3).masked_fill(clashes, 0.0).mean(dim=1)
    for one, other in zip(found, torch.autograd.grad((plain * up).sum(), (users, negatives)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("pooling", ["mean", "user_attention"])
def test_who_is_unknown_is_answered_from_what_is_known(pooling: str) -> None:
    system = made({"dim": 6, "pooling": pooling, "max_len": 4}).eval()
    all_users = system.user_table.weight.detach().numpy().astype(float)
    past = histories_of(DATA).take(np.array([5]))
    known = system.queries(Requests.of_users(np.array([5]), history=past)).numpy()[0]
    latest = past[0]["item"][-4:]
    np.testing.assert_allclose(known, unit(fused(system, all_users[5:6], [latest]))[0], atol=1e-5)
    strange = Requests(1, users=np.array([-1], dtype=np.int32), history=past)
    answer = system.queries(strange).numpy()[0]
    np.testing.assert_allclose(answer, unit(fused(system, np.zeros((1, 6)), [latest]))[0], atol=1e-5)
    nothing = Jagged(past.values.take(slice(0, 0)), np.zeros(2, dtype=np.int64))
    alone = system.queries(Requests(1, users=np.array([5], dtype=np.int32), history=nothing)).numpy()[0]
    np.testing.assert_allclose(alone, unit(all_users[5]), atol=1e-5)
    nobody = system.queries(Requests(1, users=np.array([-1], dtype=np.int32), history=nothing)).numpy()[0]
    np.testing.assert_allclose(nobody, unit(all_users.mean(axis=0)), atol=1e-5)


def sized(n_users: int, n_items: int, choices: int) -> Dataset:
    """Choices at random; every item is there."""
    rng = np.random.default_rng(0)
    pairs = pl.DataFrame(
        {"user": rng.integers(n_users, size=3 * choices), "item": rng.integers(n_items, size=3 * choices)}
    )
    pairs = pairs.unique(maintain_order=True).head(choices)
    return Dataset(
        "sized", pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": range(n_items)}), pairs.cast(pl.Int32)
    )


@pytest.mark.parametrize(
    ("choices", "batch_size", "epochs", "lr"),
    [
        (40_000, 1024, 50, 20 / (50 * 40)),  # 40 steps an epoch: 50 epochs make 2,000
        (20_000, 20, 30, 1e-3),  # 30,000 steps in 30 epochs: the rate is at its lower bound
        (500, 1024, 2000, 1e-2),  # one step an epoch
    ],
)
def test_epochs_and_rate_come_from_the_number_of_steps(choices: int, batch_size: int, epochs: int, lr: float) -> None:
    data = sized(500, 400, choices)
    stage = next(made({"batch_size": batch_size}, data).program(data))
    assert stage.until.most == epochs and stage.until.most * math.ceil(choices / batch_size) >= 2000
    assert stage.optimiser.lr == pytest.approx(lr) and stage.optimiser.schedule == "linear"
    given = next(made({"batch_size": batch_size, "epochs": 7, "lr": 0.005}, data).program(data))
    assert (given.until.most, given.optimiser.lr) == (7, 0.005)


@pytest.mark.parametrize(("n_items", "weight"), [(100, 30.0), (16_000, 100.0), (60_000, 250.0)])
def test_the_weight_of_the_negatives_comes_from_the_catalogue(n_items: int, weight: float) -> None:
    data = sized(10, n_items, 50)
    assert made({"dim": 2}, data).weight == weight
    assert made({"dim": 2, "weight": 3.0}, data).weight == 3.0
