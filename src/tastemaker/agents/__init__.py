"""Agents: tools that work on shared candidates, and the turn of a conversation that plans with them."""
