"""A comparison, or one report, as a single HTML file: no network, no library, readable on a phone and in the dark.

All text that comes from data is escaped, and a content policy in the page forbids everything but its own style
and its one script, which sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from tastemaker.evaluate.compare import Comparison, Entry
from tastemaker.evaluate.plots import Mark, curves, scatter, shares, swatch, whiskers
from tastemaker.evaluate.report import Figure, base, title
from tastemaker.evaluate.terminal import number

POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'"
LEADING = ("ndcg", "recall", "hit_rate", "mrr", "coverage", "self_information", "diversity")
CURVES = ("ndcg", "recall", "precision")
TRADES = (
    ("coverage", "of the catalogue is shown"),
    ("self_information", "rarer items"),
    ("arp", "popularity of what is shown"),
)
CUTS = ("nothing", "up to a quarter", "up to a half", "up to three quarters", "more")


def page(
    comparison: Comparison, *, name: str | None = None, verdict: str | None = None, sections: Sequence[str] = ()
) -> str:
    """The HTML page of a comparison of one or more systems.

    Args:
        name, verdict: its title and its first sentence (HTML), where they are not the comparison's own.
        sections: HTML that comes first, made with `section` and the other pieces of this module.
    """
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'"
    first = comparison.entries[0].reports[0]
    alone = len(comparison.entries) == 1
    what = comparison.entries[0].label if alone else f"{len(comparison.entries)} systems"
    name = name or f"{what} on {first.where}"
    parts = [
        _warnings(comparison),
        *sections,
        _figures_alone(comparison) if alone else _leaderboard(comparison),
        _curves(comparison),
        _trades(comparison),
        _distribution(comparison),
        _slices(comparison),
        _all_figures(comparison),
        _glossary(comparison),
        _provenance(comparison),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)}</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">To the results</a>'
        f"<header><h1>{escape(name)}</h1>{verdict or _verdict(comparison)}{_facts(comparison)}</header>"
        f'<main id="main">{"".join(parts)}</main>'
        f"<script>{script}</script></body></html>\n"
    )


# -- head


def _verdict(comparison: Comparison) -> str:
    best, metric = comparison.entries[0], comparison.primary
    lead = f"<b>{escape(best.label)}</b>"
    figure = f"{title(metric, comparison.glossary)} {_number(best.figures[metric])}"
    if len(comparison.entries) == 1:
        return f'<p class="verdict">{lead}: {escape(figure)}.</p>'
    tied = comparison.tied(metric)
    names = _listed([f"<b>{escape(label)}</b>" for label in tied])
    rest = f"{names} cannot be told from it." if tied else "Every other system is behind it, beyond chance."
    rest = rest if comparison.tests.height else ""
    return f'<p class="verdict">{lead} leads with {escape(figure)}. {rest}</p>'


def _facts(comparison: Comparison) -> str:
    facts = comparison.entries[0].reports[0].protocol["facts"]
    return f'<ul class="facts">{"".join(f"<li>{escape(fact)}</li>" for fact in facts)}</ul>'


def _warnings(comparison: Comparison) -> str:
    if not comparison.warnings:
        return ""
    rows = "".join(f"<li>{escape(warning)}</li>" for warning in comparison.warnings)
    return f'<section class="warnings" aria-labelledby="w"><h2 id="w">Read this first</h2><ul>{rows}</ul></section>'


# -- tables


def _leaderboard(comparison: Comparison) -> str:
    k = comparison.primary.partition("@")[2]
    wanted = [comparison.primary, *(f"{name}@{k}" for name in LEADING), "auc", "r_precision"]
    shown = [name for name in dict.fromkeys(wanted) if name in comparison.metrics]
    seeds = max(len(entry.reports) for entry in comparison.entries)
    more = f" &nbsp; s: standard deviation over {seeds} seeds" if seeds > 1 else ""
    key = f'<p class="key"><b class="best">best</b> ≈ cannot be told from the best{more}</p>'
    plot = whiskers(
        [entry.label for entry in comparison.entries],
        [[_mark(s, entry, comparison.primary)] for s, entry in enumerate(comparison.entries)],
        f"{title(comparison.primary, comparison.glossary)} of each system with its interval",
    )
    differences = _differences(comparison)
    level = comparison.entries[0].reports[0].statistics.level
    return section(
        "Leaderboard",
        f"<p>Means over requests, ± half the {level:.0%} bootstrap interval. Tests: {escape(comparison.how())}.</p>"
        + key
        + _table_of(comparison, shown, "Leaderboard")
        + f'<div class="pair">{figure(title(comparison.primary, comparison.glossary), plot)}{differences}</div>',
    )


def _table_of(comparison: Comparison, names: Sequence[str], says: str) -> str:
    """Systems down, metrics across, sortable."""
    tuned = len({entry.tuning for entry in comparison.entries}) > 1
    heads = ["system", *(title(name, comparison.glossary) for name in names), *(["tuning"] if tuned else [])]
    marked = {name: (comparison.leader(name), comparison.tied(name)) for name in names}
    rows = []
    for s, entry in enumerate(comparison.entries):
        cells = [f'<th scope="row">{swatch(s)} {escape(entry.label)}</th>']
        for name in names:
            leader, tied = marked[name]
            figure = entry.figures[name]
            css = "best" if leader is entry else "tied" if entry.label in tied else ""
            spread = entry.seed_spread(name)
            more = f" <small>s {number(spread, figure.mean)}</small>" if spread is not None else ""
            half = f" <small>±{number(figure.half, figure.mean)}</small>" if figure.half is not None else ""
            value = "" if math.isnan(figure.mean) else f"{figure.mean:.10g}"
            mark = "≈ " if css == "tied" else ""
            cells.append(f'<td class="{css}" data-v="{value}">{mark}{number(figure.mean)}{half}{more}</td>')
        cells += [f"<td>{escape(entry.tuning)}</td>"] if tuned else []
        rows.append(f"<tr>{''.join(cells)}</tr>")
    buttons = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in heads)
    return scroll(
        f'<table class="sortable"><thead><tr>{buttons}</tr></thead><tbody>{"".join(rows)}</tbody></table>', says
    )


def _figures_alone(comparison: Comparison) -> str:
    """One system: metrics down, cut-offs across."""
    entry = comparison.entries[0]
    ks = sorted({int(name.partition("@")[2]) for name in comparison.metrics if "@" in name})
    rows = []
    for name in dict.fromkeys(base(one) for one in comparison.metrics):
        known = comparison.glossary.get(name)
        cells = [f'<th scope="row">{escape(known.title if known else name)}</th>']
        if name in entry.figures:
            cells.append(f'<td colspan="{max(1, len(ks))}">{_number(entry.figures[name])}</td>')
        else:
            found = (entry.figures.get(f"{name}@{k}") for k in ks)
            cells += [f"<td>{'' if figure is None else _number(figure)}</td>" for figure in found]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = "".join(f'<th scope="col">@{k}</th>' for k in ks)
    table = f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return section("Figures", scroll(table, "Figures"))


def _differences(comparison: Comparison) -> str:
    """What separates every other system from the best."""
    against = comparison.against(comparison.primary, comparison.best)
    rows = []
    for label, row in against.items():
        tied = "" if row["p"] < comparison.alpha else "≈ "
        between = f"{row['low']:+.4f} to {row['high']:+.4f}"
        cells = f"<td>{row['difference']:+.4f}</td><td>{between}</td><td>{tied}{_p(row['p'])}</td>"
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("system", "difference", "interval", "adjusted p"))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    name = f"{title(comparison.primary, comparison.glossary)} against {comparison.best}"
    return f"<div><h3>{escape(name)}</h3>{scroll(table, name)}</div>"


def _all_figures(comparison: Comparison) -> str:
    if len(comparison.entries) == 1:
        return ""
    groups: dict[str, list[str]] = {}
    for name in comparison.metrics:
        groups.setdefault(name.partition("@")[2], []).append(name)
    parts = []
    for k, names in sorted(groups.items(), key=lambda one: int(one[0] or 0)):
        head = f"K = {k}" if k else "Without cut-off"
        parts.append(f"<details><summary>{head}</summary>{_table_of(comparison, names, head)}</details>")
    return section("All figures", "".join(parts))


# -- plots


def _curves(comparison: Comparison) -> str:
    plots = []
    for name in CURVES:
        found = sorted((int(one.partition("@")[2]), one) for one in comparison.metrics if one.startswith(f"{name}@"))
        if len(found) < 2:
            continue
        lines = [
            [_mark(s, entry, one, x=float(place), upright=True) for place, (_, one) in enumerate(found)]
            for s, entry in enumerate(comparison.entries)
        ]
        says = f"{comparison.glossary[name].title} at cut-offs {', '.join(str(k) for k, _ in found)}, a line a system"
        plots.append(figure(comparison.glossary[name].title, curves([f"@{k}" for k, _ in found], lines, says)))
    legend = _legend(comparison) if len(comparison.entries) > 1 else ""
    return section("By cut-off", legend + grid(plots)) if plots else ""


def _trades(comparison: Comparison) -> str:
    if len(comparison.entries) < 2:
        return ""
    k = comparison.primary.partition("@")[2]
    plots = []
    for name, means in TRADES:
        across = f"{name}@{k}"
        if across not in comparison.metrics:
            continue
        marks = []
        for s, entry in enumerate(comparison.entries):
            x, y = entry.figures[across], entry.figures[comparison.primary]
            says = f"{entry.label}: {title(across, comparison.glossary)} {number(x.mean)}, {number(y.mean)}"
            marks.append(Mark(s, x.mean, x.low, x.high, y.mean, y.low, y.high, says))
        heading = f"{title(comparison.primary, comparison.glossary)} against {title(across, comparison.glossary)}"
        labels = [entry.label for entry in comparison.entries]
        plots.append(
            figure(heading, scatter(marks, labels, f"{title(across, comparison.glossary)} ({means}) →", heading))
        )
    return section("What accuracy costs", grid(plots)) if plots else ""


def _distribution(comparison: Comparison) -> str:
    metric = comparison.primary
    entries = [entry for entry in comparison.entries if metric in entry.reports[0].rows]
    if not entries:
        return ""
    rows = []
    for entry in entries:
        values = entry.rows(metric)
        values = values[~np.isnan(values)]
        top = max(1.0, float(values.max(initial=0)))
        edges = np.array([0.25, 0.5, 0.75]) * top
        cuts = np.where(values <= 0, 0, 1 + np.searchsorted(edges, values, side="left"))
        rows.append((np.bincount(cuts, minlength=len(CUTS)) / max(1, len(values))).tolist())
    name = title(metric, comparison.glossary)
    keys = "".join(f'<li><span class="box q{cut}b"></span>{text}</li>' for cut, text in enumerate(CUTS))
    plot = shares([entry.label for entry in entries], rows, CUTS, f"Shares of requests by their {name}")
    return section(
        "Who is served well",
        f"<p>Share of requests by how much of the best possible {escape(name)} they got.</p>"
        f'<ul class="legend">{keys}</ul>{figure(name, plot)}',
    )


def _slices(comparison: Comparison) -> str:
    metric = comparison.primary
    groups: dict[str, dict[str, dict[int, Mark]]] = {}
    for s, entry in enumerate(comparison.entries):
        for row in entry.reports[0].slices.to_dicts():
            if row["metric"] == metric and row["mean"] is not None:
                says = f"{entry.label}, {row['slice']} {row['value']}: {number(row['mean'])} over {row['n']:,} requests"
                mark = Mark(s, row["mean"], row["low"], row["high"], says=says)
                groups.setdefault(row["slice"], {}).setdefault(row["value"], {})[s] = mark
    plots = []
    for name, values in groups.items():
        heading = _slice_title(name)
        rows = [list(marks.values()) for marks in values.values()]
        plots.append(figure(heading, whiskers(list(values), rows, f"{title(metric, comparison.glossary)} {heading}")))
    if not plots:
        return ""
    says = f"<p>{escape(title(metric, comparison.glossary))} where requests, or targets, are looked at in groups"
    seeds = "; of the first seed" if any(len(entry.reports) > 1 for entry in comparison.entries) else ""
    legend = _legend(comparison) if len(comparison.entries) > 1 else ""
    return section("Slices", f"{says}{seeds}.</p>{legend}{grid(plots)}")


def _slice_title(name: str) -> str:
    known = {"history": "by events in the history", "popularity": "by training popularity of the target"}
    return known.get(name, f"by {name}")


def _mark(s: int, entry: Entry, metric: str, *, x: float = math.nan, upright: bool = False) -> Mark:
    figure = entry.figures[metric]
    says = f"{entry.label}: {_number(figure)}"
    if upright:
        return Mark(s, x, y=figure.mean, y_low=figure.low, y_high=figure.high, says=says)
    return Mark(s, figure.mean, figure.low, figure.high, says=says)


# -- words


def _glossary(comparison: Comparison) -> str:
    direction = {"high": "higher is better", "low": "lower is better", None: "neither direction is better"}
    rows = "".join(
        f"<dt>{escape(metric.title)} <code>{escape(name)}</code></dt><dd>{escape(metric.means)}. "
        f"<i>{direction[metric.better]}</i></dd>"
        for name, metric in comparison.glossary.items()
    )
    policies = "".join(
        f"<li>{escape(str(one))}</li>" for one in comparison.entries[0].reports[0].protocol.get("policies", ())
    )
    return section(
        "What the words mean", f"<details><summary>Metrics</summary><dl>{rows}</dl></details><ul>{policies}</ul>"
    )


def _provenance(comparison: Comparison) -> str:
    first = comparison.entries[0].reports[0]
    parts = [
        _tree("Split", first.split),
        _tree("Protocol", {k: v for k, v in first.protocol.items() if k not in ("policies", "facts")}),
    ]
    for entry in comparison.entries:
        about = {**entry.reports[0].system, "tuning": entry.tuning}
        about |= {"seeds": entry.seeds} if len(entry.reports) > 1 else {}
        parts.append(_tree(entry.label, about | {"cost": entry.reports[0].cost, "created": entry.reports[0].created}))
    parts.append(_tree("Machine", first.machine))
    return section("Where this comes from", "".join(parts))


def _tree(name: str, content: Any) -> str:
    return f"<details><summary>{escape(name)}</summary>{scroll(_nested(content), name)}</details>"


def _nested(content: Any) -> str:
    if isinstance(content, dict):
        rows = "".join(
            f'<tr><th scope="row">{escape(str(key))}</th><td>{_nested(value)}</td></tr>'
            for key, value in content.items()
        )
        return f'<table class="plain">{rows}</table>' if rows else "none"
    if isinstance(content, list | tuple):
        return escape(", ".join(str(one) for one in content)) or "none"
    if isinstance(content, float):
        return f"{content:,.6g}"
    return "none" if content is None else escape(f"{content:,}" if type(content) is int else str(content))


def _legend(comparison: Comparison) -> str:
    rows = (f"<li>{swatch(s)} {escape(entry.label)}</li>" for s, entry in enumerate(comparison.entries))
    return f'<ul class="legend">{"".join(rows)}</ul>'


def section(name: str, inner: str) -> str:
    return f"<section><h2>{escape(name)}</h2>{inner}</section>"


def figure(name: str, plot: str) -> str:
    return f"<figure><figcaption>{escape(name)}</figcaption>{plot}</figure>"


def grid(plots: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(plots)}</div>'


def scroll(inner: str, says: str) -> str:
    """A box that scrolls sideways, by keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(says)}">{inner}</div>'


def _number(figure: Figure) -> str:
    half = "" if figure.half is None else f" ± {number(figure.half, figure.mean)}"
    return number(figure.mean) + half


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
