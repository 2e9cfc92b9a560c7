"""What the embedded planner says: a few sentences, filled with what the tools found and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tastemaker.language.tasks import ReplyAsked, StepDone

IDENTITY = (
    "I am Tastemaker's embedded planner: rules over the columns and titles of this catalogue. I am neither a person "
    "nor a language model, and nothing you write here leaves this machine through me."
)
GREETING = "Hello! Tell me what you are looking for, or name something you liked, and I will look for more like it."
THANKS = "You are welcome. Come back whenever you want more."
WELCOME = "Good choice, enjoy it!"
HELP = (
    "Say what you want or do not want: I understand {columns}, numbers and comparisons (“cheaper”, “after 1990”), "
    "titles you liked, know already or do not want, and questions about an item. For example: {example}."
)
UNCLEAR = "I did not find anything of that in the catalogue. What should it be like? For example: {example}."
MORE = "Tell me more: what should it be like? For example: {example}."
LONGEST = 600
_LEFT = re.compile(r"([\d,]+) left")
_FOUND = re.compile(r"^([\d,]+) found", re.MULTILINE)


def worded(given: ReplyAsked) -> str:
    """An answer in words from a trace; items are shown beside it."""
    looked = [step for step in given.trace if step.tool == "look-up"]
    if looked and not given.items:
        return _facts(looked[-1], given.text)
    if looked and len(given.trace) <= 2:
        return _facts(looked[-1], given.text)
    if not given.items:
        return _nothing(given.trace)
    count = len(given.items)
    what = "this one" if count == 1 else f"these {count}"
    parts = [f"How about {what}?"]
    left = [_LEFT.search(step.output) for step in given.trace if step.tool == "hard filter" and not step.failed]
    if left and left[-1] and int(left[-1][1].replace(",", "")) > count:
        parts = [f"{left[-1][1]} fit what you asked for; how about {what}?"]
    if any(step.tool == "soft filter" and not step.failed for step in given.trace):
        parts.append("They are close to what you named." if count > 1 else "It is close to what you named.")
    if any(step.failed for step in given.trace):
        parts.append("Not all of what you asked for could be looked for.")
    return " ".join(parts)


def _facts(step: StepDone, text: str) -> str:
    """What a look-up read aloud, on one line, cut."""
    if step.failed:
        return "I found nothing of that in the catalogue."
    found = _FOUND.search(step.output)
    if re.search(r"\bhow many\b|\bnumber of\b", text[:200].lower()) and found:
        n = int(found[1].replace(",", ""))
        return "There is one." if n == 1 else f"There are {found[1]}." if n else "There are none."
    lines = [line.strip() for line in step.output.splitlines()]
    told = [line for line in lines if ":" in line and not _FOUND.match(line)] or lines
    said = plain(". ".join(line.replace(" | ", "; ") for line in told))
    return said or "The catalogue does not say."


def _nothing(trace: Sequence[StepDone]) -> str:
    filtered = [step for step in trace if step.tool == "hard filter"]
    if filtered and any(_LEFT.search(step.output) is None or "0 left" in step.output for step in filtered):
        return "Nothing in the catalogue is all of that. Which of your wishes matters least?"
    return "I found nothing that fits. Could you say it in other words, or leave something out?"


def plain(text: str) -> str:
    """Text on one line, without signs that steer a terminal or a page, cut."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST]).split())
    return clean if len(clean) <= LONGEST else clean[: LONGEST - 1] + "…"
