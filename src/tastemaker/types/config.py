"""Settings of a system: a frozen dataclass whose fields carry a sentence, a range and a search space."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tastemaker.types.errors import ConfigError, nearest

C = TypeVar("C")


@dataclass(frozen=True)
class Setting:
    """What is known of a field beyond its type: range and choices are checked, the rest guides the search."""

    doc: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    search: tuple[float, float] | tuple[Any, ...] | None = None  # where a search looks; None: it leaves the field


@dataclass(frozen=True)
class SystemRef:
    """Another system, on which a system builds: its name, and the settings in which it differs from its defaults.

    A Config has it as a field; where settings are given as plain values, the bare name does too.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def named(value: Any) -> Any:
            return {"name": value} if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(named, handler(source))


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: tuple[Any, ...] | None = None,
    search: tuple[Any, ...] | None = None,
) -> Any:
    """A field of a Config: its default, a sentence about it, the range it must keep, where a search looks."""
    return field(default=default, metadata={"setting": Setting(doc, low, high, log, choices, search)})


def settings(config: type[Any]) -> dict[str, tuple[Any, Setting]]:
    """Name -> (default, Setting) of a Config class."""
    return {f.name: (f.default, f.metadata.get("setting", Setting(""))) for f in fields(config)}


def make_config(cls: type[C], given: Mapping[str, Any] | C | None = None, *, of: str = "this system") -> C:
    """Build a Config from plain values; unknown names, wrong types and values out of range are refused."""
    if given is None:
        return cls()
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"settings of {of} come as a mapping or a {cls.__name__}, got {type(given).__name__}")
    known = settings(typing.cast(type, cls))
    types = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{of} has no setting {name!r}", hint=nearest(name, known))
        values[name] = _check(of, name, value, types[name], known[name][1])
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings of {of} do not fit together: {error}") from error


def config_to_json(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def _check(of: str, name: str, value: Any, wanted: Any, about: Setting) -> Any:
    value = _as_type(of, name, value, wanted)
    if about.choices is not None and value is not None and value not in about.choices:
        raise ConfigError(f"{name} of {of} is one of {', '.join(map(repr, about.choices))}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low = -math.inf if about.low is None else about.low
        high = math.inf if about.high is None else about.high
        if not low <= value <= high:
            raise ConfigError(f"{name} of {of} lies between {low} and {high}, got {value!r}")
    return value


def _as_type(of: str, name: str, value: Any, wanted: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        shown = getattr(wanted, "__name__", str(wanted))
        raise ConfigError(f"{name} of {of} must be {shown}, got {value!r} ({what})") from error
