"""Agents over mounted systems."""
