"""Pages and tables of the documentation that are written by a command, never by hand."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tastemaker.contracts import FAMILIES, SystemInfo, find, names
from tastemaker.data.splits import KINDS
from tastemaker.evaluate import METRICS
from tastemaker.lab.amounts import spoken
from tastemaker.lab.anatomy import anatomy_table
from tastemaker.types import settings

if TYPE_CHECKING:
    from tastemaker.lab.choice import Choice

LEADERBOARD = "leaderboard.md"
BEGIN, END = "<!-- generated: {name} -->", "<!-- end: {name} -->"


def systems_table(infos: Sequence[SystemInfo]) -> str:
    """The README's table of systems."""
    lines = ["| system | family | what it is | paper | can |", "|---|---|---|---|---|"]
    order = {family: place for place, family in enumerate(FAMILIES)}
    for info in sorted(infos, key=lambda i: (order[i.family], i.name)):
        link = f"[`{info.name}`](docs/systems/{info.name}.md)"
        lines.append(f"| {link} | {info.family} | {info.title} | {info.paper} | {', '.join(info.capabilities)} |")
    return "\n".join(lines)


def results_table(result: dict[str, Any]) -> str:
    """One recipe's results beside the published figures."""
    data, parts = result["data"], result["split"]
    figures = sorted({name for s in result["systems"].values() for name in s["metrics"]}, key=_metric_order)
    lines = [
        f"## {result['title']}",
        "",
        f"{data['users']:,} users, {data['items']:,} items, {data['events']:,} events; "
        f"{parts['train']:,} train, {parts['valid']:,} valid, {parts['test']:,} test. "
        f"Protocol: {result['protocol']}. "
        f"Command: `tastemaker recipe run {result['recipe']}`.",
        "",
    ]
    if result["source"]:
        lines += [f"Published figures: {result['source']}", ""]
    if result["note"]:
        lines += [result["note"], ""]
    first = figures[0]
    head = ["system", *figures, f"95% of {first}", "seeds", "fit s", "evaluate s", "peak MB"]
    lines += ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for key, system in result["systems"].items():
        cells = [f"`{key}`"]
        for name in figures:
            ours, theirs = system["metrics"].get(name), system["published"].get(name)
            text = "" if ours is None else f"{ours:.4f}"
            cells.append(text + (f" ({theirs:.4f})" if theirs is not None else ""))
        runs = system["runs"]
        fits, looks = (fmean(run[f"{what}_seconds"] for run in runs) for what in ("fit", "evaluate"))
        peak = max(run[f"{what}_peak_mb"] for run in runs for what in ("fit", "evaluate"))
        star = "\\*" if accelerator_of(system) else ""
        cells += [_interval(runs, first), _seeds(runs, first), f"{fits:.1f}{star}", f"{looks:.1f}", f"{peak:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- `{key}`: {s['note']}" for key, s in result["systems"].items() if s["note"]]
    warnings = [f"- {warning}" for warning in parts["warnings"]]
    used = sorted({name for s in result["systems"].values() if (name := accelerator_of(s))})
    told = "Means over seeds; 95%: a bootstrap over cases. In brackets: published."
    lines += ["", told + (f" \\*: trained on one {' or '.join(used)}." if used else "")]
    lines += ["", *notes] if notes else []
    lines += ["", "What this split lets a system see:", "", *warnings] if warnings else []
    return "\n".join(lines) + "\n"


def _interval(runs: Sequence[Mapping[str, Any]], figure: str) -> str:
    """The 95% interval of a figure over cases, its ends averaged over seeds."""
    found = [run["intervals"][figure] for run in runs if figure in run["intervals"]]
    return " to ".join(f"{fmean(ends) + 0.0:.4f}" for ends in zip(*found, strict=True))  # + 0.0: no -0.0000


def _seeds(runs: Sequence[Mapping[str, Any]], figure: str) -> str:
    """How many seeds there are, and the least and greatest of their figures."""
    values = [run["metrics"][figure] for run in runs if figure in run["metrics"]]
    return f"{len(runs)}" + (f": {min(values):.4f} to {max(values):.4f}" if len(values) > 1 else "")


def accelerator_of(system: dict[str, Any]) -> str | None:
    """The accelerator an entry was trained on, or None."""
    trained = any(told["device"] != "cpu" for run in system["runs"] for told in run.get("training", []))
    return system["machine"].get("accelerator", "accelerator") if trained else None


def system_page(info: SystemInfo, results: Sequence[dict[str, Any]]) -> str:
    """A system's page: its docstring, its settings, and what recipes gave."""
    module = inspect.getmodule(info.cls)
    about = inspect.getdoc(module) or inspect.getdoc(info.cls) or ""
    lines = [
        f"# {info.name}",
        "",
        f"{info.title}. Family: {info.family}. Paper: {info.paper}.",
        "",
        about,
        "",
        f"Learns from: {', '.join(sorted(info.learns_from)) or 'nothing'}. "
        f"Needs, to answer: {', '.join(sorted(info.needs)) or 'nothing'}. Can: {', '.join(info.capabilities)}.",
        "",
    ]
    known = settings(info.config)
    if known:
        lines += ["| setting | default | what it does |", "|---|---|---|"]
        lines += [f"| `{name}` | `{default}` | {about.doc} |" for name, (default, about) in known.items()]
        lines.append("")
    lines += ["```sh", f"tastemaker fit {info.name} DATA --out bundles/{info.name}", "```", ""]
    rows = [(r, key, s) for r in results for key, s in r["systems"].items() if s["system"] == info.name]
    if rows:
        lines += ["## Results", "", "| recipe | entry | figures (published) |", "|---|---|---|"]
        for result, key, system in rows:
            shown = []
            for name, value in sorted(system["metrics"].items(), key=lambda pair: _metric_order(pair[0])):
                theirs = system["published"].get(name)
                shown.append(f"{name} {value:.4f}" + (f" ({theirs:.4f})" if theirs is not None else ""))
            lines.append(f"| {result['recipe']} | `{key}` | {', '.join(shown)} |")
        lines.append("")
    return "\n".join(lines)


def stored_results(folder: Path) -> list[dict[str, Any]]:
    """All results, by recipe."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def choice_table(choice: Choice) -> str:
    """What a choice found, as a Markdown table: figures, what each system gives up, and its costs."""
    metric = choice.goal.metric
    lines = [choice.verdict(), ""]
    lines += [f"| system | {metric} | gives up | fit s | bundle MB | ms a request | users a second |"]
    lines += ["|---" + "|---:" * 6 + "|"]
    for row in choice.rows():
        half = "" if row["low"] is None else f" ± {(row['high'] - row['low']) / 2:.4f}"
        name = f"**`{row['system']}`**" if row["system"] == choice.best else f"`{row['system']}`"
        costs = [row["fit_seconds"], row["bundle_mb"], row["ms_per_request"], row["users_per_second"]]
        shown = [f"{cost:,.0f}" if cost >= 100 else f"{cost:.2g}" for cost in costs]
        lines.append(f"| {name} | {row['value']:.4f}{half} | {choice.gives_up(row)} | " + " | ".join(shown) + " |")
    said = "≈: cannot be told from the choice (paired permutation test, Holm). "
    tried = f"{len(choice.contenders)} systems raced, for {spoken(choice.budget)} in all. {choice.budget_said()}"
    return "\n".join([*lines, "", said + tried])


def splits_table() -> str:
    """Every kind of split and what it does."""
    lines = ["| split | what it does |", "|---|---|"]
    for name, make in KINDS.items():
        about = " ".join((inspect.getdoc(make) or "").split("\n\n")[0].split())
        lines.append(f"| `{name}` | {about} |")
    return "\n".join(lines)


def glossary_table() -> str:
    """Every metric: its name, and what exactly it divides by what."""
    lines = ["| metric | name | what it is |", "|---|---|---|"]
    lines += [f"| {m.title} | `{m.name}{'@K' if m.at_k else ''}` | {_cell(m.means)} |" for m in METRICS.values()]
    return "\n".join(lines)


def benchmarks_text(folder: Path) -> str:
    """What every benchmark found: the command, the machine, the tables it laid out, and where all its figures are."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        machine = found["machine"]
        beside = f", one {machine['accelerator']}" if "accelerator" in machine else ""
        parts += [
            f"## {found['benchmark']}",
            "",
            f"`{found['command']}`, {found['date']}: {machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB{beside}, load {machine['load_1min']} when it was written. "
            f"[All figures](../benchmarks/results/{path.name}).",
            "",
        ]
        for table in found.get("tables", []):
            parts += [f"**{_cell(table['title'])}**", "", *_rows(table["columns"], table["rows"]), ""]
            parts += [table["note"], ""] if table.get("note") else []
    return "\n".join(parts).rstrip()


def _rows(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """A Markdown table; columns of numbers stand to the right."""
    numbers = [all(isinstance(row[place], int | float | None) for row in rows) for place in range(len(columns))]
    head = [f"| {' | '.join(columns)} |", "|" + "".join("---:|" if number else "---|" for number in numbers)]
    return head + [f"| {' | '.join(map(_figure, row))} |" for row in rows]


def _figure(value: Any) -> str:
    """A cell; of a number no more digits than a reader can use."""
    if isinstance(value, int | float) and abs(value) >= 1000:
        return f"{value:,.0f}"
    return _cell(value)


def pages(root: Path) -> dict[Path, str]:
    """Every generated page below `root`, and every page with a generated block, as it should be."""
    results = stored_results(root / "results")
    infos = [find(name) for name in names()]
    found = {root / "docs" / "systems" / f"{info.name}.md": system_page(info, results) for info in infos}
    tables = "\n".join(results_table(result) for result in results)
    head = (
        "# Results\n\nWritten by `tastemaker recipe table --write` from `results/`. Seconds are those of the machine "
        "that an entry ran on, busy or not, which its file names; [benchmarks.md](benchmarks.md) compares speeds.\n\n"
    )
    found[root / "docs" / "results.md"] = head + tables
    blocks = {
        "README.md": ("systems", systems_table(infos)),
        "docs/splits.md": ("splits", splits_table()),
        "docs/evaluation.md": ("glossary", glossary_table()),
        "docs/architecture.md": ("anatomy", anatomy_table(infos)),
        "docs/benchmarks.md": ("benchmarks", benchmarks_text(root / "benchmarks" / "results")),
    }
    if (demo := root / "demo" / LEADERBOARD).is_file():
        readme = (root / "README.md").read_text(encoding="utf-8")
        found[root / "README.md"] = filled(readme, "demo", demo.read_text(encoding="utf-8"))
    for page, (name, block) in blocks.items():
        text = found.get(root / page) or (root / page).read_text(encoding="utf-8")
        found[root / page] = filled(text, name, block)
    return found


def filled(text: str, name: str, block: str) -> str:
    """`text` with the block between the markers of `name` replaced."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, found, rest = text.partition(begin)
    _, also, after = rest.partition(end)
    return f"{before}{begin}\n{block}\n{end}{after}" if found and also else text


def _metric_order(name: str) -> tuple[str, int, str]:
    """Masked figures first, then by cut-off: "ndcg@10", "ndcg@10 unmasked"."""
    metric, _, rest = name.partition("@")
    k, _, mark = rest.partition(" ")
    return mark, int(k or 0), metric


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
