"""Transforms of training: one file is one transform."""
