"""Defences as transforms of training: one file is one transform."""
