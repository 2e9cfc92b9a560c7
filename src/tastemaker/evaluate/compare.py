"""Several systems on the same cases: who leads, by how much, and what cannot be told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.report import Figure, Report, base, plain
from tastemaker.evaluate.statistics import (
    benjamini_hochberg,
    bootstrap,
    holm,
    paired_permutation,
    paired_t,
    t_interval,
)
from tastemaker.types import NotFound, UsageError, nearest, replace_file, replace_folder

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

FORMAT = 1
PREFERRED = ("ndcg", "recall", "hit_rate", "map", "mrr", "precision")
SAME = {
    "cases": "cases",
    "protocols": "kind",
    "candidates": "candidates",
    "treatment of seen items": "exclude_seen",
}
"""What reports must share to be compared: in words, and as the protocol records it."""

Correction = Literal["holm", "bh", "none"]
Test = Literal["permutation", "t"]


@dataclass(frozen=True, eq=False)
class Entry:
    """One system with one setting: a report a seed."""

    label: str
    reports: tuple[Report, ...]

    @property
    def seeds(self) -> list[Any]:
        return [report.system.get("seed") for report in self.reports]

    @property
    def metrics(self) -> list[str]:
        return [name for name in self.reports[0].metrics if all(name in r.metrics for r in self.reports)]

    @property
    def has_rows(self) -> bool:
        return all(report.rows for report in self.reports)

    def rows(self, metric: str) -> NDArray[Any]:
        """Value of every request, averaged over seeds [B]."""
        each = [report.rows[metric] for report in self.reports]
        return each[0] if len(each) == 1 else np.stack(each).mean(axis=0, dtype=np.float64)

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Mean over seeds, and the interval over requests of the values averaged over seeds."""
        first = self.reports[0]
        if len(self.reports) == 1:
            return first.figures
        names = [name for name in self.metrics if name in first.rows]
        found = {}
        how = first.statistics
        table = np.stack([self.rows(name) for name in names], axis=1) if names else np.empty((0, 0))
        low, high = bootstrap(table, level=how.level, resamples=how.resamples, seed=how.seed)
        for j, name in enumerate(names):
            n = int((~np.isnan(table[:, j])).sum())
            found[name] = Figure(float(np.nanmean(table[:, j])) if n else math.nan, float(low[j]), float(high[j]), n)
        for name in self.metrics:
            if name not in found:
                found[name] = Figure(float(np.mean([report.value(name) for report in self.reports])))
        return {name: found[name] for name in self.metrics}

    def seed_spread(self, metric: str) -> float | None:
        """Standard deviation of the metric over seeds; None with one seed."""
        if len(self.reports) < 2:
            return None
        return float(np.std([report.value(metric) for report in self.reports], ddof=1))

    @property
    def tuning(self) -> str:
        """The search that found the settings, in words."""
        stated = self.reports[0].system.get("tuning")
        if not stated:
            return "not stated"
        return ", ".join(
            f"{value:,} {key}" if isinstance(value, int) else f"{key} {value}" for key, value in stated.items()
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found; entries are sorted by the primary metric, best first.

    tests: metric, left, right, difference (left - right), low, high, p_permutation, p_t, p_holm, p_bh
    """

    entries: tuple[Entry, ...]
    primary: str
    tests: pl.DataFrame
    test: Test
    correction: Correction
    alpha: float
    permutations: int
    warnings: tuple[str, ...]

    @property
    def glossary(self) -> Mapping[str, Metric]:
        return self.entries[0].reports[0].glossary

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics that all entries have."""
        return [name for name in self.entries[0].metrics if all(name in entry.metrics for entry in self.entries)]

    @property
    def best(self) -> str:
        """The label of the entry that leads on the primary metric."""
        return self.entries[0].label

    def leader(self, metric: str) -> Entry | None:
        """The best entry on a metric; None where neither direction is better or nothing is known."""
        known = self.glossary.get(base(metric))
        if known is None or known.better is None:
            return None
        there = [entry for entry in self.entries if not math.isnan(entry.figures[metric].mean)]
        sign = 1 if known.better == "high" else -1
        return max(there, key=lambda entry: sign * entry.figures[metric].mean, default=None)

    def tied(self, metric: str) -> list[str]:
        """Labels that the tests cannot tell from the best on a metric; empty where it was not tested."""
        leader = self.leader(metric)
        if leader is None:
            return []
        against = self.against(metric, leader.label)
        return [label for label, row in against.items() if not row["p"] < self.alpha]

    def against(self, metric: str, label: str) -> dict[str, dict[str, float]]:
        """Every other entry tested against `label`: difference, its interval, and the adjusted p."""
        found: dict[str, dict[str, float]] = {}
        for row in self._rows_of.get(metric, ()):
            if label not in (row["left"], row["right"]):
                continue
            other, sign = (row["right"], -1) if row["left"] == label else (row["left"], 1)
            ends = sorted((sign * row["low"], sign * row["high"]))
            found[other] = {"difference": sign * row["difference"], "low": ends[0], "high": ends[1], "p": row["p"]}
        return found

    @cached_property
    def _rows_of(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.tests.to_dicts():
            found.setdefault(row["metric"], []).append(row)
        return found

    def summary(self) -> pl.DataFrame:
        """One row a system and metric: mean, interval, spread over seeds, best, tied."""
        rows = []
        for metric in self.metrics:
            leader, tied = self.leader(metric), self.tied(metric)
            for entry in self.entries:
                figure = entry.figures[metric]
                rows.append(
                    {
                        "system": entry.label,
                        "metric": metric,
                        **asdict(figure),
                        "seeds": len(entry.reports),
                        "seed_spread": entry.seed_spread(metric),
                        "best": leader is entry,
                        "tied": entry.label in tied,
                    }
                )
        return pl.DataFrame(rows, infer_schema_length=None)

    def how(self) -> str:
        """How the tests were made, in words."""
        if self.tests.height == 0:
            return "no tests: one system, or no values by request"
        n_pairs = len(self.entries) * (len(self.entries) - 1) // 2
        kind = (
            f"paired permutation test, {self.permutations:,} permutations"
            if self.test == "permutation"
            else "paired t test"
        )
        names = {"holm": "Holm", "bh": "Benjamini-Hochberg", "none": "no"}
        over = f"{names[self.correction]} correction over {n_pairs} pair" + ("s" if n_pairs > 1 else "")
        return f"{kind}, {over}, alpha {self.alpha:g}"

    def __repr__(self) -> str:
        return f"Comparison({len(self.entries)} systems, best on {self.primary}: {self.best})"

    def table(self, metrics: Sequence[str] | None = None) -> ConsoleRenderable:
        """What the terminal shows; as many of the metrics as fit its width."""
        from tastemaker.evaluate.terminal import ComparisonTable

        for name in metrics or ():
            if name not in self.metrics:
                raise NotFound(f"the comparison has no metric {name!r}", hint=nearest(name, self.metrics))
        return ComparisonTable(self, metrics)

    def __rich__(self) -> ConsoleRenderable:
        return self.table()

    def to_json(self) -> dict[str, Any]:
        """Figures, tests and provenance as plain JSON values."""
        import tastemaker

        first = self.entries[0].reports[0]
        return {
            "format": FORMAT,
            "tastemaker": tastemaker.__version__,
            "primary": self.primary,
            "best": self.best,
            "tied_with_best": self.tied(self.primary),
            "tests_made": self.how(),
            "systems": [
                {
                    "label": entry.label,
                    "system": plain(entry.reports[0].system),
                    "seeds": plain(entry.seeds),
                    "tuning": entry.tuning,
                    "cost": [plain(report.cost) for report in entry.reports],
                }
                for entry in self.entries
            ],
            "figures": plain(self.summary().to_dicts()),
            "tests": plain(self.tests.to_dicts()),
            "split": plain(first.split),
            "protocol": plain(first.protocol),
            "glossary": {name: asdict(metric) for name, metric in self.glossary.items()},
            "machine": plain(first.machine),
            "warnings": list(self.warnings),
        }

    def save(self, path: str | Path) -> Path:
        """Write a .html or .json file, or a folder with both and every report; all or nothing."""
        path = Path(path)
        if path.suffix == "":
            with replace_folder(path, marker="comparison.json") as fresh:
                self._write(fresh / "comparison.json")
                self._write(fresh / "comparison.html")
                (fresh / "reports").mkdir()
                reports = [report for entry in self.entries for report in entry.reports]
                for number, report in enumerate(reports):
                    report.save(fresh / "reports" / f"{number:03d}{'.parquet' if report.rows else '.json'}")
            return path
        if path.suffix not in (".html", ".json"):
            raise UsageError(f"a comparison is saved as .html, .json or a folder, not as {path.suffix!r}")
        with replace_file(path) as fresh:
            self._write(fresh, path.suffix)
        return path

    def _write(self, path: Path, suffix: str | None = None) -> None:
        if (suffix or path.suffix) == ".json":
            text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        else:
            from tastemaker.evaluate.page import page

            text = page(self)
        path.write_text(text, encoding="utf-8")


def compare(
    reports: Iterable[Report],
    *,
    primary: str | None = None,
    tested: Sequence[str] | None = None,
    test: Test = "permutation",
    correction: Correction = "holm",
    alpha: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare reports on the same cases. Reports that differ in their seed alone become one entry.

    Args:
        primary: the metric that ranks the systems; default: NDCG at the smallest K that all have.
        tested: metrics to test, all pairs of systems each; default: all of accuracy.
        test: which p-value is adjusted and decides; both are given.
        correction: "holm" (any false alarm), "bh" (share of false alarms) or "none", over the pairs of a metric.

    Raises:
        UsageError: the reports are of different cases, candidates or exclusion, or lack values by request.
    """
    entries = _entries(list(reports))
    if not entries:
        raise UsageError("there is nothing to compare: no reports were given")
    _check_same(entries)
    shared = [name for name in entries[0].metrics if all(name in entry.metrics for entry in entries)]
    glossary = entries[0].reports[0].glossary
    for name in [*(tested or ()), *([primary] if primary else [])]:
        if name not in shared:
            raise NotFound(f"not all reports have the metric {name!r}", hint=nearest(name, shared))
    primary = primary or _primary(shared, glossary)
    high = glossary[base(primary)].better != "low"

    def place(entry: Entry) -> tuple[bool, float]:
        mean = entry.figures[primary].mean
        return math.isnan(mean), -mean if high else mean

    entries = sorted(entries, key=place)
    can_test = len(entries) > 1 and all(entry.has_rows for entry in entries)
    if len(entries) > 1 and not can_test:
        raise UsageError(
            "a comparison needs the values by request, which a report read from JSON lacks",
            hint="save reports as .parquet and load those",
        )
    names = tested if tested is not None else [n for n in shared if glossary[base(n)].accuracy or n == primary]
    names = [name for name in names if name in entries[0].reports[0].rows]
    tests = _tests(entries, names, test, correction, permutations, seed) if can_test and names else _no_tests()
    return Comparison(tuple(entries), primary, tests, test, correction, alpha, permutations, tuple(_warnings(entries)))


def _entries(reports: list[Report]) -> list[Entry]:
    """Reports grouped by what was evaluated; labels that clash are told apart by their settings."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        settings = json.dumps([report.system.get("name"), report.system.get("config")], sort_keys=True, default=str)
        groups.setdefault((report.label, settings), []).append(report)
    for (label, _), members in groups.items():
        seeds = [report.system.get("seed") for report in members]
        if len(set(seeds)) < len(seeds):
            raise UsageError(
                f"two reports of {label!r} have the same settings and seed",
                hint="give each a name: evaluate(..., name=)",
            )
    entries: list[Entry] = []
    for (label, _), members in groups.items():
        rivals = [other[0].system.get("config") or {} for key, other in groups.items() if key[0] == label]
        if len(rivals) > 1:
            own = members[0].system.get("config") or {}
            differing = [key for key in own if any(rival.get(key) != own[key] for rival in rivals)]
            label = f"{label} ({', '.join(f'{key}={own[key]}' for key in differing) or len(entries) + 1})"
        entries.append(Entry(label, tuple(members)))
    return entries


def _check_same(entries: Sequence[Entry]) -> None:
    first = entries[0].reports[0]
    for entry in entries:
        for report in entry.reports:
            for what, key in SAME.items():
                ours, theirs = (
                    one.split["cases"] if key == "cases" else one.protocol.get(key) for one in (first, report)
                )
                if ours != theirs:
                    raise UsageError(
                        f"{entries[0].label} and {entry.label} were judged on different {what}: not comparable",
                        hint="evaluate both on the same part of the same split, with the same options",
                    )


def _primary(shared: Sequence[str], glossary: Mapping[str, Metric]) -> str:
    for wanted in PREFERRED:
        found = [name for name in shared if base(name) == wanted]
        if found:
            return found[0]
    directed = [name for name in shared if glossary[base(name)].better is not None]
    if not directed:
        raise UsageError("the reports share no metric by which systems could be ranked")
    return directed[0]


def _tests(
    entries: Sequence[Entry], names: Sequence[str], test: Test, correction: Correction, permutations: int, seed: int
) -> pl.DataFrame:
    """All pairs on all metrics. Requests for which a metric is undefined for any system are left out of it."""
    n = len(entries)
    tables = []
    for name in names:
        table = np.stack([entry.rows(name) for entry in entries], axis=1).astype(np.float64)
        table[np.isnan(table).any(axis=1)] = np.nan
        tables.append(table)
    pairs = list(combinations(range(n), 2))
    shifted = [(m * n + i, m * n + j) for m in range(len(names)) for i, j in pairs]
    whole = np.nan_to_num(np.concatenate(tables, axis=1))  # a difference of 0 adds nothing to a sum of flips
    by_flips = paired_permutation(whole, shifted, permutations=permutations, seed=seed).reshape(len(names), -1)
    level = entries[0].reports[0].statistics.level
    by_t = np.empty_like(by_flips)
    rows: list[dict[str, Any]] = []
    for m, name in enumerate(names):
        for q, (i, j) in enumerate(pairs):
            difference = tables[m][:, i] - tables[m][:, j]
            by_t[m, q] = paired_t(difference)[0]
            mean, reach = t_interval(difference, level)
            rows.append(
                {
                    "metric": name,
                    "left": entries[i].label,
                    "right": entries[j].label,
                    "difference": mean,
                    "low": mean - reach,
                    "high": mean + reach,
                }
            )
    decides = by_flips if test == "permutation" else by_t
    adjusted = {"holm": holm(decides), "bh": benjamini_hochberg(decides), "none": decides}
    columns = {"p_permutation": by_flips, "p_t": by_t, "p_holm": adjusted["holm"], "p_bh": adjusted["bh"]}
    columns["p"] = adjusted[correction]
    return pl.DataFrame(rows).hstack([pl.Series(name, values.ravel()) for name, values in columns.items()])


def _no_tests() -> pl.DataFrame:
    numbers = ("difference", "low", "high", "p_permutation", "p_t", "p_holm", "p_bh", "p")
    return pl.DataFrame(
        schema={**dict.fromkeys(("metric", "left", "right"), pl.String), **dict.fromkeys(numbers, pl.Float64)}
    )


def _warnings(entries: Sequence[Entry]) -> list[str]:
    """Warnings of all reports; one that only some systems have says which."""
    owners: dict[str, list[str]] = {}
    for entry in entries:
        for report in entry.reports:
            for warning in report.warnings:
                known = owners.setdefault(warning, [])
                if entry.label not in known:
                    known.append(entry.label)
    found = [w if len(who) == len(entries) else f"{', '.join(who)}: {w}" for w, who in owners.items()]
    budgets: dict[str, list[str]] = {}
    for entry in entries:
        budgets.setdefault(entry.tuning, []).append(entry.label)
    if len(budgets) > 1:
        stated = "; ".join(f"{budget}: {', '.join(labels)}" for budget, labels in budgets.items())
        found.append(f"The systems were not tuned alike, which alone can order them ({stated}).")
    seeds = {len(entry.reports) for entry in entries}
    if len(seeds) > 1:
        found.append("The systems were run with different numbers of seeds.")
    return found
