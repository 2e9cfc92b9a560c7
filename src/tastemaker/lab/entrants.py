"""Who can take part: the systems that can learn from some data and answer its cases, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tastemaker.contracts import SystemInfo, capabilities, find, info_of, names
from tastemaker.types import EVENT_COLUMNS, Cases, Dataset, NotFound, Split, TastemakerError, UsageError, nearest

SHOWN = 8  # columns that are named
LISTABLE = {"scores", "embeds", "retrieves"}  # capabilities of which each alone gives lists


def entrants(
    systems: Sequence[str | type] | None, data: Dataset, cases: Cases
) -> tuple[list[SystemInfo], dict[str, str]]:
    """Systems that can learn from the data and answer its cases; and why each other one cannot.

    Those that do without torch come first, and among them those that need least to answer: they are done soonest, and
    where time is short they should not have to wait.

    systems: names, perhaps with *, or classes; None: all that are registered
    """
    found: dict[str, SystemInfo] = {}
    left_out: dict[str, str] = {}
    given = cases.requests.given() | {"seeds", "candidates", "exclude"}
    for name, info in _asked(systems):
        if isinstance(info, str):
            left_out[name] = info
        elif missing := info.missing_from(data):
            left_out[name] = f"learns from {', '.join(sorted(missing))}, which the data does not carry"
        elif info.uses:
            left_out[name] = f"uses {', '.join(sorted(info.uses))}, which is not bound here"
        elif not LISTABLE & set(capabilities(info.cls)):
            left_out[name] = "gives no lists"
        elif lacking := info.needs - given:
            left_out[name] = f"needs {', '.join(sorted(lacking))} to answer, which the cases do not carry"
        else:
            found.setdefault(name, info)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"no system can be tried on {data.name}: {why or 'none was asked for'}")

    def weight(info: SystemInfo) -> tuple[bool, int]:
        return any(c.__module__.startswith("torch") for c in info.cls.__mro__), len(info.needs)

    return sorted(found.values(), key=weight), left_out


def facts(split: Split) -> tuple[str, ...]:
    """What there is to learn from, in words."""
    data, sizes = split.data, split.sizes
    known = {f"events.{name}" for name in EVENT_COLUMNS} - {"events.time", "events.value"}
    carried = sorted(name for name in split.train.carries() - known - {"events"} if ":" not in name)
    if len(carried) > SHOWN:
        carried = [*carried[:SHOWN], f"{len(carried) - SHOWN} more"]
    return (
        f"{data.name}: {data.n_users:,} users, {data.n_items:,} items, {data.n_events:,} events",
        f"split {split.name}: {sizes['train']:,} train, {sizes['valid']:,} valid, {sizes['test']:,} test",
        f"carries {', '.join(carried)}" if carried else "carries no columns beside users and items",
    )


def _asked(systems: Sequence[str | type] | None) -> Iterator[tuple[str, SystemInfo | str]]:
    """Systems by pattern or class; text in the place of one that cannot be opened."""
    for asked in ["*"] if systems is None else systems:
        if not isinstance(asked, str):
            yield info_of(asked).name, info_of(asked)
            continue
        matched = names(asked)
        if not matched:
            raise NotFound(f"no system matches {asked!r}", hint=nearest(asked, names()))
        for name in matched:
            try:
                yield name, find(name)
            except (TastemakerError, ImportError) as error:
                yield name, f"cannot be opened: {str(error).splitlines()[0]}"
