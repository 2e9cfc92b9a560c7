"""Tuning: the settings of one system, searched by Optuna on validation data alone.

The first trial is always the defaults. What follows is proposed by Optuna's tree-structured Parzen estimator (TPE) and
stopped early where its validation curve lies below the median of earlier ones at the same epoch. With a storage file
the search is a journal: the same call goes on where an earlier one stopped, however it stopped, and no finished trial
is made again.

Ref: Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011 (TPE); Golovin et al., "Google Vizier",
KDD 2017 (the median rule); Akiba et al., "Optuna", arXiv:1907.10902.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.contracts import SystemInfo, find, info_of
from tastemaker.data import holdout
from tastemaker.evaluate import Report, evaluate
from tastemaker.lab.amounts import seconds as as_seconds
from tastemaker.lab.amounts import spoken
from tastemaker.lab.attempt import STATES, Goal, Outcome, Pruned, attempt
from tastemaker.lab.space import Space, Values, fit_command, key_of
from tastemaker.train import Bundle, Hardware, Ranking, fit
from tastemaker.train.codec import content_key
from tastemaker.types import CapabilityError, Dataset, Split, UsageError, config_to_json, make_config, mix, progress
from tastemaker.types.errors import optional

if TYPE_CHECKING:
    from rich.console import RenderableType

TRIALS = 20  # where neither trials nor a budget are said
STARTUP = 8  # trials before the sampler models anything; the defaults are one of them
WATCHED = 4  # finished curves before one is stopped by comparison with them
REPEATS = 30  # proposals in a row that are known already: the space is taken to be exhausted
ASKED, FOUND = "settings", "outcome"  # what a trial carries in the storage, beside Optuna's own


@dataclass(frozen=True)
class Trial:
    """One attempt of a tuning: the settings it searched, and what came of them."""

    number: int
    settings: Mapping[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    judged_on: which events judged, and how many cases they made
    trials: in the order they were made; the first one is the defaults
    importance: share of what the settings explain of the differences between trials, by setting; may be empty
    """

    info: SystemInfo
    goal: Goal
    judged_on: str
    trials: tuple[Trial, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def best(self) -> Trial:
        """The trial of the highest value; of equal ones the earliest."""
        there = [t for t in self.trials if t.outcome.value is not None and t.outcome.state != "pruned"]
        if not there:
            reasons = "; ".join(dict.fromkeys(t.outcome.reason for t in self.trials if t.outcome.reason))
            raise CapabilityError(f"no trial of {self.info.name} came to an end: {reasons or 'there was no time'}")
        return max(there, key=lambda t: (t.outcome.value, -t.number))

    @property
    def settings(self) -> Values:
        """The best settings, the fixed ones with them."""
        return {**self.fixed, **self.best.settings}

    @property
    def value(self) -> float:
        """The metric of the best settings on validation data."""
        return self.goal.worth(self.best.outcome.value or 0.0)

    @property
    def seconds(self) -> float:
        """Of all trials together, in whatever process they were made."""
        return sum(trial.outcome.seconds for trial in self.trials)

    def about(self) -> dict[str, Any]:
        """The search, as bundles and reports state it: comparisons show it beside the figures."""
        return {"trials": len(self.trials), "seconds": round(self.seconds)}

    def fit(self, data: Dataset | Split, **how: Any) -> Bundle:
        """The system with the best settings, fitted; `how` as of `tastemaker.fit`."""
        bundle = fit(self.info.cls, data, self.settings, **{"seed": self.seed, **how})
        bundle.about["tuning"] = self.about()
        return bundle

    def test(self, bundle: Bundle, split: Split, **how: Any) -> Report:
        """The figures of the test part, which the search has not read; `how` as of `tastemaker.evaluate`."""
        return evaluate(bundle, split, part="test", **{"ks": (self.goal.k,), **how})

    def command(self, source: str) -> str:
        """The command that fits the best settings on data that is called `source` on the command line."""
        return fit_command(self.info.name, source, Space.of(self.info, self.fixed).changed(self.best.settings))

    def to_json(self) -> dict[str, Any]:
        states = {state: sum(t.outcome.state == state for t in self.trials) for state in STATES}
        return {
            "system": self.info.name,
            "metric": self.goal.metric,
            "judged_on": self.judged_on,
            "value": self.value,
            "default_value": self._default(),
            "settings": config_to_json(make_config(self.info.config, self.settings, of=self.info.name)),
            "importance": dict(self.importance),
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "states": {state: n for state, n in states.items() if n},
            "trials": [
                {"number": t.number, "settings": dict(t.settings), **t.outcome.to_json(), "value": self._of(t)}
                for t in self.trials
            ],
        }

    def table(self) -> RenderableType:
        """Best settings beside the defaults, and how the search went."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
        drawn.title = Text(f"{self.info.name}: best settings by {self.goal.metric}")
        heads = ["setting", "default", "best", *(["importance"] if self.importance else [])]
        for head in heads:
            drawn.add_column(head, justify="left" if head == "setting" else "right")
        default = config_to_json(make_config(self.info.config, None))
        chosen = config_to_json(make_config(self.info.config, self.settings, of=self.info.name))
        for name in [*self.best.settings, *self.fixed]:
            row = [name, _shown(default[name]), _shown(chosen[name]) + (" (fixed)" if name in self.fixed else "")]
            weight = self.importance.get(name)
            row += ["" if weight is None else f"{weight:.0%}"] if self.importance else []
            drawn.add_row(*map(Text, row))
        lines = [f"{self.goal.metric} {self.value:.4f} on {self.judged_on}; {self._defaults_said()}"]
        counts = [(t, sum(o.outcome.state == t for o in self.trials)) for t in STATES]
        said = ", ".join(f"{n} {state}" for state, n in counts if n)
        lines.append(f"{len(self.trials)} trials ({said}) in {spoken(self.seconds)}")
        reasons = dict.fromkeys(t.outcome.reason for t in self.trials if t.outcome.state == "failed")
        lines += [f"failed: {reason}" for reason in list(reasons)[:3]]
        return Group(drawn, *(Text(line, style="dim") for line in lines))

    def __rich__(self) -> RenderableType:
        return self.table()

    def _of(self, trial: Trial) -> float | None:
        return None if trial.outcome.value is None else self.goal.worth(trial.outcome.value)

    def _default(self) -> float | None:
        return self._of(self.trials[0])

    def _defaults_said(self) -> str:
        value = self._default()
        return "the defaults gave no value" if value is None else f"the defaults give {value:.4f}"


def tune(
    system: str | type,
    data: Dataset | Split,
    *,
    trials: int | None = None,
    budget: float | str | None = None,
    metric: str = "ndcg@10",
    storage: str | Path | None = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    hardware: Hardware | None = None,
    prune: bool = True,
) -> Tuning:
    """Search the settings of a system and return what was found. The test part of a split is not read.

    Trials are judged on the split's valid part; where there is none, or a dataset is given, on events held back from
    what may be learnt from. A trial that fails is recorded with its reason, and the search goes on.

    Args:
        system: a name (see `tastemaker systems`) or a class declared with `@system`.
        trials, budget: the search ends when so many trials are made or so much time is spent on them, earlier runs
            in the same storage counted; "10m" or seconds. Where neither is said, after 20 trials.
        storage: an SQLite file. The same call goes on there; it may hold the searches of several systems.
        fixed: settings that are given and not searched.
        prune: stop trials whose validation curve lies below the median of others.

    Raises:
        MissingExtra: Optuna is not installed.
        CapabilityError: the data lacks what the system learns from, or no trial came to an end.
    """
    info = find(system) if isinstance(system, str) else info_of(system)
    goal = Goal.of(metric)
    seconds = None if budget is None else as_seconds(budget)
    if trials is None and seconds is None:
        trials = TRIALS
    if trials is not None and trials < 1:
        raise UsageError(f"a search makes at least one trial, got {trials}")
    learnt = data.train if isinstance(data, Split) else data
    if missing := info.missing_from(learnt):
        raise CapabilityError(
            f"{info.name} learns from {', '.join(sorted(missing))}, which {learnt.name} does not carry",
            hint="`tastemaker systems --for DATA` lists the systems a dataset can train",
        )
    space = Space.of(info, fixed)
    judge, judged_on = judge_of(data, seed)
    key = content_key(
        info.name, info.version, list(space.dimensions), dict(space.fixed), goal.metric, seed, judge.train,
        judge.cases.targets,
    )  # fmt: skip
    with _study(f"{info.name} {key}", storage, prune) as study:
        search = _Search(study, space, judge, goal, seed, hardware)
        search.clear()
        with progress(f"tune {info.name}", float(trials if trials is not None else seconds or 1)) as advance:
            made = search.made()
            advance(len(made) if trials is not None else _spent(made), _best_said(goal, made))
            while (trials is None or len(made) < trials) and (seconds is None or _spent(made) < seconds):
                trial = search.step(made, None if seconds is None else seconds - _spent(made))
                if trial is None:
                    break
                made.append(trial)
                advance(1 if trials is not None else trial.outcome.seconds, _best_said(goal, made))
        found = Tuning(info, goal, judged_on, tuple(made), search.importance(), dict(space.fixed), seed)
    _ = found.best  # where there is none, that is said now
    return found


def judge_of(data: Dataset | Split, seed: int) -> tuple[Ranking, str]:
    """Who judges a search, and in words: the valid part, or events held back from what may be learnt from."""
    if isinstance(data, Split) and data.sizes["valid"]:
        judge = Ranking.of(data, seed)
        return judge, f"{len(judge.cases):,} cases of the valid part of {data.name}"
    inner = holdout(data, seed=seed)
    judge = Ranking.of(inner, seed)
    return judge, f"{len(judge.cases):,} cases held back from training ({inner.name})"


class _Search:
    """A study under way."""

    def __init__(
        self, study: Any, space: Space, judge: Ranking, goal: Goal, seed: int, hardware: Hardware | None
    ) -> None:
        self.study, self.space, self.judge, self.goal = study, space, judge, goal
        self.seed, self.hardware = seed, hardware
        self.optuna = optional("optuna", extra="tune", why="tuning")

    def clear(self) -> None:
        """Close trials that a killed process left open; the sampler will propose the same again."""
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state == self.optuna.trial.TrialState.RUNNING:
                self.study.tell(frozen.number, state=self.optuna.trial.TrialState.FAIL)

    def made(self) -> list[Trial]:
        """Finished trials, those of earlier processes with them, numbered by themselves."""
        kept = [f for f in self.study.get_trials(deepcopy=False) if FOUND in f.user_attrs and f.state.is_finished()]
        return [
            Trial(number, frozen.user_attrs[ASKED], Outcome.from_json(frozen.user_attrs[FOUND]))
            for number, frozen in enumerate(kept)
        ]

    def step(self, made: list[Trial], seconds: float | None) -> Trial | None:
        """Make the next trial; None where the space holds nothing new."""
        known = {key_of(trial.settings) for trial in made}
        if not self.space.dimensions and made:
            return None
        if not made and not any(f.state.name == "WAITING" for f in self.study.get_trials(deepcopy=False)):
            self.study.enqueue_trial(self.space.params(self.space.default))
        for repeat in range(REPEATS):
            # a sampler of its own for each trial: what it proposes depends on the trials so far, not on the process
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=int(mix(1000 * len(made) + repeat, self.seed)) % 2**32, n_startup_trials=STARTUP
            )
            asked = self.study.ask()
            settings = self.space.suggest(asked)
            if key_of(settings) not in known:
                return self._make(asked, settings, len(made), seconds)
            self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
        return None

    def _make(self, asked: Any, settings: Values, number: int, seconds: float | None) -> Trial:
        watch = _Watch(asked, spared=number == 0)
        _, outcome = attempt(
            self.space.info,
            self.judge,
            self.space.whole(settings),
            self.goal,
            seed=self.seed,
            seconds=seconds,
            loggers=[watch],
            hardware=self.hardware,
        )
        outcome = Outcome.from_json(outcome.to_json())  # as it will be read again
        asked.set_user_attr(ASKED, settings)
        asked.set_user_attr(FOUND, outcome.to_json())
        states = self.optuna.trial.TrialState
        if outcome.value is not None:
            self.study.tell(asked, outcome.value)
        else:
            self.study.tell(asked, state=states.PRUNED if outcome.state == "pruned" else states.FAIL)
        return Trial(number, settings, outcome)

    def importance(self) -> dict[str, float]:
        """How much each setting matters, where enough trials differ to say so."""
        if len(self.space.dimensions) < 2:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # so it says that the trials are too few to tell
                evaluator = self.optuna.importance.PedAnovaImportanceEvaluator()
                found = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except (ValueError, RuntimeError, UserWarning):
            return {}
        known = {name: float(weight) for name, weight in found.items() if name in self.space.dimensions}
        total = sum(known.values())
        return {name: weight / total for name, weight in known.items()} if total > 0 else {}


class _Watch:
    """A logger that reports validation figures to Optuna and stops a trial when its pruner says so.

    Of a program of several stages the first that is judged is watched: their figures do not compare.
    """

    def __init__(self, trial: Any, *, spared: bool) -> None:
        self.trial, self.spared = trial, spared
        self.stage: Any = None

    def log(self, record: Mapping[str, Any]) -> None:
        if record["event"] != "evaluation" or (self.stage is not None and record["stage"] != self.stage):
            return
        self.stage = record["stage"]
        self.trial.report(float(record["value"]), step=int(record["epoch"]))
        if not self.spared and self.trial.should_prune():
            raise Pruned(f"below the median of others at epoch {record['epoch']}")


@contextmanager
def _study(name: str, storage: str | Path | None, prune: bool) -> Iterator[Any]:
    """The study of this name, in a file or in memory."""
    optuna = optional("optuna", extra="tune", why="tuning")
    if storage is not None:
        Path(storage).resolve().parent.mkdir(parents=True, exist_ok=True)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna.create_study(
                study_name=name,
                storage=None if storage is None else f"sqlite:///{Path(storage).resolve()}",
                load_if_exists=True,
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=WATCHED) if prune else optuna.pruners.NopPruner(),
            )
    finally:
        optuna.logging.set_verbosity(before)


def _spent(made: list[Trial]) -> float:
    return sum(trial.outcome.seconds for trial in made)


def _best_said(goal: Goal, made: list[Trial]) -> str:
    values = [trial.outcome.value for trial in made if trial.outcome.value is not None]
    return f"best {goal.metric} {goal.worth(max(values)):.4f}" if values else ""


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
