"""What an audit found: a record a run, means over seeds, and paired differences with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tastemaker.audit.arms import NONE
from tastemaker.evaluate.report import plain
from tastemaker.evaluate.statistics import holm, paired_permutation, paired_t, t_interval
from tastemaker.types import NotFound, nearest, replace_file

if TYPE_CHECKING:
    from rich.console import RenderableType

FORMAT = 1
TITLES = {
    "target_hit_rate": "target hit rate",
    "target_ndcg": "target NDCG",
    "ndcg": "NDCG",
    "recall": "Recall",
}
DIFFERENCES = {
    "metric": pl.String, "of": pl.String, "attack": pl.String, "defence": pl.String, "against": pl.String,
    "seeds": pl.Int64, "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "p_t": pl.Float64, "p_permutation": pl.Float64, "p_holm": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One run: an attack (or none), a defence (or none), a seed.

    metrics: of targets among real users, and of real users' accuracy
    targets: hit rate of each target, by its outside id
    cost: what the attack took, see `tastemaker.audit.poison.Cost`; None without one
    epochs: best epoch of each training stage
    """

    attack: str
    defence: str
    seed: int
    metrics: Mapping[str, float]
    targets: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, Any] | None = None
    epochs: Sequence[int] = ()
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """The run in a line."""
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"seed {self.seed}, attack {self.attack}, defence {self.defence}: {shown} ({self.seconds:.1f} s)"


@dataclass(frozen=True, eq=False)
class Audit:
    """All runs of an audit, and what they were made of."""

    system: str
    config: Mapping[str, Any]
    where: str
    budget: Mapping[str, Any]
    attacks: Mapping[str, Mapping[str, Any]]
    defences: Mapping[str, Mapping[str, Mapping[str, Any]]]
    records: tuple[Record, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(record.seed for record in self.records))

    @property
    def metrics(self) -> list[str]:
        return list(self.records[0].metrics)

    @cached_property
    def _values(self) -> dict[tuple[str, str, int], Mapping[str, float]]:
        return {(record.attack, record.defence, record.seed): record.metrics for record in self.records}

    def values(self, metric: str, attack: str = NONE, defence: str = NONE) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A metric under an attack with a defence, a value a seed [S]."""
        for name, what, known in (
            (metric, "metric", self.metrics),
            (attack, "attack", [NONE, *self.attacks]),
            (defence, "defence", [NONE, *self.defences]),
        ):
            if name not in known:
                raise NotFound(f"the audit has no {what} {name!r}", hint=nearest(name, known))
        return np.array([self._values[attack, defence, seed][metric] for seed in self.seeds])

    def value(self, metric: str, attack: str = NONE, defence: str = NONE) -> float:
        """The mean over seeds."""
        return float(self.values(metric, attack, defence).mean())

    def figures(self) -> pl.DataFrame:
        """A row an attack, defence and metric: mean over seeds, and the ends of its t interval."""
        rows = []
        for attack in (NONE, *self.attacks):
            for defence in (NONE, *self.defences):
                for metric in self.metrics:
                    mean, half = t_interval(self.values(metric, attack, defence))
                    row = {"attack": attack, "defence": defence, "metric": metric, "seeds": len(self.seeds)}
                    rows.append({**row, "mean": mean, "low": mean - half, "high": mean + half})
        return pl.DataFrame(rows)

    @cached_property
    def differences(self) -> pl.DataFrame:
        """Paired differences over seeds: of each attack from none, and of each defence from every other.

        `of` is "attack" (attack - none, with the same defence) or "defence" (defence - against, under the same
        attack). Intervals are of the t distribution; `p_holm` is the p of the t test adjusted over all rows of the
        same metric and kind. With few seeds the permutation test can reach no small p: 2 / 2^seeds at best.
        """
        rows: list[dict[str, Any]] = []
        arms = [NONE, *self.defences]
        for metric in self.metrics:
            for kind, pairs in (
                ("attack", [(a, d, NONE, d) for d in arms for a in self.attacks]),
                ("defence", [(a, d, a, e) for a in (NONE, *self.attacks) for e, d in combinations(arms, 2)]),
            ):
                found = []
                for attack, defence, other_attack, other_defence in pairs:
                    gap = self.values(metric, attack, defence) - self.values(metric, other_attack, other_defence)
                    mean, half = t_interval(gap)
                    against = other_attack if kind == "attack" else other_defence
                    found.append(
                        {
                            "metric": metric, "of": kind, "attack": attack, "defence": defence, "against": against,
                            "seeds": len(gap), "difference": mean, "low": mean - half, "high": mean + half,
                            "p_t": float(paired_t(gap)[0]),
                            "p_permutation": float(paired_permutation(gap)[0]) if len(gap) > 1 else math.nan,
                        }
                    )  # fmt: skip
                adjusted = holm(np.array([row["p_t"] for row in found]))
                rows += [{**row, "p_holm": float(p)} for row, p in zip(found, adjusted, strict=True)]
        return pl.DataFrame(rows, schema=DIFFERENCES)

    def difference(
        self, metric: str, *, attack: str = NONE, defence: str = NONE, against: str = NONE
    ) -> dict[str, Any]:
        """One row of `differences` as plain values: of a defence, or without one, of an attack."""
        kind = "defence" if defence != against else "attack"
        at = (pl.col("metric") == metric) & (pl.col("of") == kind) & (pl.col("attack") == attack)
        found = self.differences.filter(at & (pl.col("defence") == defence) & (pl.col("against") == against))
        if found.height != 1:
            raise NotFound(
                f"no difference in {metric} under the attack {attack!r} between {defence!r} and {against!r}",
                hint="Audit.differences lists them; of two defences the later named comes first",
            )
        return found.row(0, named=True)

    def costs(self) -> pl.DataFrame:
        """What each attack took: means over seeds."""
        rows = []
        for label in self.attacks:
            told = [r.cost for r in self.records if r.attack == label and r.defence == NONE and r.cost is not None]
            if told:
                numbers = {n: float(np.mean([one[n] for one in told])) for n in told[0] if n != "knows"}
                rows.append({"attack": label, **numbers, "knows": told[0]["knows"]})
        return pl.DataFrame(rows)

    # -- output

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        import tastemaker

        return {
            "format": FORMAT,
            "tastemaker": tastemaker.__version__,
            "system": self.system,
            "config": plain(dict(self.config)),
            "where": self.where,
            "budget": dict(self.budget),
            "attacks": plain(dict(self.attacks)),
            "defences": plain(dict(self.defences)),
            "seeds": self.seeds,
            "figures": plain(self.figures().to_dicts()),
            "differences": plain(self.differences.to_dicts()),
            "costs": plain(self.costs().to_dicts()),
            "runs": [plain(asdict(record)) for record in self.records],
            **plain(dict(self.about)),
        }

    def tables(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Tables for people: titles, and rows of text."""
        wide: list[dict[str, str]] = []
        for attack in (NONE, *self.attacks):
            for defence in (NONE, *self.defences):
                row = {"attack": attack, "defence": defence}
                for metric in self.metrics:
                    row[_title(metric)] = _spread(*t_interval(self.values(metric, attack, defence)))
                wide.append(row)
        gaps: list[dict[str, str]] = []
        targets = [metric for metric in self.metrics if metric.startswith("target")]
        shown = self.differences.filter((pl.col("of") == "defence") | pl.col("metric").is_in(targets))
        for gap in shown.iter_rows(named=True):
            arms = f"{gap['defence']} - {gap['against']}"
            gaps.append(
                {
                    "metric": _title(gap["metric"]),
                    "attack": gap["attack"],
                    "compared": f"attacked - clean ({gap['defence']})" if gap["of"] == "attack" else arms,
                    "difference": f"{gap['difference']:+.4f}",
                    "95% interval": _ends(gap["low"], gap["high"]),
                    "p (Holm)": "-" if math.isnan(gap["p_holm"]) else f"{gap['p_holm']:.3f}",
                }
            )
        costs = [
            {
                "attack": row["attack"],
                "fake users": f"{row['fake_users']:,.0f} ({row['share_of_users']:.1%})",
                "events": f"{row['events']:,.0f} ({row['share_of_events']:.1%})",
                "the attacker knows": row["knows"],
                "seconds": f"{row['seconds']:.2f}",
            }
            for row in self.costs().to_dicts()
        ]
        n = len(self.seeds)
        over = f"{n} seeds, ± half the 95% t interval" if n > 1 else "one seed, so no intervals"
        titled = [
            (f"{self.system} on {self.where}: {over}", wide),
            ("Paired differences over seeds", gaps),
            ("What the attacks take", costs),
        ]
        return [(title, rows) for title, rows in titled if rows]

    def table(self) -> RenderableType:
        """What the terminal shows."""
        from rich import box
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table

        drawn = []
        for title, rows in self.tables():
            one = Table(
                title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
            )
            for name in rows[0]:
                one.add_column(escape(name), overflow="fold")
            for row in rows:
                one.add_row(*map(escape, row.values()))
            drawn.append(one)
        return Group(*drawn)

    def __rich__(self) -> RenderableType:
        return self.table()

    def markdown(self) -> str:
        """The report as a page of tables."""
        parts = [f"# Audit of {self.system}\n"]
        for title, rows in self.tables():
            lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
            table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
            parts.append(f"## {title}\n\n{table}\n")
        return "\n".join(parts)

    def save(self, folder: str | Path) -> Path:
        """Write audit.json, audit.md and runs.parquet to a folder."""
        folder = Path(folder)
        with replace_file(folder / "audit.json") as fresh:
            fresh.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        with replace_file(folder / "audit.md") as fresh:
            fresh.write_text(self.markdown(), encoding="utf-8")
        flat = [
            {"attack": r.attack, "defence": r.defence, "seed": r.seed, **r.metrics, "seconds": r.seconds}
            for r in self.records
        ]
        with replace_file(folder / "runs.parquet") as fresh:
            pl.DataFrame(flat).write_parquet(fresh)
        return folder


def _title(metric: str) -> str:
    name, at, k = metric.partition("@")
    return TITLES.get(name, name) + at + k


def _spread(mean: float, half: float) -> str:
    return f"{mean:.4f}" if math.isnan(half) else f"{mean:.4f} ±{half:.4f}"


def _ends(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
