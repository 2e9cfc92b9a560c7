"""The command `tastemaker audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tastemaker.cli.app import app
from tastemaker.data import synthetic
from tastemaker.types import NotFound, UsageError

FAST = ["--set", "dim=8", "--set", "epochs=2", "--set", "every=1", "--set", "batch_size=256"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(80, n_items=70, seed=2).save(tmp_path_factory.mktemp("home") / "data")


def call(*words: object) -> str:
    done = CliRunner().invoke(app, ["audit", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_attacks_and_defends(folder: Path, tmp_path: Path) -> None:
    words = ["bpr-mf", folder, "-a", "random", "-a", "bandwagon:popular=0.8", "--with", "vat:after=0", "--with", "apr"]
    words += [*FAST, "--seeds", 2, "--fakes", 0.05, "--targets", 3, "-k", 20, "--out", tmp_path / "audit"]
    told = json.loads(call(*words, "--json"))
    assert told["seeds"] == [0, 1] and list(told["defences"]) == ["vat:after=0", "apr"]
    assert told["attacks"]["bandwagon:popular=0.8"]["popular"] == 0.8 and told["config"]["dim"] == 8
    assert len(told["runs"]) == 2 * 3 * 3 and told["budget"]["targets"] == 3
    assert all(run["cost"]["fake_users"] == 4 for run in told["runs"] if run["attack"] != "none")
    shown = call(*words)
    assert "audit.md" in shown.replace("\n", "") and "attack" in shown and (tmp_path / "audit" / "audit.json").is_file()


def test_what_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(NotFound, match="attack"):
        call("bpr-mf", folder, "--attack", "shill")
    with pytest.raises(NotFound, match="transform"):
        call("bpr-mf", folder, "--with", "vatt")
    with pytest.raises(UsageError, match="valid or test"):
        call("bpr-mf", folder, "--part", "train")
