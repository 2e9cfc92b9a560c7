"""Where a search looks follows from what a Config says of its fields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from tastemaker.contracts import find, info_of, names, system
from tastemaker.lab.amounts import megabytes, seconds, spoken
from tastemaker.lab.space import Choice, Range, Space, fit_command
from tastemaker.types import ConfigError, UsageError, make_config, setting


@system("spacious", family="classical", title="All kinds of settings", paper="none")
class Spacious:
    @dataclass(frozen=True)
    class Config:
        dim: int = setting(64, "A width.", low=1, log=True, search=(16, 256))
        share: float = setting(0.9, "A share.", low=0.0, high=1.0, search=(0.1, 0.5))
        decay: float | None = setting(None, "Days; none: no decay.", log=True, search=(1.0, 100.0))
        layers: int = setting(0, "How many.", low=0, log=True, search=(0, 8))
        rule: Literal["a", "b", "c"] = setting("c", "Which.", choices=("a", "b", "c"), search=("a", "b"))
        flag: bool = setting(False, "Whether.", search=(True, False))
        hidden: tuple[int, ...] = setting((8,), "Widths.", search=((8,), (16, 8)))
        epochs: int = setting(10, "Not searched.", low=1)

        def __post_init__(self) -> None:
            if self.dim % 2:
                raise ValueError("dim is even")


@pytest.fixture
def space() -> Space:
    return Space.of(info_of(Spacious))


def test_kinds_of_dimension_follow_from_types_and_metadata(space: Space) -> None:
    assert space.dimensions == {
        "dim": Range(16, 256, log=True, whole=True),
        "share": Range(0.1, 0.9),  # widened to hold the default
        "decay": Range(1.0, 100.0, log=True, apart=(None,)),
        "layers": Range(1, 8, log=True, whole=True, apart=(0,)),
        "rule": Choice(("c", "a", "b")),
        "flag": Choice((True, False)),
        "hidden": Choice(((8,), (16, 8))),
    }
    assert space.fits(space.default)


def test_what_is_drawn_lies_in_the_space_and_fits_together(space: Space) -> None:
    rng = np.random.default_rng(0)
    drawn = [space.draw(rng) for _ in range(300)]
    drawn += [space.near(values, rng) for values in drawn]
    for values in drawn:
        assert values["dim"] % 2 == 0 and 16 <= values["dim"] <= 256 and isinstance(values["dim"], int)
        assert 0.1 <= values["share"] <= 0.9
        assert values["decay"] is None or 1.0 <= values["decay"] <= 100.0
        assert values["layers"] in range(9)
        make_config(Spacious.Config, space.whole(values))
    nones = sum(values["decay"] is None for values in drawn) / len(drawn)
    assert 0.1 < nones < 0.45
    magnitudes = [math.log2(values["dim"]) for values in drawn[:300]]
    assert 5.6 < np.mean(magnitudes) < 6.4, "widths are not drawn by magnitude"


def test_a_step_stays_near(space: Space) -> None:
    rng = np.random.default_rng(1)
    start = {**space.default, "share": 0.3}
    steps = [space.near(start, rng) for _ in range(300)]
    moved = [abs(step["share"] - 0.3) for step in steps if step["share"] != 0.3]
    assert len(moved) > 60 and np.median(moved) < 0.2


def test_few_points_of_the_sequence_fill_the_space(space: Space) -> None:
    few = [space.scattered(number, 0) for number in range(1, 13)]
    assert {values["rule"] for values in few} == {"a", "b", "c"} and {values["flag"] for values in few} == {True, False}
    shares = sorted(values["share"] for values in few)
    assert max(np.diff([0.1, *shares, 0.9])) < 0.2, "a stretch of the range was left out"
    assert few[3] == space.scattered(4, 0) != space.scattered(4, 1)


def test_fixed_settings_leave_the_space(space: Space) -> None:
    narrowed = Space.of(info_of(Spacious), {"dim": 32, "epochs": 3})
    assert "dim" not in narrowed.dimensions and "share" in narrowed.dimensions
    assert narrowed.whole({"share": 0.2}) == {"dim": 32, "epochs": 3, "share": 0.2}
    assert narrowed.changed({**narrowed.default, "share": 0.2}) == {"dim": 32, "epochs": 3, "share": 0.2}
    with pytest.raises(ConfigError, match="no setting 'dmi'"):
        Space.of(info_of(Spacious), {"dmi": 3})


def test_a_search_that_makes_no_sense_is_refused() -> None:
    @system("senseless", family="classical", title="x", paper="none")
    class Senseless:
        @dataclass(frozen=True)
        class Config:
            rate: float = setting(0.1, "A rate.", log=True, search=(0.0, 1.0))

    with pytest.raises(ConfigError, match="no logarithm"):
        Space.of(info_of(Senseless))


@pytest.mark.parametrize("name", names())
def test_every_system_says_where_to_look(name: str) -> None:
    space = Space.of(find(name))
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = space.draw(rng)
        assert space.fits(values), f"{values} is refused by {name} itself"
        assert space.fits(space.near(values, rng))


def test_a_command_is_quoted() -> None:
    assert fit_command("ease", "my data", {"reg": 3.5, "weight": "count", "flag": True}) == (
        "tastemaker fit ease 'my data' --set reg=3.5 --set weight=count --set flag=true --out ease"
    )


def test_amounts_are_read_as_people_write_them() -> None:
    assert [seconds(text) for text in ("90", "45s", "10m", "1h30m", "1.5h", 12)] == [90, 45, 600, 5400, 5400, 12]
    assert [megabytes(text) for text in ("512m", "4g", "4GB", "2GiB", 100)] == [512, 4096, 4096, 2048, 100]
    assert [spoken(x) for x in (0.42, 12, 200, 3900)] == ["0.42 s", "12 s", "3 min 20 s", "1 h 5 min"]
    for wrong in ("soon", "10x", "", "-5m", "0", "5 m 3"):
        with pytest.raises(UsageError, match="time"):
            seconds(wrong)
