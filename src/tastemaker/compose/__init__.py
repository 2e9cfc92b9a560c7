"""Systems put together."""
