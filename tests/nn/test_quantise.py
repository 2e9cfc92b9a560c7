"""Codes of vectors: clusters found, of one size where they should be, told apart, carried on, and their figures."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tastemaker.nn.item_codes import CodeConfig, ItemCoder
from tastemaker.nn.quantise import (
    balanced_nearest,
    code_figures,
    coded,
    digits_for,
    kmeans,
    nearest,
    quantised,
    reconstruction_error,
    residuals,
    sinkhorn,
    spread_last,
    with_digit,
)
from tastemaker.nn.rqvae import RQVAE
from tastemaker.types import BundleError, Codebook, UsageError


def planted(n: int = 240, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors that are a coarse part and a fine part, 4 of each, and a little noise; [n, 2] which parts."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 4, (n, 2))
    coarse, fine = rng.standard_normal((4, 8)) * 4, rng.standard_normal((4, 8))
    x = coarse[parts[:, 0]] + fine[parts[:, 1]] + 0.02 * rng.standard_normal((n, 8))
    return x.astype(np.float32), parts


def same_groups(left: Any, right: Any) -> bool:
    return (
        len({*zip(left.tolist(), right.tolist(), strict=True)}) == len(set(left.tolist())) == len(set(right.tolist()))
    )


def test_levels_find_the_planted_parts() -> None:
    x, parts = planted()
    state = quantised(x, "kmeans", 2, 4)
    assert same_groups(state["codes"][:, 0], parts[:, 0]), "the first level is the coarse part"
    tuples = state["codes"] @ [4, 1]
    assert same_groups(tuples, parts @ [4, 1]), "both together tell all kinds apart"
    one = reconstruction_error(x, state, state["codes"][:, :1])
    both = reconstruction_error(x, state, state["codes"])
    assert both < 0.02 < one < 0.3
    assert np.array_equal(coded(x, state, "kmeans"), state["codes"]), "what was learnt gives the same codes again"
    left = residuals(x, state, state["codes"])
    np.testing.assert_allclose(
        np.square(left).sum() / np.square(residuals(x, state, state["codes"][:, :0])).sum(), both
    )


def test_kmeans_is_a_fixed_point_of_lloyd() -> None:
    x = np.random.default_rng(1).standard_normal((300, 3)).astype(np.float32)
    centres = kmeans(x, 7, np.random.default_rng(0), iterations=200)
    near = np.array([np.square(centres - row).sum(axis=1).argmin() for row in x])
    assert np.array_equal(near, nearest(x, centres))
    for k in range(7):
        np.testing.assert_allclose(centres[k], x[near == k].mean(axis=0), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 1000), st.booleans())
def test_balanced_clusters_are_of_one_size_and_stable(n: int, k: int, seed: int, alike: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    if alike:
        x[:] = x[:1]  # ties everywhere
    centres = rng.standard_normal((k, 3)).astype(np.float32)
    held = balanced_nearest(x, centres)
    sizes = np.bincount(held, minlength=k)
    assert sizes.sum() == n and sizes.max() - sizes.min() <= 1
    away = np.square(x[:, None].astype(np.float64) - centres).sum(axis=2)
    for row, centre in product(range(n), range(k)):
        if away[row, centre] < away[row, held[row]] - 1e-4 and sizes[centre]:
            farthest = away[held == centre, centre].max()
            assert farthest <= away[row, centre] + 1e-4, "a row and a centre would both rather have each other"


def test_balanced_codes_are_used_alike() -> None:
    x, _ = planted(256)
    figures = code_figures(quantised(x, "balanced", 2, 8)["codes"], (8, 8))
    assert figures["perplexity 1"] > 7.99 and figures["usage 2"] == 1.0
    plain = code_figures(quantised(x, "kmeans", 2, 8)["codes"], (8, 8))
    assert plain["perplexity 1"] < figures["perplexity 1"]


def test_planes_keep_near_vectors_together_and_chance_does_not() -> None:
    x, _ = planted()
    near = x + 0.001
    for how, agree in (("lsh", True), ("random", False)):
        state = quantised(x, how, 3, 16)  # type: ignore[arg-type]
        same = (coded(near, state, how) == coded(x, state, how, 10_000)).mean()  # type: ignore[arg-type]
        assert (same > 0.95) == agree
        assert state["codes"].shape == (240, 3) and state["codes"].max() == 15


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_a_digit_tells_all_items_apart_and_goes_on_for_later_ones(n: int, size: int, digits: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, size, (n, 2))
    kinds = len(np.unique(codes[:, 0]))
    try:
        whole = with_digit(codes, digits, size)
    except UsageError:
        counts = np.bincount(codes[:, 0])
        assert counts.max() > size * digits, f"{kinds} first codes have room for {size * digits} items each"
        return
    assert len(np.unique(whole, axis=0)) == n and whole[:, 2].max() < digits
    assert np.array_equal(whole[:, 0], codes[:, 0])
    try:
        later = digits_for(codes[: n // 2], whole, digits, size)
    except UsageError:
        return
    assert len(np.unique(np.concatenate([whole, later]), axis=0)) == n + n // 2


def test_sinkhorn_equals_plain_scaling_and_uses_codes_alike() -> None:
    away = np.random.default_rng(0).random((2, 6, 4))
    away[1, 4:] = np.nan
    shares = sinkhorn(away, epsilon=0.5, rounds=200)
    for group, m in ((0, 6), (1, 4)):
        x = away[group, :m]
        plain = np.exp(-((x - (x.min() + x.max()) / 2) / ((x.max() - x.min()) / 2)) / 0.5)
        for _ in range(200):
            plain = plain / plain.sum(axis=0) / 4
            plain = plain / plain.sum(axis=1, keepdims=True) / m
        np.testing.assert_allclose(shares[group, :m], plain, rtol=1e-6)
        np.testing.assert_allclose(shares[group, :m].sum(axis=0), 0.25, rtol=1e-3)
    assert (shares[1, 4:] == 0).all()


def test_last_codes_are_dealt_out_among_items_of_one_tuple() -> None:
    x = np.random.default_rng(3).standard_normal((200, 8)).astype(np.float32)
    state = quantised(x, "kmeans", 3, 8)
    before = state["codes"]
    after = spread_last(before, residuals(x, state, before[:, :-1]), state["centres"][-1])
    collisions = [code_figures(c, (8, 8, 8))["collisions"] for c in (before, after)]
    assert collisions[1] < 0.6 * collisions[0], collisions
    assert np.array_equal(after[:, :-1], before[:, :-1])
    once = spread_last(before, residuals(x, state, before[:, :-1]), state["centres"][-1], repairs=1)
    _, groups, counts = np.unique(before, axis=0, return_inverse=True, return_counts=True)
    single = counts[groups.ravel()] == 1
    assert np.array_equal(once[single], before[single]), "a round leaves alone who shares with nobody"
    assert (once[~single] != before[~single]).any(axis=1).mean() > 0.3


def test_figures_by_hand() -> None:
    figures = code_figures(np.array([[0, 0], [0, 1], [1, 2], [1, 2]]), (4, 4))
    assert figures["collisions"] == 0.5 and figures["usage 1"] == 0.5 and figures["perplexity 1"] == pytest.approx(2)
    assert figures["perplexity 2"] == pytest.approx(math.exp(0.5 * math.log(2) + 0.5 * math.log(4)))


def test_the_loss_of_the_rqvae_and_its_gradients_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    model, x = RQVAE(5, (4, 3), 2, 6), torch.randn(7, 5)
    loss = model(x)
    z = model.encoder(x)
    left, moved, kept, summed = z.detach(), 0.0, 0.0, torch.zeros(7, 3)
    for level in model.codes.detach():
        near = torch.tensor([int((level - row).square().sum(dim=1).argmin()) for row in left])
        moved = moved + (left - level[near]).square().sum(dim=1)
        kept = kept + (left - level[near]).square().sum(dim=1)
        summed = summed + level[near]
        left = left - level[near]
    expected = (model.decoder(summed) - x).square().sum(dim=1) + moved + 0.25 * kept
    torch.testing.assert_close(loss, expected)
    model.zero_grad()
    (model.decoder(z + (summed - z).detach()) - x).square().sum().backward(retain_graph=True)
    straight = model.encoder[0].weight.grad.clone()
    assert straight.abs().max() > 0 and model.codes.grad is None, "what comes back teaches the encoder, not the codes"
    model.zero_grad()
    loss.sum().backward()
    assert model.codes.grad is not None and model.codes.grad.abs().max() > 0


def test_an_rqvae_begins_at_clusters_and_learns() -> None:
    x, parts = planted()
    torch.manual_seed(1)
    model = RQVAE(8, (16, 6), 2, 8)
    model.begin(x, 3)
    values = torch.from_numpy(x)
    first = model.error(values)
    used = code_figures(model.encode(values).numpy(), (8, 8))
    assert used["usage 1"] == 1.0, "every code of the first level is somebody's nearest at the start"
    optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(300):
        optimiser.zero_grad()
        model(values).mean().backward()
        optimiser.step()
    codes = model.encode(values).numpy()
    assert model.error(values) < 0.1 < first
    pure = sum(np.bincount(parts[codes[:, 0] == c, 0]).max() for c in set(codes[:, 0].tolist())) / len(x)
    assert pure > 0.95, "the first code tells the coarse part"


def test_what_makes_codes_comes_back_and_strangers_are_refused() -> None:
    x, _ = planted()
    coder = ItemCoder(CodeConfig(levels=2, size=8, digits=64), 8)
    stages = coder.learn(x, None)  # type: ignore[arg-type]
    stage = next(stages)
    try:
        stages.send(stage.function(*stage.args))  # type: ignore[union-attr]
        raise AssertionError("one stage is enough")
    except StopIteration as end:
        codes = end.value
    Codebook(codes, coder.config.sizes)
    assert coder.figures["usage 1"] == 1.0 and coder.figures["reconstruction error"] < 0.05
    other = ItemCoder(coder.config, 8)
    other.restore(coder.export())
    more = other.further(x[:5], codes)
    assert np.array_equal(more[:, :2], codes[:5, :2]) and (more[:, 2] > codes[:5, 2]).all()
    for name, array in (("centres", np.zeros((2, 9, 8))), ("mean", np.zeros(7)), ("scale", np.array([np.nan]))):
        with pytest.raises(BundleError):
            other.restore({**coder.export(), name: array})
    with pytest.raises(ValueError, match="no centres"):
        CodeConfig("lsh", collisions="sinkhorn")
