"""Experiments on live traffic, carried out: who answers a request, what is written down, what becomes of the result.

What an experiment is, how units are dealt and what the log says of it stands in `experiments`, `interleave` and
`analysis`; here requests meet them. A list that nobody sees is made after the one that is shown has gone out.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from tastemaker.serve.analysis import analyse
from tastemaker.serve.entry import Entry
from tastemaker.serve.experiments import Assignment, Experiment, Experiments
from tastemaker.serve.interleave import interleaved
from tastemaker.serve.names import new_id, now
from tastemaker.serve.questions import Answer, Question
from tastemaker.serve.runtime import Given, Runtime
from tastemaker.serve.shadows import shadow_trace
from tastemaker.serve.verdicts import Decision, Result, advise, promote, roll_back
from tastemaker.types import NotFound, UsageError, nearest


class Live:
    """The experiments of a runtime. They are kept in its settings' file, where one is named."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.file = runtime.settings.experiments_file
        self.all = Experiments() if self.file is None else Experiments.read(self.file)
        self._check(self.all)

    # -- requests

    async def answer(self, entry: Entry, question: Question, *, session: str | None = None) -> Given:
        """A list that goes to the user, from whom the experiment in force says, and written down."""
        slate = new_id()
        found = self.all.decide(entry.name, user=question.user, session=session, request=slate)
        if found is None:
            given = Given(slate, entry, await self.runtime.ask(entry, question))
        elif found.kind == "interleave":
            given = await self._mixed(slate, found, question)
        else:
            [serve] = found.shown.values()
            given = await self._timed(slate, found, self.runtime.entry(serve), question)
            if found.unseen:
                self.runtime.background(self._unseen(slate, found, question, session))
        self.runtime.note(given, question, session=session)
        return given

    async def _timed(self, slate: str, found: Assignment, entry: Entry, question: Question) -> Given:
        began = time.perf_counter()
        answer = await self.runtime.ask(entry, question)
        answer.trace |= {"latency_ms": round(1000 * (time.perf_counter() - began), 3)}
        return Given(slate, entry, answer, found.experiment, found.arm)

    async def _mixed(self, slate: str, found: Assignment, question: Question) -> Given:
        """A list to which all arms contribute. Its pages are cut from one draw, since the seed is the same."""
        entries = [self.runtime.entry(serve) for serve in found.shown.values()]
        whole = replace(question, skip=0, k=question.skip + question.k)
        answers = await asyncio.gather(*(self.runtime.ask(entry, whole) for entry in entries))
        items, teams, sources, logp = interleaved([one.items for one in answers], whole.k, question.seed)
        cut = slice(question.skip, whole.k)
        shown = Answer(items[cut], [], logp[cut], more=any(one.more for one in answers), trace={"teams": teams[cut]})
        shown.scores = [answers[arm].scores[place] for arm, place in sources[cut]]
        if question.explain:
            told = [one.reasons for one in answers]
            shown.reasons = [None if (rows := told[arm]) is None else rows[place] for arm, place in sources[cut]]
        return Given(slate, entries[0], shown, found.experiment, found.arm)

    async def _unseen(self, slate: str, found: Assignment, question: Question, session: str | None) -> None:
        for arm, serve in found.unseen.items():
            given = await self._timed(new_id(), found, self.runtime.entry(serve), question)
            latency = given.answer.trace.pop("latency_ms")
            given.answer.trace |= shadow_trace(slate, latency)
            self.runtime.note(replace(given, arm=arm), question, session=session, shadow=True)

    # -- experiments

    def get(self, name: str) -> Experiment:
        """Raises NotFound: there is none of this name."""
        if name not in self.all:
            raise NotFound(f"there is no experiment {name!r}", hint=nearest(name, self.all))
        return self.all[name]

    def add(self, experiment: Experiment) -> Experiment:
        """One more, as a draft or running."""
        self._keep(self.all.add(experiment))
        return experiment

    def start(self, name: str) -> Experiment:
        return self._change(name, lambda one: one.start(now()))

    def stop(self, name: str) -> Experiment:
        return self._change(name, lambda one: one.stop(now()))

    def result(self, name: str) -> Result:
        """Where an experiment stands, from the log."""
        experiment = self.get(name)
        log = self.runtime.log
        slates, events = list(log.slates(experiment=name)), list(log.events())
        if not slates or not events:
            raise UsageError(
                f"nothing can be said of {name} yet: the log has {sum(map(len, slates)):,} lists of it "
                f"and {sum(map(len, events)):,} events",
                hint="wait for traffic and its feedback",
            )
        return analyse(experiment, pl.concat(events), pl.concat(slates), now=now())

    def decision(self, name: str, *, arm: str | None = None, force: bool = False) -> Decision:
        """What the result calls for, or what is asked for by hand."""
        experiment = self.get(name)
        if force and arm == experiment.control:
            return roll_back(experiment, now())
        result = self.result(name)
        return (
            advise(experiment, result, now())
            if arm is None
            else promote(experiment, result, now(), arm=arm, force=force)
        )

    def carry_out(self, decision: Decision) -> Decision:
        """End the experiment and serve what the decision says; the entry before can be had back by `roll_back`."""
        if decision.action == "wait":
            return decision
        if decision.action == "promote" and decision.serve != decision.surface:
            winner = self.runtime.entry(decision.serve)
            self.runtime.put(Entry(decision.surface, winner.bundle, snapshot=winner.snapshot))
        self._keep(self.all.replace(decision.experiment))
        return decision

    def _change(self, name: str, change: Callable[[Experiment], Experiment]) -> Experiment:
        changed = change(self.get(name))
        self._keep(self.all.replace(changed))
        return changed

    def _keep(self, experiments: Experiments) -> None:
        self._check(experiments)
        if self.file is not None:
            experiments.write(self.file)
        self.all = experiments

    def _check(self, experiments: Experiments) -> None:
        """Whatever an experiment in force needs is served."""
        for name in experiments.serves:
            self.runtime.entry(name)


def told(experiment: Experiment) -> dict[str, Any]:
    """An experiment in a list of them."""
    return experiment.model_dump(mode="json", exclude_none=True)


def explained(experiment: Experiment, result: Result) -> dict[str, Any]:
    """A result for the page: arms, differences to the control, guardrails, the path, and a sentence."""
    contrasts = {one.arm: one for one in result.contrasts}
    plain = result.to_json()
    arms = []
    for one in plain["arms"]:
        row = {name: one[name] for name in ("arm", "units", "lists", "mean", "low", "high")}
        other = next((c for c in plain["contrasts"] if c["arm"] == one["arm"]), None)
        parts = {"difference": "difference", "diff_low": "low", "diff_high": "high", "p": "p"}
        row |= {name: None if other is None else other[of] for name, of in parts.items()}
        arms.append(row)
    path = plain["path"]
    keys = ("time", "arm", "difference", "low", "high")
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*(path.get(key, []) for key in keys), strict=True)]
    return {
        "experiment": told(experiment),
        "arms": arms,
        "guardrails": plain["guardrails"],
        "shadows": plain["shadows"],
        "split": plain["split"],
        "warnings": plain["warnings"],
        "verdict": result.verdict,
        "explanation": sentence(experiment, result, contrasts),
        "path": rows,
    }


def sentence(experiment: Experiment, result: Result, contrasts: dict[str, Any]) -> str:
    """What the result means, for people."""
    if result.kind == "shadow":
        return "The other arms answered unseen: their lists are compared with those that were shown, not their success."
    if result.verdict == "invalid":
        return "Users did not come in the planned shares, so the arms cannot be compared. Look for the fault first."
    if result.verdict == "harm: stop":
        return "An arm harms what must not be harmed. Stop."
    if result.best is not None:
        one = contrasts[result.best]
        gain = "" if math.isnan(one.lift) else f", by {100 * one.lift:.1f} %"
        what = f"{result.best} is better than {result.control} on {result.metric}{gain}"
        return what + "; this holds however often one looks."
    if result.verdict == "worse":
        return f"{result.control} is better than every other arm on {result.metric}."
    return "Nothing is certain yet. The intervals hold at any time, so looking again costs nothing."
