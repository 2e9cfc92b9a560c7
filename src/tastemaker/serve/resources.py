"""What served systems lean on: a language model, as the settings say, and the systems that are served beside them."""

from __future__ import annotations

from collections.abc import Mapping

from tastemaker.contracts import Binds, ChatModel, Resources
from tastemaker.serve.entry import Entry
from tastemaker.serve.settings import Settings
from tastemaker.train.bundle import bind

LATE = 30.0  # seconds that a question to a language model may take, where a turn may take as long


def chat_of(settings: Settings) -> ChatModel | None:
    """The language model at the endpoint that the settings name; None: systems converse by the rules they bring.

    Raises:
        ConfigError: an address without a model, or a model without an address.
    """
    from tastemaker.language.chat import open_chat

    seconds = min(LATE, settings.turn_seconds)
    return open_chat(settings.chat_url, settings.chat_model, settings.chat_key_variable, seconds=seconds)


def lend(entry: Entry, shelf: Mapping[str, Entry], chat: ChatModel | None) -> None:
    """Bind what there is to a system that leans on something: of the others, those that number the same items."""
    if not isinstance(entry.system, Binds):
        return
    items = entry.bundle.items.series
    beside = {
        name: other.system
        for name, other in shelf.items()
        if name != entry.name and other.kind == "system" and other.lists and other.bundle.items.series.equals(items)
    }
    bind(entry.system, entry.catalogue, Resources(chat=chat, systems=beside))
