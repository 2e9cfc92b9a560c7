"""What is said of a split: settings as text, and the checks that their values must pass."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from tastemaker.types import UsageError

ANY_OF = "|"


def read_text(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Kind, values and named settings of "kind:value,value,name=value"."""
    found = re.fullmatch(r"([^:,=]+)(?:[:,](.*))?", text.strip(), flags=re.DOTALL)
    if found is None:
        raise UsageError(f"a split is written as kind:value,setting=value, got {text!r}")
    values: list[Any] = []
    named: dict[str, Any] = {}
    for piece in found[2].split(",") if found[2] else []:
        key, equals, value = piece.partition("=")
        if equals:
            named[key.strip()] = read_value(value)
        else:
            values.append(read_value(piece))
    return found[1].strip(), values, named


def read_value(text: str) -> Any:
    """A number or a flag where the text is one, a list where values are parted by |, else the text."""
    if ANY_OF in text:
        return [read_value(one) for one in text.split(ANY_OF)]
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return value if isinstance(value, bool | int | float) else text.strip()


def write_text(kind: str, values: Sequence[Any], named: Mapping[str, Any]) -> str:
    """The text that `read_text` reads."""
    pieces = [*map(write_value, values), *(f"{key}={write_value(value)}" for key, value in named.items())]
    return f"{kind}:{','.join(pieces)}" if pieces else kind


def write_value(value: Any) -> str:
    if isinstance(value, list):
        return ANY_OF.join(map(write_value, value))
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def plain(value: Any) -> Any:
    """A value as a spec holds it: sequences are lists, dates are text."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def listed(value: Any) -> list[Any]:
    """A sequence as a list, anything else as a list of one."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def shares_of(kind: str, shares: Any) -> tuple[float, float]:
    """The shares of valid and test; of three numbers, or of the share of train alone."""
    values = listed(shares)
    if not all(is_share(value) for value in values):
        raise UsageError(f"shares of {kind} lie between 0 and 1, got {shares!r}")
    if len(values) == 1 and values[0] > 0:
        return 0.0, 1 - values[0]
    if len(values) != 3 or abs(sum(values) - 1) > 1e-6 or values[0] <= 0:
        raise UsageError(
            f"{kind} takes the share of train, or three that add up to 1, got {shares!r}",
            hint=f"for example {kind}:0.8 or {kind}:0.8,0.1,0.1",
        )
    return float(values[1]), float(values[2])


def share_of(kind: str, value: Any) -> float:
    if not is_share(value) or not value:
        raise UsageError(f"a share of {kind} lies between 0 and 1, got {value!r}")
    return float(value)


def is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def rounded_down(n: Any, share: float) -> Any:
    """How many of `n` a share is, rounded down, whatever the last bit of the product says."""
    return np.floor(np.asarray(n) * share + 1e-9).astype(np.int64)


def whole(kind: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{kind} takes a whole number of at least {least}, got {value!r}")
    return value


def one_of(kind: str, name: str, value: Any, wanted: Any) -> None:
    if value not in get_args(wanted):
        raise UsageError(f"{name} of {kind} is one of {', '.join(get_args(wanted))}, got {value!r}")
