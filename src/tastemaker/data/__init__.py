"""Data in: reading, checking, describing, filtering and splitting."""
