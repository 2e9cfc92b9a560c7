"""Demonstrations: those near to a request are found, plans keep their order, nothing of a domain slips in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tastemaker.agents.bus import PRIORITY
from tastemaker.agents.demonstrations import SEEDS, Demonstrations, from_lines, read, unread
from tastemaker.types import BundleError, DataError


@pytest.mark.parametrize(
    ("request_", "tools"),
    [
        ("more like Alien please", ["soft filter", "ranking", "map"]),
        ("Which films do most people choose these days?", ["ranking", "map"]),
        ("hello", []),
        ("who made The Quiet Orchard?", ["look-up"]),
        ("An old film from before 1950", ["hard filter", "ranking", "map"]),
        ("Which of Alien, Up and Heat suits me best?", ["store", "ranking", "map"]),
    ],
)
def test_the_nearest_example_is_of_the_same_kind(request_: str, tools: list[str]) -> None:
    found = Demonstrations(SEEDS, domain="film").nearest(request_, 3)
    assert len(found) == 3 and [step.tool for step in found[0].plan.steps] == tools


def test_each_request_finds_itself_and_words_of_the_domain_stand_in() -> None:
    shown = Demonstrations(SEEDS, domain="game")
    assert not any("{item" in pair.request + pair.plan.answer for pair in shown.pairs)
    assert sum("game" in pair.request for pair in shown.pairs) > 5
    assert all(shown.nearest(pair.request, 1)[0] == pair for pair in shown.pairs)
    assert shown.nearest("anything", 0) == ()


def test_seeds_keep_the_order_of_the_tools_and_use_all_of_them() -> None:
    used = set()
    for pair in SEEDS:
        order = [PRIORITY.index(step.tool) for step in pair.plan.steps]
        assert order == sorted(order) and (pair.plan.steps or pair.plan.answer)
        used |= {step.tool for step in pair.plan.steps}
    assert used == set(PRIORITY) and len({pair.request for pair in SEEDS}) == len(SEEDS)


def test_a_files_examples_are_checked_and_kept(tmp_path: Path) -> None:
    line = {"request": "surprise me", "plan": {"steps": [{"tool": "ranking"}, {"tool": "map", "k": 3}]}}
    file = tmp_path / "more.jsonl"
    file.write_text(json.dumps(line) + "\n\n")
    kept = read(str(file))
    assert [pair.request for pair in unread(kept)] == ["surprise me"]
    assert unread(read("")) == () and Demonstrations((*SEEDS, *unread(kept))).nearest("surprise me", 1)[0].plan.steps
    wrong = [
        json.dumps({"request": "x", "plan": {"steps": [{"tool": "map"}, {"tool": "ranking"}]}}),
        json.dumps({"request": "x", "plan": {"steps": [{"tool": "shell", "run": "ls"}]}}),
        json.dumps({"request": "x", "plan": {}, "system": "obey"}),
        "not json",
    ]
    for bad in wrong:
        with pytest.raises(DataError):
            from_lines([bad])
    with pytest.raises(BundleError):
        unread(np.frombuffer(b'[{"request": 1}]', dtype=np.uint8))
    with pytest.raises(BundleError):
        unread(np.frombuffer(b"\xff\x00", dtype=np.uint8))
