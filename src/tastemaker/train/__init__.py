"""The engine that runs programs, and the bundle it leaves."""

from tastemaker.train.bundle import Bundle
from tastemaker.train.engine import fit
from tastemaker.train.loggers import JsonLines, Terminal
from tastemaker.train.run import Hardware, Judge, Ranking, Validation

__all__ = ["Bundle", "Hardware", "JsonLines", "Judge", "Ranking", "Terminal", "Validation", "fit"]
