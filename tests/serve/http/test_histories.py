"""What users did since: read once, kept up, and never kept from before what was forgotten meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tastemaker.serve.histories import Histories, summed


def event(item: str | None, kind: str = "like", value: float | None = None, time: int = 1) -> Any:
    return SimpleNamespace(item=item, kind=kind, value=value, time=time)


def test_a_later_word_on_an_item_overrules_an_earlier_one() -> None:
    found = summed([event("a"), event("b", value=2.0), event("a"), event("c", "hide"), event(None, "search")])
    assert [one.item for one in found.chosen] == ["a", "b", "a"] and found.hidden == ("c",)
    assert [one.value for one in found.chosen] == [1.0, 2.0, 1.0]
    assert summed([event("a"), event("a", "hide")]).chosen == ()
    assert summed([event("a", "hide"), event("a", "undo")]) == summed([])
    assert summed([event("a", "hide"), event("a")]).hidden == (), "whoever chooses what was hidden wants it again"
    assert summed([event("a", "impression")]) == summed([])


class Log:
    """A log whose reading can be interrupted."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.meanwhile: Any = lambda: None
        self.reads = 0

    def changed_since(self, last: int | None) -> tuple[list[str], int]:
        return [], 0

    def erasures(self) -> int:
        return 0

    def recent_of(self, users: list[str], limit: int) -> dict[str, list[Any]]:
        self.reads += 1
        found = {user: list(self.rows.get(user, ())) for user in users}
        self.meanwhile()
        return found


def test_a_user_is_read_once_and_again_after_an_event() -> None:
    log = Log()
    kept = Histories(log)
    assert kept.of(["u"])["u"].chosen == () and kept.of(["u"])["u"].chosen == () and log.reads == 1
    log.rows["u"] = [event("a")]
    kept.forget(["u"])
    assert kept.of(["u"])["u"].chosen[0].item == "a" and log.reads == 2


def test_what_was_read_before_an_event_is_not_kept_after_it() -> None:
    log = Log()
    kept = Histories(log)

    def arrives() -> None:
        log.rows["u"] = [event("a")]
        kept.forget(["u"])
        log.meanwhile = lambda: None

    log.meanwhile = arrives
    kept.of(["u"])
    assert kept.of(["u"])["u"].chosen[0].item == "a"


def test_the_least_asked_for_are_forgotten() -> None:
    log = Log()
    kept = Histories(log, users=2)
    for user in ("a", "b", "a", "c", "a"):
        kept.of([user])
    assert log.reads == 3
    kept.of(["b"])
    assert log.reads == 4
