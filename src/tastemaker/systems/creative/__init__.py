"""Content made for one person."""
