"""Neighbours, linear models, factorisation."""
