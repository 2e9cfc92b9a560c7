"""The embedded planner: a chat model by rules over a catalogue, which needs no key and sends nothing anywhere.

    chat = Planner(catalogue)                                       # a Polars table, one row an item
    chat.run("plan", PlanAsked(text="a comedy from the nineties, nothing like Heat"), Plan)

It reads what a person says (`reading.py`), keeps the wishes of the turns before for as long as they are not taken
back, and answers the tasks of `language/tasks.py`: a plan, the words of a reply, a verdict (always good: it has no
second opinion), and what a dialogue tells of a person. It says what it is when asked. The same question always gets the
same answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import polars as pl

from tastemaker.language.planner.lexicon import Facet, Flags, Lexicon
from tastemaker.language.planner.lookup import asked_columns, is_question
from tastemaker.language.planner.measures import Relative
from tastemaker.language.planner.phrases import ASKS, ORDINARY
from tastemaker.language.planner.predicates import (
    LONGEST_WHERE,
    Condition,
    Size,
    bound,
    flag,
    not_titled,
    one_of,
    with_words,
)
from tastemaker.language.planner.reading import LONGEST, Reader, Reading, Role, Value
from tastemaker.language.planner.replies import GREETING, HELP, IDENTITY, MORE, THANKS, UNCLEAR, WELCOME, worded
from tastemaker.language.tasks import (
    HardFilter,
    Judged,
    LookUp,
    Named,
    NextStep,
    Plan,
    PlanAsked,
    Profile,
    ProfileAsked,
    Ranking,
    Reply,
    ReplyAsked,
    Show,
    SoftFilter,
    Step,
    StepAsked,
    Turn,
    Verdict,
)
from tastemaker.types import Kind, NotFound, UsageError, nearest

S = TypeVar("S")
_LISTED = re.compile(r";|\d{1,3}\.\s")  # between the titles of a list, as systems write it down
VERSION = 1
SHOWN = 5  # items shown where nobody says how many
TURNS = 24  # turns of a dialogue that are looked back at
MOST = 24  # titles in a role that a plan names
ENOUGH = 60  # candidates that need no narrowing by likeness
SHARE, WIDE_SHARE = 0.05, 0.2  # of the catalogue that counts as alike: alone, and beside other wishes


@dataclass(frozen=True)
class Wishes:
    """What a person wants by now: conditions by what they are about, the latest last; and titles in their roles."""

    conditions: Mapping[str, Condition] = field(default_factory=dict)
    liked: tuple[str, ...] = ()
    fresh_likes: tuple[str, ...] = ()  # of the last turn
    seen: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()  # in lists before the last


class Planner:
    """A `ChatModel` by rules.

    Args:
        catalogue: a row an item.
        title: the column of their names; None: found out.
        kinds: of columns, where they are declared.
    """

    def __init__(
        self, catalogue: pl.DataFrame, *, title: str | None = None, kinds: Mapping[str, Kind] | None = None
    ) -> None:
        self.lexicon = Lexicon(catalogue, title=title, kinds=kinds)
        self.lexicon.with_word("")  # words of texts are indexed now, not while somebody waits
        self.reader = Reader(self.lexicon)
        self._tasks: dict[str, tuple[type, type, Callable[[Any], Any]]] = {
            "plan": (PlanAsked, Plan, self.plan),
            "reply": (ReplyAsked, Reply, self.reply),
            "step": (StepAsked, NextStep, self.step),
            "critic": (Judged, Verdict, lambda given: Verdict(good=True)),
            "profile": (ProfileAsked, Profile, self.profile),
        }

    @cached_property
    def identity(self) -> str:
        """Name, version, and a hash of the catalogue's titles and columns."""
        total = hashlib.blake2b(digest_size=8)
        for name in self.lexicon.names:
            total.update(name.encode("utf-8", "replace") + b"\0")
        for facet in self.lexicon.facets:
            total.update(repr((facet.name, facet.kind, facet.values)).encode("utf-8", "replace"))
            total.update(b"" if facet.numbers is None else facet.numbers.tobytes())
        return f"planner-{VERSION}-{total.hexdigest()}"

    def run(self, task: str, given: Any, wanted: type[S]) -> S:
        if task not in self._tasks:
            raise NotFound(f"the embedded planner has no task {task!r}", hint=nearest(task, self._tasks))
        takes, gives, answer = self._tasks[task]
        if not isinstance(given, takes) or wanted is not gives:
            raise UsageError(
                f"the task {task!r} takes {takes.__name__} and gives {gives.__name__}, "
                f"got {type(given).__name__} and {getattr(wanted, '__name__', wanted)}"
            )
        done: S = answer(given)
        return done

    # -- the tasks

    def plan(self, given: PlanAsked) -> Plan:
        """The steps that answer the last message."""
        reading = self.reader.read(given.text)
        said = {"identity": IDENTITY, "help": self._help(), "thanks": THANKS, "bye": THANKS, "accept": WELCOME}
        if reading.intent in said:
            return Plan(answer=said[reading.intent])
        before, lists = self._before(given)
        shown = given.shown or (lists[-1] if lists else ())
        if reading.intent == "greeting":
            return Plan(answer=GREETING)
        if is_question(reading) and (found := self._look_up(reading, shown, lists)):
            return Plan(steps=(found,))
        if reading.count and not reading.titles:
            wishes = self._with(Wishes(), reading, shown)
            return Plan(steps=(LookUp(where=_all(self._where(wishes)[0])),))
        named = self._titles(reading, "named", shown) if not reading.values else ()
        if named and not reading.bounds:
            return Plan(steps=(Named(names=named[:MOST]), Show(k=min(100, reading.k or len(named)))))
        wishes = self._with(before, reading, shown)
        wordy = (reading.tokens and not reading.empty) or reading.other or reading.popular or reading.anew
        if not wordy and not _asks(reading):
            words = self._free_words(reading)
            if words is not None:
                wishes = replace(wishes, conditions={**wishes.conditions, "words": words})
            elif not (wishes.conditions or wishes.liked) or len(reading.tokens) > 12:
                small = all(word.text in ORDINARY for word in reading.tokens if word.is_word) and reading.tokens
                return Plan(answer=(MORE if small else UNCLEAR).format(example=self._example()))
        return Plan(steps=self._steps(wishes, reading, given.profile, shown))

    def step(self, given: StepAsked) -> NextStep:
        """The step of the plan that comes after those already done."""
        whole = self.plan(PlanAsked(**{name: getattr(given, name) for name in PlanAsked.model_fields}))
        left = whole.steps[len(given.trace) :]
        return NextStep(step=left[0]) if left else NextStep(answer=whole.answer)

    def reply(self, given: ReplyAsked) -> Reply:
        """Words for what the tools did."""
        return Reply(text=worded(given))

    def profile(self, given: ProfileAsked) -> Profile:
        """What these turns add: titles known, liked and unwanted, and values liked and unwanted."""
        wishes, _ = self._through(given.turns)
        liked, unwanted = list(wishes.liked), list(wishes.refused)
        for condition in wishes.conditions.values():
            if condition.words:
                (liked if condition.wanted else unwanted).extend(condition.words)
        known = given.profile
        return Profile(
            history=tuple(name for name in dict.fromkeys(wishes.seen) if name not in known.history),
            liked=tuple(name for name in dict.fromkeys(liked) if name not in known.liked),
            unwanted=tuple(name for name in dict.fromkeys(unwanted) if name not in known.unwanted),
        )

    # -- what was said before

    def _before(self, given: PlanAsked) -> tuple[Wishes, list[tuple[str, ...]]]:
        turns = list(given.dialogue)
        if turns and turns[-1].who == "person" and turns[-1].text == given.text:
            turns.pop()
        return self._through(turns)

    def _through(self, turns: Sequence[Turn]) -> tuple[Wishes, list[tuple[str, ...]]]:
        """Wishes after these turns, and the lists that the system showed, by the titles it named."""
        wishes, lists = Wishes(), list[tuple[str, ...]]()
        for turn in turns[-TURNS:]:
            reading = self.reader.read(turn.text)
            if turn.who == "system":
                pieces = (piece.strip() for piece in _LISTED.split(turn.text[:LONGEST]))
                listed = tuple(piece for piece in pieces if piece in self._row_of)
                lists.append(listed or tuple(self.lexicon.names[title.rows[0]] for title in reading.titles))
                wishes = replace(wishes, shown=tuple(dict.fromkeys((*wishes.shown, *lists[-1]))))
            elif reading.intent == "wish" and not is_question(reading) and not reading.count:
                wishes = self._with(wishes, reading, lists[-1] if lists else ())
        return wishes, lists

    def _with(self, wishes: Wishes, reading: Reading, shown: Sequence[str]) -> Wishes:
        """Wishes with what a message adds, changes and takes back."""
        if reading.anew:
            wishes = replace(wishes, conditions={}, liked=())
        conditions = dict(wishes.conditions)
        for condition in self._conditions(reading, shown, wishes):
            for key in condition.replaces:
                conditions.pop(key, None)
            conditions.pop(condition.key, None)
            conditions[condition.key] = condition
        liked = self._titles(reading, "like", shown)
        seen, refused = self._titles(reading, "seen", shown), self._titles(reading, "refuse", shown)
        if not reading.count and not is_question(reading):
            liked += self._titles(reading, "plain", shown)
        gone = set(seen) | set(refused)
        return replace(
            wishes,
            conditions=conditions,
            liked=tuple(dict.fromkeys(name for name in (*wishes.liked, *liked) if name not in refused))[-MOST:],
            fresh_likes=tuple(name for name in liked if name not in refused),
            seen=tuple(dict.fromkeys((*wishes.seen, *seen)))[-MOST:],
            refused=tuple(
                dict.fromkeys(name for name in (*wishes.refused, *refused) if name in gone or name not in liked)
            )[-MOST:],
        )

    def _titles(self, reading: Reading, role: Role, shown: Sequence[str]) -> tuple[str, ...]:
        """Titles in a role, those that the last list is pointed at for included."""
        found = [self.lexicon.names[title.rows[0]] for title in reading.titles if title.role == role]
        for ref in reading.refs:
            if ref.role == role and (role != "plain" or ref.places):
                places = ref.places or range(len(shown))
                found += [shown[place] for place in places if -len(shown) <= place < len(shown)]
        return tuple(dict.fromkeys(found))

    # -- conditions

    def _conditions(self, reading: Reading, shown: Sequence[str], wishes: Wishes) -> list[Condition]:
        """What a message demands of an item."""
        lexicon = self.lexicon
        found: list[Condition] = []
        groups: list[list[Value]] = []
        for value in reading.values:  # "comedies or dramas" is one condition
            facet = lexicon.facets[value.options[0][0]]
            last = groups[-1] if groups else []
            joins = bool(last) and last[-1].wanted and value.wanted and (value.either or facet.kind == "value")
            if joins and lexicon.facets[last[-1].options[0][0]].name == facet.name:
                last.append(value)
            else:
                groups.append([value])
        for group in groups:
            found.append(one_of(lexicon, [one for value in group for one in value.options], wanted=group[0].wanted))
        found = self._together(found, wishes)
        found += [flag(lexicon.by_name[one.facet], one.wanted) for one in reading.flags]
        for word in reading.words:
            found.append(with_words(lexicon, (word.text,), wanted=word.wanted))
        found += [bound(lexicon.by_name[one.facet], one.sign, one.number) for one in reading.bounds]
        told = {one.facet for one in reading.bounds}
        for relative in reading.relatives:
            if relative.facet not in told and (made := self._compared(relative, reading, shown)) is not None:
                found.append(made)
        return found

    def _together(self, fresh: Sequence[Condition], wishes: Wishes) -> list[Condition]:
        """Of a column several values that no item has together are meant as one or the other; new ones replace old."""
        done: list[Condition] = []
        for condition in fresh:
            facet = self.lexicon.by_name[condition.column]
            others = [one for one in done if one.column == condition.column and one.wanted and condition.wanted]
            if others and not (condition.mask & others[-1].mask).any():
                done.remove(others[-1])
                condition = one_of(self.lexicon, [*others[-1].options, *condition.options], wanted=True)
            elif condition.wanted:
                clash = [
                    key
                    for key, old in wishes.conditions.items()
                    if old.column == condition.column
                    and old.options
                    and (facet.kind == "value" if old.wanted else set(old.options) & set(condition.options))
                ]
                clash += [
                    key
                    for key, old in wishes.conditions.items()
                    if old.column == condition.column and old.wanted and not (old.mask & condition.mask).any()
                ]
                condition = replace(condition, replaces=tuple(dict.fromkeys(clash)))
            else:
                clash = [
                    k
                    for k, old in wishes.conditions.items()
                    if old.wanted and set(old.options) & set(condition.options)
                ]
                condition = replace(condition, replaces=tuple(clash))
            done.append(condition)
        return done

    def _compared(self, relative: Relative, reading: Reading, shown: Sequence[str]) -> Condition | None:
        """A comparison as a bound: with what it names, with the last list, or with the whole catalogue."""
        facet = self.lexicon.by_name[relative.facet]
        than = self._titles(reading, "than", shown)
        if relative.comparative and not than:  # "more like the second, but cheaper": than the second
            than = self._titles(reading, "like", shown) if reading.refs else ()
        against = than or (tuple(shown) if relative.comparative and not relative.far else ())
        known = self._numbers(facet, against)
        if len(known):
            return bound(facet, ">" if relative.more else "<", float(np.median(known)))
        share = 0.1 if relative.far else 0.3
        limit = facet.quantile(1 - share if relative.more else share)
        return None if np.isnan(limit) else bound(facet, ">=" if relative.more else "<=", limit)

    def _numbers(self, facet: Facet, titles: Sequence[str]) -> np.ndarray[Any, Any]:
        if facet.numbers is None:
            return np.empty(0)
        rows = [self._row_of[title] for title in titles if title in self._row_of]
        known = facet.numbers[rows]
        return np.asarray(known[~np.isnan(known)])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in reversed(list(enumerate(self.lexicon.names)))}

    def _free_words(self, reading: Reading) -> Condition | None:
        """Where nothing else was understood: words of it that some, but not most, texts of the catalogue have."""
        found = [
            word.text
            for word in reading.tokens
            if word.text.isalpha()
            and len(word.text) > 3
            and word.text not in ORDINARY
            and 0 < len(self.lexicon.with_word(word.text)) < 0.2 * self.lexicon.n_items
        ]
        return with_words(self.lexicon, tuple(dict.fromkeys(found))[:3], wanted=True) if found else None

    # -- steps

    def _where(self, wishes: Wishes) -> tuple[list[str], Flags]:
        """Predicates of all conditions that some item meets together, the latest kept before the older ones."""
        mask = np.ones(self.lexicon.n_items, dtype=np.bool_)
        kept: list[Condition] = []
        whole = Size()
        for condition in reversed(list(wishes.conditions.values())):
            fits, longer = mask & condition.mask, whole + condition.size
            if fits.any() and longer.allowed:
                mask, whole = fits, longer
                kept.append(condition)
        if not kept and wishes.conditions:  # nothing in the catalogue is so: the last wish is asked for as it is
            kept, mask = [list(wishes.conditions.values())[-1]], list(wishes.conditions.values())[-1].mask
        return [one.where for one in reversed(kept) if one.size.allowed], mask

    def _steps(self, wishes: Wishes, reading: Reading, profile: Profile, shown: Sequence[str]) -> tuple[Step, ...]:
        steps: list[Step] = []
        gone = tuple(dict.fromkeys((*wishes.seen, *wishes.refused, *self._titled(profile.unwanted))))[-MOST:]
        for text in profile.unwanted:  # what a profile does not want, unless it is wanted now
            for value in self.reader.read(text).values if text not in self._row_of else ():
                condition = one_of(self.lexicon, value.options, wanted=False)
                asked = any(set(old.options) & set(condition.options) for old in wishes.conditions.values())
                if not asked:
                    wishes = replace(wishes, conditions={condition.key: condition, **wishes.conditions})
        where, mask = self._where(wishes)
        titles = not_titled(self.lexicon, gone, LONGEST_WHERE - len(_all(where)))
        if where or titles:
            steps.append(HardFilter(where=_all([*where, *([titles] if titles else [])])))
        left = int(np.count_nonzero(mask))
        alike = tuple(name for name in (wishes.fresh_likes or wishes.liked) if name not in wishes.refused)[-MOST:]
        narrow = bool(alike) and left > ENOUGH
        if narrow:
            steps.append(SoftFilter(like=alike, share=WIDE_SHARE if where else SHARE))
        rows = [self._row_of[name] for name in (*wishes.shown, *shown) if name in self._row_of]
        others = left > int(np.count_nonzero(mask[np.unique(rows)])) if rows else False
        unwanted = tuple(dict.fromkeys((*wishes.shown, *shown, *gone) if others else gone))[-100:]
        prefer = tuple(dict.fromkeys((*self._titled(profile.liked), *wishes.liked)))[-MOST:]
        if reading.popular and not alike:
            ranking = Ranking(by="popularity", unwanted=unwanted)
        elif narrow and not profile.history and not profile.liked:
            ranking = Ranking(by="similarity", unwanted=unwanted)
        elif prefer or profile.history:
            ranking = Ranking(by="preference", prefer=prefer, unwanted=unwanted)
        else:
            ranking = Ranking(by="popularity", unwanted=unwanted)
        return (*steps, ranking, Show(k=min(100, reading.k or SHOWN)))

    def _titled(self, texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in texts if text in self._row_of)

    def _look_up(self, reading: Reading, shown: Sequence[str], lists: Sequence[Sequence[str]]) -> LookUp | None:
        """Facts of what is named, pointed at, or, for "it", of what was shown first; None: nothing is asked of."""
        roles: tuple[Role, ...] = ("plain", "named", "like", "seen")
        named = tuple(dict.fromkeys(name for role in roles for name in self._titles(reading, role, shown)))
        plain = {word.text for word in reading.tokens}
        if not named and shown and plain & {"it", "that", "this", "he", "she"} and len(reading.tokens) <= 10:
            named = tuple(shown[:1])
        columns = asked_columns(reading, self.lexicon)
        if not named or (not columns and not plain & {"about", "tell", "describe", "details", "info", "information"}):
            return None
        return LookUp(names=named[:MOST], columns=columns)

    # -- words

    def _help(self) -> str:
        names = [facet.name.replace("_", " ") for facet in self.lexicon.facets][:8]
        return HELP.format(columns=", ".join(names) or "titles", example=self._example())

    def _example(self) -> str:
        """A wish that this catalogue can grant."""
        words: list[str] = []
        for facet in self.lexicon.facets:
            if facet.describes and facet.starts is not None and len(words) < 2:
                words.append(facet.values[int(np.argmax(np.diff(facet.starts)))])
        title = next((name for name in self.lexicon.names if 0 < len(name) < 40 and name.isprintable()), "")
        return " and ".join(f"“{word}”" for word in words) if words else f"something like “{title}”"


def _all(parts: Sequence[str]) -> str:
    """Predicates that must all hold, as one."""
    return " AND ".join(f"({part})" if " OR " in part and len(parts) > 1 else part for part in parts)


def _asks(reading: Reading) -> bool:
    """Whether a message asks for items, though it says nothing of them."""
    words = {word.text for word in reading.tokens}
    return bool(words & ASKS) and len(reading.tokens) <= 30
