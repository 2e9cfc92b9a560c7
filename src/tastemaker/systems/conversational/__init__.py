"""Systems that ask."""
