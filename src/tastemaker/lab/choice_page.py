"""A choice as one HTML file: the page of its comparison, with what each choice costs before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tastemaker.evaluate.page import figure, grid, page, scroll, section
from tastemaker.evaluate.plots import Mark, frontier, swatch
from tastemaker.evaluate.report import title
from tastemaker.evaluate.terminal import number
from tastemaker.lab.amounts import spoken

if TYPE_CHECKING:
    from tastemaker.lab.choice import Choice

COSTS = {"fit_seconds": "seconds of training", "ms_per_request": "milliseconds a request, asked alone"}


def choice_page(choice: Choice) -> str:
    """The page; like every page of ours it loads nothing."""
    first = choice.comparison.entries[0].reports[0]
    notes = "".join(f"<li>{escape(note)}</li>" for note in choice.notes)
    sections = [
        f'<section class="warnings"><h2>Read this first</h2><ul>{notes}</ul></section>' if notes else "",
        _costs(choice),
        _commands(choice),
        _course(choice),
    ]
    verdict = f'<p class="verdict">{escape(choice.verdict())}</p>'
    return page(choice.comparison, name=f"{choice.best} on {first.where}", verdict=verdict, sections=sections)


def _costs(choice: Choice) -> str:
    """Accuracy over each cost, and the table behind it."""
    rows = choice.rows()
    series = {entry.label: place for place, entry in enumerate(choice.comparison.entries)}
    name = title(choice.goal.metric, choice.comparison.glossary)
    plots = []
    for what, words in COSTS.items():
        marks = [
            Mark(
                series[row["system"]],
                row[what],
                y=row["value"],
                y_low=row["low"],
                y_high=row["high"],
                says=f"{row['system']}: {name} {row['value']:.4f}, {row[what]:.3g} {words}",
            )
            for row in rows
        ]
        labels = [row["system"] for row in rows]
        edge = [place for place, row in enumerate(rows) if row["system"] in choice.edges[what]]
        heading = f"{name} over {words}"
        plots.append(figure(heading, frontier(marks, labels, f"{words} →", heading, edge)))
    heads = (
        "system",
        "settings",
        name,
        "gives up",
        "training s",
        "peak MB",
        "bundle MB",
        "ms a request",
        "users a second",
        "nothing so cheap is as good",
    )
    body = []
    for row in rows:
        best = ' class="best"' if row["system"] == choice.best else ""
        on = [
            word
            for word, there in (("to train", "cheapest_to_train_so_good"), ("to ask", "cheapest_to_ask_so_good"))
            if row[there]
        ]
        half = "" if row["low"] is None else f" <small>±{number((row['high'] - row['low']) / 2, row['value'])}</small>"
        settings = ", ".join(f"{key}={_short(value)}" for key, value in row["settings"].items()) or "defaults"
        cells = [
            f'<th scope="row">{swatch(series[row["system"]])} {escape(row["system"])}</th>',
            f"<td>{escape(settings)}</td>",
            f'<td{best} data-v="{row["value"]:.10g}">{number(row["value"])}{half}</td>',
            f"<td>{escape(choice.gives_up(row))}</td>",
            *(_cell(row[key]) for key in ("fit_seconds", "peak_mb", "bundle_mb", "ms_per_request")),
            _cell(row["users_per_second"]),
            f"<td>{', '.join(on)}</td>",
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return section(
        "What each choice costs",
        "<p>What a system gives up is its difference from the choice on the test part, with half its interval; "
        "≈ cannot be told from it. The dashed line joins those that nothing as cheap equals.</p>"
        + grid(plots)
        + _table(heads, body, "Costs"),
    )


def _commands(choice: Choice) -> str:
    lines = [choice.serves] if choice.finalists[0].place is not None else []
    body = "".join(f"<p><code>{escape(line)}</code></p>" for line in [*lines, choice.refits])
    return section("How to use it", body)


def _course(choice: Choice) -> str:
    """Every system that was tried or left out, and why it came no further."""
    judged = f"validation {choice.goal.metric}"
    heads = ("system", judged, "rounds", "settings", "seconds", "allowed", "what came of it")
    body = []
    for row in choice.course():
        cells = [
            f'<th scope="row">{escape(row["system"])}</th>',
            _cell(math.nan if row["validation"] is None else row["validation"]),
            _cell(row["rounds"]),
            _cell(row["settings"]),
            _cell(row["seconds"]),
            _cell(row["allowed_seconds"]),
            f"<td>{escape(row['what came of it'])}</td>",
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    out = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in choice.left_out.items())
    return section(
        "How it was found",
        f"<p>{escape(choice.budget_said())} Chosen on {escape(choice.judged_on)}; the test part was read once, after "
        f"the search. {escape(spoken(choice.seconds))} of {escape(spoken(choice.budget))} were used.</p>"
        + _table(heads, body, "Systems that were tried")
        + (f"<h3>Left out</h3><ul>{out}</ul>" if out else ""),
    )


def _table(heads: Sequence[str], body: Sequence[str], says: str) -> str:
    buttons = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in heads)
    return scroll(
        f'<table class="sortable"><thead><tr>{buttons}</tr></thead><tbody>{"".join(body)}</tbody></table>', says
    )


def _cell(value: float) -> str:
    if isinstance(value, float) and math.isnan(value):
        return '<td data-v="">-</td>'
    shown = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"
    return f'<td data-v="{value:.10g}">{shown}</td>'


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
