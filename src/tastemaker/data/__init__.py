"""Data in: reading, checking, describing, filtering and splitting."""

from tastemaker.data.build import build
from tastemaker.data.describe import describe
from tastemaker.data.read import read

__all__ = ["build", "describe", "read"]
