"""The conformance suite every system must pass."""
