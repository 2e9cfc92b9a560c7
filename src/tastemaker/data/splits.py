"""Splits: what a system may learn from, what chooses between systems, what judges them.

    parts = split(data, "leave-one-out")
    parts = split(data, "ratio:0.8,0.1,0.1", seed=3)        # the same as ratio(data, [0.8, 0.1, 0.1], seed=3)
    parts = split(data, "session:1,ask=next", valid=False)  # settings in the text, by name, or both

Parts are dealt out among choices; impressions and searches go where their user's next choice goes and are never
targets. Chance depends on the seed and on who, what and when of an event, not on the order of rows. A split that
lets a system see what happened after the events it is tested on says so, and says how much, in `warnings`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from tastemaker.data.choices import TEST, TRAIN, VALID, Log, foresight, own_later
from tastemaker.data.dealing import deal, deal_all
from tastemaker.data.split_parts import Cuts, by_cuts, find_cuts, hold_out, last_of, named_parts, sessions
from tastemaker.data.split_settings import (
    listed,
    one_of,
    plain,
    read_text,
    rounded_down,
    share_of,
    shares_of,
    whole,
    write_text,
)
from tastemaker.types import Dataset, NotFound, Split, UsageError, generator, nearest
from tastemaker.types.split import Shown

NO_KEYS = np.empty(0, np.uint64)
By = Literal["random", "time"]
Ask = Literal["session", "next"]


class How(TypedDict, total=False):
    """What every split can be told besides: see `Split`; a history of None leaves it to the kind of split."""

    history: Shown | None
    repeats: bool


def leave_one_out(data: Dataset, *, valid: bool = True, seed: int = 0, **how: Unpack[How]) -> Split:
    """Each user's last choice is test and, with `valid`, the one before it valid.

    Equal times keep the order of the events. Users with too few choices to leave one for training stay in it whole.
    """
    return _leave(data, "leave-one-out", 1, {"valid": bool(valid)}, how)


def leave_k(data: Dataset, k: int = 1, *, valid: bool = True, seed: int = 0, **how: Unpack[How]) -> Split:
    """Each user's last `k` choices are test and, with `valid`, the `k` before them valid; else as `leave_one_out`."""
    return _leave(data, "leave-k", whole("leave-k", k, 1), {"k": k, "valid": bool(valid)}, how)


def ratio(
    data: Dataset,
    shares: float | Sequence[float] = (0.8, 0.1, 0.1),
    *,
    by: By = "random",
    seed: int = 0,
    **how: Unpack[How],
) -> Split:
    """A share of each user's choices to each part, random ones or by time the latest; held-out numbers round down.

    `shares` are those of train, valid and test, or that of train alone where nothing is to be valid.
    """
    log = Log.of(data)
    one_of("ratio", "by", by, By)
    if by == "time" and not data.has_time:
        raise UsageError(f"{data.name} has no times to split by", hint="take by=random")
    valid, test = shares_of("ratio", shares)
    keys = log.keys(generator(seed, "split", "ratio")) if by == "random" else NO_KEYS
    part = deal(log.counts, rounded_down(log.counts, test), rounded_down(log.counts, valid), keys)
    settings = {"shares": plain(shares), "by": by, "seed": seed}
    return _made(data, log, "ratio", settings, log.spread(part), how, shown="known" if by == "time" else "train")


def random(
    data: Dataset, shares: float | Sequence[float] = (0.8, 0.1, 0.1), *, seed: int = 0, **how: Unpack[How]
) -> Split:
    """A random share of all choices to each part, whoever made them; `shares` as of `ratio`."""
    log = Log.of(data)
    valid, test = shares_of("random", shares)
    n = len(log.users)
    n_test, n_valid = int(rounded_down(n, test)), int(rounded_down(n, valid))
    group = deal_all(log.keys(generator(seed, "split", "random")), np.array([n_test, n_test + n_valid]))
    part = np.array([TEST, VALID, TRAIN], np.int8)[group]
    return _made(data, log, "random", {"shares": plain(shares), "seed": seed}, log.spread(part), how)


def time(data: Dataset, at: Any = 0.8, *, seed: int = 0, **how: Unpack[How]) -> Split:
    """One point in time for everybody: training knows nothing of what came after, users and items included.

    `at` is where test begins: a date ("2015-01-01"), a time in the dataset's unit, or the share of choices that lie
    before it. Two times say where valid begins and where test begins; three shares are those of train, valid, test.
    """
    if not data.has_time:
        raise UsageError(f"{data.name} has no times to split by", hint="a random split needs none: ratio:0.8,0.1,0.1")
    log = Log.of(data)
    cuts = find_cuts(data, log, at)
    part = by_cuts(data.events["time"].to_numpy(), cuts)
    if (begin := min(cut for cut in cuts if cut is not None)) <= (first := log.times.min()):
        raise UsageError(
            f"nothing to learn from lies before {_date(data, begin)}: {data.name} begins {_date(data, first)}"
        )
    return _made(data, log, "time", {"at": plain(at)}, part, how, shown="known", cuts=cuts)


def session(
    data: Dataset,
    last: int | float = 1,
    *,
    ask: Ask = "session",
    valid: bool = True,
    gap: float | None = None,
    seed: int = 0,
    **how: Unpack[How],
) -> Split:
    """Whole sessions are held out, and each is a case, so that a user may have several.

    Args:
        last: how many of each user's last sessions are test; or, below 1, the share of all sessions, the latest
            by their start, with one cut in time for everybody as in `time`.
        ask: for all items of the "session" before it begins, or for its last one, the others shown ("next").
        valid: hold out as many sessions again before those.
        gap: minutes without a choice that end a session, for data without a column "session".
    """
    log = Log.of(data)
    one_of("session", "ask", ask, Ask)
    of_row, first, final = sessions(data, log, gap)
    cuts: Cuts = (None, None)
    if isinstance(last, float) and 0 < last < 1:
        if not data.has_time:
            raise UsageError(f"{data.name} has no times to tell the latest sessions by", hint="give a whole number")
        starts = log.times[first]
        n_test = max(1, int(rounded_down(len(starts), last)))
        latest = np.sort(starts)[::-1]
        many = [n_test, min(2 * n_test, len(latest))]
        cuts = int(latest[many[1] - 1]) if valid else None, int(latest[many[0] - 1])
        held = by_cuts(starts, cuts)
    else:
        k = whole("session", last, 1)
        counts = np.bincount(log.users[first], minlength=data.n_users)
        held = deal(counts, *last_of(counts, k, valid), NO_KEYS)
    asked = None
    if ask == "next":
        asked = np.zeros(data.n_events, np.bool_)
        asked[log.at(final)] = True
    case = np.full(data.n_events, -1, np.int64)
    case[log.at(slice(None))] = of_row
    part = log.spread(held[of_row])
    settings = {"last": last, "ask": ask, "valid": valid, **({} if gap is None else {"gap": gap})}
    return _made(data, log, "session", settings, part, how, shown="known", cuts=cuts, case=case, asked=asked)


def cold_user(
    data: Dataset,
    share: float = 0.1,
    *,
    valid: float = 0.0,
    shown: float | int = 0.8,
    by: By | None = None,
    seed: int = 0,
    **how: Unpack[How],
) -> Split:
    """Random users are held out whole, a share of them; some of each one's choices are shown, the others asked for.

    Args:
        share, valid: how many users are test, how many valid.
        shown: share of a held-out user's choices that is shown, at least one and never all; or their number.
        by: whether the first ones in "time" are shown or "random" ones; default: time where there are times.
    """
    log = Log.of(data)
    by = by or ("time" if data.has_time else "random")
    one_of("cold-user", "by", by, By)
    number = isinstance(shown, int) and whole("cold-user", shown, 1)
    n_asked = (
        log.counts - number if number else np.maximum(1, rounded_down(log.counts, 1 - share_of("cold-user", shown)))
    )
    n_asked = np.clip(n_asked, 0, np.maximum(log.counts - 1, 0))
    rng = generator(seed, "split", "cold-user")
    owner = hold_out("cold-user", np.flatnonzero(n_asked), data.n_users, share, valid, rng)
    asked_too = deal(log.counts, np.where(owner > TRAIN, n_asked, 0), np.zeros_like(n_asked),
                     log.keys(rng) if by == "random" else NO_KEYS)  # fmt: skip
    asked = np.zeros(data.n_events, np.bool_)
    asked[log.at(asked_too == TEST)] = True
    settings = {"share": share, "valid": valid, "shown": shown, "by": by, "seed": seed}
    part = owner[data.events["user"].to_numpy()]
    return _made(data, log, "cold-user", settings, part, how, asked=asked)


def cold_item(data: Dataset, share: float = 0.1, *, valid: float = 0.0, seed: int = 0, **how: Unpack[How]) -> Split:
    """Random items are held out whole, a share of them: no event of theirs is learnt from, all their choices are test.

    Args:
        share, valid: how many items are test, how many valid.
    """
    log = Log.of(data)
    candidates = np.flatnonzero(np.bincount(log.items, minlength=data.n_items))
    rng = generator(seed, "split", "cold-item")
    owner = hold_out("cold-item", candidates, data.n_items, share, valid, rng)
    part = log.spread(owner[log.items])
    named = data.events["item"].is_not_null().to_numpy()
    part[named] = owner[data.events["item"].drop_nulls().to_numpy()]
    return _made(data, log, "cold-item", {"share": share, "valid": valid, "seed": seed}, part, how)


def k_fold(
    data: Dataset, k: int = 5, *, fold: int = 0, valid: bool = False, seed: int = 0, **how: Unpack[How]
) -> Split:
    """Fold `fold` (from 0) of `k` random equal parts of all choices is test and, with `valid`, the next one valid."""
    log = Log.of(data)
    if not 2 + valid <= whole("k-fold", k, 2) <= 100:
        raise UsageError(f"k-fold makes {2 + valid} to 100 folds, got {k}")
    if not 0 <= whole("k-fold", fold, 0) < k:
        raise UsageError(f"the folds of k-fold:{k} are numbered from 0 to {k - 1}, got {fold}")
    bounds = np.arange(1, k) * len(log.users) // k
    group = deal_all(log.keys(generator(seed, "split", "k-fold")), bounds)
    part = np.where(group == fold, TEST, np.where(valid & (group == (fold + 1) % k), VALID, TRAIN)).astype(np.int8)
    settings = {"k": k, "fold": fold, "valid": valid, "seed": seed}
    return _made(data, log, "k-fold", settings, log.spread(part), how)


def column(
    data: Dataset,
    name: str = "split",
    *,
    test: Any = None,
    valid: Any = None,
    seed: int = 0,
    **how: Unpack[How],
) -> Split:
    """The parts a column of the events names, as published splits do; a row without a value is in no part.

    Args:
        name: of the column: train, valid and test (or usual other words), or True for test.
        test: the value, or values, of test rows; all other rows are training. For columns of folds, as test=3.
        valid: the value, or values, of valid rows; or, between 0 and 1, a share carved at random out of each
            user's training choices, rounded down.
    """
    if name not in data.events.columns:
        raise NotFound(f"the events of {data.name} have no column {name!r}", hint=nearest(name, data.events.columns))
    log = Log.of(data)
    carved = isinstance(valid, float) and 0 < valid < 1
    part = named_parts(data, name, test, None if carved else valid)
    if carved:
        rows = np.flatnonzero(part[log.at(slice(None))] == TRAIN)
        counts = np.bincount(log.users[rows], minlength=data.n_users)
        keys = log.keys(generator(seed, "split", "column"))[rows]
        part[log.at(rows)] = deal(counts, np.zeros_like(counts), rounded_down(counts, valid), keys)
    settings = {"name": name, "test": test, "valid": valid, **({"seed": seed} if carved else {})}
    kept = {key: plain(value) for key, value in settings.items() if value is not None}
    ordered = data.has_time and own_later(log, part[log.at(slice(None))], None, (TRAIN, VALID)) == 0
    return _made(data, log, "column", kept, part, how, shown="known" if ordered else "train")


def holdout(data: Dataset | Split, kind: str | None = None, *, seed: int = 0, **settings: Any) -> Split:
    """Hold out part of the training data alone, to choose or to learn by: `train` and "valid", no test.

    `data` is what a system was given to learn from, or a split, of which the training part is taken. What `kind`
    would make valid or test is valid. Default: each user's last choice, or without times a tenth of each user's.
    """
    data = data.train if isinstance(data, Split) else data
    kind = kind or ("leave-one-out" if data.has_time else "ratio:0.9")
    defaults = {"valid": False} if kind.startswith(("leave-", "session")) and "valid" not in kind else {}
    inner = split(data, kind, seed=seed, **{**defaults, **settings})
    part = np.where(inner.part == TEST, VALID, inner.part).astype(np.int8)
    return replace(inner, name=f"holdout {inner.name}", part=part)


KINDS: Mapping[str, Callable[..., Split]] = {
    "leave-one-out": leave_one_out,
    "leave-k": leave_k,
    "ratio": ratio,
    "random": random,
    "time": time,
    "session": session,
    "cold-user": cold_user,
    "cold-item": cold_item,
    "k-fold": k_fold,
    "column": column,
}
"""Kinds of split by name."""


def split(data: Dataset, kind: str, *, seed: int = 0, **settings: Any) -> Split:
    """Split a dataset by a kind of `KINDS` and its settings, which may be written after it.

    "time:0.8" gives the kind's first setting, "ratio:0.8,0.1,0.1" a list of values, "k-fold:5,fold=2" further ones
    by name. `split(data, **parts.spec)` makes a split again.

    Raises:
        NotFound: there is no such kind, or no such setting of it.
        UsageError: a value does not fit, or a part would be empty that must not be.
    """
    name, written = parse(kind)
    given = {"seed": seed, **written, **settings}
    known = [*_settings(name), "seed", *How.__annotations__]
    if unknown := [key for key in given if key not in known]:
        raise NotFound(f"the split {name} has no setting {unknown[0]!r}", hint=nearest(unknown[0], known))
    return KINDS[name](data, **given)


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The kind and the settings that a text says: numbers and true or false as such, all else as text."""
    kind, values, named = read_text(text)
    if kind not in KINDS:
        raise NotFound(f"there is no split {kind!r}", hint=nearest(kind, KINDS))
    if values:
        first = next(iter(_settings(kind).values()))
        if first.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise UsageError(f"the split {kind} takes settings by name only, got {values[0]!r}")
        named = {first.name: values[0] if len(values) == 1 else values, **named}
    return kind, named


def _made(
    data: Dataset,
    log: Log,
    kind: str,
    settings: Mapping[str, Any],
    part: NDArray[np.int8],
    how: How,
    *,
    shown: Shown = "train",
    cuts: Cuts = (None, None),
    case: NDArray[np.int64] | None = None,
    asked: NDArray[np.bool_] | None = None,
) -> Split:
    """The split of these parts, checked, with its name and its warnings."""
    cut = min((at for at in cuts if at is not None), default=None)
    if cut is not None:  # what goes on after its own part has ended (a session that began earlier) is in none
        part[part < by_cuts(data.events["time"].to_numpy(), cuts)] = -1
    history = how.get("history") or shown
    spec = {"kind": kind, **settings, "history": history, "repeats": bool(how.get("repeats", False))}
    chosen = part[log.at(slice(None))]
    name = _text(kind, spec, shown)
    for empty, wanted in (("learn from", chosen == TRAIN), ("hold out", chosen > TRAIN)):
        if not wanted.any():
            raise UsageError(
                f"the split {name} leaves nothing to {empty} in {data.name}: {len(chosen):,} choices of "
                f"{np.count_nonzero(log.counts):,} users",
                hint="ask for other shares, or filter users with few choices out",
            )
    made = Split(name, data, part, spec, cut, history, (), spec["repeats"], case, asked)
    return replace(made, warnings=tuple(foresight(made, log)))


# -- helpers of the kinds


def _leave(data: Dataset, kind: str, k: int, settings: dict[str, Any], how: How) -> Split:
    log = Log.of(data)
    part = deal(log.counts, *last_of(log.counts, k, settings["valid"]), NO_KEYS)
    return _made(data, log, kind, settings, log.spread(part), how, shown="known")


def _settings(kind: str) -> dict[str, inspect.Parameter]:
    """The settings of a kind, in order, without those that every kind has."""
    every = inspect.signature(KINDS[kind]).parameters
    return {name: p for name, p in every.items() if name not in ("data", "seed", "how")}


def _text(kind: str, spec: Mapping[str, Any], shown: Shown) -> str:
    """A split in short, as `parse` reads it: settings at their default are left out."""
    values: list[Any] = []
    named: dict[str, Any] = {}
    for key, about in _settings(kind).items():
        value = spec.get(key, about.default)
        if about.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            values = listed(value)
        elif value != about.default:
            named[key] = value
    common = {"seed": 0, "history": shown, "repeats": False}
    named |= {key: spec[key] for key, default in common.items() if spec.get(key, default) != default}
    return write_text(kind, values, named)


def _date(data: Dataset, at: int) -> str:
    if data.time_unit != "us":
        return str(at)
    return str(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(at)))
