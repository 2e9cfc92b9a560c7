"""Experiments: comparisons, recipes, and the pages their results fill."""
