"""Systems are found by name, and say what they are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tastemaker.contracts import find, info_of, names, system
from tastemaker.types import NotFound, Requests, Slates, UsageError


def test_a_wrong_name_offers_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean 'ease'"):
        find("eaes")


def test_names_match_wildcards_without_importing() -> None:
    assert "ease" in names("e*") and "ease" not in names("item*")


@pytest.mark.parametrize("name", names())
def test_a_file_is_named_after_its_system(name: str) -> None:
    assert find(name).name == name


def test_capabilities_follow_from_methods() -> None:
    @system("fixed", family="classical", title="Always the same list", paper="none", learns_from=())
    class Fixed:
        @dataclass(frozen=True)
        class Config: ...

        def retrieve(self, requests: Requests, k: int) -> Slates:
            raise AssertionError

        def extend(self, users: object = None, items: object = None) -> Fixed:
            return self

    assert info_of(Fixed()).capabilities == ("retrieves", "extends")


def test_what_is_needed_may_come_as_any_iterable() -> None:
    @system("lazy", family="classical", title="", paper="", needs=(name for name in ("users", "now")))
    class Lazy: ...

    assert info_of(Lazy).needs == {"users", "now"}


def test_declarations_are_checked() -> None:
    with pytest.raises(UsageError, match="no family 'clasical'"):
        system("x", family="clasical", title="", paper="")
    with pytest.raises(UsageError, match=r"asks for unknown .'histories'"):
        system("x", family="classical", title="", paper="", needs={"histories"})
    with pytest.raises(UsageError, match=r"asks for unknown .'chatt'"):
        system("x", family="classical", title="", paper="", uses={"chatt"})
    with pytest.raises(UsageError, match="`bind`, or neither"):
        system("x", family="classical", title="", paper="", uses={"chat"})(type("X", (), {}))
