"""The commands: check, show, fit, run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tastemaker.cli.pipeline import app
from tastemaker.compose import PIPELINE, PipelineSpec
from tastemaker.train import Bundle
from tastemaker.types import Dataset, NotFound, TastemakerError, UsageError

SPEC: dict[str, Any] = {
    "name": "home",
    "retrieve": [{"system": "ials", "k": 50}, {"system": "popularity", "k": 20}],
    "filter": [{"kind": "where", "where": "year > 1960"}],
    "rerank": [{"kind": "mmr", "column": "genres"}],
    "explain": {"kind": "because", "column": "genres"},
}


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, list(map(str, arguments)))
    if isinstance(done.exception, TastemakerError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """A dataset, a spec, and what `fit` made of them."""
    folder = tmp_path_factory.mktemp("home")
    data.save(folder / "data")
    (folder / "home.json").write_text(json.dumps(SPEC))
    said = call("fit", folder / "home.json", folder / "data", "--out", folder / "fitted", "--split", "leave-one-out")
    assert "ials, popularity fitted" in said and f"run {folder / 'fitted'}" in said.replace("\n", "")
    return folder


def test_run_recommends_with_reasons(home: Path, data: Dataset) -> None:
    user = data.user_ids.series[0]
    rows = json.loads(call("run", home / "fitted", "-u", user, "-k", 5, "--columns", "year", "--json"))
    assert len(rows) == 5 and all(row["year"] > 1960 for row in rows)
    assert any((row["reason"] or "").startswith("Because you chose ") for row in rows)
    new = call("run", home / "fitted", "--history", data.item_ids.series[0], "-k", 3, "--filter", "year > 2000")
    assert new.count("f000") >= 3
    seen = json.loads(call("run", home / "fitted", "-u", user, "-k", 5, "--inspect", "--json"))
    assert {"ials rank", "popularity score"} <= set(seen[0])


def test_check_and_show(home: Path, shelf: dict[str, Bundle], tmp_path: Path) -> None:
    assert "in order" in call("check", home / "home.json") and "in order" in call("check", home / "fitted")
    table = call("show", home / "fitted")
    assert "reciprocal rank fusion" in table and "variety (MMR)" in table
    assert call("show", home / "home.json", "--mermaid").startswith("flowchart TD")
    call("show", home / "home.json", "--svg", tmp_path / "home.svg")
    assert (tmp_path / "home.svg").read_text().startswith("<svg")
    assert json.loads(call("show", home / "fitted", "--json"))["name"] == "home"
    assert json.loads(call("show", "--schema")) == PipelineSpec.json_schema()

    saved = shelf["ials"].save(tmp_path / "ials")
    wrong = {**SPEC, "retrieve": [{"system": "ials"}], "rerank": [{"kind": "cap", "column": "makr"}]}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    found = json.loads(call("check", tmp_path / "wrong.json", "-b", f"ials={saved}", "--json", code=2))
    assert [fault["where"] for fault in found] == ["rerank.0"] and "'maker'" in found[0]["hint"]
    (tmp_path / "wrong.json").write_text('{"name": "x"}')
    assert "retrieve" in call("check", tmp_path / "wrong.json", code=2)


def test_a_spec_runs_with_bundles_from_elsewhere(home: Path, shelf: dict[str, Bundle], tmp_path: Path) -> None:
    named = [f"{key}={shelf[key].save(tmp_path / key)}" for key in ("ials", "popularity")]
    rows = json.loads(call("run", home / "home.json", "-b", named[0], "-b", named[1], "-u", "u00000001", "--json"))
    assert len(rows) == 10
    with pytest.raises(UsageError, match="KEY=FOLDER"):
        call("run", home / "home.json", "-b", "ials")
    with pytest.raises(UsageError, match="there is no system 'popularity'"):
        call("run", home / "home.json", "-b", named[0])
    with pytest.raises(NotFound, match="no pipeline at"):
        call("show", tmp_path / "nothing.json")
    with pytest.raises(UsageError, match="--schema"):
        call("show")
    assert (home / "fitted" / PIPELINE).is_file()
