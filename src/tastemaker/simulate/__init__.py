"""Environments: worlds of users to act in."""
