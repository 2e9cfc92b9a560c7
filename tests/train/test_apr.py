"""APR: its objective is the paper's, it changes what is learnt, and it leaves nothing of itself in the bundle."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tastemaker.contracts import TRANSFORMS
from tastemaker.data import split, synthetic
from tastemaker.feeds import interaction_matrix, tensors, triplets
from tastemaker.train import Bundle, fit
from tastemaker.train.bundle import export_state
from tastemaker.train.transforms.apr import APR, vectors, with_vectors
from tastemaker.types import ConfigError, NotFound, Split, UsageError


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(synthetic(200, n_items=120, seed=2), "ratio:0.7,0.15,0.15")


def test_the_objective_is_the_loss_here_and_where_it_rises_fastest() -> None:
    """Against the formula written out: d = epsilon * g / |g| a row."""
    apr, holder = APR(APR.Config(epsilon=0.3, weight=2.0)), nn.Module()
    holder.register_buffer("apr_on", torch.tensor(True))

    def plain(read: Pair, batch: object) -> Tensor:
        return nn.functional.softplus(-(read.left * read.right).sum(dim=1))

    rng = torch.Generator().manual_seed(0)
    left, right = (torch.randn(5, 3, generator=rng, requires_grad=True) for _ in range(2))
    got = apr._objective(plain, holder)(Pair(left, right), None)
    slope = -torch.sigmoid(-(left * right).sum(dim=1, keepdim=True))
    d_left, d_right = slope * right, slope * left
    moved = Pair(
        left + 0.3 * d_left / d_left.norm(dim=1, keepdim=True),
        right + 0.3 * d_right / d_right.norm(dim=1, keepdim=True),
    )
    assert torch.allclose(got, plain(Pair(left, right), None) + 2 * plain(moved, None), atol=1e-5)
    assert (plain(moved, None) > plain(Pair(left, right), None)).all(), "the shift raises the loss"
    got.sum().backward()
    assert left.grad is not None and torch.isfinite(left.grad).all()


def test_it_changes_what_is_learnt_and_leaves_no_trace(parts: Split, tmp_path: Path) -> None:
    config = {"dim": 16, "epochs": 12, "every": 4, "batch_size": 256, "lr": 0.01}
    plain = fit("bpr-mf", parts, config)
    harder = fit("bpr-mf", parts, config, transforms={"apr": {"epsilon": 0.5}})
    ours, theirs = export_state(plain.system), export_state(harder.system)
    assert set(ours) == set(theirs)
    assert not np.allclose(ours["item_table.weight"], theirs["item_table.weight"], atol=1e-3)
    assert harder.about["transforms"] == {"apr": {"epsilon": 0.5, "weight": 1.0, "after": 0}}
    opened = Bundle.load(harder.save(tmp_path / "bundle"))
    assert opened.about["transforms"]["apr"]["epsilon"] == 0.5
    nothing = fit("bpr-mf", parts, config, transforms={"apr": {"weight": 0.0}})
    np.testing.assert_allclose(
        export_state(nothing.system)["item_table.weight"], ours["item_table.weight"], rtol=1e-4, atol=1e-5
    )


def test_plain_epochs_come_first(parts: Split) -> None:
    config = {"dim": 8, "epochs": 3, "batch_size": 256}
    late = fit("bpr-mf", parts, config, transforms={"apr": {"after": 3}})
    assert np.array_equal(
        export_state(late.system)["user_table.weight"],
        export_state(fit("bpr-mf", parts, config).system)["user_table.weight"],
    )


def test_what_it_trained_stands_shifts_better(parts: Split) -> None:
    """The paper's point (its figure 1): when vectors are shifted, what APR trained loses less."""
    config = {"dim": 16, "epochs": 40, "every": 1, "batch_size": 256, "lr": 0.01, "reg": 0.0}
    matrix = interaction_matrix(parts.train)
    batch = tensors(triplets(matrix, 4096).batch(0, 0), "cpu")
    attacked = []
    for transforms in ({}, {"apr": {"epsilon": 1.0}}):
        clock = count()
        trained = fit("bpr-mf", parts, config, transforms=transforms, judge=lambda *_, c=clock: float(next(c)))
        read = trained.system.gather(batch)
        seen = vectors(read)
        slopes = torch.autograd.grad(trained.system.objective(read, batch).sum(), seen)
        shifted = [v + nn.functional.normalize(slope, dim=-1) for v, slope in zip(seen, slopes, strict=True)]
        attacked.append(float(trained.system.objective(with_vectors(read, shifted), batch).mean().detach()))
    assert attacked[1] < 0.8 * attacked[0], (
        f"the loss under attack is {attacked[1]:.3f} with, {attacked[0]:.3f} without"
    )


def test_names_and_settings_are_checked(parts: Split) -> None:
    assert "apr" in TRANSFORMS.names()
    with pytest.raises(NotFound, match="transform"):
        fit("bpr-mf", parts, transforms=["aprr"])
    with pytest.raises(ConfigError, match="epsilon"):
        fit("bpr-mf", parts, transforms={"apr": {"epsilonn": 1}})
    with pytest.raises(UsageError, match="gather"):
        vectors(torch.zeros(3))
    assert torch.equal(with_vectors(torch.zeros(2, requires_grad=True), [torch.ones(2)]), torch.ones(2))
