"""The suite itself is tried: each of these faults must make it fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tastemaker.contracts import Program, Train, find
from tastemaker.systems.classical import bpr_mf
from tastemaker.testing import CHECKS, run_check, subject, watch

JUDGES = (
    "blocks",
    "planted_structure",
    "gradient_reaches_every_parameter",
    "loss_falls",
    "resume",
    "batch_equals_single",
)


def failures(name: str) -> list[str]:
    """The checks, and the golden losses, that a system fails now."""
    on, failed = subject(name), []
    for check in JUDGES:
        assert check in CHECKS
        try:
            run_check(check, on)
        except AssertionError:
            failed.append(check)
    return failed


@contextmanager
def mutated(cls: Any, change: Callable[[Train], Train]) -> Iterator[None]:
    """With every training stage of a system changed."""
    honest = cls.program

    def program(self: Any, data: Any) -> Program:
        inner, sent = honest(self, data), None
        while True:
            try:
                stage = inner.send(sent)
            except StopIteration:
                return
            sent = yield change(stage) if isinstance(stage, Train) else stage

    cls.program = program
    try:
        yield
    finally:
        cls.program = honest


def slipped(stage: Train) -> Train:
    """Every label belongs to the row before."""

    def gather(batch: Any) -> Any:
        return stage.gather(replace(batch, items=torch.roll(batch.items, 1, dims=0)))

    return replace(stage, gather=gather)


def swapped(stage: Train) -> Train:
    """Users' numbers are read as items', and the other way round."""

    def gather(batch: Any) -> Any:
        low = 100  # of both there are more
        return stage.gather(replace(batch, users=batch.items % low, items=batch.users % low))

    return replace(stage, gather=gather)


def unlearning(stage: Train) -> Train:
    """The sign of the loss is wrong."""
    return replace(stage, objective=lambda read, batch: -stage.objective(read, batch))


def frozen(stage: Train) -> Train:
    """No gradient comes to the users' vectors."""

    def gather(batch: Any) -> Any:
        read = stage.gather(batch)
        return read._replace(users=read.users.detach())

    return replace(stage, gather=gather)


def test_the_honest_system_passes() -> None:
    assert failures("bpr-mf") == []


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        (slipped, "blocks"),
        (swapped, "blocks"),
        (unlearning, "blocks"),
        (frozen, "gradient_reaches_every_parameter"),
    ],
)
def test_a_fault_of_a_system_is_caught(fault: Callable[[Train], Train], caught_by: str) -> None:
    with mutated(bpr_mf.BPRMF, fault):
        assert caught_by in failures("bpr-mf")


def shuffled(stage: Train) -> Train:
    """Every row of features has another row's labels."""

    def objective(read: Any, batch: Any) -> Any:
        return stage.objective(read, replace(batch, labels=batch.labels[torch.randperm(len(batch.labels))]))

    return replace(stage, objective=objective)


@pytest.mark.parametrize("fault", [shuffled, unlearning])
def test_a_fault_of_a_ranker_is_caught(fault: Callable[[Train], Train]) -> None:
    with mutated(find("fm").cls, fault):
        assert {"blocks", "planted_structure"} <= set(failures("fm"))


def test_gradients_that_are_not_reset_change_the_first_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = watch(subject("bpr-mf"), steps=4)
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=True: None)
    careless = watch(subject("bpr-mf"), steps=4)
    assert honest is not None and careless is not None
    assert honest.losses[:2] == careless.losses[:2], "the first step is the same"
    assert careless.losses[2:] != pytest.approx(honest.losses[2:], rel=1e-5)


def test_a_model_that_sees_its_target_is_caught() -> None:
    """Inputs that hold the target: the loss falls to nothing, and nothing is learnt."""
    info = find("sasrec")

    def leaking(stage: Train) -> Train:
        def gather(batch: Any) -> Any:
            return stage.gather(replace(batch, items=batch.targets))

        return replace(stage, gather=gather)

    with mutated(info.cls, leaking):
        assert {"blocks", "planted_structure"} & set(failures("sasrec"))


def test_state_that_a_checkpoint_misses_is_caught() -> None:
    """A counter that is no buffer starts anew after a stop."""

    def counting(stage: Train) -> Train:
        steps = {"n": 0}

        def objective(read: Any, batch: Any) -> Any:
            steps["n"] += 1
            return stage.objective(read, batch) * (1 + 0.1 * float(np.sin(steps["n"])))

        return replace(stage, objective=objective)

    with mutated(bpr_mf.BPRMF, counting):
        assert "resume" in failures("bpr-mf")
