"""Settings are checked where they come in."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tastemaker.types import ConfigError, make_config, setting


@dataclass(frozen=True)
class Config:
    reg: float = setting(1.0, "Penalty.", low=0.0, high=10.0)
    n_factors: int = setting(8, "Width.", low=1)
    weight: str = setting("binary", "Weighting.", choices=("binary", "count"))
    k: int | None = setting(None, "Neighbours; none: all.", low=1)


def test_plain_values_become_a_config() -> None:
    made = make_config(Config, {"reg": 2, "weight": "count", "k": 5})
    assert made == Config(2.0, 8, "count", 5)
    assert make_config(Config, made) is made and make_config(Config) == Config()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"rge": 1.0}, "no setting 'rge'"),
        ({"reg": 11.0}, "between 0.0 and 10.0"),
        ({"reg": "much"}, "must be float"),
        ({"n_factors": 2.5}, "must be int"),
        ({"n_factors": 0}, "lies between 1"),
        ({"weight": "heavy"}, "one of 'binary', 'count'"),
        ({"k": 0}, "lies between 1"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_config(Config, given)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'n_factors'"):
        make_config(Config, {"nfactors": 3})
