"""Pieces that more than one neural system uses."""
