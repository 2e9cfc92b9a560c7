"""Fit several systems on one training part and compare them on the same cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tastemaker.evaluate import Comparison, Report, compare, evaluate
from tastemaker.train import Bundle, fit
from tastemaker.types import Part, Split, TastemakerError, UsageError, progress


def compare_systems(
    systems: Sequence[str],
    split: Split,
    *,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    part: Part = "test",
    ks: Sequence[int] = (10, 20),
    metrics: Sequence[str] | None = None,
    seeds: Iterable[int] = (0,),
    tell: Callable[[str], None] | None = None,
    keep: Callable[[Bundle, Report], None] | None = None,
) -> Comparison:
    """Fit each system with each seed on the split's training part, evaluate it on `part`, and compare the reports.

    A system that cannot be fitted here (memory, missing columns) is told of through `tell` and left out.
    `keep` is called with every bundle and its report, before the bundle is let go.
    """
    reports: list[Report] = []
    cases = split.cases(part)
    jobs = [(name, seed) for name in systems for seed in seeds]
    with progress("compare", len(jobs)) as advance:
        for name, seed in jobs:
            try:
                bundle = fit(name, split, (configs or {}).get(name), seed=seed, histories=False)
            except TastemakerError as error:
                if tell is None:
                    raise
                tell(f"{name} is left out: {error}")
                advance(1)
                continue
            report = evaluate(bundle, split, cases=cases, part=part, ks=tuple(ks), metrics=metrics)
            reports.append(report)
            if keep is not None:
                keep(bundle, report)
            advance(1)
    if not reports:
        raise UsageError("none of the systems could be fitted, so there is nothing to compare")
    return compare(reports)
