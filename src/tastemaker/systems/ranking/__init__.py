"""Features, several tasks, search."""
