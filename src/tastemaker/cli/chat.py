"""The command `chat`: a conversation in the terminal with a system that holds sessions."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tastemaker.cli.common import note

if TYPE_CHECKING:
    from tastemaker.serve.entry import Entry
    from tastemaker.serve.turns import Talk

HELP = """:steps             show what is done for each answer, or no longer
:like N  :hide N   say what you make of item N of the list
:profile           what is known of you
:profile NAME a; b put these lines in the place of that list
:forget            empty what is known of you
:anew              begin anew
:quit              end (so does the end of the input)
A question is answered by one of its values, or by yes, no, or ?"""
REPLIES = {"yes": "yes", "y": "yes", "no": "no", "n": "no", "?": "unknown", "don't know": "unknown"}


def chat(
    bundles: Annotated[
        list[str], typer.Argument(help="Bundles, as PATH or NAME=PATH: one that converses, and what it leans on.")
    ],
    system: Annotated[str | None, typer.Option(help="Who converses; default: the first that can.")] = None,
    user: Annotated[str | None, typer.Option(help="Your id, if the system knows you.")] = None,
    steps: Annotated[bool, typer.Option("--steps", help="Show what is done for each answer.")] = False,
    chat_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible endpoint; default: the rules that the system brings.")
    ] = None,
    chat_model: Annotated[str | None, typer.Option(help="The model to ask for there.")] = None,
    chat_key_variable: Annotated[str | None, typer.Option(help="Environment variable that holds its key.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what is told as JSON, an event a line.")] = False,
) -> None:
    """Talk with a system that holds sessions, in the terminal or through a pipe, a message a line; :help says more."""
    from tastemaker.serve.turns import Talk, actor
    from tastemaker.types import UsageError

    given = {"chat_url": chat_url, "chat_model": chat_model, "chat_key_variable": chat_key_variable}
    shelf = _opened(bundles, given)
    if system is not None and system not in shelf:
        raise UsageError(f"there is no bundle named {system!r}", hint=f"there are: {', '.join(shelf)}")
    entry = shelf[actor(shelf, system)]
    console = Screen(entry, json=json, steps=steps)
    if console.person:
        note(f"{entry.bundle.info.title} ({entry.name}). Nothing of this is kept. :help, :quit")
    Conversation(console, lambda: Talk(entry, user)).run()


def _opened(bundles: list[str], given: dict[str, Any]) -> dict[str, Entry]:
    """Entries by name, each told of the others."""
    from tastemaker.types import optional, progress

    for package in ("sqlalchemy", "orjson"):
        optional(package, extra="serve", why="a conversation")
    from tastemaker.contracts import Resources
    from tastemaker.serve.entry import opened
    from tastemaker.serve.resources import chat_of, lend
    from tastemaker.serve.settings import Settings

    model, shelf = chat_of(Settings.read(**given)), {}
    with progress("opening", len(bundles)) as advance:
        for spelled in bundles:
            name, equals, path = spelled.partition("=")
            entry = opened(path if equals else spelled, name if equals else None, Resources(chat=model))
            shelf[entry.name] = entry
            advance(1)
    for entry in shelf.values():
        lend(entry, shelf, model)
    return shelf


class Conversation:
    """Reads lines, and does what they say."""

    def __init__(self, screen: Screen, anew: Callable[[], Talk]) -> None:
        self.screen, self.anew = screen, anew
        self.talk = anew()
        self.items: list[dict[str, Any]] = []
        self.ask: dict[str, Any] | None = None
        self.events: list[dict[str, Any]] = []

    def run(self) -> None:
        """Until the person ends it. Through a pipe the first error ends it too."""
        from tastemaker.types import TastemakerError

        for line in self.screen.lines():
            if line in (":quit", ":q"):
                return
            try:
                self.command(line) if line.startswith(":") else self.say(line)
            except KeyboardInterrupt:
                note("stopped; it is as if you had not said that")
            except TastemakerError as error:
                if not self.screen.person:
                    raise
                self.screen.wrong(f"{error.message} ({error.hint})" if error.hint else error.message)

    def say(self, line: str) -> None:
        """A turn: an answer where the line is one, else a text; what was done with items goes along."""
        answers = self._answers(line)
        telling = self.talk.say(None if answers else line, answers=answers, events=self.events)
        ask, items = None, self.items
        for kind, what in telling:
            if kind == "ask":
                ask = what
            elif kind == "items":
                items = what["items"]
            self.screen.tell(kind, what)
        self.ask, self.items, self.events = ask, items, []

    def _answers(self, line: str) -> list[dict[str, Any]]:
        """To what was asked: of several values a "no" means none of them."""
        if self.ask is None:
            return []
        attribute, values, said = self.ask["attribute"], self.ask["values"], line.lower().strip()
        named = [value for value in values if value.lower() == said]
        reply = "yes" if named else REPLIES.get(said)
        if reply is None or (reply == "yes" and not named and len(values) > 1):
            return []
        about = named or (values if reply == "no" else values[:1] if len(values) == 1 else []) or [None]
        return [{"attribute": attribute, "value": value, "reply": reply} for value in about]

    def command(self, line: str) -> None:
        """What begins with a colon."""
        from tastemaker.types import UsageError, nearest

        name, _, rest = line[1:].partition(" ")
        known = {"help", "steps", "like", "hide", "profile", "forget", "anew", "quit"}
        if name not in known:
            raise UsageError(f"there is no command :{name}", hint=nearest(name, known))
        if name == "help":
            note(HELP.replace("[", r"\["))
        elif name == "steps":
            self.screen.steps = not self.screen.steps
        elif name in ("like", "hide"):
            self._did(name, rest)
        elif name == "profile" and rest:
            which, _, lines = rest.partition(" ")
            known_lists = self.talk.profile()
            self.talk.correct({**known_lists, which: [one.strip() for one in lines.split(";") if one.strip()]})
            self.screen.tell("profile", self.talk.profile(), asked=True)
        elif name == "profile":
            self.screen.tell("profile", self.talk.profile(), asked=True)
        elif name == "forget":
            self.talk.correct({})
            note("what was known of you is forgotten")
        elif name == "anew":
            self.talk, self.items, self.ask, self.events = self.anew(), [], None, []

    def _did(self, kind: str, number: str) -> None:
        from tastemaker.types import UsageError

        if not number.strip().isdigit() or not 1 <= int(number) <= len(self.items):
            raise UsageError(f"say which item of the list, from 1 to {len(self.items)}, got {number!r}")
        row = self.items[int(number) - 1]
        self.events.append({"kind": kind, "item": row["item"], "session": "here", "position": row["rank"]})
        note(f"{kind} {plain(row['title'] or str(row['item']))}: it counts with what you say next".replace("[", r"\["))


class Screen:
    """What is read and shown: for a person, or a line an event for a program."""

    def __init__(self, entry: Entry, *, json: bool, steps: bool) -> None:
        from rich.console import Console

        self.entry, self.json, self.steps = entry, json, steps
        self.person = sys.stdin.isatty()
        self.out = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())

    def lines(self) -> Iterator[str]:
        """What the person says, line after line; empty lines are nothing."""
        if self.person:
            import contextlib

            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - `input` edits lines with it
        while True:
            try:
                line = input("\n> " if self.person else "")
            except (EOFError, KeyboardInterrupt):
                return
            if line.strip():
                yield line.strip()

    def tell(self, kind: str, what: dict[str, Any], *, asked: bool = False) -> None:
        """Show an event of a turn."""
        if self.json:
            import json

            typer.echo(json.dumps({"event": kind, **({"profile": what} if kind == "profile" else what)}))
        elif kind == "step" and self.steps:
            failed = " failed" if what["failed"] else ""
            self.out.print(plain(f"  {what['tool']}{failed}: {what['input']} -> {what['output']}"), style="dim")
        elif kind == "words":
            self.out.print(plain(what["text"]))
        elif kind == "ask":
            values = ", ".join(what["values"])
            self.out.print(plain(f"? {what['attribute']}{': ' if values else ''}{values}"), style="bold")
        elif kind == "items":
            for row in what["items"]:
                self.out.print(plain(f"{row['rank']:>3}. {row['title'] or row['item']}"))
        elif kind == "profile" and asked:
            rows = [f"{name}: {'; '.join(lines) or '-'}" for name, lines in what.items()]
            self.out.print(plain("\n".join(rows) or "nothing is known of you yet"))

    def wrong(self, text: str) -> None:
        """Say what went wrong."""
        self.out.print(plain(text), style="red")


def plain(text: str) -> str:
    """Without characters that a terminal would take for orders."""
    return "".join(one for one in text if one == "\n" or unicodedata.category(one) not in ("Cc", "Cf"))
