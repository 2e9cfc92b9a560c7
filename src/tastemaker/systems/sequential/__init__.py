"""The order of a history."""
