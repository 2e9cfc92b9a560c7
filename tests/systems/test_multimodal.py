"""FREEDOM, LATTICE and VBPR: their equations by dense matrices, what thinning keeps, and content where it tells."""

from __future__ import annotations

from functools import cache
from itertools import count
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from tastemaker.contracts import find
from tastemaker.data import split, synthetic
from tastemaker.feeds import interaction_matrix
from tastemaker.nn import neighbours
from tastemaker.systems.multimodal.freedom import kept_edges
from tastemaker.testing import subject
from tastemaker.train import fit
from tastemaker.types import Dataset, Requests, make_config

SYSTEMS = ("vbpr", "freedom", "lattice")
U, I, GROUPS = 240, 120, 8  # noqa: E741 - as everywhere


@cache
def planted(n_items: int = I, per_user: int = 5) -> Dataset:
    """Users who choose within one of eight groups of items; both vectors of an item tell its group, noisily."""
    rng = np.random.default_rng(0)
    group = np.arange(n_items) % GROUPS
    centres = rng.normal(size=(2, GROUPS, 12))
    looks, words = (c[group] + 0.7 * rng.normal(size=(n_items, 12)) for c in centres)
    users = np.repeat(np.arange(U), per_user)
    own = rng.integers(n_items // GROUPS, size=len(users)) * GROUPS + np.arange(U)[users] % GROUPS
    items = pl.DataFrame({"item": range(n_items), "looks": looks.tolist(), "words": words.tolist()})
    events = pl.DataFrame({"user": users, "item": own}).unique(maintain_order=True).cast(pl.Int32)
    return Dataset("planted", pl.DataFrame({"user": range(U)}), items, events)


def stages(name: str, settings: dict[str, Any], data: Dataset) -> tuple[Any, Any]:
    """A system driven to its training stage, and that stage."""
    info = find(name)
    torch.manual_seed(0)
    system = info.cls(make_config(info.config, {"dim": 8, "batch_size": 64, **settings}), data.schema)
    program, sent = system.program(data), None
    while True:
        stage = program.send(sent)
        if hasattr(stage, "feed"):
            return system, stage
        sent = stage.function(*stage.args, **stage.kwargs)


def tensors(batch: Any) -> Any:
    given = [torch.as_tensor(x) for x in (batch.users, batch.items, batch.negatives)]
    return type(batch)(*given)


def dense(graph: Any) -> np.ndarray:
    parts = graph.values.numpy(), graph.indices.numpy(), graph.indptr.numpy()
    return np.asarray(sp.csr_array(parts, shape=graph.shape).toarray(), dtype=float)


def plain_bpr(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    scores = np.einsum("bd,bnd->bn", users, items)
    return np.log1p(np.exp(scores[:, 1] - scores[:, 0]))


def test_freedom_is_its_equations() -> None:
    data = planted()
    settings = {"thinned": 0.5, "content": 0.3, "shares": "1,3", "neighbours": 4, "item_layers": 2}
    system, stage = stages("freedom", settings, data)
    torch.manual_seed(5)
    stage.every_epoch(0)
    batch = tensors(stage.feed.batch(0, 0))
    loss = system.objective(system.gather(batch), batch).detach().numpy()

    x = system.table.weight.detach().numpy().astype(float)
    kept = kept_edges(interaction_matrix(data), 0.5, int(system.draw)).toarray()
    assert kept.sum() == interaction_matrix(data).nnz // 2
    a = np.block([[np.zeros((U, U)), kept], [kept.T, np.zeros((I, I))]])
    roots = np.divide(1, np.sqrt(a.sum(axis=1)), out=np.zeros(U + I), where=a.sum(axis=1) > 0)
    p = roots[:, None] * a * roots
    mean = (x + p @ x + p @ p @ x) / 3
    s, vectors = np.zeros((I, I)), []
    for share, column in ((0.25, "looks"), (0.75, "words")):
        f = np.array(data.items[column].to_list())
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        vectors.append(f)
        near = np.argsort(-(f @ f.T), axis=1)[:, :4]
        np.add.at(s, (np.arange(I)[:, None], near), share / 4)
    np.testing.assert_allclose(dense(system.item_graph), s, atol=1e-6)
    final = mean[U:] + s @ s @ x[U:]
    both = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1).numpy()
    users = mean[:U][batch.users.numpy()]
    wanted = plain_bpr(users, final[both])
    for f, layer in zip(vectors, system.maps, strict=True):
        told = f[both] @ layer.weight.detach().numpy().T.astype(float)
        wanted += 0.3 * plain_bpr(users, told)
    np.testing.assert_allclose(loss, wanted, atol=1e-5)

    system.eval()
    whole = interaction_matrix(data).toarray()
    a = np.block([[np.zeros((U, U)), whole], [whole.T, np.zeros((I, I))]])
    roots = np.divide(1, np.sqrt(a.sum(axis=1)), out=np.zeros(U + I), where=a.sum(axis=1) > 0)
    p = roots[:, None] * a * roots
    mean = (x + p @ x + p @ p @ x) / 3
    np.testing.assert_allclose(system.items().numpy(), mean[U:] + s @ s @ x[U:], atol=1e-5)
    np.testing.assert_allclose(system.queries(Requests.of_users(np.arange(9))).numpy(), mean[:9], atol=1e-5)


def test_thinning_spares_the_little_chosen_and_follows_from_its_draw() -> None:
    matrix = interaction_matrix(synthetic(400, n_items=150, seed=2))
    by_item = np.bincount(matrix.indices, minlength=matrix.shape[1])
    by_user = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), by_user)
    weight = 1 / np.sqrt(by_user[rows] * by_item[matrix.indices])
    times = np.zeros(matrix.nnz)
    n = 300
    for draw in range(n):
        kept = kept_edges(matrix, 0.9, draw)
        assert kept.nnz == int(0.1 * matrix.nnz)
        times += kept[rows, matrix.indices] > 0
    heavy = weight > np.quantile(weight, 0.9)
    light = weight < np.quantile(weight, 0.1)
    expected = weight[heavy].mean() / weight[light].mean()  # nearly, as few are drawn
    assert times[heavy].mean() / times[light].mean() == pytest.approx(expected, rel=0.25) and expected > 1.8
    assert (kept_edges(matrix, 0.9, 7) != kept_edges(matrix, 0.9, 7)).nnz == 0
    even = sum(kept_edges(matrix, 0.9, draw, even=True)[rows, matrix.indices] for draw in range(n))
    assert even[heavy].mean() == pytest.approx(even[light].mean(), rel=0.1)


@pytest.mark.parametrize("dense_one", [False, True])
def test_lattice_is_its_equations_and_maps_learn_in_the_first_step_alone(dense_one: bool) -> None:
    data = planted()
    settings = {"share": 0.4, "neighbours": 3, "reg": 0.02, "dense": dense_one}
    system, stage = stages("lattice", settings, data)
    with torch.no_grad():
        system.weights.copy_(torch.tensor([0.5, -0.5]))
    system.train()
    stage.every_epoch(0)
    batch = tensors(stage.feed.batch(0, 0))
    loss = system.objective(system.gather(batch), batch)
    loss.sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in system.maps) and (system.weights.grad != 0).all()

    x = system.table.weight.detach().numpy().astype(float)
    whole = interaction_matrix(data).toarray()
    a = np.block([[np.zeros((U, U)), whole], [whole.T, np.zeros((I, I))]])
    roots = np.divide(1, np.sqrt(a.sum(axis=1)), out=np.zeros(U + I), where=a.sum(axis=1) > 0)
    p = roots[:, None] * a * roots
    mean = (x + p @ x + p @ p @ x) / 3
    w = np.exp([0.5, -0.5]) / np.exp([0.5, -0.5]).sum()

    def nearest(f: np.ndarray) -> np.ndarray:
        f = f / np.linalg.norm(f, axis=1, keepdims=True)
        likeness = f @ f.T
        out = np.zeros_like(likeness)
        near = np.argsort(-likeness, axis=1)[:, :3]
        np.put_along_axis(out, near, np.take_along_axis(likeness, near, axis=1).clip(min=0), axis=1)
        return out

    def normal(m: np.ndarray) -> np.ndarray:
        d = m.sum(axis=1) ** -0.5
        return d[:, None] * m * d

    first, learnt = np.zeros((I, I)), np.zeros((I, I))
    for share, column, layer in zip(w, ("looks", "words"), system.maps, strict=True):
        f = np.array(data.items[column].to_list())
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        first += share * normal(nearest(f))
        learnt += share * nearest(f @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    s = 0.4 * normal(learnt) + 0.6 * first
    h = s @ x[U:]
    final = mean[U:] + h / np.linalg.norm(h, axis=1, keepdims=True)
    both = torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1).numpy()
    users, items = mean[:U][batch.users.numpy()], final[both]
    wanted = plain_bpr(users, items) + 0.01 * ((users**2).sum(axis=1) + (items**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(loss.detach().numpy(), wanted, atol=1e-5)

    stage.after_step(0)
    system.zero_grad()
    again = system.objective(system.gather(batch), batch)
    torch.testing.assert_close(again, loss)
    again.sum().backward()
    assert all(layer.weight.grad is None or not layer.weight.grad.any() for layer in system.maps)


def test_dense_lattice_is_refused_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    _, stage = stages("lattice", {"dense": True}, planted())
    monkeypatch.setattr(neighbours, "available_memory_mb", lambda: 0.01)
    with pytest.raises(Exception, match="items against all"):
        stage.every_epoch(0)


def trained(name: str, data: Dataset, settings: dict[str, Any], seed: int) -> Any:
    """Trained to the last of its epochs."""
    later = count()
    settings = {"dim": 16, "lr": 0.01, "batch_size": 128, **settings}
    return fit(name, data, settings, seed=seed, judge=lambda system, metric: next(later))


def quality(name: str, settings: dict[str, Any], data: Dataset, seeds: tuple[int, ...] = (0, 1)) -> float:
    """Share of held-out choices among the first 10, over some seeds."""
    found = []
    for seed in seeds:
        parts = split(data, "ratio:0.7,0,0.3", seed=seed)
        bundle = trained(name, parts.train, settings, seed)
        cases = parts.cases("test")
        lists = bundle.retriever.retrieve(cases.requests, 10).items
        hits = [len(set(row.tolist()) & set(t.tolist())) / len(t) for row, t in zip(lists, cases.targets, strict=True)]
        found.append(np.mean(hits))
    return float(np.mean(found))


def test_where_choices_are_few_content_finds_what_is_wanted() -> None:
    data, short = planted(480, 4), {"epochs": 30, "every": 5}
    without = quality("lightgcn", {**short, "n_layers": 2}, data)
    freedom = quality("freedom", {**short, "thinned": 0.5}, data)
    alone = quality("freedom", {**short, "thinned": 0.5, "item_layers": 0, "content": 0.0}, data)
    assert freedom > 1.2 * without, (freedom, without)
    assert freedom > 1.2 * alone, "without the graph of items it falls towards LightGCN"
    assert freedom > quality("freedom", {**short, "thinned": 0.0}, data), "thinning helps"
    assert quality("vbpr", short, data) > 1.2 * without
    learnt, frozen = quality("lattice", short, data), quality("lattice", {**short, "frozen": True}, data)
    assert min(learnt, frozen) > 1.2 * without and frozen > 0.95 * learnt, "a frozen graph is not worse"


@pytest.mark.parametrize("name", SYSTEMS)
def test_an_item_that_comes_later_is_shown_to_those_who_like_its_like(name: str) -> None:
    data = planted()
    bundle = trained(name, data, {"epochs": 30, "every": 5}, 1)
    rng = np.random.default_rng(9)
    rows = data.items.filter(pl.col("item") < 4 * GROUPS)  # copies of items, with a little noise
    noisy = [
        pl.Series(c, (np.array(rows[c].to_list()) + 0.1 * rng.normal(size=(len(rows), 12))).tolist())
        for c in ("looks", "words")
    ]
    larger = bundle.system.extend(items=rows.with_columns(*noisy, item=pl.col("item") + 1000))
    assert larger.items().shape[0] == I + len(rows)
    torch.testing.assert_close(larger.items()[:I], bundle.system.items())
    scores = (larger.queries(Requests.of_users(np.arange(U))) @ larger.items()[I:].T).numpy()
    of_item, of_user = np.arange(len(rows)) % GROUPS, np.arange(U) % GROUPS
    best = scores.reshape(U, -1, GROUPS).mean(axis=1).argmax(axis=1)
    assert (best == of_user).mean() > 0.6 and len(of_item) == scores.shape[1], (best == of_user).mean()


def test_frozen_lattice_and_posters_train(tmp_path: Any) -> None:
    pytest.importorskip("PIL")
    from tastemaker.data.synthetic import World

    data = World(n_users=80, n_items=50, seed=1).dataset(posters=tmp_path)
    for name, settings in (("freedom", {"columns": "poster,title"}), ("lattice", {"frozen": True})):
        bundle = trained(name, data, {"dim": 8, "epochs": 2, "every": 1, **settings}, 0)
        assert {one.kind for one in bundle.system.sources} == {"image", "text"}
        folder = bundle.save(tmp_path / name)
        again = type(bundle).load(folder)
        torch.testing.assert_close(again.system.items(), bundle.system.items())


def test_data_without_content_is_refused_in_words() -> None:
    data = planted()
    bare = Dataset("bare", data.users, data.items.select("item"), data.events)
    with pytest.raises(Exception, match="learns from"):
        fit("freedom", bare)
    assert subject("freedom").info.missing_from(data) == frozenset()
