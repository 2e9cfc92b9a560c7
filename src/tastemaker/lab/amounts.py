"""Amounts of time and memory as people write them: "30m", "1h30m", "90", "4g"."""

from __future__ import annotations

import math
import re

from tastemaker.types import UsageError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MEGABYTES = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


def seconds(written: str | float) -> float:
    """Seconds of "10m", "1h30m", "45s"; a bare number is seconds."""
    return _amount(written, SECONDS, "a time", "30m, 1h30m or 90s")


def megabytes(written: str | float) -> float:
    """Megabytes (2^20 bytes) of "4g", "512m", "4GB"; a bare number is megabytes."""
    text = written.lower().removesuffix("b").removesuffix("i") if isinstance(written, str) else written
    return _amount(text, MEGABYTES, "an amount of memory", "4g or 512m")


def spoken(amount: float) -> str:
    """Seconds as people say them: 0.42 s, 12 s, 3 min 20 s, 1 h 5 min."""
    if amount < 10:
        return f"{amount:.2g} s"
    whole = round(amount)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def _amount(written: str | float, units: dict[str, float], what: str, example: str) -> float:
    if isinstance(written, int | float) and not isinstance(written, bool):
        total = float(written)
    else:
        text = str(written).strip().lower()
        pieces = re.findall(r"([0-9]*\.?[0-9]+)\s*([a-z]?)", text)
        if not pieces or re.sub(r"\s", "", text) != "".join(n + u for n, u in pieces):
            raise UsageError(f"{what} is written as {example}, got {written!r}")
        if any(unit and unit not in units for _, unit in pieces) or (len(pieces) > 1 and not all(u for _, u in pieces)):
            raise UsageError(f"{what} is written as {example}, got {written!r}")
        total = sum(float(number) * (units[unit] if unit else 1.0) for number, unit in pieces)
    if not math.isfinite(total) or total <= 0:
        raise UsageError(f"{what} is more than nothing, got {written!r}")
    return total
