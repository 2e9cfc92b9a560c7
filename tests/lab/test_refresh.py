"""Renewal: what is better is promoted, what is worse is refused, and at every moment there is a whole bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tastemaker.data import split
from tastemaker.data.build import build
from tastemaker.lab import promote
from tastemaker.lab.refresh import Refreshed, gathered, refresh, remembered, staleness
from tastemaker.lab.trial import Limits, Through, cut_of, drawn
from tastemaker.train import Bundle, fit
from tastemaker.types import BundleError, Cases, Dataset, Jagged, NotFound, Requests, UsageError

pytest.importorskip("sqlalchemy")
from tastemaker.serve.log import Event, EventLog, open_log

DAY = 86_400_000_000
BLOCKS, USERS, ITEMS = 4, 120, 120
LOG_BEGINS, NOW = 40 * DAY, 100 * DAY
SURE = Limits(latency=1e9)  # a busy machine is no reason


def chosen(n: int, seed: int, block: Callable[[Any], Any], first: int, days: int, noise: float = 0.0) -> pl.DataFrame:
    """n choices of each user, of the user's block or, a share of them, of anything; block(numbers) is an item's."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(USERS), n)
    scores = rng.random((USERS, ITEMS)) + (block(np.arange(ITEMS))[None, :] == np.arange(USERS)[:, None] % BLOCKS)
    items = np.argsort(-scores, axis=1)[:, :n].ravel()
    items = np.where(rng.random(len(items)) < noise, rng.integers(0, ITEMS, len(items)), items)
    times = first + rng.integers(0, days * DAY, len(users))
    ids = {"user": [f"u{u}" for u in users], "item": [f"i{i}" for i in items]}
    return pl.DataFrame({**ids, "time": times}).unique(["user", "item"], maintain_order=True)


def same(numbers: Any) -> Any:
    return numbers % BLOCKS


def turned(numbers: Any) -> Any:
    """Everybody's taste has moved on to the next block."""
    return (numbers + 1) % BLOCKS


def dealt_anew(numbers: Any) -> Any:
    """What goes together has changed."""
    return numbers // (ITEMS // BLOCKS)


@pytest.fixture(scope="module")
def base() -> Dataset:
    return build("shop", chosen(9, 0, same, 0, 40), time_unit="us")


@pytest.fixture(scope="module")
def fitted(base: Dataset) -> dict[str, Bundle]:
    return {
        "ease": fit("ease", base),
        "bpr-mf": fit("bpr-mf", base, {"dim": 16, "lr": 0.02, "epochs": 20, "batch_size": 256, "every": 4}),
        "popularity": fit("popularity", base),
    }


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(tmp_path / "log.db") as opened:
        yield opened


def say(log: EventLog, rows: pl.DataFrame, kind: str = "purchase") -> None:
    n = log.count_events()
    log.append(
        Event(f"k{n + at}", int(row["time"]), kind, row["user"], row["item"]) for at, row in enumerate(rows.to_dicts())
    )


def state(folder: Path) -> dict[str, bytes]:
    """Everything that lies beside a bundle and in it, but for the lock and the log."""
    files = (path for path in folder.parent.rglob("*") if path.is_file())
    kept = (path for path in files if ".lock" not in path.name and "log.db" not in path.name)
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in kept}


@pytest.fixture
def renew(tmp_path: Path, fitted: dict[str, Bundle], base: Dataset, log: EventLog) -> Callable[..., Refreshed]:
    """renew(system, rows, ...): what comes of these rows in the log."""

    def go(name: str, rows: pl.DataFrame | None = None, **how: Any) -> Refreshed:
        folder = tmp_path / "shelf" / "served"
        if not folder.exists():
            fitted[name].save(folder)
        if rows is not None:
            say(log, rows)
        given = {"log": log, "base": base, "min_events": 100, "limits": SURE, "now": NOW, **how}
        return refresh(folder, **given)

    return go


# -- what is promoted, and what is not


@pytest.mark.parametrize(("name", "block"), [("bpr-mf", turned), ("ease", dealt_anew)])
def test_tastes_that_change_are_learnt(renew: Any, fitted: dict[str, Bundle], name: str, block: Any) -> None:
    found = renew(name, chosen(9, 1, block, LOG_BEGINS, 30))
    assert found.promoted, found.reason
    quality = found.checks[0]
    assert quality.new > 1.3 * quality.old
    served, before = Bundle.load(found.out), Bundle.load(found.previous)
    assert before.about == fitted[name].about
    told = served.about["refresh"]
    assert told["old"] == pytest.approx(quality.old) and told["new"] == pytest.approx(quality.new)
    assert told["from"] == promote.snapshot(found.previous) == told["replaces"]
    assert served.about["data"]["events"] == fitted[name].about["data"]["events"] + told["events"], "all was learnt"
    assert "warm" in served.about
    assert found.drift.events == told["events"]
    json.dumps(found.to_json())


@pytest.mark.parametrize("with_data", [True, False])
def test_a_second_renewal_learns_only_from_what_came_since(
    renew: Any, log: EventLog, base: Dataset, with_data: bool
) -> None:
    """Also where all there is of the data is what the bundle remembers, the log's first part included."""
    given = {} if with_data else {"base": None}
    first = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 20), **given)
    assert first.promoted
    about = Bundle.load(first.out).about["data"]
    assert about["events"] == base.n_events + log.count_events()
    again = renew("ease", **given)
    assert not again.promoted and "0 choices since" in again.reason
    assert gathered(Bundle.load(first.out), log, given.get("base", base), now=NOW).n_events == about["events"]
    n = log.count_events()
    more = renew("ease", chosen(14, 2, dealt_anew, LOG_BEGINS + 20 * DAY, 20), **given)
    assert more.drift.until == about["until"] and more.drift.events == log.count_events() - n
    assert more.cut is not None and more.cut > "1970-03-02"


def test_a_world_that_stays_does_no_harm(renew: Any) -> None:
    found = renew("ease", chosen(16, 5, same, LOG_BEGINS, 30), tolerance=0.2)
    quality = found.checks[0]
    assert found.promoted, found.reason
    assert quality.new >= 0.8 * quality.old


def test_a_log_of_noise_is_refused(renew: Any, tmp_path: Path, fitted: dict[str, Bundle]) -> None:
    """Nobody can be judged by noise, whatever is allowed to be lost."""
    fitted["ease"].save(tmp_path / "shelf" / "served")
    before = state(tmp_path / "shelf" / "served")
    found = renew("ease", chosen(30, 3, same, LOG_BEGINS, 30, noise=1.0), tolerance=0.99)
    assert not found.promoted and found.exit_code == 10
    assert "chance" in found.reason
    assert state(tmp_path / "shelf" / "served") == before


def test_what_noise_has_spoilt_is_refused(renew: Any, tmp_path: Path, fitted: dict[str, Bundle]) -> None:
    """Noise to learn from, and honest choices to be judged by: the candidate is worse, and everything stays."""
    fitted["ease"].save(tmp_path / "shelf" / "served")
    before = state(tmp_path / "shelf" / "served")
    noise = chosen(40, 3, same, LOG_BEGINS, 20, noise=1.0)
    honest = chosen(9, 4, same, LOG_BEGINS + 25 * DAY, 5)
    found = renew("ease", pl.concat([noise, honest]), judged=honest.height / (noise.height + honest.height))
    quality = found.checks[0]
    assert not found.promoted and quality.new < quality.old and not quality.holds
    assert found.reason.startswith("ndcg@10")
    assert state(tmp_path / "shelf" / "served") == before


def test_the_candidate_has_not_seen_what_judges_it(renew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fitted on what lies before the cut, and only what is promoted on everything."""
    from tastemaker.lab import trial

    learnt: list[Dataset] = []
    judged: list[Any] = []
    taught, measured = trial.fit, trial.evaluate

    def fit_and_note(system: Any, data: Any, *given: Any, **how: Any) -> Any:
        learnt.append(data)
        return taught(system, data, *given, **how)

    def evaluate_and_note(subject: Any, parts: Any, **how: Any) -> Any:
        judged.append(how["cases"])
        return measured(subject, parts, **how)

    monkeypatch.setattr(trial, "fit", fit_and_note)
    monkeypatch.setattr(trial, "evaluate", evaluate_and_note)
    found = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 30))
    assert found.promoted and len(learnt) == 2 and len(judged) == 3
    cases = judged[0]
    assert judged == [cases] * 3, "all are asked the same"
    until = [int(data.events["time"].max()) for data in learnt]  # type: ignore[arg-type]
    assert until[0] < cases.requests.now.min() <= until[1]
    assert cases.requests.history.values["time"].max() <= until[0], "histories end at the cut for both"
    fresh = learnt[1].events.filter(pl.col("time") > found.drift.until)
    assert (fresh["time"] > until[0]).sum() / fresh.height == pytest.approx(0.2, abs=0.01)


def test_items_to_come_are_no_obstacle(tmp_path: Path, base: Dataset, log: EventLog) -> None:
    """Items known long before they are there, as films that are announced, and items first seen after the cut."""
    films = base.items.with_columns(available=pl.Series([0] * 117 + [90 * DAY] * 3))
    told = replace(base, items=films)
    fit("popularity", told).save(tmp_path / "served")
    rows = chosen(4, 1, same, LOG_BEGINS, 30)
    say(log, pl.concat([rows, rows.tail(60).with_columns(item=pl.lit("fresh"), time=LOG_BEGINS + 29 * DAY)]))
    found = refresh(tmp_path / "served", log=log, base=told, min_events=100, now=NOW, limits=SURE)
    assert found.comparison is not None
    assert {entry.reports[0].protocol["catalogue"] for entry in found.comparison.entries} == {ITEMS + 1}


def test_limits_are_kept(renew: Any) -> None:
    rows = chosen(9, 1, dealt_anew, LOG_BEGINS, 30)
    for limits, what in ((replace(SURE, coverage=50.0), "coverage@10"), (replace(SURE, size=0.01), "MB")):
        found = renew("ease", rows, limits=limits)
        rows = None
        assert not found.promoted and found.reason.startswith(what)
        assert [check.what for check in found.checks if not check.holds] == [what]
    slow = renew("ease", limits=Limits(latency=0.0, quick_ms=0.0))
    assert not slow.promoted and slow.reason.startswith("ms a list")


def test_too_little_is_no_reason_to_try(renew: Any) -> None:
    few = renew("ease", chosen(1, 1, same, LOG_BEGINS, 5), min_events=500)
    assert not few.promoted and "too few: 500 are asked for" in few.reason and few.comparison is None


def test_one_moment_cannot_be_cut(renew: Any) -> None:
    found = renew("ease", chosen(3, 2, same, LOG_BEGINS, 5).with_columns(time=LOG_BEGINS + DAY))
    assert not found.promoted and "at one time" in found.reason


def test_without_the_data_the_choices_it_remembers_are_taken(
    renew: Any, fitted: dict[str, Bundle], base: Dataset
) -> None:
    back = remembered(fitted["ease"])
    assert back.items.equals(base.items) and back.user_ids == base.user_ids
    assert back.events.equals(base.events.select(back.events.columns))
    nowhere = replace(SURE, size=0.0)  # both are judged, and neither is promoted
    with_data = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 30), limits=nowhere)
    without = renew("ease", base=None, limits=nowhere)
    assert without.checks[0].holds and without.checks[:3] == with_data.checks[:3]
    with pytest.raises(UsageError, match="remembers no choices"):
        remembered(replace(fitted["ease"], histories=None))


def test_another_folder_gets_the_new_one(renew: Any, tmp_path: Path) -> None:
    found = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 30), out=tmp_path / "elsewhere")
    assert found.promoted and found.previous is None and found.out == tmp_path / "elsewhere"
    assert "refresh" not in Bundle.load(tmp_path / "shelf" / "served").about
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("dear")
    with pytest.raises(NotFound, match=r"no bundle at .*taken"):
        renew("ease", out=tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "dear"


def test_what_does_not_fit_together_is_said(renew: Any, log: EventLog, base: Dataset, tmp_path: Path) -> None:
    stranger = build("films", pl.DataFrame({"user": ["x"], "item": ["y"], "time": [1]}), time_unit="us")
    timeless = build("timeless", pl.DataFrame({"user": ["u1"], "item": ["i1"]}))
    for other, told in ((stranger, "none of the users"), (timeless, "no times")):
        with pytest.raises(UsageError, match=told):
            renew("ease", base=other)
    for wrong in ({"judged": 1.5}, {"tolerance": 2.0}, {"metric": "ndgc@10"}):
        with pytest.raises(UsageError):
            renew("ease", **wrong)
    with pytest.raises(NotFound):
        renew("ease", log=tmp_path / "nowhere.db")
    with promote.turn(tmp_path / "shelf" / "served"), pytest.raises(UsageError, match="being renewed already"):
        renew("ease")


# -- the parts


def test_events_that_claim_to_come_later_are_left_out(fitted: dict[str, Bundle], base: Dataset, log: EventLog) -> None:
    """One forged time must not decide what is newest."""
    say(log, chosen(3, 1, same, LOG_BEGINS, 5))
    say(log, pl.DataFrame({"user": ["u1"], "item": ["i1"], "time": [NOW + DAY]}))
    data = gathered(fitted["ease"], log, base, now=NOW)
    assert data.events["time"].max() < NOW and data.n_events == base.n_events + log.count_events() - 1
    assert "1 events" in data.notes["future"]


def test_the_test_part_is_the_newest_of_what_is_new(base: Dataset, fitted: dict[str, Bundle], log: EventLog) -> None:
    say(log, chosen(5, 1, same, LOG_BEGINS, 30))
    data = gathered(fitted["ease"], log, base, now=NOW)
    until = fitted["ease"].about["data"]["until"]
    cut = cut_of(data, until, 0.25)
    times = data.events["time"].to_numpy()
    fresh = times[times > until]
    assert cut is not None and (fresh >= cut).mean() == pytest.approx(0.25, abs=0.01)
    assert cut_of(data, int(fresh.max()), 0.25) is None
    assert cut_of(data, int(np.sort(fresh)[-2]), 0.25) is None, "what is new must not all be test"


def test_both_are_asked_in_the_same_numbers(base: Dataset, fitted: dict[str, Bundle], log: EventLog) -> None:
    """New items that come first in the data's numbers change nothing of what the old bundle says."""
    say(log, chosen(4, 1, same, -20 * DAY, 10).with_columns(item=pl.format("new-{}", "item")))
    data = gathered(fitted["ease"], log, base, now=NOW)
    assert data.item_ids.series[0] != base.item_ids.series[0]
    users = base.user_ids.series.head(10)
    history = base.histories(("item",)).take(np.arange(10))
    own = Requests(10, users=np.arange(10, dtype=np.int32), history=history)
    numbers = data.item_ids.numbers(base.item_ids.series)
    moved = Jagged(history.values.with_columns(item=numbers[history.values["item"]]), history.offsets)
    asked = Requests(10, users=data.user_ids.numbers(users), history=moved)
    ours, theirs = fitted["ease"].retriever.retrieve(own, 7), Through(fitted["ease"], data).retrieve(asked, 7)
    assert np.array_equal(numbers[ours.items], theirs.items) and np.array_equal(ours.scores, theirs.scores)


def test_lists_by_chance_are_distinct_allowed_and_even() -> None:
    exclude = Jagged.from_lists([[1, 2, 3], list(range(18))] * 400, dtype=np.int32)
    cases = Cases(Requests(800, exclude=exclude), Jagged.from_lists([[19]] * 800, dtype=np.int32))
    lists = drawn(cases, 20, 2, seed=0)
    assert not np.isin(lists.items[::2], [1, 2, 3]).any() and (lists.items[1::2] >= 18).mean() > 0.9
    assert (lists.items[:, 0] != lists.items[:, 1]).all()
    shown = np.bincount(lists.items[::2].ravel(), minlength=20)
    assert shown[[1, 2, 3]].sum() == 0 and (shown[4:] > 15).all()


def test_staleness_fits_nothing(tmp_path: Path, fitted: dict[str, Bundle], base: Dataset, log: EventLog,
                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    fitted["ease"].save(tmp_path / "b")
    say(log, chosen(9, 1, turned, LOG_BEGINS, 30))
    monkeypatch.setattr("tastemaker.lab.trial.fit", None)
    drift = staleness(tmp_path / "b", log=log, base=base, now=NOW)
    assert drift.days == pytest.approx(60, abs=1) and drift.events == log.count_events()
    assert staleness(tmp_path / "b", log=tmp_path / "log.db", now=NOW).events == drift.events


# -- in whole pieces


class Killed(BaseException):
    """As if the process had ended here: nothing tidies up."""


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("at", range(5))
def test_a_kill_at_any_step_leaves_a_whole_bundle(at: int, atomic: bool, tmp_path: Path, fitted: dict[str, Bundle],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Killed before its n-th move, a promotion leaves the old or the new bundle, and the next call tidies up."""
    out = tmp_path / "served"
    oldest, old, new = (replace(fitted["popularity"], about={"n": n}) for n in range(3))
    for one in (oldest, old):
        with promote.turn(out):
            one.about["refresh"] = {"replaces": promote.snapshot(out) if out.exists() else None}
            promote.stage(one, out)
            promote.promote(out)
    new.about["refresh"] = {"replaces": promote.snapshot(out)}
    moves = 0
    if not atomic:
        monkeypatch.setattr(promote, "exchange", lambda one, other: False)

    def move(what: Any, source: Any, target: Any) -> Any:
        nonlocal moves
        if moves == at:
            raise Killed
        moves += 1
        return what(source, target)

    rename, exchange = os.rename, promote.exchange
    with promote.turn(out) as place:
        promote.stage(new, place)
        monkeypatch.setattr(promote.os, "rename", lambda a, b: move(rename, a, b))
        monkeypatch.setattr(promote, "exchange", lambda a, b: move(exchange, a, b) if atomic else False)
        try:
            promote.promote(place)
            done = True
        except Killed:
            done = False
    monkeypatch.setattr(promote.os, "rename", rename)
    if atomic:
        assert Bundle.load(out).about["n"] in (1, 2), "at every moment there is one"
    with promote.turn(out):
        pass
    now = Bundle.load(out).about["n"]
    assert now == 2 if done else now in (1, 2)
    assert Bundle.load(promote.previous(out)).about["n"] == now - 1
    assert {path.name for path in tmp_path.iterdir()} == {"served", "served.previous", ".served.lock"}


def test_going_back_and_forth(tmp_path: Path, fitted: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "served"
    with pytest.raises(NotFound, match="to go back to"):
        promote.roll_back(fitted["popularity"].save(out))
    with promote.turn(out) as place:
        promote.stage(fitted["ease"], place)
        promote.promote(place)
    for name in ("popularity", "ease"):
        assert Bundle.load(promote.roll_back(out)).name == name
    monkeypatch.setattr(promote, "exchange", lambda one, other: False)
    assert Bundle.load(promote.roll_back(out)).name == "popularity"
    assert Bundle.load(promote.previous(out)).name == "ease"


def test_what_is_damaged_takes_nobodys_place(tmp_path: Path, fitted: dict[str, Bundle]) -> None:
    out = fitted["popularity"].save(tmp_path / "served")
    with promote.turn(out) as place:
        staged = promote.stage(fitted["ease"], place)
        (staged / "weights.safetensors").write_bytes(b"half")
        with pytest.raises(BundleError):
            promote.promote(place)
    assert Bundle.load(out).name == "popularity"


KILLED = """
import sys, time
from pathlib import Path
from tastemaker.lab import promote
from tastemaker.train import Bundle
out, other = map(Path, sys.argv[1:])
bundle = Bundle.load(other)
with promote.turn(out) as place:
    print("begun", flush=True)
    while True:
        promote.stage(bundle, place)
        promote.promote(place)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_real_kill(tmp_path: Path, fitted: dict[str, Bundle]) -> None:
    out, other = fitted["popularity"].save(tmp_path / "served"), fitted["ease"].save(tmp_path / "other")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out), str(other)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with promote.turn(out):
        assert Bundle.load(out).name in ("popularity", "ease")


# -- servers and the command line


@pytest.fixture
def running(tmp_path: Path, fitted: dict[str, Bundle]) -> Iterator[tuple[Any, Any]]:
    """The runtime of a server of the folder that is renewed, and the server."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")

    from tastemaker.lab.server import Server
    from tastemaker.serve.app import create_app
    from tastemaker.serve.runtime import Runtime
    from tastemaker.serve.settings import Settings

    fitted["ease"].save(tmp_path / "shelf" / "served")
    runtime = Runtime(Settings(log_url=f"sqlite:///{tmp_path / 'server-log.db'}", web=False, mcp=False))
    runtime.open(tmp_path / "shelf" / "served", "main")
    server = uvicorn.Server(uvicorn.Config(create_app(runtime), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield runtime, Server(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    server.should_exit = True
    thread.join(10)


def test_a_server_is_told(renew: Any, running: tuple[Any, Any]) -> None:
    runtime, server = running
    before = runtime.entry("main").snapshot
    found = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 30), server=server)
    assert found.promoted and found.reason.endswith("answers with it")
    assert runtime.entry("main").snapshot == promote.snapshot(found.out) != before
    assert runtime.log.count_served() == 0, "nobody was shown a list"


@pytest.mark.parametrize("fault", ["cannot open", "not ready", "another folder"])
def test_a_server_that_is_not_well_gets_the_old_one_back(
    renew: Any, running: tuple[Any, Any], tmp_path: Path, fitted: dict[str, Bundle], fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tastemaker.types import TastemakerError

    def broken(*_: Any) -> Any:
        raise TastemakerError("out of order")

    runtime, server = running
    before, files = runtime.entry("main").snapshot, state(tmp_path / "shelf" / "served")
    if fault == "cannot open":
        monkeypatch.setattr(runtime, "open", broken)
    elif fault == "not ready":
        monkeypatch.setattr(runtime, "health", broken)
    else:
        runtime._sources["main"] = fitted["popularity"].save(tmp_path / "stray")
    found = renew("ease", chosen(9, 1, dealt_anew, LOG_BEGINS, 30), server=server)
    assert not found.promoted and "is not well with the new bundle" in found.reason
    assert runtime.entry("main").snapshot == before
    served = {name: data for name, data in state(tmp_path / "shelf" / "served").items() if name.startswith("served/")}
    assert served == files


def test_a_server_that_serves_something_else_is_refused_at_once(renew: Any, running: Any, tmp_path: Path,
                                                                fitted: dict[str, Bundle]) -> None:  # fmt: skip
    _, server = running
    fitted["popularity"].save(tmp_path / "shelf" / "served")
    with pytest.raises(NotFound, match="none of the systems"):
        renew("ease", server=server)
    with pytest.raises(NotFound, match="serves nothing as 'side'"):
        renew("ease", server=replace(server, name="side"))


def test_the_command(tmp_path: Path, fitted: dict[str, Bundle], base: Dataset, log: EventLog) -> None:
    import typer
    from typer.testing import CliRunner

    from tastemaker.cli.refresh import refresh as command

    app = typer.Typer()
    app.command()(command)
    folder, data = fitted["ease"].save(tmp_path / "served"), base.save(tmp_path / "shop")
    say(log, chosen(9, 1, dealt_anew, LOG_BEGINS, 30))
    given = [str(folder), "--log", str(tmp_path / "log.db"), "--data", str(data)]
    run = CliRunner().invoke

    shown = run(app, [*given, "--dry-run", "--json"])
    assert shown.exit_code == 0 and json.loads(shown.stdout)["events"] == log.count_events()
    kept = run(app, [*given, "--min-events", "100000"])
    assert kept.exit_code == 10 and "the old one stays" in kept.stdout
    page = tmp_path / "compared.html"
    done = run(app, [*given, "--latency", "1e9", "--min-events", "100", "--report", str(page), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["promoted"] and told["previous"] == f"{folder}.previous" and "candidate" in page.read_text()
    assert Bundle.load(folder).about["refresh"]["events"] == told["drift"]["events"]
    back = run(app, [str(folder), "--roll-back"])
    assert back.exit_code == 0 and "refresh" not in Bundle.load(folder).about
    assert isinstance(run(app, [str(folder)]).exception, UsageError)


def test_a_split_is_known_by_all_its_data(base: Dataset, fitted: dict[str, Bundle], log: EventLog) -> None:
    say(log, chosen(2, 1, same, LOG_BEGINS, 5))
    parts = split(base, "leave-one-out")
    assert gathered(fitted["ease"], log, parts, now=NOW).n_events == base.n_events + log.count_events()
