"""A choice: which system is best here, what cannot be told from it, and what each cheaper one gives up."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tastemaker.evaluate import Comparison, Figure, Report
from tastemaker.evaluate.report import plain, title
from tastemaker.evaluate.terminal import number
from tastemaker.lab.amounts import spoken
from tastemaker.lab.attempt import Goal
from tastemaker.lab.frontier import Costs, frontier
from tastemaker.lab.halving import Contender, Round
from tastemaker.lab.space import fit_command
from tastemaker.train import Bundle
from tastemaker.types import replace_file

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PAGE, RECORD, BUNDLES = "choice.html", "choice.json", "bundles"
ANSWER = "tastemaker serve {bundle}"  # what answers with a bundle


@dataclass(frozen=True, eq=False)
class Finalist:
    """A system that was judged on the test part.

    settings: those that differ from the defaults
    value: on validation data, by which it was chosen
    place: where its bundle lies; None: nowhere
    """

    name: str
    settings: Mapping[str, Any]
    value: float
    costs: Costs
    report: Report
    place: Path | None = None


@dataclass(frozen=True, eq=False)
class Choice:
    """What `choose` found.

    finalists: in the order of their validation values; the first one is the choice
    comparison: of the finalists on the test part, which nothing before it has read
    contenders: every system that was tried, and what came of its trials
    left_out: systems that were not tried, and why
    facts: of the data, in words
    source: how the data is named on the command line
    """

    goal: Goal
    finalists: tuple[Finalist, ...]
    comparison: Comparison
    contenders: Mapping[str, Contender]
    rounds: tuple[Round, ...]
    left_out: Mapping[str, str]
    facts: tuple[str, ...]
    judged_on: str
    budget: float
    memory_mb: float
    seconds: float
    source: str = "DATA"
    notes: tuple[str, ...] = ()
    kept: Bundle | None = field(default=None, repr=False)

    # -- the answer

    @property
    def best(self) -> str:
        """The system that was chosen: the best on validation data, at the settings found best."""
        return self.finalists[0].name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its settings that differ from the defaults."""
        return self.finalists[0].settings

    @property
    def figure(self) -> Figure:
        """Its figure on the test part, with its interval."""
        return self.figure_of(self.best)

    def figure_of(self, name: str) -> Figure:
        """The figure of a finalist on the test part."""
        return next(entry.figures[self.goal.metric] for entry in self.comparison.entries if entry.label == name)

    @cached_property
    def against(self) -> Mapping[str, Mapping[str, float]]:
        """Every other finalist minus the choice on the test part: difference, low, high, adjusted p."""
        return self.comparison.against(self.goal.metric, self.best)

    @property
    def tied(self) -> list[str]:
        """Finalists that the tests cannot tell from the choice."""
        return [name for name, row in self.against.items() if not row["p"] < self.comparison.alpha]

    @property
    def better(self) -> list[str]:
        """Finalists that are better than the choice on the test part, beyond chance; seldom any."""
        sign = 1 if self.goal.high else -1
        rows = self.against.items()
        return [name for name, row in rows if row["p"] < self.comparison.alpha and sign * row["difference"] > 0]

    @cached_property
    def edges(self) -> dict[str, list[str]]:
        """By cost, the finalists that nothing as cheap equals on the test part, cheapest first."""
        values = [self.goal.worth(self.figure_of(one.name).mean) for one in self.finalists]
        found = {}
        for what in ("fit_seconds", "ms_per_request"):
            places = frontier(values, [getattr(one.costs, what) for one in self.finalists])
            found[what] = [self.finalists[place].name for place in places]
        return found

    @property
    def bundle(self) -> Bundle:
        """The chosen system as fitted on the training part."""
        place = self.finalists[0].place
        if self.kept is not None:
            return self.kept
        assert place is not None
        return Bundle.load(place)

    @property
    def serves(self) -> str:
        """The command that answers with the choice."""
        place = self.finalists[0].place
        return ANSWER.format(bundle=shlex.quote(str(self.best if place is None else place)))

    @property
    def refits(self) -> str:
        """The command that fits the choice on all events."""
        return fit_command(self.best, self.source, self.settings)

    # -- in words and tables

    def verdict(self) -> str:
        """The answer in a sentence or two."""
        figure = self.figure
        between = "" if figure.low is None or figure.high is None else f" ({figure.low:.4f} to {figure.high:.4f})"
        name = title(self.goal.metric, self.comparison.glossary)
        said = f"{self.best} is the choice: {name} {figure.mean:.4f}{between} on the test part."
        if self.tied:
            said += f" Not told from it: {', '.join(self.tied)}."
        elif len(self.finalists) > 1 and not self.better:
            said += " Every other finalist is behind it, beyond chance."
        if self.better:
            said += f" Better than it on the test part, beyond chance: {', '.join(self.better)}; look at them too."
        return said

    def budget_said(self) -> str:
        """What every system was given, in words."""
        parts = []
        for one in self.rounds:
            many = "any number of settings" if one.settings is None else f"{one.settings} new settings"
            users = "" if one.users is None else f", on the events of {one.users:,} users"
            parts.append(f"round {one.number + 1}: {len(one.systems)} systems, {spoken(one.seconds)} and {many} each")
            parts[-1] += users
        return "Every system in a round had the same budget. " + "; ".join(parts) + "."

    def rows(self) -> list[dict[str, Any]]:
        """One row a finalist: figure, what it gives up against the choice, and its costs."""
        found = []
        for one in self.finalists:
            figure, other = self.figure_of(one.name), self.against.get(one.name)
            found.append(
                {
                    "system": one.name,
                    "settings": dict(one.settings),
                    "value": figure.mean,
                    "low": figure.low,
                    "high": figure.high,
                    "validation": self.goal.worth(one.value),
                    "difference": None if other is None else other["difference"],
                    "difference_low": None if other is None else other["low"],
                    "difference_high": None if other is None else other["high"],
                    "p": None if other is None else other["p"],
                    "tied": one.name in self.tied,
                    **one.costs.to_json(),
                    "cheapest_to_train_so_good": one.name in self.edges["fit_seconds"],
                    "cheapest_to_ask_so_good": one.name in self.edges["ms_per_request"],
                    "bundle": None if one.place is None else str(one.place),
                }
            )
        return found

    def course(self) -> list[dict[str, Any]]:
        """One row a system that was tried: how far it came, and why no further."""
        finalists = {one.name for one in self.finalists}
        found = []
        for contender in sorted(self.contenders.values(), key=_standing, reverse=True):
            stand = contender.stand()
            value = None if stand is None or stand.outcome.value is None else self.goal.worth(stand.outcome.value)
            failed = [t.outcome.reason for t in contender.trials if t.outcome.state == "failed"]
            found.append(
                {
                    "system": contender.name,
                    "validation": value,
                    "users": None if stand is None else stand.users,
                    "rounds": len({trial.round for trial in contender.trials}),
                    "settings": contender.settings,
                    "seconds": round(contender.seconds, 2),
                    "allowed_seconds": round(contender.allowed, 2),
                    "failed": len(failed),
                    "what came of it": contender.out or ("finalist" if contender.name in finalists else "in the race"),
                }
            )
        return found

    def table(self) -> RenderableType:
        """What the terminal shows."""
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = [Text(f"warning: {note}", style="yellow") for note in self.notes]
        lines += [Text(self.verdict(), style="bold"), self._costs(), self._course()]
        if self.left_out:
            lines.append(Text("Left out: " + "; ".join(f"{n}: {why}" for n, why in self.left_out.items()), style="dim"))
        lines.append(Text(f"{self.budget_said()} Chosen on {self.judged_on}.", style="dim"))
        lines.append(Text(f"{spoken(self.seconds)} of {spoken(self.budget)}; {', '.join(self.facts)}", style="dim"))
        if self.finalists[0].place is not None:
            lines.append(Text.assemble("serve it:         ", (self.serves, "bold")))
        lines.append(Text.assemble("fit it on all:    ", (self.refits, "bold")))
        return Group(*lines)

    def __rich__(self) -> RenderableType:
        return self.table()

    def __repr__(self) -> str:
        return f"Choice({self.best} of {len(self.contenders)} systems, {self.goal.metric} {self.figure.mean:.4f})"

    def _costs(self) -> Table:
        from rich.text import Text

        name = title(self.goal.metric, self.comparison.glossary)
        heads = ["", name, "gives up", "fit\ns", "peak\nMB", "disk\nMB", "ms per\nrequest", "users\nper s", ""]
        drawn = _table("What each choice costs", heads)
        for one, row in zip(self.finalists, self.rows(), strict=True):
            half = "" if row["low"] is None else f" ±{number((row['high'] - row['low']) / 2, row['value'])}"
            marks = ("T" if row["cheapest_to_train_so_good"] else "") + ("A" if row["cheapest_to_ask_so_good"] else "")
            style = "bold green" if one.name == self.best else ""
            costs = ("fit_seconds", "peak_mb", "bundle_mb", "ms_per_request", "users_per_second")
            drawn.add_row(
                Text(one.name, style=style),
                Text.assemble((number(row["value"]), style), (half, "dim")),
                Text("" if row["difference"] is None else self.gives_up(row).partition(" ±")[0]),
                *(Text(_short(row[what])) for what in costs),
                Text(marks),
            )
        drawn.caption = (
            "≈ cannot be told from the choice; ± half the 95% interval. "
            "T, A: nothing that is as cheap to train, or to answer with, is as good."
        )
        return drawn

    def gives_up(self, row: Mapping[str, Any]) -> str:
        """What a finalist loses against the choice, with its interval."""
        if row["difference"] is None:
            return "the choice"
        lost = -row["difference"] if self.goal.high else row["difference"]
        half = (row["difference_high"] - row["difference_low"]) / 2
        return f"{'≈ ' if row['tied'] else ''}{lost:.4f} ±{half:.4f}"

    def _course(self) -> Table:
        from rich.text import Text

        heads = ["", f"valid\n{self.goal.metric}", "rounds", "settings", "seconds", "what came of it"]
        drawn = _table("How it was found", heads)
        for row in self.course():
            drawn.add_row(
                Text(row["system"]),
                Text("-" if row["validation"] is None else number(row["validation"])),
                Text(str(row["rounds"])),
                Text(str(row["settings"]) + (f" ({row['failed']} failed)" if row["failed"] else "")),
                Text(f"{_short(row['seconds'])} of {_short(row['allowed_seconds'])}"),
                Text(row["what came of it"].splitlines()[0]),
            )
        return drawn

    # -- on disk

    def to_json(self) -> dict[str, Any]:
        """Everything but the values by request, as plain JSON values."""
        import tastemaker

        return plain(  # type: ignore[no-any-return]
            {
                "tastemaker": tastemaker.__version__,
                "best": self.best,
                "settings": dict(self.settings),
                "metric": self.goal.metric,
                "value": self.figure.mean,
                "low": self.figure.low,
                "high": self.figure.high,
                "tied": self.tied,
                "better_on_test": self.better,
                "verdict": self.verdict(),
                "serves": self.serves,
                "refits": self.refits,
                "finalists": self.rows(),
                "frontiers": self.edges,
                "tried": self.course(),
                "left_out": dict(self.left_out),
                "rounds": [
                    {
                        "number": one.number + 1,
                        "systems": list(one.systems),
                        "seconds_each": round(one.seconds, 3),
                        "settings_each": one.settings,
                        "users": one.users,
                    }
                    for one in self.rounds
                ],
                "budget": self.budget_said(),
                "budget_seconds": self.budget,
                "seconds": round(self.seconds, 3),
                "memory_mb": round(self.memory_mb),
                "judged_on": self.judged_on,
                "data": list(self.facts),
                "notes": list(self.notes),
                "comparison": self.comparison.to_json(),
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write `choice.html` and `choice.json` into a folder."""
        from tastemaker.lab.choice_page import choice_page

        folder = Path(folder)
        texts = {PAGE: choice_page(self), RECORD: json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"}
        for name, text in texts.items():
            with replace_file(folder / name) as fresh:
                fresh.write_text(text, encoding="utf-8")
        return folder


def _table(heading: str, heads: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    drawn.title_justify = drawn.caption_justify = "left"
    drawn.title = Text(heading)
    for place, head in enumerate(heads):
        left = place == 0 or head == "what came of it"
        drawn.add_column(head, justify="left" if left else "right", no_wrap=head != "what came of it")
    return drawn


def _standing(contender: Contender) -> tuple[int, float]:
    stand = contender.stand()
    value = -math.inf if stand is None or stand.outcome.value is None else stand.outcome.value
    return max((trial.round for trial in contender.trials), default=-1), value


def _short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
