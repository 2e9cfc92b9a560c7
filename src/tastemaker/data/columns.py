"""Which column is the user, the item, the time: by name, else by content, else an error that lists what was seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

import polars as pl

from tastemaker.data.times import looks_like_time
from tastemaker.types import AVAILABLE, EVENT_COLUMNS, DataError, NotFound, nearest

Given = Mapping[str, str | Literal[False] | None]
"""Role -> the source's column, False where there is none, None where it is to be found out."""

# Role -> names in tiers: an earlier tier wins over a later one, two names of one tier are ambiguous.
# Names are compared in lower case without anything but letters and digits.
NAMES: dict[str, tuple[str, ...]] = {
    "user": (
        "user userid uid useridx",
        "reviewerid reviewer customerid customer visitorid visitor memberid member accountid account profileid "
        "personid userhash clientid client playerid username",
        "playlistid sessionid session",  # where nobody else is named, the session stands for the user
    ),
    "item": (
        "item itemid iid itemidx",
        "movieid movie parentasin productid product articleid article trackid track songid song bookid book isbn "
        "gameid game newsid news businessid videoid video appid app adid recipeid beerid animeid locationid venueid "
        "placeid poiid artistid artist docid sku bundleid jobid hotelid listingid",
        "asin albumid productcode contentid",
    ),
    "time": (
        "time timestamp",
        "unixreviewtime unixtimestamp unixtime datetime eventtime timestampms ts epoch",
        "date createdat created ratedat playedat reviewtime showtime clickedat visitedat occurredat eventdate",
        "step order pos seq sequence",
    ),
    "value": (
        "value rating",
        "score stars overall bookrating ratingvalue",
        "plays playcount listencount count cnt hours weight playtime watchtime watchratio watchpercent duration "
        "quantity relevance label liked",
    ),
    "kind": ("kind event eventtype behavior behaviour behaviortype action actiontype interactiontype eventname",),
    "query": ("query querytext searchquery searchterm",),
    "session": ("session sessionid",),
    "slate": ("slate slateid impressionid listid requestid",),
    "position": ("position slot rank showpos bannerpos",),
    "propensity": ("propensity propensityscore pscore",),
    "head": ("head headid h subject source sourceid from user1 entity1 user userid",),
    "relation": ("relation relationid r rel predicate relationship relationtype edgetype",),
    "tail": ("tail tailid t object target targetid to user2 entity2 friend friendid trusteeid",),
}
EVENT_ROLES = ("user", "item", "time", "value", "kind", "query", "session", "slate", "position", "propensity")
EDGE_ROLES = ("head", "relation", "tail")
MADE_UP = re.compile(r"(column_|col_?|c|v|f)?\d+")
SAMPLE = 1000


def plain(name: str) -> str:
    """A name in lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", name.lower())


_TIERS = {role: [frozenset(tier.split()) for tier in tiers] for role, tiers in NAMES.items()}
_KNOWN = frozenset().union(*(tier for tiers in _TIERS.values() for tier in tiers if tiers))


def known(name: str) -> bool:
    """Whether a word is the usual name of some column."""
    return len(plain(name)) > 1 and plain(name) in _KNOWN


def recognise(
    frame: pl.DataFrame,
    given: Given,
    *,
    named: bool,
    file: str | None,
    roles: Iterable[str] = EVENT_ROLES,
) -> dict[str, str]:
    """Role -> column of the source.

    What is given counts first, then usual names, then, where the source names nothing, the usual order
    (user, item, value, time; four columns at most) as far as the values agree with it.

    Raises DataError where the user or the item stays unknown or where two columns claim one role; the message lists
    the columns with values of each.
    """
    found: dict[str, str] = {}
    for role, name in given.items():
        if name and name not in frame.columns:
            raise NotFound(f"{file or 'the table'} has no column {name!r}", hint=nearest(name, frame.columns))
        if name:
            found[role] = name
    if twice := [name for name in found.values() if list(found.values()).count(name) > 1]:
        raise DataError(f"the column {twice[0]!r} is named for two roles: {found}")
    open_roles = [role for role in roles if role not in found and given.get(role) is not False]
    for role in open_roles:
        free = [name for name in frame.columns if name not in found.values()]
        for tier in _TIERS[role]:
            fitting = [name for name in free if plain(name) in tier]
            if len(fitting) > 1:
                raise _ambiguous(frame, file, role, fitting)
            if fitting:
                found[role] = fitting[0]
                break
    if frame.width <= 4 and (not named or all(MADE_UP.fullmatch(name.lower()) for name in frame.columns)):
        _by_place(frame, found, [role for role in open_roles if role not in found])
    for role in ("user", "item"):
        if role in roles and role not in found:
            raise _unknown(frame, file, role)
    if "time" in open_roles and "time" not in found:
        dated = [name for name in frame.columns if isinstance(frame[name].dtype, pl.Datetime)]
        if len(dated) > 1:
            raise _ambiguous(frame, file, "time", dated)
        found |= {"time": dated[0]} if dated else {}
    return found


def key_column(frame: pl.DataFrame, role: str, events_name: str | None, *, file: str | None) -> str:
    """The column of a users or items table that holds the ids; the name that the events use comes first."""
    if events_name in frame.columns:
        return events_name
    try:
        return recognise(frame, {}, named=True, file=file, roles=(role,))[role]
    except DataError as error:
        raise DataError(
            f"{file or f'the table of {role}s'}: no column holds the ids of {role}s. {listing(frame)}",
            hint=f"give the ids the same name as in the events: {events_name or role}",
        ) from error


def edge_columns(frame: pl.DataFrame, *, named: bool, file: str | None) -> dict[str, str]:
    """Source's column -> head, relation (where there is one) and tail."""
    if named and not all(MADE_UP.fullmatch(name.lower()) for name in frame.columns):
        found = recognise(frame, {}, named=True, file=file, roles=EDGE_ROLES)
        if "head" in found and "tail" in found:
            return {name: role for role, name in found.items()}
    elif frame.width in (2, 3):
        places = EDGE_ROLES if frame.width == 3 else ("head", "tail")
        return dict(zip(frame.columns, places, strict=True))
    raise DataError(
        f"{file or 'the table of edges'}: no columns for head and tail of an edge. {listing(frame)}",
        hint="rename them to head, relation and tail",
    )


def context_name(name: str, taken: Iterable[str]) -> str:
    """The name of a further column; one that would be read as something else is set apart."""
    reserved = {*EVENT_COLUMNS, AVAILABLE, *taken}
    return f"source_{name}" if name in reserved else name


def listing(frame: pl.DataFrame) -> str:
    """The columns of a table, each with its type and its first values."""
    parts = []
    for name in frame.columns[:20]:
        shown = [str(value)[:20] for value in frame[name].drop_nulls().head(3).to_list()]
        parts.append(f"{name} ({frame[name].dtype}: {', '.join(shown)})")
    more = f", and {frame.width - 20} more" if frame.width > 20 else ""
    return f"It has the columns {'; '.join(parts)}{more}"


def _by_place(frame: pl.DataFrame, found: dict[str, str], open_roles: list[str]) -> None:
    """Fill roles from the order of columns: user, item, then a value and a time in whichever order fits."""
    free = [name for name in frame.columns if name not in found.values()]
    for role in ("user", "item"):
        if role in open_roles and free:
            found[role] = free.pop(0)
    for name in free[:2]:
        sample = frame[name].drop_nulls().head(SAMPLE)
        if "time" in open_roles and "time" not in found and looks_like_time(sample):
            found["time"] = name
        elif "value" in open_roles and "value" not in found and _all_numbers(sample):
            found["value"] = name


def _all_numbers(sample: pl.Series) -> bool:
    return len(sample) > 0 and sample.cast(pl.Float64, strict=False).null_count() == 0


def _ambiguous(frame: pl.DataFrame, file: str | None, role: str, fitting: list[str]) -> DataError:
    return DataError(
        f"{file or 'the table'}: more than one column may be the {role}: {', '.join(fitting)}. {listing(frame)}",
        hint=f"name it: {_saying(role, fitting[0])}",
    )


def _unknown(frame: pl.DataFrame, file: str | None, role: str) -> DataError:
    return DataError(
        f"{file or 'the table'}: no column is recognised as the {role}. {listing(frame)}",
        hint=f"name it: {_saying(role, '...')}",
    )


def _saying(role: str, name: str) -> str:
    """How the caller names a column."""
    if role in ("user", "item"):
        return f"{role}={name!r}, on the command line --{role} {name}"
    if role in ("time", "value", "kind"):
        return f"{role}={name!r} (or {role}=False: there is none), on the command line --{role} {name}"
    return f"columns={{{name!r}: {role!r}}}"
