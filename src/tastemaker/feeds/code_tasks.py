"""Items in two languages, codes and words of their titles, and the tasks that teach one by the other.

A row is a sign that names the task, a prompt, and an answer that is to be told token by token:

    NEXT             codes of a history         ->  codes of what comes next, after each of its items
    NEXT_BY_TITLES   titles of a history        ->  codes of what comes next
    NEXT_TITLE       codes of a history         ->  the title of what comes next
    CODES            the title of an item       ->  its codes
    TITLE            the codes of an item       ->  its title

A token is a code, moved behind the codes of the levels before; then come words, the sign that a title ends, and the
signs of the tasks. Ref: Zheng et al. (LC-Rec), arXiv:2311.09049, section III-C; arXiv:2510.24431, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tastemaker.feeds.feed import RowFeed, Rows
from tastemaker.feeds.sequences import Windows
from tastemaker.types import Codebook, Jagged, mix
from tastemaker.types.jagged import concat, joined

NEXT, NEXT_BY_TITLES, NEXT_TITLE, CODES, TITLE = range(5)
N_TASKS = 5
Ragged = Jagged[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Told:
    """B rows of N tokens in all, after M of which something is to be told.

    longest: length of the longest row

    Shapes:
        tokens: [N] int64
        offsets: [B + 1] int64, row b is tokens[offsets[b]:offsets[b + 1]]
        places: [M] int64, rising: the tokens after which something is to be told
        targets: [M] int64, what: a code of its level, or a word (the last one is the end of a title)
        heads: [M] int64, the level, or Q for a word
    """

    tokens: Any
    offsets: Any
    places: Any
    targets: Any
    heads: Any
    longest: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: slice) -> Told:
        """Whole rows, with what is told of them."""
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        offsets = self.offsets[first : last + 1]
        start, stop = int(offsets[0]), int(offsets[-1])
        low, high = map(int, np.searchsorted(self.places, (start, stop)))
        return Told(
            self.tokens[start:stop],
            offsets - start,
            self.places[low:high] - start,
            self.targets[low:high],
            self.heads[low:high],
            int(np.diff(offsets).max(initial=0)),
        )


@dataclass(frozen=True, eq=False)
class Phrases:
    """Items as tokens.

    titles: numbers of words, of every item's title; n_words: how many there may be; max_titles: titles of a history
    that are read, the latest
    """

    book: Codebook
    titles: Ragged
    n_words: int
    max_titles: int

    def asked(self, task: int, items: Ragged) -> Ragged:
        """Prompts: the sign of a task, then items [B, ..] as it has them, oldest first."""
        sign = Jagged(np.full(len(items), self.book.n_tokens + self.n_words + 1 + task), np.arange(len(items) + 1))
        return joined(
            sign, self.words(items.last(self.max_titles)) if task in (NEXT_BY_TITLES, CODES) else self.codes(items)
        )

    def codes(self, items: Ragged) -> Ragged:
        """All their codes, one item after the other."""
        return Jagged(self.book.tokens[items.values].ravel(), items.offsets * self.book.depth)

    def words(self, items: Ragged) -> Ragged:
        """All their titles, each with its end."""
        titles = self.titles.take(items.values)
        end = Jagged(np.full(len(titles), self.n_words), np.arange(len(titles) + 1))
        each = joined(titles, end)
        return Jagged(each.values + self.book.n_tokens, each.offsets[items.offsets])

    def told(self, prompts: Ragged, answers: Ragged) -> Told:
        """Rows that end with an answer each, in order of length; its last token is told and not read."""
        order = np.argsort(prompts.lengths + answers.lengths, kind="stable")
        prompts, answers = prompts.take(order), answers.take(order)
        rows = joined(prompts, answers)
        read = np.ones(len(rows.values), dtype=np.bool_)
        read[rows.offsets[1:] - 1] = False
        within = np.arange(len(rows.values)) - np.repeat(rows.offsets[:-1], rows.lengths)
        asked = within >= np.repeat(prompts.lengths, rows.lengths)
        wanted = rows.values[asked]
        bounds = np.append(self.book.shifts, self.book.n_tokens)
        heads = np.searchsorted(bounds, wanted, side="right") - 1
        return Told(
            rows.values[read],
            rows.offsets - np.arange(len(rows) + 1),
            (np.arange(len(rows.values)) - rows.rows - 1)[asked],  # one token of each row before it was not read
            wanted - bounds[heads],
            heads,
            int(rows.lengths.max()) - 1,
        )


def aligned_tasks(seen: Windows, phrases: Phrases, batch_size: int, *, aligned: float) -> RowFeed[Told]:
    """Every window once an epoch as the task `NEXT`, and for each window `aligned` rows of each other task.

    Those are drawn anew: an item with a title, or a window and how much of it is the history.
    """
    titled, longer = np.flatnonzero(phrases.titles.lengths), seen.least(2)
    more = round(aligned * len(seen))
    others = [*([NEXT_BY_TITLES, NEXT_TITLE] if len(longer) else []), CODES, TITLE] if len(titled) else []
    tasks = np.array([NEXT, *others])

    def make(rows: Rows, rng: np.random.Generator) -> Told:
        which = np.zeros(len(rows), dtype=np.int64)
        if more:
            which = np.maximum(0, 1 + (rows - len(seen)) // more)
        prompts, answers = [], []
        for task in np.unique(tasks[which]).tolist():
            mine = rows[tasks[which] == task]
            prompt, answer = _drawn(task, mine, rng)
            prompts.append(prompt)
            answers.append(answer)
        return phrases.told(concat(prompts), concat(answers))

    def _drawn(task: int, rows: Rows, rng: np.random.Generator) -> tuple[Ragged, Ragged]:
        if task == NEXT:
            items = Jagged(*seen.gather(rows))
            return phrases.asked(NEXT, Jagged.empty(len(rows), np.int64)), phrases.codes(items)
        if task in (CODES, TITLE):
            items = Jagged(rng.choice(titled, len(rows)), np.arange(len(rows) + 1))
            return phrases.asked(task, items), phrases.codes(items) if task == CODES else phrases.words(items)
        picked = rng.integers(len(longer), size=len(rows))
        cut = longer.starts[picked] + rng.integers(1, (longer.stops - longer.starts)[picked])
        read = Windows(longer.items, longer.users[picked], longer.starts[picked], cut)
        history = Jagged(*read.gather(np.arange(len(picked))))
        then = Jagged(longer.items[cut], np.arange(len(rows) + 1))
        return phrases.asked(task, history), phrases.codes(then) if task == NEXT_BY_TITLES else phrases.words(then)

    return RowFeed(len(seen) + len(others) * more, batch_size, make)


@dataclass(frozen=True, eq=False)
class Asked:
    """B prompts, and the item that answers each.

    longest: length of the longest prompt

    Shapes:
        tokens: [N] int64; offsets: [B + 1] int64
        targets: [B] int64, items
        users: [B] int32
        histories: Jagged of B rows of items, int32, empty where the prompt is a title
    """

    tokens: Any
    offsets: Any
    longest: int
    targets: Any
    users: Any
    histories: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Prompts:
    """Prompts by number, each with what answers it: a choice's own, so that like histories do not share their answers.

    Args:
        seen: windows that end with the answer, of two events at least.
        most: how many of them are asked about, by a fixed hash of their numbers.
        aligned: as many more, for each, of the tasks `NEXT_BY_TITLES` and `CODES`.
    """

    def __init__(self, seen: Windows, phrases: Phrases, most: int, aligned: float) -> None:
        self.seen, self.phrases = seen, phrases
        self.picked = np.sort(np.argsort(mix(np.arange(len(seen))), kind="stable")[:most])
        more = round(aligned * len(self.picked)) if len(phrases.titles.values) else 0
        self.tasks = np.repeat([NEXT, NEXT_BY_TITLES, CODES], [len(self.picked), more, more])
        self.rows = np.concatenate([self.picked, *[np.resize(self.picked, more)] * 2])

    def __len__(self) -> int:
        return len(self.tasks)

    def take(self, rows: Rows) -> Asked:
        """The prompts of these numbers, those of one task side by side."""
        seen, phrases = self.seen, self.phrases
        rows = rows[np.argsort(self.tasks[rows], kind="stable")]
        of, tasks = self.rows[rows], self.tasks[rows]
        targets = seen.items[seen.stops[of] - 1]
        read = Windows(seen.items, seen.users[of], seen.starts[of], seen.stops[of] - 1)
        histories = Jagged(*read.gather(np.arange(len(of))))
        histories = histories.where(np.repeat(tasks != CODES, histories.lengths))
        prompts = []
        for task in np.unique(tasks).tolist():
            mine = tasks == task
            own = (
                Jagged(targets[mine], np.arange(mine.sum() + 1))
                if task == CODES
                else histories.take(np.flatnonzero(mine))
            )
            prompts.append(phrases.asked(task, own))
        whole = concat(prompts)
        longest, users = int(whole.lengths.max()), seen.users[of].astype(np.int32)
        histories = Jagged(histories.values.astype(np.int32), histories.offsets)
        return Asked(whole.values, whole.offsets, longest, targets, users, histories)


@dataclass(frozen=True, eq=False)
class Groups:
    """B prompts with G answers each, and what is to be learnt from them.

    Shapes:
        tokens: [N] int64, offsets: [B + 1] int64, the prompts; longest: length of the longest
        codes: [B, G, Q] int64; there: [B, G] bool, false after the last answer of a shorter group
        advantages: [B, G] float32
        old, reference: [B, G, Q] float32, log-probabilities under the policy that played, where that is another than
            the one that learns, and under the one to keep near; or None
    """

    tokens: Any
    offsets: Any
    longest: int
    codes: Any
    there: Any
    advantages: Any
    old: Any = None
    reference: Any = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: slice) -> Groups:
        """Whole prompts, with their answers."""
        first, last, _ = rows.indices(len(self))
        last = max(first, last)
        offsets = self.offsets[first : last + 1]
        whole = self.codes, self.there, self.advantages, self.old, self.reference
        parts = (None if part is None else part[first:last] for part in whole)
        longest = int(np.diff(offsets).max(initial=0))
        return Groups(self.tokens[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0], longest, *parts)
