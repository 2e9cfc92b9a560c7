"""Items written as codes."""
