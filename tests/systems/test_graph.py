"""LightGCN, SimGCL and GTE against dense formulas, and the ablations of their papers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.contracts import Epochs, find
from tastemaker.data import split, synthetic
from tastemaker.data.sources import get
from tastemaker.evaluate import evaluate
from tastemaker.nn import node_vectors
from tastemaker.nn.losses import uniformity
from tastemaker.systems.graph.gte import layer_weights
from tastemaker.train import fit
from tastemaker.train.engine import built, run_stage
from tastemaker.train.run import Run
from tastemaker.types import BundleError, Dataset, Requests, Schema, Split, make_config

RNG = np.random.default_rng(12)
N_USERS, N_ITEMS = 40, 30
CHOSEN = (
    RNG.random((N_USERS, N_ITEMS)) < np.where(np.arange(40)[:, None] % 3 == np.arange(30) % 3, 0.35, 0.05)
).astype(int)
CHOSEN[7] = 0  # a user without choices
CHOSEN[:, 11] = 0  # an item that nobody chose


def dataset(matrix: np.ndarray) -> Dataset:
    users, items = np.nonzero(matrix)
    events = pl.DataFrame({"user": users, "item": items}).cast(pl.Int32)
    n_users, n_items = matrix.shape
    return Dataset("toy", pl.DataFrame({"user": range(n_users)}), pl.DataFrame({"item": range(n_items)}), events)


def of_rows(matrix: np.ndarray, users: Any = None) -> Requests:
    return Requests.of_items([np.flatnonzero(row) for row in matrix], users=users)


# -- what training computes, step by step


@dataclass
class Seen:
    """A short training as the engine ran it: where it began, its batches and streams, its losses."""

    system: Any
    start: torch.Tensor
    batches: list[Any] = field(default_factory=list)
    streams: list[torch.Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def seen(name: str, **config: Any) -> Seen:
    data, info = dataset(CHOSEN), find(name)
    run = Run(3, name=name)
    system = run.system = built(info, make_config(info.config, {"batch_size": 64, **config}), data.schema, 3)
    found = Seen(system, system.table.weight.detach().clone())
    program = system.program(data)
    stage = program.send(run_stage(program.send(None), run))

    def gather(batch: Any) -> Any:
        found.batches.append(batch)
        found.streams.append(torch.random.get_rng_state())
        return stage.gather(batch)

    def objective(rows: Any, batch: Any) -> Any:
        losses = stage.objective(rows, batch)
        found.losses.append(float(losses.detach().mean()))
        return losses

    run_stage(replace(stage, gather=gather, objective=objective, until=Epochs(2)), run)
    return found


def propagation() -> torch.Tensor:
    """D^-1/2 A D^-1/2, dense."""
    adjacency = np.block([[np.zeros((N_USERS, N_USERS)), CHOSEN], [CHOSEN.T, np.zeros((N_ITEMS, N_ITEMS))]])
    roots = np.sqrt(np.maximum(adjacency.sum(axis=1), 1))
    return torch.tensor(adjacency / roots[:, None] / roots)


def replayed(found: Seen, loss: Any, lr: float) -> list[float]:
    """Losses of the same steps by a dense formula in float64, with Adam written out."""
    x = found.start.double().requires_grad_()
    first, second, losses = torch.zeros_like(x), torch.zeros_like(x), []
    for step, (batch, stream) in enumerate(zip(found.batches, found.streams, strict=True), start=1):
        value = loss(x, batch, stream)
        (slope,) = torch.autograd.grad(value, x)
        losses.append(float(value.detach()))
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        x = (x.detach() - lr * move).requires_grad_()
    return losses


def pairs(vectors: torch.Tensor, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of users [B, D], chosen items [B, D] and others [B, n, D]."""
    return vectors[batch.users], vectors[N_USERS + batch.items], vectors[N_USERS + batch.negatives]


def bpr(vectors: torch.Tensor, batch: Any) -> torch.Tensor:
    users, items, others = pairs(vectors, batch)
    return F.softplus((users[:, None] * others).sum(-1) - (users * items).sum(-1)[:, None]).mean()


def lengths(vectors: torch.Tensor, batch: Any) -> torch.Tensor:
    return sum((rows**2).sum() for rows in pairs(vectors, batch)) / (2 * len(batch.users))  # type: ignore[return-value]


@pytest.mark.parametrize(("n_layers", "negatives", "draw"), [(0, 1, "choices"), (1, 2, "users"), (3, 1, "users")])
def test_lightgcn_learns_as_the_dense_formula_says(n_layers: int, negatives: int, draw: str) -> None:
    found = seen("lightgcn", n_layers=n_layers, negatives=negatives, draw=draw, dim=6, reg=0.1, lr=0.05)
    p = propagation()

    def loss(x: torch.Tensor, batch: Any, stream: Any) -> torch.Tensor:
        mean = sum(torch.linalg.matrix_power(p, layer) @ x for layer in range(n_layers + 1)) / (n_layers + 1)
        return bpr(mean, batch) + 0.1 * lengths(x, batch)

    assert len(found.losses) >= 6
    np.testing.assert_allclose(found.losses, replayed(found, loss, 0.05), rtol=1e-5)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_simgcl_learns_as_the_dense_formula_says(n_layers: int) -> None:
    """Also that one way back for the plain vectors and both views gives the gradients of three."""
    found = seen("simgcl", n_layers=n_layers, dim=6, reg=0.1, lr=0.05, weight=0.3, epsilon=0.2, temperature=0.5)
    p = propagation()

    def noisy(x: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
        layer, total = x, torch.zeros_like(x)
        for number in range(1, n_layers + 1):
            layer = p @ layer
            noise = torch.zeros_like(layer)
            drawn = nodes if number == n_layers else torch.arange(len(layer))
            noise[drawn] = F.normalize(torch.rand(len(drawn), layer.shape[1]), dim=-1).double()
            layer = layer + 0.2 * layer.detach().sign() * noise
            total = total + layer
        return total / n_layers

    def contrast(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        logits = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / 0.5
        return (torch.logsumexp(logits, dim=1) - logits.diagonal()).mean()

    def loss(x: torch.Tensor, batch: Any, stream: Any) -> torch.Tensor:
        torch.random.set_rng_state(stream)
        plain = sum(torch.linalg.matrix_power(p, layer) @ x for layer in range(1, n_layers + 1)) / n_layers
        users, items = batch.users.unique(), batch.items.unique() + N_USERS
        nodes = torch.cat([users, items])
        views = [noisy(x, nodes) for _ in range(2)]
        contrasts = sum(contrast(views[0][rows], views[1][rows]) for rows in (users, items))
        return bpr(plain, batch) + 0.1 * lengths(plain, batch) + 0.3 * contrasts

    with torch.random.fork_rng():
        np.testing.assert_allclose(found.losses, replayed(found, loss, 0.05), rtol=1e-5)


# -- what they are for


SMALL = {"dim": 32, "lr": 0.01, "batch_size": 256, "epochs": 15, "every": 5}


def test_smoothing_beats_factorisation() -> None:
    parts = split(synthetic(300, n_items=200, seed=3), "ratio:0.8,0,0.2", seed=5)
    none, two = (
        evaluate(fit("lightgcn", parts, {**SMALL, "n_layers": n}), parts, ks=(20,), metrics=["ndcg"]) for n in (0, 2)
    )
    assert two.value("ndcg@20") > 1.05 * none.value("ndcg@20")


def test_contrast_spreads_vectors_evenly() -> None:
    plain, contrasted = (seen("simgcl", weight=weight, dim=16, lr=0.02, batch_size=16) for weight in (0.0, 1.0))
    for part in ("users", "items"):
        before, after = (getattr(s.system.eval().vectors(), part) for s in (plain, contrasted))
        assert uniformity(after[after.any(dim=1)]) < uniformity(before[before.any(dim=1)]) - 0.1


# -- answers


def dense_means(system: Any, own: bool) -> torch.Tensor:
    p, x, n = propagation(), system.table.weight.detach().double(), system.config.n_layers
    layers = [torch.linalg.matrix_power(p, layer) @ x for layer in range(0 if own else 1, n + 1)]
    return torch.stack(layers).mean(dim=0)


@pytest.mark.parametrize(("name", "own"), [("lightgcn", True), ("simgcl", False)])
def test_vectors_are_the_means_of_layers(name: str, own: bool) -> None:
    system = seen(name, dim=6).system.eval()
    means = dense_means(system, own)
    users = np.array([u for u in range(N_USERS) if u != 7])
    np.testing.assert_allclose(system.queries(Requests.of_users(users)), means[users], atol=1e-6)
    np.testing.assert_allclose(system.items(), means[N_USERS:], atol=1e-6)
    np.testing.assert_array_equal(system.items(np.array([5, 2])), system.items()[[5, 2]])


@pytest.mark.parametrize(("name", "own"), [("lightgcn", True), ("simgcl", False)])
def test_a_stranger_gets_what_propagation_gives_a_new_node(name: str, own: bool) -> None:
    """A known user's choices, without the user's own row of layer 0, are what a stranger with them is."""
    system = seen(name, dim=6).system.eval()
    users = np.array([0, 5, 20])
    strangers = system.queries(of_rows(CHOSEN[users], users=[-1, N_USERS + 3, -1]))
    layer0 = system.table.weight.detach()[users] / (system.config.n_layers + 1) if own else 0
    np.testing.assert_allclose(strangers, system.queries(Requests.of_users(users)) - layer0, atol=1e-6)
    without = system.queries(of_rows(CHOSEN[[0, 7]], users=[-1, 7]))  # user 7 has no edges: known by number alone
    active = np.flatnonzero(CHOSEN.sum(axis=1))
    mean = system.queries(Requests.of_users(active)).mean(dim=0)
    np.testing.assert_allclose(without[0], strangers[0], atol=1e-6)
    np.testing.assert_allclose(without[1], mean, atol=1e-6)
    np.testing.assert_allclose(system.queries(Requests.of_users([-1]))[0], mean, atol=1e-6)
    nobody_chose = system.queries(Requests.of_items([[11], [11, -1]], users=[-1, -1]))
    np.testing.assert_allclose(nobody_chose, torch.stack([mean, mean]), atol=1e-6)


@pytest.mark.parametrize("name", ["lightgcn", "simgcl"])
def test_vectors_are_made_once_and_forgotten_when_weights_may_move(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system, made = seen(name, dim=6).system.eval(), []
    plain = node_vectors.power_sum
    monkeypatch.setattr(node_vectors, "power_sum", lambda *given: made.append(1) or plain(*given))
    before = system.queries(Requests.of_users([3, 4]))
    for _ in range(3):
        assert torch.equal(system.queries(Requests.of_users([3, 4])), before)
        system.items()
    assert len(made) == 1
    system.train()
    system.table.weight.data.mul_(2)
    torch.testing.assert_close(system.queries(Requests.of_users([3, 4])), 2 * before)
    system.table.weight.data.mul_(2)  # while it trains nothing is held
    torch.testing.assert_close(system.queries(Requests.of_users([3, 4])), 4 * before)
    system.eval()
    system.queries(Requests.of_users([3])), system.items()
    assert len(made) == 4


@pytest.mark.parametrize("name", ["lightgcn", "simgcl"])
def test_what_a_bundle_keeps_needs_no_graph_and_is_checked(name: str) -> None:
    system = seen(name, dim=6).system.eval()
    state = {key: np.array(array) for key, array in system.export().items()}
    assert {key: array.shape for key, array in state.items()} == {
        "users": (N_USERS, 6),
        "items": (N_ITEMS, 6),
        "messages": (N_ITEMS, 6),
        "nodes": (N_USERS + N_ITEMS, 6),  # for a later training to go on from
    }
    fresh = type(system)(system.config, Schema(N_USERS, N_ITEMS))
    fresh.restore(state)
    fresh.train()
    fresh.eval()  # there is nothing to make the vectors of again, so they stay
    requests = of_rows(CHOSEN[:9], users=[0, 1, 2, 3, -1, -1, 6, 7, 8])
    assert torch.equal(fresh.queries(requests), system.queries(requests))
    nodes = {"nodes": state["nodes"] * np.nan}
    for damage in ({"items": state["items"][1:]}, {"users": state["users"] * np.nan}, {"messages": None}, nodes):
        with pytest.raises(BundleError, match="finite"):
            fresh.restore({key: array for key, array in {**state, **damage}.items() if array is not None})


def test_dropped_edges_change_training_and_not_the_answer() -> None:
    plain, dropped = (seen("lightgcn", dim=6, dropout=rate) for rate in (0.0, 0.4))
    assert plain.losses[0] != dropped.losses[0] and abs(plain.losses[0] - dropped.losses[0]) < 0.05
    np.testing.assert_allclose(dropped.system.eval().items(), dense_means(dropped.system, True)[N_USERS:], atol=1e-6)


# -- GTE


def official(matrix: np.ndarray, n_layers: int) -> np.ndarray:
    """The published recursion, with its dense labels."""
    users, items = np.zeros(matrix.shape), np.eye(matrix.shape[1])
    for _ in range(n_layers):
        users, items = users + matrix @ items, items + matrix.T @ users
    return users


def gte(matrix: np.ndarray, n_layers: int = 3) -> Any:
    return fit("gte", dataset(matrix), {"n_layers": n_layers}).system


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_gte_scores_are_those_of_the_recursion(n_users: int, n_items: int, n_layers: int, seed: int) -> None:
    matrix = (np.random.default_rng(seed).random((n_users, n_items)) < 0.4).astype(int)
    np.testing.assert_array_equal(gte(matrix, n_layers).score(of_rows(matrix)), official(matrix, n_layers).astype("f4"))


def test_gte_of_three_layers_counts_shared_users() -> None:
    together = CHOSEN.T @ CHOSEN
    new = RNG.random((50, N_ITEMS)) < 0.2  # histories that are no rows of the graph
    np.testing.assert_array_equal(gte(CHOSEN).score(of_rows(new)), new @ together + 3 * new)


def test_gte_of_four_layers_ranks_new_items_as_of_three() -> None:
    three, four = (gte(CHOSEN, n).score(of_rows(CHOSEN)) for n in (3, 4))
    for user in range(N_USERS):
        new = CHOSEN[user] == 0
        np.testing.assert_array_equal(four[user, new], 4 * three[user, new])
    np.testing.assert_array_equal(layer_weights(4), [4, 4])
    np.testing.assert_array_equal(layer_weights(5), [5, 10, 1])


def test_gte_scores_of_some_items_are_those_of_all() -> None:
    system, items = gte(CHOSEN), RNG.integers(-1, N_ITEMS, (N_USERS, 7))
    whole, some = system.score(of_rows(CHOSEN)), system.score(of_rows(CHOSEN), items)
    np.testing.assert_array_equal(some[items >= 0], np.take_along_axis(whole, np.maximum(items, 0), 1)[items >= 0])
    assert not some[items < 0].any()


def test_gte_counts_beyond_the_precision_of_float32_still_tie_where_they_are_equal() -> None:
    matrix = np.ones((3000, 40), dtype=int)
    matrix[:, -1] = 0
    matrix[0, -1] = 1
    scores = gte(matrix, 5).score(of_rows(matrix[:1]))
    assert scores.max() > 2**24 and len(np.unique(scores[0, :-1])) == 1


def test_gte_keeps_a_graph_of_ones() -> None:
    system = gte(CHOSEN)
    state = dict(system.export())
    fresh = type(system)(system.config, Schema(N_USERS, N_ITEMS))
    fresh.restore(state)
    np.testing.assert_array_equal(fresh.score(of_rows(CHOSEN)), system.score(of_rows(CHOSEN)))
    with pytest.raises(BundleError, match="graph"):
        fresh.restore({**state, "graph.data": state["graph.data"] * np.nan})
    with pytest.raises(BundleError, match="graph"):
        type(system)(system.config, Schema(N_USERS + 1, N_ITEMS)).restore(state)


@pytest.mark.slow
def test_gte_on_amazon_beauty_gives_the_figures_of_the_published_matrices(shared_data: Any) -> None:
    """The last choice of each user is held out, as in the authors' repository; there popularity has .0217."""
    data = get("amazon-beauty", folder=shared_data / "amazon-beauty")
    last = split(data, "column:split")
    parts = Split("all but the last", data, np.where(last.part == 1, 0, last.part).astype(np.int8))
    assert parts.sizes == {"train": 176_139, "valid": 0, "test": 22_363}
    wanted = {"gte": (0.0943, 0.0428), "popularity": (0.0217, 0.0081)}
    for name, figures in wanted.items():
        report = evaluate(fit(name, parts), parts, ks=(20,), metrics=["recall", "ndcg"])
        found = report.value("recall@20"), report.value("ndcg@20")
        np.testing.assert_allclose(found, figures, atol=5e-4)  # ties are broken by another rule
