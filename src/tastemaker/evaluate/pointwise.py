"""The pointwise protocol: what a system predicts of a user and an item, held against what happened.

A question is one user and one item in their context, at a time; a system is shown what the user chose before. Questions
and their labels come from the log by the tasks that the system declares (see `tastemaker.feeds.labels`); where a part
of the log holds nothing but choices, items the user did not choose are drawn beside them, and the report says so.

The figures stand in `tastemaker.evaluate.predictions`.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import special

from tastemaker.contracts import Embeds, Predicts, Scores
from tastemaker.evaluate.candidates import fingerprint
from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.predictions import BINARY_ONLY, BY_ORDER, METRICS, ROWS, TOTALS, gauc, reliability
from tastemaker.evaluate.report import SLICE_COLUMNS, Report, Statistics, plain
from tastemaker.evaluate.subject import Subject
from tastemaker.feeds.fields import context_of
from tastemaker.feeds.labels import CHOICE, Labelled, Pasts, Task, drawn_labels, tasks_of
from tastemaker.feeds.matrix import interaction_matrix
from tastemaker.feeds.negatives import uniform
from tastemaker.types import (
    PARTS,
    CapabilityError,
    Columns,
    Dataset,
    Jagged,
    NotFound,
    Part,
    Requests,
    Split,
    UsageError,
    generator,
    mix,
    nearest,
    progress,
    to_numpy,
)
from tastemaker.types.meter import machine, metered

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BLOCK = 4096  # questions a system is asked at once
LONGEST = 200  # latest choices of a history that are shown
POLICIES = (
    "A question is one item as it met one user; shown and chosen in one list is one question.",
    "A question without a label for a task takes no part in that task's figures.",
    "A row of a list whose events fall to several parts is left out.",
    "A user or item the system does not know is asked as an unknown one, and counts.",
    "Intervals are over questions; those of AUC are over the positives, the negatives being given.",
)


@dataclass(frozen=True, eq=False)
class Questions:
    """E questions of one part of a split, and their labels.

    drawn: how many of them are items drawn beside choices

    Shapes:
        rows: where and of whom they are, labels [E, T] among it
        asked: [E] int64, their users as a system may be told: -1 where training has no event of the user
    """

    data: Dataset
    tasks: tuple[Task, ...]
    rows: Labelled
    asked: Ints
    pasts: Pasts
    drawn: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls,
        split: Split,
        part: Part = "test",
        tasks: Sequence[str] = (CHOICE,),
        *,
        negatives: int | None = None,
        most: int | None = None,
        seed: int = 0,
    ) -> Questions:
        """The questions of a part.

        Args:
            negatives: items drawn beside each choice made outside a shown list, among those the user never chose; None:
                one where the part has no negative of its own, else none.
            most: no more than so many, drawn at random.
        """
        data = split.data
        found = tasks_of(tasks, data.schema)
        rows = Labelled.of(data, found, split.part == PARTS[part])
        unseen = drawn_labels(found)
        counted = ~np.isnan(unseen)
        if negatives is None:
            negatives = int(bool(counted.any()) and not (rows.labels[:, counted] == 0).any())
        drawn = 0
        if negatives and counted.any() and rows.open.any():
            open_rows = np.flatnonzero(rows.open)
            sample = uniform(interaction_matrix(data), negatives)
            items = sample(rows.users[open_rows], generator(seed, "questions", part))
            drawn = items.size
            more = [np.repeat(one[open_rows], negatives) for one in (rows.events, rows.users)]
            rows = Labelled(
                np.concatenate([rows.events, more[0]]),
                np.concatenate([rows.users, more[1]]),
                np.concatenate([rows.items, items.ravel()]),
                np.concatenate([rows.labels, np.tile(unseen, (drawn, 1))]),
                np.concatenate([rows.open, np.zeros(drawn, np.bool_)]),
            )
        if most is not None and len(rows) > most:
            rows = rows.take(np.sort(generator(seed, "judged questions").choice(len(rows), most, replace=False)))
        shown = split.part == PARTS["train"]
        known = np.zeros(data.n_users, dtype=np.bool_)
        known[data.events["user"].to_numpy()[shown]] = True
        if part == "test" and split.history == "known":
            shown |= split.part == PARTS["valid"]
        return cls(data, found, rows, np.where(known[rows.users], rows.users, -1), Pasts.of(data, shown), drawn)

    def requests(self, start: int, stop: int, seed: int = 0) -> Requests:
        """A request for each question from start to stop."""
        events = self.rows.events[start:stop]
        places, offsets = self.pasts.of_events(events, LONGEST)
        past = self.data.events[self.pasts.rows[places]]
        names = [name for name in ("item", "time", "value") if name in past.columns]
        history = Jagged(Columns({name: past[name].to_numpy() for name in names}), offsets)
        return Requests(
            len(events),
            users=self.asked[start:stop].astype(np.int32),
            history=history,
            context=context_of(self.data, events, [task.column for task in self.tasks]),
            now=self.data.events["time"][events].to_numpy() if self.data.has_time else None,
            seeds=mix(np.arange(start, start + len(events)), seed),
        )


def pointwise(
    system: Any,
    split: Split,
    *,
    part: Part = "test",
    questions: Questions | None = None,
    tasks: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    negatives: int | None = None,
    name: str | None = None,
    tuning: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
    seed: int = 0,
) -> Report:
    """Hold predictions against what happened, question by question, and return a Report.

    Where a system predicts several tasks, the figures of each bear its name ("auc[value>=4]"), and the plain name is
    their mean. Reliability, mean prediction and mean label by bins of the prediction, stands among the slices.

    Args:
        system: a bundle or a system that predicts, or scores; of scores only their order is judged.
        split: where the questions come from.
        part: "test" or "valid".
        questions: the split's questions, where they are at hand already.
        tasks: what is judged; None: what the system predicts, or "choice".
        metrics: names in `METRICS`; None: all that suit.
        negatives: see `Questions.of`.
        name: what the report calls the system.
        tuning: the search that found the settings, as {"trials": 20, "seconds": 300}.
        seed: for drawn items and the bootstrap.

    Raises:
        NotFound: a metric is unknown.
        CapabilityError: the system cannot score items, or a metric needs probabilities that it does not give.
    """
    statistics = statistics or Statistics(seed=seed)
    subject = Subject.of(system, 0, name=name, tuning=tuning, budget_mb=256)
    inner = subject.system
    predicts = isinstance(inner, Predicts)
    if tasks is None:
        tasks = tuple(inner.tasks) if predicts else (CHOICE,)
    with metered() as cost:
        if questions is None:
            questions = Questions.of(split, part, tasks, negatives=negatives, seed=seed)
        wanted = _plan(metrics, questions.tasks, predicts, subject.label)
        began = time.perf_counter()
        predicted = _answers(inner, subject, questions, [task.name for task in questions.tasks], seed)
        seconds = time.perf_counter() - began
        rows, totals, bins = _figures(predicted, questions, wanted, predicts)
    several = len(questions.tasks) > 1
    glossary = {metric: METRICS[metric] for metric in wanted}
    if several:
        glossary |= {
            f"{metric}[{task.name}]": _of_task(METRICS[metric], task) for metric in wanted for task in questions.tasks
        }
    n = len(questions)
    return Report(
        system=subject.about,
        split=_about_split(split, questions, part),
        protocol={
            "kind": "pointwise",
            "tasks": [task.name for task in questions.tasks],
            "requests": n,
            "drawn": questions.drawn,
            "users_unknown": int((questions.asked < 0).sum()),
            "positive": [
                _mean(questions.rows.labels[:, t]) if task.binary else None for t, task in enumerate(questions.tasks)
            ],
            "seed": seed,
            "facts": [
                f"{n:,} questions",
                f"{len(np.unique(questions.rows.users)):,} users",
                f"{questions.drawn:,} of them drawn" if questions.drawn else "none of them drawn",
            ],
            "policies": list(POLICIES),
        },
        requests=_about_questions(split, questions),
        rows={metric: values.astype(np.float32) for metric, values in rows.items()},
        totals=totals,
        glossary=glossary,
        slices=pl.DataFrame(bins, schema=SLICE_COLUMNS, orient="row"),
        cost={
            "seconds": cost.seconds,
            "cpu_seconds": cost.cpu_seconds,
            "peak_mb": cost.peak_mb,
            "answers_seconds": seconds,
            "requests_per_second": n / max(seconds, 1e-9),
        },
        machine=machine(),
        warnings=tuple(_warnings(split, subject, questions)),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        statistics=statistics,
    )


def _plan(names: Sequence[str] | None, tasks: Sequence[Task], predicts: bool, label: str) -> list[str]:
    """The metrics that are wanted, in their order."""
    can = {m for m in METRICS if (m not in BINARY_ONLY or any(t.binary for t in tasks)) and (predicts or m in BY_ORDER)}
    for name in names or ():
        if name not in METRICS:
            raise NotFound(f"there is no metric {name!r} of predictions", hint=nearest(name, METRICS))
        if name not in can:
            raise CapabilityError(
                f"{name} needs a {'probability' if not predicts else 'task of yes or no'}, which {label} does not give"
            )
    return [name for name in METRICS if name in can and (names is None or name in names)]


def _answers(system: Any, subject: Subject, questions: Questions, tasks: Sequence[str], seed: int) -> Floats:
    """Predictions, or one score for all tasks [E, T]."""
    if not isinstance(system, Scores | Embeds):
        raise CapabilityError(f"{subject.label} neither predicts nor scores a given item")
    column = list(range(len(tasks)))
    if isinstance(system, Predicts):
        own = list(system.tasks)
        if missing := [task for task in tasks if task not in own]:
            raise CapabilityError(f"{subject.label} does not predict {missing[0]!r}", hint=nearest(missing[0], own))
        column = [own.index(task) for task in tasks]
    found = np.empty((len(questions), len(tasks)))
    n_items = subject.n_items or questions.data.n_items
    with progress(f"evaluate {subject.label}", len(questions)) as advance:
        for start in range(0, len(questions), BLOCK):
            stop = min(start + BLOCK, len(questions))
            asked = subject.known(questions.requests(start, stop, seed), n_items)
            of = questions.rows.items[start:stop]
            items = np.where(of < n_items, of, -1).astype(np.int32)[:, None]
            if isinstance(system, Predicts):
                answer = to_numpy(system.predict(asked, items))[:, 0, column]
            elif isinstance(system, Scores):
                answer = to_numpy(system.score(asked, items))
            else:
                vectors = to_numpy(system.items())[np.maximum(items[:, 0], 0)]
                answer = (to_numpy(system.queries(asked)) * vectors).sum(axis=1, keepdims=True)
            found[start:stop] = answer
            advance(stop - start)
    if not np.isfinite(found).all():
        raise UsageError(f"{subject.label} predicts what is no number")
    return found


def _figures(
    predicted: Floats, questions: Questions, wanted: Sequence[str], predicts: bool
) -> tuple[dict[str, Floats], dict[str, float], list[list[Any]]]:
    """Values by question, values of the whole, and the rows of the reliability table."""
    rows: dict[str, Floats] = {}
    totals: dict[str, float] = {}
    bins: list[list[Any]] = []
    tasks, several = questions.tasks, len(questions.tasks) > 1
    for t, task in enumerate(tasks):
        labels = questions.rows.labels[:, t].astype(np.float64)
        there = np.flatnonzero(~np.isnan(labels))
        right, said, users = labels[there], predicted[there, t], questions.rows.users[there]
        for metric in wanted:
            if metric in BINARY_ONLY and not task.binary:
                continue
            name = f"{metric}[{task.name}]" if several else metric
            if metric in TOTALS:
                totals[name] = TOTALS[metric](right, said)
                continue
            values = np.full(len(labels), np.nan)
            values[there] = gauc(right, said, users) if metric == "gauc" else ROWS[metric](right, said)
            rows[name] = values
        if task.binary and predicts:
            bins += _reliability_rows(
                reliability(right, said), f"reliability of {task.name}" if several else "reliability"
            )
    if several:
        for metric in wanted:
            names = [f"{metric}[{task.name}]" for task in tasks]
            totals[metric] = _mean(
                [totals[n] if n in totals else _mean(rows[n]) for n in names if n in totals or n in rows]
            )
    return rows, totals, bins


def _mean(values: Any) -> float:
    """The mean of what is defined; NaN where nothing is."""
    there = np.asarray(values, np.float64)
    there = there[~np.isnan(there)]
    return float(there.mean()) if len(there) else math.nan


# -- what the report says


def _reliability_rows(table: pl.DataFrame, name: str) -> Iterator[list[Any]]:
    """Rows of the slices; the interval of the mean label is Wilson's."""
    for row in table.iter_rows(named=True):
        n, share, z = row["n"], row["observed"], float(special.ndtri(0.975))
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        value = f"{row['low']:.2f} to {row['high']:.2f}"
        yield [name, value, n, "predicted", row["predicted"], None, None]
        yield [name, value, n, "observed", share, max(0.0, centre - reach), min(1.0, centre + reach)]


def _of_task(metric: Metric, task: Task) -> Metric:
    return Metric(
        f"{metric.name}[{task.name}]",
        f"{metric.title}, {task.name}",
        metric.means,
        metric.better,
        metric.of,
        metric.needs,
        accuracy=metric.accuracy,
    )


def _about_questions(split: Split, questions: Questions) -> pl.DataFrame:
    rows = questions.rows
    return pl.DataFrame(
        {
            "request": np.arange(len(rows)),
            "user": split.data.user_ids.ids(rows.users),
            "item": split.data.item_ids.ids(rows.items),
        }
    ).with_columns(
        pl.Series(f"label {task.name}", rows.labels[:, t]).fill_nan(None) for t, task in enumerate(questions.tasks)
    )


def _about_split(split: Split, questions: Questions, part: Part) -> dict[str, Any]:
    data, rows = split.data, questions.rows
    return {
        "name": split.name,
        "part": part,
        "cases": fingerprint(rows.users, rows.items, rows.events, np.nan_to_num(rows.labels, nan=-1.0)),
        "spec": plain(split.spec),
        "history": split.history,
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "users": data.n_users,
            "items": data.n_items,
            "events": data.n_events,
            "notes": plain(data.notes),
        },
    }


def _warnings(split: Split, subject: Subject, questions: Questions) -> Iterator[str]:
    yield from split.warnings
    if subject.learnt is not None and split.train.fingerprint != subject.learnt:
        yield "The system did not learn from this split's training part: it may know the answers."
    if questions.drawn:
        yield (
            f"{questions.drawn:,} of {len(questions):,} questions are items drawn at random beside choices, and nobody "
            "was asked about them: figures depend on how many are drawn, and compare with no others."
        )
    for t, task in enumerate(questions.tasks):
        labels = questions.rows.labels[:, t]
        if task.binary and len(np.unique(labels[~np.isnan(labels)])) < 2:
            yield f"All labels of {task.name} are the same, so AUC is not defined."
