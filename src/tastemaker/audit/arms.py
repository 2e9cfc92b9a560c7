"""Attacks and defences by name, with settings: "bandwagon:popular=0.3", "vat:magnitude=uniform", "apr+vat"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tastemaker.audit.attacks import Average, Bandwagon, Popular, Random, Segment
from tastemaker.audit.dp import DP
from tastemaker.audit.poison import Attack
from tastemaker.contracts import TRANSFORMS
from tastemaker.types import NotFound, UsageError, make_config, nearest

ATTACKS: Mapping[str, type[Any]] = {one.name: one for one in (Random, Average, Popular, Bandwagon, Segment, DP)}
NONE = "none"
Defence = Mapping[str, Mapping[str, Any]]
"""Transforms of training by name, in order, each with its settings."""


def attack_of(text: str) -> Attack:
    """An attack from its name and perhaps settings."""
    name, given = _parsed(text)
    if name not in ATTACKS:
        raise NotFound(f"there is no attack {name!r}", hint=nearest(name, ATTACKS))
    made: Attack = make_config(ATTACKS[name], given, of=name)
    return made


def attacks_of(wanted: Sequence[str | Attack] | Mapping[str, Attack]) -> dict[str, Attack]:
    """Attacks by label; what is given as text has the text for a label."""
    if isinstance(wanted, Mapping):
        found = dict(wanted)
    else:
        found = {}
        for one in wanted:
            label = one if isinstance(one, str) else one.name
            _once(label, found, "attack")
            found[label] = attack_of(one) if isinstance(one, str) else one
    if NONE in found:
        raise UsageError(f"{NONE!r} is what no attack is called: choose another label")
    return found


def defence_of(text: str) -> dict[str, dict[str, Any]]:
    """Transforms from their names, joined by +, and perhaps settings; these are checked."""
    found: dict[str, dict[str, Any]] = {}
    for part in text.split("+"):
        name, given = _parsed(part)
        make_config(TRANSFORMS.find(name).config, given, of=name)
        _once(name, found, "transform")
        found[name] = given
    return found


def defences_of(wanted: Sequence[str] | Mapping[str, Defence]) -> dict[str, dict[str, dict[str, Any]]]:
    """Defences by label; what is given as text has the text for a label."""
    if isinstance(wanted, Mapping):
        found = {label: {name: dict(given) for name, given in one.items()} for label, one in wanted.items()}
        for one in found.values():
            for name, given in one.items():
                make_config(TRANSFORMS.find(name).config, given, of=name)
    else:
        found = {}
        for text in wanted:
            _once(text, found, "defence")
            found[text] = defence_of(text)
    if NONE in found:
        raise UsageError(f"{NONE!r} is what no defence is called: choose another label")
    return found


def settings_of(attack: Attack) -> dict[str, Any]:
    """An attack as plain values: its name, and its settings."""
    return {"name": attack.name, **asdict(attack)}  # type: ignore[call-overload]


def _once(name: str, found: Mapping[str, Any], what: str) -> None:
    if name in found:
        raise UsageError(f"the {what} {name!r} is named twice")


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    given: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"settings of {name!r} are written {name}:NAME=VALUE,NAME=VALUE, got {text!r}")
        try:
            given[key.strip()] = json.loads(value)
        except ValueError:
            given[key.strip()] = value.strip()
    return name.strip(), given
