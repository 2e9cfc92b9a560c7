"""Experiments: searches, comparisons, recipes, and the pages their results fill."""

from tastemaker.lab.choice import Choice
from tastemaker.lab.choosing import choose
from tastemaker.lab.tuning import Tuning, tune

__all__ = ["Choice", "Tuning", "choose", "tune"]
