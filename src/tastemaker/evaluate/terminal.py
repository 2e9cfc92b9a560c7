"""Reports and comparisons on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from tastemaker.evaluate.report import Figure, Report, base, title

if TYPE_CHECKING:
    from tastemaker.evaluate.compare import Comparison, Entry

SHOWN = ("ndcg", "recall", "hit_rate", "coverage", "self_information", "mrr", "precision", "map", "diversity", "aplt")
BEST, TIED = "*", "≈"


def number(value: float | None, like: float | None = None) -> str:
    """A figure with the digits its size (or that of `like`) calls for."""
    if value is None or math.isnan(value):
        return "-"
    size = abs(value if like is None else like)
    return f"{value:.4f}" if size < 10 else f"{value:.2f}" if size < 1000 else f"{value:,.0f}"


def cells(
    figures: Sequence[Figure | None], marks: Sequence[str] = (), spreads: Sequence[float | None] = ()
) -> list[Text]:
    """A column: means, half their intervals, spreads over seeds and marks, each lined up below the other."""
    rows: list[list[tuple[str, str]]] = []
    for figure, mark, spread in zip_longest(figures, marks, spreads):
        if figure is None:
            rows.append([("", "")] * 4)
            continue
        half = "" if figure.half is None else f" ±{number(figure.half, figure.mean)}"
        more = "" if spread is None else f" s{number(spread, figure.mean)}"
        lead = "bold green" if mark == BEST else ""
        rows.append(
            [(number(figure.mean), lead), (half, "dim"), (more, "dim cyan"), (f" {mark}" if mark else "", "bold")]
        )
    wide, *widths = (max(len(row[part][0]) for row in rows) for part in range(4))
    found = []
    for (mean, style), *rest in rows:
        text = Text(mean.rjust(wide), style=style)
        for (more, style), width in zip(rest, widths, strict=True):
            text.append(more.ljust(width), style=style)
        found.append(text)
    return found


def report_table(report: Report) -> Group:
    """One system: metrics down, cut-offs across."""
    ks = sorted({int(name.partition("@")[2]) for name in report.metrics if "@" in name})
    bases = list(dict.fromkeys(base(name) for name in report.metrics))
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left", title_style="bold", pad_edge=False)
    table.title = Text(f"{report.label} on {report.where}")
    table.add_column("")
    for k in ks:
        table.add_column(f"@{k}", no_wrap=True)
    if not ks:
        table.add_column("")
    columns = [
        cells([report.figures.get(name if name in report.metrics else f"{name}@{k}") for name in bases])
        for k in ks or [0]
    ]
    for row, name in enumerate(bases):
        known, after = report.glossary.get(name), report.glossary.get(bases[min(row + 1, len(bases) - 1)])
        ends = bool(known and after and known.accuracy and not after.accuracy)
        shown = [column[row] for column in (columns[:1] if name in report.metrics else columns)]
        table.add_row(Text(known.title if known else name), *shown, end_section=ends)
    return Group(*_warned(report.warnings), table, *_foot(report, _level(report)))


class ComparisonTable:
    """Systems down, metrics across: as many as the terminal is wide."""

    def __init__(self, comparison: Comparison, metrics: Sequence[str] | None = None) -> None:
        self.comparison, self.metrics = comparison, metrics

    def columns(self) -> list[str]:
        """Metrics in the order in which they are worth showing."""
        if self.metrics is not None:
            return list(self.metrics)
        k = self.comparison.primary.partition("@")[2]
        wanted = [self.comparison.primary, *(f"{name}@{k}" for name in SHOWN), "auc", "r_precision"]
        shown = [name for name in dict.fromkeys(wanted) if name in self.comparison.metrics]
        return shown + [n for n in self.comparison.metrics if n not in shown and "@" not in n]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        comparison = self.comparison
        report = comparison.entries[0].reports[0]
        table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False, show_edge=False)
        table.title = Text(f"{len(comparison.entries)} systems on {report.where}")
        longest = min(40, max(len(entry.label) for entry in comparison.entries) + 1)
        table.add_column("system", min_width=min(longest, 12), max_width=40, overflow="fold")
        tuned = len({entry.tuning for entry in comparison.entries}) > 1
        room = options.max_width - max(longest, 12) - 3
        room -= max(len(entry.tuning) for entry in comparison.entries) + 3 if tuned else 0
        columns: list[list[Text]] = []
        for name in self.columns():
            column, heading = self._column(name), title(name, comparison.glossary)
            width = max(len(heading), *(text.cell_len for text in column)) + 3
            if width > room and columns:
                break
            room -= width
            columns.append(column)
            table.add_column(heading, no_wrap=True)
        if tuned:
            table.add_column("tuning", no_wrap=True)
        for row, entry in enumerate(comparison.entries):
            tuning = [Text(entry.tuning)] if tuned else []
            table.add_row(Text(entry.label), *(column[row] for column in columns), *tuning)
        yield from _warned(comparison.warnings)
        yield table
        marks = _level(report)
        if len(comparison.entries) > 1:
            marks = f"{BEST} best   {TIED} cannot be told from the best ({comparison.how()})\n{marks}"
        if any(len(entry.reports) > 1 for entry in comparison.entries):
            seeds = max(len(entry.reports) for entry in comparison.entries)
            marks += f"\ns standard deviation over up to {seeds} seeds; means and intervals are of the seeds' average"
        yield from _foot(report, marks, entries=comparison.entries)

    def _column(self, metric: str) -> list[Text]:
        leader, tied = self.comparison.leader(metric), self.comparison.tied(metric)
        entries = self.comparison.entries
        marks = ["" if len(entries) == 1 else BEST if e is leader else TIED if e.label in tied else "" for e in entries]
        return cells([e.figures[metric] for e in entries], marks, [e.seed_spread(metric) for e in entries])


def _level(report: Report) -> str:
    how = report.statistics
    return f"± half the {how.level:.0%} bootstrap interval over requests ({how.resamples:,} resamples)"


def _warned(warnings: Sequence[str]) -> Iterator[Text]:
    for warning in warnings:
        yield Text.assemble(("warning: ", "bold yellow"), warning)


def _foot(report: Report, marks: str, entries: Sequence[Entry] = ()) -> Iterator[Text]:
    yield Text(marks, style="dim")
    yield Text(f"{report.split.get('part') or 'cases'}: {', '.join(report.protocol['facts'])}", style="dim")
    if not entries and "requests_per_second" in report.cost:
        cost = report.cost
        rate = f"{cost['requests_per_second']:,.0f} requests a second"
        yield Text(f"{cost['seconds']:.2f} s, {rate}, peak {cost['peak_mb']:,.0f} MB", style="dim")
