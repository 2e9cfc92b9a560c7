"""VAT: shifts as long as the paper's equations say, on every system that is trained by gradients."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tastemaker.audit.transforms.vat import VAT, owners_of, shifts_of
from tastemaker.contracts import TRANSFORMS, find, names
from tastemaker.data import split, synthetic
from tastemaker.feeds import bags, cloze, interaction_matrix, next_items, tensors, triplets, windows
from tastemaker.nn.pairwise import penalised_bpr
from tastemaker.testing.subject import subject
from tastemaker.testing.trained import Enough, Stop
from tastemaker.train import fit
from tastemaker.train.bundle import export_state
from tastemaker.types import Split, UsageError

SMALL = {"dim": 8, "epochs": 3, "every": 1, "batch_size": 128}


class Rows(NamedTuple):
    users: Tensor
    items: Tensor


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(synthetic(80, n_items=70, seed=2), "ratio:0.7,0.15,0.15")


def holder(n_users: int = 0) -> nn.Module:
    made = nn.Module()
    made.register_buffer("vat_on", torch.tensor(True))
    made.register_buffer("vat_past", torch.full((n_users,), -1.0))
    return made


def numpy_gains(losses: np.ndarray, owners: np.ndarray, gain: float = 2.0, mean: bool = False) -> np.ndarray:
    """g(u) = gain * sigmoid(mean of L / L(u) - 1), L(u) the sum, or the mean, of the losses of u's rows."""
    per_user = {u: (losses[owners == u].mean() if mean else losses[owners == u].sum()) for u in set(owners.tolist())}
    average = np.mean(list(per_user.values()))
    return np.array([gain / (1 + np.exp(-(average / per_user[u] - 1))) for u in owners.tolist()])


def test_the_magnitude_follows_the_users_loss() -> None:
    rng = np.random.default_rng(0)
    losses, owners = rng.random(40) + 0.05, rng.integers(0, 9, 40)
    given = torch.from_numpy(losses), torch.from_numpy(owners)
    np.testing.assert_allclose(VAT(VAT.Config()).gains(*given), numpy_gains(losses, owners), rtol=1e-6)
    by_mean = VAT(VAT.Config(measure="mean", gain=3.0)).gains(*given)
    np.testing.assert_allclose(by_mean, numpy_gains(losses, owners, 3.0, mean=True), rtol=1e-6)
    alike = VAT(VAT.Config()).gains(torch.full((4,), 0.7), torch.arange(4))
    assert alike.tolist() == pytest.approx([1.0] * 4), "the average user's is 1"
    spread = VAT(VAT.Config()).gains(torch.tensor([1e-9, 1.0, 100.0]), torch.arange(3))
    assert spread[0] == pytest.approx(2.0) and spread[2] == pytest.approx(2 / (1 + np.exp(1 - 101 / 300)), rel=1e-4)
    assert torch.isfinite(VAT(VAT.Config()).gains(torch.zeros(3), torch.arange(3))).all()


def test_the_other_magnitudes_are_for_telling_what_it_is_worth() -> None:
    losses, owners = torch.rand(200, generator=torch.Generator().manual_seed(0)), torch.arange(200) // 2
    assert (VAT(VAT.Config(magnitude="uniform")).gains(losses, owners) == 1).all()
    right, mixed = (VAT(VAT.Config(magnitude=m)).gains(losses, owners) for m in ("vulnerability", "shuffled"))
    assert torch.equal(right.sort().values, mixed.sort().values) and not torch.equal(right, mixed)
    assert torch.equal(mixed[0::2], mixed[1::2]), "a user's rows have one magnitude"


def test_memory_keeps_a_share_of_earlier_losses() -> None:
    vat, kept = VAT(VAT.Config(memory=0.75)), holder(5)
    vat.gains(torch.tensor([1.0, 2.0]), torch.tensor([3, 1]), kept)
    assert kept.vat_past.tolist() == [-1.0, 2.0, -1.0, 1.0, -1.0]
    got = vat.gains(torch.tensor([3.0, 4.0]), torch.tensor([3, 0]), kept)
    assert kept.vat_past.tolist() == pytest.approx([4.0, 2.0, -1.0, 1.5, -1.0])
    np.testing.assert_allclose(got, numpy_gains(np.array([1.5, 4.0]), np.array([3, 0])), rtol=1e-6)


def test_the_objective_is_the_papers() -> None:
    """Against NumPy: loss + weight * loss at vectors shifted by epsilon * g(u) * G / |G|."""
    rng = np.random.default_rng(1)
    users, items = rng.normal(size=(6, 4)), rng.normal(size=(6, 2, 4))
    owners = np.array([0, 1, 1, 2, 3, 3])

    def bpr(u: np.ndarray, i: np.ndarray) -> np.ndarray:
        return np.log1p(np.exp((u * (i[:, 1] - i[:, 0])).sum(axis=1)))

    losses = bpr(users, items)
    slope = (1 - np.exp(-losses))[:, None]  # sigmoid of the difference
    g_users, g_chosen, g_other = slope * (items[:, 1] - items[:, 0]), -slope * users, slope * users
    gains = numpy_gains(losses, owners)[:, None]

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    moved = bpr(
        users + 0.3 * gains * unit(g_users),
        items + 0.3 * gains[:, None] * np.stack([unit(g_chosen), unit(g_other)], axis=1),
    )
    read = Rows(*(torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (users, items)))
    vat = VAT(VAT.Config(epsilon=0.3, weight=0.7))
    objective = vat._objective(lambda rows, batch: penalised_bpr(rows.users, rows.items), holder())
    got = objective(read, SimpleNamespace(owners=torch.from_numpy(owners)))
    np.testing.assert_allclose(got.detach(), losses + 0.7 * moved, rtol=1e-5)
    assert (moved > losses).all(), "the shift raises every row's loss"
    got.sum().backward()
    assert all(vector.grad is not None and torch.isfinite(vector.grad).all() for vector in read)


def test_a_shared_vector_moves_along_the_weighed_gradient() -> None:
    """By epsilon times the ratio of the weighed gradient's length to the plain one's, at most `most`."""
    rng = torch.Generator().manual_seed(0)
    own, shared = torch.randn(5, 3, generator=rng, requires_grad=True), torch.randn(2, 3, generator=rng)
    shared.requires_grad_()
    gains = torch.tensor([0.6, 0.8, 1.0, 1.5, 1.9])
    losses = nn.functional.softplus(own @ shared.T).sum(dim=1)
    of_own, of_shared = shifts_of(losses, gains, [own, shared], 0.5, 2.0)
    assert of_own.norm(dim=1).tolist() == pytest.approx((0.5 * gains).tolist(), rel=1e-5)
    weighed = torch.stack([torch.sigmoid(own @ shared.T)[:, j] * gains @ own for j in range(2)])
    plain = torch.stack([torch.sigmoid(own @ shared.T)[:, j] @ own for j in range(2)])
    ratio = (weighed.norm(dim=1) / plain.norm(dim=1)).clamp(max=2.0)
    assert torch.allclose(of_shared, 0.5 * ratio[:, None] * nn.functional.normalize(weighed, dim=1), atol=1e-5)
    cancelled = shifts_of(torch.stack([shared.sum(), -shared.sum()]), torch.tensor([2.0, 0.6]), [shared], 0.5, 2.0)
    assert cancelled[0].norm(dim=1).max() <= 1.0 + 1e-6, "never by more than the largest gain"


def test_rows_of_every_feed_know_their_users(parts: Split) -> None:
    matrix = interaction_matrix(parts.train)
    pairs = triplets(matrix, 64).batch(0, 0)
    assert np.array_equal(tensors(pairs, "cpu").owners.numpy(), pairs.users)
    seen = windows(parts.train, 6, which="all")
    own = matrix.toarray() > 0
    for feed in (next_items(seen, 16, start=70), cloze(seen, 16, 70)):
        batch = feed.batch(0, 0)
        assert len(batch.owners) == len(batch.targets) and own[batch.owners, batch.targets].all()
        assert np.array_equal(tensors(batch, "cpu").owners.numpy(), batch.owners)
        half = batch.take(slice(4, 9))
        assert own[half.owners, half.targets].all() and set(half.owners) <= set(batch.users[4:9])
    whole = bags(matrix, 16).batch(0, 0)
    assert np.array_equal(whole.owners, whole.rows)
    assert owners_of(SimpleNamespace(), torch.zeros(3)) is None
    alone = VAT(VAT.Config(memory=0.5)).gains(torch.tensor([0.2, 0.4]), None, holder(1))
    np.testing.assert_allclose(alone, numpy_gains(np.array([0.2, 0.4]), np.arange(2)), rtol=1e-6)
    with pytest.raises(UsageError, match="as many owners"):
        owners_of(SimpleNamespace(owners=torch.zeros(2)), torch.zeros(3))


def test_uniform_magnitude_is_apr(parts: Split) -> None:
    """The paper's ablation: without vulnerability it is adversarial training as it was."""
    uniform = fit("bpr-mf", parts, SMALL, transforms={"vat": {"magnitude": "uniform", "after": 0, "epsilon": 0.4}})
    apr = fit("bpr-mf", parts, SMALL, transforms={"apr": {"epsilon": 0.4}})
    other = fit("bpr-mf", parts, SMALL, transforms={"vat": {"after": 0, "epsilon": 0.4}})
    ours, theirs, vat = (export_state(one.system)["item_table.weight"] for one in (uniform, apr, other))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert not np.allclose(vat, theirs, atol=1e-3)


def test_plain_epochs_come_first_and_nothing_is_left_behind(parts: Split) -> None:
    late = fit("bpr-mf", parts, SMALL, transforms={"vat": {"after": 3, "memory": 0.5}})
    plain = fit("bpr-mf", parts, SMALL)
    assert set(export_state(late.system)) == set(export_state(plain.system))
    assert np.array_equal(
        export_state(late.system)["user_table.weight"], export_state(plain.system)["user_table.weight"]
    )
    assert late.about["transforms"]["vat"]["memory"] == 0.5


def test_it_resumes_with_what_it_remembers(parts: Split, tmp_path: Path) -> None:
    how: dict[str, Any] = {"transforms": {"vat": {"after": 0, "memory": 0.9, "magnitude": "shuffled"}}}
    whole = fit("bpr-mf", parts, SMALL, **how)
    with suppress(Enough):
        fit("bpr-mf", parts, SMALL, run=tmp_path, checkpoint_seconds=0, loggers=[Stop()], **how)
    resumed = fit("bpr-mf", parts, SMALL, run=tmp_path, **how)
    for name, weights in export_state(whole.system).items():
        assert np.array_equal(weights, export_state(resumed.system)[name])


def trained_by_gradients() -> list[str]:
    return [name for name in names() if issubclass(find(name).cls, nn.Module)]


@pytest.mark.parametrize("name", trained_by_gradients())
def test_it_changes_every_system_that_is_trained_by_gradients(name: str) -> None:
    data = synthetic(60, n_items=60, seed=2)
    s = subject(name, data=data)
    info = find(name)
    if info.uses or info.missing_from(data):
        pytest.skip(f"{name} needs what this dataset does not carry")
    small = {**s.config, **{key: value for key, value in {**SMALL, "epochs": 1}.items() if key in s.config}}

    def fitted(**transforms: dict[str, Any]) -> Any:
        return fit(info.cls, s.parts.train, small, refit=False, histories=False, transforms=transforms)

    try:
        harder = fitted(vat={"after": 0, "memory": 0.5})
    except UsageError as error:
        if "gather" not in str(error):
            raise
        with pytest.raises(UsageError, match="gather"):
            fitted(apr={})
        pytest.skip(f"the gather of {name} gives no vectors that could be shifted")
    plain = fitted()
    ours, theirs = export_state(plain.system), export_state(harder.system)
    assert set(ours) == set(theirs)
    floats = [key for key, value in theirs.items() if value.dtype.kind == "f"]
    assert all(np.isfinite(theirs[key]).all() for key in floats)
    assert any(not np.allclose(ours[key], theirs[key], atol=1e-4) for key in floats)


def test_what_has_no_gradients_is_refused(parts: Split) -> None:
    assert "vat" in TRANSFORMS.names()
    with pytest.raises(UsageError, match="by gradients"):
        fit("ease", parts, transforms=["vat"])
