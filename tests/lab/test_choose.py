"""Choosing: what is best is found, within the budget, and the test part is read once, in the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tastemaker.cli.app import app
from tastemaker.contracts import Program, system
from tastemaker.data import holdout, split
from tastemaker.evaluate import evaluate
from tastemaker.lab import choose
from tastemaker.lab.attempt import Goal
from tastemaker.lab.choosing import JOURNAL
from tastemaker.lab.elsewhere import Elsewhere
from tastemaker.lab.frontier import frontier
from tastemaker.lab.shop import Here, Job, Shop, untested
from tastemaker.train import Bundle, fit
from tastemaker.types import Dataset, Part, Split, TastemakerError, UsageError, setting

QUICK: dict[str, Any] = {"budget": 90, "settings": 5, "separate": False}  # ends long before: nothing new is left


class Watched(Split):
    """A split that notes how often its test part is read, and refuses it before the race is over."""

    reads = 0
    journal: Path | None = None

    def cases(self, part: Part = "test") -> Any:
        if part == "test":
            type(self).reads += 1
            assert self.journal is not None and '"raced"' in self.journal.read_text(), "read before the race was over"
        return super().cases(part)

    def events(self, part: Part) -> Any:
        assert part != "test", "the events of the test part were read"
        return super().events(part)


def watched(parts: Split, folder: Path) -> Watched:
    Watched.reads, Watched.journal = 0, folder / JOURNAL
    return Watched(**{name: getattr(parts, name) for name in Split.__dataclass_fields__})


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / JOURNAL).read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@system("broken", family="classical", title="Cannot be fitted", paper="none")
class Broken:
    @dataclass(frozen=True)
    class Config:
        x: int = setting(1, "A number.", search=(1, 9))

    def __init__(self, config: Any, schema: Any) -> None: ...

    def program(self, data: Dataset) -> Program:
        raise ZeroDivisionError("this one divides by nothing")
        yield

    def score(self, requests: Any, items: Any = None) -> Any: ...


def test_where_the_order_decides_the_one_that_sees_it_is_chosen(fakes: Any, chain: Dataset, tmp_path: Path) -> None:
    parts = split(chain, "leave-one-out")
    rivals = [fakes["successor"], fakes["tilted"], "popularity", "itemknn", "random", Broken]
    found = choose(watched(parts, tmp_path), systems=rivals, out=tmp_path, **QUICK)
    assert found.best == "successor" and found.figure.mean > 0.95 and not found.tied
    assert Watched.reads == 1, "the test part was not read exactly once"
    broken = next(row for row in found.course() if row["system"] == "broken")
    assert "ZeroDivisionError: this one divides by nothing" in broken["what came of it"]
    given_up = {row["system"]: -row["difference"] for row in found.rows()[1:]}
    assert given_up and all(lost > 0 for lost in given_up.values())
    page = (tmp_path / "choice.html").read_text()
    assert page.count('<svg class="plot"') >= 2 and "What each choice costs" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert not (tmp_path / "work").exists()


def test_the_figures_are_those_of_fitting_and_evaluating_by_hand(fakes: Any, parts: Split, tmp_path: Path) -> None:
    found = choose(parts, systems=[fakes["tilted"], "popularity"], out=tmp_path, **QUICK)
    for one in found.finalists:
        by_hand = fit(fakes.get(one.name, one.name), parts, one.settings)
        report = evaluate(by_hand, parts, ks=(10,))
        assert found.figure_of(one.name).mean == pytest.approx(report.value("ndcg@10"), abs=1e-6)
        assert not any("learn" in warning for warning in one.report.warnings)
    tilted = next(one for one in found.finalists if one.name == "tilted")
    assert tilted.settings["power"] > 0, "the default, which is the worst, was kept"
    by_value = sorted(found.finalists, key=lambda one: -one.value)
    assert found.best == by_value[0].name, "validation data did not choose"


def test_without_a_valid_part_finalists_learn_from_all_of_training(fakes: Any, catalogue: Dataset) -> None:
    parts = split(catalogue, "time:0.8")
    found = choose(parts, systems=[fakes["tilted"], fakes["stepwise"], "popularity"], **QUICK)
    assert "held back" in found.judged_on
    assert found.bundle.about["data"]["fingerprint"] == parts.train.fingerprint
    assert not any("did not learn" in w for one in found.finalists for w in one.report.warnings)
    assert found.bundle.recommend([catalogue.user_ids.series[0]], k=3).height == 3


@pytest.mark.parametrize("after", [3, 7])
def test_a_killed_choice_goes_on_with_the_same_answer_and_repeats_nothing(
    fakes: Any, parts: Split, tmp_path: Path, after: int
) -> None:
    tilted = fakes["tilted"]
    rivals = [tilted, "popularity", "random", fakes["successor"]]
    whole = choose(parts, systems=rivals, out=tmp_path / "whole", **QUICK)
    assert len(tilted.fits) > 8
    tilted.fits.clear()
    tilted.stop_after = after
    with pytest.raises(KeyboardInterrupt):
        choose(parts, systems=rivals, out=tmp_path / "cut", **QUICK)
    done = len(records(tmp_path / "cut", "trial"))
    assert done >= after - 2
    tilted.stop_after = None
    rest = choose(parts, systems=rivals, out=tmp_path / "cut", **QUICK)
    trials = [(t["system"], json.dumps(t["settings"])) for t in records(tmp_path / "cut", "trial")]
    assert max(Counter(trials).values()) == 1, "a finished trial was made again"
    assert (rest.best, rest.settings, rest.figure) == (whole.best, whole.settings, whole.figure)
    n = len(tilted.fits)
    again = choose(parts, systems=rivals, out=tmp_path / "cut", **QUICK)
    assert len(tilted.fits) == n and again.to_json()["finalists"] == rest.to_json()["finalists"]
    with pytest.raises(UsageError, match="another search"):
        choose(parts, systems=rivals[:2], out=tmp_path / "cut", **QUICK)


def test_the_budget_holds_and_is_the_same_for_all(fakes: Any, parts: Split, tmp_path: Path) -> None:
    """Systems that sleep: no more is started than there is time for."""
    tilted, stepwise = fakes["tilted"], fakes["stepwise"]
    tilted.seconds, stepwise.seconds = 0.25, 0.25
    rivals = [tilted, stepwise, "popularity", "random"]
    began = time.monotonic()
    found = choose(parts, systems=rivals, out=tmp_path, budget=10, settings=None, separate=False)
    assert time.monotonic() - began < 1.15 * 10
    assert found.seconds > 5, "the time was not used"
    spent: Counter[tuple[int, str]] = Counter()
    for trial in records(tmp_path, "trial"):
        spent[trial["round"], trial["system"]] += trial["outcome"]["seconds"]
    for one in found.rounds:
        shares = [spent[one.number, name] for name in one.systems]
        assert max(shares) < one.seconds + 1.0
    assert {entry.tuning for entry in found.comparison.entries if entry.label in found.rounds[-1].systems} == {
        f"{round(sum(one.seconds for one in found.rounds))} seconds"
    }


def test_a_network_is_cut_by_its_time_and_goes_on(fakes: Any, parts: Split, tmp_path: Path) -> None:
    """At 0.5 s an epoch a round holds a few of the many; the next one goes on with the epoch after."""
    stepwise = fakes["stepwise"]
    stepwise.seconds, stepwise.most = 0.5, 1000
    rivals = [stepwise, "popularity", "random", fakes["successor"]]
    found = choose(parts, systems=rivals, out=tmp_path, budget=12, settings=1, separate=False)
    trials = [t for t in records(tmp_path, "trial") if t["system"] == "stepwise"]
    first = [t for t in trials if t["settings"] == trials[0]["settings"]]
    assert len(first) == 2 and first[0]["outcome"]["state"] == "unfinished"
    epochs = [len(trial["outcome"]["course"]) for trial in first]
    assert all(epochs) and stepwise.epochs.count(1.0) <= sum(epochs) + 3, "epochs were trained twice"
    assert "stepwise" in {one.name for one in found.finalists}


def test_systems_that_do_not_fit_are_left_out_with_the_reason(chain: Dataset, parts: Split) -> None:
    @system("reader", family="language", title="x", paper="none", learns_from={"events", "items.text"})
    class Reader(Broken): ...

    @system("talker", family="language", title="x", paper="none", uses={"chat"})
    class Talker(Broken):
        def bind(self, resources: Any) -> None: ...

    @system("asker", family="language", title="x", paper="none", needs={"dialogue"})
    class Asker(Broken): ...

    @system("mute", family="classical", title="x", paper="none")
    class Mute:
        Config = Broken.Config

        def __init__(self, config: Any, schema: Any) -> None: ...

    found = choose(parts, systems=[Reader, Talker, Asker, Mute, "popularity"], **QUICK)
    assert found.best == "popularity"
    assert {name: why.split(",")[0] for name, why in found.left_out.items()} == {
        "reader": "learns from items.text",
        "talker": "uses chat",
        "asker": "needs dialogue to answer",
        "mute": "gives no lists",
    }
    with pytest.raises(UsageError, match="no system can be tried"):
        choose(parts, systems=[Reader], **QUICK)
    with pytest.raises(TastemakerError, match="no system came to a value"):
        choose(parts, systems=[Broken], **QUICK)
    with pytest.raises(UsageError, match="no test part"):
        choose(holdout(chain), **QUICK)


def test_the_frontier_holds_what_nothing_as_cheap_equals() -> None:
    values, costs = [0.5, 0.4, 0.3, 0.45, 0.1], [10.0, 1.0, 1.0, 5.0, 0.1]
    assert frontier(values, costs) == [4, 1, 3, 0]
    assert frontier([0.2, 0.2], [1.0, 1.0]) == [0]


def test_a_folder_with_something_else_in_it_is_left_alone(parts: Split, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(UsageError, match="left alone"):
        choose(parts, systems=["popularity"], out=tmp_path, **QUICK)


def test_a_part_of_the_users_is_a_part_of_the_next_one(parts: Split) -> None:
    shop = Shop(untested(parts), Goal.of("ndcg@10"))
    seen = []
    for users in (30, 60, None):
        ranking = shop.stock(users)
        learnt = set(ranking.train.events["user"].unique().to_list())
        asked = set(np.asarray(ranking.cases.requests.users).tolist())
        assert asked <= learnt and ranking.train.n_users == parts.train.n_users
        seen.append(learnt)
    assert len(seen[0]) == 30 and seen[0] < seen[1] < seen[2]


def test_what_trains_cannot_read_the_test_part(parts: Split) -> None:
    hidden = untested(parts)
    assert hidden.sizes["test"] == 0 and hidden.data.n_events == parts.data.n_events - parts.sizes["test"]
    assert hidden.train.fingerprint == parts.train.fingerprint
    ours, theirs = hidden.cases("valid"), parts.cases("valid")
    assert np.array_equal(ours.targets.values, theirs.targets.values)
    assert np.array_equal(ours.requests.exclude.values, theirs.requests.exclude.values)


MISCHIEF = """
import os, time
from dataclasses import dataclass
import numpy as np
from tastemaker.contracts import Fit, system
from tastemaker.types import setting


def act(what, n):
    if what == "sleep":
        time.sleep(600)
    if what == "eat":
        eaten = [np.ones(2**24) for _ in range(40)]
        time.sleep(600)
    if what == "die":
        os._exit(3)
    print("to the log, please")
    return np.arange(n, dtype=np.float32)


@system("mischief", family="classical", title="x", paper="none")
class Mischief:
    @dataclass(frozen=True)
    class Config:
        what: str = setting("nothing", "What it does.")

    def __init__(self, config, schema):
        self.config, self.schema = config, schema

    def program(self, data):
        self.scores = yield Fit(act, self.config.what, data.n_items)

    def score(self, requests, items=None):
        rows = np.broadcast_to(self.scores, (requests.n, len(self.scores)))
        return rows if items is None else np.take_along_axis(rows, np.maximum(items, 0), 1)
"""


def test_a_process_of_its_own_is_stopped_when_time_or_memory_is_out(
    parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mischief_of_a_test.py").write_text(MISCHIEF)
    monkeypatch.syspath_prepend(str(tmp_path))
    place = Elsewhere(tmp_path / "work", untested(parts), Goal.of("ndcg@10"), seed=0, memory_mb=1000.0)
    keep = tmp_path / "kept"

    def job(what: str, **more: Any) -> Job:
        return Job("trial", "mischief_of_a_test:Mischief", {"what": what}, **more)

    try:
        good = place.do(job("nothing"), 60.0)
        assert good.state == "done" and good.value is not None
        late = place.do(job("sleep"), 0.5)
        assert late.state == "late" and 0.4 < late.seconds < 3
        hungry = place.do(job("eat"), 60.0)
        assert hungry.state == "failed" and "more than 1,000 MB" in hungry.reason and hungry.peak_mb > 1000
        dead = place.do(job("die"), 60.0)
        assert dead.state == "failed" and "died" in dead.reason
        kept = place.do(Job("trial", "popularity", {}, keep=str(keep), beats=0.0), 60.0)
        assert place.has(keep) and Bundle.load(keep).name == "popularity"
        here = Here(Shop(untested(parts), Goal.of("ndcg@10"))).do(Job("trial", "popularity"), 60.0)
        assert kept.value == here.value, "the other process was not told the same"
    finally:
        place.close()
    assert "to the log, please" in (tmp_path / "work" / "worker.log").read_text()


def test_the_command(tmp_path: Path, catalogue: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    data, out = tmp_path / "data", tmp_path / "out"
    catalogue.save(data)
    command = ["choose", str(data), "--budget", "25s", "--systems", "pop*,random", "--out", str(out)]
    began = time.monotonic()
    found = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert time.monotonic() - began < 1.15 * 25 + 5
    assert found["best"] == "popularity" and found["low"] < found["value"] < found["high"]
    assert [row["system"] for row in found["finalists"]] == ["popularity", "random"]
    row = found["finalists"][0]
    assert all(row[name] > 0 for name in ("fit_seconds", "peak_mb", "bundle_mb", "ms_per_request", "users_per_second"))
    assert "the same budget" in found["budget"] and found["seconds"] < 1.15 * 25
    assert json.loads((out / "choice.json").read_text())["best"] == "popularity"
    shown = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert "popularity is the choice" in shown and "tastemaker serve" in shown and "gives up" in shown
    command, bundle = found["serves"].rsplit(" ", 1)
    assert command == "tastemaker serve"
    asked = ["recommend", bundle, "--user", str(catalogue.user_ids.series[0]), "--json"]
    answer = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert len(json.loads(answer.stdout)) == 10
