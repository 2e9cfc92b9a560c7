"""A recipe's figures are those of `fit` and `evaluate`, and nothing that stands in results/ is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tastemaker.data import split, synthetic
from tastemaker.evaluate import evaluate
from tastemaker.evaluate.interactive import interact
from tastemaker.lab import recipes
from tastemaker.lab.pages import results_table
from tastemaker.simulate import AttributeUsers
from tastemaker.train import fit
from tastemaker.types import ConfigError, NotFound

TEXT = """
title = "A small world"
dataset = "ml-100k"
split = "leave-one-out"
ks = [5]
metrics = ["recall", "ndcg"]
unmasked = true

[[systems]]
name = "popularity"
published = { "recall@5" = 0.5 }

[[systems]]
name = "itemknn"
label = "itemknn, few"
config = { neighbours = 5 }
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recipes.Recipe:
    monkeypatch.setattr(recipes, "get", lambda name, folder=None: synthetic(80, n_items=50, seed=1))
    path = tmp_path / "small.toml"
    path.write_text(TEXT, encoding="utf-8")
    return recipes.read(path)


def test_figures_are_those_of_fit_and_evaluate(recipe: recipes.Recipe, tmp_path: Path) -> None:
    found = recipes.run(recipe, results=tmp_path)["systems"]["itemknn, few"]["metrics"]
    parts = split(synthetic(80, n_items=50, seed=1), "leave-one-out")
    bundle = fit("itemknn", parts, {"neighbours": 5})
    for mark, exclude in (("", True), (" unmasked", False)):
        report = evaluate(bundle, parts, ks=(5,), metrics=["recall", "ndcg"], exclude_seen=exclude)
        for name, value in report.values().items():
            assert found[name + mark] == pytest.approx(value, abs=1e-5)
    assert found["ndcg@5 unmasked"] != found["ndcg@5"]


def test_results_of_other_systems_stay_and_are_shown(recipe: recipes.Recipe, tmp_path: Path) -> None:
    recipes.run(recipe, results=tmp_path)
    first = json.loads((tmp_path / "small.json").read_text())
    again = recipes.run(recipe, only=["popularity"], results=tmp_path)
    assert again["systems"]["itemknn, few"] == first["systems"]["itemknn, few"]
    assert list(again["systems"]) == ["popularity", "itemknn, few"]
    head, row = (line for line in results_table(again).splitlines() if line.startswith(("| system", "| `popularity")))
    assert head.index("ndcg@5 |") < head.index("recall@5 |") < head.index("ndcg@5 unmasked |")
    assert "(0.5000)" in row


def test_what_is_wrong_in_a_recipe_is_said(recipe: recipes.Recipe, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="popularty"):
        recipes.run(recipe, only=["popularty"], results=tmp_path)
    for wrong, said in (("ks = [5]", "kss = [5]"), ("neighbours = 5", "neighbors = 5"), ("itemknn, few", "popularity")):
        path = tmp_path / "wrong.toml"
        path.write_text(TEXT.replace(wrong, said), encoding="utf-8")
        with pytest.raises(ConfigError):
            recipes.read(path)


SESSIONS = """
title = "People who answer"
dataset = "ml-100k"
split = "ratio:0.8,0,0.2"
protocol = "interactive"
turns = 4
sessions = 40
ks = [1, 4]
metrics = ["success", "turns"]
environment = { columns = ["genres"], unseen = false }

[[systems]]
name = "popularity"

[[systems]]
name = "random"
"""


def test_sessions_are_those_of_interact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic(80, n_items=50, seed=1)
    monkeypatch.setattr(recipes, "get", lambda name, folder=None: data)
    path = tmp_path / "asked.toml"
    path.write_text(SESSIONS, encoding="utf-8")
    payload = recipes.run(recipes.read(path), results=tmp_path)
    parts = split(data, "ratio:0.8,0,0.2")
    people = AttributeUsers.of(parts, columns=("genres",), horizon=4, unseen=False)
    report = interact(fit("popularity", parts), people, turns=4, sessions=40, seeds=(0,), at=(1, 4), k=10)
    found = payload["systems"]["popularity"]["metrics"]
    assert set(found) == {"success@1", "success@4", "turns"}
    assert all(found[name] == pytest.approx(report[name], abs=1e-5) for name in found)
    assert "40 sessions of up to 4 turns" in results_table(payload) and "success@4" in results_table(payload)
    for wrong, right, message in (
        ("sucess", "success", "no figure 'sucess'"),
        ("genre", "genres", "no column 'genre'"),
    ):
        path.write_text(SESSIONS.replace(f'"{right}"', f'"{wrong}"'), encoding="utf-8")
        with pytest.raises((ConfigError, NotFound), match=message):
            recipes.run(recipes.read(path), results=tmp_path)
