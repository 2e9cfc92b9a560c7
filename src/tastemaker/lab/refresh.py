"""Renewal of what is served: the log becomes data, the system is fitted anew, and is served only if it is not worse.

What is compared is two fits of one system at one point in time. The newest part of what happened since the served
bundle was fitted is held out; the candidate is fitted on what lies before it, the served one was fitted before the log
began, so neither has seen it. Both answer with the histories as they were at the cut: what differs is what was learnt.

The candidate takes the place if all of this holds:

- it is not worse: the lower end of the paired interval of (new - old) on the metric lies above minus a tolerance, which
  is a share of the old figure (a non-inferiority test: Piaggio et al., "Reporting of noninferiority and equivalence
  randomized trials", JAMA 308(24), 2012). So a small log promotes nothing;
- it finds more than lists drawn by chance do, by the same interval. In a log of noise no fit is worse than another;
- it shows nearly as much of the catalogue, takes no more than a few times as long, and is no more than a few times as
  large, within `Limits`.

Then it is fitted once more, on everything, for as many epochs as were found best, and takes the place of the old one in
one step: see `tastemaker.lab.promote`. In every other case everything stays as it was, and the reason is said.

A log is judged by itself: feedback that somebody forged to look like people's is beyond this test.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tastemaker.evaluate import Comparison
from tastemaker.lab import promote
from tastemaker.lab.drift import Drift, drift_of
from tastemaker.lab.server import Server
from tastemaker.lab.trial import Check, Limits, Trial, unwell
from tastemaker.train import Bundle, Hardware
from tastemaker.types import EVENT_COLUMNS, Dataset, Split, UsageError, optional

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

    from tastemaker.serve.log import EventLog

MIN_EVENTS = 500  # choices since, below which nothing is tried
KEPT = 10  # the exit code of a command after which the old one stays


@dataclass(frozen=True, eq=False)
class Refreshed:
    """What a renewal came to.

    promoted: whether a new bundle is served
    reason: why, or why not
    out, previous: where the served bundle is, and where the one before it, if it was replaced
    seconds: of fitting and judging
    """

    promoted: bool
    reason: str
    out: Path
    previous: Path | None
    drift: Drift
    checks: tuple[Check, ...] = ()
    comparison: Comparison | None = None
    cut: str | None = None
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """What the command returns."""
        return 0 if self.promoted else KEPT

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "promoted": self.promoted,
            "reason": self.reason,
            "out": str(self.out),
            "previous": None if self.previous is None else str(self.previous),
            "cut": self.cut,
            "seconds": round(self.seconds, 2),
            "checks": [asdict(check) for check in self.checks],
            "drift": self.drift.to_json(),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }

    def table(self) -> ConsoleRenderable:
        """What the terminal shows."""
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        parts: list[Any] = [self.drift.table()]
        if self.checks:
            drawn = Table(header_style="bold", title=f"judged on what happened since {self.cut}", title_justify="left")
            for name in ("what", "served", "candidate"):
                drawn.add_column(name, justify="left" if name == "what" else "right")
            drawn.add_column("wanted")
            drawn.add_column("")
            for check in self.checks:
                holds = "holds" if check.holds else "[red]does not hold[/]"
                drawn.add_row(check.what, f"{check.old:.4g}", f"{check.new:.4g}", check.wanted, holds)
            parts.append(drawn)
        verdict = "[green]promoted[/]" if self.promoted else "[yellow]the old one stays[/]"
        parts.append(f"{verdict}: {escape(self.reason)}")
        return Group(*parts)

    def __rich__(self) -> ConsoleRenderable:
        return self.table()


def refresh(
    bundle: str | Path,
    *,
    log: EventLog | str | Path,
    base: Dataset | Split | None = None,
    out: str | Path | None = None,
    min_events: int = MIN_EVENTS,
    judged: float = 0.2,
    metric: str = "ndcg@10",
    tolerance: float = 0.05,
    limits: Limits | None = None,
    warm: bool = True,
    repeats: bool | None = None,
    kinds: Collection[str] | None = None,
    context: Collection[str] = (),
    server: Server | None = None,
    seed: int | None = None,
    hardware: Hardware | None = None,
    now: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Refreshed:
    """Fit a served bundle anew on what happened since, and let the new one take its place if it is not worse.

    Args:
        bundle: the folder of what is served.
        log: the server's event log, or where it is.
        base: what the bundle was fitted on, before any refresh; None: the choices it remembers.
        out: the folder that is to hold the new one; default: the served folder itself.
        min_events: choices since the bundle was fitted without which nothing is tried.
        judged: share of those, the newest, that the two fits are compared on.
        metric: by which, at a cut-off where it has one.
        tolerance: share of the old figure that may be lost.
        warm: begin with the old weights, where the system learns by gradient steps.
        repeats: whether items may be chosen again; default: as the split `base` says, else not.
        kinds, context: of the log's events, as in `tastemaker.serve.export.dataset_of`.
        server: a running server that is told, asked whether it is well, and told to go back if it is not.
        seed: default: the old bundle's.
        now: microseconds since 1970; events that claim to be later are left out. Default: the clock's.
        tell: is told what is being done.

    Raises:
        UsageError: the data has no times, or does not belong to the bundle; another renewal is under way.
        NotFound: there is no bundle, or no log; `out` is there and holds something else.
    """
    if not 0 < judged < 1 or not 0 <= tolerance < 1:
        raise UsageError(f"judged and tolerance are shares below 1, got {judged} and {tolerance}")
    source = Path(bundle).resolve()
    with promote.turn(source if out is None else out) as place:
        old, name = Bundle.load(source), promote.snapshot(source)
        replaced = promote.snapshot(place) if place.exists() else None
        shown = None if server is None else server.find(name)
        data = gathered(old, log, base, kinds=kinds, context=context, now=now)
        repeats = isinstance(base, Split) and base.repeats if repeats is None else repeats
        drift = drift_of(old, data, now=now)
        tell(drift.statement())
        trial = Trial(old, data, drift, metric, repeats, seed, hardware, warm, tell)
        found = Refreshed(False, "", place, None, drift)
        if (reason := trial.prepare(min_events, judged)) is not None:
            return replace(found, reason=reason)
        began, limits = time.monotonic(), limits or Limits()
        comparison, checks = trial.judge(tolerance, limits)
        found = replace(found, comparison=comparison, checks=checks, cut=trial.cut, seconds=time.monotonic() - began)
        if (reason := _refused(checks)) is not None:
            return replace(found, reason=reason)
        tell("fitting on everything")
        final = trial.final()
        final.about["refresh"] = {**trial.facts(comparison), "from": name, "replaces": replaced}
        try:
            staged = promote.stage(final, place)
            size = trial.sized(source, staged, limits)
            found = replace(found, checks=(*checks, size), seconds=time.monotonic() - began)
            if (reason := _refused([size]) or unwell(staged, data, trial.cases)) is not None:
                return replace(found, reason=reason)
            promote.promote(place)
        finally:
            promote.recover(place)
        reason = f"{trial.metric} {checks[0].new:.4f}, {checks[0].old:.4f} before, on what happened since {trial.cut}"
        back = None if replaced is None else promote.previous(place)
        found = replace(found, promoted=True, reason=reason, previous=back)
    if server is None or shown is None:
        return found
    return _served(found, server, shown, replaced is not None)


def staleness(
    bundle: str | Path,
    *,
    log: EventLog | str | Path,
    base: Dataset | Split | None = None,
    kinds: Collection[str] | None = None,
    context: Collection[str] = (),
    now: int | None = None,
) -> Drift:
    """How old a bundle is and what has changed since, without fitting anything; arguments as in `refresh`."""
    old = Bundle.load(bundle)
    return drift_of(old, gathered(old, log, base, kinds=kinds, context=context, now=now), now=now)


def gathered(
    bundle: Bundle,
    log: EventLog | str | Path,
    base: Dataset | Split | None = None,
    *,
    kinds: Collection[str] | None = None,
    context: Collection[str] = (),
    now: int | None = None,
) -> Dataset:
    """What a bundle was fitted on, then the events of the log; arguments as in `refresh`.

    Raises:
        UsageError: the base has no times, or is not what the bundle was fitted on; without a base, the bundle remembers
            nothing, or its times are no clock.
    """
    optional("sqlalchemy", extra="serve", why="the event log")
    from tastemaker.serve.export import dataset_of
    from tastemaker.serve.log import open_log

    known = base.data if isinstance(base, Split) else remembered(bundle) if base is None else base
    if base is None and known.time_unit == "step":
        raise UsageError(
            f"the times of {known.name} are no clock, so nobody knows which events of the log {bundle.name} remembers",
            hint="give the dataset that it was fitted on",
        )
    if not known.has_time:
        raise UsageError(f"{known.name} has no times, so nobody knows what is newer than what")
    for own, theirs in ((bundle.users, known.user_ids), (bundle.items, known.item_ids)):
        if len(own) and not (own.numbers(theirs.series) >= 0).any():
            raise UsageError(
                f"{known.name} has none of the {own.of}s that the bundle of {bundle.name} knows",
                hint="give the dataset that it was fitted on",
            )
    with open_log(log, create=False) if isinstance(log, str | Path) else nullcontext(log) as events:
        data = dataset_of(events, kinds=kinds, context=context, base=known)
    if base is None:
        data = data.with_events(_once(data))
    if data.time_unit != "us":
        return data
    late = data.events["time"] > (time.time_ns() // 1000 if now is None else now)
    if not late.any():
        return data
    return data.with_events(data.events.filter(~late), future=f"{late.sum():,} events of times to come are left out")


def remembered(bundle: Bundle) -> Dataset:
    """The choices that a bundle remembers, as the dataset it was fitted on.

    Raises:
        UsageError: it remembers none.
    """
    if bundle.histories is None:
        raise UsageError(
            f"the bundle of {bundle.name} remembers no choices",
            hint="give the dataset that it was fitted on",
        )
    rows, values = bundle.histories, bundle.histories.values
    events = pl.DataFrame(
        [
            pl.Series("user", rows.rows.astype(np.int32)),
            *(pl.Series(name, values[name]).cast(EVENT_COLUMNS[name]) for name in values),
        ]
    ).filter(pl.col("item") >= 0)
    people = bundle.users.series.to_frame("user")
    name = bundle.about.get("data", {}).get("name", bundle.name)
    return Dataset(name, people, bundle.catalogue, events, time_unit=bundle.schema.time_unit)


def _once(data: Dataset) -> pl.DataFrame:
    """Events without choices that are there twice: remembered by a renewed bundle, and in the log it learnt from."""
    chosen = data.choices()
    flags = pl.Series("chosen", np.ones(data.n_events, dtype=np.bool_) if chosen is None else chosen)
    last = data.events.select("user", "item", "time").with_columns(flags).select(pl.struct(pl.all()).is_last_distinct())
    return data.events.filter(~flags | last.to_series())


def _refused(checks: Sequence[Check]) -> str | None:
    """Why the old one stays; None: everything holds."""
    failed = [check.said() for check in checks if not check.holds]
    return " | ".join(failed) or None


def _served(found: Refreshed, server: Server, name: str, replaced: bool) -> Refreshed:
    """Tell a server of the new bundle; where it is not well with it, everything becomes what it was before."""
    why = server.renew(name, promote.snapshot(found.out))
    if why is None:
        return replace(found, reason=f"{found.reason}; {server.url} answers with it")
    if replaced:
        promote.roll_back(found.out)
    else:
        shutil.rmtree(found.out)
    return replace(found, promoted=False, previous=None, reason=f"{server.url} is not well with the new bundle: {why}")
