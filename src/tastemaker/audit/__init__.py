"""Attacks, defences and measures of harm."""
