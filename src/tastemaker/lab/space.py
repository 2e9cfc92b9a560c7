"""Where a search looks: the settings of a system that say so, and how values of theirs are drawn.

A field of a Config is searched when its `setting(...)` carries `search`: two numbers are the ends of a range of an int
or a float (with `log`, a range of magnitudes), anything else is a list of choices. The default is always part of the
space: a range is widened to hold it, and a default that no range can hold (None, or 0 beside a range of magnitudes)
stands apart from it as one more value.
"""

from __future__ import annotations

import json
import math
import shlex
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.contracts import SystemInfo
from tastemaker.types import ConfigError, Setting, config_to_json, generator, make_config, settings

DIGITS = 3  # of a number that is drawn: more would suggest that they matter
APART = 0.25  # chance of a value that stands apart from its range
REACH = 0.15  # standard deviation of a step from a known value, as a share of the range
TRIES = 50  # draws before it is believed that no settings of the space fit together

Values = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; `apart` are values beside them."""

    low: float
    high: float
    log: bool = False
    whole: bool = False
    apart: tuple[Any, ...] = ()

    def at(self, place: float) -> Any:
        """The number at a place from 0 (low) to 1 (high)."""
        place = min(1.0, max(0.0, place))
        if self.log:
            value = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + place * (self.high - self.low)
        if self.whole:
            return int(min(self.high, max(self.low, round(value))))
        return min(self.high, max(self.low, float(f"{value:.{DIGITS}g}")))

    def place(self, value: float) -> float:
        """Where a number lies: the inverse of `at`."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def of(self, share: float) -> Any:
        """The value that a uniform number from 0 to 1 stands for."""
        if not self.apart:
            return self.at(share)
        if share < APART:
            return self.apart[int(share / APART * len(self.apart))]
        return self.at((share - APART) / (1 - APART))

    def near(self, value: Any, rng: np.random.Generator) -> Any:
        if value in self.apart or (self.apart and rng.random() < APART / 2):
            return self.of(rng.random())
        return self.at(self.place(value) + REACH * rng.standard_normal())


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def of(self, share: float) -> Any:
        """The value that a uniform number from 0 to 1 stands for."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def near(self, value: Any, rng: np.random.Generator) -> Any:
        others = [one for one in self.values if one != value] or list(self.values)
        return others[int(rng.integers(len(others)))]


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """The searched settings of one system; those of `fixed` are given and left alone."""

    info: SystemInfo
    dimensions: Mapping[str, Dimension]
    fixed: Mapping[str, Any]

    @classmethod
    def of(cls, info: SystemInfo, fixed: Mapping[str, Any] | None = None) -> Space:
        """The space that the metadata of a system's Config describes.

        Raises:
            ConfigError: a fixed setting is unknown or out of range, or a field's search makes no sense.
        """
        fixed = dict(fixed or {})
        make_config(info.config, fixed, of=info.name)
        hints = typing.get_type_hints(info.config)
        found = {
            name: _dimension(f"{name} of {info.name}", hints[name], default, about)
            for name, (default, about) in settings(info.config).items()
            if about.search is not None and name not in fixed
        }
        return cls(info, found, fixed)

    @property
    def default(self) -> Values:
        """The searched settings at their defaults."""
        known = settings(self.info.config)
        return {name: known[name][0] for name in self.dimensions}

    @property
    def size(self) -> float:
        """How many different settings there are; infinite where a range of fractions is among them."""
        total = 1.0
        for dimension in self.dimensions.values():
            if isinstance(dimension, Choice):
                total *= len(dimension.values)
            elif dimension.whole:
                total *= dimension.high - dimension.low + 1 + len(dimension.apart)
            else:
                return math.inf
        return total

    def whole(self, values: Mapping[str, Any]) -> Values:
        """Searched and fixed settings together."""
        return {**self.fixed, **values}

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether the system takes these settings."""
        try:
            make_config(self.info.config, self.whole(values), of=self.info.name)
        except ConfigError:
            return False
        return True

    def changed(self, values: Mapping[str, Any]) -> Values:
        """Those of all settings that differ from the system's defaults, as plain JSON values."""
        config = config_to_json(make_config(self.info.config, self.whole(values), of=self.info.name))
        plain = config_to_json(make_config(self.info.config, None))
        return {name: value for name, value in config.items() if value != plain[name]}

    def draw(self, rng: np.random.Generator) -> Values:
        """Settings from anywhere in the space."""
        return self._fitting(lambda: {name: d.of(rng.random()) for name, d in self.dimensions.items()})

    def scattered(self, number: int, seed: int) -> Values:
        """The settings of this number in a sequence that fills the space evenly, however soon it is broken off.

        Ref: Halton 1960, scrambled as Owen, arXiv:1706.02808.
        """
        from scipy.stats import qmc

        if not self.dimensions:
            return {}
        points = qmc.Halton(len(self.dimensions), rng=generator(seed, "settings", self.info.name))
        shares = points.fast_forward(number).random(1)[0]
        return {name: d.of(float(u)) for (name, d), u in zip(self.dimensions.items(), shares, strict=True)}

    def near(self, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """Settings a step away from known ones: about half of them are moved, at least one."""

        def step() -> Values:
            moved = [name for name in self.dimensions if rng.random() < 0.5]
            if not moved and self.dimensions:
                moved = [list(self.dimensions)[int(rng.integers(len(self.dimensions)))]]
            return {n: d.near(values[n], rng) if n in moved else values[n] for n, d in self.dimensions.items()}

        return self._fitting(step)

    def _fitting(self, drawn: typing.Callable[[], Values]) -> Values:
        values = drawn()
        for _ in range(TRIES):
            if self.fits(values):
                break
            values = drawn()
        return values

    # -- as Optuna asks for it

    def params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as the parameters of an Optuna trial."""
        found: dict[str, Any] = {}
        for name, dimension in self.dimensions.items():
            value = values[name]
            if isinstance(dimension, Choice):
                found[name] = _label(value)
                continue
            if dimension.apart:
                found[_switch(name)] = _label(value) if value in dimension.apart else IN_RANGE
            if value not in dimension.apart:
                found[name] = value
        return found

    def suggest(self, trial: Any) -> Values:
        """Settings as an Optuna trial proposes them."""
        return {name: _suggested(trial, name, dimension) for name, dimension in self.dimensions.items()}


IN_RANGE = "in range"


def key_of(values: Mapping[str, Any]) -> str:
    """A text that is equal for equal settings."""
    return json.dumps(values, sort_keys=True, default=str)


def fit_command(system: str, source: str, changed: Mapping[str, Any]) -> str:
    """The command that fits a system on data called `source`, with settings that differ from the defaults."""
    written = {name: v if isinstance(v, str) else json.dumps(v) for name, v in changed.items()}
    given = [f"--set {shlex.quote(f'{name}={value}')}" for name, value in written.items()]
    return " ".join(["tastemaker fit", system, shlex.quote(source), *given, "--out", system])


def _suggested(trial: Any, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        labels = {_label(value): value for value in dimension.values}
        return labels[trial.suggest_categorical(name, list(labels))]
    if dimension.apart:
        beside = {_label(value): value for value in dimension.apart}
        picked = trial.suggest_categorical(_switch(name), [IN_RANGE, *beside])
        if picked != IN_RANGE:
            return beside[picked]
    if dimension.whole:
        return trial.suggest_int(name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def _switch(name: str) -> str:
    return f"{name} ({IN_RANGE}?)"


def _label(value: Any) -> Any:
    """A choice as Optuna stores it."""
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _dimension(what: str, hint: Any, default: Any, about: Setting) -> Dimension:
    search = tuple(about.search or ())
    hints = {part for part in _parts(hint) if part is not type(None)}
    numeric = bool(hints) and hints <= {int, float}
    ends = len(search) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in search)
    if not search:
        raise ConfigError(f"the search of {what} is empty")
    if not numeric or not ends or about.choices is not None:
        return Choice(search if default in search else (default, *search))
    low, high = search
    whole = hints == {int}
    apart: tuple[Any, ...] = ()
    if about.log and low <= 0:
        if low < 0 or not whole:
            raise ConfigError(f"the search of {what} begins at {low}, where magnitudes have no logarithm")
        low, apart = 1, (0,)
    if default is None or (about.log and default <= 0):
        apart = apart if default in apart else (*apart, default)
    else:
        low, high = min(low, default), max(high, default)
    if low > high:
        raise ConfigError(f"the search of {what} runs from {low} to {high}")
    return Range(low, high, about.log, whole, apart)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)
