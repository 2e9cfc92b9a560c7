"""Warm starts: weights follow ids, whatever the numbers; nothing is matched by accident; a start is judged honestly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from tastemaker.contracts import Epochs, Program, Train, find, names, system
from tastemaker.data import holdout, split, synthetic
from tastemaker.feeds import interaction_matrix, triplets
from tastemaker.nn import losses
from tastemaker.nn.table import Table
from tastemaker.testing.subject import SMALL
from tastemaker.train import Bundle, fit
from tastemaker.train.bundle import export_state
from tastemaker.train.warm import held_back
from tastemaker.types import PARTS, Dataset, Requests, Split, UsageError, Vocabulary, setting, settings

NEURAL = [name for name in names() if issubclass(find(name).cls, nn.Module)]
FAST = {"dim": 16, "epochs": 2, "every": 1}


def small(name: str, **more: Any) -> dict[str, Any]:
    cls = find(name).cls
    wanted = {**SMALL, **getattr(cls, "small", {}), **FAST, **more}
    return {key: value for key, value in wanted.items() if key in settings(cls.Config)}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return synthetic(150, n_items=120, seed=4, impressions=0.0)


@pytest.fixture(scope="module")
def early(data: Dataset) -> Dataset:
    """What was known at two thirds of the time: fewer users and items."""
    times = data.events["time"].sort()
    return data.asof(int(times[2 * len(times) // 3]))


def shuffled(data: Dataset, seed: int = 0) -> Dataset:
    """The same with other numbers for everybody."""
    rng = np.random.default_rng(seed)
    tables, numbers = {}, {}
    for key, table in (("user", data.users), ("item", data.items)):
        order = rng.permutation(table.height)
        tables[key] = table[order].drop("available", strict=False)
        numbers[key] = pl.Series(key, np.argsort(order).astype(np.int32))
    events = data.events.with_columns(numbers[key].gather(data.events[key].cast(pl.UInt32)) for key in numbers)
    return replace(data, users=tables["user"], items=tables["item"], events=events)


def rows_of(bundle: Bundle, name: str) -> dict[tuple[str, Any], Any]:
    """The rows of a declared entry by whose they are."""
    weights, at, found = bundle.system.state_dict()[name], 0, {}
    ids: Mapping[str, Vocabulary] = {"users": bundle.users, "items": bundle.items}
    for part in type(bundle.system).rows[name]:
        owners = list(range(part)) if isinstance(part, int) else ids[part].series.to_list()
        found |= {(str(part), owner): weights[at + n].numpy() for n, owner in enumerate(owners)}
        at += len(owners)
    assert at == len(weights)
    return found


@pytest.mark.parametrize("name", NEURAL)
def test_every_system_goes_on_with_new_users_and_items(
    name: str, data: Dataset, early: Dataset, tmp_path: Path
) -> None:
    """From a bundle on the disk to data with more users and items, all of other numbers, without a step of training."""
    old = Bundle.load(fit(name, early, small(name), seed=1, refit=False).save(tmp_path / "old"))
    later = shuffled(data)
    assert early.n_users < later.n_users and early.n_items < later.n_items
    still = {0: 0, 1: 0, 2: 0, 3: 0, 4: 0}
    new = fit(name, later, warm=old, seed=2, epochs=still)
    told = new.about["warm"]
    assert told["users"] == {"kept": early.n_users, "new": later.n_users - early.n_users, "gone": 0}
    assert told["items"] == {"kept": early.n_items, "new": later.n_items - early.n_items, "gone": 0}
    declared = type(new.system).rows
    fresh = fit(name, later, small(name), seed=2, epochs=still)  # what the constructor drew
    trained = {n for n, _ in new.system.named_parameters()}
    for entry in declared:
        if entry not in trained or entry not in old.system.state_dict():
            continue
        before, after, own = rows_of(old, entry), rows_of(new, entry), rows_of(fresh, entry)
        assert before.keys() < after.keys()
        for owner, row in after.items():
            np.testing.assert_array_equal(row, before.get(owner, own[owner]), err_msg=f"{entry} of {owner}")
    for entry, weights in new.system.named_parameters():
        if entry not in declared:
            assert torch.equal(weights, old.system.state_dict()[entry]), entry
    taught = fit(name, later, warm=old, seed=2, epochs={0: 1, 1: 1, 2: 1})
    assert taught.recommend(later.user_ids.series.tail(3).to_list(), k=5).height == 15


@pytest.mark.parametrize("name", NEURAL)
def test_what_depends_on_the_catalogue_is_declared(name: str, data: Dataset) -> None:
    """Each entry whose shape changes with the number of users or items says whose its rows are, and no other does."""
    info, schema = find(name), data.schema
    config = info.config(**small(name, **({"item_points": True} if name == "cml-movies" else {})))
    sizes = {"users": schema.n_users, "items": schema.n_items}
    for more in ({"users": 3}, {"items": 5}):
        grown = {side: n + more.get(side, 0) for side, n in sizes.items()}
        shapes = [
            {n: tuple(w.shape) for n, w in info.cls(config, replace(schema, n_users=u, n_items=i)).state_dict().items()}
            for u, i in (sizes.values(), grown.values())
        ]
        changed = {n for n in shapes[0] if shapes[0][n] != shapes[1][n]}
        side = next(iter(more))
        assert changed == {n for n, parts in info.cls.rows.items() if side in parts}
        for n in changed:
            assert shapes[1][n][0] - shapes[0][n][0] == more[side] and shapes[0][n][1:] == shapes[1][n][1:]


@pytest.mark.parametrize("name", ["bpr-mf", "sasrec"])
def test_a_warm_refit_needs_fewer_epochs_and_is_no_worse(name: str, data: Dataset) -> None:
    parts = split(data, "leave-one-out")
    config = small(name, epochs=12)
    cold = fit(name, parts, config, seed=1)
    warm = fit(name, parts, config, seed=2, warm=cold)
    first, then = cold.about["training"][0], warm.about["training"][0]
    needed = [
        next(one["epoch"] for one in told["evaluations"] if one[told["metric"]] >= 0.98 * first["best"])
        for told in (first, then)
    ]
    assert needed[0] >= 4 and needed[1] == 0
    assert then["best"] >= first["best"] - 1e-6
    assert then["evaluations"][0]["epoch"] == 0 and "loss" in then["evaluations"][0]
    assert then["evaluations"][0][then["metric"]] == pytest.approx(first["best"], abs=1e-6), "it begins where it ended"
    assert all(one["epoch"] for one in first["evaluations"]), "a cold start is not judged before its first epoch"


def test_a_start_that_nothing_betters_is_kept(data: Dataset) -> None:
    parts = split(data, "leave-one-out")
    config = small("bpr-mf", epochs=8)
    cold = fit("bpr-mf", parts, config, seed=1)
    mad = fit("bpr-mf", parts, {**config, "lr": 0.9}, seed=1)
    mad.system.load_state_dict(cold.system.state_dict())  # good weights, and a rate that can only spoil them
    kept = fit("bpr-mf", parts, warm=mad, seed=2)
    assert kept.about["training"][0]["best_epoch"] == 0
    for name, weights in cold.system.state_dict().items():
        assert torch.equal(kept.system.state_dict()[name], weights)


def test_only_what_the_old_fit_has_not_seen_judges_it(data: Dataset, early: Dataset) -> None:
    """Where events are held back, none of them is one that the old bundle has learnt from."""
    old = fit("bpr-mf", early, small("bpr-mf"), refit=False)
    inner = held_back(data, old, seed=0)
    seen = set(zip(*(early.events[key].to_list() for key in ("user", "item")), strict=True))  # numbers are a prefix
    valid, usual = (parts.events("valid").drop_nulls("item") for parts in (inner, holdout(data)))
    pairs = list(zip(valid["user"].to_list(), valid["item"].to_list(), strict=True))
    assert pairs and not seen & set(pairs)
    assert 0 < len(pairs) < usual.height, "somebody had no new event, whose last one must not judge"
    assert inner.sizes["train"] + inner.sizes["valid"] == data.n_events
    moved = held_back(shuffled(data), old, seed=0)
    assert moved.sizes == inner.sizes
    told = replace(old, histories=None)
    assert (held_back(data, told, 0).events("valid")["time"] > old.about["data"]["until"]).all()


def test_nothing_new_cannot_judge(early: Dataset) -> None:
    old = fit("bpr-mf", early, small("bpr-mf"), refit=False)
    with pytest.raises(UsageError, match="would judge itself"):
        fit("bpr-mf", early, warm=old)
    assert fit("bpr-mf", early, warm=old, epochs={0: 1}).about["warm"]["users"]["new"] == 0


def test_a_refit_on_all_begins_with_the_old_weights_too(data: Dataset, early: Dataset) -> None:
    old = fit("bpr-mf", early, small("bpr-mf", epochs=4))
    new = fit("bpr-mf", data, warm=old, seed=1)
    told = new.about["training"]
    assert [one["best_epoch"] for one in told] == [told[0]["best_epoch"]] * 2
    assert new.about["data"]["until"] == data.events["time"].max() > old.about["data"]["until"]


def test_a_closed_form_is_fitted_anew(data: Dataset, early: Dataset) -> None:
    old = fit("ease", early)
    warm, cold = fit("ease", data, warm=old), fit("ease", data)
    assert "fitted anew" in warm.about["warm"]["weights"]
    for name, array in export_state(cold.system).items():
        np.testing.assert_array_equal(export_state(warm.system)[name], array)


def test_differences_are_named(data: Dataset, early: Dataset) -> None:
    old = fit("bpr-mf", early, small("bpr-mf"), refit=False)
    for system_name, config, how, told in (
        ("simplex", None, {}, "simplex version 1 needs a bundle of the same, got one of bpr-mf"),
        ("bpr-mf", small("bpr-mf", dim=8), {}, "dim is 8, in the old bundle of bpr-mf 16"),
        ("bpr-mf", None, {"transforms": ["apr"]}, "same transforms: apr is .* not there"),
    ):
        with pytest.raises(UsageError, match=told):
            fit(system_name, data, config, warm=old, epochs={0: 1}, **how)


def test_a_run_folder_knows_what_it_began_with(data: Dataset, early: Dataset, tmp_path: Path) -> None:
    olds = [fit("bpr-mf", early, small("bpr-mf"), seed=seed, refit=False) for seed in (1, 2)]
    fit("bpr-mf", data, warm=olds[0], epochs={0: 1}, run=tmp_path / "run")
    with pytest.raises(UsageError, match="another system, setting, seed, dataset or resource"):
        fit("bpr-mf", data, warm=olds[1], epochs={0: 1}, run=tmp_path / "run")


def test_a_bundle_without_the_rows_before_smoothing_says_so(data: Dataset, early: Dataset) -> None:
    old = fit("lightgcn", early, small("lightgcn"), refit=False)
    state = {name: np.array(array) for name, array in old.system.export().items() if name != "nodes"}
    old.system.restore(state)  # as one was written before these were kept: it answers as ever
    assert old.recommend(early.user_ids.series.head(2).to_list(), k=3).height == 6
    with pytest.raises(UsageError, match=r"does not keep the weights table\.weight"):
        fit("lightgcn", data, warm=old, epochs={0: 1})


@system("undeclared", family="classical", title="A probe of warm starts", paper="none", needs={"users"})
class Undeclared(nn.Module):
    """A factorisation that says nothing of its rows."""

    rows: ClassVar[Mapping[str, Any]] = {}

    @dataclass(frozen=True)
    class Config:
        dim: int = setting(4, "Width of the vectors.", low=1)

    def __init__(self, config: Any, schema: Any) -> None:
        super().__init__()
        self.users, self.things = Table(schema.n_users, config.dim), Table(schema.n_items, config.dim)

    def program(self, data: Dataset) -> Program:
        yield Train(triplets(interaction_matrix(data), 512), self.gather, self.objective, until=Epochs(1))

    def gather(self, batch: Any) -> Tensor:
        both = self.things(batch.items), self.things(batch.negatives[:, 0])
        return torch.cat([self.users(batch.users), *both], dim=1)

    def objective(self, read: Tensor, batch: Any) -> Tensor:
        user, chosen, other = read.chunk(3, dim=1)
        return losses.bpr((user * chosen).sum(1), (user * other).sum(1, keepdim=True))

    def queries(self, requests: Requests) -> Tensor:
        return self.users.known(requests.users)

    def items(self, numbers: Any = None) -> Tensor:
        return self.things.weight if numbers is None else self.things(numbers)


def test_undeclared_rows_are_refused_even_where_the_sizes_are_equal(data: Dataset) -> None:
    """Equal shapes must not pass for equal rows: numbers may have moved."""
    old = fit(Undeclared, data)
    for later in (data, shuffled(data)):
        with pytest.raises(UsageError, match=r"users\.weight of undeclared.* nothing says whose its rows are"):
            fit(Undeclared, later, warm=old)
    declared = {"users.weight": ("users",), "things.weight": ("items", 1)}
    wrong = system("undeclared", family="classical", title="x", paper="x")(
        type("Wrong", (Undeclared,), {"rows": declared})
    )
    with pytest.raises(UsageError, match=r"things\.weight is declared to have rows of items, 1"):
        fit(wrong, data, warm=replace(old, info=find("bpr-mf").__class__(**{**vars(old.info), "cls": wrong})))


def test_film_probabilities_are_not_fitted_on_films_the_old_fit_knew(data: Dataset, early: Dataset) -> None:
    """The head is learnt on films that the distance has not seen; where there is none, the old head stays."""
    config = {**small("cml-movies", lr=0.003), "text_dim": 20}
    old = fit("cml-movies", early, config)
    same = fit("cml-movies", early, warm=old, seed=5)
    assert torch.equal(same.system.head, old.system.head)
    assert torch.equal(same.system.vectors, old.system.vectors), "texts are read along the old axes"
    later = fit("cml-movies", data, warm=old, seed=5)
    assert not torch.equal(later.system.head, old.system.head)


def test_a_split_without_newer_events_is_no_obstacle_with_a_valid_part(data: Dataset) -> None:
    parts: Split = split(data, "leave-one-out")
    assert (parts.part == PARTS["valid"]).any()
    old = fit("multvae", parts, small("multvae"), seed=1)
    assert fit("multvae", parts, warm=old, seed=1).about["judged_on"] == "valid part"
