"""How good a system is: protocols, metrics, statistics, and the report."""

from tastemaker.evaluate.compare import Comparison, compare
from tastemaker.evaluate.metrics import Metric
from tastemaker.evaluate.ranking import METRICS, evaluate
from tastemaker.evaluate.report import Figure, Report, Statistics
from tastemaker.evaluate.statistics import benjamini_hochberg, bootstrap, holm, paired_permutation, paired_t

__all__ = [
    "METRICS",
    "Comparison",
    "Figure",
    "Metric",
    "Report",
    "Statistics",
    "benjamini_hochberg",
    "bootstrap",
    "compare",
    "evaluate",
    "holm",
    "paired_permutation",
    "paired_t",
]
