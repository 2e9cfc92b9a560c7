"""Propagation over the user-item graph."""
