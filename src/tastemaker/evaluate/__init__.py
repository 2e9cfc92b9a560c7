"""How good a system is: protocols, metrics, statistics, and the report."""

import sys
from types import ModuleType
from typing import Any

from tastemaker.evaluate.compare import Comparison, compare
from tastemaker.evaluate.expressiveness import Closeness, closeness, look_alike, nodes_told_apart, refine
from tastemaker.evaluate.interactive import interact
from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.off_policy import off_policy
from tastemaker.evaluate.pointwise import Questions, pointwise
from tastemaker.evaluate.ranking import METRICS, evaluate
from tastemaker.evaluate.report import Figure, Report, Statistics
from tastemaker.evaluate.statistics import benjamini_hochberg, bootstrap, holm, paired_permutation, paired_t

__all__ = [
    "METRICS",
    "Closeness",
    "Comparison",
    "Figure",
    "Metric",
    "Questions",
    "Report",
    "Statistics",
    "benjamini_hochberg",
    "bootstrap",
    "closeness",
    "compare",
    "evaluate",
    "holm",
    "interact",
    "look_alike",
    "nodes_told_apart",
    "off_policy",
    "paired_permutation",
    "paired_t",
    "pointwise",
    "refine",
]


class _Callable(ModuleType):
    """`tastemaker.evaluate(...)`: the package bears the function's name, so it answers as the function does."""

    def __call__(self, *arguments: Any, **options: Any) -> Report:
        return evaluate(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
