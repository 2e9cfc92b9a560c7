"""The training loop: what it minimises, when it stops, and that it can be killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tastemaker.contracts import Alternate, Epochs, Fit, Optimiser, Plateau, Program, Train, system
from tastemaker.data import split, synthetic
from tastemaker.feeds import RowFeed, interaction_matrix, triplets, uniform
from tastemaker.nn import losses
from tastemaker.nn.table import Table
from tastemaker.train import Hardware, fit
from tastemaker.train.bundle import export_state
from tastemaker.types import Dataset, Diverged, Requests, Split, UsageError, setting


@dataclass(frozen=True)
class Numbers:
    values: Any

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: slice) -> Numbers:
        return Numbers(self.values[rows])


@system("probe", family="classical", title="A probe of the loop", paper="none", needs={"users"})
class Probe(nn.Module):
    """Learns the mean of numbers, with dropout to make its steps random."""

    @dataclass(frozen=True)
    class Config:
        lr: float = setting(0.1, "Learning rate.")
        epochs: int = setting(5, "Epochs.")
        accumulate: int = setting(1, "Batches a step.")
        rule: str = setting("sgd", "Update rule.")
        schedule: str = setting("constant", "Learning rate over time.")
        warmup: int = setting(0, "Steps of a rising rate.")
        clip: float | None = setting(None, "Largest gradient.")
        ema: float | None = setting(None, "Decay of the average.")
        dropout: float = setting(0.0, "Share of values left out.")
        factor: float = setting(1.0, "Factor of the loss.")
        sparse: bool = setting(False, "Whether the table is sparse.")
        batch_size: int = setting(8, "Rows a batch.")
        seconds: float = setting(0.0, "Seconds a step sleeps.")

    def __init__(self, config: Any, schema: Any) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.weight = nn.Parameter(torch.zeros(3))
        self.table = Table(schema.n_items, 4, sparse=config.sparse)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def program(self, data: Dataset) -> Program:
        c = self.config
        values = np.random.default_rng(0).normal(2.0, 1.0, (32, 3)).astype(np.float32)

        def make(rows: Any, rng: Any) -> Numbers:
            return Numbers(values[rows] + rng.normal(0, 0.01, (len(rows), 3)).astype(np.float32))

        self.found = yield Train(
            RowFeed(32, c.batch_size, make),
            lambda batch: batch.values,
            self.objective,
            until=Epochs(c.epochs),
            optimiser=Optimiser(
                c.rule, lr=c.lr, accumulate=c.accumulate, schedule=c.schedule, warmup=c.warmup, clip=c.clip, ema=c.ema
            ),
            after_step=self.count,
        )

    def objective(self, values: Tensor, batch: Numbers) -> Tensor:
        time.sleep(self.config.seconds)
        kept = nn.functional.dropout(values, self.config.dropout, self.training)
        rows = (kept - self.weight).square().sum(dim=1)
        return self.config.factor * rows + 0 * self.table(np.arange(2)).sum()

    def count(self, step: int) -> None:
        self.steps += 1

    def queries(self, requests: Requests) -> Tensor:
        return torch.ones(requests.n, 4)

    def items(self, numbers: Any = None) -> Tensor:
        return self.table.weight


@pytest.fixture(scope="module")
def parts() -> Split:
    return split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")


def state(bundle: Any) -> dict[str, Any]:
    return dict(export_state(bundle.system))


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return set(left) == set(right) and all(np.array_equal(left[k], right[k]) for k in left)


def test_steps_are_those_of_plain_torch(parts: Split) -> None:
    """The loop's weights equal those of ten lines written by hand."""
    system = fit(Probe, parts, {"epochs": 3}).system
    weight = torch.zeros(3, requires_grad=True)
    probe = Probe(Probe.Config(), parts.train.schema)
    program = probe.program(parts.train)
    feed = next(program).feed
    feed.start(0)
    rule = torch.optim.SGD([weight], lr=0.1)
    for _ in range(3):
        for batch in feed:
            rule.zero_grad()
            (torch.from_numpy(batch.values) - weight).square().sum(dim=1).mean().backward()
            rule.step()
    assert torch.allclose(system.weight, weight, atol=1e-6)
    assert int(system.steps) == 12


def test_accumulated_batches_are_one_large_batch(parts: Split) -> None:
    one = fit(Probe, parts, {"batch_size": 32, "epochs": 4}).system.weight
    four = fit(Probe, parts, {"batch_size": 8, "accumulate": 4, "epochs": 4}).system.weight
    three = fit(Probe, parts, {"batch_size": 12, "accumulate": 3, "epochs": 4}).system.weight  # 12 + 12 + 8 rows
    assert torch.allclose(one, four, atol=2e-3) and torch.allclose(one, three, atol=2e-3)


def test_rates_follow_the_schedule(parts: Split) -> None:
    """With a rate that falls to 0 the last steps hardly move, and a warmup makes the first ones small."""

    def rates(**config: Any) -> list[float]:
        moved: list[float] = []

        class Watch(Probe):
            def after(self, step: int) -> None:
                moved.append(float(self.weight.detach().norm()))

            def program(self, data: Dataset) -> Program:
                stage = next(super().program(data))
                yield replace(
                    stage, after_step=self.after, objective=lambda v, b: -(self.weight.sum()) + 0 * v.sum(dim=1)
                )

        system("watch", family="classical", title="x", paper="none")(Watch)
        fit(Watch, parts, {"epochs": 5, **config})
        return list(np.diff([0.0, *moved]))

    linear, cosine, warm = rates(schedule="linear"), rates(schedule="cosine"), rates(warmup=10)
    unit = 0.1 * 3**0.5
    np.testing.assert_allclose(linear, [unit * (1 - n / 20) for n in range(20)], rtol=1e-4)
    np.testing.assert_allclose(
        cosine, [unit * (1 + np.cos(np.pi * n / 20)) / 2 for n in range(20)], rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(warm[:10], [unit * (n + 1) / 10 for n in range(10)], rtol=1e-4)


def test_clipping_and_averaging(parts: Split) -> None:
    clipped = fit(Probe, parts, {"clip": 1e-3, "epochs": 1}).system.weight
    assert float(clipped.detach().norm()) <= 4 * 0.1 * 1e-3 + 1e-6
    averaged = fit(Probe, parts, {"ema": 0.9, "epochs": 1}).system.weight
    plain = fit(Probe, parts, {"epochs": 1}).system.weight
    assert 0 < float(averaged.detach().norm()) < float(plain.detach().norm()), "the average lags behind the weights"


@pytest.mark.parametrize(("config", "said"), [({"lr": 1e30}, "is no number|grew"), ({"lr": 40.0}, "grew|is no number")])
def test_a_loss_that_explodes_stops_with_step_batch_and_advice(parts: Split, config: Any, said: str) -> None:
    with pytest.raises(Diverged, match=said) as caught:
        fit(Probe, parts, {**config, "epochs": 60})
    assert "step" in str(caught.value) and "smaller lr" in str(caught.value)


def test_sparse_tables_refuse_what_looks_at_whole_tables(parts: Split) -> None:
    with pytest.raises(UsageError, match="sparse=False"):
        fit(Probe, parts, {"sparse": True, "clip": 1.0})


def test_global_streams_are_left_alone_and_seeds_decide(parts: Split) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = (state(fit(Probe, parts, {"dropout": 0.5}, seed=1)) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(first, again)
    assert not same(first, state(fit(Probe, parts, {"dropout": 0.5}, seed=2)))


class Stopped(Exception):
    pass


class StopAt:
    """A logger that fails at an epoch, as a machine might."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def log(self, record: Any) -> None:
        if record["event"] == "epoch" and record["epoch"] == self.epoch:
            raise Stopped


HARD = {"dropout": 0.5, "rule": "adam", "ema": 0.8, "schedule": "cosine", "epochs": 6, "batch_size": 5}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_stopped_training_goes_on_to_the_bit(parts: Split, tmp_path: Path, accumulate: int) -> None:
    config = {**HARD, "accumulate": accumulate}
    whole = fit(Probe, parts, config, seed=3)
    for at in (1, 2, 5):
        run = tmp_path / f"run{at}"
        with pytest.raises(Stopped):
            fit(Probe, parts, config, seed=3, run=run, checkpoint_seconds=0, loggers=[StopAt(at)])
        resumed = fit(Probe, parts, config, seed=3, run=run, checkpoint_seconds=0)
        assert same(state(whole), state(resumed)), f"stopped at epoch {at}"
        assert resumed.about["training"][0]["steps"] == whole.about["training"][0]["steps"]
        again = fit(Probe, parts, config, seed=3, run=run)
        assert same(state(whole), state(again)), "a finished run gives what it gave"


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_neural import Probe, HARD
from tastemaker.data import split, synthetic
from tastemaker.train import fit
from tastemaker.train.bundle import export_state
import numpy as np
parts = split(synthetic(120, n_items=80, seed=2), "ratio:0.7,0.15,0.15")
system, config = {system}, {config!r}
bundle = fit(system, parts, config, seed=3, run={run!r}, checkpoint_seconds=0)
np.savez({out!r}, **export_state(bundle.system))
"""


@pytest.mark.parametrize("system", ["Probe", "'bpr-mf'"])
def test_killed_at_any_moment_it_ends_with_the_same_weights(parts: Split, tmp_path: Path, system: str) -> None:
    """SIGKILL, several times, between and within epochs."""
    slow = (
        {**HARD, "seconds": 0.01, "epochs": 10} if system == "Probe" else {"epochs": 14, "batch_size": 128, "dim": 16}
    )
    script = KILLED.format(
        tests=str(Path(__file__).parent),
        system=system,
        config=slow,
        run=str(tmp_path / "run"),
        out=str(tmp_path / "w.npz"),
    )
    log, kills = tmp_path / "run" / "log.jsonl", 0
    for patience in (1, 4, 10**9):
        process = subprocess.Popen([sys.executable, "-c", script], env=dict(os.environ), stderr=subprocess.PIPE)
        while process.poll() is None and (not log.exists() or log.read_text().count('"epoch"') < 2 * patience):
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    assert kills >= 1 and process.returncode == 0
    name = Probe if system == "Probe" else system.strip("'")
    undisturbed = state(fit(name, parts, slow, seed=3))
    with np.load(tmp_path / "w.npz") as resumed:
        assert same(undisturbed, dict(resumed))


def test_it_stops_on_a_plateau_and_keeps_the_best_weights(parts: Split) -> None:
    bundle = fit("bpr-mf", parts, {"dim": 16, "lr": 0.05, "epochs": 200, "patience": 3, "every": 1, "batch_size": 128})
    (told,) = bundle.about["training"]
    values = [row["ndcg@20"] for row in told["evaluations"]]
    assert told["stopped"] == "no rise" and told["best"] == max(values)
    assert told["best_epoch"] == 1 + int(np.argmax(values)) == told["epochs"] - 3
    from tastemaker.evaluate import evaluate

    again = evaluate(bundle, parts.cases("valid"), metrics=["ndcg@20"]).value("ndcg@20")
    assert again == pytest.approx(told["best"], abs=1e-9), "the weights kept are those judged best"
    assert bundle.about["judged_on"] == "valid part"


def test_any_judge_may_stop_training(parts: Split) -> None:
    asked: list[int] = []

    def judge(system: Any, metric: str) -> float:
        asked.append(len(asked))
        assert not system.training and metric == "ndcg@20"
        return -abs(len(asked) - 4.0)

    bundle = fit("bpr-mf", parts, {"epochs": 100, "patience": 2, "every": 1, "dim": 8}, judge=judge)
    assert bundle.about["training"][0]["best_epoch"] == 4 and len(asked) == 6


def test_without_a_valid_part_events_are_held_back_and_refit_uses_them_all(parts: Split) -> None:
    config = {"dim": 16, "epochs": 30, "patience": 2, "every": 1, "batch_size": 128, "lr": 0.02}
    held = fit("bpr-mf", parts.train, config, seed=4, refit=False)
    assert held.about["judged_on"] == "events held back from training"
    refitted = fit("bpr-mf", parts.train, config, seed=4)
    first, second = refitted.about["training"]
    assert second["epochs"] == first["best_epoch"] and second["metric"] is None
    assert not same(state(held), state(refitted))
    assert held.histories is not None and len(held.histories.values["item"]) == parts.train.interactions().height


def test_a_deadline_ends_training(parts: Split) -> None:
    started = time.monotonic()
    bundle = fit(Probe, parts, {"seconds": 0.05, "epochs": 10_000}, seconds=0.5)
    assert time.monotonic() - started < 5 and bundle.about["training"][0]["stopped"] == "out of time"


def test_what_happens_is_told(parts: Split, tmp_path: Path) -> None:
    fit("bpr-mf", parts, {"epochs": 3, "every": 1, "dim": 8}, run=tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    events = [record["event"] for record in records]
    assert events == ["start", *["epoch", "evaluation"] * 3, "end"]
    assert {"loss", "examples_per_second", "waiting_share", "seconds"} <= set(records[1])
    losses = [record["loss"] for record in records if record["event"] == "epoch"]
    assert losses[2] < losses[0]


def test_trainings_take_turns(parts: Split) -> None:
    """Two stages with parameters of their own, an epoch each; each moves its own parameters alone."""
    order: list[str] = []

    class Two(Probe):
        def __init__(self, config: Any, schema: Any) -> None:
            super().__init__(config, schema)
            self.other = nn.Parameter(torch.zeros(3))

        def program(self, data: Dataset) -> Program:
            stage = next(super().program(data))
            yield Alternate(
                [
                    replace(stage, parameters=[self.weight], every_epoch=lambda n: order.append(f"a{n}")),
                    replace(
                        stage,
                        parameters=[self.other],
                        objective=lambda v, b: (self.other - self.weight.detach()).square().sum() + 0 * v.sum(dim=1),
                        every_epoch=lambda n: order.append(f"b{n}"),
                        optimiser=Optimiser("sgd", lr=0.2),
                    ),
                ]
            )

    system("two", family="classical", title="x", paper="none")(Two)
    built = fit(Two, parts, {"epochs": 3}).system
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert torch.allclose(built.weight, torch.full((3,), 2.0), atol=0.6)
    assert torch.allclose(built.other, built.weight, atol=0.5)


def test_unknown_devices_are_refused(parts: Split) -> None:
    with pytest.raises(UsageError, match="no device"):
        fit(Probe, parts, hardware=Hardware(device="cuda:77"))
    with pytest.raises(UsageError, match="bf16"):
        Hardware(precision="fp8")  # type: ignore[arg-type]


def test_mixed_precision_and_compilation_learn_too(parts: Split) -> None:
    plain = fit(Probe, parts).system.weight
    mixed = fit(Probe, parts, hardware=Hardware(precision="bf16")).system.weight
    assert torch.allclose(plain, mixed, atol=0.1)


def test_a_program_needs_parameters_and_a_module(parts: Split) -> None:
    @system("bare", family="classical", title="x", paper="none")
    class Bare:
        """No module."""

        Config = Probe.Config

        def __init__(self, config: Any, schema: Any) -> None:
            pass

        def program(self, data: Dataset) -> Program:
            feed = triplets(interaction_matrix(data), 8)
            yield Train(feed, lambda b: b, lambda t, b: t, until=Plateau("ndcg@10"))

        def score(self, requests: Requests, items: Any = None) -> Any:
            return None

    with pytest.raises(UsageError, match=r"nn\.Module"):
        fit(Bare, parts)


SEEN: list[tuple[int, int]] = []


@system("counts", family="classical", title="x", paper="none", needs={"users"})
class Counts(nn.Module):
    """Counts events before it learns anything, and draws a number at the start of each epoch."""

    drawn: Tensor

    @dataclass(frozen=True)
    class Config:
        epochs: int = setting(3, "Epochs.")

    def __init__(self, config: Any, schema: Any) -> None:
        super().__init__()
        self.config = config
        self.users, self.things = Table(schema.n_users, 4), Table(schema.n_items, 4)
        self.register_buffer("drawn", torch.zeros(config.epochs, dtype=torch.int64))

    def program(self, data: Dataset) -> Program:
        SEEN.append((data.n_events, (yield Fit(lambda: data.n_events))))
        matrix = interaction_matrix(data)
        yield Train(
            triplets(matrix, 64, uniform(matrix, 1)),
            lambda batch: (self.users(batch.users), self.things(batch.items), self.things(batch.negatives[:, 0])),
            lambda read, batch: losses.bpr((read[0] * read[1]).sum(1), (read[0] * read[2]).sum(1, keepdim=True)),
            until=Plateau("ndcg@10", 5, 1, self.config.epochs),
            every_epoch=self.draw,
        )

    def draw(self, epoch: int) -> None:
        self.drawn[epoch] = torch.randint(2**40, ())

    def queries(self, requests: Requests) -> Tensor:
        return self.users.known(requests.users)

    def items(self, numbers: Any = None) -> Tensor:
        return self.things.weight if numbers is None else self.things(numbers)


def test_what_was_kept_of_all_events_is_not_used_while_some_are_held_back(tmp_path: Path) -> None:
    SEEN.clear()
    data = synthetic(60, n_items=40, seed=1)
    for _ in range(2):  # the second time all stages are recalled
        fit(Counts, data, run=tmp_path / "run")
    assert len({given for given, _ in SEEN}) == 2, "all events, and those that are left beside what judges"
    assert all(given == counted for given, counted in SEEN), SEEN


def test_what_an_epoch_draws_follows_from_the_seed(tmp_path: Path) -> None:
    data = split(synthetic(60, n_items=40, seed=1), "ratio:0.8,0.1,0.1")
    whole = fit(Counts, data, seed=3).system.drawn
    assert len(set(whole.tolist())) == 3
    torch.manual_seed(99)
    assert torch.equal(fit(Counts, data, seed=3).system.drawn, whole)
    assert not torch.equal(fit(Counts, data, seed=4).system.drawn, whole)
