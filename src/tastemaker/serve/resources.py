"""What served systems lean on: a language model, as the settings say, and the systems that are served beside them."""

from __future__ import annotations

from collections.abc import Mapping

from tastemaker.contracts import Binds, ChatModel, Resources
from tastemaker.serve.entry import Entry
from tastemaker.serve.settings import Settings
from tastemaker.train.bundle import bind
from tastemaker.types import ConfigError

LATE = 30.0  # seconds that a question to a language model may take, where a turn may take as long


def chat_of(settings: Settings) -> ChatModel | None:
    """The language model at the endpoint that the settings name; None: systems converse by the rules they bring.

    Raises:
        ConfigError: an address without a model, or a model without an address.
    """
    url, model = settings.chat_url, settings.chat_model
    if url is None and model is None:
        return None
    if url is None or model is None:
        lacking = "chat_url" if url is None else "chat_model"
        raise ConfigError(
            f"a language model has an address and a name: the setting {lacking} is missing",
            hint="as TASTEMAKER_CHAT_URL=http://127.0.0.1:11434/v1 TASTEMAKER_CHAT_MODEL=qwen3",
        )
    from tastemaker.language.chat import Endpoint

    seconds = min(LATE, settings.turn_seconds)
    return Endpoint.of(model=model, base_url=url, key_variable=settings.chat_key_variable, seconds=seconds)


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
