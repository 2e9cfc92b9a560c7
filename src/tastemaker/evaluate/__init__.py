"""Protocols that measure systems, and the report they write."""
