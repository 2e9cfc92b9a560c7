"""The commands `interact` and `off-policy`: what they play, what they estimate, what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from tastemaker.cli.app import app
from tastemaker.data import synthetic
from tastemaker.lab.worlds import ENVIRONMENTS, parted, world
from tastemaker.simulate import LatentUsers, Logged
from tastemaker.train import fit
from tastemaker.types import DataError, NotFound, UsageError

SMALL = ["--world", "n_users=40", "--world", "n_items=20", "--world", "dim=3", "--sessions", 10, "--turns", 30]


def call(*words: object) -> Any:
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def users() -> LatentUsers:
    made: LatentUsers = LatentUsers.drawn(40, 8, 3, seed=2, slope=3.0, level=-0.5)
    return made


@pytest.fixture(scope="module")
def log(users: LatentUsers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 trials, uniform."""
    return users.log(6000, seed=5).save(tmp_path_factory.mktemp("home") / "log")


def test_latent_users_are_played_and_systems_compared(tmp_path: Path) -> None:
    words = ["interact", "random", "linucb", *SMALL, "--seeds", 3, "--set", "linucb.alpha=0.3"]
    found = json.loads(call(*words, "--out", tmp_path / "play.html", "--json"))
    regret = {row["system"]: row["mean"] for row in found["figures"] if row["metric"] == "regret"}
    assert regret["linucb"] < 0.8 * regret["random"]
    assert "<html" in (tmp_path / "play.html").read_text()[:300].lower()
    assert json.loads(call(*words, "--json"))["figures"] == found["figures"], "the same seeds, the same figures"


def test_one_system_has_a_report_and_learns_unless_it_is_told_not_to(tmp_path: Path) -> None:
    words = ["interact", "linucb", *SMALL, "--seeds", 2, "-k", 2, "--at", "1,3"]
    learning = json.loads(call(*words, "--json", "--out", tmp_path / "play.json"))
    assert learning["protocol"]["kind"] == "interactive" and learning["protocol"]["unit"] == "seed"
    assert learning["protocol"]["k"] == 2 and {"success@1", "success@3", "regret"} <= set(learning["figures"])
    assert json.loads((tmp_path / "play.json").read_text())["figures"] == learning["figures"]
    still = json.loads(call(*words, "--no-learn", "--json"))
    assert still["protocol"]["learns"] is False and still["protocol"]["unit"] == "session"
    assert learning["figures"]["reward"]["mean"] != still["figures"]["reward"]["mean"]
    assert "regret" in call(*words).lower()


def test_a_log_is_replayed_to_a_bundle(log: Path, users: LatentUsers, tmp_path: Path) -> None:
    bundle = fit("linucb", users.log(500, seed=9), {"prior": 0.0, "dim": 3})
    bundle.save(tmp_path / "bundle")
    words = [tmp_path / "bundle", "-e", "replay", "--data", log, "--turns", 100, "--sessions", 40, "--seeds", 1]
    found = json.loads(call("interact", *words, "--json"))
    known = found["figures"]["known"]["mean"]
    assert 100 / 8 * 0.5 < known < 100 / 8 * 2, "one of eight uniform choices agrees"
    assert "first" in call("interact", "linucb", "-e", "replay", "--about")


def test_who_asks_about_attributes_is_another_world(tmp_path: Path) -> None:
    folder = synthetic(60, n_items=40, seed=1).save(tmp_path / "data")
    words = ["interact", "popularity", "-e", "attributes", "--data", folder, "--turns", 3, "--sessions", 8, "-k", 10]
    found = json.loads(call(*words, "--seeds", 1, "--at", "1,3", "--json"))
    assert found["split"]["name"] == "AttributeUsers" and 0 <= found["figures"]["success@3"]["mean"] <= 1


def test_people_who_talk_are_a_world_and_a_model_may_play_them(tmp_path: Path) -> None:
    folder = synthetic(80, n_items=50, seed=1).save(tmp_path / "films")
    words = ["interact", "popularity", "-e", "talks", "--data", folder, "--turns", 3, "--sessions", 20, "--seeds", 1]
    found = json.loads(call(*words, "--at", "3", "-k", 5, "--json"))
    assert found["protocol"]["unit"] == "session" and 0 < found["figures"]["success@3"]["mean"] < 1
    with pytest.raises(UsageError, match="none is given"):
        CliRunner().invoke(app, [*map(str, words), "--world", "played=true"], catch_exceptions=False)
    with pytest.raises(UsageError, match="an address and a name"):
        CliRunner().invoke(app, [*map(str, words), "--chat-model", "m"], catch_exceptions=False)


def test_estimates_of_policies_hold_what_these_earn(log: Path, users: LatentUsers, tmp_path: Path) -> None:
    chances = np.linspace(1, 3, 8) / np.linspace(1, 3, 8).sum()
    pl.DataFrame({"item": np.arange(8), "probability": chances}).write_csv(tmp_path / "new.csv")
    means = users.means(users.reset(np.arange(4000, dtype=np.uint64))[1])
    words = ["off-policy", log, "-p", tmp_path / "new.csv", "-p", "uniform", "--estimators", "snips,dr"]
    found = json.loads(call(*words, "--json", "--out", tmp_path / "estimates.html"))
    by_name = {(row["system"], row["metric"]): row for row in found["figures"]}
    for name, policy in ((str(tmp_path / "new.csv"), chances), ("uniform", np.full(8, 1 / 8))):
        truth = float((means @ policy).mean())
        for one in ("snips", "dr"):
            low, high = by_name[name, one]["low"], by_name[name, one]["high"]
            assert low - 0.01 <= truth <= high + 0.01, (name, one)
    assert "<html" in (tmp_path / "estimates.html").read_text()[:300].lower()


def test_a_system_is_judged_on_trials_it_did_not_learn_from(log: Path, users: LatentUsers) -> None:
    words = ["off-policy", log, "-p", "linucb", "--set", "prior=0", "--set", "dim=3"]
    more = ["--set", "past=true", "--set", "counted=impressions"]
    found = json.loads(call(*words, *more, "--set", "alpha=0", "--first", 0.6, "--json"))
    assert found["protocol"]["requests"] == 2400
    assert found["figures"]["snips"]["mean"] > 1.1 * found["protocol"]["logged"], (
        "what was learnt is better than chance"
    )


def test_the_first_trials_take_what_came_of_them_along(users: LatentUsers) -> None:
    data = users.log(1000, seed=1)
    past, later = parted(data, 0.3)
    kinds = past.events["kind"]
    assert (kinds == "impression").sum() == 300 and len(later) == 700
    clicks = past.events.filter(kinds == "click")
    assert set(clicks["slate"]) <= set(past.events.filter(kinds == "impression")["slate"])
    assert later.rewards.sum() + clicks.height == Logged.of(data).rewards.sum(), "no outcome is lost or doubled"
    timed = replace(data, events=data.events.with_columns(time=pl.col("slate").cast(pl.Int64)), time_unit="step")
    past, later = parted(timed, 0.3)
    shown = past.events.filter(pl.col("kind") == "impression")
    assert shown["time"].max() == 299 and int(later.requests.now.min()) == 300  # type: ignore[union-attr]
    assert parted(data, 0.0)[0].n_events == 0


def test_what_is_not_there_is_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="latent"):
        world("latant")
    with pytest.raises(UsageError, match="made of data"):
        call("interact", "random", "-e", "replay")
    with pytest.raises(NotFound):
        call("interact", "no-such-system", *SMALL)
    with pytest.raises(UsageError, match="no setting"):
        call("interact", "random", "--world", "n_user=3")
    with pytest.raises(DataError, match="no event"):
        call("off-policy", log, "-p", "uniform", "--where", "kind = 'nothing'")
    pl.DataFrame({"thing": [1]}).write_csv(tmp_path / "wrong.csv")
    with pytest.raises(DataError, match="columns item and probability"):
        call("off-policy", log, "-p", tmp_path / "wrong.csv")
    with pytest.raises(UsageError, match="whole numbers"):
        call("interact", "random", *SMALL, "--at", "soon")
    assert set(ENVIRONMENTS) >= {"latent", "replay"}
