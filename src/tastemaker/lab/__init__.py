"""Search over systems and settings."""
