"""The engine that runs programs, and the bundle it leaves."""

from tastemaker.train.bundle import Bundle
from tastemaker.train.engine import fit

__all__ = ["Bundle", "fit"]
