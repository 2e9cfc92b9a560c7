"""What a system is made of is read from its source: its stages and feeds, those of what it calls, and its length."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tastemaker.contracts import Alternate, Epochs, Fit, Program, Stage, Train, find, info_of, system
from tastemaker.feeds import bags, interaction_matrix, rollout
from tastemaker.lab.anatomy import anatomy, anatomy_table
from tastemaker.types import Dataset, SystemRef, setting


@system("toy", family="classical", title="A toy", paper="none")
class Toy:
    """Yields what it is asked for."""

    @dataclass(frozen=True)
    class Config:
        base: SystemRef | None = setting(None, "Another system.")

    def __init__(self, config: Config, schema: Any) -> None:
        self.config = config

    def program(self, data: Dataset) -> Program:
        yield Fit(np.mean, data.events["value"])
        yield from in_turn(self, data)


def in_turn(toy: Toy, data: Dataset) -> Generator[Stage, Any, None]:
    """The rest of the program, in a function of its own."""
    one, two = bags(interaction_matrix(data), 8), rollout(toy, lambda rows, seeds: rows, episodes=1, batch_size=1)
    yield Alternate([Train(feed, len, max, Epochs(1)) for feed in (one, two)])


def test_parts_are_found_in_a_system_and_in_what_it_calls() -> None:
    found = anatomy(info_of(Toy))
    assert found.stages == ("Fit", "Train", "Alternate")
    assert found.feeds == ("Bags", "matrix", "rollout")
    assert found.others == ("base",)
    assert found.lines == Path(__file__).read_text(encoding="utf-8").count("\n")


@pytest.mark.parametrize(
    ("name", "stages", "feed", "others"),
    [
        ("ials", ("Fit",), "matrix", ()),
        ("freedom", ("Precompute", "Train"), "Triplets", ()),
        ("tiger", ("Precompute", "Train"), "Tokens", ()),
        ("deepfm", ("Fit", "Train"), "Rows", ()),
        ("diag-linucb", ("Fit",), "matrix", ("vectors",)),
    ],
)
def test_parts_of_systems(name: str, stages: tuple[str, ...], feed: str, others: tuple[str, ...]) -> None:
    found = anatomy(find(name))
    assert (found.stages, found.others) == (stages, others) and feed in found.feeds


def test_the_table_has_a_row_a_system_in_the_order_of_families() -> None:
    rows = anatomy_table([find("diag-linucb"), find("ials")]).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == ["ials", "diag-linucb"]
    assert "a system (`vectors`)" in rows[1] and "updates" in rows[1]
