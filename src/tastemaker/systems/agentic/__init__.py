"""Systems that use tools."""
